"""What sites with data of their own agree on before the first round, from what each says of its data (tinyfl.tasks.sites).

All of it is what one process would find in one file with the rows of all sites: the devices in the order of their names, which
of them train, the classes, and the standardisation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import F64, I64
from tinyfl.data import Table
from tinyfl.data.arrays import ONE_HOT
from tinyfl.data.devices import members
from tinyfl.data.words import named
from tinyfl.errors import DataError
from tinyfl.errors.words import plain
from tinyfl.tasks.sites import USES, First, Roll, Second, Share
from tinyfl.tasks.standard import Standardisation, constant_note, input_name, spread_of
from tinyfl.tasks.sums import Squares

OTHER_UNIT = 50.0
"""Ratio of a site's deviation to the others' from which its column seems to be in another unit."""

FAR = 30.0
"""Distance of a site's mean from the others', in deviations of either, that is worth a word."""


@dataclass(frozen=True)
class Agreement:
    """The data of all sites: their ``rolls``, the inputs' names in the common order and one sample's shape, the common dtypes,
    what y holds and its shape, the classes in order, the devices' names in order and their samples; and for each use of
    tinyfl.tasks.sites.USES its devices, as indices into them."""

    rolls: tuple[Roll, ...]
    names: tuple[str, ...]
    shape: tuple[int, ...]
    x: np.dtype[Any]
    y: np.dtype[Any]
    targets: str
    outputs: tuple[int, ...]
    classes: NDArray[Any]
    devices: NDArray[Any]
    counts: I64
    members: Mapping[str, I64]

    def input_name(self, number: int) -> str:
        """The name or number of an input."""
        return input_name(self.names, number, len(self.shape) > 1)

    def share(self, roll: Roll) -> Share:
        """What the site of ``roll`` is told, but for the standardisation."""
        mine = np.searchsorted(self.devices, roll.devices)
        use, number = np.empty(len(self.devices), np.int64), np.empty(len(self.devices), np.int64)
        for i, name in enumerate(USES):
            use[self.members[name]], number[self.members[name]] = i, np.arange(len(self.members[name]))
        return Share(
            roll.digest, self.names, self.x.str, self.y.str, self.targets, self.classes, tuple(use[mine].tolist()),
            tuple(number[mine].tolist()), len(self.members["train"]),
        )  # fmt: skip


def agree(rolls: Sequence[Roll], seed: int, holds_out: Roll | None = None, least: int = 0) -> Agreement:
    """The agreement of sites; all devices of ``holds_out``, the coordinator's own data, are held out. Devices
    with fewer samples than ``least`` are not evaluated.

    Raises DataError, with the names of the sites, where their data do not belong together.
    """
    sites = sorted(rolls, key=lambda roll: roll.site)
    first, *others = [*([holds_out] if holds_out else []), *sites]
    for other in others:
        _refuse_other_inputs(first, other)
        _refuse_other_targets(first, other)
    everyone = (first, *others)
    devices, counts = _devices(everyone)
    split = _union([roll.devices if roll is holds_out else roll.split for roll in everyone])
    validation = _union([None if roll is holds_out else roll.validation for roll in everyone])
    # The draw of one process that has all rows, if that leaves each class a training device (_trained).
    whole = Table(f"the data of {len(rolls):,} sites", np.empty((0, 0)), np.empty(0), devices, split, validation)
    classes = np.unique(np.concatenate([roll.classes for roll in everyone])) if first.notation else np.empty(0, np.int64)
    return Agreement(
        everyone,
        first.names,
        first.shape,
        np.result_type(*(roll.x for roll in everyone)),
        np.result_type(*(roll.y for roll in everyone)),
        "classes" if first.notation else "values",
        first.outputs,
        np.arange(first.outputs[0]) if first.notation == ONE_HOT else classes,
        devices,
        counts,
        members(whole, devices, np.repeat(np.arange(len(devices)), counts), seed, None, least),
    )


def _union(lists: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    """All devices that any site lists; None if none does."""
    given = [each for each in lists if each is not None]
    return np.unique(np.concatenate([each for each in given if len(each)] or given[:1])) if given else None


def _refuse_other_inputs(one: Roll, other: Roll) -> None:
    """Raises DataError if two sites have other inputs."""
    if sorted(one.names) != sorted(other.names):
        lacks, has = ([n for n in a.names if n not in b.names] for a, b in ((one, other), (other, one)))
        words = [f"lacks {named(lacks)}"] * bool(lacks) + [f"has {named(has)} of its own"] * bool(has)
        raise DataError(
            f"{other.site} has the inputs {_listed(other)}, and {one.site} {_listed(one)}: {other.site} "
            f"{' and '.join(words)}. Give all sites the same inputs, by the same names, in any order."
        )
    if one.shape != other.shape or "V" in (np.dtype(one.x).kind, np.dtype(other.x).kind):
        raise DataError(
            f"{other.site} has samples of shape {other.shape}, and {one.site} of {one.shape}. Give all sites the same inputs, "
            "in the same order."
        )


def _listed(roll: Roll) -> str:
    return named(roll.names) if roll.names else f"no names ({roll.shape[0]:,} inputs)"


def _refuse_other_targets(one: Roll, other: Roll) -> None:
    """Raises DataError if one site has classes and the other values, or classes of another kind."""
    kinds = [_kind_of(roll) for roll in (one, other)]
    if kinds[0] != kinds[1] or one.outputs[1:] != other.outputs[1:]:
        raise DataError(
            f"y holds {kinds[1]} at {other.site}, and {kinds[0]} at {one.site}. Give all sites the same; or say what they are, "
            "if it is guessed wrong: --targets classes or values."
        )


def _kind_of(roll: Roll) -> str:
    width = f", {roll.outputs[0]:,} a row" if roll.outputs and roll.outputs[0] > 1 else ""
    if not roll.notation:
        return f"values{width}"
    if roll.notation == ONE_HOT:
        return f"classes as one-hot rows{width}"
    return f"classes by {'name' if roll.classes.dtype.kind == 'U' else 'number'}"


def _devices(rolls: Sequence[Roll]) -> tuple[NDArray[Any], I64]:
    """All devices by name in order, and the number of samples of each.

    Raises DataError for a device at two sites.
    """
    spelt = {roll.site: "names" if roll.devices.dtype.kind == "U" else "numbers" for roll in rolls}
    if len(set(spelt.values())) > 1:
        words = ", ".join(f"{site} {how}" for site, how in spelt.items())
        raise DataError(f"devices are known by name across sites: {words}. Give all sites names, or all numbers.")
    devices = np.concatenate([roll.devices for roll in rolls])
    order = np.argsort(devices, kind="stable")
    twice = np.flatnonzero(devices[order][1:] == devices[order][:-1])
    if twice.size:
        site = np.repeat(np.arange(len(rolls)), [len(roll.devices) for roll in rolls])[order]
        one, other = (rolls[site[i]].site for i in (twice[0], twice[0] + 1))
        raise DataError(
            f"device {plain(devices[order][twice[0]], 40)} is at {one} and at {other} ({len(twice):,} devices are at two "
            "sites). A device is at one site: give each site names of its own, such as "
            'device = np.char.add("lab-a-", device.astype(str)).'
        )
    return devices[order], np.concatenate([roll.counts for roll in rolls])[order]


def means(first: Mapping[str, First]) -> tuple[F64, F64]:
    """The means of all sites' inputs, and of their values (empty for classes), from the first pass by site."""
    x, y = _added(each.x for each in first.values()), [each.y for each in first.values() if each.y is not None]
    if 0 in x.count:
        raise DataError(f"no training device of any site has a value of input {x.count.index(0)}. Leave that input out.")
    return x.mean, _added(y).mean if y else np.empty(0)


