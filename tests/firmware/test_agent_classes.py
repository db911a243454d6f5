"""Classes on the agent, message by message and cut by cut: the distances of SPEC.md's class means over the board's own
embeddings, to the bit."""

import random
import struct
from typing import Any

import numpy as np
import programs
import pytest
from peer import READ, WRITE, Board, floats, sha
from reference_layers import dense, plan_bytes
from reference_means import Means

INVALID, MEMORY, STATE, STALE, HASH, NUMERIC, FLASH = 2, 4, 5, 6, 7, 8, 10
CLASSES, ENROL, CLASSIFY, FORGET, KEEP = range(12, 17)
LEARNER, PROGRAM = 0, 1

LAYERS = [dense(4, 6, 1), dense(6, 8, 0)]
PLAN = plan_bytes(LAYERS, 0)
THETA = floats(np.random.default_rng(3).normal(size=4 * 6 + 6 + 6 * 8 + 8).astype(np.float32))
CENTRE = np.linspace(-0.5, 0.5, 8, dtype=np.float32)
SCALE, ZERO = 0.375, -5
_PLAIN = programs.program(random.Random(1).randbytes(256), 8)
CONTENT = _PLAIN[:40] + struct.pack("<fb", SCALE, ZERO) + _PLAIN[45:]  # the output's grid


def record(
    sha256: bytes,
    *,
    stage: int = LEARNER,
    places: int = 5,
    threshold: float = np.inf,
    centre: Any = None,
    normalised: bool = False,
) -> bytes:
    flags = (centre is not None) | normalised << 1
    return struct.pack("<3If", stage, flags, places, threshold) + sha256 + (b"" if centre is None else floats(centre))


@pytest.fixture
def board(built: Board) -> Board:
    built.start()
    built.put(1, PLAN)
    built.put(2, THETA)
    return built


def x_of(number: int) -> bytes:
    return floats(np.random.default_rng(number).normal(size=4).astype(np.float32))


def counts(board: Board) -> dict[int, int]:
    reply = board.ours(READ, CLASSES, first=0)
    assert reply["next"] == reply["places"]
    return dict(zip(reply["numbers"], reply["counts"], strict=True))


def enrol(board: Board, number: int, x: bytes, **more: Any) -> int:
    count = counts(board).get(number, 0)
    reply = board.ours(WRITE, ENROL, **{"number": number, "count": count, "off": 0, "data": x, **more})
    assert reply == {"off": len(x), "count": count + 1}
    return count + 1


def classify(board: Board, x: bytes) -> tuple[int, bytes, str]:
    reply = board.ours(WRITE, CLASSIFY, off=0, data=x)
    assert reply["off"] == len(x)
    return reply["number"], floats(reply["distance"]), reply["name"]


def told(board: Board) -> Any:
    """All that a host can know of the set: its list, and how it classifies."""
    return board.ours(READ, CLASSES, first=0), [classify(board, x_of(number)) for number in range(900, 906)]


@pytest.mark.parametrize("threshold", [np.inf, 0.3])
@pytest.mark.parametrize(("centre", "normalised"), [(None, False), (None, True), (CENTRE, True)])
def test_classes_come_and_go_and_the_nearest_is_that_of_the_reference(
    board: Board, centre: Any, normalised: bool, threshold: float
) -> None:
    board.put(CLASSES, record(sha(THETA), threshold=threshold, centre=centre, normalised=normalised), step=29)
    means, draws, unknown = Means(8, 5, centre, normalised), random.Random(1), 0
    for turn in range(120):
        number, x = draws.randrange(5), x_of(turn)
        embedding = means.prepared(np.frombuffer(board.ours(WRITE, 6, off=0, data=x)["data"], np.float32).copy())
        what = draws.random()
        if what < 0.5:
            expected, distance = means.nearest(embedding, threshold)
            name = "" if expected is None else f"class {expected}"
            assert classify(board, x) == (-1 if expected is None else expected, floats(distance), name)
            unknown += expected is None
        elif what < 0.9:
            enrol(board, number, x, name=f"class {number}")
            means.add(number, embedding)
        else:
            means.clear(number)
            left = sum(count > 0 for count in means.counts)
            assert board.ours(WRITE, FORGET, **{"number": number}) == {"left": left}
        assert counts(board) == {number: count for number, count in enumerate(means.counts) if count}
    assert (unknown > 5) == (threshold < 10)


