"""Reads a Keras model's layers as a chain, each combined with the activation and normalisation that follow it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from tinyfl.core import F32
from tinyfl.errors import ConfigError
from tinyfl.networks.layers import Activation, Conv, Dense, DepthwiseConv, Layer, Pool, Shape
from tinyfl.system.installed import tensorflow_part

LEAK = 0.1
"""The slope of the core's leaky relu below 0 (TINYFL_LEAK)."""

ACTIVATIONS = {"linear": Activation.identity, **{a.name: a for a in Activation if a is not Activation.identity}}
_ONLY_TRAINS = {"Dropout", "SpatialDropout2D", "GaussianDropout", "GaussianNoise"}
_RESHAPES = {"Flatten", "Reshape"}
_INSTEAD = {
    "Conv1D": "Reshape the input to (steps, 1, channels) and take Conv2D with a kernel of (k, 1)",
    "MaxPooling1D": "Reshape the input to (steps, 1, channels) and take MaxPooling2D with a window of (k, 1)",
    "AveragePooling1D": "Reshape the input to (steps, 1, channels) and take AveragePooling2D with a window of (k, 1)",
    "ZeroPadding2D": "Take padding='same' in the layer after it",
    "Rescaling": "Scale the data before the model sees them",
    "Normalization": "Leave it out, and give --standardise, with which the task npz does the same to the data",
    "PReLU": "Take LeakyReLU(negative_slope=0.1)",
    "ELU": "Take LeakyReLU(negative_slope=0.1), or tanh",
    "LayerNormalization": "Take BatchNormalization right after a layer, before its activation: it is folded into the weights",
    "Add": "Take a plain chain of layers without shortcuts",
    "Concatenate": "Take a plain chain of layers without branches",
}
KNOWN = (
    "Dense, Conv2D, DepthwiseConv2D, SeparableConv2D, MaxPooling2D, AveragePooling2D, GlobalMaxPooling2D, "
    "GlobalAveragePooling2D, Flatten, Reshape, BatchNormalization, Activation, ReLU, LeakyReLU, Softmax and Dropout"
)


@dataclass(frozen=True)
class KerasPart:
    """A layer during reading. Activation and normalisation may follow as separate Keras layers, so ``activation`` is Keras's
    name, and ``layer`` has none yet."""

    where: str
    layer: Layer
    activation: str
    kernel: F32
    bias: F32


def _chain(model: Any) -> Iterator[Any]:
    """The layers of ``model`` in order, including those of nested models.

    Raises ConfigError if they are not a chain.
    """
    kind = type(model).__name__
    if kind not in ("Sequential", "Functional") or not of_keras(model):
        raise ConfigError(
            f"model {model.name} is a {kind}, whose layers Keras does not list. Build it as keras.Sequential([...])."
        )
    if kind == "Functional":
        before = None
        for entry in model.get_config()["layers"]:
            sources = [name for node in entry["inbound_nodes"] for name in _sources(node)]
            if sources != ([before] if before else []):
                raise ConfigError(
                    f"model {model.name} is no chain of layers: {entry['class_name']} {entry['name']!r} takes "
                    f"{', '.join(sources) or 'an input'}. Build it without branches."
                )
            if entry["name"] not in {layer.name for layer in model.layers}:
                raise _unsupported(entry["class_name"], entry["name"])
            before = entry["name"]
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _chain(layer)
        elif type(layer).__name__ != "InputLayer":
            yield layer


