"""A site: a machine with devices of its own, whose samples stay there.

Before the first round it says what its table holds (``Roll``), and then, in two passes, the sums from which all sites
standardise alike (``First``, ``Second``). The coordinator says what all sites have agreed on (``Share``); with that the site
makes its task. All are plain data, for JSON.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import F64, I64
from tinyfl.data import USUAL, Reading, Table
from tinyfl.data.arrays import as_text, checked_inputs, checked_values, labels_in, shape_of
from tinyfl.data.devices import Seats, listed, owners
from tinyfl.data.reading import in_order
from tinyfl.errors import DataError
from tinyfl.tasks import SPLITS
from tinyfl.tasks.npz import Npz
from tinyfl.tasks.standard import ARRAYS, Standardisation
from tinyfl.tasks.sums import Squares, Sums

USES = ("train", *SPLITS)
"""What a device may be for, in the order of their numbers in a Share."""


@dataclass(frozen=True)
class Roll:
    """What ``site`` says of its data: its ``devices`` by name in order, and the number of samples of each; those that it holds
    out, and those that it lists for validation, None where it leaves that to the seed; the inputs' names, dtype and shape; the
    dtype and shape of ``y``, how it writes classes (empty: it holds values), and the classes in order; a hash of all its
    arrays; and whether it ``shares`` results and updates of single devices."""

    site: str
    devices: NDArray[Any]
    counts: I64
    split: NDArray[Any] | None
    validation: NDArray[Any] | None
    names: tuple[str, ...]
    x: str
    shape: tuple[int, ...]
    y: str
    outputs: tuple[int, ...]
    notation: str
    classes: NDArray[Any]
    digest: str
    shares: bool = False

    def to_json(self) -> dict[str, Any]:
        return {name: each.tolist() if isinstance(each, np.ndarray) else each for name, each in vars(self).items()}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "Roll":
        """Raises KeyError, TypeError or ValueError for anything else."""
        roll = cls(
            str(said["site"]),
            np.array(said["devices"]),
            np.array(said["counts"], np.int64),
            None if said["split"] is None else np.array(said["split"]),
            None if said["validation"] is None else np.array(said["validation"]),
            tuple(map(str, said["names"])),
            np.dtype(said["x"]).str,
            tuple(map(int, said["shape"])),
            np.dtype(said["y"]).str,
            tuple(map(int, said["outputs"])),
            str(said["notation"]),
            np.array(said["classes"]),
            str(said["digest"]),
            bool(said.get("shares")),
        )
        if not len(roll.devices) or roll.devices.shape != roll.counts.shape or roll.counts.min() < 1 or not roll.shape:
            raise ValueError("a site without a device, or with a device without samples")
        return roll


@dataclass(frozen=True)
class Share:
    """What all sites have agreed on, for one of them: its table's hash; the inputs' names in the common order, if they have
    any, and the common dtypes of x and y; what y holds, and the common classes in order; for each of its devices in order its
    use, as an index into USES, and its number among all sites' devices of that use; the number of devices that train; and the
    standardisation, once it is known."""

    digest: str
    names: tuple[str, ...]
    x: str
    y: str
    targets: str
    classes: NDArray[Any]
    uses: tuple[int, ...]
    numbers: tuple[int, ...]
    fleet_size: int
    standard: Standardisation | None = None

    def to_json(self) -> dict[str, Any]:
        arrays = self.standard and {name: array.tolist() for name, array in self.standard.arrays().items()}
        return {**vars(self), "classes": self.classes.tolist(), "standard": arrays}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "Share":
        """Raises KeyError, TypeError or ValueError for anything else."""
        standard: Standardisation | None = None
        if given := said["standard"]:
            standard = Standardisation(*(np.array(given[name]) for name in ARRAYS))  # type: ignore[arg-type]
        return cls(
            str(said["digest"]),
            tuple(map(str, said["names"])),
            str(said["x"]),
            str(said["y"]),
            str(said["targets"]),
            np.array(said["classes"]),
            tuple(map(int, said["uses"])),
            tuple(map(int, said["numbers"])),
            int(said["fleet_size"]),
            standard,
        )

    def devices(self, use: str) -> I64:
        """The numbers of the site's devices for ``use``."""
        index = USES.index(use)
        return np.array([number for number, each in zip(self.numbers, self.uses, strict=True) if each == index], np.int64)


@dataclass(frozen=True)
class First:
    """The first pass over a site's training devices: the number of their ``rows``, the sums of x, of y if it holds values, and
    the number of samples of each class if it holds classes."""

    rows: int
    x: Sums
    y: Sums | None = None
    classes: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        sums = {name: [each.count, _texts(each.total)] for name, each in (("x", self.x), ("y", self.y)) if each}
        return {"rows": self.rows, **sums, "classes": self.classes}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "First":
        """Raises KeyError, TypeError or ValueError for anything else."""
        x, y = (Sums(_count(each[0]), _fractions(each[1])) if each else None for each in (said["x"], said.get("y")))
        assert x is not None
        return cls(int(said["rows"]), x, y, tuple(map(int, said["classes"])))


@dataclass(frozen=True)
class Second:
    """The second pass over a site's training devices, around the means of all sites."""

    x: Squares
    y: Squares | None = None

    def to_json(self) -> dict[str, Any]:
        each = (("x", self.x), ("y", self.y))
        return {name: [e.count, _texts(e.total), _texts(e.squares)] for name, e in each if e}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "Second":
        """Raises KeyError, TypeError or ValueError for anything else."""
        x, y = (
            Squares(_count(each[0]), _fractions(each[1]), _fractions(each[2])) if each else None
            for each in (said["x"], said.get("y"))
        )
        assert x is not None
        return cls(x, y)


