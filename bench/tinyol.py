"""Online learning on emulated boards: bits and costs.

    python bench/tinyol.py [SAMPLES]     a Cortex-M4F and a Cortex-M0+, 10,000 samples each: some minutes

A frozen 16-32-16 relu network and a head of up to 8 classes. Over the samples classes come, are forgotten and come again, and
labels come up to two samples late: after each hundredth sample the board's state is compared with the native engine's.
Instructions, all of the message included: of a sample, of a label, of a sample that the whole 16-32-16-8 network learns from
(`feed`, ten to a message), and of an `echo` as long as a sample; the energy of each, by the manifest's power and the cycles
an instruction that `tinyfl plan` assumes; and samples with a label per second at 64 MHz and an instruction per cycle.
"""

import asyncio
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
from common import provenance

from tinyfl.algorithms import Inner
from tinyfl.building import boards
from tinyfl.building.build import build
from tinyfl.core.online import Online
from tinyfl.costs import CYCLES_PER_INSTRUCTION
from tinyfl.link.board import LinkedBoard, Round, floats
from tinyfl.link.online import OnlineBoard, OnlineRecord
from tinyfl.link.wire import MachineWire
from tinyfl.networks import Activation, Loss, network
from tinyfl.online import Head, OnlineSet
from tinyfl.simulators.unicorn import Machine

BOARDS, PLACES, CLOCK, REPEATS = ("microbit-v2", "pico"), 8, 64_000_000, 100
FROZEN = network("mlp-32-16-relu", (16,), PLACES, Loss.prototypes, Activation.relu)
WHOLE = network("mlp-32-16-relu", (16,), PLACES, Loss.softmax_cross_entropy, Activation.relu)
SET = OnlineSet(Head.classes, 16, 16, PLACES, ring=3, cap=256, rate=0.05, alarm=10.0)


async def same_bits(machine: Machine, samples: int) -> tuple[int, int, int]:
    """States compared, classes forgotten, and alarms. Raises AssertionError at the first other bit."""
    board = await LinkedBoard.connect(MachineWire(machine).open)
    online, theta, rng = OnlineBoard(board), FROZEN.initial_weights(1), np.random.default_rng(24)
    native, names, forgotten, last = Online(SET.record, 1), [0], 0, (0, 0)
    await board.put_plan(FROZEN.plan.bytes)
    await board.put_weights(theta)
    await online.start(OnlineRecord("learner", sha256(floats(theta)).digest(), SET.record, 1))
    kinds = rng.normal(0, 1, (12, 16))
    for step in range(samples):
        kind = int(rng.integers(0, 12))
        x = (kinds[kind] + step / samples + rng.normal(0, 0.5, 16)).astype(np.float32)
        late, wanted, label = max(step + 1 - int(rng.integers(0, 3)), 1), np.zeros(1, np.uint32), 0
        waits = late in np.frombuffer(native.memory, np.uint32)[-3 - 3 * PLACES : -3 * PLACES] or late == step + 1
        if rng.random() < 0.5 and waits:
            if kind not in names and len(names) == PLACES:
                gone = int(rng.integers(PLACES))
                assert native.remove(gone) == 0
                await online.forget(gone)
                del names[gone]
                forgotten += 1
            names += [kind] if kind not in names else []
            label, wanted = names.index(kind), np.array([late], np.uint32)
        made = native.run(x[None], wanted, labels=np.array([label], np.uint32), plan=FROZEN.plan, theta=theta)
        said = await online.sample(x)
        assert (said.number, said.label, np.float32(said.confidence)) == (step + 1, made.classes[0], made.confidence[0])
        if wanted[0] and (late, label) != last and made.answers[0] == 0:
            assert np.float32(await online.label(late, label)) == made.losses[0]
            last = (late, label)
        if step % 100 == 99:
            assert await online.learnt() == native.learnt(), step
    return samples // 100, forgotten, (await online.watched()).drifts


async def costs(machine: Machine) -> dict[str, float]:
    """Instructions of each kind of request, means of REPEATS."""
    board = await LinkedBoard.connect(MachineWire(machine).open)
    online, theta, rng = OnlineBoard(board), FROZEN.initial_weights(1), np.random.default_rng(1)
    counts = dict.fromkeys(("echo", "sample", "label", "feed"), 0.0)
    await board.put_plan(FROZEN.plan.bytes)
    await board.put_weights(theta)
    await online.start(OnlineRecord("learner", sha256(floats(theta)).digest(), SET.record, PLACES))

    async def count(name: str, work: object) -> object:
        before = machine.instructions
        found = await work  # type: ignore[misc]
        counts[name] += (machine.instructions - before) / REPEATS
        return found

    for step in range(REPEATS):
        x = rng.normal(0, 1, 16).astype(np.float32)
        await count("echo", board.echo("x" * 64))
        said = await count("sample", online.sample(x))
        await count("label", online.label(said.number, step % PLACES))  # type: ignore[attr-defined]
    whole = WHOLE.initial_weights(1)
    await board.put_plan(WHOLE.plan.bytes)
    await board.put_weights(whole)
    await board.train(Round(0, 0, 0, Inner(samples=REPEATS, rate=0.01).to_bytes(), sha256(floats(whole)).digest()))
    x, y = rng.normal(0, 1, (REPEATS, 16)), np.eye(PLACES)[np.arange(REPEATS) % PLACES]
    status = await count("feed", board.feed(np.concatenate([x, y], axis=1).astype(np.float32)))
    assert status.done == REPEATS  # type: ignore[attr-defined]
    return counts


def main() -> None:
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    memory = Online(SET.record, PLACES).memory.nbytes
    learnt, arenas = len(Online(SET.record, PLACES).learnt()), (FROZEN.arena_bytes(), WHOLE.arena_bytes())
    print(f"RAM: the set's core {memory:,} bytes, what is learnt {learnt:,}; arena of the frozen network {arenas[0]:,}")
    print(f"arena of the whole network that learns {arenas[1]:,}")
    for name in BOARDS:
        board = boards.load(name)
        elf = build(board, Path("build/firmware") / f"{name}-tinyol", toolchain="zig").elf
        found = asyncio.run(costs(Machine(elf, board, 1)))
        rate = CLOCK / (found["sample"] + found["label"])
        print(f"{name}: {', '.join(f'{key} {value:,.0f}' for key, value in found.items())}; {rate:,.0f} samples/s", flush=True)
        each = 1e3 * CYCLES_PER_INSTRUCTION / board.clock * board.milliwatts  # microjoules an instruction
        print(f"{name}: µJ {', '.join(f'{key} {value * each:.3g}' for key, value in found.items())}", flush=True)
        compared, forgotten, drifts = asyncio.run(same_bits(Machine(elf, board, 1), samples))
        print(f"{name}: {samples:,} samples, {compared} states alike, {forgotten} classes forgotten, {drifts} alarms")
    print(provenance())


if __name__ == "__main__":
    main()
