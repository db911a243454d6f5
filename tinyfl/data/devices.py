"""The devices of a table, and which of them train, choose adaptation rates and test."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl import core
from tinyfl.core import I64, Stream
from tinyfl.core.draws import distinct
from tinyfl.data import Table
from tinyfl.errors import DataError

HELD_OUT = 0.2
VALIDATION = 0.15
"""Share of test devices if the table gives none, and share of the rest for choosing adaptation rates."""


def owners(table: Table) -> tuple[NDArray[Any], I64]:
    """The devices' names in order, and each row's device as an index into them.

    Raises DataError if ``y`` or ``device`` does not fit ``x``, or a row has no device.
    """
    rows, device = len(table.x), table.device
    for name, array in (("y", table.y), ("device", device)):
        if array.shape[:1] != (rows,):
            raise DataError(
                f"{table.source}: array {name} is {array.shape}, but x has {rows:,} rows. Give {name} one entry per row."
            )
    if device.ndim != 1:
        raise DataError(f"{table.source}: array device is {device.shape}, not ({rows},): one device name or number per row.")
    if device.dtype.kind == "f" and not np.isfinite(device).all():
        row = int((~np.isfinite(device)).argmax())
        raise DataError(
            f"{table.source}: array device has {device[row]} in row {row}. Give every row its device, or leave it out."
        )
    names, owner = np.unique(device, return_inverse=True)
    return names, owner


def members(table: Table, names: NDArray[Any], seed: int) -> dict[str, I64]:
    """The devices, as indices into ``names``, that ``train``, those for ``validation`` and those for ``test``.

    Raises DataError if ``split`` is no list of devices, or too few devices remain.
    """
    if table.split is None:
        keys = core.random(seed, Stream.task, np.zeros(1, np.uint32), words=len(names))
        held_out = np.sort(distinct(keys, np.array([len(names)]), max(1, round(HELD_OUT * len(names))))[0])
    else:
        held_out = _listed(table, table.split, names)
    rest = np.setdiff1d(np.arange(len(names)), held_out)
    if len(rest) < 2 or not len(held_out):
        raise DataError(
            f"{table.source}: {len(names)} devices, {len(held_out)} of them held out, leave {len(rest)} to train and choose "
            "rates. At least 1 must be held out and 2 remain: give more devices, or another split."
        )
    keys = core.random(seed, Stream.task, np.ones(1, np.uint32), words=len(rest))
    validation = rest[distinct(keys, np.array([len(rest)]), max(1, round(VALIDATION * len(rest))))[0]]
    return {"test": held_out, "validation": np.sort(validation), "train": np.setdiff1d(rest, validation)}


def _listed(table: Table, split: NDArray[Any], names: NDArray[Any]) -> I64:
    """The devices in the list ``split``, as indices into ``names``."""
    if split.ndim != 1 or len(split) > len(names) or (split.dtype.kind in "OSU") != (names.dtype.kind in "OSU"):
        raise DataError(
            f"{table.source}: array split is {split.dtype} {split.shape}, not a list of the devices to hold out. "
            f"Give their names as array device has them ({names.dtype}), each once."
        )
    if split.dtype.kind == "b" and names.dtype.kind != "b":
        raise DataError(f"{table.source}: array split is a mask. List the devices to hold out by name or number.")
    unknown = np.setdiff1d(split, names)
    if unknown.size:
        raise DataError(
            f"{table.source}: array split holds out device {unknown[0]!r}, which array device does not have. "
            "List devices to hold out by the names or numbers used in device."
        )
    return np.flatnonzero(np.isin(names, split))
