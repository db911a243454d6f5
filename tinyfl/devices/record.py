"""Records a connected board's sensor: its samples, or its raw readings, with a label, as a file that runs take."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.devices.connected import reach
from tinyfl.devices.ports import port
from tinyfl.errors import ConfigError, DataError
from tinyfl.link.board import LinkedBoard
from tinyfl.link.sensing import Sensor, readings, sample, sensor_of
from tinyfl.networks.layers import Loss
from tinyfl.system.files import npz, read_arrays, write_whole
from tinyfl.system.loop import in_loop

BATCH_SECONDS = 0.5
"""Readings of so much time are asked for at once."""

ROWS = ("x", "y", "device")
"""Arrays with an entry for each row."""

MARGIN_SECONDS = 10.0
MOST = 1000
"""Readings of a sensor that declares no rate."""


@dataclass(frozen=True)
class Recorded:
    """What was recorded: the rows that were added to the file, all that it has now, and how many samples came too late, or had
    no label, and were not kept. Of readings, ``unlabelled`` are kept, without one; and so are ``unknown``, whose label is
    beyond the last class."""

    out: Path
    device: str
    sensor: Sensor
    added: int
    rows: int
    late: int
    unlabelled: int
    unknown: int = 0

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "out": str(self.out), "device": self.device, "sensor": self.sensor.name, "added": self.added, "rows": self.rows,
            "late": self.late, "unlabelled": self.unlabelled, "unknown": self.unknown,
        }  # fmt: skip


@dataclass(frozen=True)
class Recorder:
    """What to record: ``seconds`` of the sensor ``name``, as ``raw`` readings or as samples, with the class ``label``, by name
    or number (empty: the label that the board gives), as rows of ``device`` (empty: the board's id)."""

    name: str
    label: str = ""
    seconds: float = 60.0
    raw: bool = False
    device: str = ""


def record(url: str, what: Recorder, out: Path, *, baud: int = 0, tell: Callable[[float], None] = lambda _: None) -> Recorded:
    """Records the board at the port ``url`` to the .npz file ``out``, after the rows that it has; ``tell`` gets the seconds
    done.

    Raises ConfigError for an unknown label or a file of other rows, LinkError if the board does not go on.
    """
    if out.suffix != ".npz":
        raise ConfigError(f"--out {out} is not an .npz file. Give it that ending.")
    at = port(url, baud)

    async def listen() -> tuple[str, Sensor, _Taken]:
        board, _ = await reach(at)
        try:
            sensor = sensor_of(board, what.name)
            number = _class(what.label, sensor)
            taken = await (_readings if what.raw else _samples)(board, sensor, number, what.seconds, tell)
            return what.device or board.description.id.hex(), sensor, taken
        finally:
            await board.close()

    device, sensor, taken = in_loop(listen())
    x, y = taken.x, taken.y
    arrays = {"x": x, "y": y, "device": np.full(len(x), device)}
    if y.ndim == 2 and sensor.labels and sensor.loss == Loss.softmax_cross_entropy:
        arrays["class_names"] = np.array(sensor.labels)
    if out.exists():
        arrays = _after(out, arrays)
    write_whole(out, npz(**arrays))
    return Recorded(out, device, sensor, len(x), len(arrays["x"]), taken.late, taken.unlabelled, taken.unknown)


@dataclass(frozen=True)
class _Taken:
    """The rows, and the counts of Recorded."""

    x: NDArray[Any]
    y: NDArray[Any]
    late: int
    unlabelled: int
    unknown: int


def _class(label: str, sensor: Sensor) -> int | None:
    """The number of the class ``label``; None without one."""
    if not label:
        return None
    names = sensor.labels or tuple(map(str, range(sensor.outputs)))
    if sensor.loss == Loss.mean_squared_error or label not in names:
        there = "values, and no classes" if sensor.loss == Loss.mean_squared_error else f"the labels {', '.join(names)}"
        raise ConfigError(f"sensor {sensor.name} has {there}, and no label {label}.")
    return names.index(label)


async def _readings(
    board: LinkedBoard, sensor: Sensor, number: int | None, seconds: float, tell: Callable[[float], None]
) -> _Taken:
    began, parts = time.monotonic(), list[NDArray[Any]]()
    left = max(1, round(seconds * sensor.rate)) if sensor.rate else MOST  # recorded ones come at any speed
    while left > 0 and (done := time.monotonic() - began) < seconds + MARGIN_SECONDS:
        tell(done)
        most = min(left, max(1, int(sensor.rate * BATCH_SECONDS)))
        parts.append(await readings(board, sensor, most, seconds + MARGIN_SECONDS))
        left -= len(parts[-1])
    taken = np.concatenate(parts)
    numbers = taken["label"] if number is None else np.full(len(taken), number)
    names = np.array([*(sensor.labels or map(str, range(sensor.outputs))), ""])
    unknown = numbers >= sensor.outputs
    known = np.where((numbers < 0) | unknown, sensor.outputs, numbers)
    unlabelled = int((known == sensor.outputs).sum()) - int(unknown.sum())
    return _Taken(taken["values"], names[known], 0, unlabelled, int(unknown.sum()))


async def _samples(
    board: LinkedBoard, sensor: Sensor, number: int | None, seconds: float, tell: Callable[[float], None]
) -> _Taken:
    began, x, y = time.monotonic(), list[Any](), list[Any]()
    late = unlabelled = count = 0
    limit = seconds + MARGIN_SECONDS if sensor.rate else seconds
    # Recorded readings come at any speed: their own time is that of their number.
    while (wall := time.monotonic() - began) < limit and (done := count / sensor.rate if sensor.rate else wall) < seconds:
        tell(done)
        taken = await sample(board, sensor.name, sensor.outputs, seconds + MARGIN_SECONDS, sensor.seconds)
        late += taken.late
        count += taken.readings
        if number is None and not taken.labelled:
            unlabelled += 1
            continue
        x.append(taken.x.reshape(sensor.shape))
        y.append(taken.y if number is None else np.eye(sensor.outputs, dtype=np.float32)[number])
    if not x:
        raise DataError(f"sensor {sensor.name} gave no sample with a label in {seconds:g} s. Say what it was: --label NAME.")
    return _Taken(np.stack(x), np.stack(y), late, unlabelled, 0)


def _after(out: Path, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """``arrays`` after those in the file ``out``."""
    before = read_arrays(out, ROWS, ("class_names",))
    named = arrays.pop("class_names", None)
    if "class_names" in before and (named is None or named.tolist() != before["class_names"].tolist()):
        raise ConfigError(f"{out} has samples of the classes {', '.join(before['class_names'].tolist())}. Give another --out.")
    for name, array in arrays.items():
        if before[name].shape[1:] != array.shape[1:]:
            raise ConfigError(
                f"{out} has rows of {before[name].shape[1:]} in its array {name}, and these have {array.shape[1:]}: readings "
                "and samples go to files of their own. Give another --out."
            )
    rows = {name: np.concatenate([before[name], array]) for name, array in arrays.items()}
    return rows if named is None else {**rows, "class_names": named}
