"""Verifies that a board runs the firmware written to it, by a query once its serial port is back."""

import asyncio
import time

from tinyfl.building.build import Firmware
from tinyfl.devices.connected import connect, explained
from tinyfl.devices.ports import Port, follow, named, trouble, where
from tinyfl.errors import FlashError, LinkError, Refused
from tinyfl.errors.words import shell
from tinyfl.flash.targets import Target
from tinyfl.link.status import Description

BACK_SECONDS = 20.0
"""Timeout for a board's return and its answer."""

SETTLE_SECONDS = 3.0
"""Time for which an answer from the old firmware may precede the restart."""

ANSWER_SECONDS = 1.0
PAUSE_SECONDS = 0.2

UNTOUCHED = "Nothing was written. Swap the cables back, and flash again."


async def verify(port: Port, firmware: Firmware, id: str = "", within: float = BACK_SECONDS) -> Description:
    """Waits until the board at ``port`` runs ``firmware``, following it by its USB serial number; returns its description.

    Raises FlashError if it does not return and answer within ``within`` seconds, reports another version or kind, or has
    another id than ``id`` (empty: any).
    """
    began = time.monotonic()
    problem = ""
    while (passed := time.monotonic() - began) < within:
        try:
            at = await follow(port, within - passed)
            board, _ = await connect(at, ANSWER_SECONDS)
        except Refused as error:
            problem = f"the board runs another firmware than the one written: {error}"
            settled = passed > SETTLE_SECONDS
        except LinkError as error:
            away = trouble(error) in ("silent", "gone")
            problem = "" if away else f"it was written, but cannot be verified: {explained(port, error)}"
            settled = False
        else:
            await board.close()
            if not (problem := difference(board.description, firmware, id)):
                return board.description
            settled = passed > SETTLE_SECONDS
        if settled:
            break
        await asyncio.sleep(PAUSE_SECONDS)
    raise FlashError(problem or silent(port, firmware, within))


async def demand_same(target: Target) -> None:
    """Raises FlashError if another board, or none, now answers at the target's port: cables may be moved during a build. A
    board that never answered is not checked."""
    if not target.port or not target.described:
        return
    expected, at = target.described.id.hex(), await asyncio.to_thread(where, target.port)
    try:
        board, _ = await connect(at or target.port)
    except LinkError as error:
        raise FlashError(
            f"board {expected} answered before, but not now: {explained(at or target.port, error)} {UNTOUCHED}"
        ) from error
    await board.close()
    if (id := board.description.id.hex()) != expected:
        raise FlashError(f"another board, {id}, now answers at {named(at or target.port)}, in place of {expected}. {UNTOUCHED}")


def difference(described: Description, firmware: Firmware, id: str = "") -> str:
    """The difference between the board's description and the firmware written, with a cure; empty if none."""
    if id and described.id.hex() != id:
        return (
            f"another board answers: {described.id.hex()}, in place of {id}. The firmware went to the one of the two at the "
            "probe, drive or bootloader. Swap the cables back, and flash again."
        )
    if described.board != firmware.board.name:
        return (
            f"the board reports the kind {described.board}, but {firmware.board.name}'s firmware was written. Either the "
            "serial port is another board's (give the right one with --port), or nothing was written: try another --method."
        )
    if described.firmware != firmware.version:
        return (
            f"the board still runs {described.firmware}; {firmware.version} was written. It did not restart, or the new "
            "firmware went elsewhere: press its reset button and run `tinyfl devices`; if the version stays, flash with "
            "another --method."
        )
    return ""


def silent(port: Port, firmware: Firmware, within: float) -> str:
    """The message for a board that does not answer after writing."""
    board = firmware.board
    baud = f" at {port.bauds[0]:,} baud"
    look = shell("tinyfl", "devices", "--port", port.url) if port.url else "tinyfl devices"
    return (
        f"it was written, but nothing answered at {named(port)}{baud} within {within:g} s. Press the board's reset button and "
        f"run `{look}`; check that this port is wired to the pins in `tinyfl boards show {board.name}`."
    )