def _added(sums: Any) -> Any:
    return reduce(add, sums)


def standardised(
    agreed: Agreement, first: Mapping[str, First], second: Mapping[str, Second], standardise: bool
) -> Standardisation:
    """The standardisation from both passes by site; without ``standardise`` data stay as they are, and there is no second pass.

    Raises DataError for classes or values that cannot be learnt, and for a site whose column is in another unit.
    """
    inputs = int(np.prod(agreed.shape))
    if agreed.targets == "classes":
        classes, outputs = _trained(agreed, first), len(agreed.classes)
        notes = [f"y: {outputs:,} classes at {len(first):,} sites: {named(classes)} (--targets values learns them as values)"]
    else:
        classes, outputs = np.empty(0, np.int64), int(np.prod(agreed.outputs))
        notes = ["y: values to predict, by mean squared error, as (y - mean) / deviation; errors are in the units of y"]
    plain_ = Standardisation.none(inputs, outputs)
    if not standardise:
        why = ("x and y: as they are in the files (--standardise changes that)", *notes[: agreed.targets == "classes"])
        return Standardisation(plain_.mean, plain_.scale, classes, plain_.target_mean, plain_.target_scale, why, agreed.names)
    mean, target_mean = means(first)
    squares: Squares = _added(each.x for each in second.values())
    mean, scale, varies = spread_of(mean, squares, agreed.x)
    words = ["x: (x - mean) / deviation of all sites' training devices, input by input (--no-standardise leaves it as it is)"]
    words += constant_note(varies, agreed.input_name)
    words += _missing(agreed, first)
    words += _other_units(agreed, {site: each.x for site, each in second.items()}, mean, "x")
    target_scale = plain_.target_scale
    if agreed.targets == "values":
        y = {site: each.y for site, each in second.items() if each.y is not None}
        target_mean, target_scale, varies = spread_of(target_mean, _added(y.values()), agreed.y)
        if not varies.any():
            raise DataError(f"y is {target_mean[0]} on all training devices of all sites. There is nothing to learn.")
        words += _other_units(agreed, y, target_mean, "y")
    else:
        target_mean = plain_.target_mean
    return Standardisation(mean, scale, classes, target_mean, target_scale, (*words, *notes), agreed.names)


