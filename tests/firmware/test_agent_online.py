"""Online learning on the agent, message by message: the bits of reference_online.py over the board's own embeddings."""

import random
import struct
from dataclasses import replace
from typing import Any

import cbor2
import numpy as np
import programs
import pytest
import reference as ref
from peer import OURS, READ, WRITE, Board, floats, frame, message, sha
from reference_layers import F32, dense, plan_bytes
from reference_online import CLASSES, EMBEDDINGS, INPUTS, LABELS, NOTHING, RECONSTRUCT, VALUES, Online, Refused, Set

INVALID, MEMORY, STATE, STALE, HASH, NUMERIC, SOURCE = 2, 4, 5, 6, 7, 8, 11
ONLINE, SAMPLE, LABEL, FORGET, LEARNT, COMMIT, BACK, HEAD, LISTEN = range(19, 28)
LEARNER, PROGRAM, ALONE = 0, 1, 2

LAYERS = [dense(4, 6, 1), dense(6, 3, 3)]
PLAN = plan_bytes(LAYERS, 3)
THETA = floats(np.random.default_rng(3).normal(size=4 * 6 + 6 + 6 * 3 + 3).astype(np.float32))
SET = Set(CLASSES, INPUTS, 1, 4, 3, places=5, ring=3, cap=16, window=8, rate=0.3, tolerance=0.05, alarm=2.0)


def record(set: Set, stage: int = LEARNER, outputs: int = 1, every: int = 0, of: bytes = THETA) -> bytes:
    return struct.pack("<3I", stage, outputs, every) + (bytes(32) if stage == ALONE else sha(of)) + set.record


@pytest.fixture
def board(built: Board) -> Board:
    built.start()
    built.put(1, PLAN)
    built.put(2, THETA)
    return built


def x_of(number: int, size: int = 4) -> F32:
    return np.random.default_rng(number).normal(1, 2, size).astype(np.float32)


def held(board: Board) -> Any:
    return board.ours(READ, ONLINE, first=0)


def learnt(board: Board, command: int = LEARNT) -> bytes:
    data = b""
    while True:
        reply = board.ours(READ, command, off=len(data))
        data += reply["data"]
        if len(data) == reply["len"]:
            return data


def sample(board: Board, x: bytes) -> Any:
    return board.ours(WRITE, SAMPLE, number=held(board)["samples"], off=0, data=x)


class Twin:
    """The reference, whose embeddings come from the board."""

    def __init__(self, board: Board, set: Set, outputs: int) -> None:
        self.board, self.set, self.online = board, set, Online(set, outputs)

    def sample(self, x: F32) -> tuple[int, int, Any, Any, int]:
        set, z = self.set, x
        if set.standardised != EMBEDDINGS:
            z = self.online.enter(x)
        e = np.frombuffer(self.board.ours(WRITE, 6, off=0, data=floats(z))["data"], np.float32).copy() if set.embedded else z
        return self.online.sample(self.online.enter(e) if set.standardised == EMBEDDINGS else e, z)


@pytest.mark.parametrize("standardised", [NOTHING, INPUTS, EMBEDDINGS])
def test_a_board_learns_as_the_reference_while_classes_come_and_go(board: Board, standardised: int) -> None:
    set, draws, names = replace(SET, standardised=standardised), random.Random(1), [""]
    board.put(ONLINE, record(set), step=29)
    twin, before = Twin(board, set, 1), (0, 0)
    for turn in range(120):
        number, label, sure, score, learns = twin.sample(x := x_of(turn))
        assert sample(board, floats(x)) == {
            "off": 16, "number": number, "label": label, "confidence": pytest.approx(float(sure), abs=0), "score": float(score),
            "learnt": learns, "name": names[label],
        }  # fmt: skip
        if draws.random() < 0.7:
            late, label = max(number - draws.randrange(4), 0), draws.randrange(6)
            if (late, label) == before:
                continue
            fields = {"sample": late, "label": label, "name": f"class {turn}"}
            try:
                loss = twin.online.label(late, label)
            except Refused as refused:
                expected = {-1: INVALID, -11: MEMORY, -13: STALE}[refused.code]
                assert board.refusal(WRITE, LABEL, **fields) == expected
            else:
                reply = board.ours(WRITE, LABEL, **fields)
                assert (reply["outputs"], floats(reply["loss"])) == (twin.online.n, floats(loss))
                assert board.ours(WRITE, LABEL, **fields) == reply  # a repeat
                names, before = [*names[:label], f"class {turn}", *names[label + 1 :]], (late, label)
        elif twin.online.n > 2 and draws.random() < 0.5:
            gone = draws.randrange(twin.online.n)
            fields = {"number": gone, "outputs": twin.online.n}
            twin.online.remove(gone)
            del names[gone]
            assert [board.ours(WRITE, FORGET, **fields) for _ in range(2)] == [{"outputs": twin.online.n}] * 2
        assert learnt(board) == twin.online.learnt
        told = held(board)
        assert (told["samples"], told["drifts"], told["drifted"]) == (number, twin.online.alarms, twin.online.alarmed)
        assert (floats(told["error"]), floats(told["confidence"])) == (
            floats(twin.online.error),
            floats(twin.online.confidence),
        )
        assert told["counts"] == twin.online.counts[: twin.online.n]
        assert told["names"] == names


