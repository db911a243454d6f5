"""One board over a wire in memory: what each method promises, and what it does when the far end does not."""

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
import reference
import reference_layers
from double import Double

from tinyfl.algorithms import Inner
from tinyfl.errors import Corrupt, Dead, Late, LinkError, Numeric, Refused, Stale
from tinyfl.link.board import LinkedBoard, Round, floats
from tinyfl.link.status import BoardState
from tinyfl.link.wire import MachineWire, Wire
from tinyfl.networks import Network, network
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks.sine import Sine

TASK = Sine(11)
NETWORK = network("mlp-12-12", (1,), 1, TASK.loss, TASK.activation)
THETA = NETWORK.initial_weights(2)
BASE = sha256(floats(THETA)).digest()
INNER = Inner(samples=8, rate=0.01)
ROUND = Round(round=4, device=6, seed=TASK.seed, inner=INNER.to_bytes(), base=BASE, source="sine")
F32 = np.float32

Script = Callable[[LinkedBoard], Awaitable[Any]]


def on(machine: Any, script: Script) -> Any:
    """Runs ``script`` on the machine's board."""

    async def connected() -> Any:
        return await script(await LinkedBoard.connect(MachineWire(machine).open))

    return asyncio.run(connected())


async def ready(board: LinkedBoard, made: Network = NETWORK) -> None:
    await board.put_plan(made.plan.bytes)
    await board.put_weights(THETA)


def test_board_describes_itself(new_board: Callable[[], Any]) -> None:
    async def script(board: LinkedBoard) -> None:
        described = board.description
        assert (described.protocol, described.core, described.buffer, described.window) == (4, 1, 512, 4)
        assert described.layers == ("dense", "conv", "depthwise", "max-pool", "average-pool")
        loops, codecs = (
            ("phases", "layers", "pull", "gradient", "local", "kept", "residual", "prototypes"),
            ("fp16", "int8", "int4"),
        )
        assert described.inner == (*loops, *codecs, "top")
        assert described.down == (*codecs, "delta")
        assert (described.dtypes, described.sources) == (("float32", "int8"), ("sine",))
        assert described.sensors == ()
        assert (described.plan, described.model) == (b"", b"")
        await ready(board)
        assert (await board.describe()).plan == sha256(NETWORK.plan.bytes).digest()

    on(new_board(), script)


def test_weights_come_back_as_they_were_put(new_board: Callable[[], Any]) -> None:
    async def script(board: LinkedBoard) -> Any:
        await ready(board)
        assert (await board.status()).state == BoardState.ready
        return await board.weights()

    np.testing.assert_array_equal(on(new_board(), script), THETA)


def test_round_on_a_board_is_that_of_the_native_fleet(new_board: Callable[[], Any]) -> None:
    async def script(board: LinkedBoard) -> Any:
        await ready(board)
        status = await board.train(ROUND)
        again = await board.train(ROUND)
        assert status == again
        return status, await board.weights(status)

    status, phi = on(new_board(), script)
    device = np.array([ROUND.device], np.uint32)
    native = NativeFleet(TASK, NETWORK, 10).run_each(device, ROUND.round, THETA, Inner(samples=8, rate=0.01))
    np.testing.assert_array_equal(phi, native.phi[0])
    assert F32(status.loss) == native.loss[0]
    assert (status.state, status.done, status.base) == (BoardState.learnt, 8, BASE)


def test_evaluate_and_infer_are_those_of_the_reference(new_board: Callable[[], Any]) -> None:
    samples = np.linspace(-1, 1, 300, dtype=F32).reshape(150, 2)

    async def script(board: LinkedBoard) -> Any:
        await ready(board)
        return await board.evaluate(samples), await board.infer(samples[0, :1])

    evaluated, output = on(new_board(), script)
    learner = reference.Learner(*reference_layers.read_plan(NETWORK.plan.bytes), THETA)
    outputs = [learner.forward(row[:1])[-1] for row in samples]
    losses = reference.total(np.array([(o - row[1:])[0] ** 2 for o, row in zip(outputs, samples, strict=True)], F32))
    assert (evaluated.samples, evaluated.right) == (150, 150)
    assert F32(evaluated.loss) == losses / F32(150)
    np.testing.assert_array_equal(output, outputs[0])


def test_committed_weights_survive_a_reset(new_board: Callable[[], Any]) -> None:
    machine = new_board()

    async def script(board: LinkedBoard) -> None:
        await ready(board)
        slot = await board.commit(BASE)
        assert await board.commit(BASE) == slot

    on(machine, script)
    machine.reset()

    async def after(board: LinkedBoard) -> Any:
        assert board.description.model == BASE
        return await board.weights()

    np.testing.assert_array_equal(on(machine, after), THETA)