def test_the_programs_output_is_an_embedding_once_it_is_dequantised(board: Board) -> None:
    board.put(10, CONTENT)
    board.put(CLASSES, record(sha(CONTENT), stage=PROGRAM))
    means = Means(8, 5)
    for number, seed in enumerate((1, 2, 3, 1, 2)):
        x = random.Random(seed + 10 * number).randbytes(8)
        q = np.frombuffer(programs.outputs(CONTENT, x), np.int8).astype(np.int32)
        embedding = np.float32(SCALE) * (q - ZERO).astype(np.float32)
        assert board.ours(WRITE, CLASSIFY, off=0, data=x[:5]) == {"off": 5}
        reply = board.ours(WRITE, CLASSIFY, off=5, data=x[5:])
        expected, distance = means.nearest(embedding, np.inf)
        assert (reply["number"], floats(reply["distance"])) == (-1 if expected is None else expected, floats(distance))
        enrol(board, number % 3, x)
        means.add(number % 3, embedding)


def test_a_sample_comes_in_blocks_and_a_repeat_adds_nothing(board: Board) -> None:
    board.put(CLASSES, record(sha(THETA)))
    x = x_of(1)
    at = {"number": 2, "count": 0}
    assert board.ours(WRITE, ENROL, off=0, data=x[:6], name="first", **at) == {"off": 6}
    assert board.ours(WRITE, ENROL, off=9, data=x[9:], name="first", **at) == {"off": 6}
    done = {"off": 16, "count": 1}
    assert [board.ours(WRITE, ENROL, off=6, data=x[6:], name="first", **at) for _ in range(3)] == [done] * 3
    assert board.ours(WRITE, ENROL, off=6, data=x[6:], **{"number": 2, "count": 1}) == {"off": 0}  # another begins at its start
    assert counts(board) == {2: 1}
    assert board.refusal(WRITE, ENROL, off=0, data=x, **{"number": 2, "count": 3}) == STALE
    enrol(board, 1, x)
    assert board.refusal(WRITE, ENROL, off=0, data=x, **{"number": 2, "count": 0}) == STALE  # no longer the last
    assert classify(board, x) == (1, floats(0), "")


def test_requests_without_a_set_or_with_fields_out_of_range_are_refused(board: Board) -> None:
    x, first = x_of(1), {"number": 0, "count": 0, "off": 0}
    for command, fields in (
        (ENROL, {**first, "data": x}),
        (CLASSIFY, {"off": 0, "data": x}),
        (FORGET, {"number": 0}),
        (KEEP, {}),
    ):
        assert board.refusal(WRITE, command, **fields) == STATE
    board.put(CLASSES, record(sha(THETA)))
    for changed in ({"number": 5}, {"name": "x" * 17}, {"off": "0"}, {"count": -1}, {"data": x + x}):
        assert board.refusal(WRITE, ENROL, **{**first, "data": x, **changed}) == INVALID
    assert board.refusal(WRITE, FORGET, **{"number": 5}) == INVALID
    assert board.refusal(WRITE, ENROL, **first, data=floats([1e38] * 4)) == NUMERIC
    assert counts(board) == {}
    assert board.ours(WRITE, CLASSIFY, off=0, data=x) == {"off": 16, "number": -1, "distance": np.inf, "name": ""}
    assert board.ours(WRITE, FORGET) == {"left": 0}
    assert board.refusal(WRITE, CLASSIFY, off=0, data=x) == STATE


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (record(sha(PLAN)), STALE),
        (record(sha(THETA), stage=2), INVALID),
        (record(sha(CONTENT), stage=PROGRAM), STATE),
        (record(sha(THETA), places=0), INVALID),
        (record(sha(THETA), places=65), INVALID),
        (record(sha(THETA), threshold=-1.0), INVALID),
        (record(sha(THETA), threshold=np.nan), INVALID),
        (record(sha(THETA), centre=CENTRE[:7]), INVALID),
        (record(sha(THETA), centre=CENTRE * np.float32(1e30)), NUMERIC),
        (record(sha(THETA))[:-1], INVALID),
    ],
)
def test_a_set_that_cannot_be_is_refused_and_leaves_none(board: Board, bad: bytes, why: int) -> None:
    board.put(CLASSES, record(sha(THETA)))
    assert board.refusal(WRITE, CLASSES, off=0, data=bad, len=len(bad), sha=sha(bad)) == why
    assert board.ours(READ, CLASSES, first=0)["set"] == b""


