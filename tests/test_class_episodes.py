"""Episodes of the classes in a user's own data: nothing that is tested was trained on, and the cures of refusals work."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_docs import ROOT, commands, evaluate_quickly, write_files

import tinyfl
from tinyfl.cli import app
from tinyfl.core import TableSource
from tinyfl.data import Reading, Table
from tinyfl.errors import ConfigError, DataError
from tinyfl.tasks import SPLITS, numbers
from tinyfl.tasks.classes import npz
from tinyfl.tasks.episodic import Episodic

CLASSES, DEVICES = 12, 9


def table_of(samples: int = 4, **more: Any) -> Table:
    """Each device has ``samples`` samples of each class. The first input is the row's number."""
    device, y = (each.ravel() for each in np.indices((DEVICES, CLASSES * samples)))
    rng = np.random.default_rng(0)
    order = rng.permutation(len(y))
    x = rng.normal(size=(len(y), 3))
    x[:, 0] = np.arange(len(y))
    names = np.array([f"class {number:02}" for number in range(CLASSES)])
    return Table("a table", x, names[y % CLASSES][order], device[order], **more)


def task_of(table: Table, seed: int = 0, **reading: Any) -> Episodic:
    task = npz(table, seed, reading=Reading(episodes="classes", **reading))
    assert isinstance(task, Episodic)
    return task


def rows_in(task: Episodic, table: NDArray[Any]) -> NDArray[np.int64]:
    """The numbers of the rows that a pool's table holds."""
    standard = task.standardisation
    assert standard is not None
    return np.rint(table[:, 0] * standard.scale[0] + standard.mean[0]).astype(int)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**40), ways=st.integers(2, 6), shots=st.integers(1, 3))
def test_nothing_that_is_tested_was_trained_on(seed: int, ways: int, shots: int) -> None:
    table = table_of(samples=5)
    task = task_of(table, seed, ways=ways)
    rows = {part: rows_in(task, getattr(task, part).table) for part in ("train", *SPLITS)}
    classes = {part: set(table.y[each]) for part, each in rows.items()}
    devices = {part: set(table.device[each]) for part, each in rows.items()}
    assert not classes["train"] & classes["test"]
    assert not classes["validation"] & classes["test"]
    assert not devices["train"] & devices["test"]
    assert not devices["train"] & devices["validation"]
    assert not devices["validation"] & devices["test"]
    assert min(map(len, classes.values())) >= ways
    stream = task.stream(numbers(0, 50), 3, 20)
    assert set(rows_in(task, stream.table)[stream.rows].ravel()) <= set(rows["train"])
    x = table.x[rows["train"]]
    assert task.standardisation is not None
    np.testing.assert_allclose(task.standardisation.mean, x.mean(axis=0))
    np.testing.assert_allclose(task.standardisation.scale, x.std(axis=0))
    for split in SPLITS:
        demand_separate(task, table, task.episodes(split, 8, shots).support, task.episodes(split, 8, shots).query)


def demand_separate(task: Episodic, table: Table, support: TableSource, query: TableSource) -> None:
    """No sample is in both sets of an episode, and both have its classes under one numbering."""
    for episode in range(len(support.rows)):
        asked, told = (rows_in(task, each.table)[each.rows[episode]] for each in (query, support))
        assert len({*asked, *told}) == len(asked) + len(told)
        assert support.labels is not None
        assert query.labels is not None
        pairs = {
            *zip(support.labels[episode], table.y[told], strict=True),
            *zip(query.labels[episode], table.y[asked], strict=True),
        }
        assert len(pairs) == task.ways == len({label for label, _ in pairs}) == len({name for _, name in pairs})


def test_devices_number_the_same_classes_differently() -> None:
    table = table_of()
    task = task_of(table)
    episodes = task.episodes("test", 60, 1).support
    assert len({tuple(table.y[rows_in(task, episodes.table)[rows]]) for rows in episodes.rows}) > 30


def test_another_seed_holds_out_other_classes_and_devices() -> None:
    table = table_of()
    held_out = {tuple(sorted(set(table.y[rows_in(task, task.test.table)]))) for task in (task_of(table, n) for n in range(6))}
    assert len(held_out) > 3


def test_what_a_file_holds_out_is_held_out(tmp_path: Path) -> None:
    table, classes = table_of(), ["class 01", "class 03", "class 05", "class 07", "class 09"]
    path = tmp_path / "own.npz"
    np.savez(path, x=table.x, y=table.y, device=table.device, split=[2, 8], validation=[0], split_classes=classes)
    task = npz(path, 0, reading=Reading(episodes="classes"))
    assert isinstance(task, Episodic)
    rows = rows_in(task, task.test.table)
    assert set(table.y[rows]) == set(classes)
    assert set(table.device[rows]) == {2, 8}
    assert set(table.device[rows_in(task, task.validation.table)]) == {0}


