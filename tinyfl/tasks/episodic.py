"""N-way tasks: each device sees a few of many classes, with its own label order and gain.

Classes come in groups (the four rotations of the digits); a device draws its classes from one group.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tinyfl import core
from tinyfl.core import F32, I32, I64, U8, U32, Stream, TableSource
from tinyfl.core.draws import below, distinct
from tinyfl.errors import DataError
from tinyfl.networks.layers import Activation, Loss, Shape
from tinyfl.tasks import FIRST_TEST_DEVICE, FIRST_VALIDATION_DEVICE, Episodes, Split, numbers
from tinyfl.tasks.standard import Standardisation

QUERIES_PER_CLASS = 15


@dataclass(frozen=True)
class ClassPool:
    """Samples sorted by class: class c is rows first[c] to first[c] + count[c] - 1 of the table, float32 or uint8 (rows,
    inputs)."""

    table: F32 | U8
    first: I64
    count: I64

    @classmethod
    def of(cls, x: F32 | U8, labels: I32, classes: int) -> "ClassPool":
        """A pool of samples ``x`` (rows, inputs) with classes ``labels`` (rows,)."""
        order = np.argsort(labels, kind="stable")
        count = np.bincount(labels, minlength=classes)
        return cls(x[order], np.cumsum(count) - count, count)


@dataclass(frozen=True)
class Episodic:
    """An N-way task over three pools with equally many groups of classes."""

    name: str
    seed: int
    shape: Shape
    ways: int
    groups: int
    gains: tuple[float, float]
    """Range of a device's gain."""
    train: ClassPool
    validation: ClassPool
    test: ClassPool
    activation: Activation = Activation.leaky_relu
    loss: Loss = Loss.softmax_cross_entropy
    shots_per_class: ClassVar[bool] = True
    fleet_size: int | None = None
    standardisation: Standardisation | None = None

    @property
    def outputs(self) -> int:
        return self.ways

    def classes_and_gains(self, devices: U32, pool: ClassPool) -> tuple[I64, F32]:
        """Each device's classes in its own label order, (devices, ways), and its gain, (devices,)."""
        per_group = len(pool.count) // self.groups
        words = core.random(self.seed, Stream.task, devices, words=2)
        drawn = core.distinct(self.seed, Stream.task, devices, skip=2, available=per_group, picks=self.ways)
        classes = drawn.astype(np.int64) + (below(words[:, 0], self.groups) * per_group)[:, None]
        low, high = self.gains
        return classes, np.float32(low) + np.float32(high - low) * core.uniform(words[:, 1])

    def tags(self, devices: U32) -> F32:
        """Each device's group of classes, one-hot, float32 (devices, groups)."""
        words = core.random(self.seed, Stream.task, devices, words=1)
        return np.eye(self.groups, dtype=np.float32)[below(words[:, 0], self.groups)]

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
        classes, gain = self.classes_and_gains(devices, self.train)
        words = core.random(self.seed, Stream.sample, devices, rounds, words=2 * samples)
        labels = below(words[:, :samples], self.ways)
        chosen = np.take_along_axis(classes, labels, axis=1)
        rows = self.train.first[chosen] + below(words[:, samples:], self.train.count[chosen])
        return TableSource(self.train.table, rows.astype(np.int32), labels=labels.astype(np.int32), gain=gain)

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
