"""The binding and the native engine: every way of cutting the work gives the same bits."""

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyfl import core
from tinyfl.algorithms import Inner, Phase
from tinyfl.core import Code, Engine, Plan, SineSource, Stream, TableSource, Trained
from tinyfl.core.draws import distinct
from tinyfl.errors import ConfigError
from tinyfl.networks import Network, network
from tinyfl.networks.layers import Activation, Conv, Dense, DepthwiseConv, Loss, Pool
from tinyfl.tasks import load_task, numbers

SINE = network("mlp-9-17-tanh", (1,), 1, Loss.mean_squared_error, Activation.tanh)
LANES = [n for n in (1, 4, 8, 16) if n <= core.library().tinyfl_native_lanes()]


def train(net: Network, count: int, engine: Engine, **options: Any) -> Trained:
    inner = Inner(**{"samples": 20, "rate": 0.05, **options}).to_bytes()
    return core.train(net.plan, net.initial_weights(3), SineSource(7), numbers(100, count), 2, inner, each=True, engine=engine)


def digest(trained: Trained) -> str:
    assert trained.updates is not None
    parts = (trained.sum, trained.loss, trained.code, trained.updates)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


@pytest.mark.parametrize("options", [{}, {"batch": 6}, {"passes": 3}, {"clip": 0.5}, {"pull": 2.0}, {"pull": 2.0, "batch": 6}])
def test_lanes_and_threads_change_no_bit(options: dict[str, Any]) -> None:
    answers = {digest(train(SINE, 37, Engine(threads, lanes), **options)) for lanes in LANES for threads in (1, 2, 5)}
    assert len(answers) == 1


@pytest.mark.parametrize(
    "inner",
    [
        Inner(Phase(8, 0.05, layers=4), Phase(9, 0.05, batch=4, passes=2, pull=0.5), local=4, kept=True),
        Inner(Phase(5, 0.05), Phase(7, 0.0), returns="gradient", local=1, kept=True),
        Inner(Phase(5, 0.05, batch=2, layers=3), Phase(3, 1e14), local=2, kept=True),
    ],
    ids=["two phases", "gradient", "divergent"],
)
def test_lanes_and_threads_change_no_bit_of_phases_nor_of_what_is_kept(inner: Inner) -> None:
    """Every third device has kept nothing yet."""
    theta, floats = SINE.initial_weights(3), SINE.plan.kept_floats(inner.to_bytes())
    before = np.random.default_rng(1).uniform(-1, 1, (37, floats))
    answers, codes = set(), None
    for lanes in LANES:
        for threads in (1, 2, 5):
            kept = before.astype(np.float32)
            kept[::3] = np.nan
            engine, devices = Engine(threads, lanes), numbers(100, 37)
            trained = core.train(
                SINE.plan, theta, SineSource(7), devices, 2, inner.to_bytes(), kept=kept, each=True, engine=engine
            )
            answers.add((digest(trained), kept.tobytes()))
            codes = set(trained.code.tolist())
    assert len(answers) == 1
    assert codes == ({Code.ok} if inner.phases[1].rate < 1 else {Code.numeric})


def test_lanes_change_no_bit_of_a_table_task() -> None:
    task = load_task("digits", None, 0)
    net = network("mlp-20", task.shape, task.outputs, task.loss, task.activation)
    devices = numbers(0, 21)
    theta, source, inner = net.initial_weights(0), task.stream(devices, 4, 10), Inner(samples=10, rate=0.1).to_bytes()
    answers = {
        digest(core.train(net.plan, theta, source, devices, 4, inner, each=True, engine=Engine(2, lanes))) for lanes in LANES
    }
    assert len(answers) == 1


