"""Peers that decode our Transformer's weights: CTranslate2 and, where they have Marian's form, Hugging Face.

The same sentences, limits and length rule. What they call differently: a limit holds for a batch (ours: a sentence), so
a batch gets its largest; CTranslate2 at length penalty 0 ends a sentence when its best hypothesis has ended, Hugging
Face when no live one can enter the K best, as ours.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from experiments.benchmarks.benchmark import cores
from experiments.benchmarks.decoding import ctranslate2_form
from experiments.benchmarks.decoding.systems import Loaded, Outputs, Sentences, in_place, sorted_batches
from experiments.benchmarks.workers import Missing
from seqkd_jax import checkpoint
from seqkd_jax.checkpoint import Checkpoint
from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding.search import length_limits
from seqkd_jax.marian import export_marian
from seqkd_jax.types import EOS, UserError
from seqkd_jax.utils import files


def limits(sentences: Sentences, rules: SearchConfig) -> tuple[int, int]:
    """The largest limits of a batch, shortest and longest, in target tokens."""
    shortest, longest = length_limits(rules, np.array([len(ids) - 1 for ids in sentences]))
    return int(shortest.max()), int(longest.max())


def penalty(rules: SearchConfig) -> float:
    """The exponent that scores are divided by the length to the power of."""
    return rules.length_alpha if rules.length_rule == "power" else 0.0


def ctranslate2(compute_type: str, each_core: bool, model: Checkpoint, scratch: Path) -> Loaded:
    """CTranslate2 at this type of weights: a worker for each core, or all cores on one batch; or the GPU."""
    import ctranslate2

    converted = scratch / f"{checkpoint.fingerprint(model.directory)[:12]}-{compute_type}"
    if not converted.exists():
        ctranslate2_form.convert(model, converted, compute_type)
    device = "cuda" if on_gpu() and ctranslate2.get_cuda_device_count() else "cpu"
    workers, threads = (cores(), 1) if each_core and device == "cpu" else (1, cores())
    options = {"device": device, "compute_type": compute_type, "inter_threads": workers, "intra_threads": threads}
    translator = ctranslate2.Translator(str(converted), **options)
    entries = model.vocabularies.source.entries
    ids = {name: index for index, name in enumerate(model.vocabularies.target.entries)}

    def loaded(sentences: Sentences, rows: int, rules: SearchConfig) -> Callable[[], Outputs]:
        shortest, longest = limits(sentences, rules)
        decoding = {
            "beam_size": rules.beam,
            "length_penalty": penalty(rules),
            "min_decoding_length": shortest,
            "max_decoding_length": longest,
            "max_batch_size": rows,
            "suppress_sequences": ctranslate2_form.never(model),
            "disable_unk": rules.forbid_unk,
            "max_input_length": 0,
        }
        tokens = [[entries[index] for index in sentence] for sentence in sentences]

        def run() -> Outputs:
            found = translator.translate_batch(tokens, **decoding)
            return [[ids[name] for name in one.hypotheses[0]] for one in found]

        return run

    return loaded


def hugging_face(model: Checkpoint, scratch: Path) -> Loaded:
    """`MarianMTModel.generate` of transformers, in PyTorch, float32. Missing: Marian's form cannot hold the model."""
    import torch
    from transformers import MarianMTModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(cores())
    marian = scratch / f"marian-{checkpoint.fingerprint(model.directory)[:12]}"
    try:
        marian.exists() or export_marian(model.directory, marian)
    except UserError as error:
        raise Missing(str(error).removeprefix(f"{model.directory}: ")) from None
    device = torch.device("cuda" if on_gpu() and torch.cuda.is_available() else "cpu")
    network = MarianMTModel.from_pretrained(marian, use_safetensors=True).to(device).eval()
    theirs = files.read_json(marian / "vocab.json")
    entries = model.vocabularies.source.entries
    to_theirs = {index: theirs[name] for index, name in enumerate(entries) if name in theirs}
    to_ours = {their: index for index, their in to_theirs.items()}
    pad, eos = network.config.pad_token_id, to_theirs[EOS]

    def batch(sentences: Sentences, rules: SearchConfig) -> tuple[np.ndarray, dict]:
        shortest, longest = limits(sentences, rules)
        source = np.full((len(sentences), max(map(len, sentences))), pad, np.int64)
        for row, ids in zip(source, sentences, strict=True):
            row[: len(ids)] = [to_theirs[index] for index in ids]
        decoding = {
            "num_beams": rules.beam,
            "length_penalty": penalty(rules),
            "min_new_tokens": shortest,
            "max_new_tokens": longest,
            "max_length": None,
            "early_stopping": rules.stop == "first_k_finished",
            "do_sample": False,
        }
        return source, decoding

    def loaded(sentences: Sentences, rows: int, rules: SearchConfig) -> Callable[[], Outputs]:
        places = sorted_batches(sentences, rows)
        batches = [batch([sentences[place] for place in part], rules) for part in places]
        return lambda: in_place(places, [decode(*one) for one in batches])

    @torch.inference_mode()
    def decode(array: np.ndarray, decoding: dict) -> Outputs:
        source = torch.from_numpy(array).to(device)
        found = network.generate(input_ids=source, attention_mask=(source != pad).long(), **decoding).tolist()
        return [[to_ours[index] for index in row[1:] if index not in (pad, eos)] for row in found]

    return loaded


def on_gpu() -> bool:
    """Peers go where ours are."""
    return jax.default_backend() == "gpu"
