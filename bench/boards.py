"""Emulated boards: time and memory of a fleet, and the firmware's cost on a Cortex-M4F.

    python bench/boards.py            fleets of 16 and 64 boards, in unicorn and, if installed, QEMU: some minutes
    python bench/boards.py --firmware instructions per SGD step, stack, flash and RAM

Fleets: TinyReptile on `sine`, 1-32-32-1 relu, 32 samples, every board in each of 20 rounds; the complete `tinyfl run` without
its evaluation. Each engine's theta is compared with the native fleet's.
"""

import argparse
import asyncio
import hashlib
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from common import provenance

from tinyfl.algorithms import Inner, State
from tinyfl.building import boards
from tinyfl.building.build import build
from tinyfl.building.toolchains import TOOLCHAINS
from tinyfl.config import resolve
from tinyfl.core import FASTEST
from tinyfl.fleets import emulation
from tinyfl.fleets.assembly import Training, assembled
from tinyfl.fleets.linked import LinkFleet
from tinyfl.flower.grid import FleetGrid
from tinyfl.flower.rounds import Federation
from tinyfl.link.board import LinkedBoard, Round, floats
from tinyfl.link.wire import MachineWire, Opener
from tinyfl.networks import network
from tinyfl.runs.directory import RunDirectory
from tinyfl.simulators.unicorn import Machine
from tinyfl.tasks import load_task

BOARD, NETWORK = "mps2-an386", "mlp-32-32-relu"
ENGINES = ("unicorn", *(["qemu"] if shutil.which("qemu-system-arm") else []))
CORES = ("mps2-an386", "mps2-an500", "mps2-an505", "mps2-an385")


def fleets() -> None:
    """Seconds for boot and rounds, by engine and size."""
    for size in (16, 64):
        native = rounds([{"native": size}])
        for engine in ENGINES:
            theta, boots, seconds = rounds([{"board": BOARD, "count": size, "engine": engine}])
            print(
                f"{size} boards in {engine}: boot {1e3 * statistics.median(boots):.0f} ms each (most {1e3 * max(boots):.0f}), "
                f"20 rounds {seconds:.1f} s, {20 * size / seconds:.0f} device-rounds/s, "
                f"theta {theta[:16]} {'as' if theta == native[0] else 'NOT AS'} the native fleet's"
            )


def rounds(fleet: list[dict[str, object]]) -> tuple[str, list[float], float]:
    """theta's hash, each board's seconds to its first answer, and the seconds of the rounds."""
    size = sum(part.size for part in resolve({"fleet": fleet}).fleet)
    config = resolve({"task": "sine", "network": NETWORK, "fleet": fleet, "cohort": size, "rounds": 20})
    task = load_task(config.task, None, config.seed)
    net = network(config.network, task.shape, task.outputs, task.loss, task.activation)
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder))
        directory.start(config)
        start = State(0, net.initial_weights(config.seed))
        with assembled(config.parts, Training(task, net, FASTEST, config.seconds), directory.log_event) as (fleet, records):
            outcome = Federation(directory, config, config.build(), FleetGrid(fleet), start, None).run()
    assert not outcome.left_out, outcome.left_out
    return hashlib.sha256(outcome.state.theta.tobytes()).hexdigest(), [r["boot_seconds"] for r in records], outcome.seconds


def instructions(name: str, toolchain: str, activation: str) -> float:
    """Instructions per SGD step, including sample generation and all guards: the difference between rounds of 132 and of 32."""
    board = boards.load(name)
    task = load_task("sine", None, 0)
    net = network(f"mlp-32-32-{activation}", (1,), 1, task.loss, task.activation)
    machine = Machine(build(board, Path("build/firmware") / f"{name}-{toolchain}", toolchain=toolchain).elf, board, 1)
    counts = []
    with LinkFleet([MachineWire(machine).open], task, net) as fleet:
        for round, samples in enumerate((32, 32, 132)):
            theta = net.initial_weights(round)
            before = machine.instructions
            assert fleet.run(np.zeros(1, np.uint32), 0, theta, Inner(samples=samples, rate=0.01)).devices == 1
            counts.append(machine.instructions - before)
    return (counts[2] - counts[1]) / 100


def firmware() -> None:
    """Figures of the ELF, by board and toolchain."""
    for toolchain in TOOLCHAINS:
        if toolchain == "gcc" and not shutil.which("arm-none-eabi-gcc"):
            continue
        for name in CORES:
            relu, tanh = (instructions(name, toolchain, activation) for activation in ("relu", "tanh"))
            built = build(boards.load(name), Path("build/firmware") / f"{name}-{toolchain}", toolchain=toolchain)
            assert built.size
            parts = ", ".join(f"{part} {flash:,}+{ram:,}" for part, (flash, ram) in built.size.parts.items())
            print(f"{name} {toolchain}: {relu:,.0f} instructions a step with relu, {tanh:,.0f} with tanh; flash+RAM {parts}")
    with emulation.started(BOARD) as (running,):
        print(f"deepest stack, {BOARD} with zig: {asyncio.run(deepest_stack(running.opener))} bytes")


async def deepest_stack(opener: Opener) -> int:
    """Bytes of stack used by a board after describe, a round, reading weights and a commit."""
    task = load_task("sine", None, 0)
    net = network(NETWORK, (1,), 1, task.loss, task.activation)
    theta = net.initial_weights(0)
    board = await LinkedBoard.connect(opener)
    await board.put_plan(net.plan.bytes)
    await board.put_weights(theta)
    base = hashlib.sha256(floats(theta)).digest()
    status = await board.train(Round(0, 0, 0, Inner(samples=32, rate=0.01, clip=1.0).to_bytes(), base, "sine"))
    await board.weights(status)
    await board.commit(status.weights)
    return (await board.status()).stack


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--firmware", action="store_true")
    began = time.monotonic()
    firmware() if parser.parse_args().firmware else fleets()
    print(f"{provenance()}; {time.monotonic() - began:.0f} s in all")
