"""Means over devices, and their intervals, made of sums that may come from many machines."""

from dataclasses import dataclass
from fractions import Fraction
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import F64
from tinyfl.runs.evaluation import student
from tinyfl.tasks.sites import fraction_text, read_fraction
from tinyfl.tasks.sums import column_sums, root


@dataclass(frozen=True)
class Moments:
    """The number of ``devices`` in a measurement, ``lost`` of them with a value that is not finite, and the exact sums of the
    other devices' values and of their squares."""

    devices: int = 0
    lost: int = 0
    total: Fraction = Fraction(0)
    squares: Fraction = Fraction(0)

    @classmethod
    def of(cls, means: NDArray[np.floating[Any]]) -> "Moments":
        """Of the ``means`` (devices,)."""
        exact = [Fraction(mean) for mean in means[np.isfinite(means)].tolist()]
        return cls(len(means), len(means) - len(exact), sum(exact, Fraction(0)), sum((e * e for e in exact), Fraction(0)))

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def mean(self) -> float:
        """Infinite if any value is not finite."""
        return float("inf") if self.lost else float(self.total / self.devices)

    @property
    def deviation(self) -> float:
        """The standard deviation; nan of a single value, or if any is not finite."""
        n = self.devices
        return float("nan") if n < 2 or self.lost else root((self.squares - self.total**2 / n) / (n - 1))

    def mean_and_interval(self) -> tuple[float, float, int]:
        """As tinyfl.runs.evaluation.mean_and_interval."""
        n = self.devices
        if n < 2 or self.lost:
            return self.mean, float("nan"), n
        return self.mean, student(n) * self.deviation / float(np.sqrt(n)), n

    def to_json(self) -> list[Any]:
        return [self.devices, self.lost, fraction_text(self.total), fraction_text(self.squares)]

    @classmethod
    def from_json(cls, said: Any) -> "Moments":
        """Raises TypeError or ValueError for anything else."""
        devices, lost, total, squares = said
        if not 0 <= int(lost) <= int(devices):
            raise ValueError(f"{lost} of {devices} devices lost")
        return cls(int(devices), int(lost), read_fraction(total), read_fraction(squares))


@dataclass(frozen=True)
class Values:
    """The number of predicted values of each output, and exact sums of the truth, of its squares and of squared errors: what R²
    is made of."""

    count: int
    total: tuple[Fraction, ...]
    squares: tuple[Fraction, ...]
    errors: tuple[Fraction, ...]

    @classmethod
    def of(cls, outputs: NDArray[np.floating[Any]], truth: F64) -> "Values":
        """Of the ``outputs`` and the ``truth``, both (values, outputs)."""
        with np.errstate(over="ignore", invalid="ignore"):
            errors = np.nan_to_num(outputs - truth)
        return cls(len(truth), column_sums(truth), column_sums(truth, squares=True), column_sums(errors, squares=True))

    def __add__(self, other: "Values") -> "Values":
        sums = [
            tuple(map(add, *both))
            for both in ((self.total, other.total), (self.squares, other.squares), (self.errors, other.errors))
        ]
        return Values(self.count + other.count, *sums)

    @property
    def r2(self) -> float | None:
        """R² as in scikit-learn, the mean over outputs; None if a target is constant."""
        around = [square - total**2 / self.count for total, square in zip(self.total, self.squares, strict=True)]
        if min(around) <= 0:
            return None
        return float(np.mean([float(1 - error / each) for error, each in zip(self.errors, around, strict=True)]))

    def to_json(self) -> list[Any]:
        return [self.count, *([fraction_text(each) for each in of] for of in (self.total, self.squares, self.errors))]

    @classmethod
    def from_json(cls, said: Any) -> "Values":
        """Raises TypeError or ValueError for anything else."""
        count, *sums = said
        total, squares, errors = (tuple(map(read_fraction, of)) for of in sums)
        if int(count) < 1 or not len(total) == len(squares) == len(errors):
            raise ValueError("sums of other lengths")
        return cls(int(count), total, squares, errors)
