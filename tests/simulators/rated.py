"""The line of an emulated board whose host has a baud rate too."""

from typing import Any

from tinyfl.errors import NoLink
from tinyfl.link.wire import MachineWire, Wire

FIRST = 115_200


class Line(MachineWire):
    """The wire of a machine whose host has an adapter for rates up to ``most``, and a cable for those up to ``good``."""

    first = FIRST

    def __init__(self, machine: Any, most: int = 4_000_000, good: int = 4_000_000) -> None:
        super().__init__(machine)
        self.machine, self.most, self.good, self.baud = machine, most, good, FIRST

    async def tune(self, baud: int) -> None:
        if baud > self.most:
            raise NoLink("this adapter cannot")
        self.baud = baud
        self.machine.tune(baud)

    async def send(self, data: bytes) -> None:
        await super().send(data if self.baud <= self.good else data[: len(data) // 2] + data[len(data) // 2 + 3 :])

    async def open(self) -> Wire:
        await self.tune(FIRST)
        return await super().open()


def uart(machine: Any) -> int:
    """The rate of the board's UART, to the nearest in the manifest."""
    link = machine.board.links[0]
    return min((link.baud, *link.rates), key=lambda rate: abs(rate - machine._state.uart_baud))