def _count(said: Any) -> tuple[int, ...]:
    counts = tuple(map(int, said))
    if min(counts, default=0) < 0:
        raise ValueError("a negative number of samples")
    return counts


def _texts(fractions: tuple[Fraction, ...]) -> list[str]:
    return [fraction_text(each) for each in fractions]


def _fractions(said: Any) -> tuple[Fraction, ...]:
    return tuple(map(read_fraction, said))


def fraction_text(value: Fraction) -> str:
    """A fraction in hexadecimal."""
    return f"{value.numerator:x}/{value.denominator:x}"


def read_fraction(text: str) -> Fraction:
    """Raises ValueError or ZeroDivisionError if ``text`` is none."""
    if len(text) > MAX_FRACTION:
        raise ValueError("a fraction of too many digits")
    over, under = text.split("/")
    return Fraction(int(over, 16), int(under, 16))


MAX_FRACTION = 4000
"""Maximum length of a fraction's text, in characters: a sum of squares of any floats has fewer."""


class SiteData:
    """A site's table, which stays there; ``reading`` is how all sites use theirs, and whether they ``standardise``."""

    def __init__(self, site: str, table: Table, reading: Reading = USUAL, standardise: bool = True) -> None:
        self.site, self._table, self._reading, self._standardise = site, table, reading, standardise
        self._missing = reading.missing if standardise else "refuse"
        self.digest = digest(table)

    def roll(self, targets: str) -> Roll:
        """What the site says of its data; ``targets`` is the kind of y, empty to detect it.

        Raises DataError for a table of which no task can be made.
        """
        table = self._table
        checked_inputs(table.source, table.x, self._missing)
        shape_of(table.source, table.x)
        if len(set(table.names)) < len(table.names):
            raise DataError(f"{table.source}: two inputs have the same name. Give each a name of its own.")
        names, owner = owners(table)
        labels, notation = labels_in(table.source, table.y, targets)
        if labels is None:
            checked_values(table.source, table.y)
        return Roll(
            self.site,
            as_text(names),
            np.bincount(owner, minlength=len(names)),
            self._listed("split", names),
            self._listed("validation", names),
            table.names,
            table.x.dtype.str,
            table.x.shape[1:],
            table.y.dtype.str,
            table.y.shape[1:],
            notation,
            np.empty(0) if labels is None else np.unique(labels),
            self.digest,
        )

    def _listed(self, name: str, names: NDArray[Any]) -> NDArray[Any] | None:
        """The devices in the table's list ``name``; None without a list."""
        index = listed(self._table, name, names)
        return None if index is None else as_text(names[index])

    def first(self, share: Share) -> First:
        """The first pass over the training devices."""
        x, y, labels = self._training(share)
        if labels is None:
            return First(len(x), Sums.of(x), Sums.of(y))
        counts = np.bincount(np.searchsorted(share.classes, labels), minlength=len(share.classes))
        return First(len(x), Sums.of(x), None, tuple(counts.tolist()))

    def second(self, share: Share, mean: F64, target_mean: F64) -> Second:
        """The second pass, around the means of all sites."""
        x, y, labels = self._training(share)
        return Second(Squares.of(x, mean), Squares.of(y, target_mean) if labels is None else None)

    def task(self, share: Share, seed: int) -> Npz:
        """The site's part of the common task."""
        names = np.unique(self._table.device)
        uses = np.array(share.uses)
        members = {use: np.flatnonzero(uses == i) for i, use in enumerate(USES)}
        numbers = {use: share.devices(use) for use in USES}
        if len(uses) != len(names) or share.standard is None:
            raise DataError(f"{self.site}: its data have {len(names):,} devices, and the run knows of {len(uses):,}.")
        seats = Seats(members, numbers, share.fleet_size)
        table, standard = self._conformed(share), replace(share.standard, names=share.names)
        return Npz(table, seed, self._standardise, standard=standard, reading=self._reading, seats=seats)

    def _training(self, share: Share) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
        """x, y as values, and the labels if y holds classes, of the rows of training devices."""
        table = self._conformed(share)
        _, owner = owners(table)
        trains = np.array(share.uses)[owner] == USES.index("train")
        x = checked_inputs(table.source, table.x, self._missing)[trains]
        labels, _ = labels_in(table.source, table.y, share.targets)
        if labels is not None:
            return x, table.y, labels[trains]
        return x, checked_values(table.source, table.y)[trains], None

    def _conformed(self, share: Share) -> Table:
        """The table with the inputs in the common order and the arrays of the common dtypes.

        Raises DataError if the table was changed since the roll call.
        """
        table = self._table
        if share.digest != self.digest:
            raise DataError(f"{table.source} was changed since the run started. Restore it, or start a new run.")
        x = in_order(table.source, table.x, table.names, share.names)
        return replace(table, x=x.astype(share.x, copy=False), y=table.y.astype(share.y, copy=False), names=share.names)


def digest(table: Table) -> str:
    """A hash of a table's arrays."""
    sha = hashlib.sha256(repr(table.names).encode())
    for array in (table.x, table.y, table.device, table.split, table.validation):
        if array is not None:
            sha.update(f"{array.dtype.str} {array.shape}".encode())
            sha.update(repr(array.tolist()).encode() if array.dtype.kind == "O" else np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()
