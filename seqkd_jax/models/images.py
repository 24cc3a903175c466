"""Classifiers of images: a convolutional network and a multi-layer perceptron (Abnar et al. 2020, scenario 2).

Both read images [B,28,28] with values from 0 to 255, uint8 or float. Features [B,1,E] are the last hidden layer, logits
are [B,1,V] and labels [B,1]; all classifiers have this position axis of length 1.

The order within a layer is that of the authors' code (tf2_models/cnn.py, ff.py). That normalises over the batch; these
models by default normalise each image by itself: groups of channels in the CNN, the layer in the MLP. So there are no
running statistics, and no result depends on other images of the batch. With `norm` batch they do as that code:
`observed` normalises by the batch and returns its means and variances, the training step moves the running ones towards
these, and `features` normalises by the running ones. Initial kernels are He normal (each feeds a ReLU), the head's
Glorot uniform, biases 0. Everything is float32.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from seqkd_jax.config import CNNConfig, MLPConfig
from seqkd_jax.models.layers import dropout, fold_keys, vocabulary_logits
from seqkd_jax.types import STATISTICS, Model, UserError

SIDE = 28  # pixels
EPSILON = 1e-5  # of the norms
BATCH_EPSILON = 1e-3  # of batch normalisation, as Keras has it

HE, GLOROT = nn.initializers.he_normal(), nn.initializers.glorot_uniform()
ZEROS, ONES = nn.initializers.zeros, nn.initializers.ones


def _pixels(images) -> Float[Array, "B 28 28"]:
    """Values from 0 to 1."""
    return images.astype(jnp.float32) / 255


def _convolve(x: Float[Array, "B Y X C"], kernel: Float[Array, "3 3 C F"]) -> Float[Array, "B Y-2 X-2 F"]:
    """A 3x3 convolution without padding, as matrix products.

    Replicas are mapped over (train_step.FASTER), and on CPUs XLA's convolution is slow inside a loop and with kernels
    that differ along a mapped axis. The three neighbours in a row are concatenated, one product gives the contributions
    of each row to three rows of the result, and these are summed. With one channel all nine neighbours are
    concatenated. Measured for 128 images of 28 x 28, 32 to 32 channels, forward and backward, on two busy cores, in ms:
    XLA's convolution alone 88, three under lax.map 31900, under vmap 1490. A whole CNN of 32, 32 and 16 channels, three
    seeds under lax.map, on another machine: 830 with this function, 1101 with nine products, one for each neighbour.
    """
    height, width, channels = x.shape[1] - 2, x.shape[2] - 2, x.shape[3]
    joined = jnp.concatenate([x[:, :, column : column + width] for column in range(3)], axis=-1)
    if channels == 1:
        joined = jnp.concatenate([joined[:, row : row + height] for row in range(3)], axis=-1)
        return joined @ kernel.reshape(9, -1)
    across = kernel.transpose(1, 2, 0, 3).reshape(3 * channels, -1)  # [3C,3F]
    added = (joined.reshape(-1, 3 * channels) @ across).reshape(*joined.shape[:3], 3, -1)
    return added[:, :height, :, 0] + added[:, 1 : height + 1, :, 1] + added[:, 2 : height + 2, :, 2]


def _normalise(x, mean: Callable, scale, shift):
    """Mean 0 and variance 1 over the axes of `mean`, then a scale and a shift for each channel."""
    centred = x - mean(x)
    return centred * (jax.lax.rsqrt(mean(jnp.square(centred)) + EPSILON) * _rows(scale, x.ndim)) + _rows(shift, x.ndim)


def _group_norm(x: Float[Array, "B Y X C"], scale, shift, groups: int) -> Float[Array, "B Y X C"]:
    """Each group of neighbouring channels of an image is normalised by itself (Wu & He 2018).

    Sums are over positions first, then over the channels of a group; with one sum over both a step takes 1.14 times as
    long.
    """

    def mean(values):
        of_groups = jnp.mean(jnp.mean(values, (1, 2)).reshape(len(x), groups, -1), axis=-1)
        return jnp.repeat(of_groups, x.shape[-1] // groups, axis=-1)[:, None, None]

    return _normalise(x, mean, scale, shift)


def _observe(x: Float[Array, "B *pos C"], weights: Float[Array, "B P"]) -> dict:
    """The mean and the variance (of the whole batch, not unbiased) of each channel, over rows of weight above 0."""
    counted = (weights[:, :1] > 0).astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    axes, places = tuple(range(x.ndim - 1)), math.prod(x.shape[1:-1])
    count = jnp.maximum(jnp.sum(counted), 1) * places
    mean = jnp.sum(counted * x, axes) / count
    return {"mean": mean, "variance": jnp.sum(counted * jnp.square(x - _rows(mean, x.ndim)), axes) / count}


def _batch_norm(x: Float[Array, "B *pos C"], statistics: Mapping, scale, shift) -> Float[Array, "B *pos C"]:
    """Mean 0 and variance 1 by these statistics (Ioffe & Szegedy 2015), then a scale and a shift for each channel."""
    mean, inverse = statistics["mean"], jax.lax.rsqrt(statistics["variance"] + BATCH_EPSILON)
    return (x - _rows(mean, x.ndim)) * _rows(inverse * scale, x.ndim) + _rows(shift, x.ndim)


def _rows(vector, ndim: int):
    """[C] -> [1,...,1,C]."""
    return jnp.expand_dims(vector, tuple(range(ndim - 1)))


def _maximum(parts: list[Array]) -> Array:
    """The elementwise maximum; the gradient goes to the largest value, the first one among ties.

    Not jnp.max: its gradient compares values with the maximum, and where XLA recomputes them in another fusion they can
    differ in the last bit. Then no value matches, and the gradient is 0/0.
    """
    return reduce(lambda first, second: jnp.where(second > first, second, first), parts)


def _maxout(x: Float[Array, "B Y X C"], units: int) -> Float[Array, "B Y X U"]:
    """The maximum of each group of C/U neighbouring channels (Goodfellow et al. 2013)."""
    members = x.shape[-1] // units
    return _maximum([x[..., member::members] for member in range(members)])


def _max_pool(x: Float[Array, "B Y X C"], side: int) -> Float[Array, "B P Q C"]:
    """The maximum of each square; incomplete squares at the lower and right edge are dropped."""
    height, width = (length // side * side for length in x.shape[1:3])
    return _maximum([x[:, row:height:side, column:width:side] for row in range(side) for column in range(side)])


def _layer(module: nn.Module, index: int, shape: tuple[int, ...], normed: int):
    """The parameters of a hidden layer: kernel, bias, and the scale and shift of its norm."""
    made = {"kernel": (HE, shape), "bias": (ZEROS, shape[-1:]), "scale": (ONES, (normed,)), "shift": (ZEROS, (normed,))}
    return tuple(module.param(f"layer_{index}_{name}", *how) for name, how in made.items())


def _running(module: nn.Module, widths: Sequence[int]) -> list[dict]:
    """The running mean and variance of each layer."""
    start = {"mean": jnp.zeros, "variance": jnp.ones}
    return [
        {
            name: module.variable(STATISTICS, f"layer_{index}_{name}", make, (width,)).value
            for name, make in start.items()
        }
        for index, width in enumerate(widths)
    ]


def _named(observed: Sequence[Mapping]) -> dict:
    """Statistics of each layer under the names that `_running` gives them."""
    return {f"layer_{index}_{name}": value for index, found in enumerate(observed) for name, value in found.items()}


def _output(module: nn.Module, classes: int, width: int):
    """The head's parameters: kernel [V,E] and bias [V]."""
    kernel = module.param("output_kernel", GLOROT, (classes, width))
    return kernel, module.param("output_bias", ZEROS, (classes,))


