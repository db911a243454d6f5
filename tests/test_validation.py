"""Evaluation in the course of a run: the best theta is kept, and the run may stop early."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyfl
from tinyfl import core
from tinyfl.algorithms import State
from tinyfl.config import resolve
from tinyfl.errors import ConfigError, RunError
from tinyfl.fleet import draw_cohort
from tinyfl.flower.rounds import Progress
from tinyfl.report import figures, page
from tinyfl.runs import elsewhere, evaluation, validation
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.learner import learner_of
from tinyfl.runs.records import ValidationRow
from tinyfl.runs.validation import Validation
from tinyfl.simulators.native import NativeFleet

SINE: dict[str, Any] = {
    "task": "sine", "network": "mlp-8", "devices": 50, "cohort": 3, "tasks": 4, "algorithm": "fedavg", "rate": 0.1,
}  # fmt: skip
STOPS: dict[str, Any] = {**SINE, "rounds": 400, "evaluate_every": 7, "patience": 3}


@pytest.fixture(autouse=True)
def quick(no_page: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few devices choose a rate."""
    monkeypatch.setattr(evaluation, "VALIDATION_EPISODES", 20)
    monkeypatch.setattr(elsewhere, "VALIDATION_EPISODES", 20)


def read(run: Path) -> dict[str, Any]:
    """What a run leaves, but seconds and its place."""
    result = json.loads((run / "result.json").read_text())
    for key in ("seconds", "device_rounds_per_s", "run"):
        del result[key]
    rounds = [{**json.loads(line), "seconds": 0} for line in (run / "rounds.jsonl").read_text().splitlines()]
    theta = np.load(run / "initialisation.npz")["theta"].tobytes()
    return {"result": result, "rounds": rounds, "metrics": (run / "metrics.jsonl").read_bytes(), "theta": theta}


@pytest.mark.parametrize(("task", "network"), [("sine", "mlp-8"), ("digits", "mlp-6")])
def test_the_best_of_the_evaluations_is_the_result(tmp_path: Path, task: str, network: str) -> None:
    options = {**SINE, "task": task, "network": network, "rounds": 33, "evaluate_every": 10}
    run = tinyfl.simulate(out=tmp_path, **options)
    # By hand: the public parts of a round, and every rate on every validation device.
    config = RunDirectory(tmp_path).config()
    learner = learner_of(config)
    fleet, algorithm = NativeFleet(learner.task, learner.network, config.devices), config.build()
    state, thetas, rows = State(0, learner.start), [], []
    episodes = learner.task.episodes("validation", 20, min(config.shots))
    for round in range(33):
        cohort = draw_cohort(config.seed, round, config.cohort, config.devices)
        state = algorithm.outer(state, fleet.run(cohort, round, state.theta, algorithm.inner(round)))
        if round + 1 not in (10, 20, 30, 33):
            continue
        thetas.append(state.theta)
        tried = []
        figure = "accuracy" if task == "digits" else "loss"
        for rate in evaluation.RATES:
            loop = evaluation.inner_loop("batch", episodes.support.samples, 10, rate)
            found = core.adapt(learner.network.plan, state.theta, episodes.support, episodes.query, (10,), loop)
            loss, accuracy = (float(each.mean(dtype=np.float64)) for each in (found.loss, found.accuracy))
            spread = getattr(found, figure)[0].std(dtype=np.float64, ddof=1)
            tried.append((accuracy if task == "digits" else -loss, -rate, loss, accuracy, spread))
        _, rate, loss, accuracy, spread = max(tried)
        rows.append({
            "round": round + 1, "adapt_lr": -rate, "loss": loss, "accuracy": accuracy if task == "digits" else None,
            "deviation": pytest.approx(spread, rel=1e-9), "devices": 20,
            "sample_gradients": (round + 1) * config.cohort * config.samples,
        })  # fmt: skip
    assert run.result["validation"] == rows
    score = [row["accuracy"] if task == "digits" else -row["loss"] for row in rows]
    best = score.index(max(score))
    assert run.theta.tobytes() == thetas[best].tobytes()
    assert run.result["best_round"] == rows[best]["round"]
    assert run.result["rounds"] == 33
    assert any(f"best after round {rows[best]['round']}" in note for note in run.result["notes"])


