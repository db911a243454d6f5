"""What a run of the task ``sensor`` is measured on: recorded samples, made of readings if need be."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyfl.config import read_settings, renamed
from tinyfl.config.roster import Part, read_parts
from tinyfl.data.reading import read_table
from tinyfl.errors import ConfigError
from tinyfl.link import SINE
from tinyfl.sensors.recording import is_recording, recording_of
from tinyfl.sensors.source import HostSource
from tinyfl.tasks.sensor import NAME


def sensed(options: Mapping[str, Any], file: Path | None, sources: Sequence[Path]) -> dict[str, Any]:
    """The ``options`` of a new run over those in ``file``. If its task is ``sensor``, its data are samples: those in its file,
    or those that the C files ``sources`` make of the readings there.

    Raises ConfigError without a recording, or for readings without what makes samples of them.
    """
    given = {**(read_settings(file) if file else {}), **renamed({k: v for k, v in options.items() if v is not None})}
    data, name = given.get("data"), _name(given)
    if given.get("task") != NAME or not isinstance(data, str | Path | None):
        return dict(options)
    if not data:
        raise ConfigError(
            "--task sensor is measured on recorded samples. Record some, and give them with --data: tinyfl record PORT "
            f"--sensor {name or 'NAME'} --label NAME"
        )
    if not sources:
        return dict(options)
    if not name:
        raise ConfigError("--task sensor learns from a sensor: say which, with --sensor NAME.")
    source = HostSource(sources, name)
    try:
        table, sensor = read_table(Path(data)), source.sensor
        if not is_recording(table, sensor):
            return dict(options)
        samples = source.samples_of(recording_of(table, sensor))
    finally:
        source.close()
    held = {each: np.asarray(array) for each in ("split", "validation") if (array := getattr(table, each)) is not None}
    return {**options, "data": {"x": samples.x, "y": samples.y, "device": samples.device, **held}}


def live(parts: Sequence[Part]) -> list[str]:
    """A note on boards that take samples of their own sensors, not of recorded readings."""
    names = sorted({part.sensor for part in parts if part.sensor not in ("", SINE) and not (part.native or part.readings)})
    return [
        f"sensor {name}: its samples are live, and never come again: no other run repeats this one, and a resumed one goes on "
        "with new samples"
        for name in names
    ]


def _name(given: Mapping[str, Any]) -> str:
    """The sensor of the run, or of its fleet."""
    parts = read_parts(given.get("fleet") or ())
    return str(given.get("sensor") or next((part.sensor for part in parts if part.sensor), ""))
