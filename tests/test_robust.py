"""Robust and private aggregation: what Flower's judges withstand, what noise costs, and that they do what the papers say."""

import json
import logging
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg as StockFedAvg
from flwr.serverapp.strategy import FedMedian, FedTrimmedAvg, Strategy
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import log_ndtr, ndtr
from scipy.stats import trim_mean
from tinyfl.simulators.faults.poison import ATTACKS, PoisonedGrid, draw_poisoned
from tinyfl.simulators.native import NativeFleet

from tinyfl.algorithms import Inner, State, Updates
from tinyfl.algorithms.fedavg import FedAvg
from tinyfl.config import ALGORITHMS, Config, resolve
from tinyfl.core import F32
from tinyfl.errors import ConfigError, InstallError, TrainingError
from tinyfl.flower.grid import FleetAddresses, FleetGrid
from tinyfl.flower.judges import judge, privacy_spent, target_delta
from tinyfl.flower.messages import instructions, read_theta, theta_record
from tinyfl.flower.strategy import FleetStrategy
from tinyfl.networks import network
from tinyfl.tasks import load_task

logging.getLogger("flwr").setLevel(logging.ERROR)

TASK = load_task("sine", None, 3)
NET = network("mlp-8", TASK.shape, TASK.outputs, TASK.loss, TASK.activation)
FLEET = NativeFleet(TASK, NET, 40)
START = NET.initial_weights(0)
FOLLOW = FedAvg(samples=16, batch=1, inner_lr=0.02)  # an outer step of 1: the new theta is the judge's phi


class Answers(FleetAddresses):
    """Single devices that answer with what they are given, in any order."""

    def __init__(self, contents: Sequence[RecordDict]) -> None:
        FleetGrid(FLEET)  # sets the identity that messages ask for
        self.contents, self.nodes = contents, len(contents)

    def devices_at(self, node: int) -> range:
        return range(node - 1, node)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return [Message(self.contents[m.metadata.dst_node_id - 1], reply_to=m) for m in messages]


def content(phi: np.ndarray, **metrics: Any) -> RecordDict:
    return RecordDict(
        {"arrays": theta_record(phi.astype(np.float32)), "metrics": MetricRecord({"num-examples": 16, "loss": 1.0, **metrics})}
    )


def judged(strategy: Strategy | None, theta: F32, contents: Sequence[RecordDict], rounds: int = 1) -> tuple[F32, Updates]:
    """theta after rounds on devices that answer with ``contents``, and the last round's updates."""
    seen: list[Updates] = []
    ours = FleetStrategy(
        FOLLOW, State(0, theta), cohort=len(contents), fleet_size=len(contents), seed=0, each_device=True, judge=strategy,
        on_round=lambda _, updates: seen.append(updates),
    )  # fmt: skip
    ours.start(Answers(contents), theta_record(theta), num_rounds=rounds)
    return ours.state.theta, seen[-1]


def config(**options: Any) -> Config:
    return resolve({"task": "sine", "nodes": "devices", "devices": 40, "cohort": 20, **options})


