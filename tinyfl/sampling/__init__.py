"""Which devices take part in a round: any (uniform), or devices whose tasks differ, or resemble each other.

That diverse tasks in a batch make a better estimate of the whole gradient is the idea of Agarwal and Singh 2023
(arXiv:2312.16612). Its method is not public: what is here is a reconstruction (docs/sampling.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from tinyfl import core
from tinyfl.algorithms import State
from tinyfl.core import F32, F64, I64, U32, UNIT, Stream
from tinyfl.errors import RunError
from tinyfl.fleet import draw_cohorts
from tinyfl.sampling.choices import dpp, farthest, similar
from tinyfl.sampling.embeddings import DIMENSIONS, embedded, sketched

Choice = Callable[[F64, int, U32], I64]
"""Chooses ``size`` of the candidates of each round, whose embeddings are float64 (dimensions, rounds, candidates), with random
words uint32 (rounds, 2 x candidates): their places int64 (rounds, size)."""

CHOICES: Mapping[str, Choice] = {"dpp": dpp, "farthest": farthest, "similar": similar}

CANDIDATES = 8
"""Candidates for each place in a cohort, drawn uniformly: they bound the work of a round for a fleet of any size."""

AT_ONCE = 1 << 22
"""Bound on the numbers of the embeddings, and of the kernels, of the rounds that are chosen for at once."""

MEMORY = "sampling"
"""The array of a State that holds the embeddings of devices by their last updates."""

ORDER, WORDS = np.uint32(1), np.uint32(2)
"""Numbers in the generator's stream of cohorts, of which draw_cohorts takes 0: for the order of candidates, and for choices."""


class Sampler(Protocol):
    """Chooses the cohorts of a run."""

    @property
    def drawn(self) -> bool:
        """Whether a node draws a cohort by itself, as draw_cohorts does; else the server names the devices."""

    @property
    def learns(self) -> bool:
        """Whether ``after`` learns from the devices' updates."""

    def cohorts(self, rounds: range, state: State) -> U32:
        """The devices of each of ``rounds``, uint32 (rounds, cohort), ascending. ``state`` is the one before the first."""

    def after(self, before: State, state: State, changes: Mapping[int, I64]) -> State:
        """``state``, after the one ``before`` and a round with these ``changes`` of theta, by device, in units of 2^-32."""


@dataclass(frozen=True)
class Uniform:
    """``size`` of ``fleet_size`` devices, each as likely as any other."""

    seed: int
    size: int
    fleet_size: int
    drawn = True
    learns = False

    def cohorts(self, rounds: range, state: State) -> U32:
        return draw_cohorts(self.seed, rounds, self.size, self.fleet_size)

    def after(self, before: State, state: State, changes: Mapping[int, I64]) -> State:
        return state


@dataclass
class ByTask:
    """``size`` of ``fleet_size`` devices by what is known of their tasks: ``table`` float32 (devices, dimensions), or without
    one a sketch of each device's last update. Candidates are drawn uniformly, and ``choice`` chooses among them.

    An update counts by its direction. Nothing is known of a device that has sent none: it differs from every other."""

    seed: int
    size: int
    fleet_size: int
    choice: Choice
    table: F32 | None = None
    drawn = False
    _last: tuple[range, F32 | None, U32] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def learns(self) -> bool:
        return self.table is None

    def cohorts(self, rounds: range, state: State) -> U32:
        known = self._known(state)
        if self._last is None or self._last[0] != rounds or self._last[1] is not known:
            step = max(1, AT_ONCE // (self._candidates * max(self._candidates, DIMENSIONS)))
            parts = [self._chosen(rounds[first : first + step], known) for first in range(0, len(rounds), step)]
            cohorts = np.concatenate(parts)
            cohorts.flags.writeable = False
            self._last = rounds, known, cohorts
        return self._last[2]

    def after(self, before: State, state: State, changes: Mapping[int, I64]) -> State:
        if not self.learns:
            return state
        known = self._known(before)
        if known is None:
            known = np.full((self.fleet_size, min(len(state.theta), DIMENSIONS)), np.nan, np.float32)
        table = known.copy()
        for device, change in changes.items():
            sketch = sketched(change[None].astype(np.float64) * UNIT, self.seed)[0]
            norm = np.sqrt((sketch**2).sum())
            table[device] = sketch / norm if norm else sketch
        return replace(state, memory={**state.memory, MEMORY: table})

    @property
    def _candidates(self) -> int:
        """Number of candidates in each round."""
        return min(CANDIDATES * self.size, self.fleet_size)

    def _known(self, state: State) -> F32 | None:
        """The embeddings (devices, dimensions), NaN where nothing is known; None before the first update."""
        if not self.learns or MEMORY not in state.memory:
            return self.table
        table = state.memory[MEMORY]
        if table.shape != (self.fleet_size, min(len(state.theta), DIMENSIONS)) or table.dtype != np.float32:
            raise RunError(
                f"the checkpoint's updates of devices are damaged ({table.dtype} {table.shape}). Start the run again with "
                "another --out."
            )
        return table

    def _chosen(self, rounds: range, known: F32 | None) -> U32:
        """The cohorts of ``rounds``."""
        numbers = np.arange(rounds.start, rounds.stop, dtype=np.uint32)
        drawn = draw_cohorts(self.seed, rounds, self._candidates, self.fleet_size)
        # In random order: a choice takes the first of several that are equally good.
        order = core.random(self.seed, Stream.cohort, np.full_like(numbers, ORDER), numbers, words=drawn.shape[1])
        candidates = np.take_along_axis(drawn, order.argsort(axis=1, kind="stable"), axis=1)
        points = (
            np.full((1, *drawn.shape), np.nan) if known is None else known[candidates].transpose(2, 0, 1).astype(np.float64)
        )
        words = core.random(self.seed, Stream.cohort, np.full_like(numbers, WORDS), numbers, words=2 * self._candidates)
        cohorts = np.take_along_axis(candidates, self.choice(np.ascontiguousarray(points), self.size, words), axis=1)
        cohorts.sort(axis=1)
        return cohorts


LEARNT = {
    "tags": "nothing: the server has them without the devices",
    "updates": "nothing more: each device's update comes apart from the others",
    "means": "the mean input of each class, from each device, once",
    "parameters": "what no device could tell: this is a bound for other embeddings",
}
"""What the server learns of devices, by embedding."""


def told(sampling: str, embedding: str) -> list[str]:
    """Notes on what the server learns of devices to choose among them."""
    return [] if sampling == "uniform" else [f"sampling: {sampling}, by {embedding}; the server learns {LEARNT[embedding]}"]


def sampler(sampling: str, embedding: str, *, task: Any, samples: int, seed: int, size: int, fleet_size: int) -> Sampler:
    """The sampler of a run, whose devices take ``samples`` samples of ``task`` in a round.

    Raises ConfigError if the task lacks what the embedding is made of.
    """
    if sampling == "uniform":
        return Uniform(seed, size, fleet_size)
    table = None if embedding == "updates" else embedded(embedding, task, fleet_size, samples, seed)
    return ByTask(seed, size, fleet_size, CHOICES[sampling], table)
