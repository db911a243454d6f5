"""Networks from Keras models and to them (tinyfl.networks.Network, theta float32 (parameters,)).

There and back nothing is lost: the network is equal and theta has the same bits. From Keras, what only shapes training
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
from tinyfl.networks import FILES, Network
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
"""Losses of values to predict that the core has not, and has mean squared error instead where a task asks for a loss."""

_HEADS = {Loss.softmax_cross_entropy: "softmax", Loss.sigmoid_cross_entropy: "sigmoid"}


def from_keras(model: "keras.Model | Path | str", *, loss: Loss | None = None) -> tuple[Network, F32]:
    """The network and theta of a Sequential, of a functional model that is one chain, or of a .keras or .h5 file of either.

    A layer learns if it is trainable. SeparableConv2D becomes a depthwise and a 1 x 1 convolution, the first with a bias of 0;
    a layer without a bias gets one of 0. BatchNormalization right after a layer is folded into its weights: exact for
    inference, while training goes on without it. The loss is ``loss``, else the one that the model was compiled with, else
    what its last activation says: softmax and sigmoid the cross-entropies, which take that activation into themselves,
    anything else mean squared error. Where softmax cross-entropy is asked of a model whose one sigmoid tells two classes apart,
    it gets two outputs with the same probabilities. Nothing in a file is executed: Lambda layers are refused.

    Raises ConfigError for what a network cannot have, DataError for a file that is no model, InstallError without TensorFlow.
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
            f"{part.where}: {part.activation} is for the end of a network that learns by a cross-entropy. Take another of "
            f"{', '.join(ACTIVATIONS)}."
        )
    if not isinstance(part.layer, Pool):
        return replace(part.layer, activation=ACTIVATIONS[part.activation])
    if part.activation != "linear":
        raise ConfigError(
            f"{part.where}: {part.activation} follows a pooling, which has no activation. Put it before the pooling."
        )
    return part.layer


def _one_output_a_class(model: Any, last: KerasPart) -> KerasPart:
    """``last``, or, where it is a classifier's one output z that says yes by sigmoid(z), the outputs (0, z), of which softmax
    makes the same."""
    if not isinstance(last.layer, Dense) or last.layer.units != 1:
        return last
    if last.activation != "sigmoid" and (last.activation != "linear" or compiled_with(model) != "binary_crossentropy"):
        return last
    kernel, bias = (np.concatenate([np.zeros_like(each), each], axis=-1) for each in (last.kernel, last.bias))
    return replace(last, layer=replace(last.layer, units=2), activation="linear", kernel=kernel, bias=bias)


def _loss(model: Any, last: str, asked: Loss | None) -> Loss:
    """The loss that a model learns by, whose last activation is ``last``."""
    if asked in _HEADS and last not in ("linear", _HEADS[asked]):
        raise ConfigError(
            f"model {model.name} ends in {last}, and the task's classes are told apart by a {_HEADS[asked]}. End the model in "
            f"{_HEADS[asked]} or in no activation, one output a class; or, where they are values to predict, give "
            "--targets values."
        )
    if asked is Loss.mean_squared_error and last == "softmax":
        raise ConfigError(
            f"model {model.name} ends in softmax, which tells classes apart, and the task's targets are values to predict. "
            "End the model in no activation; or, where they are classes, give --targets classes."
        )
    compiled = _compiled(model, last) if asked is None else asked
    if compiled is None:
        return next((loss for loss, head in _HEADS.items() if head == last), Loss.mean_squared_error)
    if compiled in _HEADS and last not in ("linear", _HEADS[compiled]):
        raise ConfigError(
            f"model {model.name} learns by {compiled.name} and ends in {last}. "
            f"End it in {_HEADS[compiled]}, or in no activation."
        )
    return compiled


def compiled_with(model: Any) -> str:
    """Keras's name of the loss that a model was compiled with; empty for a model without one."""
    loss = _keras_loss_of(model)
    if loss is None:
        return ""
    return str(getattr(loss, "__name__", None) or re.sub(r"(?<!^)(?=[A-Z])", "_", type(loss).__name__).lower())


def targets_of(model: Any) -> str:
    """What a model was made for, "classes" or "values", by its compiled loss or a softmax at its end; empty where they do not
    say."""
    name = compiled_with(model)
    if name in LOSSES:
        return "values" if LOSSES[name] is Loss.mean_squared_error else "classes"
    if name in _ERRORS:
        return "values"
    return "classes" if read_layers(model)[1][-1].activation == "softmax" else ""


def _keras_loss_of(model: Any) -> Any:
    given = getattr(model, "loss", None) if model.compiled else None
    if isinstance(given, list | tuple | dict):  # one for each output, of which a network has one
        given = next(iter(given.values() if isinstance(given, dict) else given), None)
    return None if given is None else tensorflow_part("keras").losses.get(given)


