"""Rounds of simulated devices run in stretches, to the very same run as round by round."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import tinyfl
from tinyfl import core
from tinyfl.algorithms import Algorithm, Inner, Phase, State, TowardsMean, Updates, alpha_of, with_layers
from tinyfl.algorithms.fedavg import FedAvg
from tinyfl.algorithms.joint import Joint
from tinyfl.algorithms.reptile import Reptile
from tinyfl.algorithms.tinyreptile import TinyReptile
from tinyfl.codecs import Codec, Kind
from tinyfl.codecs.down import Down
from tinyfl.core import F64, Engine, Stream
from tinyfl.errors import Corrupt, TrainingError
from tinyfl.fleet import MixedFleet, Stretch, draw_cohort, draw_cohorts, mean_loss, mean_losses, spans, spans_of_rows
from tinyfl.flower.grid import FleetGrid
from tinyfl.flower.messages import read_stretch, stretch_record, theta_record
from tinyfl.flower.rounds import Progress
from tinyfl.flower.strategy import FleetStrategy
from tinyfl.networks import network
from tinyfl.runs.directory import RunDirectory
from tinyfl.simulators.native import MAX_AT_ONCE, NativeFleet
from tinyfl.tasks import StretchTask, Task, load_task

SMALL: dict[str, Any] = {"task": "sine", "network": "mlp-8", "devices": 50, "cohort": 1, "tasks": 4, "adapt_lr": 0.01}


@pytest.fixture(scope="module")
def own_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes of 30 devices, with 3 to 20 samples each."""
    rng = np.random.default_rng(0)
    device = np.repeat(np.arange(30), rng.integers(3, 21, 30))
    file = tmp_path_factory.mktemp("data") / "own.npz"
    np.savez(file, x=rng.normal(size=(len(device), 3)).astype(np.float32), y=rng.integers(0, 2, len(device)), device=device)
    return file


@pytest.fixture
def task_of(own_file: Path) -> Callable[[str], Task]:
    return lambda name: load_task(name, own_file if name == "npz" else None, 3)


