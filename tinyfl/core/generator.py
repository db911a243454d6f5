"""The core's random generator and the sine task: pure functions of their arguments."""

import ctypes
from enum import IntEnum

import numpy as np

from tinyfl.core import binding
from tinyfl.core.arrays import F32, I32, U32, address, check_array
from tinyfl.core.binding import library


class Stream(IntEnum):
    """Streams of the random generator, by their use (firmware/core/tinyfl.h)."""

    weights = 0
    cohort = 1
    task = 2
    sample = 3
    support = 4
    query = 5
    readings = 6


def check_range(value: float, low: float, high: float, name: str) -> None:
    """Raises ValueError unless ``low`` <= ``value`` < ``high``."""
    if not low <= value < high:
        raise ValueError(f"{name} is {value}, not from {low} to below {high}")


def random(seed: int, stream: Stream, devices: U32, round: int | U32 = 0, *, words: int) -> U32:
    """Words of the core's generator, a pure function of its arguments: uint32 (devices, words). ``round`` is a number, or
    each device's own, uint32 (devices,)."""
    check_array(devices, np.uint32, (len(devices),), "devices")
    check_range(seed, 0, 1 << 64, "seed")
    if not isinstance(round, np.ndarray):
        check_range(round, 0, 1 << 32, "round")
    rounds: U32 = round if isinstance(round, np.ndarray) else np.full(len(devices), round, np.uint32)
    check_array(rounds, np.uint32, (len(devices),), "round")
    out = np.empty((len(devices), words), np.uint32)
    library().tinyfl_native_random(seed, int(stream), address(devices), address(rounds), len(devices), words, address(out))
    return out


def distinct(seed: int, stream: Stream, devices: U32, *, skip: int, available: int, picks: int) -> I32:
    """``picks`` distinct numbers below ``available`` for each device, in random order: int32 (devices, picks). They are those
    with the smallest words of the generator from word ``skip`` on, as by ``tinyfl.core.draws.distinct``.

    Raises ValueError for numbers that the core refuses.
    """
    check_array(devices, np.uint32, (len(devices),), "devices")
    check_range(seed, 0, 1 << 64, "seed")
    out = np.empty((len(devices), picks), np.int32)
    draw = binding.Draw(seed, int(stream), address(devices), len(devices), skip, available, picks, address(out))
    if library().tinyfl_native_distinct(ctypes.byref(draw)):
        raise ValueError(f"cannot draw {picks} of {available} numbers, after {skip} words")
    return out


def sine(seed: int, devices: U32, x: F32) -> F32:
    """The sine task's function of each device at its row of ``x``, float32 (devices, points): float32 (devices, points)."""
    check_array(devices, np.uint32, (len(devices),), "devices")
    check_array(x, np.float32, (len(devices), *x.shape[1:2]), "x")
    y = np.empty_like(x)
    library().tinyfl_native_sine(seed, address(devices), len(devices), address(x), x.shape[1], address(y))
    return y


def uniform(words: U32) -> F32:
    """Words as floats in [0, 1), from their upper 24 bits."""
    return (words >> 8).astype(np.float32) * np.float32(2**-24)
