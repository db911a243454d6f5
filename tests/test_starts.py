"""A finished run as the start of another: its network, its theta, and how it had its data."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyfl
from tinyfl.algorithms import State
from tinyfl.config import resolve
from tinyfl.errors import ConfigError, DataError, RunError, TinyflError
from tinyfl.fleet import draw_cohort
from tinyfl.flower.allowed import Allowed, refuse_paths
from tinyfl.report import page
from tinyfl.runs.adaptation import adapt
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.learner import learner_of
from tinyfl.simulation.result import Run
from tinyfl.simulators.native import NativeFleet

QUICK: dict[str, Any] = {"rounds": 12, "tasks": 20, "shots": (5,), "adapt_lr": 0.1}
OWN: dict[str, Any] = {"task": "npz", **QUICK}


@pytest.fixture(autouse=True)
def quick(no_page: None) -> None:
    """No run here is about its page."""


@pytest.fixture
def first(tmp_path: Path, own_data: Path) -> Run:
    return tinyfl.simulate(out=tmp_path / "first", data=own_data, network="mlp-4", freeze=1, **OWN)


def other_data(path: Path, **arrays: Any) -> Path:
    """Data of other devices, in the same units as own_data, far from its mean."""
    rng = np.random.default_rng(7)
    made = {"x": rng.normal(40, 9, (240, 4)), "y": np.arange(240) % 3, "device": np.arange(240) // 24}
    np.savez(path, **{**made, **arrays})
    return path


@pytest.mark.parametrize("name", ["first", "first/", "first/initialisation.npz", "adapted.npz"])
def test_a_run_starts_from_the_theta_of_another_by_any_of_its_names(
    first: Run, own_data: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    theta = first.theta
    if name == "adapted.npz":
        adapt("first", own_data, out=name)
        theta = np.load(name)["theta"]
        assert theta.tobytes() != first.theta.tobytes()
    options: dict[str, Any] = {**OWN, "data": own_data, "algorithm": "fedavg", "network": name}
    second = tinyfl.simulate(out="second", **options)
    assert (second.result["start"], second.result["network"]) == ("earlier run", "mlp-4-relu")
    # By hand: the public parts of a round.
    config = RunDirectory(second.path).config()
    learner = learner_of(config)
    fleet, algorithm, state = NativeFleet(learner.task, learner.network, config.devices), config.build(), State(0, theta)
    for round in range(12):
        cohort = draw_cohort(0, round, config.cohort, config.devices)
        state = algorithm.outer(state, fleet.run(cohort, round, state.theta, algorithm.inner(round)))
    assert second.theta.tobytes() == state.theta.tobytes() != theta.tobytes()
    # Its layers learn, unless --freeze says so: the first one of the earlier run did not.
    frozen = tinyfl.simulate(out="frozen", freeze=1, **options)
    if name != "adapted.npz":  # what one ends with is what the other starts with
        assert frozen.baseline == first.evaluation
    weights = 4 * 4 + 4
    assert frozen.theta[:weights].tobytes() == theta[:weights].tobytes() != second.theta[:weights].tobytes()


def test_other_data_are_standardised_as_the_earlier_runs_were(first: Run, tmp_path: Path) -> None:
    data = other_data(tmp_path / "other.npz")
    notes: list[str] = []
    second = tinyfl.simulate(out=tmp_path / "second", data=data, network=first.path, on_note=notes.append, **OWN)
    held, before = np.load(second.path / "initialisation.npz"), np.load(first.path / "initialisation.npz")
    for name in ("mean", "scale", "classes"):
        assert held[name].tobytes() == before[name].tobytes()
    task = learner_of(RunDirectory(second.path).config()).task
    x = np.load(data)["x"]
    expected = ((x - before["mean"]) / before["scale"]).astype(np.float32)
    found = task.episodes("test", 4, 5).support.table
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(expected, axis=0))
    assert any("the weights of first" in note for note in notes)
    assert notes == second.result["notes"]
    anew = tinyfl.simulate(out=tmp_path / "anew", data=data, network=first.path, standardise=True, **OWN)
    assert abs(np.load(anew.path / "initialisation.npz")["mean"] - 40).max() < 3


def test_a_start_is_resumed_moved_and_reported(
    first: Run, own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**OWN, "data": own_data, "network": first.path}
    second = tinyfl.simulate(out=tmp_path / "second", **options)
    moved = shutil.move(first.path, tmp_path / "elsewhere")
    with pytest.raises(TinyflError, match="Give a finished run's directory"):
        tinyfl.simulate(resume=second.path)
    again = tinyfl.simulate(resume=second.path, network=moved)
    assert again.theta.tobytes() == second.theta.tobytes()
    assert RunDirectory(second.path).config().network == str(Path(moved) / "initialisation.npz")
    monkeypatch.undo()
    assert "earlier run" in page.rebuild(second.path).read_text()
    assert (second.path / "devices.png").is_file()  # drawn from the earlier run's theta too


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": np.ones((240, 3))}, "array x has 3 columns, and the earlier run's had 4"),
        ({"y": np.arange(240) % 4}, "has class 3 in row 3, and the earlier run's classes were 0, 1, 2"),
        ({"y": np.random.default_rng(0).normal(size=240)}, "array y"),
    ],
)
def test_data_that_do_not_fit_the_earlier_run_are_refused(
    first: Run, tmp_path: Path, arrays: dict[str, Any], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        tinyfl.simulate(out=tmp_path / "run", data=other_data(tmp_path / "other.npz", **arrays), network=first.path, **OWN)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("task", "says"), [("sine", "has 4 inputs and 3 outputs"), ("digits", "has 4 inputs and 3 outputs")])
def test_another_task_is_refused(first: Run, tmp_path: Path, task: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        tinyfl.simulate(out=tmp_path / "run", task=task, network=first.path, **QUICK)


def test_classes_do_not_start_values(tmp_path: Path) -> None:
    two = other_data(tmp_path / "two.npz", x=np.random.default_rng(0).normal(size=(240, 1)), y=np.arange(240) % 2)
    run = tinyfl.simulate(out=tmp_path / "two", data=two, network="mlp-4", standardise=False, **OWN)
    values = other_data(tmp_path / "v.npz", x=np.load(two)["x"], y=np.random.default_rng(0).normal(size=(240, 2)))
    with pytest.raises(ConfigError, match=r"was trained for classes .* but task npz has values"):
        tinyfl.simulate(out=tmp_path / "v", data=values, network=run.path, standardise=True, targets="values", **OWN)


def test_what_is_no_finished_run_is_refused(first: Run, own_data: Path, tmp_path: Path) -> None:
    def refused(network: Any, says: str, error: type[Exception] = RunError) -> None:
        with pytest.raises(error, match=says):
            tinyfl.simulate(out=tmp_path / "run", data=own_data, network=network, **OWN)

    (first.path / "result.json").unlink()
    refused(str(first.path), "has not finished")
    (tmp_path / "empty").mkdir()
    refused(str(tmp_path / "empty"), "holds no initialisation")
    refused("absent.npz", "holds no initialisation")
    refused("", "no network is called", ConfigError)
    refused("x" * 5000, "no network is called", ConfigError)
    refused("a\0b", "no name or path has a zero in it", ConfigError)
    refused(str(own_data), "is no initialisation written by tinyfl")
    (tmp_path / "bytes.npz").write_bytes(b"\x00" * 100)
    refused(str(tmp_path / "bytes.npz"), "is no initialisation written by tinyfl")


def test_a_folder_with_a_networks_name_is_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mlp-8").mkdir()
    assert resolve({"task": "sine", "network": "mlp-8"}).network == "mlp-8"
    assert resolve({"task": "sine", "network": "./mlp-8"}).network == "mlp-8/initialisation.npz"


def test_a_federations_machine_opens_no_run_outside_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path / "runs")
    allowed = Allowed(frozenset(), (tmp_path / "runs",))
    for name in ("../secret", str(tmp_path / "secret"), "../secret/initialisation.npz"):
        with pytest.raises(ConfigError, match="outside the folders"):
            refuse_paths({"network": name}, allowed)
    Path("own").mkdir()
    for name in ("own", "own/initialisation.npz", "mlp-8"):
        refuse_paths({"network": name}, allowed)
