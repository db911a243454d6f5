"""What tinyfl.core hands to C: the same bits as a device alone, and nothing that does not fit."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import reference
from harness import ENUMERIC, EOVERSIZED, OK
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import IDENTITY, MEAN_SQUARED_ERROR, TANH, Layer, Learner

from tinyfl import core

LAYERS = [Layer(1, 9, TANH), Layer(9, 1, IDENTITY)]
PLAN = core.Plan([(layer.inputs, layer.outputs, layer.activation, True) for layer in LAYERS], MEAN_SQUARED_ERROR)
THETA = np.random.default_rng(1).uniform(-0.5, 0.5, PLAN.weights).astype(np.float32)
DEVICES = np.array([3, 2**32 - 1, 5, 0, 9], np.uint32)
LANES = [lanes for lanes in (1, 4, 8, 16) if lanes <= core.library().tinyfl_native_lanes()]


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("batch", [1, 4])
def test_a_cohort_of_the_native_fleet_learns_as_the_spec_says(lanes: int, batch: int) -> None:
    trained = core.train(
        PLAN, THETA, core.SineSource(2**63 + 5), DEVICES, 7,
        samples=10, batch=batch, passes=2, rate=0.02, each=True, engine=core.Engine(2, lanes),
    )  # fmt: skip
    total = np.zeros(PLAN.weights, np.int64)
    assert trained.updates is not None
    for device, phi in zip(DEVICES, trained.updates, strict=True):
        learner, gradient = Learner(LAYERS, MEAN_SQUARED_ERROR, THETA.copy()), np.zeros_like(THETA)
        for _ in range(2):
            for index in range(10):
                sample = reference.sine_sample(2**63 + 5, int(device), 7, index)
                x, y = (np.array([v], np.float32) for v in sample)
                if batch == 1:
                    learner.learn(x, y, 0.02)
                    continue
                learner.accumulate(x, y, gradient)
                if index % 4 == 3 or index == 9:
                    learner.step(gradient, 0.02, index % 4 + 1)
        assert phi.tobytes() == learner.theta.tobytes()
        total += reference.fixed(phi, THETA)
    np.testing.assert_array_equal(trained.sum, total)
    np.testing.assert_array_equal(trained.sum, sum(core.fixed(phi, THETA) for phi in trained.updates))


@pytest.mark.parametrize("lanes", LANES)
def test_a_bad_device_is_named_and_left_out_of_the_sum(lanes: int) -> None:
    plan = core.Plan([(1, 1, IDENTITY, True)], MEAN_SQUARED_ERROR)
    targets = np.array([[1], [np.nan], [3e5], [2]], np.float32)
    source = core.TableSource(np.ones((4, 1), np.float32), np.arange(4, dtype=np.int32)[:, None], targets=targets)
    trained = core.train(
        plan, np.zeros(2, np.float32), source, np.arange(4, dtype=np.uint32), 0,
        samples=1, rate=0.25, engine=core.Engine(1, lanes),
    )  # fmt: skip
    assert trained.code.tolist() == [OK, ENUMERIC, EOVERSIZED, OK]
    assert trained.sum.tolist() == [int(1.5 * 2**32)] * 2


def test_an_update_just_within_the_bound_counts_and_its_sum_is_exact() -> None:
    plan = core.Plan([(1, 1, IDENTITY, True)], MEAN_SQUARED_ERROR)
    count, change = 1000, np.nextafter(np.float32(1024), np.float32(0))
    source = core.TableSource(
        np.ones((1, 1), np.float32), np.zeros((count, 1), np.int32), targets=np.full((1, 1), 2 * change, np.float32)
    )
    trained = core.train(plan, np.zeros(2, np.float32), source, np.arange(count, dtype=np.uint32), 0, samples=1, rate=0.25)
    assert not trained.code.any()
    assert trained.sum.tolist() == [count * int(float(change) * 2**32)] * 2


def table(rows: Any, **others: Any) -> core.TableSource:
    return core.TableSource(np.zeros((4, 1), np.float32), np.asarray(rows, np.int32), **others)


TARGETS = np.zeros((4, 1), np.float32)
integers = st.integers(-(2**33), 2**33)


@settings(max_examples=200, deadline=None)
@given(st.lists(integers, min_size=6, max_size=6))
def test_rows_outside_the_table_are_refused(values: list[int]) -> None:
    rows = np.array(values, np.int64).astype(np.int32).reshape(3, 2)
    source = table(rows, targets=TARGETS)
    devices = np.arange(3, dtype=np.uint32)
    if ((rows >= 0) & (rows < 4)).all():
        core.train(PLAN, THETA, source, devices, 0, samples=2, rate=0.1)
    else:
        with pytest.raises(ValueError, match="rows"):
            core.train(PLAN, THETA, source, devices, 0, samples=2, rate=0.1)
        with pytest.raises(ValueError, match="rows"):
            core.adapt(PLAN, THETA, source, source, [1], stream=True, rate=0.1)


@settings(max_examples=200, deadline=None)
@given(integers)
def test_labels_outside_the_outputs_are_refused(label: int) -> None:
    plan = core.Plan([(1, 3, IDENTITY, True)], 1)
    labels = np.array([[0], [label]], np.int64).astype(np.int32)
    source = table([[0], [1]], labels=labels)
    arguments = (plan, np.zeros(6, np.float32), source, np.arange(2, dtype=np.uint32), 0)
    if 0 <= labels[1, 0] < 3:
        core.train(*arguments, samples=1, rate=0.1)
    else:
        with pytest.raises(ValueError, match="labels"):
            core.train(*arguments, samples=1, rate=0.1)


@pytest.mark.parametrize(
    "theta",
    [THETA[:-1], np.append(THETA, np.float32(0)), THETA.astype(np.float64), THETA[None], np.repeat(THETA, 2)[::2]],
    ids=["short", "long", "float64", "2-d", "strided"],
)
def test_a_theta_that_does_not_fit_is_refused(theta: Any) -> None:
    source = table(np.zeros((5, 1)), targets=TARGETS)
    with pytest.raises(ValueError, match="theta"):
        core.train(PLAN, theta, core.SineSource(1), DEVICES, 0, samples=1, rate=0.1)
    with pytest.raises(ValueError, match="theta"):
        core.adapt(PLAN, theta, source, source, [1], stream=True, rate=0.1)


@pytest.mark.parametrize(
    "change",
    [
        {"devices": DEVICES.astype(np.int64)},
        {"devices": DEVICES[None]},
        {"devices": np.zeros(core.MAX_SUMMED + 1, np.uint32)},
        {"samples": 0},
        {"batch": 0},
        {"passes": 0},
        {"engine": core.Engine(threads=-1)},
        {"engine": core.Engine(lanes=3)},
        {"engine": core.Engine(lanes=32)},
        {"plan": core.Plan([(2, 9, TANH, True), (9, 1, IDENTITY, True)], 0), "theta": np.zeros(37, np.float32)},
        {"source": table(np.zeros((5, 2)), targets=TARGETS)},
        {"source": table(np.zeros((4, 1)), targets=TARGETS)},
        {"source": table(np.zeros((5, 1)))},
        {"source": table(np.zeros((5, 1)), targets=TARGETS, labels=np.zeros((5, 1), np.int32))},
        {"source": table(np.zeros((5, 1)), targets=TARGETS[:3])},
        {"source": table(np.zeros((5, 1)), targets=TARGETS.astype(np.float64))},
        {"source": table(np.zeros((5, 1)), targets=TARGETS, gain=np.ones(4, np.float32))},
        {"source": table(np.zeros((5, 1)), labels=np.zeros((5, 2), np.int32))},
    ],
)
def test_a_call_that_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    call: dict[str, Any] = {
        "plan": PLAN, "theta": THETA, "source": core.SineSource(1), "devices": DEVICES, "round": 0,
        "samples": 1, "batch": 1, "passes": 1, "rate": 0.1,
    }  # fmt: skip
    core.train(**call)
    with pytest.raises(ValueError):
        core.train(**(call | change))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-3, 70000), st.integers(-3, 70000), st.integers(0, 255), st.booleans()), max_size=3),
    st.integers(0, 255),
)
def test_a_plan_is_one_that_the_core_can_run_or_is_refused(layers: list[tuple[Any, ...]], loss: int) -> None:
    fits = (
        len(layers) > 0
        and all(0 < a < 65536 and 0 < b < 65536 and c < 5 for a, b, c, _ in layers)
        and all(above[0] == below[1] for below, above in pairwise(layers))
        and sum((a + 1) * b for a, b, _, _ in layers) <= 1 << 24
        and loss < 2
    )
    if fits:
        assert core.Plan(layers, loss).weights == sum((a + 1) * b for a, b, _, _ in layers)
    else:
        with pytest.raises(ValueError):
            core.Plan(layers, loss)


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf"), 2.0**50])
def test_no_device_learns_at_a_rate_that_is_none(bad: float) -> None:
    for batch in (1, 2):
        with pytest.raises(ValueError, match="rate is"):
            core.train(PLAN, THETA, core.SineSource(1), DEVICES, 0, samples=2, batch=batch, rate=bad)


def test_a_step_list_that_descends_is_refused() -> None:
    source = table(np.zeros((2, 1)), targets=TARGETS)
    with pytest.raises(ValueError, match="ascend"):
        core.adapt(PLAN, THETA, source, source, [3, 1], stream=False, rate=0.1)
    empty = table(np.zeros((2, 0)), targets=TARGETS)
    for support, query in ((empty, source), (source, empty)):
        with pytest.raises(ValueError):
            core.adapt(PLAN, THETA, support, query, [1], stream=False, rate=0.1)
