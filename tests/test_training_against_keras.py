"""Twenty steps of training on small networks, by the core in float32 and by TensorFlow in float64, end in the same weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tinyfl import core
from tinyfl.algorithms import Inner, Phase
from tinyfl.core import F32, TableSource
from tinyfl.networks import Network
from tinyfl.networks.layers import Activation, Conv, Dense, DepthwiseConv, Kind, Loss, Placed, Pool


@pytest.fixture(autouse=True, scope="module")
def load_tensorflow(tensorflow: Any) -> None:
    """Loads TensorFlow for the tests: collection does without it."""
    global tf
    tf = tensorflow


STEPS, RATE = 20, 0.05
IDENTITY, RELU, LEAKY, TANH, SIGMOID, *_ = Activation
MSE, SOFTMAX, SIGMOIDS, PROTOTYPES = Loss

NETWORKS = [
    Network(
        "strided-softmax",
        (9, 8, 2),
        (
            Conv(4, (3, 3), (2, 2), True, LEAKY),
            DepthwiseConv((2, 3), (1, 1), False, 1, TANH),
            Pool(average=True, size=None),
            Dense(5, IDENTITY),
        ),
        SOFTMAX,
    ),
    Network(
        "pooled-sigmoids",
        (10, 11, 1),
        (
            Conv(5, (3, 2), (1, 2), False, RELU),
            Pool(False, (2, 2), (2, 2), same=False),
            Dense(7, SIGMOID),
            Dense(4, IDENTITY),
        ),
        SIGMOIDS,
    ),
    Network(
        "separable-regression",
        (8, 9, 3),
        (
            DepthwiseConv((3, 3), (2, 2), True, 2, IDENTITY),
            Conv(6, (1, 1), (1, 1), True, LEAKY),
            Pool(True, (3, 2), (2, 2), same=True),
            Dense(2, SIGMOID),
        ),
        MSE,
    ),
    Network(
        "overlapping-maxima",
        (7, 9, 2),
        (
            Conv(4, (5, 4), (1, 1), True, TANH),
            Pool(False, (3, 3), (1, 2), same=True),
            DepthwiseConv((2, 2), (2, 2), False, 2, SIGMOID),
            Pool(average=False, size=None),
            Dense(3, IDENTITY),
        ),
        SOFTMAX,
    ),
    Network(
        "half-frozen",
        (12, 12, 1),
        (
            Conv(4, (4, 4), (3, 2), True, RELU),
            Conv(5, (2, 3), (1, 1), False, SIGMOID, learns=False),
            Pool(True, (2, 2), (1, 2), same=False),
            Dense(6, TANH, learns=False),
            Dense(6, RELU),
            Dense(3, IDENTITY),
        ),
        SIGMOIDS,
    ),
    Network("every-activation", (4,), (*(Dense(9, each) for each in Activation), Dense(3, IDENTITY)), MSE),
]


def forward(layer: Placed, weights: Sequence[Any], x: Any) -> Any:
    """A layer's output for ``x`` (samples, ...)."""
    padding = "SAME" if layer.same else "VALID"
    x = tf.reshape(x, (-1, *layer.input))
    kind = layer.kind.name
    if kind.endswith("pool"):
        pool = tf.nn.max_pool2d if kind == "max_pool" else tf.nn.avg_pool2d
        return pool(x, layer.kernel, layer.stride, padding)
    kernel, bias = weights
    if kind == "dense":
        x = tf.matmul(tf.reshape(x, (-1, kernel.shape[0])), kernel)
    elif kind == "conv":
        x = tf.nn.conv2d(x, kernel, layer.stride, padding)
    else:
        x = tf.nn.depthwise_conv2d(x, kernel, (1, *layer.stride, 1), padding)
    x += bias
    if layer.activation is LEAKY:
        return tf.nn.leaky_relu(x, 0.1)
    return x if layer.activation is IDENTITY else getattr(tf.nn, layer.activation.name)(x)


def mean_loss(loss: Loss, output: Any, target: Any) -> Any:
    if loss is SOFTMAX:
        return tf.nn.softmax_cross_entropy_with_logits(target, output)
    each = tf.nn.sigmoid_cross_entropy_with_logits(target, output) if loss is SIGMOIDS else (output - target) ** 2
    return tf.reduce_mean(each)


