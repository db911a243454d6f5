"""The settings of a run on the user's own data that nobody gave, chosen by the size of the data. bench/defaults.py compares
them with a search."""

from dataclasses import replace
from math import prod
from typing import Any

from tinyfl.config import Config
from tinyfl.data import Size

PASSES, MANY = 10, 70
"""How often a run learns from each sample, on average; and with convolutions, which take longer to find what to look for."""

FEWEST, MOST = 200, 10_000
"""Rounds."""

STEEP = 4.0
"""A dense layer's step is stable while the rate times the squared norm of its input stays below a few units. Once inputs are
standardised, that norm is about their number."""

IMAGE = "conv-8-16"
"""The network for images of at least SIDE rows and columns."""

SIDE = 8


def fit(config: Config, size: Size) -> Config:
    """``config`` with what nobody gave chosen for data of this ``size``."""
    network, rate = config.network, config.rate
    if "network" in config.unsaid and len(size.shape) == 3 and min(size.shape[:2]) >= SIDE:
        network = IMAGE
    passes = MANY
    if network.split("-")[0] not in ("conv", "dsconv"):
        passes, rate = PASSES, min(rate, float(f"{STEEP / prod(size.shape):.1g}"))
    rounds = min(max(passes * size.samples // (config.samples * config.cohort), FEWEST), MOST)
    chosen: dict[str, Any] = {"network": network, "rounds": rounds, "rate": rate}
    return replace(config, **{name: chosen[name] for name in config.unsaid}, unsaid=())


def words(config: Config, fitted: Config) -> list[str]:
    """What ``fit`` has chosen, for people."""
    if fitted.unsaid or not config.unsaid:
        return []
    chosen = " ".join(f"--{name} {getattr(fitted, name)}" for name in config.unsaid)
    return [f"defaults that fit these data: {chosen}"]
