"""A model to many boards: what becomes of each when cables, boards and this very process fail."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from desk import NUCLEO, Desk, Fragile, held, silent
from double import Double
from lies import LIES, Liar

from tinyfl.algorithms import Inner
from tinyfl.devices import inventory, push
from tinyfl.devices.inventory import Selection
from tinyfl.devices.push import Int8, Pushed, PushResult, Weights
from tinyfl.errors import ConfigError, DoesNotFit, LinkError
from tinyfl.int8.program import Program, TensorInfo
from tinyfl.link.board import LinkedBoard, floats
from tinyfl.link.messages.about import DescribeReply
from tinyfl.link.messages.models import CommitReply
from tinyfl.link.messages.rounds import PlanReply, StatusReply, WeightsReply
from tinyfl.link.wire import SerialWire
from tinyfl.networks import network
from tinyfl.tasks.sine import Sine

TASK = Sine(1)
NETWORK = network("mlp-20-20", (1,), 1, TASK.loss, TASK.activation)
EVERYTHING = Selection()


def weights(seed: int, net: Any = NETWORK) -> Weights:
    return Weights(net.plan.bytes, net.initial_weights(seed), net.arena_bytes())


def int8(count: int = 5, arena: int | None = None) -> Int8:
    content = programs.program(bytes(range(256)), count, arena=arena)
    info = TensorInfo((count,), "int8", 1.0, 0)
    return Int8(Program(content, info, info, programs.sizes(content)[0], (), 1))


OLD, NEW = weights(1), weights(2)


@pytest.fixture
def pushing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pushed]:
    """Pushes NEW, or another ``model``; restarts take no time."""
    monkeypatch.setattr(push, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("tinyfl.devices.connected.ASK_SECONDS", 3.0)

    def run(asked: Selection = EVERYTHING, model: push.Model = NEW, **options: Any) -> Pushed:
        monkeypatch.setattr(push, "load", lambda name: model)
        return push.push("a run", asked, **options)

    return run


def with_model(id: bytes, model: Weights = OLD) -> Double:
    """A board that has committed ``model``."""
    board = Double(id)
    board.take_plan(model.plan)
    board.take_weights(model.theta.copy())
    board.commit(model.sha256)
    return board


def committed(board: Double) -> bytes:
    """What the board has after a power cut."""
    board.reset()
    held: bytes = board.describe()["model"]
    return held


def what(pushed: Pushed) -> dict[str, str]:
    return {each.id or each.port: each.what for each in pushed.boards}


def test_of_three_boards_one_dead_two_have_the_model(desk: Desk, pushing: Callable[..., Pushed]) -> None:
    first, second = with_model(b"\1"), with_model(b"\2")
    desk.plug("ttyACM0", first.exchange)
    dead = desk.plug("ttyACM1", silent, usb=NUCLEO)
    desk.plug("ttyACM2", second.exchange)
    told: list[PushResult] = []
    pushed = pushing(tell=told.append)
    assert what(pushed) == {"01": "pushed", "02": "pushed", dead: "offline"}
    assert committed(first) == committed(second) == NEW.sha256
    (left,) = pushed.left
    assert "nothing answers" in left.detail and "nucleo-f401re" in left.board
    assert sorted(each.what for each in told) == ["offline", "pushed", "pushed"]
    assert json.loads(json.dumps(pushed.as_json()))["left"] == 1
    with pytest.raises(LinkError, match=r"1 of 3 boards are without the model: .*ttyACM1") as raised:
        push.demand_all(pushed)
    assert raised.value.exit_code == 8


def test_what_is_there_already_is_left_alone(desk: Desk, pushing: Callable[..., Pushed]) -> None:
    board = with_model(b"\1")
    desk.plug("ttyACM0", board.exchange)
    assert what(pushing()) == {"01": "pushed"}
    board.theta = board.theta + 1  # it learns on from there
    assert what(pushing()) == {"01": "up to date"}
    assert len(board.slots) == 2 and (board.theta != NEW.theta).all()
    push.demand_all(pushing())


def test_the_same_weights_of_another_network_are_another_model(desk: Desk, pushing: Callable[..., Pushed]) -> None:
    from tinyfl.networks.layers import Activation

    other = network("mlp-20-20", (1,), 1, TASK.loss, Activation.relu)
    board = with_model(b"\1", Weights(other.plan.bytes, NEW.theta, 1))
    desk.plug("ttyACM0", board.exchange)
    assert what(pushing()) == {"01": "pushed"}
    assert committed(board) == NEW.sha256 and board.plan_bytes == NEW.plan


def test_a_round_that_nobody_waits_for_is_ended(desk: Desk, pushing: Callable[..., Pushed]) -> None:
    board = with_model(b"\1")
    inner = Inner(samples=9, rate=0.1).to_bytes()
    board.train(round=1, device=0, seed=0, inner=inner, base=OLD.sha256, source="", run=0, saved=0)
    desk.plug("ttyACM0", board.exchange)
    assert what(pushing()) == {"01": "pushed"}


def test_a_program_goes_to_its_slot_and_the_model_stays(desk: Desk, pushing: Callable[..., Pushed]) -> None:
    board, program = with_model(b"\1"), int8()
    desk.plug("ttyACM0", board.exchange)
    pushed = pushing(model=program)
    assert (what(pushed), pushed.kind) == ({"01": "pushed"}, "int8")
    assert board.store.content == program.program.content and committed(board) == OLD.sha256
    assert what(pushing(model=program)) == {"01": "up to date"}


def test_what_has_no_room_is_refused_with_its_numbers_and_sent_nothing(desk: Desk, pushing: Callable[..., Pushed]) -> None:
    board = with_model(b"\1")
    desk.plug("ttyACM0", board.exchange)
    large = weights(3, network("mlp-150-150", (1,), 1, TASK.loss, TASK.activation))
    for model in (large, replace(NEW, arena=board.arena + 1), int8(arena=board.arena + 8), int8(1 << 16)):
        pushed = pushing(model=model)
        assert what(pushed) == {"01": "does not fit"}
        with pytest.raises(DoesNotFit, match="1 of 1 boards"):
            push.demand_all(pushed)
        assert "65,5" in pushed.boards[0].detail
    assert committed(board) == OLD.sha256 and board.store.content == b""


@pytest.mark.parametrize("after", range(2, 8))
def test_a_board_that_restarts_in_the_middle_has_the_model_in_the_end(
    desk: Desk, pushing: Callable[..., Pushed], after: int
) -> None:
    board = with_model(b"\1")
    fragile = Fragile(board, after, lambda: board.reset())
    desk.plug("ttyACM0", fragile.exchange)
    assert what(pushing()) == {"01": "pushed"}
    assert fragile.messages > after and committed(board) == NEW.sha256


def test_a_cable_that_is_pulled_in_the_middle_and_put_into_another_port(desk: Desk, pushing: Callable[..., Pushed]) -> None:
    board = with_model(b"\1")

    def pull() -> bytes:
        cut.set()
        return b""

    import threading

    cut = threading.Event()
    fragile = Fragile(board, 5, pull)
    desk.plug("ttyACM0", fragile.exchange, serial="A", location="1-1:1.1")

    def replug() -> None:
        assert cut.wait(60)
        desk.unplug("ttyACM0")
        desk.plug("ttyACM0", Double(b"\7").exchange, serial="B", location="1-1:1.1")  # its name is another's now
        desk.plug("ttyACM5", board.exchange, serial="A", location="1-3:1.1")

    thread = threading.Thread(target=replug)
    thread.start()
    pushed = pushing(Selection(ids=("01",)))
    thread.join()
    assert what(pushed) == {"01": "pushed"} and committed(board) == NEW.sha256


def test_another_board_at_the_port_gets_nothing(
    desk: Desk, pushing: Callable[..., Pushed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "ATTEMPTS", 1)
    board, other = with_model(b"\1"), with_model(b"\2")
    answers = iter([board.exchange])
    desk.plug("ttyACM0", lambda data: next(answers, other.exchange)(data))
    (outcome,) = pushing(Selection(ids=("01",))).boards
    assert outcome.what == "failed" and "another board, 02, answers" in outcome.detail
    assert committed(other) == committed(board) == OLD.sha256


def test_a_board_that_comes_late_is_waited_for(desk: Desk, pushing: Callable[..., Pushed]) -> None:
    first, late = with_model(b"\1"), with_model(b"\2")
    desk.plug("ttyACM0", first.exchange, serial="A")
    inventory.save(devices_of(first, late), ["lab"])
    desk.on_look = lambda look: look == 6 and desk.plug("ttyACM1", late.exchange, serial="B")
    told: list[PushResult] = []
    pushed = pushing(Selection(tags=("lab",)), wait=60, tell=told.append)
    assert what(pushed) == {"01": "pushed", "02": "pushed"}
    assert [(each.id, each.what) for each in told] == [("01", "pushed"), ("02", "offline"), ("02", "pushed")]


def devices_of(*boards: Double) -> list[Any]:
    from tinyfl.devices.connected import Device, Port
    from tinyfl.link.messages.about import Describe  # noqa: F401  the field names are those of its reply
    from tinyfl.link.status import Description, said

    described = [said(Description, type("Reply", (), board.describe())) for board in boards]
    return [Device(Port(f"/dev/none{i}"), "free", "", each, 115_200) for i, each in enumerate(described)]


def test_the_wait_ends(desk: Desk, pushing: Callable[..., Pushed], tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[[device]]\nid = '0a'\nboard = 'microbit-v2'\nport = '/dev/there-is-no-such-port'\n")
    (outcome,) = pushing(Selection(), wait=0.05, devices=path).boards
    assert (outcome.id, outcome.what) == ("0a", "offline") and "cannot be opened" in outcome.detail
    nobody = pushing(Selection())
    with pytest.raises(LinkError, match="none of the selected boards was found"):
        push.demand_all(nobody)


def test_who_has_a_busy_board_is_named(desk: Desk, pushing: Callable[..., Pushed]) -> None:
    url = desk.plug("ttyACM0", with_model(b"\1").exchange)
    with held(url) as pid:
        (outcome,) = pushing().boards
    assert outcome.what == "offline" and f"process {pid}" in outcome.detail
    assert what(pushing()) == {"01": "pushed"}


def test_a_board_of_another_protocol_is_told_apart_from_one_that_is_off(desk: Desk, pushing: Callable[..., Pushed]) -> None:
    board = with_model(b"\1")
    board.protocol = 1
    desk.plug("ttyACM0", board.exchange)
    (outcome,) = pushing().boards
    assert outcome.what == "failed" and "Flash it" in outcome.detail


def test_a_selection_leaves_the_others_alone(desk: Desk, pushing: Callable[..., Pushed]) -> None:
    boards = [with_model(bytes([number])) for number in (1, 2, 3)]
    urls = [desk.plug(f"ttyACM{i}", board.exchange) for i, board in enumerate(boards)]
    inventory.save(devices_of(boards[2]), ["roof"])
    assert what(pushing(Selection(ports=(urls[0],)))) == {"01": "pushed"}
    assert what(pushing(Selection(tags=("roof",)))) == {"03": "pushed"}
    assert committed(boards[1]) == OLD.sha256
    with pytest.raises(ConfigError, match="no board is called"):
        pushing(Selection(boards=("abacus",)))


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a model to push"):
        push.load("mlp-8")


def saved_run(folder: Path) -> Path:
    """A run's initialisation.npz with the weights NEW."""
    path = folder / "initialisation.npz"
    shape = np.array(NETWORK.shape)
    np.savez(
        path, theta=NEW.theta, network="mlp-20-20", task="sine", plan=np.frombuffer(NEW.plan, np.uint8), shape=shape, seed=1,
        clip=0.0, adapt_lr_batch=0.1, adapt_lr_stream=0.1, mean=np.zeros(1, np.float32), scale=np.ones(1, np.float32),
        classes=np.zeros(0),
    )  # fmt: skip
    return path


