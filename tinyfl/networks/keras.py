"""Conversion between Keras models and networks (tinyfl.networks.Network, theta float32 (parameters,)).

A round trip is lossless: the network is equal and theta has the same bits. From Keras, everything used only in training
(dropout, noise, regularisers, the optimiser) is left out.
"""

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyfl.core import F32
from tinyfl.errors import ConfigError, DataError
from tinyfl.errors.words import MAX_NAME_CHARS, plain
from tinyfl.networks import KERAS, Network
from tinyfl.networks.keras_layers import ACTIVATIONS, KNOWN, LEAK, KerasPart, read_layers
from tinyfl.networks.layers import Activation, Conv, Dense, Layer, Loss, Pool
from tinyfl.system.files import demand_room
from tinyfl.system.installed import tensorflow_part

if TYPE_CHECKING:
    import keras

LOSSES = {
    "mean_squared_error": Loss.mean_squared_error,
    "categorical_crossentropy": Loss.softmax_cross_entropy,
    "sparse_categorical_crossentropy": Loss.softmax_cross_entropy,
    "binary_crossentropy": Loss.sigmoid_cross_entropy,
}
_ERRORS = ("mean_absolute_error", "mean_absolute_percentage_error", "mean_squared_logarithmic_error", "huber", "log_cosh")
"""Regression losses that the core lacks; a task replaces them by mean squared error."""

_HEADS = {Loss.softmax_cross_entropy: "softmax", Loss.sigmoid_cross_entropy: "sigmoid"}


def from_keras(model: "keras.Model | Path | str", *, loss: Loss | None = None) -> tuple[Network, F32]:
    """Network and theta of a Sequential, of a functional model that is one chain, or of a .keras or .h5 file of either.

    A layer learns if it is trainable. SeparableConv2D becomes a depthwise and a 1 x 1 convolution, the first with a bias of 0;
    a layer without a bias gets a bias of 0. BatchNormalization right after a layer is folded into its weights: exact for
    inference, while training continues without it. The loss is ``loss``, else the one that the model was compiled with, else
    derived from the last activation: the cross-entropies for softmax and sigmoid, which absorb that activation, and mean
    squared error for any other. For softmax cross-entropy, a binary classifier with one sigmoid gets two outputs with the same
    probabilities. Nothing in a file is executed: Lambda layers are refused.

    Raises ConfigError for an unsupported model, DataError for a file that is no model, InstallError without TensorFlow.
    """
    loaded: Any = model
    if isinstance(model, str | Path):
        loaded = load(Path(model)) if loss is not None else _load(Path(model), compiled=True)
    shape, parts = read_layers(loaded)
    if loss is Loss.softmax_cross_entropy:
        parts[-1] = _one_output_a_class(loaded, parts[-1])
    found = _loss(loaded, parts[-1].activation, loss)
    if found in _HEADS:
        parts[-1] = replace(parts[-1], activation="linear")
    layers = tuple(map(_layer, parts))
    theta = np.concatenate([np.empty(0, np.float32), *(array.ravel() for part in parts for array in (part.kernel, part.bias))])
    if not np.isfinite(theta).all():
        raise DataError(f"model {loaded.name}: a weight is not finite. Train it again with a smaller learning rate.")
    return Network(plain(loaded.name, MAX_NAME_CHARS), shape, layers, found), theta


def _layer(part: KerasPart) -> Layer:
    """The layer of ``part``, with its activation."""
    if part.activation not in ACTIVATIONS:
        raise ConfigError(
            f"{part.where}: {part.activation} is only for the end of a network with a cross-entropy loss. Take another of "
            f"{', '.join(ACTIVATIONS)}."
        )
    if not isinstance(part.layer, Pool):
        return replace(part.layer, activation=ACTIVATIONS[part.activation])
    if part.activation != "linear":
        raise ConfigError(
            f"{part.where}: {part.activation} follows a pooling layer, which has no activation. Put it before the pooling."
        )
    return part.layer


