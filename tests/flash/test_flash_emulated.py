"""The whole way with the firmware that is flashed: built, made into an image, given to a tool, which puts it onto an emulated
board behind a pty; then the board is asked, over that pty, what it runs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from desk import silent
from workbench import Tool, version_in

from tinyfl.building import boards, images
from tinyfl.flash import run
from tinyfl.flash.run import FAILED, FLASHED, UP_TO_DATE, Job
from tinyfl.flash.targets import FlashSelection
from tinyfl.fleets import emulation
from tinyfl.simulators.bridge import Bridge

BOARD = boards.load("stm32f405")

SOURCE = '#include "source.h"\n'


class Emulated:
    """An emulated board at the pty ``port``, with nothing in its flash until a tool writes an image there."""

    def __init__(self, folder: Path) -> None:
        self.port = folder / "port"
        self._bridge = self._serve(silent)

    def write(self, argv: list[str]) -> int:
        """What a probe does: erases, writes the hex file that OpenOCD was told, and lets the board start."""
        from intelhex import IntelHex

        from tinyfl.simulators.unicorn import Machine

        (quoted,) = re.findall(r"program (.+) verify reset exit", argv[-1])
        image = re.sub(r"\\(.)", r"\1", quoted)
        read = IntelHex(image)
        elf = Path(image).with_suffix(".elf")
        origin, flat = images.flat(elf)
        assert (read.minaddr(), read.tobinstr()) == (origin, flat)
        assert version_in(flat)
        self.close()
        self._bridge = self._serve(Machine(elf, BOARD, 7).exchange)
        return 0

    def erase(self) -> None:
        """Its bridge's port stays, and nobody answers there."""
        self.close()
        self._bridge = self._serve(silent)

    def close(self) -> None:
        self.port.unlink()
        self._bridge.close()

    def _serve(self, exchange: Callable[[bytes], bytes]) -> Bridge:
        bridge = Bridge(SimpleNamespace(exchange=exchange), "pty", self._faulted)
        self.port.symlink_to(bridge.url)
        return bridge

    def _faulted(self, fault: Exception) -> None:
        raise AssertionError(fault)


@pytest.fixture
def emulated(tmp_path: Path) -> Iterator[Emulated]:
    pytest.importorskip("intelhex", reason="needs intelhex: pip install pyocd")
    emulated = Emulated(tmp_path)
    yield emulated
    emulated.close()


@pytest.fixture
def openocd(tmp_path: Path, emulators: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tool]:
    tool = Tool(tmp_path / "bin", "openocd")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    yield tool
    tool.close()


def asked(emulated: Emulated) -> FlashSelection:
    return FlashSelection((BOARD,), ports=(str(emulated.port),))


def test_a_board_is_flashed_verified_and_then_up_to_date(emulated: Emulated, openocd: Tool, tmp_path: Path) -> None:
    openocd.writes(emulated.write)
    (done,) = run.flash(asked(emulated), Job(method="openocd"))
    assert (done.what, done.detail) == (FLASHED, "")
    assert done.firmware == emulation.firmware(BOARD, "zig").version
    (again,) = run.flash(asked(emulated), Job(method="openocd"))
    assert (again.what, again.id, again.before) == (UP_TO_DATE, done.id, done.firmware)

    source = tmp_path / "own.c"
    source.write_text(SOURCE)
    openocd.does("** Verified OK **")  # and writes nothing
    (failed,) = run.flash(asked(emulated), Job(method="openocd", sources=(source,)))
    assert failed.what == FAILED and failed.firmware != done.firmware
    assert failed.detail.startswith(f"the board still runs {done.firmware}; {failed.firmware} was written.")


def flashing(emulated: Emulated) -> subprocess.Popen[str]:
    """tinyfl flash, in a process of its own."""
    argv = ["flash", "--board", BOARD.name, "--method", "openocd", "--port", str(emulated.port), "--json"]
    return subprocess.Popen(
        [sys.executable, "-m", "tinyfl.cli", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_kill_in_the_middle_leaves_nothing_that_a_second_run_does_not_mend(emulated: Emulated, openocd: Tool) -> None:
    emulation.firmware(BOARD, "zig")

    def half(argv: list[str]) -> int:
        """Erases the board and gets no further."""
        emulated.erase()
        time.sleep(60)
        return 1

    openocd.writes(half, says="** Programming Started **")
    first = flashing(emulated)
    while not openocd.calls:
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    children = tools_of(emulated)
    assert children
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    wait_for_end(children)
    assert not list(emulation.firmware(BOARD, "zig").elf.parent.glob("*.new"))

    openocd.close()
    openocd.path.with_suffix(".socket").unlink()
    openocd.writes(emulated.write)
    second = flashing(emulated)
    said, complaints = second.communicate(timeout=120)
    assert second.returncode == 0, complaints
    assert [each["what"] for each in json.loads(said)["boards"]] == [FLASHED]


def test_ctrl_c_ends_the_tool_too(emulated: Emulated, openocd: Tool) -> None:
    emulation.firmware(BOARD, "zig")
    openocd.does("** Programming Started **", sleeps=60)
    running = flashing(emulated)
    while not (children := tools_of(emulated)):
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, complaints = running.communicate(timeout=60)
    assert running.returncode == 130
    assert f"stopped. Flash these again, they were being written: stm32f405 {emulated.port}." in complaints
    wait_for_end(children)


def tools_of(emulated: Emulated) -> list[int]:
    """The processes of the fake tool."""
    tool = str(emulated.port.parent / "bin" / "openocd").encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:  # ended meanwhile
            continue
        if tool in words:
            found.append(int(folder.name))
    return found


def wait_for_end(processes: list[int]) -> None:
    """All are gone, or will never run again, within a while."""
    for _ in range(600):
        if not any(Path(f"/proc/{each}/cmdline").exists() and Path(f"/proc/{each}/cmdline").read_bytes() for each in processes):
            return
        time.sleep(0.05)
    raise AssertionError(f"{processes} still run")
