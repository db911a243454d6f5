"""A table of columns by name, such as a CSV file has, as samples of devices.

Columns of text are str arrays with "" where a value is missing; others have NaN or NaT there.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import I64
from tinyfl.data import Reading, Table
from tinyfl.data.windows import windowed
from tinyfl.data.words import named
from tinyfl.errors import DataError
from tinyfl.errors.words import plain

Columns = Mapping[str, NDArray[Any]]

DEVICES = ("device", "device_id", "user", "user_id", "subject", "subject_id", "participant", "person", "client")
LABELS = ("label", "target", "class", "activity", "y")
TIMES = ("timestamp", "time", "datetime", "date")
"""Names of columns by convention, in any case; the first that exists counts."""

CURE = (
    "Say which to tinyfl run or data check: --{0}-column NAME. Elsewhere name a run of these columns, or call the column {0}."
)

PARTS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "test": "split", "testing": "split", "held out": "split",
}  # fmt: skip
"""The words of a column ``split``, with what they say of a row's device."""


def table_of(
    source: str,
    columns: Columns,
    reading: Reading,
    file: I64 | None = None,
    notes: Iterable[str] = (),
    inputs: Sequence[str] = (),
) -> Table:
    """The samples in ``columns``, each (rows,). ``file`` numbers the files that the rows are from, if there are several;
    ``inputs`` are the columns of inputs if they are known.

    Raises DataError for columns that do not exist, are no numbers, or lack a value.
    """
    device = _found(source, columns, "device", reading.device_column, DEVICES)
    label = _found(source, columns, "label", reading.label_column, LABELS)
    if label.lower() == "y" and not reading.label_column and {"x", "z"} & {name.lower() for name in columns}:
        raise DataError(f"{source}: column {label} may be the label, or an axis beside another. {CURE.format('label')}")
    time = _time(columns, (device, label))
    parts = _parts(source, columns, device) if "split" in columns else {}
    taken = {device, label, *([time] if time else []), *(["split"] if parts else [])}
    inputs = inputs or ([each.strip() for each in reading.input_columns.split(",")] if reading.input_columns else [])
    for name in inputs:
        if name not in columns or columns[name].dtype.kind not in "biuf":
            raise _unusable(source, columns, name)
    rest = [name for name in columns if name not in taken]
    usable = [name for name in rest if columns[name].dtype.kind in "biuf" and not _counts_rows(columns[name])]
    inputs = inputs or usable
    if not inputs:
        raise DataError(
            f"{source}: no column but {named([device, label])} has numbers, as inputs do: with a decimal point, without units."
        )
    for name in (device, label):
        _demand_values(source, name, columns[name])
    said = [f"columns: device is {plain(device, 40)}, label {plain(label, 40)}, inputs {named(inputs)}", *notes]
    if time:
        said.append(f"time: {plain(time, 40)}, which is no input")
    if unused := [name for name in rest if name not in inputs]:
        said.append(f"not used: {'columns' if len(unused) > 1 else 'column'} {named([_why(columns, each) for each in unused])}")
    x = np.stack([columns[name] for name in inputs], axis=1)
    table = Table(
        source, x, columns[label], columns[device], parts.get("split"), parts.get("validation"), tuple(inputs), tuple(said)
    )
    stamps = columns[time] if time else None
    return windowed(table, reading, stamps, file)


def _in_order(columns: Columns, conventional: Iterable[str]) -> list[str]:
    """The columns with names by convention, the likeliest first."""
    lower = {name.strip().lower().replace(" ", "_"): name for name in reversed(list(columns))}
    return [lower[each] for each in conventional if each in lower]


def _time(columns: Columns, taken: tuple[str, ...]) -> str | None:
    """The column of times: by its name, or the first of dates."""
    dates = [name for name, values in columns.items() if values.dtype.kind == "M"]
    return next((name for name in (*_in_order(columns, TIMES), *dates) if name not in taken), None)


def _found(source: str, columns: Columns, what: str, chosen: str, conventional: tuple[str, ...]) -> str:
    """The column for a device or a label: the ``chosen`` one, or by convention."""
    if chosen and chosen not in columns:
        raise DataError(f"{source}: no column is called {plain(chosen, 40)}. Its columns are {named(list(columns))}.")
    found = [chosen] if chosen else _in_order(columns, conventional)
    if not found:
        raise DataError(
            f"{source}: no column is called {', '.join(conventional[:-1])} or {conventional[-1]}, which would be each row's "
            f"{what}. Its columns are {named(list(columns))}. {CURE.format(what)}"
        )
    return found[0]


def _parts(source: str, columns: Columns, device: str) -> dict[str, NDArray[Any]]:
    """The lists ``split`` and ``validation`` of a column of words; empty if the column split means something else."""
    words = columns["split"]
    if words.dtype.kind != "U" or not set(np.char.lower(np.unique(words)).tolist()) <= set(PARTS):
        return {}
    part = np.array([PARTS[word] for word in np.char.lower(words).tolist()])
    lists = {name: np.unique(columns[device][part == name]) for name in ("train", "validation", "split")}
    for one, other in (("train", "validation"), ("train", "split"), ("validation", "split")):
        if (both := np.intersect1d(lists[one], lists[other])).size:
            raise DataError(
                f"{source}: device {plain(both[0], 40)} has rows of several parts in column split. Give all its rows one part: "
                "a device either trains, or chooses rates, or is held out."
            )
    return {name: lists[name] for name in ("split", "validation") if len(lists[name])}


def _counts_rows(values: NDArray[Any]) -> bool:
    """Whether a column numbers the rows, as an index does that was written along."""
    if len(values) < 3 or values.dtype.kind not in "iuf":
        return False
    return bool(values[0] in (0, 1) and (values == np.arange(len(values)) + values[0]).all())


def _why(columns: Columns, name: str) -> str:
    """An unused column, with the reason."""
    values = columns[name]
    if values.dtype.kind in "biuf":
        return f"{plain(name, 40)} (numbers the rows)" if _counts_rows(values) else plain(name, 40)
    example = next((each for each in values.tolist() if each), None) if values.dtype.kind == "U" else None
    kind = {"U": "empty" if example is None else f"text, such as {plain(example, 20)}", "M": "dates"}
    return f"{plain(name, 40)} ({kind.get(values.dtype.kind, 'no numbers')})"


def _unusable(source: str, columns: Columns, name: str) -> DataError:
    if name not in columns:
        return DataError(f"{source}: no column is called {plain(name, 40)}. Its columns are {named(list(columns))}.")
    return DataError(
        f"{source}: column {_why(columns, name)} is no input: inputs are numbers. Leave it out of --input-columns."
    )


def _demand_values(source: str, name: str, values: NDArray[Any]) -> None:
    missing = values == "" if values.dtype.kind == "U" else values != values  # NaN and NaT differ from themselves
    if missing.any():
        raise DataError(
            f"{source}: column {plain(name, 40)} has no value in row {int(missing.argmax())} and {int(missing.sum()) - 1:,} "
            "others. Leave such rows out, or fill them."
        )
