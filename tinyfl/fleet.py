"""The Fleet seam: devices that run rounds, wherever they are."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from tinyfl import core
from tinyfl.algorithms import Inner, Updates
from tinyfl.core import F32, U32, Stream
from tinyfl.core.draws import below
from tinyfl.errors import ConfigError, Refused

PUT_RIGHT = "Put the cables right, or give the fleet's ids (docs/fleets.md)."
"""The cure where a board is not the one that it should be."""


@dataclass(frozen=True)
class Phis:
    """Updates kept apart: phi float32 (devices, parameters), and each device's mean loss float32 (devices,), which need not be
    finite, and the reason why it is left out, empty where it is not; its phi is then theta. ``ids`` are the unique ids of
    devices that are boards, empty where a board was never there; simulated devices have none."""

    phi: F32
    loss: F32
    reasons: tuple[str, ...]
    ids: tuple[str, ...] = ()

    def mean_loss(self) -> float:
        """Over the devices that count."""
        return mean_loss(self.loss[[not reason for reason in self.reasons]])


class Fleet(Protocol):
    """``size`` devices; 0 to ``size`` - 1, unless the fleet is a part of another. ``boards``: they are boards, with ids."""

    @property
    def size(self) -> int: ...

    @property
    def boards(self) -> bool: ...

    def run(self, cohort: U32, round: int, theta: F32, inner: Inner) -> Updates:
        """One round on the devices ``cohort``, summed exactly. Devices that fail are left out and counted."""

    def run_each(self, cohort: U32, round: int, theta: F32, inner: Inner) -> Phis:
        """The same with each device's update kept apart."""


@dataclass(frozen=True)
class Event:
    """What became of a device in a round: ``what`` is connected, back, left out or no loss (its update counts, and its loss is
    no figure); ``board`` is its unique id, where known."""

    round: int
    device: int
    board: str
    what: str
    detail: str


class MixedFleet:
    """A fleet of fleets, which work side by side. Its parts share one numbering: the first part's devices are numbered from
    ``first``, the next goes on from there, and every part goes by these numbers.

    A board counts as one device, whichever parts it answers in: as the one that ``ids`` names (id to device), else as the one
    that it first answered as, the lowest of them where they are several. Elsewhere it is refused."""

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
        self._whose = dict(ids or {})
        self._tell = on_event or (lambda event: None)

    def run(self, cohort: U32, round: int, theta: F32, inner: Inner) -> Updates:
        """One round on the devices ``cohort``, ascending, summed exactly."""
        nothing = Updates(theta, np.zeros(len(theta), np.int64), 0)
        parts = self._in_parts(False, cohort, round, theta, inner)
        return sum((summed(share, theta, said) if isinstance(said, Phis) else said for share, said in parts), start=nothing)

    def run_each(self, cohort: U32, round: int, theta: F32, inner: Inner) -> Phis:
        """The same with each device's update kept apart."""
        parts = self._in_parts(True, cohort, round, theta, inner)
        return Phis(
            np.concatenate([p.phi for _, p in parts]),
            np.concatenate([p.loss for _, p in parts]),
            tuple(reason for _, p in parts for reason in p.reasons),
            tuple(id for share, p in parts for id in p.ids or [""] * len(share)),
        )

    def _in_parts(self, apart: bool, cohort: U32, round: int, theta: F32, inner: Inner) -> list[tuple[U32, Any]]:
        """Each part's share of ``cohort`` with its Phis, or with its Updates where they are simulated and not ``apart``."""
        cuts = np.searchsorted(cohort, self._edges)
        shares = [(part, cohort[a:b]) for part, a, b in zip(self.parts, cuts, cuts[1:], strict=False) if b > a]
        pool = ThreadPoolExecutor(max(len(shares), 1))
        try:
            jobs: list[Future[Any]] = [
                pool.submit(part.run_each if apart or part.boards else part.run, share, round, theta, inner)
                for part, share in shares
            ]
            return [
                (share, self._once(share, round, theta, job.result())) for (_, share), job in zip(shares, jobs, strict=True)
            ]
        finally:
            pool.shutdown(wait=False)  # whoever is interrupted does not wait for the rest

    def _once(self, share: U32, round: int, theta: F32, said: Phis | Updates) -> Phis | Updates:
        """``said`` without the boards that are devices of another part."""
        if isinstance(said, Updates) or not said.ids:
            return said
        phi, reasons = said.phi.copy(), list(said.reasons)
        for i, (device, id) in enumerate(zip(share.tolist(), said.ids, strict=True)):
            whose = self._whose.setdefault(id, device) if id else device
            if whose != device and not reasons[i]:
                phi[i], reasons[i] = theta, Refused.reason
                why = f"{Refused.reason}: board {id} answers, which is device {whose} already. {PUT_RIGHT}"
                self._tell(Event(round, device, id, "left out", why))
        return replace(said, phi=phi, reasons=tuple(reasons))


def summed(cohort: U32, theta: F32, phis: Phis) -> Updates:
    """The updates of ``cohort`` in one exact sum."""
    well = [i for i, reason in enumerate(phis.reasons) if not reason]
    total = np.zeros(len(theta), np.int64)
    for i in well:
        total += core.fixed(phis.phi[i], theta)
    return Updates(theta, total, len(well), phis.mean_loss(), absent(cohort, phis.reasons))


def mean_loss(losses: F32) -> float:
    """The mean of those that are finite; NaN if there are none."""
    finite = losses[np.isfinite(losses)]
    return float(finite.mean(dtype=np.float64)) if len(finite) else float("nan")


def absent(cohort: U32, reasons: Iterable[str]) -> Mapping[int, str]:
    """The devices of ``cohort`` that have a reason, one for each device and empty where all is well."""
    return {device: reason for device, reason in zip(cohort.tolist(), reasons, strict=True) if reason}


def spans(devices: Iterable[int]) -> str:
    """Ascending numbers in short, for people and logs: 0-7,9."""
    ends: list[list[int]] = []
    for device in devices:
        if ends and device == ends[-1][1] + 1:
            ends[-1][1] = device
        else:
            ends.append([device, device])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ends)


def draw_cohort(seed: int, round: int, size: int, fleet_size: int) -> U32:
    """The devices of a round: the first ``size`` different ones that the generator names, ascending, uint32 (size,).

    A function of its arguments alone, so gateways that never speak to each other draw the same cohort.
    Raises ConfigError if the fleet has fewer devices.
    """
    if size > core.MAX_SUMMED:
        raise ConfigError(f"a cohort of {size:,}: exact sums hold {core.MAX_SUMMED:,} devices. Give a smaller --cohort.")
    if not 0 < size <= fleet_size:
        raise ConfigError(f"a cohort of {size:,} out of {fleet_size:,} devices. Give a --cohort of 1 to {fleet_size:,}.")
    if size == fleet_size:
        return np.arange(fleet_size, dtype=np.uint32)
    draws = size
    while True:
        words = core.random(seed, Stream.cohort, np.zeros(1, np.uint32), round, words=draws)[0]
        devices, first = np.unique(below(words, fleet_size), return_index=True)
        if len(devices) >= size:
            return np.sort(devices[np.argsort(first)[:size]]).astype(np.uint32)
        draws *= 2
