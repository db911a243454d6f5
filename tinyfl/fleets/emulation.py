"""Emulated boards as context managers: in this process, or served on ptys and TCP ports."""

import hashlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

from tinyfl import __version__
from tinyfl.building.boards import Board, load
from tinyfl.building.build import Firmware, build
from tinyfl.building.toolchains import CORES, LINUX, Toolchain
from tinyfl.config.roster import ENGINES
from tinyfl.errors import ConfigError
from tinyfl.link.board import LinkedBoard
from tinyfl.link.wire import MachineWire, Opener, SerialWire
from tinyfl.simulators import BoardFault
from tinyfl.simulators.bridge import Bridge, Link
from tinyfl.system import cache
from tinyfl.system.child import Child
from tinyfl.system.files import private_folder
from tinyfl.system.limits import allow_files
from tinyfl.system.loop import Loop, every

LINKS: tuple[Link, ...] = get_args(Link)
START_SECONDS = 30.0
"""Time limit for an emulated board's first reply, in seconds."""
MAX_BOARDS = 1000
FILES = {"process": 3, "unicorn": 0, "qemu": 5}
"""Open files of a board by its engine: its pipes, its link, and the control of its process."""


@dataclass(frozen=True)
class Running:
    """An emulated board: its id (16 hexadecimal digits), its engine, the opener of its link, its reset pin (a process has
    none), and the seconds from its start to its first reply."""

    id: str
    engine: str
    opener: Opener
    reset: Callable[[], None] | None
    boot_seconds: float


@dataclass(frozen=True)
class Served:
    """An emulated board for other programs: its id, its kind, and its url for pyserial's ``serial_for_url``."""

    id: str
    board: str
    url: str


@contextmanager
def started(
    name: str,
    count: int = 1,
    *,
    engine: str = "",
    toolchain: Toolchain = "zig",
    first: int = 1,
    sources: Sequence[Path] = (),
    readings: Sequence[bytes] = (),
) -> Iterator[list[Running]]:
    """Runs ``count`` boards of kind ``name`` for this process, with ids from ``first`` on, while the context lasts. Their
    firmware has the user's ``sources``; ``readings`` are those of each one's sensor (tinyfl.sensors.recording.image), if any.

    Builds the firmware in the user's cache. Raises ConfigError, InstallError, and the errors of ``build``.
    """
    board, engine = _chosen(name, count, engine, first)
    allow_files(FILES[engine] * count, f"{count:,} boards of {name}")
    kind = _Kind(board, engine, firmware(board, toolchain, sources=sources).elf)
    with ExitStack() as running:
        with Loop() as loop:
            # Links are closed together at the end: pyserial takes 0.3 s to close a socket.
            started_boards = [_start(running, loop, kind, each) for each in _each(first, count, readings)]
            loop.run(_close([link for _, link in started_boards]))
        yield [each for each, _ in started_boards]


@contextmanager
def board_at(on: str, *, engine: str = "", toolchain: Toolchain = "zig") -> Iterator[Opener]:
    """The board that a command's --on names: emulated:BOARD, which runs while the context lasts, or port:PORT, a device's name
    or a url for pyserial.

    Raises ConfigError for another text, and the errors of ``started``.
    """
    place, _, name = on.partition(":")
    if place == "port" and name:
        yield partial(SerialWire.open, name)
    elif place == "emulated" and name:
        with started(name, engine=engine, toolchain=toolchain) as (running,):
            yield running.opener
    else:
        raise ConfigError(f"--on is {on!r}. Give native, emulated:BOARD such as emulated:mps2-an386, or port:PORT.")


@contextmanager
def emulate(
    name: str,
    count: int = 1,
    *,
    engine: str = "",
    link: str = "pty",
    toolchain: Toolchain = "zig",
    first: int = 1,
    out: Path | None = None,
    sources: Sequence[Path] = (),
    readings: Sequence[bytes] = (),
) -> Iterator[list[Served]]:
    """Serves ``count`` boards of kind ``name``, each on its own link; builds the firmware in ``out``, if given. ``sources`` and
    ``readings`` are as in ``started``."""
    board, engine = _chosen(name, count, engine, first)
    wire = next((each for each in LINKS if each == link), None)
    if wire is None:
        raise ConfigError(f"no link is called {link!r}. There are: {', '.join(LINKS)}.")
    allow_files(FILES[engine] * count, f"{count:,} boards of {name}")
    kind = _Kind(board, engine, firmware(board, toolchain, out, sources).elf)
    with ExitStack() as running:
        urls = (_serve(running, kind, each, wire) for each in _each(first, count, readings))
        yield [Served(f"{serial:016x}", board.name, url) for serial, url in enumerate(urls, first)]


