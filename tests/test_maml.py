"""The gradients of MAML and FOMAML on simulated devices: those of TensorFlow in float64."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_training_against_keras as with_keras
from test_training_against_keras import forward, mean_loss

import tinyfl
from tinyfl import core
from tinyfl.algorithms import Inner, Phase, Returns
from tinyfl.algorithms.fomaml import FOMAML
from tinyfl.algorithms.maml import MAML
from tinyfl.building import boards
from tinyfl.core import F32, F64, Engine, TableSource
from tinyfl.costs import learning_cost
from tinyfl.errors import ConfigError
from tinyfl.networks import Network
from tinyfl.networks.layers import Activation, Conv, Dense, DepthwiseConv, Loss, Pool

IDENTITY, RELU, LEAKY, TANH, SIGMOID, *_ = Activation
SUPPORT, QUERY, DEVICES = 6, 5, 4

NETWORKS = [
    Network("corners", (3,), (Dense(12, RELU), Dense(9, LEAKY), Dense(2, IDENTITY)), Loss.mean_squared_error),
    Network("smooth", (3,), (Dense(8, TANH), Dense(7, SIGMOID), Dense(4, IDENTITY)), Loss.softmax_cross_entropy),
    Network("half-frozen", (4,), (Dense(6, TANH), Dense(6, TANH, learns=False), Dense(3, SIGMOID)), Loss.mean_squared_error),
    Network(
        "conv",
        (9, 8, 2),
        (
            Conv(4, (3, 3), (2, 2), True, TANH),
            DepthwiseConv((2, 3), (1, 1), False, 2, LEAKY),
            Pool(True, (2, 2), (1, 1), same=True),
            Dense(5, IDENTITY),
        ),
        Loss.softmax_cross_entropy,
    ),
    Network(
        "pooled",
        (8, 9, 1),
        (
            Pool(False, (2, 2), (1, 1), same=False), Conv(3, (3, 2), (1, 1), False, SIGMOID),
            Pool(False, (2, 2), (2, 2), same=True), Conv(4, (2, 2), (1, 1), True, RELU), Pool(True, None), Dense(3, IDENTITY),
        ),
        Loss.sigmoid_cross_entropy,
    ),
    *(
        Network(each.name, (3,), (Dense(8, each), Dense(7, each), Dense(2, IDENTITY)), Loss.softmax_cross_entropy)
        for each in Activation
    ),
]  # fmt: skip
STEPS = dict(zip((network.name for network in NETWORKS), (3, 1, 2, 1, 3), strict=False))


@pytest.fixture(scope="module")
def load_tensorflow(tensorflow: Any) -> None:
    global tf
    tf = with_keras.tf = tensorflow


def samples(network: Network) -> TableSource:
    """Six samples to adapt on and five queries of each device."""
    rng, count = np.random.default_rng(7), DEVICES * (SUPPORT + QUERY)
    x = rng.normal(0, 1, (count, network.inputs)).astype(np.float32)
    y = rng.uniform(0, 1, (count, network.outputs)).astype(np.float32)
    if network.loss is Loss.softmax_cross_entropy:
        y = np.eye(network.outputs, dtype=np.float32)[y.argmax(axis=1)]
    return TableSource(x, np.arange(count, dtype=np.int32).reshape(DEVICES, -1), targets=y)


def gradients(network: Network, theta: F32, steps: int, rate: float, returns: str, engine: Engine) -> F64:
    """What each device returns, (devices, weights)."""
    inner = Inner(Phase(SUPPORT, rate, batch=SUPPORT, passes=steps), Phase(QUERY, 0.0), returns=returns)
    ours = core.train(
        network.plan,
        theta,
        samples(network),
        np.arange(DEVICES, dtype=np.uint32),
        0,
        inner.to_bytes(),
        each=True,
        engine=engine,
    )
    assert (ours.code == core.Code.ok).all()
    assert ours.updates is not None
    return theta.astype(np.float64) - ours.updates


def by_tensorflow(network: Network, theta: F32, steps: int, rate: float) -> tuple[F64, F64]:
    """The same, in float64: FOMAML's and MAML's."""
    shapes = [part.shape for pair in network.split(theta) for part in pair]
    sizes = [int(np.prod(shape)) for shape in shapes]
    moves = np.concatenate([np.full(layer.weights, layer.learns) for layer in network.placed])

    def loss(weights: Any, x: Any, y: Any) -> Any:
        parts = iter([tf.reshape(part, shape) for part, shape in zip(tf.split(weights, sizes), shapes, strict=True)])
        for layer in network.placed:
            x = forward(layer, (next(parts), next(parts)) if layer.weights else (), x)
        return tf.reduce_mean(mean_loss(network.loss, tf.reshape(x, (len(y), -1)), y))

    source, found = samples(network), []
    for rows in source.rows:
        x, y = (tf.constant(each[rows], tf.float64) for each in (source.table, source.targets))
        start = phi = tf.constant(theta, tf.float64)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(start)
            for _ in range(steps):
                with tf.GradientTape() as inner:
                    inner.watch(phi)
                    value = loss(phi, x[:SUPPORT], y[:SUPPORT])
                phi -= rate * inner.gradient(value, phi) * moves
            value = loss(phi, x[SUPPORT:], y[SUPPORT:])
        found.append([tape.gradient(value, by).numpy() * moves for by in (phi, start)])
    first_order, second_order = np.swapaxes(found, 0, 1)
    return first_order, second_order


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_the_gradients_are_those_of_tensorflow(network: Network, load_tensorflow: None) -> None:
    theta, rate, steps = network.initial_weights(seed=1), 0.5, STEPS.get(network.name, 2)
    first, second = by_tensorflow(network, theta, steps, rate)
    assert np.abs(first - second).max() > 0.01 * np.abs(second).max()
    for engine in (Engine(lanes=1), Engine(lanes=4)):
        for returns, expected in (("gradient", first), ("meta_gradient", second)):
            ours = gradients(network, theta, steps, rate, returns, engine)
            error = np.abs(ours - expected).max() / np.abs(expected).max()
            assert error < 1e-5


def test_a_diverging_device_is_left_out_and_the_others_are_not() -> None:
    network = NETWORKS[0]
    source = samples(network)
    source.table[source.rows[1, 0]] = 1e18
    inner = Inner(Phase(SUPPORT, 0.1, batch=SUPPORT), Phase(QUERY, 0.0), returns="meta_gradient").to_bytes()
    devices = np.arange(DEVICES, dtype=np.uint32)
    trained = core.train(network.plan, network.initial_weights(1), source, devices, 0, inner)
    assert [code == core.Code.ok for code in trained.code] == [True, False, True, True]


@pytest.mark.parametrize(
    "phases",
    [
        (Phase(5, 0.1), Phase(5, 0.0)), (Phase(10, 0.1, batch=10),), (Phase(5, 0.1, batch=5, clip=1.0), Phase(5, 0.0)),
        (Phase(5, 0.1, batch=5), Phase(5, 0.0, clip=1.0)), (Phase(5, 0.1, batch=5, pull=0.1), Phase(5, 0.0)),
        (Phase(5, 0.1, batch=5, layers=1), Phase(5, 0.0)), (Phase(5, 0.1, batch=5, passes=1001), Phase(5, 0.0)),
        (Phase(5, 0.1, batch=5), Phase(5, 0.0, support=3, ways=2)),
    ],
)  # fmt: skip
def test_what_cannot_be_differentiated_is_refused_also_by_the_engine(phases: tuple[Phase, ...]) -> None:
    with pytest.raises(ConfigError, match="MAML's gradient takes two phases"):
        Inner(*phases, returns="meta_gradient")
    record = bytearray(Inner(*phases, returns="gradient").to_bytes())
    record[1] = Returns.meta_gradient
    network, devices = NETWORKS[0], np.arange(1, dtype=np.uint32)
    with pytest.raises(ValueError, match="inner loop"):
        core.train(network.plan, network.initial_weights(1), samples(network), devices, 0, bytes(record))


SINE: dict[str, Any] = {"task": "sine", "algorithm": "maml", "network": "mlp-8", "cohort": 6, "rounds": 4, "tasks": 4}


def test_gateways_end_with_the_theta_of_one_process(tmp_path: Path, no_page: None) -> None:
    one, three = (tinyfl.simulate(out=tmp_path / nodes, devices=40, nodes=nodes, **SINE) for nodes in ("1", "3"))
    assert one.theta.tobytes() == three.theta.tobytes()


def test_boards_are_refused_with_what_to_use_instead(tmp_path: Path, no_page: None) -> None:
    with pytest.raises(ConfigError, match="--algorithm fomaml"):
        tinyfl.simulate(out=tmp_path / "run", fleet=[{"board": "posix", "count": 6}], **SINE)
    with pytest.raises(ConfigError, match="--algorithm fomaml"):
        learning_cost(NETWORKS[0], boards.load("microbit-v2"), inner=MAML().inner(0))
    with pytest.raises(ConfigError, match="--algorithm fomaml"):
        MAML(clip=1.0)
    assert MAML().inner(0).phases == FOMAML(steps=5).inner(0).phases
