"""Temporary folders of processes that were killed."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tinyfl.system.files import LOCK, private_folder

OWNER = """
import sys, time
from tinyfl.system.files import private_folder
with private_folder("tinyfl-test-") as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def owner() -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_folder_of_a_killed_process_goes_with_the_next_and_one_in_use_stays() -> None:
    living, lived = owner()
    dead, left = owner()
    try:
        dead.kill()
        dead.wait()
        (left / "inner").mkdir()
        (left / "inner" / "socket").touch()
        with private_folder("tinyfl-test-") as folder:
            assert (left.exists(), lived.exists(), folder.exists()) == (False, True, True)
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert not folder.exists()
        os.kill(living.pid, signal.SIGSTOP)  # asleep is not dead
        with private_folder("tinyfl-test-"):
            assert lived.exists()
    finally:
        living.kill()
        for process in (living, dead):
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def test_what_is_not_a_folder_of_ours_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / LOCK).touch()
    (tmp_path / "tinyfl-test-link").symlink_to(other)
    (tmp_path / "tinyfl-test-file").touch()
    (tmp_path / "tinyfl-test-new").mkdir()  # of an owner that has not got to its lock yet
    with private_folder("tinyfl-test-"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {
        "elsewhere",
        "tinyfl-test-link",
        "tinyfl-test-file",
        "tinyfl-test-new",
    }
    assert (other / LOCK).exists()