def trained_by_tensorflow(network: Network, theta: F32, x: F32, y: F32) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Weights after a step on each row, in float64."""
    pairs = [tuple(tf.Variable(a, dtype=tf.float64) for a in pair) for pair in network.split(theta)]
    weighted = iter(pairs)
    layers = [(layer, next(weighted) if layer.weights else ()) for layer in network.placed]
    moving = [variable for layer, variables in layers if layer.learns for variable in variables]

    @tf.function
    def step(sample: Any, target: Any) -> None:
        with tf.GradientTape() as tape:
            output = sample
            for layer, variables in layers:
                output = forward(layer, variables, output)
            loss = mean_loss(network.loss, tf.reshape(output, (1, -1)), target)
        for variable, gradient in zip(moving, tape.gradient(loss, moving), strict=True):
            variable.assign_sub(RATE * gradient)

    for sample, target in zip(x.astype(np.float64), y.astype(np.float64), strict=True):
        step(sample[None], target[None])
    return np.concatenate([variable.numpy().ravel() for pair in pairs for variable in pair])


def samples(network: Network) -> tuple[F32, F32]:
    rng = np.random.default_rng(4)
    x = rng.normal(0, 1, (STEPS, network.inputs)).astype(np.float32)
    y = rng.uniform(0, 1, (STEPS, network.outputs)).astype(np.float32)
    if network.loss is SOFTMAX:
        y = np.eye(network.outputs, dtype=np.float32)[y.argmax(axis=1)]
    return x, y if network.loss is not SIGMOIDS else y.round()


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_twenty_steps_end_where_tensorflow_ends(network: Network) -> None:
    theta = network.initial_weights(seed=1)
    x, y = samples(network)
    source = TableSource(x, np.arange(STEPS, dtype=np.int32)[None], targets=y)
    ours = core.train(
        network.plan, theta, source, np.zeros(1, np.uint32), 0, Inner(samples=STEPS, rate=RATE).to_bytes(), each=True
    )
    assert ours.updates is not None
    phi = ours.updates[0].astype(np.float64)
    theirs = trained_by_tensorflow(network, theta, x, y)
    moved, error = np.abs(theirs - theta).max(), np.abs(phi - theirs).max()
    assert moved > 0.01
    assert error < 1e-5 * np.abs(theirs).max()
    assert error < 1e-5 * moved, "relative to how far the weights moved"


def test_the_networks_have_every_layer_padding_activation_and_loss() -> None:
    placed = [layer for network in NETWORKS for layer in network.placed]
    windows = {(layer.kind, layer.same) for layer in placed if layer.kind is not Kind.dense}
    assert windows == {(kind, same) for kind in Kind if kind is not Kind.dense for same in (False, True)}
    assert {layer.activation for layer in placed} == set(Activation)
    assert {network.loss for network in NETWORKS} == set(Loss) - {PROTOTYPES}


def episode_gradient(network: Network, theta: F32, x: F32, labels: Any, support: int, ways: int) -> Any:
    """The gradient of an episode's mean loss, written as its formula, in float64."""
    pairs = [tuple(tf.Variable(a, dtype=tf.float64) for a in pair) for pair in network.split(theta)]
    weighted = iter(pairs)
    layers = [(layer, next(weighted) if layer.weights else ()) for layer in network.placed]
    with tf.GradientTape() as tape:
        embeddings = []
        for sample in x.astype(np.float64):
            output = sample[None]
            for layer, variables in layers:
                output = forward(layer, variables, output)
            embeddings.append(tf.reshape(output, (-1,)))
        shots = [[e for e, k in zip(embeddings[:support], labels, strict=False) if k == way] for way in range(ways)]
        means = tf.stack([tf.add_n(of) / len(of) for of in shots])
        queries = tf.stack(embeddings[support:])
        distances = tf.reduce_sum((queries[:, None] - means[None]) ** 2, axis=2)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels[support:], -distances))
    flat = [variable for pair in pairs for variable in pair]
    return np.concatenate([gradient.numpy().ravel() for gradient in tape.gradient(loss, flat)]), float(loss)


@pytest.mark.parametrize("network", NETWORKS[:3], ids=lambda network: network.name)
def test_the_gradient_of_an_episode_is_tensorflows(network: Network) -> None:
    """Classes have one to three shots; the second pass over them brings what queries ask of the class means."""
    network = Network(network.name, network.shape, network.layers[:-1], PROTOTYPES)
    theta, ways = network.initial_weights(seed=1), 3
    labels = np.array([0, 1, 1, 2, 2, 2, 0, 0, 1, 2, 2], np.int32)
    x = np.random.default_rng(4).normal(0, 1, (len(labels), network.inputs)).astype(np.float32)
    source = TableSource(x, np.arange(len(labels), dtype=np.int32)[None], labels=labels[None])
    inner = Inner(Phase(len(labels), 0.0, support=6, ways=ways), returns="gradient")
    ours = core.train(network.plan, theta, source, np.zeros(1, np.uint32), 0, inner.to_bytes(), each=True)
    gradient, loss = episode_gradient(network, theta, x, labels, 6, ways)
    assert ours.sum is not None
    assert np.abs(-ours.sum * core.UNIT - gradient).max() <= 1e-5 * np.abs(gradient).max()
    assert abs(ours.loss[0] - loss) <= 1e-5 * loss
