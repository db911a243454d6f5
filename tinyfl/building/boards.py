"""Boards: what `boards/*.toml` say, checked.

The classes are the manifest's schema, field for field; boards/schema.json is made of them (`tinyfl boards schema`).
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from tinyfl.building.toolchains import CORES
from tinyfl.errors import ConfigError, InstallError
from tinyfl.errors.words import plain, problem

IDENTITY_BYTES = 16
"""The record at a board's `identity`: "TFLI", a serial number of 8 bytes, 4 bytes of 0."""

Address = Annotated[int, Field(ge=0, lt=1 << 32, multiple_of=8)]
Bytes = Annotated[int, Field(gt=0, lt=1 << 32, multiple_of=8)]
UsbId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}$")]


def _readable(text: str) -> str:
    if plain(text) != text:
        raise ValueError("it is not one line of at most 300 characters that can be seen")
    return text


Text = Annotated[str, AfterValidator(_readable)]
"""For people."""
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""For a tool's command line, or of a folder of ours."""
Script = Annotated[str, StringConstraints(pattern=r"^[^{}\\]+$"), AfterValidator(_readable)]
"""A file that OpenOCD takes with -f, and puts between Tcl's braces."""
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_. -]{0,31}$")]
"""Of a drive."""
Pin = Annotated[str, StringConstraints(pattern=r"^(P[A-K]\d{1,2}|P\d{1,2}[._]\d{1,2}|GP\d{1,2})$")]


def _two_or_none(pins: tuple[str, ...]) -> tuple[str, ...]:
    if len(pins) not in (0, 2):
        raise ValueError("give two pins, transmit and receive, or none")
    return pins


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Region(_Table):
    """``size`` bytes from the address ``origin``."""

    origin: Address
    size: Bytes

    @property
    def end(self) -> int:
        """The address after the last byte."""
        return self.origin + self.size

    def holds(self, other: "Region") -> bool:
        return self.origin <= other.origin and other.end <= self.end


class Memory(_Table):
    """A chip's memory. In flash lie, in this order: what a bootloader needs up to ``application``, the firmware, the identity
    record (IDENTITY_BYTES at ``identity``), two slots for models, one for a program (firmware/SPEC.md, slots). ``stack`` bytes
    lie at the bottom of RAM."""

    flash: Region
    ram: Region
    application: Address = Field(default_factory=lambda fields: fields["flash"].origin)
    """Where the firmware starts; the start of flash, if not given."""
    stack: Annotated[int, Field(ge=1024, multiple_of=8)]
    identity: Address
    slots: tuple[Region, Region]
    inference: Region

    @model_validator(mode="after")
    def _has_room(self) -> "Memory":
        if self.stack >= self.ram.size:
            raise ValueError(f"stack is {self.stack:,}, and the RAM has {self.ram.size:,} bytes")
        if self.slots[0].size != self.slots[1].size:
            raise ValueError("the two slots are not of one size")
        ends = [("application", self.application, self.identity), ("identity", self.identity, self.identity + IDENTITY_BYTES)]
        ends += [(f"slot {i}", slot.origin, slot.end) for i, slot in enumerate(self.slots)]
        ends += [("inference", self.inference.origin, self.inference.end)]
        at = self.flash.origin
        for name, start, end in ends:
            if not at <= start < end <= self.flash.end:
                raise ValueError(
                    f"{name} at {start:#010x} to {end:#010x} is not in the flash from {at:#010x} to {self.flash.end:#010x}; "
                    "in order must come application, identity, slot 0, slot 1, inference"
                )
            at = end
        return self

    @property
    def program(self) -> Region:
        """The flash that a program may take."""
        return Region(origin=self.application, size=self.identity - self.application)