@pytest.mark.parametrize(
    "set",
    [
        replace(SET, head=VALUES, places=2),
        replace(SET, head=LABELS, standardised=EMBEDDINGS),
        replace(SET, head=RECONSTRUCT, places=4, ring=0, threshold=1.0),
        Set(CLASSES, INPUTS, 0, 7, 7, places=4, ring=2, cap=0, rate=0.1),
    ],
    ids=["values", "labels", "reconstruct", "inputs alone"],
)
def test_every_head_and_no_network_at_all_learn_as_the_reference(board: Board, set: Set) -> None:
    outputs = set.places if set.head in (VALUES, RECONSTRUCT) else 2
    board.put(ONLINE, record(set, LEARNER if set.embedded else ALONE, outputs))
    twin = Twin(board, set, outputs)
    for turn in range(40):
        number, *_, score, learns = twin.sample(x := x_of(turn, set.inputs))
        reply = sample(board, floats(x))
        assert (reply["number"], floats(reply["score"]), reply["learnt"]) == (number, floats(score), learns)
        if set.head in (VALUES, LABELS):
            target = np.abs(np.sin(x[:outputs])).astype(np.float32)
            loss = twin.online.target(number, target)
            assert floats(board.ours(WRITE, LABEL, sample=number, data=floats(target))["loss"]) == floats(loss)
        elif set.head == CLASSES:
            twin.online.label(number, turn % 3 if turn > 1 else 0)
            board.ours(WRITE, LABEL, **{"sample": number, "label": turn % 3 if turn > 1 else 0})
        assert learnt(board) == twin.online.learnt


def test_a_programs_output_is_an_embedding_and_its_inputs_cannot_be_standardised(board: Board) -> None:
    content = programs.program(random.Random(1).randbytes(256), 8)
    scale, zero = 0.375, -5
    content = content[:40] + struct.pack("<fb", scale, zero) + content[45:]
    board.put(10, content)
    set = Set(CLASSES, EMBEDDINGS, 1, 8, 8, places=3, ring=1, cap=9)
    off = record(replace(set, standardised=INPUTS), PROGRAM, of=content)
    assert board.refusal(WRITE, ONLINE, off=0, data=off, len=len(off), sha=sha(off)) == INVALID
    board.put(ONLINE, record(set, PROGRAM, of=content))
    online = Online(set, 1)
    for turn in range(6):
        x = random.Random(turn).randbytes(8)
        e = np.float32(scale) * (np.frombuffer(programs.outputs(content, x), np.int8).astype(np.int32) - zero).astype(
            np.float32
        )
        online.sample(online.enter(e))
        reply = board.ours(WRITE, SAMPLE, number=turn, off=0, data=x)
        assert board.ours(WRITE, SAMPLE, number=turn, off=0, data=x) == reply
        online.label(turn + 1, turn % 2)
        board.ours(WRITE, LABEL, **{"sample": turn + 1, "label": turn % 2})
    assert learnt(board) == online.learnt


def test_a_sample_comes_in_blocks_and_a_repeat_is_no_second_one(board: Board) -> None:
    board.put(ONLINE, record(SET))
    x = floats(x_of(1))
    assert board.ours(WRITE, SAMPLE, number=0, off=0, data=x[:6]) == {"off": 6}
    assert board.ours(WRITE, SAMPLE, number=0, off=9, data=x[9:]) == {"off": 6}
    first = board.ours(WRITE, SAMPLE, number=0, off=6, data=x[6:])
    assert first["number"] == 1
    assert board.ours(WRITE, SAMPLE, number=0, off=6, data=x[6:]) == first
    assert held(board)["samples"] == 1
    assert board.refusal(WRITE, SAMPLE, number=5, off=0, data=x) == STALE


