"""What tinyfl.core hands to C: the same bits as a device alone, and nothing that does not fit."""

from typing import Any

import numpy as np
import pytest
import reference
import reference_inner
from harness import ENUMERIC, EOVERSIZED, OK
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import IDENTITY, MEAN_SQUARED_ERROR, SOFTMAX_CROSS_ENTROPY, TANH, Learner
from reference_layers import Layer, dense, learner_values, plan_bytes, read_plan
from small_nets import SMALL, inners, networks, sample_of, weights_of

from tinyfl import core
from tinyfl.algorithms import Inner, Phase
from tinyfl.errors import ConfigError
from tinyfl.networks import Activation, Loss, network
from tinyfl.runs.evaluation import inner_loop

LAYERS = [dense(1, 9, TANH), dense(9, 1, IDENTITY)]
PLAN = core.Plan(plan_bytes(LAYERS, MEAN_SQUARED_ERROR))
THETA = np.random.default_rng(1).uniform(-0.5, 0.5, PLAN.weights).astype(np.float32)
DEVICES = np.array([3, 2**32 - 1, 5, 0, 9], np.uint32)
LANES = [lanes for lanes in (1, 4, 8, 16) if lanes <= core.library().tinyfl_native_lanes()]


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("batch", [1, 4])
def test_a_cohort_of_the_native_fleet_learns_as_the_spec_says(lanes: int, batch: int) -> None:
    trained = core.train(
        PLAN,
        THETA,
        core.SineSource(2**63 + 5),
        DEVICES,
        7,
        Inner(samples=10, batch=batch, passes=2, rate=0.02).to_bytes(),
        each=True,
        engine=core.Engine(2, lanes),
    )
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


NETS = networks() | st.sampled_from([(layers, i % 3) for i, layers in enumerate(SMALL.values())])


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    NETS.flatmap(lambda net: st.tuples(st.just(net), inners(len(net[0])))), st.integers(0, 1 << 32), st.sampled_from(LANES),
    st.integers(1, 3),
)  # fmt: skip
def test_a_cohort_learns_any_network_in_any_inner_loop_as_the_spec_says(
    case: tuple[tuple[list[Layer], int], reference_inner.Inner], seed: int, lanes: int, threads: int
) -> None:
    """Some devices have kept something, and some have not."""
    (layers, loss), inner = case
    rng = np.random.default_rng(seed)
    theta, samples = weights_of(layers, rng), sum(phase.samples for phase in inner.phases)
    drawn = [[sample_of(layers, loss, rng) for _ in range(samples)] for _ in DEVICES]
    source = core.TableSource(
        np.array([x for of_device in drawn for x, _ in of_device]),
        np.arange(len(DEVICES) * samples, dtype=np.int32).reshape(len(DEVICES), samples),
        targets=np.array([y for of_device in drawn for _, y in of_device]),
    )
    local = reference_inner.chosen(layers, inner.local)
    kept = rng.uniform(-0.5, 0.5, (len(DEVICES), local.sum())).astype(np.float32)
    kept[rng.integers(2, size=len(DEVICES)) == 0] = np.nan
    before = kept.copy()
    trained = core.train(
        core.Plan(plan_bytes(layers, loss)),
        theta,
        source,
        DEVICES,
        0,
        reference_inner.inner_bytes(inner),
        kept=kept if inner.kept else None,
        each=True,
        engine=core.Engine(threads, lanes),
    )
    assert trained.updates is not None
    for i, of_device in enumerate(drawn):
        start = theta.copy()
        if inner.kept and not np.isnan(before[i]).any():
            start[local] = before[i]
        loop = reference_inner.learnt(layers, loss, start, inner, of_device)
        if loop is None:
            assert trained.code[i] == ENUMERIC
            assert kept[i].tobytes() == before[i].tobytes()
            continue
        phi = loop.phi(theta)
        assert trained.code[i] == (OK if (np.abs(phi - theta) < 1024).all() else EOVERSIZED)
        if trained.code[i] == OK:
            assert trained.updates[i].tobytes() == phi.tobytes()
            assert trained.loss[i] == loop.loss
        assert kept[i].tobytes() == (loop.local if inner.kept else before[i]).tobytes()


