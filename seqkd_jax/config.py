"""What can be set: frozen dataclasses, each field with its meaning, its unit and its range. No hidden defaults.

`validate` checks a configuration: every field against its type, its range or its choices, then the rules across fields.
The command line is made from these (tyro reads the string under a field as its help), checkpoints store them as JSON,
and compiled functions are cached on them.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

from seqkd_jax.types import EOS, UserError
from seqkd_jax.utils.settings import Formerly, Named, Range, Settings

ComputeType = Literal["float32", "bfloat16", "bfloat16_products"]
Overlong = Literal["fail", "empty"]  # what becomes of a line that is too long to be translated

# Numbers and the ranges that can be served. Counts and seeds are 32-bit integers in compiled programs. A layer is
# compiled by itself, and a hypothesis is a row of every array of the search: more of them than these would not end.
Count = Annotated[int, Range(0, 2**31 - 1)]
Positive = Annotated[int, Range(1, 2**31 - 1)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Layers = Annotated[int, Range(1, 256)]
Width = Annotated[int, Range(1, 65_536)]
Beam = Annotated[int, Range(1, 4096)]
Tokens = Annotated[int, Range(1, 2**24)]  # of a batch, which is one array
Devices = Annotated[int, Range(0, 65_536)]
Length = Annotated[int, Range(1, 65_536)]  # ids of one sequence
Rate = Annotated[float, Range(0, 1, below=True)]  # of what is dropped: not all of it
Share = Annotated[float, Range(0, 1)]
Amount = Annotated[float, Range(0, 1e9)]  # the product of four is still a finite float32
Temperature = Annotated[float, Range(1e-4, 1e4)]  # its square, and what it divides, are finite float32
Slope = Annotated[float, Range(0, 100)]  # target tokens for a source token
Offset = Annotated[float, Range(-4096, 4096)]  # target tokens; 4096: the longest sentence that is translated


@dataclass(frozen=True)
class LSTMConfig(Settings):
    """The paper's LSTM (Luong et al. 2015, "global general" attention, input feeding). Defaults: its 2x500 student."""

    layers: Layers = 2
    """Layers of the encoder and of the decoder."""
    size: Width = 500
    """Width of embeddings, hidden states and attentional vectors."""
    bidirectional: bool = False
    """Encode forwards and backwards and sum the two (the paper: forwards only)."""
    attention: bool = True
    """Luong's general attention; without it the decoder reads the last encoder state only."""
    input_feeding: bool = True
    """Feed the attentional vector of one step to the next."""
    start_from_encoder: bool = True
    """Start the decoder from the encoder's last states; otherwise from zeros."""
    dropout: Rate = 0.3
    """Rate on the inputs of layers 2 and up and on the attentional vector."""
    init_scale: Amount = 0.1
    """Parameters start uniform in [-init_scale, init_scale]."""
    compute: ComputeType = "float32"
    """Type of matrix products and activations; parameters and losses stay float32."""


@dataclass(frozen=True)
class TransformerConfig(Settings):
    """An encoder-decoder Transformer (Vaswani et al. 2017). Defaults: a small one, pre-norm."""

    encoder_layers: Annotated[int, Range(0, 256)] = 3
    """Encoder layers."""
    decoder_layers: Layers = 3
    """Decoder layers."""
    width: Width = 256
    """Width of embeddings and residual stream."""
    heads: Width = 4
    """Attention heads; must divide the width."""
    feed_forward: Width = 1024
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
    dropout: Rate = 0.1
    """Rate on embeddings and on every sub-layer's output."""
    attention_dropout: Rate = 0.0
    """Rate on attention weights."""
    activation_dropout: Rate = 0.0
    """Rate inside the position-wise layers."""
    compute: ComputeType = "float32"
    """Type of matrix products and activations; parameters, norms and losses stay float32."""
    positions: Literal["tensor2tensor", "vaswani"] = "tensor2tensor"
    """Frequencies of the sinusoids, i < width/2: 10000^(-i/(width/2 - 1)), or 10000^(-2i/width) (Hugging Face)."""

    def validate(self, named: Named = str) -> None:
        """Also: the width must be even, for the sinusoids, and a multiple of the heads."""
        super().validate(named)
        if self.width % 2:
            raise UserError(f"{named('width')} is {self.width}: it must be even")
        _require_heads(self.width, self.heads, named)


