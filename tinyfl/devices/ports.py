"""Serial ports: which there are, which boards they may be of, who has them open, and where a board went after a restart.

A port's name means nothing: Linux numbers ports as they appear, and a board that restarts may come back under another name.
What stays is the socket that it is plugged into and, where a cable is moved, the USB serial number of the board or of its
bridge; but some makers give all of theirs the same one, which then says nothing. Boards without USB facts (ptys,
``socket://host:port``) are given by their url, which is theirs for good.
"""

import asyncio
import errno
import os
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tinyfl.errors import Dead, LinkError, TinyflError
from tinyfl.errors.words import MAX_USB_CHARS, plain, serial_number

if TYPE_CHECKING:
    from tinyfl.building.boards import Board

BAUD = 115_200
"""Of ports that no manifest knows."""

LOOK_SECONDS = 0.1
"""Between two looks at what ports there are."""

PTY_MAJORS = range(136, 144)
"""The numbers of Linux's drivers for ptys, 256 each in old kernels; all in the first in later ones."""

LOOKS = 5
"""A list of ports that was read while one of them vanished is read again, so often."""


@dataclass(frozen=True)
class Spot:
    """What tells a thing on USB from others: the socket that it is plugged into ("1-1.2"), its serial number, and of a drive
    the path where it is mounted. What is not known is empty."""

    socket: str = ""
    serial: str = ""
    path: str = ""

    def __bool__(self) -> bool:
        return bool(self.socket or self.serial or self.path)

    def same(self, other: "Spot") -> bool:
        """Whether both are one thing: by the first of these facts that is known of both."""
        facts = ((self.socket, other.socket), (self.serial, other.serial), (self.path, other.path))
        return next((ours == theirs for ours, theirs in facts if ours and theirs), False)

    def word(self, things: "Iterable[Spot]") -> str:
        """What a command line calls it among ``things``: its serial number, unless another has that; its socket; its path."""
        shared = any(each.serial == self.serial and not each.same(self) for each in things)
        return (self.serial if not shared else "") or self.socket or self.path or self.serial


@dataclass(frozen=True)
class Port:
    """Where a board may be: what pyserial opens (``url``); of USB ports the ids as "0483:374b", the serial number, what the
    thing calls itself and where it is plugged in ("1-1.2", behind a colon its interface); the speeds to try, likeliest first;
    and whether the serial number is ``shared``: things in other sockets have it too. What is not known is empty, the url of a
    port that is yet to come too."""

    url: str
    usb: str = ""
    serial: str = ""
    product: str = ""
    location: str = ""
    bauds: tuple[int, ...] = (BAUD,)
    shared: bool = False

    @property
    def boards(self) -> tuple[str, ...]:
        """The boards whose manifests have these USB ids."""
        return tuple(board.name for board in package_boards() if any(self.usb in link.usb for link in board.links))

    @property
    def socket(self) -> str:
        """Where it is plugged in, whichever of its interfaces this is."""
        return self.location.partition(":")[0]

    @property
    def spot(self) -> Spot:
        return Spot(self.socket, self.serial)

    @property
    def interface(self) -> str:
        """Which of several interfaces this is, such as "1.2"."""
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
    """The boards that come with tinyfl."""
    from tinyfl.building import boards

    return tuple(map(boards.load, boards.names()))


def speeds(usb: str, kinds: "Iterable[Board]" = ()) -> tuple[int, ...]:
    """The speeds of ports with these USB ids, those of ``kinds`` first, then as the package's manifests have them."""
    fitting = [link.baud for board in (*kinds, *package_boards()) for link in board.links if usb in link.usb]
    return tuple(dict.fromkeys(fitting)) or (BAUD,)


def serial_ports() -> list[Port]:
    """The serial ports that this machine has now, in order of their names."""
    from serial.tools import list_ports

    found = []
    for look in range(LOOKS):
        try:
            found = sorted(list_ports.comports())
            break
        except (OSError, TypeError, ValueError):  # what pyserial raises if a port vanishes as it reads the port's facts
            if look == LOOKS - 1:
                raise
            time.sleep(LOOK_SECONDS)
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


def port(url: str, baud: int = 0, now: Sequence[Port] | None = None) -> Port:
    """The port that a user calls ``url``, with its USB facts where it has any (``now``: the ports there are, if that is known);
    links such as those of /dev/serial/by-id are followed. ``baud``, if given, is the only speed to try."""
    names = (url, real(url))
    found = next((each for each in (serial_ports() if now is None else now) if each.url in names), Port(url))
    return replace(found, bauds=(baud,)) if baud else found


def real(url: str) -> str:
    """The one name of a port that has several: links are followed, and a Mac's /dev/tty.NAME is its /dev/cu.NAME."""
    if "://" in url or "\0" in url:
        return url
    path = os.path.realpath(url)
    return path.replace("/dev/tty.", "/dev/cu.", 1) if sys.platform == "darwin" else path


