"""Evaluation against scikit-learn and a plain NumPy adaptation written apart."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyfl import core
from tinyfl.algorithms import Phase, nearest_mean
from tinyfl.errors import TrainingError
from tinyfl.networks import Activation, Loss, network
from tinyfl.runs import evaluation
from tinyfl.tasks import load_task


def test_nearest_mean_is_scikit_learns_nearest_centroid() -> None:
    from sklearn.neighbors import NearestCentroid

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 15, 6)).astype(np.float32), np.tile(np.arange(15) % 4, (20, 1)).astype(np.int32)
    query_x, query_y = rng.normal(size=(20, 30, 6)).astype(np.float32), rng.integers(0, 4, (20, 30)).astype(np.int32)
    theirs = [np.mean(NearestCentroid().fit(x[d], y[d]).predict(query_x[d]) == query_y[d]) for d in range(20)]
    np.testing.assert_allclose(nearest_mean.accuracy(x, y, query_x, query_y, 5), theirs, atol=1e-6)


def plain_adaptation(theta: np.ndarray, x: np.ndarray, y: np.ndarray, rate: float, steps: int, stream: bool) -> np.ndarray:
    """1-h-1 tanh with mean squared error in float64, by the chain rule."""
    h = (len(theta) - 1) // 3
    w1, b1, w2, b2 = (part.copy() for part in np.split(theta.astype(np.float64), [h, 2 * h, 3 * h]))
    for _ in range(steps):
        batches = np.split(np.arange(len(x)), len(x)) if stream else [np.arange(len(x))]
        for batch in batches:
            a = np.tanh(np.outer(x[batch], w1) + b1)
            d = 2 * (a @ w2 + b2 - y[batch]) / len(batch)
            hidden = np.outer(d, w2) * (1 - a**2)
            w2, b2 = w2 - rate * d @ a, b2 - rate * d.sum()
            w1, b1 = w1 - rate * x[batch] @ hidden, b1 - rate * hidden.sum(axis=0)
    return np.concatenate([w1, b1, w2, b2])


@pytest.mark.parametrize("stream", [False, True])
def test_adaptation_is_gradient_descent_on_the_support_set(stream: bool) -> None:
    task = load_task("sine", None, 0)
    net = network("mlp-12-tanh", (1,), 1, Loss.mean_squared_error, Activation.tanh)
    theta, episodes = net.initial_weights(1), task.episodes("test", 20, 8)
    adapted = core.adapt(
        net.plan,
        theta,
        episodes.support,
        episodes.query,
        (0, 3, 20),
        evaluation.inner_loop("stream" if stream else "batch", 8, 20, 0.02),
        weights=True,
        outputs=True,
    )
    assert adapted.weights is not None
    assert adapted.outputs is not None
    for device in range(20):
        rows = episodes.support.rows[device]
        x, y = episodes.support.table[rows, 0], episodes.support.targets[rows, 0]  # type: ignore[index]
        expected = plain_adaptation(theta, x, y, 0.02, 20, stream)
        np.testing.assert_allclose(adapted.weights[device], expected, atol=1e-4)
    truth = episodes.query.targets[episodes.query.rows]  # type: ignore[index]
    losses = ((adapted.outputs - truth) ** 2).mean(axis=(2, 3))
    np.testing.assert_allclose(adapted.loss, losses, rtol=1e-4)


def test_accuracy_is_the_share_of_right_argmaxes() -> None:
    task = load_task("digits", None, 0)
    net = network("mlp-8", (64,), 5, task.loss, task.activation)
    episodes = task.episodes("test", 30, 1)
    adapted = core.adapt(
        net.plan,
        net.initial_weights(0),
        episodes.support,
        episodes.query,
        (0, 5),
        evaluation.inner_loop("batch", 5, 5, 0.5),
        outputs=True,
    )
    assert adapted.outputs is not None
    right = (adapted.outputs.argmax(axis=3) == episodes.query.labels).mean(axis=2)
    np.testing.assert_allclose(adapted.accuracy, right, atol=1e-6)


def test_a_device_that_diverges_has_infinite_loss_and_does_not_spoil_its_neighbours() -> None:
    task = load_task("sine", None, 0)
    net = network("mlp-8-relu", (1,), 1, Loss.mean_squared_error, Activation.relu)
    episodes = task.episodes("test", 40, 10)
    adapted = core.adapt(
        net.plan, net.initial_weights(0), episodes.support, episodes.query, (0, 40),
        evaluation.inner_loop("stream", 10, 40, 0.12),
        weights=True, outputs=True,
    )  # fmt: skip
    assert np.isfinite(adapted.loss[0]).all()
    diverged = ~np.isfinite(adapted.loss[1])
    alone = core.adapt(
        net.plan, net.initial_weights(0), episodes.support, episodes.query, (0, 40),
        evaluation.inner_loop("stream", 10, 40, 0.12),
        weights=True, outputs=True, engine=core.Engine(1, 1),
    )  # fmt: skip
    for ours, theirs in ((adapted.loss, alone.loss), (adapted.weights, alone.weights), (adapted.outputs, alone.outputs)):
        assert np.array_equal(ours, theirs)
    assert 0 < diverged.sum() < 40


def test_the_interval_is_over_devices_not_draws() -> None:
    values = np.array([1, 1, 1, 1, 3, 3, 3, 3], np.float32)
    device = np.repeat([0, 1], 4)
    mean, width, devices = evaluation.mean_and_interval(values, device)
    assert (mean, devices) == (2.0, 2)
    assert width == pytest.approx(12.706 * np.sqrt(2) / np.sqrt(2), rel=1e-3)  # t of 1 degree of freedom


def test_the_interval_covers_the_truth_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        mean, width, _ = evaluation.mean_and_interval(rng.normal(size=10).astype(np.float32), np.arange(10))
        hits += abs(mean) <= width
    assert 0.935 < hits / 2000 < 0.965


def test_the_rate_is_chosen_for_each_initialisation_by_itself() -> None:
    task = load_task("digits", None, 0)
    net = network("mlp-16", (64,), 5, task.loss, task.activation)
    theta = net.initial_weights(0)
    rate = evaluation.choose_rate(task, net, theta, "batch", 1, 0.0, core.FASTEST)
    episodes = task.episodes("validation", evaluation.VALIDATION_EPISODES, 1)
    score = {
        r: core.adapt(
            net.plan, theta, episodes.support, episodes.query, (10,), evaluation.inner_loop("batch", 5, 10, r)
        ).accuracy.mean()
        for r in evaluation.RATES
    }
    assert score[rate] == max(score.values())


@pytest.mark.parametrize("name", ["sine", "digits"])
def test_an_initialisation_that_always_diverges_is_an_error(name: str) -> None:
    task = load_task(name, None, 0)
    net = network("mlp-8-relu", task.shape, task.outputs, task.loss, Activation.relu)
    with pytest.raises(TrainingError, match="diverges"):
        evaluation.choose_rate(task, net, net.initial_weights(0) * np.float32(1e12), "batch", 1, 0.0, core.FASTEST)


def head_first(phase: Phase) -> tuple[Phase, ...]:
    """Three passes of the head, then the rest of them for all layers."""
    return replace(phase, passes=3, layers=2), replace(phase, passes=phase.passes - 3)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["sine", "digits"]),
    mode=st.sampled_from(evaluation.MODES),
    # Rates too small to tell apart, repeated rates, and rates at which some devices or all diverge.
    rates=st.lists(st.sampled_from([1e-12, 2e-12, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0, 1e6]), min_size=1, max_size=9),
    adaptation=st.sampled_from([evaluation.plain_adaptation, head_first]),
    scale=st.sampled_from([0.1, 1.0, 5.0]),
    devices=st.integers(1, 70),
    threads=st.sampled_from([1, 2, 5]),
    lanes=st.sampled_from([0, 4, 1]),
)
def test_a_race_is_won_by_the_rate_that_measuring_every_rate_on_every_device_would_choose(
    name, mode, rates, adaptation, scale, devices, threads, lanes
) -> None:
    task = load_task(name, None, 0)
    net = network("mlp-8-relu", task.shape, task.outputs, task.loss, Activation.relu)
    theta, episodes = net.initial_weights(0) * np.float32(scale), task.episodes("validation", devices, 2)
    call = (net.plan, theta, episodes.support, episodes.query)
    loops = [evaluation.inner_loop(mode, episodes.support.samples, 5, rate, 0.0, adaptation) for rate in rates]
    raced = core.race(*call, 5, loops, by_accuracy=net.classifies, engine=core.Engine(threads, lanes))
    scores = []
    for loop, ours in zip(loops, raced, strict=True):
        whole = core.adapt(*call, (5,), loop)
        scores.append(float(whole.accuracy.mean(dtype=np.float64) if net.classifies else -whole.loss.mean(dtype=np.float64)))
        measured = int((~np.isnan(ours.loss)).sum())
        for part, of in ((ours.loss, whole.loss), (ours.accuracy, whole.accuracy)):
            assert np.array_equal(part[:, :measured], of[:, :measured])
            assert np.isnan(part[:, measured:]).all()
    for score, ours in zip(scores, raced, strict=True):
        assert score < max(scores) or not np.isnan(ours.loss).any()


@pytest.mark.parametrize(("name", "shots"), [("sine", 10), ("digits", 1)])
def test_a_race_spares_the_losers_most_devices(name: str, shots: int) -> None:
    task = load_task(name, None, 0)
    net = network("mlp-16", task.shape, task.outputs, task.loss, task.activation)
    episodes = task.episodes("validation", 200, shots)
    raced = core.race(
        net.plan, net.initial_weights(0), episodes.support, episodes.query, 10,
        [evaluation.inner_loop("stream", episodes.support.samples, 10, rate) for rate in evaluation.RATES],
        by_accuracy=net.classifies,
    )  # fmt: skip
    assert sum((~np.isnan(each.loss)).sum() for each in raced) < 0.75 * 200 * len(evaluation.RATES)


@pytest.mark.parametrize("name", ["sine", "digits"])
@pytest.mark.parametrize("mode", evaluation.MODES)
def test_on_a_tie_the_lower_rate_is_chosen(name: str, mode: evaluation.Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task(name, None, 0)
    net = network("mlp-8", task.shape, task.outputs, task.loss, task.activation)
    monkeypatch.setattr(evaluation, "RATES", (1e-15, 2e-15, 3e-15))
    assert evaluation.choose_rate(task, net, net.initial_weights(0), mode, 1, 0.0, core.FASTEST) == 1e-15


def test_a_race_that_does_not_fit_is_refused() -> None:
    task = load_task("sine", None, 0)
    net = network("mlp-8", task.shape, task.outputs, task.loss, task.activation)
    episodes = task.episodes("validation", 3, 4)
    call = (net.plan, net.initial_weights(0), episodes.support, episodes.query, 5)
    good = evaluation.inner_loop("batch", 4, 5, 0.1)
    for loops in ([], [good] * 65, [good, good[:-1]], [good, evaluation.inner_loop("batch", 3, 5, 0.1)], [good[:4]]):
        with pytest.raises(ValueError):
            core.race(*call, loops, by_accuracy=False)
    with pytest.raises(ValueError, match="at least 6"):
        core.race(*call[:4], 6, [good], by_accuracy=False)
