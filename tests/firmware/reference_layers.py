"""The layers of firmware/SPEC.md a second time, from that page alone: shapes, sums, plans and memory, in NumPy's float32.

Elementwise operations on whole channels are all that NumPy does here: every sum runs one term after another.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise
from math import prod

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
f32 = np.float32

DENSE, CONV, DEPTHWISE, MAX_POOL, AVERAGE_POOL = range(5)


@dataclass(frozen=True)
class Layer:
    """A layer as a plan holds it, field for field."""

    kind: int
    activation: int
    learns: bool
    same: bool
    height: int
    width: int
    channels: int
    outputs: int
    kernel_height: int = 1
    kernel_width: int = 1
    stride_height: int = 1
    stride_width: int = 1

    @property
    def input(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    @property
    def sides(self) -> tuple["Side", "Side"]:
        return (
            Side(self.height, self.kernel_height, self.stride_height, self.same),
            Side(self.width, self.kernel_width, self.stride_width, self.same),
        )

    @property
    def output(self) -> tuple[int, int, int]:
        rows, columns = self.sides
        return rows.windows, columns.windows, self.outputs

    @property
    def values(self) -> int:
        """Of the output."""
        return prod(self.output)

    @property
    def windows(self) -> int:
        return 1 if self.kind == DENSE else prod(self.output[:2])

    @property
    def kernel(self) -> tuple[int, ...]:
        """The shape of W, empty where there is none."""
        if self.kind == DENSE:
            return self.channels, self.outputs
        if self.kind == CONV:
            return self.kernel_height, self.kernel_width, self.channels, self.outputs
        if self.kind == DEPTHWISE:
            return self.kernel_height, self.kernel_width, self.channels, self.outputs // self.channels
        return ()

    @property
    def weights(self) -> int:
        return prod(self.kernel) + self.outputs if self.kernel else 0

    @property
    def fan_in(self) -> int:
        """Weights of one output."""
        return self.kernel_height * self.kernel_width * (1 if self.kind == DEPTHWISE else self.channels)


@dataclass(frozen=True)
class Side:
    """A kernel that moves along one side of its input."""

    size: int
    kernel: int
    stride: int
    same: bool

    @property
    def windows(self) -> int:
        if self.same:
            return -(-self.size // self.stride)
        return (self.size - self.kernel) // self.stride + 1 if self.size >= self.kernel else 0

    def span(self, window: int) -> tuple[slice, slice]:
        """Where the window lies on the input, and with which of its places."""
        padding = max((self.windows - 1) * self.stride + self.kernel - self.size, 0) if self.same else 0
        start = window * self.stride - padding // 2
        return (
            slice(max(start, 0), min(start + self.kernel, self.size)),
            slice(max(-start, 0), min(self.size - start, self.kernel)),
        )


Area = tuple[slice, slice]


def windows(layer: Layer) -> Iterator[tuple[tuple[int, int], Area, Area]]:
    """Row by row: the window's (row, column), its part of the input, and the places of the kernel that lie there."""
    rows, columns = layer.sides
    for row in range(rows.windows):
        for column in range(columns.windows):
            (down, high), (across, wide) = rows.span(row), columns.span(column)
            yield (row, column), (down, across), (high, wide)


def dense(inputs: int, outputs: int, activation: int, learns: bool = True) -> Layer:
    return Layer(DENSE, activation, learns, False, 1, 1, inputs, outputs)


def split(layers: Sequence[Layer], theta: F32) -> list[tuple[F32, F32]]:
    """Views of theta: W and b of each layer, empty for pools."""
    parts, at = [], 0
    for layer in layers:
        end = at + layer.weights
        size = prod(layer.kernel) if layer.kernel else 0
        parts.append((theta[at : at + size].reshape(layer.kernel or 0), theta[at + size : end]))
        at = end
    return parts


def first_largest(window: F32) -> tuple[int, int]:
    """(row, column) of the first of the largest values of one channel."""
    best = (0, 0)
    for row in range(window.shape[0]):
        for column in range(window.shape[1]):
            if window[row, column] > window[best]:
                best = row, column
    return best


def forward(layer: Layer, w: F32, b: F32, x: F32) -> F32:
    """s of the layer (values,) for its input x (any shape of as many values)."""
    x = x.reshape(layer.input)
    if layer.kind == DENSE:
        return fold(b, w, x.reshape(-1, 1))
    s = np.empty(layer.output, f32)
    for at, place, inside in windows(layer):
        seen = x[place]
        if layer.kind == CONV:
            s[at] = fold(b, w[inside].reshape(-1, layer.outputs), seen.reshape(-1, 1))
        elif layer.kind == DEPTHWISE:
            bias = b.reshape(layer.channels, -1)
            s[at] = fold(bias, w[inside].reshape(-1, *bias.shape), seen.reshape(-1, layer.channels, 1)).reshape(-1)
        elif layer.kind == MAX_POOL:
            s[at] = [seen[(*first_largest(seen[..., c]), c)] for c in range(layer.channels)]
        else:
            ones = np.ones((seen.shape[0] * seen.shape[1], 1), f32)
            s[at] = fold(np.zeros(layer.channels, f32), ones, seen.reshape(-1, layer.channels)) / f32(len(ones))
    return s.reshape(-1)


