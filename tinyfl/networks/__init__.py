"""Networks: layers with an input shape and a loss, and the named networks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from tinyfl import algorithms, core
from tinyfl.algorithms import Inner, Phase
from tinyfl.core import F32
from tinyfl.errors import ConfigError
from tinyfl.errors.words import MAX_NAME_CHARS, guess, plain
from tinyfl.networks import layers, plan
from tinyfl.networks.layers import Activation, Conv, Dense, DepthwiseConv, Kind, Layer, Loss, Placed, Pool, Shape

SINGLE, BATCHES = Inner(Phase(1, 0.0)), Inner(Phase(2, 0.0, batch=2))
"""Inner loops to measure memory with: steps on single samples, and on mini-batches of any size."""


@dataclass(frozen=True, eq=False)  # arrays do not compare as a whole
class Preparation:
    """What happens to an embedding before it is added to a class or compared with the means (firmware/core/means.h): ``centre``
    float32 (outputs,) is subtracted, None for nothing, and the rest is scaled to norm 1 if ``normalised``. If ``augmented``, an
    image of a support set counts along with the same image moved (tinyfl.tasks.augmented)."""

    centre: F32 | None = None
    normalised: bool = False
    augmented: bool = False

    def arrays(self) -> dict[str, Any]:
        """For a file; nothing where embeddings are used as they are."""
        centre = {} if self.centre is None else {"centre": self.centre}
        return centre | {name: True for name in ("normalised", "augmented") if getattr(self, name)}


@dataclass(frozen=True)
class Network:
    """Layers from an input of ``shape`` to a loss. The weights are one flat float32 array, theta: for each layer the kernel in
    Keras's layout, then the bias (firmware/SPEC.md, theta). Embeddings are ``prepared`` for class means."""

    name: str
    shape: Shape
    layers: tuple[Layer, ...]
    loss: Loss
    prepared: Preparation = field(default=Preparation(), compare=False)

    @property
    def inputs(self) -> int:
        """Values of one input."""
        return prod(self.shape)

    @property
    def outputs(self) -> int:
        return prod(self.placed[-1].output)

    @property
    def classifies(self) -> bool:
        """Whether it tells classes apart, by its outputs or by class means, so that accuracy is defined."""
        return self.loss in (Loss.softmax_cross_entropy, Loss.prototypes)

    @property
    def embeds(self) -> bool:
        """Whether the outputs are an embedding: a device then adapts by storing class means, without backpropagation."""
        return self.loss is Loss.prototypes

    @cached_property
    def placed(self) -> tuple[Placed, ...]:
        """The layers with their input shapes.

        Raises ConfigError for a layer that does not fit its input.
        """
        try:
            return tuple(layers.place(self.shape, self.layers))
        except ValueError as error:
            raise ConfigError(f"network {self.name}: {error}. Give fewer strides, or a smaller kernel.") from error

    @cached_property
    def plan(self) -> core.Plan:
        """The plan for the core.

        Raises ConfigError if the core refuses it.
        """
        try:
            return core.Plan(plan.encode(self.placed, self.loss))
        except ValueError as error:
            raise ConfigError(
                f"network {self.name} with {self.inputs:,} inputs: {error}. A network has 1 to 64 layers, dense layers of up "
                "to 65,535 inputs, kernels up to 255 wide, and at most 16,777,216 weights and as many values between layers."
            ) from error

    @property
    def weighted(self) -> int:
        """Number of layers with weights."""
        return sum(layer.weights > 0 for layer in self.placed)

    @property
    def multiplies(self) -> int:
        """Multiplications of one forward pass."""
        return sum(layer.multiplies for layer in self.placed)

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return self.plan.weights

    @cached_property
    def weighted_layers(self) -> tuple[algorithms.Layer, ...]:
        """The layers with weights, as algorithms see them: named by kind and number, such as dense-0."""
        found, at = list[algorithms.Layer](), 0
        for index, layer in enumerate(self.placed):
            if layer.weights:
                found.append(algorithms.Layer(f"{layer.kind.name}-{len(found)}", index, slice(at, at + layer.weights)))
                at += layer.weights
        return tuple(found)

    def arrays(self, layers: int = algorithms.ALL) -> tuple[int, ...]:
        """The sizes of the kernel and the bias of each layer with weights in the mask ``layers``, in order."""
        chosen = [layer for index, layer in enumerate(self.placed) if layers >> index & 1 and layer.weights]
        return tuple(size for layer in chosen for size in (layer.weights - layer.channels, layer.channels))

    def ram_bytes(self, inner: Inner = SINGLE) -> int:
        """RAM that one device needs for the inner loop ``inner``: weights, the learner's memory and, where it needs them, a
        gradient, a copy of theta, and two blocks of what it keeps."""
        return self.plan.ram_bytes(inner.to_bytes())

    def arena_bytes(self, inner: Inner = SINGLE) -> int:
        """Bytes of a board's arena for the inner loop ``inner``: the plan, one sample, and ``ram_bytes``."""
        return len(self.plan.bytes) + self.ram_bytes(inner) + 4 * (self.inputs + self.outputs)

    def initial_weights(self, seed: int) -> F32:
        """A random theta, float32 (parameters,): kernel and bias of dense layers uniform in +-1/sqrt(fan-in), the kernel of
        convolutions in +-sqrt(6/fan-in) (He et al. 2015, arXiv:1502.01852, section 2.2), with a bias of 0."""
        parts = [np.empty(0, np.float32)]
        for number, layer in enumerate(self.placed):
            words = core.random(seed, core.Stream.weights, np.array([number], np.uint32), words=layer.weights)[0]
            limit = np.float32(np.sqrt((1 if layer.kind is Kind.dense else 6) / layer.fan_in))
            values = limit * (np.float32(2) * core.uniform(words) - np.float32(1))
            if layer.kind is not Kind.dense and layer.weights:
                values[-layer.channels :] = 0
            parts.append(values)
        return np.concatenate(parts)

    def split(self, theta: F32) -> Iterator[tuple[F32, F32]]:
        """(kernel, bias) of each layer with weights, in order, in Keras's shapes."""
        at = 0
        for layer in self.placed:
            if layer.weights:
                kernel = theta[at : at + layer.weights - layer.channels].reshape(layer.kernel_shape)
                yield kernel, theta[at + kernel.size : at + layer.weights]
                at += layer.weights

    def headless(self) -> "Network":
        """This network without its last layer, as an embedding. Its theta is the beginning of this one's.

        Raises ConfigError if there is no other layer.
        """
        if len(self.layers) < 2:
            raise ConfigError(f"network {self.name} has no layer for an embedding. Give it a hidden layer, as in mlp-64.")
        return replace(self, layers=self.layers[:-1], loss=Loss.prototypes)

    def frozen(self, count: int) -> "Network":
        """This network with its first ``count`` layers with weights frozen.

        Raises ConfigError if it has fewer.
        """
        try:
            return replace(self, layers=layers.frozen(self.layers, count))
        except ValueError as error:
            raise ConfigError(f"network {self.name}: {error}. Give --freeze 0 to {self.weighted}.") from error


