"""A board that does not fall silent, or answers what it was not asked: it costs its deadline, and no memory."""

import asyncio
from binascii import crc_hqx
from collections.abc import Callable, Iterator
from itertools import cycle, repeat

import numpy as np
import pytest
from double import Double, cobs, uncobs

from tinyfl.errors import Corrupt, Dead
from tinyfl.link import wire
from tinyfl.link.board import LinkedBoard
from tinyfl.link.wire import MachineWire
from tinyfl.networks import Activation, Loss, network

NETWORK = network("mlp-9", (1,), 1, Loss.mean_squared_error, Activation.tanh)


def framed(message: bytes) -> bytes:
    return cobs(message + crc_hqx(message, 0).to_bytes(2)) + b"\0"


def header(request: bytes, operation: int = 1, group: int = 65, sequence: int = 0, command: int = 0, length: int = 1) -> bytes:
    """An empty map in answer to ``request``, but for what is told otherwise; ``sequence`` is added to the request's."""
    said = bytes([8 | operation, 0]) + length.to_bytes(2) + group.to_bytes(2)
    return said + bytes([(request[6] + sequence) % 256, command]) + b"\xa0"


FLOODS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "no end": lambda request: repeat(b"\x55" * wire.MAX_READ),
    "empty frames": lambda request: repeat(bytes(wire.MAX_READ)),
    "frames that are none": lambda request: repeat(b"\x05abc\0" * 800),
    "other sequences": lambda request: cycle(framed(header(request, sequence=n)) for n in range(1, 256)),
    "other operations": lambda request: cycle([framed(header(request, operation=n)) for n in (0, 2, 3, 4, 7)]),
    "other groups": lambda request: cycle([framed(header(request, group=n)) for n in (0, 1, 64, 66, 0xFFFF)]),
    "other commands": lambda request: cycle([framed(header(request, command=n)) for n in range(1, 256)]),
    "other lengths": lambda request: cycle([framed(header(request, length=n)) for n in (0, 2, 0xFFFF)]),
    "the question": lambda request: repeat(framed(request)),
    "half a header": lambda request: repeat(framed(header(request)[:5])),
}


class Flood:
    """A wire that brings without end what its flood makes of the first request."""

    patience = 0.02

    def __init__(self, flood: Callable[[bytes], Iterator[bytes]]) -> None:
        self._flood = flood
        self._coming: Iterator[bytes] | None = None
        self.closed = False

    async def send(self, data: bytes) -> None:
        if self._coming is None:
            request = uncobs(data.strip(b"\0"))
            assert request is not None
            self._coming = self._flood(request[:-2])

    async def receive(self) -> bytes:
        assert self._coming is not None
        await asyncio.sleep(0)
        return next(self._coming)

    async def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_flood_costs_the_deadline_and_no_memory_and_nobody_beside_it(flood: Callable[[bytes], Iterator[bytes]]) -> None:
    flooding = Flood(flood)

    async def opened() -> Flood:
        return flooding

    async def script() -> LinkedBoard:
        honest = LinkedBoard.connect(MachineWire(Double(b"A")).open)
        dead, board = await asyncio.gather(LinkedBoard.connect(opened, 0.2), honest, return_exceptions=True)
        assert isinstance(dead, Dead)
        assert isinstance(board, LinkedBoard)
        return board

    assert asyncio.run(script()).description.id == b"A"
    assert flooding.closed


def test_what_a_stream_without_an_end_leaves_in_memory_is_bounded() -> None:
    async def script() -> int:
        transport = wire.WireTransport(Flood(FLOODS["no end"]))
        await transport.send(header(b"\0" * 8))
        most = 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                while True:
                    transport._framing.feed(await transport._wire.receive())
                    assert transport._framing.take() is None
                    most = max(most, len(transport._framing._buffer))
        return most

    assert wire.MAX_READ <= asyncio.run(script()) <= 1 << 16


def test_answers_of_an_earlier_question_are_not_those_of_a_later_one() -> None:
    """A board that gives every answer again, one question later, and first."""

    class Echoing(Double):
        last = b""

        def exchange(self, data: bytes) -> bytes:
            before, self.last = self.last, super().exchange(data)
            return before + self.last

    async def script() -> int:
        board = await LinkedBoard.connect(MachineWire(Echoing(b"A")).open)
        return sum([(await board.describe()).id == b"A" and (await board.status()).state == 0 for _ in range(5)])

    assert asyncio.run(script()) == 5


def test_a_new_coordinator_does_not_ask_under_the_numbers_of_the_one_before() -> None:
    async def first() -> int:
        return (await LinkedBoard.connect(MachineWire(Double()).open)).next()

    async def script() -> set[int]:
        return {await first() for _ in range(20)}

    assert len(asyncio.run(script())) > 1


def test_an_answer_longer_than_the_boards_buffer_is_none() -> None:
    class Long(Double):
        def get_weights(self, off: int) -> dict[str, object]:
            self.buffer = 2048
            return {"off": off, "len": 1000, "data": bytes(1000)}

    async def script() -> None:
        board = await LinkedBoard.connect(MachineWire(Long()).open)
        await board.put_plan(NETWORK.plan.bytes)
        await board.put_weights(NETWORK.initial_weights(0))
        await board.weights()

    with pytest.raises(Corrupt, match=r"an answer has 1,0\d\d bytes, but the board's buffer only 512"):
        asyncio.run(script())


def test_floats_that_are_none_are_corrupt() -> None:
    class Odd(Double):
        def infer(self, off: int, data: bytes) -> dict[str, object]:
            return {"off": off + len(data), "data": b"12345"}

    async def script() -> None:
        board = await LinkedBoard.connect(MachineWire(Odd()).open)
        await board.infer(np.zeros(1, np.float32))

    with pytest.raises(Corrupt, match="5 bytes arrived, not a multiple of 4"):
        asyncio.run(script())
