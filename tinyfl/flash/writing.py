"""Writes firmware: runs a tool with a time limit, or copies a file to a drive."""

import asyncio
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import serial

from tinyfl.building import images
from tinyfl.building.boards import Board, Copy
from tinyfl.building.build import Firmware
from tinyfl.devices.ports import Port, follow
from tinyfl.errors import FlashError, LinkError
from tinyfl.errors.words import file_name, shell, visible
from tinyfl.flash import drives, explain, methods
from tinyfl.flash.targets import Target
from tinyfl.flash.ways import Way
from tinyfl.system.child import Child

TOOL_SECONDS = 180.0
"""Timeout for a tool."""

BOOTLOADER_SECONDS = 10.0
"""Timeout for a bootloader's port to appear."""


def image(firmware: Firmware, way: Way) -> Path:
    """Writes the firmware beside the ELF in the method's image format; returns its path."""
    format = methods.image_format(way.method)
    path = firmware.elf.with_suffix(f".{format}")
    family = way.method.family if isinstance(way.method, Copy) else 0
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        images.write(firmware.elf, format, new, family=family)
        new.replace(path)
    except OSError as error:
        raise FlashError(f"{new} cannot be written ({error}). Give --out a writable folder with enough space.") from error
    return path


def commands(board: Board, image: Path, way: Way) -> list[tuple[str, ...]]:
    """The shell commands that write ``image``."""
    place = way.place or (f"/media/you/{way.method.drive}" if isinstance(way.method, Copy) else "")
    before = [methods.touch(way.touch.url)] if way.touch else []
    return [*before, methods.located(methods.command(way.method, image, place, board.usb.bootloader, way.by_socket))]


async def write(target: Target, way: Way, image: Path) -> None:
    """Writes ``image`` by ``way``. Raises FlashError with cause and cure."""
    if isinstance(way.method, Copy):
        assert way.drive
        await _copy(way.method, way.drive, image)
        return
    if way.touch:
        way = replace(way, place=(await touched(way.touch, target.board)).url)
    await _run(target.board, way, commands(target.board, image, replace(way, touch=None))[0], _log(image, target))


async def _copy(method: Copy, drive: drives.Drive, image: Path) -> None:
    if not any((each.path, each.mount) == (drive.path, drive.mount) for each in drives.mounted(method.drive)):
        raise FlashError(
            f"the drive at {drive.path} disappeared, and nothing was written. Plug the board in again, and flash again."
        )
    failed_before = bool(drives.verdict_now(drive))
    await asyncio.to_thread(drives.copy, image, drive)
    if method.format == "uf2":
        return  # the board restarts without its drive
    if text := await drives.verdict(method.drive, drive, failed_before):
        raise FlashError(explain.explained_verdict(text, drive.path))


async def _run(board: Board, way: Way, argv: tuple[str, ...], log: Path) -> None:
    tool = way.method.method
    try:
        with log.open("wb") as out, Child(argv, stdout=out, stderr=subprocess.STDOUT) as child:
            code = await asyncio.to_thread(child.process.wait, TOOL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise FlashError(explain.timed_out(tool, TOOL_SECONDS, log, shell(*argv))) from error
    except OSError as error:
        raise FlashError(f"{argv[0]} cannot be started ({error}). Install it: {methods.INSTALL[tool]}") from error
    output = visible(log.read_text(errors="replace").replace("\r", "\n"))
    log.write_text(output)  # safe to print in a terminal
    if not explain.succeeded(tool, code, output):
        usb = board.usb.bootloader if tool == "dfu-util" else board.usb.probe
        facts = {"board": board.name, "chip": board.chip, "probe": way.place, "usb": usb[0] if usb else ""}
        facts |= {
            "unlock": explain.unlocking(board, methods.unlock(way.method, way.place, way.by_socket)),
            "install": methods.INSTALL[tool],
        }
        raise FlashError(explain.explained(tool, output, log, facts))


def _log(image: Path, target: Target) -> Path:
    """The log of the tool's last run, one file per board."""
    return image.with_name(f"flash-{file_name(target.name) or 'board'}.log")


async def touched(port: Port, board: Board) -> Port:
    """Starts an Arduino's bootloader by opening ``port`` at 1200 baud and closing it; returns the bootloader's port.

    Raises FlashError if that port does not appear.
    """
    try:
        opened = await asyncio.to_thread(serial.Serial, port.url, methods.TOUCH_BAUD)
        opened.close()
        return await follow(port, BOOTLOADER_SECONDS, board.usb.bootloader)
    except (OSError, LinkError) as error:
        raise FlashError(
            f"{port.url} was touched at {methods.TOUCH_BAUD} baud, but {board.name}'s bootloader did not start ({error}). "
            "Press its reset button twice, quickly, until an LED pulses, and flash again."
        ) from error
