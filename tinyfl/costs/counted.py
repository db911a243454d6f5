"""Instructions of a network on a board, counted in emulation: the emulator runs the firmware that would be flashed, with
another source of samples (firmware/probe)."""

import hashlib
from typing import TYPE_CHECKING

from tinyfl.algorithms import Inner, Phase
from tinyfl.building.boards import Board, data
from tinyfl.building.toolchains import Toolchain
from tinyfl.fleets.emulation import firmware
from tinyfl.link.board import LinkedBoard, Round, floats
from tinyfl.link.wire import MachineWire
from tinyfl.networks import Network
from tinyfl.system.loop import in_loop

if TYPE_CHECKING:
    from tinyfl.int8.native import Program


TIMEOUT = 600.0
"""Timeout for the emulation of one request, in seconds."""


def instructions_of_program(program: "Program", board: Board, toolchain: Toolchain) -> int:
    """Instructions of one inference on ``board``, including the message with the last input.

    Raises InstallError without the emulator, LinkError if the board fails.
    """
    from tinyfl.simulators.unicorn import Machine

    machine = Machine(firmware(board, toolchain).elf, board, 1)
    counts = [0]

    class Counted:
        def advance(self, data: bytes) -> tuple[bytes, bool]:
            before = machine.instructions
            output, asleep = machine.advance(data)
            counts[-1] += machine.instructions - before
            counts.extend([0] * asleep)
            return output, asleep

    async def once() -> None:
        emulated = await LinkedBoard.connect(MachineWire(Counted()).open)
        await emulated.put_program(program.content, TIMEOUT)
        counts[:] = [0]
        await emulated.predict(bytes(program.input.bytes), TIMEOUT)

    in_loop(once())
    return max(counts)


def instructions(network: Network, board: Board, batch: int, toolchain: Toolchain) -> tuple[int, int]:
    """Instructions per sample of the probe on ``board``: (forward pass with loss, learning step in batches of ``batch``),
    guards included.

    Raises InstallError without the emulator, LinkError if the board fails.
    """
    from tinyfl.simulators.unicorn import Machine

    built = firmware(board, toolchain, sources=[data("firmware") / "probe" / "probe.c"])
    machine = Machine(built.elf, board, 1)

    def loop(samples: int) -> Inner:
        if network.embeds:  # so many queries, of one class
            return Inner(Phase(1 + samples, 1e-4, support=1, ways=1))
        return Inner(samples=samples, batch=batch, rate=1e-4)

    async def one_sample(of: Network) -> int:
        """The difference between rounds of three batches and of one, per sample; of prototypes, per query."""
        emulated = await LinkedBoard.connect(MachineWire(machine).open)
        await emulated.put_plan(of.plan.bytes)
        counts = []
        for samples in (batch, 3 * batch):
            theta = of.initial_weights(samples)  # others each time: a board that has them already is asked less
            await emulated.put_weights(theta)
            base = hashlib.sha256(floats(theta)).digest()
            before = machine.instructions
            await emulated.train(Round(0, 0, 0, loop(samples).to_bytes(), base, "probe"), TIMEOUT)
            counts.append(machine.instructions - before)
        return int(counts[1] - counts[0]) // (2 * batch)

    learning = in_loop(one_sample(network))
    return in_loop(one_sample(network.frozen(network.weighted))), learning
