"""What is connected to this machine: boards on serial ports, each asked to describe itself, and debug probes."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

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
from tinyfl.link.board import Description, LinkedBoard
from tinyfl.link.defects import one_device
from tinyfl.link.wire import SerialWire

ASK_SECONDS = 2.0
"""What a board may take to describe itself, at each speed that is tried."""

MAX_THREADS = 64
"""Ports that open at once."""

PYOCD_SECONDS = 20.0

USB_DEVICES, USB_NODES = Path("/sys/bus/usb/devices"), Path("/dev/bus/usb")

T = TypeVar("T")


@dataclass(frozen=True)
class Device:
    """What is at a port. ``state`` is "free" where a board answered, and the port can be had; "busy" where another process has
    it; "silent" where nothing answers; "unknown" where its USB ids fit no board, so that it was not asked; or "denied", "gone",
    "refused", "corrupt" and "defect". ``detail`` says more, in words."""

    port: Port
    state: str
    detail: str = ""
    description: Description | None = None
    baud: int = 0

    @property
    def id(self) -> str:
        """The board's unique id in hexadecimal; empty where it did not answer."""
        return self.description.id.hex() if self.description else ""

    @property
    def boards(self) -> tuple[str, ...]:
        """The board's kind, or the kinds that it may be by its USB ids."""
        return (self.description.board,) if self.description else self.port.boards

    def as_json(self) -> dict[str, Any]:
        """As plain data; null is what is not known."""
        said = self.description
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
            "firmware": said.firmware if said else None,
            "plan": (said.plan.hex() or None) if said else None,
            "model": (said.model.hex() or None) if said else None,
            "inference": (said.inference.hex() or None) if said else None,
        }


@dataclass(frozen=True)
class Probe:
    """A debug probe: its unique id (as a rule its USB serial number; empty where it has none), what it calls itself, its USB
    ids, the boards whose manifests have these, or the chip that it says it sits beside, and the socket that it is plugged into
    (empty: unknown)."""

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
    """A USB device: its ids ("0483:df11"), its serial number, what it calls itself, its device file (None: not known), and the
    socket that it is plugged into ("1-1.2")."""

    id: str
    serial: str = ""
    product: str = ""
    node: Path | None = None
    location: str = ""

    @property
    def spot(self) -> Spot:
        return Spot(self.location, self.serial)


def connected_devices(urls: Sequence[str] = (), baud: int = 0, within: float = ASK_SECONDS) -> list[Device]:
    """What is at every serial port, all asked at once, each for at most ``within`` seconds at each of its speeds.

    Ports whose USB ids fit no board are listed and not talked to, unless ``urls`` has them. Of ptys and sockets only those in
    ``urls`` are known. ``baud`` is the speed of those in ``urls``; 0: as their boards' manifests have it.
    """
    now = serial_ports()
    return in_loop(look([port(url, baud, now) for url in urls], within))


async def look(named: Collection[Port] = (), within: float = ASK_SECONDS, skip: Collection[Port] = ()) -> list[Device]:
    """The same for ports rather than urls, leaving out those in ``skip``."""
    once = {each.url: each for each in named}
    urls, left_out = set(once), {each.url for each in skip}
    others = [each for each in serial_ports() if each.url not in urls]
    asked = [each for each in (*once.values(), *others) if each.url not in left_out]
    opened = await asyncio.to_thread(open_ports)
    return list(await asyncio.gather(*(_ask(each, within, each.url in urls, opened) for each in asked)))


async def _ask(port: Port, within: float, named: bool, opened: Mapping[str, Sequence[Holder]]) -> Device:
    if not named and not port.boards:
        return Device(port, "unknown", "fits no board's manifest, so it was not asked")
    try:
        with one_device():
            demand_free(port, opened)
            board, baud = await connect(port, within)
    except LinkError as error:
        return Device(port, trouble(error), explained(port, error))
    await board.close()
    return Device(port, "free", "", board.description, baud)


async def connect(port: Port, within: float = ASK_SECONDS) -> tuple[LinkedBoard, int]:
    """The board at ``port`` and the speed at which it answers: each of the port's speeds is tried for ``within`` seconds.

    Raises what ``LinkedBoard.connect`` does at the last of them.
    """
    for baud in port.bauds[:-1]:
        with suppress(LinkError):
            return await LinkedBoard.connect(partial(SerialWire.open, port.url, baud), within), baud
    return await LinkedBoard.connect(partial(SerialWire.open, port.url, port.bauds[-1]), within), port.bauds[-1]


def explained(port: Port, error: LinkError) -> str:
    """Why the board at ``port`` is not reached, in words, with who has the port where that can be seen."""
    kind = trouble(error)
    who = " and ".join(map(str, holders(port.url)))
    if kind == "busy":
        return f"{named(port)} is in use by {who or 'another process'}. End it, or wait for it."
    if kind == "denied":
        return f"this user may not open {named(port)}. See: tinyfl doctor"
    if kind == "silent" and who:
        return f"nothing answers, and {who} has {port.url} open too and may take the answers. End it."
    return str(error)


def probes(usb: Iterable[Usb] | None = None) -> list[Probe]:
    """The debug probes: those that pyocd finds, where it is installed, and the USB devices that a manifest names as a probe.
    ``usb`` is what is connected, if that is known."""
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
    """What is connected by USB; seen on Linux only."""
    found = []
    for folder in sorted(USB_DEVICES.glob("*")):
        names = ("idVendor", "idProduct", "serial", "product", "busnum", "devnum")
        vendor, product, serial, name, bus, number = (_line(folder / name) for name in names)
        if vendor and product:  # not an interface of a device, or one that has just gone
            known = bus.isdecimal() and number.isdecimal()
            node = USB_NODES / f"{int(bus):03}" / f"{int(number):03}" if known else None
            found.append(Usb(f"{vendor}:{product}", serial_number(serial), plain(name, MAX_USB_CHARS), node, folder.name))
    return found


def _line(file: Path) -> str:
    """The text of one of sysfs's files; empty where there is none, or the device has just gone."""
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


def _pyocd_probes() -> list[Probe]:
    """What ``pyocd json --probes`` lists. Empty where pyocd is not installed, or not well (``tinyfl doctor`` tells)."""
    tool = find_tool("pyocd")
    if tool is None:
        return []
    try:
        said = subprocess.run([tool, "json", "--probes"], capture_output=True, text=True, timeout=PYOCD_SECONDS, check=True)
        listed = [(each["unique_id"], each["info"], each["target"]) for each in json.loads(said.stdout)["boards"]]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return []
    return [Probe(serial_number(id), plain(info), "", _with_target(target)) for id, info, target in listed]


def _with_target(target: str) -> tuple[str, ...]:
    """The boards whose chip pyocd calls ``target``."""
    from tinyfl.building.boards import Pyocd

    return tuple(
        board.name
        for board in package_boards()
        if any(isinstance(method, Pyocd) and method.target == target for method in board.flash)
    )


def find_tool(name: str) -> str | None:
    """Where the program ``name`` is: on the path, or beside this Python, as pip installs it."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def in_loop(work: Coroutine[Any, Any, T]) -> T:
    """Runs ``work`` in a loop of its own, in which many ports may open at once."""
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(ThreadPoolExecutor(MAX_THREADS))
        return runner.run(work)
