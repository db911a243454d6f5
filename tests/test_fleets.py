"""One theta wherever the devices are, and rounds that go on when boards do not."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tools import needs, needs_tools

import tinyfl
from tinyfl.algorithms import State
from tinyfl.building import boards
from tinyfl.config import resolve
from tinyfl.core import FASTEST, U32
from tinyfl.errors import TrainingError
from tinyfl.fleet import Event, Fleet, MixedFleet
from tinyfl.fleets.assembly import Training, assembled
from tinyfl.flower import rounds
from tinyfl.networks import Network, network
from tinyfl.networks.layers import Activation, Conv, Dense, DepthwiseConv, Loss, Pool
from tinyfl.simulation.job import turns
from tinyfl.tasks import load_task

pytestmark = pytest.mark.usefixtures("emulators")


def theta_after(fleet: Any, net: Network | None = None, **options: Any) -> bytes:
    """theta after the rounds of a run on ``fleet``, with no evaluation; of ``net``, or the network that the options name."""
    config = resolve({"fleet": fleet, "cohort": 2, "rounds": 3, **options})
    task = load_task(config.task, None, config.seed)
    net = net or network(config.network, task.shape, task.outputs, task.loss, task.activation)
    state, algorithm = State(0, net.initial_weights(config.seed)), config.build()
    cohort: U32 = np.arange(config.devices, dtype=np.uint32)
    with assembled(config.parts, Training(task, net, FASTEST, config.seconds), lambda event: None) as (made, _):
        for round in range(config.rounds):
            updates = made.run(cohort, round, state.theta, algorithm.inner(round))
            assert (updates.devices, updates.left_out) == (config.devices, {})
            state = algorithm.outer(state, updates)
    return state.theta.tobytes()


def on_boards(board: str, engine: str = "", toolchain: str = "zig") -> list[dict[str, Any]]:
    return [{"board": board, "count": 2, "toolchain": toolchain, **({"engine": engine} if engine else {})}]


EVERYWHERE = [
    ("mps2-an386", "unicorn", "zig"),
    ("mps2-an386", "unicorn", "gcc"),
    ("mps2-an386", "qemu", "zig"),
    ("mps2-an386", "qemu", "gcc"),
    ("stm32f405", "qemu", "zig"),
    ("stm32f405", "qemu", "gcc"),
    ("mps2-an385", "unicorn", "zig"),
    ("mps2-an385", "qemu", "gcc"),
    ("mps2-an500", "unicorn", "gcc"),
    ("mps2-an500", "qemu", "zig"),
    ("mps2-an505", "unicorn", "gcc"),
    ("mps2-an505", "qemu", "zig"),
    ("posix", "process", "zig"),
    ("raspberry-pi", "qemu", "zig"),
    ("raspberry-pi", "qemu", "gcc"),
]


SOLD = [board.name for board in boards.select("all") if board.flash]
BOTH = [(*where, activation) for where in EVERYWHERE for activation in ("relu", "tanh")]
BOARDS_THAT_ARE_SOLD = [(board, "unicorn", *rest) for board in SOLD for rest in (("zig", "tanh"), ("gcc", "relu"))]


@pytest.mark.parametrize(("board", "engine", "toolchain", "activation"), BOTH + BOARDS_THAT_ARE_SOLD)
def test_every_board_ends_with_the_native_fleets_theta(board: str, engine: str, toolchain: str, activation: str) -> None:
    needs_tools(board, engine, toolchain)
    options: dict[str, Any] = {"task": "sine", "network": f"mlp-9-8-{activation}", "samples": 10, "seed": 3}
    assert theta_after(on_boards(board, engine, toolchain), **options) == theta_after([{"native": 2}], **options)


EVERY_LAYER = Network(
    "every-layer",
    (8, 8, 1),
    (
        Conv(9, stride=(2, 2), activation=Activation.leaky_relu),
        DepthwiseConv((2, 2), same=False, activation=Activation.tanh),
        Pool(size=(2, 2), stride=(1, 1)),
        Pool(average=True, size=None),
        Dense(5, Activation.identity),
    ),
    Loss.softmax_cross_entropy,
)


@pytest.mark.parametrize("options", [{"algorithm": "tinyreptile"}, {"algorithm": "reptile", "batch": 3, "clip": 1.0}], ids=str)
@pytest.mark.parametrize(
    ("board", "engine", "toolchain"),
    [
        ("mps2-an386", "unicorn", "zig"),
        ("mps2-an386", "unicorn", "gcc"),
        ("mps2-an386", "qemu", "gcc"),
        ("raspberry-pi", "qemu", "zig"),
        ("raspberry-pi", "qemu", "gcc"),
    ],
)
def test_boards_learn_every_kind_of_layer_as_the_native_fleet_does(
    board: str, engine: str, toolchain: str, options: dict[str, Any]
) -> None:
    needs_tools(board, engine, toolchain)
    options = {"task": "digits", "samples": 5, "rounds": 2, **options}
    emulated = on_boards(board, engine, toolchain)
    assert theta_after(emulated, EVERY_LAYER, **options) == theta_after([{"native": 2}], EVERY_LAYER, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"task": "digits", "algorithm": "tinyreptile", "network": "mlp-10"},
        {"task": "digits", "algorithm": "tinyreptile", "network": "dsconv-4-6-sigmoid"},
        {"task": "digits", "algorithm": "reptile", "network": "mlp-10", "clip": 1.0},
        {"task": "sine", "algorithm": "fedavg", "network": "mlp-10"},
        {"task": "sine", "algorithm": "joint", "network": "mlp-10-sigmoid"},
    ],
    ids=["fed", "fed, separable", "fed, in batches", "fedavg", "joint"],
)
def test_every_algorithm_gives_the_native_fleets_theta(options: dict[str, Any]) -> None:
    assert theta_after(on_boards("mps2-an386"), **options) == theta_after([{"native": 2}], **options)


def test_parts_of_a_fleet_keep_their_devices_numbers() -> None:
    mixed = [{"native": 3}, *on_boards("mps2-an386"), {"native": 2}, {"board": "posix"}]
    options = {"task": "digits", "network": "mlp-8", "samples": 6, "cohort": 8}
    assert theta_after(mixed, **options) == theta_after([{"native": 8}], **options)


def test_a_mixed_fleet_hands_each_part_its_share() -> None:
    from tinyfl.simulators.native import NativeFleet

    task = load_task("sine", None, 1)
    net = network("mlp-4", (1,), 1, task.loss, task.activation)
    inner, theta = resolve({"task": "sine"}).build().inner(0), net.initial_weights(1)
    whole = NativeFleet(task, net, 10)
    parts: Fleet = MixedFleet([NativeFleet(task, net, 4), NativeFleet(task, net, 1), NativeFleet(task, net, 5)])
    for cohort in ([0, 3, 4, 9], [4], [1, 2], []):
        devices = np.array(cohort, np.uint32)
        ours, theirs = parts.run(devices, 2, theta, inner), whole.run(devices, 2, theta, inner)
        np.testing.assert_array_equal(ours.sum, theirs.sum)
        assert ours.devices == theirs.devices
        if cohort:
            each, same = parts.run_each(devices, 2, theta, inner), whole.run_each(devices, 2, theta, inner)
            np.testing.assert_array_equal(each.phi, same.phi)
            assert each.reasons == same.reasons


def expected_theta(events: list[dict[str, Any]], config: Any) -> bytes:
    """What the native fleet ends with if just the devices that ``events`` name are left out."""
    from tinyfl.simulators.native import NativeFleet

    task = load_task(config.task, None, config.seed)
    net = network(config.network, task.shape, task.outputs, task.loss, task.activation)
    fleet, algorithm = NativeFleet(task, net, config.devices), config.build()
    state = State(0, net.initial_weights(config.seed))
    for round in range(config.rounds):
        out = [event["device"] for event in events if event["what"] == "left out" and event["round"] == round]
        cohort = np.array([device for device in range(config.devices) if device not in out], np.uint32)
        state = algorithm.outer(state, fleet.run(cohort, round, state.theta, algorithm.inner(round)))
    return state.theta.tobytes()


def test_a_mixed_run_goes_on_while_one_board_is_killed_and_one_comes_back(tmp_path: Path) -> None:
    """100 native devices, 4 boards in unicorn and 1 in QEMU on a pty. QEMU is killed after round 3; a unicorn board loses its
    power after round 2 and has it again after round 6."""
    needs("qemu-system-arm", "qemu-system-arm")
    from tinyfl.building.boards import load
    from tinyfl.building.build import build
    from tinyfl.fleets.linked import LinkFleet
    from tinyfl.flower.grid import FleetGrid
    from tinyfl.link.wire import MachineWire, SerialWire
    from tinyfl.simulators.native import NativeFleet
    from tinyfl.simulators.qemu import QemuBoard
    from tinyfl.simulators.unicorn import Machine

    board = load("mps2-an386")
    elf = build(board, tmp_path / "firmware").elf
    machines = [Machine(elf, board, 1 + i) for i in range(4)]
    config = resolve({"task": "sine", "network": "mlp-6", "fleet": [{"native": 105}], "cohort": 105, "rounds": 9})

    with QemuBoard(elf, board, 9, link="pty") as qemu, ExitStack() as held:

        @contextmanager
        def mixed(config: Any, work: Training, tell: Callable[[Event], None]) -> Iterator[Any]:
            task, net, openers = work.task, work.network, [MachineWire(machine).open for machine in machines]
            with (
                LinkFleet(openers, task, net, first=100, seconds=20, on_event=tell) as emulated,
                LinkFleet([lambda: SerialWire.open(qemu.url)], task, net, first=104, seconds=20, on_event=tell) as serial,
            ):
                yield FleetGrid(MixedFleet([NativeFleet(task, net, 100), emulated, serial])), []

        def after(progress: Any) -> None:
            if progress.stage == "learning" and progress.done == 2:
                machines[2].powered = False
            if progress.stage == "learning" and progress.done == 3:
                # An open line keeps its name, which else may go to a board of another test: that would be asked instead.
                held.callback(os.close, os.open(qemu.url, os.O_RDWR | os.O_NOCTTY))
                qemu.kill()
            if progress.stage == "learning" and progress.done == 6:
                machines[2].power_cycle()

        run = tinyfl.simulate(
            task="sine", network="mlp-6", fleet=[{"native": 105}], cohort=105, rounds=9, tasks=2,
            out=tmp_path / "run", progress=after, over=mixed,
        )  # fmt: skip

    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    left_out = {(event["round"], event["device"]) for event in events if event["what"] == "left out"}
    assert left_out == {(round, 102) for round in range(2, 6)} | {(round, 104) for round in range(3, 9)}
    assert [(event["round"], event["device"]) for event in events if event["what"] == "back"] == [(6, 102)]
    assert all(event["detail"] for event in events)
    assert run.result["left_out"] == {"dead": 10}
    assert run.theta.tobytes() == expected_theta(events, config)


def test_too_few_updates_stop_the_run_which_then_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two posix boards behind ports; one is missing at first."""
    from tinyfl.fleets.emulation import emulate

    monkeypatch.setattr(rounds, "SHORT_ROUND_PAUSES", (0.0, 0.0))
    options: dict[str, Any] = {"task": "sine", "network": "mlp-6", "cohort": 2, "rounds": 4, "tasks": 2, "minimum": 2}
    with emulate("posix", 2, link="tcp") as boards:
        gone = [{"ports": [boards[0].url, "socket://127.0.0.1:1"]}]
        with pytest.raises(TrainingError, match=r"round 1 had 1 of the 2 required updates.* 3 times in a row .*'dead': 1"):
            tinyfl.simulate(fleet=gone, out=tmp_path / "run", **options)
        there = [{"ports": [board.url for board in boards]}]
        run = tinyfl.simulate(fleet=there, resume=tmp_path / "run")
    native = tinyfl.simulate(fleet=[{"native": 2}], out=tmp_path / "native", **options)
    assert run.result["theta_sha256"] == native.result["theta_sha256"]


