"""The heads of many devices made into one, by the names of their classes."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from tinyfl.core import F32
from tinyfl.errors import ConfigError


@dataclass(frozen=True, eq=False)  # arrays do not compare as a whole
class NamedHead:
    """A device's head, float32 (size + 1, outputs), and the name of each output, or for values its number: all that leaves a
    device for an average. ``places`` is the most outputs that it has room for."""

    weights: F32
    names: tuple[Hashable, ...]
    places: int


def averaged(heads: Sequence[NamedHead]) -> list[NamedHead]:
    """For each device its head after an average: the column of each class is the mean over the devices that have the class.
    Its own classes stay first and in their order; those of others follow, in the order of devices, where it has places. Sums
    are in float64, in the order of devices.

    Raises ConfigError if embeddings have different sizes.
    """
    if len({len(head.weights) for head in heads}) > 1:
        sizes = ", ".join(str(len(head.weights) - 1) for head in heads)
        raise ConfigError(f"the heads are over embeddings of {sizes} numbers. Average devices of one network only.")
    columns: dict[Hashable, list[F32]] = {}
    for head in heads:
        for name, column in zip(head.names, head.weights.T, strict=True):
            columns.setdefault(name, []).append(column)
    mean = {name: _mean(found) for name, found in columns.items()}
    return [_own(head, mean) for head in heads]


def _mean(columns: Sequence[F32]) -> F32:
    return np.asarray(np.mean(np.stack(columns), axis=0, dtype=np.float64), np.float32)


def _own(head: NamedHead, mean: dict[Hashable, F32]) -> NamedHead:
    names = (*head.names, *(name for name in mean if name not in head.names))[: max(head.places, len(head.names))]
    return NamedHead(np.stack([mean[name] for name in names], axis=1), names, head.places)