def test_what_is_learnt_is_put_back_rolled_back_and_kept_over_power_loss(board: Board) -> None:
    board.ours(WRITE, 9, sha=sha(THETA))
    board.put(ONLINE, record(SET, every=4))
    assert board.refusal(WRITE, BACK) == STATE
    for turn in range(3):
        sample(board, floats(x_of(turn)))
        board.ours(WRITE, LABEL, **{"sample": turn + 1, "label": min(turn, 1), "name": "fan" if turn else "idle"})
    early = learnt(board)
    assert board.ours(WRITE, COMMIT) == {"commits": 1}
    sample(board, floats(x_of(9)))  # the fourth: a commit by itself
    late, told = learnt(board), held(board)
    sample(board, floats(x_of(10)))
    assert board.ours(WRITE, BACK) == {"samples": 4}
    assert (learnt(board), held(board)) == (late, told)
    board.put(LEARNT, early, step=50)
    assert learnt(board) == early
    board.start(blank=False)
    assert (learnt(board), held(board)) == (late, told)
    assert told["names"] == ["idle", "fan"]
    for wrong, code in ((b"\0" * len(early), INVALID), (early[:-4] + floats(np.nan), NUMERIC)):
        assert board.refusal(WRITE, LEARNT, off=0, data=wrong, len=len(wrong), sha=sha(wrong)) == code
    assert learnt(board) == late


def test_a_head_leaves_a_board_with_its_names_alone_and_another_takes_its_place(board: Board) -> None:
    """Statistics, counts and monitor stay, and so do samples that wait for a label; more classes may come."""
    assert board.refusal(READ, HEAD, off=0) == STATE
    board.put(ONLINE, record(SET))
    twin = Twin(board, SET, 1)
    for turn in range(6):
        number, *_ = twin.sample(x := x_of(turn))
        sample(board, floats(x))
        if turn < 4:
            board.ours(WRITE, LABEL, **{"sample": number, "label": turn % 2, "name": ["idle", "fan"][turn % 2]})
            twin.online.label(number, turn % 2)
    padded = [name.encode().ljust(16, b"\0") for name in ("idle", "fan", "tilt", "loose")]
    head = learnt(board, HEAD)
    assert head == padded[0] + padded[1] + floats(twin.online.w)
    other = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
    for names, weights, code in (
        (padded[:1], other[:, :1], INVALID), ([*padded, padded[0], padded[1]], np.zeros((4, 6)), INVALID),
        (padded[1:4], other[:, :3], STALE), (padded, np.where(np.eye(4) > 0, np.nan, other), NUMERIC),
    ):  # fmt: skip
        data = b"".join(names) + floats(weights)
        assert board.refusal(WRITE, HEAD, off=0, data=data, len=len(data), sha=sha(data)) == code
        assert learnt(board, HEAD) == head
    assert board.refusal(WRITE, HEAD, off=0, data=head, len=len(head) - 1, sha=sha(head)) == INVALID
    board.put(HEAD, b"".join(padded) + floats(other), step=50)
    twin.online.replace(other)
    assert learnt(board) == twin.online.learnt
    assert held(board)["names"] == ["idle", "fan", "tilt", "loose"]
    assert floats(board.ours(WRITE, LABEL, **{"sample": 5, "label": 3})["loss"]) == floats(twin.online.label(5, 3))
    assert learnt(board) == twin.online.learnt
    board.put(HEAD, b"".join(padded) + floats(other), step=50)  # the same again, since the board has learnt meanwhile
    assert learnt(board, HEAD) == b"".join(padded) + floats(other)


def test_what_is_read_in_blocks_is_of_one_moment(board: Board) -> None:
    board.put(ONLINE, record(replace(SET, ring=1, places=60)))
    for turn in range(50):
        sample(board, floats(x_of(turn)))
        board.ours(WRITE, LABEL, **{"sample": turn + 1, "label": turn})
    for command in (LEARNT, HEAD):
        whole = learnt(board, command)
        first = board.ours(READ, command, off=0)
        assert len(first["data"]) < first["len"]
        sample(board, floats(x_of(60)))
        assert first["data"] + board.ours(READ, command, off=len(first["data"]))["data"] == whole
        board.ours(READ, HEAD if command == LEARNT else LEARNT, off=0)
        assert board.refusal(READ, command, off=8) == STATE


