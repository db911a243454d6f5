"""A fleet of boards at the far ends of wires, all of a cohort at once: the Fleet seam over links.

A board learns by the same source as the native fleet, so a round has the same bits wherever it runs. A board that fails, or
makes tinyfl fail, is left out with its reason and connected anew at its next round, so one that comes back joins again, and
one that stays dead costs a probe, beside the others.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from tinyfl import core
from tinyfl.algorithms import Inner, Updates
from tinyfl.core import F32, U32, SineSource
from tinyfl.errors import Corrupt, LinkError, Numeric, Refused, Stale, TooSmall
from tinyfl.errors.words import plain
from tinyfl.fleet import PUT_RIGHT, Event, Phis, summed
from tinyfl.link.board import BoardState, Description, LinkedBoard, Round, Status, floats, limit
from tinyfl.link.defects import one_device
from tinyfl.link.wire import Opener
from tinyfl.networks import Network
from tinyfl.tasks import Task

PROBE_SECONDS = 3.0
"""What a board may take to answer at the start of a round."""

MAX_THREADS = 64
"""Ports that open, and emulated boards that run, at once."""

MAX_DETAIL = 500
"""Characters of an event's words."""

LARGEST = float(np.finfo(np.float32).max)

SINE = "sine"


@dataclass
class _Seat:
    """A device of the fleet: how to reach its board, and the board while it is there."""

    opener: Opener
    board: LinkedBoard | None = None
    id: str = ""


@dataclass(frozen=True)
class _Work:
    """A round, the same for all devices."""

    round: int
    theta: F32
    base: bytes
    inner: Inner
    known: dict[int, asyncio.Event]
    """Set for each device once it is known which board is there, if any."""


