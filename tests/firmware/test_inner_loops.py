"""Inner loops on the agent: any that its record can say, bit for bit as reference_inner.py has them, in just their arena."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import reference as ref
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peer import WRITE, Board, floats, sha
from reference_inner import EVERY, GRADIENT, Inner, Loop, Phase, arena_bytes, inner_bytes, learnt, samples_of
from reference_layers import F32, MAX_POOL, Layer, dense, plan_bytes, resting_bytes
from small_nets import SMALL, conv, episodes, inners, networks, pool, sample_of, weighted, weights_of

from tinyfl import core

INVALID, MEMORY, STATE, BASE = 2, 4, 5, 6
PLANNED, READY, LEARNING, LEARNT, FAILED = range(1, 6)


def train(board: Board, inner: Inner, theta: F32, **changes: Any) -> Any:
    fields = {"round": 3, "device": 5, "seed": 11, "run": 1, "saved": 0, "source": ""} | changes
    return board.ours(WRITE, 3, **fields, inner=inner_bytes(inner), base=sha(floats(theta)))


def feed(board: Board, samples: Sequence[tuple[F32, F32]], block: int = 700) -> None:
    data = floats(np.concatenate([part for sample in samples for part in sample]))
    for off in range(0, len(data), block):
        if "err" in board.ours(WRITE, 4, off=off, data=data[off : off + block]):
            break


def put(board: Board, layers: Sequence[Layer], loss: int, theta: F32) -> None:
    board.put(1, plan_bytes(layers, loss))
    board.put(2, floats(theta))


def drawn(layers: Sequence[Layer], loss: int, inner: Inner, seed: int) -> tuple[F32, list[tuple[F32, F32]]]:
    rng = np.random.default_rng(seed)
    theta = weights_of(layers, rng)
    return theta, [sample_of(layers, loss, rng) for _ in range(sum(phase.samples for phase in inner.phases))]


def demand_reference(board: Board, layers: Sequence[Layer], loss: int, inner: Inner, seed: int) -> Loop | None:
    theta, samples = drawn(layers, loss, inner, seed)
    board.start(max(arena_bytes(layers, inner), 64))
    put(board, layers, loss, theta)
    assert train(board, inner, theta)["state"] == LEARNING
    feed(board, samples_of(inner, samples))
    status, loop = board.status(), learnt(layers, loss, theta, inner, samples)
    if loop is None:
        assert (status["state"], status["code"], status["weights"]) == (FAILED, -4, b"")
        return None
    assert (status["state"], status["code"], status["done"], status["kept"]) == (LEARNT, 0, inner.total, 0)
    assert np.float32(status["loss"]) == loop.loss
    assert board.weights() == loop.data
    assert status["weights"] == sha(loop.data)
    return loop


NETS = networks().filter(lambda net: weighted(net[0])) | st.sampled_from([(net, i % 3) for i, net in enumerate(SMALL.values())])


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(NETS.flatmap(lambda net: st.tuples(st.just(net), inners(len(net[0])))), st.integers(0, 1 << 32))
def test_any_inner_loop_learns_in_just_its_arena_what_the_reference_learns(
    built: Board, case: tuple[tuple[list[Layer], int], Inner], seed: int
) -> None:
    (layers, loss), inner = case
    demand_reference(built, layers, loss, inner, seed)


EPISODES = NETS.map(lambda net: net[0]).flatmap(lambda net: st.tuples(st.just((net, ref.PROTOTYPES)), episodes(net)))


@settings(max_examples=50, deadline=None)
@given(EPISODES, st.integers(0, 1 << 32))
def test_any_phase_for_prototypes_learns_in_just_its_arena_what_the_reference_learns(
    built: Board, case: tuple[tuple[list[Layer], int], Inner], seed: int
) -> None:
    """Samples may be of classes without support, or without a place, and classes without samples."""
    (layers, loss), inner = case
    demand_reference(built, layers, loss, inner, seed)


@pytest.mark.parametrize(
    ("loss", "support", "ways"), [(ref.PROTOTYPES, 0, 0), (ref.SOFTMAX_CROSS_ENTROPY, 2, 2), (ref.PROTOTYPES, 4, 4)]
)
def test_a_network_that_cannot_run_a_phase_refuses_the_round(built: Board, loss: int, support: int, ways: int) -> None:
    """Prototypes without a support set, a support set for another loss, more ways than outputs."""
    inner, theta = Inner((Phase(5, rate=0.1, support=support, ways=ways),)), np.zeros(9, np.float32)
    built.start()
    put(built, [dense(2, 3, 0)], loss, theta)
    assert train(built, inner, theta) == {"err": {"group": 65, "rc": INVALID}}
    assert (built.status()["state"], built.weights()) == (READY, floats(theta))


@pytest.mark.parametrize(("samples", "support", "ways"), [(4, 4, 2), (4, 2, 3), (4, 2, 0), (4, 0, 1), (EVERY >> 32, 1, 1)])
def test_senseless_support_sets_are_refused(built: Board, samples: int, support: int, ways: int) -> None:
    inner, theta = Inner((Phase(samples, rate=0.1, support=support, ways=ways),)), np.zeros(9, np.float32)
    built.start()
    put(built, [dense(2, 3, 0)], ref.PROTOTYPES, theta)
    assert train(built, inner, theta) == {"err": {"group": 65, "rc": INVALID}}


@settings(max_examples=60, deadline=None)
@given(NETS.flatmap(lambda net: st.tuples(st.just(net), inners(len(net[0])))) | EPISODES)
def test_a_byte_less_than_the_host_counts_is_too_small(built: Board, case: tuple[tuple[list[Layer], int], Inner]) -> None:
    (layers, loss), inner = case
    plan, need = plan_bytes(layers, loss), arena_bytes(layers, inner)
    counted = core.Plan(plan)
    assert len(plan) + counted.ram_bytes(inner_bytes(inner)) + 4 * (counted.inputs + counted.outputs) == need
    theta, _ = drawn(layers, loss, inner, 1)
    built.start(need - 1)
    if need == resting_bytes(layers):
        assert built.refusal(WRITE, 1, off=0, data=plan, len=len(plan), sha=sha(plan)) == MEMORY
        return
    put(built, layers, loss, theta)
    assert train(built, inner, theta) == {"err": {"group": 65, "rc": MEMORY}}
    assert (built.status()["state"], built.weights()) == (READY, floats(theta))


DEEP = [conv((6, 6, 1), 3, 3, 1, True, ref.LEAKY_RELU), pool(MAX_POOL, (6, 6, 3), 2, 2), dense(27, 5, ref.TANH), dense(5, 3, 0)]
"""Weights in layers 0, 2 and 3."""


@pytest.mark.parametrize("mask", [1, 4, 8, 9, 12, 5, 2, 0, EVERY - 1], ids=bin)
@pytest.mark.parametrize("batch", [1, 3])
def test_only_the_layers_of_the_mask_move(built: Board, mask: int, batch: int) -> None:
    """Layer 1 is a pool, and a mask may name it, or none that learns."""
    loop = demand_reference(built, DEEP, ref.SOFTMAX_CROSS_ENTROPY, Inner((Phase(5, batch, 2, 0.1, layers=mask),)), 4)
    assert loop is not None
    moved = loop.weights != loop.start
    edges = np.cumsum([layer.weights for layer in DEEP])
    for i, (part, layer) in enumerate(zip(np.split(moved, edges[:-1]), DEEP, strict=True)):
        assert part.any() == bool(layer.weights and mask >> i & 1)


@pytest.mark.parametrize("frozen", range(3))
@pytest.mark.parametrize("mask", [1, 9, EVERY])
def test_a_frozen_layer_stays_whatever_the_mask(built: Board, frozen: int, mask: int) -> None:
    layers = list(DEEP)
    layers[frozen and frozen + 1] = replace(layers[frozen and frozen + 1], learns=False)
    demand_reference(built, layers, ref.SOFTMAX_CROSS_ENTROPY, Inner((Phase(5, rate=0.1, layers=mask),)), 4)


@pytest.mark.parametrize("batch", [1, 2, 9])
def test_a_pull_of_rate_1_ends_each_step_at_the_start_less_the_gradient(built: Board, batch: int) -> None:
    loop = demand_reference(built, DEEP, ref.SOFTMAX_CROSS_ENTROPY, Inner((Phase(6, batch, 2, 0.25, pull=4.0),)), 4)
    free = demand_reference(built, DEEP, ref.SOFTMAX_CROSS_ENTROPY, Inner((Phase(6, batch, 2, 0.25),)), 4)
    assert loop is not None
    assert free is not None
    assert np.abs(loop.weights - loop.start).max() < np.abs(free.weights - free.start).max()


def test_the_pull_of_a_later_phase_is_to_the_start_of_the_loop(built: Board) -> None:
    """At rate x pull = 1 and a gradient of nearly 0, the second phase returns to where the first began."""
    inner = Inner((Phase(5, rate=0.1), Phase(1, rate=2.0**-20, pull=2.0**20)))
    loop = demand_reference(built, DEEP, ref.SOFTMAX_CROSS_ENTROPY, inner, 4)
    assert loop is not None
    assert np.abs(loop.weights - loop.start).max() < 1e-5


def test_the_returned_gradient_is_the_change_of_one_step_of_a_full_batch(built: Board) -> None:
    """At a rate of 1 from the weights after the first phase: but for that step's rounding."""
    first, kind = Phase(3, rate=0.1), ref.SOFTMAX_CROSS_ENTROPY
    returned = demand_reference(built, DEEP, kind, Inner((first, Phase(4, 3, 1, 0.7, pull=1.0)), GRADIENT), 4)
    stepped = demand_reference(built, DEEP, kind, Inner((first, Phase(4, 4, 1, 1.0))), 4)
    assert returned is not None
    assert stepped is not None
    np.testing.assert_allclose(returned.weights + returned.gradient, stepped.weights, atol=1e-6)


