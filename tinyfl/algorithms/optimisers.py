"""Optimisers of the server: how theta follows a direction d, the mean change of the devices or minus their mean gradient.

    sgd        theta <- theta + step * d
    momentum   v <- 0.9 v + d;   theta <- theta + step * v                        (Hsu et al. 2019; arXiv:1909.06335)
    adam       m <- 0.9 m + 0.1 d;   s <- 0.999 s + 0.001 d^2                     (Kingma, Ba 2015; arXiv:1412.6980)
               theta <- theta + step * m' / (sqrt(s') + 1e-8)                     m', s': without the bias of a start from 0

Those of Reddi et al. 2021 (arXiv:2003.00295), whose Adam has another epsilon. Each maps what it remembers, arrays by name, and
the direction, float64 (parameters,), to the change of theta and what it remembers then.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Memory = Mapping[str, NDArray[Any]]
Optimiser = Callable[[Memory, float, F64], tuple[F64, Memory]]

MOMENTUM = 0.9
DECAYS = np.array([0.9, 0.999])
"""Adam's beta_1 and beta_2."""
EPSILON = 1e-8


def sgd(memory: Memory, step: float, direction: F64) -> tuple[F64, Memory]:
    return step * direction, {}


def momentum(memory: Memory, step: float, direction: F64) -> tuple[F64, Memory]:
    velocity = MOMENTUM * memory.get("velocity", 0.0) + direction
    return step * velocity, {"velocity": velocity}


def adam(memory: Memory, step: float, direction: F64) -> tuple[F64, Memory]:
    (b1, b2), (c1, c2) = DECAYS, 1 - DECAYS
    mean = b1 * memory.get("adam_mean", 0.0) + c1 * direction
    square = b2 * memory.get("adam_square", 0.0) + c2 * direction * direction
    seen = DECAYS * memory.get("adam_seen", 0.0) + (1 - DECAYS)  # 1 - beta^t; a power differs from machine to machine
    change = step * (mean / seen[0]) / (np.sqrt(square / seen[1]) + EPSILON)
    return change, {"adam_mean": mean, "adam_square": square, "adam_seen": seen}


OPTIMISERS: Mapping[str, Optimiser] = {"sgd": sgd, "momentum": momentum, "adam": adam}
