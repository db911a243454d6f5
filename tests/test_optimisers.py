"""Optimisers of the server: theta is that of Keras's optimisers with the same gradients, also over a checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyfl
from tinyfl import core
from tinyfl.algorithms import State, TowardsMean, Updates, alpha_of, alpha_of_stretches, optimisers
from tinyfl.algorithms.fedavg import FedAvg
from tinyfl.algorithms.reptile import Reptile
from tinyfl.algorithms.tinyreptile import TinyReptile
from tinyfl.config import resolve
from tinyfl.config.settings import OPTIMISERS
from tinyfl.errors import ConfigError
from tinyfl.runs.directory import RunDirectory

ROUNDS, STEP = 50, 0.01
SINE: dict[str, Any] = {"task": "sine", "network": "mlp-8", "devices": 50, "cohort": 2, "tasks": 4, "algorithm": "reptile"}


@pytest.fixture(autouse=True)
def quick(no_page: None) -> None:
    """No report."""


def updates_of(theta: core.F32, direction: np.ndarray) -> Updates:
    return Updates(theta, core.fixed((theta + direction).astype(np.float32), theta), 1)


def test_the_optimisers_of_settings_are_those_of_the_algorithms() -> None:
    assert tuple(optimisers.OPTIMISERS) == OPTIMISERS


@pytest.mark.parametrize("name", OPTIMISERS)
def test_theta_is_that_of_keras(name: str, tensorflow: Any) -> None:
    directions = np.random.default_rng(0).normal(size=(ROUNDS, 7)) * np.logspace(-3, 1, 7)
    kinds = tensorflow.keras.optimizers
    theirs = {
        "sgd": kinds.SGD(STEP), "momentum": kinds.SGD(STEP, momentum=0.9), "adam": kinds.Adam(STEP, epsilon=1e-12),
    }[name]  # fmt: skip
    variable = tensorflow.Variable(np.ones(7, np.float32))
    state, algorithm = (
        State(0, np.ones(7, np.float32)),
        Reptile(ROUNDS, outer_step=STEP, outer_schedule="constant", outer_optimiser=name),
    )
    for direction in directions:
        theirs.apply_gradients([(tensorflow.constant(-direction, tensorflow.float32), variable)])
        state = algorithm.outer(state, updates_of(state.theta, direction))
    assert np.abs(state.theta - 1).max() > STEP
    np.testing.assert_allclose(state.theta, variable.numpy(), atol=2e-5)


@pytest.mark.parametrize("made", [TinyReptile(9), Reptile(9), FedAvg()])
def test_a_scheduled_step_is_the_optimisers_rate(made: Any) -> None:
    adam = type(made)(rounds=9, outer_step=0.5, outer_schedule="linear", outer_optimiser="adam")
    theta = np.zeros(3, np.float32)
    first = adam.outer(State(6, theta), updates_of(theta, np.array([0.5, -0.25, 0.125])))
    np.testing.assert_allclose(first.theta, 0.5 / 3 * np.array([1, -1, 1]), rtol=1e-6)  # Adam's first step: the sign


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_round_without_updates_leaves_theta_and_what_is_remembered(name: str) -> None:
    algorithm, theta = Reptile(9, outer_step=0.5, outer_optimiser=name), np.ones(3, np.float32)
    state = algorithm.outer(State(0, theta), updates_of(theta, np.ones(3)))
    nothing = algorithm.outer(state, Updates(state.theta, np.zeros(3, np.int64), 0, absent={7: "numeric"}))
    assert nothing.round == 2
    assert (nothing.theta == state.theta).all()
    assert nothing.memory == state.memory


def test_only_an_optimiser_that_remembers_nothing_runs_without_the_server() -> None:
    for name in OPTIMISERS:
        algorithm = Reptile(9, outer_optimiser=name)
        assert alpha_of(algorithm) == algorithm.alpha
        assert alpha_of_stretches(algorithm) == (algorithm.alpha if name == "sgd" else None)
    assert TowardsMean.outer_optimiser == "sgd"


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_a_resumed_run_goes_on_with_what_its_optimiser_remembers(name: str, tmp_path: Path) -> None:
    options = {**SINE, "outer_optimiser": name, "outer_step": 0.01, "outer_schedule": "constant"}
    tinyfl.simulate(out=tmp_path / "run", rounds=6, **options)
    assert RunDirectory(tmp_path / "run").checkpoint().state.memory
    longer = tinyfl.simulate(resume=tmp_path / "run", rounds=9)
    whole = tinyfl.simulate(out=tmp_path / "whole", rounds=9, **options)
    assert longer.result["theta_sha256"] == whole.result["theta_sha256"]


def test_a_longer_run_with_a_falling_rate_is_restated(tmp_path: Path) -> None:
    tinyfl.simulate(out=tmp_path, rounds=6, outer_optimiser="adam", outer_step=0.01, **SINE)
    tinyfl.simulate(resume=tmp_path, rounds=9)
    assert RunDirectory(tmp_path).config().continued == ((6, 6),)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"outer_optimiser": "lion"}, "Give --outer-optimiser sgd, momentum or adam"),
        ({"outer_optimiser": "adam"}, "such as --outer-step 0.001"),
        ({"outer_optimiser": "momentum", "algorithm": "joint"}, "joint has no --outer-optimiser"),
    ],
)
def test_optimisers_that_cannot_be_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve({**SINE, **options})
