"""Networks with random layers and weights, and what the core makes of them: for tests of what becomes of them elsewhere."""

import numpy as np
from hypothesis import strategies as st

from tinyfl import core
from tinyfl.core import F32, TableSource
from tinyfl.errors import ConfigError
from tinyfl.networks import Network
from tinyfl.networks.layers import Activation, Conv, Dense, DepthwiseConv, Layer, Loss, Pool, Shape
from tinyfl.runs.evaluation import inner_loop

_ACTIVATIONS = st.sampled_from(Activation)
_SIDE = st.integers(1, 3)
_PAIR = st.tuples(_SIDE, _SIDE)


def weights(network: Network, seed: int = 0) -> F32:
    """A theta for ``network``, of a size that keeps outputs near 1."""
    rng = np.random.default_rng(seed)
    parts = [np.empty(0)]
    for layer in network.placed:
        parts.append(rng.normal(0, 1 / np.sqrt(layer.fan_in), layer.weights))
    return np.concatenate(parts).astype(np.float32)


def outputs(network: Network, theta: F32, x: F32) -> F32:
    """The core's outputs (rows, outputs) for ``x`` (rows, *shape)."""
    rows = np.arange(len(x), dtype=np.int32)[None]
    source = TableSource(x.reshape(len(x), -1), rows, targets=np.zeros((len(x), network.outputs), np.float32))
    adapted = core.adapt(network.plan, theta, source, source, (0,), inner_loop("batch", source.samples, 1, 0.0), outputs=True)
    assert adapted.outputs is not None
    return adapted.outputs[0, 0]


COMPILED = [loss for loss in Loss if loss is not Loss.prototypes]
"""The losses that Keras has too."""


@st.composite
def _layers(draw: st.DrawFn) -> tuple[Layer, ...]:
    learns = st.booleans()
    conv = st.builds(Conv, st.integers(1, 4), _PAIR, _PAIR, st.booleans(), _ACTIVATIONS, learns)
    even = _SIDE.map(lambda n: (n, n))  # TensorFlow has no other strides for depthwise convolutions
    depthwise = st.builds(DepthwiseConv, _PAIR, even, st.booleans(), st.integers(1, 2), _ACTIVATIONS, learns)
    pool = st.builds(Pool, st.booleans(), st.one_of(st.none(), _PAIR), st.just((2, 1)), st.booleans()).map(
        lambda p: Pool(p.average, None) if p.size is None else p
    )
    dense = st.builds(Dense, st.integers(1, 5), _ACTIVATIONS, learns)
    chain = draw(st.lists(st.one_of(conv, depthwise, pool, dense), max_size=4))
    return (*chain, Dense(draw(st.integers(1, 4)), Activation.identity, draw(learns)))


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """A random network; where a layer does not fit its input, the chain ends before it."""
    shape: Shape = draw(st.one_of(st.tuples(st.integers(1, 9)), st.tuples(*[st.integers(3, 9)] * 2, st.integers(1, 3))))
    layers = draw(_layers())
    while True:
        network = Network("drawn", shape, layers, draw(st.sampled_from(COMPILED)))
        try:
            network.placed  # noqa: B018
        except ConfigError:
            layers = (*layers[:-2], layers[-1])
            continue
        return network
