"""The devices of a table, and which of them train, choose adaptation rates and test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl import core
from tinyfl.core import I64, Stream
from tinyfl.core.draws import distinct
from tinyfl.data import Table
from tinyfl.data.words import named
from tinyfl.errors import DataError
from tinyfl.errors.words import plain

HELD_OUT = 0.2
VALIDATION = 0.15
"""Share of test devices if the table gives none, and share of the rest for choosing adaptation rates."""

CLASSES_CURE = " Others would leave a class which no training device has; if y are values to predict, give --targets values."


@dataclass(frozen=True)
class Seats:
    """What a table's devices are for: the ``members``, as indices into its devices, that "train", those for "validation" and
    those for "test", and their ``numbers`` among all sites' devices for the same, ascending. ``fleet_size`` devices train in
    all."""

    members: Mapping[str, I64]
    numbers: Mapping[str, I64]
    fleet_size: int

    @classmethod
    def alone(cls, members: Mapping[str, I64]) -> "Seats":
        """Of a table that holds all devices."""
        return cls(members, {use: np.arange(len(each)) for use, each in members.items()}, len(members["train"]))


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


def members(
    table: Table,
    names: NDArray[Any],
    owner: I64,
    seed: int,
    labels: NDArray[Any] | None = None,
    least: int = 0,
    busy: Sequence[int] = (),
) -> dict[str, I64]:
    """The devices, as indices into ``names``, that ``train``, those for ``validation`` and those for ``test``.

    What the table does not list is drawn by ``seed``, but never the last training device of a class: ``labels`` (rows,).
    Devices with fewer rows than ``least`` only train; those that the table lists do nothing. ``busy`` ones are not drawn while
    others are left.
    Raises DataError if a list of the table is none of devices, or too few devices remain.
    """
    test, validation = (listed(table, each, names) for each in ("split", "validation"))
    if test is not None and validation is not None and (both := np.intersect1d(test, validation)).size:
        raise DataError(
            f"{table.source}: device {plain(names[both[0]], 40)} is both in array split and in array validation. "
            "Leave it out of one."
        )
    spoken_for = np.concatenate([each for each in (test, validation) if each is not None] or [np.empty(0, np.int64)])
    classes = _Classes(owner, labels, len(names))
    large = np.bincount(owner, minlength=len(names)) >= least
    for device in spoken_for:
        classes.remove(device)
    if test is None:
        test = _drawn(seed, 0, _free(np.setdiff1d(np.arange(len(names)), spoken_for), busy), HELD_OUT, classes, large)
    rest, test = np.setdiff1d(np.arange(len(names)), test), test[large[test]]
    if len(rest) < 2 or not len(test):
        raise DataError(
            f"{table.source}: {len(names)} devices, {len(test)} of them held out, leave {len(rest)} to train and choose "
            "rates. At least 1 must be held out and 2 remain: give more devices, or another split."
            f"{_cure(classes, large, least)}"
        )
    if validation is None:
        validation = _drawn(seed, 1, _free(rest, busy), VALIDATION, classes, large)
    train, validation = np.setdiff1d(rest, validation), validation[large[validation]]
    if not len(train) or not len(validation):
        raise DataError(
            f"{table.source}: of {len(rest)} devices that are not held out, {len(train)} train and {len(validation)} choose "
            "rates. At least 1 of each is needed: give more devices, or others in the array validation."
            f"{_cure(classes, large, least)}"
        )
    return {"test": test, "validation": validation, "train": train}


def _free(pool: I64, busy: Sequence[int]) -> I64:
    """Those of ``pool`` that are not ``busy``; all of it if they all are."""
    free = np.setdiff1d(pool, busy)
    return free if free.size else pool


def _cure(classes: "_Classes", large: NDArray[np.bool_], least: int) -> str:
    """What else kept devices from being drawn."""
    cure = CLASSES_CURE if classes.needed and len(large) > 2 else ""
    if large.all():
        return cure
    return f" Only {large.sum():,} of {len(large):,} devices have {least:,} samples: give fewer --shots.{cure}"


def _drawn(seed: int, number: int, pool: I64, share: float, classes: "_Classes", large: NDArray[np.bool_]) -> I64:
    """A ``share`` of the ``large`` devices in ``pool``, at least one, in order; fewer where others are the last of a class."""
    keys = core.random(seed, Stream.task, np.array([number], np.uint32), words=len(pool))
    wanted, taken = max(1, round(share * int(large[pool].sum()))), list[int]()
    for device in pool[distinct(keys, np.array([len(pool)]), len(pool))[0]]:
        if len(taken) < wanted and large[device] and not classes.needs(device):
            classes.remove(device)
            taken.append(device)
    return np.sort(np.array(taken, np.int64))


class _Classes:
    """How many training devices have each class, while devices are removed. ``needed``: one could not be."""

    def __init__(self, owner: I64, labels: NDArray[Any] | None, devices: int) -> None:
        known, index = np.unique(np.zeros(0) if labels is None else labels, return_inverse=True)
        pairs = np.unique(owner * len(known) + index if labels is not None else np.empty(0, np.int64))
        self._of, first = pairs % max(len(known), 1), pairs // max(len(known), 1)
        self._first = np.searchsorted(first, np.arange(devices + 1))
        self._devices = np.bincount(self._of, minlength=len(known))
        self.needed = False

    def _classes(self, device: int) -> I64:
        return self._of[self._first[device] : self._first[device + 1]]

    def needs(self, device: int) -> bool:
        """Whether the device is the last of one of its classes."""
        last = bool((self._devices[self._classes(device)] == 1).any())
        self.needed |= last
        return last

    def remove(self, device: int) -> None:
        """Counts the device no more."""
        self._devices[self._classes(device)] -= 1


def listed(table: Table, name: str, names: NDArray[Any]) -> I64 | None:
    """The devices in the table's list ``name``, split or validation, as indices into ``names``; None without a list."""
    given: NDArray[Any] | None = getattr(table, name)
    if given is None:
        return None
    what = "devices to hold out" if name == "split" else "devices that choose rates"
    if given.ndim != 1 or len(given) > len(names) or (given.dtype.kind in "OSU") != (names.dtype.kind in "OSU"):
        raise DataError(
            f"{table.source}: array {name} is {given.dtype} {given.shape}, not a list of the {what}. "
            f"Give their names as array device has them ({names.dtype}), each once."
        )
    if given.dtype.kind == "b" and names.dtype.kind != "b":
        raise DataError(f"{table.source}: array {name} is a mask. List the {what} by name or number.")
    unknown = np.setdiff1d(given, names)
    if unknown.size:
        verb = "holds out" if name == "split" else "lists"
        raise DataError(
            f"{table.source}: array {name} {verb} device {named(unknown)}, which array device does not have. "
            f"List {what} by the names or numbers used in device."
        )
    return np.flatnonzero(np.isin(names, given))
