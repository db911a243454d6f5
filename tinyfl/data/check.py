"""What a table would make of a run, before the run: devices, classes, and what in it is likely a mistake."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import I64
from tinyfl.data import Reading, Table
from tinyfl.data.arrays import checked_inputs, labels_in
from tinyfl.data.devices import members, owners
from tinyfl.data.words import named
from tinyfl.errors import DataError
from tinyfl.errors.words import plain

RARE = 10
"""The commonest class has so many times the samples of one that is reported as rare."""

SEVERAL = 10
"""Minimum number of different values in a column of which one may be far off."""

EPOCHS = ((1e9, 2e9), (1e12, 2e12), (1e15, 2e15), (1e18, 2e18))
"""Times since 1970, in seconds to nanoseconds, from 2001 to 2033."""

STEPS, FALLS, RISES = 20, 0.01, 0.5
"""A clock takes so many steps at least, of which no larger share falls and no smaller one rises."""

EACH = 10
"""Minimum number of samples of a class by which an input's order may tell it."""

FEW = 50
"""Maximum number of different values in a column that may be a label."""


@dataclass(frozen=True)
class Finding:
    """``words`` on a likely mistake of some ``kind``; with ``refused`` a run would be refused, or its figures wrong."""

    kind: str
    words: str
    refused: bool = False


def check(table: Table, seed: int, reading: Reading) -> dict[str, Any]:
    """The devices of ``table`` with their parts, samples and classes, the classes, and the findings, as plain data.

    Raises DataError for what a run refuses first of all: other shapes, infinities, no labels, lists of devices that are none.
    """
    x = checked_inputs(table.source, table.x, reading.missing)
    names, owner = owners(table)
    labels, notation = labels_in(table.source, table.y, reading.targets)
    least = reading.shots + 1
    parts = members(table, names, owner, seed, labels, least if reading.drop_small else 0)
    part_of = dict.fromkeys(range(len(names)), "none")
    part_of |= {int(device): part for part, devices in parts.items() for device in devices}
    count = np.bincount(owner, minlength=len(names))
    findings = [
        *_devices(names, count, part_of, reading),
        *_alone(parts),
        *_leaks(x, owner, parts),
        *_columns(table, labels, owner),
    ]
    if labels is not None:
        findings += _classes(labels, owner, names, parts)
    return {
        "data": table.source,
        "samples": len(x),
        "inputs": int(x.shape[1]),
        "notes": list(table.notes),
        "targets": f"classes, {notation}" if labels is not None else "values",
        "devices": [
            {"device": str(name), "part": part_of[each], "samples": int(count[each])} for each, name in enumerate(names)
        ],
        "classes": [] if labels is None else _shares(labels, owner),
        "small": [str(names[each]) for each in np.flatnonzero(count < least)],
        "findings": [asdict(each) for each in findings],
    }


def demand_usable(found: Mapping[str, Any]) -> None:
    """Raises DataError if a run of the data that ``check`` found so would be refused, or its figures wrong."""
    kinds = [each["kind"] for each in found["findings"] if each["refused"]]
    if kinds:
        raise DataError(
            f"{found['data']}: a run would be refused, or its figures be wrong: {', '.join(kinds)}. "
            "The findings say what helps."
        )


def _shares(labels: NDArray[Any], owner: I64) -> list[dict[str, Any]]:
    """The samples and devices of each class."""
    classes, index, count = np.unique(labels, return_inverse=True, return_counts=True)
    devices = np.bincount(np.unique(np.stack([index, owner]), axis=1)[0])
    return [
        {"class": str(name), "samples": int(count[each]), "devices": int(devices[each])} for each, name in enumerate(classes)
    ]


def _devices(names: NDArray[Any], count: I64, part_of: dict[int, str], reading: Reading) -> Iterator[Finding]:
    small = np.flatnonzero(count <= reading.shots)
    if not small.size:
        return
    held = [each for each in small if part_of[int(each)] in ("validation", "test")]
    words = (
        f"{len(small):,} of {len(names):,} devices have no more than {reading.shots} samples: {named(names[small], len(small))}"
    )
    if held:
        words += f"; {len(held):,} of them would be evaluated, which a run refuses. Give --drop-small, or fewer --shots"
    yield Finding("small", f"{words}.", refused=bool(held))


def _alone(parts: dict[str, I64]) -> Iterator[Finding]:
    if len(parts["test"]) == 1:
        yield Finding(
            "one held out",
            "1 device is held out, so no figure has an interval (±), and how others would do is unknown. Give more devices, or "
            "hold out more: the array split.",
        )


def _leaks(x: NDArray[Any], owner: I64, parts: dict[str, I64]) -> Iterator[Finding]:
    """Rows that are on training devices and on others, and rows that a device has twice."""
    rows = np.ascontiguousarray(x + 0)  # -0.0 becomes 0.0
    rows = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    trains = np.isin(owner, parts["train"])
    shared = np.isin(rows[~trains], rows[trains])
    if shared.any():
        yield Finding(
            "leak",
            f"{shared.sum():,} of {shared.size:,} samples of devices that do not train are samples of training devices too: "
            "figures on them are too good. Leave them out, or give one person's data one device.",
            refused=True,
        )
    _, number = np.unique(rows, return_inverse=True)
    twice = len(number) - len(np.unique(np.stack([number, owner]), axis=1).T)
    if twice:
        yield Finding("repeated", f"{twice:,} samples repeat on their device, so its support and query set may share them.")


