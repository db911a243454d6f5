"""What a network is: plain data, compiled into the core's plan (firmware/core/tinyfl.h)."""

import re
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np

from tinyfl import core
from tinyfl.core import F32
from tinyfl.errors import ConfigError


class Activation(IntEnum):
    """The core's activations, by its numbers."""

    identity = 0
    relu = 1
    leaky_relu = 2
    tanh = 3
    sigmoid = 4


class Loss(IntEnum):
    """The core's losses, by its numbers."""

    mean_squared_error = 0
    softmax_cross_entropy = 1


@dataclass(frozen=True)
class Dense:
    """A dense layer of ``units`` outputs; one that does not learn is frozen."""

    units: int
    activation: Activation = Activation.relu
    learns: bool = True


@dataclass(frozen=True)
class Network:
    """Dense layers from ``inputs`` to a loss. Its weights are one flat float32 array, theta: per layer the kernel
    (inputs, outputs), then the bias (firmware/SPEC.md, theta)."""

    name: str
    inputs: int
    layers: tuple[Dense, ...]
    loss: Loss

    @property
    def outputs(self) -> int:
        return self.layers[-1].units

    @property
    def classifies(self) -> bool:
        """Whether outputs are classes, so that there is an accuracy beside the loss."""
        return self.loss is Loss.softmax_cross_entropy

    @cached_property
    def plan(self) -> core.Plan:
        """The plan for the core.

        Raises ConfigError if the core refuses it.
        """
        widths = [self.inputs, *(layer.units for layer in self.layers)]
        rows = [
            (fan_in, layer.units, int(layer.activation), layer.learns)
            for fan_in, layer in zip(widths, self.layers, strict=False)
        ]
        try:
            return core.Plan(rows, int(self.loss))
        except ValueError as error:
            raise ConfigError(
                f"network {self.name} with {self.inputs} inputs: {error}. "
                "A network has 1 to 64 layers, widths of 1 to 65,535 and at most 16,777,216 weights."
            ) from error

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return self.plan.weights

    def ram_bytes(self, batch: int = 1) -> int:
        """RAM that one device needs to learn: weights, activations, two delta buffers and, if batch > 1, a gradient."""
        return self.plan.ram_bytes(batch)

    def initial_weights(self, seed: int) -> F32:
        """A random theta: kernels and biases uniform in +-1/sqrt(fan-in), float32 (parameters,)."""
        parts = []
        fan_in = self.inputs
        for number, layer in enumerate(self.layers):
            count = (fan_in + 1) * layer.units
            words = core.random(seed, core.Stream.weights, np.array([number], np.uint32), words=count)[0]
            limit = np.float32(1 / np.sqrt(fan_in))
            parts.append(limit * (np.float32(2) * core.uniform(words) - np.float32(1)))
            fan_in = layer.units
        return np.concatenate(parts)


def network(name: str, inputs: int, outputs: int, loss: Loss, activation: Activation) -> Network:
    """The network called ``name``: ``mlp-64-64`` has two hidden layers of 64; ``mlp-64-64-tanh`` names their activation,
    which else is ``activation``. The output layer is linear.

    Raises ConfigError for a name that is none, or a network that the core cannot run.
    """
    choices = "|".join(a.name for a in Activation).replace("_", "-")
    match = re.fullmatch(rf"mlp((?:-\d{{1,5}})*)(?:-({choices}))?", name)
    if not match:
        raise ConfigError(
            f"no network is called {name!r}. Say mlp-64-64 for two hidden layers of 64, "
            f"mlp-64-64-tanh to choose their activation ({choices.replace('|', ', ')})."
        )
    hidden = [int(width) for width in match[1].split("-")[1:]]
    chosen = Activation[match[2].replace("-", "_")] if match[2] else activation
    full_name = "-".join(["mlp", *map(str, hidden), *([chosen.name.replace("_", "-")] if hidden else [])])
    layers = (*(Dense(width, chosen) for width in hidden), Dense(outputs, Activation.identity))
    made = Network(full_name, inputs, layers, loss)
    made.plan  # noqa: B018 (the core refuses here what it cannot run)
    return made