def test_echo_abort_and_reset(new_board: Callable[[], Any]) -> None:
    async def script(board: LinkedBoard) -> None:
        assert await board.echo("µ") == "µ"
        await ready(board)
        assert (await board.train(Round(**{**vars(ROUND), "source": ""}))).state == BoardState.learning
        assert (await board.abort()).state == BoardState.failed
        with pytest.raises(Refused, match="was aborted"):
            await board.train(Round(**{**vars(ROUND), "source": ""}))
        await board.reset()

    on(new_board(), script)


async def stale(board: LinkedBoard) -> None:
    await ready(board)
    await board.train(Round(**{**vars(ROUND), "base": bytes(32)}))


async def unknown_source(board: LinkedBoard) -> None:
    await ready(board)
    await board.train(Round(**{**vars(ROUND), "source": "microphone"}))


async def without_weights(board: LinkedBoard) -> None:
    await board.weights()


async def infinite(board: LinkedBoard) -> None:
    await board.put_plan(NETWORK.plan.bytes)
    await board.put_weights(np.full_like(THETA, np.inf))


async def diverging(board: LinkedBoard) -> None:
    await ready(board)
    await board.train(Round(**{**vars(ROUND), "inner": Inner(samples=8, rate=1e9).to_bytes()}))


async def diverging_when_fed(board: LinkedBoard) -> None:
    await ready(board)
    await board.train(Round(**{**vars(ROUND), "source": "", "inner": Inner(samples=200, rate=0.01).to_bytes()}))
    await board.feed(np.full((200, 2), 1e20, F32))


async def bad_plan(board: LinkedBoard) -> None:
    await board.put_plan(b"TFLQ" + NETWORK.plan.bytes[4:])


async def half_a_sample(board: LinkedBoard) -> None:
    await ready(board)
    await board.infer(np.zeros(0, F32))


@pytest.mark.parametrize(
    ("script", "error", "says"),
    [
        (stale, Stale, "stale"),
        (unknown_source, Refused, "no source"),
        (without_weights, Stale, "no weights"),
        (infinite, Numeric, "not finite"),
        (diverging, Numeric, "not finite"),
        (diverging_when_fed, Numeric, "not finite"),
        (bad_plan, Refused, "refuses the plan"),
        (half_a_sample, Refused, "not one sample"),
    ],
)
def test_refusals_have_their_reason(new_board: Callable[[], Any], script: Script, error: type[LinkError], says: str) -> None:
    with pytest.raises(error, match=says):
        on(new_board(), script)


@pytest.mark.parametrize("key", ["protocol", "core"])
def test_another_version_is_refused_with_its_cure(key: str) -> None:
    class Newer(Double):
        def describe(self) -> dict[str, Any]:
            return {**super().describe(), key: 5}

    with pytest.raises(Refused, match=r"speaks (protocol|arithmetic) 5 .* Flash it"):
        on(Newer(), lambda board: board.describe())


def test_weights_that_change_on_the_way_are_corrupt() -> None:
    class Leaky(Double):
        def get_weights(self, off: int) -> dict[str, Any]:
            reply = super().get_weights(off)
            return {**reply, "data": bytes(len(reply["data"]))}

    async def script(board: LinkedBoard) -> None:
        await ready(board)
        await board.weights()

    with pytest.raises(Corrupt, match="do not have the hash"):
        on(Leaky(), script)


def test_weights_from_another_place_are_corrupt() -> None:
    class Skipping(Double):
        def get_weights(self, off: int) -> dict[str, Any]:
            return super().get_weights(off + 4)

    async def script(board: LinkedBoard) -> None:
        await ready(board)
        await board.weights()

    with pytest.raises(Corrupt, match=r"from offset 0, got .* from 4"):
        on(Skipping(), script)


def test_weights_without_an_end_are_late() -> None:
    class Endless(Double):
        def get_weights(self, off: int) -> dict[str, Any]:
            return {"off": off, "len": 1 << 26, "data": b"\0"}

    async def script(board: LinkedBoard) -> None:
        await ready(board)
        await board.weights(within=0.1)

    with pytest.raises(Late, match=r"within 0\.1 s"):
        on(Endless(), script)


@pytest.mark.parametrize("answer", [{}, {"off": "x"}, {"off": 10**6}, {"off": 0}, {"off": -1}])
def test_nonsense_for_an_offset_ends(answer: dict[str, Any]) -> None:
    class Confused(Double):
        def put_plan(self, **_: Any) -> dict[str, Any]:
            return answer

    with pytest.raises(Corrupt):
        on(Confused(), lambda board: board.put_plan(NETWORK.plan.bytes))


def test_an_answer_that_is_not_cbor_is_corrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    import double

    async def script(board: LinkedBoard) -> None:
        monkeypatch.setattr(double, "encode", lambda value: b"\xff\xff")
        await board.status()

    with pytest.raises(Corrupt, match="cannot be read"):
        on(Double(), script)


