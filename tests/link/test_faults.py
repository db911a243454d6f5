"""Every fault at every frame of a round: the update is exactly right, or the device is left out with its reason; never a hang,
never wrong weights. Machines say when nothing will come, so no clock takes part."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinyfl.algorithms import Inner
from tinyfl.errors import ConfigError
from tinyfl.fleets.linked import LinkFleet
from tinyfl.link.wire import MachineWire
from tinyfl.networks import network
from tinyfl.simulators.faults import DIRECTIONS, KINDS, Fault, faulty
from tinyfl.simulators.faults.scenario import load_scenario
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks.sine import Sine

TASK = Sine(3)
NETWORK = network("mlp-9-9", (1,), 1, TASK.loss, TASK.activation)  # 118 weights: two blocks of 512 bytes
THETA = NETWORK.initial_weights(3)
ALONE = np.zeros(1, np.uint32)
INNER = Inner(samples=9, rate=0.02)
NATIVE = [NativeFleet(TASK, NETWORK, 1).run_each(ALONE, round, THETA, INNER) for round in range(3)]
REASONS = {"dead", "corrupt", "stale", "refused"}


class Fed:
    """The sine task with its samples in a table, so that they are fed."""

    name, inputs, outputs, loss, activation = "fed", 1, 1, TASK.loss, TASK.activation

    def stream(self, devices: Any, round: int, samples: int) -> Any:
        from tinyfl import core

        x, y = core.samples(TASK.stream(devices, round, samples), NETWORK.plan, devices, round, samples)
        rows = np.arange(x.size, dtype=np.int32).reshape(len(devices), samples)
        return core.TableSource(x.reshape(-1, 1), rows, targets=y.reshape(-1, 1))


TASKS = {"own samples": TASK, "fed samples": Fed()}


class Counted:
    """A machine that counts the frames of each direction."""

    def __init__(self, machine: Any) -> None:
        self.machine, self.frames = machine, dict.fromkeys(DIRECTIONS, 0)

    def exchange(self, data: bytes) -> bytes:
        answer: bytes = self.machine.exchange(data)
        for direction, sent in zip(DIRECTIONS, (data, answer), strict=True):
            self.frames[direction] += sum(map(bool, sent.split(b"\0")))
        return answer


class Locked:
    """A board that is reset between two exchanges, never in the middle of one."""

    def __init__(self, board: Any) -> None:
        self.board, self.lock = board, threading.Lock()

    def exchange(self, data: bytes) -> bytes:
        with self.lock:
            answer: bytes = self.board.exchange(data)
            return answer

    def reset(self) -> None:
        with self.lock:
            self.board.reset()


def play(board: Any, task: Any, faults: list[Fault], rounds: int) -> list[str]:
    """Plays ``rounds`` rounds, demands that each is right or left out, and returns the reasons."""
    reasons, locked = [], Locked(board)
    opener = faulty(MachineWire(locked).open, faults, locked.reset)
    with LinkFleet([opener], task, NETWORK) as fleet:
        for round in range(rounds):
            phis = fleet.run_each(ALONE, round, THETA, INNER)
            reasons += phis.reasons
            if not phis.reasons[0]:
                np.testing.assert_array_equal(phis.phi, NATIVE[round].phi)
                np.testing.assert_array_equal(phis.loss, NATIVE[round].loss)
            else:
                assert phis.reasons[0] in REASONS
                np.testing.assert_array_equal(phis.phi[0], THETA)
    return reasons


def frames(board: Any, task: Any) -> dict[str, int]:
    """Frames of each direction in a first round without faults."""
    counted = Counted(board)
    with LinkFleet([MachineWire(counted).open], task, NETWORK) as fleet:
        assert fleet.run_each(ALONE, 0, THETA, INNER).reasons == ("",)
    return counted.frames


def places(kind: str) -> list[int]:
    """Where to damage a frame: bits all over it, and lengths."""
    return {"flip": [*range(0, 4000, 397), 1, 7], "truncate": [0, 1, 9, 200]}.get(kind, [0])


def strike(board: Any, task: Any, fault: Fault) -> None:
    """Plays a round with ``fault`` in it and one after, and demands what that kind of fault may cost."""
    first, second = play(board, task, [fault], rounds=2)
    if fault.kind == "silence":
        assert (first, second) == ("dead", "dead"), fault
    else:
        assert second == "", fault
    if fault.kind not in ("silence", "reset"):
        assert first == "", fault


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_fault_at_every_frame_leaves_a_right_update_or_none(
    new_board: Callable[[], Any], task: Any, kind: Any, direction: Any
) -> None:
    for frame in range(frames(new_board(), task)[direction]):
        for at in places(kind):
            strike(new_board(), task, Fault(direction, frame, kind, at))


@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_at_every_frame_of_an_emulated_board(machine: Any, kind: Any) -> None:
    fresh = machine.snapshot()
    for direction, count in frames(machine, TASK).items():
        for frame in range(count):
            machine.restore(fresh)
            strike(machine, TASK, Fault(direction, frame, kind, at=9))  # type: ignore[arg-type]
    machine.restore(fresh)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(
        st.builds(Fault, st.sampled_from(DIRECTIONS), st.integers(0, 30), st.sampled_from(KINDS), st.integers(0, 4000)),
        max_size=12,
        unique_by=lambda fault: (fault.direction, fault.frame),
    ),
    task=st.sampled_from(list(TASKS.values())),
)
def test_many_faults_at_once_leave_right_updates_or_none(new_board: Callable[[], Any], faults: list[Fault], task: Any) -> None:
    play(new_board(), task, faults, rounds=3)


SCENARIO = """
[[fault]]
board = 1
direction = "to-board"
frame = 5
kind = "flip"
at = 17

[[fault]]
board = 1
direction = "to-host"
frame = 5
kind = "drop"
"""


def test_scenario_is_read(tmp_path: Path) -> None:
    path = tmp_path / "storm.toml"
    path.write_text(SCENARIO)
    scenario = load_scenario(path, boards=2)
    assert scenario.of(1) == (Fault("to-board", 5, "flip", 17), Fault("to-host", 5, "drop"))
    assert scenario.of(0) == ()


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("[[fault]]", "[[fault", "is not TOML"),
        ("[[fault]]", "[[faults]]", "is not a scenario"),
        ('kind = "flip"', 'kind = "melt"', "fault 1: kind is 'melt'"),
        ('kind = "flip"', "", "fault 1: kind is None"),
        ('direction = "to-board"', 'direction = "up"', "fault 1: direction is 'up'"),
        ("at = 17", "at = -1", "fault 1: at is -1"),
        ("at = 17", "bit = 1", "there is no 'bit'"),
        ('kind = "drop"', 'kind = "drop"\nat = 1', "fault 2: drop has no 'at'"),
        ("frame = 5", "frame = true", "fault 1: frame is True"),
        ("board = 1", "board = 2", "there is no board 2"),
        ('"to-host"', '"to-board"', "already has a fault at frame 5"),
    ],
)
def test_a_scenario_that_is_none_is_refused(tmp_path: Path, before: str, after: str, says: str) -> None:
    path = tmp_path / "storm.toml"
    path.write_text(SCENARIO.replace(before, after))
    with pytest.raises(ConfigError, match=says):
        load_scenario(path, boards=2)


def test_a_missing_scenario_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read"):
        load_scenario(tmp_path / "none.toml", boards=2)
