"""The agent, message by message: replies against a peer written from SPEC.md and the NumPy learner of reference.py."""

import struct
from dataclasses import replace
from typing import Any

import cbor2
import numpy as np
import peer
import pytest
import reference as ref
from hypothesis import given, settings
from hypothesis import strategies as st
from peer import OS, OURS, READ, WRITE, Board, floats, sha
from reference_inner import Inner, Loop, Phase, arena_bytes, inner_bytes, read_inner
from reference_layers import MAX_POOL, dense, plan_bytes
from small_nets import SMALL, conv, pool, sample_of, weights_of

LAYERS = [dense(1, 6, ref.RELU), dense(6, 1, ref.IDENTITY)]
PLAN = plan_bytes(LAYERS, ref.MEAN_SQUARED_ERROR)
THETA = (np.arange(19, dtype=np.float32) - 9) / np.float32(17)
EMPTY, PLANNED, READY, LEARNING, LEARNT, FAILED = range(6)
INVALID, BAD_PLAN, MEMORY, STATE, BASE, HASH, NUMERIC, SIZE, FLASH, SOURCE = range(2, 12)


@pytest.fixture
def board(built: Board) -> Board:
    built.start()
    return built


@pytest.fixture
def ready(board: Board) -> Board:
    board.put(1, PLAN)
    board.put(2, floats(THETA))
    return board


def one(**changes: Any) -> Inner:
    """An inner loop of one phase."""
    return Inner((Phase(**{"samples": 8, "rate": 0.0625, **changes}),))


def round_of(loop: Inner | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "round": 3, "device": 5, "seed": 11, "inner": inner_bytes(loop or one()), "base": sha(floats(THETA)),
        "source": "sine", "run": 1, "saved": 0, **changes,
    }  # fmt: skip


def learnt_by_reference(samples: list[tuple[Any, Any]], inner: Inner) -> Any:
    """phi and the mean loss after the inner loop on the samples."""
    loop = Loop(LAYERS, ref.MEAN_SQUARED_ERROR, THETA, inner)
    while loop.index is not None:
        loop.learn(*samples[loop.index])
    return loop.weights, loop.loss


def sine(count: int) -> list[tuple[Any, Any]]:
    pairs = [ref.sine_sample(11, 5, 3, i) for i in range(count)]
    return [(np.array([x], np.float32), np.array([y], np.float32)) for x, y in pairs]


def test_echo_and_parameters_speak_mcumgr(board: Board) -> None:
    assert board.request(WRITE, OS, 0, {"d": "hallo, µC"}) == {"r": "hallo, µC"}
    assert board.request(WRITE, OS, 0, {"d": "x"}, version=0) == {"r": "x"}
    assert board.request(READ, OS, 6, {}) == {"buf_size": 1024, "buf_count": 4}
    assert board.request(READ, OS, 6, b"") == {"buf_size": 1024, "buf_count": 4}


def test_describe_says_all_that_a_host_must_know(board: Board) -> None:
    assert board.ours(READ, 0) == {
        "protocol": 4, "firmware": "test", "core": 1, "board": "memory", "id": bytes([0] * 7 + [7]), "clock": 1000000,
        "arena": 1 << 16, "buffer": 1024, "window": 4, "slot": 4096, "store": 8192, "areas": 4096,
        "layers": ["dense", "conv", "depthwise", "max-pool", "average-pool"], "dtypes": ["float32", "int8"],
        "inner": ["phases", "layers", "pull", "gradient", "local", "kept", "residual", "prototypes",
                  "fp16", "int8", "int4", "top"],
        "classes": ["learner", "program"], "online": ["learner", "program", "inputs"],
        "down": ["fp16", "int8", "int4", "delta"],
        "sources": ["sine"], "sensors": [], "plan": b"", "model": b"", "inference": b"",
    }  # fmt: skip
    board.put(1, PLAN)
    assert board.ours(READ, 0)["plan"] == sha(PLAN)


def test_reset_answers_before_it_restarts(board: Board) -> None:
    before = board.lib.board_resets()
    assert board.request(WRITE, OS, 5, {}) == {}
    assert board.lib.board_resets() == before + 1


