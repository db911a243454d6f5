"""Asynchronous rounds: FedBuff by hand, replays, resumed runs, and boards that arrive as they do."""

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event as Signal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyfl
from tinyfl import core
from tinyfl.algorithms.tinyreptile import TinyReptile
from tinyfl.config import resolve
from tinyfl.config.settings import MAX_BUFFER
from tinyfl.core import MAX_SUMMED, Stream
from tinyfl.errors import ConfigError, RunError, TinyflError
from tinyfl.fleet import draw_cohort
from tinyfl.flower import rounds
from tinyfl.flower.grid import FleetGrid
from tinyfl.flower.rounds import Progress
from tinyfl.flower.server_app import over_nodes
from tinyfl.flower.staleness import late_figures
from tinyfl.late import WHOLE, Arrival, Work, combined, weight
from tinyfl.late.course import MEMORY, NEXT, SLOW, Course, Drawn, draw_next, seconds_of
from tinyfl.networks import network
from tinyfl.runs.directory import RunDirectory
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks import load_task

RUN: dict[str, Any] = {
    "task": "sine", "network": "mlp-6", "devices": 12, "cohort": 7, "buffer": 3, "slow": "0.34:4.5", "rounds": 40, "samples": 6,
    "tasks": 4, "seed": 3, "adapt_lr": 0.01,
}  # fmt: skip
SINE = load_task("sine", None, 3)
NET = network("mlp-6", SINE.shape, SINE.outputs, SINE.loss, SINE.activation)
BOARDS = [{"board": "mps2-an386", "count": 12}]


@pytest.fixture(autouse=True)
def quick(no_page: None, figureless: None) -> None:
    """No run here is about its page."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run that was not interrupted."""
    return tinyfl.simulate(out=tmp_path_factory.mktemp("late") / "whole", page=False, **RUN)


