"""Boards' USB drives: finds them by label, copies an image, and reads the result."""

import asyncio
import errno
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tinyfl.devices.ports import Spot
from tinyfl.errors import FlashError
from tinyfl.errors.words import plain, serial_number

MOUNTS = Path("/proc/self/mountinfo")
LABELS = Path("/dev/disk/by-label")
BLOCKS = Path("/sys/dev/block")
VOLUMES = Path("/Volumes")

BLOCK = 1 << 14
"""Bytes per write: a bootloader needs them in order."""

MAX_VERDICT_CHARS = 600
"""Maximum length read of a drive's FAIL.TXT; DAPLink's has a line or two."""

VERDICT_SECONDS = 15.0
"""Timeout for a drive's return after a copy."""

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Drive:
    """A mounted drive: its path, whether it is writable, its device's USB serial number (empty: unknown), the number of this
    mount (a later mount at the same path has another), and its device's USB socket."""

    path: Path
    writable: bool
    serial: str
    mount: str
    socket: str = ""

    @property
    def spot(self) -> Spot:
        return Spot(self.socket, self.serial, str(self.path))


def mounted(label: str) -> list[Drive]:
    """Finds the mounted drives with this label. Desktops append a digit to the path of a second one."""
    if sys.platform == "darwin":
        paths = [path for path in sorted(VOLUMES.glob(f"{label}*")) if _called(path.name, label)]
        return [Drive(path, os.access(path, os.W_OK), "", str(path.stat().st_dev)) for path in paths]
    found = []
    device = _device(label)
    for line in _lines(MOUNTS):
        fields = line.split(" ")
        source = fields[fields.index("-") + 2]
        path = Path(_plain(fields[4]))
        if _called(path.name, label) or (device and source == device):
            socket, serial = _usb(fields[2])
            found.append(Drive(path, "rw" in fields[5].split(","), serial, fields[0], socket))
    return found


def unmounted(label: str) -> str:
    """The device of an unmounted drive with this label; empty if none is visible."""
    return "" if mounted(label) else _device(label)


def copy(image: Path, drive: Drive) -> None:
    """Copies ``image`` to ``drive``, and waits for completion or for the drive to vanish, as it does when a board restarts
    after the last block. Only a query of the board shows whether the copy is complete.

    Raises FlashError with cause and cure.
    """
    data = image.read_bytes()
    if not drive.writable:
        raise FlashError(read_only(drive.path))
    written = 0
    try:
        with (drive.path / image.name).open("wb", buffering=0) as file:
            while written < len(data):
                written += file.write(data[written : written + BLOCK])
            os.fsync(file.fileno())
    except OSError as error:
        gone = error.errno in (errno.EIO, errno.ENODEV, errno.ENXIO, errno.ENOENT, errno.EBADF)
        if written < len(data) or not gone:
            raise FlashError(trouble(error, drive.path, written, len(data))) from error


def trouble(error: OSError, path: Path, written: int, size: int) -> str:
    """Explains a failure of the drive at ``path`` after ``written`` of ``size`` bytes, with the cure."""
    if error.errno == errno.EROFS:
        return read_only(path)
    if error.errno == errno.ENOSPC:
        return (
            f"the drive at {path} is full: {written:,} of {size:,} bytes fit. Check that it is the board's drive, "
            "unplug the board and plug it in again, which empties the drive, and flash again."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"no permission to write to {path} ({error.strerror}). Mount it as your user: udisksctl mount -b DEVICE"
    if error.errno in (errno.EIO, errno.ENODEV, errno.ENXIO, errno.ENOENT):
        return (
            f"the drive at {path} disappeared after {written:,} of {size:,} bytes ({error.strerror}). Check the cable, put the "
            "board into its bootloader again, and flash again. The board's firmware is lost and, if the drive erases the whole "
            "chip, so are its models."
        )
    return f"writing to the drive at {path} failed ({error}). Unplug the board, plug it in again, and flash again."


def read_only(path: Path) -> str:
    """The message for a read-only drive."""
    return (
        f"the drive at {path} is read-only. Unplug the board and plug it in again; if the drive stays read-only, its file "
        "system is damaged or its probe protects it: remount it (mount -o remount,rw) or flash with another --method."
    )


async def verdict(label: str, drive: Drive, failed_before: bool) -> str:
    """The verdict of a debug probe's drive on the file copied to it: the text of its FAIL.TXT, or nothing.

    Waits until the drive has vanished and returned, as those of DAPLink and ST-Link do after a copy, at most VERDICT_SECONDS:
    without automatic mounting it does not return, and the board must be queried. An old FAIL.TXT (``failed_before``) stays
    until a copy succeeds, so it counts only once the drive has returned.
    """
    deadline = time.monotonic() + VERDICT_SECONDS
    while True:
        same = [each for each in mounted(label) if each.spot.same(drive.spot)]
        for each in same:
            if (each.mount != drive.mount or not failed_before) and (text := verdict_now(each)):
                return text
        if any(each.mount != drive.mount for each in same) or time.monotonic() >= deadline:
            return ""
        await asyncio.sleep(POLL_SECONDS)


def verdict_now(drive: Drive) -> str:
    """The text of the drive's FAIL.TXT, if it has one."""
    try:
        with open(drive.path / "FAIL.TXT", "rb", opener=_own) as file:
            return plain(" ".join(file.read(MAX_VERDICT_CHARS).decode(errors="replace").split()), MAX_VERDICT_CHARS)
    except OSError:
        return ""


def _own(path: str, flags: int) -> int:
    """Opens a regular file of the drive: no link to elsewhere, no pipe that would block."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _called(name: str, label: str) -> bool:
    return re.fullmatch(re.escape(label) + r" ?\d*", name) is not None


def _device(label: str) -> str:
    """The device with this label; udev escapes special characters, as in \\x20."""
    try:
        names = {re.sub(r"\\x([0-9a-f]{2})", lambda hit: chr(int(hit[1], 16)), path.name): path for path in LABELS.iterdir()}
        return os.path.realpath(names[label])
    except (OSError, KeyError):
        return ""


def _usb(number: str) -> tuple[str, str]:
    """The socket and serial number of the USB device with this block device ("8:1")."""
    try:
        folder = (BLOCKS / number).resolve(strict=True)
    except OSError:
        return "", ""
    for parent in folder.parents:
        if (parent / "idVendor").exists():
            return parent.name, serial_number("".join(_lines(parent / "serial")[:1]))
    return "", ""


def _lines(file: Path) -> list[str]:
    try:
        return [
            line for line in os.fsdecode(file.read_bytes()).split("\n") if line
        ]  # a label may contain other line separators
    except OSError:
        return []


def _plain(text: str) -> str:
    """Decodes the octal escapes of a path in mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda hit: chr(int(hit[1], 8)), text)
