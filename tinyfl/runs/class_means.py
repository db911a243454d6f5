"""The class means of one new device, by a saved initialisation that gives embeddings: computed as on a board."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyfl import core
from tinyfl.core import F32, FASTEST, I32, Engine, TableSource
from tinyfl.networks import SINGLE, Network, Preparation
from tinyfl.system.files import npz, write_whole
from tinyfl.tasks import Task, numbers
from tinyfl.tasks.augmented import shots_of_means

LEAST_SIDE = 24
"""Rows and columns from which on a pixel is little: images of 8 x 8 are told apart worse when moved."""

BASE_DEVICES, BASE_SAMPLES = 250, 20
"""Training devices, and samples of each, whose embeddings' mean is the centre."""


def class_means(network: Network, theta: F32, support: TableSource, classes: int) -> tuple[F32, I32]:
    """The mean embedding of the samples of each of ``classes`` in a device's ``support``, float32 (classes, size), and their
    numbers, int32 (classes,); a mean is 0 where there are none."""
    how = network.prepared
    support = shots_of_means(support, how, network.shape)
    assert support.labels is not None
    shots = core.embeddings(network.plan, theta, support)
    found = core.class_means(
        shots, support.labels, shots, support.labels,
        places=classes, centre=how.centre, normalised=how.normalised, means=True,
    )  # fmt: skip
    assert found.means is not None
    assert found.counts is not None
    return found.means[0], found.counts[0]


def preparation(
    algorithm: Any, task: Task, network: Network, theta: F32, devices: int, engine: Engine = FASTEST
) -> Preparation:
    """What ``algorithm`` does to the embeddings of ``network``: it may be ``normalised``, ``augmented``, where samples are
    images of some size, and ``centred``, by the mean of the embeddings of samples of some of the training ``devices``."""
    centre = None
    if getattr(algorithm, "centred", False):
        source = task.stream(numbers(0, min(BASE_DEVICES, devices)), 0, BASE_SAMPLES)
        assert isinstance(source, TableSource)
        unlabelled = replace(source, labels=np.zeros_like(source.rows))
        embedded = core.embeddings(network.plan, theta, unlabelled, engine=engine)
        centre = embedded.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    images = len(network.shape) == 3 and min(network.shape[:2]) >= LEAST_SIDE
    return Preparation(centre, getattr(algorithm, "normalised", False), images and getattr(algorithm, "augmented", False))


def save(path: Path, arrays: dict[str, Any], means: F32, counts: I32, names: Any) -> None:
    """Writes a device's class means to ``path``, with the ``arrays`` of the initialisation that made them: ``means``,
    ``counts``, and the classes, ``means_of``."""
    write_whole(path, npz(**arrays, means=means, counts=counts, means_of=names))


def ram_bytes(network: Network, classes: int) -> int:
    """RAM of a device that embeds samples and keeps the sums and counts of ``classes``."""
    return network.ram_bytes(SINGLE) + 4 * (network.outputs + 1) * classes