@dataclass(frozen=True)
class Falling(TowardsMean):
    """A rate that falls every 7 rounds, and an alpha that passes 0."""

    rate: float = 0.05

    def inner(self, round: int) -> Inner:
        return Inner(Phase(5, self.rate / (1 + round // 7), batch=2, passes=2), Phase(3, self.rate, clip=1.0), local=1)

    def alpha(self, round: int) -> float:
        return 1.1 - round / 30


@dataclass(frozen=True)
class Otherwise(TinyReptile):
    def outer(self, state: State, updates: Updates) -> State:
        return super().outer(state, updates)


ALGORITHMS = (TinyReptile(rounds=40, samples=6, rate=0.02), Reptile(40, 8, 3, 0.05, 0.7), FedAvg(9, 2, 0.1, 0.6), Joint(4, 0.1))


def by_hand(
    algorithm: Algorithm, fleet: NativeFleet, theta: np.ndarray, rounds: int, cohort: int
) -> tuple[np.ndarray, list[float]]:
    """Theta and losses, from the public parts of a round."""
    state, losses = State(0, theta), []
    for round in range(rounds):
        updates = fleet.run(draw_cohort(3, round, cohort, fleet.size), round, state.theta, algorithm.inner(round))
        state = algorithm.outer(state, updates)
        losses.append(updates.loss)
    return state.theta, losses


@pytest.mark.parametrize("cohort", [1, 2, 13, 20, 83])
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize(("name", "net"), [("sine", "mlp-7-5-tanh"), ("digits", "conv-3"), ("npz", "mlp-6")])
def test_a_stretch_is_its_rounds_one_by_one(
    task_of: Callable[[str], Task], name: str, net: str, algorithm: Algorithm, cohort: int
) -> None:
    task, size = task_of(name), 20 if cohort <= 20 else 83
    if task.fleet_size and cohort > task.fleet_size:
        pytest.skip("the file has fewer devices")
    shape = network(net, task.shape, task.outputs, task.loss, task.activation)
    fleet, theta, alpha = NativeFleet(task, shape, size, Engine(threads=3)), shape.initial_weights(1), alpha_of(algorithm)
    assert alpha is not None
    expected, losses = by_hand(algorithm, fleet, theta, 40, cohort)
    alphas = np.array([alpha(round) for round in range(40)])
    before = theta.copy()
    ours = fleet.run_stretch(draw_cohorts(3, range(40), cohort, size), 0, theta, algorithm.inner(0), alphas)
    assert ours.theta.tobytes() == expected.tobytes() != theta.tobytes() == before.tobytes()
    assert (ours.loss.tolist(), ours.absent) == (losses, {})


@settings(max_examples=60)
@given(
    widths=st.lists(st.integers(1, 9), max_size=2),
    activation=st.sampled_from(["relu", "tanh", "sigmoid"]),
    rate=st.floats(0, 1.5),
    alphas=st.lists(st.floats(-3, 1e5), min_size=1, max_size=12),
    cohort=st.integers(1, 40),
    threads=st.integers(1, 3),
    seed=st.integers(0, 1 << 32),
    first=st.integers(0, 1 << 31),
)
def test_a_stretch_leaves_out_the_updates_that_its_rounds_would(
    widths: list[int], activation: str, rate: float, alphas: list[float], cohort: int, threads: int, seed: int, first: int
) -> None:
    task = load_task("sine", None, seed)
    net = network("-".join(["mlp", *map(str, widths), *([activation] if widths else [])]), (1,), 1, task.loss, task.activation)
    fleet, state = NativeFleet(task, net, 1 << 20, Engine(threads)), State(first, net.initial_weights(seed))
    inner = Inner(samples=4, rate=rate)
    cohorts = draw_cohorts(seed, range(first, first + len(alphas)), cohort, fleet.size)
    ours = fleet.run_stretch(cohorts, first, state.theta, inner, np.array(alphas))
    absent = {}
    for number, (devices, alpha) in enumerate(zip(cohorts, alphas, strict=True)):
        updates = fleet.run(devices, state.round, state.theta, inner)
        if updates.absent:
            absent[number] = updates.absent
        assert np.array_equal(ours.loss[number], updates.loss, equal_nan=True)
        with np.errstate(over="ignore", invalid="ignore"):
            state = state.step(alpha * (updates.mean() - state.theta))
    assert ours.absent == absent
    assert ours.theta.tobytes() == state.theta.tobytes()


@given(
    seed=st.integers(0, (1 << 63) - 1),
    first=st.integers(0, (1 << 31) - 20),
    size=st.one_of(st.integers(1, 60), st.integers(1, 1 << 31)),
    cohort=st.integers(1, 50),
)
def test_the_cohorts_of_many_rounds_are_the_first_distinct_words(seed: int, first: int, size: int, cohort: int) -> None:
    rounds, cohort = range(first, first + 7), min(cohort, size)
    cohorts = draw_cohorts(seed, rounds, cohort, size)
    for round, drawn in zip(rounds, cohorts, strict=True):
        assert drawn.tolist() == draw_cohort(seed, round, cohort, size).tolist()
        if cohort == size:
            continue
        words = core.random(seed, Stream.cohort, np.zeros(1, np.uint32), round, words=4000)[0].tolist()
        assert drawn.tolist() == sorted(list(dict.fromkeys(word * size >> 32 for word in words))[:cohort])


@given(st.lists(st.sets(st.integers(0, (1 << 32) - 1), min_size=4, max_size=4), min_size=1, max_size=9))
def test_the_spans_of_many_rows_are_those_of_each(rows: list[set[int]]) -> None:
    sorted_rows = [sorted(row) for row in rows]
    assert spans_of_rows(np.array(sorted_rows, np.int64)) == [spans(row) for row in sorted_rows]


@given(arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 40)), elements=st.floats(width=32)))
def test_the_mean_losses_of_rows_are_those_of_each(losses: np.ndarray) -> None:
    assert np.array_equal(mean_losses(losses), [mean_loss(row) for row in losses], equal_nan=True)