@pytest.mark.parametrize("activation", [ref.RELU, ref.TANH, ref.LEAKY_RELU, ref.SIGMOID])
def test_round_on_the_boards_own_sine_learns_what_the_reference_learns(board: Board, activation: int) -> None:
    layers = [dense(1, 6, activation), LAYERS[1]]
    board.put(1, plan_bytes(layers, ref.MEAN_SQUARED_ERROR))
    board.put(2, floats(THETA))
    status = board.ours(WRITE, 3, **round_of())
    learner = ref.Learner(layers, ref.MEAN_SQUARED_ERROR, THETA.copy())
    for x, y in sine(8):
        learner.learn(x, y, np.float32(0.0625))
    assert board.weights() == floats(learner.theta)
    assert status["state"] == LEARNT
    assert status["weights"] == sha(floats(learner.theta))
    assert (status["round"], status["base"], status["done"], status["code"]) == (3, sha(floats(THETA)), 8, 0)


@pytest.mark.parametrize(("batch", "passes"), [(1, 1), (1, 3), (3, 2), (8, 1), (20, 2)])
@pytest.mark.parametrize("block", [1, 7, 8, 61, 900])
def test_fed_samples_learn_the_same_however_they_are_cut(ready: Board, batch: int, passes: int, block: int) -> None:
    samples = sine(8)
    inner = one(batch=batch, passes=passes)
    phi, loss = learnt_by_reference(samples, inner)
    opened = ready.ours(WRITE, 3, **round_of(inner, source=""))
    assert (opened["state"], opened["done"]) == (LEARNING, 0)
    data = floats([np.concatenate(pair) for pair in samples]) * passes
    for off in range(0, len(data), block):
        part = data[off : off + block]
        assert ready.ours(WRITE, 4, off=off, data=part) == {"off": off + len(part)}
        if off == block:  # a repeat, as after a lost reply, and a block from too far ahead
            assert ready.ours(WRITE, 4, off=off, data=part) == {"off": off + len(part)}
            assert ready.ours(WRITE, 4, off=off + 3 * block, data=part) == {"off": off + len(part)}
    status = ready.status()
    assert (status["state"], status["done"]) == (LEARNT, 8 * passes)
    assert np.float32(status["loss"]) == loss
    assert ready.weights() == floats(phi)
    assert ready.ours(WRITE, 4, off=0, data=data[:4]) == {"off": len(data)}


def test_a_repeated_train_request_gets_the_result_again_and_learns_nothing_more(ready: Board) -> None:
    first = ready.ours(WRITE, 3, **round_of())
    phi = ready.weights()
    assert ready.ours(WRITE, 3, **round_of()) == first
    assert ready.weights() == phi
    assert ready.refusal(WRITE, 3, **round_of(round=4)) == BASE


def test_weights_already_here_are_not_sent_again(ready: Board) -> None:
    data = floats(THETA)
    assert ready.ours(WRITE, 2, off=0, data=b"", len=len(data), sha=sha(data)) == {"off": len(data)}
    ready.ours(WRITE, 3, **round_of())
    assert ready.ours(WRITE, 2, off=0, data=b"", len=len(data), sha=sha(data)) == {"off": 0}
    assert ready.status()["state"] == PLANNED


def test_blocks_out_of_order_are_not_taken_and_a_wrong_hash_is_refused(board: Board) -> None:
    board.put(1, PLAN)
    data = floats(THETA)
    announced = {"len": len(data), "sha": sha(data)}
    assert board.ours(WRITE, 2, off=20, data=data[20:40]) == {"off": 0}
    assert board.ours(WRITE, 2, off=0, data=data[:20], **announced) == {"off": 20}
    assert board.ours(WRITE, 2, off=0, data=data[:20], **announced) == {"off": 20}
    assert board.ours(WRITE, 2, off=40, data=data[40:]) == {"off": 20}
    assert board.refusal(WRITE, 2, off=20, data=data[:1] + data[21:]) == HASH
    assert board.status()["state"] == PLANNED
    assert board.status()["done"] == 0
    board.put(2, data)
    assert board.status()["weights"] == sha(data)


def test_evaluate_and_infer_equal_the_reference(ready: Board) -> None:
    samples = sine(5)
    learner = ref.Learner(LAYERS, ref.MEAN_SQUARED_ERROR, THETA)
    data = floats([np.concatenate(pair) for pair in samples])
    assert ready.ours(WRITE, 5, off=0, data=data[:13])["off"] == 13
    reply = ready.ours(WRITE, 5, off=13, data=data[13:])
    loss = np.float32(0)
    for x, y in samples:
        loss = loss + ref.loss_and_gradient(learner.forward(x)[-1], y, ref.MEAN_SQUARED_ERROR)[0]
    assert (reply["off"], reply["samples"], reply["right"]) == (40, 5, 5)
    assert np.float32(reply["loss"]) == loss / np.float32(5)
    assert ready.ours(WRITE, 6, off=0, data=floats(samples[0][0])[:1]) == {"off": 1}
    reply = ready.ours(WRITE, 6, off=1, data=floats(samples[0][0])[1:])
    assert reply == {"off": 4, "data": floats(learner.forward(samples[0][0])[-1])}


