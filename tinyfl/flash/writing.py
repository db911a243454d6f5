"""The writing itself: a tool is run until it is done or its time is over, or a file is copied to a drive."""

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
from tinyfl.flash.finding import Target
from tinyfl.flash.ways import Way
from tinyfl.system.child import Child

TOOL_SECONDS = 180.0
"""What a tool may take before it is ended."""

BOOTLOADER_SECONDS = 10.0
"""What a bootloader may take to show its port."""


def image(firmware: Firmware, way: Way) -> Path:
    """The firmware as the method takes it, beside the ELF."""
    format = methods.image_format(way.method)
    path = firmware.elf.with_suffix(f".{format}")
    family = way.method.family if isinstance(way.method, Copy) else 0
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        images.write(firmware.elf, format, new, family=family)
        new.replace(path)
    except OSError as error:
        raise FlashError(f"{new} cannot be written ({error}). Give --out a folder with room that you may write to.") from error
    return path


def commands(board: Board, image: Path, way: Way) -> list[tuple[str, ...]]:
    """What would write ``image``, for a shell."""
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
            f"the drive at {drive.path} went away, and nothing was written. Plug the board in anew, and flash again."
        )
    failed_before = bool(drives.verdict_now(drive))
    await asyncio.to_thread(drives.copy, image, drive)
    if method.format == "uf2":
        return  # the board restarts, and its drive is gone for good
    if said := await drives.verdict(method.drive, drive, failed_before):
        raise FlashError(explain.explained_verdict(said, drive.path))


async def _run(board: Board, way: Way, argv: tuple[str, ...], log: Path) -> None:
    tool = way.method.method
    try:
        with log.open("wb") as out, Child(argv, stdout=out, stderr=subprocess.STDOUT) as child:
            code = await asyncio.to_thread(child.process.wait, TOOL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise FlashError(explain.timed_out(tool, TOOL_SECONDS, log, shell(*argv))) from error
    except OSError as error:
        raise FlashError(f"{argv[0]} cannot be started ({error}). Install it: {methods.INSTALL[tool]}") from error
    said = visible(log.read_text(errors="replace").replace("\r", "\n"))
    log.write_text(said)  # whoever reads it in a terminal sees words
    if not explain.went_well(tool, code, said):
        usb = board.usb.bootloader if tool == "dfu-util" else board.usb.probe
        facts = {"board": board.name, "chip": board.chip, "probe": way.place, "usb": usb[0] if usb else ""}
        facts |= {
            "unlock": explain.unlocking(board, methods.unlock(way.method, way.place, way.by_socket)),
            "install": methods.INSTALL[tool],
        }
        raise FlashError(explain.explained(tool, said, log, facts))


def _log(image: Path, target: Target) -> Path:
    """Where the tool's words go: one file for each board, of its last try."""
    return image.with_name(f"flash-{file_name(target.name) or 'board'}.log")


async def touched(port: Port, board: Board) -> Port:
    """Starts an Arduino's bootloader by opening ``port`` at 1200 baud and closing it; returns the bootloader's port.

    Raises FlashError where that does not come.
    """
    try:
        opened = await asyncio.to_thread(serial.Serial, port.url, methods.TOUCH_BAUD)
        opened.close()
        return await follow(port, BOOTLOADER_SECONDS, board.usb.bootloader)
    except (OSError, LinkError) as error:
        raise FlashError(
            f"{port.url} was touched at {methods.TOUCH_BAUD} baud, but {board.name}'s bootloader did not start ({error}). "
            "Press its reset button twice, quickly, so that a light pulses, and flash again."
        ) from error
