"""Rounds that go down as a change and up in a codec, over links: as the simulator has them, also with faults at every frame."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
from double import Double
from test_faults import ALONE, DIRECTIONS, KINDS, NETWORK, REASONS, TASK, THETA, Counted, Fault, Locked, faulty

from tinyfl.algorithms import Inner
from tinyfl.codecs import Codec
from tinyfl.codecs.down import Down
from tinyfl.core import F32
from tinyfl.errors import Refused
from tinyfl.fleet import Context
from tinyfl.fleets.linked import LinkFleet
from tinyfl.link.wire import MachineWire
from tinyfl.simulators.native import NativeFleet

INNER = Inner(samples=9, rate=0.02).sent_as(Codec.named("int4"))
DELTA = Down(Codec.named("int8"), True, NETWORK.arrays())


def chain(down: Down, rounds: int) -> list[tuple[F32, Context]]:
    """What devices start from in each round, and how it goes down."""
    started, told = None, []
    for round in range(rounds):
        started, encoded = down.sent(THETA * np.float32(1 + round / 8), started)
        told.append((started, Context(down=encoded)))
    return told


ROUNDS = chain(DELTA, 4)
NATIVE = [NativeFleet(TASK, NETWORK, 1).run_each(ALONE, round, start, INNER) for round, (start, _) in enumerate(ROUNDS)]


def play(opener: Any, rounds: range, between: Callable[[], None] = lambda: None) -> list[str]:
    """Plays these rounds, demands that each is right or left out, and returns the reasons."""
    reasons = []
    with LinkFleet([opener], TASK, NETWORK) as fleet:
        for round in rounds:
            start, context = ROUNDS[round]
            phis = fleet.run_each(ALONE, round, start, INNER, context)
            reasons += phis.reasons
            if not phis.reasons[0]:
                np.testing.assert_array_equal(phis.phi, NATIVE[round].phi)
            else:
                assert phis.reasons[0] in REASONS
            between()
    return reasons


@pytest.mark.parametrize("codec", ["fp16", "int8", "int4"])
@pytest.mark.parametrize("delta", [False, True])
def test_boards_start_from_what_the_codec_leaves_of_theta(new_board: Callable[[], Any], codec: str, delta: bool) -> None:
    native = NativeFleet(TASK, NETWORK, 1)
    with LinkFleet([MachineWire(new_board()).open], TASK, NETWORK) as fleet:
        for round, (start, context) in enumerate(chain(Down(Codec.named(codec), delta, NETWORK.arrays()), 3)):
            ours, theirs = fleet.run_each(ALONE, round, start, INNER, context), native.run_each(ALONE, round, start, INNER)
            assert ours.reasons == theirs.reasons == ("",)
            np.testing.assert_array_equal(ours.phi, theirs.phi)


def test_theta_goes_down_whole_to_a_board_that_has_lost_it_or_sat_out() -> None:
    class Counting(Double):
        forms: ClassVar[list[Any]] = []

        def put_weights(self, off: int, data: bytes, **announced: Any) -> dict[str, Any]:
            if off == 0:
                self.forms.append(announced.get("codec", "whole"))
            return super().put_weights(off, data, **announced)

    machine = Counting()
    assert play(MachineWire(machine).open, range(4)) == [""] * 4
    assert machine.forms == ["whole", 2, 2, 2]
    machine.forms.clear()
    assert play(MachineWire(machine).open, range(4), machine.reset) == [""] * 4
    assert machine.forms == ["whole", 2, "whole", 2, "whole", 2, "whole"]  # a change first, which the board finds stale
    machine.forms.clear()
    assert play(MachineWire(machine).open, range(0, 4, 2)) == [""] * 2
    assert machine.forms == ["whole", "whole"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_at_every_frame_of_a_change_leaves_a_right_update_or_none(new_board: Callable[[], Any], kind: Any) -> None:
    counted = Counted(new_board())
    seen = list[dict[str, int]]()
    play(MachineWire(counted).open, range(2), lambda: seen.append(dict(counted.frames)))
    for direction in DIRECTIONS:
        for frame in range(seen[0][direction], seen[1][direction]):
            board = Locked(new_board())
            fault = Fault(direction, frame, kind, {"flip": 397, "truncate": 9}.get(kind, 0))
            reasons = play(faulty(MachineWire(board).open, [fault], board.reset), range(3))
            assert reasons[0] == ""
            if kind != "silence":
                assert reasons[2] == "", fault
            if kind not in ("silence", "reset"):
                assert reasons == ["", "", ""], fault


def test_a_board_that_cannot_take_a_change_is_left_out_with_a_cure() -> None:
    class Former(Double):
        def describe(self) -> dict[str, Any]:
            return {key: value for key, value in super().describe().items() if key != "down"}

    events = list[Any]()
    start, context = ROUNDS[0]
    with LinkFleet([MachineWire(Former()).open], TASK, NETWORK, on_event=events.append) as fleet:
        assert fleet.run_each(ALONE, 0, start, INNER, context).reasons == (Refused.reason,)
    assert "cannot take weights as delta. Flash it with the firmware of this version" in events[-1].detail
