"""The user's own data: a task from an .npz file with ``x``, ``y`` and ``device`` (docs/tasks.md).

Few-shot within each device: a device adapts on some of its own samples and is measured on the rest. Inputs and values to
predict are standardised by the mean and deviation of the training devices, which are saved with the initialisation.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl import core
from tinyfl.core import F32, I32, I64, U32, Stream, TableSource
from tinyfl.core.draws import distinct
from tinyfl.errors import DataError
from tinyfl.errors.words import plain
from tinyfl.networks.layers import Activation, Loss
from tinyfl.system.files import array_names, read_arrays
from tinyfl.tasks import Episodes, Split, numbers
from tinyfl.tasks.reading import ONE_HOT, checked_inputs, checked_values, labels_in, refuse_non_finite, shape_of
from tinyfl.tasks.standard import Standardisation, centred, spread

MAX_WORDS = 1 << 22
"""Maximum number of random words at once: bounds the memory of shuffles, wherever a device has very many samples."""

MAX_QUERIES = 50
HELD_OUT = 0.2
VALIDATION = 0.15
"""Share of test devices if the file gives none, and share of the rest for choosing adaptation rates."""

NEEDED, OPTIONAL = ("x", "y", "device"), ("split",)
FAR = 10
"""Distance from the mean, in deviations, beyond which a value to predict is reported as a possible error."""

NAMED = 8
"""Maximum number of classes, inputs or arrays listed in a note; more are counted."""


class Npz:
    """The task of one file. ``standard`` is the standardisation of an earlier run; without it, it is computed from the training
    devices. ``targets`` is the kind of y; empty to detect it."""

    name = "npz"
    activation = Activation.relu

    def __init__(
        self,
        data: Path,
        seed: int,
        standardise: bool = True,
        targets: str = "",
        standard: Standardisation | None = None,
    ) -> None:
        path = data
        self.path, self.seed = path, seed
        arrays = read_arrays(path, NEEDED, OPTIONAL)
        y, device = arrays["y"], arrays["device"]
        x = checked_inputs(path, arrays["x"])
        names, owner = self._owners(len(x), y, device)
        self._split(names, arrays.get("split"))
        trains = np.isin(owner, self._members["train"])
        order = np.argsort(owner, kind="stable")
        if standard is not None:
            targets = "classes" if len(standard.classes) else "values"
        labels, notation = labels_in(path, y, targets)
        values = checked_values(path, y) if labels is None else None
        if standard is not None:
            self._refuse_misfit(standard, x, labels, values)
        else:
            standard = _inputs_of(x[trains], standardise)
            if labels is not None:
                standard = _with_classes(standard, labels[trains], notation, y.shape)
            elif values is not None:
                standard = self._with_values(standard, values[trains], standardise)
            standard = replace(standard, notes=(*standard.notes, *_unused(array_names(path))))
        self.standardisation: Standardisation | None = standard
        self._labels: I32 | None = None
        self._targets: F32 | None = None
        if labels is not None:
            self.loss, self.outputs = Loss.softmax_cross_entropy, len(standard.classes)
            self._labels = self._numbered(labels, labels[trains], standard.classes)[order]
        elif values is not None:
            self.loss, self.outputs = Loss.mean_squared_error, values.shape[1]
            self._targets = np.ascontiguousarray(standard.targets(values)[order])
            refuse_non_finite(path, "y, once standardised,", self._targets, "Scale that output down")
        self._table = np.ascontiguousarray(standard.apply(x)[order])
        refuse_non_finite(path, "x, once standardised,", self._table, "Scale that input down")
        self._count = np.bincount(owner, minlength=len(names))
        self._first = np.cumsum(self._count) - self._count
        self._names = names
        self.shape = shape_of(path, arrays["x"])
        self.fleet_size: int | None = len(self._members["train"])

    def _refuse_misfit(
        self, standard: Standardisation, x: NDArray[Any], labels: NDArray[Any] | None, values: NDArray[Any] | None
    ) -> None:
        """Raises DataError if the data do not fit an earlier run's standardisation."""
        sizes = [("x", x.shape[1], len(standard.mean))]
        if values is not None:
            sizes.append(("y", values.shape[1], len(standard.target_mean)))
        for name, found, expected in sizes:
            if found != expected:
                raise DataError(
                    f"{self.path}: array {name} has {found:,} columns, and the earlier run's had {expected:,}. "
                    "Give the same ones, in the same order."
                )
        unknown = ~np.isin(labels, standard.classes) if labels is not None else np.zeros(1, bool)
        if labels is not None and unknown.any():
            row = int(unknown.argmax())
            raise DataError(
                f"{self.path}: array y has class {labels[row]} in row {row}, and the earlier run's classes were "
                f"{_named(standard.classes)}. Leave such rows out."
            )

    def _owners(self, rows: int, y: NDArray[Any], device: NDArray[Any]) -> tuple[NDArray[Any], I64]:
        """The devices' names, and each row's device as an index into them."""
        for name, array in (("y", y), ("device", device)):
            if array.shape[:1] != (rows,):
                raise DataError(
                    f"{self.path}: array {name} is {array.shape}, but x has {rows:,} rows. Give {name} one entry per row."
                )
        if device.ndim != 1:
            raise DataError(f"{self.path}: array device is {device.shape}, not ({rows},): one device name or number per row.")
        if device.dtype.kind == "f" and not np.isfinite(device).all():
            row = int((~np.isfinite(device)).argmax())
            raise DataError(
                f"{self.path}: array device has {device[row]} in row {row}. Give every row its device, or leave it out."
            )
        names, owner = np.unique(device, return_inverse=True)
        return names, owner

    def _split(self, names: NDArray[Any], split: NDArray[Any] | None) -> None:
        """Splits the devices into those for training, for choosing rates and for testing."""
        devices = np.arange(len(names))
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
            held_out = devices[np.isin(names, split)]
        rest = np.setdiff1d(devices, held_out)
        if len(rest) < 2 or not len(held_out):
            raise DataError(
                f"{self.path}: {len(names)} devices, {len(held_out)} of them held out, leave {len(rest)} to train and choose "
                "rates. At least 1 must be held out and 2 remain: give more devices, or another split."
            )
        keys = core.random(self.seed, Stream.task, numbers(1, 1), words=len(rest))
        validation = rest[distinct(keys, np.array([len(rest)]), max(1, round(VALIDATION * len(rest))))[0]]
        self._members = {"test": held_out, "validation": np.sort(validation), "train": np.setdiff1d(rest, validation)}

    def _with_values(self, standard: Standardisation, y: NDArray[Any], standardise: bool) -> Standardisation:
        """``standard``, extended for the values ``y`` (rows, outputs) of the training devices."""
        mean, scale, varies = spread(y)
        if not varies.any():
            raise DataError(f"{self.path}: array y is {y[0, 0]} on all training devices. There is nothing to learn.")
        if not standardise:
            note = "y: values to predict, by mean squared error, as they are in the file"
            return replace(Standardisation.none(len(standard.mean), len(mean)), notes=(*standard.notes, note))
        notes = ["y: values to predict, by mean squared error, as (y - mean) / deviation; errors are in the units of y"]
        off = np.abs(centred(y, mean)) / scale
        row, column = np.unravel_index(off.argmax(), off.shape)
        if off[row, column] > FAR:
            notes.append(
                f"y: {y[row, column]:g} is {off[row, column]:.0f} deviations off; one such value determines the scale of all"
            )
        return replace(standard, target_mean=mean, target_scale=scale, notes=(*standard.notes, *notes))

    def _numbered(self, labels: NDArray[Any], trained: NDArray[Any], classes: NDArray[Any]) -> I32:
        """Classes as indices into ``classes``. Raises DataError for a class that no training device has."""
        unseen = ~np.isin(labels, np.intersect1d(trained, classes))
        if unseen.any():
            row = int(unseen.argmax())
            raise DataError(
                f"{self.path}: array y has class {labels[row]} in row {row}, which no training device has. Leave those rows "
                "out, or hold out other devices with the array split; or, if y are values to predict, give --targets values."
            )
        if len(np.unique(trained)) < 2:
            raise DataError(f"{self.path}: array y has one class only, {trained[0]}. There is nothing to classify.")
        return np.searchsorted(classes, labels).astype(np.int32)

    def _source(self, rows: I64) -> TableSource:
        rows = np.ascontiguousarray(rows, dtype=np.int64)
        labels = None if self._labels is None else self._labels[rows]
        return TableSource(self._table, rows.astype(np.int32), labels=labels, targets=self._targets)

    def _shuffled(self, device: I64, words: U32) -> I64:
        """Each device's rows in random order, padded with meaningless rows: (devices, most rows of any)."""
        order = distinct(words, self._count[device], words.shape[1])
        return self._first[device][:, None] + order

    def stream(self, devices: U32, round: int, samples: int) -> TableSource:
        """Each device's own rows in a new order every round, repeated if they are fewer than ``samples``."""
        return self.streams(devices, np.full(len(devices), round, np.uint32), samples)

    def streams(self, devices: U32, rounds: U32, samples: int) -> TableSource:
        device = self._members["train"][devices]
        most = int(self._count[device].max())
        at = np.arange(samples) % self._count[device][:, None]
        rows = np.empty((len(devices), samples), np.int64)
        step = max(1, MAX_WORDS // most)
        for part in (slice(start, start + step) for start in range(0, len(devices), step)):
            words = core.random(self.seed, Stream.sample, devices[part], rounds[part], words=most)
            rows[part] = np.take_along_axis(self._shuffled(device[part], words), at[part], axis=1)
        return self._source(rows)

    def device_names(self, split: Split) -> list[str]:
        """The names of a split's devices, as in the array device."""
        return [str(name) for name in self._names[self._members[split]]]

    def episodes(self, split: Split, count: int, shots: int) -> Episodes:
        """Several draws of each held-out device's support set, with the query set from its other rows."""
        members = self._members[split][:count]
        spare = self._count[members] - shots
        if spare.min() < 1:
            smallest = members[int(spare.argmin())]
            fewer = f"Use --shots {self._count[smallest] - 1} or fewer, or leave" if self._count[smallest] > 1 else "Leave"
            raise DataError(
                f"{self.path}: device {self._names[smallest]} ({split}) has {self._count[smallest]} samples, too few for "
                f"{shots} shots and a query. {fewer} the device out."
            )
        draws = max(1, count // len(members))
        device = np.repeat(members, draws)
        queries = min(MAX_QUERIES, int(spare.max()))
        words = core.random(self.seed, Stream.support, numbers(0, len(device)), words=int(self._count[device].max()))
        rows = self._shuffled(device, words)
        # A device with fewer spare samples than queries repeats some of them.
        at = shots + np.arange(queries) % (self._count[device] - shots)[:, None]
        owner = np.repeat(np.arange(len(members), dtype=np.int32), draws)
        return Episodes(self._source(rows[:, :shots]), self._source(np.take_along_axis(rows, at, axis=1)), owner)


def _inputs_of(x: NDArray[Any], standardise: bool) -> Standardisation:
    """The standardisation of inputs, from those of the training devices, ``x`` (rows, inputs)."""
    standard = Standardisation.none(x.shape[1], 1)
    if not standardise:
        return replace(standard, notes=("x: as it is in the file (--standardise changes that)",))
    mean, scale, varies = spread(x)
    notes = ["x: (x - mean) / deviation of the training devices, input by input (--no-standardise leaves it as it is)"]
    if not varies.all():
        constant = _named(np.flatnonzero(~varies))
        notes.append(f"x: {np.sum(~varies):,} of {len(varies):,} inputs do not vary among the training devices: {constant}")
    return replace(standard, mean=mean, scale=scale, notes=tuple(notes))


def _with_classes(standard: Standardisation, labels: NDArray[Any], notation: str, shape: tuple[int, ...]) -> Standardisation:
    """``standard``, extended for the training devices' ``labels``; ``notation`` is their notation in an array of this shape."""
    classes = np.arange(shape[1]) if notation == ONE_HOT else np.unique(labels)
    note = f"y: {len(classes):,} classes, {notation}: {_named(classes)} (--targets values learns them as values)"
    unscaled = Standardisation.none(len(standard.mean), len(classes))
    notes = (*standard.notes, note)
    return replace(unscaled, mean=standard.mean, scale=standard.scale, classes=classes, notes=notes)


def _unused(arrays: Iterable[str]) -> list[str]:
    unused = [name for name in arrays if name not in (*NEEDED, *OPTIONAL)]
    return [f"not used: the array{'s' * (len(unused) > 1)} {_named(unused)}"] if unused else []


def _named(words: Sequence[Any] | NDArray[Any]) -> str:
    more = f" and {len(words) - NAMED:,} more" if len(words) > NAMED else ""
    return ", ".join(plain(word, 40) for word in words[:NAMED]) + more