def _one_output_a_class(model: Any, last: KerasPart) -> KerasPart:
    """``last``; if it is a binary classifier's single output z with sigmoid(z), then outputs (0, z), whose softmax gives the
    same probabilities."""
    if not isinstance(last.layer, Dense) or last.layer.units != 1:
        return last
    if last.activation != "sigmoid" and (last.activation != "linear" or compiled_with(model) != "binary_crossentropy"):
        return last
    kernel, bias = (np.concatenate([np.zeros_like(each), each], axis=-1) for each in (last.kernel, last.bias))
    return replace(last, layer=replace(last.layer, units=2), activation="linear", kernel=kernel, bias=bias)


def _loss(model: Any, last: str, required: Loss | None) -> Loss:
    """The loss of a model with the last activation ``last``; ``required`` is the task's."""
    if required in _HEADS and last not in ("linear", _HEADS[required]):
        raise ConfigError(
            f"model {model.name} ends in {last}, but the task's classes need {_HEADS[required]}. End the model in "
            f"{_HEADS[required]} or in no activation, with one output per class; or, if they are values to predict, give "
            "--targets values."
        )
    if required is Loss.mean_squared_error and last == "softmax":
        raise ConfigError(
            f"model {model.name} ends in softmax, which is for classes, but the task's targets are values to predict. "
            "End the model in no activation; or, if they are classes, give --targets classes."
        )
    compiled = _compiled(model, last) if required is None else required
    if compiled is None:
        return next((loss for loss, head in _HEADS.items() if head == last), Loss.mean_squared_error)
    if compiled in _HEADS and last not in ("linear", _HEADS[compiled]):
        raise ConfigError(
            f"model {model.name} has the loss {compiled.name}, but ends in {last}. "
            f"End it in {_HEADS[compiled]}, or in no activation."
        )
    return compiled


def compiled_with(model: Any) -> str:
    """Keras's name of a model's compiled loss; empty for a model without one."""
    loss = _keras_loss_of(model)
    if loss is None:
        return ""
    return str(getattr(loss, "__name__", None) or re.sub(r"(?<!^)(?=[A-Z])", "_", type(loss).__name__).lower())


def targets_of(model: Any) -> str:
    """A model's kind of targets, "classes" or "values", by its compiled loss or a softmax at its end; empty if unknown."""
    name = compiled_with(model)
    if name in LOSSES:
        return "values" if LOSSES[name] is Loss.mean_squared_error else "classes"
    if name in _ERRORS:
        return "values"
    return "classes" if read_layers(model)[1][-1].activation == "softmax" else ""


def _keras_loss_of(model: Any) -> Any:
    given = getattr(model, "loss", None) if model.compiled else None
    if isinstance(given, list | tuple | dict):  # one for each output; a network has one output
        given = next(iter(given.values() if isinstance(given, dict) else given), None)
    return None if given is None else tensorflow_part("keras").losses.get(given)


def _compiled(model: Any, last: str) -> Loss | None:
    """A model's compiled loss; None without one."""
    loss, name = _keras_loss_of(model), compiled_with(model)
    if loss is None:
        return None
    options = loss.get_config() if hasattr(loss, "get_config") else {}
    if name not in LOSSES or options.get("label_smoothing"):
        what = f"{name} with label_smoothing" if name in LOSSES else name
        raise ConfigError(
            f"model {model.name} was compiled with the loss {what}, which the core does not have. "
            f"Compile it with {', '.join(LOSSES)}, or without a loss."
        )
    found = LOSSES[name]
    if found in _HEADS and bool(options.get("from_logits")) != (last == "linear"):
        raise ConfigError(
            f"model {model.name} ends in {last}, but was compiled with {name}, from_logits={bool(options.get('from_logits'))}. "
            f"End it in {_HEADS[found]}, or in no activation and with from_logits=True."
        )
    return found


def to_keras(network: Network, theta: F32) -> "keras.Sequential":
    """Builds the Keras model of ``network`` with weights ``theta``, float32 (parameters,), compiled with its loss.

    Inputs are float32 (batch, *network.shape), outputs (batch, outputs) as from the core: logits for a cross-entropy loss.
    Frozen layers are not trainable.
    Raises ConfigError for a network that TensorFlow cannot run, InstallError without TensorFlow.
    """
    keras = tensorflow_part("keras")
    weights = network.split(theta)
    layers: list[Any] = [keras.Input(network.shape)]
    shape = network.shape
    for number, (layer, placed) in enumerate(zip(network.layers, network.placed, strict=True), 1):
        if isinstance(layer, Dense) and len(shape) == 3:
            layers.append(keras.layers.Flatten(name=f"flatten_{number}"))
        elif not isinstance(layer, Dense) and len(shape) == 1:
            layers.append(keras.layers.Reshape(placed.input, name=f"reshape_{number}"))
        layers += _keras_layers(keras, layer, number)
        global_pool = isinstance(layer, Pool) and layer.size is None
        shape = placed.output[2:] if global_pool or isinstance(layer, Dense) else placed.output
    if len(shape) == 3:
        layers.append(keras.layers.Flatten(name="flatten"))
    model = keras.Sequential(layers, name=network.name)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(next(weights))
    model.compile("sgd", _keras_loss(keras, network.loss))
    return model


