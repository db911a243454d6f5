"""A fleet of boards on wires, with the whole cohort in parallel: the Fleet interface over links.

Boards run the same source as the native fleet, so a round gives the same bits everywhere. A board that fails, or makes tinyfl
fail, is left out with its reason and reconnected at its next round: a board that returns rejoins, and a dead one costs only a
probe in parallel to the others.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl import core
from tinyfl.algorithms import ALL, Inner, Returns, Updates
from tinyfl.codecs import FP32, Kind, decode
from tinyfl.codecs.down import Encoded
from tinyfl.core import F32, U32, SineSource
from tinyfl.errors import Corrupt, LinkError, Numeric, Refused, Stale, TooSmall
from tinyfl.errors.words import plain
from tinyfl.fleet import ALONE, BOARD_CURE, Carried, Context, Event, Phis, summed, summed_parts
from tinyfl.fleets.sensing import demand_sensor, word_on
from tinyfl.link import SINE
from tinyfl.link.board import LinkedBoard, Round, floats, limit
from tinyfl.link.defects import confined
from tinyfl.link.line import Line
from tinyfl.link.status import BoardState, Description, Status
from tinyfl.link.transfers import Step
from tinyfl.link.turns import Turns, turn
from tinyfl.link.wire import Opener
from tinyfl.networks import Network
from tinyfl.system.loop import MAX_THREADS, every
from tinyfl.tasks import Task
from tinyfl.tasks.sensor import class_names

PROBE_SECONDS = 3.0
"""Time limit for a board's first reply in a round, in seconds, with up to SHARERS boards on its line; with more, longer."""

SHARERS = 4

MAX_DETAIL = 500
"""Maximum length of an event's detail, in characters."""

MAX_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass
class _Slot:
    """A device of the fleet: the opener of its link, and its board while connected."""

    opener: Opener
    turns: Turns
    board: LinkedBoard | None = None
    id: str = ""
    held: bytes = b""
    """The SHA-256 of the weights that the board was last told to hold."""


@dataclass(frozen=True)
class _RoundWork:
    """A round's parameters, the same for all devices."""

    round: int
    theta: F32
    base: bytes
    inner: Inner
    context: Context
    identified: dict[int, asyncio.Event]
    """Set for each device once its board, if any, is identified."""


@dataclass(frozen=True)
class _Outcome:
    """A device's part in a round, as in Phis."""

    phi: F32
    loss: float
    reason: str
    kept_from: int = 0


