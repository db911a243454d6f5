"""Random small networks of every kind of layer, and samples for them."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from hypothesis import strategies as st
from reference import ACTIVATIONS, IDENTITY, PROTOTYPES, SIGMOID_CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY
from reference_inner import EVERY, Inner, Phase
from reference_layers import AVERAGE_POOL, CONV, DENSE, DEPTHWISE, F32, MAX_POOL, Layer, dense

MAX_VALUES = 150

Shape = tuple[int, int, int]


def conv(shape: Shape, outputs: int, kernel: int, stride: int, same: bool, activation: int, learns: bool = True) -> Layer:
    return Layer(CONV, activation, learns, same, *shape, outputs, kernel, kernel, stride, stride)


def depthwise(shape: Shape, multiplier: int, kernel: int, stride: int, same: bool, activation: int) -> Layer:
    return Layer(DEPTHWISE, activation, True, same, *shape, shape[2] * multiplier, kernel, kernel, stride, stride)


def pool(kind: int, shape: Shape, kernel: int, stride: int, same: bool = False) -> Layer:
    return Layer(kind, IDENTITY, False, same, *shape, shape[2], kernel, kernel, stride, stride)


@st.composite
def layers_on(draw: Any, shape: Shape) -> Layer:
    """A layer of any kind for an input of as many values as ``shape`` has, mostly of just that shape."""
    if draw(st.integers(0, 7)) == 0:
        shape = draw(st.permutations(shape))
    kind = draw(st.integers(DENSE, AVERAGE_POOL))
    activation, learns = draw(st.sampled_from(ACTIVATIONS)), draw(st.booleans())
    if kind == DENSE:
        return dense(prod(shape), draw(st.integers(1, 9)), activation, learns)
    size = st.integers(1, 4)
    kernel, stride = draw(st.tuples(size, size)), draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    same = draw(st.booleans()) or kernel[0] > shape[0] or kernel[1] > shape[1]
    outputs = shape[2]
    if kind == CONV:
        outputs = draw(st.integers(1, 9))
    elif kind == DEPTHWISE:
        outputs *= draw(st.integers(1, 3))
    else:
        activation, learns = IDENTITY, False
    return Layer(kind, activation, learns, same, *shape, outputs, *kernel, *stride)


@st.composite
def networks(draw: Any) -> tuple[list[Layer], int]:
    """Layers, any of which may be frozen, and a loss."""
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3)))
    layers: list[Layer] = []
    for _ in range(draw(st.integers(1, 5))):
        layer = draw(layers_on(shape))
        if layer.values > MAX_VALUES or layer.weights > 4 * MAX_VALUES:
            layer = dense(prod(shape), 3, layer.activation)
        layers.append(layer)
        shape = layer.output
    return layers, draw(st.integers(0, 2))


UPS = st.just((0, 0)) | st.sampled_from([(1, 0), (2, 0), (3, 0), (4, 3000), (4, 1)])
"""Codecs of an update."""


@st.composite
def inners(draw: Any, layers: int) -> Inner:
    """Inner loops of a few samples, on a network of so many layers."""
    mask = st.integers(0, (1 << layers) - 1)
    phase = st.builds(
        Phase, st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), st.sampled_from([0.0, 0.02, 0.1]),
        st.sampled_from([0.0, 0.3]), st.sampled_from([0.0, 0.0, 0.5, 9.0]), st.just(EVERY) | mask,
    )  # fmt: skip
    phases = draw(st.lists(phase, min_size=1, max_size=4))
    returns = draw(st.integers(0, 1))
    if returns:
        phases[-1] = replace(phases[-1], passes=1)
    return Inner(tuple(phases), returns, draw(st.integers(0, 1)), draw(st.just(0) | mask), draw(UPS))


@st.composite
def episodes(draw: Any, layers: Sequence[Layer]) -> Inner:
    """Inner loops for prototypes, of a few samples."""
    mask = st.integers(0, (1 << len(layers)) - 1)
    phases = []
    for _ in range(draw(st.integers(1, 2))):
        support = draw(st.integers(1, 4))
        samples, ways = support + draw(st.integers(1, 4)), draw(st.integers(1, min(support, layers[-1].values)))
        rate, (clip, pull) = draw(st.sampled_from([0.02, 0.1])), draw(st.sampled_from([(0.0, 0.0), (0.3, 0.0), (0.0, 0.5)]))
        passes, batch = draw(st.integers(1, 2)), draw(st.integers(1, 3))
        phases.append(Phase(samples, batch, passes, rate, clip, pull, draw(st.just(EVERY) | mask), support, ways))
    returns = draw(st.integers(0, 1))
    if returns:
        phases[-1] = replace(phases[-1], passes=1)
    return Inner(tuple(phases), returns, draw(st.integers(0, 1)), draw(st.just(0) | mask), draw(UPS))


def with_learning(layers: Sequence[Layer], learns: Sequence[bool]) -> list[Layer]:
    """The layers of which those with weights learn or not, in order."""
    flags = iter(learns)
    return [replace(layer, learns=next(flags)) if layer.weights else layer for layer in layers]


def weighted(layers: Sequence[Layer]) -> int:
    """How many layers have weights."""
    return sum(layer.weights > 0 for layer in layers)


def weights_of(layers: Sequence[Layer], rng: np.random.Generator) -> F32:
    """Weights as large as a network starts from."""
    parts = [rng.uniform(-1, 1, layer.weights) / np.sqrt(layer.fan_in) for layer in layers]
    return np.concatenate(parts).astype(np.float32)


def sample_of(layers: Sequence[Layer], loss: int, rng: np.random.Generator) -> tuple[F32, F32]:
    """x and y. Half of the x are few different numbers, zeros of both signs among them, so that there are ties."""
    count = prod(layers[0].input)
    x = rng.uniform(-2, 2, count) if rng.integers(2) else rng.choice([-1.0, -0.0, 0.0, 0.5], count)
    outputs = layers[-1].values
    if loss in (SOFTMAX_CROSS_ENTROPY, PROTOTYPES):
        y = np.eye(outputs)[rng.integers(outputs)]
    elif loss == SIGMOID_CROSS_ENTROPY:
        y = rng.integers(0, 2, outputs)
    else:
        y = rng.uniform(-2, 2, outputs)
    return x.astype(np.float32), y.astype(np.float32)


SMALL: dict[str, list[Layer]] = {
    "conv, stride 2, SAME": [conv((6, 5, 2), 5, 3, 2, True, 2), dense(45, 3, IDENTITY)],
    "conv, VALID": [conv((5, 5, 1), 9, 2, 1, False, 3), dense(144, 2, IDENTITY)],
    "depthwise": [depthwise((5, 4, 3), 2, 3, 1, True, 4), dense(120, 2, IDENTITY)],
    "max pool": [conv((6, 6, 1), 3, 3, 1, True, 1), pool(MAX_POOL, (6, 6, 3), 2, 2), dense(27, 3, IDENTITY)],
    "average pool": [
        conv((6, 6, 1), 3, 3, 1, True, 2), pool(AVERAGE_POOL, (6, 6, 3), 3, 2, True), dense(27, 3, IDENTITY),
    ],
    "separable": [
        conv((8, 8, 1), 4, 3, 2, True, 2), depthwise((4, 4, 4), 1, 3, 1, False, 3), conv((2, 2, 4), 6, 1, 1, True, 2),
        pool(AVERAGE_POOL, (2, 2, 6), 2, 1), dense(6, 3, IDENTITY),
    ],
}  # fmt: skip
"""Networks by what they have."""
