"""Boards on ports whose names mean nothing: each is found by its unique id, wherever it hangs now."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from tinyfl.devices.connected import connect
from tinyfl.devices.ports import Port, named, port, where
from tinyfl.errors import Dead, LinkError
from tinyfl.link.wire import Opener, SerialWire, Wire

PROBE_SECONDS = 1.0
"""What a board may take to say who it is, while others are looked for."""


def opener_at(url: str, baud: int = 0) -> Opener:
    """Opens the port ``url`` at ``baud`` (0: as its board's manifest has it), and from then on the port that ``where`` finds
    it at. Raises Dead where there is none."""
    place = _Place(url, baud)

    async def open() -> Wire:
        at = await place.now()
        return await SerialWire.open(at.url, await _speed(at))

    return open


class _Place:
    """A port of a fleet. Where it was first seen is remembered, so that its board is found again however often others are taken
    for it; its facts are read anew as long as it is there."""

    def __init__(self, url: str, baud: int) -> None:
        self.url, self._baud = url, baud
        self._first: Port | None = None

    async def now(self) -> Port:
        """The port that it is by now. Raises Dead where it was there and is not found any more."""
        return await asyncio.to_thread(self._now)

    def _now(self) -> Port:
        if self._first is None or not self._first.usb:
            self._first = port(self.url, self._baud)
            return self._first
        found = where(self._first)
        if found and found.socket == self._first.socket:
            self._first = found
        if not found:
            raise Dead(f"{named(self._first)} is gone. Check the cable, and that it is plugged in where it was.")
        return found


async def _speed(at: Port) -> int:
    """The baud at which the board at this port answers, asked for only where there are several."""
    if len(at.bauds) == 1:
        return at.bauds[0]
    board, baud = await connect(at, PROBE_SECONDS)
    await board.close()
    return baud


class Rack:
    """The boards at ``ports``, which speak at ``baud`` (0: as their manifests have it). A port serves one at a time, so all who
    look for a board share one search over all ports."""

    def __init__(self, ports: Sequence[str], baud: int = 0) -> None:
        self._places = [_Place(url, baud) for url in ports]
        self._where: dict[str, tuple[_Place, Port]] = {}
        self._search: asyncio.Task[None] | None = None

    def opener(self, id: str) -> Opener:
        """Opens the port where the board with this id (hexadecimal) answers. Raises Dead where none does."""

        async def open() -> Wire:
            if id in self._where:
                await self._ask(self._where.pop(id)[0])
            if id not in self._where:
                if self._search is None or self._search.done():
                    self._search = asyncio.create_task(self._look())
                await asyncio.shield(self._search)
            if id not in self._where:
                asked = ", ".join(place.url for place in self._places)
                raise Dead(f"no board with the id {id} answers at {asked}. Check its cable and power.")
            _, at = self._where[id]
            return await SerialWire.open(at.url, at.bauds[0])

        return open

    async def _look(self) -> None:
        """Asks at every port where no board is known to be."""
        known = [place for place, _ in self._where.values()]
        await asyncio.gather(*(self._ask(place) for place in self._places if place not in known))

    async def _ask(self, place: _Place) -> None:
        """Takes note of the board that answers at ``place``, if one does, and of the speed at which it does."""
        with suppress(LinkError):
            at = await place.now()
            board, baud = await connect(at, PROBE_SECONDS)
            await board.close()
            self._where[board.description.id.hex()] = place, replace(at, bauds=(baud,))
