"""Compiles, links and measures a board's firmware."""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinyfl import __version__
from tinyfl.building import boards
from tinyfl.building.boards import Board, Memory, pin_number
from tinyfl.building.footprint import Footprint, footprint
from tinyfl.building.table import demand_end
from tinyfl.building.toolchains import COMMON, FAST, KERNELS, LITERAL, OURS, SMALL, Toolchain, compiler, target
from tinyfl.errors import BuildError, ConfigError, DoesNotFit
from tinyfl.system import cache, locks
from tinyfl.system.child import run

FIRST_ERRORS = 8
NO_LIBRARY = (
    "firmware has no C library. <math.h> has sinf, cosf, expf, logf, sqrtf, tanhf and fabsf, of floats; <string.h> memcpy, "
    "memmove, memset and memcmp (firmware/math/math.h, firmware/agent/source.h)."
)
"""What helps where a source wants more."""
MISSED = (
    r"undefined (?:symbol|reference to)[: `'\"]+(\w+)|undeclared function '(\w+)'|'([\w/]+\.h)' file not found"
    r"|error: ([\w/]+\.h): No such"
)
"""What a compiler or linker says that it lacks."""

LOCK, OBJECTS = "lock", "objects"

# With lld's default of 64 KiB pages, ELF headers would land in a RAM that is not aligned to 64 KiB.
PAGES = "-Wl,-z,max-page-size=4096"


@dataclass(frozen=True)
class Firmware:
    """A linked firmware. ``version``, which the board reports, is the package's version and a digest of all compiled input.
    ``size`` is None for a board whose firmware is a process."""

    elf: Path
    board: Board
    toolchain: str
    version: str
    size: Footprint | None

    def summary(self) -> dict[str, Any]:
        """For JSON: bytes used by section and by part, and bytes available."""
        result: dict[str, Any] = {"board": self.board.name, "toolchain": self.toolchain}
        result |= {"version": self.version, "elf": str(self.elf)}
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
    """Builds ``board``'s firmware in the folder ``out``, with the user's ``sources``; unchanged files are not recompiled. The
    core ``host`` takes this machine's compiler.

    Concurrent builds in one folder wait for each other.

    Raises ConfigError for a source that is not a C file or a folder that is not writable, InstallError without the toolchain,
    BuildError with the compiler's first errors, DoesNotFit with the numbers.
    """
    demand_sources(sources)
    command, compiler_version = compiler(board.core, toolchain)
    toolchain_name = "cc" if board.core == "host" else toolchain
    units = list(_units(board, toolchain, sources))
    folders = list(dict.fromkeys(unit.source.parent for unit in units))
    flags, defines = [*target(board.core, toolchain), *COMMON], _defines(board)
    every_flag = [*flags, *defines, *(flag for unit in units for flag in unit.flags)]
    version = _version([compiler_version, *every_flag], units, _headers(folders))
    units = [_with_version(unit, version) for unit in units]

    whole = _seen([*flags, *defines], folders, compiler_version)
    # The core knows nothing of the board or the agent, so its objects depend on the processor alone. string.h is in cortex_m.
    alone = _seen(flags, [folder for folder in folders if folder.name in ("core", "cortex_m")], compiler_version)

    def compiled(unit: _Unit) -> Path:
        given, headers = alone if unit.part == "core" else whole
        return _compile(unit, [*command, *given, *unit.flags], headers, objects)

    out = out.resolve()
    elf, objects = out / f"{board.name}.elf", out / OBJECTS
    with locks.exclusive(_prepared(out), f"another build is under way in {out}") as locked:
        pool = ThreadPoolExecutor()
        try:
            linked = list(pool.map(compiled, units))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # an interrupt does not wait for the rest
        _link(board, command, target(board.core, toolchain), linked, elf)
        for stale in set(objects.glob("*.o")) - set(linked) if locked else ():
            stale.unlink(missing_ok=True)
        if sources:
            demand_end(elf)
        parts = {path: unit.part for path, unit in zip(linked, units, strict=True)}
        size = footprint(elf, board.memory, parts) if board.memory else None
    return Firmware(elf, board, toolchain_name, version, size)


