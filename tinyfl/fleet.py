"""The Fleet seam: devices that run rounds, wherever they are."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tinyfl import core
from tinyfl.algorithms import Inner, Updates
from tinyfl.core import F32, I32, U32, Stream
from tinyfl.errors import ConfigError
from tinyfl.tasks.draws import below


@dataclass(frozen=True)
class Phis:
    """Updates kept apart: phi float32 (devices, parameters), and each device's mean loss float32 and code int32."""

    phi: F32
    loss: F32
    code: I32


class Fleet(Protocol):
    """Devices 0 to ``size`` - 1."""

    size: int

    def run(self, cohort: U32, round: int, theta: F32, inner: Inner) -> Updates:
        """One round on the devices ``cohort``, summed exactly. Devices that fail are left out and counted."""

    def run_each(self, cohort: U32, round: int, theta: F32, inner: Inner) -> Phis:
        """The same with each device's update kept apart."""


def left_out(codes: I32) -> Mapping[str, int]:
    """How many devices failed, by reason."""
    if not codes.any():
        return {}
    return dict(Counter(core.Code(code).name for code in codes[codes != core.Code.ok].tolist()))


def draw_cohort(seed: int, round: int, size: int, fleet_size: int) -> U32:
    """The devices of a round: the first ``size`` different ones that the generator names, ascending, uint32 (size,).

    A function of its arguments alone, so gateways that never speak to each other draw the same cohort.
    Raises ConfigError if the fleet has fewer devices.
    """
    if size > core.MAX_SUMMED:
        raise ConfigError(f"a cohort of {size:,}: exact sums hold {core.MAX_SUMMED:,} devices. Give a smaller --cohort.")
    if not 0 < size <= fleet_size:
        raise ConfigError(f"a cohort of {size:,} out of {fleet_size:,} devices. Give a --cohort of 1 to {fleet_size:,}.")
    if size == fleet_size:
        return np.arange(fleet_size, dtype=np.uint32)
    draws = size
    while True:
        words = core.random(seed, Stream.cohort, np.zeros(1, np.uint32), round, words=draws)[0]
        devices, first = np.unique(below(words, fleet_size), return_index=True)
        if len(devices) >= size:
            return np.sort(devices[np.argsort(first)[:size]]).astype(np.uint32)
        draws *= 2