class Link(_Table):
    """A UART: its name, the address of its registers, its interrupt's number, the baud that the firmware sets, the pins
    (transmit, receive), what turns it into a serial port of the host, and that port's USB ids."""

    uart: Text
    registers: Annotated[int, Field(ge=0, lt=1 << 32)]
    interrupt: Annotated[int, Field(ge=0, lt=240)]
    baud: Annotated[int, Field(ge=1_200, le=4_000_000)]
    pins: Annotated[tuple[Pin, ...], AfterValidator(_two_or_none)] = ()
    bridge: Text = ""
    usb: tuple[UsbId, ...] = ()


class Usb(_Table):
    """USB ids of the board's bootloader, and of the debug probe that it carries."""

    bootloader: tuple[UsbId, ...] = ()
    probe: tuple[UsbId, ...] = ()


class Pyocd(_Table):
    method: Literal["pyocd"]
    target: Name


class Openocd(_Table):
    """``config``: the files that OpenOCD is given with -f, in its own scripts' folder."""

    method: Literal["openocd"]
    config: Annotated[tuple[Script, ...], Field(min_length=1)]


class Copy(_Table):
    """A file dropped on the drive with the label ``drive``. ``family`` is the one of UF2."""

    method: Literal["copy"]
    drive: Label
    format: Literal["uf2", "hex", "bin"]
    family: Annotated[int, Field(ge=0, lt=1 << 32)] = 0

    @model_validator(mode="after")
    def _has_a_family(self) -> "Copy":
        if self.format == "uf2" and not self.family:
            raise ValueError("uf2 needs a family, by which a bootloader knows its chip's files")
        return self


class Bossac(_Table):
    """``offset``: from the start of flash, where the bootloader ends."""

    method: Literal["bossac"]
    offset: Annotated[int, Field(ge=0, lt=1 << 32)] = 0


class DfuUtil(_Table):
    method: Literal["dfu-util"]
    alt: Annotated[int, Field(ge=0, le=255)] = 0
    address: Address


FlashMethod = Annotated[Pyocd | Openocd | Copy | Bossac | DfuUtil, Field(discriminator="method")]


class Power(_Table):
    """``milliwatts`` of the chip while it computes at ``clock``, and where that figure comes from."""

    milliwatts: Annotated[float, Field(gt=0, lt=1e6)]
    source: Text


class Qemu(_Table):
    """The machine that emulates the board, and which of its ``-serial`` options is the link, from 0."""

    machine: Name
    serial: Annotated[int, Field(ge=0, lt=16)]


class Unicorn(_Table):
    """The CPU model and the model of the peripherals that emulate the board in simulators/unicorn."""

    core: Name
    peripherals: Name


class Emulators(_Table):
    qemu: Qemu | None = None
    unicorn: Unicorn | None = None


class Checked(_Table):
    """What each kind of figure was held against, in words, and whether the firmware ever ran on the board itself."""

    silicon: bool
    memory: Text
    registers: Text
    pins: Text
    flash: Text = ""


class Board(_Table):
    """One manifest. ``memory`` is None, and ``links`` empty, where the core is the host: a process has its own."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    title: Text
    port: Name
    """Its folder in firmware/ports."""
    chip: Text
    core: Text
    clock: Annotated[int, Field(ge=0, lt=1 << 32)]
    """Hz that the firmware sets; 0: unknown."""
    buffer: Annotated[int, Field(ge=512, le=65_535)]
    """Bytes of the longest message, header included."""
    memory: Memory | None = None
    links: Annotated[tuple[Link, ...], Field(alias="link")] = ()
    usb: Usb = Usb()
    flash: tuple[FlashMethod, ...] = ()
    power: Power | None = None
    emulators: Emulators = Emulators()
    checked: Checked | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> "Board":
        if self.core not in (*CORES, "host"):
            raise ValueError(f"core is {self.core!r}, which is none of {', '.join(CORES)}, host")
        if not (data("firmware") / "ports" / self.port).is_dir():
            raise ValueError(f"there is no port {self.port!r} in firmware/ports")
        if self.core != "host":
            lacks = [key for key, there in (("[memory]", self.memory), ("[[link]]", self.links)) if not there]
            lacks += [] if self.checked else ["[checked]"]
            if lacks:
                raise ValueError(f"a chip needs {', '.join(lacks)} too")
        return self

    @property
    def qemu(self) -> Qemu | None:
        return self.emulators.qemu

    @property
    def unicorn(self) -> Unicorn | None:
        return self.emulators.unicorn

    @property
    def milliwatts(self) -> float:
        """0: unknown."""
        return self.power.milliwatts if self.power else 0.0


def pin_number(pin: str) -> tuple[int, int]:
    """A pin's port and number: ``PB7`` is (1, 7), ``P1.08`` and ``P1_8`` are (1, 8), ``GP5`` is (0, 5)."""
    letters, first, second = re.findall(r"^(GP|P[A-K]?)(\d+)(?:[._](\d+))?$", pin)[0]
    if second:
        return int(first), int(second)
    return (ord(letters[1]) - ord("A") if letters != "GP" else 0), int(first)


