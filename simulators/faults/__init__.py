"""Faults on a link: lost, duplicated, damaged, truncated or delayed frames, and restarts, reproducible frame by frame.

A fault identifies a frame by its direction and its number since the start, over all connections to the board. A scenario thus
affects the same frames in every run, however the bytes are split.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from tinyfl.errors import Dead
from tinyfl.link.wire import Opener, Wire
from tinyfl.simulators import BoardFault

Direction = Literal["to-board", "to-host"]
Kind = Literal["drop", "duplicate", "flip", "truncate", "delay", "silence", "reset"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Fault:
    """A fault of frame number ``frame`` (from 0) in a direction.

    drop       the frame is lost
    duplicate  the frame arrives twice
    flip       bit number ``at`` of the frame, closing zero included, is inverted
    truncate   only the first ``at`` bytes arrive, without the closing zero
    delay      the frame arrives just before the next one
    silence    this frame and all later ones are lost
    reset      the frame is lost, and the board restarts
    """

    direction: Direction
    frame: int
    kind: Kind
    at: int = 0


class _Line:
    """One direction of a link, with its faults."""

    def __init__(self, faults: dict[int, Fault], reset: Callable[[], None]) -> None:
        self._faults, self._reset = faults, reset
        self._partial, self._delayed = b"", b""
        self._frame = 0
        self._silent = False

    def pass_on(self, data: bytes) -> bytes:
        """Returns the bytes that arrive. A frame arrives once it is complete; empty frames are not counted."""
        *frames, self._partial = (self._partial + data).split(b"\0")
        return b"".join(self._apply_fault(frame + b"\0") if frame else b"\0" for frame in frames)

    def _apply_fault(self, frame: bytes) -> bytes:
        fault = self._faults.get(self._frame)
        self._frame += 1
        kind = fault.kind if fault else None
        self._silent |= kind == "silence"
        if kind == "reset":
            try:
                self._reset()
            except BoardFault as error:
                raise Dead(str(error)) from error
        if self._silent or kind in ("drop", "reset"):
            return b""
        if kind == "delay":
            self._delayed += frame
            return b""
        before, self._delayed = self._delayed, b""
        return before + (_damaged(frame, fault) if fault else frame)


def _damaged(frame: bytes, fault: Fault) -> bytes:
    if fault.kind == "duplicate":
        return frame * 2
    if fault.kind == "truncate":
        return frame[: fault.at % len(frame)]
    bit = fault.at % (8 * len(frame))
    damaged = bytearray(frame)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


class FaultyWire:
    """A wire with faults in both directions."""

    def __init__(self, wire: Wire, to_board: _Line, to_host: _Line) -> None:
        self._wire, self._to_board, self._to_host = wire, to_board, to_host
        self.patience = wire.patience

    async def send(self, data: bytes) -> None:
        if arriving := self._to_board.pass_on(data):
            await self._wire.send(arriving)

    async def receive(self) -> bytes:
        while not (arriving := self._to_host.pass_on(await self._wire.receive())):
            pass
        return arriving

    async def close(self) -> None:
        await self._wire.close()


def faulty(opener: Opener, faults: Sequence[Fault], reset: Callable[[], None] | None = None) -> Opener:
    """Adds ``faults`` to the wires of ``opener``; ``reset`` restarts the board.

    Raises ValueError for a reset fault without ``reset``, or two faults of the same frame.
    """
    if reset is None and any(fault.kind == "reset" for fault in faults):
        raise ValueError("a fault restarts the board, but no reset function is given")
    if len({(fault.direction, fault.frame) for fault in faults}) < len(faults):
        raise ValueError("two faults have the same frame")
    to_board, to_host = (
        _Line({fault.frame: fault for fault in faults if fault.direction == direction}, reset or (lambda: None))
        for direction in DIRECTIONS
    )

    async def open() -> Wire:
        return FaultyWire(await opener(), to_board, to_host)

    return open
