"""Boards: what `boards/*.toml` say, checked."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyfl.errors import ConfigError, InstallError

CORES = ("cortex-m3", "cortex-m4f", "cortex-m7f", "cortex-m33f", "host")
IDENTITY_BYTES = 16
"""The record at a board's `identity`: "TFLI", a serial number of 8 bytes, 4 bytes of 0."""


@dataclass(frozen=True)
class Region:
    """``size`` bytes from the address ``origin``."""

    origin: int
    size: int

    @property
    def end(self) -> int:
        """The address after the last byte."""
        return self.origin + self.size

    def holds(self, other: "Region") -> bool:
        return self.origin <= other.origin and other.end <= self.end


@dataclass(frozen=True)
class Memory:
    """A chip's memory: ``stack`` bytes lie at the bottom of ``ram``; a program takes flash up to ``identity``."""

    flash: Region
    ram: Region
    stack: int
    identity: int
    slots: tuple[Region, Region]
    inference: Region
    """The slot of a program (firmware/SPEC.md, slots)."""

    @property
    def program(self) -> Region:
        """The flash that a program may take."""
        return Region(self.flash.origin, self.identity - self.flash.origin)


@dataclass(frozen=True)
class Link:
    """A UART: its name, the address of its registers, its interrupt's number, baud, and pins (transmit, receive)."""

    uart: str
    registers: int
    interrupt: int
    baud: int
    pins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Qemu:
    """The machine that emulates the board, and which of its ``-serial`` options is the link, from 0."""

    machine: str
    serial: int


@dataclass(frozen=True)
class Unicorn:
    """The CPU model and the model of the peripherals that emulate the board in simulators/unicorn."""

    core: str
    peripherals: str


@dataclass(frozen=True)
class Board:
    """One manifest. ``memory`` is None, and ``links`` empty, where the core is the host: a process has its own."""

    name: str
    port: str
    """Its folder in firmware/ports."""
    chip: str
    core: str
    clock: int
    """Hz; 0: unknown."""
    buffer: int
    """Bytes of the longest message, header included."""
    memory: Memory | None = None
    links: tuple[Link, ...] = ()
    qemu: Qemu | None = None
    unicorn: Unicorn | None = None
    milliwatts: float = 0.0
    """Of the chip while it computes at ``clock``; 0: unknown."""


def data(folder: str) -> Path:
    """A folder of the package's data, ``boards`` or ``firmware``: beside the modules or, in an editable install, at the
    top of the clone.

    Raises InstallError if it is in neither place.
    """
    here = Path(__file__).parent
    for path in (here / folder, here.parent / folder):
        if path.is_dir():
            return path
    raise InstallError(f"{here / folder} is missing from the installation. Install tinyfl again.")


def names() -> list[str]:
    """All boards, in order."""
    return sorted(path.stem for path in data("boards").glob("*.toml"))


def load(name: str) -> Board:
    """The board called ``name``.

    Raises ConfigError for a name that is none, or a manifest that is malformed or contradicts itself.
    """
    if name not in names():
        raise ConfigError(f"no board is called {name!r}. There are: {', '.join(names())}.")
    return read(data("boards") / f"{name}.toml")


def read(path: Path) -> Board:
    """The board whose manifest is at ``path``. Raises ConfigError if it is malformed or contradicts itself."""
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is no board's manifest ({error}). Take boards/stm32f405.toml as a pattern.") from error
    try:
        return _board(_Table(table, "the manifest"), path.stem)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


