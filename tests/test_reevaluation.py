"""A finished run evaluated again: the figures of a run's end, with other shots, devices or data; the run stays as it is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import tinyfl
from tinyfl import cli
from tinyfl.errors import ConfigError, DataError, RunError

OWN: dict[str, Any] = {"task": "npz", "network": "mlp-4", "rounds": 12, "tasks": 20, "shots": (5,)}


@pytest.fixture(autouse=True)
def quick(no_page: None) -> None:
    """No run here is about its page."""


@pytest.fixture
def run(tmp_path: Path, own_data: Path) -> Path:
    return tinyfl.simulate(out=tmp_path / "run", data=own_data, **OWN).path


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_as_in_the_run_it_is_the_runs_own_evaluation_and_nothing_is_written(run: Path) -> None:
    before = files(run)
    own = json.loads(before[str(run / "result.json")])
    for name in (run, run / "initialisation.npz", str(run)):
        found = tinyfl.evaluate(name)
        for key in ("evaluation", "floor", "worse_than_floor", "theta_sha256", "network", "shots_of"):
            assert found[key] == own[key]
    assert files(run) == before


def test_other_shots_devices_and_rates_are_those_of_a_run_with_them(run: Path, own_data: Path, tmp_path: Path) -> None:
    other = {**OWN, "shots": (1, 7), "tasks": 33, "adapt_lr": 0.2}
    whole = tinyfl.simulate(out=tmp_path / "whole", data=own_data, **other).result
    done: list[tuple[int, int]] = []
    found = tinyfl.evaluate(run, shots=(7, 1), tasks=33, adapt_lr=0.2, progress=lambda *each: done.append(each))
    assert (found["evaluation"], found["floor"]) == (whole["evaluation"], whole["floor"])
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_other_data_are_standardised_as_the_runs_were(run: Path, own_data: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(own_data))
    held_out = np.isin(arrays["device"], [2, 5, 7])
    rng = np.random.default_rng(0)
    arrays["x"][~held_out] = rng.normal(1000, 300, arrays["x"][~held_out].shape)  # another mean, if it were computed here
    np.savez(tmp_path / "other.npz", **arrays)
    found = tinyfl.evaluate(run, data=tmp_path / "other.npz", adapt_lr=0.1)
    assert found["evaluation"] == tinyfl.evaluate(run, adapt_lr=0.1)["evaluation"]
    assert found["data"] == str(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"shots": (0,)}, ConfigError, "shots is"),
        ({"shots": (29, 30)}, DataError, "too few for 30 shots"),
        ({"tasks": 1}, ConfigError, "tasks is 1"),
        ({"adapt_lr": -1.0}, ConfigError, "adapt_lr is -1"),
        ({"adapt_lr": float("nan")}, ConfigError, "adapt_lr is nan"),
        ({"data": "absent.npz"}, DataError, "no such file"),
        ({"data": "no/folder"}, DataError, "no such file"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Path, options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        tinyfl.evaluate(run, **options)


def test_data_that_do_not_fit_and_data_that_changed_are_refused(run: Path, own_data: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(own_data))
    np.savez(tmp_path / "narrow.npz", **{**arrays, "x": arrays["x"][:, 1:]})
    with pytest.raises(DataError, match="array x has 3 columns, and the earlier run's had 4"):
        tinyfl.evaluate(run, data=tmp_path / "narrow.npz")
    np.savez(tmp_path / "classes.npz", **{**arrays, "y": arrays["y"] + 1})
    with pytest.raises(DataError, match="has class 3 in row"):
        tinyfl.evaluate(run, data=tmp_path / "classes.npz")
    moved = own_data.rename(tmp_path / "moved.npz")
    with pytest.raises(DataError, match="give --data its new path"):
        tinyfl.evaluate(run)
    assert tinyfl.evaluate(run, data=moved)["evaluation"]
    np.savez(own_data, **{**arrays, "x": arrays["x"] + 1})
    with pytest.raises(DataError, match="was changed since the run"):
        tinyfl.evaluate(run)


def test_what_is_no_finished_run_is_refused(run: Path, tmp_path: Path, own_data: Path) -> None:
    tinyfl.adapt(run, own_data, out=tmp_path / "adapted.npz")
    with pytest.raises(RunError, match="is no finished run"):
        tinyfl.evaluate(tmp_path / "adapted.npz")
    with pytest.raises(RunError, match=r"holds no initialisation\.npz"):
        tinyfl.evaluate(tmp_path)
    (run / "result.json").unlink()
    with pytest.raises(RunError, match="has not finished"):
        tinyfl.evaluate(run)


def test_the_verb_prints_a_table_or_json_and_writes_it(run: Path, tmp_path: Path) -> None:
    words = ["evaluate", str(run), "--shots", "3", "--shots", "5", "--adapt-lr", "0.1"]
    said = CliRunner().invoke(cli.app, [*words, "--json", "--out", str(tmp_path / "new.json")], catch_exceptions=False)
    found = json.loads(said.stdout)
    assert found == json.loads((tmp_path / "new.json").read_text()) == tinyfl.evaluate(run, shots=(3, 5), adapt_lr=0.1)
    table = CliRunner().invoke(cli.app, words, catch_exceptions=False, env={"COLUMNS": "120"}).stdout
    row = next(row for row in found["evaluation"] if (row["mode"], row["shots"], row["steps"]) == ("batch", 3, 10))
    assert f"{100 * row['accuracy']:.1f} %" in table
    assert "own.npz" in table
