"""The link to a board: a megabyte in each direction, and the share of the line rate used.

    python bench/link.py        in unicorn and, if installed, QEMU, over a pty: a minute

Echo: texts as long as the board's buffer allows. Weights: written and read repeatedly, 67,588 bytes each time. Every answer is
compared, and a lost request is not repeated but ends the bench. The share is that of the payload among all bytes on the line in
both directions. Echoes go one at a time, so their bytes give the rates on a real line, which is idle for the latency of each
exchange; for weights, which go in windows, see paced.py.
"""

import argparse
import asyncio
import random
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import provenance

from tinyfl.building import boards
from tinyfl.building.build import build
from tinyfl.link.board import LinkedBoard, floats
from tinyfl.link.wire import SerialWire, Wire
from tinyfl.networks import network
from tinyfl.simulators import BoardFault
from tinyfl.simulators.bridge import Bridge
from tinyfl.simulators.unicorn import Machine
from tinyfl.tasks.sine import Sine

BOARD, NETWORK = "mps2-an386", "mlp-128-128"
PAYLOAD = 1_000_000
BAUDS = (115_200, 1_000_000)
BITS = 10
"""Bits of a byte on the line: start, eight, stop."""
TURNAROUNDS = (0.0, 0.001, 0.016)
"""Latency of an exchange, in seconds: none; a frame of full-speed USB; the default latency timer of FTDI's adapters."""


class Counted:
    """A wire that counts bytes, with a patience that excludes repeated requests."""

    patience = 60.0

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.exchanges = self.sent = self.received = 0

    async def send(self, data: bytes) -> None:
        self.exchanges += 1
        self.sent += len(data)
        await self.wire.send(data)

    async def receive(self) -> bytes:
        data = await self.wire.receive()
        self.received += len(data)
        return data

    async def close(self) -> None:
        await self.wire.close()


@dataclass(frozen=True)
class Traffic:
    """Bytes on the line, and seconds."""

    payload: int
    exchanges: int
    sent: int
    received: int
    seconds: float

    @property
    def share(self) -> float:
        return self.payload / (self.sent + self.received)

    def of_the_line(self, baud: int, turnaround: float) -> float:
        """The payload's share of the line rate."""
        line = (self.sent + self.received) * BITS / baud
        return self.payload * BITS / baud / (line + self.exchanges * turnaround)


async def echo(board: LinkedBoard) -> int:
    """Bytes of payload, in both directions."""
    draw, longest = random.Random(1), board.description.buffer - 24
    done = 0
    while done < PAYLOAD:
        text = "".join(map(chr, draw.choices(range(1, 0x7F), k=longest)))
        assert await board.echo(text) == text
        done += longest
    return 2 * done


async def weights(board: LinkedBoard) -> int:
    """The same."""
    task, done = Sine(1), 0
    net = network(NETWORK, (1,), 1, task.loss, task.activation)
    await board.put_plan(net.plan.bytes)
    while done < PAYLOAD:
        theta = net.initial_weights(done)
        await board.put_weights(theta)
        np.testing.assert_array_equal(await board.weights(), theta)
        done += len(floats(theta))
    return 2 * done


async def measured(url: str, traffic: Callable[[LinkedBoard], Awaitable[int]]) -> Traffic:
    """Runs ``traffic`` with the board at ``url``."""
    wire = Counted(await SerialWire.open(url))

    async def opener() -> Wire:
        return wire

    board = await LinkedBoard.connect(opener, wire.patience)
    wire.exchanges = wire.sent = wire.received = 0
    began = time.perf_counter()
    payload = await traffic(board)
    seconds = time.perf_counter() - began
    await board.close()
    return Traffic(payload, wire.exchanges, wire.sent, wire.received, seconds)


@contextmanager
def served(engine: str) -> Iterator[tuple[str, Callable[[], int]]]:
    """An emulated board on a pty: its url, and its executed instructions (0: not counted)."""
    board = boards.load(BOARD)
    elf = build(board, Path("build/firmware") / f"{BOARD}-zig").elf
    if engine == "unicorn":
        machine = Machine(elf, board, 1)
        with Bridge(machine, "pty", ended) as bridge:
            yield bridge.url, lambda: machine.instructions
    else:
        from tinyfl.simulators.qemu import QemuBoard

        with QemuBoard(elf, board, 1, "pty") as emulator:
            yield emulator.url, lambda: 0


def ended(fault: BoardFault) -> None:
    raise fault


def main() -> None:
    for engine in ("unicorn", *(["qemu"] if shutil.which("qemu-system-arm") else [])):
        for traffic in (echo, weights):
            with served(engine) as (url, instructions):
                before = instructions()
                seen = asyncio.run(measured(url, traffic))
                work = instructions() - before
            print(
                f"{traffic.__name__} in {engine}: {seen.payload:,} bytes of payload in {seen.exchanges:,} exchanges; on the "
                f"line {seen.sent:,} out and {seen.received:,} in, {seen.share:.1%} of them payload; {seen.seconds:.1f} s, "
                f"{seen.payload / seen.seconds / 1000:,.0f} KB/s, {1e3 * seen.seconds / seen.exchanges:.2f} ms an exchange"
                + (f" of {work / seen.exchanges:,.0f} instructions" if work else "")
            )
            if engine == "unicorn" and traffic is echo:
                for baud in BAUDS:
                    shares = (f"{seen.of_the_line(baud, each):.1%} with {1e3 * each:g} ms" for each in TURNAROUNDS)
                    print(f"    at {baud:,} baud, of the line rate: {', '.join(shares)} an exchange")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    began = time.monotonic()
    main()
    print(f"{provenance()}; {time.monotonic() - began:.0f} s in all")
