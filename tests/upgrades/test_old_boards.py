"""Boards of older versions: refused until they are flashed again, and then they keep their models, programs and classes."""

import asyncio
import ctypes
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest
from double import Double, uncobs
from probe import need
from programs import outputs, program
from steps import STEPS, names, unpacked

from tinyfl.building import boards
from tinyfl.building.build import build
from tinyfl.errors import Refused
from tinyfl.link.board import LinkedBoard, floats
from tinyfl.link.classes import Classes, ClassSet, Enrolled
from tinyfl.link.messages import PROTOCOL
from tinyfl.link.online import OnlineBoard, Watched
from tinyfl.link.wire import MachineWire
from tinyfl.networks import Activation, Loss, network

BOARD = "microbit-v2"
BEHIND = 0x1FFF0
"""Where its firmware's space ends and its identity record begins."""
FLASHED = [step for step in STEPS if f"flash/{BOARD}.bin" in names(step)]
PROTOCOLS = {"58d1526": 2, "0fcfd20": 3, "13ec743": 4, "c3a8a87": 4, "be7d19e": 4}
LEARNT = [step for step in FLASHED if "learnt.hex" in names(step)]
"""What these boards learnt online is in the place of classes."""
NET = network("mlp-5", (4,), 3, Loss.softmax_cross_entropy, Activation.relu)
THETA = NET.initial_weights(7)
TABLE, X = bytes(range(255, -1, -1)), bytes([1, 2, 3, 4])
PROGRAM = program(TABLE, 4)


def talk(machine: Any, work: Callable[[LinkedBoard], Any]) -> Any:
    async def whole() -> Any:
        return await work(await LinkedBoard.connect(MachineWire(machine).open))

    return asyncio.run(whole())


def described(step: str, folder: Path) -> dict[str, Any]:
    """What a board with the firmware of the step says of itself."""
    frame = bytes.fromhex((unpacked(step, folder) / "flash" / "described.hex").read_text())
    message = uncobs(frame.rstrip(b"\0"))
    assert message is not None
    return dict(cbor2.loads(message[8:-2]))


@pytest.mark.parametrize("step", FLASHED)
def test_firmware_of_an_older_protocol_is_refused_and_of_this_one_taken(step: str, tmp_path: Path) -> None:
    then = described(step, tmp_path)
    assert then["protocol"] == PROTOCOLS[step]

    class Older(Double):
        def describe(self) -> dict[str, Any]:
            return then

    if then["protocol"] == PROTOCOL:
        assert talk(Older(buffer=1024), lambda board: board.describe()).board == BOARD
    else:
        with pytest.raises(Refused, match=rf"speaks protocol {then['protocol']} .* Flash it with the firmware of this version"):
            talk(Older(buffer=1024), lambda board: board.describe())


@pytest.fixture(scope="module")
def flashed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], Any]:
    """A machine with the firmware of this version in a flash that holds ``content`` from the identity record on."""
    for module in ("ziglang", "elftools", "unicorn"):
        need(module)
    from tinyfl.simulators.unicorn import Machine

    board = boards.load(BOARD)
    assert board.memory
    assert board.memory.identity - board.memory.flash.origin == BEHIND
    elf = build(board, tmp_path_factory.mktemp("firmware")).elf

    def start(content: bytes) -> Any:
        machine = Machine(elf, board, 1)
        ctypes.memmove(ctypes.addressof(machine._flash) + BEHIND, content, len(content))
        machine.power_cycle()
        return machine

    return start


@pytest.mark.parametrize("step", FLASHED)
def test_a_board_that_is_flashed_again_keeps_what_an_older_firmware_wrote(
    step: str, tmp_path: Path, flashed: Callable[[bytes], Any]
) -> None:
    machine = flashed(held(step, tmp_path))
    stores = PROTOCOLS[step] > 3

    async def work(board: LinkedBoard) -> list[Enrolled]:
        now = board.description
        assert (now.protocol, now.id) == (PROTOCOL, bytes([*bytes(7), 1]))
        assert (now.plan, now.model) == (sha256(NET.plan.bytes).digest(), sha256(floats(THETA)).digest())
        assert now.inference == sha256(PROGRAM).digest()
        assert await board.predict(X) == outputs(PROGRAM, X)
        assert np.isfinite(await board.infer(np.float32([1, 2, 3, 4]))).all()
        classes = Classes(board)
        return await classes.held() if now.classes and stores else []

    there = [Enrolled(0, 1, "a cat"), Enrolled(1, 2, "a dog")] if stores and step not in LEARNT else []
    assert talk(machine, work) == there
    assert talk(machine, enrolled) == (2 if stores else 1)
    machine.power_cycle()
    assert talk(machine, lambda board: Classes(board).held()) == [Enrolled(0, 1, "a bird")]


@pytest.mark.parametrize("step", LEARNT)
def test_a_board_that_is_flashed_again_goes_on_with_what_it_learnt_online(
    step: str, tmp_path: Path, flashed: Callable[[bytes], Any]
) -> None:
    machine = flashed(held(step, tmp_path))

    async def work(board: LinkedBoard) -> tuple[Watched, bytes]:
        online = OnlineBoard(board)
        watched = await online.watched()
        await online.listen("")
        await online.roll_back()
        return watched, await online.learnt()

    watched, learnt = talk(machine, work)
    assert (watched.names, watched.counts, watched.source) == (("idle", "moving"), (1, 1), "sine")
    assert learnt.hex() == (tmp_path / "learnt.hex").read_text().strip()


def held(step: str, folder: Path) -> bytes:
    """The flash of the step's board from its identity record on."""
    return (unpacked(step, folder) / "flash" / f"{BOARD}.bin").read_bytes()[BEHIND:]


async def enrolled(board: LinkedBoard) -> int:
    """Commits weights and classes over those that are there; the store's number of commits."""
    await board.commit(sha256(floats(THETA)).digest())
    classes = Classes(board)
    await classes.start(ClassSet("learner", sha256(floats(THETA)).digest(), 5))
    await classes.enrol(0, np.float32([1, 2, 3, 4]), "a bird")
    return await classes.commit()


def test_a_program_that_reached_to_where_the_store_is_now_is_gone_and_the_store_works(flashed: Callable[[bytes], Any]) -> None:
    large = program(TABLE, 4, after=b"tfl!" * 32_000)  # the slot had 128 KiB, and has 112
    slot = b"TFLS" + len(large).to_bytes(4, "little") + sha256(large).digest() + large
    machine = flashed(b"\xff" * (0x60000 - BEHIND) + slot)

    async def work(board: LinkedBoard) -> int:
        assert (board.description.inference, board.description.store) == (b"", 114_688)
        assert not await Classes(board).held()
        await board.put_plan(NET.plan.bytes)
        await board.put_weights(THETA)
        return await enrolled(board)

    assert talk(machine, work) == 1
    machine.power_cycle()
    assert talk(machine, lambda board: Classes(board).held()) == [Enrolled(0, 1, "a bird")]