@pytest.mark.parametrize("name", ["sine", "digits", "npz"])
def test_the_samples_of_many_rounds_are_those_of_each(
    task_of: Callable[[str], Task], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(name)
    assert isinstance(task, StretchTask)
    monkeypatch.setattr("tinyfl.tasks.npz.MAX_WORDS", 50)
    plan = network("mlp-2", task.shape, task.outputs, task.loss, task.activation).plan
    devices, rounds = np.array([4, 0, 4, 9, 9], np.uint32), np.array([0, 7, 7, 1, 3], np.uint32)
    source = task.streams(devices, rounds, 6)
    for row, (device, round) in enumerate(zip(devices, rounds.tolist(), strict=True)):
        expected = core.samples(task.stream(np.array([device]), round, 6), plan, np.array([device]), round, 6)
        ours = core.samples(source, plan, devices, round, 6)
        assert [each[row].tobytes() for each in ours] == [each.tobytes() for each in expected]


def read(run: Path) -> tuple[Any, ...]:
    """What a run leaves, but seconds."""
    rounds = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    lines = [json.dumps({**record, "seconds": 0}) for record in rounds]
    result = json.loads((run / "result.json").read_text())
    return result["theta_sha256"], result["left_out"], (run / "metrics.jsonl").read_bytes(), lines


RUNS: list[dict[str, Any]] = [
    {"rounds": 700},
    {"rounds": 130, "algorithm": "reptile"},
    {"rounds": 1003, "algorithm": "fedavg", "outer_step": 0.2},  # every second round is in metrics.jsonl
    {"rounds": 257, "algorithm": "joint", "devices": 1},
    {"rounds": 40, "algorithm": Falling()},
    {"rounds": 400, "network": "mlp-16-relu", "rate": 0.1},  # of a few devices the loop diverges
    {"rounds": 60, "task": "digits", "network": "mlp-4"},
    {"rounds": 300, "cohort": 3, "algorithm": "reptile"},
    {"rounds": 45, "cohort": 50, "algorithm": "fedavg"},
    {"rounds": 44, "cohort": 20, "network": "mlp-16-relu", "rate": 0.1},
    {"rounds": 301, "cohort": 3, "down": "int4", "up": "int8"},
    {"rounds": 302, "down": "fp16", "algorithm": "reptile"},
    {"rounds": 61, "task": "digits", "network": "mlp-4", "down": "int8", "cohort": 20},
]


@pytest.mark.slow
@pytest.mark.parametrize("options", RUNS, ids=lambda each: str(each["rounds"]))
def test_a_run_in_stretches_leaves_the_files_of_one_round_by_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stretches: list[int], options: dict[str, Any]
) -> None:
    ours = tinyfl.simulate(out=tmp_path / "ours", **{**SMALL, **options})
    assert max(stretches) == (7 if isinstance(options.get("algorithm"), Falling) else min(256, options["rounds"]))
    monkeypatch.setattr(NativeFleet, "stretch", lambda self, inner, cohort: 1)
    stretches.clear()
    plain = tinyfl.simulate(out=tmp_path / "plain", **{**SMALL, **options})
    assert not stretches
    assert read(tmp_path / "ours") == read(tmp_path / "plain")
    assert bool(ours.result["left_out"]) == (options.get("rate") == 0.1)
    assert ours.theta.tobytes() == plain.theta.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [1, 255, 256, 301])