def _compiled(model: Any, last: str) -> Loss | None:
    """The loss that a model was compiled with."""
    loss, name = _keras_loss_of(model), compiled_with(model)
    if loss is None:
        return None
    options = loss.get_config() if hasattr(loss, "get_config") else {}
    if name not in LOSSES or options.get("label_smoothing"):
        what = f"{name} with label_smoothing" if name in LOSSES else name
        raise ConfigError(
            f"model {model.name} was compiled with the loss {what}, which the core has not. "
            f"Compile it with {', '.join(LOSSES)}, or without a loss."
        )
    found = LOSSES[name]
    if found in _HEADS and bool(options.get("from_logits")) != (last == "linear"):
        raise ConfigError(
            f"model {model.name} ends in {last} and was compiled with {name}, from_logits={bool(options.get('from_logits'))}. "
            f"End it in {_HEADS[found]}, or in no activation and with from_logits=True."
        )
    return found


def to_keras(network: Network, theta: F32) -> "keras.Sequential":
    """The Keras model of ``network`` with weights ``theta`` float32 (parameters,), compiled with its loss.

    It takes (batch, *network.shape) float32 and gives (batch, outputs) as the core does: logits where the loss is a
    cross-entropy. Layers that do not learn are not trainable.
    Raises ConfigError for what TensorFlow cannot run, InstallError without it.
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
        whole = isinstance(layer, Pool) and layer.size is None
        shape = placed.output[2:] if whole or isinstance(layer, Dense) else placed.output
    if len(shape) == 3:
        layers.append(keras.layers.Flatten(name="flatten"))
    model = keras.Sequential(layers, name=network.name)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(next(weights))
    model.compile("sgd", _keras_loss(keras, network.loss))
    return model


def _keras_layers(keras: Any, layer: Layer, number: int) -> list[Any]:
    """The Keras layers of ``layer``, the network's ``number``-th: itself, and a leaky relu by itself."""
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
        made = k.Dense(layer.units, name=f"dense_{number}", **own)
    elif isinstance(layer, Conv):
        made = k.Conv2D(layer.filters, layer.kernel, layer.stride, padding, name=f"conv_{number}", **own)
    else:
        if layer.stride[0] != layer.stride[1]:
            raise ConfigError(
                f"layer {number}: TensorFlow has no depthwise convolution with strides of {layer.stride}. Take equal ones."
            )
        made = k.DepthwiseConv2D(layer.kernel, layer.stride, padding, layer.multiplier, name=f"depthwise_{number}", **own)
    return [made, k.LeakyReLU(negative_slope=LEAK, name=f"leaky_relu_{number}")] if leaky else [made]


def _keras_loss(keras: Any, loss: Loss) -> Any:
    if loss is Loss.softmax_cross_entropy:
        return keras.losses.CategoricalCrossentropy(from_logits=True)
    if loss is Loss.sigmoid_cross_entropy:
        return keras.losses.BinaryCrossentropy(from_logits=True)
    return keras.losses.MeanSquaredError()


def load(path: Path) -> "keras.Model":
    """The Keras model in the file at ``path``, compiled where Keras can read its loss too.

    Raises as from_keras does.
    """
    try:
        return _load(path, compiled=True)
    except (ConfigError, DataError):
        return _load(path, compiled=False)


def _load(path: Path, compiled: bool) -> Any:
    """The Keras model in the file at ``path``."""
    if path.suffix not in FILES:
        raise ConfigError(f"{path} is no Keras model by its name. Give a .keras or .h5 file that model.save wrote.")
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give a .keras or .h5 file that model.save wrote.")
    keras = tensorflow_part("keras")
    try:
        demand_room(path)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")  # which is not read anyway
            return keras.saving.load_model(path, compile=compiled, safe_mode=True)
    except Exception as error:  # Keras, TensorFlow, HDF5 and zipfile raise almost anything on a damaged file
        said = str(error)
        if "Lambda" in said or "lambda" in said:
            raise ConfigError(
                f"{path} has Python code in it (a Lambda), which is not executed. Take layers that Keras has: {KNOWN}."
            ) from error
        unknown = re.search(r"(?:Could not locate (?:class|function)|Unknown layer:) '(\w+)'", said)
        if unknown:
            raise ConfigError(
                f"{path}: {plain(unknown[1])} is not of Keras. Take layers that it has ({KNOWN}) and its losses."
            ) from error
        raise DataError(
            f"{path} cannot be read as a Keras model ({plain(said, 200)}). Write it again with model.save."
        ) from error
