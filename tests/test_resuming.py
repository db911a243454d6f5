"""What a resumed run may do otherwise: find its files elsewhere."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyfl
from tinyfl.errors import DataError, RunError
from tinyfl.flower.rounds import Progress
from tinyfl.report import figures
from tinyfl.runs import directory as directories
from tinyfl.runs import learner
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.finished import origin

OWN: dict[str, Any] = {"task": "npz", "network": "mlp-4", "rounds": 40, "tasks": 20, "shots": (5,), "adapt_lr": 0.1}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DPI", 30)


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


@pytest.mark.parametrize("data", ["absent.npz", ".", "moved.npz/x", "\x1b[2J.npz"])
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

    def of_file(config: Any) -> Any:
        assert Path(config.network).is_file()
        task = config.load_task()
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
