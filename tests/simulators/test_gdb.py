"""Firmware loaded by a real gdb into an empty board, as by a debug probe: QEMU's chip, which starts with nothing in flash and
its core halted."""

import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from rounds import demand_the_native_theta
from stock import demand_a_board

from tinyfl.building import boards
from tinyfl.link.wire import SerialWire
from tinyfl.simulators.qemu import PROGRAM
from tinyfl.system.child import Child

BOARD = boards.load("stm32f405")
SERIAL = 0x0102030405060708
THUMB = 1 << 24
BY_HAND = (
    "set $sp = *(unsigned *){vectors}",
    "set $pc = *(unsigned *)({vectors} + 4) & ~1",
    f"set $xpsr = {THUMB}",
)
BY_RESET = ("monitor system_reset",)


@pytest.fixture(scope="session")
def gdb() -> str:
    """A gdb that knows Arm; skips without one."""
    for name in ("gdb-multiarch", "arm-none-eabi-gdb"):
        if found := shutil.which(name):
            return found
    pytest.skip("needs gdb-multiarch: apt-get install gdb-multiarch")


@pytest.fixture
def empty_board(qemu: None, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The url of its serial port, and the socket of its gdb stub. Its flash is empty and its core halted."""
    assert BOARD.qemu is not None
    stub = tmp_path / "gdb"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [PROGRAM, "-machine", BOARD.qemu.machine, "-nodefaults", "-display", "none", "-S"]
        command += ["-chardev", f"socket,path={stub},server=on,wait=off,id=gdb", "-gdb", "chardev:gdb"]
        command += ["-serial", "null"] * BOARD.qemu.serial
        command += ["-chardev", f"socket,fd={listener.fileno()},server=on,wait=off,nodelay=on,id=uart,mux=on", "-echr", "0x100"]
        command += ["-serial", "chardev:uart"]
        url = f"socket://127.0.0.1:{listener.getsockname()[1]}"
        with Child(command, pass_fds=[listener.fileno()]) as child:
            while not stub.exists():
                assert child.process.poll() is None, "QEMU did not start"
            yield url, stub


@pytest.mark.parametrize("reset", [BY_HAND, BY_RESET], ids=["registers from the vectors", "reset"])
def test_gdb_loads_the_firmware_and_it_runs(
    firmware: Callable[[str], Path], gdb: str, empty_board: tuple[str, Path], tmp_path: Path, reset: tuple[str, ...]
) -> None:
    assert BOARD.memory is not None
    (url, stub), elf, identity = empty_board, firmware(BOARD.name), tmp_path / "identity"
    identity.write_bytes(b"TFLI" + SERIAL.to_bytes(8, "big") + bytes(4))
    commands = ["set architecture arm", f"target remote {stub}", "compare-sections", "load", "compare-sections"]
    commands += [f"restore {identity} binary {BOARD.memory.identity:#x}"]
    commands += [command.format(vectors=f"{BOARD.memory.application:#x}") for command in reset]
    commands += ["tbreak main", "continue", "backtrace 1", "detach"]
    done = subprocess.run(
        [gdb, "-batch", "-nx", *(part for command in commands for part in ("-ex", command)), str(elf)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    sections = re.findall(r"^Section (\S+), range .*: (MIS-)?(?:MATCHED|matched)", done.stdout, re.M)
    before, after = sections[: len(sections) // 2], sections[len(sections) // 2 :]
    assert {".vectors", ".text"} <= {name for name, _ in after}
    assert all(differs for _, differs in before) and not any(differs for _, differs in after)
    assert re.search(r"^Temporary breakpoint 1, main \(\) at .*main\.c:\d+$", done.stdout, re.M)

    demand_a_board(url, BOARD.name, SERIAL)
    demand_the_native_theta(partial(SerialWire.open, url))
