"""A round of emulated boards on paced lines, in virtual time: its seconds, and the share of each line's time in use.

    python bench/paced.py                   a minute
    python bench/paced.py --window 1        as for boards that declare no window

Boards of unicorn with real firmware learn the sine, each on a line of its own that carries bytes at the baud rate in both
directions at once, and delivers what a board sends later by the latency. A board's instructions take a cycle each. One virtual
clock counts all that, so the figures do not depend on the machine. Theta must be the native fleet's, bit for bit. A line is in
use while it carries something in either direction.
"""

import argparse
import asyncio
import dataclasses
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import provenance

from tinyfl.algorithms import Inner
from tinyfl.building import boards
from tinyfl.building.build import build
from tinyfl.core import F32
from tinyfl.fleets.linked import LinkFleet
from tinyfl.link.board import LinkedBoard
from tinyfl.link.wire import EXCHANGE_BITS, FIRST_PATIENCE, Wire
from tinyfl.networks import network
from tinyfl.simulators.native import NativeFleet
from tinyfl.simulators.unicorn import Machine
from tinyfl.tasks.sine import Sine

BOARD, NETWORK, BOARDS = "stm32f405", "mlp-100-100", 16
BAUDS, LATENCIES = (115_200, 1_000_000), (0.0, 0.016)
BITS = 10
"""Bits of a byte on the line: start, eight, stop."""
RING = 512
"""Bytes that a board holds while it works (firmware/ports/cortex_m/receive.c)."""
TASK = Sine(7)
INNER = Inner(samples=32, rate=0.01)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that sets its clock to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self._now, select = 0.0, self._selector.select

        def skip(timeout: float | None) -> Any:
            events = select(None if timeout is None else 0)
            if timeout and not events:
                self._now += timeout
            return events

        self._selector.select = skip

    def time(self) -> float:
        return self._now


class VirtualTime(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> VirtualLoop:
        return VirtualLoop()


@dataclasses.dataclass(frozen=True)
class Exchange:
    """When a request was on the line, when the board worked on it, and when its answer was on the line, in seconds."""

    request: tuple[float, float]
    work: tuple[float, float]
    answer: tuple[float, float]


class PacedWire:
    """The line of one board."""

    def __init__(self, machine: Machine, baud: int, latency: float) -> None:
        self.machine, self.second, self.latency = machine, BITS / baud, latency
        self.patience = FIRST_PATIENCE + EXCHANGE_BITS / baud
        self.exchanges = [Exchange((0, 0), (0, 0), (0, 0))]
        self._arriving: deque[tuple[float, bytes]] = deque()
        self._arrived = asyncio.Event()

    async def open(self) -> Wire:
        return self

    async def send(self, data: bytes) -> None:
        last, before = self.exchanges[-1], self.machine.instructions
        begin = max(asyncio.get_running_loop().time(), last.request[1])
        end = begin + len(data) * self.second
        answer = self.machine.exchange(data)
        start = max(end, last.answer[1])
        done = start + (self.machine.instructions - before) / self.machine.board.clock
        sent = done + len(answer) * self.second
        self.exchanges.append(Exchange((begin, end), (start, done), (done, sent)))
        if answer:
            self._arriving.append((sent + self.latency, answer))
            self._arrived.set()

    async def receive(self) -> bytes:
        while not self._arriving:
            self._arrived.clear()
            await self._arrived.wait()
        await asyncio.sleep(self._arriving[0][0] - asyncio.get_running_loop().time())
        return self._arriving.popleft()[1]

    async def close(self) -> None:
        pass

    def used(self, since: float) -> float:
        """Seconds from ``since`` on in which the line carried something in either direction."""
        carried = sorted(part for each in self.exchanges for part in (each.request, each.answer) if part[0] >= since)
        total, until = 0.0, since
        for begin, end in carried:
            total += max(end - max(begin, until), 0)
            until = max(end, until)
        return total

    def held(self) -> int:
        """Most bytes that arrived while the board worked on an earlier request, or sent its answer."""
        most = 0.0
        for i, each in enumerate(self.exchanges):
            busy = each.answer[1]
            later = (other.request for other in self.exchanges[i + 1 : i + 20])
            most = max(most, sum(max(min(end, busy) - begin, 0) for begin, end in later))
        return round(most / self.second)


@dataclasses.dataclass(frozen=True)
class Figures:
    """Seconds of a round, share of the lines' time in use, and most bytes that a board had to hold."""

    seconds: float
    share: float
    held: int


def played(machines: Sequence[Machine], baud: int, latency: float, theta: F32, expected: F32) -> Figures:
    """The second round of ``machines``, which all have their plan."""
    net = network(NETWORK, (1,), 1, TASK.loss, TASK.activation)
    wires = [PacedWire(machine, baud, latency) for machine in machines]
    everyone = np.arange(len(machines), dtype=np.uint32)
    with LinkFleet([wire.open for wire in wires], TASK, net) as fleet:
        fleet.run_each(everyone, 0, theta, INNER)
        began = fleet._loop.time()
        phis = fleet.run_each(everyone, 1, theta, INNER)
        seconds = fleet._loop.time() - began
    assert phis.reasons == ("",) * len(machines), phis.reasons
    np.testing.assert_array_equal(phis.phi, expected)
    return Figures(seconds, max(wire.used(began) for wire in wires) / seconds, max(wire.held() for wire in wires))


def main(window: int, count: int) -> None:
    board, net = boards.load(BOARD), network(NETWORK, (1,), 1, TASK.loss, TASK.activation)
    elf = build(board, Path("build/firmware") / f"{BOARD}-zig").elf
    theta = net.initial_weights(1)
    everyone = np.arange(count, dtype=np.uint32)
    expected = NativeFleet(TASK, net, count).run_each(everyone, 1, theta, INNER).phi
    asyncio.set_event_loop_policy(VirtualTime())
    if window:
        LinkedBoard._window = window  # type: ignore[assignment,method-assign]
    machines = [Machine(elf, board, serial) for serial in range(count)]
    print(f"{count} boards, {BOARD}, {net.name}: {net.parameters:,} weights")
    for baud in BAUDS:
        for latency in LATENCIES:
            seen = played(machines, baud, latency, theta, expected)
            print(
                f"{baud:>9,} baud, {1e3 * latency:2g} ms: {seen.seconds:6.3f} s a round, {seen.share:5.1%} of the line's time "
                f"in use, at most {seen.held} bytes of {RING} held"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--window", type=int, default=0, help="requests on their way (default: the board's)")
    parser.add_argument("--boards", type=int, default=BOARDS)
    chosen, began = parser.parse_args(), time.monotonic()
    main(chosen.window, chosen.boards)
    print(f"{provenance()}; {time.monotonic() - began:.0f} s in all")
