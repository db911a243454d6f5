"""Weights that go down encoded, and as a change of those that a board holds (SPEC.md, codecs and weights)."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peer import WRITE, Board, floats, sha
from reference_inner import arena_bytes
from test_agent import BASE, INVALID, LAYERS, LEARNT, MEMORY, NUMERIC, PLAN, PLANNED, READY, THETA, one, round_of

from tinyfl.codecs import Codec, Kind, decode, encode
from tinyfl.core import F32
from tinyfl.errors import Corrupt

SIZES = (6, 6, 6, 1)
KINDS = (Kind.fp16, Kind.int8, Kind.int4)
HELD = b""


@pytest.fixture
def board(built: Board) -> Board:
    built.start()
    built.put(1, PLAN)
    return built


def sent(values: F32, kind: Kind) -> tuple[bytes, F32]:
    """Their bytes, and what arrives."""
    data = encode(Codec(kind), values, SIZES)
    return data, decode(Codec(kind), data, SIZES)


def block(data: bytes, off: int = 0, step: int = 400, **form: Any) -> dict[str, Any]:
    announced = {"len": len(data), "sha": sha(data), **form} if off == 0 else {}
    return {"off": off, "data": data[off : off + step], **announced}


def put(board: Board, data: bytes, step: int = 400, **form: Any) -> None:
    for off in range(0, len(data), step):
        end = min(off + step, len(data))
        assert board.ours(WRITE, 2, **block(data, off, step, **form)) == {"off": end}


def learn(board: Board, theta: F32, round: int = 0, **inner: Any) -> None:
    assert board.ours(WRITE, 3, **round_of(one(**inner), round=round, base=sha(floats(theta))))["state"] == LEARNT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [5, 400])
def test_encoded_weights_are_those_that_numpy_decodes(board: Board, kind: Kind, step: int) -> None:
    data, arrived = sent(THETA, kind)
    put(board, data, step, codec=kind)
    assert (board.status()["state"], board.status()["weights"]) == (READY, sha(floats(arrived)))
    assert board.weights() == floats(arrived)
    learn(board, arrived)


@pytest.mark.parametrize("kind", KINDS)
def test_changes_add_up_to_numpys_weights_round_after_round(board: Board, kind: Kind) -> None:
    rng, theta, held = np.random.default_rng(7), THETA, THETA
    put(board, floats(theta), onto=HELD)
    for round in range(4):
        learn(board, held, round, batch=1 + round % 2)
        theta = theta + rng.normal(0, 0.1, 19).astype(np.float32)
        data, change = sent(theta - held, kind)
        put(board, data, 7, codec=kind, onto=sha(floats(held)))
        held = held + change
        assert board.weights() == floats(held)


def test_a_block_that_is_repeated_adds_its_change_once(board: Board) -> None:
    put(board, floats(THETA), onto=HELD)
    data, change = sent(np.full(19, 0.25, np.float32), Kind.int8)
    form = {"codec": Kind.int8, "onto": sha(floats(THETA))}
    for _ in range(3):
        assert board.ours(WRITE, 2, **block(data, **form)) == {"off": len(data)}
    assert board.weights() == floats(THETA + change)
    form["onto"] = sha(floats(THETA + change))  # the same change, once more
    put(board, data, **form)
    assert board.weights() == floats(THETA + change + change)


def test_a_change_of_weights_that_are_not_held_is_stale(board: Board) -> None:
    data, _ = sent(THETA, Kind.int8)
    change = block(data, codec=Kind.int8, onto=sha(floats(THETA)))
    assert board.refusal(WRITE, 2, **change) == BASE
    put(board, floats(THETA))  # not to be held
    assert board.refusal(WRITE, 2, **change) == BASE
    put(board, floats(THETA), onto=HELD)
    assert board.refusal(WRITE, 2, **{**change, "onto": sha(b"")}) == BASE
    assert board.refusal(WRITE, 2, **{**change, "onto": b"short"}) == INVALID
    assert board.status()["state"] == READY
    put(board, floats(2 * THETA))  # takes the held ones' place away
    assert board.refusal(WRITE, 2, **change) == BASE
    put(board, floats(THETA), onto=HELD)
    board.start(blank=False)
    board.put(1, PLAN)
    assert board.refusal(WRITE, 2, **change) == BASE


def test_held_weights_take_their_size_more_of_the_arena(built: Board) -> None:
    held, start = 4 * 19, 4 * 19
    whole = arena_bytes(LAYERS, one(batch=2)) + held
    assert start + held == whole - arena_bytes(LAYERS, one())
    for arena, least in ((whole, 2), (whole - 1, 1), (arena_bytes(LAYERS, one()) + held - 1, 0)):
        built.start(arena)
        built.put(1, PLAN)
        first = block(floats(THETA), onto=HELD)
        if least == 0:
            assert built.refusal(WRITE, 2, **first) == MEMORY
            put(built, floats(THETA))
            continue
        put(built, floats(THETA), onto=HELD)
        asked = round_of(one(batch=2))
        assert built.ours(WRITE, 3, **asked).get("state", MEMORY) == (LEARNT if least == 2 else MEMORY)


@pytest.mark.parametrize(("codec", "size"), [(Kind.int8, 4 * 19), (Kind.top, 30), (9, 30), (Kind.int4, 24)])
def test_bytes_of_another_number_than_the_codecs_are_refused_before_the_first(board: Board, codec: int, size: int) -> None:
    assert board.refusal(WRITE, 2, **block(bytes(size), codec=codec)) == INVALID
    assert board.status()["state"] == PLANNED


@pytest.mark.slow
@settings(max_examples=600)
@given(
    st.sampled_from(KINDS), st.booleans(), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), min_size=1, max_size=6)
)
def test_hostile_bytes_are_refused_and_what_is_held_stays(built: Board, kind: Kind, adds: bool, bytes_: Any) -> None:
    built.start()
    built.put(1, PLAN)
    put(built, floats(THETA), onto=HELD)
    data = bytearray(sent(THETA * np.float32(3), kind)[0])
    for at, byte in bytes_:
        data[at % len(data)] = byte
    form = {"codec": kind, **({"onto": sha(floats(THETA))} if adds else {})}
    reply = built.ours(WRITE, 2, **block(bytes(data), **form))
    try:
        arrived = decode(Codec(kind), bytes(data), SIZES) + (THETA if adds else np.float32(0))
    except Corrupt:
        arrived = None
    if arrived is not None and (np.abs(arrived) < 2.0**50).all():
        assert built.weights() == floats(arrived)
        return
    assert reply["err"]["rc"] == NUMERIC
    assert built.status()["state"] == PLANNED
    if adds and arrived is None:
        again, change = sent(np.full(19, 0.5, np.float32), Kind.int8)
        put(built, again, codec=Kind.int8, onto=sha(floats(THETA)))
        assert built.weights() == floats(THETA + change)
