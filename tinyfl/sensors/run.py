"""What a run of the task ``sensor`` is measured on: recorded samples, made of readings if need be, or their shape alone."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tinyfl.config import read_settings, renamed
from tinyfl.config.roster import Part, read_parts
from tinyfl.data.reading import read_table
from tinyfl.errors import ConfigError
from tinyfl.link.board import LinkedBoard
from tinyfl.link.sensing import Sensor, sensor_of
from tinyfl.link.wire import SerialWire
from tinyfl.sensors.recording import is_recording, recording_of
from tinyfl.sensors.source import HostSource
from tinyfl.tasks.sensor import NAME, declared


def sensed(options: Mapping[str, Any], file: Path | None, sources: Sequence[Path]) -> dict[str, Any]:
    """The ``options`` of a new run over those in ``file``. If its task is ``sensor``, its data are samples: those in its file,
    those that the C files ``sources`` make of the readings there, or none yet, of the shape that the sensor declares.

    Raises ConfigError if neither data, C files nor boards say what the sensor gives.
    """
    given = {**(read_settings(file) if file else {}), **renamed({k: v for k, v in options.items() if v is not None})}
    if given.get("task") != NAME:
        return dict(options)
    data, name = given.get("data") or None, _name(given)
    if not isinstance(data, str | Path | None):
        return dict(options)
    if not sources and data:
        return dict(options)  # samples, as the task finds
    if not name:
        raise ConfigError("--task sensor learns from a sensor: say which, with --sensor NAME.")
    if not sources:
        sensor = _of_ports(given, name)
        return {**options, "data": declared(sensor.shape, sensor.outputs, sensor.loss)}
    source = HostSource(sources, name)
    try:
        sensor = source.sensor
        if data is None:
            return {**options, "data": declared(sensor.shape, sensor.outputs, sensor.loss)}
        table = read_table(Path(data))
        if not is_recording(table, sensor):
            return dict(options)
        samples = source.samples_of(recording_of(table, sensor))
    finally:
        source.close()
    held = {each: np.asarray(array) for each in ("split", "validation") if (array := getattr(table, each)) is not None}
    return {**options, "data": {"x": samples.x, "y": samples.y, "device": samples.device, **held}}


def _name(given: Mapping[str, Any]) -> str:
    """The sensor of the run, or of its fleet."""
    parts = read_parts(given.get("fleet") or ())
    return str(given.get("sensor") or next((part.sensor for part in parts if part.sensor), ""))


def _of_ports(given: Mapping[str, Any], name: str) -> Sensor:
    """What the first board at a port says of its sensor ``name``.

    Raises ConfigError without boards at ports.
    """
    parts: Sequence[Part] = read_parts(given.get("fleet") or ())
    port = next((port for part in parts for port in part.ports), None)
    if port is None:
        raise ConfigError(f"nothing says what sensor {name} gives: give its C file, --source FILE.c, or --data of its samples.")

    async def ask() -> Sensor:
        board = await LinkedBoard.connect(partial(SerialWire.open, port))
        try:
            return sensor_of(board, name)
        finally:
            await board.close()

    return asyncio.run(ask())