@pytest.mark.parametrize("lanes", LANES)
def test_of_a_cohort_that_keeps_layers_only_the_device_that_diverges_keeps_what_it_had(lanes: int) -> None:
    plan = core.Plan(plan_bytes([dense(1, 1, IDENTITY)], MEAN_SQUARED_ERROR))
    targets = np.array([[1], [np.nan], [1.6e15], [2]], np.float32)
    source = core.TableSource(np.zeros((4, 1), np.float32), np.arange(4, dtype=np.int32)[:, None], targets=targets)
    kept = np.array([[0, 1], [0, 2], [0, 1.1e15], [0, 4]], np.float32)
    inner = Inner(Phase(samples=1, rate=1.0), local=1, kept=True).to_bytes()
    theta, devices = np.zeros(2, np.float32), np.arange(4, dtype=np.uint32)
    trained = core.train(plan, theta, source, devices, 0, inner, kept=kept, engine=core.Engine(1, lanes))
    assert trained.code.tolist() == [OK, ENUMERIC, ENUMERIC, OK]
    np.testing.assert_array_equal(kept, np.array([[0, 1], [0, 2], [0, 1.1e15], [0, 0]], np.float32))


@pytest.mark.parametrize("lanes", LANES)
def test_a_bad_device_is_named_and_left_out_of_the_sum(lanes: int) -> None:
    plan = core.Plan(plan_bytes([dense(1, 1, IDENTITY)], MEAN_SQUARED_ERROR))
    targets = np.array([[1], [np.nan], [3e5], [2]], np.float32)
    source = core.TableSource(np.ones((4, 1), np.float32), np.arange(4, dtype=np.int32)[:, None], targets=targets)
    trained = core.train(
        plan,
        np.zeros(2, np.float32),
        source,
        np.arange(4, dtype=np.uint32),
        0,
        Inner(samples=1, rate=0.25).to_bytes(),
        engine=core.Engine(1, lanes),
    )
    assert trained.code.tolist() == [OK, ENUMERIC, EOVERSIZED, OK]
    assert trained.sum.tolist() == [int(1.5 * 2**32)] * 2


def test_an_update_just_within_the_bound_counts_and_its_sum_is_exact() -> None:
    plan = core.Plan(plan_bytes([dense(1, 1, IDENTITY)], MEAN_SQUARED_ERROR))
    count, change = 1000, np.nextafter(np.float32(1024), np.float32(0))
    source = core.TableSource(
        np.ones((1, 1), np.float32), np.zeros((count, 1), np.int32), targets=np.full((1, 1), 2 * change, np.float32)
    )
    trained = core.train(
        plan, np.zeros(2, np.float32), source, np.arange(count, dtype=np.uint32), 0, Inner(samples=1, rate=0.25).to_bytes()
    )
    assert not trained.code.any()
    assert trained.sum.tolist() == [count * int(float(change) * 2**32)] * 2


@pytest.mark.parametrize("name", ["mlp-5-3", "conv-3-5", "dsconv-3-4"])
def test_initial_weights_are_those_of_the_spec(name: str) -> None:
    net = network(name, (7, 6, 2), 3, Loss.softmax_cross_entropy, Activation.relu)
    layers, _ = read_plan(net.plan.bytes)
    assert net.initial_weights(2**62 + 1).tobytes() == reference.initial(layers, 2**62 + 1).tobytes()


def table(rows: Any, **others: Any) -> core.TableSource:
    return core.TableSource(np.zeros((4, 1), np.float32), np.asarray(rows, np.int32), **others)


TARGETS = np.zeros((4, 1), np.float32)
integers = st.integers(-(2**33), 2**33)


@settings(max_examples=200)
@given(st.lists(integers, min_size=6, max_size=6))
def test_rows_outside_the_table_are_refused(values: list[int]) -> None:
    rows = np.array(values, np.int64).astype(np.int32).reshape(3, 2)
    source = table(rows, targets=TARGETS)
    devices = np.arange(3, dtype=np.uint32)
    if ((rows >= 0) & (rows < 4)).all():
        core.train(PLAN, THETA, source, devices, 0, Inner(samples=2, rate=0.1).to_bytes())
    else:
        with pytest.raises(ValueError, match="rows"):
            core.train(PLAN, THETA, source, devices, 0, Inner(samples=2, rate=0.1).to_bytes())
        with pytest.raises(ValueError, match="rows"):
            core.adapt(PLAN, THETA, source, source, [1], inner_loop("stream", 2, 1, 0.1))


@settings(max_examples=200)
@given(integers)
def test_labels_outside_the_outputs_are_refused(label: int) -> None:
    plan = core.Plan(plan_bytes([dense(1, 3, IDENTITY)], SOFTMAX_CROSS_ENTROPY))
    labels = np.array([[0], [label]], np.int64).astype(np.int32)
    source = table([[0], [1]], labels=labels)
    arguments = (plan, np.zeros(6, np.float32), source, np.arange(2, dtype=np.uint32), 0)
    if 0 <= labels[1, 0] < 3:
        core.train(*arguments, Inner(samples=1, rate=0.1).to_bytes())
    else:
        with pytest.raises(ValueError, match="labels"):
            core.train(*arguments, Inner(samples=1, rate=0.1).to_bytes())


