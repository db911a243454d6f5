"""The user's own data: a task from a table of ``x``, ``y`` and ``device``, as a rule an .npz file (docs/tasks.md).

Few-shot within each device: a device adapts on some of its own samples and is measured on the rest. Inputs and values to
predict are standardised by the mean and deviation of the training devices, which are saved with the initialisation.
"""

from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tinyfl import core
from tinyfl.core import F32, I32, I64, U32, Stream, TableSource
from tinyfl.core.draws import distinct
from tinyfl.data import USUAL, Reading, Table
from tinyfl.data.arrays import (
    ONE_HOT,
    by_names,
    checked_inputs,
    checked_values,
    labels_in,
    numbers_of,
    refuse_non_finite,
    shape_of,
)
from tinyfl.data.devices import Seats, members, owners
from tinyfl.data.reading import in_order, read_table
from tinyfl.data.words import named
from tinyfl.errors import ConfigError, DataError
from tinyfl.errors.words import plain
from tinyfl.networks.layers import Activation, Loss
from tinyfl.tasks import Episodes, Split
from tinyfl.tasks.standard import Standardisation, constant_note, input_name, spread
from tinyfl.tasks.sums import centred, missing

MAX_WORDS = 1 << 22
"""Maximum number of random words at once: bounds the memory of shuffles, wherever a device has very many samples."""

MAX_QUERIES = 50
FAR = 10
"""Distance from the mean, in deviations, beyond which a value to predict is reported as a possible error."""


