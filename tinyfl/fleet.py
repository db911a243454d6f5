"""The Fleet interface: devices that run rounds, simulated or real."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tinyfl import core
from tinyfl.algorithms import Inner, Updates
from tinyfl.core import F32, F64, I64, U32, Stream
from tinyfl.core.draws import below
from tinyfl.errors import ConfigError, Refused

BOARD_CURE = "Put the cables right, or give the fleet's ids (docs/fleets.md)."
"""The cure for a board in the wrong place."""


@dataclass(frozen=True)
class Saved:
    """How far a run is saved, for what its devices keep: ``run`` is the run's number, ``rounds`` the number of rounds in its
    last checkpoint. A resumed run goes back to no earlier one."""

    run: int = 0
    rounds: int = 0


UNSAVED = Saved()


@dataclass(frozen=True)
class Phis:
    """Separate updates: phi float32 (devices, parameters), each device's mean loss float32 (devices,), possibly non-finite, and
    the reason for leaving it out (empty if it counts; otherwise its phi is theta). ``ids`` are the boards' unique ids, empty
    for a board that never answered; simulated devices have none. ``kept_from`` is as in Updates, for each device; empty if
    nothing is kept."""

    phi: F32
    loss: F32
    reasons: tuple[str, ...]
    ids: tuple[str, ...] = ()
    kept_from: tuple[int, ...] = ()

    def mean_loss(self) -> float:
        """The mean loss of the devices that count."""
        return mean_loss(self.loss[[not reason for reason in self.reasons]])


class Fleet(Protocol):
    """``size`` devices: 0 to ``size`` - 1, unless the fleet is a part of another. ``boards`` tells whether they are boards,
    with ids."""

    @property
    def size(self) -> int: ...

    @property
    def boards(self) -> bool: ...

    def run(self, cohort: U32, round: int, theta: F32, inner: Inner, saved: Saved = UNSAVED) -> Updates:
        """One round on the devices ``cohort``, summed exactly. Devices that fail are left out and counted."""

    def run_each(self, cohort: U32, round: int, theta: F32, inner: Inner, saved: Saved = UNSAVED) -> Phis:
        """One round on the devices ``cohort``, with separate updates."""


@dataclass(frozen=True)
class Stretch:
    """Rounds of one device each, one after another: theta float32 (parameters,) after them, the loss of each round float32
    (rounds,), possibly non-finite, and the reasons of those whose update is left out, by their number from 0."""

    theta: F32
    loss: F32
    absent: Mapping[int, str]


@runtime_checkable
class SerialFleet(Protocol):
    """A fleet that can run rounds of one device each, one after another, without the server."""

    def stretch(self, inner: Inner) -> int:
        """The number of rounds with the inner loop ``inner`` to ask for at once: a fraction of a second. 1: do not."""

    def run_serially(self, devices: U32, round: int, theta: F32, inner: Inner, alphas: F64) -> Stretch:
        """Round ``round`` on the first of ``devices``, the next round on the next, and so on. After each, theta moves by its
        alpha times the device's change."""


@dataclass(frozen=True)
class Event:
    """An event of a device in a round: ``what`` is connected, back, left out, no loss (the update counts, but its loss is not
    finite) or reset (what it had kept is lost); ``board`` is the board's unique id, if known."""

    round: int
    device: int
    board: str
    what: str
    detail: str


