"""Networks from Keras models and to them (tinyfl.networks.Network, theta float32 (parameters,)).

There and back nothing is lost: the network is equal and theta has the same bits. From Keras, what only shapes training
(dropout, noise, regularisers, the optimiser) is left out.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyfl.core import F32
from tinyfl.errors import ConfigError, DataError
from tinyfl.export.installed import tensorflow_part
from tinyfl.export.keras_layers import ACTIVATIONS, KNOWN, LEAK, Part, read
from tinyfl.files import demand_room
from tinyfl.layers import Activation, Conv, Dense, Layer, Loss, Pool
from tinyfl.networks import FILES, Network
from tinyfl.words import MOST_OF_A_NAME, plain

if TYPE_CHECKING:
    import keras

_LOSSES = {
    "mean_squared_error": Loss.mean_squared_error,
    "categorical_crossentropy": Loss.softmax_cross_entropy,
    "sparse_categorical_crossentropy": Loss.softmax_cross_entropy,
    "binary_crossentropy": Loss.sigmoid_cross_entropy,
}
_HEADS = {Loss.softmax_cross_entropy: "softmax", Loss.sigmoid_cross_entropy: "sigmoid"}


def from_keras(model: "keras.Model | Path | str", *, loss: Loss | None = None) -> tuple[Network, F32]:
    """The network and theta of a Sequential, of a functional model that is one chain, or of a .keras or .h5 file of either.

    A layer learns if it is trainable. SeparableConv2D becomes a depthwise and a 1 x 1 convolution, the first with a bias of 0;
    a layer without a bias gets one of 0. BatchNormalization right after a layer is folded into its weights: exact for
    inference, while training goes on without it. The loss is ``loss``, else the one that the model was compiled with, else
    what its last activation says: softmax and sigmoid the cross-entropies, which take that activation into themselves,
    anything else mean squared error. Nothing in a file is executed: Lambda layers are refused.

    Raises ConfigError for what a network cannot have, DataError for a file that is no model, InstallError without TensorFlow.
    """
    loaded = _load(Path(model), compiled=loss is None) if isinstance(model, str | Path) else model
    shape, parts = read(loaded)
    found = _loss(loaded, parts[-1].activation, loss)
    if found in _HEADS:
        parts[-1] = replace(parts[-1], activation="linear")
    layers = tuple(map(_layer, parts))
    theta = np.concatenate([np.empty(0, np.float32), *(array.ravel() for part in parts for array in (part.kernel, part.bias))])
    if not np.isfinite(theta).all():
        raise DataError(f"model {loaded.name}: a weight is not finite. Train it again with a smaller learning rate.")
    return Network(plain(loaded.name, MOST_OF_A_NAME), shape, layers, found), theta


def _layer(part: Part) -> Layer:
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


def _loss(model: Any, last: str, asked: Loss | None) -> Loss:
    """The loss that a model learns by, whose last activation is ``last``."""
    compiled = _compiled(model, last) if asked is None else asked
    if compiled is None:
        return next((loss for loss, head in _HEADS.items() if head == last), Loss.mean_squared_error)
    if compiled in _HEADS and last not in ("linear", _HEADS[compiled]):
        raise ConfigError(
            f"model {model.name} learns by {compiled.name} and ends in {last}. "
            f"End it in {_HEADS[compiled]}, or in no activation."
        )
    return compiled


def _compiled(model: Any, last: str) -> Loss | None:
    """The loss that a model was compiled with."""
    given = getattr(model, "loss", None) if model.compiled else None
    if given is None:
        return None
    loss = tensorflow_part("keras").losses.get(given[0] if isinstance(given, list) and len(given) == 1 else given)
    name = getattr(loss, "__name__", None) or re.sub(r"(?<!^)(?=[A-Z])", "_", type(loss).__name__).lower()
    options = loss.get_config() if hasattr(loss, "get_config") else {}
    if name not in _LOSSES or options.get("label_smoothing"):
        what = f"{name} with label_smoothing" if name in _LOSSES else name
        raise ConfigError(
            f"model {model.name} was compiled with the loss {what}, which the core has not. "
            f"Compile it with {', '.join(_LOSSES)}, or without a loss."
        )
    found = _LOSSES[name]
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


def _load(path: Path, compiled: bool) -> Any:
    """The Keras model in the file at ``path``."""
    if path.suffix not in FILES:
        raise ConfigError(f"{path} is no Keras model by its name. Give a .keras or .h5 file that model.save wrote.")
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give a .keras or .h5 file that model.save wrote.")
    keras = tensorflow_part("keras")
    try:
        demand_room(path)
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
