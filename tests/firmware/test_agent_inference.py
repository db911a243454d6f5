"""The agent's program and what it predicts, message by message and cut by cut."""

import ctypes
import random
from typing import Any

import programs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peer import OS, READ, WRITE, Board, floats, sha
from reference_inner import Inner, Phase, inner_bytes
from reference_layers import dense, plan_bytes, resting_bytes

INVALID, BAD_PROGRAM, MEMORY, STATE, HASH, FLASH = 2, 3, 4, 5, 7, 10
PROGRAM, PREDICT = 10, 11
STORE, HEADER = 8192, 40

TABLE = random.Random(1).randbytes(256)
CONTENT = programs.program(TABLE, 100)
OTHER = programs.program(TABLE[::-1], 6, after=b"odd")
X = random.Random(2).randbytes(100)

LAYERS = [dense(1, 6, 1), dense(6, 1, 0)]
PLAN = plan_bytes(LAYERS, 0)
LEARNER = resting_bytes(LAYERS)
THETA = floats([i / 17 for i in range(-9, 10)])


@pytest.fixture
def board(built: Board) -> Board:
    built.start()
    return built


@pytest.fixture
def loaded(board: Board) -> Board:
    board.put(PROGRAM, CONTENT)
    return board


def learner(board: Board) -> None:
    board.put(1, PLAN)
    board.put(2, THETA)


def predict(board: Board, x: bytes, block: int = 600) -> bytes:
    """The whole output, as a host gets it."""
    for off in range(0, len(x), block):
        part = x[off : off + block]
        reply = board.ours(WRITE, PREDICT, off=off, data=part)
        assert reply["off"] == off + len(part)
        assert ("data" in reply) == (off + len(part) == len(x))
    held = bytes(reply["data"])
    while len(held) < reply["len"]:
        more = board.ours(READ, PREDICT, off=len(held))
        assert (more["off"], more["len"]) == (len(held), reply["len"])
        held += more["data"]
    return held


def test_a_program_is_taken_described_and_run(board: Board) -> None:
    described = board.ours(READ, 0)
    assert (described["store"], described["inference"]) == (STORE, b"")
    board.put(PROGRAM, CONTENT)
    assert board.ours(READ, 0)["inference"] == sha(CONTENT)
    assert predict(board, X) == programs.outputs(CONTENT, X)