class LinkFleet:
    """Device ``first`` + i is the board behind ``openers[i]``; a connected board has ``seconds`` for its part of a round.

    With ``shared``, the boards hang on one line and their transfers take turns; waiting for a turn does not count.

    A board counts as one device: the first that it answered as, or the lowest of several in the same round. ``on_event`` is
    called from the fleet's own thread. Close the fleet, or use it in a ``with``, to close the ports.

    With ``sensor`` boards learn from their own source of that name, not from the task's samples; where they have recorded
    readings, ``seed``, device and round decide where a round begins in them.
    """

    boards = True

    def __init__(
        self,
        openers: Sequence[Opener],
        task: Task,
        network: Network,
        *,
        first: int = 0,
        seconds: float = 60.0,
        shared: bool = False,
        on_event: Callable[[Event], None] | None = None,
        sensor: str = "",
        seed: int = 0,
    ) -> None:
        self._sensor, self._seed = sensor, seed
        self.size, self.task, self.network, self.seconds = len(openers), task, network, seconds
        self._plan = network.plan.bytes
        self._plan_sha = sha256(self._plan).digest()
        turns = Turns(self.size)
        self._slots = {first + i: _Slot(opener, turns if shared else Turns()) for i, opener in enumerate(openers)}
        self._on_event = on_event or (lambda event: None)
        self._carried: dict[str, Carried] = {}
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(MAX_THREADS))
        self._thread = threading.Thread(target=self._loop.run_forever, name="tinyfl-link", daemon=True)
        self._thread.start()

    def run(self, cohort: U32, round: int, theta: F32, inner: Inner, context: Context = ALONE) -> Updates:
        """One round on the devices ``cohort``, summed exactly."""
        return summed(cohort, theta, self.run_each(cohort, round, theta, inner, context))

    def run_each(self, cohort: U32, round: int, theta: F32, inner: Inner, context: Context = ALONE) -> Phis:
        """One round on the devices ``cohort``, with separate updates."""
        base, identified = sha256(floats(theta)).digest(), {int(d): asyncio.Event() for d in cohort}
        outcomes = self._wait(self._cohort(_RoundWork(round, theta, base, inner, context, identified)))
        phi = np.stack([each.phi for each in outcomes]) if outcomes else np.empty((0, len(theta)), np.float32)
        loss = np.array([each.loss for each in outcomes], np.float32)
        ids = tuple(self._slots[device].id for device in identified)
        kept = tuple(each.kept_from for each in outcomes) if inner.keeps else ()
        return Phis(phi, loss, tuple(each.reason for each in outcomes), ids, kept)

    def carried(self) -> Mapping[str, Carried]:
        """As a LinkedFleet."""
        return self._wait(self._taken())  # type: ignore[no-any-return]

    async def _taken(self) -> Mapping[str, Carried]:
        taken, self._carried = self._carried, {}
        return taken

    @contextmanager
    def _carrying(self, part: str, slot: _Slot) -> Iterator[None]:
        """Counts what the line of ``slot`` carries inside, for ``part`` of PARTS."""
        began, before = self._loop.time(), slot.board.line if slot.board else Line()
        try:
            yield
        finally:
            now = slot.board.line if slot.board else before
            sent, received, *at_rate = (b - a for a, b in zip(astuple(before), astuple(now), strict=True))
            seconds = self._loop.time() - began
            self._carried |= summed_parts([self._carried, {part: Carried(1, sent, received, seconds, max(at_rate))}])

    def close(self) -> None:
        """Closes the ports; the boards keep their state."""
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> "LinkFleet":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    async def _close(self) -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await every(_disconnect(slot) for slot in self._slots.values())

    async def _cohort(self, work: _RoundWork) -> list[_Outcome]:
        """The outcome of each device, in the cohort's order."""
        return await every(self._device(device, work) for device in work.identified)

    async def _device(self, device: int, work: _RoundWork) -> _Outcome:
        """The outcome of one device. No failure of its board ends the round for others."""
        slot = self._slots[device]
        try:
            with confined():
                new = slot.board is None
                board = await self._connected(device, work)
                async with limit(self.seconds) as clock:
                    async with turn(slot.turns.down, clock) as end:
                        with self._carrying("down", slot):
                            await self._prepare(board, new, work)
                            await self._send_theta(slot, board, work, end)
                    with self._carrying("learn", slot):
                        status = await self._learn(board, device, work)
                    async with turn(slot.turns.up, clock) as end:
                        with self._carrying("up", slot):
                            learnt = await self._read(board, status, work, end)
        except LinkError as error:
            await _disconnect(slot)
            return self._left_out(device, work, error.reason, f"{error}{word_on(self._sensor, error)}")
        try:
            core.fixed(learnt.phi, work.theta)
        except ValueError as error:
            return self._left_out(device, work, core.Code.oversized.name, f"{error}.", learnt.loss)
        if not abs(learnt.loss) <= MAX_FLOAT32:
            why = f"the update counts, but its loss, {learnt.loss:g}, is left out of the round's mean"
            self._report(device, work, "no loss", why)
            return replace(learnt, loss=float("nan"))
        return learnt

    def _report(self, device: int, work: _RoundWork, what: str, detail: str) -> None:
        self._on_event(Event(work.round, device, self._slots[device].id, what, plain(detail, MAX_DETAIL)))

    def _left_out(self, device: int, work: _RoundWork, reason: str, why: str, loss: float = float("inf")) -> _Outcome:
        self._report(device, work, "left out", f"{reason}: {why}")
        return _Outcome(work.theta, loss, reason)

    async def _connected(self, device: int, work: _RoundWork) -> LinkedBoard:
        """Connects the device's board, or checks that the same board is still there."""
        slot = self._slots[device]
        within = min(PROBE_SECONDS * max(1, slot.turns.boards / SHARERS), self.seconds)
        try:
            if slot.board is None:
                with self._carrying("find", slot):
                    slot.board = await LinkedBoard.connect(slot.opener, within, slot.turns.boards)
                for lower in (identified for other, identified in work.identified.items() if other < device):
                    await lower.wait()  # if two devices reach the same board, always the lower one counts
                self._identify(slot, device, work)
            else:
                with self._carrying("find", slot):
                    described = await slot.board.describe(within)
                if described.id.hex() != slot.id:
                    raise Refused(f"another board answers where {slot.id} was. {BOARD_CURE}")
        finally:
            work.identified[device].set()
        return slot.board

    def _identify(self, slot: _Slot, device: int, work: _RoundWork) -> None:
        """Records the id of a connected board. Raises Refused for another board than before, or another device's board."""
        assert slot.board is not None
        described = slot.board.description
        id = described.id.hex()
        others = [number for number, other in self._slots.items() if other is not slot and other.id == id]
        if others or (slot.id and slot.id != id):
            which = f"which is device {others[0]} already" if others else f"where {slot.id} was before"
            raise Refused(f"board {id} answers, {which}. {BOARD_CURE}")
        what, slot.id = "back" if slot.id else "connected", id
        self._report(device, work, what, f"{described.board}, firmware {described.firmware}")

    async def _prepare(self, board: LinkedBoard, new: bool, work: _RoundWork) -> None:
        """Sends the board the network's plan, and aborts any unfinished round on a ``new`` connection.

        Raises TooSmall, before sending anything, if the board has too little memory.
        """
        described, down = board.description, work.context.down
        held = 4 * self.network.parameters if down and down.onto is not None else 0
        need = self.network.arena_bytes(work.inner) + held
        if work.inner.returns is Returns.meta_gradient:
            raise Refused(f"board {described.id.hex()} ({described.board}) has no second derivatives. Say --algorithm fomaml.")
        if missing := [what for what in work.inner.needs if what not in described.inner]:
            raise Refused(
                f"board {described.id.hex()} ({described.board}) has an inner loop without {', '.join(missing)}, which this "
                "algorithm needs. Flash it with the firmware of this version, or leave the board out."
            )
        if down and (missing := [what for what in down.needs if what not in described.down]):
            raise Refused(
                f"board {described.id.hex()} ({described.board}) cannot take weights as {', '.join(missing)}. Flash it with "
                "the firmware of this version, or leave --down and --delta out."
            )
        if self._sensor:
            demand_sensor(board, self._sensor, self.network, work.inner, class_names(self.task))
        if need > described.arena:
            raise TooSmall(
                f"{self.network.name} needs {need:,} bytes of arena to learn in batches of {work.inner.batch}; board "
                f"{described.id.hex()} ({described.board}) has {described.arena:,}. Choose a smaller --network, "
                f"{'or leave --delta out' if held else 'or leave --feedback out' if work.inner.residual else 'or --batch 1'}."
            )
        if new and (await board.status()).state == BoardState.learning:
            await board.abort()
        if described.plan != self._plan_sha:
            await board.put_plan(self._plan)

    async def _send_theta(self, slot: _Slot, board: LinkedBoard, work: _RoundWork, on_last: Step) -> None:
        """Sends theta as the round has it: its change only to a board that holds what it has changed from. Calls ``on_last``
        when all is on its way."""
        down = work.context.down or Encoded(FP32, floats(work.theta))
        holds, slot.held = bool(slot.held) and slot.held == down.onto, b""
        if down.onto is None:
            await board.put_encoded(down, self.seconds, on_last)
            return
        if holds:
            try:
                await board.put_encoded(down, self.seconds, on_last)
            except Stale:  # it was restarted
                holds = False
        if not holds:
            await board.put_encoded(Encoded(FP32, floats(work.theta), b""), self.seconds, on_last)
        slot.held = work.base

    async def _learn(self, board: LinkedBoard, device: int, work: _RoundWork) -> Status:
        """The status of one device's board, which has theta, at the end of the round."""
        request, samples = await self._request(board.description, device, work)
        status = await board.train(request, self.seconds)
        if samples is not None:
            status = await board.feed(samples, self.seconds)
        if status.late:
            why = f"{status.late} of {status.done} samples of {request.source} came after its deadline; they count all the same"
            self._report(device, work, "late samples", why)
        _demand_round(status, request, work.inner.taken)
        return status

    async def _read(self, board: LinkedBoard, status: Status, work: _RoundWork, on_last: Step) -> _Outcome:
        """The outcome of a round with this ``status`` at its end. Calls ``on_last`` when all of it is requested."""
        up, arrays = work.inner.up, self.network.arrays(ALL & ~work.inner.local)
        data = await board.update(status, self.seconds, None if up.kind is Kind.top else up.bytes(arrays), on_last)
        update = _weights(data, sum(arrays)) if up == FP32 else decode(up, data, arrays)
        phi, sent = work.theta.copy(), self._sent(work.inner)
        adds = work.inner.returns is Returns.gradient or up != FP32
        phi[sent] = work.theta[sent] + update if adds else update
        return _Outcome(phi, status.loss, "", status.kept)

    def _sent(self, inner: Inner) -> NDArray[np.bool_]:
        """Which weights a board sends, bool (parameters,): all but those of local layers."""
        sent = np.ones(self.network.parameters, np.bool_)
        for layer in self.network.weighted_layers:
            sent[layer.weights] = not inner.local & layer.bit
        return sent

    async def _request(self, described: Description, device: int, work: _RoundWork) -> tuple[Round, F32 | None]:
        """The round for one device, and its samples float32 (samples of all passes, inputs + outputs); None if the board
        generates them."""
        inner, one = work.inner, np.array([device], np.uint32)
        if self._sensor:
            return Round(
                work.round, device, self._seed, inner.to_bytes(), work.base, self._sensor, work.context.run, work.context.saved
            ), None
        source = self.task.stream(one, work.round, inner.samples)
        on_board = isinstance(source, SineSource) and SINE in described.sources
        request = Round(
            round=work.round,
            device=device,
            seed=source.seed if isinstance(source, SineSource) else 0,
            inner=inner.to_bytes(),
            base=work.base,
            source=SINE if on_board else "",
            run=work.context.run,
            saved=work.context.saved,
        )
        if on_board:
            return request, None

        def generated() -> F32:
            x, y = core.samples(source, self.network.plan, one, work.round, inner.samples)
            return in_passes(np.concatenate([x[0], y[0]], axis=1), inner)

        return request, await asyncio.to_thread(generated)  # slow work, in a thread, since the fleet's deadlines go on