def test_classification_counts_the_right_ones(board: Board) -> None:
    board.put(1, plan_bytes([dense(2, 3, ref.IDENTITY)], ref.SOFTMAX_CROSS_ENTROPY))
    board.put(2, floats([1, 0, 0, 0, 1, 0, 0, 0, 0.5]))
    rows = [[3, 0, 1, 0, 0], [0, 3, 0, 1, 0], [0, 0, 0, 0, 1], [3, 0, 0, 1, 0]]
    reply = board.ours(WRITE, 5, off=0, data=floats(rows))
    assert (reply["samples"], reply["right"]) == (4, 3)


def refused_requests() -> dict[str, tuple[int, int, dict[str, Any], int]]:
    whole = {"off": 0, "data": b"", "len": 76, "sha": bytes(32)}
    cases: dict[str, tuple[int, int, dict[str, Any], int]] = {
        "no offset": (WRITE, 2, {"data": b""}, INVALID),
        "negative offset": (WRITE, 2, {"off": -1, "data": b""}, INVALID),
        "text for bytes": (WRITE, 2, {"off": 0, "data": "", "len": 76, "sha": bytes(32)}, INVALID),
        "no hash at 0": (WRITE, 2, {"off": 0, "data": b"", "len": 76}, INVALID),
        "short hash": (WRITE, 2, {**whole, "sha": bytes(31)}, INVALID),
        "another length": (WRITE, 2, {**whole, "len": 80}, INVALID),
        "more than announced": (WRITE, 2, {**whole, "data": bytes(77)}, INVALID),
        "plan too long": (WRITE, 1, {"off": 0, "data": b"", "len": 8 + 16 * 64 + 1, "sha": bytes(32)}, INVALID),
        "weights beyond the end": (READ, 2, {"off": 77}, INVALID),
        "no samples": (WRITE, 3, round_of(one(samples=0)), INVALID),
        "no batch": (WRITE, 3, round_of(one(batch=0)), INVALID),
        "round over 32 bits": (WRITE, 3, round_of(round=1 << 32), INVALID),
        "saved over 32 bits": (WRITE, 3, round_of(saved=1 << 32), INVALID),
        "run a text": (WRITE, 3, round_of(run="1"), INVALID),
        "rate NaN": (WRITE, 3, round_of(one(rate=float("nan"))), INVALID),
        "rate negative": (WRITE, 3, round_of(one(rate=-1.0)), INVALID),
        "rate infinite": (WRITE, 3, round_of(one(rate=float("inf"))), INVALID),
        "inner a text": (WRITE, 3, round_of(inner="0"), INVALID),
        "inner empty": (WRITE, 3, round_of(inner=b""), INVALID),
        "stale": (WRITE, 3, round_of(base=bytes(32)), BASE),
        "no such source": (WRITE, 3, round_of(source="sin"), SOURCE),
        "no such source either": (WRITE, 3, round_of(source="sines"), SOURCE),
        "samples without a round": (WRITE, 4, {"off": 0, "data": b""}, STATE),
        "infer too much": (WRITE, 6, {"off": 0, "data": bytes(5)}, INVALID),
        "infer NaN": (WRITE, 6, {"off": 0, "data": floats([np.nan])}, NUMERIC),
        "evaluate infinity": (WRITE, 5, {"off": 0, "data": floats([np.inf, 0])}, NUMERIC),
        "commit another": (WRITE, 9, {"sha": bytes(32)}, BASE),
    }
    return cases


@pytest.mark.parametrize("name", refused_requests())
def test_refusals_have_their_number_and_change_nothing(ready: Board, name: str) -> None:
    op, command, fields, rc = refused_requests()[name]
    assert ready.refusal(op, command, **fields) == rc
    if rc != INVALID or fields.get("len") is None:
        assert ready.weights() == floats(THETA)


