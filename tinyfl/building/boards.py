"""Boards: the manifests in `boards/*.toml`, validated.

The classes are the manifest's schema, field for field; boards/schema.json is generated from them (`tinyfl boards schema`).
"""

import re
import tomllib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from tinyfl.building.toolchains import CORES, LINUX
from tinyfl.errors import ConfigError, InstallError
from tinyfl.errors.words import guess, plain, problem

IDENTITY_BYTES = 16
"""The record at a board's `identity`: "TFLI", a serial number of 8 bytes, 4 bytes of 0."""

Address = Annotated[int, Field(ge=0, lt=1 << 32, multiple_of=8)]
Bytes = Annotated[int, Field(gt=0, lt=1 << 32, multiple_of=8)]
UsbId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}$")]


def _readable(text: str) -> str:
    if plain(text) != text:
        raise ValueError("give one line of at most 300 printable characters")
    return text


Text = Annotated[str, AfterValidator(_readable)]
"""One line of text for people."""
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""An argument for a command-line tool, or the name of a folder of tinyfl."""
Script = Annotated[str, StringConstraints(pattern=r"^[^{}\\]+$"), AfterValidator(_readable)]
"""A file for OpenOCD's -f, safe between Tcl's braces."""
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_. -]{0,31}$")]
"""A drive's volume label."""
_PIN = r"^(?:P([A-Z])|P(\d{1,2})[._]|[A-Z]{2,})(\d{1,2})$"
Pin = Annotated[str, StringConstraints(pattern=_PIN)]
"""A pin's name: P, a port's letter and a number (``PB7``); P, a port's number and a number (``P1.08``, ``P1_8``); or, without
ports, two letters or more and a number (``GP5``)."""


def _two_or_none(pins: tuple[str, ...]) -> tuple[str, ...]:
    if len(pins) not in (0, 2):
        raise ValueError("give two pins, transmit and receive, or none")
    return pins


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Region(_Table):
    """``size`` bytes, starting at the address ``origin``."""

    origin: Address
    size: Bytes

    @property
    def end(self) -> int:
        """The address after the last byte."""
        return self.origin + self.size

    def holds(self, other: "Region") -> bool:
        return self.origin <= other.origin and other.end <= self.end


class Store(_Table):
    """The store's two ``areas``, equal in size and each erased as a whole (firmware/SPEC.md, store). ``page``: bytes that a
    power cut may lose around those being written; ``endurance``: erasures that the flash survives, 0: any number."""

    areas: tuple[Region, Region]
    page: Annotated[int, Field(ge=4, le=4_096)]
    endurance: Annotated[int, Field(ge=0, lt=1 << 32)] = 0

    @model_validator(mode="after")
    def _is_whole(self) -> "Store":
        if self.page & (self.page - 1):
            raise ValueError(f"page is {self.page}, not a power of two")
        if self.areas[0].size != self.areas[1].size:
            raise ValueError("the two areas differ in size")
        if any(number % self.page for area in self.areas for number in (area.origin, area.size)):
            raise ValueError(f"an area is not whole pages of {self.page} bytes")
        return self


class Memory(_Table):
    """A chip's memory. Flash holds, in this order: the bootloader, up to ``application``; the firmware; the identity record
    (IDENTITY_BYTES at ``identity``). Behind them are two slots for models, one for a program (firmware/SPEC.md, slots) and,
    where there is room, the store. The stack takes the lowest ``stack`` bytes of RAM."""

    flash: Region
    ram: Region
    application: Address = Field(default_factory=lambda fields: fields["flash"].origin)
    """Start address of the firmware; default: the start of flash."""
    stack: Annotated[int, Field(ge=1024, multiple_of=8)]
    identity: Address
    slots: tuple[Region, Region]
    inference: Region
    store: Store | None = None

    @model_validator(mode="after")
    def _has_room(self) -> "Memory":
        if self.stack >= self.ram.size:
            raise ValueError(f"stack is {self.stack:,} bytes, but the RAM has only {self.ram.size:,}")
        if self.slots[0].size != self.slots[1].size:
            raise ValueError("the two slots differ in size")
        at = self.flash.origin
        for name, start, end in [
            ("application", self.application, self.identity),
            ("identity", self.identity, self.identity + IDENTITY_BYTES),
            *sorted(self._written(), key=lambda part: part[1]),
        ]:
            if not at <= start < end <= self.flash.end:
                raise ValueError(
                    f"{name} at {start:#010x} to {end:#010x} is outside the flash left for it, "
                    f"{at:#010x} to {self.flash.end:#010x}; "
                    "the order is application, identity, then slots, inference and store in any order"
                )
            at = end
        return self

    def _written(self) -> list[tuple[str, int, int]]:
        parts = {"slot 0": self.slots[0], "slot 1": self.slots[1], "inference": self.inference}
        if self.store:
            parts |= {f"store {i}": area for i, area in enumerate(self.store.areas)}
        return [(name, region.origin, region.end) for name, region in parts.items()]

    @property
    def written(self) -> int:
        """The first address that the firmware itself writes."""
        return min(start for _, start, _ in self._written())

    @property
    def program(self) -> Region:
        """The flash available to the firmware."""
        return Region(origin=self.application, size=self.identity - self.application)


