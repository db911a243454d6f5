"""Data that a program has in memory, as the .npz file that a run directory keeps of them."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.data.words import named
from tinyfl.errors import DataError
from tinyfl.errors.words import plain
from tinyfl.system.files import npz, private_folder, read_arrays

COLUMNS, TIMES = "tinyfl.columns", "tinyfl.times"
"""Arrays of a file of columns: their names, and which of them are dates, in nanoseconds. Column i is the array "column i"."""


def file_of(data: Any) -> bytes:
    """The .npz file of ``data``: a pandas or polars frame, or a dict of arrays, with an .npz file's names or columns'.

    Raises DataError for anything else, or an array of anything but numbers, texts or dates.
    """
    columns = {str(name): _array(str(name), data[name]) for name in _names(data)}
    if not columns:
        raise DataError("data has no columns. Give a frame, or a dict of arrays.")
    if columns.get("x", np.empty(0)).ndim > 1:
        return npz(**columns)
    lengths = {name: each.shape for name, each in columns.items()}
    if len(set(lengths.values())) > 1 or len(next(iter(lengths.values()))) != 1:
        raise DataError(
            f"data has columns of several shapes: {named([f'{name} {shape}' for name, shape in lengths.items()])}. Give each "
            "column one value per row; or the arrays x (rows, inputs), y and device."
        )
    times = [name for name, each in columns.items() if each.dtype.kind == "M"]
    values = [each.astype("M8[ns]").astype(np.int64) if each.dtype.kind == "M" else each for each in columns.values()]
    arrays = {f"column {number}": each for number, each in enumerate(values)}
    return npz(**{COLUMNS: np.array(list(columns)), TIMES: np.array(times or [""]), **arrays})


@contextmanager
def on_disk(data: Any) -> Iterator[Path]:
    """The path of ``data``: of a file of ``file_of`` for the time being, if they are not a path themselves."""
    if isinstance(data, str | os.PathLike):
        yield Path(data)
        return
    content = file_of(data)
    with private_folder("tinyfl-data-") as folder:
        (folder / "data.npz").write_bytes(content)
        yield folder / "data.npz"


def columns_in(path: Path) -> dict[str, NDArray[Any]]:
    """The columns in a file of ``file_of``."""
    names = read_arrays(path, (COLUMNS, TIMES))
    order = [f"column {number}" for number in range(len(names[COLUMNS]))]
    arrays = read_arrays(path, order)
    found = {str(name): arrays[each] for name, each in zip(names[COLUMNS], order, strict=True)}
    return {name: each.astype("M8[ns]") if name in names[TIMES] else each for name, each in found.items()}


def _names(data: Any) -> list[Any]:
    """The names of a frame's columns or a mapping's arrays."""
    if isinstance(data, Mapping):
        return list(data)
    if hasattr(data, "columns") and hasattr(data, "__getitem__"):
        return list(data.columns)
    raise DataError(f"data is a {type(data).__name__}. Give a path, a frame, or a dict of arrays.")


def _array(name: str, values: Any) -> NDArray[Any]:
    """A column as a plain array; missing texts are empty."""
    try:
        array: NDArray[Any] = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
        return _of_objects(array) if array.dtype.kind == "O" else array
    except (TypeError, ValueError) as error:
        raise DataError(f"data: column {plain(name, 40)} is neither numbers, texts nor dates ({plain(error)}).") from error


def _of_objects(array: NDArray[Any]) -> NDArray[Any]:
    """An array of Python objects as numbers or texts."""
    missing = np.array([each is None or each != each or str(each) == "<NA>" for each in array.ravel()], bool).reshape(
        array.shape
    )
    if any(isinstance(each, str) for each in array[~missing].tolist()):
        return np.where(missing, "", array).astype(str)
    return np.where(missing, np.nan, array).astype(np.float64)