def test_evaluations_of_an_older_tinyfl_are_still_read_and_drawn() -> None:
    row = ValidationRow.model_validate({"round": 3, "adapt_lr": 0.1, "loss": 0.2, "accuracy": None})
    rows = [row.model_dump(), {**row.model_dump(), "round": 6, "loss": 0.1}]
    assert row.sample_gradients is row.deviation is None
    assert figures.validation(rows, 6, "mean squared error").startswith(b"\x89PNG")


def test_a_run_without_evaluations_has_nothing_of_them(tmp_path: Path) -> None:
    result = tinyfl.simulate(out=tmp_path, rounds=3, **SINE).result
    assert not {"validation", "best_round"} & set(result)


@pytest.mark.parametrize("cohort", [1, 3])
def test_in_stretches_and_round_by_round_it_is_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stretches: list[int], cohort: int
) -> None:
    options = {**SINE, "rounds": 600, "evaluate_every": 100, "cohort": cohort}
    tinyfl.simulate(out=tmp_path / "ours", **options)
    assert stretches == [100, 100, 56, 44, 100, 100, 12, 88]  # to every 100th round, and every 256th
    monkeypatch.setattr(NativeFleet, "stretch", lambda self, inner, cohort: 1)
    tinyfl.simulate(out=tmp_path / "plain", **options)
    assert read(tmp_path / "ours") == read(tmp_path / "plain")


def test_a_run_stops_after_its_patience_and_says_so(tmp_path: Path) -> None:
    run = tinyfl.simulate(out=tmp_path, **STOPS)
    rounds, rows = run.result["rounds"], run.result["validation"]
    assert rounds < 400
    assert [row["round"] for row in rows] == list(range(7, rounds + 1, 7))
    assert run.result["best_round"] == rounds - 3 * 7
    assert run.result["device_rounds"] == 3 * rounds
    assert f"stopped early after round {rounds} of 400" in run.result["notes"][-1]
    # Resumed, it stays where it is.
    before = read(tmp_path)
    tinyfl.simulate(resume=tmp_path)
    assert read(tmp_path) == before


@pytest.mark.parametrize("step", [5, 20, 33])
def test_interrupted_at_any_round_it_goes_on_to_the_same_result(tmp_path: Path, step: int) -> None:
    whole = tinyfl.simulate(out=tmp_path / "whole", minimum=1, **STOPS)
    reached = 0

    def stop(progress: Progress) -> None:
        nonlocal reached
        if progress.stage == "learning" and progress.done >= reached + step:
            reached = progress.done
            raise KeyboardInterrupt

    settings: dict[str, Any] = {"out": tmp_path / "run", **STOPS}
    interruptions = 0
    while True:
        try:
            tinyfl.simulate(progress=stop, minimum=1, **settings)
            break
        except KeyboardInterrupt:
            interruptions += 1
        settings = {"resume": tmp_path / "run"}
    assert interruptions
    assert read(tmp_path / "run") == read(whole.path)


def test_an_interrupt_within_an_evaluation_is_one_before_its_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tinyfl.simulate(out=tmp_path / "whole", **STOPS)
    really, calls = validation.best_rate, 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in (2, 3, 6):
            raise KeyboardInterrupt
        return really(*arguments)

    monkeypatch.setattr(validation, "best_rate", interrupted)
    settings: dict[str, Any] = {"out": tmp_path / "run", **STOPS}
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            tinyfl.simulate(**settings)
        settings = {"resume": tmp_path / "run"}
    tinyfl.simulate(**settings)
    assert read(tmp_path / "run") == read(whole.path)


def test_a_run_continued_to_more_rounds_keeps_its_evaluations(tmp_path: Path) -> None:
    options = {**SINE, "evaluate_every": 20}
    whole = tinyfl.simulate(out=tmp_path / "whole", rounds=80, **options)
    tinyfl.simulate(out=tmp_path / "run", rounds=40, **options)
    tinyfl.simulate(resume=tmp_path / "run", rounds=80)
    assert read(tmp_path / "run") == read(whole.path)
    # Fewer rounds end with an evaluation too.
    tinyfl.simulate(out=tmp_path / "fewer", rounds=30, **options)
    assert [row["round"] for row in read(tmp_path / "fewer")["result"]["validation"]] == [20, 30]