class _Table:
    """A table of the manifest; what is left when ``done`` is called is a key that nobody knows."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where = dict(values), where

    def take(self, key: str, kind: type[Any], default: Any = None) -> Any:
        value = self.values.pop(key, default)
        if value is None:
            raise ConfigError(f"{self.where} lacks {key}.")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ConfigError(f"{key} in {self.where} is {value!r}, not {'a number' if kind is int else f'a {kind.__name__}'}.")
        if kind is int and not 0 <= value < 1 << 32:
            raise ConfigError(f"{key} in {self.where} is {value:,}, not a number of 32 bits.")
        return value

    def text(self, key: str) -> str:
        return str(self.take(key, str))

    def number(self, key: str) -> int:
        return int(self.take(key, int))

    def table(self, key: str) -> "_Table":
        return _Table(self.take(key, dict), f"[{key}]")

    def done(self) -> None:
        if self.values:
            raise ConfigError(f"{self.where} has {', '.join(self.values)}, which tinyfl does not know. Leave it out.")


def _board(table: _Table, stem: str) -> Board:
    name, port, chip, core = (table.text(key) for key in ("name", "port", "chip", "core"))
    if name != stem:
        raise ConfigError(f"the board is called {name!r}, the file {stem!r}. Give both the same name.")
    if core not in CORES:
        raise ConfigError(f"core is {core!r}, which is none of {', '.join(CORES)}.")
    if not (data("firmware") / "ports" / port).is_dir():
        raise ConfigError(f"there is no port {port!r} in firmware/ports.")
    clock, buffer = table.number("clock"), table.number("buffer")
    if not 512 <= buffer <= 65_535:
        raise ConfigError(f"buffer is {buffer:,}; a message has room in 512 to 65,535 bytes.")
    memory: Memory | None = None
    links: tuple[Link, ...] = ()
    qemu: Qemu | None = None
    unicorn: Unicorn | None = None
    if core != "host":
        memory = _memory(table.table("memory"))
        links = tuple(_link(_Table(link, "[[link]]")) for link in table.take("link", list))
        if not links:
            raise ConfigError("the manifest lacks [[link]]: the firmware needs a UART.")
        emulators = _Table(table.take("emulators", dict, {}), "[emulators]")
        if "qemu" in emulators.values:
            part = emulators.table("qemu")
            qemu = Qemu(part.text("machine"), part.number("serial"))
            part.done()
        if "unicorn" in emulators.values:
            part = emulators.table("unicorn")
            unicorn = Unicorn(part.text("core"), part.text("peripherals"))
            part.done()
        emulators.done()
    power = _Table(table.take("power", dict, {}), "[power]")
    milliwatts = float(power.take("milliwatts", float, 0.0))
    if not 0 <= milliwatts < 1e6:
        raise ConfigError(f"milliwatts in [power] is {milliwatts}, not from 0 to below 1,000,000.")
    power.done()
    table.done()
    return Board(name, port, chip, core, clock, buffer, memory, links, qemu, unicorn, milliwatts)


def _region(table: _Table) -> Region:
    region = Region(table.number("origin"), table.number("size"))
    table.done()
    return region


def _memory(table: _Table) -> Memory:
    flash, ram = _region(table.table("flash")), _region(table.table("ram"))
    stack, identity, slots = table.number("stack"), table.number("identity"), table.table("slots")
    origins, size = slots.take("origins", list), slots.number("size")
    slots.done()
    inference = _region(table.table("inference"))
    table.done()
    if len(origins) != 2 or not all(isinstance(origin, int) for origin in origins):
        raise ConfigError(f"slots has the origins {origins}, not two addresses.")
    first, second = (Region(origin, size) for origin in origins)
    parts = [Region(flash.origin, identity - flash.origin), Region(identity, IDENTITY_BYTES), first, second, inference]
    for part, following in zip(parts, [*parts[1:], Region(flash.end, 0)], strict=True):
        if part.size <= 0 or not flash.holds(part) or part.end > following.origin:
            raise ConfigError(
                f"{part.size:,} bytes at {part.origin:#010x} are not in the flash before {following.origin:#010x}. In order "
                f"must come the firmware, identity ({IDENTITY_BYTES} bytes), slot 0, slot 1, inference."
            )
    if stack % 8 or not 1024 <= stack < ram.size:
        raise ConfigError(f"stack is {stack:,}; it must be a multiple of 8, from 1,024 to below the RAM's {ram.size:,} bytes.")
    sizes = (ram.size, size, inference.size)
    if any(number % 8 for number in (flash.origin, ram.origin, identity, *origins, inference.origin, *sizes)):
        raise ConfigError("an address or a size in [memory] is not a multiple of 8.")
    return Memory(flash, ram, stack, identity, (first, second), inference)


def _link(table: _Table) -> Link:
    pins = tuple(table.take("pins", list, []))
    link = Link(table.text("uart"), table.number("registers"), table.number("interrupt"), table.number("baud"), pins)
    table.done()
    if not link.baud:
        raise ConfigError("baud in [[link]] is 0.")
    return link