class MixedFleet:
    """A fleet of fleets, which work in parallel. Its parts share one numbering: the first part's devices are numbered from
    ``first``, and each next part continues from there.

    A board counts as one device across all parts: the one given by ``ids`` (id to device), else the first that it answered as,
    or the lowest of several. As any other device it is refused."""

    def __init__(
        self,
        parts: Sequence[Fleet],
        first: int = 0,
        *,
        ids: Mapping[str, int] | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self.parts = tuple(parts)
        self._edges = np.cumsum([first, *(part.size for part in parts)])
        self.size = int(self._edges[-1]) - first
        self.boards = any(part.boards for part in parts)
        self._device_of = dict(ids or {})
        self._on_event = on_event or (lambda event: None)

    def run(self, cohort: U32, round: int, theta: F32, inner: Inner, saved: Saved = UNSAVED) -> Updates:
        """One round on the devices ``cohort``, ascending, summed exactly."""
        nothing = Updates(theta, np.zeros(len(theta), np.int64), 0)
        parts = self._in_parts(False, cohort, round, theta, inner, saved)
        return sum(
            (summed(share, theta, result) if isinstance(result, Phis) else result for share, result in parts), start=nothing
        )

    def run_each(self, cohort: U32, round: int, theta: F32, inner: Inner, saved: Saved = UNSAVED) -> Phis:
        """One round on the devices ``cohort``, ascending, with separate updates."""
        parts = self._in_parts(True, cohort, round, theta, inner, saved)
        return Phis(
            np.concatenate([p.phi for _, p in parts]),
            np.concatenate([p.loss for _, p in parts]),
            tuple(reason for _, p in parts for reason in p.reasons),
            tuple(id for share, p in parts for id in p.ids or [""] * len(share)),
            tuple(kept for _, p in parts for kept in p.kept_from),
        )

    def _in_parts(self, apart: bool, cohort: U32, round: int, theta: F32, inner: Inner, saved: Saved) -> list[tuple[U32, Any]]:
        """Each part's share of ``cohort`` with its Phis, or with its Updates if it is simulated and ``apart`` is False."""
        cuts = np.searchsorted(cohort, self._edges)
        shares = [(part, cohort[a:b]) for part, a, b in zip(self.parts, cuts, cuts[1:], strict=False) if b > a]
        pool = ThreadPoolExecutor(max(len(shares), 1))
        try:
            jobs: list[Future[Any]] = [
                pool.submit(part.run_each if apart or part.boards else part.run, share, round, theta, inner, saved)
                for part, share in shares
            ]
            return [
                (share, self._without_duplicates(share, round, theta, job.result()))
                for (_, share), job in zip(shares, jobs, strict=True)
            ]
        finally:
            pool.shutdown(wait=False)  # after an interrupt, do not wait for the rest

    def _without_duplicates(self, share: U32, round: int, theta: F32, result: Phis | Updates) -> Phis | Updates:
        """A part's result without the boards that are devices of another part."""
        if isinstance(result, Updates) or not result.ids:
            return result
        phi, reasons = result.phi.copy(), list(result.reasons)
        for i, (device, id) in enumerate(zip(share.tolist(), result.ids, strict=True)):
            owner = self._device_of.setdefault(id, device) if id else device
            if owner != device and not reasons[i]:
                phi[i], reasons[i] = theta, Refused.reason
                why = f"{Refused.reason}: board {id} answers, which is device {owner} already. {BOARD_CURE}"
                self._on_event(Event(round, device, id, "left out", why))
        return replace(result, phi=phi, reasons=tuple(reasons))


def summed(cohort: U32, theta: F32, phis: Phis) -> Updates:
    """The updates of ``cohort`` in one exact sum."""
    usable = [i for i, reason in enumerate(phis.reasons) if not reason]
    total = np.zeros(len(theta), np.int64)
    for i in usable:
        total += core.fixed(phis.phi[i], theta)
    return Updates(theta, total, len(usable), phis.mean_loss(), absent(cohort, phis.reasons), kept_from(cohort, phis))


def mean_loss(losses: F32) -> float:
    """The mean of the finite losses; NaN if there are none."""
    finite = losses[np.isfinite(losses)]
    return float(np.add.reduce(finite, dtype=np.float64) / len(finite)) if len(finite) else float("nan")


def absent(cohort: U32, reasons: Iterable[str]) -> Mapping[int, str]:
    """The devices of ``cohort`` with a non-empty reason, and that reason."""
    return {device: reason for device, reason in zip(cohort.tolist(), reasons, strict=True) if reason}


def kept_from(cohort: U32, phis: Phis) -> Mapping[int, int]:
    """What the devices of ``cohort`` that count started from, as in Updates."""
    return {
        device: kept
        for device, kept, reason in zip(cohort.tolist(), phis.kept_from, phis.reasons, strict=bool(phis.kept_from))
        if not reason
    }


def spans(devices: Iterable[int]) -> str:
    """Ascending numbers as ranges, for people and logs: 0-7,9."""
    numbers: I64 = np.array(devices if isinstance(devices, np.ndarray | Sequence) else list(devices), np.int64)
    if not len(numbers):
        return ""
    first = _differ(numbers, numbers + 1)
    last = np.append(first[1:], True)
    rest, digits = numbers[first | last], len(str(numbers[-1]))
    # A row for each number that is written: its digits, right-aligned, and what follows it. Text of single numbers is slow.
    text = np.zeros((len(rest), digits + 1), np.uint8)
    text[:, digits] = np.where(last[first | last], ord(","), ord("-"))
    for column in range(digits - 1, -1, -1):
        tens = rest // 10
        text[:, column] = (rest - 10 * tens + ord("0")) * ((rest > 0) | (column == digits - 1))
        rest = tens
    return text.tobytes().translate(None, b"\0")[:-1].decode()


def _differ(numbers: I64, before: I64) -> NDArray[np.bool_]:
    """Whether each number differs from ``before`` at the one in front of it; the first one does."""
    differ = np.empty(len(numbers), bool)
    differ[0] = True
    np.not_equal(numbers[1:], before[:-1], out=differ[1:])
    return differ


@lru_cache(maxsize=2)
def draw_cohort(seed: int, round: int, size: int, fleet_size: int) -> U32:
    """Draws the devices of a round: the generator's first ``size`` distinct ones, ascending, uint32 (size,), read-only.

    A function of its arguments alone, so gateways draw the same cohort without communication; cached, as strategy, node and
    log draw it in turn.
    Raises ConfigError if the fleet has fewer devices.
    """
    if size > core.MAX_SUMMED:
        raise ConfigError(f"a cohort of {size:,}: exact sums hold {core.MAX_SUMMED:,} devices. Give a smaller --cohort.")
    if not 0 < size <= fleet_size:
        raise ConfigError(f"a cohort of {size:,} out of {fleet_size:,} devices. Give a --cohort of 1 to {fleet_size:,}.")
    devices = np.arange(fleet_size, dtype=np.uint32) if size == fleet_size else _drawn(seed, round, size, fleet_size)
    devices.flags.writeable = False
    return devices


def _drawn(seed: int, round: int, size: int, fleet_size: int) -> U32:
    """The cohort if it is not the whole fleet."""
    draws = size + size * size // fleet_size + 16  # as a rule enough for ``size`` distinct ones
    while True:
        words = core.random(seed, Stream.cohort, np.zeros(1, np.uint32), round, words=draws)[0]
        # Device and place of a draw in one number, since NumPy sorts plain numbers many times as fast as it argsorts them.
        bits = draws.bit_length()
        drawn = np.sort((below(words, fleet_size) << bits) + np.arange(draws))
        drawn = drawn[_differ(drawn >> bits, drawn >> bits)]  # each device's first draw
        if len(drawn) >= size:
            place = drawn & ((1 << bits) - 1)
            chosen = drawn[place <= np.partition(place, size - 1)[size - 1]]
            devices: U32 = (chosen >> bits).astype(np.uint32)
            return devices
        draws *= 2


def draw_devices(seed: int, rounds: range, fleet_size: int) -> U32:
    """The device of each of ``rounds``, in a run with cohorts of one: ``draw_cohort`` for all of them, uint32 (rounds,)."""
    numbers = np.arange(rounds.start, rounds.stop, dtype=np.uint32)
    words = core.random(seed, Stream.cohort, np.zeros(len(numbers), np.uint32), numbers, words=1)
    return below(words[:, 0], fleet_size).astype(np.uint32)