def log_of(run: Path) -> list[dict[str, Any]]:
    """The rounds of a run, without what differs from run to run."""
    lines = map(json.loads, (run / "rounds.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in ("seconds", "nodes")} for line in lines]


def fedbuff() -> tuple[bytes, list[list[list[int]]]]:
    """FedBuff with RUN's settings, one device after another: theta, and each round's arrivals."""
    fleet, seed, size, places = NativeFleet(SINE, NET, 12), RUN["seed"], RUN["devices"], RUN["cohort"]
    algorithm = TinyReptile(**{name: getattr(resolve(RUN), name) for name in ("rounds", "samples", "rate", "outer_step")})
    by_word = sorted(range(size), key=lambda d: int(core.random(seed, Stream.cohort, np.full(1, SLOW), d, words=1)[0, 0]))
    slow = by_word[: round(0.34 * size)]
    theta, version, started, time = NET.initial_weights(seed), 0, 0, 0.0
    events: list[tuple[float, int, int, int, np.ndarray]] = []
    buffer: list[tuple[int, int, np.ndarray]] = []
    log: list[list[list[int]]] = []
    while version < RUN["rounds"]:
        while len(events) < places:
            busy = {event[2] for event in events} | {device for device, _, _ in buffer}
            free = [device for device in range(size) if device not in busy]
            if not free:
                break
            if started < places:
                device = int(draw_cohort(seed, 0, places, size)[started])
            else:
                word = int(core.random(seed, Stream.cohort, np.full(1, NEXT), started, words=1)[0, 0])
                device = free[word * len(free) >> 32]
            learnt = fleet.run(np.array([device], np.uint32), version, theta, algorithm.inner(version))
            heapq.heappush(events, (time + (4.5 if device in slow else 1.0), started, device, version, learnt.sum))
            started += 1
        time, _, device, since, change = heapq.heappop(events)
        buffer.append((device, since, change))
        if len(buffer) == RUN["buffer"]:
            weights = [round(256 / (1 + version - since) ** 0.5) for _, since, _ in buffer]
            total = [
                sum(w * int(change[i]) for w, (_, _, change) in zip(weights, buffer, strict=True)) for i in range(len(theta))
            ]
            mean = theta + np.array([(each + 128) // 256 for each in total], np.int64) * (2.0**-32 / len(buffer))
            theta = (theta + algorithm.alpha(version) * (mean - theta)).astype(np.float32)
            log.append([[device, since] for device, since, _ in buffer])
            buffer, version = [], version + 1
    return theta.tobytes(), log


def test_a_run_is_fedbuff_by_hand_bit_for_bit(whole: Any) -> None:
    theta, log = fedbuff()
    assert whole.theta.tobytes() == theta
    assert [line["arrivals"] for line in log_of(whole.path)] == log
    staleness = Counter(number - since for number, pairs in enumerate(log) for _, since in pairs)
    assert staleness[0] and max(staleness) > 5
    assert whole.result["device_rounds"] == RUN["rounds"] * RUN["buffer"]


def test_a_run_says_how_stale_its_updates_were(whole: Any) -> None:
    slow = set(np.flatnonzero(seconds_of(3, 12, 0.34, 4.5) != 1).tolist())
    pairs = [(line["round"] - 1 - since, device in slow) for line in log_of(whole.path) for device, since in line["arrivals"]]
    usual, late = whole.result["staleness"]
    last = json.loads((whole.path / "rounds.jsonl").read_text().splitlines()[-1])
    assert whole.result["virtual_time"] == last["time"] > 0
    assert [(row["kind"], row["devices"], row["left_out"]) for row in (usual, late)] == [
        ("usual", 8, 0),
        ("4.5 times as slow", 4, 0),
    ]
    for row, is_slow in ((usual, False), (late, True)):
        ages = Counter(str(age) for age, of_slow in pairs if of_slow == is_slow)
        assert row["staleness"] == ages
        assert row["arrivals"] == ages.total()
        assert row["weight"] == pytest.approx(sum(n / (1 + int(age)) ** 0.5 for age, n in ages.items()), rel=0.01)


def test_boards_and_simulated_devices_are_late_apart_and_what_is_left_out_has_no_staleness(tmp_path: Path) -> None:
    config = resolve({**RUN, "slow": "", "devices": 3, "cohort": 2, "buffer": 2})
    lines = [
        {"round": 1, "counts": True, "absent": {}, "arrivals": [[0, 0], [1, 0]], "time": 1.0},
        {"round": 2, "counts": False, "absent": {"dead": "0-2"}, "arrivals": [[0, 1], [1, 1]], "time": 2.0},
        {"round": 2, "counts": True, "absent": {"dead": "1"}, "arrivals": [[1, 1], [2, 0]], "time": 3.0},
    ]
    (tmp_path / "rounds.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = late_figures(RunDirectory(tmp_path), config, [{"device": 2, "board": "pico"}])
    assert found["virtual_time"] == 3
    simulated, pico = found["staleness"]
    assert simulated == {
        "kind": "simulated", "devices": 2, "arrivals": 3, "left_out": 1, "weight": 2.0, "staleness": {"0": 2}
    }  # fmt: skip
    assert pico == {
        "kind": "pico", "devices": 1, "arrivals": 1, "left_out": 0, "weight": 181 / 256, "staleness": {"1": 1}
    }  # fmt: skip


def test_a_replay_is_the_run(whole: Any, tmp_path: Path) -> None:
    again = tinyfl.simulate(replay=whole.path, out=tmp_path / "again")
    assert again.theta.tobytes() == whole.theta.tobytes()
    assert log_of(again.path) == log_of(whole.path)


def test_without_staleness_it_is_a_synchronous_run(whole: Any, tmp_path: Path) -> None:
    options = {**RUN, "cohort": 3, "buffer": 0, "slow": ""}
    synchronous = tinyfl.simulate(out=tmp_path / "synchronous", **options)
    lines = [
        {**line, "arrivals": [[int(device), number] for device in draw_cohort(3, number, 3, 12)]}
        for number, line in enumerate(log_of(whole.path))
    ]
    copied = tmp_path / "copied"
    copied.mkdir()
    for name in ("config.toml", "result.json"):
        (copied / name).write_bytes((whole.path / name).read_bytes())
    (copied / "rounds.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert tinyfl.simulate(replay=copied, out=tmp_path / "again").theta.tobytes() == synchronous.theta.tobytes()


@pytest.mark.parametrize("what", ["run", "replay"])
def test_a_run_killed_at_any_checkpoint_goes_on_to_the_same_theta(
    what: str, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "CHECKPOINT_SECONDS", 0.0)
    really, saved, last = RunDirectory.save, 0, 0

    def save(self: RunDirectory, name: str, data: bytes) -> None:
        nonlocal saved
        saved += name == "checkpoint/state.npz"
        if saved > last:
            raise MemoryError("killed")
        really(self, name, data)

    monkeypatch.setattr(RunDirectory, "save", save)
    options: dict[str, Any] = {"out": tmp_path / "run", **({"replay": whole.path} if what == "replay" else RUN)}
    for checkpoints in (0, 5, 1, 13):
        last = saved + checkpoints
        with pytest.raises(MemoryError, match="killed"):
            tinyfl.simulate(**options)
        options = {"resume": tmp_path / "run"}
    last = saved + 1000
    resumed = tinyfl.simulate(**options)
    assert resumed.theta.tobytes() == whole.theta.tobytes()
    assert log_of(resumed.path) == log_of(whole.path)
    assert RunDirectory(resumed.path).metrics() == RunDirectory(whole.path).metrics()


def test_an_interrupted_run_evaluated_on_the_way_goes_on_to_more_rounds(whole: Any, tmp_path: Path) -> None:
    options = {**RUN, "algorithm": "fedavg", "evaluate_every": 10, "up": "int8", "down": "int8", "outer_optimiser": "adam"}
    options["outer_step"] = 0.01
    longer = tinyfl.simulate(out=tmp_path / "longer", **options)

    def stop(progress: Progress) -> None:
        if progress.stage == "learning" and progress.done == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tinyfl.simulate(out=tmp_path / "run", progress=stop, **options)
    resumed = tinyfl.simulate(resume=tmp_path / "run")
    assert resumed.theta.tobytes() == longer.theta.tobytes() != whole.theta.tobytes()
    assert resumed.result["validation"] == longer.result["validation"]
    assert len(longer.result["validation"]) == 4


@given(st.integers(0, 1 << 40))
def test_a_weight_is_the_papers_and_falls(staleness: int) -> None:
    assert abs(weight(staleness) / WHOLE - (1 + staleness) ** -0.5) <= 0.5 / WHOLE
    assert weight(0) == WHOLE >= weight(staleness) >= weight(staleness + 1) >= 0


def test_the_largest_sums_are_exact() -> None:
    assert MAX_BUFFER == MAX_SUMMED // WHOLE
    theta = np.zeros(2, np.float32)
    most = np.array([1, -1], np.float32) * np.nextafter(np.float32(1024), np.float32(0))
    updates = combined(theta, 0, [Arrival(0, 0, theta, most, 1.0)] * MAX_BUFFER)
    assert updates.mean().tolist() == most.tolist()


@given(st.data())
def test_arrivals_in_any_order_make_the_same_step(data: st.DataObject) -> None:
    version, rng = data.draw(st.integers(0, 50)), np.random.default_rng(data.draw(st.integers(0, 99)))
    arrivals = [
        Arrival(
            device, data.draw(st.integers(0, version)), *rng.normal(size=(2, 4)).astype(np.float32), 1.0,
            data.draw(st.sampled_from(["", "", "late"])),
        )
        for device in range(data.draw(st.integers(1, 8)))
    ]  # fmt: skip
    theta = rng.normal(size=4).astype(np.float32)
    one, other = (combined(theta, version, each) for each in (arrivals, data.draw(st.permutations(arrivals))))
    assert (one.sum.tolist(), one.devices, one.absent) == (other.sum.tolist(), other.devices, other.absent)
    usable = [each for each in arrivals if not each.reason]
    plain = sum(((1 + version - a.version) ** -0.5 * (a.phi.astype(float) - a.theta) for a in usable), np.zeros(4))
    assert one.devices == len(usable)
    assert np.abs(one.sum * 2.0**-32 - plain).max() <= sum(np.abs(a.phi - a.theta).max() for a in usable) / WHOLE + 1e-9


@given(st.data())
def test_a_draw_is_of_those_that_are_free(data: st.DataObject) -> None:
    seed, number, devices = (data.draw(st.integers(low, high)) for low, high in ((0, 9), (0, 99), (1, 20)))
    taken = data.draw(st.sets(st.integers(0, devices - 1), max_size=devices - 1))
    word = int(core.random(seed, Stream.cohort, np.full(1, NEXT), number, words=1)[0, 0])
    free = sorted(set(range(devices)) - taken)
    assert draw_next(seed, number, devices, taken) == free[word * len(free) >> 32]


@settings(max_examples=50)
@given(st.integers(0, 99), st.integers(1, 9), st.integers(0, 5), st.integers(1, 9), st.floats(0, 1))
def test_places_stay_filled_and_no_device_counts_twice_in_a_round(
    seed: int, places: int, more: int, buffer: int, share: float
) -> None:
    devices, buffer = places + more, min(buffer, places)
    drawn = Drawn(seed, places, seconds_of(seed, devices, share, 3.0))
    course, theta, arrived, version = Course(), np.zeros(1, np.float32), list[int](), 0
    for _ in range(30):
        course.begin(drawn.next(course, version, arrived), theta)
        working = [each.device for each in course.at_work]
        assert len(working) == min(places, devices - len(arrived))
        assert len({*working, *arrived}) == len(working) + len(arrived)
        assert course.thetas.keys() == {each.version for each in course.at_work}
        first = min(course.at_work, key=lambda each: each.due)
        assert first.due >= course.time
        course.end(Arrival(first.device, first.version, theta, theta, 0.0, "", first.due))
        arrived.append(first.device)
        if len(arrived) == buffer:
            arrived, version = [], version + 1
            again = Course.of({**course.memory(), "momentum": theta}, theta, version, devices)
            assert again == course


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("work", np.array([[12, 0]])),
        ("work", np.array([[1, 9]])),
        ("work", np.array([[1, 0, 0]])),
        ("work", np.zeros((0, 2), np.int64)),
        ("due", np.array([np.nan])),
        ("due", np.array([1.0, 2.0])),
        ("starts", np.array(-1)),
        ("starts", np.array([1, 2])),
        ("theta.0", np.zeros(2, np.float32)),
        ("theta.0", np.full(1, np.inf, np.float32)),
        ("theta.1", np.zeros(1, np.float32)),
        ("theta.x", np.zeros(1, np.float32)),
    ],
)
def test_a_damaged_checkpoint_says_so(name: str, array: np.ndarray) -> None:
    theta = np.zeros(1, np.float32)
    memory = {**Course([Work(1, 0, 2.0)], {0: theta}, 1, 1.0).memory(), f"{MEMORY}{name}": array}
    with pytest.raises(RunError, match="damaged"):
        Course.of(memory, theta, 1, 12)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"buffer": 8}, "waits for more devices than the 7 at work"),
        ({"minimum": 4}, "no round could count"),
        ({"aggregator": "median", "nodes": "devices"}, "--aggregator compares updates from the same theta"),
        ({"noise": 1.0, "update_clip": 1.0, "nodes": "devices"}, "--noise is known"),
        ({"update_clip": 1.0, "nodes": "devices"}, "--update-clip is for"),
        ({"down": "int8", "delta": True}, "--delta counts on devices"),
        ({"up": "int4", "feedback": True}, "--feedback keeps something"),
        ({"sampling": "dpp", "embedding": "tags"}, "chooses whole cohorts"),
        ({"nodes": "2"}, "gateways send sums"),
        ({"buffer": 0}, "Give --buffer N too"),
        ({"slow": "a third"}, "such as --slow 0.33:10"),
        ({"slow": "2:10"}, "such as --slow 0.33:10"),
        ({"slow": "0.5:0"}, "such as --slow 0.33:10"),
        ({"slow": "0.5:1:2"}, "such as --slow 0.33:10"),
        ({"fleet": BOARDS}, "boards take as long as they take"),
        ({"algorithm": "tinymetafed", "local_start": "kept"}, "--local-start reconstructed"),
        ({"fleet": BOARDS, "slow": "", "algorithm": "maml"}, "simulated devices only"),
    ],
)
def test_what_does_not_go_with_late_devices_is_refused(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        tinyfl.simulate(out=tmp_path / "run", **{**RUN, **options})


def test_what_is_no_replay_is_refused(whole: Any, tmp_path: Path) -> None:
    synchronous = tinyfl.simulate(out=tmp_path / "run", **{**RUN, "buffer": 0, "slow": "", "rounds": 1})

    def refused(says: str, kind: type[TinyflError] = ConfigError, **options: Any) -> None:
        with pytest.raises(kind, match=says):
            tinyfl.simulate(**{"out": tmp_path / "replay", "replay": whole.path, **options})

    refused("its config repeats it", replay=synchronous.path)
    refused("Leave --seed out", seed=4)
    with pytest.raises(ConfigError, match="leave --replay out"):
        tinyfl.simulate(resume=whole.path, replay=whole.path)
    refused("leave the config out", config=whole.path / "config.toml")
    refused("holds no run", RunError, replay=tmp_path)
    (synchronous.path / "result.json").unlink()
    for name in ("config.toml", "rounds.jsonl"):
        (synchronous.path / name).write_bytes((whole.path / name).read_bytes())
    refused("has not finished", RunError, replay=synchronous.path)
    (synchronous.path / "result.json").write_bytes((whole.path / "result.json").read_bytes())
    log = (whole.path / "rounds.jsonl").read_text().splitlines()
    for damaged in (log[1:], [log[0], log[0]], [log[0].replace("arrivals", "departures")], [log[0].replace(", 0]", ", 1]")]):
        (synchronous.path / "rounds.jsonl").write_text("".join(f"{line}\n" for line in damaged))
        refused("is damaged", RunError, replay=synchronous.path, out=tmp_path / f"{hash(str(damaged))}")
    (synchronous.path / "rounds.jsonl").write_text(f"{log[0]}\n")
    refused("has no more arrivals", RunError, replay=synchronous.path, out=tmp_path / "short")


class Boards(NativeFleet):
    """Devices in real time, some of which a test holds back or lets fail."""

    hold: Callable[[int, int], None]
    fails: Callable[[int], str]

    def run_each(self, cohort: Any, round: int, *arguments: Any) -> Any:
        phis = super().run_each(cohort, round, *arguments)
        self.hold(int(cohort[0]), round)
        return type(phis)(phis.phi, phis.loss, tuple(self.fails(int(device)) for device in cohort))


def on(hold: Callable[[int, int], None], fails: Callable[[int], str] = lambda device: "") -> Any:
    @contextmanager
    def over(config: Any, work: Any, on_event: Any) -> Iterator[Any]:
        fleet = Boards(work.task, work.network, config.devices, work.engine)
        fleet.hold, fleet.fails = hold, fails
        yield FleetGrid(fleet), []

    return over


LIVE = {**RUN, "slow": "", "fleet": BOARDS}


def test_a_slow_device_holds_nobody_up_and_its_update_counts_when_it_arrives(tmp_path: Path) -> None:
    slow, passed = int(draw_cohort(3, 0, 7, 12)[2]), Signal()

    def progress(progress: Progress) -> None:
        if progress.stage == "learning" and progress.done == 20:
            passed.set()

    def hold(device: int, round: int) -> None:
        if device == slow and round == 0:
            passed.wait()

    notes: list[str] = []
    run = tinyfl.simulate(out=tmp_path / "run", over=on(hold), progress=progress, on_note=notes.append, **LIVE)
    assert any("one seed has many thetas" in note for note in notes)
    arrived = [line["round"] for line in log_of(run.path) if [slow, 0] in line["arrivals"]]
    assert arrived and arrived[0] > 20
    assert {line["time"] for line in log_of(run.path)} == {None}
    again = tinyfl.simulate(replay=run.path, out=tmp_path / "again")
    assert again.theta.tobytes() == run.theta.tobytes()
    assert log_of(again.path) == log_of(run.path)


def test_devices_that_fail_fill_a_place_and_a_replay_leaves_them_out_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "SHORT_ROUND_PAUSES", (0.0,) * 60)
    fails = on(lambda device, round: None, lambda device: "dead" if device < 6 else "")
    run = tinyfl.simulate(out=tmp_path / "run", over=fails, **{**LIVE, "rounds": 20})
    counted = [line for line in log_of(run.path) if line["counts"]]
    assert run.result["left_out"]["dead"] == sum(3 - line["updates"] for line in counted) > 0
    again = tinyfl.simulate(replay=run.path, out=tmp_path / "again")
    assert again.theta.tobytes() == run.theta.tobytes()
    assert log_of(again.path) == counted


