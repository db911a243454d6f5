"""Federated algorithms: pure functions of (state, updates), without I/O, Flower or C.

One file each. The interface is small: ``inner(round)`` gives a device's inner loop, ``outer(state, updates)`` the new state
after a round. docs/your-own.md writes one.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import F32, I64, UNIT
from tinyfl.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    """A device's inner loop in a round: ``passes`` over ``samples`` samples of its stream, with an SGD step of learning rate
    ``lr`` after every ``batch`` of them. ``clip`` bounds the norm of the loss's gradient at the output; 0: no bound."""

    samples: int
    batch: int
    passes: int
    lr: float
    clip: float = 0.0

    @property
    def steps(self) -> int:
        """Number of SGD steps in a round."""
        return self.passes * -(-self.samples // self.batch)


@dataclass(frozen=True)
class State:
    """The server between rounds: the number of rounds done, and the initialisation theta, float32 (parameters,)."""

    round: int
    theta: F32

    def step(self, change: NDArray[np.float64]) -> "State":
        """The state after a round that moves theta by ``change``."""
        return replace(self, round=self.round + 1, theta=(self.theta + change).astype(np.float32))


@dataclass(frozen=True)
class Updates:
    """The updates of a cohort: the exact sum of phi - theta over ``devices`` devices, in units of 2^-32; the mean of their
    finite losses, NaN if there are none; and the devices whose update does not count, each with the reason."""

    theta: F32
    sum: I64
    devices: int
    loss: float = float("nan")
    absent: Mapping[int, str] = field(default_factory=dict)

    @property
    def left_out(self) -> Mapping[str, int]:
        """The number of absent devices by reason."""
        return dict(Counter(self.absent.values()))

    def mean(self) -> NDArray[np.float64]:
        """The mean of phi over the devices that count, float64 (parameters,); theta if there are none."""
        return self.theta + self.sum * (UNIT / max(self.devices, 1))

    def __add__(self, other: "Updates") -> "Updates":
        """The combined updates of two parts of a cohort. Exact, so any partition of a cohort gives the same result."""
        devices = self.devices + other.devices
        finite = [u for u in (self, other) if u.devices and isfinite(u.loss)]
        loss = sum(u.loss * u.devices for u in finite) / sum(u.devices for u in finite) if finite else float("nan")
        return replace(self, sum=self.sum + other.sum, devices=devices, loss=loss, absent={**self.absent, **other.absent})


class Algorithm(Protocol):
    """A federated algorithm."""

    def inner(self, round: int) -> Inner:
        """The inner loop of each device in round ``round`` (from 0)."""

    def outer(self, state: State, updates: Updates) -> State:
        """The state after a round with these ``updates``."""


def refuse_joint_training(name: str, inner: Inner) -> None:
    """Raises ConfigError if ``inner`` has fewer than 2 steps: one step is joint training, under any name, and cannot meta-learn
    (Nichol et al. 2018, section 5)."""
    if inner.steps < 2:
        raise ConfigError(
            f"{name} with {inner.steps} inner step (samples {inner.samples}, batch {inner.batch}) is joint training and "
            "cannot meta-learn. Give at least 2 steps: more --samples or a smaller --batch; or say --algorithm joint."
        )
