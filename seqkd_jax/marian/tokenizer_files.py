"""The tokenizer's files of a Marian directory: which row of the embedding is which text.

  vocab.json             text -> id
  tokenizer_config.json  options, and in added_tokens_decoder the tokens that were added after training
  added_tokens.json      text -> id of those, special_tokens_map.json which of them are special: what versions of
                         transformers before 4.34 wrote instead

`resize_token_embeddings` may leave rows behind the last id, to a multiple of 8 or 64. They have no text.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from seqkd_jax.data.tokenizers import Added
from seqkd_jax.data.vocabulary import SPECIALS
from seqkd_jax.marian.layout import FIXED_TOKENIZER
from seqkd_jax.types import EOS, PAD, UNK, UserError
from seqkd_jax.utils import files
from seqkd_jax.utils.untrusted import require_form, shown

AGAIN = "save the tokenizer again with transformers"
MOST_PADDING = 1023  # rows without a text, to a multiple of 1024; more are those of another vocabulary


class Names(NamedTuple):
    """The names of the rows of a Marian embedding."""

    ids: dict[str, int]  # of every text, 0 to n - 1 without a gap; rows behind those are padding
    added: tuple[Added, ...]  # of these texts
    languages: tuple[str, str] | None  # of source and target, where the tokenizer's options name them


def read_names(directory: Path, size: int) -> Names:
    """The names of the first rows of an embedding with `size` rows. UserError: files that do not fit, or damaged."""
    path = directory / "tokenizer_config.json"
    options = read_object(path, {})
    require_fixed({name: _content(value) for name, value in options.items()}, FIXED_TOKENIZER, path)
    later, added = _read_added(directory, options)
    path = directory / "vocab.json"
    vocabulary = dict(require_form(read_object(path), {...: int}, path, AGAIN))
    for name, index in later.items():
        if vocabulary.setdefault(name, index) != index:
            raise UserError(f"{directory}: {shown(name)} is {vocabulary[name]} in vocab.json, but added as {index}")
    missing = [name for name in (SPECIALS[PAD], SPECIALS[UNK], SPECIALS[EOS]) if name not in vocabulary]
    if missing:
        raise UserError(f"{path}: has no {missing[0]}; only vocabularies of the opus-mt family are supported")
    count = len(vocabulary)
    if set(vocabulary.values()) != set(range(count)):
        raise UserError(f"{path}: its ids and those of added tokens must be 0 to {count - 1:,}, each of them once")
    if count > size:
        last = next(name for name, index in vocabulary.items() if index == count - 1)
        raise UserError(
            f"{path}: {shown(last)} has id {count - 1:,}, but vocab_size of config.json is {size:,}; call "
            "resize_token_embeddings(len(tokenizer)) and save the model again"
        )
    if size - count > MOST_PADDING:
        raise UserError(f"{path}: has {count:,} ids, but vocab_size of config.json is {size:,}; take the model's own")
    known = [token for token in added if token.text in vocabulary and token.text not in SPECIALS]
    return Names(vocabulary, tuple(sorted(known, key=lambda token: vocabulary[token.text])), _languages(options))


def _read_added(directory: Path, options: Mapping) -> tuple[dict[str, int], list[Added]]:
    """The ids of added tokens, and what is known of them; of a special token without an id only the latter."""
    path, listing = directory / "tokenizer_config.json", [options]
    if "added_tokens_decoder" in options:
        form = {"content": str, **{f"{name}?": bool for name in Added._fields[1:]}}
        tokens = require_form(options, {"added_tokens_decoder": {...: form}}, path, AGAIN)["added_tokens_decoder"]
        if wrong := [index for index in tokens if not index.isdecimal() or len(index) > 10]:
            raise UserError(f"{path}: added_tokens_decoder: {shown(wrong[0])} is no id; {AGAIN}")
        added = [
            Added(token["content"], *(token.get(name, False) for name in Added._fields[1:]))
            for token in tokens.values()
        ]
        ids = {token.text: int(index) for index, token in zip(tokens, added, strict=True)}
    else:
        path = directory / "added_tokens.json"
        ids, listing = read_object(path, {}), [options, read_object(directory / "special_tokens_map.json", {})]
        added = [Added(name) for name in ids]
    lists = [one.get(key) for one in listing for key in ("additional_special_tokens", "extra_special_tokens")]
    special = {str(_content(token)) for tokens in lists if isinstance(tokens, list) for token in tokens}
    added = [token._replace(special=token.special or token.text in special) for token in added]
    more = sorted(special - {token.text for token in added})
    return require_form(ids, {...: int}, path, AGAIN), [*added, *(Added(name, special=True) for name in more)]


def _languages(options: Mapping) -> tuple[str, str] | None:
    source, target = options.get("source_lang"), options.get("target_lang")
    if isinstance(source, str) and isinstance(target, str) and source and target:
        return source, target
    return None


def require_fixed(config: Mapping, fixed: Mapping, path: Path) -> None:
    """UserError for an option that is not what `fixed` says; one that is absent or null is."""
    for name, value in fixed.items():
        if config.get(name, value) not in (value, None):
            raise UserError(f"{path}: {name} is {shown(config[name])}; only {value!r} is supported")


def read_object(path: Path, default: dict | None = None) -> dict:
    """A JSON object. default: the value where there is no such file. UserError: none, or damaged."""
    if default is not None and not path.exists():
        return default
    return require_form(files.read_json(path), {}, path, "download the file again")


def _content(token: Any) -> Any:
    """The text of a token, which may be stored in an object."""
    return token.get("content", token) if isinstance(token, dict) else token