class LinkFleet:
    """Device ``first`` + i is the board behind ``openers[i]``; once reached, each may take ``seconds`` for its part of a round.

    A board counts as one device: the one that it was first, or the lowest of those that it is at once. ``on_event`` is called
    from the fleet's own thread. Close the fleet, or use it in a ``with``, to let the ports go.
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
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self.size, self.task, self.network, self.seconds = len(openers), task, network, seconds
        self._plan = network.plan.bytes
        self._plan_sha = sha256(self._plan).digest()
        self._seats = {first + i: _Seat(opener) for i, opener in enumerate(openers)}
        self._tell = on_event or (lambda event: None)
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(MAX_THREADS))
        self._thread = threading.Thread(target=self._loop.run_forever, name="tinyfl-link", daemon=True)
        self._thread.start()

    def run(self, cohort: U32, round: int, theta: F32, inner: Inner) -> Updates:
        """One round on the devices ``cohort``, summed exactly."""
        return summed(cohort, theta, self.run_each(cohort, round, theta, inner))

    def run_each(self, cohort: U32, round: int, theta: F32, inner: Inner) -> Phis:
        """The same with each device's update kept apart."""
        work = _Work(round, theta, sha256(floats(theta)).digest(), inner, {int(d): asyncio.Event() for d in cohort})
        outcomes = self._wait(self._cohort(work))
        phi = np.stack([outcome[0] for outcome in outcomes]) if outcomes else np.empty((0, len(theta)), np.float32)
        loss = np.array([outcome[1] for outcome in outcomes], np.float32)
        ids = tuple(self._seats[device].id for device in work.known)
        return Phis(phi, loss, tuple(o[2] for o in outcomes), ids)

    def close(self) -> None:
        """Lets the ports go; the boards stay as they are."""
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
        await asyncio.gather(*(_let_go(seat) for seat in self._seats.values()))

    async def _cohort(self, work: _Work) -> list[tuple[F32, float, str]]:
        """(phi, loss, reason) of each device, in the cohort's order."""
        outcomes = await asyncio.gather(*(self._device(device, work) for device in work.known), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]

    async def _device(self, device: int, work: _Work) -> tuple[F32, float, str]:
        """What becomes of one device. Nothing that its board does ends the round for others."""
        seat = self._seats[device]
        try:
            with one_device():
                new = seat.board is None
                board = await self._reached(device, work)
                async with limit(self.seconds):
                    await self._prepare(board, new, work)
                    phi, loss = await self._learn(board, device, work)
        except LinkError as error:
            await _let_go(seat)
            return self._without(device, work, error.reason, str(error))
        try:
            core.fixed(phi, work.theta)
        except ValueError as error:
            return self._without(device, work, core.Code.oversized.name, f"{error}.", loss)
        if not abs(loss) <= LARGEST:
            self._say(device, work, "no loss", f"the update counts; its loss, {loss:g}, is left out of the round's")
            loss = float("nan")
        return phi, loss, ""

    def _say(self, device: int, work: _Work, what: str, detail: str) -> None:
        self._tell(Event(work.round, device, self._seats[device].id, what, plain(detail, MAX_DETAIL)))

    def _without(self, device: int, work: _Work, reason: str, why: str, loss: float = float("inf")) -> tuple[F32, float, str]:
        self._say(device, work, "left out", f"{reason}: {why}")
        return work.theta, loss, reason

    async def _reached(self, device: int, work: _Work) -> LinkedBoard:
        """The device's board, there and described."""
        seat, within = self._seats[device], min(PROBE_SECONDS, self.seconds)
        try:
            if seat.board is None:
                seat.board = await LinkedBoard.connect(seat.opener, within)
                for lower in (known for other, known in work.known.items() if other < device):
                    await lower.wait()  # of two that are one board, chance does not decide which counts
                self._greet(seat, device, work)
            elif (await seat.board.describe(within)).id.hex() != seat.id:
                raise Refused(f"another board answers where {seat.id} was. {PUT_RIGHT}")
        finally:
            work.known[device].set()
        return seat.board

    def _greet(self, seat: _Seat, device: int, work: _Work) -> None:
        """Takes note of who answers. Raises Refused where that is another board than before, or one that has a seat."""
        assert seat.board is not None
        described = seat.board.description
        id = described.id.hex()
        taken = [number for number, other in self._seats.items() if other is not seat and other.id == id]
        if taken or (seat.id and seat.id != id):
            whose = f"which is device {taken[0]} already" if taken else f"where {seat.id} was before"
            raise Refused(f"board {id} answers, {whose}. {PUT_RIGHT}")
        what, seat.id = "back" if seat.id else "connected", id
        self._say(device, work, what, f"{described.board}, firmware {described.firmware}")

    async def _prepare(self, board: LinkedBoard, new: bool, work: _Work) -> None:
        """Gives the board the network's plan and, where it was reached anew, ends what it has under way.

        Raises TooSmall, before anything is sent, where it has no room.
        """
        described, need = board.description, self.network.arena_bytes(work.inner.batch)
        if need > described.arena:
            raise TooSmall(
                f"{self.network.name} needs {need:,} bytes of arena to learn in batches of {work.inner.batch}; board "
                f"{described.id.hex()} ({described.board}) has {described.arena:,}. Choose a smaller --network, or --batch 1."
            )
        if new and (await board.status()).state == BoardState.learning:
            await board.abort()
        if described.plan != self._plan_sha:
            await board.put_plan(self._plan)

    async def _learn(self, board: LinkedBoard, device: int, work: _Work) -> tuple[F32, float]:
        """phi and the mean loss of one device's round."""
        await board.put_weights(work.theta, self.seconds)
        asked, samples = await self._asked(board.description, device, work)
        status = await board.train(asked, self.seconds)
        if samples is not None:
            status = await board.feed(samples, self.seconds)
        _demand_round(status, asked)
        phi = await board.weights(status, self.seconds)
        if phi.shape != work.theta.shape:
            raise Corrupt(f"{phi.size} weights came back, not {work.theta.size}.")
        if not np.isfinite(phi).all():
            raise Numeric("weights came back that are not finite.")
        return phi, status.loss

    async def _asked(self, described: Description, device: int, work: _Work) -> tuple[Round, F32 | None]:
        """The round for one device; and the samples (all passes, inputs + outputs) to feed, unless it makes its own."""
        inner, one = work.inner, np.array([device], np.uint32)
        source = self.task.stream(one, work.round, inner.samples)
        here = isinstance(source, SineSource) and SINE in described.sources
        asked = Round(
            round=work.round,
            device=device,
            seed=source.seed if isinstance(source, SineSource) else 0,
            samples=inner.samples,
            batch=inner.batch,
            passes=inner.passes,
            rate=inner.lr,
            clip=inner.clip,
            base=work.base,
            source=SINE if here else "",
        )
        if here:
            return asked, None

        def made() -> F32:
            x, y = core.samples(source, self.network.plan, one, work.round, inner.samples)
            return np.tile(np.concatenate([x[0], y[0]], axis=1), (inner.passes, 1))

        return asked, await asyncio.to_thread(made)  # it may take a while, and the fleet's deadlines go on


def _demand_round(status: Status, asked: Round) -> None:
    """Raises Stale unless ``status`` is of the round asked for, and the round is done."""
    whole = asked.samples * asked.passes
    if (status.state, status.round, status.base, status.done) != (BoardState.learnt, asked.round, asked.base, whole):
        raise Stale(
            f"the board has learnt from {status.done} samples in round {status.round}, from {status.base.hex()[:8]} on; asked "
            f"were {whole} in round {asked.round}, from {asked.base.hex()[:8]} on."
        )


async def _let_go(seat: _Seat) -> None:
    board, seat.board = seat.board, None
    if board is not None:
        await board.close()
