"""Tasks: the sources of devices' samples. One file each; docs/your-own.md writes one.

A task gives device *i* its stream, support set and query set, reproducibly from (seed, i). It works on whole cohorts, without
Python code per device: as row numbers into a table, or as a formula computed by the core.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import I32, U32, Source, TableSource
from tinyfl.errors import ConfigError
from tinyfl.networks.layers import Activation, Loss, Shape
from tinyfl.registry.chosen import Chosen
from tinyfl.registry.tasks import FIRST_TEST_DEVICE, FIRST_VALIDATION_DEVICE
from tinyfl.tasks.standard import Standardisation

__all__ = [
    "FIRST_TEST_DEVICE",
    "FIRST_VALIDATION_DEVICE",
    "SPLITS",
    "ClassTask",
    "Episodes",
    "NamedTask",
    "RecordedTask",
    "SizedTask",
    "Split",
    "StretchTask",
    "Task",
    "load_task",
    "numbers",
    "targets_for",
    "with_streams",
]

Split = Literal["validation", "test"]
SPLITS: tuple[Split, ...] = ("validation", "test")


def targets_for(loss: Loss) -> str:
    """The kind of targets for a network with this ``loss``."""
    return "values" if loss is Loss.mean_squared_error else "classes"


@dataclass(frozen=True)
class Episodes:
    """Few-shot problems on unseen devices: row e of ``support`` and ``query`` is episode e, on device ``device[e]``
    (int32). Confidence intervals are over devices, not episodes."""

    support: TableSource
    query: TableSource
    device: I32

    def chosen(self, rows: NDArray[np.integer[Any]]) -> "Episodes":
        """A subset of the episodes."""

        def part(source: TableSource) -> TableSource:
            arrays: dict[str, Any] = {
                name: None if (array := getattr(source, name)) is None else np.ascontiguousarray(array[rows])
                for name in ("rows", "labels", "gain")
            }
            return replace(source, **arrays)

        return Episodes(part(self.support), part(self.query), self.device[rows])


class Task(Protocol):
    """A source of samples. A task may also have ``streams``: see StretchTask."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> Shape:
        """Shape of one input: (inputs,), or (height, width, channels)."""

    @property
    def outputs(self) -> int: ...

    @property
    def loss(self) -> Loss: ...

    @property
    def activation(self) -> Activation:
        """Default activation of hidden layers, if the network's name gives none."""

    @property
    def fleet_size(self) -> int | None:
        """Number of training devices in the data; None for any number."""

    @property
    def standardisation(self) -> Standardisation | None:
        """The standardisation of the user's data; None for tasks with their own data."""

    def stream(self, devices: U32, round: int, samples: int) -> Source:
        """The samples of each device in a round, drawn again in each round."""

    def episodes(self, split: Split, count: int, shots: int) -> Episodes:
        """Up to ``count`` few-shot problems on devices outside training.

        Raises DataError if a device has too few samples for the shots.
        """


@runtime_checkable
class StretchTask(Protocol):
    """A task that gives the samples of many rounds at once, so that a fleet runs them one after another."""

    def streams(self, devices: U32, rounds: U32, samples: int) -> Source:
        """Like ``stream``, with a round for each device: ``devices[i]`` in ``rounds[i]``, uint32."""


@runtime_checkable
class ClassTask(Protocol):
    """A task of classes, which also gives the streams of algorithms that train something else than the task's loss."""

    @property
    def classes(self) -> int:
        """The number of classes that training devices have in all."""

    @property
    def episode_ways(self) -> int:
        """The number of classes that a device has in the streams of these two tasks."""

    def in_turn(self) -> Task:
        """The same task, whose stream has one sample of each of a device's classes after another, as prototypes need it. Those
        of a class repeat only where the device has fewer.

        Raises ConfigError if the user's data have no classes; so does ``with_global_labels``.
        """

    def with_global_labels(self) -> Task:
        """The same task, whose stream has labels of all ``classes``, the same on every device."""


def with_streams(task: Task, trains: str) -> Task:
    """``task`` with the streams for an algorithm that ``trains`` this (tinyfl.algorithms.Algorithm).

    Raises ConfigError for prototypes or classes of a task without classes.
    """
    if trains not in ("prototypes", "classes"):
        return task
    if not isinstance(task, ClassTask):
        raise ConfigError(f"this algorithm tells classes apart, and task {task.name} has none. Take --algorithm tinyreptile.")
    return task.in_turn() if trains == "prototypes" else task.with_global_labels()


@runtime_checkable
class RecordedTask(Protocol):
    """A task whose devices' samples have an order of their own, in which they come one after another."""

    def recorded(self, split: Split, count: int, samples: int) -> Sequence[tuple[str, TableSource]]:
        """Up to ``count`` devices of a split (0: all), each with its name and its samples in their order, the first
        ``samples`` of them (0: all), as one row of a source."""


@runtime_checkable
class SizedTask(Protocol):
    """A task of the user's data, by whose size a run chooses what nobody gave (tinyfl.config.fitting)."""

    @property
    def training_samples(self) -> int:
        """The number of samples that the training devices hold."""


@runtime_checkable
class NamedTask(Protocol):
    """A task whose devices have names in the user's data."""

    def device_names(self, split: Split) -> Sequence[str]:
        """The names of a split's devices, in the order of its episodes' devices."""


def load_task(
    name: str | Chosen,
    data: Path | None,
    seed: int,
    standardise: bool = True,
    targets: str = "",
    standard: Standardisation | None = None,
    label_set: str = "coarse",
    image_side: int = 32,
    one_alphabet: bool = False,
) -> Task:
    """Loads the task ``name``, tinyfl's own or an installed package's, or one whose code is loaded; ``data``
    is the user's file, if the task needs one.

    Only for the task npz: whether to ``standardise`` inputs and values, the kind of ``targets``, and ``standard``, an earlier
    run's standardisation, which overrides both. Only for the task flair: ``label_set`` and ``image_side``, and only for
    omniglot: ``one_alphabet``, as in tinyfl.config.Config.
    Raises ConfigError for an unknown name or a missing file, DataError for a malformed one.
    """
    settings: dict[str, Any] = {
        "data": data,
        "seed": seed,
        "standardise": standardise,
        "targets": targets,
        "standard": standard,
    }
    settings |= {"label_set": label_set, "image_side": image_side, "one_alphabet": one_alphabet}
    task: Task = Chosen.read("task", name).complete().made(settings)
    return task


def numbers(first: int, count: int) -> U32:
    """Device numbers ``first``, ``first`` + 1, ..."""
    return np.arange(first, first + count, dtype=np.uint32)
