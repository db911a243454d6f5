"""Bring your own data: a task from an .npz file with ``x``, ``y`` and ``device`` (docs/tasks.md).

Few-shot within each device: a device adapts on some of its own samples and is measured on the rest. Inputs are standardised
by the mean and deviation of the training devices, which travel with the initialisation.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl import core
from tinyfl.core import F32, I32, I64, U32, Stream, TableSource
from tinyfl.errors import DataError
from tinyfl.files import read_arrays
from tinyfl.layers import Activation, Loss, Shape
from tinyfl.tasks import Episodes, Split, Standardisation, numbers
from tinyfl.tasks.draws import distinct

MOST_QUERIES = 50
HELD_OUT = 0.2
VALIDATION = 0.15
"""Shares of the devices that test where the file does not say, and of the rest that choose adaptation rates."""


def checked_inputs(path: Path, x: NDArray[Any]) -> F32:
    """``x`` as float32 (rows, inputs).

    Raises DataError where it is not numeric, or holds a NaN or an infinity.
    """
    if x.ndim < 2 or x.dtype.kind not in "fiub" or x.size == 0:
        raise DataError(f"{path}: array x is {x.dtype} {x.shape}, not numbers (samples, inputs). Give each sample one row.")
    flat = x.reshape(len(x), -1).astype(np.float32)
    _refuse_non_finite(path, "x", flat, "Fill missing values, by the training devices' mean say, or leave those rows out")
    return flat


def shape_of(path: Path, x: NDArray[Any]) -> Shape:
    """Of one sample of ``x``: (inputs,), or (height, width, channels) where it has rows and columns.

    Raises DataError where it has more.
    """
    if x.ndim > 4:
        raise DataError(f"{path}: array x is {x.shape}. Give (samples, inputs) or (samples, height, width, channels).")
    return {2: x.shape[1:], 3: (*x.shape[1:], 1), 4: x.shape[1:]}[x.ndim]


def _refuse_non_finite(path: Path, name: str, rows: F32, cure: str) -> None:
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        column = int((~np.isfinite(rows[row])).argmax())
        raise DataError(
            f"{path}: array {name} has {rows[row, column]} in row {row}, column {column} "
            f"({int(bad.sum()):,} of {len(rows):,} rows have such values). {cure}."
        )


def _standardisation(train: F32, classes: NDArray[Any]) -> Standardisation:
    """Mean and deviation of the training devices' inputs ``train`` (rows, inputs). An input that does not vary among them,
    but for rounding, is only centred: its deviation says nothing about other devices."""
    mean = train.mean(axis=0, dtype=np.float64)
    deviation = train.std(axis=0, dtype=np.float64)
    varies = deviation > 1e-6 * np.abs(mean)
    return Standardisation(mean.astype(np.float32), np.where(varies, deviation, 1).astype(np.float32), classes)


class Npz:
    """The task of one file."""

    name = "npz"
    activation = Activation.relu

    def __init__(self, path: Path, seed: int) -> None:
        self.path, self.seed = path, seed
        arrays = read_arrays(path, ("x", "y", "device"), ("split",))
        y, device = arrays["y"], arrays["device"]
        x = checked_inputs(path, arrays["x"])
        for name, array in (("y", y), ("device", device)):
            if array.shape[:1] != (len(x),):
                raise DataError(
                    f"{path}: array {name} is {array.shape}, but x has {len(x):,} rows. Give {name} one entry a row."
                )
        if device.ndim != 1:
            raise DataError(f"{path}: array device is {device.shape}, not ({len(x)},): one device name or number a row.")
        if device.dtype.kind == "f" and not np.isfinite(device).all():
            row = int((~np.isfinite(device)).argmax())
            raise DataError(f"{path}: array device has {device[row]} in row {row}. Give every row its device, or leave it out.")
        names, owner = np.unique(device, return_inverse=True)
        self._split(names, arrays.get("split"))
        trains = np.isin(owner, self._members["train"])
        order = np.argsort(owner, kind="stable")
        self._labels: I32 | None = None
        self._targets: F32 | None = None
        self.classes: NDArray[Any] = np.empty(0, np.int64)
        if y.dtype.kind in "iub" and y.ndim == 1:
            self.loss = Loss.softmax_cross_entropy
            self.classes = np.unique(y[trains])
            self.outputs = len(self.classes)
            self._labels = self._checked_labels(y)[order]
        else:
            self.loss = Loss.mean_squared_error
            self._targets = np.ascontiguousarray(self._checked_targets(y)[order])
            self.outputs = int(self._targets.shape[1])

        self.standardisation: Standardisation | None = _standardisation(x[trains], self.classes)
        self._table = np.ascontiguousarray(self.standardisation.apply(x)[order])
        _refuse_non_finite(path, "x, once standardised,", self._table, "Scale that input down")
        self._count = np.bincount(owner, minlength=len(names))
        self._first = np.cumsum(self._count) - self._count
        self._names = names
        self.shape = shape_of(path, arrays["x"])
        self.fleet_size: int | None = len(self._members["train"])

    def _split(self, names: NDArray[Any], split: NDArray[Any] | None) -> None:
        """Decides which devices train, which choose rates and which test."""
        everyone = np.arange(len(names))
        if split is None:
            keys = core.random(self.seed, Stream.task, numbers(0, 1), words=len(names))
            held_out = np.sort(distinct(keys, np.array([len(names)]), max(1, round(HELD_OUT * len(names))))[0])
        else:
            if split.ndim != 1 or len(split) > len(names) or (split.dtype.kind in "OSU") != (names.dtype.kind in "OSU"):
                raise DataError(
                    f"{self.path}: array split is {split.dtype} {split.shape}, not a list of the devices to hold out. "
                    f"Give their names as array device has them ({names.dtype}), each once."
                )
            if split.dtype.kind == "b" and names.dtype.kind != "b":
                raise DataError(f"{self.path}: array split is a mask. List the devices to hold out by name or number.")
            unknown = np.setdiff1d(split, names)
            if unknown.size:
                raise DataError(
                    f"{self.path}: array split holds out device {unknown[0]!r}, which array device does not have. "
                    "List devices to hold out by the names or numbers used in device."
                )
            held_out = everyone[np.isin(names, split)]
        rest = np.setdiff1d(everyone, held_out)
        if len(rest) < 2 or not len(held_out):
            raise DataError(
                f"{self.path}: {len(names)} devices, {len(held_out)} of them held out, leave {len(rest)} to train and choose "
                "rates. At least 1 must be held out and 2 remain: give more devices, or another split."
            )
        keys = core.random(self.seed, Stream.task, numbers(1, 1), words=len(rest))
        validation = rest[distinct(keys, np.array([len(rest)]), max(1, round(VALIDATION * len(rest))))[0]]
        self._members = {"test": held_out, "validation": np.sort(validation), "train": np.setdiff1d(rest, validation)}

    def _checked_labels(self, y: NDArray[Any]) -> I32:
        """Classes as numbers from 0 in the order of ``self.classes``."""
        unseen = ~np.isin(y, self.classes)
        if unseen.any():
            row = int(unseen.argmax())
            raise DataError(
                f"{self.path}: array y has class {y[row]} in row {row}, which no training device has. "
                "Leave those rows out, or hold out other devices with the array split."
            )
        if len(self.classes) < 2:
            raise DataError(f"{self.path}: array y has one class only, {self.classes[0]}. There is nothing to tell apart.")
        return np.searchsorted(self.classes, y).astype(np.int32)

    def _checked_targets(self, y: NDArray[Any]) -> F32:
        """Regression targets, float32 (rows, outputs)."""
        if y.dtype.kind != "f":
            raise DataError(
                f"{self.path}: array y is {y.dtype} {y.shape}. Classes are whole numbers (samples,), "
                "regression targets floats (samples,) or (samples, outputs)."
            )
        targets = y.reshape(len(y), -1).astype(np.float32)
        _refuse_non_finite(self.path, "y", targets, "Leave rows without a target out")
        return targets

    def _source(self, rows: I64) -> TableSource:
        rows = np.ascontiguousarray(rows, dtype=np.int64)
        labels = None if self._labels is None else self._labels[rows]
        return TableSource(self._table, rows.astype(np.int32), labels=labels, targets=self._targets)

    def _shuffled(self, device: I64, words: U32) -> I64:
        """Each device's rows in random order, then rows that mean nothing: (devices, most rows of any)."""
        order = distinct(words, self._count[device], words.shape[1])
        return self._first[device][:, None] + order

    def stream(self, devices: U32, round: int, samples: int) -> TableSource:
        """A fresh order of each device's own rows every round, from the start again where they are fewer than samples."""
        device = self._members["train"][devices]
        most = int(self._count[device].max())
        words = core.random(self.seed, Stream.sample, devices, round, words=most)
        at = np.arange(samples) % self._count[device][:, None]
        return self._source(np.take_along_axis(self._shuffled(device, words), at, axis=1))

    def episodes(self, split: Split, count: int, shots: int) -> Episodes:
        """Several draws of each held-out device's support set; the query set is from the rest of its rows."""
        members = self._members[split][:count]
        spare = self._count[members] - shots
        if spare.min() < 1:
            poor = members[int(spare.argmin())]
            fewer = f"Use --shots {self._count[poor] - 1} or fewer, or leave" if self._count[poor] > 1 else "Leave"
            raise DataError(
                f"{self.path}: device {self._names[poor]} ({split}) has {self._count[poor]} samples, too few for {shots} "
                f"shots and a query. {fewer} the device out."
            )
        draws = max(1, count // len(members))
        device = np.repeat(members, draws)
        queries = min(MOST_QUERIES, int(spare.max()))
        words = core.random(self.seed, Stream.support, numbers(0, len(device)), words=int(self._count[device].max()))
        rows = self._shuffled(device, words)
        # A device with fewer spare samples than queries is asked some of them again.
        at = shots + np.arange(queries) % (self._count[device] - shots)[:, None]
        owner = np.repeat(np.arange(len(members), dtype=np.int32), draws)
        return Episodes(self._source(rows[:, :shots]), self._source(np.take_along_axis(rows, at, axis=1)), owner)