class CNNClassifier(nn.Module):
    """The parameters, and the functions of types.Model as methods."""

    config: CNNConfig
    classes: int

    def setup(self):
        inputs, layers = 1, []
        for index, (channels, units) in enumerate(zip(self.config.channels, self.config.maxout, strict=True)):
            layers.append(_layer(self, index, (3, 3, inputs, channels), units))
            inputs = units
        self.layers, self.output = layers, _output(self, self.classes, inputs)
        self.running = _running(self, self.config.maxout) if self.config.norm == "batch" else ()

    def features(self, images, keys=None) -> Float[Array, "B 1 E"]:
        """The mean of each map after the last pooling; keys [B]: with dropout after every layer."""
        return self._read(images, keys)[0]

    def observed(self, images, keys, weights):
        """Features, normalised over the batch, and its statistics."""
        features, found = self._read(images, keys, weights)
        return features, _named(found)

    def _read(self, images, keys, weights=None):
        config, x, found = self.config, _pixels(images)[..., None], []
        for index, (units, pool) in enumerate(zip(config.maxout, config.pools, strict=True)):
            kernel, bias, scale, shift = self.layers[index]
            x = _maxout(_convolve(x, kernel) + _rows(bias, 4), units)
            if self.running:
                found.append(self.running[index] if weights is None else _observe(x, weights))
                x = _batch_norm(x, found[-1], scale, shift)
            else:
                x = _group_norm(x, scale, shift, config.groups)
            x = nn.relu(_max_pool(x, pool))  # ReLU commutes with the maximum, and is cheapest after it
            x = dropout(x, config.dropout, fold_keys(keys, index))
        return jnp.mean(x, axis=(1, 2))[:, None], found

    def head(self, features):
        """Logits [B,1,V] in float32."""
        return vocabulary_logits(features, *self.output, "float32")