def phis(count: int, seed: int = 0, parameters: int = 30) -> tuple[F32, F32]:
    """A theta and what ``count`` devices made of it."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(0, 1, parameters).astype(np.float32)
    return theta, (theta + rng.normal(0, 0.3, (count, parameters))).astype(np.float32)


# What judges withstand


@st.composite
def poisoned_rounds(draw: st.DrawFn) -> tuple[float, np.ndarray, np.ndarray]:
    """A share to tolerate, the phis of honest devices, and at most that share of any values at all."""
    tolerate, devices = draw(st.sampled_from((0.1, 0.2, 0.29, 0.3, 0.45))), draw(st.integers(10, 24))
    bad = draw(st.integers(0, int(tolerate * devices)))
    honest = st.floats(-100, 100, width=32)
    anything = st.one_of(st.floats(width=32), st.floats(-1000, 1000, width=32))
    rows = [[draw(honest) for _ in range(2)] for _ in range(devices - bad)]
    return tolerate, np.array(rows), np.array([[draw(anything) for _ in range(2)] for _ in range(bad)]).reshape(bad, 2)


@given(poisoned_rounds())
@settings(max_examples=150, deadline=None)
def test_poisoned_devices_within_tolerance_move_no_weight_past_the_honest_devices(
    drawn: tuple[float, np.ndarray, np.ndarray],
) -> None:
    tolerate, honest, poison = drawn
    with np.errstate(all="ignore"):
        contents = [content(phi) for phi in (*poison, *honest)]
    for robust in ("trimmed-mean", "median"):
        strategy = judge(config(devices=len(contents), cohort=len(contents), robust=robust, tolerate=tolerate))
        theta, _ = judged(strategy, np.zeros(2, np.float32), contents)
        assert (theta >= honest.min(axis=0) - 1e-5).all()
        assert (theta <= honest.max(axis=0) + 1e-5).all()


def test_one_poisoned_device_more_than_tolerated_moves_the_trimmed_mean() -> None:
    strategy = judge(config(devices=10, cohort=10, robust="trimmed-mean", tolerate=0.2))
    for bad, moved in ((2, False), (3, True)):
        rows = [np.full(2, 900.0)] * bad + [np.full(2, i / 10) for i in range(10 - bad)]
        theta, _ = judged(strategy, np.zeros(2, np.float32), list(map(content, rows)))
        assert bool(theta.max() > 100) is moved


def after_a_poisoned_round(robust: str, attack: Any, poisoned: Iterable[int]) -> tuple[F32, Updates]:
    seen: list[Updates] = []
    ours = FleetStrategy(
        FOLLOW, State(0, START), cohort=20, fleet_size=40, seed=0, each_device=True, judge=judge(config(robust=robust)),
        on_round=lambda _, updates: seen.append(updates),
    )  # fmt: skip
    ours.start(PoisonedGrid(FleetGrid(FLEET, None), frozenset(poisoned), attack), theta_record(START), num_rounds=1)
    return ours.state.theta, seen[0]


def cohort() -> list[int]:
    from tinyfl.fleet import draw_cohort

    return [int(device) for device in draw_cohort(0, 0, 20, 40)]


def test_scaled_updates_move_the_mean_and_no_judge() -> None:
    poisoned = cohort()[3:7]
    honest = [d for d in cohort() if d not in poisoned]
    phi = FLEET.run_each(np.array(honest, np.uint32), 0, START, FOLLOW.inner(0)).phi
    for robust in ("trimmed-mean", "median", "krum"):
        theta, _ = after_a_poisoned_round(robust, "scaled", poisoned)
        assert (theta >= phi.min(axis=0) - 1e-6).all(), robust
        assert (theta <= phi.max(axis=0) + 1e-6).all(), robust
    theta, _ = after_a_poisoned_round("", "scaled", poisoned)
    assert np.abs(theta - phi.mean(axis=0)).max() > 10


@pytest.mark.parametrize(("attack", "reason"), [("nan", "numeric"), ("wrong-shape", "corrupt")])
@pytest.mark.parametrize("robust", ["", "median", "trimmed-mean", "krum"])
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
    with pytest.raises(ValueError, match="leaves nan out"):
        PoisonedGrid(FleetGrid(FLEET, 4), poisoned, "nan")


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
@pytest.mark.parametrize("asked", [{"robust": "krum"}, {"robust": "median"}, {"update_clip": 9.0, "noise": 1e-6}], ids=str)
def test_no_device_ends_a_round_or_gains_weight_by_what_it_says_of_itself(asked: dict[str, Any], odd: dict[str, Any]) -> None:
    theta, rows = phis(20)
    plain = list(map(content, rows))
    expected, _ = judged(judge(config(**asked)), theta, plain)
    got, updates = judged(judge(config(**asked)), theta, [*plain[:-1], content(rows[-1], **odd)])
    if updates.devices == 20:
        assert np.abs(got - expected).max() < 1e-5
    else:
        assert updates.absent == {19: "corrupt"}


def test_a_device_that_names_its_weights_otherwise_takes_part() -> None:
    theta, rows = phis(20)
    other = RecordDict({"mine": ArrayRecord({"w": Array(rows[-1].astype(np.float64))}), "m": MetricRecord({"loss": 1.0})})
    expected, _ = judged(judge(config(robust="krum")), theta, list(map(content, rows)))
    got, updates = judged(judge(config(robust="krum")), theta, [*map(content, rows[:-1]), other])
    assert updates.devices == 20
    assert np.array_equal(got, expected)


def test_an_answer_that_nobody_asked_for_does_not_count() -> None:
    class Eager(Answers):
        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
            sent = list(messages)
            return [reply for _ in range(3) for reply in super(Eager, self).send_and_receive(sent)]

    theta, rows = phis(5)
    ours = FleetStrategy(FOLLOW, State(0, theta), cohort=5, fleet_size=5, seed=0, each_device=True, judge=FedMedian())
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
    theta, rows = phis(20, seed)
    rows[:4] = theta + 50 * (rows[:4] - theta)
    exact = rows.astype(np.float64)
    expected = {
        "median": np.median(exact, axis=0),
        "trimmed-mean": trim_mean(exact, 0.2, axis=0),
        "krum": krum_of_the_paper(exact, 4),
    }
    np.testing.assert_allclose(expected["trimmed-mean"], np.sort(exact, axis=0)[4:-4].mean(axis=0))
    for robust, phi in expected.items():
        got, _ = judged(judge(config(robust=robust)), theta, list(map(content, rows)))
        assert np.abs(got - phi).max() < 1e-6, robust


def test_krum_chooses_right_among_updates_that_are_small_beside_theta() -> None:
    rng = np.random.default_rng(0)
    theta = np.full(2000, 30.0, np.float32)  # squares of 1.8 million, and distances of a hundredth
    rows = (theta + rng.normal(0, 1e-4, (20, 2000)) * np.linspace(1, 3, 20)[:, None]).astype(np.float32)
    got, _ = judged(judge(config(robust="krum")), theta, list(map(content, rows)))
    assert np.abs(got - krum_of_the_paper(rows.astype(np.float64), 4)).max() < 1e-6


def test_a_trimmed_mean_that_trims_nothing_is_the_exact_mean() -> None:
    theta, rows = phis(20)
    contents = list(map(content, rows))
    none, _ = judged(judge(config(robust="trimmed-mean", tolerate=0)), theta, contents)
    exact, _ = judged(None, theta, contents)
    assert np.abs(none - exact).max() < 1e-6


@pytest.mark.parametrize("asked", [{"robust": "trimmed-mean"}, {"robust": "krum"}, {"update_clip": 1.0}], ids=str)
def test_a_judged_run_is_repeatable_whatever_order_flower_asks_in(asked: dict[str, Any]) -> None:
    def run() -> tuple[bytes, list[float]]:
        losses: list[float] = []
        ours = FleetStrategy(
            FOLLOW, State(0, START), cohort=20, fleet_size=40, seed=0, each_device=True, judge=judge(config(**asked)),
            on_round=lambda _, updates: losses.append(updates.loss),
        )  # fmt: skip
        ours.start(FleetGrid(FLEET, None), theta_record(START), num_rounds=4)
        return ours.state.theta.tobytes(), losses

    assert run() == run()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "asked",
    [
        {"robust": "median"},
        {"robust": "trimmed-mean"},
        {"robust": "krum"},
        {"robust": "krum", "update_clip": 1.0},
        {"update_clip": 1.0, "noise": 0.1},
    ],
    ids=str,
)
def test_every_algorithm_follows_every_judge(algorithm: str, asked: dict[str, Any]) -> None:
    asked_config = config(algorithm=algorithm, rounds=10, **asked)
    ours = FleetStrategy(
        asked_config.build(), State(0, START), cohort=20, fleet_size=40, seed=0, each_device=True, judge=judge(asked_config),
        minimum=asked_config.minimum,
    )  # fmt: skip
    ours.start(FleetGrid(FLEET, None), theta_record(START), num_rounds=3)
    assert ours.state.round == 3
    assert np.isfinite(ours.state.theta).all()
    assert not np.array_equal(ours.state.theta, START)


def test_a_judge_may_ask_fewer_devices_than_the_cohort() -> None:
    theta, rows = phis(20)
    got, updates = judged(StockFedAvg(fraction_train=0.5), theta, list(map(content, rows)))
    assert (updates.devices, updates.absent) == (10, {})
    assert not np.array_equal(got, theta)


# Privacy


def test_an_update_counts_with_at_most_the_norm_that_is_asked_for() -> None:
    theta, rows = phis(20)
    change = rows - theta
    change[0] *= 100 / np.linalg.norm(change[0])
    change[1] *= 0.5 / np.linalg.norm(change[1])
    change[2] = 0
    norms = np.linalg.norm(change, axis=1, keepdims=True)
    clipped = np.where(norms > 1, change / np.maximum(norms, 1e-30), change)
    got, _ = judged(judge(config(update_clip=1.0)), theta, [content(theta + row) for row in change])
    assert np.abs(got - (theta + clipped.mean(axis=0))).max() < 1e-5
    alone, _ = judged(judge(config(cohort=1, update_clip=1.0)), theta, [content(theta + change[0])])
    assert np.linalg.norm(alone - theta) == pytest.approx(1.0, abs=1e-5)


def test_noise_has_the_deviation_that_it_is_accounted_with() -> None:
    noise, clip, devices = 1.5, 2.0, 20
    theta = np.zeros(20_000, np.float32)
    strategy = judge(config(noise=noise, update_clip=clip))
    draws = [judged(strategy, theta, [content(theta)] * devices)[0] for _ in range(5)]
    assert np.std(draws) == pytest.approx(noise * clip / devices, rel=0.02)
    assert np.mean(draws) == pytest.approx(0, abs=6 * noise * clip / devices / math.sqrt(100_000))
    assert np.corrcoef(draws[0], draws[1])[0, 1] == pytest.approx(0, abs=0.05)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The least epsilon of Gaussian noise with sensitivity mu deviations (Balle and Wang 2018, theorem 8), by bisection."""
    low, high = 0.0, 1e4
    for _ in range(100):
        epsilon = (low + high) / 2
        first = ndtr(mu / 2 - epsilon / mu)
        second = math.exp(min(epsilon + log_ndtr(-mu / 2 - epsilon / mu), 0))
        low, high = (epsilon, high) if first - second > delta else (low, epsilon)
    return high


