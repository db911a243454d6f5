"""The core computes what SPEC.md says, to the bit, and what it says is the gradient."""

from typing import Any

import numpy as np
import pytest
import reference
from harness import EINVAL, ENUMERIC, OK, Device
from numpy.typing import NDArray
from reference import (
    F32,
    IDENTITY,
    LEAKY_RELU,
    MEAN_SQUARED_ERROR,
    RELU,
    SIGMOID,
    SOFTMAX_CROSS_ENTROPY,
    TANH,
    Layer,
    Learner,
)

F64 = NDArray[np.float64]

NETS = {
    "1-32-32-1 tanh": ([Layer(1, 32, TANH), Layer(32, 32, TANH), Layer(32, 1, IDENTITY)], MEAN_SQUARED_ERROR),
    "3-7-5-4 mixed": ([Layer(3, 7, LEAKY_RELU), Layer(7, 5, SIGMOID), Layer(5, 4, IDENTITY)], SOFTMAX_CROSS_ENTROPY),
    "9-17-8-3 relu": ([Layer(9, 17, RELU), Layer(17, 8, RELU), Layer(8, 3, IDENTITY)], SOFTMAX_CROSS_ENTROPY),
    "6-8 sigmoid out": ([Layer(6, 8, SIGMOID)], MEAN_SQUARED_ERROR),
    "2-1-1-2 thin": ([Layer(2, 1, TANH), Layer(1, 1, LEAKY_RELU), Layer(1, 2, TANH)], MEAN_SQUARED_ERROR),
    "frozen below": ([Layer(4, 9, TANH, False), Layer(9, 11, RELU), Layer(11, 2, IDENTITY)], MEAN_SQUARED_ERROR),
    "frozen between": ([Layer(4, 9, TANH), Layer(9, 11, SIGMOID, False), Layer(11, 2, IDENTITY)], MEAN_SQUARED_ERROR),
    "frozen above": ([Layer(4, 9, LEAKY_RELU), Layer(9, 3, IDENTITY, False)], SOFTMAX_CROSS_ENTROPY),
    "all frozen": ([Layer(4, 9, LEAKY_RELU, False), Layer(9, 3, IDENTITY, False)], MEAN_SQUARED_ERROR),
}
nets = pytest.mark.parametrize("net", NETS)


def initial(layers: list[Layer], rng: np.random.Generator) -> F32:
    return np.concatenate([rng.uniform(-1, 1, layer.weights) / np.sqrt(layer.inputs) for layer in layers], dtype=np.float32)


def draw(layers: list[Layer], loss: int, rng: np.random.Generator) -> tuple[F32, F32]:
    x = rng.uniform(-2, 2, layers[0].inputs).astype(np.float32)
    if loss == SOFTMAX_CROSS_ENTROPY:
        return x, np.eye(layers[-1].outputs, dtype=np.float32)[rng.integers(layers[-1].outputs)]
    return x, rng.uniform(-2, 2, layers[-1].outputs).astype(np.float32)


def same(a: F32, b: F32) -> bool:
    return a.tobytes() == b.tobytes()


@nets
@pytest.mark.parametrize("clip", [0.0, 0.3])
def test_steps_on_single_samples_give_the_bits_of_the_spec(core: Any, net: str, clip: float) -> None:
    layers, loss = NETS[net]
    rng = np.random.default_rng(1)
    theta = initial(layers, rng)
    device, learner = Device(core, layers, loss, theta, clip), Learner(layers, loss, theta.copy(), clip)
    for _ in range(150):
        x, y = draw(layers, loss, rng)
        code, before = device.learn(x, y, 0.05)
        assert code == OK
        assert before == learner.learn(x, y, 0.05)
    assert same(device.weights, learner.theta)
    assert same(device.weights, theta) == (net == "all frozen")
    x, _ = draw(layers, loss, rng)
    assert same(device.infer(x)[1], learner.forward(x)[-1])


