"""Boards on ports whose names mean nothing: each is found by its unique id, wherever it hangs now."""

import asyncio
from collections.abc import Sequence

from tinyfl.devices import connect
from tinyfl.errors import LinkError
from tinyfl.link.errors import Dead
from tinyfl.link.wire import Opener, SerialWire, Wire
from tinyfl.ports import Port, port, where

PROBE_SECONDS = 1.0
"""What a board may take to say who it is, while others are looked for."""


def opener_at(url: str, baud: int = 0) -> Opener:
    """Opens the port ``url`` at ``baud`` (0: as its board's manifest has it), and from then on whichever port has the same USB
    serial number. Raises Dead where there is none."""
    last: Port | None = None

    async def open() -> Wire:
        nonlocal last
        last = await asyncio.to_thread(_now, url, baud, last)
        return await SerialWire.open(last.url, await _speed(last))

    return open


def _now(url: str, baud: int, last: Port | None) -> Port:
    return (where(last) if last and last.usb else None) or port(url, baud)


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
        self._ports, self._baud = tuple(ports), baud
        self._where: dict[str, str] = {}
        self._speeds: dict[str, int] = {}
        self._search: asyncio.Task[None] | None = None

    def opener(self, id: str) -> Opener:
        """Opens the port where the board with this id (hexadecimal) answers. Raises Dead where none does."""

        async def open() -> Wire:
            if id not in self._where or await self._who(self._where[id]) != id:
                self._where.pop(id, None)
                if self._search is None or self._search.done():
                    self._search = asyncio.create_task(self._look())
                await asyncio.shield(self._search)
            if id not in self._where:
                raise Dead(f"no board with the id {id} answers at {', '.join(self._ports)}. Check its cable and power.")
            return await SerialWire.open(self._where[id], self._speeds[self._where[id]])

        return open

    async def _look(self) -> None:
        """Asks at every port where no board is known to be."""
        unknown = [port for port in self._ports if port not in self._where.values()]
        found = await asyncio.gather(*map(self._who, unknown))
        self._where |= {board: port for board, port in zip(found, unknown, strict=True) if board}

    async def _who(self, url: str) -> str:
        """The id of the board at the port ``url``; empty where none answers."""
        try:
            board, self._speeds[url] = await connect(await asyncio.to_thread(port, url, self._baud), PROBE_SECONDS)
        except LinkError:
            return ""
        await board.close()
        return board.description.id.hex()
