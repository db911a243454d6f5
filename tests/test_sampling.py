"""Which devices take part in a round: the choices against brute force, and runs that agree on them."""

import json
from collections import Counter
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import chi2

import tinyfl
from tinyfl import core
from tinyfl.algorithms import State
from tinyfl.algorithms.tinyreptile import TinyReptile
from tinyfl.config import resolve
from tinyfl.core import UNIT, Stream
from tinyfl.errors import ConfigError, RunError
from tinyfl.fleet import draw_cohorts
from tinyfl.flower.grid import FleetGrid
from tinyfl.flower.messages import instructions, read_instructions, theta_record
from tinyfl.flower.node import cohorts_of
from tinyfl.flower.rounds import Progress
from tinyfl.flower.strategy import FleetStrategy
from tinyfl.networks import network
from tinyfl.sampling import CHOICES, MEMORY, ByTask, Uniform, sampler
from tinyfl.sampling.choices import NOISE, dpp, farthest, similar
from tinyfl.sampling.embeddings import DIMENSIONS, class_means, embedded, sketched
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks import load_task

SINE: dict[str, Any] = {"task": "sine", "network": "mlp-8", "devices": 50, "cohort": 3, "tasks": 4, "samples": 6, "seed": 2}
NONE = np.empty((0, 0), np.uint32)


def words(rounds: int, number: int) -> np.ndarray:
    return core.random(7, Stream.query, np.zeros(rounds, np.uint32), np.arange(rounds, dtype=np.uint32), words=number)


def kernel(points: np.ndarray) -> np.ndarray:
    """The similarities of points (candidates, dimensions), in plain loops."""
    known = [not np.isnan(point).any() for point in points]
    pairs = [(i, j) for i, j in combinations(range(len(points)), 2) if known[i] and known[j]]
    distance = {(i, j): float(((points[i] - points[j]) ** 2).sum()) for i, j in pairs}
    width = np.mean(list(distance.values())) if pairs else 1.0
    similarity = (1 + NOISE) * np.eye(len(points))
    for i, j in pairs:
        similarity[i, j] = similarity[j, i] = np.exp(-distance[i, j] / (width or 1))
    return similarity


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("case", ["any", "equal", "unknown"])
def test_a_dpp_takes_each_set_with_the_probability_of_its_determinant(size: int, case: str) -> None:
    points = np.random.default_rng(size).normal(size=(6, 2))
    if case == "equal":
        points[[1, 4]] = points[2]
    if case == "unknown":
        points[[0, 3]] = np.nan
    rounds, similarity = 20_000, kernel(points)
    sets = list(combinations(range(6), size))
    weight = np.array([np.linalg.det(similarity[np.ix_(each, each)]) for each in sets])
    chosen = dpp(np.repeat(points.T[:, None], rounds, axis=1), size, words(rounds, 12))
    counted = Counter(tuple(row) for row in np.sort(chosen, axis=1).tolist())
    assert len(sets) == comb(6, size) and set(counted) <= set(sets)
    found, expected = np.array([counted[each] for each in sets]), rounds * weight / weight.sum()
    assert ((found - expected) ** 2 / expected).sum() < chi2.ppf(0.9999, max(len(sets) - 1, 1))


POINTS = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(4, 9)),
    elements=st.one_of(st.integers(-3, 3).map(float), st.just(np.nan)),
)  # fmt: skip


def distances(points: np.ndarray) -> np.ndarray:
    """Between the points (dimensions, candidates) of a round; infinite where one is not known."""
    squared = ((points[:, :, None] - points[:, None, :]) ** 2).sum(axis=0)
    return np.where(np.isnan(squared), np.inf, squared)


@given(POINTS, st.integers(1, 4))
def test_farthest_first_takes_the_one_whose_nearest_chosen_one_is_farthest(points: np.ndarray, size: int) -> None:
    for round, chosen in enumerate(farthest(points, size, NONE).tolist()):
        between, by_hand = distances(points[:, round]), [0]
        while len(by_hand) < size:
            others = [i for i in range(points.shape[2]) if i not in by_hand]
            by_hand.append(max(others, key=lambda i: (min(between[i, j] for j in by_hand), -i)))
        assert chosen == by_hand


@given(POINTS, st.integers(1, 4))
def test_similar_takes_the_nearest_to_the_first(points: np.ndarray, size: int) -> None:
    for round, chosen in enumerate(similar(points, size, NONE).tolist()):
        between = distances(points[:, round])[0]
        assert chosen == [0, *sorted(range(1, points.shape[2]), key=lambda i: (between[i], i))][:size]