@nets
@pytest.mark.parametrize("clip", [0.0, 0.3])
def test_mini_batches_give_the_bits_of_the_spec(core: Any, net: str, clip: float) -> None:
    layers, loss = NETS[net]
    rng = np.random.default_rng(2)
    theta = initial(layers, rng)
    device, learner = Device(core, layers, loss, theta, clip), Learner(layers, loss, theta.copy(), clip)
    mine, theirs = np.zeros_like(theta), np.zeros_like(theta)
    for batch in (5, 5, 1, 7, 3):
        for _ in range(batch):
            x, y = draw(layers, loss, rng)
            assert device.accumulate(x, y, theirs) == (OK, learner.accumulate(x, y, mine))
        assert same(mine, theirs)
        assert device.step(theirs, 0.3, batch) == OK
        learner.step(mine, 0.3, batch)
        assert not theirs.any()
    assert same(device.weights, learner.theta)


def test_rates_beyond_one_tighten_the_guard_as_in_the_spec(core: Any) -> None:
    layers = [Layer(1, 1, IDENTITY)]
    theta = np.zeros(2, np.float32)
    x = np.ones(1, np.float32)
    for exponent in (24.0, 24.5, 25.0, 25.5):
        y = np.full(1, 2.0**exponent, np.float32)
        device, learner = (
            Device(core, layers, MEAN_SQUARED_ERROR, theta),
            Learner(layers, MEAN_SQUARED_ERROR, theta.copy()),
        )
        code, _ = device.learn(x, y, 2.0**24)
        try:
            learner.learn(x, y, 2.0**24)
            assert code == OK
        except reference.Dead:
            assert code == ENUMERIC
            assert device.learn(x, x, 0.1)[0] == ENUMERIC
        assert same(device.weights, learner.theta)


ACTIVATIONS = (
    lambda s: s,
    lambda s: np.maximum(s, 0),
    lambda s: np.where(s > 0, s, 0.1 * s),
    np.tanh,
    lambda s: 1 / (1 + np.exp(-s)),
)


def exact_loss(layers: list[Layer], loss: int, theta: F64, x: F64, y: F64) -> float:
    """The loss in float64, by matrix products."""
    at = 0
    for layer in layers:
        kernel = theta[at : at + layer.inputs * layer.outputs].reshape(layer.inputs, layer.outputs)
        at += layer.weights
        x = ACTIVATIONS[layer.activation](x @ kernel + theta[at - layer.outputs : at])
    if loss == MEAN_SQUARED_ERROR:
        return float(np.mean((x - y) ** 2))
    return float(-y @ (x - x.max() - np.log(np.exp(x - x.max()).sum())))


@pytest.mark.parametrize("loss", [MEAN_SQUARED_ERROR, SOFTMAX_CROSS_ENTROPY])
@pytest.mark.parametrize("activation", [IDENTITY, RELU, LEAKY_RELU, TANH, SIGMOID])
def test_gradient_of_every_activation_and_loss_is_the_slope_of_the_loss(core: Any, activation: int, loss: int) -> None:
    layers = [Layer(3, 9, activation), Layer(9, 5, activation), Layer(5, 4, activation)]
    rng = np.random.default_rng(3 + activation)
    theta = initial(layers, rng)
    x, y = draw(layers, loss, rng)
    gradient = np.zeros_like(theta)
    code, value = Device(core, layers, loss, theta).accumulate(x, y, gradient)
    assert code == OK

    wide, wide_x, wide_y = theta.astype(np.float64), x.astype(np.float64), y.astype(np.float64)
    assert value == pytest.approx(exact_loss(layers, loss, wide, wide_x, wide_y), rel=1e-6)
    slope = np.empty_like(wide)
    for i in range(len(wide)):
        step = np.zeros_like(wide)
        step[i] = 1e-6
        up, down = (exact_loss(layers, loss, wide + s, wide_x, wide_y) for s in (step, -step))
        slope[i] = (up - down) / 2e-6
    np.testing.assert_allclose(gradient, slope, rtol=2e-5, atol=2e-7)


