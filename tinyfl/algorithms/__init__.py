"""Federated algorithms: pure functions of (state, updates), without I/O, Flower or C.

One file each. The interface is small: ``inner(round)`` gives a device's inner loop, ``outer(state, updates)`` the new state
after a round; or ``alpha(round)`` the outer step of a TowardsMean. docs/your-own.md writes one.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from math import isfinite
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tinyfl.algorithms.inner import ALL, Inner, Layer, Phase, Returns
from tinyfl.algorithms.optimisers import OPTIMISERS
from tinyfl.codecs import FP32, Codec
from tinyfl.core import F32, I64, UNIT
from tinyfl.errors import ConfigError

__all__ = [
    "ALL", "Algorithm", "Inner", "Layer", "Phase", "Returns", "State", "TowardsMean", "Updates", "WithLayers", "alpha_of",
    "alpha_of_stretches", "demand_for_boards", "refuse_joint_training", "with_layers",
]  # fmt: skip


@dataclass(frozen=True, eq=False)  # arrays do not compare as a whole
class State:
    """The server between rounds: the number of rounds done, the initialisation theta, float32 (parameters,), and what else the
    algorithm remembers, such as a momentum: arrays by name, saved with every checkpoint."""

    round: int
    theta: F32
    memory: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def step(self, change: NDArray[np.float64], **memory: NDArray[Any]) -> "State":
        """The state after a round that moves theta by ``change`` and remembers ``memory``."""
        theta = (self.theta + change).astype(np.float32)
        return replace(self, round=self.round + 1, theta=theta, memory={**self.memory, **memory})


@dataclass(frozen=True, eq=False)  # arrays do not compare as a whole
class Updates:
    """The updates of a cohort: the exact sum of phi - theta over ``devices`` devices, in units of 2^-32; the mean of their
    finite losses, NaN if there are none; and the devices whose update does not count, each with the reason."""

    theta: F32
    sum: I64
    devices: int
    loss: float = float("nan")
    absent: Mapping[int, str] = field(default_factory=dict)
    kept_from: Mapping[int, int] = field(default_factory=dict)
    """The round, counted from 1, whose end each device's kept layers started from; 0: from theta. Empty if nothing is kept."""

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
        return replace(
            self,
            sum=self.sum + other.sum,
            devices=devices,
            loss=loss,
            absent={**self.absent, **other.absent},
            kept_from={**self.kept_from, **other.kept_from},
        )


class Algorithm(Protocol):
    """A federated algorithm. A class may give each method one more parameter, for the network's layers, and may also have
    ``adaptation``: see WithLayers. It may say what it ``trains``: "task", the task's loss; "prototypes", a network without head
    on a stream of a device's classes in turn; or "classes", a classifier of all training devices' classes, whose head is then
    dropped (tinyfl.tasks.ClassTask)."""

    def inner(self, round: int) -> Inner:
        """The inner loop of each device in round ``round`` (from 0)."""

    def outer(self, state: State, updates: Updates) -> State:
        """The state after a round with these ``updates``."""


class TowardsMean:
    """The outer step of Reptile's family, for an algorithm that gives its size ``alpha`` in each round (from 0):

        theta <- theta + alpha_t * (mean_i phi_i - theta)

    or that of another optimiser of the server with this direction; where devices return a gradient, it is minus their mean
    gradient. Rounds of simulated devices run one after another without the server if the optimiser is plain SGD."""

    outer_optimiser: str = "sgd"

    def alpha(self, round: int) -> float:
        raise NotImplementedError

    def outer(self, state: State, updates: Updates) -> State:
        if not updates.devices:  # what an optimiser remembers would move theta on
            return state.step(np.zeros(len(state.theta)))
        optimiser = OPTIMISERS[self.outer_optimiser]
        change, memory = optimiser(state.memory, self.alpha(state.round), updates.mean() - state.theta)
        return state.step(change, **memory)


