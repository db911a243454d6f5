"""What a device keeps from round to round: the agent's blocks, the simulator's and the specification's are the same, however
its coordinator is interrupted."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import peer
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from peer import READ, WRITE, Board, floats, sha
from reference import sine_sample
from reference_inner import Inner, Kept, Phase, arena_bytes, inner_bytes, learnt, loop_bytes
from reference_layers import F32, dense, plan_bytes, read_plan, resting_bytes

from tinyfl import algorithms
from tinyfl.fleet import Context, Phis
from tinyfl.networks import network
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks.sine import Sine

TASK, DEVICE, FIRST = Sine(11), 5, 3
NETWORK = network("mlp-4-3", (1,), 1, TASK.loss, TASK.activation)
LAYERS, LOSS = read_plan(NETWORK.plan.bytes)
THETA = NETWORK.initial_weights(1)
MEMORY, BASE = 4, 6
READY, LEARNING, LEARNT, FAILED = range(2, 6)
LOCAL = st.sampled_from([4, 4, 4, 4, 1, 5])
TRAINED = Inner((Phase(2, rate=0.05), Phase(3, 2, 2, 0.05, pull=0.5)), kept=1, local=4)


def theta_of(round: int) -> F32:
    """A theta of its own for each round."""
    return (THETA * np.float32(1 + round / 16)).astype(np.float32)


def train(board: Board, inner: Inner, round: int, run: int = 1, saved: int = 0, source: str = "sine") -> Any:
    theta = floats(theta_of(round))
    board.put(2, theta)
    return board.ours(
        WRITE,
        3,
        round=round,
        device=DEVICE,
        seed=11,
        inner=inner_bytes(inner),
        base=sha(theta),
        source=source,
        run=run,
        saved=saved,
    )


def stream(round: int, samples: int) -> list[tuple[F32, F32]]:
    pairs = [sine_sample(11, DEVICE, round, index) for index in range(samples)]
    return [(np.array([x], np.float32), np.array([y], np.float32)) for x, y in pairs]


@dataclass
class Devices:
    """The device three times: on a board, in the simulator with its file, and as the specification says."""

    board: Board
    file: Path
    kept: Kept = field(default_factory=Kept)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """The device loses what it keeps."""
        self.board.start()
        self.board.put(1, NETWORK.plan.bytes)
        self.file.unlink(missing_ok=True)
        self.kept = Kept()
        self.reopen()

    def reopen(self) -> None:
        self.fleet = NativeFleet(TASK, NETWORK, 4, first=FIRST, memory=self.file)

    def round(self, inner: Inner, round: int, context: Context) -> None:
        theta = theta_of(round)
        native = self.native(inner, round, context)
        status = train(self.board, inner, round, context.run, context.saved)
        started = self.expected(inner, round, context)
        samples = stream(round, sum(phase.samples for phase in inner.phases))
        loop = learnt(LAYERS, LOSS, started, inner, samples, self.kept.residual(LAYERS) if inner.kept else None)
        number = self.kept.number if inner.kept else 0
        assert status["kept"] == number
        assert native.kept_from == ((number,) if inner.kept else ())
        if loop is None:
            assert (status["state"], status["code"], native.reasons) == (FAILED, -4, ("numeric",))
        else:
            assert native.reasons == ("",)
            assert self.board.weights() == loop.data
            assert native.phi[0].tobytes() == loop.phi(theta).tobytes()
            assert native.loss[0] == loop.loss == np.float32(status["loss"])
            if inner.kept:
                self.kept.store(loop.block, round)
        self.demand_the_same_blocks()

    def expected(self, inner: Inner, round: int, context: Context) -> F32:
        """The weights that the round starts from."""
        theta = theta_of(round)
        self.kept = self.kept.after(inner, LAYERS, context.run)
        if inner.kept:
            self.kept.recall(round, context.saved)
            self.kept.load(theta, LAYERS)
        return theta

    def cut(self, inner: Inner, round: int, context: Context) -> None:
        """A round that the board ends, while its coordinator is killed and a simulator in the middle of a block."""
        train(self.board, inner, round, context.run, context.saved)
        self.native(inner, round, context)
        assert self.fleet._kept is not None
        self.fleet._kept.blocks[DEVICE - FIRST, 0, 1:] = np.nan
        started = self.expected(inner, round, context)
        loop = learnt(LAYERS, LOSS, started, inner, stream(round, 5), self.kept.residual(LAYERS))
        assert loop is not None
        self.kept.store(loop.block, round)

    def abort(self, inner: Inner, round: int, context: Context) -> None:
        """A round that ends early: on the board by its host, in the simulator by the guard."""
        train(self.board, inner, round, context.run, context.saved, source="")
        assert self.board.ours(WRITE, 8)["code"] == -6
        self.native(replace(inner, returns=0, phases=(Phase(6, rate=1e14),)), round, context)
        self.expected(inner, round, context)
        self.demand_the_same_blocks()

    def native(self, inner: Inner, round: int, context: Context) -> Phis:
        loop = algorithms.Inner.from_bytes(inner_bytes(inner))
        return self.fleet.run_each(np.array([DEVICE], np.uint32), round, theta_of(round), loop, context)

    def demand_the_same_blocks(self) -> None:
        numbers, blocks = self.board.kept()
        assert numbers == [self.kept.number, self.kept.copied]
        for number, block, ours in zip(numbers, blocks, (self.kept.block, self.kept.copy), strict=True):
            assert not number or block.tobytes() == ours.tobytes()
        held = self.fleet._kept
        if held is not None and held.run == self.kept.run:
            assert held.rounds[DEVICE - FIRST].tolist() == numbers
            for number, block, ours in zip(numbers, held.blocks[DEVICE - FIRST], blocks, strict=True):
                assert not number or block.tobytes() == ours.tobytes()


class Coordinators(RuleBasedStateMachine):
    """Runs one after another, each of which may be killed, and goes on from its last checkpoint: the rounds after it are then
    the same again."""

    def __init__(self, devices: Devices, trained: Inner) -> None:
        super().__init__()
        self.trained = trained
        devices.restart()
        self.devices, self.context, self.next = devices, Context(1, 0), 0
        self.plan: list[Inner | None] = []
        """Of each round of the run: the device's inner loop; None where it takes no part."""

    def planned(self, inner: Inner | None) -> Inner | None:
        """The next round's inner loop: this one, unless the round is a repeated one."""
        if self.next == len(self.plan):
            self.plan.append(inner)
        return self.plan[self.next]

    def play(self, inner: Inner | None) -> None:
        inner = self.planned(inner)
        if inner:
            self.devices.round(inner, self.next, self.context)
        self.next += 1

    @rule(local=LOCAL)
    def round(self, local: int) -> None:
        self.play(replace(self.trained, local=local))

    @rule(local=LOCAL)
    def return_a_gradient(self, local: int) -> None:
        self.play(replace(self.trained, local=local, returns=1, phases=(*self.trained.phases, Phase(1))))

    @rule()
    def sit_out(self) -> None:
        self.play(None)

    @rule()
    def fail(self) -> None:
        self.play(replace(self.trained, phases=(Phase(6, rate=1e14),)))

    @rule(local=LOCAL)
    def keep_nothing(self, local: int) -> None:
        self.play(replace(self.trained, local=local, kept=0))

    @rule()
    def checkpoint(self) -> None:
        self.context = Context(self.context.run, max(self.next, self.context.saved))

    @rule()
    def resume(self) -> None:
        self.devices.reopen()
        self.next = self.context.saved

    @rule()
    def cut(self) -> None:
        if self.planned(self.trained) == self.trained:
            self.devices.cut(self.trained, self.next, self.context)
        self.resume()

    @rule()
    def abort(self) -> None:
        inner = self.planned(self.trained)
        if inner:
            self.devices.abort(inner, self.next, self.context)
        self.next += 1

    @precondition(lambda self: self.next > 2)
    @rule()
    def begin_another(self) -> None:
        self.context, self.next, self.plan = Context(self.context.run + 1, 0), 0, []
        self.devices.reopen()

    @precondition(lambda self: self.next > 2)
    @rule()
    def lose_power(self) -> None:
        self.devices.restart()


