"""A gateway that is registered and lies: it costs its own devices their round, and nothing else."""

import itertools
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flaky import FlakyGrid, remote_grid, serving, theta_over, three_nodes
from fleet_of_24 import SIZE, TASK, THETA
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MessageType, MetricRecord, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinyfl.algorithms import Updates
from tinyfl.errors import TrainingError
from tinyfl.errors.words import plain
from tinyfl.fleet import Event
from tinyfl.flower import remote
from tinyfl.flower.messages import MAX_EVENTS, MAX_REPORTED, REASON, Trouble, shard_record
from tinyfl.flower.remote import call_roll
from tinyfl.flower.server_app import over_nodes
from tinyfl.runs.metrics import MAX_REASONS
from tinyfl.simulation import simulate

LIAR = 5
"""The node that serves devices 0 to 7."""

ROUNDS = 36

Lie = Callable[[RecordDict], RecordDict | Error]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"POLL": 0.0, "LOOK": 0.01, "RETRY": 0.0, "GRACE": 2.0}.items():
        monkeypatch.setattr(remote, f"{name}_SECONDS", seconds)
    monkeypatch.setattr("tinyfl.flower.rounds.SHORT_ROUND_PAUSES", (0.0, 0.0, 0.0))


def nodes(lie: Lie) -> dict[int, Callable[[Message], RecordDict | Error]]:
    """Three, of which one tells ``lie`` of what it would have said."""
    honest = serving(range(8), "a")

    def lying(message: Message) -> RecordDict | Error:
        said = honest(message)
        assert isinstance(said, RecordDict)
        return lie(said) if message.metadata.message_type == MessageType.TRAIN else said

    return {**three_nodes(), LIAR: lying}


def without(each_device: bool = False) -> bytes:
    """theta after two rounds in which that node fails."""
    grid = FlakyGrid(nodes(lambda _: Error(Trouble.failed, "cannot")))
    return theta_over(remote_grid(grid, each_device), each_device, rounds=2)


def changed(record: str, **values: Any) -> Lie:
    """Other values in the one record of this kind."""

    def lie(said: RecordDict) -> RecordDict:
        said[record].update(values)  # type: ignore[union-attr]
        return said

    return lie


def summed(array: Array) -> Lie:
    def lie(said: RecordDict) -> RecordDict:
        said["arrays"] = ArrayRecord({"sum": array})
        return said

    return lie


def header(kind: str, size: int) -> bytes:
    """The beginning of an .npy file."""
    said = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({size},)}}"
    return b"\x93NUMPY\x01\x00\x76\x00" + said.ljust(117).encode() + b"\n"


RAW = partial(Array, stype="tinyfl.i64le")
HONEST = (len(THETA),)
LIES: dict[str, Lie] = {
    "count of 10^18": changed("metrics", devices=10**18),
    "negative count": changed("metrics", devices=-1),
    "count of nan": changed("metrics", devices=float("nan")),
    "count that is a list": changed("metrics", devices=[1, 2]),
    "loss that is a list": changed("metrics", loss=[1.0]),
    "sums too long": summed(RAW("int64", HONEST, data=bytes(8 * len(THETA) + 8))),
    "sums too short": summed(RAW("int64", HONEST, data=b"")),
    "sums of half a number": summed(RAW("int64", HONEST, data=bytes(8 * len(THETA) - 3))),
    "sums of another type": summed(RAW("float32", HONEST, data=np.ones(len(THETA), np.float32).tobytes())),
    "array of a zip file": summed(Array("float32", HONEST, "numpy.ndarray", b"PK\x03\x04" + bytes(60))),
    "array of a pickle": summed(Array("float32", HONEST, "numpy.ndarray", b"\x80\x04N.")),
    "array that says it is huge": summed(Array("float32", HONEST, "numpy.ndarray", header("<f4", 10**15))),
    "array of objects": summed(Array("float32", HONEST, "numpy.ndarray", header("|O", 1))),
    "nested header": summed(Array("float32", HONEST, "numpy.ndarray", b"\x93NUMPY\x02\x00\x00\x20\x00\x00" + b"(" * 8192)),
    "absent devices of another node": changed("absent", **{"20": "dead"}),
    "absent devices that are no numbers": changed("absent", **{"many": "dead"}),
    "more absent devices than asked": changed("absent", **{str(number): "dead" for number in range(5000)}),
    "nothing": lambda said: RecordDict(),
    "an error of 1 MB": lambda said: Error(Trouble.no_update, "\x1b[2J" + "x" * 10**6),
}  # fmt: skip