def test_a_board_learns_from_its_own_source_by_itself_and_goes_on_after_power_loss(board: Board) -> None:
    """With the source's labels, or with those that come over the link; requests are heard between samples."""
    set = Set(VALUES, NOTHING, 0, 1, 1, places=1, ring=4, rate=0.01)
    assert board.refusal(WRITE, LISTEN, source="sine", samples=1, labels=0) == STATE
    board.put(ONLINE, record(set, ALONE))
    twin, index = Online(set, 1), 0

    def turn(labelled: bool) -> None:
        nonlocal index
        x, y = ref.sine_sample(0, 0, 2**32 - 1, index)
        number, *_ = twin.sample(np.array([x], np.float32))
        if labelled:
            twin.target(number, np.array([y], np.float32))
        index += 1

    for samples, labels in ((5, 1), (3, 0)):
        assert board.ours(WRITE, LISTEN, source="sine", samples=samples, labels=labels) == {"samples": index}
        for _ in range(samples):
            turn(labels == 1)
        assert learnt(board) == twin.learnt
        assert (held(board)["source"], held(board)["code"]) == ("", 0)
    y = np.array([0.5], np.float32)
    assert floats(board.ours(WRITE, LABEL, sample=7, data=floats(y))["loss"]) == floats(twin.target(7, y))
    for wrong, code in (
        ({"source": "rain"}, 11), ({"source": "sine", "labels": 2}, INVALID), ({"source": "s" * 29}, INVALID),
        ({"samples": 1 << 32}, INVALID), ({"source": 3}, INVALID),
    ):  # fmt: skip
        assert board.refusal(WRITE, LISTEN, **({"source": "sine", "samples": 1, "labels": 0} | wrong)) == code
    assert learnt(board) == twin.learnt
    board.turns_most(1)  # the board does not sleep now
    board.ours(WRITE, LISTEN, source="sine", samples=0, labels=1)
    turn(True)
    assert held(board)["source"] == "sine"
    turn(True)
    assert board.ours(WRITE, COMMIT) == {"commits": 1}
    committed = twin.learnt
    turn(True)
    assert held(board)["samples"] == twin.number
    board.start(blank=False)
    assert held(board)["source"] == "sine"
    assert committed != board.ours(READ, LEARNT, off=0)["data"]
    board.ours(WRITE, LISTEN, source="", samples=0, labels=0)
    now = held(board)["samples"]
    assert held(board) == held(board) | {"samples": now, "source": ""}
    board.turns_most(0)


def test_a_label_is_wanted_of_a_sample_that_the_board_is_unsure_of(board: Board) -> None:
    board.put(ONLINE, record(replace(SET, unsure=255, ring=2), outputs=2))
    assert (held(board)["wanted"], board.status()["wanted"]) == (0, 0)
    sample(board, floats(x_of(1)))
    assert (held(board)["wanted"], board.status()["wanted"]) == (1, 1)
    board.ours(WRITE, LABEL, **{"sample": 1, "label": 0})
    assert board.status()["wanted"] == 0
    board.put(ONLINE, record(replace(SET, unsure=1), outputs=2))
    sample(board, floats(x_of(1)))
    assert board.status()["wanted"] == 0


def test_class_means_and_online_learning_take_each_others_place(board: Board) -> None:
    means = struct.pack("<3If", 0, 0, 5, np.inf) + sha(THETA)
    board.ours(WRITE, 9, sha=sha(THETA))
    board.put(ONLINE, record(SET))
    assert board.ours(WRITE, COMMIT) == {"commits": 1}
    board.put(12, means)
    assert held(board)["set"] == b""
    board.ours(WRITE, 16)
    board.start(blank=False)
    assert held(board)["set"] == b""
    assert board.ours(READ, 12, first=0)["set"] == sha(means)
    board.put(ONLINE, record(SET))
    assert board.ours(READ, 12, first=0)["set"] == b""
    board.ours(WRITE, COMMIT)
    board.start(blank=False)
    assert held(board)["set"] == sha(record(SET))


WILD = [floats(np.array([1, value, 2, 3], np.float32)) for value in (np.nan, np.inf, 2.0**50)]