def test_a_soft_target_is_a_distribution_too(core: Any) -> None:
    layers = [Layer(1, 3, IDENTITY)]
    theta = np.array([1, -2, 0.5, 0, 1, 2], np.float32)
    x, y = np.array([0.7], np.float32), np.array([0.2, 0.5, 0.3], np.float32)
    gradient = np.zeros_like(theta)
    code, loss = Device(core, layers, SOFTMAX_CROSS_ENTROPY, theta).accumulate(x, y, gradient)
    assert code == OK
    assert loss == pytest.approx(exact_loss(layers, SOFTMAX_CROSS_ENTROPY, theta.astype(float), x, y), rel=1e-6)
    assert abs(gradient[3:].sum()) < 1e-6


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e6, 1e14])
def test_clip_bounds_the_norm_of_the_gradient_at_the_output_and_keeps_its_direction(core: Any, scale: float) -> None:
    layers = [Layer(1, 7, IDENTITY)]
    theta = np.zeros(14, np.float32)
    x = np.ones(1, np.float32)
    y = (scale * np.random.default_rng(4).uniform(-1, 1, 7)).astype(np.float32)
    free, bound = np.zeros_like(theta), np.zeros_like(theta)
    assert Device(core, layers, MEAN_SQUARED_ERROR, theta).accumulate(x, y, free)[0] == OK
    assert Device(core, layers, MEAN_SQUARED_ERROR, theta, 0.25).accumulate(x, y, bound)[0] == OK
    norm = np.linalg.norm(free[7:].astype(np.float64))
    expected = free[7:] * min(1.0, 0.25 / norm)
    np.testing.assert_allclose(bound[7:], expected, rtol=1e-6)
    assert np.linalg.norm(bound[7:].astype(np.float64)) <= 0.25 * (1 + 1e-6) or norm < 0.25


@pytest.mark.parametrize("frozen", range(3))
def test_a_frozen_layer_keeps_its_bytes_and_passes_the_gradient_on(core: Any, frozen: int) -> None:
    rng = np.random.default_rng(5)
    free = [Layer(3, 9, TANH), Layer(9, 6, SIGMOID), Layer(6, 2, IDENTITY)]
    layers = [Layer(a.inputs, a.outputs, a.activation, i != frozen) for i, a in enumerate(free)]
    theta = initial(free, rng)
    bounds = np.cumsum([0, *(layer.weights for layer in free)])
    kept = slice(bounds[frozen], bounds[frozen + 1])

    x, y = draw(free, MEAN_SQUARED_ERROR, rng)
    device, one = Device(core, layers, MEAN_SQUARED_ERROR, theta), Device(core, free, MEAN_SQUARED_ERROR, theta)
    device.learn(x, y, 0.1)
    one.learn(x, y, 0.1)
    assert same(device.weights[kept], theta[kept])
    moved = np.delete(np.arange(len(theta)), np.arange(len(theta))[kept])
    assert same(device.weights[moved], one.weights[moved])
    for _ in range(20):
        gradient = np.zeros_like(theta)
        device.accumulate(*draw(free, MEAN_SQUARED_ERROR, rng), gradient)
        assert not gradient[kept].any()
        device.step(gradient, 0.1, 1)
    assert same(device.weights[kept], theta[kept])


def test_evaluate_gives_the_loss_that_learn_reports_and_learns_nothing(core: Any) -> None:
    layers, loss = NETS["3-7-5-4 mixed"]
    rng = np.random.default_rng(6)
    theta = initial(layers, rng)
    x, y = draw(layers, loss, rng)
    device = Device(core, layers, loss, theta)
    evaluated = device.evaluate(x, y)
    assert same(device.weights, theta)
    assert device.learn(x, y, 0.1) == evaluated


def test_a_rate_of_zero_learns_nothing(core: Any) -> None:
    layers, loss = NETS["1-32-32-1 tanh"]
    rng = np.random.default_rng(7)
    theta = initial(layers, rng)
    device = Device(core, layers, loss, theta)
    assert device.learn(*draw(layers, loss, rng), 0.0)[0] == OK
    assert same(device.weights, theta)
    assert device.learn(*draw(layers, loss, rng), -0.01)[0] == EINVAL


def test_memory_of_a_learner_is_its_activations_and_two_delta_buffers(core: Any) -> None:
    layers, loss = NETS["1-32-32-1 tanh"]
    device = Device(core, layers, loss, np.zeros(1153, np.float32))
    assert core.tinyfl_plan_weights(device.plan) == 1153
    assert device.bytes == 4 * (32 + 32 + 1 + 2 * 32) == 516
