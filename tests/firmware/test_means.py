"""Class means: the core and the native engine give reference_means.py's bits, as classes and samples come and go."""

import ctypes
from typing import Any

import numpy as np
import pytest
import reference as ref
from harness import EINVAL, ENUMERIC, OK, Device, address
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_layers import F32, plan_bytes
from reference_means import Means, query_loss
from small_nets import SMALL, sample_of, weights_of

from tinyfl import core as native
from tinyfl.core import TableSource

NO_CLASS = (1 << 32) - 1

KINDS = st.tuples(st.integers(1, 5), st.integers(1, 4), st.booleans(), st.booleans())
"""Size, places, centred, normalised."""

DOINGS = st.lists(st.tuples(st.sampled_from(["add", "add", "clear", "nearest"]), st.integers(0, 3)), max_size=30)


class Classes:
    """The core's class means; calls return the code, then what the call gives."""

    def __init__(self, lib: Any, size: int, places: int, centre: F32 | None, normalised: bool) -> None:
        self.lib, self.places, self.centre = lib, places, centre
        self.means = (ctypes.c_uint64 * 8)()
        self.memory = np.full(lib.tinyfl_means_bytes(size, places) // 4, np.nan, np.float32)
        self.code = lib.tinyfl_means_init(self.means, size, places, address(centre), normalised, address(self.memory))

    def prepared(self, e: F32) -> F32:
        e = e.copy()
        self.lib.tinyfl_means_prepare(self.means, address(e))
        return e

    def add(self, number: int, e: F32) -> int:
        return int(self.lib.tinyfl_means_add(self.means, number, address(e)))

    def clear(self, number: int) -> int:
        return int(self.lib.tinyfl_means_clear(self.means, number))

    def distances(self, e: F32) -> F32:
        out = np.empty(self.places, np.float32)
        self.lib.tinyfl_means_distances(self.means, address(e), address(out))
        return out

    def nearest(self, e: F32, threshold: float) -> tuple[int | None, np.float32]:
        number, distance = np.zeros(1, np.uint32), np.zeros(1, np.float32)
        self.lib.tinyfl_means_nearest(self.means, address(e), threshold, address(number.view(np.float32)), address(distance))
        return (None if number[0] == NO_CLASS else int(number[0])), distance[0]


def some(rng: np.random.Generator, *shape: int) -> F32:
    """Embeddings with ties, zeros, and now and then a value that the guard refuses."""
    e = rng.choice([-1.0, 0.0, 0.5, 3.0], shape) if rng.integers(2) else rng.normal(0, 2, shape)
    return np.where(rng.random(shape) < 0.03, rng.choice([np.nan, np.inf, 2.0**50, 1e-20]), e).astype(np.float32)


@settings(max_examples=100, deadline=None)
@given(KINDS, DOINGS, st.integers(0, 1 << 32))
def test_classes_come_and_go_as_in_the_reference(core: Any, kind: Any, doings: list[tuple[str, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, places, centred, normalised = kind
    centre = rng.normal(size=size).astype(np.float32) if centred else None
    classes, means = Classes(core, size, places, centre, normalised), Means(size, places, centre, normalised)
    assert classes.code == OK
    for what, number in doings:
        e = some(rng, size)
        with np.errstate(over="ignore", invalid="ignore"):
            prepared, expected = classes.prepared(e), means.prepared(e)
        assert np.array_equal(prepared, expected, equal_nan=True)
        fine = (np.abs(expected) < ref.LIMIT).all()
        if what == "add":
            assert classes.add(number, prepared) == (EINVAL if number >= places else OK if fine else ENUMERIC)
            if number < places:
                means.add(number, expected)
        elif what == "clear":
            assert classes.clear(number) == (OK if number < places else EINVAL)
            if number < places:
                means.clear(number)
        elif fine:
            assert np.array_equal(classes.distances(prepared), means.distances(expected))
            for threshold in (np.inf, 1.0, 0.0):
                assert classes.nearest(prepared, threshold) == means.nearest(expected, threshold)
        else:
            assert classes.nearest(prepared, np.inf) == (None, np.inf)


def test_senseless_class_means_are_refused(core: Any) -> None:
    assert core.tinyfl_means_bytes(0, 3) == core.tinyfl_means_bytes(3, 0) == core.tinyfl_means_bytes(1 << 13, 1 << 12) == 0
    assert Classes(core, 2, 2, np.array([1, np.nan], np.float32), False).code == ENUMERIC
    memory = np.zeros(9, np.float32)
    assert core.tinyfl_means_init((ctypes.c_uint64 * 8)(), 2, 2, None, 0, None) == EINVAL
    assert core.tinyfl_means_init((ctypes.c_uint64 * 8)(), 2, 0, None, 0, address(memory)) == EINVAL


def test_a_network_for_prototypes_gives_embeddings_and_learns_from_no_single_sample(core: Any) -> None:
    layers, rng = next(iter(SMALL.values())), np.random.default_rng(1)
    theta, (x, y) = weights_of(layers, rng), sample_of(layers, ref.MEAN_SQUARED_ERROR, rng)
    device = Device(core, layers, ref.PROTOTYPES, theta)
    code, output = device.infer(x)
    assert code == OK
    assert np.array_equal(output, ref.Learner(layers, ref.PROTOTYPES, theta).forward(x)[-1])
    assert device.learn(x, y, 0.1)[0] == device.evaluate(x, y)[0] == EINVAL
    assert device.accumulate(x, y, np.zeros_like(theta))[0] == EINVAL


@pytest.mark.parametrize("name", list(SMALL))
def test_embeddings_of_many_samples_are_those_of_the_reference(name: str) -> None:
    layers, rng = SMALL[name], np.random.default_rng(3)
    theta, plan = weights_of(layers, rng), native.Plan(plan_bytes(layers, ref.PROTOTYPES))
    table = np.stack([sample_of(layers, ref.MEAN_SQUARED_ERROR, rng)[0] for _ in range(40)])
    table[7, 0], gain = np.nan, np.linspace(0.5, 2, 19).astype(np.float32)
    rows = rng.integers(0, 40, (19, 2)).astype(np.int32)
    source = TableSource(table, rows, labels=np.zeros_like(rows), gain=gain)
    made = {
        native.embeddings(plan, theta, source, engine=native.Engine(threads, lanes)).tobytes()
        for threads, lanes in ((2, 0), (1, 4), (3, 1))
    }
    assert len(made) == 1
    learner, first = ref.Learner(layers, ref.PROTOTYPES, theta), native.embeddings(plan, theta, source)
    for (d, s), row in np.ndenumerate(rows):
        expected = np.nan if row == 7 else learner.forward(gain[d] * table[row])[-1]
        assert np.array_equal(first[d, s], np.broadcast_to(expected, plan.outputs), equal_nan=True)


@settings(max_examples=20, deadline=None)
@given(KINDS, st.integers(1, 20), st.integers(0, 1 << 32))
def test_problems_in_lanes_are_solved_as_in_the_reference(kind: Any, problems: int, seed: int) -> None:
    size, places, centred, normalised = kind
    rng, shots, queries = np.random.default_rng(seed), 5, 6
    centre = rng.normal(size=size).astype(np.float32) if centred else None
    support, query = some(rng, problems, shots, size), rng.normal(size=(problems, queries, size)).astype(np.float32)
    labels = [rng.integers(0, places, (problems, count)).astype(np.int32) for count in (shots, queries)]
    got = native.class_means(
        support, labels[0], query, labels[1], places=places, centre=centre, normalised=normalised, means=True
    )
    assert got.means is not None
    assert got.counts is not None
    for p in range(problems):
        means, losses = Means(size, places, centre, normalised), []
        for e, number in zip(support[p], labels[0][p], strict=True):
            with np.errstate(over="ignore", invalid="ignore"):
                means.add(number, means.prepared(e))
        for k in range(places):
            share = np.float32(1) / np.float32(max(means.counts[k], 1))
            np.testing.assert_array_equal(got.means[p, k], means.sums[k] * share)
            assert got.counts[p, k] == means.counts[k]
        for q, (e, own) in enumerate(zip(query[p], labels[1][p], strict=True)):
            prepared = means.prepared(e)
            nearest, _ = means.nearest(prepared, np.inf)
            assert got.nearest[p, q] == (-1 if nearest is None else nearest)
            losses += [found[0]] if (found := query_loss(means.distances(prepared), own)) else []
        assert got.loss[p] == ref.total(np.array(losses, np.float32)) / np.float32(max(len(losses), 1))
        assert got.accuracy[p] == np.float32((got.nearest[p] == labels[1][p]).sum()) / np.float32(queries)