@pytest.mark.parametrize(
    ("layers", "loss", "rc"),
    [
        ([dense(1, 6, 9), LAYERS[1]], 0, BAD_PLAN),
        ([replace(LAYERS[0], learns=2), LAYERS[1]], 0, BAD_PLAN),
        ([LAYERS[0], dense(5, 1, ref.IDENTITY)], 0, BAD_PLAN),
        ([dense(1, 0, ref.RELU), dense(0, 1, ref.IDENTITY)], 0, BAD_PLAN),
        ([LAYERS[0]], 7, BAD_PLAN),
        ([], 0, BAD_PLAN),
        ([dense(60000, 60000, ref.RELU)], 0, BAD_PLAN),
        ([conv((2, 3, 1), 1, 3, 1, False, ref.RELU)], 0, BAD_PLAN),
        ([dense(128, 128, ref.RELU)], 0, MEMORY),
        ([pool(MAX_POOL, (128, 128, 1), 128, 128)], 0, MEMORY),
    ],
)
def test_bad_plans_are_refused_and_leave_the_board_empty(ready: Board, layers: Any, loss: int, rc: int) -> None:
    data = plan_bytes(layers, loss)
    assert ready.refusal(WRITE, 1, off=0, data=data, len=len(data), sha=sha(data)) == rc
    assert ready.status()["state"] == EMPTY
    ready.put(1, PLAN)


@pytest.mark.parametrize(("at", "byte"), [(0, 0), (4, 1), (4, 3), (8, 5), (11, 1), (12, 2), (20, 2), (23, 0)])
def test_plans_with_one_wrong_byte_are_refused(board: Board, at: int, byte: int) -> None:
    data = PLAN[:at] + bytes([byte]) + PLAN[at + 1 :]
    assert board.refusal(WRITE, 1, off=0, data=data, len=len(data), sha=sha(data)) == BAD_PLAN


def test_the_arena_is_exactly_what_spec_says(built: Board) -> None:
    whole = 8 + 2 * 16 + 4 * 19 + 4 * 13 + 4 * 2
    assert arena_bytes(LAYERS, one()) == whole
    for arena, code in ((whole - 1, MEMORY), (whole, 0)):
        built.start(arena)
        reply = built.ours(WRITE, 1, off=0, data=PLAN, len=len(PLAN), sha=sha(PLAN))
        assert reply == ({"off": len(PLAN)} if code == 0 else {"err": {"group": OURS, "rc": code}})
    built.put(2, floats(THETA))
    assert built.refusal(WRITE, 3, **round_of(one(batch=2))) == MEMORY
    assert built.ours(WRITE, 3, **round_of())["state"] == LEARNT
    assert arena_bytes(LAYERS, one(batch=2)) == whole + 4 * 19
    built.start(whole + 4 * 19)
    built.put(1, PLAN)
    built.put(2, floats(THETA))
    assert built.ours(WRITE, 3, **round_of(one(batch=2)))["state"] == LEARNT


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("net", SMALL)
def test_a_board_with_just_the_arena_learns_every_kind_of_layer_from_samples_that_it_is_fed(
    built: Board, net: str, batch: int
) -> None:
    layers, loss, rng = SMALL[net], ref.SOFTMAX_CROSS_ENTROPY, np.random.default_rng(8)
    theta = weights_of(layers, rng)
    inner = one(batch=batch, rate=0.05)
    built.start(arena_bytes(layers, inner))
    built.put(1, plan_bytes(layers, loss))
    built.put(2, floats(theta))
    built.ours(WRITE, 3, **round_of(inner, source="", base=sha(floats(theta))))
    samples = [sample_of(layers, loss, rng) for _ in range(8)]
    data = floats(np.concatenate([part for sample in samples for part in sample]))
    for off in range(0, len(data), 900):
        built.ours(WRITE, 4, off=off, data=data[off : off + 900])
    loop = Loop(layers, loss, theta, inner)
    for x, y in samples:
        loop.learn(x, y)
    assert built.weights() == floats(loop.weights)


def test_weights_that_are_not_finite_are_refused(board: Board) -> None:
    board.put(1, PLAN)
    data = floats(np.where(np.arange(19) == 7, np.nan, THETA))
    assert board.refusal(WRITE, 2, off=0, data=data, len=len(data), sha=sha(data)) == NUMERIC
    assert board.status()["state"] == PLANNED


