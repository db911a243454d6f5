"""Networks to Keras and from it: nothing lost on the way, the same outputs, and what a network cannot have refused by name."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tinyfl.errors import ConfigError, DataError, InstallError
from tinyfl.networks import Network
from tinyfl.networks.keras import from_keras, to_keras
from tinyfl.networks.layers import Activation, Conv, Dense, DepthwiseConv, Loss, Pool


@pytest.fixture(autouse=True, scope="module")
def load_keras(tensorflow: Any) -> None:
    """Loads Keras for the tests: collection does without it."""
    global keras, L
    import keras
    from keras import layers as L


Made = Callable[[], Any]
"""Makes a layer or a loss, when Keras is loaded."""

EVERY_KIND = Network(
    "every-kind",
    (9, 8, 2),
    (
        Conv(4, (3, 2), (2, 1), True, Activation.leaky_relu, learns=False),
        DepthwiseConv((2, 3), (1, 1), False, 2, Activation.tanh),
        Pool(True, (2, 2), (2, 2), same=True),
        Conv(3, (1, 1), (1, 1), False, Activation.sigmoid),
        Pool(False, None),
        Dense(5, Activation.relu, learns=False),
        Dense(3, Activation.identity),
    ),
    Loss.sigmoid_cross_entropy,
)


def agrees(model: Any, network: Network, theta: Any) -> bool:
    """Whether the core's outputs are the model's."""
    x = np.random.default_rng(3).normal(0, 1, (5, *model.input_shape[1:])).astype(np.float32)
    expected = np.asarray(model(x)).reshape(5, -1)
    return bool(np.abs(nets.outputs(network, theta, x) - expected).max() < 1e-5 * max(1, np.abs(expected).max()))


def randomised(model: Any) -> Any:
    """``model`` with random weights, among them what normalisation has learnt."""
    rng = np.random.default_rng(2)
    for layer in model.layers:
        layer.set_weights(
            [rng.uniform(0.2, 1, array.shape) * rng.choice([-1, 1] if array.ndim > 1 else [1]) for array in layer.get_weights()]
        )
    return model


def made(loss: str | Made) -> Any:
    return loss() if callable(loss) else loss


def chain(shape: tuple[int, ...], *layers: Any, **compiled: Any) -> Any:
    model = randomised(keras.Sequential([keras.Input(shape), *layers]))
    if compiled:
        model.compile(**compiled)
    return model


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(nets.networks())
def test_a_random_network_comes_back_from_keras_as_it_was_and_has_the_same_outputs_there(network: Network) -> None:
    theta = nets.weights(network)
    model = to_keras(network, theta)
    again, weights = from_keras(model)
    assert again == network
    assert weights.tobytes() == theta.tobytes()
    assert agrees(model, network, theta)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("loss", nets.COMPILED)
def test_a_file_holds_network_loss_weights_and_what_is_frozen(suffix: str, loss: Loss, tmp_path: Path) -> None:
    network = Network(EVERY_KIND.name, EVERY_KIND.shape, EVERY_KIND.layers, loss)
    theta = nets.weights(network)
    path = tmp_path / f"model{suffix}"
    to_keras(network, theta).save(path)
    again, weights = from_keras(str(path))
    assert again == network
    assert weights.tobytes() == theta.tobytes()


def test_a_model_without_head_gives_embeddings_if_asked_to() -> None:
    network = Network(EVERY_KIND.name, EVERY_KIND.shape, EVERY_KIND.layers, Loss.prototypes)
    theta = nets.weights(network)
    again, weights = from_keras(to_keras(network, theta), loss=Loss.prototypes)
    assert again == network
    assert weights.tobytes() == theta.tobytes()


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(lambda: L.Conv2D(3, 3, strides=2, padding="same", use_bias=False), id="conv2d-no bias"),
        pytest.param(lambda: L.Conv2D(3, 2), id="conv2d-bias"),
        pytest.param(lambda: L.DepthwiseConv2D(3, depth_multiplier=2), id="depthwise_conv2d-bias"),
        pytest.param(lambda: L.DepthwiseConv2D(2, use_bias=False), id="depthwise_conv2d-no bias"),
        pytest.param(lambda: L.SeparableConv2D(4, 3, padding="same"), id="separable_conv2d-bias"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False, "axis": 3}], ids=str)
def test_normalisation_after_a_layer_is_folded_into_its_weights(layer: Made, options: dict[str, Any]) -> None:
    model = chain(
        (6, 6, 2), layer(), L.BatchNormalization(**options), L.ReLU(), L.Flatten(), L.Dense(3), L.BatchNormalization()
    )
    network, theta = from_keras(model)
    assert agrees(model, network, theta)


def test_a_separable_convolution_becomes_two_layers() -> None:
    model = chain((6, 6, 2), L.SeparableConv2D(4, 3, strides=2, padding="same", depth_multiplier=2, activation="tanh"))
    network, theta = from_keras(model)
    assert network.layers == (
        DepthwiseConv((3, 3), (2, 2), True, 2, Activation.identity),
        Conv(4, (1, 1), (1, 1), True, Activation.tanh),
    )
    assert agrees(model, network, theta)


def test_a_functional_chain_with_a_model_inside_is_read_and_what_only_trains_is_left_out() -> None:
    inner = keras.Sequential([keras.Input((8, 8, 1)), L.Conv2D(3, 3), L.LeakyReLU(negative_slope=0.1)])
    inner.trainable = False
    x = given = keras.Input((64,))
    for layer in (
        L.GaussianNoise(1.0), L.Reshape((8, 8, 1)), inner, L.SpatialDropout2D(0.5), L.MaxPooling2D(), L.Dropout(0.5),
        L.Flatten(), L.Dense(4, activation=L.LeakyReLU(negative_slope=0.1)), L.Dense(2),
    ):  # fmt: skip
        x = layer(x)
    model = keras.Model(given, x, name="outer")
    network, theta = from_keras(model)
    assert network == Network(
        "outer",
        (8, 8, 1),
        (
            Conv(3, (3, 3), (1, 1), False, Activation.leaky_relu, learns=False),
            Pool(False, (2, 2), (2, 2), False),
            Dense(4, Activation.leaky_relu),
            Dense(2, Activation.identity),
        ),
        Loss.mean_squared_error,
    )
    assert agrees(model, network, theta)


def cross_entropy(**options: Any) -> Made:
    return lambda: keras.losses.CategoricalCrossentropy(**options)


CROSS_ENTROPY = cross_entropy(from_logits=True)
MSE, SOFTMAX, SIGMOID, _ = Loss


@pytest.mark.parametrize(
    ("activation", "compiled", "asked", "loss", "last"),
    [
        ("linear", None, None, MSE, Activation.identity),
        ("tanh", None, None, MSE, Activation.tanh),
        ("softmax", None, None, SOFTMAX, Activation.identity),
        ("sigmoid", None, None, SIGMOID, Activation.identity),
        ("sigmoid", None, MSE, MSE, Activation.sigmoid),
        ("sigmoid", "mse", None, MSE, Activation.sigmoid),
        ("sigmoid", "binary_crossentropy", None, SIGMOID, Activation.identity),
        ("softmax", "sparse_categorical_crossentropy", None, SOFTMAX, Activation.identity),
        ("softmax", cross_entropy(), None, SOFTMAX, Activation.identity),
        ("linear", CROSS_ENTROPY, None, SOFTMAX, Activation.identity),
        ("linear", CROSS_ENTROPY, SIGMOID, SIGMOID, Activation.identity),
    ],
)
def test_the_loss_is_the_one_asked_for_or_compiled_or_that_of_the_last_activation(
    activation: str, compiled: str | Made | None, asked: Loss | None, loss: Loss, last: Activation
) -> None:
    model = chain((4,), L.Dense(3), L.Activation(activation), **({"loss": made(compiled)} if compiled else {}))
    network, _ = from_keras(model, loss=asked)
    assert (network.loss, network.layers) == (loss, (Dense(3, last),))


def own() -> Any:
    """A layer that Keras does not have."""

    class Own(L.Layer):
        def call(self, x: Any) -> Any:
            return x

    return Own()


def subclass() -> Any:
    """A model whose layers Keras does not tell."""

    class Subclass(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    return Subclass(name="own")


IMAGE = (8, 8, 2)


@pytest.mark.parametrize(
    ("shape", "layers", "said"),
    [
        (IMAGE, lambda: [L.Conv2DTranspose(2, 3)], "Conv2DTranspose 'conv2d_transpose.*There are Dense"),
        (IMAGE, lambda: [L.ZeroPadding2D()], "ZeroPadding2D.*padding='same'"),
        (IMAGE, lambda: [L.Rescaling(0.1)], "Rescaling.*[Ss]cale the data"),
        ((9, 2), lambda: [L.Conv1D(2, 3)], r"Conv1D.*Conv2D with a kernel of \(k, 1\)"),
        (IMAGE, lambda: [own()], "Own 'own"),
        (IMAGE, lambda: [L.Conv2D(2, 3, dilation_rate=2)], "dilation_rate"),
        (IMAGE, lambda: [L.Conv2D(2, 3, groups=2)], "2 groups"),
        (IMAGE, lambda: [L.MaxPooling2D(data_format="channels_first")], "channels_first"),
        (IMAGE, lambda: [L.Conv2D(2, 3, dtype="float64")], "float64"),
        (IMAGE, lambda: [L.Conv2D(2, 3, dtype="mixed_float16")], "mixed_float16"),
        (IMAGE, lambda: [L.Conv2D(2, 3, activation="gelu")], "no activation gelu"),
        (IMAGE, lambda: [L.Conv2D(2, 3, activation="relu6")], "no activation relu6"),
        (IMAGE, lambda: [L.Conv2D(2, 3, activation="leaky_relu")], "slope of 0.2"),
        (IMAGE, lambda: [L.Conv2D(2, 3), L.LeakyReLU()], "slope of 0.3"),
        (IMAGE, lambda: [L.Conv2D(2, 3), L.ReLU(6)], "largest value"),
        (IMAGE, lambda: [L.Conv2D(2, 3, activation="relu"), L.Activation("tanh")], "tanh follows relu"),
        (IMAGE, lambda: [L.Conv2D(2, 3), L.MaxPooling2D(), L.ReLU()], "relu follows a pooling"),
        (IMAGE, lambda: [L.ReLU(), L.Conv2D(2, 3)], "does not follow a layer"),
        (IMAGE, lambda: [L.Conv2D(2, 3, activation="softmax")], r"softmax is taken over the last axis of \(6, 6, 2\)"),
        (IMAGE, lambda: [L.Flatten(), L.Dense(3, activation="softmax"), L.Dense(2)], "softmax is only for the end"),
        (IMAGE, lambda: [L.Dense(3)], "last axis of .*Flatten"),
        (IMAGE, lambda: [L.Conv2D(2, 3), L.Reshape((9, 8, 1)), L.Conv2D(2, 3)], "which a Reshape made"),
        (IMAGE, lambda: [L.BatchNormalization()], "does not follow a layer"),
        (IMAGE, lambda: [L.Conv2D(2, 3, activation="relu"), L.BatchNormalization()], "linear activation"),
        (IMAGE, lambda: [L.Conv2D(2, 3), L.Flatten(), L.BatchNormalization()], "cannot be folded"),
        (IMAGE, lambda: [L.Conv2D(2, 3), L.BatchNormalization(axis=1)], "axis"),
        (IMAGE, lambda: [L.Flatten()], "no layer of its own"),
        ((4, 3), lambda: [L.Dense(2)], "begin with a Reshape"),
        ((None, None, 2), lambda: [L.Conv2D(2, 3)], "not fully known"),
    ],
)  # fmt: skip
def test_what_a_network_cannot_have_is_named(shape: tuple[int, ...], layers: Callable[[], list[Any]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        from_keras(chain(shape, *layers()))


@pytest.mark.parametrize(
    ("activation", "loss", "said"),
    [
        ("linear", "mae", "mean_absolute_error"),
        ("linear", lambda: lambda truth, y: truth - y, "lambda"),
        ("linear", "categorical_crossentropy", "from_logits=False"),
        ("softmax", CROSS_ENTROPY, "from_logits=True"),
        ("softmax", "mse", "softmax is only for the end"),
        ("tanh", CROSS_ENTROPY, "ends in tanh"),
        ("sigmoid", cross_entropy(), "ends in sigmoid"),
        ("softmax", cross_entropy(label_smoothing=0.1), "label_smoothing"),
    ],
)
def test_a_loss_that_the_core_has_not_is_named(activation: str, loss: str | Made, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        from_keras(chain((4,), L.Dense(3, activation=activation), loss=made(loss)))


def test_models_that_are_no_chain_of_known_layers_are_named() -> None:
    x = keras.Input((4,))
    y = L.Dense(4)(x)
    several = keras.Model(x, [y, L.Dense(2)(y)])
    for model, said in (
        (keras.Model(x, L.Add()([x, y])), "Add 'add"),
        (keras.Model(x, L.Dense(2)(y * 2)), "Multiply 'multiply"),
        (keras.Model(x, L.Dense(2)(keras.ops.concatenate([y, y]))), "Concatenate 'concatenate"),
        (several, "one input and one output"),
        (keras.Sequential([L.Dense(3)]), "one input and one output"),
        (subclass(), "model own is a Subclass"),
        (keras.Sequential([keras.Input((4,), dtype="uint8"), L.Dense(3)]), "takes uint8"),
    ):
        with pytest.raises(ConfigError, match=said):
            from_keras(model)


def test_a_weight_that_is_not_finite_is_refused() -> None:
    model = chain((2,), L.Dense(1))
    model.set_weights([np.full((2, 1), np.nan), np.zeros(1)])
    with pytest.raises(DataError, match="not finite"):
        from_keras(model)


@pytest.mark.filterwarnings("ignore:.*lambda:UserWarning")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_and_layers_of_others_in_a_file_are_refused_and_not_run(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = L.Lambda(lambda x: __import__("os").environ.update(TINYFL_TEST="ran") or x, output_shape=(2,))
    keras.Sequential([keras.Input((2,)), code, L.Dense(1)]).save(tmp_path / f"code{suffix}")
    keras.Sequential([keras.Input((2,)), own(), L.Dense(1)]).save(tmp_path / f"own{suffix}")
    monkeypatch.setenv("TINYFL_TEST", "not run")
    with pytest.raises(ConfigError, match=r"Lambda.*not executed"):
        from_keras(tmp_path / f"code{suffix}")
    with pytest.raises(ConfigError, match="Own is not part of Keras"):
        from_keras(tmp_path / f"own{suffix}")
    assert os.environ["TINYFL_TEST"] == "not run"


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_that_is_no_model_is_a_data_error(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    with pytest.raises(DataError, match="no such file"):
        from_keras(path)
    chain((2,), L.Dense(1)).save(path)
    whole = path.read_bytes()
    for content in (b"", b"PK\x03\x04 and then no more", whole[: len(whole) // 2], b"\x89HDF\r\n\x1a\n" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read as a Keras model"):
            from_keras(path)


def test_weights_alone_and_other_names_are_no_model(tmp_path: Path) -> None:
    chain((2,), L.Dense(1)).save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(DataError, match="cannot be read as a Keras model"):
        from_keras(tmp_path / "model.weights.h5")
    with pytest.raises(ConfigError, match=r"Give a \.keras or \.h5 file"):
        from_keras(tmp_path / "model.pt")


def test_without_keras_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model.keras").touch()
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(InstallError, match=r"pip install 'tinyfl\[tf\]'"):
        from_keras(tmp_path / "model.keras")