def _sources(node: Any) -> Iterator[str]:
    """The names of the layers whose outputs are inputs of a node in a functional model's config."""
    if isinstance(node, dict):
        if "keras_history" in node:
            yield node["keras_history"][0]
        for value in node.values():
            yield from _sources(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _sources(value)


def of_keras(thing: Any) -> bool:
    return type(thing).__module__.split(".")[0] == "keras"


def _unsupported(kind: str, name: str) -> ConfigError:
    instead = _INSTEAD.get(kind, f"There are {KNOWN}")
    return ConfigError(f"layer {kind} {name!r} cannot be part of a network. {instead}.")


def read_layers(model: Any) -> tuple[Shape, list[KerasPart]]:
    """The shape of the input, and the parts of the model."""
    layers = list(_chain(model))
    if not model.built or len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ConfigError(
            f"model {model.name} does not have one input and one output of known shape. Begin with keras.Input(shape)."
        )
    if model.inputs[0].dtype != "float32":
        raise ConfigError(f"model {model.name} takes {model.inputs[0].dtype}. Give it float32 inputs: convert the data before.")
    shape = given = at = _known(model.name, model.inputs[0].shape[1:])
    parts: list[KerasPart] = []
    for layer in layers:
        kind, where = type(layer).__name__, f"{type(layer).__name__} {layer.name!r}"
        if layer.dtype_policy.name != "float32":
            raise ConfigError(f"{where} computes as {layer.dtype_policy.name}. Build it with dtype='float32'.")
        if not of_keras(layer) or kind not in {*_LAYERS, *_FOLLOW, *_ONLY_TRAINS, *_RESHAPES}:
            raise _unsupported(kind, layer.name)
        after = _known(where, layer.compute_output_shape((None, *at))[1:])
        if kind in _RESHAPES and not parts and (len(after) == 3 or len(shape) not in (1, 3)) and after != (1, 1, *shape):
            shape = after
        if kind in _LAYERS:
            _fits(where, kind, given if parts else shape, at)
            given = after
            parts += _LAYERS[kind](where, layer)
        if kind in _FOLLOW:
            if not parts:
                raise ConfigError(
                    f"{where} does not follow a layer that it could belong to. Put it after one, or leave it out."
                )
            parts[-1] = _FOLLOW[kind](where, layer, parts[-1], at)
        if kind not in _RESHAPES and parts and parts[-1].activation == "softmax" and prod(after) != after[-1]:
            raise ConfigError(f"{where}: softmax is taken over the last axis of {after} alone. Put Flatten before it.")
        at = after
    if not parts:
        raise ConfigError(f"model {model.name} has no layer of its own. There are {KNOWN}.")
    return shape, parts


def _known(where: str, shape: Any) -> Shape:
    if any(size is None for size in shape):
        raise ConfigError(f"{where} has the shape {tuple(shape)}, which is not fully known. Give keras.Input whole numbers.")
    return tuple(map(int, shape))


def _fits(where: str, kind: str, given: Shape, at: Shape) -> None:
    """Raises ConfigError if a layer's input shape in Keras, ``at``, differs from the network's, ``given``."""
    if len(given) not in (1, 3):
        raise ConfigError(
            f"the model's input has the shape {given}. A network takes (inputs,) or (rows, columns, channels): "
            "begin with a Reshape."
        )
    if kind == "Dense" and prod(at) != at[-1]:
        raise ConfigError(f"{where} works on the last axis of {at} alone. Put Flatten before it, or take Conv2D, kernel 1.")
    if kind != "Dense" and at not in (given, (1, 1, *given)):
        raise ConfigError(
            f"{where} takes {at}, which a Reshape made of {given}. "
            "A network reshapes its input only, and flattens before Dense."
        )


def _activation(where: str, value: Any) -> str:
    """Keras's name of an activation, given as a function or a layer."""
    keras = tensorflow_part("keras")
    kind = type(value).__name__
    name = getattr(value, "__name__", kind)
    if kind == "Activation":
        return _activation(where, value.activation)
    if kind == "Softmax" and value.axis in (-1, (-1,), [-1]):
        return "softmax"
    if kind in ("ReLU", "LeakyReLU"):
        simple = kind == "LeakyReLU" or (value.max_value is None and not value.threshold)
        slope = float(value.negative_slope or 0)
        if simple and slope == 0:
            return "relu"
        if simple and np.isclose(slope, LEAK, rtol=1e-6):
            return "leaky_relu"
        name = f"{kind} with a slope of {slope:g}" if simple else f"{kind} with a threshold or a largest value"
    elif value is keras.activations.leaky_relu:
        name = "leaky_relu with Keras's slope of 0.2"
    elif name in ("softmax", *ACTIVATIONS) and value is getattr(keras.activations, name):
        return name
    known = (f"keras.layers.LeakyReLU(negative_slope={LEAK})" if each == "leaky_relu" else each for each in ACTIVATIONS)
    raise ConfigError(f"{where}: the core has no activation {name}. Take {', '.join(known)}, or softmax at the end.")


def _array(variable: Any) -> F32:
    return np.asarray(tensorflow_part("keras").ops.convert_to_numpy(variable), np.float32)


def _bias(layer: Any, outputs: int) -> F32:
    return _array(layer.bias) if layer.use_bias else np.zeros(outputs, np.float32)


def _refuse_options(where: str, layer: Any) -> None:
    """Raises ConfigError for options that the core's convolutions and pools lack."""
    if layer.data_format != "channels_last":
        raise ConfigError(f"{where} has data_format {layer.data_format}. Build it with channels_last.")
    if set(getattr(layer, "dilation_rate", (1,))) != {1}:
        raise ConfigError(f"{where} has a dilation_rate of {layer.dilation_rate}. Take strides, or a larger kernel.")
    if getattr(layer, "groups", 1) != 1:
        raise ConfigError(f"{where} has {layer.groups} groups. Take DepthwiseConv2D and a Conv2D with kernel 1.")


def _dense(where: str, layer: Any) -> list[KerasPart]:
    built = Dense(layer.units, Activation.identity, layer.trainable)
    return [KerasPart(where, built, _activation(where, layer.activation), _array(layer.kernel), _bias(layer, layer.units))]


def _conv(where: str, layer: Any) -> list[KerasPart]:
    _refuse_options(where, layer)
    same = layer.padding == "same"
    built = Conv(layer.filters, layer.kernel_size, layer.strides, same, Activation.identity, layer.trainable)
    return [KerasPart(where, built, _activation(where, layer.activation), _array(layer.kernel), _bias(layer, layer.filters))]


def _depthwise(where: str, layer: Any) -> list[KerasPart]:
    _refuse_options(where, layer)
    kernel, same = _array(layer.kernel), layer.padding == "same"
    built = DepthwiseConv(layer.kernel_size, layer.strides, same, layer.depth_multiplier, Activation.identity, layer.trainable)
    return [KerasPart(where, built, _activation(where, layer.activation), kernel, _bias(layer, prod(kernel.shape[2:])))]


def _separable(where: str, layer: Any) -> list[KerasPart]:
    _refuse_options(where, layer)
    first, second = _array(layer.depthwise_kernel), _array(layer.pointwise_kernel)
    identity, same = Activation.identity, layer.padding == "same"
    depthwise = DepthwiseConv(layer.kernel_size, layer.strides, same, layer.depth_multiplier, identity, layer.trainable)
    pointwise = Conv(layer.filters, (1, 1), (1, 1), same, identity, layer.trainable)
    return [
        KerasPart(where, depthwise, "linear", first, np.zeros(prod(first.shape[2:]), np.float32)),
        KerasPart(where, pointwise, _activation(where, layer.activation), second, _bias(layer, layer.filters)),
    ]


def _pool(where: str, layer: Any) -> list[KerasPart]:
    _refuse_options(where, layer)
    none = np.empty(0, np.float32)
    kind = type(layer).__name__
    average = "Average" in kind
    global_pool = kind.startswith("Global")
    built = Pool(average, None) if global_pool else Pool(average, layer.pool_size, layer.strides, layer.padding == "same")
    return [KerasPart(where, built, "linear", none, none)]


def _activated(where: str, layer: Any, part: KerasPart, _: Shape) -> KerasPart:
    """``part`` with a following activation."""
    name = _activation(where, layer)
    if name == "linear":
        return part
    if part.activation != "linear":
        raise ConfigError(f"{where}: {name} follows {part.activation}. A layer has one activation: leave one out.")
    return replace(part, activation=name)


def _normalised(where: str, layer: Any, part: KerasPart, at: Shape) -> KerasPart:
    """``part`` with a following normalisation folded into its weights."""
    if isinstance(part.layer, Pool) or part.activation != "linear" or at[-1] != part.bias.size:
        raise ConfigError(
            f"{where} does not follow a layer with weights and a linear activation, so it cannot be folded into them. "
            "Put it between such a layer and its activation, or leave it out."
        )
    if layer.axis not in (-1, len(at)):
        raise ConfigError(f"{where} normalises over axis {layer.axis}. Take the last one, axis=-1.")
    gain = 1 / np.sqrt(_array(layer.moving_variance).astype(np.float64) + layer.epsilon)
    gain = gain * _array(layer.gamma) if layer.scale else gain
    bias = (part.bias - _array(layer.moving_mean).astype(np.float64)) * gain
    bias = bias + _array(layer.beta) if layer.center else bias
    kernel = part.kernel * (gain.reshape(part.kernel.shape[2:]) if isinstance(part.layer, DepthwiseConv) else gain)
    return replace(part, kernel=kernel.astype(np.float32), bias=bias.astype(np.float32))


_LAYERS: dict[str, Callable[[str, Any], list[KerasPart]]] = {
    "Dense": _dense, "Conv2D": _conv, "DepthwiseConv2D": _depthwise, "SeparableConv2D": _separable,
    "MaxPooling2D": _pool, "AveragePooling2D": _pool, "GlobalMaxPooling2D": _pool, "GlobalAveragePooling2D": _pool,
}  # fmt: skip
_FOLLOW: dict[str, Callable[[str, Any, KerasPart, Shape], KerasPart]] = {
    "Activation": _activated, "ReLU": _activated, "LeakyReLU": _activated, "Softmax": _activated,
    "BatchNormalization": _normalised,
}  # fmt: skip