def test_a_round_that_diverges_fails_and_the_next_weights_make_it_well(ready: Board) -> None:
    status = ready.ours(WRITE, 3, **round_of(one(rate=1e14)))
    assert (status["state"], status["code"], status["weights"]) == (FAILED, -4, b"")
    assert ready.ours(WRITE, 3, **round_of(one(rate=1e14))) == status
    assert ready.refusal(READ, 2, off=0) == STATE
    assert ready.refusal(WRITE, 3, **round_of()) == STATE
    ready.put(2, floats(THETA))
    assert ready.ours(WRITE, 3, **round_of())["state"] == LEARNT


def test_fed_samples_that_are_not_finite_fail_the_round(ready: Board) -> None:
    ready.ours(WRITE, 3, **round_of(source=""))
    assert ready.refusal(WRITE, 4, off=0, data=floats([np.nan, 0, 1, 1])) == NUMERIC
    assert ready.status()["state"] == FAILED


def test_a_fed_round_holds_the_board_until_it_is_aborted(ready: Board) -> None:
    ready.ours(WRITE, 3, **round_of(source=""))
    assert ready.refusal(WRITE, 3, **round_of(source="", round=9)) == STATE
    assert ready.refusal(WRITE, 2, off=0, data=b"", len=76, sha=bytes(32)) == STATE
    assert ready.refusal(WRITE, 1, off=0, data=b"", len=24, sha=bytes(32)) == STATE
    assert ready.refusal(WRITE, 6, off=0, data=b"") == STATE
    assert ready.ours(WRITE, 3, **round_of(source=""))["state"] == LEARNING
    status = ready.ours(WRITE, 8)
    assert (status["state"], status["code"]) == (FAILED, -6)
    assert ready.refusal(WRITE, 4, off=0, data=b"") == STATE


def test_abort_stops_a_round_on_the_boards_own_source_and_both_requests_are_answered(ready: Board) -> None:
    train = peer.frame(peer.message(WRITE, OURS, 3, round_of(one(samples=1 << 30)), seq=1))
    abort = peer.frame(peer.message(WRITE, OURS, 8, {}, seq=2))
    replies = [peer.unframe(part + b"\0") for part in ready.exchange(train + abort).split(b"\0")[:-1]]
    assert [reply[6] for reply in replies] == [2, 1]
    assert [cbor2.loads(reply[8:])["state"] for reply in replies] == [FAILED, FAILED]


def test_an_output_that_does_not_fit_a_message_is_refused(built: Board) -> None:
    built.start(1 << 18)
    built.put(1, plan_bytes([dense(1, 300, ref.IDENTITY)], ref.MEAN_SQUARED_ERROR))
    built.put(2, floats(np.zeros(600)))
    assert built.refusal(WRITE, 6, off=0, data=floats([1])) == SIZE
    assert built.weights() == bytes(2400)


@pytest.mark.parametrize(
    ("op", "group", "command", "body", "rc"),
    [
        (WRITE, OS, 99, {}, 8),
        (READ, OS, 0, {"d": "x"}, 8),
        (READ, 7, 0, {}, 8),
        (READ, OURS, 10, {}, 8),
        (WRITE, OURS, 0, {}, 8),
        (WRITE, OS, 0, b"\xa1\x61d", 3),
        (WRITE, OS, 0, b"\xa0\x00", 3),
        (WRITE, OS, 0, b"\x80", 3),
        (WRITE, OS, 0, b"\xa1\x01\x02", 3),
        (WRITE, OS, 0, {"e": "x"}, 3),
        (WRITE, OS, 0, {"d": 1}, 3),
        (READ, OURS, 0, b"\xff", 3),
        (READ, OURS, 0, b"\xbf\x61x\x01", 3),
        (READ, OURS, 0, b"\xa1\x61x" + b"\x81" * 9 + b"\x01", 3),
    ],
)
def test_what_is_unknown_or_malformed_gets_mcumgrs_numbers(
    board: Board, op: int, group: int, command: int, body: Any, rc: int
) -> None:
    assert board.request(op, group, command, body) == {"rc": rc}


def test_a_rate_of_the_link_is_taken_after_the_reply(board: Board) -> None:
    board.start()
    assert board.ours(READ, 17) == {"baud": 115200, "rates": [230400, 921600]}
    assert board.refusal(WRITE, 17, baud=460800) == board.refusal(WRITE, 17, baud=0) == board.refusal(WRITE, 17) == 2
    for baud in (921600, 230400, 115200):
        assert board.ours(WRITE, 17, baud=baud) == {"baud": baud}
        assert board.lib.board_baud() == baud == board.ours(READ, 17)["baud"]