@pytest.mark.parametrize("local", [1, 4, 8, 5, 15, 2], ids=bin)
@pytest.mark.parametrize("returns", [0, 1])
def test_the_update_is_all_layers_that_are_not_local(built: Board, local: int, returns: int) -> None:
    inner = Inner((Phase(3, rate=0.1, layers=8), Phase(3, rate=0.1)), returns, 0, local)
    loop = demand_reference(built, DEEP, ref.SOFTMAX_CROSS_ENTROPY, inner, 4)
    assert loop is not None
    kept_back = [layer.weights for i, layer in enumerate(DEEP) if local >> i & 1]
    assert len(built.weights()) == 4 * (len(loop.weights) - sum(kept_back))


@pytest.mark.parametrize("inner", [Inner((Phase(3, rate=0.1),), local=8), Inner((Phase(3, rate=0.1),), GRADIENT)])
def test_a_board_with_an_update_in_place_of_its_weights_does_nothing_with_them(built: Board, inner: Inner) -> None:
    loop, kind = demand_reference(built, DEEP, ref.SOFTMAX_CROSS_ENTROPY, inner, 4), ref.SOFTMAX_CROSS_ENTROPY
    assert loop is not None
    theta, update = loop.start, floats(loop.update)
    assert built.ours(0, 2, off=len(update)) == {"off": len(update), "len": len(update), "data": b""}
    assert built.refusal(0, 2, off=len(update) + 1) == 2
    assert built.refusal(WRITE, 6, off=0, data=floats(np.zeros(36))) == STATE
    assert built.refusal(WRITE, 5, off=0, data=floats(np.zeros(39))) == STATE
    assert built.refusal(WRITE, 9, sha=sha(update)) == STATE
    for base in (loop.update, theta, loop.weights):
        assert train(built, inner, base, round=4) == {"err": {"group": 65, "rc": BASE}}
    assert (built.status()["state"], built.weights()) == (LEARNT, update)
    if inner.returns == GRADIENT:  # an announcement of just these bytes as weights is not taken for what is here
        assert built.ours(WRITE, 2, off=0, data=b"", len=len(update), sha=sha(update)) == {"off": 0}
    put(built, DEEP, kind, theta)
    assert built.ours(WRITE, 6, off=0, data=floats(np.zeros(36)))["data"]
    assert train(built, inner, theta, round=4)["state"] == LEARNING


