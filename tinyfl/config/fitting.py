"""The settings of a run on the user's own data that nobody gave, chosen by the size of the data. bench/defaults.py compares
them with a search."""

from dataclasses import replace
from math import sqrt
from typing import Any

from tinyfl.config import Config
from tinyfl.data import Size
from tinyfl.networks import Network, is_file, network
from tinyfl.networks.layers import Kind
from tinyfl.tasks import Task

PASSES, MANY = 10, 70
"""How often a run learns from each sample, on average; and with convolutions, which take longer to find what to look for."""

FEWEST, MOST = 200, 10_000
"""Rounds."""

STEEP = 6.0
"""A dense layer's step is stable while the rate times the squared norm of its input stays below a few units. Of standardised
inputs that norm is about their number."""

SMALL_IMAGE, IMAGE, SIDES = "conv-8-16", "dsconv-16-32-64-64", (8, 24)
"""The networks for images whose rows and columns are at least the first of SIDES, and at least the second."""


def fit(config: Config, task: Task, size: Size) -> Config:
    """``config`` with what nobody gave chosen for a task whose training data have this ``size``."""
    if not config.unsaid:
        return config
    name, rate = config.network, config.rate
    side = min(size.shape[:2]) if len(size.shape) == 3 else 0
    if "network" in config.unsaid and side >= SIDES[0]:
        name = IMAGE if side >= SIDES[1] else SMALL_IMAGE
    passes: float = PASSES
    if not is_file(name):
        net = network(name, task.shape, task.outputs, task.loss, task.activation)
        rate = min(rate, float(f"{STEEP / _widest(net):.1g}"))
        passes = MANY if any(layer.kind is Kind.conv for layer in net.placed) else PASSES * sqrt(config.rate / rate)
    rounds = min(max(int(passes * size.samples) // (config.samples * config.cohort), FEWEST), MOST)
    chosen: dict[str, Any] = {"network": name, "rounds": rounds, "rate": rate}
    return replace(config, **{name: chosen[name] for name in config.unsaid}, unsaid=())


def _widest(net: Network) -> int:
    """The inputs of the dense layer that has most."""
    return max(layer.fan_in for layer in net.placed if layer.kind is Kind.dense)


def words(config: Config, fitted: Config) -> list[str]:
    """What ``fit`` has chosen, for people."""
    if fitted.unsaid or not config.unsaid:
        return []
    chosen = " ".join(f"--{name} {getattr(fitted, name)}" for name in config.unsaid)
    return [f"defaults that fit these data: {chosen}"]
