"""What the core learns along is the gradient: against slopes of a loss written apart, in float64, by matrix products."""

from typing import Any

import numpy as np
import pytest
from harness import OK, Device
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from reference import (
    IDENTITY,
    LEAKY_RELU,
    MEAN_SQUARED_ERROR,
    SIGMOID_CROSS_ENTROPY,
    SOFTMAX_CROSS_ENTROPY,
    TANH,
)
from reference_layers import AVERAGE_POOL, CONV, DENSE, DEPTHWISE, MAX_POOL, Layer, dense, split
from small_nets import SMALL, conv, depthwise, pool, sample_of, weights_of

F64 = NDArray[np.float64]
LOSSES = [MEAN_SQUARED_ERROR, SOFTMAX_CROSS_ENTROPY, SIGMOID_CROSS_ENTROPY]
ACTIVATIONS = (
    lambda s: s,
    lambda s: np.maximum(s, 0),
    lambda s: np.where(s > 0, s, 0.1 * s),
    np.tanh,
    lambda s: 1 / (1 + np.exp(-s)),
)


def seen(layer: Layer, x: F64, beyond: float) -> F64:
    """The windows, (rows, columns, channels, kernel height, kernel width), with ``beyond`` beside the input."""
    pads = []
    for size, kernel, stride in (
        (layer.height, layer.kernel_height, layer.stride_height),
        (layer.width, layer.kernel_width, layer.stride_width),
    ):
        needed = (int(np.ceil(size / stride)) - 1) * stride + kernel - size
        pads.append((needed // 2, needed - needed // 2) if layer.same and needed > 0 else (0, 0))
    x = np.pad(x.reshape(layer.input), [*pads, (0, 0)], constant_values=beyond)
    every = sliding_window_view(x, (layer.kernel_height, layer.kernel_width), (0, 1))
    return every[:: layer.stride_height, :: layer.stride_width]


def through(layer: Layer, kernel: F64, bias: F64, x: F64) -> F64:
    if layer.kind == DENSE:
        return x.reshape(-1) @ kernel + bias
    if layer.kind == CONV:
        return np.einsum("rscyx,yxco->rso", seen(layer, x, 0), kernel) + bias
    if layer.kind == DEPTHWISE:
        return np.einsum("rscyx,yxcm->rscm", seen(layer, x, 0), kernel).reshape(layer.output) + bias
    if layer.kind == MAX_POOL:
        return np.nanmax(seen(layer, x, np.nan), (3, 4))
    return np.nanmean(seen(layer, x, np.nan), (3, 4))


def exact_loss(layers: list[Layer], loss: int, theta: F64, x: F64, y: F64) -> float:
    """The loss in float64."""
    for layer, (kernel, bias) in zip(layers, split(layers, theta), strict=True):
        x = ACTIVATIONS[layer.activation](through(layer, kernel, bias, x))
    x = x.reshape(-1)
    if loss == MEAN_SQUARED_ERROR:
        return float(np.mean((x - y) ** 2))
    if loss == SIGMOID_CROSS_ENTROPY:
        p = 1 / (1 + np.exp(-x))
        return float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))
    return float(-y @ (x - x.max() - np.log(np.exp(x - x.max()).sum())))


def assert_gradient_is_the_slope(core: Any, layers: list[Layer], loss: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    theta = weights_of(layers, rng)
    _, y = sample_of(layers, loss, rng)
    x = rng.uniform(-2, 2, np.prod(layers[0].input)).astype(np.float32)
    gradient = np.zeros_like(theta)
    code, value = Device(core, layers, loss, theta).accumulate(x, y, gradient)
    assert code == OK

    wide, wide_x, wide_y = theta.astype(np.float64), x.astype(np.float64), y.astype(np.float64)
    assert value == pytest.approx(exact_loss(layers, loss, wide, wide_x, wide_y), rel=2e-6)
    slope = np.empty_like(wide)
    for i in range(len(wide)):
        step = np.zeros_like(wide)
        step[i] = 1e-6
        up, down = (exact_loss(layers, loss, wide + s, wide_x, wide_y) for s in (step, -step))
        slope[i] = (up - down) / 2e-6
    np.testing.assert_allclose(gradient, slope, rtol=2e-5, atol=5e-7)
    assert gradient.any()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", range(len(ACTIVATIONS)))
def test_gradient_of_every_activation_and_loss_is_the_slope_of_the_loss(core: Any, activation: int, loss: int) -> None:
    layers = [dense(3, 9, activation), dense(9, 5, activation), dense(5, 4, activation)]
    assert_gradient_is_the_slope(core, layers, loss, 3 + activation)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("net", SMALL)
def test_gradient_of_every_kind_of_layer_is_the_slope_of_the_loss(core: Any, net: str, loss: int) -> None:
    assert_gradient_is_the_slope(core, SMALL[net], loss, 7)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", ["conv", "depthwise", "max pool", "average pool"])
def test_gradient_at_every_stride_and_padding_is_the_slope_of_the_loss(
    core: Any, kind: str, kernel: int, stride: int, same: bool
) -> None:
    """Below the layer under test is another convolution, so that the gradient with respect to its input counts too."""
    shape = (6, 5, 2)
    above = {
        "conv": lambda: conv(shape, 3, kernel, stride, same, TANH),
        "depthwise": lambda: depthwise(shape, 2, kernel, stride, same, TANH),
        "max pool": lambda: pool(MAX_POOL, shape, kernel, stride, same),
        "average pool": lambda: pool(AVERAGE_POOL, shape, kernel, stride, same),
    }[kind]()
    layers = [conv((6, 5, 1), 2, 2, 1, True, LEAKY_RELU), above]
    assert_gradient_is_the_slope(core, layers, MEAN_SQUARED_ERROR, 11)


def test_a_soft_target_is_a_distribution_too(core: Any) -> None:
    layers = [dense(1, 3, IDENTITY)]
    theta = np.array([1, -2, 0.5, 0, 1, 2], np.float32)
    x, y = np.array([0.7], np.float32), np.array([0.2, 0.5, 0.3], np.float32)
    gradient = np.zeros_like(theta)
    code, loss = Device(core, layers, SOFTMAX_CROSS_ENTROPY, theta).accumulate(x, y, gradient)
    assert code == OK
    assert loss == pytest.approx(exact_loss(layers, SOFTMAX_CROSS_ENTROPY, theta.astype(float), x, y), rel=1e-6)
    assert abs(gradient[3:].sum()) < 1e-6


def test_probabilities_are_targets_of_sigmoid_cross_entropy_too(core: Any) -> None:
    layers = [dense(1, 3, IDENTITY)]
    theta = np.array([30, -40, 0.5, 0, 1, 2], np.float32)
    x, y = np.array([0.7], np.float32), np.array([0.2, 0.5, 1], np.float32)
    gradient = np.zeros_like(theta)
    code, loss = Device(core, layers, SIGMOID_CROSS_ENTROPY, theta).accumulate(x, y, gradient)
    assert code == OK
    s = 0.7 * theta[:3].astype(float) + theta[3:]
    assert loss == pytest.approx(np.mean(np.logaddexp(0, s) - s * y), rel=1e-6)
    np.testing.assert_allclose(gradient[3:], (1 / (1 + np.exp(-s)) - y) / 3, rtol=1e-5, atol=1e-7)