def _chosen(name: str, count: int, engine: str, first: int) -> tuple[Board, str]:
    """Loads the board and chooses its engine.

    Raises ConfigError for an unknown board or engine, or numbers out of range, InstallError without QEMU for a program of
    another processor, before that is built.
    """
    board = load(name)
    available = engines(board.core)
    engine = engine or available[0]
    if engine not in ENGINES:
        raise ConfigError(f"no engine is called {engine!r}. There are: {', '.join(ENGINES)}.")
    if engine not in available:
        raise ConfigError(f"engine {engine} does not run {board.name}. It takes {' or '.join(available)}.")
    if not 1 <= count <= MAX_BOARDS:
        raise ConfigError(f"{count:,} boards, not 1 to {MAX_BOARDS:,}. For a larger fleet, use tinyfl simulate.")
    if not 0 <= first <= (1 << 64) - count:
        raise ConfigError(f"--first-id {first} leaves no ids of 64 bits for {count:,} boards.")
    _interpreter(board, engine)
    return board, engine


def engines(core: str) -> tuple[str, ...]:
    """The engines of a core, the default first."""
    if core in CORES:
        return ("unicorn", "qemu")
    if core == "host":
        return ("process",)
    return ("process", "qemu") if (sys.platform, platform.machine()) == ("linux", core) else ("qemu",)


def _interpreter(board: Board, engine: str) -> list[str]:
    """The command before a process's own: QEMU's user mode for a program of another processor, else none.

    Raises InstallError without it.
    """
    if engine != "qemu" or board.core not in LINUX:
        return []
    from tinyfl.simulators.qemu import user_mode

    return [user_mode(board.core)]


def firmware(board: Board, toolchain: Toolchain, out: Path | None = None, sources: Sequence[Path] = ()) -> Firmware:
    """Builds the firmware in the folder ``out``, or in the user's cache, in a folder for this installation, manifest and
    sources.

    Raises ConfigError for an unusable folder, and the errors of ``build``.
    """
    if out is None:
        what = [__file__, board.model_dump_json(), *(str(path.resolve()) for path in sources)]
        digest = hashlib.sha256("\0".join(what).encode()).hexdigest()[:8]
        out = cache.folder(__version__, "-".join([board.name, toolchain, digest]))
    return build(board, out, toolchain=toolchain, sources=sources)


@dataclass(frozen=True)
class _Kind:
    """What boards started together share."""

    board: Board
    engine: str
    elf: Path


@dataclass(frozen=True)
class _Each:
    """What each has for itself: its serial number, and readings."""

    serial: int
    readings: bytes


def _each(first: int, count: int, readings: Sequence[bytes]) -> list[_Each]:
    return [_Each(first + i, readings[i] if readings else b"") for i in range(count)]


def _start(running: ExitStack, loop: Loop, kind: _Kind, each: _Each) -> tuple[Running, LinkedBoard]:
    """Starts one board, which ends with ``running``, and waits for its first reply; returns it with its open link."""
    began = time.perf_counter()
    if kind.engine == "unicorn":
        from tinyfl.simulators.unicorn import Machine

        machine = Machine(kind.elf, kind.board, each.serial, readings=each.readings)
        opener, reset = MachineWire(machine).open, machine.reset
    elif kind.engine == "qemu" and kind.board.core in CORES:
        from tinyfl.simulators.qemu import QemuBoard

        emulator = running.enter_context(QemuBoard(kind.elf, kind.board, each.serial, readings=each.readings))
        opener, reset = partial(SerialWire.open, emulator.url), emulator.reset
    else:
        opener, reset = partial(SerialWire.open, _process(running, kind, each, "tcp")), None
    link = loop.run(LinkedBoard.connect(opener, START_SECONDS))
    return Running(f"{each.serial:016x}", kind.engine, opener, reset, time.perf_counter() - began), link


async def _close(links: Sequence[LinkedBoard]) -> None:
    await every(link.close() for link in links)


def _serve(running: ExitStack, kind: _Kind, each: _Each, link: Link) -> str:
    """Starts one board, which ends with ``running``, and returns its url."""
    if kind.engine == "unicorn":
        from tinyfl.simulators.unicorn import Machine

        machine = Machine(kind.elf, kind.board, each.serial, readings=each.readings)
        return str(running.enter_context(Bridge(machine, link, _report_fault)).url)
    if kind.engine == "qemu" and kind.board.core in CORES:
        from tinyfl.simulators.qemu import QemuBoard

        return str(running.enter_context(QemuBoard(kind.elf, kind.board, each.serial, link, each.readings)).url)
    return _process(running, kind, each, link)


def _process(running: ExitStack, kind: _Kind, each: _Each, link: Link) -> str:
    where = ["--pty"] if link == "pty" else ["--tcp", "0"]
    if each.readings:
        file = running.enter_context(private_folder("tinyfl-readings-")) / "readings"
        file.write_bytes(each.readings)
        where += ["--readings", str(file)]
    command = [*_interpreter(kind.board, kind.engine), str(kind.elf), *where, "--serial", str(each.serial)]
    try:
        child = running.enter_context(Child(command, stdout=subprocess.PIPE))
    except PermissionError as error:
        raise ConfigError(
            f"{kind.elf} may not be executed: its file system is mounted noexec, or forbids it. Set XDG_CACHE_HOME to a folder "
            "elsewhere, whose programs may run."
        ) from error
    assert child.process.stdout is not None
    url = str(child.process.stdout.readline().decode().strip())
    if not url:
        raise BoardFault(f"{kind.elf} ended before it printed its address.")
    return url


def _report_fault(fault: BoardFault) -> None:
    print(f"tinyfl: {fault}", file=sys.stderr, flush=True)
