"""Checks of the arrays x and y in a user's file, with the faulty row in each error."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.errors import DataError
from tinyfl.errors.words import plain

ONE_HOT = "one-hot rows"


def as_text(array: NDArray[Any]) -> NDArray[Any]:
    """``array``, with bytes decoded as UTF-8."""
    return np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array


def checked_inputs(source: Path | str, x: NDArray[Any], missing: str = "refuse") -> NDArray[Any]:
    """``x`` as (rows, inputs), in its own dtype; the standardisation computes in float64. NaN stays, as a missing value, if
    ``missing`` is "mean".

    Raises DataError if it is not numeric, or has an infinity or another NaN.
    """
    if x.ndim < 2 or x.dtype.kind not in "fiub" or x.size == 0:
        raise DataError(f"{source}: array x is {x.dtype} {x.shape}, not numbers (samples, inputs). Give each sample one row.")
    rows = _rows(x)
    cure = "Fill missing values, by the training devices' mean say, or leave those rows out"
    refuse_non_finite(source, "x", rows, cure, missing=missing == "mean")
    return rows


def shape_of(source: Path | str, x: NDArray[Any]) -> tuple[int, ...]:
    """Shape of one sample of ``x``: (inputs,), or (height, width, channels) if it has rows and columns.

    Raises DataError for more dimensions.
    """
    if x.ndim > 4:
        raise DataError(f"{source}: array x is {x.shape}. Give (samples, inputs) or (samples, height, width, channels).")
    return {2: x.shape[1:], 3: (*x.shape[1:], 1), 4: x.shape[1:]}[x.ndim]


def labels_in(source: Path | str, y: NDArray[Any], targets: str) -> tuple[NDArray[Any] | None, str]:
    """The class of each row (rows,), and the notation of classes in ``y``: names, whole numbers (of int or float dtype), truth
    values or one-hot rows. None if ``y`` holds values, by its content or by ``targets``.

    Raises DataError if ``y`` should hold classes but does not, or can hold neither.
    """
    column = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    kind = y.dtype.kind
    if targets == "values":
        return None, ""
    if column.ndim == 1 and kind == "U":
        return column, "by name"
    if column.ndim == 1 and kind in "iub":
        return column, "truth values" if kind == "b" else "whole numbers"
    if column.ndim == 1 and kind == "f" and _are_whole_numbers(column):
        return column.astype(np.int64), "whole numbers in an array of floats"
    if y.ndim == 2 and kind in "fiub" and _one_hot(y):
        return y.argmax(axis=1), ONE_HOT
    if targets == "classes" or kind != "f":
        raise DataError(
            f"{source}: array y is {y.dtype} {y.shape}{_first_odd(y)}. Classes are whole numbers or names (samples,) or "
            "one-hot rows, values to predict floats (samples,) or (samples, outputs). For values give --targets values."
        )
    return None, ""


def by_names(source: Path | str, labels: NDArray[Any], names: NDArray[Any] | None) -> NDArray[Any]:
    """``labels`` (rows,), which are ``names`` or their numbers, by name; as they are without names.

    Raises DataError for names that are none, or other labels.
    """
    if names is None:
        return labels
    if names.ndim != 1 or names.dtype.kind != "U" or len(np.unique(names)) != len(names):
        raise DataError(f"{source}: class_names are not texts, each another. Give the classes' names in the order of numbers.")
    text = labels.dtype.kind == "U"
    unknown = ~np.isin(labels, names) if text else (labels < 0) | (labels >= len(names))
    if unknown.any():
        row = int(unknown.argmax())
        raise DataError(
            f"{source}: array y has the class {plain(labels[row], 40)} in row {row}, which is none of "
            f"{plain(', '.join(names.tolist()), 200)}. Write it as one of them, or leave such rows out."
        )
    return labels if text else names[labels.astype(np.int64)]


def numbers_of(labels: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.int32]:
    """The number of each of ``labels`` among ``classes``, which have them all, in any order."""
    order = np.argsort(classes, kind="stable")
    found: NDArray[np.int32] = order[np.searchsorted(classes, labels, sorter=order)].astype(np.int32)
    return found


def _first_odd(y: NDArray[Any]) -> str:
    """The first row that is no class, for a message."""
    if y.dtype.kind not in "fiub" or y.size == 0:
        return ""
    rows = _rows(y)
    odd = rows[:, 0] != np.rint(rows[:, 0]) if rows.shape[1] == 1 else np.count_nonzero(rows, axis=1) != 1
    row = int(odd.argmax())
    return f" and has {', '.join(map(str, rows[row, :4].tolist()))} in row {row}"


def _one_hot(y: NDArray[Any]) -> bool:
    return bool(((y == 0) | (y == 1)).all() and (np.count_nonzero(y, axis=1) == 1).all())


def _are_whole_numbers(y: NDArray[Any]) -> bool:
    """Whether all floats are whole numbers, and small enough for their dtype to hold fractions."""
    finite = bool(np.isfinite(y).all())
    return finite and bool((y == np.rint(y)).all()) and float(np.abs(y).max(initial=0)) < 1 / float(np.finfo(y.dtype).eps)


def checked_values(source: Path | str, y: NDArray[Any]) -> NDArray[Any]:
    """Values to predict as (rows, outputs), in their own dtype.

    Raises DataError if they are not numbers, or not finite.
    """
    if y.dtype.kind not in "fiub" or not y.size:
        raise DataError(f"{source}: array y is {y.dtype} {y.shape}, not numbers (samples,) or (samples, outputs).")
    rows = _rows(y)
    refuse_non_finite(source, "y", rows, "Leave rows without a target out")
    return rows


def _rows(array: NDArray[Any]) -> NDArray[Any]:
    rows = array.reshape(len(array), -1)
    return rows.astype(np.float64) if rows.dtype.kind == "f" and rows.dtype.itemsize > 8 else rows


def refuse_non_finite(source: Path | str, name: str, rows: NDArray[Any], cure: str, *, missing: bool = False) -> None:
    """Raises DataError if ``rows`` (rows, columns) have an infinity, or a NaN unless that is a ``missing`` value, with its
    position and the ``cure``."""
    bad = (np.isinf(rows) if missing else ~np.isfinite(rows)).any(axis=1)
    if bad.any():
        row = int(bad.argmax())
        column = int((np.isinf(rows[row]) if missing else ~np.isfinite(rows[row])).argmax())
        raise DataError(
            f"{source}: array {name} has {rows[row, column]} in row {row}, column {column} "
            f"({int(bad.sum()):,} of {len(rows):,} rows have such values). {cure}."
        )
