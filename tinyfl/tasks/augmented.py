"""Augmented shots: images of a support set, also moved a little (Bendou et al. 2022, arXiv:2201.09699, section 3: the mean of
an image's crops instead of the image)."""

import numpy as np

from tinyfl.core import TableSource
from tinyfl.networks import Preparation
from tinyfl.networks.layers import Shape

MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
"""Rows and columns by which an image is moved: in its place, and by one pixel to each side."""


def shots_of_means(support: TableSource, how: Preparation, shape: Shape) -> TableSource:
    """The samples that give the class means of devices with these support sets: with moved images where embeddings are
    prepared so."""
    return augmented(support, shape) if how.augmented else support


def augmented(source: TableSource, shape: Shape) -> TableSource:
    """The samples of ``source``, images of ``shape`` (height, width, channels), each as often as there are MOVES, moved by one
    after another: (devices, moves x samples). What comes in at an edge is the edge's pixel."""
    height, width, _ = shape
    rows, at = np.unique(source.rows, return_inverse=True)
    padded = np.pad(source.table[rows].reshape(-1, *shape), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    moved = [padded[:, 1 - down : 1 - down + height, 1 - right : 1 - right + width] for down, right in MOVES]
    table = np.stack(moved, axis=1).reshape(len(rows) * len(MOVES), -1)
    every = len(MOVES) * at.reshape(source.rows.shape)[:, :, None] + np.arange(len(MOVES))
    labels = None if source.labels is None else np.repeat(source.labels, len(MOVES), axis=1)
    return TableSource(table, every.reshape(len(source.rows), -1).astype(np.int32), labels=labels, gain=source.gain)