def test_the_same_request_again_gets_the_update_again_whatever_has_been_saved(built: Board) -> None:
    inner = Inner((Phase(3, rate=0.1),), local=1)
    layers, theta = [dense(1, 4, ref.TANH), dense(4, 1, 0)], np.linspace(-1, 1, 13, dtype=np.float32)
    built.start()
    put(built, layers, 0, theta)
    first = train(built, inner, theta, source="sine")
    update = built.weights()
    assert len(update) == 4 * 5
    assert train(built, inner, theta, source="sine", saved=3) == first
    assert built.weights() == update
    for change in ({"run": 2}, {"round": 4}, {"device": 6}, {"seed": 12}):
        assert train(built, inner, theta, source="sine", **change) == {"err": {"group": 65, "rc": BASE}}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(0, 1))
@example(2, 1, 0)
def test_fed_samples_of_several_phases_are_the_same_however_they_are_cut(
    built: Board, passes: int, block: int, own: int
) -> None:
    inner = Inner((Phase(3, 1, passes, 0.1), Phase(2, 2, 1, 0.1), Phase(4, 3, passes, 0.05, pull=1.0)))
    layers, theta = [dense(1, 4, ref.TANH), dense(4, 1, 0)], np.linspace(-1, 1, 13, dtype=np.float32)
    pairs = [ref.sine_sample(11, 5, 3, i) for i in range(9)]
    samples = [(np.array([x], np.float32), np.array([y], np.float32)) for x, y in pairs]
    built.start()
    put(built, layers, 0, theta)
    train(built, inner, theta, source="sine" if own else "")
    if not own:
        feed(built, samples_of(inner, samples), block)
    loop = learnt(layers, 0, theta, inner, samples)
    assert loop is not None
    assert built.weights() == floats(loop.weights)


def test_a_gradient_that_is_too_large_at_the_end_fails_the_round_without_its_sample(built: Board) -> None:
    layers, theta = [dense(1, 1, 0)], np.array([0, 0], np.float32)
    inner = Inner((Phase(2),), GRADIENT)
    built.start()
    put(built, layers, 0, theta)
    assert train(built, inner, theta)["state"] == LEARNING
    one = (np.array([2.0**20], np.float32), np.array([2.0**40], np.float32))
    feed(built, [one, one])
    status = built.status()
    assert (status["state"], status["code"], status["done"]) == (FAILED, -4, 1)
    assert learnt(layers, 0, theta, inner, [one, one]) is None
