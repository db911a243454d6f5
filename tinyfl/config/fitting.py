"""The settings of a run on the user's own data that nobody gave, chosen by the size of the data. bench/defaults.py compares
them with a search."""

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from typing import Any

from tinyfl.config import Config
from tinyfl.networks import Network
from tinyfl.networks.layers import Kind, Shape

PASSES, MANY = 10, 70
"""How often a run learns from each sample, on average; and with convolutions, which take longer to find what to look for."""

FEWEST, MOST = 200, 10_000
"""Rounds."""

STEEP = 6.0
"""A dense layer's step is stable while the rate times the squared norm of its input stays below a few units. Of standardised
inputs that norm is about their number."""

SMALL_IMAGE, IMAGE, SIDES = "conv-8-16", "dsconv-16-32-64-64", (8, 24)
"""The networks for images whose rows and columns are at least the first of SIDES, and at least the second."""


def network_name(config: Config, shape: Shape) -> str:
    """The config's network; where nobody gave one, one with convolutions for samples that are images by their ``shape``."""
    side = min(shape[:2]) if len(shape) == 3 else 0
    if "network" not in config.unsaid or side < SIDES[0]:
        return config.network
    return IMAGE if side >= SIDES[1] else SMALL_IMAGE


def fit(config: Config, net: Network, training_samples: int) -> Config:
    """``config`` with what nobody gave chosen for the network ``net`` and the number of ``training_samples``."""
    rate = min(config.rate, float(f"{STEEP / _widest(net):.1g}"))
    passes = MANY if any(layer.kind is Kind.conv for layer in net.placed) else PASSES * sqrt(config.rate / rate)
    rounds = min(max(int(passes * training_samples) // (config.samples * config.per_round), FEWEST), MOST)
    chosen: dict[str, Any] = {"network": net.name, "rounds": rounds, "rate": rate}
    return replace(config, **{name: chosen[name] for name in config.unsaid}, unsaid=())


def _widest(net: Network) -> int:
    """The inputs of the dense layer that has most."""
    return max((layer.fan_in for layer in net.placed if layer.kind is Kind.dense), default=1)


def words(fitted: Config, unsaid: Sequence[str]) -> list[str]:
    """What ``fit`` has chosen for the settings ``unsaid``, for people."""
    chosen = " ".join(f"--{name} {getattr(fitted, name)}" for name in unsaid)
    return [f"defaults that fit these data: {chosen}"] if chosen else []
