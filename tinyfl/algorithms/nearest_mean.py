"""Nearest class mean on the raw inputs: the floor that a learned initialisation has to beat.

A query sample gets the class with the nearest mean of support samples (Euclidean). Needs no network and no training; with a
frozen network's features instead of the inputs it is the good-embedding baseline (arXiv:2003.11539, section 4.4).
"""

import numpy as np

from tinyfl.core import F32, I32


def accuracy(support_x: F32, support_y: I32, query_x: F32, query_y: I32, classes: int) -> F32:
    """Accuracy of each device, float32 (devices,).

    support_x (devices, samples, inputs), support_y (devices, samples); query_x and query_y likewise. A class without support
    samples is never predicted.
    """
    one_hot = np.eye(classes, dtype=np.float32)[support_y]
    counts = one_hot.sum(axis=1)
    means = np.einsum("dsc,dsi->dci", one_hot, support_x) / np.maximum(counts, 1)[:, :, None]
    # ||q - m||^2 without ||q||^2, which is the same for every class
    distance = (means**2).sum(axis=2)[:, None, :] - 2 * np.einsum("dqi,dci->dqc", query_x, means)
    distance = np.where(counts[:, None, :] > 0, distance, np.inf)
    share: F32 = (distance.argmin(axis=2) == query_y).mean(axis=1, dtype=np.float32)
    return share