def test_three_frames_in_a_row_that_are_none_return_the_link_to_its_first_rate(board: Board) -> None:
    board.start()
    bad = b"\3no\0"
    board.ours(WRITE, 17, baud=921600)
    board.exchange(bad + b"\0\0\0" + bad + b"\0")
    assert board.ours(READ, 17)["baud"] == 921600  # and this frame is one
    board.exchange(bad + bad)
    assert board.lib.board_baud() == 921600
    board.exchange(b"\xff" + bad)
    assert board.lib.board_baud() == board.ours(READ, 17)["baud"] == 115200
    board.exchange(3 * bad)
    board.ours(WRITE, 17, baud=230400)  # what was lost before does not count
    board.exchange(bad + bad)
    assert board.lib.board_baud() == 230400


def test_version_0_of_our_group_gets_plain_errors(board: Board) -> None:
    assert board.request(READ, OURS, 2, {"off": 0}, version=0) == {"rc": 1}
    assert board.request(READ, OURS, 7, {}, version=0)["state"] == EMPTY


@pytest.mark.parametrize(
    "body",
    [
        b"\xbf\x61d\x62ok\xff",
        b"\xb8\x01\x78\x01d\x79\x00\x02ok",
        b"\xa2\x61a" + cbor2.dumps([1, {"x": [None, 1.5, -3]}, b"y" * 30, cbor2.CBORTag(4, [1, 2])]) + b"\x61d\x62ok",
        b"\xa2\x61a\x9f\x01\x7f\x61x\x61y\xff\xff\x61d\x62ok",
    ],
)
def test_any_well_formed_encoding_is_read_and_unknown_keys_are_passed_over(board: Board, body: bytes) -> None:
    assert board.request(WRITE, OS, 0, body) == {"r": "ok"}


def test_numbers_of_every_width_are_read_or_passed_over(ready: Board) -> None:
    base = {**round_of(), "x": 0.0625}
    narrow, wide = b"\x65round\x03", b"\x61x" + b"\xfb" + struct.pack(">d", 0.0625)
    assert narrow in cbor2.dumps(base) and wide in cbor2.dumps(base)
    others = [
        *((narrow, b"\x65round" + bytes([0x18 + i]) + (3).to_bytes(1 << i)) for i in range(4)),
        *(
            (wide, b"\x61x" + number)
            for number in (b"\xfa" + struct.pack(">f", 2), b"\xf9" + struct.pack(">e", 2), b"\x38\x07")
        ),
    ]
    phis = set()
    for old, new in others:
        ready.put(2, floats(THETA))
        assert ready.request(WRITE, OURS, 3, cbor2.dumps(base).replace(old, new))["round"] == 3
        phis.add(ready.weights())
    assert phis == {floats(learnt_by_reference(sine(8), one())[0])}


@pytest.mark.slow
@settings(max_examples=500)
@given(st.data())
def test_a_record_of_an_inner_loop_is_taken_or_refused_as_the_spec_says(built: Board, data: st.DataObject) -> None:
    record = bytearray(data.draw(records()))
    for _ in range(data.draw(st.integers(0, 2))):
        record[data.draw(st.integers(0, len(record) - 1))] = data.draw(st.integers(0, 5) | st.integers(0, 255))
    whole = bytes(record[: len(record) - data.draw(st.sampled_from([0, 0, 0, 1, 16, 32, len(record)]))])
    whole += bytes(data.draw(st.sampled_from([0, 0, 0, 1, 32])))
    try:
        read_inner(whole)
        sound = True
    except ValueError:
        sound = False
    built.start()
    built.put(1, PLAN)
    built.put(2, floats(THETA))
    reply = built.ours(WRITE, 3, **round_of(source="", inner=whole))
    assert (reply == {"err": {"group": OURS, "rc": INVALID}}) == (not sound)
    assert not sound or reply["state"] == LEARNING
    if not sound:
        assert built.weights() == floats(THETA)


