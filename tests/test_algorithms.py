"""Outer steps against the papers' formulas in plain float64, and what cannot meta-learn is refused."""

import numpy as np
import pytest

from tinyfl import core
from tinyfl.algorithms import Algorithm, Inner, State, Updates
from tinyfl.algorithms.fedavg import FedAvg
from tinyfl.algorithms.fedprox import FedProx
from tinyfl.algorithms.fomaml import FOMAML
from tinyfl.algorithms.joint import Joint
from tinyfl.algorithms.reptile import Reptile
from tinyfl.algorithms.tinyreptile import TinyReptile
from tinyfl.errors import ConfigError
from tinyfl.networks import network
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks import load_task, numbers

RNG = np.random.default_rng(0)
THETA = RNG.normal(size=30).astype(np.float32)
PHIS = (THETA + RNG.normal(scale=0.1, size=(5, 30))).astype(np.float32)
UPDATES = Updates(THETA, sum(core.fixed(phi, THETA) for phi in PHIS), len(PHIS))
MEAN = PHIS.astype(np.float64).mean(axis=0)


@pytest.mark.parametrize(
    ("algorithm", "round", "expected"),
    [
        (TinyReptile(rounds=10, outer_step=0.8), 0, THETA + 0.8 * (MEAN - THETA)),
        (TinyReptile(rounds=10, outer_step=0.8), 7, THETA + 0.8 * 0.3 * (MEAN - THETA)),
        (Reptile(rounds=4, outer_step=0.5), 3, THETA + 0.5 * 0.25 * (MEAN - THETA)),
        (FedAvg(), 9, MEAN),
        (FedAvg(outer_step=0.5), 9, (THETA + MEAN) / 2),
        (FedProx(outer_step=0.5), 9, (THETA + MEAN) / 2),
        (FOMAML(outer_optimiser="sgd", outer_step=0.5), 9, (THETA + MEAN) / 2),
        (Joint(), 9, MEAN),
    ],
)
def test_the_outer_step_is_the_papers(algorithm: Algorithm, round: int, expected: np.ndarray) -> None:
    state = algorithm.outer(State(round, THETA), UPDATES)
    assert state.round == round + 1
    assert state.theta.dtype == np.float32
    np.testing.assert_allclose(state.theta, expected, atol=2e-7)


def test_a_round_without_updates_leaves_theta() -> None:
    nothing = Updates(THETA, np.zeros(30, np.int64), 0, absent={7: "numeric"})
    assert (TinyReptile(rounds=3).outer(State(0, THETA), nothing).theta == THETA).all()


def test_what_cannot_meta_learn_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot meta-learn"):
        TinyReptile(rounds=5, samples=1)
    with pytest.raises(ConfigError, match="cannot meta-learn"):
        Reptile(rounds=5, samples=10, batch=10)
    Reptile(rounds=5, samples=11, batch=10)


@pytest.mark.parametrize(("samples", "support"), [(1, 0), (10, 10), (10, 11)])
def test_fomaml_without_a_query_set_is_refused(samples: int, support: int) -> None:
    with pytest.raises(ConfigError, match="leave none to measure on"):
        FOMAML(samples=samples, support=support)


def test_joint_training_is_sgd_on_the_whole_cohorts_samples() -> None:
    task = load_task("digits", None, 0)
    net = network("mlp-16", task.shape, task.outputs, task.loss, task.activation)
    theta, cohort = net.initial_weights(0), numbers(0, 8)
    joint = Joint(samples=4, rate=0.1)
    fleet = NativeFleet(task, net, 8)
    state = joint.outer(State(0, theta), fleet.run(cohort, 0, theta, joint.inner(0)))

    source = task.stream(cohort, 0, 4)
    x, y = core.samples(source, net.plan, cohort, 0, 4)
    pooled = core.TableSource(
        x.reshape(32, -1), np.arange(32, dtype=np.int32)[None], labels=y.reshape(32, -1).argmax(axis=1).astype(np.int32)[None]
    )
    one = core.train(net.plan, theta, pooled, numbers(0, 1), 0, Inner(samples=32, batch=32, rate=0.1).to_bytes(), each=True)
    assert one.updates is not None
    np.testing.assert_allclose(state.theta, one.updates[0], atol=1e-6)


def test_meta_learning_learns_to_adapt_where_joint_training_does_not() -> None:
    from tinyfl.runs import evaluation

    task = load_task("sine", None, 0)
    net = network("mlp-32-32", (1,), 1, task.loss, task.activation)
    fleet = NativeFleet(task, net, 1000)
    losses = {}
    for name, algorithm in (
        ("tinyreptile", TinyReptile(rounds=150, rate=0.02)),
        ("joint", Joint(samples=32, rate=0.02)),
    ):
        state = State(0, net.initial_weights(0))
        for round in range(150):
            state = algorithm.outer(state, fleet.run(numbers(0, 200), round, state.theta, algorithm.inner(round)))
        rows = evaluation.measure(task, net, state.theta, shots=(10,), tasks=200)
        losses[name] = next(row.loss for row in rows if (row.mode, row.steps) == ("batch", 10))
    assert losses["tinyreptile"] < 0.7 * losses["joint"]