class MLPClassifier(nn.Module):
    """The parameters, and the functions of types.Model as methods."""

    config: MLPConfig
    classes: int

    def setup(self):
        inputs, layers = SIDE * SIDE, []
        for index, width in enumerate(self.config.widths):
            layers.append(_layer(self, index, (inputs, width), width))
            inputs = width
        self.layers, self.output = layers, _output(self, self.classes, inputs)
        self.running = _running(self, self.config.widths) if self.config.norm == "batch" else ()

    def features(self, images, keys=None) -> Float[Array, "B 1 E"]:
        """The last layer after its norm; keys [B]: with dropout after every layer."""
        return self._read(images, keys)[0]

    def observed(self, images, keys, weights):
        """Features, normalised over the batch, and its statistics."""
        features, found = self._read(images, keys, weights)
        return features, _named(found)

    def _read(self, images, keys, weights=None):
        x, found = _pixels(images).reshape(images.shape[0], -1), []
        for index, (kernel, bias, scale, shift) in enumerate(self.layers):
            x = nn.relu(x @ kernel + _rows(bias, 2))
            if self.running:
                found.append(self.running[index] if weights is None else _observe(x, weights))
                x = _batch_norm(x, found[-1], scale, shift)
            else:
                x = _normalise(x, partial(jnp.mean, axis=1, keepdims=True), scale, shift)
            x = dropout(x, self.config.dropout, fold_keys(keys, index))
        return x[:, None], found

    def head(self, features):
        """Logits [B,1,V] in float32."""
        return vocabulary_logits(features, *self.output, "float32")


def _require_pixels(config: CNNConfig) -> None:
    """UserError for a pool that is larger than its input."""
    side = SIDE
    for layer, pool in enumerate(config.pools, start=1):
        side -= 2
        if pool > side:
            raise UserError(
                f"cnn: the pool of layer {layer} is {pool}: it must be from 1 to {side}, the side of its input"
            )
        side //= pool


def _model(module: nn.Module, norm: str) -> Model:
    return Model(
        init=lambda key: module.init(key, jnp.zeros((1, SIDE, SIDE), jnp.uint8), method="features"),
        features=partial(module.apply, method="features"),
        head=partial(module.apply, method="head"),
        observed=partial(module.apply, method="observed") if norm == "batch" else None,
    )


def build_cnn(config: CNNConfig, source_size: int, target_size: int) -> Model:
    """The network for target_size classes; UserError if the configuration is not valid."""
    del source_size  # pixels have no vocabulary
    _require_pixels(config)
    return _model(CNNClassifier(config, target_size), config.norm)


def build_mlp(config: MLPConfig, source_size: int, target_size: int) -> Model:
    """The perceptron for target_size classes; UserError if the configuration is not valid."""
    del source_size  # pixels have no vocabulary
    return _model(MLPClassifier(config, target_size), config.norm)