@pytest.mark.parametrize(("noise", "rounds"), [(0.7, 5), (1.0, 1), (2.0, 50), (10.0, 100)])
def test_epsilon_is_the_accountants_and_lies_between_the_exact_one_and_the_bound_by_hand(noise: float, rounds: int) -> None:
    from dp_accounting import GaussianDpEvent
    from dp_accounting.rdp import RdpAccountant

    spent = privacy_spent(judge(config(noise=noise, update_clip=1.0), rounds_done=rounds))
    assert spent is not None
    assert spent == json.loads(json.dumps(spent))
    assert (spent["delta"], spent["releases"]) == (1e-5, rounds)
    theirs = RdpAccountant()
    theirs.compose(GaussianDpEvent(noise), rounds)
    assert spent["epsilon"] == pytest.approx(theirs.get_epsilon(1e-5), rel=1e-12)
    # Renyi: each release costs alpha / (2 noise^2) at order alpha (Mironov 2017), and the best order gives this in closed form.
    by_hand = rounds / (2 * noise**2) + math.sqrt(2 * rounds * math.log(1e5)) / noise
    assert gaussian_epsilon(math.sqrt(rounds) / noise, 1e-5) <= spent["epsilon"] <= by_hand


def test_a_resumed_run_accounts_for_the_rounds_before() -> None:
    theta, rows = phis(20)
    asked = config(noise=2.0, update_clip=1.0)
    whole, first, second = judge(asked), judge(asked), judge(asked, rounds_done=2)
    judged(whole, theta, list(map(content, rows)), rounds=5)
    judged(first, theta, list(map(content, rows)), rounds=2)
    judged(second, theta, list(map(content, rows)), rounds=3)
    assert privacy_spent(second) == privacy_spent(whole)
    fresh, partly, total = privacy_spent(judge(asked)), privacy_spent(first), privacy_spent(whole)
    assert fresh and partly and total
    assert 0 == fresh["epsilon"] < partly["epsilon"] < total["epsilon"]
    assert (fresh["releases"], partly["releases"], total["releases"]) == (0, 2, 5)


