"""Boards on a desk as devices of a fleet: cables come and go, and no round's weights reach another board."""

from pathlib import Path

import numpy as np
import pytest
from desk import STRANGER, Desk
from double import Double

from tinyfl.algorithms import Inner
from tinyfl.devices.rack import Rack, opener_at
from tinyfl.fleet import Event
from tinyfl.fleets.linked import LinkFleet
from tinyfl.link.wire import Opener
from tinyfl.networks import network
from tinyfl.tasks.sine import Sine

SINE = Sine(5)
NETWORK = network("mlp-4", (1,), 1, SINE.loss, SINE.activation)
THETA = NETWORK.initial_weights(5)
BOTH = np.arange(2, dtype=np.uint32)


class Told(Double):
    """A board that knows who it was told to be in each round."""

    def __init__(self, id: bytes) -> None:
        super().__init__(id)
        self.devices: set[int] = set()

    def exchange(self, data: bytes) -> bytes:
        answer = super().exchange(data)
        if self.asked:
            self.devices.add(self.asked["device"])
        return answer


def plug(desk: Desk, name: str, board: Double, socket: str, serial: str) -> str:
    return desk.plug(name, board.exchange, usb=STRANGER, serial=serial, location=socket)


@pytest.mark.parametrize("serials", [("0001", "0001"), ("0001", "0002"), ("", "")], ids=["twins", "told apart", "none"])
@pytest.mark.parametrize("by_id", [False, True], ids=["by port", "by id"])
def test_a_board_whose_adapter_vanished_is_back_in_all_rounds_that_follow(
    desk: Desk, serials: tuple[str, str], by_id: bool
) -> None:
    boards = [Told(b"\1"), Told(b"\2")]
    urls = [plug(desk, f"ttyUSB{i}", boards[i], f"1-{i}", serials[i]) for i in range(2)]
    rack = Rack(urls)
    openers: list[Opener] = [rack.opener(f"0{i + 1}") if by_id else opener_at(urls[i]) for i in range(2)]
    events: list[Event] = []
    with LinkFleet(openers, SINE, NETWORK, on_event=events.append) as fleet:

        def left_out(round: int) -> list[str]:
            return list(fleet.run_each(BOTH, round, THETA, Inner(samples=2, rate=0.01)).reasons)

        assert left_out(0) == ["", ""]
        desk.unplug("ttyUSB1")
        assert [left_out(round) for round in (1, 2, 3)] == [["", "dead"]] * 3
        plug(desk, "ttyUSB5", boards[1], "1-1", serials[1])
        assert [left_out(round) for round in (4, 5)] == [["", ""]] * 2
    assert [board.devices for board in boards] == [{0}, {1}]


@pytest.mark.parametrize("by_id", [False, True], ids=["by port", "by id"])
def test_boards_whose_cables_were_changed_get_no_round_of_each_others(desk: Desk, by_id: bool) -> None:
    """Behind twins nothing but their ids tells them apart."""
    boards = [Told(b"\1"), Told(b"\2")]
    urls = [plug(desk, f"ttyUSB{i}", boards[i], f"1-{i}", "0001") for i in range(2)]
    rack = Rack(urls)
    openers: list[Opener] = [rack.opener(f"0{i + 1}") if by_id else opener_at(urls[i]) for i in range(2)]
    with LinkFleet(openers, SINE, NETWORK) as fleet:
        inner = Inner(samples=2, rate=0.01)
        assert fleet.run_each(BOTH, 0, THETA, inner).reasons == ("", "")
        desk.clear()
        for i in range(2):
            plug(desk, f"ttyUSB{i}", boards[1 - i], f"1-{i}", "0001")
        reasons = [fleet.run_each(BOTH, round, THETA, inner).reasons for round in (1, 2, 3)]
        assert reasons[-1] == (("", "") if by_id else ("refused", "refused"))
    assert [board.devices for board in boards] == [{0}, {1}]


def test_a_link_to_a_port_is_that_port(desk: Desk, tmp_path: Path) -> None:
    board = Told(b"\1")
    (tmp_path / "by-id").symlink_to(plug(desk, "ttyUSB0", board, "1-1", "A"))
    with LinkFleet([opener_at(str(tmp_path / "by-id"))], SINE, NETWORK) as fleet:
        assert fleet.run_each(BOTH[:1], 0, THETA, Inner(samples=2, rate=0.01)).reasons == ("",)
