"""Reads a user's file, or folder of files, as a table."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
from numpy.typing import NDArray

from tinyfl.data import USUAL, Reading, Table
from tinyfl.data.arrays import as_text
from tinyfl.data.columns import DEVICES, LABELS, table_of
from tinyfl.data.frames import COLUMNS, columns_in
from tinyfl.data.tabular import is_tabular, read_columns
from tinyfl.data.windows import windowed
from tinyfl.data.words import named
from tinyfl.errors import DataError
from tinyfl.errors.words import plain
from tinyfl.system.files import array_names, read_arrays

NEEDED, OPTIONAL, TIME, INPUTS = ("x", "y", "device"), ("split", "validation"), "timestamp", "inputs"
CLASSES, CLASS_NAMES = "split_classes", "class_names"
DEPTH = 2
"""Levels of folders that are read: a folder of files, or of folders of files."""

SPREADSHEETS = (".xlsx", ".ods")
"""Zip files, as an .npz file is."""

BY_NAME = {"label": "label by name", "device": "device by name"}
"""Columns that the names of files and folders make."""


def read_table(path: Path, reading: Reading = USUAL) -> Table:
    """Reads the file at ``path``: an .npz file with the arrays ``x``, ``y``, ``device``, and perhaps ``split``, ``validation``,
    ``timestamp``, ``inputs``, the inputs' names, and ``split_classes``; a file of columns (tinyfl.data.tabular); or a folder
    of such files, one for each device or class.

    Raises DataError if it is missing or malformed, or lacks what is needed, InstallError without the library that reads it.
    """
    if path.is_dir():
        return _of_folder(path, reading)
    if is_tabular(path):
        return table_of(str(path), read_columns(path), reading)
    if path.is_file() and path.suffix != ".npz" and (path.suffix in SPREADSHEETS or not is_zipfile(path)):
        raise DataError(
            f"{path} is neither an .npz, a CSV, a Parquet nor a JSON lines file, by its name. Write it as one, for example "
            "with pandas' frame.to_csv; or give the frame itself in Python: tinyfl.simulate(data=frame)."
        )
    if path.is_file() and COLUMNS in _names(path):
        return table_of(str(path), columns_in(path), reading)
    used = (*OPTIONAL, CLASS_NAMES, *(TIME,) * bool(reading.window), *(CLASSES,) * bool(reading.episodes))
    arrays = {name: as_text(array) for name, array in read_arrays(path, NEEDED, used).items()}
    inputs = _inputs_named(path, arrays["x"])
    unused = [name for name in _names(path) if name not in (*NEEDED, *used, *(INPUTS,) * bool(inputs))]
    table = Table(
        str(path), arrays["x"], arrays["y"], arrays["device"], arrays.get("split"), arrays.get("validation"),
        inputs, tuple(_unused(unused)), arrays.get(CLASSES), arrays.get(CLASS_NAMES),
    )  # fmt: skip
    return windowed(table, reading, arrays.get(TIME))


def read_device(path: Path, reading: Reading, inputs: Sequence[str]) -> Table:
    """Reads the samples of one device: an .npz file with ``x``, ``y`` and perhaps ``timestamp``, or a file of columns, of which
    the ``inputs`` are known, or none are.

    Raises DataError if it is missing or malformed, or has several devices.
    """
    if not (is_tabular(path) or (path.is_file() and COLUMNS in _names(path))):
        arrays = read_arrays(path, ("x", "y"), (CLASS_NAMES, TIME) if reading.window else (CLASS_NAMES,))
        x, y = in_order(path, arrays["x"], _inputs_named(path, arrays["x"]), inputs), as_text(arrays["y"])
        device = np.zeros(len(y) if y.ndim else 0, np.int64)
        table = Table(str(path), x, y, device, class_names=arrays.get(CLASS_NAMES))
        return windowed(table, reading, arrays.get(TIME)) if x.ndim == 2 else table
    columns = read_columns(path) if is_tabular(path) else columns_in(path)
    if not ({reading.device_column, *DEVICES} & {name.lower() for name in columns} or reading.device_column in columns):
        columns[BY_NAME["device"]] = np.zeros(len(next(iter(columns.values()))), np.int64)
        reading = replace(reading, device_column=BY_NAME["device"])
    table = table_of(str(path), columns, replace(reading, input_columns=""), inputs=inputs)
    if len(several := np.unique(table.device)) > 1:
        raise DataError(f"{path} has the devices {named(several)}. Give the rows of one of them.")
    return table


def _inputs_named(path: Path, x: NDArray[Any]) -> tuple[str, ...]:
    """The names of ``x``'s inputs, of its last axis, in the array INPUTS; none if that is of something else."""
    try:
        names = read_arrays(path, (), (INPUTS,)).get(INPUTS)
    except DataError:
        return ()
    if names is None or names.dtype.kind != "U" or x.ndim < 2 or names.shape != x.shape[-1:]:
        return ()
    return tuple(names.tolist())


