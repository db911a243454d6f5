"""Transfers with several requests on their way: what is lost costs a repetition, and the data arrive whole."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from double import Double
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyfl.errors import Corrupt
from tinyfl.link.board import LinkedBoard
from tinyfl.link.wire import MachineWire, Opener, Wire
from tinyfl.networks import network
from tinyfl.simulators.faults import DIRECTIONS, Fault, faulty
from tinyfl.tasks.sine import Sine

TASK = Sine(5)
NETWORK = network("mlp-24-24", (1,), 1, TASK.loss, TASK.activation)  # 673 weights: six blocks of 512 bytes
THETA, OTHER = NETWORK.initial_weights(1), NETWORK.initial_weights(2)


class Recorded:
    """A wire that records what it carries: "s" for a frame sent, "r" for bytes received."""

    def __init__(self, wire: Wire, record: list[str]) -> None:
        self.wire, self.record, self.patience = wire, record, wire.patience

    async def send(self, data: bytes) -> None:
        self.record.append("s")
        await self.wire.send(data)

    async def receive(self) -> bytes:
        data = await self.wire.receive()
        self.record.append("r" * data.count(0))
        return data

    async def close(self) -> None:
        await self.wire.close()


def on(opener: Opener, script: Callable[[LinkedBoard], Awaitable[Any]]) -> Any:
    async def connected() -> Any:
        return await script(await LinkedBoard.connect(opener, within=60))  # a busy machine may stop for seconds

    return asyncio.run(connected())


async def there_and_back(board: LinkedBoard) -> None:
    await board.put_plan(NETWORK.plan.bytes)
    for theta in (THETA, OTHER):
        await board.put_weights(theta)
        np.testing.assert_array_equal(await board.weights(count=theta.size), theta)


def board_of(window: int) -> Double:
    board = Double()
    board.window = window
    return board


@pytest.mark.parametrize(("window", "before"), [(0, 1), (1, 1), (4, 4), (1 << 31, 6)])
def test_as_many_requests_as_the_board_allows_are_sent_before_the_first_reply(window: int, before: int) -> None:
    record: list[str] = []

    async def opener() -> Wire:
        return Recorded(await MachineWire(board_of(window)).open(), record)

    async def script(board: LinkedBoard) -> None:
        await board.put_plan(NETWORK.plan.bytes)
        record.clear()
        await board.put_weights(THETA)
        assert "".join(record).startswith("s" * before + "r")
        status = await board.status()
        record.clear()
        await board.weights(status, count=THETA.size)
        assert "".join(record).startswith("s" * before + "r")

    on(opener, script)


@settings(max_examples=60, deadline=None)
@given(
    faults=st.lists(
        st.builds(
            Fault,
            st.sampled_from(DIRECTIONS),
            st.integers(0, 40),
            st.sampled_from(["drop", "duplicate", "flip", "truncate", "delay"]),
            st.integers(0, 4000),
        ),
        max_size=6,
        unique_by=lambda fault: (fault.direction, fault.frame),
    ),
    window=st.integers(1, 9),
)
def test_no_fault_changes_what_arrives(faults: list[Fault], window: int) -> None:
    on(faulty(MachineWire(board_of(window)).open, faults), there_and_back)


def test_after_a_lost_first_block_no_later_one_counts_for_it() -> None:
    """The board still has all of the former transfer, and says so to each block that does not begin one."""
    board = Double()

    async def script(linked: LinkedBoard) -> None:
        await linked.put_plan(NETWORK.plan.bytes)
        await linked.put_weights(THETA)

    on(MachineWire(board).open, script)

    async def again(linked: LinkedBoard) -> None:
        await linked.put_weights(OTHER)
        np.testing.assert_array_equal(await linked.weights(), OTHER)

    on(faulty(MachineWire(board).open, [Fault("to-board", 1, "drop")]), again)


def test_a_board_of_another_size_than_expected_is_read_to_its_own_end() -> None:
    async def script(board: LinkedBoard) -> None:
        await board.put_plan(NETWORK.plan.bytes)
        await board.put_weights(THETA)
        for count in (1, 300, 5000):
            np.testing.assert_array_equal(await board.weights(count=count), THETA)

    on(MachineWire(Double()).open, script)


def test_a_board_that_makes_no_progress_is_corrupt() -> None:
    class Stuck(Double):
        def put_weights(self, off: int, data: bytes, **announced: Any) -> dict[str, Any]:
            return {"off": 0}

    async def script(board: LinkedBoard) -> None:
        await board.put_plan(NETWORK.plan.bytes)
        await board.put_weights(THETA)

    with pytest.raises(Corrupt, match="the board continues at 0"):
        on(MachineWire(Stuck()).open, script)
