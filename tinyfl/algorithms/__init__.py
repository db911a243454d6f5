"""Federated algorithms: pure functions of (state, updates), with no I/O, no Flower and no C in them.

One file each. The seam is small: ``inner(round)`` says what a device does in a round, ``outer(state, updates)`` makes the
new state from what came back. docs/your-own.md writes one.
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
    """What a device does in a round: ``passes`` over ``samples`` samples of its stream, an SGD step of rate ``lr`` after
    every ``batch`` of them. ``clip`` bounds the norm of the loss's gradient at the output; 0: no bound."""

    samples: int
    batch: int
    passes: int
    lr: float
    clip: float = 0.0

    @property
    def steps(self) -> int:
        """SGD steps in a round."""
        return self.passes * -(-self.samples // self.batch)


@dataclass(frozen=True)
class State:
    """The server between rounds: how many rounds are done, and the initialisation theta, float32 (parameters,)."""

    round: int
    theta: F32

    def step(self, change: NDArray[np.float64]) -> "State":
        """The state after a round that moves theta by ``change``."""
        return replace(self, round=self.round + 1, theta=(self.theta + change).astype(np.float32))


@dataclass(frozen=True)
class Updates:
    """What came back from a cohort: the exact sum over ``devices`` devices of phi - theta, in units of 2^-32; the mean loss of
    those whose loss is finite, NaN if there are none; and the devices whose update does not count, each with the reason."""

    theta: F32
    sum: I64
    devices: int
    loss: float = float("nan")
    absent: Mapping[int, str] = field(default_factory=dict)

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many devices are absent, by reason."""
        return dict(Counter(self.absent.values()))

    def mean(self) -> NDArray[np.float64]:
        """The mean of phi over the devices that count, float64 (parameters,); theta if there are none."""
        return self.theta + self.sum * (UNIT / max(self.devices, 1))

    def __add__(self, other: "Updates") -> "Updates":
        """Updates of two parts of a cohort, together. Exact, so a cohort may be cut in any way."""
        devices = self.devices + other.devices
        known = [u for u in (self, other) if u.devices and isfinite(u.loss)]
        loss = sum(u.loss * u.devices for u in known) / sum(u.devices for u in known) if known else float("nan")
        return replace(self, sum=self.sum + other.sum, devices=devices, loss=loss, absent={**self.absent, **other.absent})


class Algorithm(Protocol):
    """A federated algorithm."""

    def inner(self, round: int) -> Inner:
        """What each device of round ``round`` (from 0) does."""

    def outer(self, state: State, updates: Updates) -> State:
        """The state after the round that brought ``updates``."""


def refuse_joint_training(name: str, inner: Inner) -> None:
    """Raises ConfigError where ``inner`` makes fewer than 2 steps: one step is joint training, whatever it is called, and
    cannot meta-learn (Nichol et al. 2018, section 5)."""
    if inner.steps < 2:
        raise ConfigError(
            f"{name} with {inner.steps} inner step (samples {inner.samples}, batch {inner.batch}) is joint training and "
            "cannot meta-learn. Give at least 2 steps: more --samples or a smaller --batch; or say --algorithm joint."
        )