@given(
    name=st.sampled_from(list(CHOICES)),
    seed=st.integers(0, 1 << 40),
    size=st.integers(1, 6),
    more=st.integers(0, 90),
    first=st.integers(0, 1 << 31),
    known=st.booleans(),
)
def test_cohorts_are_distinct_devices_however_rounds_are_cut(
    name: str, seed: int, size: int, more: int, first: int, known: bool
) -> None:
    fleet_size, rounds, state = size + more, range(first, first + 5), State(0, np.zeros(2, np.float32))
    table = np.random.default_rng(seed).normal(size=(fleet_size, 3)).astype(np.float32) if known else None
    together = ByTask(seed, size, fleet_size, CHOICES[name], table).cohorts(rounds, state)
    apart = ByTask(seed, size, fleet_size, CHOICES[name], table)
    assert (together[:, 1:] > together[:, :-1]).all()
    assert together.max() < fleet_size
    for round, cohort in zip(rounds, together.tolist(), strict=True):
        assert apart.cohorts(range(round, round + 1), state)[0].tolist() == cohort
    with pytest.raises(ValueError):
        together[0, 0] = 1


def test_diverse_cohorts_lie_further_apart_than_uniform_ones_and_those_further_than_similar_ones() -> None:
    task, state = load_task("sine", None, 3), State(0, np.zeros(2, np.float32))
    table = embedded("parameters", task, 500, 10, 3).astype(np.float64)

    def apart(choice: Any) -> float:
        cohorts = choice.cohorts(range(200), state)
        return float(np.mean([distances(table[cohort].T).mean() for cohort in cohorts]))

    uniform = apart(Uniform(3, 5, 500))
    found = {name: apart(ByTask(3, 5, 500, each, table.astype(np.float32))) for name, each in CHOICES.items()}
    assert found["farthest"] > found["dpp"] > 1.2 * uniform > 2 * found["similar"]


@pytest.mark.parametrize("name", CHOICES)
def test_all_devices_are_as_likely_while_nothing_is_known_of_them(name: str) -> None:
    state, rounds = State(0, np.zeros(2, np.float32)), 4000
    cohorts = ByTask(1, 3, 40, CHOICES[name]).cohorts(range(rounds), state)
    count, expected = np.bincount(cohorts.reshape(-1), minlength=40), rounds * 3 / 40
    assert ((count - expected) ** 2 / expected).sum() < chi2.ppf(0.9999, 39)


def test_devices_without_an_update_come_before_known_ones() -> None:
    points = np.random.default_rng(0).normal(size=(4, 1, 12))
    points[:, :, [3, 7, 8]] = np.nan
    assert {3, 7, 8} <= set(farthest(points, 4, NONE)[0].tolist())
    assert not {3, 7, 8} & set(similar(points, 9, NONE)[0].tolist())


# What tells tasks apart


def test_a_sines_parameters_are_its_function() -> None:
    task, devices, x = load_task("sine", None, 5), np.arange(40, dtype=np.uint32), np.linspace(-5, 5, 21, dtype=np.float32)
    at_zero, at_quarter = embedded("parameters", task, 40, 10, 5).T[:, :, None]
    y = core.sine(5, devices, np.tile(x, (40, 1)))
    np.testing.assert_allclose(at_quarter * np.sin(x) + at_zero * np.cos(x), y, atol=1e-5)


