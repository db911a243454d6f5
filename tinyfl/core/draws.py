"""Drawing without replacement for many devices at once."""

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import I64, U32


def distinct(words: U32, available: NDArray[np.integer], count: int) -> I64:
    """``count`` distinct numbers below ``available[d]`` for each device d, in random order: int64 (devices, count).

    ``words`` uint32 (devices, at least the maximum of ``available``) are the randomness; on a tie the lower number comes first.
    """
    keys = words.astype(np.uint64)
    keys[np.arange(words.shape[1]) >= np.asarray(available)[:, None]] = 1 << 32
    return np.argsort(keys, axis=1, kind="stable")[:, :count]


def below(words: U32, bounds: NDArray[np.integer] | int) -> I64:
    """Words scaled to whole numbers below ``bounds`` (which broadcasts against ``words``): int64."""
    return (words.astype(np.uint64) * np.asarray(bounds, np.uint64) >> np.uint64(32)).astype(np.int64)


def shuffled(words: U32, available: NDArray[np.integer]) -> I64:
    """The numbers below ``available[d]`` in random order, from the start again after the last, for each device d: int64, as
    many as ``words`` uint32 (devices, numbers). Fisher's and Yates's swaps, of which the places are kept, not the array."""
    places, order = np.empty(words.shape, np.int64), np.empty(words.shape, np.int64)
    for i in range(words.shape[1]):
        turn = np.minimum(i, available - 1)
        places[:, i] = at = turn + below(words[:, i], available - turn)
        for j in reversed(range(i)):
            at = np.where(places[:, j] == at, j, at)
        order[:, i] = at
    turns: I64 = np.take_along_axis(order, np.arange(words.shape[1]) % available[:, None], axis=1)
    return turns
