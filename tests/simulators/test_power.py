"""Power loss while a model is committed: at every slot write, on the emulated board, with the port's own flash driver."""

import asyncio
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probe import need

from tinyfl.building import boards
from tinyfl.errors import Dead
from tinyfl.link.board import LinkedBoard, floats
from tinyfl.link.status import BoardState
from tinyfl.link.wire import MachineWire
from tinyfl.networks import Activation, Loss, network

NET = network("mlp-5", (1,), 1, Loss.mean_squared_error, Activation.relu)
OLD, NEW, NEXT = (NET.initial_weights(seed) for seed in (1, 2, 3))


def talk(machine: Any, work: Callable[[LinkedBoard], Any]) -> Any:
    async def whole() -> Any:
        board = await LinkedBoard.connect(MachineWire(machine).open)
        return await work(board)

    return asyncio.run(whole())


async def commit(board: LinkedBoard, theta: Any) -> int:
    await board.put_plan(NET.plan.bytes)
    await board.put_weights(theta)
    return await board.commit(sha256(floats(theta)).digest())


@pytest.mark.parametrize(
    ("name", "step"), [("stm32f405", 1), ("stm32f746-discovery", 1), ("microbit-v2", 1), ("mps2-an386", 4093)]
)
def test_a_cut_at_every_slot_write_leaves_the_old_model_or_the_new(
    firmware: Callable[[str], Path], name: str, step: int
) -> None:
    """Where the flash controller is emulated register by register, a sector's or a page's erase is one event, and every
    event is cut. On MPS2 slots are SRAM and erased word by word: every ``step``-th of these is cut, and all after them."""
    need("unicorn")
    from tinyfl.simulators.unicorn import Machine

    machine = Machine(firmware(name), boards.load(name), 1)
    talk(machine, lambda board: commit(board, NEXT))
    assert talk(machine, lambda board: commit(board, OLD)) == 1
    before, start = machine.snapshot(), machine.slot_events
    assert talk(machine, lambda board: commit(board, NEW)) == 0
    events = machine.slot_events - start
    written = (48 + len(NET.plan.bytes) + len(floats(NEW))) // 4
    assert events >= written + 1

    outcomes = {}
    for cut in sorted({*range(0, events, step), *range(max(events - written - 2, 0), events + 1)}):
        machine.restore(before)
        machine.cut_power_after(cut)
        if cut < events:
            with pytest.raises(Dead):
                talk(machine, lambda board: commit(board, NEW))
        else:
            talk(machine, lambda board: commit(board, NEW))
        machine.power_cycle()
        status, theta = talk(machine, whole_model)
        assert status.state == BoardState.ready
        assert any(np.array_equal(theta, model) for model in (OLD, NEW))
        outcomes[cut] = np.array_equal(theta, NEW)
        assert talk(machine, lambda board: commit(board, NEXT)) == (1 if outcomes[cut] else 0)
    assert [cut for cut, new in outcomes.items() if new] == [events]
    assert len(outcomes) > written


async def whole_model(board: LinkedBoard) -> Any:
    status = await board.status()
    return status, await board.weights(status)


def program(table: bytes) -> bytes:
    """A small program: 4 values through a table (firmware/SPEC.md, program)."""
    from tinyfl.int8.program import Grid, Op, Operand, OpKind, TensorInfo, pack

    line = Grid((1, 1, 1, 4), (0, 0, 0, 1), (0, 0, 0, 1))
    info, x, y = TensorInfo((4,), "int8", 1.0, 0), Operand(0), Operand(1)
    return pack([Op(OpKind.table, line, x, y)], table, 8, [(info, x), (info, y)], lambda buffer: 4 * buffer)


FIRST, SECOND = (program(bytes((7 * i + seed) % 256 for i in range(256))) for seed in (1, 2))


async def described_and_predicted(board: LinkedBoard) -> Any:
    hash = board.description.inference
    status, theta = await whole_model(board)
    return status.state, np.array_equal(theta, OLD), hash, await board.predict(b"\0\1\x80\xff") if hash else b""


@pytest.mark.parametrize(
    ("name", "step"), [("stm32f405", 1), ("stm32f746-discovery", 1), ("microbit-v2", 1), ("mps2-an386", 32749)]
)
def test_a_cut_at_every_write_of_a_program_leaves_a_whole_one_or_none_and_the_model_as_it_was(
    firmware: Callable[[str], Path], name: str, step: int
) -> None:
    need("unicorn")
    from tinyfl.simulators.unicorn import Machine

    machine = Machine(firmware(name), boards.load(name), 1)
    talk(machine, lambda board: commit(board, OLD))
    talk(machine, lambda board: board.put_program(FIRST))
    machine.power_cycle()
    first = talk(machine, described_and_predicted)
    assert first[:3] == (BoardState.ready, True, sha256(FIRST).digest())
    before, start = machine.snapshot(), machine.slot_events
    talk(machine, lambda board: board.put_program(FIRST))
    assert machine.slot_events == start  # it is there
    talk(machine, lambda board: board.put_program(SECOND))
    events, written = machine.slot_events - start, (40 + len(SECOND)) // 4
    machine.power_cycle()
    second = talk(machine, described_and_predicted)
    assert second[3] != first[3]

    for cut in sorted({*range(0, events, step), *range(max(events - written - 2, 0), events + 1)}):
        machine.restore(before)
        machine.cut_power_after(cut)
        if cut < events:
            with pytest.raises(Dead):
                talk(machine, lambda board: board.put_program(SECOND))
        else:
            talk(machine, lambda board: board.put_program(SECOND))
        machine.power_cycle()
        found = talk(machine, described_and_predicted)
        assert found == (second if cut == events else (BoardState.ready, True, b"", b""))