def test_a_fleet_that_answers_nothing_ends_the_run_with_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "SHORT_ROUND_PAUSES", (0.0,))
    dead = on(lambda device, round: None, lambda device: "dead")
    with pytest.raises(TinyflError, match="had 0 of the 1 required updates, 2 times in a row"):
        tinyfl.simulate(out=tmp_path / "run", over=dead, **LIVE)


def test_a_defect_in_a_device_ends_the_run(tmp_path: Path) -> None:
    def hold(device: int, round: int) -> None:
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError, match="a defect"):
        tinyfl.simulate(out=tmp_path / "run", over=on(hold), **LIVE)


@pytest.mark.usefixtures("built_before")
def test_emulated_boards_and_simulated_devices_arrive_in_real_time_and_a_replay_has_their_theta(tmp_path: Path) -> None:
    fleet = [{"board": "mps2-an386", "count": 3}, {"native": 2}]
    options = {**RUN, "slow": "", "devices": 5, "fleet": fleet, "cohort": 4, "buffer": 3, "rounds": 10, "down": "int8"}
    run = tinyfl.simulate(out=tmp_path / "run", **options)
    # Who waits in the buffer does not work: of three arrivals at least one is a board's, however slow boards are.
    assert all({device for device, _ in line["arrivals"]} & {0, 1, 2} for line in log_of(run.path))
    assert {device for line in log_of(run.path) for device, _ in line["arrivals"]} & {3, 4}
    assert not run.result["left_out"]
    again = tinyfl.simulate(replay=run.path, out=tmp_path / "again")
    assert again.theta.tobytes() == run.theta.tobytes()


def test_a_federation_is_refused_before_it_is_asked_for_anything() -> None:
    with pytest.raises(ConfigError, match="without --federation"), over_nodes(None, resolve(RUN), None, print):  # type: ignore[arg-type]
        pass
