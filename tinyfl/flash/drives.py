"""The drives that boards show: found by their label, written to, and asked afterwards how it went."""

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
"""Bytes written at a time: a bootloader takes what comes in order."""

MAX_VERDICT_CHARS = 600
"""Bytes of a drive's FAIL.TXT that are read: DAPLink's is a line or two."""

VERDICT_SECONDS = 15.0
"""What a drive may take to come back after a file, with FAIL.TXT on it or without."""

LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Drive:
    """A mounted drive: where, whether it may be written to, the USB serial number of what it is part of (empty: unknown), the
    number of this mount, which another mount at the same place does not have, and the USB socket of what it is part of."""

    path: Path
    writable: bool
    serial: str
    mount: str
    socket: str = ""

    @property
    def spot(self) -> Spot:
        return Spot(self.socket, self.serial, str(self.path))


def mounted(label: str) -> list[Drive]:
    """The mounted drives with this label. Where two have the same, desktops mount the second at a path with a digit behind."""
    if sys.platform == "darwin":
        there = [path for path in sorted(VOLUMES.glob(f"{label}*")) if _called(path.name, label)]
        return [Drive(path, os.access(path, os.W_OK), "", str(path.stat().st_dev)) for path in there]
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
    """The device of a drive with this label that is there but not mounted; empty if there is none, or none can be seen."""
    return "" if mounted(label) else _device(label)


def copy(image: Path, drive: Drive) -> None:
    """Copies ``image`` to ``drive`` and waits until it is there, or until the drive has gone, which a board that restarts with
    its last block does; whether it has all of it, the board must tell.

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
    """What went wrong with the drive at ``path`` after ``written`` of ``size`` bytes, and the cure."""
    if error.errno == errno.EROFS:
        return read_only(path)
    if error.errno == errno.ENOSPC:
        return (
            f"the drive at {path} is full: {written:,} of {size:,} bytes fit. Is it the board's own? Plug the board in "
            "anew, which empties its drive, and flash again."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"you may not write to {path} ({error.strerror}). Mount it as yourself: udisksctl mount -b DEVICE; or remount it."
        )
    if error.errno in (errno.EIO, errno.ENODEV, errno.ENXIO, errno.ENOENT):
        return (
            f"the drive at {path} went away after {written:,} of {size:,} bytes ({error.strerror}). Check the cable, put the "
            "board into its bootloader again, and flash again. The firmware there is lost; a drive that erases the whole chip "
            "takes the board's models too."
        )
    return f"the drive at {path} cannot be written ({error}). Plug the board in anew, and flash again."


def read_only(path: Path) -> str:
    """The message of a drive that is mounted read-only."""
    return (
        f"the drive at {path} is read-only. Plug the board in anew; if it stays so, its file system is damaged or its probe "
        "protects it: remount it (mount -o remount,rw) or flash with another --method."
    )


async def verdict(label: str, drive: Drive, failed_before: bool) -> str:
    """What the drive of a debug probe says of the file copied to it: the text of its FAIL.TXT, or nothing.

    Waits until the drive has gone and come back, as DAPLink's and ST-Link's does when all is written, or VERDICT_SECONDS
    are over: where nobody mounts drives by themselves it does not come back, and the board must tell. A FAIL.TXT stays until
    a file is taken, so that one of ``failed_before`` counts only on a drive that has come back.
    """
    deadline = time.monotonic() + VERDICT_SECONDS
    while True:
        same = [each for each in mounted(label) if each.spot.same(drive.spot)]
        for each in same:
            if (each.mount != drive.mount or not failed_before) and (said := verdict_now(each)):
                return said
        if any(each.mount != drive.mount for each in same) or time.monotonic() >= deadline:
            return ""
        await asyncio.sleep(LOOK_SECONDS)


def verdict_now(drive: Drive) -> str:
    """The text of the drive's FAIL.TXT, if it has one."""
    try:
        with open(drive.path / "FAIL.TXT", "rb", opener=_own) as file:
            return plain(" ".join(file.read(MAX_VERDICT_CHARS).decode(errors="replace").split()), MAX_VERDICT_CHARS)
    except OSError:
        return ""


def _own(path: str, flags: int) -> int:
    """Opens a file of the drive itself: no link that leads away from it, nor a pipe on which one would wait."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _called(name: str, label: str) -> bool:
    return re.fullmatch(re.escape(label) + r" ?\d*", name) is not None


def _device(label: str) -> str:
    """The device that has this label; udev writes odd characters as \\x20."""
    try:
        names = {re.sub(r"\\x([0-9a-f]{2})", lambda hit: chr(int(hit[1], 16)), path.name): path for path in LABELS.iterdir()}
        return os.path.realpath(names[label])
    except (OSError, KeyError):
        return ""


def _usb(number: str) -> tuple[str, str]:
    """The socket and the serial number of the USB device that the block device with this number ("8:1") is part of."""
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
        return [line for line in os.fsdecode(file.read_bytes()).split("\n") if line]  # a label may hold any other line's end
    except OSError:
        return []


def _plain(text: str) -> str:
    """A path as mountinfo writes it, with its octal escapes undone."""
    return re.sub(r"\\([0-7]{3})", lambda hit: chr(int(hit[1], 8)), text)