def _missing(agreed: Agreement, first: Mapping[str, First]) -> list[str]:
    """The note on missing values."""
    gone = sum(each.rows for each in first.values()) - np.array(_added(each.x for each in first.values()).count)
    if not gone.any():
        return []
    where = named([f"{agreed.input_name(i)} ({gone[i]:,})" for i in np.flatnonzero(gone).tolist()])
    return [f"x: {gone.sum():,} missing values of training devices become the mean; by input: {where}"]


def _trained(agreed: Agreement, first: Mapping[str, First]) -> NDArray[Any]:
    """The classes. Raises DataError for one that no training device has, and if there is one class only."""
    counts = np.sum([each.classes for each in first.values()], axis=0)
    present = np.unique(np.concatenate([roll.classes for roll in agreed.rolls]))
    unseen = np.setdiff1d(present, agreed.classes[counts > 0])
    if unseen.size:
        where = [roll.site for roll in agreed.rolls if unseen[0] in roll.classes]
        raise DataError(
            f"class {plain(unseen[0], 40)} of {named(where)} is on no device that trains. Leave those rows out, or list the "
            "devices to hold out in the array split at every site; or, if y are values to predict, give --targets values."
        )
    if np.sum(counts > 0) < 2:
        raise DataError(f"all sites together have one class only, {plain(present[0], 40)}. There is nothing to classify.")
    return agreed.classes


def _other_units(agreed: Agreement, second: Mapping[str, Squares], mean: F64, what: str) -> list[str]:
    """A word on each site whose mean of a column is far from the others'.

    Raises DataError for a site whose column seems to be the others' times a factor: mean and deviation differ by it alike.
    """
    sites = {site: (mean + each.off, each.deviation, each.count) for site, each in second.items()}
    far: dict[str, list[str]] = {}
    for column in range(len(mean)):
        called = agreed.input_name(column) if what == "x" else ""
        found = {site: (float(m[column]), float(d[column])) for site, (m, d, n) in sites.items() if n[column]}
        usual = _middle({site: d for site, (_, d) in found.items() if d > 0})
        for site, (a, s) in found.items():
            b, t = found[usual] if usual else (a, s)
            if s > 0 and max(s / t, t / s) > OTHER_UNIT and _alike(a / s, b / t):
                raise DataError(
                    f"{site} seems to have {what}{called and f', input {called},'} in another unit than {usual}: its mean is "
                    f"{a:.4g} and its deviation {s:.4g}, {usual}'s are {b:.4g} and {t:.4g}. Give both in one unit; if they are "
                    "right as they are, --no-standardise compares nothing."
                )
        usual = _middle({site: m for site, (m, _) in found.items()})
        for site, (a, s) in found.items():
            if abs(a - found[usual][0]) > FAR * max(s, found[usual][1]) > 0:
                far.setdefault(site, []).append(called)
    words = []
    for site, columns in far.items():
        where = f", in {named(columns)}" if what == "x" else ""
        words.append(f"{what}: {site}'s mean is more than {FAR:g} deviations from the others'{where}: is it in their unit?")
    return words


def _middle(values: Mapping[str, float]) -> str:
    """The site whose value is in the middle; empty without any."""
    return sorted(values, key=values.__getitem__)[(len(values) - 1) // 2] if values else ""


def _alike(a: float, b: float) -> bool:
    """Whether two means, each in units of its own deviation, may be of one column in two units."""
    return abs(a - b) <= 3 or (a * b > 0 and 1 / 3 <= a / b <= 3)
