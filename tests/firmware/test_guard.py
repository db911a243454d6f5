"""What the core does with numbers and calls that it must not follow."""

import ctypes
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
import numpy as np
import pytest
from harness import EINVAL, EMEMORY, ENUMERIC, EPLAN, OK, CLayer, CPlan, Device, address, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import (
    IDENTITY,
    LIMIT,
    MEAN_SQUARED_ERROR,
    RELU,
    SIGMOID_CROSS_ENTROPY,
    SOFTMAX_CROSS_ENTROPY,
    TANH,
)
from reference_layers import AVERAGE_POOL, F32, MAX_POOL, Layer, dense, plan_bytes, read_plan
from small_nets import conv, depthwise, networks, pool, weights_of

LAYERS = [dense(2, 5, TANH), dense(5, 3, IDENTITY)]
BAD = [np.nan, np.inf, -np.inf, 2.0**52, -3.4e38]
ONE = np.ones(1, np.float32)


def theta_of(layers: list[Layer]) -> F32:
    count = sum(layer.weights for layer in layers)
    return np.random.default_rng(1).uniform(-1, 1, count).astype(np.float32)


@pytest.mark.parametrize("loss", [MEAN_SQUARED_ERROR, SOFTMAX_CROSS_ENTROPY, SIGMOID_CROSS_ENTROPY])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("where", ["x", "y"])
def test_a_bad_sample_is_refused_and_leaves_the_weights_as_they_were(core: Any, loss: int, bad: float, where: str) -> None:
    theta = theta_of(LAYERS)
    device = Device(core, LAYERS, loss, theta)
    x, y = np.array([0.5, -1], np.float32), np.array([0, 1, 0], np.float32)
    spoilt = {"x": x.copy(), "y": y.copy()}
    spoilt[where][1] = bad
    gradient = np.zeros_like(theta)
    assert device.learn(spoilt["x"], spoilt["y"], 0.1) == (ENUMERIC, 0)
    assert device.accumulate(spoilt["x"], spoilt["y"], gradient) == (ENUMERIC, 0)
    assert device.evaluate(spoilt["x"], spoilt["y"]) == (ENUMERIC, 0)
    assert not gradient.any()
    assert device.weights.tobytes() == theta.tobytes()
    assert device.learn(x, y, 0.1)[0] == OK


def test_the_limit_itself_is_refused_and_the_number_below_it_is_not(core: Any) -> None:
    device = Device(core, [dense(1, 1, IDENTITY)], MEAN_SQUARED_ERROR, np.zeros(2, np.float32))
    for sign in (1, -1):
        assert device.infer(sign * LIMIT * ONE)[0] == ENUMERIC
        assert device.infer(sign * np.nextafter(LIMIT, np.float32(0)) * ONE)[0] == OK


def test_an_activation_beyond_the_limit_is_refused(core: Any) -> None:
    layers = [dense(1, 1, RELU), dense(1, 1, IDENTITY)]
    theta = np.array([1e10, 0, 1, 0], np.float32)
    device = Device(core, layers, MEAN_SQUARED_ERROR, theta)
    x = np.array([1e6], np.float32)
    assert device.infer(x)[0] == ENUMERIC
    assert np.isnan(device.infer(x)[1]).all()
    assert device.learn(x, ONE, 0.1)[0] == ENUMERIC
    assert device.weights.tobytes() == theta.tobytes()


def test_a_deeper_delta_that_blows_up_stops_the_learner_until_it_is_initialised_again(core: Any) -> None:
    layers = [dense(1, 1, IDENTITY), dense(1, 1, IDENTITY)]
    device = Device(core, layers, MEAN_SQUARED_ERROR, np.array([0, 1e-9, 1e14, 0], np.float32))
    x, y = ONE, np.zeros(1, np.float32)
    gradient = np.zeros(4, np.float32)
    assert device.learn(x, y, 1e-9)[0] == ENUMERIC
    assert device.infer(x)[0] == ENUMERIC
    assert device.evaluate(x, y)[0] == ENUMERIC
    assert device.learn(x, y, 1e-9)[0] == ENUMERIC
    assert device.accumulate(x, y, gradient)[0] == ENUMERIC
    assert device.step(gradient, 0.1, 1) == ENUMERIC
    device.weights[:] = 0.5
    assert device.initialise() == OK
    assert device.learn(x, y, 0.1)[0] == OK