def test_a_run_stopped_round_by_round_at_any_round_goes_on_in_stretches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: int
) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.stage == "learning" and progress.done > stopped:
            raise KeyboardInterrupt

    whole = tinyfl.simulate(out=tmp_path / "whole", rounds=400, **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(NativeFleet, "stretch", lambda self, inner, cohort: 1)
        with pytest.raises(KeyboardInterrupt):
            tinyfl.simulate(out=tmp_path / "run", rounds=400, progress=interrupt, **SMALL)
    held = RunDirectory(tmp_path / "run").checkpoint()
    assert held and held.state.round == stopped
    resumed = tinyfl.simulate(resume=tmp_path / "run")
    assert resumed.theta.tobytes() == whole.theta.tobytes()
    assert read(tmp_path / "run") == read(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.usefixtures("figureless")
def test_kill_9_in_any_stretch_and_resume_leaves_the_files_of_a_whole_run(tmp_path: Path) -> None:
    options = {**SMALL, "network": "mlp-64-64-tanh", "rounds": 4000}
    whole, out = tinyfl.simulate(out=tmp_path / "whole", **options), tmp_path / "killed"
    words = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    words += ["--out", str(out)]
    environment = {**os.environ, "TINYFL_CHECKPOINT_SECONDS": "0"}

    def saved() -> int:
        held = RunDirectory(out).checkpoint()
        return held.state.round if held else 0

    caught = {0}
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-m", "tinyfl.cli", "simulate", *words], env=environment)
        while process.poll() is None and saved() in caught:
            time.sleep(0.001)
        process.kill()
        process.wait()
        caught.add(saved())
        words = ["--resume", str(out)]
    assert len(caught) == 4 and all(round % 256 == 0 for round in caught)
    assert tinyfl.simulate(resume=out).theta.tobytes() == whole.theta.tobytes()
    assert read(out) == read(tmp_path / "whole")


def test_only_an_outer_step_that_is_exactly_towards_the_mean_runs_in_stretches() -> None:
    class Own:
        def inner(self, round: int) -> Inner:
            return Inner(samples=4, rate=0.1)

        def alpha(self, round: int) -> float:
            return 0.5

        def outer(self, state: State, updates: Updates) -> State:
            return state.step(0 * state.theta.astype(np.float64))

    for algorithm in ALGORITHMS:
        assert alpha_of(algorithm) == alpha_of(with_layers(algorithm, [])) == algorithm.alpha  # type: ignore[attr-defined]
    assert alpha_of(Own()) is alpha_of(with_layers(Own(), [])) is alpha_of(Otherwise(rounds=9)) is None


def test_only_the_one_node_of_a_simulated_fleet_is_asked_for_a_stretch() -> None:
    class Rounds:
        """A task without ``streams``."""

        def __init__(self, task: Task) -> None:
            self.stream = task.stream

    task, inner = load_task("sine", None, 3), Inner(samples=6, rate=0.1)
    net = network("mlp-4", (1,), 1, task.loss, task.activation)
    fleet = NativeFleet(task, net, 20)
    assert FleetGrid(fleet, 1).stretch(inner, 1) == 256
    assert FleetGrid(fleet, 2).stretch(inner, 1) == FleetGrid(fleet, None).stretch(inner, 1) == 1
    assert FleetGrid(MixedFleet([fleet])).stretch(inner, 1) == 1
    assert FleetGrid(NativeFleet(Rounds(task), net, 20)).stretch(inner, 1) == 1  # type: ignore[arg-type]
    assert fleet.stretch(Inner(samples=6, rate=0.1, local=1, kept=True), 1) == 1
    assert fleet.stretch(Inner(samples=1 << 20, rate=0.1), 1) == 85  # 2^31 // (3 x 8 x 2^20)
    assert fleet.stretch(Inner(samples=1 << 20, rate=0.1), 10) == 8
    assert fleet.stretch(Inner(samples=1 << 30, rate=0.1), 1) == 1
    assert fleet.stretch(inner, MAX_AT_ONCE // 3) == 3
    assert fleet.stretch(inner, MAX_AT_ONCE + 1) == 1


@pytest.mark.parametrize("change", [{"minimum": 1}, {"until": 0}, {"algorithm": Otherwise(rounds=9)}])
def test_any_other_run_has_a_message_for_each_round(change: dict[str, Any]) -> None:
    task = load_task("sine", None, 3)
    net = network("mlp-4", (1,), 1, task.loss, task.activation)
    grid, theta = FleetGrid(NativeFleet(task, net, 20), 1), net.initial_weights(0)
    options = {"algorithm": TinyReptile(rounds=9), "cohort": 1, "until": 9, **change}
    done: list[int] = []
    strategy = FleetStrategy(
        state=State(0, theta), fleet_size=20, seed=3, **options,
        on_round=lambda state, updates: done.append(state.round), on_short=pytest.fail,
        on_stretch=pytest.fail,
    )  # fmt: skip
    assert strategy.messages(grid) == options["until"]
    assert FleetStrategy(TinyReptile(rounds=9), State(0, theta), cohort=1, fleet_size=20, seed=3, until=9).messages(grid) == 1
    strategy.start(grid, theta_record(theta), num_rounds=3)
    assert done == [1, 2, 3]


def test_a_reply_that_is_no_stretch_is_corrupt() -> None:
    theta, losses, cohorts = np.zeros(5, np.float32), np.array([0.1, np.nan, 2]), np.array([[1, 2], [3, 5], [7, 9]], np.uint32)
    sent = Stretch(theta + 1, losses, {0: {2: "numeric"}, 1: {3: "numeric", 5: "oversized"}})
    read = read_stretch(theta, stretch_record(sent), cohorts)
    assert (read.theta.tolist(), read.loss.tobytes(), read.absent) == ([1.0] * 5, losses.tobytes(), sent.absent)
    sums = RecordDict({"arrays": ArrayRecord({"sum": Array(theta)})})
    wrong = (
        replace(sent, theta=theta[1:]),
        replace(sent, loss=losses[None]),
        replace(sent, absent={3: {7: "numeric"}}),
        replace(sent, absent={2: {7: "numeric", 8: "numeric"}}),
    )
    for reply, rounds in [
        (stretch_record(sent), 2),
        (sums, 3),
        (RecordDict(), 3),
        *((stretch_record(w), 3) for w in wrong),
    ]:
        with pytest.raises(Corrupt):
            read_stretch(theta, reply, cohorts[:rounds])


def test_a_stretch_refuses_what_a_round_refuses() -> None:
    task = load_task("sine", None, 3)
    net = network("mlp-4", (1,), 1, task.loss, task.activation)
    theta, devices, alphas = net.initial_weights(0), np.arange(4, dtype=np.uint32), np.ones(4)
    devices = devices[:, None]
    source, inner = task.stream(devices[:, 0], 0, 5), Inner(samples=5, rate=0.1)
    keeps = Inner(samples=5, rate=0.1, local=1, kept=True)
    for arguments in (
        (theta[1:], source, devices, 0, inner.to_bytes(), alphas),
        (theta, source, devices, 0, inner.to_bytes(), alphas[1:]),
        (theta, source, devices, 0, inner.to_bytes(), alphas.astype(np.float32)),
        (theta, source, devices, (1 << 32) - 3, inner.to_bytes(), alphas),
        (theta, source, devices, 0, keeps.to_bytes(), alphas),
        (theta, source, devices, 0, inner.to_bytes(), alphas, Kind.top),
        (theta, source, devices, 0, inner.to_bytes(), alphas, len(Kind)),
    ):
        with pytest.raises(ValueError):
            core.train_rounds(net.plan, *arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("alphas", [np.array([1e30, 1.0]), np.array([0.0, 0.0])])
def test_a_theta_that_no_codec_takes_has_diverged_as_round_by_round(alphas: F64) -> None:
    task = load_task("sine", None, 3)
    net = network("mlp-4", (1,), 1, task.loss, task.activation)
    theta, codec = net.initial_weights(0), Codec.named("int8")
    theta[2] = 2.0**50 if not alphas.any() else theta[2]
    fleet, cohorts = NativeFleet(task, net, 4), np.array([[0], [1]], np.uint32)
    with pytest.raises(TrainingError, match="theta has diverged") as ours:
        fleet.run_stretch(cohorts, 0, theta, Inner(samples=5, rate=0.1), alphas, codec)
    with pytest.raises(TrainingError, match="theta has diverged") as expected:
        Down(codec, arrays=net.arrays()).sent(np.full_like(theta, np.inf), None)
    assert str(ours.value) == str(expected.value)
