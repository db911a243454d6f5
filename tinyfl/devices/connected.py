"""Detects boards on this machine's serial ports, by their own descriptions, and debug probes."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tinyfl.devices.ports import (  # fmt: skip
    Holder,
    Port,
    Spot,
    demand_free,
    holders,
    named,
    open_ports,
    package_boards,
    port,
    serial_ports,
    trouble,
)
from tinyfl.errors import LinkError
from tinyfl.errors.words import MAX_USB_CHARS, plain, serial_number
from tinyfl.link.board import LinkedBoard
from tinyfl.link.defects import confined
from tinyfl.link.status import Description
from tinyfl.link.wire import wire_kind
from tinyfl.system.loop import every, in_loop

ASK_SECONDS = 2.0
"""Timeout for a board's description, in seconds, at each baud rate."""

PYOCD_SECONDS = 20.0

USB_DEVICES, USB_NODES = Path("/sys/bus/usb/devices"), Path("/dev/bus/usb")


@dataclass(frozen=True)
class Device:
    """A port and the board behind it. ``state`` is "free" (a board answered), "busy" (another process has the port open),
    "silent" (no answer), "unknown" (the USB ids match no board, so nothing was sent), or "denied", "gone", "refused", "corrupt"
    or "defect". ``detail`` explains the state."""

    port: Port
    state: str
    detail: str = ""
    description: Description | None = None
    baud: int = 0

    @property
    def id(self) -> str:
        """The board's unique id in hexadecimal; empty without an answer."""
        return self.description.id.hex() if self.description else ""

    @property
    def boards(self) -> tuple[str, ...]:
        """The board's kind, or the kinds that match the port's USB ids."""
        return (self.description.board,) if self.description else self.port.boards

    def as_json(self) -> dict[str, Any]:
        """As plain data; null: unknown."""
        description = self.description
        return {
            "port": self.port.url,
            "usb": self.port.usb or None,
            "usb_serial": self.port.serial or None,
            "product": self.port.product or None,
            "location": self.port.location or None,
            "state": self.state,
            "detail": self.detail,
            "boards": list(self.boards),
            "id": self.id or None,
            "baud": self.baud or None,
            "firmware": description.firmware if description else None,
            "sensors": [asdict(each) for each in description.sensors] if description else None,
            "plan": (description.plan.hex() or None) if description else None,
            "model": (description.model.hex() or None) if description else None,
            "inference": (description.inference.hex() or None) if description else None,
        }


@dataclass(frozen=True)
class Probe:
    """A debug probe: its unique id (usually its USB serial number; empty: none), its product name, its USB ids, the boards that
    match these ids or its reported target chip, and its USB socket (empty: unknown)."""

    id: str
    name: str
    usb: str
    boards: tuple[str, ...]
    location: str = ""

    @property
    def spot(self) -> Spot:
        return Spot(self.location, self.id)


@dataclass(frozen=True)
class Usb:
    """A USB device: its ids ("0483:df11"), serial number, product name, device file (None: unknown) and socket ("1-1.2")."""

    id: str
    serial: str = ""
    product: str = ""
    node: Path | None = None
    location: str = ""

    @property
    def spot(self) -> Spot:
        return Spot(self.location, self.serial)


def connected_devices(urls: Sequence[str] = (), baud: int = 0, within: float = ASK_SECONDS) -> list[Device]:
    """Queries all serial ports at once, each for at most ``within`` seconds at each of its baud rates.

    Ports with USB ids of no known board are listed but not opened, unless they are in ``urls``. Ptys and sockets are queried
    only if they are in ``urls``. ``baud`` applies to ``urls``; 0: from the board's manifest.
    """
    present = serial_ports()
    return in_loop(look([port(url, baud, present) for url in urls], within))


async def look(named: Collection[Port] = (), within: float = ASK_SECONDS, skip: Collection[Port] = ()) -> list[Device]:
    """Like ``connected_devices``, for ports instead of urls, without those in ``skip``."""
    unique = {each.url: each for each in named}
    urls, skipped = set(unique), {each.url for each in skip}
    others = [each for each in serial_ports() if each.url not in urls]
    ports = [each for each in (*unique.values(), *others) if each.url not in skipped]
    opened = await asyncio.to_thread(open_ports)
    return await every(_query(each, within, each.url in urls, opened) for each in ports)


