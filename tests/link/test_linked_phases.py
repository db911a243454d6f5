"""Rounds of several phases over links: boards, Python's or the agent's own C, end with the bits of simulated devices; and what
is local stays on the board."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from double import Double
from peer import unframe

from tinyfl.algorithms import ALL, Inner, Phase
from tinyfl.errors import Refused
from tinyfl.fleet import Context, Event
from tinyfl.fleets.linked import LinkFleet
from tinyfl.link.board import LinkedBoard
from tinyfl.link.status import BoardState
from tinyfl.link.wire import MachineWire
from tinyfl.networks import network
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks.digits import digits
from tinyfl.tasks.sine import Sine

SINE = Sine(5)
SMALL = network("mlp-6-5", (1,), 1, SINE.loss, SINE.activation)
THETA = SMALL.initial_weights(5)
ONE = np.zeros(1, np.uint32)

LOOPS = {
    "two phases": Inner(Phase(5, 0.02, layers=4), Phase(7, 0.05, batch=3, passes=2, clip=0.5)),
    "pull": Inner(Phase(6, 0.05, pull=2.0), Phase(6, 0.05, batch=4, pull=0.5)),
    "gradient": Inner(Phase(6, 0.05), Phase(5, 0.0), returns="gradient"),
    "local head": Inner(Phase(4, 0.05, layers=4), Phase(6, 0.05), local=4),
    "kept head": Inner(Phase(4, 0.05, layers=4), Phase(6, 0.05, layers=ALL - 4), local=4, kept=True),
    "kept first layer": Inner(Phase(4, 0.05, batch=2), local=1, kept=True),
    "local middle, gradient": Inner(Phase(4, 0.05), Phase(4, 0.0), returns="gradient", local=2, kept=True),
}


def fleet(boards: list[Any], task: Any = SINE, made: Any = SMALL, events: list[Event] | None = None) -> LinkFleet:
    return LinkFleet([MachineWire(b).open for b in boards], task, made, on_event=None if events is None else events.append)


@pytest.mark.parametrize("name", LOOPS)
def test_boards_and_simulated_devices_end_with_the_same_bits_round_after_round(new_board: Callable[[], Any], name: str) -> None:
    """With a checkpoint after every second round; then the last rounds again, as a coordinator repeats them."""
    native = NativeFleet(SINE, SMALL, 1)
    with fleet([new_board()]) as boards:
        for round, saved in [(0, 0), (1, 0), (2, 2), (3, 2), (2, 2), (3, 2), (4, 4)]:
            ours, theirs = (
                f.run_each(ONE, round, THETA * (1 + round), LOOPS[name], Context(9, saved)) for f in (boards, native)
            )
            assert ours.reasons == theirs.reasons == ("",)
            np.testing.assert_array_equal(ours.phi, theirs.phi)
            np.testing.assert_array_equal(ours.loss, theirs.loss)
            assert ours.kept_from == theirs.kept_from == ((round,) if LOOPS[name].kept else ())


def test_samples_of_every_phase_are_fed_in_order() -> None:
    task = digits(1)
    made = network("conv-3-5-leaky-relu", (8, 8, 1), task.outputs, task.loss, task.activation)
    theta = made.initial_weights(2)
    head = made.weighted_layers[-1].bit
    inner = Inner(Phase(5, 0.05, passes=2, layers=head), Phase(6, 0.05, batch=4, passes=2, pull=1.0), local=head, kept=True)
    native = NativeFleet(task, made, 1)
    with fleet([Double()], task, made) as boards:
        for round in range(2):
            ours, theirs = (f.run_each(ONE, round, theta, inner) for f in (boards, native))
            np.testing.assert_array_equal(ours.phi, theirs.phi)


class Watched:
    """A board whose every message is noted."""

    def __init__(self, board: Any) -> None:
        self.board, self.said = board, list[bytes]()
        self.reset = board.reset

    def exchange(self, data: bytes) -> bytes:
        answer: bytes = self.board.exchange(data)
        self.said += [unframe(frame + b"\0") for frame in answer.split(b"\0")[:-1]]
        return answer


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_no_message_has_a_number_of_a_local_layer(new_board: Callable[[], Any], layer: int) -> None:
    place = SMALL.weighted_layers[layer]
    inner = Inner(Phase(4, 0.05), Phase(4, 0.05, batch=2), local=place.bit, kept=True)
    board, simulated = Watched(new_board()), NativeFleet(SINE, SMALL, 1)
    secrets, sent = set[bytes](), set[bytes]()
    with fleet([board]) as boards:
        for round in range(4):
            phi = boards.run_each(ONE, round, THETA, inner).phi[0]
            simulated.run_each(ONE, round, THETA, inner)
            assert simulated._kept is not None
            secrets |= {number.tobytes() for number in simulated._kept.blocks[0, 0] if number}
            np.testing.assert_array_equal(phi[place.weights], THETA[place.weights])
            sent |= {number.tobytes() for number in np.delete(phi, np.r_[place.weights])}
    everything = b"\xff".join(board.said)
    assert len(secrets) >= 4 * len(THETA[place.weights]) - 8
    assert all(number in everything for number in sent)
    assert not any(number in everything for number in secrets)


def test_beyond_the_update_a_board_reads_nothing_out(new_board: Callable[[], Any]) -> None:
    async def script() -> None:
        board = await LinkedBoard.connect(MachineWire(machine).open)
        status = await board.status()
        assert status.state == BoardState.learnt
        update = await board.weights(status)
        assert update.size == SMALL.parameters - len(THETA[SMALL.weighted_layers[2].weights])
        with pytest.raises(Refused):
            await board.infer(np.zeros(1, np.float32))
        with pytest.raises(Refused):
            await board.evaluate(np.zeros((1, 2), np.float32))
        with pytest.raises(Refused):
            await board.commit(status.weights)

    machine = new_board()
    with fleet([machine]) as boards:
        boards.run_each(ONE, 0, THETA, LOOPS["local head"])
    asyncio.run(script())


def test_a_board_that_lacks_what_an_inner_loop_needs_is_refused_by_name() -> None:
    class Simple(Double):
        def describe(self) -> dict[str, Any]:
            return {**super().describe(), "inner": ["phases", "gradient"]}

    events = list[Event]()
    with fleet([Simple()], events=events) as boards:
        assert boards.run_each(ONE, 0, THETA, LOOPS["gradient"]).reasons == ("",)
        assert boards.run_each(ONE, 1, THETA, LOOPS["kept head"]).reasons == ("refused",)
    assert "without layers, local, kept, which" in events[-1].detail


def test_a_board_that_sends_more_or_less_than_the_update_is_left_out() -> None:
    class Open(Double):
        def here(self) -> bytes:
            return self.loop.weights.tobytes() if self.state == BoardState.learnt else super().here()

    with fleet([Open()]) as boards:
        assert boards.run_each(ONE, 0, THETA, LOOPS["local head"]).reasons == ("corrupt",)


@pytest.mark.parametrize("name", LOOPS)
def test_a_board_with_just_the_arena_takes_part_and_one_with_a_byte_less_is_too_small(agent: Any, name: str) -> None:
    need = SMALL.arena_bytes(LOOPS[name])
    for arena, reason in ((need, ""), (need - 1, "too-small")):
        agent.start(arena=arena)
        with fleet([agent]) as boards:
            assert boards.run_each(ONE, 0, THETA, LOOPS[name]).reasons == (reason,)
