"""Few-shot episodes of the classes in a user's own data (``--episodes classes``, docs/tasks.md).

A device of an episode sees ``ways`` of the classes, under its own numbering. Some classes are held out for testing, and so are
some of the data's devices: an episode for testing has held-out classes on held-out devices, one for training none of either.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl import core
from tinyfl.core import I64, Stream
from tinyfl.core.draws import distinct
from tinyfl.data import USUAL, Reading, Table
from tinyfl.data.arrays import checked_inputs, labels_in, refuse_non_finite, shape_of
from tinyfl.data.devices import HELD_OUT, VALIDATION, members, owners
from tinyfl.data.reading import read_table
from tinyfl.data.words import named
from tinyfl.errors import ConfigError, DataError
from tinyfl.networks.layers import Activation, Shape
from tinyfl.tasks.episodic import ClassPool, Episodic
from tinyfl.tasks.npz import Npz, inputs_of
from tinyfl.tasks.standard import Standardisation

DRAW = 2
"""Number of the draw of classes: those of devices are 0 and 1 (tinyfl.data.devices)."""

SPARE = 4
"""Validation has classes of its own if the classes that are not held out are so many times ``ways``."""

ROLE = {"train": "training", "validation": "validation", "test": "held-out"}


def npz(
    data: Path | Table,
    seed: int,
    standardise: bool = True,
    targets: str = "",
    standard: Standardisation | None = None,
    reading: Reading = USUAL,
) -> Npz | Episodic:
    """The task of the user's data: of their devices, or of episodes of their classes, as ``reading`` says."""
    if not reading.episodes:
        return Npz(data, seed, standardise, targets, standard, reading)
    if targets == "values":
        raise ConfigError("--episodes classes is for classes: leave --targets values out.")
    table = data if isinstance(data, Table) else read_table(data, reading)
    labels, _ = labels_in(table.source, table.y, "classes")
    assert labels is not None
    names, owner = owners(table)
    kinds = kinds_of(table, labels, seed, reading.ways)
    least = reading.shots + 1 if reading.drop_small else 2
    parts = Parts.of(table, labels, owner, members(table, names, owner, seed), kinds, reading.ways, least)
    return Episodic(**parts.fields("npz", seed, reading, standardise, standard))


def kinds_of(table: Table, labels: NDArray[Any], seed: int, ways: int) -> dict[str, NDArray[Any]]:
    """The classes that train, those for validation and those for testing: what the table lists, or else a draw by ``seed``.
    Without classes to spare, validation has those that train, on other devices.

    Raises DataError if there are too few for ``ways`` in each.
    """
    classes = np.unique(labels)
    if len(classes) < 2 * ways:
        cure = f"Give --ways {len(classes) // 2} or fewer." if len(classes) > 3 else "Leave --episodes out."
        raise DataError(
            f"{table.source}: y has {len(classes)} classes, and devices that see {ways} of them need {2 * ways}: as many to "
            f"train on, and others to test on. {cure}"
        )
    words = core.random(seed, Stream.task, np.array([DRAW], np.uint32), words=len(classes))
    order = classes[distinct(words, np.array([len(classes)]), len(classes))[0]]
    test = order[: max(ways, round(HELD_OUT * len(order)))]
    if table.classes is not None:
        unknown = np.setdiff1d(table.classes, classes)
        if unknown.size:
            raise DataError(
                f"{table.source}: array split_classes holds out class {named(unknown)}, which y does not have. List classes "
                "as they are in y."
            )
        test = np.unique(table.classes)
    rest = order[~np.isin(order, test)]
    if min(len(rest), len(test)) < ways:
        raise DataError(
            f"{table.source}: array split_classes holds out {len(test)} of {len(classes)} classes; at least {ways} must be "
            f"held out, and {ways} remain, with --ways {ways}. List others, or give fewer --ways."
        )
    spare = max(ways, round(VALIDATION * len(rest))) if len(rest) >= SPARE * ways else 0
    train = np.sort(rest[spare:])
    return {"train": train, "validation": np.sort(rest[:spare]) if spare else train, "test": np.sort(test)}


@dataclass(frozen=True)
class Parts:
    """The table's rows for training, validation and testing, by these names: ``rows``, sorted by class, and ``index``, the
    number of each one's class among the part's ``classes``."""

    table: Table
    ways: int
    rows: Mapping[str, I64]
    index: Mapping[str, I64]
    classes: Mapping[str, NDArray[Any]]

    @classmethod
    def of(
        cls,
        table: Table,
        labels: NDArray[Any],
        owner: I64,
        devices: Mapping[str, I64],
        kinds: Mapping[str, NDArray[Any]],
        ways: int,
        least: int,
    ) -> "Parts":
        """The rows that have both a device of ``devices`` and a class of ``kinds`` of a part. Classes of which a part to be
        evaluated has fewer samples than ``least`` are left out there.

        Raises DataError if a part has fewer classes than ``ways``.
        """
        rows, index, classes = dict[str, I64](), dict[str, I64](), dict[str, NDArray[Any]]()
        for part, kind in kinds.items():
            there = np.flatnonzero(np.isin(owner, devices[part]) & np.isin(labels, kind))
            found, count = np.unique(labels[there], return_counts=True)
            classes[part] = found[count >= (1 if part == "train" else least)]
            if len(classes[part]) < ways:
                raise DataError(
                    f"{table.source}: {len(classes[part])} {ROLE[part]} classes have samples enough on {ROLE[part]} devices, "
                    f"and a device sees {ways}. Give fewer --ways, or more samples."
                )
            there = there[np.isin(labels[there], classes[part])]
            numbers = np.searchsorted(classes[part], labels[there])
            order = np.argsort(numbers, kind="stable")
            rows[part], index[part] = there[order], numbers[order]
        return cls(table, ways, rows, index, classes)

    def fields(
        self, name: str, seed: int, reading: Reading, standardise: bool = True, standard: Standardisation | None = None
    ) -> dict[str, Any]:
        """The fields of the Episodic of these parts; inputs are standardised by the rows that train, or by ``standard``, an
        earlier run's."""
        table = self.table
        fill = reading.missing if standardise or (standard is not None and standard.of_inputs) else "refuse"
        x = checked_inputs(table.source, table.x, fill)
        if standard is None:
            trains = np.isin(np.arange(len(x)), self.rows["train"])
            scaled = inputs_of(table, x, trains, standardise)
            notes = (*table.notes, *scaled.notes, self._note())
            standard = replace(
                Standardisation.none(x.shape[1], self.ways),
                mean=scaled.mean,
                scale=scaled.scale,
                notes=notes,
                names=table.names,
            )

        def pool(part: str) -> ClassPool:
            rows = standard.apply(x[self.rows[part]])
            refuse_non_finite(table.source, "x, once standardised,", rows, "Scale that input down")
            return ClassPool.of(rows, self.index[part].astype(np.int32), [len(self.classes[part])])

        shape: Shape = shape_of(table.source, table.x)
        return {
            "name": name, "seed": seed, "shape": shape, "ways": self.ways, "gains": (1.0, 1.0),
            **{part: pool(part) for part in self.rows}, "activation": Activation.relu, "standardisation": standard,
            "training_ways": reading.training_ways,
        }  # fmt: skip

    def _note(self) -> str:
        kinds = self.classes
        validation = f", {len(kinds['validation'])} choose rates" if set(kinds["validation"]) - set(kinds["train"]) else ""
        return (
            f"y: a device sees {self.ways} classes; {len(kinds['train'])} classes train{validation}, {len(kinds['test'])} are "
            f"held out: {named(kinds['test'])}"
        )
