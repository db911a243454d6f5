"""Firmware for a board: compiled, linked and measured."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any, Literal

from tinyfl import __version__, boards
from tinyfl.boards import Board, Memory
from tinyfl.errors import BuildError, ConfigError, DoesNotFit, InstallError
from tinyfl.footprint import Footprint, footprint

Toolchain = Literal["zig", "gcc"]
TOOLCHAINS: tuple[Toolchain, ...] = ("zig", "gcc")

# gcc's flags, and zig's target and processor, whose bare names would mean soft float (thumb-freestanding-eabi has none).
CORES = {
    "cortex-m3": (["-mcpu=cortex-m3"], "thumb-freestanding-eabi", "cortex_m3"),
    "cortex-m4f": (
        ["-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"],
        "thumb-freestanding-eabihf",
        "cortex_m4+vfp4d16sp",
    ),
    "cortex-m7f": (
        ["-mcpu=cortex-m7", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"],
        "thumb-freestanding-eabihf",
        "cortex_m7+fp_armv8d16sp",
    ),
    "cortex-m33f": (
        ["-mcpu=cortex-m33", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"],
        "thumb-freestanding-eabihf",
        "cortex_m33+fp_armv8d16sp",
    ),
}

# Multiply and add stay apart, so that every target computes the same bits (firmware/SPEC.md, arithmetic).
COMMON = [
    "-std=c99",
    "-g",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-ffunction-sections",
    "-fdata-sections",
    "-Wall",
    "-Wextra",
]
OURS = ["-Wconversion", "-Werror"]
# Agent and port are not where the time goes. The core's blocks (core/dense.h) pay once their loops are unrolled to registers,
# which gcc does at -O3 alone; zig does it at -O2 too, but there unrolls all else to 20,000 bytes, and spills a block of 8.
# Instructions of one SGD step of 1-32-32-1 (relu) on a Cortex-M4F, and bytes of the core:
#   gcc  -Os 33,457 and 5,034; -O2 32,933 and 6,864; -O3 15,058 and 7,772
#   zig  -Os 43,176 and 5,978; -O2 18,132 and 20,430; -Os, unrolled 18,128 and 6,906; the same with blocks of 4 16,549 and 6,148
SMALL = ("-Os",)
FAST = {"gcc": ("-O3",), "zig": ("-Os", "-mllvm", "-unroll-threshold=400", "-DTINYFL_BLOCK=4"), "cc": ("-O3",)}
# memcpy and its kin must not be recognised in their own loops.
LITERAL = {"gcc": ("-O2", "-fno-builtin", "-fno-tree-loop-distribute-patterns"), "zig": ("-O2", "-fno-builtin")}
FREESTANDING = ["-mthumb", "-ffreestanding", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables"]

FIRST_ERRORS = 8


@dataclass(frozen=True)
class Firmware:
    """A linked firmware. ``size`` is None where the board is a process of this machine."""

    elf: Path
    board: Board
    toolchain: str
    size: Footprint | None

    def summary(self) -> dict[str, Any]:
        """For JSON: bytes by section and by part, beside what the board has."""
        result: dict[str, Any] = {"board": self.board.name, "toolchain": self.toolchain, "elf": str(self.elf)}
        if self.size and self.board.memory:
            memory = self.board.memory
            result |= {"flash_bytes": sum(self.size.flash.values()), "flash_available": memory.program.size}
            result |= {
                "ram_bytes": sum(self.size.ram.values()),
                "ram_available": memory.ram.size,
                "arena_bytes": self.size.arena,
            }
            result |= {"flash": dict(self.size.flash), "ram": dict(self.size.ram)}
            result["parts"] = {name: {"flash": pair[0], "ram": pair[1]} for name, pair in self.size.parts.items()}
        return result


@dataclass(frozen=True)
class _Unit:
    """One source to compile."""

    source: Path
    part: str
    flags: tuple[str, ...]


def build(board: Board, out: Path, *, toolchain: Toolchain = "zig", sources: Sequence[Path] = ()) -> Firmware:
    """Builds ``board``'s firmware in the folder ``out``, with ``sources`` of the user's own in it; what has not changed since
    is not compiled again. A board that is a process of this machine takes the host's compiler.

    Raises ConfigError for a source that is none, InstallError without the toolchain, BuildError with the compiler's first
    errors, DoesNotFit with the numbers.
    """
    for source in sources:
        if not source.is_file() or source.suffix != ".c":
            raise ConfigError(f"--source {source} is no C file. Give the path of a .c file (firmware/agent/source.h).")
    compiler, version = _compiler(board, toolchain)
    named = toolchain if board.memory else "cc"
    units = list(_units(board, named, sources))
    folders = list(dict.fromkeys(unit.source.parent for unit in units))
    flags = [*_target(board, toolchain), *COMMON, *_defines(board), *(f"-I{folder}" for folder in folders)]
    headers = _digest(version, *(path for folder in folders for path in sorted(folder.glob("*.h"))))

    out = out.resolve()
    objects = out / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(lambda unit: _compile(unit, [*compiler, *flags, *unit.flags], headers, objects), units))
    elf = out / f"{board.name}.elf"
    _link(board, compiler, _target(board, toolchain), made, elf)
    for stale in set(objects.glob("*.o")) - set(made):
        stale.unlink(missing_ok=True)
    parts = {path: unit.part for path, unit in zip(made, units, strict=True)}
    size = footprint(elf, board.memory, parts) if board.memory else None
    return Firmware(elf, board, named, size)


def _units(board: Board, toolchain: str, sources: Sequence[Path]) -> Iterator[_Unit]:
    firmware = boards.data("firmware")
    yield from (_Unit(source, "core", (*OURS, *FAST[toolchain])) for source in _c_files(firmware / "core"))
    for source in _c_files(firmware / "agent"):
        if board.memory or source.name != "main.c":  # a process has its own main
            yield _Unit(source, "agent", (*OURS, *SMALL))
    for source in _c_files(firmware / "ports" / board.port):
        yield _Unit(source, "port", (*OURS, *SMALL))
    if board.memory:
        for source in _c_files(firmware / "ports" / "cortex_m"):
            yield _Unit(source, "port", (*OURS, *(LITERAL[toolchain] if source.name == "memory.c" else SMALL)))
    for source in sources:
        yield _Unit(source.resolve(), "source", SMALL)


def _c_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.c"))


def _compiler(board: Board, toolchain: Toolchain) -> tuple[list[str], str]:
    """The command, and what tells its version from another. Raises InstallError if it is not there."""
    if toolchain not in TOOLCHAINS:
        raise ConfigError(f"no toolchain is called {toolchain!r}. There are: {', '.join(TOOLCHAINS)}.")
    if board.core == "host":
        name, cure = "cc", "apt-get install gcc libc6-dev"
    elif toolchain == "gcc":
        name, cure = "arm-none-eabi-gcc", "apt-get install gcc-arm-none-eabi, or take --toolchain zig"
    elif util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"], metadata.version("ziglang")
    else:
        raise InstallError("ziglang, the default toolchain, is not installed. Run: pip install 'tinyfl[firmware]'")
    path = shutil.which(name)
    if not path:
        raise InstallError(f"{name} is not on the path. Run: {cure}.")
    return [path], subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout


def _target(board: Board, toolchain: Toolchain) -> list[str]:
    if board.core == "host":
        return []
    gcc, triple, processor = CORES[board.core]
    if toolchain == "gcc":
        return [*gcc, *FREESTANDING]
    return ["-target", triple, f"-mcpu={processor}", "-fno-sanitize=all", *FREESTANDING]


def _defines(board: Board) -> list[str]:
    values: dict[str, str | int] = {
        "VERSION": f'"{__version__}"', "BOARD": f'"{board.name}"', "CLOCK": f"{board.clock}u", "BUFFER": board.buffer,
    }  # fmt: skip
    if board.memory:
        link = board.links[0]
        values["ID_RECORD"] = f"{board.memory.identity:#x}u"
        for number, slot in enumerate((*board.memory.slots, board.memory.inference)):
            values |= {f"SLOT_{number}": f"{slot.origin:#x}u", f"SLOT_{number}_BYTES": f"{slot.size}u"}
        values |= {"UART": f"{link.registers:#x}u", "UART_INTERRUPT": f"{link.interrupt}u", "BAUD": f"{link.baud}u"}
    return [f"-DTINYFL_{name}={value}" for name, value in values.items()]


def _digest(text: str, *files: Path) -> str:
    digest = hashlib.sha256(text.encode())
    for path in files:
        digest.update(f"\0{path}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _compile(unit: _Unit, command: Sequence[str], headers: str, folder: Path) -> Path:
    """The object of ``unit``. Its name holds a digest of all that went into it, so one that exists need not be made."""
    digest = _digest(headers + "\0".join(command), unit.source)[:16]
    output = folder / f"{unit.part}-{unit.source.stem}-{digest}.o"
    if not output.exists():
        _replace(output, [*command, "-c", str(unit.source)], unit.source.name)
    return output


def _link(board: Board, compiler: Sequence[str], target: Sequence[str], objects: Sequence[Path], elf: Path) -> None:
    command = [*compiler, *target, *map(str, objects)]
    scripts: list[Path] = []
    if board.memory:
        script = boards.data("firmware") / "ports" / "cortex_m" / "link.ld"
        regions = elf.with_name("memory.ld")
        regions.write_text(_regions(board.memory))
        scripts = [script, regions]
        command += ["-g", "-nostdlib", "-T", str(script), "-Wl,--gc-sections", "-Wl,-e,Reset_Handler"]
        command += ["-lgcc"] if "ziglang" not in compiler else ["-rtlib=compiler-rt"]
    made_from = elf.with_suffix(".digest")
    digest = _digest("\0".join(command), *scripts)
    if not (elf.exists() and made_from.exists() and made_from.read_text() == digest):
        made_from.unlink(missing_ok=True)
        _replace(elf, command, f"{board.name}'s firmware", board.memory)
        made_from.write_text(digest)


def _regions(memory: Memory) -> str:
    def region(name: str, origin: int, size: int) -> str:
        return f"    {name} : ORIGIN = {origin:#010x}, LENGTH = {size}\n"

    flash, ram = memory.program, memory.ram
    lines = region("FLASH (rx)", flash.origin, flash.size) + region("RAM (rw)", ram.origin, ram.size)
    return f"MEMORY {{\n{lines}}}\nstack_bytes = {memory.stack};\n"


def _replace(output: Path, command: Sequence[str], what: str, memory: Memory | None = None) -> None:
    """Runs a compiler or linker; ``output`` appears whole or not at all."""
    partial = output.with_name(f"{output.name}.{os.getpid()}")
    # In the output's folder, where both linkers find memory.ld (zig keeps -L to itself).
    done = subprocess.run([*command, "-o", str(partial)], capture_output=True, text=True, cwd=output.parent)
    if done.returncode == 0:
        partial.replace(output)
        return
    partial.unlink(missing_ok=True)
    if memory:
        _refuse_what_does_not_fit(done.stderr, what, memory)
    errors = [line for line in done.stderr.splitlines() if "error:" in line or "undefined" in line] or done.stderr.splitlines()
    raise BuildError(f"{what} cannot be built:\n" + "\n".join(errors[:FIRST_ERRORS]))


def _refuse_what_does_not_fit(said: str, what: str, memory: Memory) -> None:
    over = {"FLASH": 0, "RAM": 0}
    for region, count in re.findall(r"region [`'](\w+)'.*?overflowed by (\d+) bytes", said):
        over[region] = max(over[region], int(count))
    if over["FLASH"]:
        room = memory.program.size
        raise DoesNotFit(
            f"{what} takes {room + over['FLASH']:,} bytes of flash; a program may take {room:,} of them, {over['FLASH']:,} "
            "less. Leave a --source out, or give its tables to a larger board."
        )
    if over["RAM"]:
        room = memory.ram.size
        raise DoesNotFit(
            f"{what} takes {room + over['RAM']:,} bytes of RAM before any network, {memory.stack:,} of them stack; the board "
            f"has {room:,}, {over['RAM']:,} less. Make the static variables of your --source smaller."
        )