def in_passes(samples: F32, inner: Inner) -> F32:
    """The rows of ``samples`` (samples, any) in the order in which the inner loop takes them: a support set twice."""
    parts, first = [], 0
    for phase in inner.phases:
        mine = samples[first : first + phase.samples]
        parts.append(np.tile(np.concatenate([mine, mine[: phase.support]]), (phase.passes, 1)))
        first += phase.samples
    return np.concatenate(parts)


def _weights(data: bytes, count: int) -> F32:
    """The ``count`` floats of an update. Raises Corrupt for another number, Numeric where one is not finite."""
    if len(data) != 4 * count:
        raise Corrupt(f"the board returned {len(data):,} bytes, not the {4 * count:,} of {count:,} weights.")
    update = np.frombuffer(data, "<f4").astype(np.float32, copy=False)
    if not np.isfinite(update).all():
        raise Numeric("the board returned non-finite weights.")
    return update


def _demand_round(status: Status, request: Round, total: int) -> None:
    """Raises Stale unless ``status`` reports the requested round as done, after ``total`` samples."""
    if (status.state, status.round, status.base, status.done) != (BoardState.learnt, request.round, request.base, total):
        raise Stale(
            f"the board has learnt from {status.done} samples in round {status.round}, starting at {status.base.hex()[:8]}; "
            f"requested were {total} in round {request.round}, starting at {request.base.hex()[:8]}."
        )


async def _disconnect(slot: _Slot) -> None:
    board, slot.board, slot.held = slot.board, None, b""
    if board is not None:
        await board.close()