CONVOLUTIONS = {
    "strided": (Conv(9, stride=(2, 2), activation=Activation.leaky_relu), Dense(3, Activation.identity)),
    "separable": (
        Conv(5, kernel=(2, 3), same=False, activation=Activation.tanh),
        DepthwiseConv(stride=(2, 1), multiplier=2, activation=Activation.sigmoid),
        Conv(6, kernel=(1, 1)),
        Pool(average=True, size=None),
        Dense(3, Activation.identity),
    ),
    "pools": (
        Conv(4), Pool(), DepthwiseConv(activation=Activation.leaky_relu), Pool(True, (3, 3), (2, 2), same=True),
        Dense(3, Activation.identity),
    ),
}  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"batch": 3}, {"clip": 0.5, "passes": 2}])
@pytest.mark.parametrize("frozen", [0, 1])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_lanes_and_threads_change_no_bit_of_a_convolutional_network(name: str, frozen: int, options: dict[str, Any]) -> None:
    """One device of 21 draws a NaN half way and is out; its neighbours must not notice."""
    net = Network(name, (6, 7, 2), CONVOLUTIONS[name], Loss.softmax_cross_entropy).frozen(frozen)
    rng = np.random.default_rng(1)
    table = rng.choice(np.linspace(-1, 1, 9), (105, 84)).astype(np.float32)  # few different values, so that maxima tie
    table[17, 3] = np.nan
    source = TableSource(
        table, np.arange(105, dtype=np.int32).reshape(21, 5), labels=rng.integers(0, 3, (21, 5)).astype(np.int32)
    )
    answers = set()
    for lanes in LANES:
        for threads in (1, 2, 5):
            trained = core.train(
                net.plan, net.initial_weights(1), source, numbers(0, 21), 0,
                Inner(**{"samples": 5, "rate": 0.05, **options}).to_bytes(), each=True, engine=Engine(threads, lanes),
            )  # fmt: skip
            assert np.flatnonzero(trained.code).tolist() == [3]
            assert trained.updates is not None
            trained.updates[3] = 0  # how far it came is of no matter
            answers.add(digest(trained))
    assert len(answers) == 1


def test_the_sum_is_the_devices_changes_in_fixed_point() -> None:
    trained = train(SINE, 50, Engine())
    theta = SINE.initial_weights(3)
    assert trained.updates is not None
    assert (trained.sum == sum(core.fixed(phi, theta) for phi in trained.updates)).all()


def test_an_update_is_oversized_by_its_change_as_a_float_as_in_the_core() -> None:
    phi = np.array([np.nextafter(np.float32(1024), np.float32(0))])
    assert core.fixed(phi, np.array([-2e-5], np.float32)) < 1024 * 2**32
    for theta in (-4e-5, np.inf, np.nan):  # the first is less than 1024 away, and 1024 in float32
        with pytest.raises(ValueError, match="1024 or more"):
            core.fixed(phi, np.array([theta], np.float32))


def test_a_device_learns_from_the_samples_that_samples_names() -> None:
    devices, theta = numbers(5, 6), SINE.initial_weights(0)
    made = core.train(SINE.plan, theta, SineSource(1), devices, 9, Inner(samples=12, rate=0.05).to_bytes(), each=True)
    x, y = core.samples(SineSource(1), SINE.plan, devices, 9, 12)
    rows = np.arange(72, dtype=np.int32).reshape(6, 12)
    fed = TableSource(x.reshape(-1, 1), rows, targets=y.reshape(-1, 1))
    gathered = core.train(SINE.plan, theta, fed, devices, 9, Inner(samples=12, rate=0.05).to_bytes(), each=True)
    assert digest(made) == digest(gathered)


def test_a_device_that_diverges_is_named_and_left_out_of_the_sum() -> None:
    net = network("mlp-8-relu", (1,), 1, Loss.mean_squared_error, Activation.relu)
    theta = net.initial_weights(0)
    x = np.array([[0.5], [np.nan], [3e18], [0.25], [900.0]], np.float32)
    y = np.array([[1], [1], [1], [1], [1e6]], np.float32)
    source = TableSource(x, np.arange(5, dtype=np.int32)[:, None], targets=y)
    for lanes in LANES:
        trained = core.train(
            net.plan, theta, source, numbers(0, 5), 0, Inner(samples=1, rate=0.1).to_bytes(), each=True, engine=Engine(1, lanes)
        )
        assert [Code(code) for code in trained.code] == [Code.ok, Code.numeric, Code.numeric, Code.ok, Code.oversized]
        assert trained.updates is not None
        assert (trained.sum == core.fixed(trained.updates[0], theta) + core.fixed(trained.updates[3], theta)).all()


