import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from probe import Probe, need

from tinyfl.building import boards
from tinyfl.building.build import build

HERE = Path(__file__).parent
CHIPS = {"stm32f405": ["-DSTM32F4"], "stm32f746-discovery": ["-DSTM32F7"], "microbit-v2": ["-DNRF52"]}
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


@pytest.fixture
def mutant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """The agent's ELF for a board, with lines of a port's file otherwise, as a mistake in it would have them."""
    need("ziglang")
    need("elftools")
    data = boards.data

    def elf(board: str, file: str, **changed: tuple[str, str]) -> Path:
        copy = tmp_path / "firmware"
        shutil.copytree(data("firmware"), copy)
        path = copy / "ports" / file
        text = path.read_text()
        for old, new in changed.values():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        path.write_text(text)
        with monkeypatch.context() as patch:
            patch.setattr(boards, "data", lambda folder: copy if folder == "firmware" else data(folder))
            return build(boards.load(board), tmp_path).elf

    return elf


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
            target = ["-target", "thumb-freestanding-eabi", "-mcpu=cortex_m3", *CHIPS.get(board, [])]
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