@st.composite
def records(draw: Any) -> bytes:
    """Records of inner loops with any factors, and numbers of samples at the edges of their ranges."""
    count = st.sampled_from([1, 1, 2, 3, 7, 0, 1 << 31, (1 << 32) - 1])
    small = st.sampled_from([0.0, 0.5, 0.1, 10.0, 2.0**50, np.nextafter(np.float32(2**50), np.float32(0)), 1.0])
    factor = small | st.floats(width=32)
    mask = st.sampled_from([0, 1, 2, 3, 4, (1 << 64) - 1]) | st.integers(0, (1 << 64) - 1)
    phases = draw(st.lists(st.builds(Phase, count, count, count, factor, factor, factor, mask), min_size=1, max_size=5))
    return inner_bytes(Inner(tuple(phases), draw(st.integers(0, 2)), draw(st.integers(0, 2)), draw(mask)))


def test_frames_that_are_damaged_are_dropped_and_the_next_is_read(board: Board) -> None:
    good = peer.frame(peer.message(WRITE, OS, 0, {"d": "hello"}))
    for damaged in (
        good[:5] + bytes([good[5] ^ 4]) + good[6:],
        good[:-3] + b"\0",
        b"\xff" * 3000 + b"\0",
        b"\0\0\0",
        b"\x05\x01\0",
        peer.frame(peer.message(WRITE, OS, 0, {"d": "hello"})[:-1]),
        peer.frame(b"\x0a\0\0"),
        peer.frame(peer.message(WRITE + 1, OS, 0, {"d": "hello"})),
        peer.frame(peer.message(WRITE, OS, 0, {"d": "hello"}, version=2)),
        peer.frame(peer.message(WRITE, OS, 0, {"d": "x" * 1020})),
    ):
        assert board.exchange(damaged) == b""
        assert cbor2.loads(peer.unframe(board.exchange(good))[8:]) == {"r": "hello"}


def test_both_ways_of_closing_a_run_of_254_are_read(board: Board) -> None:
    both = 0
    for length in range(230, 270):
        text = peer.message(WRITE, OS, 0, {"d": "y" * length}, seq=1)
        sent = {peer.frame(text), peer.frame(text, close=False)}
        both += len(sent) == 2
        for one in sent:
            assert cbor2.loads(peer.unframe(board.exchange(one))[8:]) == {"r": "y" * length}
    assert both == 1


def test_the_longest_message_is_answered(board: Board) -> None:
    text = "z" * (1024 - 8 - 6)
    assert board.request(WRITE, OS, 0, {"d": text}) == {"r": text}


def commit(board: Board, theta: Any) -> Any:
    data = floats(theta)
    board.put(2, data)
    return board.ours(WRITE, 9, sha=sha(data))


def test_committed_weights_come_back_and_slots_take_turns(ready: Board) -> None:
    assert commit(ready, THETA) == {"slot": 0, "commits": 1}
    assert commit(ready, THETA) == {"slot": 0, "commits": 1}
    assert commit(ready, 2 * THETA) == {"slot": 1, "commits": 2}
    assert commit(ready, 3 * THETA) == {"slot": 0, "commits": 3}
    assert ready.ours(READ, 0)["model"] == sha(floats(3 * THETA))
    ready.start(blank=False)
    status = ready.status()
    assert (status["state"], status["weights"]) == (READY, sha(floats(3 * THETA)))
    assert ready.ours(READ, 0)["plan"] == sha(PLAN)
    assert ready.weights() == floats(3 * THETA)


def test_weights_that_could_not_start_again_are_not_committed(board: Board) -> None:
    """Learning may carry a weight past the guard's bound, within which weights must start."""
    plan = plan_bytes([dense(1, 1, ref.IDENTITY)], ref.MEAN_SQUARED_ERROR)
    board.put(1, plan)
    commit(board, [0, 1])
    start = floats([0, 1.1e15])
    board.put(2, start)
    board.ours(WRITE, 3, **round_of(one(samples=1, rate=1.0), base=sha(start), source=""))
    board.ours(WRITE, 4, off=0, data=floats([0, 1.6e15]))
    phi = np.frombuffer(board.weights(), "<f4")
    assert phi[1] > 2.0**50
    assert board.refusal(WRITE, 9, sha=sha(phi.tobytes())) == NUMERIC
    board.start(blank=False)
    assert board.weights() == floats([0, 1])


def test_a_slot_that_is_of_no_use_here_leaves_an_empty_board(built: Board) -> None:
    built.start()
    built.put(1, PLAN)
    commit(built, THETA)
    built.start(arena=100, blank=False)
    assert built.status()["state"] == EMPTY
    small = plan_bytes([dense(1, 1, ref.IDENTITY)], ref.MEAN_SQUARED_ERROR)
    built.put(1, small)
    built.put(2, floats([1, 2]))
    assert built.status()["state"] == READY