def hostile(draws: random.Random) -> tuple[int, dict[str, Any] | bytes]:
    """A request that a board with SET, 4 samples and one class, must refuse."""
    command, fields = draws.choice([
        (SAMPLE, {"number": 4, "off": 0, "data": draws.choice([*WILD, bytes(17), bytes(900)])}),
        (SAMPLE, {"number": draws.choice([0, 1, 2, 5, 1 << 31]), "off": 0, "data": floats(x_of(1))}),
        (LABEL, {"sample": draws.choice([0, 1, 2, 5, 1 << 31]), "label": 0}),
        (LABEL, {"sample": 3, "label": draws.choice([2, 5, 1 << 31]), "name": "x"}),
        (LABEL, {"sample": 9, "label": 0, "name": "x" * draws.choice([17, 900])}),
        (LABEL, {"sample": 3, "data": bytes(draws.randrange(9))} if draws.random() < 0.5 else {"sample": 3}),
        (FORGET, {"number": draws.choice([0, 1, 5, 1 << 31]), "outputs": draws.choice([0, 1, 2, 7])}),
        (ONLINE, {"off": 0, "data": b"", "len": draws.choice([0, 93, 1 << 31]), "sha": bytes(32)}),
        (LEARNT, {"off": 0, "data": b"", "len": draws.choice([0, 1 << 31]), "sha": bytes(32)}),
        (HEAD, {"off": 0, "data": bytes(28), "len": draws.choice([0, 27, 1 << 31]), "sha": bytes(draws.choice([32, 0]))}),
        (LISTEN, {"source": draws.choice(["", "sine"]), "samples": -1, "labels": 1}),
        (LISTEN, {"source": draws.choice(["rain", "s" * 29, "s" * 900]), "samples": 1, "labels": draws.choice([0, 1])}),
    ])  # fmt: skip
    if draws.random() < 0.1:
        whole = cbor2.dumps(fields)
        return command, draws.choice(
            [whole[: draws.randrange(1, len(whole))], whole + b"\0", b"\xbf" + whole[1:], b"\x9b" + whole]
        )
    return command, fields


class Emulated(Board):
    """The agent on a whole emulated board."""

    def __init__(self, machine: Any) -> None:
        self.machine = machine

    def exchange(self, data: bytes) -> bytes:
        return bytes(self.machine.exchange(data))


@pytest.fixture
def cortex_m4(firmware_cache: None) -> Board:
    for module in ("unicorn", "ziglang", "elftools"):
        pytest.importorskip(module)
    from tinyfl.building import boards
    from tinyfl.fleets import emulation
    from tinyfl.simulators.unicorn import Machine

    of = boards.load("mps2-an386")
    emulated = Emulated(Machine(emulation.firmware(of, "zig").elf, of, 1))
    emulated.put(1, PLAN)
    emulated.put(2, THETA)
    return emulated


@pytest.mark.parametrize("kind", ["board", pytest.param("cortex_m4", marks=pytest.mark.slow)])
def test_ten_thousand_hostile_requests_are_refused_by_name_and_change_nothing(
    request: pytest.FixtureRequest, kind: str
) -> None:
    board: Board = request.getfixturevalue(kind)
    for command, fields in (
        (SAMPLE, {"number": 0, "off": 0, "data": bytes(16)}), (LABEL, {"sample": 1, "label": 0}), (COMMIT, {}), (BACK, {}),
        (FORGET, {"number": 0, "outputs": 1}), (LEARNT, {"off": 0, "data": b"", "len": 4, "sha": bytes(32)}),
    ):  # fmt: skip
        assert board.refusal(WRITE, command, **fields) == STATE
    board.put(ONLINE, record(SET))
    for turn in range(4):
        sample(board, floats(x_of(turn)))
        board.ours(WRITE, LABEL, **{"sample": turn + 1, "label": 0})
    before, draws, counts = (learnt(board), held(board)), random.Random(7), dict[Any, int]()
    for _ in range(10_000):
        command, sent = hostile(draws)
        reply = board.request(WRITE, OURS, command, sent)
        code = ("malformed", reply["rc"]) if isinstance(sent, bytes) else reply["err"]["rc"]
        counts[code] = counts.get(code, 0) + 1
    assert set(counts) == {INVALID, STATE, STALE, NUMERIC, SOURCE, ("malformed", 3)}
    long = {"sample": 4, "label": 0, "name": "x" * 10_000}
    assert board.exchange(frame(message(WRITE, OURS, LABEL, long))) == b""  # ten buffers: no message of this board's
    assert (learnt(board), held(board)) == before
