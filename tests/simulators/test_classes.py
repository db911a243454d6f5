"""Classes on emulated boards: the bits of the native engine as classes come and go, and whole ones after any power cut."""

import asyncio
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuts import demand_old_or_new
from probe import need

from tinyfl.building import boards
from tinyfl.core import TableSource, embeddings
from tinyfl.errors import Refused, Stale
from tinyfl.link.board import LinkedBoard, floats
from tinyfl.link.classes import Classes, ClassSet, Enrolled, Nearest
from tinyfl.link.wire import MachineWire
from tinyfl.networks import Activation, Loss, network

sys.path.insert(0, str(Path(__file__).parents[1] / "firmware"))  # reference_means.py

NET = network("mlp-8", (4,), 6, Loss.softmax_cross_entropy, Activation.relu)
THETA = NET.initial_weights(1)
PLACES, SAMPLES = 5, 1000
CENTRE = np.linspace(-0.2, 0.2, 6, dtype=np.float32)
SET = ClassSet("learner", sha256(floats(THETA)).digest(), PLACES, threshold=0.3, centre=CENTRE, normalised=True)


def started(name: str, firmware: Callable[[str], Path]) -> Any:
    need("unicorn")
    from tinyfl.simulators.unicorn import Machine

    return Machine(firmware(name), boards.load(name), 1)


def talk(machine: Any, work: Callable[[LinkedBoard, Classes], Any]) -> Any:
    async def whole() -> Any:
        board = await LinkedBoard.connect(MachineWire(machine).open)
        return await work(board, Classes(board))

    return asyncio.run(whole())


@pytest.mark.parametrize("name", ["mps2-an386", "pico"])
def test_a_thousand_samples_give_the_native_bits_on_a_cortex_m(firmware: Callable[[str], Path], name: str) -> None:
    """An M4F and an M0+: number and distance of the nearest class, while samples are added and classes forgotten."""
    from reference_means import Means  # equal to the core's: tests/firmware/test_means.py

    rng = np.random.default_rng(5)
    kinds = rng.normal(size=(PLACES, 4))
    table = (kinds[rng.integers(PLACES, size=SAMPLES)] + 0.5 * rng.normal(size=(SAMPLES, 4))).astype(np.float32)
    rows = np.arange(SAMPLES, dtype=np.int32)[None]
    native = embeddings(NET.plan, THETA, TableSource(table, rows, np.zeros_like(rows)))[0]
    means = Means(6, PLACES, CENTRE, True)

    async def work(board: LinkedBoard, classes: Classes) -> tuple[int, int]:
        await board.put_plan(NET.plan.bytes)
        await board.put_weights(THETA)
        await classes.start(SET)
        known = unknown = 0
        for x, e in zip(table, map(means.prepared, native), strict=True):
            number, what = int(rng.integers(PLACES)), rng.random()
            expected, distance = means.nearest(e, SET.threshold)
            found = await classes.classify(x)
            assert (found.number, floats(np.float32(found.distance))) == (expected, floats(distance))
            known, unknown = known + (expected is not None), unknown + (expected is None)
            if what < 0.1:
                assert await classes.enrol(number, x, f"class {number}") == means.counts[number] + 1
                means.add(number, e)
            elif what < 0.12:
                means.clear(number)
                assert await classes.forget(number) == sum(count > 0 for count in means.counts)
        assert await classes.held() == [Enrolled(k, n, f"class {k}") for k, n in enumerate(means.counts) if n]
        return known, unknown

    assert min(talk(started(name, firmware), work)) > 100


async def told(board: LinkedBoard, classes: Classes) -> tuple[list[Enrolled], Nearest]:
    return await classes.held(), await classes.classify(np.float32([1, 2, 3, 4]))


@pytest.mark.parametrize("name", ["microbit-v2", "cy8ckit-062s2"])
def test_a_cut_at_every_write_of_the_store_leaves_the_old_classes_or_the_new(
    firmware: Callable[[str], Path], name: str
) -> None:
    async def first(board: LinkedBoard, classes: Classes) -> None:
        await board.put_plan(NET.plan.bytes)
        await board.put_weights(THETA)
        await board.commit(SET.sha)
        await classes.start(SET)
        await classes.enrol(0, np.float32([1, 2, 3, 4]), "a cat")
        assert await classes.commit() == 1

    async def change(board: LinkedBoard, classes: Classes) -> None:
        await classes.enrol(1, np.float32([4, 3, 2, 1]), "a dog")
        await classes.forget(0)
        await classes.commit()

    machine = started(name, firmware)
    talk(machine, first)
    demand_old_or_new(machine, lambda: talk(machine, change), lambda: talk(machine, told))


def test_a_board_without_a_store_says_so_and_other_weights_make_a_set_stale(firmware: Callable[[str], Path]) -> None:
    async def work(board: LinkedBoard, classes: Classes) -> None:
        await board.put_plan(NET.plan.bytes)
        await board.put_weights(THETA)
        await classes.start(SET)
        with pytest.raises(Refused, match=r"\(nucleo-f401re\) has no room in flash to keep classes"):
            await classes.commit()
        await board.put_weights(2 * THETA)
        with pytest.raises(Stale):
            await classes.classify(np.float32([1, 2, 3, 4]))

    talk(started("nucleo-f401re", firmware), work)
