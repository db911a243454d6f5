"""What a run of the task ``sensor`` is measured on: recorded samples, made of readings if need be."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyfl.config import read_settings, renamed
from tinyfl.config.roster import Part, read_parts
from tinyfl.data import Table
from tinyfl.data.reading import CLASS_NAMES, OPTIONAL, read_table
from tinyfl.errors import ConfigError
from tinyfl.link import BUILT_IN
from tinyfl.networks.layers import Loss
from tinyfl.sensors.apart import held_apart, learners
from tinyfl.sensors.recording import is_recording, recording_of
from tinyfl.sensors.source import HostSource
from tinyfl.tasks.sensor import NAME


def sensed(options: Mapping[str, Any], file: Path | None, sources: Sequence[Path]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The ``options`` of a new run over those in ``file``, and notes for people. If its task is ``sensor``, its data are
    samples: those in its file, or those that the C files ``sources`` make of the readings there; and those whose readings the
    fleet has are not held out.

    Raises ConfigError without a recording, for readings without what makes samples of them, or if nobody can be held out.
    """
    given = {**(read_settings(file) if file else {}), **renamed({k: v for k, v in options.items() if v is not None})}
    data, parts = given.get("data"), read_parts(given.get("fleet") or ())
    name = str(given.get("sensor") or next((part.sensor for part in parts if part.sensor), ""))
    if given.get("task") != NAME or not isinstance(data, str | Path | None):
        return dict(options), ()
    if not data:
        raise ConfigError(
            "--task sensor is measured on recorded samples. Record some, and give them with --data: tinyfl record PORT "
            f"--sensor {name or 'NAME'} --label NAME"
        )
    if not sources:
        _refuse_readings(Path(data), name)
        return dict(options), ()
    if not name:
        raise ConfigError("--task sensor learns from a sensor: say which, with --sensor NAME.")
    table = read_table(Path(data))
    made = _samples(table, sources, name)
    made, notes = held_apart(made, learners(parts, sources, name), int(given.get("seed") or 0))
    if made is table:
        return dict(options), ()
    held = {each: np.asarray(array) for each in (*OPTIONAL, CLASS_NAMES) if (array := getattr(made, each)) is not None}
    return {**options, "data": {"x": made.x, "y": made.y, "device": made.device, **held}}, (*made.notes, *notes)


def _refuse_readings(data: Path, name: str) -> None:
    """Raises ConfigError for raw readings, of which only the C file makes samples."""
    table = read_table(data)
    if table.x.dtype == np.int16 and table.class_names is None:
        raise ConfigError(
            f"{table.source} has raw readings, by its x of int16, and the network learns from samples, which the sensor's C "
            f"file makes of them: give it, --source FILE.c. Or record samples: tinyfl record PORT --sensor {name or 'NAME'}"
        )


def _samples(table: Table, sources: Sequence[Path], name: str) -> Table:
    """``table``, or if its rows are readings, what the sensor ``name`` makes of them; with the names of its classes."""
    source = HostSource(sources, name)
    try:
        sensor = source.sensor
        if is_recording(table, sensor):
            made = source.samples_of(recording_of(table, sensor))
            table = replace(made, split=table.split, validation=table.validation, notes=(*table.notes, *made.notes))
        if sensor.loss != Loss.softmax_cross_entropy or not sensor.labels:
            return table
        if table.class_names is not None and tuple(table.class_names.tolist()) != sensor.labels:
            raise ConfigError(
                f"{table.source} has the class_names {', '.join(map(str, table.class_names))}, and sensor {name} the .labels "
                f"{', '.join(sensor.labels)}. Give both the same in the same order."
            )
        return replace(table, class_names=np.array(sensor.labels))
    finally:
        source.close()


def live(parts: Sequence[Part]) -> list[str]:
    """A note on boards that take samples of their own sensors, not of recorded readings."""
    names = sorted({part.sensor for part in parts if part.sensor not in ("", *BUILT_IN) and not (part.native or part.readings)})
    return [
        f"sensor {name}: its samples are live, and never come again: no other run repeats this one, and a resumed one goes on "
        "with new samples"
        for name in names
    ]