class Link(_Table):
    """A UART: its name, base address, interrupt number, baud rate at boot, higher ``rates`` that a host may choose, ascending,
    and pins (transmit, receive); the bridge to the host's serial port, and that port's USB ids."""

    uart: Text
    registers: Annotated[int, Field(ge=0, lt=1 << 32)]
    interrupt: Annotated[int, Field(ge=0, lt=240)]
    baud: Annotated[int, Field(ge=1_200, le=4_000_000)]
    rates: Annotated[tuple[Annotated[int, Field(le=4_000_000)], ...], Field(max_length=8)] = ()
    pins: Annotated[tuple[Pin, ...], AfterValidator(_two_or_none)] = ()
    bridge: Text = ""
    usb: tuple[UsbId, ...] = ()

    @model_validator(mode="after")
    def _rates_rise(self) -> "Link":
        if any(higher <= lower for lower, higher in pairwise((self.baud, *self.rates))):
            raise ValueError("rates must be above baud, and ascending")
        return self


class Usb(_Table):
    """USB ids of the board's bootloader and of its on-board debug probe."""

    bootloader: tuple[UsbId, ...] = ()
    probe: tuple[UsbId, ...] = ()


class Pyocd(_Table):
    method: Literal["pyocd"]
    target: Name


class Openocd(_Table):
    """``config``: files for OpenOCD's -f, relative to its scripts folder."""

    method: Literal["openocd"]
    config: Annotated[tuple[Script, ...], Field(min_length=1)]


class Copy(_Table):
    """Copying a file to the drive with the label ``drive``. ``family``: the chip's UF2 family id."""

    method: Literal["copy"]
    drive: Label
    format: Literal["uf2", "hex", "bin"]
    family: Annotated[int, Field(ge=0, lt=1 << 32)] = 0

    @model_validator(mode="after")
    def _has_a_family(self) -> "Copy":
        if self.format == "uf2" and not self.family:
            raise ValueError("uf2 needs a family: the id by which a bootloader recognises files for its chip")
        return self


class Bossac(_Table):
    """``offset``: bytes from the start of flash to the end of the bootloader."""

    method: Literal["bossac"]
    offset: Annotated[int, Field(ge=0, lt=1 << 32)] = 0


class DfuUtil(_Table):
    method: Literal["dfu-util"]
    alt: Annotated[int, Field(ge=0, le=255)] = 0
    address: Address


FlashMethod = Annotated[Pyocd | Openocd | Copy | Bossac | DfuUtil, Field(discriminator="method")]


class Power(_Table):
    """``milliwatts``: the chip's power while it computes at ``clock``; ``source``: the origin of that figure."""

    milliwatts: Annotated[float, Field(gt=0, lt=1e6)]
    source: Text


class Qemu(_Table):
    """The QEMU machine, and the index of its ``-serial`` option for the link, from 0."""

    machine: Name
    serial: Annotated[int, Field(ge=0, lt=16)]


class Unicorn(_Table):
    """The CPU model, and the model of the peripherals in simulators/unicorn."""

    core: Name
    peripherals: Name


class Emulators(_Table):
    qemu: Qemu | None = None
    unicorn: Unicorn | None = None


class Checked(_Table):
    """The reference against which each kind of figure was checked, in words; ``silicon``: the firmware ran on a real board."""

    silicon: bool
    memory: Text
    registers: Text
    pins: Text
    flash: Text = ""


def _known_core(core: str) -> str:
    if core not in (cores := (*CORES, *LINUX, "host")):
        raise ValueError(f"core is {core!r}, not one of {', '.join(cores)}")
    return core


def _known_port(port: str) -> str:
    if not (data("firmware") / "ports" / port).is_dir():
        raise ValueError(f"there is no port {port!r} in firmware/ports")
    return port