def test_a_frozen_layer_keeps_its_weights_and_the_others_learn() -> None:
    layers = (
        Dense(8, Activation.tanh, learns=False), Dense(8, Activation.tanh), Dense(1, Activation.identity, learns=False),
    )  # fmt: skip
    net = Network("frozen", (1,), layers, Loss.mean_squared_error)
    plan, theta = net.plan, net.initial_weights(0)
    trained = core.train(plan, theta, SineSource(0), numbers(0, 3), 0, Inner(samples=5, rate=0.1).to_bytes(), each=True)
    assert trained.updates is not None
    moved = (trained.updates != theta).any(axis=0)
    assert not moved[:16].any()
    assert moved[16:88].any()
    assert not moved[88:].any()


def test_the_generator_gives_the_published_vector() -> None:
    words = core.random(0, Stream.weights, numbers(0, 1), words=4)
    assert [f"{word:08x}" for word in words[0]] == ["9c6ca96a", "e17eae66", "fc10ecd4", "5256a7d8"]


@given(seed=st.integers(0, 2**64 - 1), round=st.integers(0, 2**32 - 1), words=st.integers(1, 40))
@settings(max_examples=30)
def test_more_words_of_the_generator_start_with_the_fewer(seed: int, round: int, words: int) -> None:
    few = core.random(seed, Stream.task, numbers(3, 4), round, words=words)
    many = core.random(seed, Stream.task, numbers(3, 4), round, words=words + 7)
    assert (many[:, :words] == few).all()


def test_uniforms_are_uniform() -> None:
    values = core.uniform(core.random(11, Stream.sample, numbers(0, 1000), words=100))
    assert values.min() >= 0
    assert values.max() < 1
    counts = np.histogram(values, bins=50, range=(0, 1))[0]
    chi_squared = ((counts - 2000) ** 2 / 2000).sum()
    assert chi_squared < 100  # 49 degrees of freedom: beyond 100 by chance once in 30,000


def test_ram_is_weights_outputs_and_room_for_one_gradient() -> None:
    net = network("mlp-32-32-tanh", (1,), 1, Loss.mean_squared_error, Activation.tanh)
    assert net.parameters == 1153
    assert net.ram_bytes() == 4 * (1153 + 65 + 32)
    assert net.ram_bytes(Inner(samples=8, batch=8, rate=0.1)) == 4 * (2 * 1153 + 65 + 32)


ONES, ROWS = np.ones((3, 1), np.float32), np.zeros((2, 4), np.int32)
BAD_TABLES: dict[str, tuple[Any, ...]] = {
    "rows point outside": (ONES, ROWS + 3, None, ONES),
    "negative row": (ONES, ROWS - 1, None, ONES),
    "wrong inputs": (np.ones((3, 2), np.float32), ROWS, None, ONES),
    "wrong dtype": (np.ones((3, 1)), ROWS, None, ONES),
    "no truth": (ONES, ROWS, None, None),
    "two truths": (ONES, ROWS, ROWS, ONES),
    "label out of range": (ONES, ROWS, ROWS + 1, None),
    "too few samples": (ONES, np.zeros((2, 3), np.int32), None, ONES),
    "one-dimensional rows": (ONES, np.zeros(4, np.int32), None, ONES),
    "strided": (np.ones((3, 2), np.float32)[:, ::2], ROWS, None, ONES),
}


@pytest.mark.parametrize("why", BAD_TABLES)
def test_arrays_that_do_not_fit_are_refused_before_c_sees_them(why: str) -> None:
    with pytest.raises(ValueError):
        core.train(
            SINE.plan,
            SINE.initial_weights(0),
            TableSource(*BAD_TABLES[why]),
            numbers(0, 2),
            0,
            Inner(samples=4, rate=0.1).to_bytes(),
        )


def test_an_embedding_is_not_adapted_by_steps() -> None:
    net = network("mlp-4", (1,), 2, Loss.prototypes, Activation.tanh)
    source = TableSource(ONES, ROWS, ROWS * 0)
    with pytest.raises(ValueError):
        core.adapt(net.plan, net.initial_weights(0), source, source, (1,), Inner(samples=4, rate=0.1).to_bytes())