def test_a_digits_devices_tags_are_their_turns_and_its_parameters_what_class_means_tend_to() -> None:
    task: Any = load_task("digits", None, 5)
    devices = np.arange(30, dtype=np.uint32)
    classes, _ = task.classes_and_gains(devices, task.train)
    assert embedded("tags", task, 30, 10, 5).argmax(axis=1).tolist() == (classes[:, 0] // 10).tolist()
    far, near = (np.abs(class_means(task, samples, devices) - task.parameters(devices)).mean() for samples in (50, 5000))
    assert near < 0.2 * far


def test_class_means_are_those_of_the_samples_of_the_first_round(own_data: Path) -> None:
    task = load_task("npz", own_data, 3)
    devices = np.array([0, 2, 3], np.uint32)
    found = class_means(task, 12, devices).reshape(3, task.outputs, -1)
    source: Any = task.stream(devices, 0, 12)
    for row, (x, labels) in enumerate(zip(source.inputs(), source.labels, strict=True)):
        for label in range(task.outputs):
            expected = x[labels == label].mean(axis=0) if (labels == label).any() else 0 * x[0]
            np.testing.assert_allclose(found[row, label], expected, atol=1e-6)


@pytest.mark.parametrize("width", [DIMENSIONS - 1, DIMENSIONS, DIMENSIONS + 1, 1000])
def test_a_sketch_keeps_inner_products_in_expectation(width: int) -> None:
    rows = np.random.default_rng(width).normal(size=(2, width)) + 0.5
    sketches = [sketched(rows, seed) for seed in range(300)]
    found = np.array([float(one @ other) for one, other in sketches])
    assert sketches[0].shape == (2, min(width, DIMENSIONS))
    exact = rows[0] @ rows[1]
    assert abs(found.mean() - exact) <= max(4 * found.std() / np.sqrt(300), 1e-4 * exact)


@pytest.mark.parametrize(
    ("task", "embedding", "says"),
    [
        ("sine", "tags", "task sine has no tags"),
        ("sine", "means", "predicts values: it has no class means"),
        ("npz", "parameters", "task npz has no parameters"),
    ],
)
def test_an_embedding_that_a_task_lacks_is_refused(own_data: Path, task: str, embedding: str, says: str) -> None:
    loaded = load_task(task, own_data if task == "npz" else None, 0)
    with pytest.raises(ConfigError, match=says):
        sampler("dpp", embedding, task=loaded, samples=5, seed=0, size=2, fleet_size=4)


def test_tags_that_are_all_the_same_are_refused() -> None:
    class Alike:
        name = "alike"

        def tags(self, devices: np.ndarray) -> np.ndarray:
            return np.ones((len(devices), 2))

    with pytest.raises(ConfigError, match="the tags of all devices are the same"):
        sampler("dpp", "tags", task=Alike(), samples=5, seed=0, size=2, fleet_size=4)


# Runs


@pytest.mark.parametrize("name", CHOICES)
def test_gateways_and_single_devices_as_nodes_end_with_the_theta_of_the_cohorts_by_hand(name: str) -> None:
    task = load_task("sine", None, 5)
    net = network("mlp-8", task.shape, task.outputs, task.loss, task.activation)
    fleet, theta, algorithm = NativeFleet(task, net, 60), net.initial_weights(0), TinyReptile(rounds=6, samples=8, rate=0.02)
    choice = sampler(name, "parameters", task=task, samples=8, seed=5, size=7, fleet_size=60)
    state = State(0, theta)
    for round in range(6):
        cohort = choice.cohorts(range(round, round + 1), state)[0]
        state = algorithm.outer(state, fleet.run(cohort, round, state.theta, algorithm.inner(round)))
    assert not np.array_equal(cohort, draw_cohorts(5, range(5, 6), 7, 60)[0])
    for gateways, until in ((1, 0), (1, 6), (4, 0), (60, 0), (None, 0)):
        strategy = FleetStrategy(
            algorithm, State(0, theta), cohort=7, fleet_size=60, seed=5, each_device=gateways is None, until=until,
            sampler=sampler(name, "parameters", task=task, samples=8, seed=5, size=7, fleet_size=60),
        )  # fmt: skip
        grid = FleetGrid(fleet, gateways)
        strategy.start(grid, theta_record(theta), num_rounds=strategy.messages(grid) if until else 6)
        assert strategy.state.theta.tobytes() == state.theta.tobytes(), gateways


def read(run: Path) -> tuple[str, list[Any]]:
    """What a run leaves, but seconds."""
    rounds = [{**json.loads(line), "seconds": 0} for line in (run / "rounds.jsonl").read_text().splitlines()]
    return json.loads((run / "result.json").read_text())["theta_sha256"], rounds


RUNS: list[dict[str, Any]] = [
    {"sampling": "dpp", "embedding": "parameters"},
    {"sampling": "farthest", "embedding": "updates", "nodes": "devices"},
    {"sampling": "similar", "embedding": "updates", "nodes": "devices", "aggregator": "median"},
]


@pytest.mark.usefixtures("no_page")
@pytest.mark.parametrize("options", RUNS, ids=lambda each: f"{each['sampling']}-{each['embedding']}")
def test_an_interrupted_run_goes_on_with_the_same_cohorts(tmp_path: Path, options: dict[str, Any]) -> None:
    options = {**SINE, "rounds": 40, **options}
    whole = tinyfl.simulate(out=tmp_path / "whole", **options)

    def interrupt(progress: Progress) -> None:
        if progress.stage == "learning" and progress.done == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tinyfl.simulate(out=tmp_path / "run", progress=interrupt, **options)
    tinyfl.simulate(resume=tmp_path / "run")
    assert read(tmp_path / "run") == read(whole.path)
    cohorts = [each["cohort"] for each in read(whole.path)[1]]
    tinyfl.simulate(out=tmp_path / "uniform", **{**options, "sampling": "uniform", "embedding": ""})
    assert cohorts != [each["cohort"] for each in read(tmp_path / "uniform")[1]]
    note = next(note for note in whole.result["notes"] if note.startswith("sampling"))
    assert f"{options['sampling']}, by {options['embedding']}; the server learns" in note


def test_the_last_update_of_each_device_is_its_embedding() -> None:
    choice = ByTask(4, 2, 5, CHOICES["farthest"])
    theta = np.zeros(300, np.float32)
    before, rng = State(0, theta), np.random.default_rng(0)
    first, second = ({i: rng.integers(-(1 << 40), 1 << 40, 300) for i in devices} for devices in ((1, 3), (3, 4)))
    after = choice.after(before, State(1, theta), first)
    again = choice.after(after, State(2, theta, {"momentum": theta}), second)
    assert set(again.memory) == {"momentum", MEMORY}
    table = again.memory[MEMORY]
    assert np.isnan(table).any(axis=1).tolist() == [True, False, True, False, False]
    for device, change in {1: first[1], **second}.items():
        sketch = sketched(change[None] * UNIT, 4)[0]
        np.testing.assert_allclose(table[device], sketch / np.linalg.norm(sketch), rtol=1e-6)
    with pytest.raises(RunError, match="damaged"):
        choice.cohorts(range(2, 3), State(2, theta, {MEMORY: table[:, 1:]}))


def test_a_strategy_over_gateways_learns_from_no_updates() -> None:
    algorithm, state = TinyReptile(rounds=2), State(0, np.zeros(3, np.float32))
    with pytest.raises(ConfigError, match="each_device=True"):
        FleetStrategy(algorithm, state, cohort=2, fleet_size=5, seed=0, sampler=ByTask(0, 2, 5, CHOICES["dpp"]))


def test_a_node_takes_no_cohort_that_is_none() -> None:
    plain = instructions(TinyReptile(rounds=9).inner(0), cohort=3, fleet_size=9, seed=1, round=2)
    assert cohorts_of(read_instructions(plain)).tolist() == draw_cohorts(1, range(2, 3), 3, 9).tolist()

    def cohorts(*rows: list[int], **more: Any) -> Any:
        chosen = np.array(rows, "<u4").tobytes()
        return cohorts_of(read_instructions({**plain, "chosen": chosen, **more})).tolist()

    assert cohorts([0, 4, 8]) == [[0, 4, 8]]
    assert cohorts([0, 4, 8], [1, 2, 3], alphas=[0.1, 0.2]) == [[0, 4, 8], [1, 2, 3]]
    for wrong in ([0, 4, 9], [0, 4, 4], [4, 0, 8], [0, 4], [0, 1, 2, 3]):
        with pytest.raises(ConfigError, match="Install the same version"):
            cohorts(wrong)
    for more in ({"alphas": [0.1, 0.2]}, {"chosen": "0" * 12}, {"chosen": 12}):
        with pytest.raises(ConfigError, match="Install the same version"):
            cohorts([0, 4, 8], **more)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sampling": "diverse"}, "sampling is 'diverse'. Give --sampling uniform, dpp, farthest or similar"),
        ({"sampling": "dpp"}, "say what that is with --embedding"),
        ({"embedding": "tags"}, "Give --sampling dpp too"),
        ({"sampling": "dpp", "embedding": "speed"}, "embedding is 'speed'"),
        ({"sampling": "dpp", "embedding": "updates"}, "Give --nodes devices"),
        ({"sampling": "dpp", "embedding": "tags", "cohort": 1}, "for cohorts of 2 to 128 devices"),
        ({"sampling": "dpp", "embedding": "tags", "cohort": 129}, "for cohorts of 2 to 128 devices"),
        (
            {"sampling": "similar", "embedding": "tags", "noise": 1.0, "update_clip": 1.0, "nodes": "devices"},
            "known for uniform cohorts alone",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve({"task": "digits", **options})
    assert resolve({"task": "digits", "sampling": "uniform"}).sha256() == resolve({"task": "digits"}).sha256()