def command(*arguments: str, cwd: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tinyfl.cli", *arguments], cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.slow
def test_kill_9_in_the_middle_leaves_the_old_model_and_a_second_push_brings_the_new(desk: Desk, tmp_path: Path) -> None:
    board, run = with_model(b"\1"), saved_run(tmp_path)
    url = os.path.realpath(desk.plug("ttyACM0", lambda data: fragile.exchange(data)))

    def kill() -> bytes:
        os.kill(pushing.pid, signal.SIGKILL)
        return b""

    # describe, describe, status, plan, the first block of the weights: here it is in the middle of them
    fragile = Fragile(board, 5, kill)
    pushing = command("push", str(run), "--port", url, cwd=tmp_path)
    pushing.communicate()
    assert pushing.returncode == -signal.SIGKILL and board.down.upload is not None
    assert committed(board) == OLD.sha256
    again = command("push", str(run), "--port", url, "--json", cwd=tmp_path)
    out, err = again.communicate()
    assert again.returncode == 0, err
    assert json.loads(out)["boards"][0]["what"] == "pushed" and committed(board) == NEW.sha256


def test_firmware_itself_keeps_what_is_pushed(emulators: None, tmp_path: Path) -> None:
    """An emulated chip, by the command line from end to end: pushed, up to date, and described so by tinyfl devices."""
    from tinyfl.fleets.emulation import emulate

    run = saved_run(tmp_path)
    with emulate("mps2-an386", first=7) as (board,):
        reports = []
        for verb in (["push", str(run), "--port", board.url, "--baud", "auto"],
                     ["devices", "--port", board.url, "--save", "--tag", "lab"],
                     ["push", str(run), "--tag", "lab"]):  # fmt: skip
            process = command(*verb, "--json", cwd=tmp_path)
            out, err = process.communicate()
            assert process.returncode == 0, err
            reports.append(json.loads(out))
        told = asyncio.run(describe(board.url))
    assert [each["boards"][0]["what"] for each in (reports[0], reports[2])] == ["pushed", "up to date"]
    (found,) = [each for each in reports[1]["devices"] if each["state"] == "free"]
    assert (found["id"], found["boards"], found["model"]) == (board.id, ["mps2-an386"], NEW.sha256.hex())
    assert reports[1]["saved"][0]["tags"] == ["lab"]
    assert told.model == sha256(floats(NEW.theta)).digest()


async def describe(url: str) -> Any:
    board = await LinkedBoard.connect(lambda: SerialWire.open(url))
    await board.close()
    return board.description


def test_a_board_that_lies_stops_no_other(desk: Desk, pushing: Callable[..., Pushed]) -> None:
    kinds = [
        (PlanReply, "off"),
        (WeightsReply, "off"),
        (StatusReply, "done"),
        (CommitReply, "commits"),
        (DescribeReply, "model"),
    ]
    desk.plug("ttyACM0", Double(b"\xab").exchange)
    for number, (kind, field) in enumerate(kinds, 1):
        desk.plug(f"ttyACM{number}", Liar(bytes([number]), kind, field, LIES["10^20,000,000"]).exchange)
    done = pushing()
    assert {each.id or each.port[-1]: each.what for each in done.boards} == {
        "ab": "pushed", "01": "failed", "02": "failed", "03": "failed", "5": "failed",
        "04": "up to date",  # it did commit, whatever it said of that
    }  # fmt: skip
