"""Int8 inference on a board: sends the program to the board's slot, then the inputs one by one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.errors import Corrupt, DoesNotFit
from tinyfl.int8.native import Program, quantized
from tinyfl.link import PROGRAM_HEADER
from tinyfl.link.board import WORK_SECONDS, LinkedBoard
from tinyfl.link.status import Description
from tinyfl.link.wire import Opener
from tinyfl.system.loop import in_loop

SLOWEST = 4_000
"""Minimum transfer rate to a slot, in bytes per second, for the timeout; 115,200 baud are twice as fast."""


def run_over(program: Program, x: NDArray[Any], opener: Opener) -> NDArray[Any]:
    """Like ``tinyfl.int8.native.run_native``, on the board behind ``opener``.

    Raises DoesNotFit for a program too large for the board, and the errors of a link.
    """
    return in_loop(_outputs(program, quantized(program.input, x), opener))


async def _outputs(program: Program, x: NDArray[Any], opener: Opener) -> NDArray[Any]:
    board = await LinkedBoard.connect(opener)
    try:
        demand_room(program, board.description)
        await put_program(board, program)
        rows = []
        for row in x:
            rows.append(await board.predict(row.tobytes()))
            if len(rows[-1]) != program.output.bytes:
                raise Corrupt(f"an output from the board has {len(rows[-1])} bytes, not {program.output.bytes}.")
    finally:
        await board.close()
    return np.frombuffer(b"".join(rows), program.output.dtype).reshape(len(x), *program.output.shape)


async def put_program(board: LinkedBoard, program: Program) -> None:
    """Writes ``program`` to the board's slot, with a timeout in proportion to its length."""
    await board.put_program(program.content, WORK_SECONDS + len(program.content) / SLOWEST)


def demand_room(program: Program, described: Description) -> None:
    """Raises DoesNotFit if the board is too small for ``program``."""
    for needed, available, what in (
        (len(program.content) + PROGRAM_HEADER, described.store, "flash in the program's slot"),
        (program.arena_bytes, described.arena, "RAM to run"),
    ):
        if needed > available:
            raise DoesNotFit(
                f"the model needs {needed:,} bytes of {what}; board {described.id.hex()} ({described.board}) has "
                f"{available:,}. Use a smaller model, or a larger board."
            )
