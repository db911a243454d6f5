"""The class means of one new device, by a saved initialisation that gives embeddings: computed as on a board."""

from pathlib import Path
from typing import Any

import numpy as np

from tinyfl import core
from tinyfl.core import F32, I32, TableSource
from tinyfl.networks import SINGLE, Network
from tinyfl.system.files import npz, write_whole


def class_means(network: Network, theta: F32, support: TableSource, classes: int) -> tuple[F32, I32]:
    """The mean embedding of the samples of each of ``classes`` in a device's ``support``, float32 (classes, size), and their
    numbers, int32 (classes,); a mean is 0 where there are none. Bit for bit those of firmware/core/means.h."""
    assert support.labels is not None
    sums, counts = np.zeros((classes, network.outputs), np.float32), np.zeros(classes, np.int32)
    for embedding, label in zip(core.embeddings(network.plan, theta, support)[0], support.labels[0], strict=True):
        sums[label] += embedding
        counts[label] += 1
    return sums * (np.float32(1) / np.maximum(counts, 1).astype(np.float32))[:, None], counts


def save(path: Path, arrays: dict[str, Any], means: F32, counts: I32, names: Any) -> None:
    """Writes a device's class means to ``path``, with the ``arrays`` of the initialisation that made them: ``means``,
    ``counts``, and the classes, ``means_of``."""
    write_whole(path, npz(**arrays, means=means, counts=counts, means_of=names))


def ram_bytes(network: Network, classes: int) -> int:
    """RAM of a device that embeds samples and keeps the sums and counts of ``classes``."""
    return network.ram_bytes(SINGLE) + 4 * (network.outputs + 1) * classes
