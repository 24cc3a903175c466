"""What can be set: frozen dataclasses, each field with its unit and meaning. No logic but checks, no hidden defaults.

The command line is made from these (tyro reads the string under a field as its help), checkpoints store them as JSON,
and compiled functions are cached on them.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

ComputeType = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class LSTMConfig:
    """The paper's LSTM (Luong et al. 2015, "global general" attention, input feeding). Defaults: its 2x500 student."""

    layers: int = 2
    """Layers of the encoder and of the decoder."""
    size: int = 500
    """Width of embeddings, hidden states and attentional vectors."""
    bidirectional: bool = False
    """Encode forwards and backwards and sum the two (the paper: forwards only)."""
    attention: bool = True
    """Luong's general attention; without it the decoder reads the last encoder state only."""
    input_feeding: bool = True
    """Feed the attentional vector of one step to the next."""
    start_from_encoder: bool = True
    """Start the decoder from the encoder's last states; otherwise from zeros."""
    dropout: float = 0.3
    """Rate on the inputs of layers 2 and up and on the attentional vector."""
    init_scale: float = 0.1
    """Parameters start uniform in [-init_scale, init_scale]."""
    compute: ComputeType = "float32"
    """Type of matrix products and activations; parameters and losses stay float32."""


@dataclass(frozen=True)
class TransformerConfig:
    """An encoder-decoder Transformer (Vaswani et al. 2017). Defaults: a small one, pre-norm."""

    encoder_layers: int = 3
    """Encoder layers."""
    decoder_layers: int = 3
    """Decoder layers."""
    width: int = 256
    """Width of embeddings and residual stream."""
    heads: int = 4
    """Attention heads; must divide the width."""
    feed_forward: int = 1024
    """Inner width of the position-wise layers."""
    norm: Literal["pre", "post"] = "pre"
    """Layer norm before each sub-layer (and once at the end), or after each residual sum as in 2017."""
    biases: bool = True
    """Biases in the linear layers."""
    activation: Literal["relu", "gelu", "swish"] = "relu"
    """Activation of the position-wise layers."""
    tied: Literal["none", "target", "all"] = "all"
    """Embeddings shared: none, target input with output, or source too (needs one joint vocabulary)."""
    scale_embeddings: bool = True
    """Multiply embeddings by sqrt(width)."""
    output_bias: bool = False
    """A bias on the vocabulary logits (Marian has one)."""
    dropout: float = 0.1
    """Rate on embeddings and on every sub-layer's output."""
    attention_dropout: float = 0.0
    """Rate on attention weights."""
    activation_dropout: float = 0.0
    """Rate inside the position-wise layers."""
    compute: ComputeType = "float32"
    """Type of matrix products and activations; parameters, norms and losses stay float32."""
    positions: Literal["tensor2tensor", "vaswani"] = "tensor2tensor"
    """Frequencies of the sinusoids, i < width/2: 10000^(-i/(width/2 - 1)), or 10000^(-2i/width) (Hugging Face)."""


@dataclass(frozen=True)
class SequenceLSTMConfig:
    """An LSTM that reads one sequence: a language model, or a classifier of what it has read (Abnar et al. 2020)."""

    layers: int = 2
    """Layers."""
    size: int = 128
    """Width of embeddings and hidden states."""
    reads: Literal["every", "last"] = "last"
    """Features of every position (a language model), or of the last one only (a classifier)."""
    tied: bool = False
    """Output weights are the embeddings, through a projection of the last layer (a language model only)."""
    dropout: float = 0.3
    """Rate on the output of every layer."""
    recurrent_dropout: float = 0.0
    """Rate on the hidden state that goes back into its layer, one mask for all steps of a row."""
    input_dropout: float = 0.2
    """Rate on the embeddings."""
    init_scale: float = 0.0
    """Parameters start uniform in [-init_scale, init_scale]; 0: Glorot uniform, embeddings within 0.1 of zero."""
    compute: ComputeType = "float32"
    """Type of matrix products and activations; parameters and losses stay float32."""


