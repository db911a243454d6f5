"""Boards in QEMU: the agent's ELF, spoken to by a stock client."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import all_end, runs
from stock import EchoWrite, ask, demand_a_board

from tinyfl.building import boards
from tinyfl.errors import ConfigError, InstallError
from tinyfl.simulators import BoardFault
from tinyfl.simulators.qemu import QemuBoard

pytestmark = pytest.mark.usefixtures("qemu")

SERIAL = 0x0102030405060708


@pytest.mark.parametrize("link", ["tcp", "pty"])
@pytest.mark.parametrize("board", ["mps2-an386", "stm32f405"])
def test_a_stock_client_speaks_to_a_board_and_comes_again(firmware: Callable[[str], Path], board: str, link: str) -> None:
    with QemuBoard(firmware(board), boards.load(board), SERIAL, link) as running:  # type: ignore[arg-type]
        for _ in range(2):
            demand_a_board(running.url, board, SERIAL)


def test_every_byte_passes(firmware: Callable[[str], Path]) -> None:
    text = "".join(map(chr, range(1, 256))) + "x" * 500
    with QemuBoard(firmware("mps2-an386"), boards.load("mps2-an386"), SERIAL) as running:
        assert ask(running.url, EchoWrite(d=text))[0].r == text


@pytest.mark.parametrize("board", ["mps2-an386", "stm32f405"])
def test_the_identity_outlives_a_reset(firmware: Callable[[str], Path], board: str) -> None:
    with QemuBoard(firmware(board), boards.load(board), SERIAL) as running:
        running.reset()
        demand_a_board(running.url, board, SERIAL)


def test_a_killed_board_is_gone(firmware: Callable[[str], Path]) -> None:
    with QemuBoard(firmware("mps2-an386"), boards.load("mps2-an386"), SERIAL) as running:
        running.kill()
        with pytest.raises(BoardFault, match="QEMU does not run board"):
            running.reset()


def test_what_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BoardFault, match=r"nothing\.elf"):
        QemuBoard(tmp_path / "nothing.elf", boards.load("mps2-an386"), 1)
    with pytest.raises(ConfigError, match="has no QEMU machine"):
        QemuBoard(tmp_path / "nothing.elf", boards.load("posix"), 1)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InstallError, match="apt-get install qemu-system-arm"):
        QemuBoard(tmp_path / "nothing.elf", boards.load("mps2-an386"), 1)


def test_no_qemu_outlives_a_parent_that_is_killed(firmware: Callable[[str], Path]) -> None:
    program = (
        "import sys, time; from pathlib import Path; from tinyfl.building import boards\n"
        "from tinyfl.simulators.qemu import QemuBoard\n"
        "board = QemuBoard(Path(sys.argv[1]), boards.load('mps2-an386'), 1)\n"
        "print(board._child.process.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program, str(firmware("mps2-an386"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert runs(pid)
        parent.kill()
    assert all_end([pid]), f"QEMU {pid} still runs"
