"""Baud rates raised after connecting: real firmware, whose UART hears another rate as a UART does; and a real port, a pty."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probe import need
from rated import FIRST, Line, uart

from tinyfl.building import boards
from tinyfl.link.board import LinkedBoard
from tinyfl.link.wire import MachineWire, SerialWire, TunedWire, Wire
from tinyfl.networks import network
from tinyfl.tasks.sine import Sine

BOARD = "mps2-an386"
HIGHEST = 921_600
TASK = Sine(1)
NETWORK = network("mlp-24-24", (1,), 1, TASK.loss, TASK.activation)
THETA = NETWORK.initial_weights(1)


@pytest.fixture
def machine(firmware: Callable[[str], Path]) -> Any:
    need("unicorn")
    from tinyfl.simulators.unicorn import Machine

    return Machine(firmware(BOARD), boards.load(BOARD), 1)


def on(line: Line, script: Callable[[LinkedBoard], Awaitable[Any]] | None = None) -> None:
    async def connected() -> None:
        board = await LinkedBoard.connect(line.open)
        if script:
            await script(board)
        await board.close()

    asyncio.run(connected())


async def there_and_back(board: LinkedBoard) -> None:
    await board.put_plan(NETWORK.plan.bytes)
    await board.put_weights(THETA)
    np.testing.assert_array_equal(await board.weights(), THETA)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({}, HIGHEST), ({"most": 500_000}, 460_800), ({"good": 300_000}, 230_400), ({"good": 200_000}, FIRST)],
    ids=["all", "adapter", "cable", "nothing"],
)
def test_the_highest_rate_is_taken_that_board_adapter_and_cable_can_do(machine: Any, limits: Any, expected: int) -> None:
    line = Line(machine, **limits)

    async def script(board: LinkedBoard) -> None:
        assert (line.baud, uart(machine)) == (expected, expected)
        await there_and_back(board)

    on(line, script)
    assert (line.baud, uart(machine)) == (FIRST, FIRST)  # as the next program expects it


def test_a_board_that_a_killed_host_left_at_another_rate_is_found_again(machine: Any) -> None:
    async def killed() -> None:
        await LinkedBoard.connect(Line(machine).open)

    asyncio.run(killed())
    assert uart(machine) == HIGHEST
    machine.tune(0)

    async def by_another() -> None:
        await there_and_back(await LinkedBoard.connect(MachineWire(machine).open))

    asyncio.run(by_another())
    assert uart(machine) == FIRST


def test_a_board_that_restarted_is_found_again_at_its_first_rate(machine: Any) -> None:
    line = Line(machine)

    async def script(board: LinkedBoard) -> None:
        machine.reset()
        await there_and_back(board)
        assert (line.baud, uart(machine)) == (FIRST, FIRST)

    on(line, script)


def test_a_cable_that_gets_worse_returns_the_link_to_its_first_rate(machine: Any) -> None:
    line = Line(machine)

    async def script(board: LinkedBoard) -> None:
        await there_and_back(board)
        assert line.baud == HIGHEST
        line.good = FIRST
        await there_and_back(board)
        assert (line.baud, uart(machine)) == (FIRST, FIRST)

    on(line, script)


def test_a_pty_takes_the_rate_that_its_client_sets(machine: Any) -> None:
    from tinyfl.simulators.bridge import Bridge

    async def script(url: str) -> None:
        wire = await TunedWire.open(url)

        async def opener() -> Wire:
            return wire

        board = await LinkedBoard.connect(opener)
        assert isinstance(wire, TunedWire) and wire.baud == uart(machine) == HIGHEST
        await there_and_back(board)
        await wire.close()  # without a word to the board
        plain = await LinkedBoard.connect(lambda: SerialWire.open(url))
        assert uart(machine) == FIRST
        await plain.close()

    def faulted(fault: Exception) -> None:
        raise fault

    with Bridge(machine, "pty", faulted) as bridge:
        asyncio.run(script(bridge.url))