def from_plan(name: str, shape: Shape, bytes: bytes) -> Network:
    """Decodes the network with the plan ``bytes``.

    Raises ConfigError for bytes that are not a plan for an input of ``shape``.
    """
    try:
        core.Plan(bytes)  # rejects bytes that decode cannot handle
        placed, loss = plan.decode(bytes)
        result = Network(plain(name, MAX_NAME_CHARS), shape, tuple(map(layers.layer_of, placed)), loss)
        if result.plan.bytes != bytes:
            raise ValueError(f"its plan is not for an input of {shape}")
    except ValueError as error:
        raise ConfigError(f"network {plain(name)}: {error}. Take a file written by tinyfl.") from error
    return result


KERAS = (".keras", ".h5")
"""Extensions of Keras models' files."""

WEIGHTS = ".npz"
"""Extension of weights' files written by tinyfl."""

INITIALISATION = "initialisation.npz"
"""The weights' file in a run's directory."""


def is_file(name: str) -> bool:
    """Whether a network's name is a file: a Keras model, or weights written by tinyfl."""
    return name.endswith((*KERAS, WEIGHTS))


def located(name: str) -> str:
    """A network's name; for a run's directory the weights' file in it."""
    try:
        of_run = name != "" and not is_named(name) and Path(name).is_dir()
    except OSError:  # too long for a path
        return name
    return str(Path(name, INITIALISATION)) if of_run else name


def starts_from(name: str) -> str:
    """A name for the initial weights of a run with this network."""
    return "earlier run" if name.endswith(WEIGHTS) else "your weights" if is_file(name) else "random start"


FAMILIES = {
    "mlp": "dense layers, as in mlp-64-64",
    "conv": "3 x 3 convolutions that halve rows and columns, as in conv-16-32-32-32",
    "dsconv": "one such convolution, then depthwise separable ones, as in dsconv-16-32-64",
}


