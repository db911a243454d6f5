"""A program over a wire in memory: put, described, run and kept; and what the host does when the far end does not."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

import pytest
from double import Double

from tinyfl.errors import Corrupt, Refused
from tinyfl.link.board import LinkedBoard
from tinyfl.link.wire import MachineWire

Script = Callable[[LinkedBoard], Awaitable[Any]]


def on(machine: Any, script: Script) -> Any:
    """Runs ``script`` on the machine's board."""

    async def connected() -> Any:
        return await script(await LinkedBoard.connect(MachineWire(machine).open))

    return asyncio.run(connected())


@pytest.fixture(scope="module")
def made() -> Callable[..., bytes]:
    import programs

    table = random.Random(3).randbytes(256)
    return lambda count, **more: bytes(programs.program(table, count, **more))


def expected(content: bytes, x: bytes) -> bytes:
    import programs

    return programs.outputs(content, x)


@pytest.mark.parametrize(("count", "after"), [(3, 0), (440, 1), (500, 2), (2000, 3)])
def test_a_board_predicts_what_its_program_says(
    new_board: Callable[[], Any], made: Callable[..., bytes], count: int, after: int
) -> None:
    content, inputs = made(count, after=bytes(after)), [random.Random(i).randbytes(count) for i in range(3)]

    async def script(board: LinkedBoard) -> list[bytes]:
        await board.put_program(content)
        assert (await board.describe()).inference == sha256(content).digest()
        return [await board.predict(x) for x in inputs]

    assert on(new_board(), script) == [expected(content, x) for x in inputs]


def test_a_program_outlives_a_reset_and_is_not_sent_again(
    new_board: Callable[[], Any], made: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, content = new_board(), made(30)
    on(machine, lambda board: board.put_program(content))
    machine.reset()
    bytes_sent = 0
    exchange = machine.exchange

    def counted(data: bytes) -> bytes:
        nonlocal bytes_sent
        bytes_sent += len(data)
        return bytes(exchange(data))

    async def script(board: LinkedBoard) -> bytes:
        assert board.description.inference == sha256(content).digest()
        monkeypatch.setattr(machine, "exchange", counted)
        await board.put_program(content)
        return await board.predict(bytes(30))

    assert on(machine, script) == expected(content, bytes(30))
    assert bytes_sent < 700  # a first block, and an input


def test_a_request_that_comes_twice_does_no_second_thing(new_board: Callable[[], Any], made: Callable[..., bytes]) -> None:
    class Twice:
        """Hands on the second reply, as if the first had been lost."""

        def __init__(self, board: Any) -> None:
            self.board = board

        def exchange(self, data: bytes) -> bytes:
            self.board.exchange(data)
            return bytes(self.board.exchange(data))

    content, x = made(1200), random.Random(1).randbytes(1200)

    async def script(board: LinkedBoard) -> bytes:
        await board.put_program(content)
        return await board.predict(x)

    assert on(Twice(new_board()), script) == expected(content, x)


async def too_short(board: LinkedBoard) -> None:
    await board.predict(bytes(29))


async def too_long(board: LinkedBoard) -> None:
    await board.predict(bytes(31))


@pytest.mark.parametrize(("script", "says"), [(too_short, "29 bytes are not the complete input"), (too_long, "of its range")])
def test_an_input_of_another_length_is_refused(
    new_board: Callable[[], Any], made: Callable[..., bytes], script: Script, says: str
) -> None:
    machine = new_board()
    on(machine, lambda board: board.put_program(made(30)))
    with pytest.raises(Refused, match=says):
        on(machine, script)


def test_what_cannot_be_a_program_there_is_refused(new_board: Callable[[], Any], made: Callable[..., bytes]) -> None:
    machine = new_board()
    with pytest.raises(Refused, match="no program"):
        on(machine, lambda board: board.predict(b"x"))
    with pytest.raises(Refused, match="refuses the plan or the program"):
        on(machine, lambda board: board.put_program(bytes(100)))
    with pytest.raises(Refused, match="too small"):
        on(machine, lambda board: board.put_program(made(4, after=bytes(1 << 16))))


def test_an_output_from_another_place_is_corrupt(made: Callable[..., bytes]) -> None:
    class Skipping(Double):
        def get_prediction(self, off: int) -> dict[str, Any]:
            return super().get_prediction(off + 4)

    async def script(board: LinkedBoard) -> None:
        await board.put_program(made(1000))
        await board.predict(bytes(1000))

    with pytest.raises(Corrupt, match=r"from offset 448, got .* from 452"):
        on(Skipping(), script)


def test_a_board_of_protocol_1_is_refused_for_that() -> None:
    class Older(Double):
        def describe(self) -> dict[str, Any]:
            described = {**super().describe(), "protocol": 1}
            return {key: value for key, value in described.items() if key not in ("store", "inference")}

    with pytest.raises(Refused, match=r"speaks protocol 1 .* Flash it"):
        on(Older(), lambda board: board.describe())