@dataclass(frozen=True)
class SequenceTransformerConfig:
    """A Transformer that reads one sequence: a language model, or a classifier (Abnar et al. 2020)."""

    layers: int = 4
    """Layers; steps of the one layer if shared."""
    width: int = 64
    """Width of embeddings and residual stream."""
    heads: int = 4
    """Attention heads; must divide the width."""
    feed_forward: int = 256
    """Inner width of the position-wise layers."""
    causal: bool = True
    """Each position sees itself and what is before it; otherwise all of the sequence."""
    reads: Literal["every", "last", "first"] = "last"
    """Features of every position (a language model), of the last, or of the first (BERT's CLS) only."""
    shared: bool = False
    """One layer's weights at every depth: a Universal Transformer (Dehghani et al. 2019), without halting."""
    tied: bool = False
    """Output weights are the embeddings (a language model only)."""
    norm: Literal["pre", "post"] = "pre"
    """Layer norm before each sub-layer (and once at the end), or after each residual sum."""
    biases: bool = True
    """Biases in the linear layers."""
    activation: Literal["relu", "gelu", "swish"] = "gelu"
    """Activation of the position-wise layers."""
    dropout: float = 0.1
    """Rate on every sub-layer's output."""
    embedding_dropout: float = 0.1
    """Rate on the embeddings."""
    attention_dropout: float = 0.1
    """Rate on attention weights."""
    activation_dropout: float = 0.0
    """Rate inside the position-wise layers."""
    max_length: int = 128
    """Positions that have a learned embedding: of the longest sequence, its marks and padding included."""
    init_scale: float = 0.05
    """Standard deviation of the embeddings at the start; the linear layers start Glorot uniform."""
    compute: ComputeType = "float32"
    """Type of matrix products and activations; parameters, norms and losses stay float32."""


@dataclass(frozen=True)
class CNNConfig:
    """Three convolutions of images (Abnar et al. 2020, vcnn_mnist7), with group for batch normalisation."""

    FORM: ClassVar[int] = 2  # part of a stage's identity: raised when the same settings come to mean another model
    channels: tuple[int, ...] = (32, 32, 16)
    """Channels of each 3x3 convolution."""
    maxout: tuple[int, ...] = (32, 32, 16)
    """Of each, so many units are left: the maximum of a group of channels; as many as channels: no maxout."""
    pools: tuple[int, ...] = (1, 2, 2)
    """Of each, the side of the max-pooling; 1: none."""
    groups: int = 4
    """Groups of the normalisation; must divide the units of each layer."""
    dropout: float = 0.3
    """Rate on the maps of every layer, after pooling."""


@dataclass(frozen=True)
class MLPConfig:
    """Dense layers over pixels (Abnar et al. 2020, ff_mnist4), with layer for batch normalisation."""

    FORM: ClassVar[int] = 2
    widths: tuple[int, ...] = (512, 128, 32)
    """Width of each layer."""
    dropout: float = 0.1
    """Rate on the output of each layer."""


@runtime_checkable
class ModelConfig(Protocol):
    """What a model is made by: a frozen dataclass, every field with a default. `models` knows which model is whose."""

    @property
    def dropout(self) -> float: ...


@dataclass(frozen=True)
class VocabularyConfig:
    """How text becomes ids."""

    kind: Literal["sentencepiece", "words", "marian", "labels"] = "sentencepiece"
    """Subwords learned from raw text, the most frequent words and <unk> as in the paper, what `import` found, or the
    classes of a classifier (vocab.labels)."""
    size: int = 8000
    """Entries, the four special ones included (words: the paper's 50k is size 50004)."""
    joint: bool = True
    """One sentencepiece vocabulary for both languages (words are always separate)."""
    algorithm: Literal["bpe", "unigram"] = "bpe"
    """Sentencepiece's algorithm."""
    tokenizer: Literal["refuse_raw", "pretokenised", "13a", "intl", "char"] = "refuse_raw"
    """Words only: the text is tokenised already, or the sacrebleu tokenizer to apply; by default raw text is refused"""


@dataclass(frozen=True)
class CorpusConfig:
    """Where sentence pairs come from; `path` may be a directory, a file or a data set of the hub (seqkd_jax/corpus)."""

    path: str = ""
    """A directory with train/valid/test.<lang>, a TSV, JSONL or Parquet file, a hub name; empty: embedded language."""
    source: str = "en"
    """Source language: a file suffix, a column or a key of the `translation` feature."""
    target: str = "de"
    """Target language, likewise."""
    source_file: str = ""
    """With target_file: two named files instead of a path (the training split)."""
    target_file: str = ""
    """See source_file."""
    hub_config: str = ""
    """Configuration of a hub data set, if it has several."""


