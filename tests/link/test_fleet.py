"""A fleet of boards ends with the native fleet's bits, and counts what goes wrong."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from double import Double

from tinyfl import core
from tinyfl.algorithms import Inner
from tinyfl.core import U32, TableSource
from tinyfl.fleet import Event, MixedFleet
from tinyfl.fleets.linked import LinkFleet
from tinyfl.link.wire import MachineWire
from tinyfl.networks import Activation, Dense, Loss, Network, network
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks.digits import digits
from tinyfl.tasks.sine import Sine

SINE = Sine(5)
SMALL = network("mlp-6-5", (1,), 1, SINE.loss, SINE.activation)
THETA = SMALL.initial_weights(5)
INNER = Inner(samples=8, rate=0.02)


def everyone(size: int) -> U32:
    return np.arange(size, dtype=np.uint32)


def doubles(size: int, **options: Any) -> list[Double]:
    return [Double(bytes([65 + i]), **options) for i in range(size)]


def fleet(boards: list[Any], task: Any = SINE, made: Network = SMALL, events: list[Event] | None = None) -> LinkFleet:
    return LinkFleet([MachineWire(b).open for b in boards], task, made, on_event=None if events is None else events.append)


@pytest.mark.parametrize("sources", [("sine",), ()], ids=["own samples", "fed samples"])
@pytest.mark.parametrize(
    "inner",
    [
        INNER,
        Inner(samples=7, batch=3, passes=2, rate=0.02, clip=0.5),
        Inner(samples=9, batch=20, passes=3, rate=0.05),
        Inner(samples=3, rate=0.0),
        Inner(samples=400, rate=0.001),
    ],
    ids=["online", "batches", "full batch", "rate 0", "many samples"],
)
def test_boards_and_native_fleet_end_with_the_same_sum(sources: tuple[str, ...], inner: Inner) -> None:
    native = NativeFleet(SINE, SMALL, 3)
    cohort = np.array([2, 0], np.uint32)
    with fleet(doubles(3, sources=sources)) as boards:
        for round in range(2):
            ours, theirs = (f.run(cohort, round, THETA, inner) for f in (boards, native))
            np.testing.assert_array_equal(ours.sum, theirs.sum)
            assert (ours.devices, ours.loss, ours.left_out) == (2, theirs.loss, {})


@pytest.mark.slow
def test_the_agents_own_c_ends_with_the_same_bits(agent: Any) -> None:
    frozen = Network(
        "frozen", (1,), (Dense(9), Dense(7, Activation.tanh, learns=False), Dense(1, Activation.identity)), SINE.loss
    )
    for made in (SMALL, frozen):
        agent.start()
        theta = made.initial_weights(1)
        native = NativeFleet(SINE, made, 1)
        with fleet([agent], made=made) as boards:
            for round, inner in enumerate((INNER, INNER, Inner(samples=10, batch=4, passes=2, rate=0.01, clip=1.0))):
                ours, theirs = (f.run_each(everyone(1), round, theta, inner) for f in (boards, native))
                np.testing.assert_array_equal(ours.phi, theirs.phi)
                np.testing.assert_array_equal(ours.loss, theirs.loss)


@pytest.mark.parametrize("name", ["mlp-12", "conv-3-5-leaky-relu", "dsconv-4-6-tanh"])
def test_digits_are_fed_to_a_board(new_board: Callable[[], Any], name: str) -> None:
    task = digits(1)
    made = network(name, task.shape, task.outputs, task.loss, task.activation)
    theta = made.initial_weights(1)
    with fleet([new_board()], task, made) as boards:
        ours, theirs = (
            f.run_each(everyone(1), 3, theta, Inner(samples=20, batch=1, passes=2, rate=0.01))
            for f in (boards, NativeFleet(task, made, 1))
        )
    np.testing.assert_array_equal(ours.phi, theirs.phi)
    np.testing.assert_array_equal(ours.loss, theirs.loss)


def test_the_same_round_again_has_the_same_result() -> None:
    with fleet(doubles(1)) as boards:
        first, second = (boards.run_each(everyone(1), 0, THETA, INNER) for _ in range(2))
        np.testing.assert_array_equal(first.phi, second.phi)


def test_failures_are_left_out_with_their_reasons_and_the_rest_goes_on() -> None:
    class Liar(Double):
        def status(self) -> dict[str, Any]:
            return {**super().status(), "base": bytes(32)}

        train = lambda self, **asked: (super().train(**asked), self.status())[1]  # noqa: E731

    class Leaky(Double):
        def get_weights(self, off: int) -> dict[str, Any]:
            reply = super().get_weights(off)
            return {**reply, "data": bytes(len(reply["data"]))}

    class Dumb(Double):
        def exchange(self, data: bytes) -> bytes:
            return b""

    class Foreign(Double):
        def describe(self) -> dict[str, Any]:
            return {**super().describe(), "protocol": 9}

    events: list[Event] = []
    machines = [Double(b"A"), Liar(b"B"), Leaky(b"C"), Dumb(b"D"), Foreign(b"E"), Double(b"F")]
    with fleet(machines, events=events) as boards:
        updates = boards.run(everyone(6), 0, THETA, INNER)
        phis = boards.run_each(everyone(6), 0, THETA, INNER)
    native = NativeFleet(SINE, SMALL, 6).run(np.array([0, 5], np.uint32), 0, THETA, INNER)
    np.testing.assert_array_equal(updates.sum, native.sum)
    assert (updates.devices, updates.loss) == (2, native.loss)
    assert updates.left_out == {"stale": 1, "corrupt": 1, "dead": 1, "refused": 1}
    assert phis.reasons == ("", "stale", "corrupt", "dead", "refused", "")
    np.testing.assert_array_equal(phis.phi[1:5], np.tile(THETA, (4, 1)))
    left = {event.device: event for event in events if event.what == "left out"}
    assert sorted(left) == [1, 2, 3, 4]
    assert left[2].board == b"C".hex()
    assert left[4].detail.startswith("refused: ")


def test_diverging_and_oversized_updates_are_counted_as_the_native_fleet_counts_them() -> None:
    for inner in (Inner(samples=8, rate=1e6), Inner(samples=1, rate=4000.0)):
        native = NativeFleet(SINE, SMALL, 4)
        with fleet(doubles(4)) as boards:
            ours, theirs = (f.run_each(everyone(4), 0, THETA, inner) for f in (boards, native))
        assert ours.reasons == theirs.reasons
        np.testing.assert_array_equal(ours.phi, theirs.phi)
        np.testing.assert_array_equal(ours.loss, theirs.loss)
    assert "oversized" in ours.reasons


def test_a_board_that_comes_back_joins_again() -> None:
    class Fading(Double):
        powered = True

        def exchange(self, data: bytes) -> bytes:
            return super().exchange(data) if self.powered else b""

    events: list[Event] = []
    machine = Fading()
    with fleet([machine], events=events) as boards:
        reasons = []
        for round, powered in enumerate((True, False, False, True, True)):
            if powered and not machine.powered:
                machine.reset()
            machine.powered = powered
            reasons += boards.run_each(everyone(1), round, THETA, INNER).reasons
    assert reasons == ["", "dead", "dead", "", ""]
    assert [event.what for event in events] == ["connected", "left out", "left out", "back"]
    assert [event.round for event in events] == [0, 1, 2, 3]


def test_a_board_that_restarted_between_rounds_loses_none() -> None:
    machine = Double()
    with fleet([machine]) as boards:
        for round in range(3):
            assert boards.run_each(everyone(1), round, THETA, INNER).reasons == ("",)
            machine.reset()


def test_a_plan_is_sent_once() -> None:
    class Counting(Double):
        plans = 0

        def put_plan(self, **block: Any) -> dict[str, Any]:
            self.plans += 1
            return super().put_plan(**block)

    machine = Counting()
    with fleet([machine]) as boards:
        for round in range(3):
            boards.run(everyone(1), round, THETA, INNER)
    assert machine.plans == 1


def test_what_a_device_left_under_way_is_ended_first() -> None:
    machine = Double()
    with fleet([machine]) as boards:
        boards.run(everyone(1), 0, THETA, INNER)
    machine.state = 3  # as if a coordinator had gone in the middle of a round
    with fleet([machine]) as boards:
        assert boards.run_each(everyone(1), 1, THETA, INNER).reasons == ("",)


def test_a_board_that_is_too_small_is_left_out_before_anything_is_sent() -> None:
    machine, events = Double(b"A", arena=300), list[Event]()
    with fleet([machine, Double(b"B")], events=events) as boards:
        updates = boards.run(everyone(2), 0, THETA, INNER)
    assert (updates.devices, updates.left_out, machine.state) == (1, {"too-small": 1}, 0)
    (left,) = (event for event in events if event.what == "left out")
    assert left.detail.startswith("too-small: mlp-6-5-tanh needs ")
    assert "has 300. Choose" in left.detail


def test_batches_need_more_arena() -> None:

    machine = Double(arena=SMALL.arena_bytes())
    with fleet([machine]) as boards:
        assert boards.run(everyone(1), 0, THETA, INNER).devices == 1
        assert boards.run(everyone(1), 0, THETA, Inner(samples=4, batch=2, rate=0.01)).left_out == {"too-small": 1}


def test_a_device_that_takes_too_long_is_late() -> None:
    import threading

    class Stuck(Double):
        go = threading.Event()

        def train(self, **asked: Any) -> dict[str, Any]:
            self.go.wait()
            return super().train(**asked)

    machine = Stuck()
    with LinkFleet([MachineWire(machine).open], SINE, SMALL, seconds=1) as boards:
        assert boards.run_each(everyone(1), 0, THETA, INNER).reasons == ("late",)
        machine.go.set()
        boards.seconds = 60
        assert boards.run_each(everyone(1), 1, THETA, INNER).reasons == ("",)


def test_a_fleet_may_be_a_part_of_a_larger_one() -> None:
    cohort = np.array([7, 8], np.uint32)
    with LinkFleet([MachineWire(board).open for board in doubles(2)], SINE, SMALL, first=7) as boards:
        ours = boards.run(cohort, 0, THETA, INNER)
    np.testing.assert_array_equal(ours.sum, NativeFleet(SINE, SMALL, 9).run(cohort, 0, THETA, INNER).sum)


def test_an_empty_cohort_has_no_updates() -> None:
    with fleet(doubles(1)) as boards:
        updates = boards.run(everyone(0), 0, THETA, INNER)
    assert (updates.devices, updates.sum.any()) == (0, False)


def test_a_fleet_of_boards_answers_behind_flowers_grid(new_board: Callable[[], Any]) -> None:
    from tinyfl.algorithms import State
    from tinyfl.algorithms.tinyreptile import TinyReptile
    from tinyfl.flower.grid import FleetGrid
    from tinyfl.flower.messages import theta_record
    from tinyfl.flower.strategy import FleetStrategy

    thetas = []
    with fleet([new_board()]) as boards:
        for nodes in (boards, NativeFleet(SINE, SMALL, 1)):
            seen: list[State] = []
            strategy = FleetStrategy(
                TinyReptile(rounds=3, samples=6), State(0, THETA), cohort=1, fleet_size=1, seed=1, each_device=False,
                on_round=lambda state, updates, seen=seen: seen.append(state),
            )  # fmt: skip
            strategy.start(FleetGrid(nodes), theta_record(THETA), num_rounds=3)
            thetas.append(seen[-1].theta)
    np.testing.assert_array_equal(*thetas)


def test_table_sources_with_labels_have_their_targets_one_hot() -> None:
    """A board learns from distributions, not class numbers: what is fed for a label is a row of zeros with a one."""
    made = Network("one", (2,), (Dense(3, Activation.identity),), Loss.softmax_cross_entropy)

    class Labelled:
        name, inputs, outputs, loss, activation = "labelled", 2, 3, Loss.softmax_cross_entropy, Activation.relu

        def stream(self, devices: U32, round: int, samples: int) -> TableSource:
            rows = np.arange(samples, dtype=np.int32)[None].repeat(len(devices), 0)
            return TableSource(np.arange(2 * samples, dtype=np.float32).reshape(-1, 2) / 9, rows, labels=rows % 3)

    theta = made.initial_weights(1)
    with fleet(doubles(1), Labelled(), made) as boards:
        ours, theirs = (f.run_each(everyone(1), 0, theta, INNER) for f in (boards, NativeFleet(Labelled(), made, 1)))
    np.testing.assert_array_equal(ours.phi, theirs.phi)


@pytest.mark.parametrize("same", [True, False], ids=["one board at two ports", "two boards of one id"])
def test_of_devices_with_one_id_the_lowest_counts(same: bool) -> None:
    """Whichever of them answers first."""
    events: list[Event] = []

    def opener(machine: Any, late: bool) -> Any:
        async def open() -> Any:
            await asyncio.sleep(0.05 * late)
            return await MachineWire(machine).open()

        return open

    for late in (0, 1):
        first = Double(b"A")
        machines = [first, first if same else Double(b"A"), Double(b"C")]
        openers = [opener(machine, i == late) for i, machine in enumerate(machines)]
        with LinkFleet(openers, SINE, SMALL, on_event=events.append) as boards:
            for round in range(2):
                ours = boards.run_each(everyone(3), round, THETA, INNER)
                assert ours.reasons == ("", "refused", "")
                theirs = NativeFleet(SINE, SMALL, 3).run_each(everyone(3), round, THETA, INNER)
                np.testing.assert_array_equal(ours.phi[[0, 2]], theirs.phi[[0, 2]])
    assert all("which is device 0 already" in event.detail for event in events if event.what == "left out")


@pytest.mark.parametrize("known", [False, True])
def test_one_id_counts_once_in_a_fleet_of_several_parts(known: bool) -> None:
    """As the device that is known to have it, else as the lowest."""
    keeps = 4 if known else 0
    events: list[Event] = []
    with (
        LinkFleet([MachineWire(board).open for board in (Double(b"A"), Double(b"B"))], SINE, SMALL) as one,
        LinkFleet([MachineWire(board).open for board in (Double(b"C"), Double(b"A"))], SINE, SMALL, first=3) as other,
    ):
        ids = {b"A".hex(): 4} if known else {}
        parts = MixedFleet([one, NativeFleet(SINE, SMALL, 1), other], ids=ids, on_event=events.append)
        counted = np.array([device for device in range(5) if device in (1, 2, 3, keeps)], np.uint32)
        native = NativeFleet(SINE, SMALL, 5)
        for round in range(2):
            summed = parts.run(everyone(5), round, THETA, INNER)
            apart = parts.run_each(everyone(5), round, THETA, INNER)
            right = native.run(counted, round, THETA, INNER)
            np.testing.assert_array_equal(summed.sum, right.sum)
            assert (summed.devices, summed.absent) == (4, {4 - keeps: "refused"})
            assert [bool(reason) for reason in apart.reasons] == [device == 4 - keeps for device in range(5)]
            assert apart.ids == (b"A".hex(), b"B".hex(), "", b"C".hex(), b"A".hex())
    assert all(f"which is device {keeps} already" in event.detail for event in events)
    assert len(events) == 4


def test_another_board_at_a_devices_port_is_refused() -> None:
    events: list[Event] = []
    boards = doubles(3)
    plugged = {"in": boards[1]}

    async def open() -> Any:
        return await MachineWire(plugged["in"]).open()

    with LinkFleet([open], SINE, SMALL, on_event=events.append) as one:
        assert one.run(everyone(1), 0, THETA, INNER).devices == 1
        boards[1].exchange = lambda data: b""  # unplugged
        assert one.run(everyone(1), 1, THETA, INNER).left_out == {"dead": 1}
        plugged["in"] = boards[2]
        assert one.run(everyone(1), 2, THETA, INNER).left_out == {"refused": 1}
    assert f"where {boards[1].id.hex()} was before" in events[-1].detail


def test_another_board_behind_an_open_port_is_noticed() -> None:
    """As where the USB adapter stays in and the board behind it is changed."""
    events: list[Event] = []
    boards = doubles(2)

    class Adapter:
        behind = boards[0]

        def exchange(self, data: bytes) -> bytes:
            return self.behind.exchange(data)

    adapter = Adapter()
    with fleet([adapter], events=events) as one:
        assert one.run(everyone(1), 0, THETA, INNER).devices == 1
        adapter.behind = boards[1]
        assert one.run(everyone(1), 1, THETA, INNER).left_out == {"refused": 1}
        adapter.behind = boards[0]
        assert one.run(everyone(1), 2, THETA, INNER).devices == 1
    assert "another board answers" in next(event for event in events if event.what == "left out").detail


def test_samples_are_made_beside_the_fleets_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """As deadlines and other boards' answers are, which would wait for them."""
    both, samples = threading.Barrier(2, timeout=300), core.samples

    def meeting(*arguments: Any) -> Any:
        both.wait()
        return samples(*arguments)

    monkeypatch.setattr(core, "samples", meeting)
    with fleet(doubles(2, sources=())) as boards:
        assert boards.run_each(everyone(2), 0, THETA, INNER).reasons == ("", "")
