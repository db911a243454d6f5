"""Late devices: asynchronous rounds (FedBuff; Nguyen et al. 2022; arXiv:2106.06639, algorithm 1).

A fixed number of devices is always at work. A device starts from the theta that is current, and learns for as long as it takes;
when it arrives, another takes its place. After each K arrivals, a round, the server takes its step:

    theta_(t+1) = theta_t + alpha_t / K * sum_i s(t - v_i) (phi_i - theta_(v_i)),    s(tau) = 1 / sqrt(1 + tau)

Device i has started from version v_i, the theta after as many rounds: its staleness tau is the number of rounds since then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from tinyfl import core
from tinyfl.algorithms import Updates
from tinyfl.core import F32
from tinyfl.fleet import mean_loss

WHOLE = 256
"""The weight of an update without staleness. Weights are whole numbers, so that sums are exact."""


def weight(staleness: int) -> int:
    """s(staleness) in units of 1 / WHOLE."""
    return round(WHOLE / sqrt(1 + staleness))


@dataclass(frozen=True)
class Work:
    """A device at work since ``version``. It arrives when its turn comes: the least ``due`` first, of several the first to have
    started. Where devices take as long as they take, ``due`` is 0."""

    device: int
    version: int
    due: float = 0.0


@dataclass(frozen=True, eq=False)  # arrays do not compare as a whole
class Arrival:
    """A device that has arrived at ``time``, None on real clocks: its phi and the theta of ``version`` from which it started,
    float32 (parameters,); its mean loss, possibly not finite; and the reason for leaving it out, empty if it counts."""

    device: int
    version: int
    theta: F32
    phi: F32
    loss: float
    reason: str = ""
    time: float | None = None


def combined(theta: F32, version: int, arrivals: Sequence[Arrival]) -> Updates:
    """The updates of a round from ``version``, whose theta is ``theta``: each change counts by its weight, and the mean is over
    all that count. Weighted sums are exact and divided once, to the nearest unit, so the order of arrivals changes no bit."""
    total = np.zeros(len(theta), np.int64)
    usable = [each for each in arrivals if not each.reason]
    for each in usable:
        total += weight(version - each.version) * core.fixed(each.phi, each.theta)
    losses = np.array([each.loss for each in usable], np.float32)
    absent = {each.device: each.reason for each in arrivals if each.reason}
    return Updates(theta, (total + WHOLE // 2) // WHOLE, len(usable), mean_loss(losses), absent)
