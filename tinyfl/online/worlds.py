"""Streams of samples in the order in which they come: one device of a data set after another."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl import core
from tinyfl.core import F32, Stream, TableSource
from tinyfl.core.draws import distinct
from tinyfl.data.arrays import checked_inputs, checked_values, labels_in, refuse_non_finite
from tinyfl.data.reading import read_device
from tinyfl.errors import ConfigError
from tinyfl.networks.layers import Loss
from tinyfl.online.sets import Head
from tinyfl.online.starts import HEADS
from tinyfl.runs.adaptation import Initialisation
from tinyfl.tasks import RecordedTask, Split, Task, targets_for


@dataclass(frozen=True, eq=False)  # arrays do not compare as a whole
class World:
    """What one device meets: inputs ``x`` float32 (samples, inputs), and ``y``, the names of their classes (samples,) or
    numbers float32 (samples, outputs), 1 of which is ``unit`` in those of the user. It changes at each of ``starts``, ascending
    from 0, which have ``names``."""

    x: F32
    y: NDArray[Any]
    starts: tuple[int, ...] = (0,)
    names: tuple[str, ...] = ("",)
    unit: NDArray[np.float64] | float = 1.0

    def __len__(self) -> int:
        return len(self.x)


def worlds(
    task: Task,
    classes: Sequence[Any],
    *,
    devices: int = 1,
    segments: int = 0,
    samples: int = 0,
    shuffle: bool = False,
    seed: int = 0,
    split: Split = "test",
) -> list[World]:
    """The worlds of ``devices``: each meets the held-out devices (of ``split``) of the task one after another, the first in
    the data's order and the others in an order of their own, up to ``segments`` of them with up to ``samples`` each; 0: all.
    ``shuffle`` mixes the samples within a segment, so that what changes is the segment alone. ``classes`` are the names of the
    task's labels.

    Raises ConfigError if the task's samples have no order, or for several devices of a task that is one course of time.
    """
    if not isinstance(task, RecordedTask):
        raise ConfigError(f"samples of task {task.name} have no order. Take presence, activity, keywords, sine or npz.")
    if devices > 1 and task.name == "presence":
        raise ConfigError("days come in one order only: give --devices 1, or another --seed for another node.")
    parts = task.recorded(split, segments, samples)
    words = core.random(seed, Stream.cohort, np.arange(devices, dtype=np.uint32), words=len(parts))
    order = distinct(words, np.full(devices, len(parts)), len(parts))
    order[0] = np.arange(len(parts))
    names = np.array(classes, object)
    unit = 1.0 if task.standardisation is None else task.standardisation.target_scale
    return [
        replace(_world([parts[part] for part in row], names, shuffle, seed + device), unit=unit)
        for device, row in enumerate(order.tolist())
    ]


def _world(parts: Sequence[tuple[str, TableSource]], classes: NDArray[Any], shuffle: bool, seed: int) -> World:
    x, y = list[F32](), list[NDArray[Any]]()
    for number, (_, source) in enumerate(parts):
        rows = np.arange(source.samples)
        if shuffle:
            words = core.random(seed, Stream.query, np.array([number], np.uint32), words=len(rows))
            rows = distinct(words, np.array([len(rows)]), len(rows))[0]
        x.append(source.inputs()[0][rows])
        if source.labels is not None:
            y.append(classes[source.labels[0][rows]])
        else:
            assert source.targets is not None
            y.append(source.targets[source.rows[0][rows]])
    starts = np.cumsum([0, *map(len, x[:-1])]).tolist()
    return World(np.concatenate(x), np.concatenate(y), tuple(starts), tuple(name for name, _ in parts))


def of_file(path: Path, start: Initialisation | None, reading: Any, targets: str) -> tuple[World, Head]:
    """The world in one device's file (docs/tasks.md), in the order of its rows, and the head for it. With ``start`` inputs are
    standardised as in its run, and so are values; classes may be others than the run's.

    Raises DataError if the file does not fit.
    """
    wanted = targets_for(start.network.loss) if start else targets or "classes"
    held = read_device(path, replace(reading, targets=wanted), start.standard.names if start else ())
    x = checked_inputs(path, held.x, "mean" if start else "refuse")
    if start and x.shape[1] != start.network.inputs:
        raise ConfigError(f"{path}: x has {x.shape[1]} inputs a row, and the run takes {start.network.inputs}. Give the same.")
    table = start.standard.apply(x) if start else np.ascontiguousarray(x, np.float32)
    refuse_non_finite(path, "x, once standardised,", table, "Scale that input down")
    if wanted == "classes":
        labels, _ = labels_in(path, held.y, "classes")
        assert labels is not None
        return World(table, np.array(labels.tolist(), object)), Head.classes
    values = checked_values(path, held.y)
    if start is None:
        return World(table, values.astype(np.float32)), Head.values
    return World(table, start.standard.targets(values), unit=start.standard.target_scale), Head.values


def head_of(task: Task) -> Head:
    """The head that learns the task's loss."""
    return HEADS[task.loss if task.loss is not Loss.prototypes else Loss.softmax_cross_entropy]
