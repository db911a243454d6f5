"""The baud rate of a link: raised as far as board, adapter and cable allow, and lowered again when frames are lost.

A board at a raised rate returns to its first one after three frames in a row that it cannot read (firmware/SPEC.md, rate), and
what is sent at another rate is no frame. So a host that hears nothing returns to the first rate too, and repeats its request
there: the board is found again whichever side changed first.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tinyfl.errors import LinkError, Refused
from tinyfl.link.messages import about as messages

if TYPE_CHECKING:
    from tinyfl.link.board import LinkedBoard

TOLERANCE = 3.0
"""Losses, less a part of each answer, at which a raised rate is given up."""

FORGIVEN = 1 / 32
"""The part of a loss that an answer makes up for."""

CHECKS = 4
"""Echoes of full length that must all come back at a new rate."""

TRY_SECONDS = 5.0
"""Timeout of a request during the change."""


@runtime_checkable
class Tunable(Protocol):
    """A wire with a baud rate: ``first``, as opened, and ``baud``, now."""

    first: int
    baud: int

    async def tune(self, baud: int) -> None:
        """Changes the rate of this end. Raises LinkError if the adapter cannot; the rate is then as before."""


class Rate:
    """The rate of one wire. One that is not Tunable stays as it is."""

    def __init__(self, wire: object) -> None:
        self._wire = wire if isinstance(wire, Tunable) else None
        self._losses, self._tolerance = 0.0, TOLERANCE

    @property
    def raised(self) -> bool:
        return self._wire is not None and self._wire.baud != self._wire.first

    def answered(self) -> None:
        """A request was answered."""
        self._losses = max(self._losses - FORGIVEN, 0)

    async def lost(self) -> bool:
        """A request was not answered: whether the wire therefore returned to its first rate."""
        if self._wire is None or not self.raised:
            return False
        self._losses += 1
        if self._losses < self._tolerance:
            return False
        await self._wire.tune(self._wire.first)
        return True

    async def raise_for(self, board: LinkedBoard) -> None:
        """Takes the highest rate that the board has, the adapter can do, and a few full frames survive.

        Raises LinkError if the board is lost."""
        if self._wire is None:
            return
        try:
            known = await board.request(messages.RatesRead(sequence=board.next()), TRY_SECONDS)
        except Refused:
            return  # a board of before rates
        for baud in sorted(known.rates, reverse=True):
            if baud > self._wire.first and await self._can(baud) and await self._holds(baud, board):
                return

    async def lower_for(self, board: LinkedBoard) -> None:
        """Returns to the first rate, for the next program at this port."""
        if self.raised and self._wire is not None:
            with suppress(LinkError):
                await board.request(messages.RateWrite(sequence=board.next(), baud=self._wire.first), board.patience)
                await self._wire.tune(self._wire.first)

    async def _can(self, baud: int) -> bool:
        """Whether the adapter can do ``baud``, tried before the board is asked."""
        assert self._wire is not None
        try:
            await self._wire.tune(baud)
        except LinkError:
            return False
        await self._wire.tune(self._wire.first)
        return True

    async def _holds(self, baud: int, board: LinkedBoard) -> bool:
        """Changes both ends, and returns whether nothing is lost there. Both are at the first rate otherwise."""
        assert self._wire is not None
        await board.request(messages.RateWrite(sequence=board.next(), baud=baud), TRY_SECONDS)
        await self._wire.tune(baud)
        self._losses, self._tolerance = 0, 1
        try:
            for _ in range(CHECKS):
                await board.echo("U" * (board.description.buffer - 24))
        finally:
            self._tolerance = TOLERANCE
        return self._wire.baud == baud