@dataclass(frozen=True)
class SequenceLSTMConfig(Settings):
    """An LSTM that reads one sequence: a language model, or a classifier of what it has read (Abnar et al. 2020)."""

    layers: Layers = 2
    """Layers."""
    size: Width = 128
    """Width of embeddings and hidden states."""
    reads: Literal["every", "last"] = "last"
    """Features of every position (a language model), or of the last one only (a classifier)."""
    tied: bool = False
    """Output weights are the embeddings, through a projection of the last layer (a language model only)."""
    dropout: Rate = 0.3
    """Rate on the output of every layer."""
    recurrent_dropout: Rate = 0.0
    """Rate on the hidden state that goes back into its layer, one mask for all steps of a row."""
    input_dropout: Rate = 0.2
    """Rate on the embeddings."""
    init_scale: Amount = 0.0
    """Parameters start uniform in [-init_scale, init_scale]; 0: Glorot uniform, embeddings within 0.1 of zero."""
    compute: ComputeType = "float32"
    """Type of matrix products and activations; parameters and losses stay float32."""


@dataclass(frozen=True)
class SequenceTransformerConfig(Settings):
    """A Transformer that reads one sequence: a language model, or a classifier (Abnar et al. 2020)."""

    layers: Layers = 4
    """Layers; steps of the one layer if shared."""
    width: Width = 64
    """Width of embeddings and residual stream."""
    heads: Width = 4
    """Attention heads; must divide the width."""
    feed_forward: Width = 256
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
    dropout: Rate = 0.1
    """Rate on every sub-layer's output."""
    embedding_dropout: Rate = 0.1
    """Rate on the embeddings."""
    attention_dropout: Rate = 0.1
    """Rate on attention weights."""
    activation_dropout: Rate = 0.0
    """Rate inside the position-wise layers."""
    max_length: Length = 128
    """Positions that have a learned embedding: of the longest sequence, its marks and padding included."""
    init_scale: Amount = 0.05
    """Standard deviation of the embeddings at the start; the linear layers start Glorot uniform."""
    compute: ComputeType = "float32"
    """Type of matrix products and activations; parameters, norms and losses stay float32."""

    def validate(self, named: Named = str) -> None:
        """Also: the width is a multiple of the heads; what is read must be seen, and a label must not."""
        super().validate(named)
        _require_heads(self.width, self.heads, named)
        if not self.causal and self.reads == "every":
            raise UserError(
                f"{named('causal')} is False with {named('reads')} every: a language model must be causal, or each "
                "position sees its own label"
            )
        if self.causal and self.reads == "first":
            raise UserError(
                f"{named('causal')} is True with {named('reads')} first: the first position of a causal model sees "
                "nothing else"
            )


@dataclass(frozen=True)
class CNNConfig(Settings):
    """Three convolutions of images (Abnar et al. 2020, vcnn_mnist7), with group for batch normalisation by default."""

    FORM: ClassVar[int] = 2  # part of a stage's identity: raised when the same settings come to mean another model
    channels: tuple[Width, ...] = (32, 32, 16)
    """Channels of each 3x3 convolution."""
    maxout: tuple[Width, ...] = (32, 32, 16)
    """Of each, so many units are left: the maximum of a group of channels; as many as channels: no maxout."""
    pools: tuple[Width, ...] = (1, 2, 2)
    """Of each, the side of the max-pooling; 1: none."""
    groups: Width = 4
    """Groups of the normalisation; must divide the units of each layer."""
    dropout: Rate = 0.3
    """Rate on the maps of every layer, after pooling."""
    norm: Literal["group", "batch"] = "group"
    """group: each image by itself; batch: over the batch in training, later by running statistics, as in the paper."""

    def validate(self, named: Named = str) -> None:
        """Also: one entry a layer in each list, and groups that divide; the model knows whether the image suffices."""
        super().validate(named)
        if not len(self.channels) == len(self.maxout) == len(self.pools) > 0:
            counts = f"{len(self.channels)}, {len(self.maxout)} and {len(self.pools)}"
            lists = f"{named('channels')}, {named('maxout')} and {named('pools')}"
            raise UserError(f"{lists} have {counts} entries: each must have one for each layer, and one at least")
        for layer, (wide, units) in enumerate(zip(self.channels, self.maxout, strict=True), start=1):
            if wide % units:
                raise UserError(f"{named('maxout')} is {units} in layer {layer}: it must divide its {wide} channels")
            if units % self.groups:
                raise UserError(
                    f"{named('groups')} is {self.groups}: it must divide the {units} units of layer {layer}"
                )