def in_order(source: Path | str, x: NDArray[Any], names: tuple[str, ...], inputs: Sequence[str]) -> NDArray[Any]:
    """``x``, whose inputs have ``names``, in the order of ``inputs``; as it is if either has none.

    Raises DataError for other inputs.
    """
    if not names or not inputs or names == tuple(inputs):
        return x
    if sorted(names) != sorted(inputs):
        raise DataError(f"{source} has the inputs {named(names)}, and the run {named(inputs)}. Give the same, in any order.")
    return np.ascontiguousarray(x[..., [names.index(name) for name in inputs]])


def _names(path: Path) -> list[str]:
    try:
        return array_names(path)
    except Exception:  # read_arrays says what is wrong with it
        return []


def _unused(unused: list[str]) -> Iterable[str]:
    if unused:
        yield f"not used: the array{'s' * (len(unused) > 1)} {named(unused)}"


def files_in(folder: Path) -> list[Path]:
    """The files of columns in ``folder`` and its folders, in the order of their names."""
    found = (path for pattern in ("*", "*/*") for path in folder.glob(pattern))
    return sorted(path for path in found if is_tabular(path) and path.is_file() and not path.name.startswith("."))


def _of_folder(folder: Path, reading: Reading) -> Table:
    """The samples in a folder. What the columns do not say, the names do: a folder's, then a file's, is the class where there
    is no column of labels, and the device where there is none of devices."""
    files = files_in(folder)
    if not files:
        raise DataError(f"{folder} has no CSV, Parquet or JSON lines file, nor has a folder in it. Give another path.")
    tables = [read_columns(path) for path in files]
    first = set(tables[0])
    for path, columns in zip(files, tables, strict=True):
        if set(columns) != first:
            raise DataError(
                f"{path} has the columns {named(sorted(columns))}, and {files[0].name} {named(sorted(first))}. Give all files "
                "the same columns."
            )
    count = [len(next(iter(columns.values()))) for columns in tables]
    joined = {name: _joined(files, name, [columns[name] for columns in tables]) for name in tables[0]}
    reading, told = _from_names(folder, files, count, joined, reading)
    note = f"files: {len(files):,} in {plain(folder.name, 40)}{told}"
    return table_of(str(folder), joined, reading, np.repeat(np.arange(len(files)), count), (note,))


def _from_names(
    folder: Path, files: list[Path], count: list[int], columns: dict[str, NDArray[Any]], reading: Reading
) -> tuple[Reading, str]:
    """Adds to ``columns`` what the files' names say, and returns the reading that takes it, with words on it."""
    if len(levels := {len(path.relative_to(folder).parts) for path in files}) > 1:
        raise DataError(f"{folder} has files beside folders of files. Give one or the other, so that names mean the same.")
    names = [("file", [path.name.split(".")[0] for path in files])]
    if levels == {DEPTH}:
        names.insert(0, ("folder", [path.parent.name for path in files]))
    lower, said = {name.lower() for name in columns}, []
    if not (reading.label_column or lower & set(LABELS)):
        what, words = names.pop(0)
        columns[BY_NAME["label"]] = np.repeat(np.array(words), count)
        reading = replace(reading, label_column=BY_NAME["label"])
        said.append(f"; the label is the name of its {what}")
    if names and not (reading.device_column or lower & set(DEVICES)):
        what, words = names.pop(0)
        columns[BY_NAME["device"]] = np.repeat(np.array(words), count)
        reading = replace(reading, device_column=BY_NAME["device"])
        said.append(f"; the device is the name of its {what}")
    return reading, "".join(said)


def _joined(files: list[Path], name: str, parts: list[NDArray[Any]]) -> NDArray[Any]:
    """One column of all files, which must be numbers in all or text in all; columns without any value are either."""
    text = [each.dtype.kind == "U" for each in parts]
    full = [bool((each != "").any()) if is_text else True for each, is_text in zip(parts, text, strict=True)]
    worded = [path.name for path, *is_so in zip(files, text, full, strict=True) if all(is_so)]
    others = [path.name for path, is_text in zip(files, text, strict=True) if not is_text]
    if worded and others:
        raise DataError(
            f"column {plain(name, 40)} is text in {plain(worded[0], 40)} and numbers in {plain(others[0], 40)}. Make it the "
            "same in all files."
        )
    if others:
        parts = [np.full(len(each), np.nan) if is_text else each for each, is_text in zip(parts, text, strict=True)]
    return np.concatenate(parts)
