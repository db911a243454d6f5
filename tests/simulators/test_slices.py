"""An emulated board gives way while it works, so that it can be left, asked and stopped like one on a cable."""

import asyncio
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from probe import Probe, need

from tinyfl.algorithms import Inner
from tinyfl.building import boards
from tinyfl.errors import Dead, Late, LinkError
from tinyfl.fleets.linked import LinkFleet
from tinyfl.link.board import ABORTED, WORK_SECONDS, LinkedBoard, Round, floats
from tinyfl.link.messages.rounds import PlanWrite, WeightsWrite
from tinyfl.link.status import BoardState
from tinyfl.link.wire import MachineWire, SerialWire
from tinyfl.networks import network
from tinyfl.tasks.sine import Sine

TASK = Sine(3)
NET = network("mlp-9-8", (1,), 1, TASK.loss, TASK.activation)
THETA = NET.initial_weights(3)
ENDLESS = (1 << 32) - 1
"""Samples."""


def machine(elf: Path, board: str) -> Any:
    need("unicorn")
    from tinyfl.simulators.unicorn import Machine

    return Machine(elf, boards.load(board), 1)


def asked(samples: int) -> Round:
    return Round(0, 0, 3, Inner(samples=samples, rate=0.01).to_bytes(), sha256(floats(THETA)).digest(), "sine")


async def taught(board: LinkedBoard, samples: int, within: float = 60.0) -> Any:
    await board.put(PlanWrite, NET.plan.bytes, WORK_SECONDS, WORK_SECONDS)  # in slices an answer takes long
    await board.put(WeightsWrite, floats(THETA), WORK_SECONDS, WORK_SECONDS)
    return await board.train(asked(samples), within)


@pytest.mark.parametrize("board", ["mps2-an386", "pico"])
def test_where_slices_end_changes_nothing(firmware: Callable[[str], Path], board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lived(slice: int) -> tuple[Any, ...]:
        """All that is left of a board's round and commit."""
        monkeypatch.setattr("tinyfl.simulators.unicorn.machine.SLICE", slice)
        monkeypatch.setattr("tinyfl.link.board.secrets.randbelow", lambda below: 0)  # the first request is numbered by chance
        made = machine(firmware(board), board)

        async def live() -> Any:
            there = await LinkedBoard.connect(MachineWire(SimpleNamespace(exchange=made.exchange) if slice == 1 else made).open)
            status = await taught(there, 5)
            await there.commit(status.weights)
            return status, (await there.weights()).tobytes()

        kept = made.snapshot() if (said := asyncio.run(live())) else None
        return said, made.instructions, made.slot_events, kept.registers, kept.flash, kept.ram

    whole = lived(1 << 60)
    assert lived(1) == whole  # after every block
    assert lived(20_011) == whole


def test_a_program_that_never_ends_gives_way(probe: Callable[..., Probe]) -> None:
    board = probe("mps2-an386").machine
    assert board.advance(b"z") == (b"", False)
    before = board.instructions
    assert board.advance() == (b"", False)
    assert board.instructions > before
    board.reset()
    assert board.exchange(b"r" + bytes(4))[:1] == b"r"


def test_a_loop_in_memory_whose_instructions_do_not_count_gives_way(firmware: Callable[[str], Path]) -> None:
    from unicorn.arm_const import UC_ARM_REG_PC

    board = machine(firmware("pico"), "pico")
    cache, itself = 0x14000000, b"\xfe\xe7"
    board._core.mem_write(cache, itself)
    board._core.reg_write(UC_ARM_REG_PC, cache)
    assert board.advance() == (b"", False)


def test_a_board_that_is_late_for_good_is_stopped_and_takes_part_again(firmware: Callable[[str], Path]) -> None:
    from tinyfl.simulators.native import NativeFleet

    cohort, inner = np.zeros(1, np.uint32), Inner(samples=8, rate=0.01)
    with LinkFleet([MachineWire(machine(firmware("mps2-an386"), "mps2-an386")).open], TASK, NET) as fleet:
        fleet.seconds = 0.3
        assert fleet.run_each(cohort, 0, THETA, Inner(samples=ENDLESS, rate=0.01)).reasons == ("late",)
        fleet.seconds = 60
        ours = fleet.run_each(cohort, 1, THETA, inner)
    theirs = NativeFleet(TASK, NET, 1).run_each(cohort, 1, THETA, inner)
    assert ours.reasons == ("",)
    np.testing.assert_array_equal(ours.phi, theirs.phi)


def long_program(steps: int) -> bytes:
    """One that puts the same value through a table ``steps`` times (firmware/SPEC.md, program)."""
    op = struct.pack("<B8b3x3I", 7, 0, 0, 0, -128, 127, 0, 0, 0, 0, 1 << 31 | 48 + 84, 4)
    grid = struct.pack("<3i12I", 0, 0, 0, steps, 1, 1, 1, *[0] * 8)
    ends = b"".join(struct.pack("<IIfbBH", at, 1, 0.5, 0, 0, 0) for at in (0, 4))
    return struct.pack("<4sBBHII", b"TFLI", 1, 0, 1, 48 + 84 + 256, 8) + ends + op + grid + bytes(256)


def test_a_board_in_a_program_of_hours_is_left_and_comes_back_by_a_reset(firmware: Callable[[str], Path]) -> None:
    made = machine(firmware("mps2-an386"), "mps2-an386")

    async def script() -> None:
        board = await LinkedBoard.connect(MachineWire(made).open)
        await board.put_program(long_program(1 << 28))
        with pytest.raises(Late):
            await board.predict(b"\0", 0.3)
        await board.close()
        with pytest.raises(Dead):  # as on a cable: one that computes does not listen
            await LinkedBoard.connect(MachineWire(made).open, 0.3)
        made.reset()
        board = await LinkedBoard.connect(MachineWire(made).open)
        assert board.description.inference == sha256(long_program(1 << 28)).digest()

    asyncio.run(script())


@pytest.mark.parametrize("link", ["pty", "tcp"])
def test_a_served_board_is_asked_and_stopped_in_the_middle_of_a_round(firmware: Callable[[str], Path], link: Any) -> None:
    from tinyfl.simulators.bridge import Bridge

    async def script(url: str) -> None:
        opener = partial(SerialWire.open, url)
        board = await LinkedBoard.connect(opener)
        with pytest.raises(Late):
            await taught(board, ENDLESS, 0.3)
        assert (await board.status()).state == BoardState.learning
        await board.close()
        board = await LinkedBoard.connect(opener)
        before = (await board.status()).done
        assert (await board.status()).done > before
        assert (await board.abort()).code == ABORTED
        assert (await taught(board, 4)).done == 4
        with pytest.raises(LinkError):
            await board.train(asked(ENDLESS), 0.1)
        await board.close()

    with Bridge(machine(firmware("mps2-an386"), "mps2-an386"), link, pytest.fail) as bridge:
        asyncio.run(script(bridge.url))  # the bridge is closed in the middle of that round


def test_python_may_end_while_a_board_is_at_work(probe_elf: Callable[[str], Path]) -> None:
    need("unicorn")
    script = f"""
import threading, time
from pathlib import Path
from tinyfl.building import boards
from tinyfl.simulators.unicorn import Machine
for number in range(4):
    machine = Machine(Path({str(probe_elf("mps2-an386"))!r}), boards.load("mps2-an386"), number)
    threading.Thread(target=machine.exchange, args=(b"z",), daemon=True).start()
time.sleep(0.2)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
