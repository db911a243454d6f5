"""The Fleet interface: devices that run rounds, simulated or real."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np

from tinyfl import core
from tinyfl.algorithms import Inner, Updates
from tinyfl.codecs import FP32, Codec
from tinyfl.codecs.down import Encoded
from tinyfl.core import F32, F64, I64, U32, Stream
from tinyfl.core.draws import below
from tinyfl.errors import ConfigError, Refused

BOARD_CURE = (
    "Put the cables right, or give the fleet's ids (docs/fleets.md). Two tinyfl emulate need ids of their own: --first-id."
)
"""The cure for a board in the wrong place."""


Devices = range | U32
"""Numbers of devices, ascending: a range, or where they are not consecutive an array."""


def among(cohort: U32, devices: Devices) -> U32:
    """The part of ``cohort``, which is ascending, that is among ``devices``."""
    if isinstance(devices, range):
        first, last = np.searchsorted(cohort, [devices.start, devices.stop])
        return cohort[first:last]
    return np.intersect1d(cohort, devices, assume_unique=True)


def words_for(devices: Devices) -> str:
    """The numbers of ``devices``, for people."""
    if isinstance(devices, range):
        return f"{devices.start}" if len(devices) == 1 else f"{devices.start} to {devices.stop - 1}"
    return spans(devices.tolist())


@dataclass(frozen=True)
class Context:
    """What devices need of a round besides theta and the inner loop. For what they keep: ``run``, the run's number, and
    ``saved``, the number of rounds in its last checkpoint, before which a resumed run does not go back. For boards: ``down``,
    theta as it goes down to them; None: as it is."""

    run: int = 0
    saved: int = 0
    down: Encoded | None = None


ALONE = Context()
"""The context of a round by itself."""


@dataclass(frozen=True)
class Carried:
    """What lines carried in a part of so many rounds of boards, ``times``: the bytes ``sent`` to boards and ``received`` from
    them, with messages, frames and repetitions, in so many ``seconds``; ``at_rate`` are those that the busier direction takes
    at the line's rate, NaN if one has none."""

    times: int = 0
    sent: int = 0
    received: int = 0
    seconds: float = 0.0
    at_rate: float = 0.0

    def __add__(self, other: "Carried") -> "Carried":
        return Carried(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


PARTS = ("find", "down", "learn", "up")
"""The parts of a board's round: the host finds it, sends theta, has it learn, and reads its update."""


@dataclass(frozen=True, eq=False)  # arrays do not compare as a whole
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

    def run(self, cohort: U32, round: int, theta: F32, inner: Inner, context: Context = ALONE) -> Updates:
        """One round on the devices ``cohort``, summed exactly. Devices that fail are left out and counted."""

    def run_each(self, cohort: U32, round: int, theta: F32, inner: Inner, context: Context = ALONE) -> Phis:
        """One round on the devices ``cohort``, with separate updates."""


@dataclass(frozen=True)
class Stretch:
    """Rounds one after another: theta float32 (parameters,) after them, the mean loss of each round float64 (rounds,), NaN if
    no update has a finite one, and the devices left out of a round, each with the reason, by the round's number from 0."""

    theta: F32
    loss: F64
    absent: Mapping[int, Mapping[int, str]]


@runtime_checkable
class StretchFleet(Protocol):
    """A fleet that can run rounds one after another without the server."""

    def stretch(self, inner: Inner, cohort: int) -> int:
        """The number of rounds with ``cohort`` devices and the inner loop ``inner`` to ask for at once: a fraction of a second.
        1: do not."""

    def run_stretch(self, devices: U32, round: int, theta: F32, inner: Inner, alphas: F64, down: Codec = FP32) -> Stretch:
        """Round ``round`` on the first row of ``devices``, uint32 (rounds, cohort), the next round on the next, and so on.
        Devices start from what the codec ``down`` makes of theta; after each round theta moves by its alpha times their mean
        change. Raises TrainingError if theta cannot be encoded."""


@runtime_checkable
class LinkedFleet(Protocol):
    """A fleet with boards on lines."""

    def carried(self) -> Mapping[str, Carried]:
        """What its lines carried since the last call, by part of PARTS."""


def carried(fleets: Iterable[object]) -> Mapping[str, Carried]:
    """What the lines of those ``fleets`` that have any carried since the last call."""
    return summed_parts(fleet.carried() for fleet in fleets if isinstance(fleet, LinkedFleet))


def summed_parts(each: Iterable[Mapping[str, Carried]]) -> dict[str, Carried]:
    """The sum of each part, in the order of PARTS."""
    all = list(each)
    return {
        part: sum((lines[part] for lines in all if part in lines), start=Carried())
        for part in PARTS
        if any(part in lines for lines in all)
    }


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

    def run(self, cohort: U32, round: int, theta: F32, inner: Inner, context: Context = ALONE) -> Updates:
        """One round on the devices ``cohort``, ascending, summed exactly."""
        nothing = Updates(theta, np.zeros(len(theta), np.int64), 0)
        parts = self._in_parts(False, cohort, round, theta, inner, context)
        return sum(
            (summed(share, theta, result) if isinstance(result, Phis) else result for share, result in parts), start=nothing
        )

    def run_each(self, cohort: U32, round: int, theta: F32, inner: Inner, context: Context = ALONE) -> Phis:
        """One round on the devices ``cohort``, ascending, with separate updates."""
        parts = self._in_parts(True, cohort, round, theta, inner, context)
        return Phis(
            np.concatenate([p.phi for _, p in parts]),
            np.concatenate([p.loss for _, p in parts]),
            tuple(reason for _, p in parts for reason in p.reasons),
            tuple(id for share, p in parts for id in p.ids or [""] * len(share)),
            tuple(kept for _, p in parts for kept in p.kept_from),
        )

    def carried(self) -> Mapping[str, Carried]:
        """As a LinkedFleet."""
        return carried(self.parts)

    def _in_parts(
        self, apart: bool, cohort: U32, round: int, theta: F32, inner: Inner, context: Context
    ) -> list[tuple[U32, Any]]:
        """Each part's share of ``cohort`` with its Phis, or with its Updates if it is simulated and ``apart`` is False."""
        cuts = np.searchsorted(cohort, self._edges)
        shares = [(part, cohort[a:b]) for part, a, b in zip(self.parts, cuts, cuts[1:], strict=False) if b > a]
        pool = ThreadPoolExecutor(max(len(shares), 1))
        try:
            jobs: list[Future[Any]] = [
                pool.submit(part.run_each if apart or part.boards else part.run, share, round, theta, inner, context)
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


def mean_losses(losses: F32) -> F64:
    """``mean_loss`` of each row."""
    if np.isfinite(losses).all():
        means: F64 = np.add.reduce(losses, axis=1, dtype=np.float64) / losses.shape[1]
        return means
    return np.array([mean_loss(row) for row in losses], np.float64)


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
    return spans_of_rows(numbers[None])[0] if len(numbers) else ""


def ends_of(spans: str) -> list[tuple[int, int]]:
    """The first and the last number of each range in ``spans``, such as 0-7,9."""
    pairs = [span.split("-") for span in spans.split(",") if span]
    return [(int(pair[0]), int(pair[-1])) for pair in pairs]


def spans_of_rows(rows: I64) -> list[str]:
    """``spans`` of each row of ``rows`` (rows, devices), which is not empty."""
    starts = np.ones(rows.shape, bool)
    starts[:, 1:] = rows[:, 1:] != rows[:, :-1] + 1
    ends = np.ones(rows.shape, bool)
    ends[:, :-1] = starts[:, 1:]
    follows = np.where(ends, ord(","), ord("-"))
    follows[:, -1] = ord("\n")
    written = starts | ends
    rest, digits = rows[written], len(str(rows.max()))
    # A row for each number that is written: its digits, right-aligned, and what follows it. Text of single numbers is slow.
    text = np.zeros((len(rest), digits + 1), np.uint8)
    text[:, digits] = follows[written]
    for column in range(digits - 1, -1, -1):
        tens = rest // 10
        text[:, column] = (rest - 10 * tens + ord("0")) * ((rest > 0) | (column == digits - 1))
        rest = tens
    return text.tobytes().translate(None, b"\0").decode().splitlines()


def draw_cohort(seed: int, round: int, size: int, fleet_size: int) -> U32:
    """Draws the devices of a round: the generator's first ``size`` distinct ones, ascending, uint32 (size,), read-only.

    A function of its arguments alone, so gateways draw the same cohort without communication; cached, as strategy, node and
    log draw it in turn.
    Raises ConfigError if the fleet has fewer devices.
    """
    cohort: U32 = draw_cohorts(seed, range(round, round + 1), size, fleet_size)[0]
    return cohort


@lru_cache(maxsize=2)
def draw_cohorts(seed: int, rounds: range, size: int, fleet_size: int) -> U32:
    """``draw_cohort`` of each of ``rounds``, uint32 (rounds, size)."""
    if size > core.MAX_SUMMED:
        raise ConfigError(f"a cohort of {size:,}: exact sums hold {core.MAX_SUMMED:,} devices. Give a smaller --cohort.")
    if not 0 < size <= fleet_size:
        raise ConfigError(f"a cohort of {size:,} out of {fleet_size:,} devices. Give a --cohort of 1 to {fleet_size:,}.")
    numbers = np.arange(rounds.start, rounds.stop, dtype=np.uint32)
    whole = np.arange(fleet_size if size == fleet_size else 0, dtype=np.uint32)
    devices = np.tile(whole, (len(numbers), 1)) if len(whole) else _drawn(seed, numbers, size, fleet_size)
    devices.flags.writeable = False
    return devices


def _drawn(seed: int, rounds: U32, size: int, fleet_size: int) -> U32:
    """The cohorts if they are not the whole fleet."""
    draws = size + size * size // fleet_size + 16  # as a rule enough for ``size`` distinct ones
    while True:
        words = core.random(seed, Stream.cohort, np.zeros(len(rounds), np.uint32), rounds, words=draws)
        bits = draws.bit_length()
        # Device and place of a draw in one number, since NumPy sorts plain numbers many times as fast as it argsorts them.
        drawn = np.sort((below(words, fleet_size) << bits) + np.arange(draws), axis=1)
        place, device = drawn & ((1 << bits) - 1), drawn >> bits
        place[:, 1:][device[:, 1:] == device[:, :-1]] = draws  # not the device's first draw
        last = np.partition(place, size - 1, axis=1)[:, size - 1, None]
        if (last < draws).all():
            devices: U32 = device[place <= last].astype(np.uint32).reshape(len(rounds), size)
            return devices
        draws *= 2