@given(
    samples=st.integers(-1, 3), batch=st.integers(-1, 3), passes=st.integers(-1, 2),
    rate=st.floats(width=32), clip=st.floats(width=32), threads=st.integers(1, 300), lanes=st.integers(-2, 20),
)  # fmt: skip
@settings(max_examples=300)
def test_hostile_numbers_are_refused_or_run(
    samples: int, batch: int, passes: int, rate: float, clip: float, threads: int, lanes: int
) -> None:
    theta = SINE.initial_weights(0)
    try:
        trained = core.train(
            SINE.plan,
            theta,
            SineSource(0),
            numbers(0, 3),
            0,
            Inner(samples=samples, batch=batch, passes=passes, rate=rate, clip=clip).to_bytes(),
            engine=Engine(threads, lanes),
        )
    except (ValueError, ConfigError):
        return
    assert set(trained.code.tolist()) <= {0, int(Code.invalid), int(Code.numeric), int(Code.oversized)}
    assert (trained.code == 0).any() or not trained.sum.any()


GOOD = SINE.plan.bytes
BAD_PLANS = {
    "nothing": b"",
    "no layer": GOOD[:6] + b"\0\0",
    "a byte less": GOOD[:-1],
    "a layer less": GOOD[:-16],
    "a byte more": GOOD + b"\0",
    "another magic": b"TFLI" + GOOD[4:],
    "version 1": GOOD[:4] + b"\1" + GOOD[5:],
    "unknown loss": GOOD[:5] + b"\4" + GOOD[6:],
    "unknown activation": GOOD[:9] + b"\5" + GOOD[10:],
    "widths that do not meet": GOOD[:8] + GOOD[24:40] + GOOD[24:],
}


@pytest.mark.parametrize("why", BAD_PLANS)
def test_plans_that_the_core_cannot_run_are_refused(why: str) -> None:
    assert Plan(GOOD).weights == SINE.parameters
    with pytest.raises(ValueError, match="plan"):
        Plan(BAD_PLANS[why])


@given(
    devices=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40), skip=st.integers(0, 7), available=st.integers(1, 70),
    data=st.data(),
)  # fmt: skip
def test_distinct_numbers_are_those_of_the_smallest_words(devices: list[int], skip: int, available: int, data: Any) -> None:
    picks = data.draw(st.integers(1, min(available, 64)))
    of = np.array(devices, np.uint32)
    words = core.random(5, Stream.task, of, words=skip + available)
    expected = distinct(words[:, skip:], np.full(len(of), available), picks)
    assert (core.distinct(5, Stream.task, of, skip=skip, available=available, picks=picks) == expected).all()


@pytest.mark.parametrize(("available", "picks"), [(5, 6), (5, 0), (100, 65), (2**31, 1)])
def test_distinct_numbers_that_are_not_there_are_refused(available: int, picks: int) -> None:
    with pytest.raises(ValueError, match="cannot draw"):
        core.distinct(0, Stream.task, numbers(0, 3), skip=2, available=available, picks=picks)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("gain", [False, True])
def test_a_table_of_bytes_gives_the_bits_of_the_same_table_of_floats(lanes: int, gain: bool) -> None:
    """Of 131 inputs, which are no multiple of what is gathered at once."""
    net, rng = network("mlp-6", (131,), 3, Loss.softmax_cross_entropy, Activation.relu), np.random.default_rng(4)
    table = rng.integers(0, 256, (50, 131), np.uint8)
    rows, labels = rng.integers(0, 50, (37, 4), np.int32), rng.integers(0, 3, (37, 4), np.int32)
    gains = rng.uniform(0.001, 0.01, 37).astype(np.float32) if gain else None
    of_bytes, of_floats = (
        core.train(
            net.plan, net.initial_weights(0), TableSource(values, rows, labels=labels, gain=gains), numbers(0, 37), 0,
            Inner(samples=4, rate=1e-3).to_bytes(), each=True, engine=Engine(1, lanes),
        )
        for values in (table, table.astype(np.float32))
    )  # fmt: skip
    assert digest(of_bytes) == digest(of_floats)
