"""The sources of a user's C files on this machine: the samples of simulated devices, and those of a recording."""

import ctypes
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.building import host
from tinyfl.core import F32, TableSource
from tinyfl.data import Table
from tinyfl.errors import ConfigError, DataError, InstallError
from tinyfl.link.sensing import UNLABELLED, Sensor, names_in, raise_fault
from tinyfl.networks.layers import Loss
from tinyfl.sensors.process import Process
from tinyfl.sensors.recording import Recording, image, read_recording, shares
from tinyfl.system.files import private_folder

MAX_DEVICES = 1000
"""Maximum number of simulated devices with a sensor: each has the library in memory of its own, as a board has its RAM."""

ALL = -1
"""As many samples as the readings make."""

TYPES = ("float32", "int16")


class _Source(ctypes.Structure):
    """tinyfl_source (firmware/agent/source.h)."""

    _fields_ = (
        ("name", ctypes.c_char_p), ("sample", ctypes.c_void_p), ("start", ctypes.c_void_p), ("read", ctypes.c_void_p),
        ("type", ctypes.c_uint8), ("channels", ctypes.c_uint8), ("rate", ctypes.c_float), ("shape", ctypes.c_uint16 * 3),
        ("outputs", ctypes.c_uint16), ("loss", ctypes.c_uint8), ("labels", ctypes.c_char_p), ("deadline", ctypes.c_uint32),
    )  # fmt: skip


class _Stream(ctypes.Structure):
    """tinyfl_stream."""

    _fields_ = (
        ("seed", ctypes.c_uint64), ("device", ctypes.c_uint32), ("round", ctypes.c_uint32), ("inputs", ctypes.c_uint32),
        ("outputs", ctypes.c_uint32),
    )  # fmt: skip


