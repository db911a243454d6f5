"""Runs of older versions: this one goes on with them to the theta of then, evaluates, reports and uses them, or refuses them
with a cure that works."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from steps import STEPS, STOPPED, names, result, runs, unpacked

import tinyfl
from tinyfl.cli import app
from tinyfl.costs.models import load_model
from tinyfl.devices import push
from tinyfl.errors import RunError
from tinyfl.export.model import export
from tinyfl.report import page
from tinyfl.runs.directory import CONFIG, RunDirectory

ALL = [(step, run) for step in STEPS for run in runs(step)]
UNSCALED = [("58d1526", "classes"), ("58d1526", "values")]
"""Own data were scaled otherwise."""
NOISY = [("be7d19e", "noisy")]
"""Their noise is of no seed, so that nobody can take it off again."""


@pytest.mark.parametrize(("step", "run"), [each for each in ALL if each not in UNSCALED + NOISY])
def test_an_interrupted_run_of_an_older_version_goes_on_to_the_theta_of_then(step: str, run: str, tmp_path: Path) -> None:
    made = unpacked(step, tmp_path) / "runs"
    source = {"source": tmp_path / "imu.c"} if run == "sensor" else {}
    now = tinyfl.simulate(resume=made / f"{run}{STOPPED}", page=False, **source)
    assert now.result["theta_sha256"] == result(made / run)["theta_sha256"]


@pytest.mark.parametrize(("step", "run"), NOISY)
def test_an_interrupted_noisy_run_goes_on_to_the_epsilon_of_then(step: str, run: str, tmp_path: Path) -> None:
    made = unpacked(step, tmp_path) / "runs"
    now = tinyfl.simulate(resume=made / f"{run}{STOPPED}", page=False)
    assert now.result["privacy"] == result(made / run)["privacy"]


@pytest.mark.parametrize(("step", "run"), UNSCALED)
def test_a_run_on_data_that_were_scaled_otherwise_is_refused_and_its_config_starts_a_new_one(
    step: str, run: str, tmp_path: Path
) -> None:
    stopped = unpacked(step, tmp_path) / "runs" / f"{run}{STOPPED}"
    with pytest.raises(RunError, match=r"an older tinyfl started .* Start a new run with its config: tinyfl simulate"):
        tinyfl.simulate(resume=stopped, page=False)
    assert tinyfl.simulate(config=stopped / CONFIG, out=tmp_path / "new", page=False).result["rounds"] == 40


@pytest.mark.parametrize(("step", "run"), ALL)
def test_a_finished_run_of_an_older_version_is_reported_and_evaluated_to_the_figures_of_then(
    step: str, run: str, tmp_path: Path
) -> None:
    done = unpacked(step, tmp_path) / "runs" / run
    then = RunDirectory(done).result()
    assert page.rebuild(done).is_file()
    assert figures(tinyfl.evaluate(done)) == pytest.approx(figures(then), rel=1e-5)


def test_an_older_asynchronous_run_is_replayed(tmp_path: Path) -> None:
    done = unpacked("b37e5b6", tmp_path) / "runs" / "late"
    again = tinyfl.simulate(replay=done, out=tmp_path / "again", page=False)
    assert again.result["theta_sha256"] == result(done)["theta_sha256"]


def figures(result: dict[str, Any]) -> list[float]:
    return [row[key] for row in result["evaluation"] for key in ("loss", "accuracy", "adapt_lr") if row[key] is not None]


USED = [("58d1526", "sine"), ("58d1526", "classes"), ("58d1526", "values"), ("19871a7", "values"), ("0fcfd20", "robust"),
        ("58b540f", "columns"), ("13ec743", "sine"), ("13ec743", "protonet")]  # fmt: skip


@pytest.mark.parametrize(("step", "run"), USED)
def test_the_initialisation_of_an_older_run_is_adapted_planned_pushed_and_started_from(
    step: str, run: str, tmp_path: Path
) -> None:
    done = unpacked(step, tmp_path) / "runs" / run
    then, settings = result(done), RunDirectory(done).config()
    device = samples_of(done, settings.task == "digits")
    assert tinyfl.adapt(done, device, shots=10, out=tmp_path / "adapted.npz")["shots"] == 10
    assert load_model(str(done)).plan.bytes == load_model(str(tmp_path / "adapted.npz")).plan.bytes
    assert push.load(str(done)).sha256 == bytes.fromhex(then["theta_sha256"])
    options: dict[str, Any] = {
        name: getattr(settings, name) for name in ("task", "algorithm", "data", "label_column", "window", "stride", "devices")
    }
    again = tinyfl.simulate(network=str(done), rounds=2, cohort=2, tasks=2, shots=[1], out=tmp_path / "again", **options)
    assert again.result["start"] == "earlier run"


def samples_of(run: Path, digits: bool) -> Path:
    """A new device's samples for the run."""
    rng = np.random.default_rng(1)
    with np.load(run / "initialisation.npz") as saved:
        shape, classes = saved["shape"], saved["classes"]
    labels = np.arange(5) if digits else classes
    y = np.resize(labels, 20) if len(labels) else rng.normal(size=(20, 1))
    x = rng.normal(size=(20, *shape))
    np.savez(run / "device.npz", x=x, y=y)
    return run / "device.npz"


@pytest.mark.parametrize(("step", "run"), [("58d1526", "classes"), ("19871a7", "values")])
def test_an_older_run_is_exported(step: str, run: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    exported = export(unpacked(step, tmp_path) / "runs" / run, kinds=("float32",))
    assert Path(exported["card"]).is_file()
    assert exported["theta_sha256"] == result(tmp_path / "runs" / run)["theta_sha256"]


@pytest.mark.parametrize("step", [step for step in STEPS if f"runs/study{STOPPED}/study.toml" in names(step)])
def test_an_interrupted_study_goes_on_and_its_table_is_that_of_then(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = unpacked(step, tmp_path) / "runs"
    monkeypatch.chdir(tmp_path)
    stopped, done = made / f"study{STOPPED}", made / "study"
    code = app(["study", str(stopped / "study.toml"), "--out", str(stopped)], standalone_mode=False)
    assert not code
    assert means(stopped) == means(done)


def means(study: Path) -> list[tuple[str, ...]]:
    """Of the table of a study; later versions have more columns."""
    with (study / "table.csv").open() as file:
        return [tuple(row[key] for key in ("mode", "shots", "steps", "mean", "ci95")) for row in csv.DictReader(file)]
