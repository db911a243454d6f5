"""The streams of simulated devices that have a sensor: recorded readings, through the C of the boards' own source."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import U32, TableSource
from tinyfl.errors import ConfigError
from tinyfl.sensors.source import HostSource, as_source
from tinyfl.tasks import Episodes, Split, Task
from tinyfl.tasks.sensor import class_names

Readings = Sequence[NDArray[np.void]]


class SensedTask:
    """The ``task``, whose devices from ``first`` on take the samples of their streams from ``source``, as boards do: device
    ``first`` + i from ``readings[i]``; without readings from what the source computes.

    Raises ConfigError for a source that reads a chip, without readings, or whose labels are not the task's classes in order.
    """

    def __init__(self, task: Task, source: HostSource, seed: int, readings: Readings | None, first: int) -> None:
        if readings is None and source.chip:
            raise ConfigError(
                f"sensor {source.name} reads a chip, and simulated devices have none. Give their part of the fleet recorded "
                "readings: readings = FILE"
            )
        names = class_names(task)
        if names and source.labels and tuple(names) != source.labels:
            raise ConfigError(
                f"sensor {source.name} numbers its classes {', '.join(source.labels)}, and the run's data {', '.join(names)}. "
                "Give the run the same C file, --source FILE.c, or the data an array class_names in the sensor's order."
            )
        self.task, self.source, self.seed, self.readings, self.first = task, source, seed, readings, first
        self.name, self.shape, self.outputs = task.name, task.shape, task.outputs
        self.loss, self.activation, self.fleet_size = task.loss, task.activation, task.fleet_size
        self.standardisation = task.standardisation

    def stream(self, devices: U32, round: int, samples: int) -> TableSource:
        """The samples of each device in a round, as its board takes them."""
        inputs = int(np.prod(self.shape))
        parts = [
            self.source.round(
                device, round, samples, seed=self.seed, inputs=inputs, outputs=self.outputs,
                readings=None if self.readings is None else self.readings[device - self.first],
            )
            for device in devices.tolist()
        ]  # fmt: skip
        return as_source(np.stack([x for x, _ in parts]), np.stack([y for _, y in parts]))

    def episodes(self, split: Split, count: int, shots: int) -> Episodes:
        """Those of the task."""
        return self.task.episodes(split, count, shots)
