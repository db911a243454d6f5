"""Layers of a network as plain data, and their records in a plan, which depend on the input shape.

Shapes are (height, width, channels), or (inputs,) without rows and columns; values are in that order, as in Keras. Flattening
is therefore a no-op: a layer only requires the right number of input values.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from math import prod

Shape = tuple[int, ...]


class Activation(IntEnum):
    """The core's activations, with its numbers."""

    identity = 0
    relu = 1
    leaky_relu = 2
    tanh = 3
    sigmoid = 4


class Loss(IntEnum):
    """The core's losses, with its numbers."""

    mean_squared_error = 0
    softmax_cross_entropy = 1
    sigmoid_cross_entropy = 2
    prototypes = 3
    """The outputs are an embedding, and a class is the mean of its samples' (Snell et al. 2017)."""


class Kind(IntEnum):
    """The core's layers, with its numbers."""

    dense = 0
    conv = 1
    depthwise = 2
    max_pool = 3
    average_pool = 4


@dataclass(frozen=True)
class Dense:
    """A dense layer: ``units`` outputs, each of all inputs."""

    units: int
    activation: Activation = Activation.relu
    learns: bool = True


@dataclass(frozen=True)
class Conv:
    """A convolution: ``filters`` output channels, each of all input channels, with ``kernel`` and ``stride`` (rows, columns);
    padding as in TensorFlow's SAME if ``same``, else VALID."""

    filters: int
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    same: bool = True
    activation: Activation = Activation.relu
    learns: bool = True


@dataclass(frozen=True)
class DepthwiseConv:
    """A depthwise convolution: ``multiplier`` output channels of each input channel."""

    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    same: bool = True
    multiplier: int = 1
    activation: Activation = Activation.relu
    learns: bool = True


@dataclass(frozen=True)
class Pool:
    """Max or average pooling over a window of ``size`` (rows, columns); ``size`` None: all rows and columns."""

    average: bool = False
    size: tuple[int, int] | None = (2, 2)
    stride: tuple[int, int] = (2, 2)
    same: bool = False


Layer = Dense | Conv | DepthwiseConv | Pool


@dataclass(frozen=True)
class Placed:
    """A layer with its input shape: a record of a plan (firmware/SPEC.md, plan). A dense layer has one row, one column, and its
    inputs as channels."""

    kind: Kind
    activation: Activation
    learns: bool
    same: bool
    input: tuple[int, int, int]
    channels: int
    """Channels of the output."""
    kernel: tuple[int, int]
    stride: tuple[int, int]

    @property
    def output(self) -> tuple[int, int, int]:
        """Shape of the output: (height, width, channels)."""
        rows, columns = (
            -(-size // step) if self.same else (size - kernel) // step + 1
            for size, kernel, step in zip(self.input[:2], self.kernel, self.stride, strict=True)
        )
        return rows, columns, self.channels

    @property
    def fan_in(self) -> int:
        """Inputs of one output."""
        return prod(self.kernel) * (1 if self.kind is Kind.depthwise else self.input[2])

    @property
    def kernel_shape(self) -> Shape:
        """Shape of the kernel in Keras's layout; empty for a layer without weights."""
        if self.kind is Kind.dense:
            return self.input[2], self.channels
        if self.kind is Kind.conv:
            return *self.kernel, self.input[2], self.channels
        if self.kind is Kind.depthwise:
            return *self.kernel, self.input[2], self.channels // self.input[2]
        return ()

    @property
    def weights(self) -> int:
        """Number of floats in kernel and bias."""
        return prod(self.kernel_shape) + self.channels if self.kernel_shape else 0

    @property
    def multiplies(self) -> int:
        """Multiplications of the forward pass."""
        return prod(self.output) * self.fan_in if self.kernel_shape else 0


def place(shape: Shape, layers: Iterable[Layer]) -> Iterator[Placed]:
    """The layers with their input shapes, the first with ``shape``.

    Raises ValueError for a layer that does not fit its input.
    """
    at: tuple[int, int, int] = (1, 1, shape[0]) if len(shape) == 1 else (shape[0], shape[1], shape[2])
    for layer in layers:
        placed = _placed(at, layer)
        if min(placed.output) < 1:
            raise ValueError(f"{layer} does not fit an input of {' x '.join(map(str, at))}")
        yield placed
        at = placed.output


def _placed(at: tuple[int, int, int], layer: Layer) -> Placed:
    if isinstance(layer, Dense):
        flat = (1, 1, prod(at))
        return Placed(Kind.dense, layer.activation, layer.learns, False, flat, layer.units, (1, 1), (1, 1))
    if isinstance(layer, Pool):
        kind = Kind.average_pool if layer.average else Kind.max_pool
        size, stride = (at[:2], (1, 1)) if layer.size is None else (layer.size, layer.stride)
        return Placed(kind, Activation.identity, False, layer.same, at, at[2], size, stride)
    kind, channels = (Kind.conv, layer.filters) if isinstance(layer, Conv) else (Kind.depthwise, at[2] * layer.multiplier)
    return Placed(kind, layer.activation, layer.learns, layer.same, at, channels, layer.kernel, layer.stride)


def layer_of(placed: Placed) -> Layer:
    """The layer of a record; the inverse of ``place``."""
    if placed.kind is Kind.dense:
        return Dense(placed.channels, placed.activation, placed.learns)
    if placed.kind is Kind.conv:
        return Conv(placed.channels, placed.kernel, placed.stride, placed.same, placed.activation, placed.learns)
    if placed.kind is Kind.depthwise:
        multiplier = placed.channels // placed.input[2]
        return DepthwiseConv(placed.kernel, placed.stride, placed.same, multiplier, placed.activation, placed.learns)
    global_pool = (placed.kernel, placed.stride, placed.same) == (placed.input[:2], (1, 1), False)
    average = placed.kind is Kind.average_pool
    return Pool(average, None) if global_pool else Pool(average, placed.kernel, placed.stride, placed.same)


def learning(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """``layers`` with none frozen."""
    return tuple(layer if isinstance(layer, Pool) else replace(layer, learns=True) for layer in layers)


def frozen(layers: tuple[Layer, ...], count: int) -> tuple[Layer, ...]:
    """``layers`` with the first ``count`` layers with weights frozen.

    Raises ValueError if there are fewer.
    """
    weighted = [i for i, layer in enumerate(layers) if not isinstance(layer, Pool)]
    if not 0 <= count <= len(weighted):
        raise ValueError(f"{count} layers cannot be frozen: it has {len(weighted)} with weights")
    frozen_indices = set(weighted[:count])
    return tuple(
        replace(layer, learns=False) if i in frozen_indices and not isinstance(layer, Pool) else layer
        for i, layer in enumerate(layers)
    )
