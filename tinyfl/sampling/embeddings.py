"""What tells the tasks of devices apart, as a row of numbers for each device.

- tags: what is known of the devices without their data, such as how a camera is mounted: ``tags`` of the task.
- means: the mean input of each class among the samples of a device's first round, which a device would have to tell.
- parameters: what its task was made of: ``parameters`` of the task. No server knows them: they bound what the others can reach.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tinyfl import core
from tinyfl.core import F32, F64, U32, Stream, TableSource
from tinyfl.errors import ConfigError

DIMENSIONS = 128
"""Longer embeddings become sketches of this length."""

SIGNS = np.uint32(3)
"""Its number in the generator's stream of cohorts (tinyfl.sampling)."""

AT_ONCE = 64
"""Devices whose samples are in memory at once."""


def embedded(embedding: str, task: Any, fleet_size: int, samples: int, seed: int) -> F32:
    """The embeddings of all devices, float32 (devices, dimensions). Means are over ``samples`` samples.

    Raises ConfigError if the task lacks what they are made of.
    """
    if embedding == "means":
        make: Callable[[U32], Any] = partial(class_means, task, samples)
    elif hasattr(task, embedding):
        make = getattr(task, embedding)
    else:
        raise ConfigError(f"task {task.name} has no {embedding} of its devices. Give another --embedding (docs/sampling.md).")
    numbers = np.arange(fleet_size, dtype=np.uint32)
    parts = [
        sketched(np.asarray(make(numbers[first : first + AT_ONCE]), np.float64), seed)
        for first in range(0, fleet_size, AT_ONCE)
    ]
    table = np.concatenate(parts)
    if (table == table[0]).all():
        raise ConfigError(f"the {embedding} of all devices are the same: they tell no tasks apart. Give another --embedding.")
    return table


def class_means(task: Any, samples: int, devices: U32) -> F64:
    """The mean input of each class among the ``samples`` of the devices' first round, float64 (devices, classes x inputs); 0
    for a class that is not among them.

    Raises ConfigError for a task that predicts values.
    """
    source = task.stream(devices, 0, samples)
    if not isinstance(source, TableSource) or source.labels is None:
        raise ConfigError(f"task {task.name} predicts values: it has no class means. Give --embedding updates.")
    inputs = source.inputs()
    sums = np.zeros((len(devices), task.outputs, inputs.shape[2]))
    count = np.zeros((len(devices), task.outputs, 1))
    every = np.arange(len(devices))
    for i in range(samples):
        sums[every, source.labels[:, i]] += inputs[:, i]
        count[every, source.labels[:, i]] += 1
    return (sums / np.maximum(count, 1)).reshape(len(devices), -1)


def sketched(rows: F64, seed: int) -> F32:
    """``rows`` (rows, numbers) as float32, in DIMENSIONS numbers if they have more. Sums with random signs keep inner products
    in expectation (feature hashing; Weinberger et al. 2009, arXiv:0902.2206)."""
    width = rows.shape[1]
    if width <= DIMENSIONS:
        return rows.astype(np.float32)
    words = core.random(seed, Stream.cohort, np.full(1, SIGNS), words=width)[0]
    signed = np.zeros((len(rows), -(-width // DIMENSIONS) * DIMENSIONS))
    signed[:, :width] = rows * np.where(words & 1, 1.0, -1.0)
    sketches: F32 = signed.reshape(len(rows), -1, DIMENSIONS).sum(axis=1).astype(np.float32)
    return sketches
