"""A round of emulated boards on paced lines, in virtual time: its seconds, and the share of each line's time in use.

    python bench/paced.py                          five minutes on an idle machine
    python bench/paced.py --codec int4 --lines one --at-once 2
    python bench/paced.py --lines own --boards 1 --parts

Boards of unicorn with real firmware learn the sine: each on its ``own`` line, or all behind ``one`` that they share, which may
be ``half`` duplex. A line carries frames at the baud rate, one at a time in each direction, or half duplex in both, first come,
first served; the host gets each later by the latency. A board's instructions take a cycle each. One virtual clock counts all
that, so the figures do not depend on the machine. Theta must be the native fleet's, bit for bit. A line is in use while it
carries something in either direction.

``before`` is commit 58d1526's way, one request at a time and all boards at once; ``after`` has windows, and turns on a shared
line.
"""

import argparse
import asyncio
import dataclasses
import time
from collections.abc import Mapping, Sequence
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
from common import provenance

from tinyfl.algorithms import Inner
from tinyfl.building import boards
from tinyfl.building.build import build
from tinyfl.codecs import Codec
from tinyfl.codecs.down import Down
from tinyfl.core import F32, U32
from tinyfl.fleet import Carried, Context
from tinyfl.fleets.linked import LinkFleet
from tinyfl.link import board as link
from tinyfl.link.turns import Turns
from tinyfl.link.wire import EXCHANGE_BITS, FIRST_PATIENCE, Wire
from tinyfl.networks import Network, network
from tinyfl.simulators.native import NativeFleet
from tinyfl.simulators.unicorn import Machine
from tinyfl.tasks.sine import Sine

BOARD, NETWORK, BOARDS = "stm32f405", "mlp-100-100", 16
BAUDS, LATENCIES = (115_200, 1_000_000), (0.0, 0.016)
CODECS, KINDS = ("fp32", "int4"), ("own", "one", "half")
SECONDS = 1000.0
"""A board's time for its part of a round: no bound here."""

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


class PacedLine:
    """Carries bytes at ``baud``, a frame at a time in each direction, or half duplex in both; first come, first served."""

    def __init__(self, baud: int, half: bool = False) -> None:
        self.baud = baud
        self.down = asyncio.Lock()
        self.up = self.down if half else asyncio.Lock()
        self.carried: list[tuple[float, float]] = []

    async def carry(self, frame: bytes, direction: asyncio.Lock) -> tuple[float, float]:
        """Returns when it was on the line, in seconds."""
        clock = asyncio.get_running_loop().time
        async with direction:
            begin = clock()
            await asyncio.sleep(len(frame) * BITS / self.baud)
            self.carried.append((begin, clock()))
        return self.carried[-1]

    def used(self, since: float) -> float:
        """Seconds from ``since`` on in which the line carried something in either direction."""
        total, until = 0.0, since
        for begin, end in sorted(self.carried):
            total += max(end - max(begin, until), 0)
            until = max(end, until)
        return total