def test_a_step_beyond_the_limit_is_refused_and_changes_nothing(core: Any) -> None:
    theta = theta_of(LAYERS)
    device = Device(core, LAYERS, MEAN_SQUARED_ERROR, theta)
    for bad in BAD:
        gradient = np.zeros_like(theta)
        gradient[7] = bad
        before = gradient.tobytes()
        assert device.step(gradient, 1.0, 1) == ENUMERIC
        assert gradient.tobytes() == before
    assert device.weights.tobytes() == theta.tobytes()
    assert device.step(np.ones_like(theta), 1.0, 1) == OK


big = st.floats(-(2.0**50), 2.0**50, width=32)
rates = st.one_of(st.sampled_from([0.01, 1.0, 1e6, 1e15]), st.floats(0, 2.0**49, width=32))


@pytest.mark.slow
@settings(max_examples=300)
@given(st.lists(st.tuples(big, big, big, big, big, rates), min_size=1, max_size=20), st.sampled_from([0.0, 1.0, 1e12]))
def test_no_weight_becomes_infinite_under_hostile_but_finite_samples(
    core: Any, samples: list[tuple[float, ...]], clip: float
) -> None:
    layers = [dense(2, 3, RELU), dense(3, 3, IDENTITY)]
    device = Device(core, layers, MEAN_SQUARED_ERROR, theta_of(layers), clip)
    for *values, rate in samples:
        code, _ = device.learn(np.array(values[:2], np.float32), np.array(values[2:], np.float32), rate)
        assert code in (OK, ENUMERIC)
        assert np.isfinite(device.weights).all()
        if code == ENUMERIC:
            device.initialise()


windowed = [
    [conv((2, 2, 1), 2, 2, 1, True, RELU), pool(AVERAGE_POOL, (2, 2, 2), 2, 1, True), dense(8, 1, IDENTITY)],
    [depthwise((2, 2, 1), 2, 2, 1, True, IDENTITY), pool(MAX_POOL, (2, 2, 2), 2, 1), conv((1, 1, 2), 1, 1, 1, True, IDENTITY)],
]


@pytest.mark.slow
@settings(max_examples=300)
@given(
    st.sampled_from(windowed), st.lists(st.tuples(big, big, big, big, big, rates), min_size=1, max_size=20),
    st.sampled_from([0.0, 1.0, 1e12]),
)  # fmt: skip
def test_no_weight_of_a_convolution_becomes_infinite_under_hostile_but_finite_samples(
    core: Any, layers: list[Layer], samples: list[tuple[float, ...]], clip: float
) -> None:
    device = Device(core, layers, MEAN_SQUARED_ERROR, weights_of(layers, np.random.default_rng(1)), clip)
    for *values, rate in samples:
        code, _ = device.learn(np.array(values[:4], np.float32), np.array(values[4:], np.float32), rate)
        assert code in (OK, ENUMERIC)
        assert np.isfinite(device.weights).all()
        if code == ENUMERIC:
            device.initialise()


@pytest.mark.parametrize("side", [1, 2, 3, 5, 15, 16, 17])
def test_an_average_of_values_just_below_the_limit_is_below_it_too(core: Any, side: int) -> None:
    layers = [pool(AVERAGE_POOL, (side, side, 1), side, 1)]
    device = Device(core, layers, MEAN_SQUARED_ERROR, np.zeros(0, np.float32))
    code, average = device.infer(np.full(side * side, np.nextafter(LIMIT, np.float32(0)), np.float32))
    assert code == OK
    assert average < LIMIT