def demand_sources(sources: Sequence[Path]) -> None:
    """Raises ConfigError for a source that is not a C file."""
    for source in sources:
        if not source.is_file() or source.suffix != ".c":
            raise ConfigError(f"--source {source} is not a C file. Give the path of a .c file (firmware/agent/source.h).")


def _prepared(out: Path) -> Path:
    """Creates the folder, its folder for objects and its lock; returns the lock.

    Raises ConfigError if the folder is not writable.
    """
    lock = out / LOCK
    try:
        (out / OBJECTS).mkdir(parents=True, exist_ok=True)
        if not lock.exists():
            lock.touch()
    except OSError as error:
        cure = cache.CURE if cache.place() in out.parents else "Give --out a writable folder."
        raise ConfigError(f"cannot write to the build folder {out} ({error}). {cure}") from error
    return lock


def _units(board: Board, toolchain: Toolchain, sources: Sequence[Path]) -> Iterator[_Unit]:
    firmware, fast = boards.data("firmware"), FAST[toolchain if board.memory else "process"]
    for source in _c_files(firmware / "core"):
        yield _Unit(source, "core", (*OURS, *(fast if source.name in KERNELS else SMALL)))
    for source in _c_files(firmware / "agent"):
        if board.memory or source.name != "main.c":  # a process has its own main
            yield _Unit(source, "agent", (*OURS, *SMALL))
    for folder in sorted((firmware / "ports").iterdir()):
        if board.port.startswith(folder.name):  # stm32f4's, and the common code of the STM32 families
            yield from (_Unit(source, "port", (*OURS, *SMALL)) for source in _c_files(folder))
    if board.memory:
        for source in _c_files(firmware / "ports" / "cortex_m"):
            yield _Unit(source, "port", (*OURS, *(LITERAL[toolchain] if source.name == "memory.c" else SMALL)))
    for source in sources:
        yield _Unit(source.resolve(), "source", (*SMALL, f"-I{firmware / 'math'}"))


def _version(flags: Sequence[str], units: Sequence[_Unit], headers: Sequence[Path]) -> str:
    """The package's version and a digest of the firmware's sources, independent of their location."""
    digest = hashlib.sha256("\0".join(flags).encode())
    for path in (*(unit.source for unit in units), *headers):
        digest.update(f"\0{path.name}\0".encode())
        digest.update(path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:8]}"


def _with_version(unit: _Unit, version: str) -> _Unit:
    """Defines the version for about.c only, so that a new version recompiles nothing else."""
    if (unit.part, unit.source.name) != ("agent", "about.c"):
        return unit
    return replace(unit, flags=(*unit.flags, f'-DTINYFL_VERSION="{version}"'))


def _c_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.c"))


def _headers(folders: Sequence[Path]) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.glob("*.h"))]


def _seen(flags: Sequence[str], folders: Sequence[Path], compiler_version: str) -> tuple[list[str], str]:
    """The flags for a source that includes the headers in ``folders``, and a digest of the headers and the compiler."""
    return [*flags, *(f"-I{folder}" for folder in folders)], _digest(compiler_version, *_headers(folders))


def _defines(board: Board) -> list[str]:
    values: dict[str, str | int] = {"BOARD": f'"{board.name}"', "CLOCK": f"{board.clock}u", "BUFFER": board.buffer}
    if board.memory:
        memory, link = board.memory, board.links[0]
        values["ID_RECORD"] = f"{memory.identity:#x}u"
        values |= {"FLASH_ORIGIN": f"{memory.flash.origin:#x}u", "FLASH_BYTES": f"{memory.flash.size}u"}
        areas = [(area.origin, area.size) for area in memory.store.areas] if memory.store else [(0, 0), (0, 0)]
        regions = [(region.origin, region.size) for region in (*memory.slots, memory.inference)] + areas
        for number, (origin, size) in enumerate(regions):
            values |= {f"SLOT_{number}": f"{origin:#x}u", f"SLOT_{number}_BYTES": f"{size}u"}
        if memory.store:
            values["STORE_PAGE"] = f"{memory.store.page}u"
        values |= {"UART": f"{link.registers:#x}u", "UART_INTERRUPT": link.interrupt, "BAUD": f"{link.baud}u"}
        values["RATES"] = "".join(f"{rate}u," for rate in link.rates)
        for name, pin in zip(("TX", "RX"), link.pins, strict=False):
            values |= {f"{name}_PORT": pin_number(pin)[0], f"{name}_PIN": pin_number(pin)[1]}
    return [f"-DTINYFL_{name}={value}" for name, value in values.items()]


