"""Boards that share a line: their transfers go one after the other, whatever happens to one of them, and change no bit."""

import asyncio
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from double import Double, uncobs
from test_faults import DIRECTIONS, INNER, KINDS, TASK, Counted, Fault, Locked, faulty

from tinyfl.config.roster import Part
from tinyfl.core import FASTEST
from tinyfl.fleets.assembly import Training, opened, training
from tinyfl.fleets.linked import LinkFleet
from tinyfl.link.board import LinkedBoard
from tinyfl.link.turns import Turns, turn
from tinyfl.link.wire import EXCHANGE_BITS, FIRST_PATIENCE, MachineWire, Opener, Wire
from tinyfl.networks import Network, network
from tinyfl.simulators.native import NativeFleet

SMALL, LONG = (network(name, (1,), 1, TASK.loss, TASK.activation) for name in ("mlp-9-9", "mlp-24-24"))
WRITE, READ = (2, 2), (0, 2)
"""The operation and the command of requests with weights."""


class Watched:
    """A wire that writes down, in a list of all boards, which requests it carries."""

    def __init__(self, wire: Wire, board: int, log: list[tuple[int, tuple[int, int]]]) -> None:
        self.wire, self.board, self.log, self.patience = wire, board, log, wire.patience

    async def send(self, data: bytes) -> None:
        message = uncobs(data.strip(b"\0"))
        assert message
        self.log.append((self.board, (message[0] & 7, message[7])))
        await self.wire.send(data)

    async def receive(self) -> bytes:
        return await self.wire.receive()

    async def close(self) -> None:
        await self.wire.close()


@cache
def native(net: Network, boards: int) -> Any:
    everyone = np.arange(boards, dtype=np.uint32)
    return NativeFleet(TASK, net, boards).run_each(everyone, 0, net.initial_weights(3), INNER)


def learn(openers: list[Opener], net: Network, shared: bool = True) -> tuple[str, ...]:
    """A round on boards that share a line: the reasons of those left out. Updates must be the native fleet's."""
    with LinkFleet(openers, TASK, net, shared=shared) as fleet:
        ours = fleet.run_each(np.arange(len(openers), dtype=np.uint32), 0, net.initial_weights(3), INNER)
    theirs = native(net, len(openers))
    for device, reason in enumerate(ours.reasons):
        if not reason:
            np.testing.assert_array_equal(ours.phi[device], theirs.phi[device])
    return ours.reasons


def order(shared: bool, what: tuple[int, int]) -> list[int]:
    """The boards of a round in the order in which requests of this kind went to them, repeats in a row left out."""
    log: list[tuple[int, tuple[int, int]]] = []

    def watched(board: int) -> Opener:
        async def opener() -> Wire:
            return Watched(await MachineWire(Double(bytes([board + 1]))).open(), board, log)

        return opener

    assert learn([watched(board) for board in range(4)], LONG, shared) == ("",) * 4
    return [board for board, _ in groupby(board for board, seen in log if seen == what)]


@pytest.mark.parametrize("what", [WRITE, READ])
def test_on_a_shared_line_a_transfer_is_not_interrupted_by_anothers(what: tuple[int, int]) -> None:
    assert sorted(order(True, what)) == list(range(4))
    assert len(order(False, what)) > 4  # elsewhere all go at once


@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_at_every_frame_of_one_board_leaves_another_on_its_line_its_round(kind: Any) -> None:
    counted = Counted(Double(b"A"))
    assert learn([MachineWire(counted).open], SMALL) == ("",)
    for direction in DIRECTIONS:
        for frame in range(counted.frames[direction]):
            struck = Locked(Double(b"A"))
            fault = Fault(direction, frame, kind, 9 if kind in ("flip", "truncate") else 0)
            reasons = learn([faulty(MachineWire(struck).open, [fault], struck.reset), MachineWire(Double(b"B")).open], SMALL)
            assert reasons[1] == "", fault
            if kind not in ("silence", "reset"):
                assert reasons[0] == "", fault


def test_a_board_that_waits_for_its_turn_loses_none_of_its_time() -> None:
    async def script() -> None:
        line, clocks = Turns(2), list[asyncio.Timeout]()

        async def wait() -> None:
            async with asyncio.timeout(60) as clock:
                clocks.append(clock)
                async with turn(line.down, clock):
                    assert clock.when() is not None

        async with asyncio.timeout(60) as ours, turn(line.down, ours) as end:
            other = asyncio.create_task(wait())
            await asyncio.sleep(0)
            assert clocks[0].when() is None
            end()
            await other
            end()  # a transfer that had to be repeated says again that it ends

    asyncio.run(script())


def test_the_ports_of_a_part_share_a_line_if_it_says_so() -> None:
    for shared in (False, True):
        part = Part(ports=("/dev/a", "/dev/b"), shared=shared)
        with opened([part]) as site, training(site, Training(TASK, SMALL, FASTEST, 60.0), print) as fleet:
            lines = [slot.turns for slot in fleet._slots.values()]  # type: ignore[attr-defined]
        assert (lines[0] is lines[1], lines[0].boards) == (shared, 2 if shared else 1)


def test_a_turn_is_given_back_by_one_who_fails_or_gives_up_waiting() -> None:
    async def script() -> None:
        line = Turns(2)
        async with asyncio.timeout(60) as clock:
            with pytest.raises(ZeroDivisionError):
                async with turn(line.up, clock):
                    raise ZeroDivisionError
            async with turn(line.up, clock):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(line.up.acquire(), 0.001)
            async with turn(line.up, clock):
                pass

    asyncio.run(script())


def test_a_request_waits_for_an_exchange_of_each_board_on_the_line_before_it_is_sent_again() -> None:
    wire = MachineWire(Double())
    wire.patience = FIRST_PATIENCE + EXCHANGE_BITS / 115_200
    assert LinkedBoard(wire).patience == pytest.approx(wire.patience)
    assert LinkedBoard(wire, 16).patience == pytest.approx(FIRST_PATIENCE + 16 * EXCHANGE_BITS / 115_200)