def with_absent(lie: Lie) -> Lie:
    """The same, of an answer that has absent devices."""

    def told(said: RecordDict) -> RecordDict | Error:
        said["absent"] = ConfigRecord({})
        return lie(said)

    return told


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_lie_costs_its_node_the_round_and_theta_is_as_if_it_were_away(lie: Lie) -> None:
    events: list[Event] = []
    came: list[Updates] = []
    grid = remote_grid(FlakyGrid(nodes(with_absent(lie))), on_event=events.append)
    options: dict[str, Any] = {"on_event": events.append, "on_round": lambda _, updates: came.append(updates)}
    assert theta_over(grid, rounds=2, **options) == without()
    assert [set(updates.absent) <= set(range(8)) for updates in came] == [True, True]
    assert all(REASON.fullmatch(reason) for updates in came for reason in updates.absent.values())
    assert events, "and it is said"
    assert all(event.detail == plain(event.detail, MAX_REPORTED + 100) for event in events)


def test_an_answer_that_flower_cannot_take_apart_costs_its_node_alone() -> None:
    class Damaged(FlakyGrid):
        """As Flower's: one damaged answer, and none of the batch arrives."""

        def pull_messages(self, message_ids: Any) -> list[Message]:
            found = super().pull_messages(message_ids)
            if any(reply.metadata.src_node_id == LIAR and "arrays" in reply.content for reply in found):
                raise ValueError("Invalid object ID")
            return found

    events: list[Event] = []
    grid = remote_grid(Damaged(nodes(lambda said: said)), on_event=events.append)
    came: list[Updates] = []
    assert theta_over(grid, rounds=2, on_round=lambda _, updates: came.append(updates)) == without()
    assert [set(updates.absent) <= set(range(8)) for updates in came] == [True, True]
    assert "unreadable reply: ValueError('Invalid object ID')" in events[-1].detail


numbers = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats())
few = st.lists(st.integers(-9, 9), max_size=5)
words = st.one_of(st.text(max_size=50), st.just("\x1b[2J\u202e" + "y" * 50_000), st.just("[" * 100_000))
values = st.one_of(numbers, words, st.binary(max_size=20), st.booleans(), few, st.lists(words, max_size=4))
stypes = st.sampled_from(["tinyfl.i64le", "numpy.ndarray", "x"])
arrays = st.builds(Array, st.sampled_from(["int64", "float32", "O"]), st.just(HONEST), stypes, st.binary(max_size=400))
KEYS = "said seconds devices losses reasons loss num-examples first size name boards 0 3 99"
names = st.sampled_from(KEYS.split())
records = st.one_of(
    st.dictionaries(names, values, max_size=6).map(ConfigRecord),
    st.dictionaries(names, st.one_of(numbers, few), max_size=6).map(MetricRecord),
    st.dictionaries(st.sampled_from(["sum", "phis", "theta"]), arrays, max_size=2).map(ArrayRecord),
)
answers = st.dictionaries(
    st.sampled_from(["arrays", "metrics", "absent", "events", "apart", "shard", "x"]), records, max_size=5
)


@given(made_up=answers, each_device=st.booleans(), keep=st.sets(st.sampled_from(["arrays", "metrics"])))
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_whatever_a_node_makes_up_the_round_ends_and_the_others_count(
    made_up: dict[str, Any], each_device: bool, keep: set[str]
) -> None:
    def lie(said: RecordDict) -> RecordDict:
        kept = {name: record for name, record in said.items() if name in keep}
        return RecordDict({**made_up, **kept})

    events: list[Event] = []
    came: list[Updates] = []
    grid = remote_grid(FlakyGrid(nodes(lie)), each_device, on_event=events.append)
    theta_over(grid, each_device, rounds=1, on_round=lambda _, updates: came.append(updates))
    assert set(came[0].absent) <= set(range(8))
    assert all(REASON.fullmatch(reason) for reason in came[0].absent.values())
    for event in events:
        assert len(json.dumps(asdict(event))) < 10_000
        assert event.detail == plain(event.detail, 2 * MAX_REPORTED)
        assert event.device in range(8)


@given(made_up=answers)
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_whatever_a_stranger_says_in_the_roll_call_the_others_have_their_seats(made_up: dict[str, Any]) -> None:
    stranger = {1: lambda message: RecordDict({**made_up, "shard": made_up.get("shard", ConfigRecord())})}
    seats = call_roll(FlakyGrid({**stranger, **three_nodes()}), SIZE, within=5)
    assert [seat.name for seat in seats] == ["a", "b", "c"]


