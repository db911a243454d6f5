"""N-way tasks: each device sees a few of many classes, with its own label order and gain.

Classes come in groups (the four rotations of the digits, an alphabet); a device draws its classes from one group.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np

from tinyfl import core
from tinyfl.core import F32, I32, I64, U8, U32, Stream, TableSource
from tinyfl.core.draws import below, distinct, shuffled
from tinyfl.errors import DataError
from tinyfl.networks.layers import Activation, Loss, Shape
from tinyfl.tasks import FIRST_TEST_DEVICE, FIRST_VALIDATION_DEVICE, Episodes, Split, numbers
from tinyfl.tasks.standard import Standardisation

QUERIES_PER_CLASS = 15

Labels = Literal["own", "in turn", "global"]
"""Of a device's stream: its own, of samples at random; its own, one class after the other; or those of all classes."""


@dataclass(frozen=True)
class ClassPool:
    """Samples sorted by class: class c is rows first[c] to first[c] + count[c] - 1 of the table, float32 or uint8 (rows,
    inputs). ``groups`` has the number of classes in each group, which follow one another."""

    table: F32 | U8
    first: I64
    count: I64
    groups: I64

    @classmethod
    def of(cls, x: F32 | U8, labels: I32, groups: Sequence[int]) -> "ClassPool":
        """A pool of samples ``x`` (rows, inputs) with classes ``labels`` (rows,), in ``groups`` of so many classes."""
        order = np.argsort(labels, kind="stable")
        count = np.bincount(labels, minlength=sum(groups))
        return cls(x[order], np.cumsum(count) - count, count, np.array(groups))


