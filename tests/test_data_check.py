"""``tinyfl data check``: what is likely wrong with a user's data is found before a run, and nothing in good data."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tinyfl.cli import _verbs
from tinyfl.data import Reading, Table
from tinyfl.data.check import check
from tinyfl.errors import DataError
from tinyfl.tasks.npz import Npz

RNG = np.random.default_rng(0)
DEVICE = np.repeat(np.arange(10), 30)
Y = RNG.integers(0, 3, DEVICE.size)
X = RNG.normal(size=(DEVICE.size, 3)) + Y[:, None]
ROW = np.arange(DEVICE.size)
SPLIT = np.array([2, 7])


def found(reading: Reading | None = None, **arrays: Any) -> dict[str, str]:
    """The findings by kind, on the arrays above with some in the place of others."""
    table = Table("t", **{"x": X, "y": Y, "device": DEVICE, "split": SPLIT, **arrays})
    return {each["kind"]: each["words"] for each in check(table, 0, reading or Reading(shots=5))["findings"]}


def with_column(values: np.ndarray) -> np.ndarray:
    return np.c_[X, values]


SHARED = np.where(DEVICE[:, None] == 2, X[np.flatnonzero(DEVICE == 0)[ROW % 30]], X)


@pytest.mark.parametrize(
    ("kind", "arrays", "words"),
    [
        ("leak", {"x": SHARED}, "30 of .* samples of devices that do not train"),
        ("repeated", {"x": np.where((ROW % 30 < 3)[:, None], X[DEVICE * 30], X)}, "20 samples repeat on their device"),
        (
            "small",
            {"device": np.where(ROW % 30 < 26, DEVICE, DEVICE + 10)},
            "10 of 20 devices have no more than 5 samples: 10, 11",
        ),
        ("imbalance", {"y": np.where(ROW % 30 == 0, 3, ROW % 2)}, r"beside the commonest, which has 150 .*: 3 \(10\)"),
        ("alone", {"y": np.where(DEVICE == 4, 9, Y)}, r"on one device alone, .*: 9 \(4\)"),
        ("unseen", {"y": np.where(DEVICE == 2, 9, Y)}, "no training device has the class 9"),
        ("one class", {"y": 0 * Y}, "nothing to classify"),
        ("missing", {"x": np.where(ROW[:, None] == [3, 4, 5], np.nan, X)}, r"3 values are missing \(0.3%\)"),
        ("constant", {"x": with_column(np.ones(300))}, "input 3: never another value"),
        ("label", {"x": with_column(Y * 2.0)}, "input 3: tells the class in every row"),
        ("time", {"x": with_column(1.7e9 + 60 * RNG.random(300))}, "input 3: a time since 1970"),
        ("time", {"x": with_column(1_700_000_000_000_000_000 + 10**9 * ROW)}, "input 3: a time since 1970"),
        ("number", {"x": with_column(ROW + 7)}, "input 3: the row's number"),
        ("device", {"x": with_column(DEVICE % 7 * 0.5)}, "input 3: one value for each device"),
        ("clock", {"x": with_column(20.0 * (ROW % 30))}, "input 3: rises or falls from row to row on each device"),
        ("clock", {"x": with_column(-np.sort(RNG.exponential(size=300)))}, "input 3: rises or falls"),
        ("label", {"x": with_column(Y + RNG.random(300) / 2)}, "input 3: tells the class in every row"),
        ("one held out", {"split": SPLIT[:1]}, "1 device is held out, so no figure has an interval"),
        ("far", {"x": with_column(np.where(ROW % 20 == 0, -999, RNG.normal(size=300)))}, "input 3: one value is farther"),
        ("far", {"x": with_column(np.where(ROW == 9, 1e6, RNG.normal(size=300)))}, "input 3: one value is farther"),
        ("constant", {"x": with_column(np.ones(300)), "names": ("ax", "ay", "az", "temp")}, "input temp: never"),
    ],
)
def test_what_is_likely_wrong_is_found_and_nothing_else(kind: str, arrays: dict[str, Any], words: str) -> None:
    reported = found(**arrays)
    assert set(reported) == {kind} | ({"alone"} if kind == "unseen" else set())
    assert re.search(words, reported[kind]), reported


@pytest.mark.parametrize("scale", [1, 1000.0])
def test_good_data_have_no_findings(scale: float) -> None:
    assert found(x=scale * X) == {}
    assert found(x=np.c_[X, RNG.integers(0, 2, 300)]) == {}
    assert found(y=RNG.normal(size=300)) == {}
    assert found(x=RNG.exponential(size=(300, 3)) ** 2) == {}
    assert found(x=np.c_[X, np.sin(ROW / 5)]) == {}  # smooth, as readings are
    assert found(x=with_column(np.cumsum(RNG.normal(size=300)))) == {}
    assert found(x=with_column(Y + RNG.normal(size=300) / 3)) == {}  # tells most


def test_the_command_says_all_and_exits_with_3_where_a_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    device = np.where(DEVICE == 7, 100 + ROW // 3, DEVICE)  # ten devices of three samples
    split = np.unique(device[DEVICE == 7])
    np.savez(path, x=X, y=np.array(["a", "b", "c"])[Y], device=device, split=split)
    arguments = ["data", "check", str(path), "--shots", "5"]
    said = CliRunner().invoke(_verbs(), arguments)
    assert isinstance(said.exception, DataError)
    assert str(said.exception).endswith("its figures be wrong: small. The findings say what helps.")
    words = " ".join(said.stdout.split())
    assert all(str(name) in words for name in split)
    assert "10 of 19 devices have no more than 5 samples" in words
    assert "10 of them would be evaluated, which a run refuses. Give --drop-small, or fewer --shots" in words
    told = json.loads(CliRunner().invoke(_verbs(), [*arguments, "--json"]).stdout)
    assert told["small"] == [str(name) for name in split]
    assert [each["class"] for each in told["classes"]] == ["a", "b", "c"]
    assert sum(each["samples"] for each in told["devices"]) == 300
    parts = {each["device"]: each["part"] for each in told["devices"]}
    task = Npz(path, 0)
    for part, members in task._members.items():
        assert {name for name, each in parts.items() if each == part} == {str(task._names[each]) for each in members}
    assert CliRunner().invoke(_verbs(), [*arguments[:3], "--shots", "2"]).exit_code == 0


def test_the_wisdm_data_have_what_their_page_says(tmp_path: Path, shared_data: Callable[[str], Path]) -> None:
    held = np.load(shared_data("wisdm_users.npz"))
    np.savez(tmp_path / "w.npz", x=held["X"], y=held["y"], device=held["user"])
    told = json.loads(CliRunner().invoke(_verbs(), ["data", "check", str(tmp_path / "w.npz"), "--json"]).stdout)
    kinds = {each["kind"]: each["words"] for each in told["findings"]}
    assert "615 values are missing" in kinds["missing"]
    assert set(kinds) == {"missing", "repeated", "constant"}


def test_a_path_that_leads_nowhere_is_named_as_the_argument_that_it_is() -> None:
    said = CliRunner().invoke(_verbs(), ["data", "check", "nothere.npz"])
    assert isinstance(said.exception, DataError)
    assert str(said.exception) == "nothere.npz: no such file or folder. Give the path of your data."