def test_a_seats_name_and_boards_are_fit_to_show() -> None:
    board = {"device": 0, "board": "\x1b[31mred" * 50, "boot_seconds": "soon", "id": None, "fruit": [1]}
    roll = shard_record("\u202eb\x1b]0;title\x07" + "z" * 1000, range(SIZE), [board])
    (seat,) = call_roll(FlakyGrid({1: lambda _: roll}), SIZE, within=5)
    assert (seat.name, len(seat.name)) == (plain(seat.name), 40)
    assert set(seat.boards[0]) == {"device", "board", "id"}
    assert seat.boards[0]["board"] == plain(seat.boards[0]["board"], 100)


def events_of(count: int, detail: str) -> Lie:
    lines = [json.dumps({"round": 0, "device": 3, "board": "\x1b", "what": "left out", "detail": detail})] * count
    return lambda said: RecordDict({**said, "events": ConfigRecord({"said": [*lines, "[" * 10**5], "seconds": float("inf")})})


def test_what_a_liar_says_takes_little_room_in_a_run_directory(tmp_path: Path) -> None:
    """New reasons in each round, events without end, and errors of 1 MB."""
    told = itertools.count()

    def lie(said: RecordDict) -> RecordDict | Error:
        number = next(told)
        if number % 3 == 0:
            return Error(Trouble.failed, f"{number}\n\x1b[2J" + "x" * 10**6)
        if number % 3 == 1:
            return events_of(1000, "v" * 3000)(said)
        letters = "".join(chr(97 + int(digit)) for digit in str(number))
        said["metrics"].update(devices=0)  # type: ignore[union-attr]
        said["arrays"] = ArrayRecord({"sum": RAW("int64", HONEST, data=bytes(8 * len(THETA)))})
        said["absent"] = ConfigRecord({str(device): letters for device in range(8)})
        return said

    options: dict[str, Any] = {
        "task": TASK.name, "network": "mlp-8-8", "devices": SIZE, "cohort": SIZE, "seed": 5, "rounds": ROUNDS, "samples": 8,
        "tasks": 4, "adapt_lr": 0.01, "minimum": 1,
    }  # fmt: skip
    run = simulate(over=partial(over_nodes, FlakyGrid(nodes(lie))), out=tmp_path, **options)
    assert len(run.result["left_out"]) <= MAX_REASONS + 1
    assert run.result["failed"] == {}, "it has sent an update, in the rounds in which it lied of events only"
    sizes = {path.name: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()}
    assert sizes["rounds.jsonl"] < ROUNDS * 600
    assert sizes["metrics.jsonl"] < ROUNDS * 2000
    assert sizes["events.jsonl"] < ROUNDS * 8 * MAX_EVENTS * 1000
    for name in ("rounds.jsonl", "events.jsonl", "metrics.jsonl"):
        text = (tmp_path / name).read_text()
        assert all(plain(line, len(line)) == line for line in text.splitlines())
        assert "Infinity" not in text


def test_a_run_whose_nodes_fail_in_every_round_fails_with_what_they_say(tmp_path: Path) -> None:
    def failing(devices: range) -> Callable[[Message], RecordDict | Error]:
        cannot = Error(Trouble.failed, "a defect in the gateway: IndexError(4)")
        roll = shard_record("lab", devices)
        return lambda message: roll if message.metadata.message_type == MessageType.QUERY else cannot

    options: dict[str, Any] = {"task": TASK.name, "network": "mlp-8-8", "devices": SIZE, "cohort": SIZE, "rounds": 2}
    options |= {"minimum": 1, "tasks": 4, "adapt_lr": 0.01}
    all_of_them, one_of_them = FlakyGrid({1: failing(range(SIZE))}), FlakyGrid({**three_nodes(), LIAR: failing(range(8))})
    with pytest.raises(
        TrainingError, match=r"had 0 of the 1 .*lab, devices 0-23: a defect in .*: IndexError\(4\)\. Check the devices"
    ):
        simulate(over=partial(over_nodes, all_of_them), out=tmp_path / "all", **options)
    run = simulate(over=partial(over_nodes, one_of_them), out=tmp_path / "one", **options)
    assert list(run.result["failed"]) == ["lab"]
    assert "devices 0 to 7, no update in any of the 2 rounds that asked for one (node-error: lab" in run.result["failed"]["lab"]