def test_plans_that_contradict_themselves_are_refused(core: Any) -> None:
    good = plan_of(LAYERS, MEAN_SQUARED_ERROR)
    assert core.tinyfl_plan_check(good) == OK
    assert core.tinyfl_plan_check(None) == EINVAL
    assert core.tinyfl_plan_check(CPlan(None, 1, 0)) == EINVAL
    one, wide = dense(1, 1, 0), conv((5, 5, 4), 3, 3, 1, False, 0)
    bad = {
        "no layer": CPlan((CLayer * 1)(), 0, 0),
        "65 layers": plan_of([one] * 65, 0),
        "no input": plan_of([dense(0, 3, 0)], 0),
        "no output": plan_of([dense(3, 0, 0)], 0),
        "widths that do not meet": plan_of([dense(2, 3, 0), dense(4, 1, 0)], 0),
        "unknown kind": plan_of([replace(one, kind=5)], 0),
        "unknown activation": plan_of([dense(2, 3, 5)], 0),
        "unknown loss": plan_of([dense(2, 3, 0)], 4),
        "neither learns nor does not": plan_of([replace(one, learns=2)], 0),
        "neither same nor valid": plan_of([replace(wide, same=2)], 0),
        "no window": plan_of([replace(wide, height=2)], 0),
        "multiplier that is none": plan_of([replace(depthwise((5, 5, 4), 2, 3, 1, False, 0), outputs=6)], 0),
        "pool that learns": plan_of([replace(pool(MAX_POOL, (4, 4, 2), 2, 2), learns=True)], 0),
        "pool with an activation": plan_of([replace(pool(MAX_POOL, (4, 4, 2), 2, 2), activation=1)], 0),
        "pool with other channels": plan_of([replace(pool(MAX_POOL, (4, 4, 2), 2, 2), outputs=3)], 0),
        "too many weights": plan_of([dense(65535, 257, 0)], 0),
        "too many weights together": plan_of([dense(65534, 256, 0), dense(256, 1, 0)], 0),
        "too many weights of a kernel": plan_of([conv((255, 255, 65535 // 255), 2, 255, 1, True, 0)], 0),
        "too many inputs": plan_of([replace(wide, height=65535, width=65535, channels=65535)], 0),
        "too many inputs, few outputs": plan_of([pool(MAX_POOL, (4096, 4097, 1), 255, 255)], 0),
        "too many outputs": plan_of([replace(wide, height=1024, width=1024, channels=1, outputs=17, same=True)], 0),
        "too many outputs together": plan_of(
            [conv((1024, 1024, 1), 8, 1, 1, True, 0), conv((1024, 1024, 8), 9, 1, 1, True, 0)], 0
        ),
    }
    for of_dense in ("height", "width", "kernel_height", "kernel_width", "stride_height", "stride_width", "same"):
        bad[f"dense with {of_dense}"] = plan_of([replace(one, **{of_dense: 2 if of_dense != "same" else 1})], 0)
    for side in ("height", "width", "channels", "outputs", "kernel_height", "kernel_width", "stride_height", "stride_width"):
        bad[f"no {side}"] = plan_of([replace(wide, **{side: 0})], 0)
    for name, plan in bad.items():
        assert core.tinyfl_plan_check(plan) == EPLAN, name
        assert core.tinyfl_plan_weights(plan) == core.tinyfl_learner_bytes(plan) == 0, name
        assert core.tinyfl_plan_inputs(plan) == core.tinyfl_plan_outputs(plan) == 0, name
        assert core.tinyfl_learner_init(None, plan, None, None, 0, 0.0) == EPLAN, name
    assert core.tinyfl_plan_check(plan_of([one] * 64, 0)) == OK
    assert core.tinyfl_plan_check(plan_of([conv((1024, 1024, 1), 16, 1, 1, True, 0)], 0)) == OK
    assert core.tinyfl_plan_weights(plan_of([dense(65535, 256, 0)], 0)) == 1 << 24
    assert core.tinyfl_plan_weights(plan_of([dense(4095, 4095, 0), dense(4095, 1, 0)], 0)) == 1 << 24


@pytest.mark.slow
@settings(max_examples=400)
@given(networks(), st.data())
def test_a_plans_bytes_are_taken_just_if_the_page_takes_them(
    core: Any, net: tuple[list[Layer], int], data: st.DataObject
) -> None:
    held = bytearray(plan_bytes(*net))
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, 8) | st.integers(0, len(held) - 1))
        held[at] = data.draw(st.integers(0, 5) | st.integers(0, 255))
    held = held[: data.draw(st.integers(0, len(held)) | st.just(len(held)))]
    try:
        layers, loss = read_plan(bytes(held))
    except ValueError:
        loss = None
    plan, room = CPlan(), (ctypes.c_uint16 * (len(held) // 2 + 1))()
    ctypes.memmove(room, bytes(held), len(held))
    code = core.tinyfl_plan_read(plan, room, len(held))
    assert code == (EPLAN if loss is None else OK)
    assert (core.tinyfl_plan_check(plan) == OK) == (loss is not None)
    if loss is not None:
        assert core.tinyfl_plan_weights(plan) == sum(layer.weights for layer in layers)
        assert core.tinyfl_plan_outputs(plan) == layers[-1].values
        assert core.tinyfl_plan_read(plan, ctypes.c_void_p(ctypes.addressof(room) + 1), len(held)) == EINVAL


def test_every_other_argument_is_refused_for_its_reason(core: Any) -> None:
    device = Device(core, LAYERS, MEAN_SQUARED_ERROR, theta_of(LAYERS))
    x, y, out = np.zeros(2, np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32)
    gradient, loss = np.zeros_like(device.weights), np.zeros(1, np.float32)
    plan, learner, size = device.plan, device.learner, device.bytes
    w, m, g = address(device.weights), address(device.memory), address(gradient)
    odd = ctypes.c_void_p(m.value + 2)

    init = core.tinyfl_learner_init
    assert init(None, plan, w, m, size, 0.0) == EINVAL
    assert init(learner, None, w, m, size, 0.0) == EINVAL
    assert init(learner, plan, None, m, size, 0.0) == EINVAL
    assert init(learner, plan, w, odd, size, 0.0) == EINVAL
    for clip in (-1.0, np.nan, np.inf, 2.0**50):
        assert init(learner, plan, w, m, size, clip) == EINVAL
    assert init(learner, plan, w, m, size - 1, 0.0) == EMEMORY
    for bad in [*BAD, LIMIT]:
        device.weights[3] = bad
        assert init(learner, plan, w, m, size, 0.0) == ENUMERIC
    device.weights[3] = 0
    assert init(learner, plan, w, m, size, 0.0) == OK

    for argument in (None, odd):
        assert core.tinyfl_infer(learner, argument, address(out)) == EINVAL
        assert core.tinyfl_infer(learner, address(x), argument) == EINVAL
        assert core.tinyfl_evaluate(learner, address(x), address(y), argument, None) == EINVAL
        assert core.tinyfl_learn(learner, argument, address(y), 0.1, None) == EINVAL
        assert core.tinyfl_learn(learner, address(x), argument, 0.1, None) == EINVAL
        assert core.tinyfl_accumulate(learner, address(x), address(y), argument, None) == EINVAL
        assert core.tinyfl_step(learner, argument, 0.1, 1) == EINVAL
    assert core.tinyfl_learn(learner, address(x), address(y), 0.1, odd) == EINVAL
    assert core.tinyfl_evaluate(learner, address(x), address(y), address(loss), odd) == EINVAL
    assert core.tinyfl_infer(None, address(x), address(out)) == EINVAL
    assert core.tinyfl_learn(None, address(x), address(y), 0.1, None) == EINVAL
    assert core.tinyfl_step(None, g, 0.1, 1) == EINVAL
    assert core.tinyfl_step(learner, g, 0.1, 0) == EINVAL
    for rate in (-0.1, np.nan, np.inf, 2.0**50):
        assert core.tinyfl_learn(learner, address(x), address(y), rate, None) == EINVAL
        assert core.tinyfl_step(learner, g, rate, 1) == EINVAL
    assert core.tinyfl_learn(learner, address(x), address(y), 0.1, None) == OK


@pytest.fixture(scope="module")
def fuzz(cc: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources = [harness.HERE / "fuzz.c", *harness.LEARNER]
    return harness.compile_c(cc, tmp_path_factory.mktemp("fuzz") / "fuzz", sources, *harness.SANITIZED)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_million_hostile_calls_return_documented_codes_and_keep_to_their_buffers(fuzz: Path, seed: int) -> None:
    answers = harness.run(fuzz, seed, 500_000).split()
    assert all(int(count) > 0 for count in answers[1::2]), answers
