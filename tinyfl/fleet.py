"""The Fleet seam: devices that run rounds, wherever they are."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tinyfl import core
from tinyfl.algorithms import Inner, Updates
from tinyfl.core import F32, U32, Stream
from tinyfl.errors import ConfigError
from tinyfl.tasks.draws import below


@dataclass(frozen=True)
class Phis:
    """Updates kept apart: phi float32 (devices, parameters), and each device's mean loss float32 (devices,) and the reason
    why it is left out, empty where it is not; its phi is then theta."""

    phi: F32
    loss: F32
    reasons: tuple[str, ...]


class Fleet(Protocol):
    """``size`` devices; 0 to ``size`` - 1, unless the fleet is a part of another."""

    size: int

    def run(self, cohort: U32, round: int, theta: F32, inner: Inner) -> Updates:
        """One round on the devices ``cohort``, summed exactly. Devices that fail are left out and counted."""

    def run_each(self, cohort: U32, round: int, theta: F32, inner: Inner) -> Phis:
        """The same with each device's update kept apart."""


@dataclass(frozen=True)
class Event:
    """What became of a device in a round: ``what`` is connected, back or left out; ``board`` its unique id, where known."""

    round: int
    device: int
    board: str
    what: str
    detail: str


class MixedFleet:
    """A fleet of fleets, which work side by side. Its parts share one numbering: the first part's devices are numbered from
    ``first``, the next goes on from there, and every part goes by these numbers."""

    def __init__(self, parts: Sequence[Fleet], first: int = 0) -> None:
        self.parts = tuple(parts)
        self._edges = np.cumsum([first, *(part.size for part in parts)])
        self.size = int(self._edges[-1]) - first

    def run(self, cohort: U32, round: int, theta: F32, inner: Inner) -> Updates:
        """One round on the devices ``cohort``, ascending, summed exactly."""
        nothing = Updates(theta, np.zeros(len(theta), np.int64), 0)
        return sum(self._in_parts("run", cohort, round, theta, inner), start=nothing)

    def run_each(self, cohort: U32, round: int, theta: F32, inner: Inner) -> Phis:
        """The same with each device's update kept apart."""
        phis: list[Phis] = self._in_parts("run_each", cohort, round, theta, inner)
        return Phis(
            np.concatenate([p.phi for p in phis]),
            np.concatenate([p.loss for p in phis]),
            tuple(reason for p in phis for reason in p.reasons),
        )

    def _in_parts(self, what: str, cohort: U32, round: int, theta: F32, inner: Inner) -> list[Any]:
        cuts = np.searchsorted(cohort, self._edges)
        shares = [(part, cohort[a:b]) for part, a, b in zip(self.parts, cuts, cuts[1:], strict=False) if b > a]
        pool = ThreadPoolExecutor(max(len(shares), 1))
        try:
            jobs = [pool.submit(getattr(part, what), share, round, theta, inner) for part, share in shares]
            return [job.result() for job in jobs]
        finally:
            pool.shutdown(wait=False)  # whoever is interrupted does not wait for the rest


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
