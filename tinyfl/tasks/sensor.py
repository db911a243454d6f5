"""What a sensor's boards learn, and how it is measured: on samples of its kind that were recorded (``--task sensor``).

Boards, and simulated devices with readings, learn from their own sensors. Other simulated devices learn from the recorded
samples of devices that are not held out. Nothing is standardised: a sensor's C file scales its samples.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from tinyfl.core import U32, TableSource
from tinyfl.data import USUAL, Reading
from tinyfl.data.reading import read_table
from tinyfl.errors import ConfigError
from tinyfl.networks.layers import Activation, Loss, Shape
from tinyfl.tasks import Episodes, Split, Task
from tinyfl.tasks.npz import Npz
from tinyfl.tasks.standard import Standardisation

NAME = "sensor"


class SensorTask:
    """The samples of one sensor: those of ``npz``, or at a gateway only their ``shape``, ``outputs`` and ``loss``,
    and the names of their ``classes``, if they have some."""

    name = NAME
    activation = Activation.leaky_relu
    fleet_size: int | None = None

    def __init__(self, shape: Shape, outputs: int, loss: Loss, npz: Npz | None = None, classes: tuple[str, ...] = ()) -> None:
        self.shape, self.outputs, self.loss, self._npz, self.classes_named = shape, outputs, loss, npz, classes
        self.standardisation: Standardisation | None = npz.standardisation if npz else None

    def stream(self, devices: U32, round: int, samples: int) -> TableSource:
        """The recorded samples of training devices, each of which several of ``devices`` may share.

        Raises ConfigError without any.
        """
        return self._demanded().stream((devices % np.uint32(self._training)).astype(np.uint32), round, samples)

    def episodes(self, split: Split, count: int, shots: int) -> Episodes:
        """Those of the recorded devices that are held out."""
        return self._demanded().episodes(split, count, shots)

    def recorded(self, split: Split, count: int, samples: int) -> list[tuple[str, TableSource]]:
        """Each held-out device's samples in the order of the recording."""
        return self._demanded().recorded(split, count, samples)

    def device_names(self, split: Split) -> list[str]:
        """The names of a split's devices."""
        return self._demanded().device_names(split)

    @property
    def _training(self) -> int:
        size = self._demanded().fleet_size
        assert size is not None
        return size

    def _demanded(self) -> Npz:
        if self._npz is None:
            raise ConfigError(
                "there are no recorded samples for simulated devices or an evaluation. Record some (tinyfl record), and give "
                "them with --data."
            )
        return self._npz


def class_names(task: Task) -> list[str]:
    """The names of the task's classes in the order of the outputs; empty if they are numbers."""
    standard = task.standardisation
    if isinstance(task, SensorTask) and standard is None:
        return list(task.classes_named)
    return standard.classes.tolist() if standard is not None and standard.classes.dtype.kind == "U" else []


def sensor(data: Path, seed: int, reading: Reading = USUAL) -> SensorTask:
    """The task of the recorded samples in ``data``, whose x is as the sensor gives it; y is a class, or one-hot. Classes are in
    the order of the array class_names, which is that of the sensor's labels, if the data have one.

    Raises DataError as ``Npz`` does.
    """
    table = read_table(data, reading)
    npz = Npz(table, seed, standardise=False, reading=reading, classes=table.class_names)
    assert npz.standardisation is not None
    notes = tuple(note.split(" (--targets")[0] for note in npz.standardisation.notes if not note.startswith("x: "))
    npz.standardisation = replace(npz.standardisation, notes=("x: as the sensor's C file gives it", *notes))
    return SensorTask(npz.shape, npz.outputs, npz.loss, npz)
