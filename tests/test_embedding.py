"""Embedding and EASY: what is saved has no last layer, class means are scikit-learn's, and the centre is that of training."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid

import tinyfl
from tinyfl import core
from tinyfl.cli.classes import adapt_on
from tinyfl.config import resolve
from tinyfl.core import TableSource
from tinyfl.errors import ConfigError
from tinyfl.export.infer import _episodes, _on_task
from tinyfl.networks import Preparation, network
from tinyfl.networks.layers import Activation, Loss
from tinyfl.runs.adaptation import Initialisation, adapt
from tinyfl.runs.adapted import adapted
from tinyfl.runs.learner import learner_of
from tinyfl.simulation.result import Run
from tinyfl.tasks import load_task, numbers
from tinyfl.tasks.augmented import MOVES, augmented

SETTINGS: dict[str, Any] = {
    "task": "digits", "network": "mlp-32", "rounds": 250, "cohort": 4, "tasks": 60, "shots": (1, 5), "page": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    path = tmp_path_factory.mktemp("runs")
    return {name: tinyfl.simulate(algorithm=name, out=path / name, **SETTINGS) for name in ("embedding", "easy")}


def prepared(start: Initialisation, source: TableSource) -> np.ndarray:
    """Embeddings as an initialisation prepares them, in float64."""
    found = core.embeddings(start.network.plan, start.theta, source).astype(np.float64)
    how = start.network.prepared
    centred = found if how.centre is None else found - how.centre
    return centred / np.linalg.norm(centred, axis=-1, keepdims=True) if how.normalised else centred


@pytest.mark.parametrize("name", ["embedding", "easy"])
def test_class_means_are_as_good_as_scikit_learns_on_the_same_embeddings(runs: dict[str, Run], name: str) -> None:
    start, task = Initialisation.load(runs[name].path), load_task("digits", None, 0)
    episodes = task.episodes("test", 60, 5)
    support, query = (prepared(start, each) for each in (episodes.support, episodes.query))
    told, asked = episodes.support.labels, episodes.query.labels
    assert told is not None
    assert asked is not None
    shares: dict[str, list[float]] = {"centroid": [], "logistic": []}
    for e in range(60):
        shares["centroid"].append(NearestCentroid().fit(support[e], told[e]).score(query[e], asked[e]))
        if e < 12:  # which take a second
            shares["logistic"].append(LogisticRegression(max_iter=200).fit(support[e], told[e]).score(query[e], asked[e]))
    reached = next(row["accuracy"] for row in runs[name].evaluation if row["shots"] == 5)
    assert reached == pytest.approx(np.mean(shares["centroid"]), abs=0.0006)  # a query as far from two classes
    assert np.mean(shares["centroid"][:12]) > np.mean(shares["logistic"]) - 0.03
    assert {(row["mode"], row["steps"]) for row in runs[name].evaluation} == {("means", 0)}


def test_the_initialisation_has_no_last_layer_and_starts_no_run_of_another_kind(runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["embedding"]
    start = Initialisation.load(run.path)
    assert start.network.embeds
    assert start.network.outputs == 32
    assert len(start.theta) == len(run.theta) == 65 * 32
    assert run.result["parameters"] == 65 * 32 + 33 * 40  # in training: four quarter turns of ten digits
    assert start.network.prepared.normalised
    assert start.network.prepared.centre is None
    again = tinyfl.evaluate(run.path)
    assert again["evaluation"] == run.evaluation
    assert tinyfl.simulate(resume=run.path, page=False).result["theta_sha256"] == run.result["theta_sha256"]
    for algorithm in ("embedding", "tinyreptile"):
        with pytest.raises(ConfigError, match="Give a run of that algorithm"):
            tinyfl.simulate(network=str(run.path), algorithm=algorithm, task="digits", out=tmp_path / algorithm)


def test_easys_centre_is_the_mean_of_training_samples_embeddings(runs: dict[str, Run]) -> None:
    start = Initialisation.load(runs["easy"].path)
    source = load_task("digits", None, 0).stream(numbers(0, 250), 0, 20)
    assert isinstance(source, TableSource)
    kernel, bias = next(start.network.split(start.theta))
    scores = source.inputs().reshape(-1, 64).astype(np.float64) @ kernel + bias
    embedded = np.where(scores > 0, scores, 0.1 * scores if "leaky" in start.network.name else 0)
    assert start.network.prepared.centre is not None
    np.testing.assert_allclose(start.network.prepared.centre, embedded.mean(axis=0), rtol=1e-4, atol=1e-5)


def test_augmented_shots_are_the_images_moved_by_a_pixel_under_the_same_label() -> None:
    table = np.arange(24, dtype=np.float32).reshape(2, 12)
    source = TableSource(table, np.array([[1, 0]], np.int32), labels=np.array([[3, 4]], np.int32))
    found = augmented(source, (4, 3, 1))
    assert found.labels is not None
    assert found.labels.tolist() == [[3] * len(MOVES) + [4] * len(MOVES)]
    images = found.inputs().reshape(2, len(MOVES), 4, 3)
    for image, own in zip(images, table[[1, 0]].reshape(2, 4, 3), strict=True):
        np.testing.assert_array_equal(image[0], own)
        np.testing.assert_array_equal(image[1], own[[1, 2, 3, 3]])
        np.testing.assert_array_equal(image[2], own[[0, 0, 1, 2]])
        np.testing.assert_array_equal(image[3], own[:, [1, 2, 2]])
        np.testing.assert_array_equal(image[4], own[:, [0, 0, 1]])


def test_augmented_shots_count_in_the_means_and_queries_stay_as_they_are() -> None:
    task, net = load_task("digits", None, 0), network("mlp-16", (8, 8, 1), 5, Loss.prototypes, Activation.tanh)
    theta, episodes = net.initial_weights(0), task.episodes("test", 20, 1)
    moved = augmented(episodes.support, (8, 8, 1))
    by_hand = adapted(net, theta, moved, episodes.query, (0,), b"")
    told = replace(net, prepared=Preparation(augmented=True))
    np.testing.assert_array_equal(adapted(told, theta, episodes.support, episodes.query, (0,), b"").accuracy, by_hand.accuracy)


@pytest.mark.parametrize("name", ["embedding", "easy"])
def test_an_int8_models_embeddings_are_prepared_as_the_runs(runs: dict[str, Run], name: str) -> None:
    start = Initialisation.load(runs[name].path)
    task, episodes, how = _episodes(str(runs[name].path), None, None)

    def run(x: Any) -> Any:
        rows = np.ascontiguousarray(x.reshape(1, -1, 64))
        at = np.arange(rows.shape[1], dtype=np.int32)[None]
        return core.embeddings(start.network.plan, start.theta, TableSource(rows[0], at, labels=np.zeros_like(at)))[0]

    program: Any = SimpleNamespace(input=SimpleNamespace(shape=(64,)), output=SimpleNamespace(shape=(32,)))
    shots = 5
    reached = next(row for row in runs[name].evaluation if row["shots"] == shots)
    assert _on_task(program, run, task, task.episodes("test", 60, shots), how)["accuracy"] == reached["accuracy"]
    assert len(episodes.device) == 60


@pytest.mark.parametrize("name", ["embedding", "easy"])
def test_a_board_prepares_embeddings_as_the_run_does(runs: dict[str, Run], name: str, tmp_path: Path) -> None:
    digits = load_digits()
    np.savez(tmp_path / "device.npz", x=digits.data[:90].astype(np.float32) / 16, y=digits.target[:90])
    run, data = runs[name].path, tmp_path / "device.npz"
    found = adapt_on("emulated:posix", run, data, 20)
    assert found["accuracy_on_board"] == pytest.approx(adapt(run, data, shots=20)["curve"][0]["accuracy"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"task": "sine"}, "tells classes apart, and task sine has none"),
        ({"network": "mlp"}, "has no layer for an embedding"),
        ({"network": "mlp-4"}, "gives embeddings of 4 numbers, and 5 classes need as many"),
    ],
)
def test_what_has_no_embedding_of_classes_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        learner_of(resolve({"task": "digits", "algorithm": "embedding", **options}))


def test_where_the_last_layer_does_not_fit_a_board_protonet_is_named() -> None:
    assert "--algorithm protonet" in resolve({"algorithm": "easy"}).smaller
    assert "--algorithm" not in resolve({"algorithm": "tinyreptile"}).smaller
