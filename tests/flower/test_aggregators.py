"""Robust aggregation: what Flower's aggregators withstand, and that they do what the papers say."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from answers import FLEET, FOLLOW, START, Answers, aggregated, config, content, phis
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg as StockFedAvg
from flwr.serverapp.strategy import FedMedian, FedTrimmedAvg
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyfl.aggregators import aggregator
from tinyfl.algorithms import State, Updates, with_layers
from tinyfl.config import AGGREGATORS, ALGORITHMS
from tinyfl.core import F32
from tinyfl.errors import ConfigError
from tinyfl.flower.grid import FleetGrid
from tinyfl.flower.messages import instructions, read_theta, theta_record
from tinyfl.flower.strategy import FleetStrategy
from tinyfl.registry.chosen import Chosen
from tinyfl.simulators.faults.poison import ATTACKS, PoisonedGrid, draw_poisoned

# What aggregators withstand


@st.composite
def poisoned_rounds(draw: st.DrawFn) -> tuple[float, np.ndarray, np.ndarray]:
    """A share to tolerate, the phis of honest devices, and at most that share of any values at all."""
    tolerate, devices = draw(st.sampled_from((0.1, 0.2, 0.29, 0.3, 0.45))), draw(st.integers(10, 24))
    bad = draw(st.integers(0, int(tolerate * devices)))
    honest = st.floats(-100, 100, width=32)
    anything = st.one_of(st.floats(width=32), st.floats(-1000, 1000, width=32))
    rows = [[draw(honest) for _ in range(2)] for _ in range(devices - bad)]
    return tolerate, np.array(rows), np.array([[draw(anything) for _ in range(2)] for _ in range(bad)]).reshape(bad, 2)


@pytest.mark.slow
@given(poisoned_rounds())
@settings(max_examples=150)
def test_poisoned_devices_within_tolerance_move_no_weight_past_the_honest_devices(
    drawn: tuple[float, np.ndarray, np.ndarray],
) -> None:
    tolerate, honest, poison = drawn
    with np.errstate(all="ignore"):
        contents = [content(phi) for phi in (*poison, *honest)]
    for robust in ("trimmed-mean", "median"):
        strategy = aggregator(config(devices=len(contents), cohort=len(contents), aggregator=robust, tolerate=tolerate))
        theta, _ = aggregated(strategy, np.zeros(2, np.float32), contents)
        assert (theta >= honest.min(axis=0) - 1e-5).all()
        assert (theta <= honest.max(axis=0) + 1e-5).all()


def test_one_poisoned_device_more_than_tolerated_moves_the_trimmed_mean() -> None:
    strategy = aggregator(config(devices=10, cohort=10, aggregator="trimmed-mean", tolerate=0.2))
    for bad, moved in ((2, False), (3, True)):
        rows = [np.full(2, 900.0)] * bad + [np.full(2, i / 10) for i in range(10 - bad)]
        theta, _ = aggregated(strategy, np.zeros(2, np.float32), list(map(content, rows)))
        assert bool(theta.max() > 100) is moved


def after_a_poisoned_round(robust: str, attack: Any, poisoned: Iterable[int]) -> tuple[F32, Updates]:
    seen: list[Updates] = []
    ours = FleetStrategy(
        FOLLOW, State(0, START), cohort=20, fleet_size=40, seed=0, each_device=True,
        aggregator=aggregator(config(aggregator=robust)), on_round=lambda _, updates: seen.append(updates),
    )  # fmt: skip
    ours.start(PoisonedGrid(FleetGrid(FLEET, None), frozenset(poisoned), attack), theta_record(START), num_rounds=1)
    return ours.state.theta, seen[0]


def cohort() -> list[int]:
    from tinyfl.fleet import draw_cohort

    return [int(device) for device in draw_cohort(0, 0, 20, 40)]


def test_scaled_updates_move_the_mean_and_no_aggregator() -> None:
    poisoned = cohort()[3:7]
    honest = [d for d in cohort() if d not in poisoned]
    phi = FLEET.run_each(np.array(honest, np.uint32), 0, START, FOLLOW.inner(0)).phi
    for robust in AGGREGATORS:
        theta, _ = after_a_poisoned_round(robust, "scaled", poisoned)
        assert (theta >= phi.min(axis=0) - 1e-6).all(), robust
        assert (theta <= phi.max(axis=0) + 1e-6).all(), robust
    theta, _ = after_a_poisoned_round("", "scaled", poisoned)
    assert np.abs(theta - phi.mean(axis=0)).max() > 10


@pytest.mark.parametrize(("attack", "reason"), [("nan", "numeric"), ("wrong-shape", "corrupt")])
@pytest.mark.parametrize("robust", ["", *AGGREGATORS])
def test_what_is_no_update_is_left_out_by_name(robust: str, attack: str, reason: str) -> None:
    poisoned = cohort()[2:5]
    _, updates = after_a_poisoned_round(robust, attack, poisoned)
    assert updates.absent == dict.fromkeys(poisoned, reason)
    assert updates.devices == 17


def test_the_same_devices_are_poisoned_each_time() -> None:
    drawn = draw_poisoned(5, 20, 100)
    assert drawn == draw_poisoned(5, 20, 100) != draw_poisoned(6, 20, 100)
    assert len(drawn) == 20
    assert drawn <= set(range(100))
    assert set(ATTACKS) == {"scaled", "sign-flipped", "nan", "wrong-shape"}


def test_behind_gateways_poison_moves_even_the_trimmed_mean() -> None:
    told = instructions(FOLLOW.inner(0), cohort=40, fleet_size=40, seed=0)
    poisoned = range(0, 40, 5)  # a fifth, as many behind each gateway
    moved = {}
    for gateways in (4, None):
        grid = PoisonedGrid(FleetGrid(FLEET, gateways), poisoned, "scaled")
        strategy = FedTrimmedAvg(beta=0.25, fraction_evaluate=0.0)
        result = strategy.start(grid, theta_record(START), num_rounds=1, train_config=told)
        moved[gateways] = float(np.abs(read_theta(result.arrays) - START).max())
    assert moved[4] > 100 * moved[None]
    with pytest.raises(ValueError, match="excludes nan"):
        PoisonedGrid(FleetGrid(FLEET, 4), poisoned, "nan")


@pytest.mark.parametrize("gateways", [1, 4])
def test_an_aggregator_over_gateways_is_refused_from_python_too(gateways: int) -> None:
    ours = FleetStrategy(FOLLOW, State(0, START), cohort=20, fleet_size=40, seed=0, aggregator=FedMedian())
    with pytest.raises(ConfigError, match="FedMedian would get sums from gateways"):
        ours.start(FleetGrid(FLEET, gateways), theta_record(START), num_rounds=1)


@pytest.mark.parametrize(
    "odd",
    [
        {"num-examples": 0},
        {"num-examples": -3},
        {"num-examples": 10**9},
        {"loss": [1.0, 2.0]},
        {"devices": 7},
        {"extra": 1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "asked", [{"aggregator": "krum"}, {"aggregator": "median"}, {"update_clip": 9.0, "noise": 1e-6}], ids=str
)
def test_no_device_ends_a_round_or_gains_weight_by_what_it_says_of_itself(asked: dict[str, Any], odd: dict[str, Any]) -> None:
    theta, rows = phis(20)
    plain = list(map(content, rows))
    expected, _ = aggregated(aggregator(config(**asked)), theta, plain)
    got, updates = aggregated(aggregator(config(**asked)), theta, [*plain[:-1], content(rows[-1], **odd)])
    if updates.devices == 20:
        assert np.abs(got - expected).max() < 1e-5
    else:
        assert updates.absent == {19: "corrupt"}


def test_a_device_that_names_its_weights_otherwise_takes_part() -> None:
    theta, rows = phis(20)
    other = RecordDict({"mine": ArrayRecord({"w": Array(rows[-1].astype(np.float64))}), "m": MetricRecord({"loss": 1.0})})
    expected, _ = aggregated(aggregator(config(aggregator="krum")), theta, list(map(content, rows)))
    got, updates = aggregated(aggregator(config(aggregator="krum")), theta, [*map(content, rows[:-1]), other])
    assert updates.devices == 20
    assert np.array_equal(got, expected)


def test_an_answer_that_nobody_asked_for_does_not_count() -> None:
    class Eager(Answers):
        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
            sent = list(messages)
            return [reply for _ in range(3) for reply in super(Eager, self).send_and_receive(sent)]

    theta, rows = phis(5)
    ours = FleetStrategy(FOLLOW, State(0, theta), cohort=5, fleet_size=5, seed=0, each_device=True, aggregator=FedMedian())
    ours.on_round = lambda _, updates: counts.append(updates.devices)
    counts: list[int] = []
    ours.start(Eager(list(map(content, rows))), theta_record(theta), num_rounds=1)
    assert counts == [5]


# That they are what the papers say


def krum_of_the_paper(rows: np.ndarray, malicious: int) -> np.ndarray:
    """Blanchard et al. 2017, section 4: the vector whose n - f - 2 closest others are the closest, by squared distances."""
    scores = []
    for i, row in enumerate(rows):
        others = sorted(float(((row - other) ** 2).sum()) for j, other in enumerate(rows) if j != i)
        scores.append(sum(others[: len(rows) - malicious - 2]))
    return rows[int(np.argmin(scores))]


@pytest.mark.parametrize("seed", range(5))
def test_judges_phi_is_that_of_an_independent_computation(seed: int) -> None:
    from scipy.stats import trim_mean

    theta, rows = phis(20, seed)
    rows[:4] = theta + 50 * (rows[:4] - theta)
    exact = rows.astype(np.float64)
    expected = {
        "median": np.median(exact, axis=0),
        "trimmed-mean": trim_mean(exact, 0.2, axis=0),
        "krum": krum_of_the_paper(exact, 4),
    }
    np.testing.assert_allclose(expected["trimmed-mean"], np.sort(exact, axis=0)[4:-4].mean(axis=0))
    assert expected.keys() == AGGREGATORS.keys()
    for robust, phi in expected.items():
        got, _ = aggregated(aggregator(config(aggregator=robust)), theta, list(map(content, rows)))
        assert np.abs(got - phi).max() < 1e-6, robust


def test_krum_chooses_right_among_updates_that_are_small_beside_theta() -> None:
    rng = np.random.default_rng(0)
    theta = np.full(2000, 30.0, np.float32)  # squares of 1.8 million, and distances of a hundredth
    rows = (theta + rng.normal(0, 1e-4, (20, 2000)) * np.linspace(1, 3, 20)[:, None]).astype(np.float32)
    got, _ = aggregated(aggregator(config(aggregator="krum")), theta, list(map(content, rows)))
    assert np.abs(got - krum_of_the_paper(rows.astype(np.float64), 4)).max() < 1e-6


def test_a_trimmed_mean_that_trims_nothing_is_the_exact_mean() -> None:
    theta, rows = phis(20)
    contents = list(map(content, rows))
    none, _ = aggregated(aggregator(config(aggregator="trimmed-mean", tolerate=0)), theta, contents)
    exact, _ = aggregated(None, theta, contents)
    assert np.abs(none - exact).max() < 1e-6


@pytest.mark.parametrize("asked", [{"aggregator": "trimmed-mean"}, {"aggregator": "krum"}, {"update_clip": 1.0}], ids=str)
def test_an_aggregated_run_is_repeatable_whatever_order_flower_asks_in(asked: dict[str, Any]) -> None:
    def run() -> tuple[bytes, list[float]]:
        losses: list[float] = []
        ours = FleetStrategy(
            FOLLOW, State(0, START), cohort=20, fleet_size=40, seed=0, each_device=True, aggregator=aggregator(config(**asked)),
            on_round=lambda _, updates: losses.append(updates.loss),
        )  # fmt: skip
        ours.start(FleetGrid(FLEET, None), theta_record(START), num_rounds=4)
        return ours.state.theta.tobytes(), losses

    assert run() == run()


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if Chosen("algorithm", name).trains == "task"])
@pytest.mark.parametrize(
    "asked",
    [
        *({"aggregator": name} for name in AGGREGATORS),
        {"aggregator": "krum", "update_clip": 1.0},
        {"update_clip": 1.0, "noise": 0.1},
    ],
    ids=str,
)
def test_every_algorithm_follows_every_aggregator(algorithm: str, asked: dict[str, Any]) -> None:
    asked_config = config(algorithm=algorithm, rounds=10, **asked)
    ours = FleetStrategy(
        with_layers(asked_config.build(), FLEET.network.weighted_layers), State(0, START), cohort=20, fleet_size=40, seed=0,
        each_device=True, aggregator=aggregator(asked_config), minimum=asked_config.minimum,
    )  # fmt: skip
    ours.start(FleetGrid(FLEET, None), theta_record(START), num_rounds=3)
    assert ours.state.round == 3
    assert np.isfinite(ours.state.theta).all()
    assert not np.array_equal(ours.state.theta, START)


def test_an_aggregator_may_ask_fewer_devices_than_the_cohort() -> None:
    theta, rows = phis(20)
    got, updates = aggregated(StockFedAvg(fraction_train=0.5), theta, list(map(content, rows)))
    assert (updates.devices, updates.absent) == (10, {})
    assert not np.array_equal(got, theta)


# What is refused


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"aggregator": "median", "nodes": "4"}, "poisoned update poisons a sum. Give --nodes devices"),
        ({"noise": 1.0, "update_clip": 1.0, "nodes": "1"}, "Give --nodes devices"),
        ({"aggregator": "mode"}, "There are median, trimmed-mean, krum"),
        ({"aggregator": "median", "noise": 1.0, "update_clip": 1.0}, "Leave one of them out"),
        ({"noise": 1.0}, "with --update-clip NORM"),
        ({"aggregator": "krum", "tolerate": 0.5}, "Give 0 to below 0.5"),
        ({"tolerate": -0.1}, "Give 0 to below 0.5"),
        ({"tolerate": float("nan")}, "Give 0 to below 0.5"),
        ({"noise": -1.0, "update_clip": 1.0}, "--noise"),
        ({"noise": float("inf"), "update_clip": 1.0}, "--noise"),
        ({"update_clip": -1.0}, "--update-clip"),
        ({"aggregator": "krum", "cohort": 10, "tolerate": 0.4}, "with 11 devices or more, and this one has 10"),
        ({"aggregator": "median", "cohort": 2}, "Give --cohort 3 or more"),
        ({"aggregator": "trimmed-mean", "cohort": 4}, "Give --cohort 5 or more"),
        ({"aggregator": "median", "devices": 2, "cohort": None}, "Give --cohort 3 or more"),
    ],
    ids=str,
)
def test_what_no_aggregator_could_do_is_refused_with_the_cure(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config(**options)
    assert says in str(refused.value)


def test_a_cohort_as_large_as_a_refusal_asks_for_is_accepted() -> None:
    assert aggregator(config(aggregator="trimmed-mean", cohort=5)) is not None
    assert aggregator(config(aggregator="krum", cohort=11, tolerate=0.36)) is not None
    assert aggregator(config(aggregator="median", cohort=3)) is not None


def test_what_aggregates_is_part_of_what_decides_theta() -> None:
    plain = config()
    asked: tuple[dict[str, Any], ...] = (
        {"aggregator": "median"}, {"aggregator": "krum"}, {"aggregator": "krum", "tolerate": 0.3}, {"update_clip": 1.0},
        {"update_clip": 1.0, "noise": 1.0}, {"update_clip": 1.0, "noise": 2.0},
    )  # fmt: skip
    assert len({plain.sha256(), *(config(**options).sha256() for options in asked)}) == 1 + len(asked)