def test_without_noise_there_is_nothing_to_account_for() -> None:
    assert privacy_spent(judge(config())) is None
    assert privacy_spent(judge(config(robust="median"))) is None
    assert privacy_spent(judge(config(update_clip=1.0))) is None
    assert judge(config()) is None


def test_delta_is_well_below_one_in_as_many_as_there_are() -> None:
    assert target_delta(10) == target_delta(1000) == 1e-5
    assert 0 < target_delta(1_000_000) < 1e-6


def private_round(rows: np.ndarray, theta: F32, **asked: Any) -> tuple[State, list[Updates], int]:
    """The state after one private round on devices that answer with ``rows``, what it was told to be short of, and how many
    releases are accounted for."""
    private = config(cohort=len(rows), **asked)
    strategy, short = judge(private), list[Updates]()
    ours = FleetStrategy(
        FOLLOW, State(0, theta), cohort=len(rows), fleet_size=len(rows), seed=0, each_device=True, judge=strategy,
        minimum=private.minimum, on_short=short.append,
    )  # fmt: skip
    ours.start(Answers(list(map(content, rows))), theta_record(theta), num_rounds=1)
    spent = privacy_spent(strategy)
    assert spent
    return ours.state, short, spent["releases"]


def test_an_absent_device_counts_in_a_private_round_with_an_update_of_nothing() -> None:
    theta, rows = phis(20)
    rows[[3, 7, 8], 0] = np.nan
    state, short, releases = private_round(rows, theta, noise=1e-8, update_clip=1e3)
    assert (state.round, short, releases) == (1, [], 1)
    there = np.delete(rows, [3, 7, 8], axis=0).astype(np.float64)
    assert np.abs(state.theta - (theta + (there - theta).sum(axis=0) / 20)).max() < 1e-5


