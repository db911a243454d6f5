"""Scores of several labels, against scikit-learn, and a plain NumPy form of FLAIR's thresholds written apart."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from tinyfl import core
from tinyfl.networks import Activation, Loss, network
from tinyfl.runs import evaluation, floors
from tinyfl.runs.multilabel import average_precision, binned_average_precision, first_of_each, label_scores
from tinyfl.tasks import Episodes


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (samples, labels), many of them equal and some far out, their truth, and devices."""
    samples, labels = draw(st.integers(1, 60)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    outputs = rng.normal(0, draw(st.sampled_from([0.1, 1, 30])), (samples, labels)).astype(np.float32)
    if draw(st.booleans()):
        outputs = outputs.round(1)
    truth = rng.random((samples, labels)) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    return outputs, truth, rng.integers(0, draw(st.integers(1, 30)), samples).astype(np.int32)


def by_thresholds(outputs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """FLAIR's average precision of each label, threshold by threshold."""
    probabilities = 1 / (1 + np.exp(-outputs.astype(np.float64)))
    thresholds = [-1e-7, *((i + 1) / 199 for i in range(198)), 1 + 1e-7]
    found = np.zeros(truth.shape[1])
    for label in range(truth.shape[1]):
        precisions, recalls = [], []
        for threshold in thresholds:
            yes = probabilities[:, label] > threshold
            right = np.sum(yes & truth[:, label])
            precisions.append(right / yes.sum() if yes.any() else 0.0)
            recalls.append(right / truth[:, label].sum() if truth[:, label].any() else 0.0)
        found[label] = sum((recalls[i] - recalls[i + 1]) * precisions[i] for i in range(199))
    return found


@settings(max_examples=30)
@given(answers())
def test_scores_are_scikit_learns_and_those_of_200_thresholds(made: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    outputs, truth, device = made
    scores = label_scores(outputs, truth, device)
    binary = [outputs[:, :1], truth[:, :1]] if truth.shape[1] == 1 else [outputs, truth]  # scikit-learn's one column
    theirs: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of labels that nothing has
        for average in ("macro", "micro"):
            theirs[f"{average}_ap"] = average_precision_score(binary[1], binary[0], average=average)
        each = [
            [score(truth[:, j], outputs[:, j] > 0, zero_division=0) for j in range(truth.shape[1])]
            for score in (precision_score, recall_score, f1_score)
        ]
        theirs["macro_precision"], theirs["macro_recall"], theirs["macro_f1_sklearn"] = map(np.mean, each)
        for name, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
            theirs[f"micro_{name}"] = score(truth.ravel(), outputs.ravel() > 0, zero_division=0)
    theirs["macro_ap_200"] = by_thresholds(outputs, truth).mean()
    theirs["micro_ap_200"] = by_thresholds(outputs.reshape(-1, 1), truth.reshape(-1, 1))[0]
    for name, value in theirs.items():
        assert getattr(scores, name) == pytest.approx(value, abs=1e-6), name
    both = scores.macro_precision + scores.macro_recall
    assert scores.macro_f1_flair * both == pytest.approx(2 * scores.macro_precision * scores.macro_recall)
    assert (scores.answered, scores.labels_seen) == (len(truth), np.count_nonzero(truth.any(axis=0)))


@given(answers())
def test_a_weight_of_a_sample_is_how_often_it_is_there(made: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    outputs, truth, device = made
    times = device % 3
    if not times.any():
        return
    repeated = average_precision(np.repeat(outputs[:, 0], times), np.repeat(truth[:, 0], times))
    assert average_precision(outputs[:, 0], truth[:, 0], times[None].astype(float)) == pytest.approx(repeated)


def test_two_hundred_thresholds_and_the_exact_form_differ_where_answers_are_close() -> None:
    outputs, truth = np.float32([[0.001], [0.002], [0.003], [-9]]), np.array([[True], [False], [True], [True]])
    assert average_precision(outputs[:, 0], truth[:, 0])[0] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert binned_average_precision(outputs, truth)[0] == pytest.approx(2 / 3 * 2 / 3 + 1 / 3 * 3 / 4)


def test_the_interval_of_macro_average_precision_is_over_devices_and_covers_the_truth() -> None:
    rng = np.random.default_rng(0)

    def sample(devices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Answers of devices with ten samples each, all of one device's too high or too low together."""
        device = np.repeat(np.arange(devices, dtype=np.int32), 10)
        truth = rng.random((len(device), 2)) < 0.3
        return (
            (truth + rng.normal(0, 1, truth.shape) + rng.normal(0, 1, (devices, 1))[device]).astype(np.float32),
            truth,
            device,
        )

    exact = label_scores(*sample(5_000)).macro_ap
    found = [label_scores(*sample(40)) for _ in range(150)]
    covered = [abs(each.macro_ap - exact) <= each.macro_ap_ci95 for each in found if each.macro_ap_ci95]
    assert len(covered) == 150
    assert 0.9 < np.mean(covered) < 0.99
    assert label_scores(*sample(1)).macro_ap_ci95 is None


def test_a_label_of_one_device_alone_widens_no_interval_by_being_left_out() -> None:
    device = np.repeat(np.arange(30, dtype=np.int32), 4)
    truth = np.stack([np.arange(120) % 2 == 0, device == 7], axis=1)
    scores = label_scores(np.where(truth, 1, -1).astype(np.float32), truth, device)
    assert (scores.macro_ap, scores.macro_ap_ci95) == (1, 0)


def test_a_sample_that_a_device_repeats_counts_once() -> None:
    rows = np.random.default_rng(0).integers(0, 6, (20, 9)).astype(np.int32)
    first = first_of_each(rows)
    for row, kept in zip(rows, first, strict=True):
        assert np.flatnonzero(kept).tolist() == sorted(np.unique(row, return_index=True)[1].tolist())


class Labels:
    """Devices with three labels of points in a plane, of which some repeat their queries."""

    name, shape, outputs, loss, standardisation = "labels", (2,), 3, Loss.sigmoid_cross_entropy, None

    def episodes(self, split: str, count: int, shots: int) -> Episodes:
        rng = np.random.default_rng(count)
        table = rng.normal(size=(40 * count, 2)).astype(np.float32)
        targets = (table @ rng.normal(size=(2, 3)) > 0.3).astype(np.float32)
        rows = np.arange(40 * count, dtype=np.int32).reshape(count, 40)
        query = np.where(np.arange(20) < 12, rows[:, 20:], rows[:, 20:21])
        parts = (np.ascontiguousarray(each) for each in (rows[:, :shots], query))
        support, query_source = (core.TableSource(table, each, targets=targets) for each in parts)
        return Episodes(support, query_source, np.arange(count, dtype=np.int32))


def test_rows_of_an_evaluation_are_the_scores_of_each_query_sample_once(monkeypatch: pytest.MonkeyPatch) -> None:
    task: Any = Labels()
    net = network("mlp-6-tanh", (2,), 3, task.loss, Activation.tanh)
    theta, episodes = net.initial_weights(0), task.episodes("test", 30, 8)
    whole = evaluation.measure(task, net, theta, shots=(8,), tasks=30, adapt_lr=0.5)
    monkeypatch.setattr(evaluation, "OUTPUTS_AT_ONCE", 1)
    assert evaluation.measure(task, net, theta, shots=(8,), tasks=30, adapt_lr=0.5) == whole
    loop = evaluation.inner_loop("batch", 8, 10, 0.5)
    adapted = core.adapt(net.plan, theta, episodes.support, episodes.query, (10,), loop, outputs=True)
    assert adapted.outputs is not None
    truth = episodes.query.targets[episodes.query.rows[:, :12]].reshape(-1, 3)
    row = next(row for row in whole if (row.mode, row.steps) == ("batch", 10))
    theirs = average_precision_score(truth, adapted.outputs[0, :, :12].reshape(-1, 3))
    assert row.labels is not None
    assert (row.labels.macro_ap, row.labels.answered) == (pytest.approx(theirs), 30 * 12)
    assert row.loss == pytest.approx(adapted.loss[0].mean(), rel=1e-6)
    assert row.as_json()["micro_f1"] == row.labels.micro_f1
    assert "macro_ap" not in evaluation.Row("batch", 1, 0, 0.1, 1.0, 0.1, 0.5, 0.1, 9).as_json()


def test_the_floor_of_labels_is_their_share_in_the_support_set() -> None:
    task: Any = Labels()
    net = network("mlp-6-tanh", (2,), 3, task.loss, Activation.tanh)
    (row,) = floors.floor(task, net, shots=(8,), tasks=30)
    episodes = task.episodes("test", 30, 8)
    shares = (episodes.support.targets[episodes.support.rows].sum(axis=1) + 1) / 10
    truth = episodes.query.targets[episodes.query.rows]
    loss = -np.where(truth > 0, np.log(shares)[:, None], np.log(1 - shares)[:, None]).mean()
    flat = np.repeat(shares[:, None], 12, axis=1).reshape(-1, 3)
    assert (row["method"], row["loss"]) == ("support mean", pytest.approx(loss))
    assert row["macro_ap"] == pytest.approx(average_precision_score(truth[:, :12].reshape(-1, 3), flat))
    evaluated = {"shots": 8, "mode": "batch", "steps": 10, "accuracy": None, "loss": 9.0}
    for reached, worse in ((row["macro_ap"] + 0.01, []), (row["macro_ap"] - 0.01, [row])):
        result = {"evaluation": [{**evaluated, "macro_ap": reached}], "floor": [row]}
        assert floors.worse_than_floor(result) == worse
