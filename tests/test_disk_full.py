"""A full disk stops a run with a message and loses nothing: the last checkpoint holds, and the run goes on from there."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import tinyfl
from tinyfl.algorithms import State
from tinyfl.cli.common import tell
from tinyfl.errors import RunError
from tinyfl.fleet import Event
from tinyfl.flower import rounds
from tinyfl.runs.directory import Checkpoint, RunDirectory

SMALL = {"task": "sine", "network": "mlp-8", "devices": 20, "cohort": 4, "rounds": 120, "tasks": 2, "adapt_lr": 0.01}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The theta of a run with room."""
    return str(tinyfl.simulate(out=tmp_path_factory.mktemp("run") / "whole", **SMALL).result["theta_sha256"])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "CHECKPOINT_SECONDS", 0.0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 28 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=28k", "tmpfs", str(disk)], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"needs to mount a tmpfs, as root may: {mount.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_in_the_middle_of_rounds(small_disk: Path, whole: str) -> None:
    out = small_disk / "a run"
    with pytest.raises(RunError, match=r"cannot be written \(\[Errno 28\] .*tinyfl run --resume '.*/a run'$"):
        tinyfl.simulate(out=out, minimum=1, **SMALL)  # with a minimum of updates, a round at a time
    held = RunDirectory(out).checkpoint()
    assert held and 0 < held.state.round < SMALL["rounds"]  # type: ignore[operator]
    with pytest.raises(RunError, match="cannot be written"):
        tinyfl.simulate(resume=out)
    assert RunDirectory(out).checkpoint() is not None
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert tinyfl.simulate(resume=out).result["theta_sha256"] == whole
    assert len(RunDirectory(out).metrics()) == SMALL["rounds"]


def full_at(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the file of this name does not reach the disk."""
    really = os.fsync

    def fsync(file: int) -> None:
        if Path(f"/proc/self/fd/{file}").readlink().name.partition(f".{os.getpid()}-")[0] == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really(file)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc, to know files by their descriptors")
@pytest.mark.parametrize("name", ["metrics.jsonl", "state.npz", "initialisation.npz", "result.json", "report.html"])
def test_whichever_file_finds_no_room_the_run_goes_on_to_the_same_theta(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: str, name: str
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        full_at(name, patch)
        with pytest.raises(RunError, match=rf"{name} cannot be written .*tinyfl run --resume {out}$"):
            tinyfl.simulate(out=out, **SMALL)
    assert not list(out.rglob("*.new"))
    assert tinyfl.simulate(resume=out).result["theta_sha256"] == whole


def test_an_event_that_cannot_be_logged_costs_no_board_its_round_and_is_told_after_the_checkpoint(tmp_path: Path) -> None:
    import numpy as np

    directory = RunDirectory(tmp_path)
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    directory.log_event(Event(0, 1, "ab", "left out", "late"))
    with pytest.raises(RunError, match=r"events\.jsonl cannot be written \(\[Errno 28\]"):
        directory.save_checkpoint(Checkpoint(State(3, np.zeros(2, np.float32)), "a" * 64, "", "", {}, 0.0, ()))
    held = directory.checkpoint()
    assert held and held.state.round == 3


@pytest.mark.parametrize("words", [["boards", "list"], ["boards", "list", "--json"]])
def test_output_that_goes_to_a_full_disk_is_a_message_and_exit_4(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "tinyfl.cli", *words], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == RunError.exit_code
    assert "No space left on device" in done.stderr and "Traceback" not in done.stderr


def test_a_log_line_that_finds_no_room_ends_no_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        tell("a gateway's line")
        monkeypatch.undo()
        with suppress(OSError):
            full.close()
