"""What a device starts from: a run's network, frozen but for its last layer, which becomes the head."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyfl.core import F32
from tinyfl.errors import ConfigError
from tinyfl.networks import Network
from tinyfl.networks.layers import Activation, Dense, Loss
from tinyfl.online.sets import Head
from tinyfl.runs.adaptation import Initialisation

HEADS = {
    Loss.mean_squared_error: Head.values,
    Loss.softmax_cross_entropy: Head.classes,
    Loss.sigmoid_cross_entropy: Head.labels,
}


@dataclass(frozen=True, eq=False)  # arrays do not compare as a whole
class Start:
    """The frozen ``network`` with its ``theta``, None for none; the numbers of an input and of an embedding; and the head,
    float32 (size + 1, outputs), with the names of its classes. Without a head to start from it is None, and the device begins
    with zeros and no classes."""

    network: Network | None
    theta: F32
    inputs: int
    size: int
    kind: Head
    head: F32 | None
    names: tuple[Any, ...]


def of_nothing(inputs: int, kind: Head) -> Start:
    """No network: the head is over the inputs themselves."""
    return Start(None, np.empty(0, np.float32), inputs, inputs, kind, None, ())


def of_run(start: Initialisation) -> Start:
    """The network of a run without its last layer; whole if its outputs are embeddings, for a head of zeros.

    Raises ConfigError if the last layer is no dense one with the activation identity.
    """
    net, theta = start.network, start.theta
    if net.embeds:
        return Start(net, theta, net.inputs, net.outputs, Head.classes, None, ())
    last = net.layers[-1]
    if not isinstance(last, Dense) or last.activation is not Activation.identity:
        raise ConfigError(f"network {net.name} ends in {last}. Online learning needs a dense last layer, with identity.")
    names = tuple(start.standard.classes.tolist()) or tuple(range(net.outputs))
    size = (net.placed[-1].weights // net.outputs) - 1
    head = theta[len(theta) - (size + 1) * net.outputs :].reshape(size + 1, net.outputs)
    kind = HEADS[net.loss]
    if not any(layer.weights for layer in net.placed[:-1]):
        return Start(None, np.empty(0, np.float32), net.inputs, size, kind, head, names)
    frozen = replace(net, name=f"{net.name}, frozen", layers=net.layers[:-1], loss=Loss.prototypes)
    return Start(frozen, np.ascontiguousarray(theta[: len(theta) - head.size]), net.inputs, size, kind, head, names)