@pytest.mark.parametrize("count", [1, 3, 900, 2000, 7000])
@pytest.mark.parametrize("block", [1, 7, 900])
def test_inputs_and_outputs_of_any_length_pass_in_blocks(board: Board, count: int, block: int) -> None:
    content, x = programs.program(TABLE, count), random.Random(count).randbytes(count)
    board.put(PROGRAM, content)
    assert predict(board, x, max(block, count // 50)) == programs.outputs(content, x)


@pytest.mark.parametrize("step", [4, 5, 7, 13, 403])
def test_a_board_takes_whole_words_and_says_where_to_go_on(board: Board, step: int) -> None:
    off, announced = 0, {"len": len(OTHER), "sha": sha(OTHER)}
    assert len(OTHER) % 4 == 3
    while off < len(OTHER):
        data = OTHER[off : off + step]
        reply = board.ours(WRITE, PROGRAM, off=off, data=data, **(announced if off == 0 else {}))
        assert reply["off"] == (len(OTHER) if off + len(data) == len(OTHER) else off + len(data) // 4 * 4)
        again = board.ours(WRITE, PROGRAM, off=off, data=data, **(announced if off == 0 else {}))
        assert again == reply
        off = reply["off"]
    assert predict(board, b"abcdef") == programs.outputs(OTHER, b"abcdef")


def test_a_program_that_is_there_is_not_written_again(loaded: Board) -> None:
    announced = {"len": len(CONTENT), "sha": sha(CONTENT)}
    loaded.lib.board_cut_after(-1)
    assert loaded.ours(WRITE, PROGRAM, off=0, data=CONTENT[:100], **announced) == {"off": len(CONTENT)}
    assert loaded.ours(WRITE, PROGRAM, off=200, data=CONTENT[200:], **announced) == {"off": len(CONTENT)}
    assert loaded.lib.board_events() == 0
    loaded.start(blank=False)
    assert loaded.ours(WRITE, PROGRAM, off=0, data=b"", **announced) == {"off": len(CONTENT)}
    assert predict(loaded, X) == programs.outputs(CONTENT, X)


def test_another_program_takes_its_place_and_a_broken_off_upload_goes_on(loaded: Board) -> None:
    announced = {"len": len(OTHER), "sha": sha(OTHER)}
    assert loaded.ours(WRITE, PROGRAM, off=0, data=OTHER[:80], **announced) == {"off": 80}
    assert loaded.ours(READ, 0)["inference"] == b""
    assert loaded.refusal(WRITE, PREDICT, off=0, data=b"") == STATE
    assert loaded.ours(WRITE, PROGRAM, off=0, data=b"", **announced) == {"off": 80}
    assert loaded.ours(WRITE, PROGRAM, off=160, data=OTHER[160:]) == {"off": 80}
    assert loaded.ours(WRITE, PROGRAM, off=80, data=OTHER[80:]) == {"off": len(OTHER)}
    assert predict(loaded, b"abcdef") == programs.outputs(OTHER, b"abcdef")


def refused_programs() -> dict[str, tuple[bytes, dict[str, Any], int]]:
    """What is sent as one block at 0, what is changed in the request, and the refusal."""
    long = programs.program(TABLE, 4, after=bytes(STORE))
    return {
        "a wrong hash": (CONTENT, {"sha": bytes(32)}, HASH),
        "no hash": (CONTENT, {"sha": None}, INVALID),
        "no length": (CONTENT, {"len": None}, INVALID),
        "a length of 0": (b"", {"len": 0}, INVALID),
        "more than announced": (CONTENT, {"len": len(CONTENT) - 1}, INVALID),
        "longer than the slot": (b"", {"len": STORE - HEADER + 1, "sha": sha(long)}, MEMORY),
        "no program": (bytes(388), {}, BAD_PROGRAM),
        "one that reaches beyond its arena": (programs.program(TABLE, 8, arena=15), {}, BAD_PROGRAM),
        "one for a larger arena": (programs.program(TABLE, 8, arena=(1 << 16) + 4), {}, MEMORY),
    }


@pytest.mark.parametrize("name", refused_programs())
def test_programs_of_no_use_are_refused_and_the_learner_is_as_it_was(board: Board, name: str) -> None:
    data, changes, rc = refused_programs()[name]
    learner(board)
    fields = {"off": 0, "data": data, "len": len(data), "sha": sha(data), **changes}
    assert board.refusal(WRITE, PROGRAM, **{key: value for key, value in fields.items() if value is not None}) == rc
    assert board.ours(READ, 0)["inference"] == b""
    assert board.weights() == THETA
    board.put(PROGRAM, CONTENT)
    assert predict(board, X) == programs.outputs(CONTENT, X)


def test_a_program_as_long_as_the_slot_is_taken(board: Board) -> None:
    content = programs.program(TABLE, 4, after=bytes(STORE - HEADER - 388))
    board.put(PROGRAM, content)
    board.start(blank=False)
    assert board.ours(READ, 0)["inference"] == sha(content)


def test_a_slot_that_a_bit_has_left_is_empty(loaded: Board) -> None:
    loaded.lib.board_flash.restype = ctypes.POINTER(ctypes.c_uint8)
    flash, store = loaded.lib.board_flash(), 2 * 4096
    for at in (0, 5, 20, HEADER, HEADER + 200):
        flash[store + at] ^= 4
        loaded.start(blank=False)
        assert loaded.ours(READ, 0)["inference"] == b""
        flash[store + at] ^= 4
    loaded.start(blank=False)
    assert loaded.ours(READ, 0)["inference"] == sha(CONTENT)
    loaded.start(arena=150, blank=False)  # too small for what the slot holds
    assert loaded.ours(READ, 0)["inference"] == b""
    assert loaded.refusal(READ, PREDICT, off=0) == loaded.refusal(WRITE, PREDICT, off=0, data=X) == STATE


def test_predictions_repeat_and_start_anew(loaded: Board) -> None:
    expected = programs.outputs(CONTENT, X)
    assert loaded.refusal(READ, PREDICT, off=0) == STATE
    assert loaded.ours(WRITE, PREDICT, off=0, data=X[:60]) == {"off": 60}
    assert loaded.refusal(READ, PREDICT, off=0) == STATE
    assert loaded.ours(WRITE, PREDICT, off=70, data=X[70:]) == {"off": 60}
    assert loaded.refusal(WRITE, PREDICT, off=60, data=X[:41]) == INVALID
    whole = {"off": 100, "len": 100, "data": expected}
    assert loaded.ours(WRITE, PREDICT, off=60, data=X[60:]) == whole
    assert loaded.ours(WRITE, PREDICT, off=60, data=X[60:]) == whole  # its reply was lost
    assert loaded.ours(READ, PREDICT, off=90) == {"off": 90, "len": 100, "data": expected[90:]}
    assert loaded.ours(READ, PREDICT, off=100) == {"off": 100, "len": 100, "data": b""}
    assert loaded.refusal(READ, PREDICT, off=101) == INVALID
    assert loaded.ours(WRITE, PREDICT, off=0, data=X[:1]) == {"off": 1}
    assert loaded.refusal(READ, PREDICT, off=0) == STATE
    assert predict(loaded, X[::-1]) == programs.outputs(CONTENT, X[::-1])


def fed(inner: Inner) -> dict[str, Any]:
    """A round whose samples are fed."""
    return {
        "round": 1, "device": 0, "seed": 0, "inner": inner_bytes(inner), "base": sha(THETA), "source": "", "run": 1, "saved": 0,
    }  # fmt: skip


def test_learner_and_program_live_side_by_side(loaded: Board) -> None:
    learner(loaded)
    for _ in range(2):
        assert predict(loaded, X) == programs.outputs(CONTENT, X)
        assert loaded.weights() == THETA
        loaded.ours(WRITE, 6, off=0, data=floats([1]))
    loaded.ours(WRITE, 3, **fed(Inner((Phase(4, rate=0.01),))))
    assert predict(loaded, X) == programs.outputs(CONTENT, X)  # in the middle of a round
    assert loaded.ours(WRITE, 4, off=0, data=floats([1, 2] * 4)) == {"off": 32}
    assert loaded.status()["done"] == 4


def test_where_both_do_not_fit_the_learner_stays(built: Board) -> None:
    arena, _, _ = programs.sizes(CONTENT)
    both = -(-LEARNER // 8) * 8 + arena
    for room, fits in ((both + 8, True), (both - 8, False)):
        built.start(room)
        built.put(PROGRAM, CONTENT)
        assert predict(built, X) == programs.outputs(CONTENT, X)
        learner(built)
        if fits:
            assert predict(built, X) == programs.outputs(CONTENT, X)
        else:
            assert built.refusal(WRITE, PREDICT, off=0, data=X) == MEMORY
            assert built.refusal(READ, PREDICT, off=0) == STATE
        assert built.weights() == THETA
        assert built.ours(READ, 0)["inference"] == sha(CONTENT)


def test_what_a_plan_or_a_gradient_may_have_overwritten_is_not_read_nor_gone_on_with(built: Board) -> None:
    arena, _, _ = programs.sizes(CONTENT)
    built.start(LEARNER + len(THETA) + arena // 2)
    built.put(PROGRAM, CONTENT)
    assert built.ours(WRITE, PREDICT, off=0, data=X[:50]) == {"off": 50}
    built.put(1, PLAN)
    assert built.ours(WRITE, 1, off=0, data=b"", len=8, sha=bytes(32)) == {"off": 0}  # and away with it
    assert built.ours(WRITE, PREDICT, off=50, data=X[50:]) == {"off": 0}
    assert predict(built, X) == programs.outputs(CONTENT, X)

    built.start(LEARNER + arena + 8, blank=False)
    learner(built)
    predict(built, X)
    built.ours(WRITE, 3, **fed(Inner((Phase(4, batch=2, rate=0.01),))))
    assert built.refusal(READ, PREDICT, off=0) == STATE
    assert built.refusal(WRITE, PREDICT, off=0, data=X) == MEMORY
    assert built.ours(WRITE, 4, off=0, data=floats([1, 2] * 4)) == {"off": 32}
    assert predict(built, X) == programs.outputs(CONTENT, X)


@pytest.mark.parametrize("old", [None, CONTENT])
def test_a_cut_at_any_write_leaves_the_program_whole_or_none_and_the_models_alone(built: Board, old: bytes | None) -> None:
    def before() -> None:
        built.start()
        learner(built)
        built.ours(WRITE, 9, sha=sha(THETA))
        if old:
            built.put(PROGRAM, old)

    def put() -> bool:
        """Whether the board took it all."""
        for off in range(0, len(OTHER), 100):
            announced = {"len": len(OTHER), "sha": sha(OTHER)} if off == 0 else {}
            if "err" in built.ours(WRITE, PROGRAM, off=off, data=OTHER[off : off + 100], **announced):
                return False
        return True

    before()
    built.lib.board_cut_after(-1)
    assert put()
    writes = built.lib.board_events()
    assert writes == 1 + (len(OTHER) + 3) // 4 + HEADER // 4
    for cut in range(writes + 1):
        before()
        built.lib.board_cut_after(cut)
        assert put() == (cut == writes)
        built.start(blank=False)
        assert built.ours(READ, 0)["inference"] == (sha(OTHER) if cut == writes else b"")
        assert built.weights() == THETA
        built.put(PROGRAM, CONTENT)
        assert predict(built, X) == programs.outputs(CONTENT, X)


@pytest.mark.slow
@settings(max_examples=300)
@given(st.data())
def test_hostile_requests_are_answered_and_the_board_lives(built: Board, data: st.DataObject) -> None:
    built.start(data.draw(st.sampled_from([64, 210, 300, 400, 1 << 16])))
    offsets = st.one_of(st.integers(0, 450), st.integers(-3, 1 << 64))
    values = st.one_of(offsets, st.binary(max_size=300), st.sampled_from([CONTENT, OTHER, X, PLAN, sha(CONTENT), sha(OTHER)]))
    for _ in range(data.draw(st.integers(1, 10))):
        whole = data.draw(st.sampled_from([CONTENT, OTHER, PLAN]))
        off = data.draw(st.one_of(st.just(0), offsets))
        fields: dict[str, Any] = {"off": off, "data": whole[max(off, 0) :], "len": len(whole), "sha": sha(whole)}
        fields |= data.draw(st.dictionaries(st.sampled_from([*fields, "x"]), values, max_size=1))
        op, command = data.draw(st.sampled_from([(WRITE, PROGRAM), (WRITE, PREDICT), (READ, PREDICT), (WRITE, 1), (READ, 0)]))
        built.ours(op, command, **fields)
    assert built.request(WRITE, OS, 0, {"d": "alive"}) == {"r": "alive"}
