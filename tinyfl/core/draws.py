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