@given(st.sets(st.integers(0, 9), max_size=9), st.integers(0, 9), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_one_device_more_or_less_moves_what_a_private_round_releases_by_the_clip_at_most(
    absent: set[int], device: int, seed: int
) -> None:
    theta, rows = phis(10, seed)
    rows[list(absent)] = np.nan
    other = rows.copy()
    rows[device], other[device] = np.nan, theta + 50
    assume(not np.isnan(rows).all())  # a round of nobody is none
    clip, noise = 0.5, 1e-4
    with_it, without = (private_round(each, theta, noise=noise, update_clip=clip)[0].theta for each in (other, rows))
    noise_norm = noise * clip / 10 * math.sqrt(2 * theta.size)
    assert np.linalg.norm(with_it - without) == pytest.approx(clip / 10, abs=5 * noise_norm)


def test_a_private_round_with_fewer_updates_than_its_minimum_releases_nothing_and_does_not_count() -> None:
    theta, rows = phis(20)
    rows[7, 0] = np.nan
    for lacking, asked in ((rows, {"minimum": 20}), (np.full_like(rows, np.nan), {})):
        state, short, releases = private_round(lacking, theta, noise=1.0, update_clip=1.0, **asked)
        assert short[0].absent == {i: "numeric" for i, row in enumerate(lacking) if np.isnan(row).any()}
        assert (state.round, releases) == (0, 0)
        assert np.array_equal(state.theta, theta)


def test_noise_too_large_for_a_sum_is_an_error_that_says_so() -> None:
    theta, rows = phis(20)
    with pytest.raises(TrainingError, match="Give less --noise"):
        judged(judge(config(noise=1e5, update_clip=100.0)), theta, list(map(content, rows)))


def test_noise_without_the_accountants_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(InstallError, match=r"pip install 'tinyfl\[dp\]'"):
        judge(config(noise=1.0, update_clip=1.0))


# What is refused


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"robust": "median", "nodes": "4"}, "from 1.0 to 2,000. Give --nodes devices"),
        ({"noise": 1.0, "update_clip": 1.0, "nodes": "1"}, "Give --nodes devices"),
        ({"robust": "mode"}, "There are median, trimmed-mean, krum"),
        ({"robust": "median", "noise": 1.0, "update_clip": 1.0}, "Leave one of them out"),
        ({"noise": 1.0}, "with --update-clip NORM"),
        ({"robust": "krum", "tolerate": 0.5}, "Give 0 to below 0.5"),
        ({"tolerate": -0.1}, "Give 0 to below 0.5"),
        ({"tolerate": float("nan")}, "Give 0 to below 0.5"),
        ({"noise": -1.0, "update_clip": 1.0}, "--noise"),
        ({"noise": float("inf"), "update_clip": 1.0}, "--noise"),
        ({"update_clip": -1.0}, "--update-clip"),
        ({"robust": "krum", "cohort": 10, "tolerate": 0.4}, "with 11 devices or more, and this one has 10"),
        ({"robust": "median", "cohort": 2}, "Give --cohort 3 or more"),
        ({"robust": "trimmed-mean", "cohort": 4}, "Give --cohort 5 or more"),
        ({"robust": "median", "devices": 2, "cohort": None}, "Give --cohort 3 or more"),
    ],
    ids=str,
)
def test_what_no_judge_could_do_is_refused_with_the_cure(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config(**options)
    assert says in str(refused.value)


def test_a_cohort_as_large_as_a_refusal_asks_for_is_accepted() -> None:
    assert judge(config(robust="trimmed-mean", cohort=5)) is not None
    assert judge(config(robust="krum", cohort=11, tolerate=0.36)) is not None
    assert judge(config(robust="median", cohort=3)) is not None


def test_noise_needs_somebody_to_take_part() -> None:
    assert config(noise=1.0, update_clip=1.0).minimum == 1
    assert config(noise=1.0, update_clip=1.0, minimum=3).minimum == 3
    assert config(update_clip=1.0).minimum == 0


def test_what_judges_is_part_of_what_decides_theta() -> None:
    plain = config()
    asked: tuple[dict[str, Any], ...] = (
        {"robust": "median"}, {"robust": "krum"}, {"robust": "krum", "tolerate": 0.3}, {"update_clip": 1.0},
        {"update_clip": 1.0, "noise": 1.0}, {"update_clip": 1.0, "noise": 2.0},
    )  # fmt: skip
    assert len({plain.sha256(), *(config(**options).sha256() for options in asked)}) == 1 + len(asked)


# Clients that know nothing of tinyfl

FEATURES, ROWS = 6, 12


def own_data(node: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(node)
    x = rng.normal(0, 1, (ROWS, FEATURES))
    return x, x @ np.arange(FEATURES) + node / 10


def sgd(theta: np.ndarray, node: int, rate: float) -> tuple[np.ndarray, float]:
    x, y = own_data(node)
    w = theta.astype(np.float64)
    for row, target in zip(x, y, strict=True):
        w -= rate * (row @ w - target) * row
    return w.astype(np.float32), float(((x @ w - y) ** 2).mean())


app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    (theta,) = message.content["arrays"].to_numpy_ndarrays()
    config: Mapping[str, Any] = message.content["config"]
    phi, loss = sgd(theta, int(context.node_config["partition-id"]), config["inner-lr"])
    reply = {"weights": ArrayRecord([phi]), "metrics": MetricRecord({"num-examples": ROWS, "loss": loss})}
    return Message(RecordDict(reply), reply_to=message)


class Clients(Grid):
    """Calls the ClientApp of each node in this process."""

    NODES = (71, 12, 35, 9, 50)

    def __init__(self) -> None:
        FleetGrid(FLEET)  # sets the identity that messages ask for
        self._contexts = {
            node: Context(1, node, {"partition-id": node, "num-partitions": 5}, RecordDict(), {}) for node in self.NODES
        }

    def get_node_ids(self) -> Iterable[int]:
        return iter(self.NODES)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return [app(message, self._contexts[message.metadata.dst_node_id]) for message in messages]

    set_run = run = create_message = push_messages = pull_messages = None  # type: ignore[assignment]


class Linear:
    """Reptile's outer step on whatever clients do with the rate that they are told."""

    def inner(self, round: int) -> Inner:
        return Inner(samples=ROWS, batch=1, passes=1, lr=0.05)

    def outer(self, state: State, updates: Updates) -> State:
        return state.step(0.5 * (updates.mean() - state.theta))


@pytest.mark.parametrize("median", [False, True], ids=["mean", "median"])
def test_a_client_app_that_knows_nothing_of_tinyfl_takes_part(median: bool) -> None:
    theta = np.zeros(FEATURES, np.float32)
    losses: list[float] = []
    ours = FleetStrategy(
        Linear(), State(0, theta), cohort=5, fleet_size=5, seed=0, judge=FedMedian() if median else None,
        on_round=lambda _, updates: losses.append(updates.loss),
    )  # fmt: skip
    ours.start(Clients(), theta_record(theta), num_rounds=4)
    for round in range(4):
        told = [sgd(theta, node, 0.05) for node in Clients.NODES]
        rows = np.stack([phi for phi, _ in told]).astype(np.float64)
        middle = np.median(rows, axis=0) if median else rows.mean(axis=0)
        theta = (theta + 0.5 * (middle - theta)).astype(np.float32)
        assert losses[round] == pytest.approx(np.mean([loss for _, loss in told]))
    assert np.abs(ours.state.theta - theta).max() < 1e-6
