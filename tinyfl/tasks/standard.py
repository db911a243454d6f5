"""What is done to a user's data before they are learnt from, and again to those of a new device: one place for all of tinyfl.

All of it is in float64, and float32 only what the network is given: a time in seconds since 1970 or a position in degrees has
no digits left once it is rounded to float32 first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import F32

F64 = NDArray[np.float64]

ROUNDING = 4
"""In last digits of a float64: a column of floats that varies by no more does not vary. Arithmetic alone makes as much."""

EXACT = 2.0**62
"""64-bit whole numbers below it are subtracted as whole numbers."""


@dataclass(frozen=True)
class Standardisation:
    """A network's inputs are (x - mean) / scale, float64 (inputs,); its outputs stand for target_mean + target_scale * output,
    float64 (outputs,). ``classes`` are the file's classes in the order of the outputs, empty for regression. ``notes`` say in
    words what was made of the file."""

    mean: F64
    scale: F64
    classes: NDArray[Any]
    target_mean: F64
    target_scale: F64
    notes: tuple[str, ...] = ()

    @classmethod
    def none(cls, inputs: int, outputs: int) -> "Standardisation":
        """Of data that are taken as they are."""
        return cls(np.zeros(inputs), np.ones(inputs), np.empty(0, np.int64), np.zeros(outputs), np.ones(outputs))

    @classmethod
    def read(cls, arrays: Mapping[str, NDArray[Any]], inputs: int, outputs: int) -> "Standardisation":
        """What ``arrays`` made; where it is of a tinyfl that left targets as they were, so are these.

        Raises ValueError with the name of an array that is not finite, or of another shape or type.
        """
        plain = cls.none(inputs, outputs)
        held: dict[str, F64] = {}
        for name in ("mean", "scale", "target_mean", "target_scale"):
            expected: F64 = getattr(plain, name)
            given = arrays.get(name, expected)
            usable = given.dtype.kind == "f" and given.shape == expected.shape and np.isfinite(given).all()
            if not usable or (name in ("scale", "target_scale") and not (given > 0).all()):
                positive = " above 0" if name.endswith("scale") else ""
                raise ValueError(f"{name} is not {expected.size:,} finite numbers{positive} but {given.dtype} {given.shape}")
            held[name] = given.astype(np.float64)
        if arrays["classes"].shape not in ((0,), (outputs,)):
            raise ValueError(f"{outputs:,} outputs, and classes is {arrays['classes'].dtype} {arrays['classes'].shape}")
        return cls(held["mean"], held["scale"], arrays["classes"], held["target_mean"], held["target_scale"])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As a file holds it."""
        names = ("mean", "scale", "classes", "target_mean", "target_scale")
        return {name: getattr(self, name) for name in names}

    @property
    def of_inputs(self) -> bool:
        """Whether inputs are changed at all."""
        return bool((self.mean != 0).any() or (self.scale != 1).any())

    @property
    def of_targets(self) -> bool:
        """Whether targets are."""
        return bool((self.target_mean != 0).any() or (self.target_scale != 1).any())

    @property
    def squared_unit(self) -> float:
        """What a mean squared error of 1 in the network's units is in the user's; of several outputs, where all are as far off
        for their deviation."""
        return float((self.target_scale**2).mean())

    def apply(self, x: NDArray[Any]) -> F32:
        """Inputs ``x`` (rows, inputs), of any numeric dtype, as the network takes them."""
        return _applied(x, self.mean, self.scale)

    def targets(self, y: NDArray[Any]) -> F32:
        """Regression targets ``y`` (rows, outputs), likewise."""
        return _applied(y, self.target_mean, self.target_scale)


def _applied(x: NDArray[Any], mean: F64, scale: F64) -> F32:
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by whoever asks, with its row
        values = centred(x, mean)
        values /= scale
        return values.astype(np.float32)


def centred(x: NDArray[Any], mean: F64) -> F64:
    """``x`` (rows, columns), of any numeric dtype, less ``mean`` (columns,). Whole numbers of 64 bits, which float64 does not
    hold beyond 2^53, are subtracted as such."""
    difference = x.astype(np.float64)
    difference -= mean
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8:
        near = (np.abs(difference) < EXACT) & (np.abs(mean) < EXACT)
        whole = np.where(np.abs(mean) < EXACT, np.rint(mean), 0)
        exact = x.astype(np.int64) - whole.astype(np.int64)
        difference = np.where(near, exact - (mean - whole), difference)
    return difference


def spread(x: NDArray[Any]) -> tuple[F64, F64, NDArray[np.bool_]]:
    """Mean and scale of each column of ``x`` (rows, columns), and whether it varies at all.

    The scale is the standard deviation. Of a column that does not vary it is the size of its value, or 1 for smaller ones: then
    another value on another device is no outlier of a million deviations.
    """
    low, high = x.min(axis=0), x.max(axis=0)
    varies = low != high
    low, high = low.astype(np.float64), high.astype(np.float64)
    size = np.maximum(np.abs(low), np.abs(high))
    with np.errstate(over="ignore", invalid="ignore"):
        if x.dtype.kind == "f":
            varies &= high - low > ROUNDING * np.spacing(size)
        unit = _power(size)
        mean = (x / unit).mean(axis=0) * unit
        rest = centred(x, mean)
        # In units of its own, so that squares neither overflow nor vanish.
        unit = _power(np.abs(rest).max(axis=0))
        rest /= unit
        off = rest.mean(axis=0)
        mean = mean + off * unit
        deviation = np.sqrt(((rest - off) ** 2).mean(axis=0)) * unit
    varies &= deviation > 0
    return mean, np.where(varies, deviation, np.maximum(np.abs(mean), 1)), varies


def _power(size: F64) -> F64:
    """The power of two at or below each ``size``; 1 where that is 0 or not finite. To divide by it rounds nothing."""
    usable = np.isfinite(size) & (size > 0)
    exponent = np.frexp(np.where(usable, size, 1))[1] - 1
    power: F64 = np.where(usable, np.ldexp(1.0, exponent), 1.0)
    return power
