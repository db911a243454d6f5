"""Private aggregation: what noise costs, whom it covers, and that the accounts are right."""

import json
import logging
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answers import FOLLOW, Answers, aggregated, config, content, phis
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tinyfl.aggregators import aggregator, privacy_spent, target_delta
from tinyfl.algorithms import State, Updates
from tinyfl.core import F32
from tinyfl.errors import InstallError, TrainingError
from tinyfl.flower.messages import theta_record
from tinyfl.flower.strategy import FleetStrategy
from tinyfl.simulation import simulate


def test_an_update_counts_with_at_most_the_norm_that_is_asked_for() -> None:
    theta, rows = phis(20)
    change = rows - theta
    change[0] *= 100 / np.linalg.norm(change[0])
    change[1] *= 0.5 / np.linalg.norm(change[1])
    change[2] = 0
    norms = np.linalg.norm(change, axis=1, keepdims=True)
    clipped = np.where(norms > 1, change / np.maximum(norms, 1e-30), change)
    got, _ = aggregated(aggregator(config(update_clip=1.0)), theta, [content(theta + row) for row in change])
    assert np.abs(got - (theta + clipped.mean(axis=0))).max() < 1e-5
    alone, _ = aggregated(aggregator(config(cohort=1, update_clip=1.0)), theta, [content(theta + change[0])])
    assert np.linalg.norm(alone - theta) == pytest.approx(1.0, abs=1e-5)


def test_noise_has_the_deviation_that_it_is_accounted_with() -> None:
    noise, clip, devices = 1.5, 2.0, 20
    theta = np.zeros(20_000, np.float32)
    strategy = aggregator(config(noise=noise, update_clip=clip))
    draws = [aggregated(strategy, theta, [content(theta)] * devices)[0] for _ in range(5)]
    assert np.std(draws) == pytest.approx(noise * clip / devices, rel=0.02)
    assert np.mean(draws) == pytest.approx(0, abs=6 * noise * clip / devices / math.sqrt(100_000))
    assert np.corrcoef(draws[0], draws[1])[0, 1] == pytest.approx(0, abs=0.05)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The least epsilon of Gaussian noise with sensitivity mu deviations (Balle and Wang 2018, theorem 8), by bisection."""
    from scipy.special import log_ndtr, ndtr

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

    spent = privacy_spent(aggregator(config(noise=noise, update_clip=1.0), rounds_done=rounds))
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
    whole, first, second = aggregator(asked), aggregator(asked), aggregator(asked, rounds_done=2)
    aggregated(whole, theta, list(map(content, rows)), rounds=5)
    aggregated(first, theta, list(map(content, rows)), rounds=2)
    aggregated(second, theta, list(map(content, rows)), rounds=3)
    assert privacy_spent(second) == privacy_spent(whole)
    fresh, partly, total = privacy_spent(aggregator(asked)), privacy_spent(first), privacy_spent(whole)
    assert fresh and partly and total
    assert 0 == fresh["epsilon"] < partly["epsilon"] < total["epsilon"]
    assert (fresh["releases"], partly["releases"], total["releases"]) == (0, 2, 5)


def test_without_noise_there_is_nothing_to_account_for() -> None:
    assert privacy_spent(aggregator(config())) is None
    assert privacy_spent(aggregator(config(aggregator="median"))) is None
    assert privacy_spent(aggregator(config(update_clip=1.0))) is None
    assert aggregator(config()) is None


def test_delta_is_well_below_one_in_as_many_as_there_are() -> None:
    assert target_delta(10) == target_delta(1000) == 1e-5
    assert 0 < target_delta(1_000_000) < 1e-6


def private_round(rows: np.ndarray, theta: F32, **asked: Any) -> tuple[State, list[Updates], int]:
    """The state after one private round on devices that answer with ``rows``, what it was told to be short of, and how many
    releases are accounted for."""
    private = config(cohort=len(rows), **asked)
    strategy, short = aggregator(private), list[Updates]()
    ours = FleetStrategy(
        FOLLOW, State(0, theta), cohort=len(rows), fleet_size=len(rows), seed=0, each_device=True, aggregator=strategy,
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
@settings(max_examples=40)
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
        assert short[0].devices == 20 - len(short[0].absent)
        assert (state.round, releases) == (0, 0)
        assert np.array_equal(state.theta, theta)


PRIVATE: dict[str, Any] = {
    "task": "sine", "network": "mlp-8", "nodes": "devices", "devices": 40, "cohort": 20, "rounds": 4, "tasks": 20,
    "adapt_lr": 0.01, "noise": 0.1, "update_clip": 1.0,
}  # fmt: skip


@pytest.mark.slow
def test_a_private_run_says_what_it_spent_and_nothing_of_flowers_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    flowers = logging.getLogger("flwr")
    flowers.addHandler(caplog.handler)
    flowers.setLevel(logging.INFO)
    try:
        result = simulate(out=tmp_path / "run", rate=0.15, **PRIVATE).result
        assert flowers.level == logging.INFO
    finally:
        flowers.removeHandler(caplog.handler)
        flowers.setLevel(logging.ERROR)
    assert 0 < result["left_out"]["oversized"] < 80
    assert result["privacy"]["releases"] == 4
    assert caplog.messages == []


def test_a_private_run_in_which_every_device_diverges_says_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyfl.flower.rounds.SHORT_ROUND_PAUSES", (0.0,))
    with pytest.raises(
        TrainingError, match=r"round 1 had 0 of the 1 .*the inner loop diverges\. Start a new run with a smaller"
    ):
        simulate(out=tmp_path / "run", rate=300.0, **PRIVATE)


@pytest.mark.parametrize("asked", [{"minimum": 20, "rate": 0.15}, {"minimum": 18, "rate": 0.2}], ids=str)
def test_a_short_round_that_some_have_done_says_that_the_run_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    monkeypatch.setattr("tinyfl.flower.rounds.SHORT_ROUND_PAUSES", (0.0,))
    with pytest.raises(
        TrainingError, match=r"round 1 had [1-9]\d* of .*give a smaller --minimum; then go on with: tinyfl run --resume"
    ):
        simulate(out=tmp_path / "run", **PRIVATE, **asked)


def test_noise_too_large_for_a_sum_is_an_error_that_says_so() -> None:
    theta, rows = phis(20)
    with pytest.raises(TrainingError, match="Give less --noise"):
        aggregated(aggregator(config(noise=1e5, update_clip=100.0)), theta, list(map(content, rows)))


def test_noise_without_the_accountants_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(InstallError, match=r"pip install 'tinyfl\[dp\]'"):
        aggregator(config(noise=1.0, update_clip=1.0))


def test_noise_needs_somebody_to_take_part() -> None:
    assert config(noise=1.0, update_clip=1.0).minimum == 1
    assert config(noise=1.0, update_clip=1.0, minimum=3).minimum == 3
    assert config(update_clip=1.0).minimum == 0
