"""Finds boards by their unique ids, whatever port each is at."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from tinyfl.devices.connected import connect
from tinyfl.devices.ports import Port, named, port, where
from tinyfl.errors import Dead, LinkError
from tinyfl.link.wire import Opener, Wire, wire_kind
from tinyfl.system.loop import every

PROBE_SECONDS = 1.0
"""Timeout for a board's description during a search."""


def opener_at(url: str, baud: int = 0, auto: bool = False) -> Opener:
    """Returns a function that opens the port ``url`` at ``baud`` (0: from the board's manifest), raised later if ``auto``, and
    later the port to which ``where`` traces it. The function raises Dead if the port is gone."""
    place = _Place(url, baud)

    async def open() -> Wire:
        at = await place.current()
        return await wire_kind(auto).open(at.url, await _speed(at))

    return open


class _Place:
    """A port of a fleet. It remembers the first socket, so that its board is found again even if another was mistaken for it;
    while a device is in that socket, its USB data is refreshed."""

    def __init__(self, url: str, baud: int) -> None:
        self.url, self._baud = url, baud
        self._first: Port | None = None

    async def current(self) -> Port:
        """The current port. Raises Dead if it has disappeared."""
        return await asyncio.to_thread(self._current)

    def _current(self) -> Port:
        if self._first is None or not self._first.usb:
            self._first = port(self.url, self._baud)
            return self._first
        found = where(self._first)
        if found and found.socket == self._first.socket:
            self._first = found
        if not found:
            raise Dead(f"{named(self._first)} is gone. Check the cable, and plug it into the same socket as before.")
        return found


async def _speed(at: Port) -> int:
    """The board's baud rate; queried only if the port has several candidates."""
    if len(at.bauds) == 1:
        return at.bauds[0]
    board, baud = await connect(at, PROBE_SECONDS)
    await board.close()
    return baud


class Rack:
    """The boards at ``ports``, at ``baud`` (0: from their manifests), raised later if ``auto``. A port has one user at a time,
    so concurrent searches for boards share one search over all ports."""

    def __init__(self, ports: Sequence[str], baud: int = 0, auto: bool = False) -> None:
        self._kind = wire_kind(auto)
        self._places = [_Place(url, baud) for url in ports]
        self._where: dict[str, tuple[_Place, Port]] = {}
        self._search: asyncio.Task[None] | None = None

    def opener(self, id: str) -> Opener:
        """Returns a function that opens the port of the board with this id (hexadecimal), or raises Dead if none answers."""

        async def open() -> Wire:
            if id in self._where:
                await self._query(self._where.pop(id)[0])
            if id not in self._where:
                if self._search is None or self._search.done():
                    self._search = asyncio.create_task(self._look())
                await asyncio.shield(self._search)
            if id not in self._where:
                urls = ", ".join(place.url for place in self._places)
                raise Dead(f"no board with the id {id} answers at {urls}. Check its cable and power.")
            _, at = self._where[id]
            return await self._kind.open(at.url, at.bauds[0])

        return open

    async def _look(self) -> None:
        """Queries every port without a known board."""
        known = [place for place, _ in self._where.values()]
        await every(self._query(place) for place in self._places if place not in known)

    async def _query(self, place: _Place) -> None:
        """Records the board that answers at ``place``, if any, and its baud rate."""
        with suppress(LinkError):
            at = await place.current()
            board, baud = await connect(at, PROBE_SECONDS)
            await board.close()
            self._where[board.description.id.hex()] = place, replace(at, bauds=(baud,))
