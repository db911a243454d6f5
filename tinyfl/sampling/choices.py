"""Choosing among candidates by their embeddings, for many rounds at once.

``points`` are float64 (dimensions, rounds, candidates), NaN where nothing is known of a device: it is then infinitely far from
every other. A choice is ``size`` places among the candidates for each round, int64 (rounds, size). Of equally good candidates
the first is taken, so their order should be random.

Farthest and similar choose the same devices on any machine: sums run in a fixed order. dpp leaves its eigenvectors to LAPACK,
and where eigenvalues coincide, those of another library may differ.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import F64, I64, U32

NOISE = 0.01
"""Added to each candidate's similarity with itself, as if embeddings had noise, so that candidates with equal embeddings may be
in one cohort."""


def similar(points: F64, size: int, words: U32) -> I64:
    """The first candidate, and those nearest to it."""
    first = np.zeros(points.shape[1], np.int64)
    distance = _from(points, first)
    distance[:, 0] = -1
    return distance.argsort(axis=1, kind="stable")[:, :size]


def farthest(points: F64, size: int, words: U32) -> I64:
    """The first candidate, then each time the one whose nearest chosen one is farthest (Gonzalez 1985)."""
    rounds = np.arange(points.shape[1])
    chosen = np.zeros((len(rounds), size), np.int64)
    nearest = np.full(points.shape[1:], np.inf)
    for i in range(size):
        if i:
            chosen[:, i] = nearest.argmax(axis=1)
        nearest = np.minimum(nearest, _from(points, chosen[:, i]))
        nearest[rounds, chosen[:, i]] = -1
    return chosen


def _from(points: F64, at: I64) -> F64:
    """Squared distances (rounds, candidates) from the candidate ``at`` (rounds,) in each round."""
    one = np.take_along_axis(points, at[None, :, None], axis=2)
    distance: F64 = ((points - one) ** 2).sum(axis=0)  # over the first axis: one term after another
    distance[np.isnan(distance)] = np.inf
    return distance


def dpp(points: F64, size: int, words: U32) -> I64:
    """A sample of the determinantal point process of ``size`` candidates, exact, by eigendecomposition: a set's probability is
    proportional to the determinant of its similarities (Kulesza and Taskar 2012, arXiv:1207.6083, algorithms 1 and 8)."""
    with _blas().limit(limits=1, user_api="blas"):
        values, vectors = np.linalg.eigh(_similarities(points))
    uniform = words / 2.0**32
    candidates = points.shape[2]
    picked = _eigenvectors(np.maximum(values, 0), size, uniform[:, :candidates])
    return _of_projection(np.take_along_axis(vectors, picked[:, None, :], axis=2), uniform[:, candidates:])


@cache
def _blas() -> Any:
    """The threads of NumPy's library for matrices. Its results may depend on their number, and one is faster for small ones."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _similarities(points: F64) -> F64:
    """The kernel (rounds, candidates, candidates): Gaussian, as wide as the mean squared distance."""
    by_round = np.moveaxis(points, 0, 2)
    known: NDArray[np.bool_] = np.logical_not(np.isnan(by_round).any(axis=2))
    by_round = np.where(known[:, :, None], by_round, 0)
    squares = (by_round**2).sum(axis=2)
    distance = np.maximum(squares[:, :, None] + squares[:, None, :] - 2 * by_round @ by_round.transpose(0, 2, 1), 0)
    pairs = known[:, :, None] & known[:, None, :] & ~np.eye(points.shape[2], dtype=bool)
    width = np.where(pairs, distance, 0).sum(axis=(1, 2)) / np.maximum(pairs.sum(axis=(1, 2)), 1)
    kernel = np.where(pairs, np.exp(-distance / np.where(width > 0, width, 1)[:, None, None]), 0)
    each = np.arange(points.shape[2])
    kernel[:, each, each] = 1 + NOISE
    return kernel


def _eigenvectors(values: F64, size: int, uniform: F64) -> I64:
    """The places of ``size`` eigenvectors for each round, int64 (rounds, size): a set's probability is proportional to the
    product of its eigenvalues ``values`` (rounds, candidates)."""
    rounds, candidates = values.shape
    values = values / values.mean(axis=1, keepdims=True)
    # sums[n, l] is the elementary symmetric polynomial of degree l in the first n eigenvalues.
    sums = np.zeros((candidates + 1, size + 1, rounds))
    sums[:, 0] = 1
    for n in range(candidates):
        sums[n + 1, 1:] = sums[n, 1:] + values[:, n] * sums[n, :-1]
    picked, left, every = np.zeros((rounds, size), np.int64), np.full(rounds, size), np.arange(rounds)
    for n in reversed(range(candidates)):
        weight = values[:, n] * sums[n, np.maximum(left - 1, 0), every]
        taken = (left > 0) & (uniform[:, n] * sums[n + 1, left, every] < weight)
        left = left - taken
        picked[every[taken], left[taken]] = n
    return picked


def _of_projection(vectors: F64, uniform: F64) -> I64:
    """A sample of the process that projects on orthonormal ``vectors`` (rounds, candidates, size): one candidate after another,
    with a probability proportional to what of its row is orthogonal to the rows of those before."""
    rounds, _, size = vectors.shape
    every = np.arange(rounds)
    left = (vectors**2).sum(axis=2)
    chosen, bases = np.zeros((rounds, size), np.int64), np.zeros((rounds, size, size))
    for i in range(size):
        total = left.cumsum(axis=1)
        place = (total <= uniform[:, i, None] * total[:, -1:]).sum(axis=1)
        chosen[:, i] = place
        row = vectors[every, place]
        for j in range(i):
            row = row - (row * bases[:, j]).sum(axis=1, keepdims=True) * bases[:, j]
        bases[:, i] = row / np.sqrt((row**2).sum(axis=1, keepdims=True))
        left = np.maximum(left - np.einsum("rcs,rs->rc", vectors, bases[:, i]) ** 2, 0)
        left[every, place] = 0
    return chosen
