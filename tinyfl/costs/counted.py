"""What a network costs on a board, counted in emulation: the firmware that is flashed runs it, and its instructions are
counted. Only its source of samples is another, firmware/probe."""

import asyncio
import hashlib
from typing import TYPE_CHECKING

from tinyfl.building.boards import Board, data
from tinyfl.building.toolchains import Toolchain
from tinyfl.fleets.emulation import firmware
from tinyfl.link.board import LinkedBoard, Round, floats
from tinyfl.link.wire import MachineWire
from tinyfl.networks import Network

if TYPE_CHECKING:
    from tinyfl.int8.native import Program


LONGEST = 600.0
"""Seconds that the emulation of one request may take."""


def instructions_of_program(program: "Program", board: Board, toolchain: Toolchain) -> int:
    """Instructions of one inference on ``board``, the message that brings the last of the input included.

    Raises InstallError without the emulator, LinkError where the board does not do it.
    """
    from tinyfl.simulators.unicorn import Machine

    machine = Machine(firmware(board, toolchain).elf, board, 1)
    counts = [0]

    class Counted:
        def advance(self, data: bytes) -> tuple[bytes, bool]:
            before = machine.instructions
            said, asleep = machine.advance(data)
            counts[-1] += machine.instructions - before
            counts.extend([0] * asleep)
            return said, asleep

    async def once() -> None:
        there = await LinkedBoard.connect(MachineWire(Counted()).open)
        await there.put_program(program.content, LONGEST)
        counts[:] = [0]
        await there.predict(bytes(program.input.bytes), LONGEST)

    asyncio.run(once())
    return max(counts)


def instructions(network: Network, board: Board, batch: int, toolchain: Toolchain) -> tuple[int, int]:
    """Instructions of one sample on ``board``, made by the probe: a forward pass with its loss, and learning from it in batches
    of ``batch``, guards included.

    Raises InstallError without the emulator, LinkError where the board does not do it.
    """
    from tinyfl.simulators.unicorn import Machine

    made = firmware(board, toolchain, sources=[data("firmware") / "probe" / "probe.c"])
    machine = Machine(made.elf, board, 1)

    async def one_sample(of: Network) -> int:
        """From rounds of one and of three batches."""
        there = await LinkedBoard.connect(MachineWire(machine).open)
        await there.put_plan(of.plan.bytes)
        counts = []
        for samples in (batch, 3 * batch):
            theta = of.initial_weights(0)
            await there.put_weights(theta)
            base = hashlib.sha256(floats(theta)).digest()
            before = machine.instructions
            await there.train(Round(0, 0, 0, samples, batch, 1, 1e-4, 0.0, base, "probe"), LONGEST)
            counts.append(machine.instructions - before)
        return int(counts[1] - counts[0]) // (2 * batch)

    learning = asyncio.run(one_sample(network))
    return asyncio.run(one_sample(network.frozen(network.weighted))), learning