def test_many_classes_leave_some_to_validation_alone() -> None:
    table = table_of()
    task = task_of(table, ways=2)
    of = {part: set(table.y[rows_in(task, getattr(task, part).table)]) for part in ("train", *SPLITS)}
    assert not of["train"] & of["validation"]


def test_a_class_with_too_few_samples_is_not_evaluated_where_drop_small_says_so() -> None:
    table = table_of(samples=20)
    rare = (table.y == "class 01") & (np.arange(len(table.y)) % 8 > 0)
    small = Table("a table", table.x[~rare], table.y[~rare], table.device[~rare], split=np.array([2, 8]),
                  classes=np.unique(table.y)[:6])  # fmt: skip
    with pytest.raises(DataError, match=r"has a class with only [0-9] test samples, too few for 9 shots"):
        task_of(small, shots=9).episodes("test", 5, 9)
    task = task_of(small, shots=9, drop_small=True)
    assert len(task.test.count) == 5
    task.episodes("test", 5, 9)


@pytest.mark.parametrize(
    ("more", "reading", "says"),
    [
        ({}, {"ways": 7}, "y has 12 classes, and devices that see 7 of them need 14.*Give --ways 6 or fewer"),
        ({"classes": np.array(["class 99"])}, {}, "holds out class class 99, which y does not have"),
        ({"classes": np.array(["class 01"])}, {}, "holds out 1 of 12 classes; at least 5 must be held out"),
        ({}, {"shots": 99, "drop_small": True}, "0 validation classes have samples enough on validation devices"),
    ],
)
def test_what_has_no_such_episodes_is_refused(more: dict[str, Any], reading: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        task_of(table_of(**more), **reading)


def test_options_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="--ways is of devices with --episodes classes"):
        tinyfl.config.resolve({"task": "npz", "data": "own.npz", "ways": 3})
    with pytest.raises(ConfigError, match="task sine brings its own data: leave --episodes out"):
        tinyfl.config.resolve({"task": "sine", "episodes": "classes"})
    with pytest.raises(ConfigError, match="episodes is 'all'"):
        tinyfl.config.resolve({"task": "npz", "data": "own.npz", "episodes": "all"})
    with pytest.raises(ConfigError, match="--episodes classes is for classes"):
        npz(table_of(), 0, targets="values", reading=Reading(episodes="classes"))


def test_a_run_learns_to_tell_classes_it_never_saw(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    y, device = np.tile(np.arange(12), 100), np.repeat(np.arange(20), 60)
    centres = rng.normal(size=(12, 4))
    x = np.concatenate([centres[y] + 0.3 * rng.normal(size=(1200, 4)), 5 * rng.normal(size=(1200, 12))], axis=1)
    run = tinyfl.simulate(
        task="npz", data={"x": x, "y": y, "device": device}, episodes="classes", ways=3, shots=(5,), network="mlp-16",
        rounds=1500, cohort=4, rate=0.05, tasks=200, out=tmp_path / "run",
    )  # fmt: skip
    after = next(row["accuracy"] for row in run.evaluation if (row["mode"], row["steps"]) == ("batch", 10))
    assert after > 0.55
    assert run.result["shots_of"] == "class"
    again = tinyfl.simulate(resume=tmp_path / "run")
    assert again.result["theta_sha256"] == run.result["theta_sha256"]


@pytest.mark.slow
def test_the_page_takes_a_strangers_twelve_classes_to_a_table_and_a_new_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(ROOT / "docs" / "twelve-classes.md")
    evaluate_quickly("machines.toml")
    subprocess.run([sys.executable, "machines.py"], check=True)
    *before, adapt = (shlex.split(line)[1:] for page, line in commands() if page == "docs/twelve-classes.md")
    for words in before:
        app(words, standalone_mode=False)
    subprocess.run([sys.executable, "machine.py"], check=True)
    capsys.readouterr()
    app([*adapt, "--json"], standalone_mode=False)
    adapted = json.loads(capsys.readouterr().out)
    assert adapted["measured_on"] == "the rest"
    assert adapted["curve"][-1]["accuracy"] > 2 * adapted["curve"][0]["accuracy"]
    (only,) = json.loads(Path("studies/machines/study.json").read_text())["tables"]
    assert [row["values"]["algorithm"] for row in only["rows"]] == ["tinyreptile", "reptile", "joint"]
    assert {(row["n"], row["gradients"]) for row in only["rows"]} == {(3, 320_000)}
