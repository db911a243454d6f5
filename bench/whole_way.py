"""The whole way on one emulated board: it gets a run's initialisation and adapts on its own samples, the host quantises the
adapted weights, the int8 model goes to the board's inference slot, and board and host classify the same query set.

    python bench/whole_way.py RUN [--data FILE] [--board mps2-an386] [--devices 5] [--shots 5] [--passes 1]
"""

import argparse
import asyncio
import hashlib
import time
from pathlib import Path

import numpy as np
from common import provenance

from tinyfl import core
from tinyfl.algorithms import Inner
from tinyfl.building import boards
from tinyfl.core import TableSource
from tinyfl.export.convert import convert, representative_set
from tinyfl.fleets.emulation import firmware
from tinyfl.int8.compile import compile_tflite
from tinyfl.int8.native import quantized, run_native
from tinyfl.link.board import LinkedBoard, Round, floats
from tinyfl.link.wire import MachineWire
from tinyfl.runs.adaptation import Initialisation
from tinyfl.simulators.unicorn import Machine
from tinyfl.tasks import Task, load_task, numbers


async def whole_way(start: Initialisation, task: Task, board: str, device: int, shots: int, passes: int) -> tuple[float, ...]:
    """Accuracy of one test device's query set: not adapted, adapted in float32 (host), int8 (host), int8 (board). Asserts
    that board and host have the same weights and the same int8 outputs."""
    network, rate = start.network, start.rate("stream", shots)
    episodes = task.episodes("test", device + 1, shots)
    everyone = numbers(0, device + 1)

    def samples(of: TableSource) -> tuple[np.ndarray, np.ndarray]:
        x, y = core.samples(of, network.plan, everyone, 0, of.samples)
        return x[device], y[device]

    (x, y), (queries, truth) = samples(episodes.support), samples(episodes.query)
    machine = Machine(firmware(boards.load(board), "zig").elf, boards.load(board), device + 1)
    emulated = await LinkedBoard.connect(MachineWire(machine).open)
    await emulated.put_plan(network.plan.bytes)
    await emulated.put_weights(start.theta)
    base = hashlib.sha256(floats(start.theta)).digest()
    own = np.tile(np.hstack([x, y]), (passes, 1))
    inner = Inner(samples=len(x), passes=passes, rate=rate, clip=start.clip)
    await emulated.train(Round(0, 0, 0, inner.to_bytes(), base))
    learnt = await emulated.weights(await emulated.feed(own), 600)

    rows = np.arange(len(x), dtype=np.int32)[None]
    support = TableSource(x, rows, targets=y)
    query = TableSource(queries, np.arange(len(queries), dtype=np.int32)[None], targets=truth)
    here = core.adapt(network.plan, start.theta, support, query, (0, passes), inner.to_bytes(), outputs=True, weights=True)
    assert here.weights is not None
    assert here.outputs is not None
    assert learnt.tobytes() == here.weights[0].tobytes(), "board and host adapted to other weights"

    program = compile_tflite(convert(network, learnt, representative_set(task, network)))
    await emulated.put_program(program.content, 600)
    raw = quantized(program.input, queries.reshape(-1, *program.input.shape))
    host = run_native(program, raw)
    answers = [await emulated.predict(each.tobytes(), 600) for each in raw]
    assert b"".join(answers) == host.tobytes(), "board and host give other int8 outputs"
    right = [
        float((outputs.reshape(truth.shape).argmax(axis=1) == truth.argmax(axis=1)).mean())
        for outputs in (here.outputs[0, 0], here.outputs[1, 0], host, np.frombuffer(b"".join(answers), np.int8))
    ]
    return tuple(right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--board", default="mps2-an386")
    parser.add_argument("--devices", type=int, default=5)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--passes", type=int, default=1)
    arguments = parser.parse_args()
    began = time.monotonic()
    start = Initialisation.load(arguments.run)
    task = load_task(start.task, arguments.data, 0, standard=start.standard)
    print("device  not adapted  adapted  int8 on the host  int8 on the board")
    for device in range(arguments.devices):
        found = asyncio.run(whole_way(start, task, arguments.board, device, arguments.shots, arguments.passes))
        print(f"{device:6}  {found[0]:11.3f}  {found[1]:7.3f}  {found[2]:16.3f}  {found[3]:17.3f}", flush=True)
    print(f"weights and int8 outputs of board and host equal, bit for bit; {provenance()}; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