@dataclass(frozen=True)
class MLPConfig(Settings):
    """Dense layers over pixels (Abnar et al. 2020, ff_mnist4), with layer for batch normalisation by default."""

    FORM: ClassVar[int] = 2
    widths: tuple[Width, ...] = (512, 128, 32)
    """Width of each layer."""
    dropout: Rate = 0.1
    """Rate on the output of each layer."""
    norm: Literal["layer", "batch"] = "layer"
    """layer: each image by itself; batch: over the batch in training, later by running statistics, as in the paper."""

    def validate(self, named: Named = str) -> None:
        """Also: there must be a layer."""
        super().validate(named)
        if not self.widths:
            raise UserError(f"{named('widths')} is empty: it must have the width of one layer at least")


def _require_heads(width: int, heads: int, named: Named) -> None:
    if width % heads:
        raise UserError(f"{named('width')} is {width}: it must be a multiple of {named('heads')} ({heads})")


@runtime_checkable
class ModelConfig(Protocol):
    """What a model is made by: frozen Settings, every field with a default. `models` knows which model is whose."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def dropout(self) -> float: ...

    def validate(self, named: Named = str) -> None: ...


@dataclass(frozen=True)
class VocabularyConfig(Settings):
    """How text becomes ids."""

    kind: Literal["sentencepiece", "words", "marian", "labels"] = "sentencepiece"
    """Subwords learned from raw text; the most frequent words, and <unk> for the rest, as in the paper; the vocabulary
    of an imported model; the classes of a classifier."""
    size: Tokens = 8000
    """Entries, including the four special ones (words: the paper's 50k is size 50004)."""
    joint: bool = True
    """sentencepiece: one vocabulary for both languages (word vocabularies are always separate)."""
    algorithm: Literal["bpe", "unigram"] = "bpe"
    """sentencepiece: its algorithm."""
    tokenizer: Literal["refuse_raw", "pretokenised", "13a", "intl", "char"] = "refuse_raw"
    """words: pretokenised text, or the sacrebleu tokenizer to apply; refuse_raw: text that looks raw is refused."""
    character_coverage: Annotated[float, Range(0.98, 1)] = 1.0
    """sentencepiece: share of the text's characters that get an entry; the rarest others become <unk>, or bytes."""
    byte_fallback: bool = False
    """sentencepiece: a character without an entry is spelled in bytes, which take 256 entries; nothing is <unk>."""

    def validate(self, named: Named = str) -> None:
        """Also: room for a word beside the special entries, which classes do not have; no subwords of words."""
        super().validate(named)
        if self.kind != "sentencepiece" and (self.byte_fallback or self.character_coverage != 1):
            options = f"{named('character_coverage')} and {named('byte_fallback')}"
            raise UserError(
                f"{options} have no effect with {named('kind')} {self.kind}: use sentencepiece, or omit them"
            )
        if self.kind != "labels" and self.size <= EOS + 1:
            raise UserError(f"{named('size')} is {self.size}: it must exceed {EOS + 1}, the number of special entries")


@dataclass(frozen=True)
class CorpusConfig(Settings):
    """Where sentence pairs come from: a directory, a file, two files, a data set of the hub, or the toy language."""

    path: str = ""
    """Directory with train/valid/test.<language>, TSV, JSONL or Parquet file, hub data set; toy: the toy language."""
    source: str = "en"
    """Source language: a file suffix, a column or a key of the `translation` feature."""
    target: str = "de"
    """Target language: a file suffix, a column or a key of the `translation` feature."""
    source_file: str = ""
    """File of source lines, with target_file: two files instead of path, for the training split."""
    target_file: str = ""
    """File of target lines, see source_file."""
    hub_config: str = ""
    """Configuration of a hub data set, if it has several."""

    def validate(self, named: Named = str) -> None:
        """Also: two languages, and one place that the pairs come from."""
        super().validate(named)
        source, target = named("source_file"), named("target_file")
        if self.source == self.target:
            names = f"{named('source')} and {named('target')}"
            raise UserError(f"{names} are both {self.source!r}: they must name two different files, columns or keys")
        if bool(self.source_file) != bool(self.target_file):
            raise UserError(f"{source} and {target} belong together: give both or neither")
        if self.path and self.source_file:
            raise UserError(f"{named('path')} and {source} both name the corpus: give only one of them")

    def require_named(self, named: Named = str) -> None:
        """UserError unless there is a place that the pairs come from: no corpus is the default."""
        if not self.path and not self.source_file:
            raise UserError(
                f"{named('path')} is empty: it must name a directory, a file, a data set of the hub, or `toy`, the toy "
                f"language; or give {named('source_file')} and {named('target_file')}"
            )


@dataclass(frozen=True)
class BatchConfig(Settings):
    """How sentence pairs become batches of few static shapes. Batches do not depend on the number of devices."""

    tokens: Annotated[int, Range(0, 2**24)] = 2048
    """Target tokens in a batch, padding included; 0: count sentences instead."""
    sentences: Annotated[int, Range(0, 2**20)] = 0
    """Sentences in a batch, whatever their length (the paper: 64 or 128); needs tokens = 0."""
    buckets: Annotated[Annotated[int, Range(1, 1000)] | None, Formerly(3)] = None
    """Static shapes at most, each of which is a compilation of the training step. None: the fewest that leave 10% of
    padding, 20 at most, fewer where a shape more would save little."""
    max_source: Length = 50
    """Longest source of a training pair, in ids; longer pairs are dropped and counted."""
    max_target: Length = 50
    """Longest target of a training pair, in ids without BOS and EOS."""
    data_seed: Seed = 0
    """Seed of the order of the training pairs, which is another one in each epoch."""

    def validate(self, named: Named = str) -> None:
        """Also: one of the two ways to count."""
        super().validate(named)
        if (self.tokens > 0) == (self.sentences > 0):
            counts = f"{named('tokens')} is {self.tokens} and {named('sentences')} is {self.sentences}"
            raise UserError(f"{counts}: exactly one must be positive, the other 0")


@dataclass(frozen=True)
class LossConfig(Settings):
    """The training loss. Sequence-level distillation has none of its own: it is nll on a distilled corpus."""

    name: str = "nll"
    """nll, the negative log-likelihood; word_kd, word-level distillation; word_kd_top_k, the same from the teacher's
    most probable entries alone, which are computed once; with another measure of how the student differs from its
    teacher: reverse_kl, jensen_shannon, total_variation, or tie_kd, word_kd that also ranks the first entries."""
    label_smoothing: Rate = 0.0
    """Probability mass spread evenly over the vocabulary in the gold term."""
    alpha: Share = 0.5
    """Weight of the teacher's term; the gold term has 1 - alpha (the paper: 0.5)."""
    temperature: Temperature = 1.0
    """Divides both models' logits in the teacher's term (the paper: 1)."""
    temperature_scaling: Literal["hinton", "none", "inverse"] = "hinton"
    """The teacher's term is multiplied by T^2 (Hinton et al. 2015), by 1, or by 1/T^2 (Abnar et al.'s code)."""
    teacher_dropout: bool = False
    """The teacher teaches with its dropout on, as in Abnar et al.'s code; nothing of it can be cached then."""
    top_k: Width = 16
    """word_kd_top_k: entries of the teacher's distribution that are kept at each position; all others are one."""


@dataclass(frozen=True)
class OptimiserConfig(Settings):
    """The optimiser and its learning rate."""

    name: Literal["sgd", "adam", "adamw", "adafactor", "lion"] = "adam"
    """SGD as in the paper, Adam, Adam with decoupled decay, Adafactor (memory for a row and a column), or Lion."""
    learning_rate: Amount = 1e-3
    """The peak rate (the paper's SGD: 1.0, fine-tuning 0.1); Adafactor: relative to a weight's root mean square."""
    schedule: Literal["constant", "paper", "inverse_sqrt", "cosine", "exponential", "cosine_restarts"] = "inverse_sqrt"
    """How the rate changes. paper: it decays by decay_factor after every epoch, from decay_from_epoch on or once the
    validation perplexity has risen."""
    warmup_steps: Annotated[Count | None, Formerly(400)] = None
    """Steps of linear warm-up (not under `paper`). None: 400, or a quarter of the run's updates if that is less."""
    decay_from_epoch: Count = 9
    """paper: the first epoch (counted from 1) after which the rate decays."""
    decay_factor: Share = 0.5
    """paper, exponential: the factor of a decay."""
    hold_steps: Count = 0
    """exponential: updates at the peak rate, after the warm-up and before the decay begins."""
    decay_steps: Count = 1000
    """exponential: updates in which the rate falls by the factor; cosine_restarts: length of the first period."""
    restart_stretch: Annotated[float, Range(1, 1e9)] = 2.0
    """cosine_restarts: each period is so many times as long as the one before."""
    restart_peak: Share = 1.0
    """cosine_restarts: each period begins at this times the peak of the one before."""
    restart_floor: Share = 0.0
    """cosine_restarts: each period ends at this share of the peak rate."""
    b1: Rate = 0.9
    """Adam, AdamW: decay of the first moment; Lion: share of the moment in the direction."""
    b2: Rate = 0.98
    """Adam, AdamW: decay of the second moment; Lion: decay of the moment."""
    epsilon: Annotated[float, Range(1e-30, 1e9)] = 1e-9
    """Adam, AdamW: added to the root of the second moment, which is 0 where no gradient came."""
    clip_norm: Amount = 5.0
    """Global norm of the normalised gradient; 0: no clipping."""
    normalise: Literal["tokens", "sentences"] = "tokens"
    """What the summed gradient is divided by; the paper: sentences, and its rates and clipping depend on it."""
    l2: Amount = 0.0
    """Times the sum of squares of all matrices is added to the loss, before clipping (Keras' regulariser)."""
    weight_decay: Amount = 0.0
    """Decoupled decay: each update also multiplies every matrix by 1 - rate * this. adamw needs it, adam has none."""

    def validate(self, named: Named = str) -> None:
        """Also: adamw needs a decoupled decay, and adam has none."""
        super().validate(named)
        if self.name == "adam" and self.weight_decay:
            value = f"{named('weight_decay')} is {self.weight_decay}"
            raise UserError(f"{value}: adam has no decoupled decay; use adamw, or l2")
        if self.name == "adamw" and not self.weight_decay:
            raise UserError(f"{named('weight_decay')} is 0.0: adamw needs it, such as 0.01; without it use adam")


# Names of sacrebleu's tokenizers, and the choice of one.
Tokenize = Literal["auto", "none", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "spm", "flores101", "flores200"]


@dataclass(frozen=True)
class MetricConfig(Settings):
    """How BLEU splits text into words. A checkpoint keeps the tokenizer that it was trained with."""

    tokenize: Tokenize = "auto"
    """sacrebleu's tokenizer. auto: none for word vocabularies, else that of the checkpoint's training, else by the
    target language and its script: zh, ja-mecab and ko-mecab if installed, char where no spaces separate words, 13a."""


@dataclass(frozen=True)
class TrainConfig(Settings):
    """How to train; the model, the corpus and the vocabulary are set beside it."""

    loss: LossConfig = LossConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    batch: BatchConfig = BatchConfig()
    metric: MetricConfig = MetricConfig()
    epochs: Positive = 10
    """Passes over the training corpus, at most."""
    max_steps: Count = 0
    """Updates, at most; 0: only epochs limit them."""
    seed: Seed = 0
    """Seed of initialisation and dropout."""
    replicas: Annotated[int, Range(1, 1024)] = 1
    """Seeds trained at once on the same batches: seed, seed + 1, ...; 1: an ordinary run."""
    replicas_by: Literal["auto", "vmap", "map"] = "auto"
    """vmap: all replicas in each product; map: one after the other within a step; auto: the faster on this backend."""
    accumulate: Annotated[int, Range(1, 65_536)] = 1
    """Microbatches in an update, which save memory; the result is that of the whole batch."""
    parts: Annotated[int, Range(0, 65_536)] = 0
    """Sum each update over so many parts of its batch, a power of two, in an order that does not depend on the devices:
    weights are the same, bit for bit, on any number of devices and processes that divides it; 0: to rounding only."""
    average_decay: Rate = 0.0
    """Decay of an exponential moving average of the weights, which is validated and saved; 0: off."""
    validate_every: Count = 0
    """Updates between validations; 0: once an epoch."""
    validate_bleu: bool = False
    """Also translate the validation set greedily; BLEU then chooses the best checkpoint, and the loss where it ties."""
    patience: Count = 0
    """Validations without improvement before training stops early; 0: never."""
    keep: Count = 0
    """Checkpoints of the latest validations to keep beside best and last, for averaging."""
    keep_path: bool = False
    """Keep the weights before the first update, after epochs 1, 2, 4, 8, ... (epoch-<n>/) and at the end (end/)."""
    devices: Devices = 0
    """Devices to train on; 0: all."""
    save_minutes: Amount = 10.0
    """Minutes between the saves for resuming, beside those at validations."""
    log_every: Positive = 20
    """Updates between lines of metrics.jsonl."""

    def validate(self, named: Named = str) -> None:
        """Also: a 32-bit seed for every replica; parts that can be added up in pairs."""
        super().validate(named)
        if self.parts & (self.parts - 1):
            raise UserError(f"{named('parts')} is {self.parts}: it must be a power of two, or 0")
        if self.parts and self.accumulate > 1:
            raise UserError(f"{named('parts')} are microbatches themselves: leave {named('accumulate')} out")
        if self.seed + self.replicas > 2**32:
            raise UserError(f"{named('seed')} is {self.seed}: it and those of all replicas must be below {2**32:,}")


ONE_TRANSLATION = ("greedy", "speculative")  # decoders (decoding.search.DECODERS) that find one, whatever the beam


@dataclass(frozen=True)
class SearchConfig(Settings):
    """The rules of the beam search. Beam 1 without a length rule is greedy decoding."""

    beam: Beam = 5
    """Hypotheses kept in each step, and returned."""
    length_rule: Literal["none", "power", "gnmt"] = "none"
    """Scores are log p, log p / L^a, or log p / ((5+L)/6)^a; L counts the tokens. The paper: none."""
    length_alpha: Annotated[float, Range(0, 10)] = 1.0
    """The exponent a of the length rule."""
    length_counts_eos: bool = True
    """EOS is one of the L tokens."""
    stop: Literal["bound", "current_bound", "first_k_finished", "top_ends"] = "bound"
    """Stop a sentence when no live hypothesis can still enter the best K; when the best would not if it ended at its
    present length; as soon as K have finished; when the best candidate of a step ends."""
    eos_among: Literal["first_k", "all"] = "first_k"
    """An EOS finishes its hypothesis if it is among the first K, or anywhere among the 2K best candidates of a step."""
    ended: Literal["replaced", "removed", "extended"] = "replaced"
    """A finished hypothesis's slot goes to the next of the 2K best candidates; or, with K candidates a step, is lost,
    or is kept: the hypothesis continues beyond its EOS, without effect (Kim & Rush's code)."""
    keep: Literal["best", "first"] = "best"
    """Of more than K finished hypotheses keep the best, or those that finished first."""
    at_limit: Literal["cut", "ranked", "forced_eos", "free_eos"] = "cut"
    """Hypotheses at the greatest length come after all finished ones; are ranked among them; must take EOS as their
    last token; or get it free of charge."""
    max_length_a: Slope = 1.5
    """a: a source of x tokens gets at most a*x + b tokens, EOS included."""
    max_length_b: Offset = 10.0
    """b of the greatest length, in tokens."""
    min_length_a: Slope = 0.0
    """a: a source of x tokens gets at least a*x + b tokens before EOS."""
    min_length_b: Offset = 0.0
    """b of the least length, in tokens."""
    forbid_unk: bool = False
    """Never produce <unk>."""
    no_repeat_ngram: Annotated[int, Range(0, 4096)] = 0
    """Length of the sequences of tokens that never occur twice in a translation; 0: off."""
    coverage_penalty: Amount = 0.0
    """Times sum_s log min(attention received by s, 1) is added to the scores of what ends (Wu et al. 2016, eq. 14)."""
    draft_tokens: Annotated[int, Range(1, 64)] = 4
    """Speculative decoding only: tokens that the draft proposes at a time."""
    sample_temperature: Temperature = 1.0
    """Sampling only: divides the log-probabilities that are drawn from; below 1 nearer to greedy."""
    sample_top_k: Count = 0
    """Sampling only: draw from the k most probable tokens; 0: from all."""
    sample_top_p: Annotated[float, Range(0, 1, above=True)] = 1.0
    """Sampling only: draw from as few of the most probable tokens as together have probability p; after top-k."""
    sample_seed: Seed = 0
    """Sampling only: seed of the draws."""

    def validate(self, named: Named = str) -> None:
        """Also: the least length must not exceed the greatest, whatever the source."""
        super().validate(named)
        least, most = self.min_length_a + self.min_length_b, self.max_length_a + self.max_length_b  # of one token
        if self.min_length_a > self.max_length_a or least > most:
            lengths = f"{self.min_length_a}x+{self.min_length_b} can exceed the greatest"
            lengths = f"{lengths} {self.max_length_a}x+{self.max_length_b}"
            raise UserError(
                f"{named('min_length_a')} and {named('min_length_b')}: the least length {lengths}: lower one, or raise "
                f"{named('max_length_a')} or {named('max_length_b')}"
            )


@dataclass(frozen=True)
class ExactConfig(Settings):
    """The exact search for the most probable translation of a sentence, of those of any length."""

    beam: Beam = 5
    """Of the beam search, whose best translation is where the exact search starts."""
    nodes: Positive = 10_000
    """Prefixes that are expanded for a sentence, at most; more are needed where every translation is improbable."""
    max_length_a: Slope = 1.5
    """a: of a source of x tokens no prefix of more than a*x + b tokens is expanded, nor found by the beam search."""
    max_length_b: Offset = 10.0
    """b of the greatest length, in tokens."""

    def validate(self, named: Named = str) -> None:
        """Also: the greatest length must not be below 0, whatever the source."""
        super().validate(named)
        if self.max_length_a + self.max_length_b < 0:
            raise UserError(
                f"{named('max_length_a')} and {named('max_length_b')}: the greatest length "
                f"{self.max_length_a}x+{self.max_length_b} can be below 0: raise one"
            )


@dataclass(frozen=True)
class PruningConfig(Settings):
    """Which weights become zero: those of least magnitude (See, Luong & Manning 2016). Biases and norms never do."""

    share: Annotated[float, Range(0, 1, above=True, below=True)] = 0.8
    """Share of the weights that is pruned."""
    rule: Literal["class_blind", "class_uniform"] = "class_blind"
    """class_blind: the share of all weights, whatever array they are in; class_uniform: the share of each array."""
    embeddings: bool = True
    """Embeddings are pruned too; without them the share is of the other weights."""


@dataclass(frozen=True)
class FilterConfig(Settings):
    """Filters of a distilled corpus: a second copy without the pairs that do not pass; the first keeps every line."""

    drop_unfinished: bool = False
    """Drop targets that were cut at the length limit."""
    deduplicate: bool = False
    """Drop all but the first of equal pairs."""
    max_length_ratio: Annotated[float, Range(1, 1e9, or_zero=True)] = 0.0
    """Drop pairs of which one side has more than this many times the words of the other; 0: off. In scripts without
    spaces each character is a word, and a pair is measured by the median of such pairs."""
    drop_worst: Rate = 0.0
    """Drop this share of the pairs, those with the lowest log-probability per token; 0: off."""
