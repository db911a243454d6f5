"""Int8 inference on a board: the program goes to the board's slot, and inputs through it one by one."""

import asyncio
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.building.toolchains import Toolchain
from tinyfl.errors import Corrupt, DoesNotFit
from tinyfl.int8.native import Program, quantized
from tinyfl.link.board import WORK_SECONDS, Description, LinkedBoard
from tinyfl.link.messages import PROGRAM_HEADER
from tinyfl.link.wire import Opener, SerialWire

SLOWEST = 4_000
"""Bytes a second that a program is given to reach its slot; 115,200 baud do twice that."""


def run_on_board(
    program: Program, x: NDArray[Any], board: str, *, engine: str = "", toolchain: Toolchain = "zig"
) -> NDArray[Any]:
    """As ``tinyfl.int8.native.run_native``, on an emulated board of this kind, which ends with the call.

    Raises DoesNotFit for a program that has no room there, and what ``tinyfl.fleets.emulation.started`` and a link raise.
    """
    from tinyfl.fleets.emulation import started

    ready = quantized(program.input, x)
    with started(board, engine=engine, toolchain=toolchain) as (running,):
        return asyncio.run(_outputs(program, ready, running.opener))


def run_on_port(program: Program, x: NDArray[Any], port: str) -> NDArray[Any]:
    """The same on the board behind ``port``, a device's name or a url of pyserial's."""
    return asyncio.run(_outputs(program, quantized(program.input, x), partial(SerialWire.open, port)))


async def _outputs(program: Program, x: NDArray[Any], opener: Opener) -> NDArray[Any]:
    board = await LinkedBoard.connect(opener)
    try:
        demand_room(program, board.description)
        await put_program(board, program)
        rows = []
        for row in x:
            rows.append(await board.predict(row.tobytes()))
            if len(rows[-1]) != program.output.bytes:
                raise Corrupt(f"an output of the board has {len(rows[-1])} bytes, not {program.output.bytes}.")
    finally:
        await board.close()
    return np.frombuffer(b"".join(rows), program.output.dtype).reshape(len(x), *program.output.shape)


async def put_program(board: LinkedBoard, program: Program) -> None:
    """``program`` into the board's slot, in the time that its length needs."""
    await board.put_program(program.content, WORK_SECONDS + len(program.content) / SLOWEST)


def demand_room(program: Program, described: Description) -> None:
    """Raises DoesNotFit where the board has no room for ``program``."""
    for takes, has, what in (
        (len(program.content) + PROGRAM_HEADER, described.store, "flash in the program's slot"),
        (program.arena_bytes, described.arena, "RAM to run"),
    ):
        if takes > has:
            raise DoesNotFit(
                f"the model takes {takes:,} bytes of {what}; board {described.id.hex()} ({described.board}) has {has:,}. "
                "Take a smaller model, or a larger board."
            )
