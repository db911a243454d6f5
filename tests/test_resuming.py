"""What a resumed run may do otherwise: find its files elsewhere, and have more rounds or fewer."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyfl
from tinyfl.algorithms import State
from tinyfl.config import resolve
from tinyfl.errors import ConfigError, DataError, RunError
from tinyfl.fleet import draw_cohort
from tinyfl.flower.rounds import Progress
from tinyfl.report import page
from tinyfl.runs import directory as directories
from tinyfl.runs import learner
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.finished import origin
from tinyfl.simulators.native import NativeFleet

OWN: dict[str, Any] = {"task": "npz", "network": "mlp-4", "rounds": 40, "tasks": 20, "shots": (5,), "adapt_lr": 0.1}


@pytest.fixture(autouse=True)
def quick(no_page: None, figureless: None) -> None:
    """No run here is about its page."""


def interrupted(after: int, **options: Any) -> None:
    """Interrupts a run after some rounds, each of which has a message of its own."""

    def stop(progress: Progress) -> None:
        if progress.stage == "learning" and progress.done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tinyfl.simulate(progress=stop, minimum=1, **options)


def killed_while_writing(monkeypatch: pytest.MonkeyPatch, name: str, **options: Any) -> None:
    """Resumes a run, and ends it at the write of a file."""
    really = RunDirectory.save

    def save(self: RunDirectory, file: str, data: bytes) -> None:
        if file == name:
            raise MemoryError("killed")
        really(self, file, data)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "save", save)
        with pytest.raises(MemoryError, match="killed"):
            tinyfl.simulate(**options)


@pytest.fixture
def moved(tmp_path: Path, own_data: Path) -> tuple[Path, Path, str]:
    """A run interrupted in the middle; its data, which have been moved since; and the theta of an uninterrupted run."""
    theta = tinyfl.simulate(out=tmp_path / "whole", data=own_data, minimum=1, **OWN).result["theta_sha256"]
    interrupted(20, out=tmp_path / "run", data=own_data, **OWN)
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "run", own_data.rename(tmp_path / "elsewhere" / "moved.npz"), theta


def test_a_run_whose_data_were_moved_goes_on_with_the_same_bytes_at_another_path(moved: tuple[Path, Path, str]) -> None:
    run, data, theta = moved
    notes: list[str] = []
    with pytest.raises(DataError, match="Give --data"):
        tinyfl.simulate(resume=run)
    result = tinyfl.simulate(resume=run, data=os.path.relpath(data), on_note=notes.append).result
    assert result["theta_sha256"] == theta
    assert any(str(data) in note and "same" not in note and "own.npz" in note for note in notes)
    assert not any("moved.npz" in note for note in result["notes"])
    assert RunDirectory(run).config().data == str(data)
    # The directory is whole: nothing needs the option again.
    assert tinyfl.simulate(resume=run).result["theta_sha256"] == theta
    assert origin(run, None).run is not None


@pytest.mark.slow
def test_other_bytes_at_another_path_are_refused_and_the_messages_cures_work(
    moved: tuple[Path, Path, str], tmp_path: Path
) -> None:
    run, data, theta = moved
    arrays = dict(np.load(data))
    kept = np.isin(arrays["device"], [1, 3, 4, 6, 2, 5, 7])
    other = tmp_path / "other.npz"
    np.savez(other, split=arrays["split"], **{name: arrays[name][kept] for name in ("x", "y", "device")})
    before = (run / "config.toml").read_bytes()
    with pytest.raises(RunError, match=r"other\.npz is not the data file") as refused:
        tinyfl.simulate(resume=run, data=other)
    assert (run / "config.toml").read_bytes() == before
    _, _, command = str(refused.value).partition("start a new run with this one: ")
    words = command.replace("ANOTHER", str(tmp_path / "another")).split()[1:]
    done = subprocess.run([sys.executable, "-m", "tinyfl.cli", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shutil.copy(data, tmp_path / "copy.npz")
    assert tinyfl.simulate(resume=run, data=tmp_path / "copy.npz").result["theta_sha256"] == theta


@pytest.mark.parametrize("data", ["absent.npz", "no/folder", "moved.npz/x", "\x1b[2J.npz"])
def test_a_path_without_a_file_is_refused_and_the_run_stays_as_it_is(moved: tuple[Path, Path, str], data: str) -> None:
    run, there, theta = moved
    with pytest.raises(DataError, match="no such file"):
        tinyfl.simulate(resume=run, data=data)
    assert tinyfl.simulate(resume=run, data=there).result["theta_sha256"] == theta


def test_data_moved_before_the_first_round_was_saved_are_taken_from_the_first_round_on(
    moved: tuple[Path, Path, str],
) -> None:
    run, data, theta = moved
    (run / "checkpoint" / "state.npz").unlink()
    notes: list[str] = []
    assert tinyfl.simulate(resume=run, data=data, on_note=notes.append).result["theta_sha256"] == theta
    assert any("none is saved yet" in note for note in notes)


def test_a_network_files_bytes_decide_too_and_a_kill_at_any_write_is_no_harm(
    moved: tuple[Path, Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A network's path is part of the config's hash. Its file is read by a double, since Keras takes seconds to load.
    data = moved[1]
    old, new = tmp_path / "old.keras", tmp_path / "new.keras"
    old.write_bytes(b"weights")

    def of_file(config: Any, load: Any) -> Any:
        assert Path(config.network).is_file()
        task = load(config)
        net = learner.network("mlp-4", task.shape, task.outputs, task.loss, task.activation)
        return learner.Learner(task, net, net.initial_weights(3), ())

    monkeypatch.setattr(learner, "_of_file", of_file)
    options = {**OWN, "network": str(old), "data": data}
    whole = tinyfl.simulate(out=tmp_path / "with-file", minimum=1, **options).result["theta_sha256"]
    interrupted(20, out=tmp_path / "net", **options)
    net = RunDirectory(tmp_path / "net")
    old.rename(new)
    for name in (directories.CHECKPOINT, directories.CONFIG):
        killed_while_writing(monkeypatch, name, resume=net.path, network=str(new))
        assert net.config().network == str(old)
    new.rename(old)
    interrupted(30, resume=net.path)  # with the old hash, although the checkpoint has both
    old.rename(new)
    interrupted(35, resume=net.path, network=str(new))
    assert net.config().network == str(new)
    result = tinyfl.simulate(resume=net.path).result
    assert (result["theta_sha256"], result["config_sha256"]) == (whole, net.config().sha256())
    new.write_bytes(b"other")
    shutil.copy(new, old)
    with pytest.raises(RunError, match=r"old\.keras is not the network file"):
        tinyfl.simulate(resume=net.path, network=str(old))
    with pytest.raises(RunError, match=r"give --network another copy"):
        tinyfl.simulate(resume=net.path, network=str(new))
    with pytest.raises(RunError, match="cannot be resumed with"):
        tinyfl.simulate(resume=net.path, network="mlp-4")


SINE: dict[str, Any] = {"task": "sine", "network": "mlp-8", "devices": 50, "cohort": 3, "tasks": 4, "adapt_lr": 0.01}


def read(run: Path) -> dict[str, Any]:
    """What a run leaves, but seconds and its place."""
    result = json.loads((run / "result.json").read_text())
    for key in ("seconds", "device_rounds_per_s", "run"):
        del result[key]
    rounds = [{**json.loads(line), "seconds": 0} for line in (run / "rounds.jsonl").read_text().splitlines()]
    held = np.load(run / "initialisation.npz")
    arrays = {name: held[name].tobytes() for name in held.files}
    return {"result": result, "rounds": rounds, "metrics": (run / "metrics.jsonl").read_bytes(), "arrays": arrays}


@pytest.mark.parametrize(
    ("rounds", "more", "options"),
    [
        (40, 80, {"algorithm": "fedavg"}),
        (700, 1400, {"algorithm": "fedavg", "cohort": 1}),  # every round is in metrics.jsonl, then every second
        (1100, 2750, {"algorithm": "joint", "cohort": 1, "devices": 7}),  # every second, then every fifth
        (300, 600, {"algorithm": "fedavg", "network": "mlp-16-relu", "rate": 0.4}),  # of some devices the loop diverges
        (12, 24, {"algorithm": "fedavg", "nodes": "devices", "aggregator": "median", "cohort": 5}),
        (12, 24, {"algorithm": "fedavg", "nodes": "3"}),
    ],
)
def test_a_finished_run_continued_to_more_rounds_is_the_run_of_as_many_to_the_bit(
    tmp_path: Path, rounds: int, more: int, options: dict[str, Any]
) -> None:
    whole = tinyfl.simulate(out=tmp_path / "whole", rounds=more, **{**SINE, **options})
    tinyfl.simulate(out=tmp_path / "run", rounds=rounds, **{**SINE, **options})
    notes: list[str] = []
    run = tinyfl.simulate(resume=tmp_path / "run", rounds=more, on_note=notes.append)
    assert run.theta.tobytes() == whole.theta.tobytes()
    assert read(run.path) == read(whole.path)
    assert notes == [f"rounds: {more:,} in all, instead of {rounds:,}; {rounds:,} are done"]
    assert bool(run.result["left_out"]) == (options.get("rate") == 0.4)


@pytest.mark.slow
def test_a_run_continued_from_the_middle_and_killed_at_any_write_is_the_run_of_as_many_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**SINE, "algorithm": "fedavg", "nodes": "2"}
    whole = tinyfl.simulate(out=tmp_path / "whole", rounds=1200, **options)
    path = tmp_path / "run"
    tinyfl.simulate(out=path, rounds=600, **options)
    for name in (directories.CHECKPOINT, directories.CONFIG, directories.METRICS):
        killed_while_writing(monkeypatch, name, resume=path, rounds=1200)
        if name != directories.METRICS:
            assert tinyfl.simulate(resume=path).result["rounds"] == 600  # or with the number of before
            killed_while_writing(monkeypatch, name, resume=path, rounds=1200)
    with pytest.raises(RunError, match="has not finished"):
        RunDirectory(path).result()
    interrupted(700, resume=path)
    interrupted(900, resume=path, rounds=1000)
    tinyfl.simulate(resume=path, rounds=1200)
    # The interruptions asked for a minimum of updates, which the config of a resumed run does not keep.
    assert read(path) == read(whole.path)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["tinyreptile", "reptile"])
def test_a_falling_outer_step_is_restated_over_the_new_total_and_the_jump_is_said(
    tmp_path: Path, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tinyfl.simulate(out=tmp_path / "run", rounds=100, algorithm=algorithm, **SINE)
    notes: list[str] = []
    run = tinyfl.simulate(resume=tmp_path / "run", rounds=200, on_note=notes.append)
    said = "schedule: restated after round 100 over 200 rounds instead of 100: the outer step is 0.01 in round 100 and 0.5"
    assert any(note.startswith(said) for note in notes)
    assert any(note.startswith(said) for note in run.result["notes"])
    monkeypatch.undo()
    assert said in page.rebuild(run.path).read_text()
    # By hand: the public parts of a round.
    config = RunDirectory(run.path).config()
    assert config.continued == ((100, 100),)
    task = config.load_task()
    net = learner.network(config.network, task.shape, task.outputs, task.loss, task.activation)
    fleet, made = NativeFleet(task, net, config.devices), config.build()
    state = State(0, net.initial_weights(config.seed))
    for round in range(200):
        updates = fleet.run(draw_cohort(config.seed, round, 3, 50), round, state.theta, made.inner(round))
        alpha = 1 - round / (100 if round < 100 else 200)
        state = state.step(alpha * (updates.mean() - state.theta))
    assert state.theta.tobytes() == run.theta.tobytes()
    # The config says it all: a new run with it is the same.
    again = tinyfl.simulate(config=run.path / "config.toml", out=tmp_path / "again")
    assert read(again.path) == read(run.path)


def test_a_restated_schedule_survives_interruptions_and_further_numbers_of_rounds(tmp_path: Path) -> None:
    path = tmp_path / "run"
    interrupted(30, out=path, rounds=100, **SINE)
    interrupted(60, resume=path, rounds=90)
    interrupted(60, resume=path, rounds=400)  # no round is done with 90 after the next line
    result = tinyfl.simulate(resume=path, rounds=120).result
    config = RunDirectory(path).config()
    totals = dict(config.continued)
    assert list(totals.values()) == [100, 90]
    assert (result["rounds"], result["config_sha256"]) == (120, config.sha256())
    assert sum(note.startswith("schedule: restated") for note in result["notes"]) == 2
    again = tinyfl.simulate(config=path / "config.toml", out=tmp_path / "again", minimum=0)
    assert again.result["theta_sha256"] == result["theta_sha256"]
    fresh = tinyfl.simulate(out=tmp_path / "fresh", rounds=120, **SINE)
    assert fresh.result["theta_sha256"] != result["theta_sha256"]
    assert fresh.result["config_sha256"] != result["config_sha256"]


def test_the_report_of_a_continued_run_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[int] = []
    monkeypatch.setattr(page, "write_report", lambda *arguments: reported.append(arguments[6]["rounds"]))
    tinyfl.simulate(out=tmp_path, rounds=4, **SINE)
    tinyfl.simulate(resume=tmp_path, rounds=9)
    assert reported == [4, 9]


def test_a_run_that_has_done_nothing_just_gets_the_other_number(tmp_path: Path) -> None:
    interrupted(10, out=tmp_path / "run", rounds=30, **SINE)
    (tmp_path / "run" / "checkpoint" / "state.npz").unlink()
    run = tinyfl.simulate(resume=tmp_path / "run", rounds=20, minimum=0)
    assert run.theta.tobytes() == tinyfl.simulate(out=tmp_path / "fresh", rounds=20, **SINE).theta.tobytes()
    assert RunDirectory(run.path).config().continued == ()


def test_a_run_may_end_where_it_is_but_not_before(tmp_path: Path) -> None:
    interrupted(20, out=tmp_path / "run", rounds=30, algorithm="fedavg", **SINE)
    held = RunDirectory(tmp_path / "run").checkpoint()
    assert held is not None
    done = held.state.round
    before = (tmp_path / "run" / "config.toml").read_bytes()
    with pytest.raises(RunError, match=f"{done} rounds of this run are done.*Give --rounds {done} or more"):
        tinyfl.simulate(resume=tmp_path / "run", rounds=done - 1)
    with pytest.raises(ConfigError, match="rounds is 0"):
        tinyfl.simulate(resume=tmp_path / "run", rounds=0)
    assert (tmp_path / "run" / "config.toml").read_bytes() == before
    run = tinyfl.simulate(resume=tmp_path / "run", rounds=done)
    whole = tinyfl.simulate(out=tmp_path / "whole", rounds=done, algorithm="fedavg", **SINE)
    assert read(run.path) == read(whole.path)


def test_rounds_that_an_older_tinyfl_logged_keep_their_metrics(tmp_path: Path) -> None:
    whole = tinyfl.simulate(out=tmp_path / "whole", rounds=1200, algorithm="fedavg", **SINE)
    path = tinyfl.simulate(out=tmp_path / "run", rounds=600, algorithm="fedavg", **SINE).path
    lines = [json.loads(line) for line in (path / "rounds.jsonl").read_text().splitlines()]
    for line in lines:
        del line["loss"]
    (path / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = tinyfl.simulate(resume=path, rounds=1200)
    assert run.theta.tobytes() == whole.theta.tobytes()
    assert [record["round"] for record in RunDirectory(path).metrics()] == [*range(1, 601), *range(602, 1201, 2)]


@given(
    st.one_of(
        st.integers(), st.text(), st.lists(st.integers()), st.lists(st.lists(st.integers(-3, 1 << 40), max_size=3), min_size=1)
    )
)
def test_what_is_no_list_of_numbers_of_rounds_is_refused(value: Any) -> None:
    pairs = value if isinstance(value, list) else [value]
    good = all(isinstance(pair, list) and len(pair) == 2 and 0 < pair[0] <= pair[1] <= 1 << 31 for pair in pairs)
    good = good and all(a < b for a, b in pairwise(pairs)) and (not pairs or pairs[-1][0] <= 31250)
    if isinstance(value, str) and not value:
        good = False
    if good:
        assert resolve({"task": "sine", "continued": value}).continued == tuple(map(tuple, value))
    else:
        with pytest.raises(ConfigError, match="continued"):
            resolve({"task": "sine", "continued": value})


def test_a_config_edited_by_hand_is_not_taken_over_with_other_changes(tmp_path: Path) -> None:
    tinyfl.simulate(out=tmp_path, rounds=5, algorithm="fedavg", **SINE)
    config = tmp_path / "config.toml"
    config.write_text(config.read_text().replace("cohort = 3", "cohort = 4"))
    with pytest.raises(RunError, match=r"config\.toml was changed"):
        tinyfl.simulate(resume=tmp_path, rounds=10)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["fedavg", "tinyreptile"])
def test_kill_9_at_any_moment_of_a_continued_run_leaves_the_files_of_one_that_was_not_killed(
    tmp_path: Path, algorithm: str
) -> None:
    options = {**SINE, "network": "mlp-64-64-tanh", "algorithm": algorithm, "evaluate_every": 300}
    whole = tinyfl.simulate(out=tmp_path / "whole", rounds=600, **options)
    out = Path(shutil.copytree(whole.path, tmp_path / "killed"))
    whole = tinyfl.simulate(resume=whole.path, rounds=1500)
    command = [sys.executable, "-m", "tinyfl.cli", "run", "--json", "--resume", str(out)]
    environment, chance = {**os.environ, "TINYFL_CHECKPOINT_SECONDS": "0"}, random.Random(3)
    caught = set()
    for attempt in range(3):
        words = ["--rounds", "1500"] if attempt < 2 else []  # whether or not the change is written
        process = subprocess.Popen([*command, *words], env=environment, stdout=subprocess.DEVNULL)
        before = (out / "checkpoint" / "state.npz").stat().st_mtime_ns
        while process.poll() is None and (out / "checkpoint" / "state.npz").stat().st_mtime_ns == before:
            time.sleep(0.001)
        time.sleep(0.1 * chance.random())
        process.kill()
        process.wait()
        held = RunDirectory(out).checkpoint()
        assert held is not None
        caught.add(held.state.round)
    assert len(caught) >= 2
    tinyfl.simulate(resume=out, rounds=1500)
    assert read(out) == read(whole.path)
