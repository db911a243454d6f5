"""Online learning on emulated boards: the bits of the native engine as classes grow and shrink, and whole states after any
cut."""

import asyncio
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuts import demand_old_or_new
from probe import need

from tinyfl.building import boards
from tinyfl.core.online import Online
from tinyfl.errors import Refused, Stale
from tinyfl.link.board import LinkedBoard, floats
from tinyfl.link.online import OnlineBoard, OnlineRecord, Watched
from tinyfl.link.wire import MachineWire
from tinyfl.networks import Activation, Loss, network
from tinyfl.online import Head, OnlineSet, Standardised

NET = network("mlp-8-6-tanh", (4,), 6, Loss.prototypes, Activation.tanh)
THETA = NET.initial_weights(1)
SET = OnlineSet(Head.classes, 4, 6, 4, Standardised.inputs, ring=3, cap=64, window=32, rate=0.2, alarm=3.0)
RECORD = OnlineRecord("learner", sha256(floats(THETA)).digest(), SET.record, 1)


def started(name: str, firmware: Callable[[str], Path]) -> Any:
    need("unicorn")
    from tinyfl.simulators.unicorn import Machine

    return Machine(firmware(name), boards.load(name), 1)


def talk(machine: Any, work: Callable[[LinkedBoard, OnlineBoard], Any]) -> Any:
    async def whole() -> Any:
        board = await LinkedBoard.connect(MachineWire(machine).open)
        online = OnlineBoard(board)
        online._number = (await online.watched()).samples
        return await work(board, online)

    return asyncio.run(whole())


@pytest.mark.parametrize("name", ["mps2-an386", "pico"])
def test_a_stream_with_classes_that_grow_and_shrink_gives_the_native_bits_on_a_cortex_m(
    firmware: Callable[[str], Path], name: str
) -> None:
    rng = np.random.default_rng(5)
    kinds = rng.normal(0, 2, (8, 4))
    native, names, none = Online(SET.record, 1), [0], np.zeros(1, np.uint32)

    async def work(board: LinkedBoard, online: OnlineBoard) -> int:
        await board.put_plan(NET.plan.bytes)
        await board.put_weights(THETA)
        await online.start(RECORD)
        before = (0, 0)
        for step in range(250):
            kind = int(rng.integers(0, 4)) + 4 * (step > 125)
            x = (kinds[kind] + step / 100 + rng.normal(size=4)).astype(np.float32)
            late, label = max(step + 1 - int(rng.integers(0, 3)), 1), 0
            wanted = np.array([late], np.uint32) if rng.random() < 0.6 and names else none
            if wanted[0] and kind not in names and len(names) == SET.places:
                gone = int(rng.integers(len(names)))
                assert native.remove(gone) == 0
                assert await online.forget(gone) == len(names) - 1
                del names[gone]
            if wanted[0]:
                names.extend([kind] if kind not in names else [])
                label = names.index(kind)
            if (late, label) == before:
                wanted = none  # the board would take it for a repeat
            made = native.run(x[None], wanted, labels=np.array([label], np.uint32), plan=NET.plan, theta=THETA)
            said = await online.sample(x)
            assert (said.number, said.label) == (step + 1, made.classes[0])
            assert np.float32(said.confidence) == made.confidence[0]
            if wanted[0] and made.answers[0] == 0:
                assert np.float32(await online.label(late, label, f"kind {kind}")) == made.losses[0]
                before = (late, label)
            elif wanted[0]:
                with pytest.raises(Stale):
                    await online.label(late, label)
                names[:] = names[: native.outputs]
        assert await online.learnt() == native.learnt()
        watched = await online.watched()
        assert watched.outputs == native.outputs
        return watched.drifts

    assert talk(started(name, firmware), work) > 0


async def told(board: LinkedBoard, online: OnlineBoard) -> tuple[Watched, bytes]:
    return await online.watched(), await online.learnt()


@pytest.mark.parametrize("name", ["microbit-v2"])
def test_a_cut_at_every_write_of_the_store_leaves_what_was_learnt_before_or_after(
    firmware: Callable[[str], Path], name: str
) -> None:
    async def first(board: LinkedBoard, online: OnlineBoard) -> None:
        await board.put_plan(NET.plan.bytes)
        await board.put_weights(THETA)
        await board.commit(RECORD.sha)
        await online.start(RECORD)
        await online.label((await online.sample(np.float32([1, 2, 3, 4]))).number, 0, "idle")
        assert await online.commit() == 1

    async def change(board: LinkedBoard, online: OnlineBoard) -> None:
        await online.label((await online.sample(np.float32([4, 3, 2, 1]))).number, 1, "fan")
        await online.commit()

    machine = started(name, firmware)
    talk(machine, first)
    demand_old_or_new(machine, lambda: talk(machine, change), lambda: talk(machine, told))


def test_a_board_rolls_back_to_its_last_commit_and_one_without_a_store_says_so(firmware: Callable[[str], Path]) -> None:
    async def work(board: LinkedBoard, online: OnlineBoard) -> None:
        await board.put_plan(NET.plan.bytes)
        await board.put_weights(THETA)
        await online.start(RECORD)
        await online.label((await online.sample(np.float32([1, 2, 3, 4]))).number, 0, "idle")
        early = await online.learnt()
        with pytest.raises(Refused, match="has more than 16 bytes"):
            await online.label(1, 0, "x" * 10_000)
        if not board.description.areas:
            with pytest.raises(Refused, match="has no room in flash"):
                await online.commit()
            return
        await online.commit()
        for _ in range(3):
            await online.label((await online.sample(np.float32([0, 0, 0, 9]))).number, 1, "wrong")
        late = await online.learnt()
        assert await online.roll_back() == 1
        assert await online.learnt() == early != late
        await online.put_back(late)
        assert (await online.sample(np.float32([1, 1, 1, 1]))).number == 5

    for name in ("microbit-v2", "nucleo-f401re"):
        talk(started(name, firmware), work)