async def _query(port: Port, within: float, named: bool, opened: Mapping[str, Sequence[Holder]]) -> Device:
    if not named and not port.boards:
        return Device(port, "unknown", "its USB ids match no board's manifest, so it was not queried")
    try:
        with confined():
            demand_free(port, opened)
            board, baud = await connect(port, within)
    except LinkError as error:
        return Device(port, trouble(error), explained(port, error))
    await board.close()
    return Device(port, "free", "", board.description, baud)


async def connect(port: Port, within: float = ASK_SECONDS, auto: bool = False) -> tuple[LinkedBoard, int]:
    """Connects to the board at ``port``, trying each of the port's baud rates for ``within`` seconds; returns (board, baud).
    If ``auto``, the link then takes a higher rate where it can.

    Raises the error of ``LinkedBoard.connect`` at the last baud rate.
    """
    opening = partial(wire_kind(auto).open, port.url)
    for baud in port.bauds[:-1]:
        with suppress(LinkError):
            return await LinkedBoard.connect(partial(opening, baud), within), baud
    return await LinkedBoard.connect(partial(opening, port.bauds[-1]), within), port.bauds[-1]


async def reach(port: Port) -> tuple[LinkedBoard, int]:
    """Like ``connect``, if no other process has the port open.

    Raises LinkError, which explains why the board is not reachable."""
    try:
        demand_free(port, open_ports())
        return await connect(port)
    except LinkError as error:
        raise type(error)(explained(port, error)) from error


def explained(port: Port, error: LinkError) -> str:
    """Explains why the board at ``port`` is not reachable, naming the process that has the port open if it is visible."""
    kind = trouble(error)
    processes = " and ".join(map(str, holders(port.url)))
    if kind == "busy":
        return f"{named(port)} is in use by {processes or 'another process'}. End it, or wait for it."
    if kind == "denied":
        return f"no permission to open {named(port)}. See: tinyfl doctor"
    if kind == "silent" and processes:
        return f"no answer; {processes} has {port.url} open too and may receive the answers. End it."
    return str(error)


def probes(usb: Iterable[Usb] | None = None) -> list[Probe]:
    """Finds debug probes: those of pyocd, if it is installed, and USB devices that a manifest lists as a probe.
    ``usb``: the connected devices, if already known."""
    found = []
    for device in usb_devices() if usb is None else usb:
        if kinds := tuple(board.name for board in package_boards() if device.id in board.usb.probe):
            found.append(Probe(device.serial, device.product, device.id, kinds, device.location))
    for each in _pyocd_probes():
        same = next((other for other in found if other.id == each.id), None)
        if same:
            found.remove(same)
            each = replace(each, usb=same.usb, boards=each.boards or same.boards, location=same.location)
        found.append(each)
    return sorted(found, key=lambda each: (each.usb, each.id, each.location))


def usb_devices() -> list[Usb]:
    """The connected USB devices; on Linux only."""
    found = []
    for folder in sorted(USB_DEVICES.glob("*")):
        names = ("idVendor", "idProduct", "serial", "product", "busnum", "devnum")
        vendor, product, serial, name, bus, number = (_line(folder / name) for name in names)
        if vendor and product:  # not an interface, and not just unplugged
            numbered = bus.isdecimal() and number.isdecimal()
            node = USB_NODES / f"{int(bus):03}" / f"{int(number):03}" if numbered else None
            found.append(Usb(f"{vendor}:{product}", serial_number(serial), plain(name, MAX_USB_CHARS), node, folder.name))
    return found


def _line(file: Path) -> str:
    """The text of a file in sysfs; empty if the file or its device does not exist."""
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


def _pyocd_probes() -> list[Probe]:
    """The list of ``pyocd json --probes``. Empty if pyocd is not installed or fails (see ``tinyfl doctor``)."""
    tool = find_tool("pyocd")
    if tool is None:
        return []
    try:
        done = subprocess.run([tool, "json", "--probes"], capture_output=True, text=True, timeout=PYOCD_SECONDS, check=True)
        listed = [(each["unique_id"], each["info"], each["target"]) for each in json.loads(done.stdout)["boards"]]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return []
    return [Probe(serial_number(id), plain(info), "", _with_target(target)) for id, info, target in listed]


def _with_target(target: str) -> tuple[str, ...]:
    """The boards whose chip has pyocd's name ``target``."""
    from tinyfl.building.boards import Pyocd

    return tuple(
        board.name
        for board in package_boards()
        if any(isinstance(method, Pyocd) and method.target == target for method in board.flash)
    )


def find_tool(name: str) -> str | None:
    """Finds the program ``name``: on the PATH or, as pip installs it, beside this Python."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
