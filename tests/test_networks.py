"""Networks: what their names mean, what their plans say, and back."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinyfl.errors import ConfigError
from tinyfl.networks import REFERENCE, Network, from_plan, network, plan, reference
from tinyfl.networks.layers import Activation, Conv, Dense, DepthwiseConv, Layer, Loss, Pool

IMAGE = (28, 28, 1)
RELU, LEAKY, TANH, IDENTITY = Activation.relu, Activation.leaky_relu, Activation.tanh, Activation.identity


def named(name: str, shape: tuple[int, ...] = IMAGE) -> Network:
    return network(name, shape, 5, Loss.softmax_cross_entropy, RELU)


@pytest.mark.parametrize(
    ("name", "full", "layers"),
    [
        ("mlp", "mlp", ()),
        ("mlp-64-8", "mlp-64-8-relu", (Dense(64), Dense(8))),
        ("mlp-7-leaky-relu", "mlp-7-leaky-relu", (Dense(7, LEAKY),)),
        (
            "conv-16-32-tanh",
            "conv-16-32-tanh",
            (Conv(16, stride=(2, 2), activation=TANH), Conv(32, stride=(2, 2), activation=TANH)),
        ),
        (
            "dsconv-8-16",
            "dsconv-8-16-relu",
            (Conv(8, stride=(2, 2)), DepthwiseConv(stride=(2, 2)), Conv(16, kernel=(1, 1)), Pool(average=True, size=None)),
        ),
    ],
)
def test_a_name_says_its_layers(name: str, full: str, layers: tuple[Layer, ...]) -> None:
    made = named(name)
    assert made.name == full
    assert made.layers == (*layers, Dense(5, IDENTITY))
    assert named(full).layers == made.layers


def test_families_halve_rows_and_columns_and_count_their_weights() -> None:
    made = named("conv-16-32-32-32-leaky-relu")
    assert [layer.output for layer in made.placed] == [(14, 14, 16), (7, 7, 32), (4, 4, 32), (2, 2, 32), (1, 1, 5)]
    assert made.parameters == (9 + 1) * 16 + (9 * 16 + 1) * 32 + 2 * (9 * 32 + 1) * 32 + (128 + 1) * 5
    assert made.multiplies == 196 * 9 * 16 + (49 * 16 + 16 * 32 + 4 * 32) * 9 * 32 + 128 * 5
    separable = named("dsconv-8-16")
    assert [layer.output for layer in separable.placed] == [(14, 14, 8), (7, 7, 8), (7, 7, 16), (1, 1, 16), (1, 1, 5)]
    assert separable.parameters == 10 * 8 + 10 * 8 + 9 * 16 + 17 * 5


@pytest.mark.parametrize("name", REFERENCE)
def test_reference_networks_learn_within_256_kib(name: str) -> None:
    made = reference(name)
    assert made.ram_bytes() + len(made.plan.bytes) + 4 * (made.inputs + made.outputs) < 256 * 1024
    assert network(name, made.shape, made.outputs, made.loss, RELU).layers == made.layers


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("lstm-4", IMAGE, "no network is called 'lstm-4'"),
        ("mlp-4-4-", IMAGE, "no network is called"),
        ("conv-4-swish", IMAGE, "leaky-relu"),
        ("mlp-100000", IMAGE, "no network is called|65,535"),
        ("mlp-0", IMAGE, "does not fit|0"),
        ("mlp-" + "-".join(["4"] * 64), IMAGE, "1 to 64 layers"),
        ("mlp-65536", (1,), "65,535"),
        ("mlp-65535", (300,), "16,777,216"),
        ("mlp-4", (256, 256, 1), "65,535"),
        ("conv-4", (784,), "rows and columns"),
        ("dsconv-4", (784,), "rows and columns"),
        ("dsconv-4", (600, 600, 1), "255"),
    ],
)
def test_names_that_are_none_and_networks_that_cannot_run_are_refused(name: str, shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        named(name, shape)


def test_an_unknown_reference_network_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="conv-omniglot"):
        reference("conv-cifar")


def test_a_layer_that_does_not_fit_its_input_is_named() -> None:
    made = Network("deep", (5, 5, 1), (Conv(2, same=False), Conv(2, kernel=(4, 4), same=False)), Loss.mean_squared_error)
    with pytest.raises(ConfigError, match=r"network deep: Conv\(.*does not fit an input of 3 x 3 x 2"):
        _ = made.plan


sides = st.tuples(st.integers(1, 4), st.integers(1, 4))
learns, activations = st.booleans(), st.sampled_from(list(Activation))
layers: st.SearchStrategy[Layer] = st.one_of(
    st.builds(Dense, st.integers(1, 9), activations, learns),
    st.builds(Conv, st.integers(1, 9), sides, sides, st.booleans(), activations, learns),
    st.builds(DepthwiseConv, sides, sides, st.booleans(), st.integers(1, 3), activations, learns),
    st.builds(Pool, st.booleans(), sides | st.none(), sides, st.booleans()),
)
shapes: st.SearchStrategy[tuple[int, ...]] = st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 3)) | st.tuples(
    st.integers(1, 30)
)


@settings(max_examples=300)
@example((2, 2, 1), [Pool(), Dense(2)], Loss.mean_squared_error)  # the whole input, as a pool of no size has it
@example((3, 2, 1), [Pool(size=None)], Loss.mean_squared_error)
@given(shapes, st.lists(layers, min_size=1, max_size=5), st.sampled_from(list(Loss)))
def test_a_plan_gives_its_network_back(shape: tuple[int, ...], chosen: list[Layer], loss: Loss) -> None:
    made = Network("any", shape, tuple(chosen), loss)
    try:
        held = made.plan.bytes
    except ConfigError as error:
        assert "does not fit" in str(error)
        return
    back = from_plan("any", shape, held)
    assert back.plan.bytes == held
    assert back.placed == made.placed
    assert (back.loss, back.inputs, back.outputs) == (loss, made.inputs, made.outputs)
    assert (made.plan.inputs, made.plan.outputs) == (made.inputs, made.outputs)
    assert made.parameters == sum(kernel.size + bias.size for kernel, bias in made.split(made.initial_weights(1)))


def test_bytes_that_are_no_plan_of_the_input_are_refused() -> None:
    made = named("dsconv-4-6")
    held = made.plan.bytes
    for bad, shape in [
        (b"", IMAGE),
        (held[:-1], IMAGE),
        (held[:-16], (27, 28, 1)),
        (b"TFLX" + held[4:], IMAGE),
        (held[:8] + b"\7" + held[9:], IMAGE),
        (held[:9] + b"\7" + held[10:], IMAGE),
        (held, (14, 56, 1)),
        (held, (784,)),
    ]:
        with pytest.raises(ConfigError, match="network any"):
            from_plan("any", shape, bad)


@pytest.mark.parametrize("count", range(5))
def test_freezing_takes_the_first_layers_that_have_weights(count: int) -> None:
    """Of a network of convolution, pool, depthwise, convolution, pool, dense: pools do not count."""
    made = Network(
        "mixed", (8, 8, 1), (Conv(2), Pool(), DepthwiseConv(), Conv(3), Pool(average=True, size=None), Dense(4, IDENTITY)),
        Loss.softmax_cross_entropy,
    )  # fmt: skip
    frozen = made.frozen(count)
    weighted = [layer for layer in frozen.placed if layer.weights]
    assert [layer.learns for layer in weighted] == [i >= count for i in range(4)]
    assert [replace(layer, learns=True) for layer in weighted] == [layer for layer in made.placed if layer.weights]
    assert frozen.ram_bytes() <= made.ram_bytes()
    assert from_plan("mixed", (8, 8, 1), frozen.plan.bytes).layers == frozen.layers


@pytest.mark.parametrize("count", [-1, 3])
def test_more_layers_than_there_are_cannot_be_frozen(count: int) -> None:
    with pytest.raises(ConfigError, match=r"has 2 with weights.*--freeze"):
        named("mlp-4").frozen(count)


def test_numbers_that_a_plan_has_no_room_for_are_refused() -> None:
    for layer in (Conv(70000), Conv(2, kernel=(256, 1)), Conv(2, stride=(1, 300)), Pool(size=(1, 1), stride=(256, 256))):
        with pytest.raises(ConfigError, match=r"65,535|255"):
            _ = Network("large", (300, 300, 1), (layer,), Loss.mean_squared_error).plan


def test_initial_convolutions_keep_the_size_of_what_passes_through() -> None:
    """He's rule: with relu, the mean square of every layer's output stays within a small factor of the input's."""
    made = named("conv-32-32-32-32")
    theta = made.initial_weights(5)
    kernels = [(kernel, bias) for kernel, bias in made.split(theta)]
    for (kernel, bias), layer in zip(kernels[:-1], made.placed, strict=False):
        assert np.abs(kernel).max() <= np.sqrt(6 / layer.fan_in)
        assert kernel.var() == pytest.approx(2 / layer.fan_in, rel=0.2)
        assert not bias.any()
    assert np.abs(kernels[-1][0]).max() <= 1 / np.sqrt(128)
    assert kernels[-1][1].any()


def test_plan_bytes_hold_what_the_page_says() -> None:
    made = Network("one", (9, 7, 2), (Conv(5, (3, 2), (2, 1), True, TANH, False),), Loss.sigmoid_cross_entropy)
    assert made.plan.bytes == b"TFLP\2\2\1\0" + bytes([1, 3, 0, 1, 9, 0, 7, 0, 2, 0, 5, 0, 3, 2, 2, 1])


def decoded(held: bytes) -> Any:
    return plan.decode(held)


@given(st.binary(max_size=60))
def test_any_bytes_are_decoded_or_refused(held: bytes) -> None:
    for made in (held, b"TFLP\2" + held, b"TFLP\2\0\1\0" + held):
        try:
            decoded(made)
        except ValueError:
            continue