@dataclass(frozen=True)
class WithLayers:
    """An algorithm for one network, whose ``layers`` its methods get if they take one more argument. Devices encode what they
    send by the codec ``up``, and add what it loses to what they send next if they keep the ``residual``."""

    algorithm: Any
    layers: tuple[Layer, ...]
    takes: Mapping[str, int]
    """The number of parameters of each method."""
    before: tuple[tuple[int, Any], ...] = ()
    """The same algorithm for the rounds below some numbers, made for other numbers of rounds."""
    up: Codec = FP32
    residual: bool = False

    def at(self, round: int) -> Any:
        """The algorithm in round ``round``."""
        return next((algorithm for end, algorithm in self.before if round < end), self.algorithm)

    def inner(self, round: int) -> Inner:
        inner: Inner = self._call(self.at(round), "inner", round)
        return inner if self.up == FP32 else inner.sent_as(self.up, self.residual)

    def outer(self, state: State, updates: Updates) -> State:
        return self._call(self.at(state.round), "outer", state, updates)  # type: ignore[no-any-return]

    @property
    def adapts(self) -> bool:
        """Whether the algorithm has an adaptation of its own."""
        return "adaptation" in self.takes

    def adaptation(self, phase: Phase) -> tuple[Phase, ...]:
        """How a new device adapts after training, each phase on its whole support set; ``phase``, all layers, by default."""
        return tuple(self._call(self.algorithm, "adaptation", phase)) if self.adapts else (phase,)

    def _call(self, algorithm: Any, name: str, *arguments: Any) -> Any:
        further = (self.layers,) if self.takes[name] > len(arguments) else ()
        return getattr(algorithm, name)(*arguments, *further)


def with_layers(
    algorithm: Any,
    layers: Sequence[Layer],
    before: tuple[tuple[int, Any], ...] = (),
    up: Codec = FP32,
    residual: bool = False,
) -> WithLayers:
    """``algorithm`` for a network with these ``layers``; ``before`` are those of the rounds below some numbers. Devices encode
    what they send by ``up``, and may keep the ``residual``.

    Raises ConfigError if it lacks ``inner`` or ``outer``.
    """
    for name in ("inner", "outer"):
        if not callable(getattr(algorithm, name, None)):
            raise ConfigError(f"{algorithm!r} is no algorithm: it has no method {name} (docs/your-own.md).")
    methods = [name for name in ("inner", "outer", "adaptation") if hasattr(algorithm, name)]
    takes = {name: len(signature(getattr(algorithm, name)).parameters) for name in methods}
    return WithLayers(algorithm, tuple(layers), takes, before, up, residual)


def alpha_of(algorithm: Any) -> Callable[[int], float] | None:
    """The ``alpha`` of an algorithm whose outer step is exactly that of TowardsMean; None for any other."""
    own = algorithm.algorithm if isinstance(algorithm, WithLayers) else algorithm
    if not isinstance(own, TowardsMean) or type(own).outer is not TowardsMean.outer:
        return None
    if isinstance(algorithm, WithLayers) and algorithm.before:
        return lambda round: float(algorithm.at(round).alpha(round))
    return own.alpha


def alpha_of_stretches(algorithm: Any) -> Callable[[int], float] | None:
    """The same if its rounds can run without the server, which then has nothing to remember."""
    own = algorithm.algorithm if isinstance(algorithm, WithLayers) else algorithm
    alpha = alpha_of(algorithm)
    return alpha if alpha and own.outer_optimiser == "sgd" else None


def demand_for_boards(inner: Inner) -> None:
    """Raises ConfigError if no board can run ``inner``."""
    if inner.returns is Returns.meta_gradient:
        raise ConfigError(
            "MAML's second derivatives are for simulated devices only. For boards say --algorithm fomaml, its first-order form."
        )


def refuse_joint_training(name: str, inner: Inner) -> None:
    """Raises ConfigError if ``inner`` has fewer than 2 steps: one step is joint training, under any name, and cannot meta-learn
    (Nichol et al. 2018, section 5)."""
    if inner.steps < 2:
        raise ConfigError(
            f"{name} with {inner.steps} inner step (samples {inner.samples}, batch {inner.batch}) is joint training and "
            "cannot meta-learn. Give at least 2 steps: more --samples or a smaller --batch; or say --algorithm joint."
        )