@dataclass(frozen=True)
class BatchConfig:
    """How sentence pairs become batches of few static shapes. Batches never depend on the number of devices."""

    tokens: int = 2048
    """Target tokens in a batch, padding included; 0: count sentences instead."""
    sentences: int = 0
    """Sentences in a batch, whatever their length (the paper: 64 or 128); needs tokens = 0."""
    buckets: int = 3
    """Number of static shapes, thus of compilations of the training step."""
    max_source: int = 50
    """Longest source of a training pair, in ids; longer pairs are dropped and counted."""
    max_target: int = 50
    """Longest target of a training pair, in ids without BOS and EOS."""
    data_seed: int = 0
    """Fixes the order: a permutation is a function of this and the epoch."""


@dataclass(frozen=True)
class LossConfig:
    """The loss axis of the table. The corpus axis is a directory, not a loss."""

    name: str = "nll"
    """An entry of losses.LOSSES: nll, word_kd."""
    label_smoothing: float = 0.0
    """Mass spread evenly over the vocabulary in the gold term."""
    alpha: float = 0.5
    """Weight of the teacher's term; the gold term has 1 - alpha (the paper: 0.5)."""
    temperature: float = 1.0
    """Divides both models' logits in the teacher's term (the paper: 1)."""
    temperature_scaling: Literal["hinton", "none", "inverse"] = "hinton"
    """The teacher's term is multiplied by T^2 (Hinton et al. 2015), by 1, or by 1/T^2 (Abnar et al.'s code)."""
    teacher_dropout: bool = False
    """The teacher teaches with its dropout on, as in Abnar et al.'s code; nothing of it can be cached then."""


@dataclass(frozen=True)
class OptimiserConfig:
    """The optimiser and its learning rate."""

    name: Literal["sgd", "adam"] = "adam"
    """SGD as in the paper, or Adam."""
    learning_rate: float = 1e-3
    """The peak rate (the paper's SGD: 1.0, fine-tuning 0.1)."""
    schedule: Literal["constant", "paper", "inverse_sqrt", "cosine", "exponential", "cosine_restarts"] = "inverse_sqrt"
    """paper: halve after every epoch from decay_from_epoch on, or once validation perplexity has risen."""
    warmup_steps: int = 400
    """Steps of linear warm-up (not under `paper`)."""
    decay_from_epoch: int = 9
    """paper: the first epoch (counted from 1) after which the rate decays."""
    decay_factor: float = 0.5
    """paper, exponential: the factor."""
    hold_steps: int = 0
    """exponential: updates at the peak rate, after the warm-up and before the decay begins."""
    decay_steps: int = 1000
    """exponential: updates in which the rate falls by the factor; cosine_restarts: length of the first period."""
    restart_stretch: float = 2.0
    """cosine_restarts: each period is so many times as long as the one before."""
    restart_peak: float = 1.0
    """cosine_restarts: each period begins at this times the peak of the one before."""
    restart_floor: float = 0.0
    """cosine_restarts: each period ends at this share of the peak rate."""
    b1: float = 0.9
    """Adam."""
    b2: float = 0.98
    """Adam."""
    epsilon: float = 1e-9
    """Adam."""
    clip_norm: float = 5.0
    """Global norm of the normalised gradient; 0: no clipping."""
    normalise: Literal["tokens", "sentences"] = "tokens"
    """What the summed gradient is divided by; the paper: sentences, and its rates and clipping depend on it."""
    l2: float = 0.0
    """Adds this times the sum of squares of all matrices to the loss, before clipping (Keras' regulariser)."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run; the model, the corpus and the vocabulary are beside it."""

    loss: LossConfig = LossConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    batch: BatchConfig = BatchConfig()
    epochs: int = 10
    """Passes over the training corpus at most."""
    max_steps: int = 0
    """Updates at most; 0: no limit beside epochs."""
    seed: int = 0
    """Fixes initialisation and dropout."""
    replicas: int = 1
    """So many seeds are trained at once, seed, seed + 1, ..., on the same batches; 1: an ordinary run."""
    replicas_by: Literal["auto", "vmap", "map"] = "auto"
    """All replicas in every product, or one after the other within a step; auto: what was faster on this backend."""
    accumulate: int = 1
    """Microbatches per update; the result is that of the whole batch."""
    average_decay: float = 0.0
    """Exponential moving average of the weights, used for validation and saved; 0: off."""
    validate_every: int = 0
    """Updates between validations; 0: once an epoch."""
    validate_bleu: bool = False
    """Also translate the validation set greedily; then BLEU, not loss, picks the best checkpoint."""
    patience: int = 0
    """Validations without improvement before an early stop; 0: never."""
    keep: int = 0
    """Checkpoints of past validations kept beside best and last, for averaging."""
    keep_path: bool = False
    """Keep the weights before the first update and after epochs 1, 2, 4, 8, ...: epoch-<n>/; and at the end: end/."""
    devices: int = 0
    """Devices to train on; 0: all."""
    save_minutes: float = 10.0
    """Save everything needed to go on at least this often, beside the saves at validations."""
    log_every: int = 20
    """Updates between lines of metrics.jsonl."""