def test_rounds_write_no_flash(ready: Board) -> None:
    ready.lib.board_cut_after(-1)
    ready.ours(WRITE, 3, **round_of())
    ready.weights()
    assert ready.lib.board_events() == 0


def test_a_cut_at_any_slot_write_leaves_the_old_model_or_the_new(ready: Board) -> None:
    old, new = floats(5 * THETA), floats(6 * THETA)
    commit(ready, 4 * THETA)
    ready.lib.board_cut_after(-1)
    commit(ready, 5 * THETA)
    writes = ready.lib.board_events()
    assert writes > 20
    kept = []
    for cut in range(writes + 1):
        ready.start()
        ready.put(1, PLAN)
        commit(ready, 4 * THETA)
        commit(ready, 5 * THETA)
        ready.put(2, new)
        ready.lib.board_cut_after(cut)
        reply = ready.ours(WRITE, 9, sha=sha(new))
        assert reply == ({"err": {"group": OURS, "rc": FLASH}} if cut < writes else {"slot": 0, "commits": 3})
        ready.start(blank=False)
        assert ready.status()["state"] == READY
        assert ready.weights() in (old, new)
        kept.append(ready.weights() == new)
        assert commit(ready, 7 * THETA)["commits"] == (4 if kept[-1] else 3)
    assert kept == [False] * writes + [True]


@pytest.mark.slow
@settings(max_examples=400)
@given(st.data())
def test_hostile_requests_are_answered_and_the_board_lives(built: Board, data: st.DataObject) -> None:
    built.start(data.draw(st.sampled_from([64, 200, 300, 1 << 16])))
    keys = st.sampled_from(["off", "data", "len", "sha", "round", "inner", "run", "saved", "base", "source", "seed",
                            "device", "d", "x", "codec", "onto"])  # fmt: skip
    small = st.one_of(st.integers(-3, 100), st.integers(0, (1 << 64) - 1), st.floats(), st.binary(max_size=200),
                      st.just(PLAN), st.just(floats(THETA)), st.just(sha(PLAN)), st.just(sha(floats(THETA))),
                      st.just(inner_bytes(one(samples=2))), st.text(max_size=9), st.just("sine"), st.booleans(),
                      st.none())  # fmt: skip
    values = st.recursive(small, lambda inner: st.lists(inner, max_size=3), max_leaves=6)
    for _ in range(data.draw(st.integers(1, 8))):
        fields = data.draw(st.dictionaries(keys, values, max_size=9))
        op, command = data.draw(st.sampled_from([(op, c) for op in (READ, WRITE) for c in range(11)]))
        if data.draw(st.booleans()):
            fields = {**round_of(one(samples=3)), **fields} if command == 3 else fields
        body = cbor2.dumps(fields)
        if len(body) <= 1016:
            built.request(op, OURS, command, body)
    assert built.request(WRITE, OS, 0, {"d": "alive"}) == {"r": "alive"}


def test_a_source_gives_samples_outside_a_round_and_the_network_says_what_it_makes_of_them(board: Board) -> None:
    asked = {"source": "sine", "readings": 0, "measure": 0}
    first = board.ours(WRITE, 18, **asked)
    x, y = ref.sine_sample(0, 0, 2**32 - 1, 0)
    assert first == {"off": 0, "len": 8, "data": floats([x, y]), "code": 0, "late": 0, "taken": 0}
    assert board.ours(READ, 18, off=4) == {"off": 4, "len": 8, "data": floats([y]), "code": 0, "late": 0, "taken": 0}
    assert board.refusal(READ, 18, off=9) == 2
    assert board.refusal(WRITE, 18, **{**asked, "measure": 1}) == 5
    assert board.refusal(WRITE, 18, **{**asked, "source": "rain"}) == board.refusal(WRITE, 18, **{**asked, "readings": 1}) == 11
    board.put(1, PLAN)
    board.put(2, floats(THETA))
    before = board.weights()
    told = board.ours(WRITE, 18, **{**asked, "measure": 1})
    assert (told["code"], told["best"], set(told)) == (0, 0, {"loss", "right", "best", "code", "late", "taken"})
    assert board.weights() == before
    board.ours(WRITE, 3, **round_of(source=""))
    assert board.refusal(WRITE, 18, **asked) == 5
