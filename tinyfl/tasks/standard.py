"""Standardisation of a user's data, for training and for new devices alike.

Computed in float64 and rounded to float32 only at the end: a time in seconds since 1970 or a position in degrees would lose its
significant digits in float32.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import F32
from tinyfl.data.words import named
from tinyfl.tasks.sums import Squares, Sums, centred, missing

F64 = NDArray[np.float64]

ARRAYS = ("mean", "scale", "classes", "target_mean", "target_scale")
"""What a file holds of a standardisation."""

ROUNDING = 4
"""Rounding error, in units in the last place of a float64: a column that deviates by no more than half of it is constant."""


@dataclass(frozen=True)
class Standardisation:
    """A network's inputs are (x - mean) / scale, float64 (inputs,); its outputs mean target_mean + target_scale * output,
    float64 (outputs,). ``classes`` are the file's classes in the order of the outputs, empty for regression. ``names`` are
    those of inputs, of the last axis; empty if they have none. ``notes`` describe the changes to the file's data, for
    people."""

    mean: F64
    scale: F64
    classes: NDArray[Any]
    target_mean: F64
    target_scale: F64
    notes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def none(cls, inputs: int, outputs: int) -> "Standardisation":
        """The identity: data unchanged."""
        return cls(np.zeros(inputs), np.ones(inputs), np.empty(0, np.int64), np.zeros(outputs), np.ones(outputs))

    @classmethod
    def read(cls, arrays: Mapping[str, NDArray[Any]], inputs: int, outputs: int) -> "Standardisation":
        """Reads the result of ``arrays``; targets are unchanged in files of a tinyfl that did not standardise them.

        Raises ValueError with the name of an array that is not finite, or has the wrong shape or type.
        """
        identity = cls.none(inputs, outputs)
        fields: dict[str, F64] = {}
        for name in ("mean", "scale", "target_mean", "target_scale"):
            expected: F64 = getattr(identity, name)
            given = arrays.get(name, expected)
            usable = given.dtype.kind == "f" and given.shape == expected.shape and np.isfinite(given).all()
            if not usable or (name in ("scale", "target_scale") and not (given > 0).all()):
                positive = " above 0" if name.endswith("scale") else ""
                raise ValueError(f"{name} is not {expected.size:,} finite numbers{positive} but {given.dtype} {given.shape}")
            fields[name] = given.astype(np.float64)
        if arrays["classes"].shape not in ((0,), (outputs,)):
            raise ValueError(f"{outputs:,} outputs, but classes is {arrays['classes'].dtype} {arrays['classes'].shape}")
        names = arrays.get("inputs", np.empty(0, "U1"))
        if names.dtype.kind != "U" or names.ndim != 1 or (names.size and inputs % names.size):
            raise ValueError(f"{inputs:,} inputs, but inputs is {names.dtype} {names.shape}")
        return cls(
            fields["mean"], fields["scale"], arrays["classes"], fields["target_mean"], fields["target_scale"],
            names=tuple(names.tolist()),
        )  # fmt: skip

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays for a file; the inverse of ``read``."""
        inputs = {"inputs": np.array(self.names)} if self.names else {}
        return {**{name: getattr(self, name) for name in ARRAYS}, **inputs}

    @property
    def of_inputs(self) -> bool:
        """Whether inputs are changed."""
        return bool((self.mean != 0).any() or (self.scale != 1).any())

    @property
    def of_targets(self) -> bool:
        """Whether targets are changed."""
        return bool((self.target_mean != 0).any() or (self.target_scale != 1).any())

    @property
    def changes(self) -> bool:
        """Whether anything is: inputs, targets, or classes to numbers."""
        return self.of_inputs or self.of_targets or len(self.classes) > 0

    @property
    def squared_unit(self) -> float:
        """A mean squared error of 1 in the network's units, converted to the user's; for several outputs, if each has the same
        error relative to its deviation."""
        return float((self.target_scale**2).mean())

    def apply(self, x: NDArray[Any]) -> F32:
        """Standardises inputs ``x`` (rows, inputs), of any numeric dtype. A missing one (NaN) becomes 0, as the mean does."""
        values = _applied(x, self.mean, self.scale)
        values[missing(x)] = 0
        return values

    def targets(self, y: NDArray[Any]) -> F32:
        """Standardises regression targets ``y`` (rows, outputs), of any numeric dtype."""
        return _applied(y, self.target_mean, self.target_scale)


def _applied(x: NDArray[Any], mean: F64, scale: F64) -> F32:
    with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses non-finite results, with their row
        values = centred(x, mean)
        values /= scale
        return values.astype(np.float32)


def input_name(names: Sequence[str], number: int, stream: bool) -> str:
    """The name of an input, or its number without ``names``; ``stream``: a sample is several rows of them."""
    if not names:
        return str(number)
    row, name = divmod(number, len(names))
    return names[name] + (f" at row {row}" if stream else "")


def constant_note(varies: NDArray[np.bool_], name: Callable[[int], str]) -> list[str]:
    """The note on inputs that do not vary."""
    if varies.all():
        return []
    constant = named([name(each) for each in np.flatnonzero(~varies).tolist()])
    return [f"x: {np.sum(~varies):,} of {len(varies):,} inputs do not vary among the training devices: {constant}"]


def spread(x: NDArray[Any]) -> tuple[F64, F64, NDArray[np.bool_]]:
    """Mean and scale of each column of ``x`` (rows, columns), of its values that are not missing, and whether it varies: see
    ``spread_of``. Each column has a value."""
    mean = Sums.of(x).mean
    return spread_of(mean, Squares.of(x, mean), x.dtype)


def spread_of(mean: F64, squares: Squares, dtype: np.dtype[Any]) -> tuple[F64, F64, NDArray[np.bool_]]:
    """Mean and scale of each column of ``dtype`` whose sums around ``mean`` are ``squares``, and whether it varies.

    The scale is the standard deviation. For a constant column it is the magnitude of its value, but at least 1, so that another
    value on another device does not become an outlier of a million deviations.
    """
    deviation = squares.deviation
    varies = deviation > (ROUNDING / 2 * np.spacing(np.abs(mean)) if dtype.kind == "f" else 0)
    return mean, np.where(varies, deviation, np.maximum(np.abs(mean), 1)), varies
