"""Recorded readings of sensors: a table as any of a user's data (tinyfl.data), with a row for each reading.

A row's x is the reading's values, its y the label, and its device the board that took it; rows of a device are in the order of
time. A label is a class by its name or number in the sensor's C file; an empty text, or a number below 0, is none.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import I32
from tinyfl.data import Table
from tinyfl.data.devices import owners
from tinyfl.data.reading import read_table
from tinyfl.errors import DataError
from tinyfl.errors.words import plain
from tinyfl.link.sensing import Sensor
from tinyfl.networks.layers import Loss


@dataclass(frozen=True)
class Recording:
    """Readings of ``devices``, by name in ascending order: the values (readings, channels) and the class int32 (readings,), -1
    for none, of all, and each one's ``owner``, an index into ``devices``."""

    source: str
    values: NDArray[Any]
    labels: I32
    owner: NDArray[np.int64]
    devices: NDArray[Any]

    def of(self, device: int, sensor: Sensor) -> NDArray[np.void]:
        """The readings of ``devices[device]``, as the board has them: an array of ``sensor.reading``."""
        rows = np.flatnonzero(self.owner == device)
        made = np.zeros(len(rows), sensor.reading)
        made["values"], made["label"] = self.values[rows], self.labels[rows]
        return made


def read_recording(path: Path, sensor: Sensor) -> Recording:
    """Reads the readings of ``sensor`` in the file at ``path``.

    Raises DataError if they are not the sensor's.
    """
    return recording_of(read_table(path), sensor)


def is_recording(table: Table, sensor: Sensor) -> bool:
    """Whether the rows are readings of ``sensor``, not its samples."""
    return int(np.prod(table.x.shape[1:])) == sensor.channels and sensor.channels != sensor.inputs


def recording_of(table: Table, sensor: Sensor) -> Recording:
    """The readings in ``table``. Raises DataError if they are not those of ``sensor``."""
    names, owner = owners(table)
    values = np.asarray(table.x).reshape(len(table.x), -1)
    if values.shape[1] != sensor.channels:
        raise DataError(
            f"{table.source}: a row of x has {values.shape[1]} values, and a reading of {sensor.name} has {sensor.channels}. "
            f"Record it with: tinyfl record --sensor {sensor.name} --raw"
        )
    kind = sensor.reading["values"].subdtype
    assert kind is not None
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise DataError(f"{table.source}: x is not all finite numbers. Leave such rows out.")
    if kind[0].kind == "i" and ((np.abs(values) > np.iinfo(np.int16).max).any() or (values % 1).any()):
        raise DataError(f"{table.source}: x is not all whole numbers of 16 bits, as readings of {sensor.name} are. Round them.")
    return Recording(table.source, values.astype(kind[0]), _labels(table, sensor), owner, names)


def _labels(table: Table, sensor: Sensor) -> I32:
    """The rows' classes, by the names that the sensor gives them, or in their order if it gives none."""
    y = np.asarray(table.y)
    if y.ndim != 1:
        raise DataError(f"{table.source}: y is {y.shape}, and readings have one label each. Give a class by name or number.")
    if y.dtype.kind in "US":
        text = y.astype(str)
        found = np.unique(text[text != ""]).tolist()
        names = list(sensor.labels or found)
        if unknown := [each for each in found if each not in names]:
            raise DataError(
                f"{table.source}: y has the label {plain(unknown[0], 40)}, which is none of {sensor.name}'s: "
                f"{', '.join(names)}. Write it as one of them, or leave such rows out."
            )
        if len(names) > sensor.outputs:
            raise DataError(
                f"{table.source}: y has {len(names)} labels, and {sensor.name} {sensor.outputs} outputs. Name them in its "
                ".labels, or leave some out."
            )
        order = {name: number for number, name in enumerate(names)}
        return np.array([order.get(each, -1) for each in text.tolist()], np.int32)
    with np.errstate(invalid="ignore"):
        number = np.where(np.isnan(y), -1, y) if y.dtype.kind == "f" else y
    if y.dtype.kind not in "iuf" or (number % 1).any() or (np.abs(number) >= 1 << 31).any():
        raise DataError(f"{table.source}: y is neither texts nor whole numbers. Give each reading's class by name or number.")
    if sensor.loss == Loss.softmax_cross_entropy and (number >= sensor.outputs).any():
        row = int((number >= sensor.outputs).argmax())
        raise DataError(
            f"{table.source}: y has the label {number[row]:g} in row {row}, and {sensor.name} has the classes 0 to "
            f"{sensor.outputs - 1}. Give each reading one of them, or -1 for none."
        )
    return number.astype(np.int32)


def image(readings: NDArray[np.void]) -> bytes:
    """The bytes of one device's readings in an emulator's memory: their number, the bytes of each, and the readings."""
    return struct.pack("<II", len(readings), readings.dtype.itemsize) + readings.tobytes()


def shares(recording: Recording, sensor: Sensor, count: int) -> Sequence[NDArray[np.void]]:
    """The readings of the first ``count`` devices.

    Raises DataError if there are fewer.
    """
    if len(recording.devices) < count:
        raise DataError(
            f"{recording.source} has readings of {len(recording.devices)} devices, and {count} boards are to take them, one "
            "each. Give a recording with more, or fewer boards."
        )
    return [recording.of(device, sensor) for device in range(count)]