def _digest(text: str, *files: Path) -> str:
    digest = hashlib.sha256(text.encode())
    for path in files:
        digest.update(f"\0{path}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _compile(unit: _Unit, command: Sequence[str], headers: str, folder: Path) -> Path:
    """Compiles ``unit`` to an object. Its name contains a digest of all input, so an existing object is up to date."""
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
        command += ["-g", "-nostdlib", "-T", str(script), "-Wl,--gc-sections", "-Wl,-e,Reset_Handler", PAGES]
        command += ["-lgcc"] if "ziglang" not in compiler else ["-rtlib=compiler-rt"]
    record, digest = elf.with_suffix(".digest"), _digest("\0".join(command), *scripts)
    # The digest covers the ELF itself, so that another build's ELF is never mistaken for this one.
    if not (elf.exists() and record.exists() and record.read_text() == _digest(digest, elf)):
        _replace(elf, command, f"{board.name}'s firmware", board.memory)
        record.write_text(_digest(digest, elf))


def _regions(memory: Memory) -> str:
    def region(name: str, origin: int, size: int) -> str:
        return f"    {name} : ORIGIN = {origin:#010x}, LENGTH = {size}\n"

    flash, ram, start = memory.program, memory.ram, memory.flash.origin
    lines = region("BOOT (rx)", start, flash.origin - start)
    lines += region("FLASH (rx)", flash.origin, flash.size) + region("RAM (rw)", ram.origin, ram.size)
    return f"MEMORY {{\n{lines}}}\nstack_bytes = {memory.stack};\n"


def _replace(output: Path, command: Sequence[str], what: str, memory: Memory | None = None) -> None:
    """Runs a compiler or linker; writes ``output`` atomically."""
    partial = output.with_name(f"{output.name}.{os.getpid()}")
    # Run in the output's folder, where both linkers find memory.ld (zig does not pass -L on).
    environment = {**(_zig_cache(output.parent) if "ziglang" in command else {}), **os.environ}
    done = run([*command, "-o", str(partial)], output.parent, environment)
    if done.returncode == 0:
        partial.replace(output)
        return
    partial.unlink(missing_ok=True)
    if memory:
        _raise_if_too_large(done.stderr, what, memory)
    raise BuildError(failed(what, done.stderr))


def failed(what: str, stderr: str) -> str:
    """The first errors of a compiler or linker, for people, and what helps if a C library is missed."""
    errors = [line for line in stderr.splitlines() if "error:" in line or "undefined" in line] or stderr.splitlines()
    missed = sorted({name for line in errors for found in re.findall(MISSED, line) for name in found if name})
    told = f"\n{', '.join(missed)}: {NO_LIBRARY}" if missed else ""
    return f"building {what} failed:\n" + "\n".join(errors[:FIRST_ERRORS]) + told


def _zig_cache(folder: Path) -> dict[str, str]:
    """Moves zig's cache from the home folder to tinyfl's cache or, without one, into the build's ``folder``."""
    path = str(cache.folder("zig") if cache.place() else folder / "zig")
    return {"ZIG_GLOBAL_CACHE_DIR": path, "ZIG_LOCAL_CACHE_DIR": path}


def _raise_if_too_large(stderr: str, what: str, memory: Memory) -> None:
    over = {"FLASH": 0, "RAM": 0}
    for region, count in re.findall(r"region [`'](\w+)'.*?overflowed by (\d+) bytes", stderr):
        over[region] = max(over[region], int(count))
    if over["FLASH"]:
        room = memory.program.size
        raise DoesNotFit(
            f"{what} takes {room + over['FLASH']:,} bytes of flash; the board has {room:,} for it, {over['FLASH']:,} "
            "too few. Leave a --source out, or use a board with more flash."
        )
    if over["RAM"]:
        room = memory.ram.size
        raise DoesNotFit(
            f"{what} takes {room + over['RAM']:,} bytes of RAM without a network, {memory.stack:,} of them stack; the board "
            f"has {room:,}, {over['RAM']:,} too few. Make the static variables of your --source smaller."
        )