def test_of_what_a_board_has_no_more_than_a_window_is_sent_again() -> None:
    sent: list[int] = []
    larger = network("mlp-32-32", (1,), 1, TASK.loss, TASK.activation)
    theta = larger.initial_weights(2)

    class Watched(Double):
        def put_weights(self, off: int, data: bytes, **announced: Any) -> dict[str, Any]:
            sent.append(off)
            return super().put_weights(off, data, **announced)

    async def script(board: LinkedBoard) -> None:
        await board.put_plan(larger.plan.bytes)
        await board.put_weights(theta)
        blocks = len(sent)
        assert blocks > 8
        await board.put_weights(theta)
        assert len(sent[blocks:]) <= board.description.window == 4

    on(Watched(), script)


def test_a_transfer_that_was_cut_off_goes_on_where_it_stood() -> None:
    machine = Double()
    data = floats(THETA)

    async def script(board: LinkedBoard) -> Any:
        await board.put_plan(NETWORK.plan.bytes)
        machine.put_weights(off=0, data=data[:500], len=len(data), sha=BASE)
        machine.put_weights = lambda off, data, **_: (sent.append(off), Double.put_weights(machine, off, data, **_))[1]
        await board.put_weights(THETA)
        return await board.weights()

    sent: list[int] = []
    np.testing.assert_array_equal(on(machine, script), THETA)
    assert sent[:3] == [0, 445, 500]


def test_first_byte_may_be_lost() -> None:
    class Waking(Double):
        awake = False

        def exchange(self, data: bytes) -> bytes:
            data, self.awake = data if self.awake else data[1:], True
            return super().exchange(data)

    assert on(Waking(), lambda board: board.echo("there")) == "there"


def test_what_is_left_of_a_cut_frame_costs_the_next_request_nothing() -> None:
    class Watched(Double):
        exchanges = 0

        def exchange(self, data: bytes) -> bytes:
            self.exchanges += 1
            return super().exchange(data)

    machine = Watched()

    async def script(board: LinkedBoard) -> int:
        machine.exchange(b"\7half a frame")
        before = machine.exchanges
        assert await board.echo("whole") == "whole"
        return machine.exchanges - before

    assert on(machine, script) == 1


def test_machine_that_crashes_is_dead() -> None:
    class Crashing(Double):
        def status(self) -> dict[str, Any]:
            raise Corrupt("locked up at 0x00000000")  # any error of tinyfl's

    with pytest.raises(Dead, match="locked up"):
        on(Crashing(), lambda board: board.status())


class Mute:
    """A wire on which nothing comes back, nor ever will, unsaid."""

    patience = 0.001

    def __init__(self) -> None:
        self.sends = 0

    async def open(self) -> Wire:
        return self

    async def send(self, data: bytes) -> None:
        self.sends += 1

    async def receive(self) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async def close(self) -> None:
        pass


def test_silence_is_given_up_at_the_deadline() -> None:
    wire = Mute()
    with pytest.raises(Dead, match="nothing answers"):
        asyncio.run(LinkedBoard.connect(wire.open, within=0.05))
    assert 2 <= wire.sends <= 8


def test_work_without_an_end_is_late() -> None:
    wire = Mute()
    with pytest.raises(Late, match=r"within 0\.05 s"):
        asyncio.run(LinkedBoard(wire).train(ROUND, within=0.05))


def test_late_answers_to_earlier_requests_are_passed_over() -> None:
    class Slow(Double):
        """Answers each request only with the next one, beside its answer."""

        before = b""

        def exchange(self, data: bytes) -> bytes:
            answer = super().exchange(data)
            late, self.before = self.before, answer
            return late

    async def script(board: LinkedBoard) -> Any:
        return [await board.echo(word) for word in ("one", "two", "three")]

    assert on(Slow(), script) == ["one", "two", "three"]


@pytest.mark.parametrize("name", ["mlp-4", "mlp-7-3-5", "mlp"])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_board_with_just_the_arena_learns_and_one_with_a_byte_less_refuses(agent: Any, name: str, batch: int) -> None:
    made = network(name, (1,), 1, TASK.loss, TASK.activation)
    theta = made.initial_weights(1)
    inner = Inner(samples=8, batch=batch, rate=0.01)
    asked = Round(**{**vars(ROUND), "inner": inner.to_bytes(), "base": sha256(floats(theta)).digest()})

    async def script(board: LinkedBoard) -> Any:
        assert board.description.arena == arena
        await board.put_plan(made.plan.bytes)
        await board.put_weights(theta)
        return await board.train(asked)

    arena = made.arena_bytes(inner)
    agent.start(arena=arena)
    assert on(agent, script).state == BoardState.learnt
    arena -= 1
    agent.start(arena=arena)
    with pytest.raises(Refused, match="too small"):
        on(agent, script)