@pytest.mark.parametrize(
    "theta",
    [THETA[:-1], np.append(THETA, np.float32(0)), THETA.astype(np.float64), THETA[None], np.repeat(THETA, 2)[::2]],
    ids=["short", "long", "float64", "2-d", "strided"],
)
def test_a_theta_that_does_not_fit_is_refused(theta: Any) -> None:
    source = table(np.zeros((5, 1)), targets=TARGETS)
    with pytest.raises(ValueError, match="theta"):
        core.train(PLAN, theta, core.SineSource(1), DEVICES, 0, Inner(samples=1, rate=0.1).to_bytes())
    with pytest.raises(ValueError, match="theta"):
        core.adapt(PLAN, theta, source, source, [1], inner_loop("stream", 1, 1, 0.1))


def _replaced(at: int, data: bytes) -> bytes:
    record = Inner(samples=1, rate=0.1).to_bytes()
    return record[:at] + data + record[at + len(data) :]


BAD_FACTORS = [np.float32(value).tobytes() for value in (-0.1, np.nan, np.inf, 2.0**50)]


@pytest.mark.parametrize(
    "change",
    [
        {"devices": DEVICES.astype(np.int64)},
        {"devices": DEVICES[None]},
        {"devices": np.zeros(core.MAX_SUMMED + 1, np.uint32)},
        {"inner": b""},
        {"inner": Inner(samples=1, rate=0.1).to_bytes()[:-1]},
        {"inner": Inner(samples=1, rate=0.1).to_bytes() + bytes(32)},
        {"inner": Inner(samples=1, rate=0.1, local=1, kept=True).to_bytes()},
        *({"inner": _replaced(at, bytes(4))} for at in (16, 20, 24)),  # samples, batch, passes of 0
        *({"inner": _replaced(at, bad)} for at in (28, 32, 36) for bad in BAD_FACTORS),  # rate, clip, pull
        *({"inner": _replaced(at, b"\x05")} for at in (0, 1, 2, 3)),
        {"engine": core.Engine(threads=-1)},
        {"engine": core.Engine(lanes=3)},
        {"engine": core.Engine(lanes=32)},
        {"plan": core.Plan(plan_bytes([dense(2, 9, TANH), LAYERS[1]], 0)), "theta": np.zeros(37, np.float32)},
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
        "inner": Inner(samples=1, rate=0.1).to_bytes(),
    }  # fmt: skip
    core.train(**call)
    with pytest.raises(ValueError):
        core.train(**(call | change))


@settings(max_examples=300)
@given(networks(), st.data())
def test_a_plan_is_one_that_the_core_can_run_or_is_refused(net: tuple[list[Layer], int], data: st.DataObject) -> None:
    held = bytearray(plan_bytes(*net))
    for _ in range(data.draw(st.integers(0, 1))):
        held[data.draw(st.integers(0, len(held) - 1))] = data.draw(st.integers(0, 5) | st.integers(0, 255))
    held = held[: len(held) - data.draw(st.sampled_from([0, 0, 0, 1, 16, len(held)]))]
    try:
        layers, _ = read_plan(bytes(held))
    except ValueError:
        with pytest.raises(ValueError, match="plan"):
            core.Plan(bytes(held))
        return
    plan = core.Plan(bytes(held))
    weights = sum(layer.weights for layer in layers)
    assert (plan.weights, plan.inputs, plan.outputs) == (weights, np.prod(layers[0].input), layers[-1].values)
    assert plan.ram_bytes(Inner(samples=1, rate=0.1).to_bytes()) == 4 * (weights + learner_values(layers))
    assert plan.ram_bytes(Inner(samples=2, batch=2, rate=0.1).to_bytes()) == 4 * (2 * weights + learner_values(layers))


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf"), 2.0**50])
def test_no_device_learns_at_a_rate_that_is_none(bad: float) -> None:
    for batch in (1, 2):
        with pytest.raises(ConfigError, match="rate, clip and pull"):
            core.train(PLAN, THETA, core.SineSource(1), DEVICES, 0, Inner(samples=2, batch=batch, rate=bad).to_bytes())


def test_a_step_list_that_descends_is_refused() -> None:
    source = table(np.zeros((2, 1)), targets=TARGETS)
    with pytest.raises(ValueError, match="ascend"):
        core.adapt(PLAN, THETA, source, source, [3, 1], inner_loop("batch", 1, 3, 0.1))
    empty = table(np.zeros((2, 0)), targets=TARGETS)
    for support, query in ((empty, source), (source, empty)):
        with pytest.raises(ValueError):
            core.adapt(PLAN, THETA, support, query, [1], inner_loop("batch", 1, 1, 0.1))
