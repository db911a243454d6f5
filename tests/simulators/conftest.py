import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tinyfl import boards
from tinyfl.build import build

HERE = Path(__file__).parent
SCRIPT = """
ENTRY(monitor)
SECTIONS {{
  . = {origin:#x};
  .vectors : {{ KEEP(*(.vectors)) }}
  .text : {{ *(.text*) *(.rodata*) }}
  .ARM.exidx : {{ *(.ARM.exidx*) }}
  /DISCARD/ : {{ *(.comment) }}
}}
"""


def need(module: str) -> None:
    if find_spec(module) is None:
        pytest.skip(f"needs {module}: pip install 'tinyfl[firmware]'")


@pytest.fixture(scope="session")
def qemu() -> None:
    """Skips without QEMU."""
    if shutil.which("qemu-system-arm") is None:
        pytest.skip("needs qemu-system-arm: apt-get install qemu-system-arm")


@pytest.fixture(scope="session")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The agent's ELF for a board, built once."""
    need("ziglang")
    need("elftools")
    folder, made = tmp_path_factory.mktemp("firmware"), {}

    def elf(board: str) -> Path:
        if board not in made:
            made[board] = build(boards.load(board), folder / board).elf
        return Path(made[board])

    return elf


@dataclass
class Probe:
    """The monitor of probe.c on an emulated board."""

    machine: Any

    def ask(self, request: bytes, answer: int = 1) -> bytes:
        said = self.machine.exchange(request)
        assert len(said) == answer and said[:1] == request[:1], said
        return bytes(said[1:])

    def write(self, address: int, value: int, size: int = 4) -> None:
        self.ask(struct.pack("<cIBI", b"w", address, size, value))

    def read(self, address: int) -> int:
        return int.from_bytes(self.ask(struct.pack("<cI", b"r", address), 5), "little")


@pytest.fixture(scope="session")
def probe_elf(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """probe.c for a board, which is not this project's firmware: a Cortex-M3 program that speaks registers."""
    need("ziglang")
    folder = tmp_path_factory.mktemp("probe")

    def elf(board: str) -> Path:
        path = folder / f"{board}.elf"
        if not path.exists():
            memory = boards.load(board).memory
            assert memory is not None
            script = path.with_suffix(".ld")
            script.write_text(SCRIPT.format(origin=memory.flash.origin))
            target = ["-target", "thumb-freestanding-eabi", "-mcpu=cortex_m3", *["-DSTM32F4"] * (board == "stm32f405")]
            flags = ["-Os", "-g", "-ffreestanding", "-nostdlib", "-fno-sanitize=all", "-T", script]
            subprocess.run([sys.executable, "-m", "ziglang", "cc", *target, *flags, HERE / "probe.c", "-o", path], check=True)
        return path

    return elf


@pytest.fixture
def probe(probe_elf: Callable[[str], Path]) -> Callable[..., Probe]:
    """Starts probe.c on an emulated board."""
    need("unicorn")
    need("elftools")
    from tinyfl.simulators.unicorn import Machine

    def start(board: str, serial: int = 1, **options: Any) -> Probe:
        return Probe(Machine(probe_elf(board), boards.load(board), serial, **options))

    return start
