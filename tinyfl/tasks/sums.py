"""Exact sums of the columns of a table: the same in any order, and over any number of machines.

A sum is a fraction, without rounding. It is rounded once, where a mean or a deviation is made of it, so that sites that send
their sums get the numbers of one file that holds all their rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import F64

BAND = 256
"""Range of exponents whose values and squares a float64 holds with room to spare: values outside are scaled into it."""

FLOOR = 2 * (1074 + BAND)
"""Each product of two floats, at any scale, is a whole multiple of 2^-FLOOR."""

AT_ONCE = 1 << 18
"""Values that are summed at once: what a processor's cache holds."""

EXACT = 2.0**62
"""Bound below which 64-bit whole numbers are subtracted as whole numbers."""


def column_sums(x: NDArray[Any], squares: bool = False) -> tuple[Fraction, ...]:
    """The exact sum of each column of ``x`` (rows, columns), of any numeric dtype and finite; or of its ``squares``, each
    rounded to float64."""
    if not len(x):
        return tuple(Fraction(0) for _ in range(x.shape[1]))
    if x.dtype.kind in "iub" and not squares:
        return _whole_sums(x)
    rows = max(1, AT_ONCE // max(1, x.shape[1]))
    parts = [x[start : start + rows] for start in range(0, len(x), rows)]
    top = np.max([np.abs(part.astype(np.float64)).max(axis=0) for part in parts], axis=0)
    top = np.minimum(top, 2.0 ** (BAND // 2))
    ladders: dict[int, _Ladder] = {}
    for part in parts:
        for shift, scaled in _scaled(part.astype(np.float64)):
            size = top if shift == 0 else np.full(x.shape[1], 2.0 ** (BAND // 2))
            ladder = ladders.setdefault(shift, _Ladder(size * size if squares else size, len(x)))
            ladder.add(scaled * scaled if squares else scaled)
    totals = [0] * x.shape[1]
    for shift, ladder in ladders.items():
        for sums in ladder.sums:
            for column in np.flatnonzero(sums).tolist():
                totals[column] += _multiple(float(sums[column]), FLOOR + shift * (1 + squares))
    return tuple(Fraction(total, 1 << FLOOR) for total in totals)


def _multiple(value: float, shift: int) -> int:
    """``value`` times 2^``shift``, which is whole."""
    over, under = value.as_integer_ratio()
    return (over << shift) // under


def _whole_sums(x: NDArray[Any]) -> tuple[Fraction, ...]:
    if x.dtype.itemsize < 8:
        return tuple(map(Fraction, x.sum(axis=0, dtype=np.int64).tolist()))
    high, low = (x >> 32).sum(axis=0, dtype=x.dtype).tolist(), (x & 0xFFFFFFFF).sum(axis=0, dtype=np.uint64).tolist()
    return tuple(Fraction((a << 32) + b) for a, b in zip(high, low, strict=True))


def _scaled(x: F64) -> Iterable[tuple[int, F64]]:
    """``x`` in parts whose nonzero values are of a moderate size: each with the power of two that it was divided by."""
    size = np.abs(x)
    if not ((size >= 2.0 ** (BAND // 2)) | ((size < 2.0 ** -(BAND // 2)) & (size > 0))).any():
        return [(0, x)]
    band = np.where(size > 0, (np.frexp(size)[1] + BAND // 2) // BAND, 0)
    with np.errstate(over="ignore", under="ignore"):  # of other bands' values
        return [(BAND * b, np.where(band == b, np.ldexp(x, -BAND * b), 0.0)) for b in np.unique(band).tolist()]


class _Ladder:
    """The exact sum of each column of up to ``rows`` rows, none of which is larger than ``top`` (columns,): the sum of all
    values' leading bits, which add up without rounding, then of their next bits, and so on (Rump, Ogita and Oishi, SIAM J. Sci.
    Comput. 31, 2008: ExtractVector)."""

    def __init__(self, top: F64, rows: int) -> None:
        self.bits = (rows + 2).bit_length()
        self.limit = np.ldexp(1.0, np.frexp(top)[1] + self.bits)
        self.sums: list[F64] = []

    def add(self, x: F64) -> None:
        rest, limit, step = x, self.limit, 0
        while rest.any():
            if step == len(self.sums):
                self.sums.append(np.zeros(x.shape[1]))
            leading = (limit + rest) - limit
            rest = rest - leading
            self.sums[step] += leading.sum(axis=0)
            limit, step = np.ldexp(limit, self.bits - 53), step + 1


def centred(x: NDArray[Any], mean: F64) -> F64:
    """``x`` (rows, columns), of any numeric dtype, minus ``mean`` (columns,). 64-bit whole numbers, which float64 cannot hold
    beyond 2^53, are subtracted as whole numbers."""
    difference = x.astype(np.float64)
    difference -= mean
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8:
        near = (np.abs(difference) < EXACT) & (np.abs(mean) < EXACT)
        rounded = np.where(np.abs(mean) < EXACT, np.rint(mean), 0)
        exact = x.astype(np.int64) - rounded.astype(np.int64)
        difference = np.where(near, exact - (mean - rounded), difference)
    return difference


@dataclass(frozen=True)
class Sums:
    """The first pass over the rows of one or more sites: the ``count`` of each column's values that are not missing (NaN), and
    their exact sum."""

    count: tuple[int, ...]
    total: tuple[Fraction, ...]

    @classmethod
    def of(cls, x: NDArray[Any]) -> "Sums":
        return cls(_counts(x), column_sums(_present(x)))

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(_added(self.count, other.count), _added(self.total, other.total))

    @property
    def mean(self) -> F64:
        """The mean of each column, which has a value."""
        return np.array([float(total / count) for total, count in zip(self.total, self.count, strict=True)])


@dataclass(frozen=True)
class Squares:
    """The second pass: exact sums of each column's differences from ``mean``, and of their squares."""

    count: tuple[int, ...]
    total: tuple[Fraction, ...]
    squares: tuple[Fraction, ...]

    @classmethod
    def of(cls, x: NDArray[Any], mean: F64) -> "Squares":
        with np.errstate(over="ignore"):
            rest = np.nan_to_num(centred(x, mean))
        return cls(_counts(x), column_sums(rest), column_sums(rest, squares=True))

    def __add__(self, other: "Squares") -> "Squares":
        return Squares(_added(self.count, other.count), _added(self.total, other.total), _added(self.squares, other.squares))

    @property
    def off(self) -> F64:
        """The distance of each column's mean from ``mean``; 0 without a value."""
        return np.array([float(total / max(count, 1)) for total, count in zip(self.total, self.count, strict=True)])

    @property
    def deviation(self) -> F64:
        """The standard deviation of each column; 0 without a value."""
        columns = zip(self.total, self.squares, self.count, strict=True)
        return np.array([root(square / max(count, 1) - (total / max(count, 1)) ** 2) for total, square, count in columns])


def missing(x: NDArray[Any]) -> NDArray[np.bool_]:
    """Where ``x`` is NaN."""
    gone: NDArray[np.bool_] = np.isnan(x) if x.dtype.kind == "f" else np.zeros(x.shape, bool)
    return gone


def _counts(x: NDArray[Any]) -> tuple[int, ...]:
    """The number of values in each column that are not missing."""
    return tuple((~missing(x)).sum(axis=0).tolist())


def _present(x: NDArray[Any]) -> NDArray[Any]:
    """``x`` with 0 for missing values."""
    gone = missing(x)
    return np.where(gone, np.zeros((), x.dtype), x) if gone.any() else x


def _added(ours: Any, theirs: Any) -> tuple[Any, ...]:
    return tuple(a + b for a, b in zip(ours, theirs, strict=True))


def root(square: Fraction) -> float:
    """The square root of a fraction, 0 for a negative one; squares that no float holds have one too."""
    if square <= 0:
        return 0.0
    half = (square.numerator.bit_length() - square.denominator.bit_length()) // 2
    return float(np.ldexp(np.sqrt(float(square / Fraction(4) ** half)), half))
