"""Serial ports: the ports present, the boards that may be at them, the processes that have them open, and the new port of a
board after a restart.

A port's name does not identify it: Linux numbers ports as they appear, and a board may return under another name after a
restart. The USB socket stays the same and, if a cable is moved, so does the USB serial number of the board or its bridge,
though some makers give all their devices the same number. Ports without USB data (ptys, ``socket://host:port``) are
identified by their url.
"""

import asyncio
import errno
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tinyfl.errors import Dead, LinkError, TinyflError
from tinyfl.errors.words import MAX_USB_CHARS, plain, serial_number
from tinyfl.system.addresses import real_port

if TYPE_CHECKING:
    from tinyfl.building.boards import Board

BAUD = 115_200
"""Baud rate for ports without a manifest."""

POLL_SECONDS = 0.1
"""Interval between two readings of the list of ports."""

PTY_MAJORS = range(136, 144)
"""Linux's major device numbers for ptys: 256 ptys each in old kernels, all in the first in later ones."""

LIST_ATTEMPTS = 5
"""Attempts to read the list of ports, since a port that vanishes meanwhile causes an error."""


@dataclass(frozen=True)
class Spot:
    """Identifies a USB device: its socket ("1-1.2"), its serial number and, for a drive, its mount point. Empty: unknown."""

    socket: str = ""
    serial: str = ""
    path: str = ""

    def __bool__(self) -> bool:
        return bool(self.socket or self.serial or self.path)

    def same(self, other: "Spot") -> bool:
        """Whether both are the same device, by the first field known of both."""
        facts = ((self.socket, other.socket), (self.serial, other.serial), (self.path, other.path))
        return next((ours == theirs for ours, theirs in facts if ours and theirs), False)

    def word(self, things: "Iterable[Spot]") -> str:
        """Its name on a command line, unique among ``things``: serial number, unless shared; else socket; else path."""
        shared = any(each.serial == self.serial and not each.same(self) for each in things)
        return (self.serial if not shared else "") or self.socket or self.path or self.serial


@dataclass(frozen=True)
class Port:
    """A port of a board: the ``url`` for pyserial; for USB its ids ("0483:374b"), serial number, product name and location (the
    socket "1-1.2", then after a colon the interface); the baud rates to try, likeliest first; and whether devices in other
    sockets have the same serial number (``shared``). Empty: unknown, as is the url of a port yet to appear."""

    url: str
    usb: str = ""
    serial: str = ""
    product: str = ""
    location: str = ""
    bauds: tuple[int, ...] = (BAUD,)
    shared: bool = False

    @property
    def boards(self) -> tuple[str, ...]:
        """Names of the boards with these USB ids in their manifests."""
        return tuple(board.name for board in package_boards() if any(self.usb in link.usb for link in board.links))

    @property
    def socket(self) -> str:
        """The USB socket, without the interface."""
        return self.location.partition(":")[0]

    @property
    def spot(self) -> Spot:
        return Spot(self.socket, self.serial)

    @property
    def interface(self) -> str:
        """The USB interface, such as "1.2"."""
        return self.location.partition(":")[2]