class Npz:
    """The task of one table, or of the file that holds it. ``standard`` is the standardisation of an earlier run; without it,
    it is computed from the training devices. ``targets`` is the kind of y; empty to detect it. ``seats`` are for the table of
    one site among several, whose coordinator has seen to the rest. ``classes`` are those in the order of the outputs, if
    that is not their own; y has them or their numbers."""

    name = "npz"
    activation = Activation.relu

    def __init__(
        self,
        data: Path | Table,
        seed: int,
        standardise: bool = True,
        targets: str = "",
        standard: Standardisation | None = None,
        reading: Reading = USUAL,
        seats: Seats | None = None,
        classes: NDArray[Any] | None = None,
    ) -> None:
        table = data if isinstance(data, Table) else read_table(data, reading)
        source, y = table.source, table.y
        self.source, self.seed = source, seed
        fill = reading.missing if standardise or (standard is not None and standard.of_inputs) else "refuse"
        x = checked_inputs(source, table.x, fill)
        names, owner = owners(table)
        if standard is not None:
            x = in_order(source, x.reshape(table.x.shape), table.names, standard.names).reshape(x.shape)
            targets = "classes" if len(standard.classes) else "values"
        labels, notation = labels_in(source, y, targets)
        values = checked_values(source, y) if labels is None else None
        labels = None if labels is None else by_names(source, labels, classes)
        least = reading.shots + 1 if reading.drop_small else 0
        self._seats = seats or Seats.alone(members(table, names, owner, seed, labels, least))
        self._members = self._seats.members
        trains = np.isin(owner, self._members["train"])
        order = np.argsort(owner, kind="stable")
        if standard is not None:
            self._refuse_misfit(standard, x, labels, values)
        else:
            standard = inputs_of(table, x, trains, standardise)
            if labels is not None:
                standard = _with_classes(standard, labels[trains], notation, y.shape, classes)
            elif values is not None:
                standard = self._with_values(standard, values[trains], standardise)
            standard = replace(standard, notes=(*table.notes, *standard.notes, *_dropped(owner, least)), names=table.names)
        if reading.balance and labels is None:
            raise DataError(f"{source}: y has values to predict, and --balance is for classes. Leave it out.")
        self._balance = reading.balance
        self.standardisation: Standardisation | None = standard
        self._labels: I32 | None = None
        self._targets: F32 | None = None
        if labels is not None:
            self.loss, self.outputs = Loss.softmax_cross_entropy, len(standard.classes)
            if seats is None:
                self._demand_seen(labels, labels[trains], standard.classes)
            self._labels = numbers_of(labels, standard.classes)[order]
        elif values is not None:
            self.loss, self.outputs = Loss.mean_squared_error, values.shape[1]
            self._targets = np.ascontiguousarray(standard.targets(values)[order])
            refuse_non_finite(source, "y, once standardised,", self._targets, "Scale that output down")
        self._table = np.ascontiguousarray(standard.apply(x)[order])
        refuse_non_finite(source, "x, once standardised,", self._table, "Scale that input down")
        self._count = np.bincount(owner, minlength=len(names))
        self._first = np.cumsum(self._count) - self._count
        self._names = names
        self.shape = shape_of(source, table.x)
        self.fleet_size: int | None = self._seats.fleet_size
        self.training_samples = int(trains.sum())

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
                    f"{self.source}: array {name} has {found:,} columns, and the earlier run's had {expected:,}. "
                    "Give the same ones, in the same order."
                )
        unknown = ~np.isin(labels, standard.classes) if labels is not None else np.zeros(1, bool)
        if labels is not None and unknown.any():
            row = int(unknown.argmax())
            raise DataError(
                f"{self.source}: array y has class {labels[row]} in row {row}, and the earlier run's classes were "
                f"{named(standard.classes)}. Leave such rows out."
            )

    def _with_values(self, standard: Standardisation, y: NDArray[Any], standardise: bool) -> Standardisation:
        """``standard``, extended for the values ``y`` (rows, outputs) of the training devices."""
        mean, scale, varies = spread(y)
        if not varies.any():
            raise DataError(f"{self.source}: array y is {y[0, 0]} on all training devices. There is nothing to learn.")
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

    def _demand_seen(self, labels: NDArray[Any], trained: NDArray[Any], classes: NDArray[Any]) -> None:
        """Raises DataError for a class that no training device has, and if they have one class only."""
        unseen = ~np.isin(labels, np.intersect1d(trained, classes))
        if unseen.any():
            row, others = int(unseen.argmax()), np.unique(labels[unseen])
            also = f", and classes {named(others[others != labels[row]])}" if len(others) > 1 else ""
            raise DataError(
                f"{self.source}: array y has class {labels[row]} in row {row}{also}, which no training device has. Leave those "
                "rows out, or hold out other devices with the array split; or, if y are values to predict, give --targets "
                "values."
            )
        if len(np.unique(trained)) < 2:
            raise DataError(f"{self.source}: array y has one class only, {trained[0]}. There is nothing to classify.")

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
        device = self._members["train"][np.searchsorted(self._seats.numbers["train"], devices)]
        most = int(self._count[device].max())
        at = np.arange(samples) % self._count[device][:, None]
        rows = np.empty((len(devices), samples), np.int64)
        step = max(1, MAX_WORDS // (most * (self.outputs if self._balance else 1)))
        for part in (slice(start, start + step) for start in range(0, len(devices), step)):
            words = core.random(self.seed, Stream.sample, devices[part], rounds[part], words=most)
            shuffled = self._shuffled(device[part], words)
            rows[part] = (
                self._balanced(shuffled, self._count[device[part]], samples)
                if self._balance
                else np.take_along_axis(shuffled, at[part], axis=1)
            )
        return self._source(rows)

    def _balanced(self, shuffled: I64, count: I64, samples: int) -> I64:
        """``samples`` of each device's ``shuffled`` rows, of which the first ``count`` mean something: one of each class in
        turn, in the order in which the classes first appear; rows of a class repeat if they are few."""
        assert self._labels is not None
        there = np.arange(shuffled.shape[1]) < count[:, None]
        label = np.where(there, self._labels[np.where(there, shuffled, 0)], self.outputs)
        by_class = np.take_along_axis(shuffled, np.argsort(label, axis=1, kind="stable"), axis=1)
        classes = np.arange(self.outputs)
        of_class = (label[:, :, None] == classes).sum(axis=1)
        first = np.where(of_class > 0, (label[:, :, None] == classes).argmax(axis=1), shuffled.shape[1])
        in_turn = np.argsort(first, axis=1, kind="stable")
        turn, which = np.divmod(np.arange(samples), (of_class > 0).sum(axis=1)[:, None])
        chosen = np.take_along_axis(in_turn, which, axis=1)
        start = np.take_along_axis(np.cumsum(of_class, axis=1) - of_class, chosen, axis=1)
        rows: I64 = np.take_along_axis(by_class, start + turn % np.take_along_axis(of_class, chosen, axis=1), axis=1)
        return rows

    @property
    def classes(self) -> int:
        return self.outputs

    @property
    def episode_ways(self) -> int:
        return self.outputs

    def in_turn(self) -> Self:
        task = self.with_global_labels()
        task._balance = True
        return task

    def with_global_labels(self) -> Self:
        """The same task: all devices have the same classes."""
        if self._labels is None:
            raise ConfigError(f"{self.source}: y has values to predict, and this algorithm is for classes. Give another one.")
        return copy(self)

    def device_names(self, split: Split) -> list[str]:
        """The names of a split's devices, as in the array device."""
        return [str(name) for name in self._names[self._members[split]]]

    def recorded(self, split: Split, count: int, samples: int) -> list[tuple[str, TableSource]]:
        """Each held-out device's rows in the order of the data."""
        found = list[tuple[str, TableSource]]()
        for device in self._members[split][: count or None]:
            rows = self._first[device] + np.arange(min(self._count[device], samples or self._count[device]))
            found.append((str(self._names[device]), self._source(rows[None])))
        return found

    def episodes(self, split: Split, count: int, shots: int) -> Episodes:
        """Several draws of each held-out device's support set, with the query set from its other rows."""
        held_out = self._members[split][:count]
        draws, queries = drawing(self.source, split, self._names, self._count, held_out, count, shots)
        return self.share(split, len(held_out), shots, draws, queries)

    def held_out(self, split: Split, devices: int) -> NDArray[Any]:
        """The names of this table's devices among the first ``devices`` that are held out for ``split``."""
        names: NDArray[Any] = self._names[self._members[split][self._seats.numbers[split] < devices]]
        return names

    def share(self, split: Split, devices: int, shots: int, draws: int, queries: int) -> Episodes:
        """``draws`` episodes, with up to ``queries`` samples to measure on, of each device of this table among the first
        ``devices`` of all sites that are held out for ``split``."""
        mine = self._seats.numbers[split] < devices
        members, number = self._members[split][mine], self._seats.numbers[split][mine]
        device = np.repeat(members, draws)
        episode = (number[:, None] * draws + np.arange(draws)).ravel().astype(np.uint32)
        words = core.random(self.seed, Stream.support, episode, words=int(self._count[device].max()))
        rows = self._shuffled(device, words)
        # A device with fewer spare samples than queries repeats some of them.
        at = shots + np.arange(queries) % (self._count[device] - shots)[:, None]
        owner = np.repeat(np.arange(len(members), dtype=np.int32), draws)
        return Episodes(self._source(rows[:, :shots]), self._source(np.take_along_axis(rows, at, axis=1)), owner)


def drawing(
    source: str,
    split: Split,
    names: NDArray[Any],
    counts: NDArray[np.integer[Any]],
    held_out: I64,
    count: int,
    shots: int,
) -> tuple[int, int]:
    """How many episodes of each device that is ``held_out`` make up about ``count``, and with how many queries. ``names`` are
    those of all devices, and ``counts`` the samples of each.

    Raises DataError if a held-out device has too few samples for the shots.
    """
    spare = counts[held_out] - shots
    if spare.min() < 1:
        smallest = held_out[int(spare.argmin())]
        fewer = f"--shots {counts[smallest] - 1} or fewer, or " if counts[smallest] > 1 else ""
        raise DataError(
            f"{source}: device {plain(names[smallest], 40)} ({split}) has {counts[smallest]} samples, too "
            f"few for {shots} shots and a query, as {np.sum(counts <= shots):,} of all {len(counts):,} devices "
            f"have. Use {fewer}--drop-small, which evaluates only the others."
        )
    return max(1, count // len(held_out)), min(MAX_QUERIES, int(spare.max()))


def inputs_of(table: Table, x: NDArray[Any], trains: NDArray[np.bool_], standardise: bool) -> Standardisation:
    """The standardisation of inputs ``x`` (rows, inputs) of ``table``, from the rows of devices that train."""
    standard = Standardisation.none(x.shape[1], 1)
    if not standardise:
        return replace(standard, notes=("x: as it is in the file (--standardise changes that)",))
    gone = missing(x)
    never = gone[trains].all(axis=0)
    if never.any():
        refuse_non_finite(
            table.source, "x", np.where(never, x, 0), "No training device has a value there: leave that input out"
        )
    mean, scale, varies = spread(x[trains])

    def called(number: int) -> str:
        return input_name(table.names, number, table.x.ndim > 2)

    notes = ["x: (x - mean) / deviation of the training devices, input by input (--no-standardise leaves it as it is)"]
    notes += constant_note(varies, called)
    if gone.any():
        counts = gone.sum(axis=0)
        where = named([f"{called(each)} ({counts[each]:,})" for each in np.flatnonzero(counts).tolist()])
        rows = int(gone.any(axis=1).sum())
        notes.append(
            f"x: {counts.sum():,} missing values in {rows:,} rows become the training devices' mean; by input: {where}"
        )
    return replace(standard, mean=mean, scale=scale, notes=tuple(notes))


def _dropped(owner: I64, least: int) -> list[str]:
    """The note on devices with fewer than ``least`` samples."""
    small = int((np.bincount(owner) < least).sum())
    return [f"devices: {small:,} have fewer than {least:,} samples, and are not evaluated"] if small else []


def _with_classes(
    standard: Standardisation, labels: NDArray[Any], notation: str, shape: tuple[int, ...], classes: NDArray[Any] | None
) -> Standardisation:
    """``standard``, extended for the training devices' ``labels``; ``notation`` is their notation in an array of this shape,
    and ``classes`` are all in their order, if that is known."""
    if classes is None:
        classes = np.arange(shape[1]) if notation == ONE_HOT else np.unique(labels)
    note = f"y: {len(classes):,} classes, {notation}: {named(classes)} (--targets values learns them as values)"
    unscaled = Standardisation.none(len(standard.mean), len(classes))
    notes = (*standard.notes, note)
    return replace(unscaled, mean=standard.mean, scale=standard.scale, classes=classes, notes=notes)