class HostSource:
    """The source ``name`` of the C files ``sources``: as many copies as devices, each with its own memory, as a board has.

    Raises ConfigError if it is not there, and the errors of tinyfl.building.host.library.
    """

    def __init__(self, sources: Sequence[Path], name: str) -> None:
        if not sources:
            raise ConfigError(f"sensor {name} is nowhere on this machine: give its C file too, --source FILE.c.")
        self.name, self._path = name, host.library(sources)
        self._open = ExitStack()
        self._folder = self._open.enter_context(private_folder("tinyfl-sensor-"))
        self._process = Process(name)
        self._open.callback(self._process.close)
        table = self._table(self._loaded(self._copy(-1)))
        names = [each.name.decode(errors="replace") for each in table]
        if name not in names:
            there = ", ".join(names)
            raise ConfigError(f"no source is called {name!r} in {', '.join(map(str, sources))}. There are: {there}.")
        self._number = names.index(name)
        self._own = table[self._number]

    @property
    def sensor(self) -> Sensor:
        """What the C file declares of it.

        Raises ConfigError if it is no sensor, or an impossible one.
        """
        own = self._own
        shape = tuple(int(each) for each in own.shape if each)
        if not own.channels:
            raise ConfigError(
                f"source {self.name} declares no sensor. Give it .channels, .shape, .outputs and .loss (docs/firmware.md)."
            )
        labels = self.labels
        if labels and len(labels) != own.outputs:
            raise ConfigError(f"sensor {self.name} has {own.outputs} outputs, and .labels names {len(labels)}. Name each.")
        if own.type >= len(TYPES) or not shape or not own.outputs or own.loss not in list(Loss):
            raise ConfigError(
                f"sensor {self.name} is none: it needs a .type (TINYFL_READS_INT16 or TINYFL_READS_FLOAT32), a .shape such as "
                "{50, 3}, .outputs of 1 or more, and a .loss of tinyfl.h."
            )
        return Sensor(
            self.name, TYPES[own.type], own.channels, float(own.rate), shape, own.outputs, own.loss, own.deadline, labels
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of its classes; empty if it has none."""
        return names_in((self._own.labels or b"").decode(errors="replace"))

    @property
    def chip(self) -> bool:
        """Whether it reads a chip, which this machine has not."""
        return bool(self._own.read or self._own.start)

    def round(
        self,
        device: int,
        round: int,
        samples: int,
        *,
        seed: int,
        inputs: int,
        outputs: int,
        readings: NDArray[np.void] | None = None,
    ) -> tuple[F32, F32]:
        """The samples of a device in a round, as its board takes them: x (samples, inputs) and y (samples, outputs).

        Raises SensorFault with a word if one cannot be learnt from.
        """  # fmt: skip
        stream = _Stream(seed, device, round, inputs, outputs)
        x, y, codes = self._samples(device, readings, stream, samples)
        for done, code in enumerate(codes):
            if code:
                raise_fault(-8 if code == UNLABELLED else code, self.name, done)
        return x, y

    def recorded(self, readings: NDArray[np.void]) -> tuple[F32, F32]:
        """The labelled samples of one device's readings, from the first reading to the last: x and y as in ``round``."""
        x, y, _ = self._recorded(readings)
        return x, y

    def _recorded(self, readings: NDArray[np.void]) -> tuple[F32, F32, int]:
        """As ``recorded``, and how many others there are."""
        sensor = self.sensor
        x, y, codes = self._samples(-1, readings, _Stream(0, 0, 0, sensor.inputs, sensor.outputs), ALL)
        for done, code in enumerate(codes):
            if code < 0:
                raise_fault(code, self.name, done)
        if len(codes) > len(readings):
            raise DataError(f"sensor {self.name} takes samples without readings, so a recording is nothing to it.")
        labelled = np.flatnonzero(np.array(codes) == 0)
        return x[labelled], y[labelled], len(codes) - len(labelled)

    def samples_of(self, recording: Recording) -> Table:
        """The samples of all devices of ``recording``: x (samples, *shape), and y (samples, outputs) as the source gives it;
        with a note on those without a label, which are left out."""
        sensor, parts = self.sensor, []
        for device in range(len(recording.devices)):
            parts.append(self._recorded(recording.of(device, sensor)))
        x = np.concatenate([each[0] for each in parts]).reshape(-1, *sensor.shape)
        y = np.concatenate([each[1] for each in parts])
        owner = np.repeat(np.arange(len(parts)), [len(each[0]) for each in parts])
        unlabelled = sum(each[2] for each in parts)
        note = f"samples: {unlabelled:,} of {unlabelled + len(x):,} have no label, and are left out"
        return Table(recording.source, x, y, recording.devices[owner], notes=(note,) if unlabelled else ())

    def close(self) -> None:
        """Ends the process, and removes the copies' files."""
        self._open.close()

    def _samples(
        self, device: int, readings: NDArray[np.void] | None, stream: _Stream, count: int
    ) -> tuple[F32, F32, list[int]]:
        """x and y of each sample of the device, and their codes, up to the first that failed."""
        held, each = (b"", 0) if readings is None else (readings.tobytes(), readings.dtype.itemsize)
        inputs, outputs = int(stream.inputs), int(stream.outputs)
        data, codes = self._process.samples(
            device, self._copy(device), held, each, self._number, bytes(stream), count, inputs, outputs
        )
        rows = np.frombuffer(data, np.float32).reshape(-1, inputs + outputs)
        x, y = np.split(rows, [inputs], axis=1)
        return np.ascontiguousarray(x), np.ascontiguousarray(y), codes

    def _copy(self, device: int) -> Path:
        """The device's own copy of the library."""
        path = self._folder / f"{device}.so"
        if not path.exists():
            if len(list(self._folder.iterdir())) > MAX_DEVICES:
                raise ConfigError(f"more than {MAX_DEVICES:,} simulated devices with a sensor. Give fewer --devices.")
            shutil.copyfile(self._path, path)
        return path

    @staticmethod
    def _loaded(path: Path) -> Any:
        try:
            return ctypes.CDLL(str(path))
        except OSError as error:
            raise InstallError(f"{path} cannot be loaded ({error}). Set TMPDIR to a folder whose programs may run.") from error

    @staticmethod
    def _table(library: Any) -> list[_Source]:
        found, at = [], ctypes.addressof(_Source.in_dll(library, "tinyfl_sources"))
        while (each := _Source.from_address(at)).name is not None:
            found.append(each)
            at += ctypes.sizeof(_Source)
        return found


def images(path: Path, name: str, sources: Sequence[Path], count: int) -> list[bytes]:
    """The readings in the file at ``path``, of the sensor ``name`` of ``sources``, for the memory of ``count`` emulated boards.

    Raises ConfigError without a name or its source, DataError for other readings or too few devices.
    """
    if not name:
        raise ConfigError("--readings are of a sensor: say which, with --sensor NAME.")
    source = HostSource(sources, name)
    try:
        return [image(each) for each in shares(read_recording(path, source.sensor), source.sensor, count)]
    finally:
        source.close()


def as_source(x: F32, y: F32) -> TableSource:
    """Samples x (devices, samples, inputs) and y (devices, samples, outputs) for the core."""
    devices, samples = x.shape[:2]
    rows = np.arange(devices * samples, dtype=np.int32).reshape(devices, samples)
    return TableSource(
        np.ascontiguousarray(x.reshape(devices * samples, -1)), rows,
        targets=np.ascontiguousarray(y.reshape(devices * samples, -1)),
    )  # fmt: skip
