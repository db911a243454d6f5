"""Schedules of the outer step and of the devices' rate: against their formulas, and in runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyfl
from tinyfl.algorithms import Inner, State, schedules
from tinyfl.config import resolve
from tinyfl.config.settings import SCHEDULES
from tinyfl.errors import ConfigError
from tinyfl.fleet import draw_cohort
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.learner import learner_of
from tinyfl.simulators.native import NativeFleet

ROUNDS = 250
SINE: dict[str, Any] = {"task": "sine", "network": "mlp-8", "devices": 50, "cohort": 2, "tasks": 4, "rounds": ROUNDS}
DONE = np.arange(ROUNDS) / ROUNDS
LEFT = {"constant": np.ones(ROUNDS), "linear": 1 - DONE, "cosine": np.cos(np.pi * DONE / 2) ** 2}
"""The share of a rate in each round."""


@pytest.fixture(autouse=True)
def quick(no_page: None) -> None:
    """No report."""


def test_the_schedules_of_settings_are_those_of_the_algorithms() -> None:
    assert set(SCHEDULES) == set(schedules.SCHEDULES) == set(LEFT)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("algorithm", ["tinyreptile", "reptile", "fedavg", "joint"])
def test_rates_follow_their_schedule(algorithm: str, schedule: str) -> None:
    outer = {} if algorithm == "joint" else {"outer_schedule": schedule, "outer_step": 0.5}
    made: Any = resolve({**SINE, "algorithm": algorithm, "rate_schedule": schedule, "rate": 0.2, **outer}).build()
    rates = np.array([made.inner(round).phases[0].rate for round in range(ROUNDS)])
    at = np.arange(ROUNDS) * schedules.STEPS // ROUNDS  # in steps
    np.testing.assert_allclose(rates, 0.2 * LEFT[schedule][at * ROUNDS // schedules.STEPS], atol=0.2 / schedules.STEPS)
    assert len(set(rates)) == (1 if schedule == "constant" else schedules.STEPS)
    assert (np.diff(rates) <= 0).all()
    if outer:
        np.testing.assert_allclose([made.alpha(round) for round in range(ROUNDS)], 0.5 * LEFT[schedule], atol=1e-11)


@pytest.mark.parametrize(("algorithm", "own"), [("tinyreptile", "linear"), ("reptile", "linear"), ("fedavg", "constant")])
def test_an_algorithm_has_a_schedule_of_its_own(algorithm: str, own: str) -> None:
    usual, said = (resolve({**SINE, "algorithm": algorithm, **given}) for given in ({}, {"outer_schedule": own}))
    assert [usual.build().alpha(round) for round in (0, 9)] == [said.build().alpha(round) for round in (0, 9)]  # type: ignore[attr-defined]
    assert usual.sha256() != said.sha256()


def test_a_scheduled_run_is_its_rounds_by_hand_and_still_runs_in_stretches(tmp_path: Path, stretches: list[int]) -> None:
    options = {**SINE, "rate": 0.05, "samples": 6, "rate_schedule": "cosine", "outer_schedule": "constant", "outer_step": 0.7}
    run = tinyfl.simulate(out=tmp_path, **options)
    assert len(stretches) <= schedules.STEPS + 1
    config = RunDirectory(tmp_path).config()
    learner = learner_of(config)
    fleet, state = NativeFleet(learner.task, learner.network, config.devices), State(0, learner.start)
    for round in range(ROUNDS):
        left = (1 + np.cos(np.pi * (round * 100 // ROUNDS) / 100)) / 2
        inner = Inner(samples=6, rate=0.05 * float(left))
        updates = fleet.run(draw_cohort(config.seed, round, 2, config.devices), round, state.theta, inner)
        state = state.step(0.7 * (updates.mean() - state.theta))
    np.testing.assert_allclose(run.theta, state.theta, atol=1e-5)


@pytest.mark.parametrize(("schedule", "restated"), [("", False), ("linear", True)])
def test_a_continued_run_is_restated_only_if_a_schedule_depends_on_its_rounds(
    tmp_path: Path, schedule: str, restated: bool
) -> None:
    options = {**SINE, "rounds": 6, "algorithm": "fedavg", "rate_schedule": schedule}
    tinyfl.simulate(out=tmp_path / "run", **options)
    result = tinyfl.simulate(resume=tmp_path / "run", rounds=9).result
    assert RunDirectory(tmp_path / "run").config().continued == (((6, 6),) if restated else ())
    whole = tinyfl.simulate(out=tmp_path / "whole", **{**options, "rounds": 9})
    assert (result["theta_sha256"] == whole.result["theta_sha256"]) is not restated


def test_another_algorithm_than_the_files_has_its_own_schedule(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('task = "sine"\nouter_schedule = "cosine"\nrate_schedule = "linear"\n')
    assert resolve({}, file).outer_schedule == "cosine"
    other = resolve({"algorithm": "fedavg"}, file)
    assert (other.outer_schedule, other.rate_schedule) == ("", "")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"outer_schedule": "square"}, "Give --outer-schedule constant, linear or cosine"),
        ({"rate_schedule": 1}, "rate_schedule is 1"),
        ({"algorithm": "joint", "outer_schedule": "linear"}, "joint has no --outer-schedule"),
    ],
)
def test_schedules_that_are_none_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve({**SINE, **options})
