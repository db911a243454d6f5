"""Faults on a link: frames lost, doubled, damaged, cut or held up, and boards that restart, always at the same frame.

A fault names a frame by its direction and its number since the start, over all connections to the board; so the same scenario
does the same things to the same frames, however the bytes come in pieces.
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
    """What happens to frame number ``frame`` (from 0) of a direction.

    drop       it is lost
    duplicate  it comes twice
    flip       one bit of it is inverted: number ``at`` of its bits, its closing zero's included
    truncate   its first ``at`` bytes come, and its closing zero does not
    delay      it comes only when the next one does, just before it
    silence    nothing comes any more, from this frame on
    reset      it is lost, and the board restarts
    """

    direction: Direction
    frame: int
    kind: Kind
    at: int = 0


class _Line:
    """One direction of a link: whole frames in, what becomes of them out."""

    def __init__(self, faults: dict[int, Fault], reset: Callable[[], None]) -> None:
        self._faults, self._reset = faults, reset
        self._piece, self._held = b"", b""
        self._frame = 0
        self._silent = False

    def pass_on(self, data: bytes) -> bytes:
        """What arrives of ``data``. A frame arrives once it is whole; an empty one, which says nothing, is not counted."""
        *frames, self._piece = (self._piece + data).split(b"\0")
        return b"".join(self._fate(frame + b"\0") if frame else b"\0" for frame in frames)

    def _fate(self, frame: bytes) -> bytes:
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
            self._held += frame
            return b""
        before, self._held = self._held, b""
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
    """A wire whose frames pass through two lines."""

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
    """``opener``, with ``faults`` on its wires; ``reset`` restarts the board.

    Raises ValueError where a fault needs ``reset`` and there is none, or where two are about the same frame.
    """
    if reset is None and any(fault.kind == "reset" for fault in faults):
        raise ValueError("a fault restarts the board, and there is no way to")
    if len({(fault.direction, fault.frame) for fault in faults}) < len(faults):
        raise ValueError("two faults are about the same frame")
    to_board, to_host = (
        _Line({fault.frame: fault for fault in faults if fault.direction == direction}, reset or (lambda: None))
        for direction in DIRECTIONS
    )

    async def open() -> Wire:
        return FaultyWire(await opener(), to_board, to_host)

    return open
