"""The core computes what SPEC.md says, to the bit, and what it says is the gradient."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import reference
from harness import EINVAL, ENUMERIC, OK, Device
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import (
    IDENTITY,
    LEAKY_RELU,
    MEAN_SQUARED_ERROR,
    RELU,
    SIGMOID,
    SIGMOID_CROSS_ENTROPY,
    SOFTMAX_CROSS_ENTROPY,
    TANH,
    Learner,
)
from reference_layers import AVERAGE_POOL, F32, MAX_POOL, Layer, dense, learner_values, split
from small_nets import SMALL, conv, networks, pool, sample_of, weighted, weights_of, with_learning

Net = tuple[list[Layer], int]
NETS = {
    "1-32-32-1 tanh": ([dense(1, 32, TANH), dense(32, 32, TANH), dense(32, 1, IDENTITY)], MEAN_SQUARED_ERROR),
    "3-7-5-4 mixed": ([dense(3, 7, LEAKY_RELU), dense(7, 5, SIGMOID), dense(5, 4, IDENTITY)], SOFTMAX_CROSS_ENTROPY),
    "9-17-8-3 relu": ([dense(9, 17, RELU), dense(17, 8, RELU), dense(8, 3, IDENTITY)], SOFTMAX_CROSS_ENTROPY),
    "6-8 sigmoid out": ([dense(6, 8, SIGMOID)], MEAN_SQUARED_ERROR),
    "2-1-1-2 thin": ([dense(2, 1, TANH), dense(1, 1, LEAKY_RELU), dense(1, 2, TANH)], MEAN_SQUARED_ERROR),
    "frozen below": ([dense(4, 9, TANH, False), dense(9, 11, RELU), dense(11, 2, IDENTITY)], MEAN_SQUARED_ERROR),
    "frozen between": ([dense(4, 9, TANH), dense(9, 11, SIGMOID, False), dense(11, 2, IDENTITY)], MEAN_SQUARED_ERROR),
    "frozen above": ([dense(4, 9, LEAKY_RELU), dense(9, 3, IDENTITY, False)], SOFTMAX_CROSS_ENTROPY),
    "all frozen": ([dense(4, 9, LEAKY_RELU, False), dense(9, 3, IDENTITY, False)], MEAN_SQUARED_ERROR),
}
NETS |= {name: (layers, i % 3) for i, (name, layers) in enumerate(SMALL.items())}
NETS |= {
    "dense to bits": ([dense(5, 7, TANH), dense(7, 4, IDENTITY)], SIGMOID_CROSS_ENTROPY),
    "many channels": (
        [conv((3, 3, 18), 17, 2, 1, True, TANH), conv((3, 3, 17), 19, 3, 2, True, LEAKY_RELU), dense(76, 2, IDENTITY)],
        MEAN_SQUARED_ERROR,
    ),
    "ends in a pool": ([conv((4, 4, 1), 3, 2, 1, False, IDENTITY), pool(MAX_POOL, (3, 3, 3), 3, 1)], SOFTMAX_CROSS_ENTROPY),
    "begins with a pool": ([pool(AVERAGE_POOL, (6, 6, 2), 4, 3, True), dense(8, 2, IDENTITY)], SIGMOID_CROSS_ENTROPY),
}
each_net = pytest.mark.parametrize("net", NETS)
STEPS = 25


def same(a: F32, b: F32) -> bool:
    return a.tobytes() == b.tobytes()


@each_net
@pytest.mark.parametrize("clip", [0.0, 0.3])
def test_steps_on_single_samples_give_the_bits_of_the_spec(core: Any, net: str, clip: float) -> None:
    layers, loss = NETS[net]
    rng = np.random.default_rng(1)
    theta = weights_of(layers, rng)
    device, learner = Device(core, layers, loss, theta, clip), Learner(layers, loss, theta.copy(), clip)
    for _ in range(STEPS):
        x, y = sample_of(layers, loss, rng)
        code, before = device.learn(x, y, 0.05)
        assert code == OK
        assert before == learner.learn(x, y, 0.05)
    assert same(device.weights, learner.theta)
    assert same(device.weights, theta) == (net == "all frozen")
    x, _ = sample_of(layers, loss, rng)
    assert same(device.infer(x)[1], learner.forward(x)[-1])


@each_net
@pytest.mark.parametrize("clip", [0.0, 0.3])
def test_mini_batches_give_the_bits_of_the_spec(core: Any, net: str, clip: float) -> None:
    layers, loss = NETS[net]
    rng = np.random.default_rng(2)
    theta = weights_of(layers, rng)
    device, learner = Device(core, layers, loss, theta, clip), Learner(layers, loss, theta.copy(), clip)
    mine, theirs = np.zeros_like(theta), np.zeros_like(theta)
    for batch in (5, 5, 1, 7, 3):
        for _ in range(batch):
            x, y = sample_of(layers, loss, rng)
            assert device.accumulate(x, y, theirs) == (OK, learner.accumulate(x, y, mine))
        assert same(mine, theirs)
        assert device.step(theirs, 0.3, batch) == OK
        learner.step(mine, 0.3, batch)
        assert not theirs.any()
    assert same(device.weights, learner.theta)


@pytest.mark.slow
@settings(max_examples=120)
@given(
    networks(), st.integers(0, 1 << 32), st.sampled_from([0.0, 0.2]), st.integers(1, 4), st.sampled_from([0.01, 0.1, 3.0]),
)  # fmt: skip
def test_random_networks_give_the_bits_of_the_spec(
    core: Any, net: Net, seed: int, clip: float, batch: int, rate: float
) -> None:
    layers, loss = net
    rng = np.random.default_rng(seed)
    theta = weights_of(layers, rng)
    device, learner = Device(core, layers, loss, theta, clip), Learner(layers, loss, theta.copy(), clip)
    assert device.bytes == 4 * learner_values(layers)
    mine, theirs = np.zeros_like(theta), np.zeros_like(theta)
    for step in range(STEPS):
        x, y = sample_of(layers, loss, rng)
        code, before = device.learn(x, y, rate) if batch == 1 else device.accumulate(x, y, theirs)
        try:
            expected = learner.learn(x, y, rate) if batch == 1 else learner.accumulate(x, y, mine)
        except reference.Bad:
            assert code == ENUMERIC
            continue
        except reference.Dead:
            assert code == ENUMERIC
            break
        assert (code, before) == (OK, expected)
        if batch > 1 and step % batch == batch - 1:
            assert same(mine, theirs)
            assert device.step(theirs, rate, batch) == OK
            learner.step(mine, rate, batch)
    assert same(device.weights, learner.theta)


SUBSETS = list(product([True, False], repeat=weighted(SMALL["separable"])))


@pytest.mark.parametrize("learns", SUBSETS, ids=lambda learns: "".join("f" if not one else "l" for one in learns))
def test_whatever_layers_are_frozen_keep_their_bytes_and_pass_the_gradient_on(core: Any, learns: tuple[bool, ...]) -> None:
    free, loss = NETS["separable"]
    layers = with_learning(free, learns)
    rng = np.random.default_rng(5)
    theta = weights_of(free, rng)
    first = sample_of(free, loss, rng)
    device, one = Device(core, layers, loss, theta), Device(core, free, loss, theta)
    learner = Learner(layers, loss, theta.copy())
    assert device.bytes == 4 * learner_values(layers)
    assert device.learn(*first, 0.05) == one.learn(*first, 0.05) == (OK, learner.learn(*first, 0.05))
    for layer, *weights in zip(layers, *(split(free, w) for w in (device.weights, one.weights, theta)), strict=True):
        ours, all_free, before = (np.concatenate([kernel.reshape(-1), bias]) for kernel, bias in weights)
        assert same(ours, all_free if layer.learns else before)
    mine, theirs = np.zeros_like(theta), np.zeros_like(theta)
    for _ in range(5):
        x, y = sample_of(free, loss, rng)
        assert device.learn(x, y, 0.05) == (OK, learner.learn(x, y, 0.05))
        assert device.accumulate(x, y, theirs) == (OK, learner.accumulate(x, y, mine))
        assert same(mine, theirs)
    assert same(device.weights, learner.theta)


def wide(side: int) -> list[Layer]:
    """One weight and one bias at side x side windows."""
    return [conv((side, side, 1), 1, 1, 1, True, IDENTITY)]


@pytest.mark.parametrize("side", [1, 3])
def test_rates_and_windows_tighten_the_guard_as_in_the_spec(core: Any, side: int) -> None:
    layers = wide(side)
    theta = np.zeros(2, np.float32)
    x = np.ones(side * side, np.float32)
    codes = set()
    for exponent in np.arange(22.0, 30.0, 0.25):
        y = np.zeros(side * side, np.float32)
        y[-1] = 2.0**exponent
        device, learner = Device(core, layers, MEAN_SQUARED_ERROR, theta), Learner(layers, MEAN_SQUARED_ERROR, theta.copy())
        code, _ = device.learn(x, y, 2.0**24)
        try:
            learner.learn(x, y, 2.0**24)
            assert code == OK
        except reference.Dead:
            assert code == ENUMERIC
            assert device.learn(x, x, 0.1)[0] == ENUMERIC
        codes.add(code)
        assert same(device.weights, learner.theta)
    assert codes == {OK, ENUMERIC}


@pytest.mark.parametrize("values", [[-0.0, 0, -1, 0], [0, -0.0, -0.0, -1], [-1, -2, -0.0, 0]])
def test_a_max_pool_gives_the_first_of_the_largest_values(core: Any, values: list[float]) -> None:
    layers = [pool(MAX_POOL, (2, 2, 1), 2, 1)]
    x = np.array(values, np.float32)
    code, y = Device(core, layers, MEAN_SQUARED_ERROR, np.zeros(0, np.float32)).infer(x)
    assert code == OK
    assert same(y, x[np.argmax(x)])
    assert same(y, Learner(layers, MEAN_SQUARED_ERROR, np.zeros(0, np.float32)).forward(x)[-1])


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e6, 1e14])
def test_clip_bounds_the_norm_of_the_gradient_at_the_output_and_keeps_its_direction(core: Any, scale: float) -> None:
    layers = [dense(1, 7, IDENTITY)]
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


def test_evaluate_gives_the_loss_that_learn_reports_and_learns_nothing(core: Any) -> None:
    layers, loss = NETS["3-7-5-4 mixed"]
    rng = np.random.default_rng(6)
    theta = weights_of(layers, rng)
    x, y = sample_of(layers, loss, rng)
    device = Device(core, layers, loss, theta)
    evaluated = device.evaluate(x, y)
    assert same(device.weights, theta)
    assert device.learn(x, y, 0.1) == evaluated


def test_a_rate_of_zero_learns_nothing(core: Any) -> None:
    layers, loss = NETS["1-32-32-1 tanh"]
    rng = np.random.default_rng(7)
    theta = weights_of(layers, rng)
    device = Device(core, layers, loss, theta)
    assert device.learn(*sample_of(layers, loss, rng), 0.0)[0] == OK
    assert same(device.weights, theta)
    assert device.learn(*sample_of(layers, loss, rng), -0.01)[0] == EINVAL


def test_memory_of_a_learner_is_its_outputs_and_room_for_one_gradient(core: Any) -> None:
    layers, loss = NETS["1-32-32-1 tanh"]
    device = Device(core, layers, loss, np.zeros(1153, np.float32))
    assert core.tinyfl_plan_weights(device.plan) == 1153
    assert device.bytes == 4 * (32 + 32 + 1 + 32) == 388