def test_a_run_that_stopped_early_goes_on_with_more_patience(tmp_path: Path) -> None:
    run = tinyfl.simulate(out=tmp_path / "run", **STOPS)
    done = run.result["rounds"]
    with pytest.raises(RunError, match=f"stopped early after round {done}.*give --patience more than 3"):
        tinyfl.simulate(resume=run.path, rounds=500)
    with pytest.raises(RunError, match="cannot be resumed with 2"):
        tinyfl.simulate(resume=run.path, patience=2)
    with pytest.raises(RunError, match="evaluate_every 7 and cannot be resumed with 8"):
        tinyfl.simulate(resume=run.path, evaluate_every=8)
    for patience, rounds in ((5, 400), (0, 500)):
        tinyfl.simulate(resume=run.path, patience=patience, rounds=rounds)
        whole = tinyfl.simulate(out=tmp_path / f"whole-{patience}", **{**STOPS, "patience": patience, "rounds": rounds})
        if patience:
            assert read(run.path) == read(whole.path)
    assert run.path.joinpath("result.json").is_file()
    with pytest.raises(RunError, match="without end, and cannot be resumed with 9"):
        tinyfl.simulate(resume=run.path, patience=9)


def test_evaluations_that_all_diverge_leave_the_last_theta(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tinyfl.simulate(out=tmp_path / "plain", rounds=12, **SINE)
    monkeypatch.setattr(validation, "best_rate", lambda *_: None)
    run = tinyfl.simulate(out=tmp_path / "run", rounds=12, evaluate_every=4, **SINE)
    assert run.theta.tobytes() == plain.theta.tobytes()
    assert run.result["best_round"] is None
    assert "diverged at every evaluation" in run.result["notes"][-1]
    assert RunDirectory(run.path).result()["validation"][0]["loss"] is None
    stopped = tinyfl.simulate(out=tmp_path / "stopped", rounds=12, evaluate_every=4, patience=2, **SINE)
    assert stopped.result["rounds"] == 8


@pytest.mark.parametrize("task", ["sine", "digits"])
def test_the_report_draws_the_evaluations_and_says_which_was_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    run = tinyfl.simulate(out=tmp_path, **{**SINE, "task": task, "rounds": 12, "evaluate_every": 4})
    monkeypatch.undo()
    text = page.rebuild(tmp_path).read_text()
    assert "What validation devices reached" in text
    assert run.result["notes"][-1] in text
    assert (tmp_path / "validation.png").read_bytes().startswith(b"\x89PNG")


@given(st.lists(st.one_of(st.none(), st.sampled_from([0.1, 0.2, 0.3])), max_size=9), st.booleans(), st.integers(0, 4))
def test_the_first_of_the_best_counts_and_patience_counts_from_it(
    scores: list[float | None], classes: bool, patience: int
) -> None:
    held, thetas = Validation(), []
    for number, score in enumerate(scores, 1):
        figures = {"loss": None if score is None else 1 - score, "accuracy": score if classes else None}
        row = ValidationRow(round=number, adapt_lr=None if score is None else 0.1, **figures)
        thetas.append(np.full(2, number, np.float32))
        held = held.after(row, thetas[-1])
    known = [score for score in scores if score is not None]
    at = scores.index(max(known)) if known else -1
    assert (held.best and held.best.round) == (at + 1 if known else None)
    assert held.theta is (thetas[at] if known else None)
    assert held.stops(patience) == (patience > 0 and len(scores) - 1 - at >= patience)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"patience": 3}, "--evaluate-every N"),
        ({"evaluate_every": -1}, "evaluate_every is -1"),
        ({"evaluate_every": 5, "patience": -1}, "patience is -1"),
        ({"evaluate_every": "often"}, "evaluate_every is 'often'"),
        ({"evaluate_every": True}, "evaluate_every is True"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve({"task": "sine", **options})


@pytest.mark.parametrize(
    "wrong",
    [
        {"best": np.zeros(3, np.float32)},
        {"best": np.zeros(25)},
        {"best": np.full(25, np.nan, np.float32)},
        {"validation": "[1]"},
        {"validation": "{"},
        {"validation": '[{"round": 0, "adapt_lr": 1, "loss": 1, "accuracy": null}]'},
    ],
)
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    tinyfl.simulate(out=tmp_path, rounds=4, evaluate_every=2, **SINE)
    path = tmp_path / "checkpoint" / "state.npz"
    np.savez(path, **{**np.load(path), **wrong})
    with pytest.raises(RunError, match="damaged"):
        tinyfl.simulate(resume=tmp_path)
