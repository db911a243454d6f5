"""Whatever a board says, it costs that board its round: never the run, never another board, never wrong weights. The lies are
made for every field of every reply there is."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from double import Double
from lies import ILLEGAL, LIES, LONGEST, Liar, all_replies, fields_of, replies

from tinyfl.algorithms import Inner, State
from tinyfl.config import resolve
from tinyfl.errors import DoesNotFit, LinkError
from tinyfl.fleet import Event
from tinyfl.fleets import linked
from tinyfl.fleets.linked import LinkFleet
from tinyfl.flower.grid import FleetGrid
from tinyfl.flower.rounds import Federation, Outcome
from tinyfl.link import messages, sensing
from tinyfl.link.board import LinkedBoard
from tinyfl.link.classes import Classes, ClassSet
from tinyfl.link.messages import about, models, rounds
from tinyfl.link.messages import classes as classes_messages
from tinyfl.link.messages import online as online_messages
from tinyfl.link.messages import sensing as sensing_messages
from tinyfl.link.online import OnlineBoard, OnlineRecord
from tinyfl.link.wire import MachineWire
from tinyfl.networks import network
from tinyfl.online import Head, OnlineSet
from tinyfl.runs.directory import RunDirectory
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks.sine import Sine

TASK = Sine(5)
NETWORK = network("mlp-3", (1,), 1, TASK.loss, TASK.activation)
THETA = NETWORK.initial_weights(5)
INNER = Inner(samples=3, rate=0.02)

IN_A_ROUND = (
    about.DescribeReply, rounds.PlanReply, rounds.WeightsReply, rounds.WeightsBlock, rounds.TrainReply,
    rounds.SamplesReply, rounds.StatusReply, rounds.AbortReply,
)  # fmt: skip
ROUNDS = [(kind, field) for kind in IN_A_ROUND for field in fields_of(kind)]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The boards answer at once, but this machine may be busy: a late answer is no lie."""
    monkeypatch.setattr(linked, "PROBE_SECONDS", 60.0)


async def evaluate(board: LinkedBoard) -> object:
    return await board.evaluate(np.zeros((1, 2), np.float32))


async def infer(board: LinkedBoard) -> object:
    return await board.infer(np.zeros(1, np.float32))


async def commit(board: LinkedBoard) -> object:
    return await board.commit((await board.status()).weights)


async def predict(board: LinkedBoard) -> object:
    import programs

    await board.put_program(programs.program(bytes(256), 500))
    return await board.predict(bytes(500))


async def classes(board: LinkedBoard) -> object:
    """A set, two samples of one class, a list, the nearest class, a commit, and nothing left."""
    held, x = Classes(board), np.zeros(1, np.float32)
    await held.start(ClassSet("learner", (await board.status()).weights, 2))
    await held.enrol(1, x, "one")
    await held.enrol(1, x)
    found = await held.classify(x), await held.held(), await held.commit()
    return found, await held.forget()


async def rates(board: LinkedBoard) -> object:
    """The rates of a board's link, and a change to the one that it has."""
    known = await board.request(about.RatesRead(sequence=board.next()), 60.0)
    return known, await board.request(about.RateWrite(sequence=board.next(), baud=known.baud), 60.0)


async def sense(board: LinkedBoard) -> object:
    """A sample of the board's source, the rest of its bytes, and what its network makes of another."""
    taken = await sensing.sample(board, "sine", 1, 60.0)
    rest = await board.read(sensing_messages.SenseRead, b"", 8, 60.0)
    return taken, rest, await sensing.measure(board, "sine", 60.0)


async def online(board: LinkedBoard) -> object:
    """A set, two samples of two classes, what the monitor says, a commit and the way back, and one class less."""
    learner, x = OnlineBoard(board), np.zeros(1, np.float32)
    set = OnlineSet(Head.classes, 1, 1, 3, ring=2).record
    await learner.start(OnlineRecord("learner", (await board.status()).weights, set, 1))
    said = [await learner.sample(x), await learner.sample(x)]
    losses = [await learner.label(each.number, number, "one") for number, each in enumerate(said)]
    found = await learner.learnt(), await learner.commit(), await learner.roll_back()
    await learner.put_back(found[0])
    await learner.put_head(*await learner.head())
    await learner.listen("")
    return said, losses, found, await learner.watched(), await learner.forget(1)