def _keras_layers(keras: Any, layer: Layer, number: int) -> list[Any]:
    """The Keras layers of ``layer``, the network's ``number``-th: one layer, and a separate one for leaky relu."""
    k = keras.layers
    padding = "same" if not isinstance(layer, Dense) and layer.same else "valid"
    if isinstance(layer, Pool):
        name = f"{'average' if layer.average else 'max'}_pool_{number}"
        if layer.size is None:
            return [(k.GlobalAveragePooling2D if layer.average else k.GlobalMaxPooling2D)(name=name)]
        pool = k.AveragePooling2D if layer.average else k.MaxPooling2D
        return [pool(layer.size, layer.stride, padding, name=name)]

    leaky = layer.activation is Activation.leaky_relu
    activation = next(name for name, a in ACTIVATIONS.items() if a is layer.activation) if not leaky else "linear"
    own = {"activation": activation, "trainable": layer.learns, "dtype": "float32"}
    if isinstance(layer, Dense):
        built = k.Dense(layer.units, name=f"dense_{number}", **own)
    elif isinstance(layer, Conv):
        built = k.Conv2D(layer.filters, layer.kernel, layer.stride, padding, name=f"conv_{number}", **own)
    else:
        if layer.stride[0] != layer.stride[1]:
            raise ConfigError(
                f"layer {number}: TensorFlow has no depthwise convolution with strides of {layer.stride}. Take equal ones."
            )
        built = k.DepthwiseConv2D(layer.kernel, layer.stride, padding, layer.multiplier, name=f"depthwise_{number}", **own)
    return [built, k.LeakyReLU(negative_slope=LEAK, name=f"leaky_relu_{number}")] if leaky else [built]


def _keras_loss(keras: Any, loss: Loss) -> Any:
    if loss is Loss.softmax_cross_entropy:
        return keras.losses.CategoricalCrossentropy(from_logits=True)
    if loss is Loss.sigmoid_cross_entropy:
        return keras.losses.BinaryCrossentropy(from_logits=True)
    return keras.losses.MeanSquaredError()


def load(path: Path) -> "keras.Model":
    """Loads the Keras model in the file at ``path``, compiled if Keras can read its loss.

    Raises the errors of from_keras.
    """
    try:
        return _load(path, compiled=True)
    except (ConfigError, DataError):
        return _load(path, compiled=False)


def _load(path: Path, compiled: bool) -> Any:
    """Loads the Keras model in the file at ``path``."""
    if path.suffix not in KERAS:
        raise ConfigError(f"{path} has no Keras model's extension. Give a .keras or .h5 file written by model.save.")
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give a .keras or .h5 file written by model.save.")
    keras = tensorflow_part("keras")
    try:
        demand_room(path)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")  # not needed
            return keras.saving.load_model(path, compile=compiled, safe_mode=True)
    except Exception as error:  # Keras, TensorFlow, HDF5 and zipfile raise almost anything on a damaged file
        text = str(error)
        if "Lambda" in text or "lambda" in text:
            raise ConfigError(
                f"{path} contains Python code (a Lambda), which is not executed. Take layers of Keras: {KNOWN}."
            ) from error
        unknown = re.search(r"(?:Could not locate (?:class|function)|Unknown layer:) '(\w+)'", text)
        if unknown:
            raise ConfigError(
                f"{path}: {plain(unknown[1])} is not part of Keras. Take layers of Keras ({KNOWN}) and its losses."
            ) from error
        raise DataError(
            f"{path} cannot be read as a Keras model ({plain(text, 200)}). Write it again with model.save."
        ) from error