@dataclass(frozen=True)
class Episodic:
    """An N-way task over three pools of classes."""

    name: str
    seed: int
    shape: Shape
    ways: int
    gains: tuple[float, float]
    """Range of a device's gain."""
    train: ClassPool
    validation: ClassPool
    test: ClassPool
    training_ways: int = 0
    """Classes of a training device, if its stream is in turn or has global labels; 0: as many as ``ways``."""
    labels: Labels = "own"
    activation: Activation = Activation.leaky_relu
    loss: Loss = Loss.softmax_cross_entropy
    shots_per_class: ClassVar[bool] = True
    fleet_size: int | None = None
    standardisation: Standardisation | None = None

    def __post_init__(self) -> None:
        least = int(self.train.groups.min())
        if self.training_ways > least:
            raise DataError(
                f"task {self.name}: training devices draw their classes from as few as {least}. Give --training-ways {least} "
                "or fewer."
            )

    @property
    def outputs(self) -> int:
        return self.ways

    @property
    def classes(self) -> int:
        return len(self.train.count)

    @property
    def episode_ways(self) -> int:
        return self.training_ways or self.ways

    def in_turn(self) -> Self:
        return replace(self, labels="in turn")

    def with_global_labels(self) -> Self:
        return replace(self, labels="global")

    def classes_and_gains(self, devices: U32, pool: ClassPool, ways: int = 0) -> tuple[I64, F32]:
        """Each device's classes in its own label order, (devices, ``ways`` or as many as the task's), and its gain,
        (devices,)."""
        words = core.random(self.seed, Stream.task, devices, words=2)
        group = below(words[:, 0], len(pool.groups))
        size = pool.groups[group]
        classes = np.empty((len(devices), ways or self.ways), np.int64)
        for available in np.unique(size).tolist():
            of = np.flatnonzero(size == available)
            picks = classes.shape[1]
            classes[of] = core.distinct(self.seed, Stream.task, devices[of], skip=2, available=available, picks=picks)
        classes += (np.cumsum(pool.groups) - pool.groups)[group][:, None]
        low, high = self.gains
        return classes, np.float32(low) + np.float32(high - low) * core.uniform(words[:, 1])

    def tags(self, devices: U32) -> F32:
        """Each device's group of classes, one-hot, float32 (devices, groups)."""
        words, groups = core.random(self.seed, Stream.task, devices, words=1), len(self.train.groups)
        return np.eye(groups, dtype=np.float32)[below(words[:, 0], groups)]

    def parameters(self, devices: U32) -> F32:
        """The mean training input of each of a device's classes, in its label order and with its gain, float32 (devices, ways x
        inputs)."""
        classes, gain = self.classes_and_gains(devices, self.train)
        there, at = np.unique(classes, return_inverse=True)
        pools = zip(self.train.first[there].tolist(), self.train.count[there].tolist(), strict=True)
        means = np.stack([self.train.table[first : first + count].mean(axis=0, dtype=np.float32) for first, count in pools])
        parameters: F32 = (gain[:, None, None] * means[at.reshape(classes.shape)]).reshape(len(devices), -1)
        return parameters

    def stream(self, devices: U32, round: int, samples: int) -> TableSource:
        return self.streams(devices, np.full(len(devices), round, np.uint32), samples)

    def streams(self, devices: U32, rounds: U32, samples: int) -> TableSource:
        if self.labels == "in turn":
            return self._episodes_in_turn(devices, rounds, samples)
        ways = self.episode_ways if self.labels == "global" else self.ways
        classes, gain = self.classes_and_gains(devices, self.train, ways)
        words = core.random(self.seed, Stream.sample, devices, rounds, words=2 * samples)
        labels = below(words[:, :samples], ways)
        chosen = np.take_along_axis(classes, labels, axis=1)
        rows = self.train.first[chosen] + below(words[:, samples:], self.train.count[chosen])
        labels = chosen if self.labels == "global" else labels
        return TableSource(self.train.table, rows.astype(np.int32), labels=labels.astype(np.int32), gain=gain)

    def _episodes_in_turn(self, devices: U32, rounds: U32, samples: int) -> TableSource:
        """One sample of each class after another. Those of a class repeat only where it has fewer."""
        ways, pool = self.episode_ways, self.train
        classes, gain = self.classes_and_gains(devices, pool, ways)
        turns, flat = -(-samples // ways), classes.ravel()
        words = core.random(self.seed, Stream.sample, devices, rounds, words=ways * turns)
        picks = pool.first[flat][:, None] + shuffled(words.reshape(-1, turns), pool.count[flat])
        rows = picks.reshape(len(devices), ways, turns).transpose(0, 2, 1).reshape(len(devices), -1)[:, :samples]
        labels = np.broadcast_to(np.arange(samples, dtype=np.int32) % ways, rows.shape)
        return TableSource(pool.table, rows.astype(np.int32), labels=np.ascontiguousarray(labels), gain=gain)

    def episodes(self, split: Split, count: int, shots: int) -> Episodes:
        pool = self.test if split == "test" else self.validation
        fewest = int(pool.count.min())
        if fewest < shots + 1:
            raise DataError(
                f"task {self.name} has a class with only {fewest} {split} samples, too few for {shots} shots and a query. "
                + (f"Use --shots {fewest - 1} or fewer." if fewest > 1 else "Give every class more samples.")
            )
        devices = numbers(FIRST_TEST_DEVICE if split == "test" else FIRST_VALIDATION_DEVICE, count)
        classes, gain = self.classes_and_gains(devices, pool)
        queries = min(QUERIES_PER_CLASS, fewest - shots)
        most = int(pool.count.max())
        words = core.random(self.seed, Stream.support, devices, words=self.ways * most).reshape(-1, most)
        flat = classes.reshape(-1)
        picks = distinct(words, pool.count[flat], shots + queries) + pool.first[flat][:, None]
        picks = picks.reshape(count, self.ways, shots + queries).transpose(0, 2, 1)

        def part(rows: I64) -> TableSource:
            """A source from rows (devices, samples per class, ways), ordered by sample number, then by class."""
            labels = np.broadcast_to(np.arange(self.ways, dtype=np.int32), rows.shape).reshape(count, -1)
            flat_rows = rows.reshape(count, -1).astype(np.int32)
            return TableSource(pool.table, flat_rows, labels=np.ascontiguousarray(labels), gain=gain)

        return Episodes(part(picks[:, :shots]), part(picks[:, shots:]), np.arange(count, dtype=np.int32))