CALLS: dict[Any, Callable[[LinkedBoard], Awaitable[object]]] = {
    rounds.EvaluateReply: evaluate, models.InferReply: infer, models.CommitReply: commit,
    models.ProgramReply: predict, models.PredictReply: predict, models.PredictBlock: predict,
    about.RatesReply: rates, about.RateReply: rates, **dict.fromkeys(replies(sensing_messages), sense),
    **dict.fromkeys(replies(classes_messages), classes), **dict.fromkeys(replies(online_messages), online),
}  # fmt: skip


def test_every_reply_is_lied_about() -> None:
    assert {*IN_A_ROUND, *CALLS} == set(all_replies())


def liar(number: int, kind: Any, field: str, lie: Any) -> Liar:
    """A board that comes to tell its lie: it has no source of its own for lies about samples, and learns for those about an
    abort."""
    sources = () if kind is rounds.SamplesReply else ("sine",)
    board = Liar(number.to_bytes(2), kind, field, lie, sources=sources)
    board.state = 3 if kind is rounds.AbortReply else 0
    return board


def play(boards: list[Any]) -> tuple[tuple[str, ...], list[Event]]:
    """One round of all ``boards``. Demands the sum of those that count, and what is said of the others."""
    events: list[Event] = []
    cohort = np.arange(len(boards), dtype=np.uint32)
    with LinkFleet([MachineWire(board).open for board in boards], TASK, NETWORK, on_event=events.append) as fleet:
        phis = fleet.run_each(cohort, 0, THETA, INNER)
    well = np.array([not reason for reason in phis.reasons])
    right = NativeFleet(TASK, NETWORK, len(boards)).run_each(cohort, 0, THETA, INNER)
    np.testing.assert_array_equal(phis.phi[well], right.phi[well])
    np.testing.assert_array_equal(phis.phi[~well], np.tile(THETA, (sum(~well), 1)))
    assert {event.device for event in events if event.what == "left out"} == set(cohort[~well].tolist())
    assert all(len(event.detail) <= 500 and event.detail.isprintable() for event in events)
    return phis.reasons, events


@pytest.mark.parametrize(("kind", "field"), ROUNDS, ids=lambda value: getattr(value, "__name__", value))
def test_a_lie_costs_the_board_its_round_and_nobody_else(kind: Any, field: str) -> None:
    liars = [liar(number, kind, field, lie) for number, lie in enumerate(LIES.values(), 1)]
    reasons, _ = play([Double(b"A"), *liars, Double(b"Z")])
    assert (reasons[0], reasons[-1]) == ("", "")
    assert all(board.told for board in liars)
    outcome = dict(zip(LIES, reasons[1:], strict=False))
    assert {name for name in ILLEGAL if outcome[name] != "corrupt"} == set()
    assert outcome["map to the break"] == ""
    assert set(reasons) <= {"", "corrupt", "dead", "stale", "refused", "too-small", "numeric"}


def test_an_answer_of_a_million_bytes_is_none() -> None:
    reasons, _ = play([Double(b"A"), liar(1, about.DescribeReply, "firmware", LONGEST), Double(b"Z")])
    assert reasons == ("", "dead", "")


@pytest.mark.parametrize("kind", CALLS, ids=lambda kind: kind.__name__)
def test_a_lie_outside_a_round_is_an_error_of_the_link(kind: Any) -> None:
    async def call(board: Liar) -> object:
        there = await LinkedBoard.connect(MachineWire(board).open)
        await there.put_plan(NETWORK.plan.bytes)
        await there.put_weights(THETA)
        try:
            return await CALLS[kind](there)
        except LinkError as error:
            return error

    for field in fields_of(kind):
        for name, lie in LIES.items():
            board = liar(1, kind, field, lie)
            said = asyncio.run(call(board))
            assert board.told, (field, name)
            assert name not in ILLEGAL or isinstance(said, LinkError), (field, name)