class Board(_Table):
    """One manifest. A process, on the core ``host`` or one of LINUX, has neither ``memory`` nor ``links``."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    title: Text
    port: Annotated[Name, AfterValidator(_known_port)]
    """Folder in firmware/ports."""
    chip: Text
    core: Annotated[Text, AfterValidator(_known_core)]
    clock: Annotated[int, Field(ge=0, lt=1 << 32)]
    """Clock set by the firmware, in Hz; 0: unknown."""
    buffer: Annotated[int, Field(ge=512, le=65_535)]
    """Maximum length of a message in bytes, header included."""
    memory: Memory | None = None
    links: Annotated[tuple[Link, ...], Field(alias="link")] = ()
    usb: Usb = Usb()
    flash: tuple[FlashMethod, ...] = ()
    power: Power | None = None
    emulators: Emulators = Emulators()
    checked: Checked | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> "Board":
        if self.core not in CORES and (self.memory or self.links):
            raise ValueError(f"the firmware of core {self.core!r} is a process: leave [memory] and [[link]] out")
        if self.core in CORES:
            required = {"[memory]": self.memory, "[[link]]": self.links, "[checked]": self.checked}
            absent = [key for key, value in required.items() if not value]
            if absent:
                raise ValueError(f"a chip also needs {', '.join(absent)}")
        return self

    @property
    def sold(self) -> bool:
        """Whether it is a thing that one can buy: it is flashed, or its firmware is a program that is copied to it."""
        return bool(self.flash) or self.core in LINUX

    @property
    def qemu(self) -> Qemu | None:
        return self.emulators.qemu

    @property
    def unicorn(self) -> Unicorn | None:
        return self.emulators.unicorn

    @property
    def milliwatts(self) -> float:
        """Power in milliwatts; 0: unknown."""
        return self.power.milliwatts if self.power else 0.0


def pin_number(pin: str) -> tuple[int, int]:
    """Parses a Pin into port and number: ``PB7`` is (1, 7), ``P1.08`` and ``P1_8`` are (1, 8), ``GP5`` is (0, 5)."""
    letter, port, number = re.findall(_PIN, pin)[0]
    return (ord(letter) - ord("A") if letter else int(port or 0)), int(number)


def data(folder: str) -> Path:
    """Finds a folder of package data, ``boards`` or ``firmware``: beside the modules or, in an editable install, at the top
    of the clone.

    Raises InstallError if the folder is missing.
    """
    here = Path(__file__).parents[1]
    for path in (here / folder, here.parent / folder):
        if path.is_dir():
            return path
    raise InstallError(f"{here / folder} is missing from the installation. Install tinyfl again.")


def names() -> list[str]:
    """Names of the built-in boards, sorted."""
    return sorted(path.stem for path in data("boards").glob("*.toml"))


def load(name: str) -> Board:
    """Loads a board by its name, or by the path of a manifest (``my-board.toml``).

    Raises ConfigError for an unknown name, and for a malformed or contradictory manifest.
    """
    return read_manifest(Path(name)) if name.endswith(".toml") else named(name)


def named(name: str) -> Board:
    """Loads a built-in board by its name; never a path, so safe for a name reported by a board.

    Raises ConfigError for an unknown name.
    """
    if name not in names():
        raise ConfigError(
            f"no board is called {name!r}. {guess(name, names())}There are: {', '.join(names())}; or give a manifest's path "
            "(.toml)."
        )
    return read_manifest(data("boards") / f"{name}.toml")


def select(text: str) -> list[Board]:
    """Loads the boards in ``text``: comma-separated names and paths, or ``all`` built-in boards."""
    return [load(name.strip()) for name in (names() if text == "all" else text.split(","))]


def read_manifest(path: Path) -> Board:
    """Loads the manifest at ``path``.

    Raises ConfigError with all its defects.
    """
    board, defects = check(path)
    if board is None:
        raise ConfigError(f"{path} is not a valid board manifest:\n  " + "\n  ".join(defects))
    return board


def check(path: Path) -> tuple[Board | None, list[str]]:
    """Validates the manifest at ``path``: the board, or None and the list of its defects, one line each."""
    try:
        table = tomllib.loads(path.read_bytes().decode())
    except (OSError, ValueError, RecursionError) as error:  # RecursionError: tables nested too deep
        return None, [f"{error}. Use {data('boards') / 'stm32f405.toml'} as a template."]
    name, defects = table.get("name", path.stem), list[str]()
    if name != path.stem:
        defects.append(f"name: the board is called {name!r}, the file {path.stem!r}. Give both the same name.")
    try:
        board = Board.model_validate(_tuples(table))
    except ValidationError as error:
        return None, [*(problem(each) for each in error.errors(include_url=False)), *defects]
    return (None, defects) if defects else (board, [])


def missing(board: Board) -> list[str]:
    """Optional parts absent from the manifest, and the effect of each, one line each."""
    has_usb_ids = any(link.usb for link in board.links)
    optional = [
        (not board.flash, "[[flash]]: tinyfl flash cannot flash it"),
        (not has_usb_ids, "usb in [[link]]: tinyfl devices cannot recognise its port; name the port with --port"),
        (not board.memory or not board.memory.store, "[memory.store]: it keeps no classes without power"),
        (not board.power, "[power]: tinyfl plan gives no energy"),
        (not board.qemu and not board.unicorn, "[emulators]: it cannot be emulated"),
    ]
    return [text for absent, text in optional if absent] if board.memory else []


def _tuples(value: Any) -> Any:
    """Converts TOML's lists to tuples, for a strict schema."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def schema() -> dict[str, Any]:
    """The manifest's JSON Schema, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Board.model_json_schema(by_alias=True)