@dataclass(frozen=True)
class SearchConfig:
    """The rules of the beam search. Beam 1 without a length rule is greedy decoding."""

    beam: int = 5
    """Hypotheses kept, and returned."""
    length_rule: Literal["none", "power", "gnmt"] = "none"
    """Scores are log p, log p / L^a, or log p / ((5+L)/6)^a; L counts the tokens. The paper: none."""
    length_alpha: float = 1.0
    """The exponent a, not negative."""
    length_counts_eos: bool = True
    """Whether EOS is one of the L tokens."""
    stop: Literal["bound", "current_bound", "first_k_finished", "top_ends"] = "bound"
    """Stop a sentence when no live hypothesis can still enter the best K; when the best would not if it ended at its
    present length; as soon as K have finished; when the best candidate of a step ends."""
    eos_among: Literal["first_k", "all"] = "first_k"
    """An EOS finishes its hypothesis if it is among the first K, or anywhere among the 2K best candidates of a step."""
    ended: Literal["replaced", "removed", "extended"] = "replaced"
    """A finished hypothesis's slot goes to the next of the 2K best candidates; or, with K candidates a step, is lost,
    or is kept: the hypothesis goes on beyond its EOS, to no use (Kim & Rush's code)."""
    keep: Literal["best", "first"] = "best"
    """Of more than K finished hypotheses keep the best, or those that finished first."""
    at_limit: Literal["cut", "ranked", "forced_eos", "free_eos"] = "cut"
    """Hypotheses at the greatest length come after all finished ones; are ranked among them; must take EOS as their
    last token; or get it free of charge."""
    max_length_a: float = 1.5
    """At most a*x + b tokens (EOS included) for a source of x tokens."""
    max_length_b: float = 10.0
    """See max_length_a."""
    min_length_a: float = 0.0
    """At least a*x + b tokens before EOS."""
    min_length_b: float = 0.0
    """See min_length_a."""
    forbid_unk: bool = False
    """Never produce <unk>."""
    no_repeat_ngram: int = 0
    """Never produce a sequence of so many tokens twice in a translation; 0: off."""
    coverage_penalty: float = 0.0
    """Adds this times sum_s log min(attention received by s, 1) to the scores of what ends (Wu et al. 2016, eq. 14)."""
    sample_temperature: float = 1.0
    """Sampling only: divides the log-probabilities that are drawn from; below 1 nearer to greedy."""
    sample_top_k: int = 0
    """Sampling only: draw from the k most probable tokens; 0: from all."""
    sample_top_p: float = 1.0
    """Sampling only: draw from as few of the most probable tokens as together have probability p; after top-k."""
    sample_seed: int = 0
    """Sampling only: another seed, other samples."""


@dataclass(frozen=True)
class FilterConfig:
    """What is left out of the filtered copy of a distilled corpus; the aligned one keeps every line."""

    drop_unfinished: bool = False
    """Leave out targets that were cut at the length limit."""
    deduplicate: bool = False
    """Leave out all but the first of equal pairs."""
    max_length_ratio: float = 0.0
    """Leave out pairs of which one side has more than this many times the words of the other; 0: off."""
    drop_worst: float = 0.0
    """Leave out this share of the pairs, those with the lowest log-probability per token; 0: off."""