def test_boards_are_found_by_their_ids_whatever_their_ports(tmp_path: Path) -> None:
    from tinyfl.fleets.emulation import emulate

    options: dict[str, Any] = {"task": "digits", "network": "mlp-6", "samples": 5}
    with emulate("posix", 2, link="tcp") as boards:
        ports = [boards[1].url, "socket://127.0.0.1:1", boards[0].url]
        fleet = [{"ports": ports, "ids": [board.id for board in boards]}]
        assert theta_after(fleet, **options) == theta_after([{"native": 2}], **options)


def test_events_of_many_threads_are_whole_lines(tmp_path: Path) -> None:
    from tinyfl.runs.directory import RunDirectory

    directory = RunDirectory(tmp_path)
    threads = [
        threading.Thread(target=lambda i=i: [directory.log_event(Event(i, n, "ab", "left out", "x" * 300)) for n in range(50)])
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert {(line["round"], line["device"]) for line in lines} == {(i, n) for i in range(8) for n in range(50)}


def test_boards_that_take_turns_because_nobody_gave_a_cohort_are_named(tmp_path: Path) -> None:
    ports, file = {"task": "sine", "fleet": [{"ports": ["a", "b"]}]}, tmp_path / "fleet.toml"
    file.write_text("cohort = 1\n")
    (note,) = turns(resolve(ports), ports, None)
    assert note.endswith("--cohort 2")
    for options, said in (({**ports, "cohort": 1}, None), (ports, file), ({"task": "sine", "devices": 2}, None)):
        assert turns(resolve(options, said), options, said) == []