KEEPERS = {
    "layers": TRAINED,
    "residual": replace(TRAINED, kept=2, up=(3, 0)),
    "both": replace(TRAINED, kept=3, up=(4, 2500)),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", KEEPERS)
def test_board_simulator_and_specification_keep_the_same_blocks_through_kills_and_resumes(
    built: Board, tmp_path: Path, what: str
) -> None:
    devices = Devices(built, tmp_path / "kept")
    run_state_machine_as_test(
        lambda: Coordinators(devices, KEEPERS[what]), settings=settings(max_examples=24, stateful_step_count=25, deadline=None)
    )


@pytest.fixture
def devices(built: Board, tmp_path: Path) -> Devices:
    return Devices(built, tmp_path / "kept")


def test_a_resumed_run_repeats_its_rounds_from_the_block_of_its_checkpoint(devices: Devices) -> None:
    for round in range(6):
        devices.round(TRAINED, round, Context(1, round // 2 * 2))
    first, _ = devices.board.kept()
    assert first == [6, 4]
    devices.reopen()
    once = devices.board.kept()[1][0].tobytes()
    for round in (4, 5):
        devices.round(TRAINED, round, Context(1, 4))
    assert devices.board.kept()[1][0].tobytes() == once


@pytest.mark.parametrize("lost", ["restart", "run", "mask", "checkpoint"])
def test_what_a_device_no_longer_has_starts_from_theta_and_the_board_says_so(devices: Devices, lost: str) -> None:
    for round in range(4):
        devices.round(TRAINED, round, Context(1, 2))
    inner, context = TRAINED, Context(1, 3)
    if lost == "restart":
        devices.restart()
    elif lost == "run":
        context = Context(2, 0)
    elif lost == "mask":
        inner = replace(TRAINED, local=5)
    else:  # an older one than the last
        context = Context(1, 1)
    devices.round(inner, context.saved, context)
    assert devices.board.status()["kept"] == 0


def test_a_round_that_keeps_nothing_leaves_no_mask_without_its_block(devices: Devices) -> None:
    """The next round with this mask needs memory of its own, and is refused where there is none."""
    nothing = replace(TRAINED, kept=0)
    devices.board.start(arena_bytes(LAYERS, nothing))
    devices.board.put(1, NETWORK.plan.bytes)
    assert train(devices.board, nothing, 0)["state"] == LEARNT
    assert train(devices.board, TRAINED, 1) == {"err": {"group": 65, "rc": MEMORY}}
    devices.board.start(arena_bytes(LAYERS, TRAINED))
    devices.board.put(1, NETWORK.plan.bytes)
    assert train(devices.board, nothing, 0)["state"] == LEARNT
    assert train(devices.board, TRAINED, 1)["state"] == LEARNT
    assert devices.board.kept()[1].shape == (2, 4)


def test_a_refused_round_costs_no_block(devices: Devices) -> None:
    devices.board.start(arena_bytes(LAYERS, TRAINED))
    devices.board.put(1, NETWORK.plan.bytes)
    assert train(devices.board, TRAINED, 0)["state"] == LEARNT
    before = devices.board.kept()
    assert train(devices.board, replace(TRAINED, local=7), 1) == {"err": {"group": 65, "rc": MEMORY}}
    stale = {"round": 1, "device": DEVICE, "seed": 11, "base": bytes(32), "source": "sine", "run": 9, "saved": 0}
    assert devices.board.refusal(WRITE, 3, **stale, inner=inner_bytes(replace(TRAINED, local=1))) == BASE
    after = devices.board.kept()
    assert after[0] == before[0] == [1, 0]
    assert after[1][0].tobytes() == before[1][0].tobytes()
    assert train(devices.board, TRAINED, 1)["kept"] == 1


def test_another_run_gives_the_memory_of_the_last_ones_blocks_back(devices: Devices) -> None:
    plain = Inner((Phase(3, 2, rate=0.1),))
    blocks = replace(TRAINED, phases=(Phase(2, rate=0.1),), local=7)
    assert loop_bytes(LAYERS, plain) <= arena_bytes(LAYERS, blocks) - resting_bytes(LAYERS)
    devices.board.start(arena_bytes(LAYERS, blocks))
    devices.board.put(1, NETWORK.plan.bytes)
    assert train(devices.board, blocks, 0)["state"] == LEARNT
    assert train(devices.board, plain, 1) == {"err": {"group": 65, "rc": MEMORY}}
    assert train(devices.board, plain, 1, run=2)["state"] == LEARNT
    assert devices.board.kept()[0] == [0, 0]


def test_an_update_of_a_board_whose_layers_are_all_local_is_empty(devices: Devices) -> None:
    inner = replace(TRAINED, local=(1 << 64) - 1)
    devices.board.start(arena_bytes(LAYERS, inner))
    devices.board.put(1, NETWORK.plan.bytes)
    for round in range(2):
        status = train(devices.board, inner, round)
        assert (status["state"], status["weights"], status["kept"]) == (LEARNT, sha(b""), round)
        assert devices.board.ours(READ, 2, off=0) == {"off": 0, "len": 0, "data": b""}


def test_weights_that_no_learner_could_start_from_are_not_kept(built: Board, tmp_path: Path) -> None:
    """Learning may carry a weight past the guard's bound; the block stays that of the round before."""
    layers, theta = [dense(1, 1, 0)], np.array([0, 1.1e15], np.float32)
    inner = Inner((Phase(1, rate=1.0),), kept=1, local=1)
    built.start()
    built.put(1, plan_bytes(layers, 0))
    for round, (target, state) in enumerate([(1.1e15, LEARNT), (1.6e15, FAILED)]):
        built.put(2, floats(theta))
        fields = {"device": 0, "seed": 0, "base": sha(floats(theta)), "source": "", "run": 1, "saved": 0}
        built.ours(WRITE, 3, round=round, **fields, inner=inner_bytes(inner))
        built.ours(WRITE, 4, off=0, data=floats([0, target]))
        samples = [(np.array([0], np.float32), np.array([target], np.float32))]
        assert (learnt(layers, 0, theta, inner, samples) is None) == (state == FAILED)
        status = built.status()
        assert (status["state"], status["code"]) == (state, -4 if state == FAILED else 0)
    numbers, blocks = built.kept()
    assert numbers == [1, 0]
    assert blocks[0].tobytes() == floats(theta)


def test_no_message_of_the_board_has_what_is_local(devices: Devices, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over rounds that keep a layer, everything the board ever says is searched for each learnt number of that layer."""
    said: list[bytes] = []
    exchange: Callable[[bytes], bytes] = devices.board.exchange

    def watched(data: bytes) -> bytes:
        reply = exchange(data)
        said.append(peer.unframe(reply))
        return reply

    monkeypatch.setattr(devices.board, "exchange", watched)
    secrets, sent = set[bytes](), set[bytes]()
    for round in range(4):
        devices.round(TRAINED, round, Context(1, round))
        secrets |= {number.tobytes() for number in devices.kept.block}
        update = devices.board.weights()
        sent |= {update[at : at + 4] for at in range(0, len(update), 4)}
        for off in range(0, len(update) + 40, 4):
            devices.board.ours(READ, 2, off=off)
        for command, fields in ((0, {}), (7, {}), (11, {"off": 0})):
            devices.board.ours(READ, command, **fields)
        for command in (5, 6, 11):
            devices.board.ours(WRITE, command, off=0, data=bytes(4))
        devices.board.ours(WRITE, 9, sha=sha(update))
        devices.board.ours(WRITE, 4, off=0, data=b"")
    everything = b"\xff".join(said)
    assert len(secrets) >= 12
    assert all(number in everything for number in sent)
    assert not any(number in everything for number in secrets)