@pytest.mark.parametrize("lie", ["inf", "-inf", "nan", "1e300"])
def test_a_loss_that_is_no_figure_is_left_out_and_said(lie: str) -> None:
    boards = [Double(b"A"), liar(1, rounds.TrainReply, "loss", LIES[lie]), Double(b"Z")]
    events: list[Event] = []
    cohort = np.arange(3, dtype=np.uint32)
    with LinkFleet([MachineWire(board).open for board in boards], TASK, NETWORK, on_event=events.append) as fleet:
        updates = fleet.run(cohort, 0, THETA, INNER)
    right = NativeFleet(TASK, NETWORK, 3).run(cohort, 0, THETA, INNER)
    honest = NativeFleet(TASK, NETWORK, 3).run(cohort[::2].copy(), 0, THETA, INNER)
    np.testing.assert_array_equal(updates.sum, right.sum)
    assert (updates.devices, updates.loss) == (3, honest.loss)
    (said,) = (event for event in events if event.what == "no loss")
    assert said.device == 1
    assert said.detail.endswith("is left out of the round's mean")


def run(path: Path, boards: list[Any], nodes: str = "1") -> Outcome:
    """Three rounds of all of three ``boards``, or of simulated devices in their place."""
    config = resolve(
        {"task": "sine", "seed": 5, "network": "mlp-3", "devices": 3, "cohort": 3, "rounds": 3, "minimum": 1, "nodes": nodes}
    )
    directory = RunDirectory(path)
    directory.start(config)
    openers = [MachineWire(board).open for board in boards]
    with LinkFleet(openers, TASK, NETWORK, on_event=directory.log_event) as linked:
        grid = FleetGrid(linked if boards else NativeFleet(TASK, NETWORK, 3), config.gateways)
        return Federation(directory, config, config.build(), grid, State(0, THETA), None).run()


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("nodes", ["1", "3", "devices"])
def test_a_run_with_a_loss_that_is_no_figure_has_the_figures_of_the_others(tmp_path: Path, nodes: str) -> None:
    lied = run(tmp_path / "lied", [Double(b"A"), liar(1, rounds.TrainReply, "loss", LIES["inf"]), Double(b"Z")], nodes)
    honest = run(tmp_path / "honest", [], nodes)
    assert lied.state.theta.tobytes() == honest.state.theta.tobytes()
    assert all(np.isfinite(line["loss"]) for line in lines(tmp_path / "lied/metrics.jsonl"))
    said = [(line["round"], line["device"]) for line in lines(tmp_path / "lied/events.jsonl") if line["what"] == "no loss"]
    assert said == [(0, 1), (1, 1), (2, 1)]


def test_boards_that_are_all_too_small_end_a_run_at_once_with_the_code_of_that(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit, match=r"none of the 3 boards in round 1 has room to learn mlp-3.*events\.jsonl"):
        run(tmp_path / "run", [Double(bytes([65 + i]), arena=64) for i in range(3)])
    assert sum("has 64. Choose a smaller --network" in line["detail"] for line in lines(tmp_path / "run/events.jsonl")) == 3


def test_one_board_that_says_it_is_too_small_ends_nothing(tmp_path: Path) -> None:
    boards = [Double(b"A"), liar(1, about.DescribeReply, "arena", LIES["0"]), Double(b"Z")]
    assert run(tmp_path / "run", boards).left_out == {"too-small": 3}


def test_a_defect_of_tinyfl_costs_only_the_board_that_shows_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = messages.answer

    def answer(request: Any, data: bytes) -> Any:
        reply: Any = real(request, data)
        if isinstance(reply, rounds.TrainReply) and not failed:
            failed.append(reply)
            raise ZeroDivisionError("\x1b[31mred\n" * 100)
        return reply

    failed: list[Any] = []
    monkeypatch.setattr(messages, "answer", answer)
    reasons, events = play([Double(b"A"), Double(b"B"), Double(b"C")])
    assert sorted(reasons) == ["", "", "defect"]
    (said,) = (event for event in events if event.what == "left out")
    assert said.detail.startswith("defect: tinyfl failed to handle the board's behaviour (ZeroDivisionError: \ufffd[31mred ")
    assert "Traceback" in caplog.text


def test_monitor_says_a_loss_that_is_no_figure_as_null() -> None:
    from dataclasses import replace

    from tinyfl.devices.monitor import Line
    from tinyfl.link.status import Status

    status = Status(4, 0, b"", 3, float("nan"), 0, b"", 0, 0)
    for loss in (float("nan"), float("inf")):
        line = json.dumps(Line(0.0, "status", "x", status=replace(status, loss=loss)).as_json(), allow_nan=False)
        assert json.loads(line)["status"]["loss"] is None