class PacedWire:
    """A board on ``line``, whose frames arrive ``latency`` later than there. It answers when the line is free, and works on
    nothing else meanwhile."""

    def __init__(self, machine: Machine, line: PacedLine, latency: float) -> None:
        self.machine, self.line, self.latency, self.rate = machine, line, latency, line.baud
        self.patience = FIRST_PATIENCE + EXCHANGE_BITS / line.baud
        self.served: list[tuple[float, float, float]] = []
        """When each request was on the line, and when the board was done with it."""
        self._requests, self._answers, self._arrived = (asyncio.Queue[bytes]() for _ in range(3))
        self._at_board = asyncio.Queue[tuple[bytes, tuple[float, float]]]()

    async def open(self) -> Wire:
        self._tasks = [asyncio.create_task(part()) for part in (self._down, self._work, self._up)]
        return self

    async def send(self, data: bytes) -> None:
        self._requests.put_nowait(data)

    async def receive(self) -> bytes:
        return await self._arrived.get()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _down(self) -> None:
        while True:
            data = await self._requests.get()
            self._at_board.put_nowait((data, await self.line.carry(data, self.line.down)))

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data, on_line = await self._at_board.get()
            before = self.machine.instructions
            answer = self.machine.exchange(data)
            await asyncio.sleep((self.machine.instructions - before) / self.machine.board.clock)
            self._answers.put_nowait(answer)
            await asyncio.sleep(len(answer) * BITS / self.line.baud)
            self.served.append((*on_line, loop.time()))

    async def _up(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            answer = await self._answers.get()
            await self.line.carry(answer, self.line.up)
            loop.call_later(self.latency, self._arrived.put_nowait, answer)

    def held(self) -> int:
        """Most bytes that arrived while the board was busy with an earlier request."""
        most = 0.0
        for i, (_, _, done) in enumerate(self.served):
            most = max(most, sum(max(min(end, done) - begin, 0) for begin, end, _ in self.served[i + 1 : i + 20]))
        return round(most * self.line.baud / BITS)


@dataclasses.dataclass(frozen=True)
class Way:
    """A board's requests on their way, and boards ``at_once`` on a shared line; 0: all, as if it were not shared."""

    window: int
    at_once: int


@dataclasses.dataclass(frozen=True)
class Round:
    """What goes down to the boards ``everyone``, what they do, and what the native fleet makes of it."""

    net: Network
    everyone: U32
    theta: F32
    context: Context
    inner: Inner
    phi: F32


def round_of(codec: str, net: Network, count: int) -> Round:
    """A round with the same codec both ways."""
    everyone, inner = np.arange(count, dtype=np.uint32), INNER.sent_as(Codec.named(codec))
    theta, encoded = Down(Codec.named(codec), False, net.arrays()).sent(net.initial_weights(1), None)
    phi = NativeFleet(TASK, net, count).run_each(everyone, 1, theta, inner).phi
    return Round(net, everyone, theta, Context(down=encoded), inner, phi)


def played(
    machines: Sequence[Machine], lines: Sequence[PacedLine], latency: float, work: Round, way: Way
) -> tuple[str, Mapping[str, Carried]]:
    """The second round of ``machines``, which all have their plan: seconds and share of the lines' time in use, in cells; and
    what the lines carried, as tinyfl counts it."""
    wires = [PacedWire(machine, line, latency) for machine, line in zip(machines, cycle(lines), strict=False)]
    link.MAX_WINDOW = way.window
    shared = len(lines) == 1 and way.at_once > 0
    with LinkFleet([wire.open for wire in wires], TASK, work.net, seconds=SECONDS, shared=shared) as fleet:
        if shared and way.at_once > 1:
            turns = Turns(len(machines), *(asyncio.Semaphore(way.at_once) for _ in range(2)))  # type: ignore[arg-type]
            for slot in fleet._slots.values():
                slot.turns = turns
        fleet.run_each(work.everyone, 0, work.theta, work.inner, work.context)
        fleet.carried()
        began = fleet._loop.time()
        phis = fleet.run_each(work.everyone, 1, work.theta, work.inner, work.context)
        seconds = fleet._loop.time() - began
        carried = fleet.carried()
    if any(phis.reasons):
        return "boards left out | ", carried
    np.testing.assert_array_equal(phis.phi, work.phi)
    used = max(line.used(began) for line in lines) / seconds
    assert max(wire.held() for wire in wires) < RING
    return f"{seconds:.3f} s | {used:.1%}", carried


def by_part(carried: Mapping[str, Carried]) -> str:
    """Means of a board, as in a run's report."""
    return "".join(
        f"|   {name} | {each.sent / each.times:,.0f} | {each.received / each.times:,.0f} | "
        f"{each.seconds / each.times:.3f} s | {each.at_rate / each.seconds:.0%} |\n"
        for name, each in carried.items()
    )


def main(codecs: Sequence[str], kinds: Sequence[str], count: int, at_once: int, parts: bool) -> None:
    board, net = boards.load(BOARD), network(NETWORK, (1,), 1, TASK.loss, TASK.activation)
    elf = build(board, Path("build/firmware") / f"{BOARD}-zig").elf
    asyncio.set_event_loop_policy(VirtualTime())
    machines = [Machine(elf, board, serial) for serial in range(count)]
    print(f"{count} boards, {BOARD}, {net.name}: {net.parameters:,} weights")
    for codec, kind in product(codecs, kinds):
        work = round_of(codec, net, count)
        for baud, latency in product(BAUDS, LATENCIES):
            cells = []
            for way in (Way(1, 0), Way(4, at_once)):
                lines = [PacedLine(baud, kind == "half") for _ in range(count if kind == "own" else 1)]
                cell, carried = played(machines, lines, latency, work, way)
                cells.append(cell)
            print(f"| {codec} | {kind} | {baud:,} baud, {1e3 * latency:g} ms | {' | '.join(cells)} |", flush=True)
            if parts:
                print(by_part(carried), end="", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", action="append", help="both ways (default: fp32 and int4)")
    parser.add_argument("--lines", action="append", choices=KINDS, help="default: all")
    parser.add_argument("--boards", type=int, default=BOARDS)
    parser.add_argument("--at-once", type=int, default=1, help="boards whose turn it is on a shared line, after (default: 1)")
    parser.add_argument("--parts", action="store_true", help="also bytes and seconds after, by part of the round")
    chosen, began = parser.parse_args(), time.monotonic()
    main(chosen.codec or CODECS, chosen.lines or KINDS, chosen.boards, chosen.at_once, chosen.parts)
    print(f"{provenance()}; {time.monotonic() - began:.0f} s in all")
