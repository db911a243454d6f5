"""Tasks: where devices' samples come from. One file each; docs/your-own.md writes one.

A task gives device *i* its stream, support set and query set, reproducibly from (seed, i), for whole cohorts at once and
with no Python per device: as row numbers into a table, or as a formula that the core itself computes.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import I32, U32, Source, TableSource
from tinyfl.errors import ConfigError
from tinyfl.networks.layers import Activation, Loss, Shape
from tinyfl.tasks.standard import Standardisation

Split = Literal["validation", "test"]
SPLITS: tuple[Split, ...] = ("validation", "test")

TARGETS = ("", "classes", "values")
"""What a user's targets are; empty: what they look like."""


def targets_for(loss: Loss) -> str:
    """What targets are that a network learns by ``loss``."""
    return "values" if loss is Loss.mean_squared_error else "classes"


FIRST_VALIDATION_DEVICE = 1 << 30
FIRST_TEST_DEVICE = 1 << 31
"""Where the numbers of unseen devices start, for tasks that make devices out of numbers; a fleet stays below both."""


@dataclass(frozen=True)
class Episodes:
    """Few-shot problems on unseen devices: row e of ``support`` and ``query`` is episode e, on device ``device[e]``
    (int32). Devices, not episodes, are what an interval is taken over."""

    support: TableSource
    query: TableSource
    device: I32

    def chosen(self, rows: NDArray[np.integer[Any]]) -> "Episodes":
        """Some of the episodes."""

        def part(source: TableSource) -> TableSource:
            picked: dict[str, Any] = {
                name: None if (array := getattr(source, name)) is None else np.ascontiguousarray(array[rows])
                for name in ("rows", "labels", "gain")
            }
            return replace(source, **picked)

        return Episodes(part(self.support), part(self.query), self.device[rows])


class Task(Protocol):
    """Where samples come from."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> Shape:
        """Of one input: (inputs,), or (height, width, channels)."""

    @property
    def outputs(self) -> int: ...

    @property
    def loss(self) -> Loss: ...

    @property
    def activation(self) -> Activation:
        """Of hidden layers, where the network's name does not say."""

    @property
    def fleet_size(self) -> int | None:
        """How many devices train, where the data fix it; None: as many as asked for."""

    @property
    def standardisation(self) -> Standardisation | None:
        """What was done to the user's data; None for tasks that bring their own."""

    def stream(self, devices: U32, round: int, samples: int) -> Source:
        """The samples that each device takes in a round: fresh ones each round."""

    def episodes(self, split: Split, count: int, shots: int) -> Episodes:
        """Up to ``count`` few-shot problems on devices that do not train.

        Raises DataError where there are too few samples for the shots.
        """


def load_task(
    name: str,
    data: Path | None,
    seed: int,
    standardise: bool = True,
    targets: str = "",
    standard: Standardisation | None = None,
) -> Task:
    """The task called ``name``; ``data`` is the user's file, where it needs one.

    Of the task npz alone: whether to ``standardise`` inputs and values; what ``targets`` are; and ``standard``, which stands in
    for both where it is known what an earlier run did.
    Raises ConfigError for an unknown name or a missing file, DataError for a malformed one.
    """
    if name in ("npz", "omniglot") and data is None:
        what = "your x, y and device arrays" if name == "npz" else "omniglot28.npz"
        raise ConfigError(f"task {name} needs --data FILE: an .npz file with {what} (docs/tasks.md).")
    if name in ("sine", "digits") and data is not None:
        raise ConfigError(f"task {name} brings its own data: leave --data out, or say --task npz.")
    if name == "sine":
        from tinyfl.tasks.sine import Sine

        return Sine(seed)
    if name == "digits":
        from tinyfl.tasks.digits import digits

        return digits(seed)
    if name == "omniglot" and data is not None:
        from tinyfl.tasks.omniglot import omniglot

        return omniglot(data, seed)
    if name == "npz" and data is not None:
        from tinyfl.tasks.npz import Npz

        return Npz(data, seed, standardise, targets, standard)
    raise ConfigError(f"no task is called {name!r}. There are sine, digits, npz and omniglot.")


def numbers(first: int, count: int) -> U32:
    """Device numbers ``first``, ``first`` + 1, ..."""
    return np.arange(first, first + count, dtype=np.uint32)
