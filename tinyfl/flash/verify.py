"""Whether a board runs what was written to it: it is asked, once its serial port is back."""

import asyncio
import time

from tinyfl.building.build import Firmware
from tinyfl.devices.connected import connect, explained
from tinyfl.devices.ports import Port, follow, named, trouble, where
from tinyfl.errors import FlashError, LinkError, Refused
from tinyfl.errors.words import shell
from tinyfl.flash.finding import Target
from tinyfl.link.board import Description

BACK_SECONDS = 20.0
"""What a board may take to be back and answer."""

SETTLE_SECONDS = 3.0
"""For so long a board that still has its old firmware may be about to restart."""

ANSWER_SECONDS = 1.0
PAUSE_SECONDS = 0.2

UNTOUCHED = "Nothing was written. Put the cables right, and flash again."


async def verify(port: Port, firmware: Firmware, id: str = "", within: float = BACK_SECONDS) -> Description:
    """What the board at ``port`` says of itself, once it runs ``firmware``. It is followed by its USB serial number.

    Raises FlashError where it does not come back or does not answer within ``within`` seconds, says another version or kind,
    or is another board than that with ``id`` (empty: unknown).
    """
    began = time.monotonic()
    problem = ""
    while (passed := time.monotonic() - began) < within:
        try:
            at = await follow(port, within - passed)
            board, _ = await connect(at, ANSWER_SECONDS)
        except Refused as error:
            problem = f"the firmware there is not the one that was written: {error}"
            settled = passed > SETTLE_SECONDS
        except LinkError as error:
            away = trouble(error) in ("silent", "gone")
            problem = "" if away else f"it was written, but it cannot be asked: {explained(port, error)}"
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
    """Raises FlashError where another board answers by now at the target's port, or none: a build takes its time, and cables
    are moved meanwhile. Of a board that never answered nothing is known."""
    if not target.port or not target.described:
        return
    was, at = target.described.id.hex(), await asyncio.to_thread(where, target.port)
    try:
        board, _ = await connect(at or target.port)
    except LinkError as error:
        raise FlashError(
            f"board {was} answered, and does not any more: {explained(at or target.port, error)} {UNTOUCHED}"
        ) from error
    await board.close()
    if (now := board.description.id.hex()) != was:
        raise FlashError(f"another board, {now}, answers by now at {named(at or target.port)}, where {was} was. {UNTOUCHED}")


def difference(described: Description, firmware: Firmware, id: str = "") -> str:
    """In what the board is not what was written, with what to do; empty if it is."""
    if id and described.id.hex() != id:
        return (
            f"another board answers: {described.id.hex()}, where {id} was. What was written went to whichever of the two is at "
            "the probe, drive or bootloader. Put the cables right, and flash again."
        )
    if described.board != firmware.board.name:
        return (
            f"the board says it is {described.board}, and {firmware.board.name}'s firmware was written. The serial port is "
            "another board's (name the right one with --port), or nothing was written: flash again with another --method."
        )
    if described.firmware != firmware.version:
        return (
            f"the board still runs {described.firmware}; {firmware.version} was written. It did not restart, or the new "
            "firmware went elsewhere: press its reset button and look at `tinyfl devices`; if the version stays, flash with "
            "another --method."
        )
    return ""


def silent(port: Port, firmware: Firmware, within: float) -> str:
    """The message of a board that did not answer after it was written."""
    board = firmware.board
    baud = f" at {port.bauds[0]:,} baud"
    look = shell("tinyfl", "devices", "--port", port.url) if port.url else "tinyfl devices"
    return (
        f"it was written, but nothing answered at {named(port)}{baud} within {within:g} s. Press the board's reset button, and "
        f"look at `{look}`; check that this port is wired to the pins of `tinyfl boards show {board.name}`."
    )