def where(port: Port, usb: Collection[str] = ()) -> Port | None:
    """Where the board that was at ``port`` is now, if it is there: in its socket, or else wherever its USB serial number is,
    unless several have that. Of a board with several ports it is the same one.

    ``usb`` are the ids it is expected under, such as its bootloader's; then what is in its socket counts whatever its serial
    number is, since not all bootloaders give one, or the same. With none given they are those it had.
    """
    if not port.usb:
        return port if "://" in port.url or os.access(port.url, os.F_OK) else None
    ids = {each.lower() for each in usb} or {port.usb}
    itself = port.usb in ids
    there = [each for each in serial_ports() if each.usb in ids]
    same = [each for each in there if (each.socket == port.socket if port.socket else each.url == port.url)]
    same = [each for each in same if each.serial == port.serial or not itself]
    if not same and port.serial and not port.shared:
        same = [each for each in there if each.serial == port.serial and not each.shared]
    if itself and port.interface:
        same = [each for each in same if each.interface == port.interface]
    same.sort(key=lambda each: (each.interface != port.interface, each.url != port.url))
    if itself and port.url and len(same) > 1 and same[0].url != port.url:
        return None  # several of one thing's ports, and no telling which
    return replace(same[0], bauds=port.bauds) if same else None


async def follow(port: Port, within: float, usb: Collection[str] = ()) -> Port:
    """The same, waiting for up to ``within`` seconds until the board is there. Raises Dead if it does not come.

    A board that was just told to restart may not be gone yet: opening what is returned may fail, and asking again then helps.
    """
    deadline = time.monotonic() + within
    while (found := await asyncio.to_thread(where, port, usb)) is None:
        if time.monotonic() >= deadline:
            by_serial = port.serial and not port.shared
            what = f"no USB device with the serial number {plain(port.serial)}" if by_serial else f"nothing at {named(port)}"
            ids = f" as {' or '.join(sorted(usb))}" if usb else ""
            raise Dead(f"{what} came back within {within:g} s{ids}. Press the board's reset button, or plug it in again.")
        await asyncio.sleep(min(LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
    return found


def named(port: Port) -> str:
    """What a user may call the port: its url, and where USB facts are known its serial number, or its socket where others have
    that number too."""
    serial = f"USB serial number {plain(port.serial)}" if port.serial and not port.shared else ""
    if not port.url:
        return f"the serial port of {serial}" if serial else f"the serial port in USB socket {port.socket}"
    fact = serial or (f"USB socket {port.socket}" if port.shared else "")
    return f"{port.url} ({fact})" if fact else port.url


def trouble(error: LinkError) -> str:
    """Why a board is not reached, in a word: "busy" (another process has the port), "denied" (no permission), "gone" (no such
    port), "silent" (nothing answers), or the error's own reason."""
    if not isinstance(error, Dead):
        return error.reason
    cause = error.__cause__
    if cause is None or isinstance(cause, TinyflError):
        return "silent"
    number = cause.errno if isinstance(cause, OSError) else None
    return {errno.EAGAIN: "busy", errno.EBUSY: "busy", errno.EACCES: "denied", errno.EPERM: "denied"}.get(number or 0, "gone")


def holders(url: str) -> list[Holder]:
    """The other processes that have the port open, as ``open_ports`` knows them."""
    return open_ports().get(real(url), [])


def open_ports() -> dict[str, list[Holder]]:
    """The other processes that have each port open, as far as this user may see, those that lock it first.

    Of a pty those that lock it, or whose terminal it is: whoever serves a pty may have it open. A pty's number is used again,
    so one that was a board's may be a person's terminal by now. Empty where the system has no /proc.
    """
    found: dict[str, list[tuple[bool, Holder]]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) != os.getpid():
            try:
                opened = _opened(folder)
                holder = Holder(int(folder.name), plain((folder / "comm").read_text(errors="replace")))
            except OSError:  # ended meanwhile, or another user's
                continue
            for device, locked in opened.items():
                found.setdefault(device, []).append((not locked, holder))
    return {
        device: [holder for _, holder in sorted(pairs, key=lambda pair: (pair[0], pair[1].pid))]
        for device, pairs in found.items()
    }


def demand_free(port: Port, opened: Mapping[str, Sequence[Holder]]) -> None:
    """Raises Dead, a "busy" one, where another process has the port open, be it without a lock: to open it then would change
    its speed under that process, and take what it is to read."""
    if who := opened.get(real(port.url)):
        busy = BlockingIOError(errno.EAGAIN, "open elsewhere")
        raise Dead(f"{named(port)} is in use by {' and '.join(map(str, who))}. End it, or wait for it.") from busy


def _opened(process: Path) -> dict[str, bool]:
    """The ports that a process has open, and whether it locks them."""
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