def data(folder: str) -> Path:
    """A folder of the package's data, ``boards`` or ``firmware``: beside the modules or, in an editable install, at the
    top of the clone.

    Raises InstallError if it is in neither place.
    """
    here = Path(__file__).parents[1]
    for path in (here / folder, here.parent / folder):
        if path.is_dir():
            return path
    raise InstallError(f"{here / folder} is missing from the installation. Install tinyfl again.")


def names() -> list[str]:
    """All boards of the package, in order."""
    return sorted(path.stem for path in data("boards").glob("*.toml"))


def load(name: str) -> Board:
    """The board called ``name``, or the one of a manifest of your own, by its path (``my-board.toml``).

    Raises ConfigError for a name that is none, or a manifest that is malformed or contradicts itself.
    """
    return read_manifest(Path(name)) if name.endswith(".toml") else named(name)


def named(name: str) -> Board:
    """The board of the package that is called ``name``: for a name that a board itself gives, which is no path.

    Raises ConfigError for a name that is none.
    """
    if name not in names():
        raise ConfigError(f"no board is called {name!r}. There are: {', '.join(names())}; or give a manifest's path (.toml).")
    return read_manifest(data("boards") / f"{name}.toml")


def select(text: str) -> list[Board]:
    """The boards of ``text``: names and paths with commas between, or ``all`` of the package."""
    return [load(name.strip()) for name in (names() if text == "all" else text.split(","))]


def read_manifest(path: Path) -> Board:
    """The board whose manifest is at ``path``.

    Raises ConfigError with everything that is wrong with it.
    """
    board, wrong = check(path)
    if board is None:
        raise ConfigError(f"{path} is no board's manifest:\n  " + "\n  ".join(wrong))
    return board


def check(path: Path) -> tuple[Board | None, list[str]]:
    """The board whose manifest is at ``path``, or None and all that is wrong with it, a line each."""
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:  # the last for tables in tables without end
        return None, [f"{error}. Take {data('boards') / 'stm32f405.toml'} as a pattern."]
    try:
        board = Board.model_validate(_tuples(table))
    except ValidationError as error:
        return None, [problem(each) for each in error.errors(include_url=False)]
    if board.name != path.stem:
        return None, [f"name: the board is called {board.name!r}, the file {path.stem!r}. Give both the same name."]
    return board, []


def missing(board: Board) -> list[str]:
    """What a manifest may lack, and what then does not work, a line each."""
    ids = any(link.usb for link in board.links)
    lacks = [
        (not board.flash, "[[flash]]: tinyfl flash has no way to flash it"),
        (not ids, "usb in [[link]]: tinyfl devices does not tell its port from others; name it with --port"),
        (not board.power, "[power]: tinyfl plan gives no energy"),
        (not board.qemu and not board.unicorn, "[emulators]: it cannot be emulated"),
    ]
    return [text for absent, text in lacks if absent] if board.memory else []


def _tuples(value: Any) -> Any:
    """TOML's lists as what a strict schema takes for a tuple."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def schema() -> dict[str, Any]:
    """The manifest's JSON Schema, which editors know how to use."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Board.model_json_schema(by_alias=True)