def test_a_set_takes_the_arenas_upper_end_or_is_refused_if_the_learner_has_it(board: Board) -> None:
    board.start(arena=2000)
    board.put(1, PLAN)
    board.put(2, THETA)
    large = record(sha(THETA), places=64)
    assert board.refusal(WRITE, CLASSES, off=0, data=large, len=len(large), sha=sha(large)) == MEMORY
    board.start(arena=1 << 13)
    board.put(1, PLAN)
    board.put(2, THETA)
    board.put(CLASSES, record(sha(THETA)))
    enrol(board, 0, x_of(1))
    other = plan_bytes([dense(4, 6, 0), dense(6, 8, 0)], 0)
    board.put(1, other)  # the embedding goes, and the set with it
    assert board.ours(READ, CLASSES, first=0)["set"] == b""


def test_other_weights_make_a_set_stale(board: Board) -> None:
    board.put(CLASSES, record(sha(THETA)))
    enrol(board, 0, x_of(1))
    other = floats(2 * np.frombuffer(THETA, np.float32))
    board.put(2, other)
    assert board.refusal(WRITE, CLASSIFY, off=0, data=x_of(1)) == STALE
    board.put(2, THETA)
    assert classify(board, x_of(1))[0] == 0


def test_a_long_list_comes_in_parts(board: Board) -> None:
    board.put(CLASSES, record(sha(THETA), places=64))
    for number in range(64):
        fields = {"number": number, "count": 0, "off": 0, "data": x_of(number), "name": f"{number:016}"}
        assert board.ours(WRITE, ENROL, **fields)["count"] == 1
    found, at = [], 0
    while at < 64:
        reply = board.ours(READ, CLASSES, first=at)
        found += reply["numbers"]
        at = reply["next"]
    assert found == list(range(64))


def kept(board: Board) -> Board:
    board.ours(WRITE, 9, sha=sha(THETA))
    board.put(CLASSES, record(sha(THETA), centre=CENTRE, normalised=True, threshold=2.0))
    for number, name in ((0, "a cat"), (3, ""), (3, "")):
        enrol(board, number, x_of(10 + number), name=name)
    assert board.ours(WRITE, KEEP) == {"commits": 1}
    return board


def test_committed_classes_come_back_with_their_embedding(board: Board) -> None:
    old = told(kept(board))
    assert board.ours(WRITE, KEEP) == {"commits": 1}  # nothing has changed
    enrol(board, 1, x_of(1))
    board.start(blank=False)
    assert told(board) == old
    assert board.ours(WRITE, FORGET, **{"number": 0}) == {"left": 1}
    assert board.ours(WRITE, KEEP) == {"commits": 2}
    new = told(board)
    board.start(blank=False)
    assert told(board) == new != old
    other = floats(2 * np.frombuffer(THETA, np.float32))
    board.put(2, other)
    board.ours(WRITE, 9, sha=sha(other))
    board.start(blank=False)
    assert board.ours(READ, CLASSES, first=0)["set"] == b""  # of other weights


def test_a_cut_at_every_write_of_the_store_leaves_the_old_classes_or_the_new(board: Board) -> None:
    def changed() -> None:
        enrol(board, 1, x_of(1), name="new")
        board.ours(WRITE, FORGET, **{"number": 0})

    old = told(kept(board))
    changed()
    board.lib.board_cut_after(-1)
    board.ours(WRITE, KEEP)
    writes, new = board.lib.board_events(), told(board)
    assert writes > 20
    for cut in range(writes + 1):
        board.start()
        board.put(1, PLAN)
        board.put(2, THETA)
        kept(board)
        changed()
        board.lib.board_cut_after(cut)
        board.ours(WRITE, KEEP)
        board.start(blank=False)
        assert told(board) == (new if cut == writes else old)