REFERENCE = {
    "conv-omniglot": ("conv-16-32-32-32-leaky-relu", (28, 28, 1), 5),
    "dsconv-keywords": ("dsconv-16-32-64-64-leaky-relu", (49, 40, 1), 10),
}
"""Networks for characters and keywords that learn within 256 KiB of RAM: name, input shape, outputs."""


def reference(name: str, loss: Loss = Loss.softmax_cross_entropy) -> Network:
    """A network of REFERENCE, as a classifier or with another ``loss``.

    Raises ConfigError for an unknown name.
    """
    if name not in REFERENCE:
        raise ConfigError(f"no reference network is called {name!r}. There are {', '.join(REFERENCE)}.")
    full_name, shape, outputs = REFERENCE[name]
    return network(full_name, shape, outputs, loss, Activation.leaky_relu)


def is_named(name: str) -> bool:
    """Whether ``name`` is a reference network, or begins with a family's name."""
    return name in REFERENCE or name.split("-")[0] in FAMILIES


def _parsed(name: str) -> re.Match[str]:
    """The family, the widths and the activation in a network's name.

    Raises ConfigError for an unknown name.
    """
    choices = "|".join(a.name for a in Activation).replace("_", "-")
    match = re.fullmatch(rf"({'|'.join(FAMILIES)})((?:-\d{{1,5}})*)(?:-({choices}))?", name)
    if match:
        return match
    first, dash, rest = name.partition("-")
    alike = guess(name, REFERENCE if first in FAMILIES else [*REFERENCE, *(f"{family}{dash}{rest}" for family in FAMILIES)])
    raise ConfigError(
        f"no network is called {name!r}. {alike}Say mlp-64-64 for two hidden layers of 64, mlp-64-64-tanh to choose their "
        f"activation ({choices.replace('|', ', ')}), or another family: "
        + "; ".join(f"{family}: {what}" for family, what in FAMILIES.items())
        + "; or give a .keras or .h5 file, or a finished run."
    )


def demand_named(name: str) -> None:
    """Raises ConfigError for a name that is no network's."""
    if name not in REFERENCE:
        _parsed(name)


def network(name: str, shape: Shape, outputs: int, loss: Loss, activation: Activation) -> Network:
    """The network ``name``: ``mlp-64-64`` has two hidden layers of 64; ``mlp-64-64-tanh`` also gives their activation, else it
    is ``activation``. The output layer is dense and linear; with ``loss`` prototypes there is none, and the last hidden layer
    is the embedding, of at least as many numbers as ``outputs``, the classes. For the others see FAMILIES and REFERENCE.

    Raises ConfigError for an unknown name, or a network that the core cannot run.
    """
    name = REFERENCE[name][0] if name in REFERENCE else name
    match = _parsed(name)
    family, widths = match[1], [int(width) for width in match[2].split("-")[1:]]
    if family != "mlp" and len(shape) != 3:
        raise ConfigError(f"network {name} needs rows and columns, but the inputs are {shape[0]:,} in a row. Take mlp-64.")
    chosen = Activation[match[3].replace("-", "_")] if match[3] else activation
    full_name = "-".join([family, *map(str, widths), *([chosen.name.replace("_", "-")] if widths else [])])
    hidden = tuple(_FAMILY[family](widths, chosen))
    head = () if loss is Loss.prototypes else (Dense(outputs, Activation.identity),)
    if not widths and not head:
        raise ConfigError(f"network {name} has no layer for an embedding. Give it widths, as in {family}-64.")
    result = Network(full_name, shape, (*hidden, *head), loss)
    result.plan  # noqa: B018 (raises if the core cannot run it)
    if result.outputs < outputs:
        raise ConfigError(
            f"network {name} gives embeddings of {result.outputs:,} numbers, and {outputs:,} classes need as many. Give it a "
            "wider last layer."
        )
    return result


def _dense(widths: list[int], activation: Activation) -> Iterator[Layer]:
    yield from (Dense(width, activation) for width in widths)


def _conv(widths: list[int], activation: Activation) -> Iterator[Layer]:
    yield from (Conv(width, stride=(2, 2), activation=activation) for width in widths)


def _separable(widths: list[int], activation: Activation) -> Iterator[Layer]:
    yield from _conv(widths[:1], activation)
    for width in widths[1:]:
        yield DepthwiseConv(stride=(2, 2), activation=activation)
        yield Conv(width, kernel=(1, 1), activation=activation)
    yield Pool(average=True, size=None)


_FAMILY = {"mlp": _dense, "conv": _conv, "dsconv": _separable}