@dataclass(frozen=True)
class Holder:
    """A process that has a port open."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


@cache
def package_boards() -> tuple["Board", ...]:
    """The built-in boards."""
    from tinyfl.building import boards

    return tuple(map(boards.load, boards.names()))


def speeds(usb: str, kinds: "Iterable[Board]" = ()) -> tuple[int, ...]:
    """Baud rates for ports with these USB ids: those of ``kinds`` first, then those of the built-in boards."""
    fitting = [link.baud for board in (*kinds, *package_boards()) for link in board.links if usb in link.usb]
    return tuple(dict.fromkeys(fitting)) or (BAUD,)


def serial_ports() -> list[Port]:
    """The serial ports of this machine, sorted by name."""
    from serial.tools import list_ports

    found = []
    for attempt in range(LIST_ATTEMPTS):
        try:
            found = sorted(list_ports.comports())
            break
        except (OSError, TypeError, ValueError):  # raised by pyserial if a port vanishes meanwhile
            if attempt == LIST_ATTEMPTS - 1:
                raise
            time.sleep(POLL_SECONDS)
    ports = [
        Port(
            url=info.device,
            usb=(usb := f"{info.vid:04x}:{info.pid:04x}" if info.vid is not None else ""),
            serial=serial_number(info.serial_number),
            product=plain(info.product or (info.description if info.description != "n/a" else "") or "", MAX_USB_CHARS),
            location=info.location or "",
            bauds=speeds(usb),
        )
        for info in found
    ]
    sockets: dict[str, set[str]] = {}
    for each in ports:
        sockets.setdefault(each.serial, set()).add(each.socket)
    return [replace(each, shared=each.serial != "" and len(sockets[each.serial]) > 1) for each in ports]


def port(url: str, baud: int = 0, present: Sequence[Port] | None = None) -> Port:
    """The port ``url``, with its USB data if any (``present``: the list of ports, if already read). Follows links, such
    as those in /dev/serial/by-id. ``baud``, if given, is the only baud rate to try."""
    names = (url, real_port(url))
    found = next((each for each in (serial_ports() if present is None else present) if each.url in names), Port(url))
    return replace(found, bauds=(baud,)) if baud else found


def where(port: Port, usb: Collection[str] = ()) -> Port | None:
    """Finds the current port of the board last seen at ``port``: in its socket or, unless several devices share it, by its USB
    serial number; for a board with several ports, on the same interface. None if it is not there.

    ``usb``: the ids to expect, such as its bootloader's (default: the old ids). With other ids the serial number in the socket
    is ignored, since a bootloader may report another or none.
    """
    if not port.usb:
        return port if "://" in port.url or os.access(port.url, os.F_OK) else None
    ids = {each.lower() for each in usb} or {port.usb}
    itself = port.usb in ids
    present = [each for each in serial_ports() if each.usb in ids]
    same = [each for each in present if (each.socket == port.socket if port.socket else each.url == port.url)]
    same = [each for each in same if each.serial == port.serial or not itself]
    if not same and port.serial and not port.shared:
        same = [each for each in present if each.serial == port.serial and not each.shared]
    if itself and port.interface:
        same = [each for each in same if each.interface == port.interface]
    same.sort(key=lambda each: (each.interface != port.interface, each.url != port.url))
    if itself and port.url and len(same) > 1 and same[0].url != port.url:
        return None  # ambiguous: several ports of one device
    return replace(same[0], bauds=port.bauds) if same else None


async def follow(port: Port, within: float, usb: Collection[str] = ()) -> Port:
    """Like ``where``, but waits up to ``within`` seconds for the board. Raises Dead if it does not appear.

    Right after a restart command the old port may still exist, so that opening the result fails: call this again.
    """
    deadline = time.monotonic() + within
    while (found := await asyncio.to_thread(where, port, usb)) is None:
        if time.monotonic() >= deadline:
            by_serial = port.serial and not port.shared
            what = f"no USB device with the serial number {plain(port.serial)}" if by_serial else f"nothing at {named(port)}"
            ids = f" as {' or '.join(sorted(usb))}" if usb else ""
            raise Dead(f"{what} came back within {within:g} s{ids}. Press the board's reset button, or plug it in again.")
        await asyncio.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))
    return found


def named(port: Port) -> str:
    """A name of the port for messages: its url and its USB serial number, or its socket if the number is shared."""
    serial = f"USB serial number {plain(port.serial)}" if port.serial and not port.shared else ""
    if not port.url:
        return f"the serial port of {serial}" if serial else f"the serial port in USB socket {port.socket}"
    fact = serial or (f"USB socket {port.socket}" if port.shared else "")
    return f"{port.url} ({fact})" if fact else port.url


def trouble(error: LinkError) -> str:
    """Classifies a failure to reach a board: "busy" (another process has the port), "denied" (no permission), "gone" (no such
    port), "silent" (no answer), or the error's own reason."""
    if not isinstance(error, Dead):
        return error.reason
    cause = error.__cause__
    if cause is None or isinstance(cause, TinyflError):
        return "silent"
    number = cause.errno if isinstance(cause, OSError) else None
    return {errno.EAGAIN: "busy", errno.EBUSY: "busy", errno.EACCES: "denied", errno.EPERM: "denied"}.get(number or 0, "gone")


def holders(url: str) -> list[Holder]:
    """The other processes that have the port open (see ``open_ports``)."""
    return open_ports().get(real_port(url), [])


def open_ports() -> dict[str, list[Holder]]:
    """For each port, the other processes that have it open, those with a lock first, as far as this user may see.

    For a pty only processes that lock it, or whose terminal it is, since its server may have it open too. Linux reuses pty
    numbers, so a board's former pty may now be someone's terminal. Empty on a system without /proc.
    """
    found: dict[str, list[tuple[bool, Holder]]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) != os.getpid():
            try:
                opened = _opened(folder)
                holder = Holder(int(folder.name), plain((folder / "comm").read_text(errors="replace")))
            except OSError:  # ended, or another user's
                continue
            for device, locked in opened.items():
                found.setdefault(device, []).append((not locked, holder))
    return {
        device: [holder for _, holder in sorted(pairs, key=lambda pair: (pair[0], pair[1].pid))]
        for device, pairs in found.items()
    }


def demand_free(port: Port, opened: Mapping[str, Sequence[Holder]]) -> None:
    """Raises Dead ("busy") if another process has the port open, even without a lock: opening it too would change the baud rate
    for that process, and steal its input."""
    if processes := opened.get(real_port(port.url)):
        busy = BlockingIOError(errno.EAGAIN, "open elsewhere")
        raise Dead(f"{named(port)} is in use by {' and '.join(map(str, processes))}. End it, or wait for it.") from busy


def _opened(process: Path) -> dict[str, bool]:
    """The ports a process has open, mapped to whether it locks them."""
    opened: dict[str, bool] = {}
    for file in (process / "fd").iterdir():
        device = str(file.readlink())
        if device.startswith("/dev/") and device not in ("/dev/null", "/dev/ptmx", "/dev/tty"):
            locked = "FLOCK" in (process / "fdinfo" / file.name).read_text()
            if locked or not device.startswith("/dev/pts/"):
                opened[device] = opened.get(device, False) or locked
    terminal = int((process / "stat").read_text(errors="replace").rpartition(")")[2].split()[4])
    major, minor = terminal >> 8 & 0xFFF, terminal & 0xFF | terminal >> 12 & 0xFFF00
    if major in PTY_MAJORS:
        opened.setdefault(f"/dev/pts/{(major - PTY_MAJORS[0]) * 256 + minor}", False)
    return opened