def _classes(labels: NDArray[Any], owner: I64, names: NDArray[Any], parts: dict[str, I64]) -> Iterator[Finding]:
    shares = _shares(labels, owner)
    most = max(each["samples"] for each in shares)
    rare = [f"{plain(each['class'], 40)} ({each['samples']:,})" for each in shares if each["samples"] * RARE < most]
    if rare:
        yield Finding(
            "imbalance",
            f"classes are rare beside the commonest, which has {most:,} samples: {named(rare)}. --balance takes a device's "
            "classes in turn.",
        )
    alone = [each["class"] for each in shares if each["devices"] == 1]
    if alone:
        holders = [names[owner[int((labels.astype(str) == each).argmax())]] for each in alone]
        pairs = [f"{plain(each, 40)} ({plain(holder, 40)})" for each, holder in zip(alone, holders, strict=True)]
        yield Finding("alone", f"classes are on one device alone, so no result tells how they do elsewhere: {named(pairs)}.")
    unseen = np.setdiff1d(labels, labels[np.isin(owner, parts["train"])])
    if unseen.size:
        yield Finding("unseen", f"no training device has the class {named(unseen)}. Hold out other devices.", refused=True)
    if len(shares) < 2:
        yield Finding("one class", "all samples have one class: there is nothing to classify.", refused=True)


def _columns(table: Table, labels: NDArray[Any] | None, owner: I64) -> Iterator[Finding]:
    """Inputs that teach nothing, tell the answer, or tell who or when it was."""
    by_row = not (table.names and table.x.ndim > 2)
    x = table.x.reshape(len(table.x), -1) if by_row else table.x[:, -1]  # a stream's last row stands for its window
    found: dict[str, list[str]] = {kind: [] for kind in WORDS}
    with np.errstate(invalid="ignore", over="ignore"):
        for number, column in enumerate(x.T):
            kind = _kind(column, labels, owner) or ("clock" if _rises(column, owner) else None)
            if kind:
                found[kind].append(table.names[number] if table.names else str(number))
    gone = np.isnan(table.x) if table.x.dtype.kind == "f" else np.zeros(1, bool)
    if gone.any():
        yield Finding("missing", f"{gone.sum():,} values are missing ({gone.mean():.1%}); a run fills them with the mean.")
    for kind, inputs in found.items():
        if inputs:
            yield Finding(kind, f"{'inputs' if len(inputs) > 1 else 'input'} {named(inputs)}: {WORDS[kind]}.")


WORDS = {
    "constant": "never another value, so nothing to learn from",
    "label": "tells the class in every row; leave it out if it is not known where the model runs",
    "time": "a time since 1970, by its size: it says when, not what; call it timestamp, or leave it out",
    "number": "the row's number: it says where in the file, not what; leave it out",
    "clock": "rises or falls from row to row on each device, as a clock does: it says when, not what; call it timestamp, or "
    "leave it out",
    "device": "one value for each device, which tells who it is; leave it out unless new devices have it too",
    "far": "one value is farther from all others than these are from each other, such as -999 for a missing one; correct it",
}


def _kind(column: NDArray[Any], labels: NDArray[Any] | None, owner: I64) -> str | None:
    """What is suspicious about an input; None for nothing."""
    values = column[~np.isnan(column)].astype(np.float64) if column.dtype.kind == "f" else column.astype(np.float64)
    different = np.unique(values)
    if len(values) < len(column):
        return "far" if _far(different) else None
    if len(different) == 1:
        return "constant"
    if labels is not None and len(np.unique(labels)) > 1 and _tells_class(different, values, labels):
        return "label"
    if any(low < different[0] and different[-1] < high for low, high in EPOCHS):
        return "time"
    if len(values) > 2 and (np.diff(values) == 1).all():
        return "number"
    if _tells(np.unique(owner), owner, values) and len(np.unique(owner)) < len(values):
        return "device"
    return "far" if _far(different) else None


def _tells(keys: NDArray[Any], of: NDArray[Any], what: NDArray[Any]) -> bool:
    """Whether all rows with the same key in ``of`` have the same ``what``."""
    number = np.unique(what, return_inverse=True)[1]
    at = np.searchsorted(keys, of)
    pairs = len(np.unique(at.astype(np.int64) * (int(number.max()) + 1) + number))
    return pairs == len(keys)


def _tells_class(different: NDArray[Any], values: NDArray[Any], labels: NDArray[Any]) -> bool:
    """Whether each of ``different`` values, if they are few, or each stretch of them has one of the ``labels`` only."""
    if len(different) <= FEW:
        return _tells(different, values, labels)
    count = np.unique(labels, return_counts=True)[1]
    order = np.argsort(values, kind="stable")
    here, named = values[order], labels[order]
    ends = np.flatnonzero(named[1:] != named[:-1])
    return bool(count.min() >= EACH and len(ends) == len(count) - 1 and (here[ends] < here[ends + 1]).all())


def _rises(column: NDArray[Any], owner: I64) -> bool:
    """Whether the column rises, or falls, from row to row of each device."""
    order = np.argsort(owner, kind="stable")
    steps = np.diff(column[order].astype(np.float64))[np.diff(owner[order]) == 0]
    up, down = (steps > 0).mean() if len(steps) else 0, (steps < 0).mean() if len(steps) else 0
    return len(steps) >= STEPS and max(up, down) >= RISES and min(up, down) <= FALLS


def _far(different: NDArray[np.float64]) -> bool:
    """Whether the least or the largest of these sorted, ``different`` values is that far from the others."""
    if len(different) < SEVERAL:
        return False
    first, last = different[1] - different[0], different[-1] - different[-2]
    return bool(first > different[-1] - different[1] or last > different[-2] - different[0])
