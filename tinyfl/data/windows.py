"""Sliding windows over a stream of rows: each window is one sample."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import I64
from tinyfl.data import Reading, Table
from tinyfl.data.devices import owners
from tinyfl.data.words import named
from tinyfl.errors import ConfigError, DataError

GAP = 2.0
"""A step in time of more than this many of the device's usual (median) steps is a gap."""


def windowed(table: Table, reading: Reading, time: NDArray[Any] | None = None, file: I64 | None = None) -> Table:
    """``table``, whose ``x`` is (rows, inputs), with a sample for each window: (windows, ``reading.window``, inputs).

    A window is within one device, one class and one file, and over no gap in ``time`` (rows,), by which each device's rows are
    put in order. A window's target is that of its last row. Without a window in ``reading``, the table as it is.
    Raises ConfigError for a stride without a window, DataError for inputs of other shapes or too few rows.
    """
    if not reading.window:
        if reading.stride:
            raise ConfigError("--stride is the step from window to window: give --window N too.")
        return table
    if table.x.ndim != 2:
        raise DataError(f"{table.source}: array x is {table.x.shape}, and --window takes rows of a stream: (rows, inputs).")
    owner = owners(table)[1].astype(np.int64)
    file = np.zeros(len(owner), np.int64) if file is None else file
    stamps = np.zeros(len(owner)) if time is None else _seconds(table.source, time)
    order = np.lexsort((stamps, file, owner))  # stable: rows of the same time stay in the file's order
    owner, file, stamps = owner[order], file[order], stamps[order]
    gaps = np.zeros(0, bool) if time is None else _gaps(owner, file, stamps)
    cut = (np.diff(owner) != 0) | (np.diff(file) != 0)
    if reading.targets != "values" and _by_class(table.y):
        cut |= _differ(table.y[order])
    lost = int((gaps & ~cut).sum()) if len(gaps) else 0
    cut |= gaps if len(gaps) else False
    stride = reading.stride or reading.window
    starts = _starts(cut, len(owner), reading.window, stride)
    if not len(starts):
        raise DataError(
            f"{table.source}: no {reading.window} rows follow each other within one device and class. Give a smaller --window."
        )
    rows = order[starts[:, None] + np.arange(reading.window)]
    last = rows[:, -1]
    notes = [f"windows: {len(starts):,} of {reading.window} rows, every {stride} rows, within device and label"]
    if stride < reading.window:
        notes.append(
            f"windows: neighbours share rows, in a device's support and query set too (--stride {reading.window} avoids it)"
        )
    if lost:
        notes.append(f"windows: {lost:,} gaps in time end one")
    if (np.diff(order) != 1).any():
        notes.append("windows: rows were put in the order of devices and times")
    if (without := np.setdiff1d(table.device, table.device[last])).size:
        notes.append(f"windows: none of device{'s' * (len(without) > 1)} {named(without)}")
    return replace(
        table, x=table.x[rows], y=table.y[last], device=table.device[last], notes=(*table.notes, *notes),
    )  # fmt: skip


def _starts(cut: NDArray[np.bool_], rows: int, window: int, stride: int) -> I64:
    """The first row of each window; ``cut`` (rows - 1,) is where two rows do not follow each other."""
    first = np.concatenate([[0], np.flatnonzero(cut) + 1])
    length = np.diff(np.append(first, rows))
    count = np.maximum(0, (length - window) // stride + 1)
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    starts: I64 = np.repeat(first, count) + stride * number
    return starts


def _by_class(y: NDArray[Any]) -> bool:
    """Whether ``y`` holds classes, which a window does not mix: floats with fractions change with every row."""
    return y.dtype.kind != "f" or bool((y == np.rint(y)).all())


def _differ(y: NDArray[Any]) -> NDArray[np.bool_]:
    """Where rows of ``y`` differ from the next."""
    rows = y.reshape(len(y), -1)
    different: NDArray[np.bool_] = (rows[1:] != rows[:-1]).any(axis=1)
    return different


def _seconds(source: str, time: NDArray[Any]) -> NDArray[np.float64]:
    """``time`` as numbers in some unit, from its start."""
    if time.dtype.kind == "M":
        time = (time - time.min()).astype(np.int64) if not np.isnat(time).any() else np.full(len(time), np.nan)
    if time.dtype.kind not in "iuf" or not np.isfinite(time).all():
        raise DataError(f"{source}: a time is missing or no number, so windows would be in no order. Leave such rows out.")
    seconds: NDArray[np.float64] = (time - time.min()).astype(np.float64)
    return seconds


def _gaps(owner: I64, file: I64, time: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where a device's next row is too late to follow."""
    step, same = np.diff(time), (np.diff(owner) == 0) & (np.diff(file) == 0)
    usual = np.zeros(int(owner[-1]) + 1)
    at, steps = owner[:-1][same], step[same]
    by_size = np.lexsort((steps, at))
    at, steps = at[by_size], steps[by_size]
    count = np.bincount(at, minlength=len(usual))
    has = count > 0
    usual[has] = steps[(np.cumsum(count) - count)[has] + count[has] // 2]
    gap: NDArray[np.bool_] = same & (step > GAP * usual[owner[:-1]])
    return gap