def fold(sum: F32, kernel: F32, values: F32) -> F32:
    """sum + kernel_0 values_0 + kernel_1 values_1 + ..."""
    for weight, value in zip(kernel, values, strict=True):
        sum = sum + weight * value
    return sum


def back(layer: Layer, w: F32, x: F32, delta: F32) -> F32:
    """The gradient with respect to the layer's input."""
    g = np.zeros(layer.input, f32)
    if layer.kind == DENSE:
        return fold(g.reshape(-1), w.T, delta.reshape(-1, 1))
    x, delta = x.reshape(layer.input), delta.reshape(layer.output)
    for at, place, inside in windows(layer):
        into = g[place]
        if layer.kind == CONV:
            for j in range(layer.outputs):
                into += w[inside][..., j] * delta[at][j]
        elif layer.kind == DEPTHWISE:
            for m, of_channels in enumerate(delta[at].reshape(layer.channels, -1).T):
                into += w[inside][..., m] * of_channels
        elif layer.kind == MAX_POOL:
            for c in range(layer.channels):
                into[(*first_largest(x[place][..., c]), c)] += delta[at][c]
        else:
            into += delta[at] / f32(into.shape[0] * into.shape[1])
    return g.reshape(-1)


def gather(layer: Layer, x: F32, delta: F32, into_w: F32, into_b: F32) -> None:
    """Adds delta times input to ``into_w`` and delta to ``into_b``, in a convolution for each window in turn."""
    if layer.kind == DENSE:
        into_w += delta[None, :] * x[:, None]
        into_b += delta
        return
    x, delta = x.reshape(layer.input), delta.reshape(layer.output)
    for at, place, inside in windows(layer):
        of_channels = delta[at] if layer.kind == CONV else delta[at].reshape(layer.channels, -1)
        into_w[inside] += x[place][..., None] * of_channels
        into_b += delta[at]


def move(layer: Layer, x: F32, step: F32, w: F32, b: F32) -> None:
    """Takes the step of one sample, where ``step`` is rate times delta."""
    if layer.kind == DENSE:
        w -= step[None, :] * x[:, None]
        b -= step
        return
    sum_w, sum_b = np.zeros_like(w), np.zeros_like(b)
    gather(layer, x, step, sum_w, sum_b)
    w -= sum_w
    b -= sum_b


def plan_bytes(layers: Sequence[Layer], loss: int) -> bytes:
    """The plan as it is sent and kept."""
    rows = b"".join(struct.pack("<4B4H4B", *astuple(layer)) for layer in layers)
    return struct.pack("<4sBBH", b"TFLP", 2, loss, len(layers)) + rows


def read_plan(plan: bytes) -> tuple[list[Layer], int]:
    """Layers and loss of a plan.

    Raises ValueError for bytes that are none.
    """
    if len(plan) < 8 or plan[:5] != b"TFLP\x02" or len(plan) != 8 + 16 * int.from_bytes(plan[6:8], "little"):
        raise ValueError("no plan")
    layers = [Layer(*row) for row in struct.iter_unpack("<4B4H4B", plan[8:])]
    if not sound(layers, plan[5]):
        raise ValueError("a plan that contradicts the page or itself")
    return layers, plan[5]


MOST = 1 << 24


def sound(layers: Sequence[Layer], loss: int) -> bool:
    """Whether a board takes the plan."""
    if not 1 <= len(layers) <= 64 or not 0 <= loss <= 3 or not all(map(_sound, layers)):
        return False
    if any(prod(above.input) != below.values for below, above in pairwise(layers)):
        return False
    together = (sum(layer.weights for layer in layers), sum(layer.values for layer in layers), prod(layers[0].input))
    return max(together) <= MOST


def _sound(layer: Layer) -> bool:
    from reference import ACTIVATIONS  # which imports this module

    fields = astuple(layer)
    if (
        layer.kind > AVERAGE_POOL
        or layer.activation not in ACTIVATIONS
        or layer.learns > 1
        or layer.same > 1
        or min(fields[4:]) == 0
    ):
        return False
    if layer.kind == DENSE and (layer.same or {layer.height, layer.width, *fields[8:]} != {1}):
        return False
    if layer.kind == DEPTHWISE and layer.outputs % layer.channels != 0:
        return False
    if layer.kind >= MAX_POOL and (layer.outputs != layer.channels or layer.activation or layer.learns):
        return False
    return layer.windows > 0


def lowest(layers: Sequence[Layer]) -> int:
    """The lowest layer that learns, or the last where none does."""
    return next((i for i, layer in enumerate(layers) if layer.learns), len(layers) - 1)


def learner_values(layers: Sequence[Layer]) -> int:
    """Floats of a learner's memory."""
    s, low = [layer.values for layer in layers], lowest(layers)
    first = max(low - 1, 0)
    kept = [sum(s[first : i + 1]) for i in range(len(s))]
    above = [kept[i] + s[i - 1] for i in range(low + 1, len(s))]
    below = [s[i] + s[i + 1] for i in range(first)]
    return max([kept[-1] + s[-1], *above, *below])


def resting_bytes(layers: Sequence[Layer]) -> int:
    """What a board stores of a plan, its weights and a sample, while it learns nothing."""
    sample = prod(layers[0].input) + layers[-1].values
    return 8 + 16 * len(layers) + 4 * (sum(layer.weights for layer in layers) + learner_values(layers) + sample)
