"""Boards on ports whose names mean nothing: each is found by its unique id, wherever it hangs now."""

import asyncio
from collections.abc import Sequence

from tinyfl.errors import LinkError
from tinyfl.link.board import LinkedBoard
from tinyfl.link.errors import Dead
from tinyfl.link.wire import Opener, SerialWire, Wire

PROBE_SECONDS = 1.0
"""What a board may take to say who it is, while others are looked for."""


class Rack:
    """The boards at ``ports``. A port serves one at a time, so all who look for a board share one search over all ports."""

    def __init__(self, ports: Sequence[str]) -> None:
        self._ports = tuple(ports)
        self._where: dict[str, str] = {}
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
            return await SerialWire.open(self._where[id])

        return open

    async def _look(self) -> None:
        """Asks at every port where no board is known to be."""
        unknown = [port for port in self._ports if port not in self._where.values()]
        found = await asyncio.gather(*map(self._who, unknown))
        self._where |= {board: port for board, port in zip(found, unknown, strict=True) if board}

    async def _who(self, port: str) -> str:
        """The id of the board at ``port``; empty where none answers."""
        try:
            board = await LinkedBoard.connect(lambda: SerialWire.open(port), PROBE_SECONDS)
        except LinkError:
            return ""
        await board.close()
        return board.description.id.hex()
