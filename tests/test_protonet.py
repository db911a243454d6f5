"""Prototypical networks: a run end to end, and the class means that its devices adapt by."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyfl import core, simulate
from tinyfl.algorithms.protonet import ProtoNet
from tinyfl.core import Engine, TableSource
from tinyfl.errors import ConfigError
from tinyfl.export.model import export
from tinyfl.networks import network
from tinyfl.networks.layers import Activation, Loss
from tinyfl.runs.adaptation import adapt
from tinyfl.runs.adapted import adapted
from tinyfl.runs.reevaluation import evaluate
from tinyfl.studies.table import _like
from tinyfl.tasks import load_task, numbers

OPTIONS: dict[str, Any] = {
    "task": "digits", "algorithm": "protonet", "network": "mlp-32-16", "rounds": 60, "cohort": 4, "tasks": 40, "shots": (1, 5),
    "evaluate_every": 30, "outer_step": 0.005,
}  # fmt: skip
LANES = [n for n in (1, 4, 8, 16) if n <= core.library().tinyfl_native_lanes()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return simulate(**OPTIONS, out=tmp_path_factory.mktemp("protonet") / "run")


def test_a_run_learns_embeddings_and_is_evaluated_by_class_means(run: Any) -> None:
    rows, start = run.result["evaluation"], run.result["baseline"]
    assert [(row["mode"], row["shots"], row["steps"], row["adapt_lr"]) for row in rows] == [
        ("means", n, 0, None) for n in (1, 5)
    ]
    assert all(row["accuracy"] > before["accuracy"] + 0.03 for row, before in zip(rows, start, strict=True))
    assert len(run.result["validation"]) == 2
    assert (run.result["sample_gradients"], run.result["samples_held"]) == (60 * 4 * 30, 6)
    page = (run.path / "report.html").read_text()
    assert "By class means of 1 sample of each of its 5 classes, an unseen device answers" in page
    assert " steps on " not in page
    again = evaluate(run.path, shots=(5,), tasks=40)
    assert again["evaluation"][0] == rows[1]


def test_a_new_device_stores_the_means_of_its_own_classes(run: Any, tmp_path: Path) -> None:
    episode = load_task("digits", None, 0).episodes("test", 1, 5)
    parts = (episode.support, episode.query)
    x = np.concatenate([part.inputs()[0] for part in parts])
    labels = np.concatenate([part.labels[0] for part in parts if part.labels is not None])
    np.savez(tmp_path / "device.npz", x=x, y=np.array(["ant", "bee", "cow", "dog", "eel"])[labels])
    result = adapt(run.path, tmp_path / "device.npz", shots=25, out=tmp_path / "adapted.npz")
    assert (result["mode"], result["adapt_lr"], [point["steps"] for point in result["curve"]]) == ("means", None, [0])
    saved = np.load(tmp_path / "adapted.npz")
    assert saved["means_of"].tolist() == ["ant", "bee", "cow", "dog", "eel"]
    assert saved["counts"].tolist() == [5] * 5
    net = network("mlp-32-16", (64,), 5, Loss.prototypes, Activation.leaky_relu)
    embedded = core.embeddings(net.plan, saved["theta"], episode.support)[0]
    for label, mean in enumerate(saved["means"]):
        np.testing.assert_allclose(mean, embedded[labels[:25] == label].mean(axis=0), rtol=1e-5, atol=1e-6)
    distances = ((core.embeddings(net.plan, saved["theta"], episode.query)[0][:, None] - saved["means"]) ** 2).sum(axis=2)
    assert result["curve"][0]["accuracy"] == pytest.approx((distances.argmin(axis=1) == labels[25:]).mean())


def test_weights_of_a_device_are_not_exported_since_it_has_none_of_its_own(run: Any) -> None:
    with pytest.raises(ConfigError, match="adapt by class means"):
        export(run.path, adapted=0)


def test_class_means_of_many_devices_are_the_same_with_and_without_repeated_rows() -> None:
    task = load_task("digits", None, 3)
    net = network("mlp-16", task.shape, 5, Loss.prototypes, task.activation)
    theta, episodes = net.initial_weights(1), task.episodes("test", 30, 2)
    plain = adapted(net, theta, episodes.support, episodes.query, (0, 10), b"", outputs=True)
    assert plain.outputs is not None
    assert plain.loss[0].tobytes() == plain.loss[1].tobytes()
    for d in range(0, 30, 7):
        alone = episodes.chosen(np.array([d]))
        one = adapted(net, theta, alone.support, alone.query, (0,), b"", outputs=True, engine=Engine(1, 1))
        assert one.outputs is not None
        assert (one.loss[0, 0], one.accuracy[0, 0]) == (plain.loss[0, d], plain.accuracy[0, d])
        assert np.array_equal(one.outputs[0, 0], plain.outputs[0, d])


@pytest.mark.parametrize("options", [{}, {"support": 10}, {"training_ways": 4, "samples": 11}])
def test_lanes_and_threads_change_no_bit_of_an_episode(options: dict[str, int]) -> None:
    task = load_task("digits", None, 3).in_turn()  # type: ignore[attr-defined]
    net = network("conv-4-4", (8, 8, 1), 5, Loss.prototypes, Activation.leaky_relu)
    inner = ProtoNet(rate=0.1, **options).inner(0)
    source = task.stream(numbers(0, 21), 4, inner.samples)
    assert isinstance(source, TableSource)
    made = {
        core.train(
            net.plan, net.initial_weights(3), source, numbers(0, 21), 4, inner.to_bytes(), engine=Engine(threads, lanes)
        ).sum.tobytes()
        for lanes in LANES
        for threads in (1, 3)
    }
    assert len(made) == 1


def test_a_study_compares_class_means_with_what_other_learners_lead_with() -> None:
    def row(mode: str, shots: int, steps: int) -> dict[str, Any]:
        return {"mode": mode, "shots": shots, "steps": steps}

    steps = [row(mode, shots, n) for shots in (1, 5) for mode in ("batch", "stream") for n in (0, 10)]
    assert _like(row("means", 5, 0), steps) == row("batch", 5, 10)
    assert _like(row("batch", 1, 10), [row("means", 5, 0), row("means", 1, 0)]) == row("means", 1, 0)
    assert _like(row("stream", 1, 10), [row("means", 1, 0)]) is None
    assert _like(row("stream", 1, 10), steps) == row("stream", 1, 10)


EVERYWHERE: dict[str, Any] = {
    "task": "digits", "algorithm": "protonet", "network": "conv-4-8", "devices": 4, "cohort": 4, "rounds": 2, "samples": 11,
    "tasks": 2, "shots": (1,), "seed": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def theta(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """After a run of simulated devices in one process."""
    return simulate(out=tmp_path_factory.mktemp("here") / "run", page=False, **EVERYWHERE).theta.tobytes()


@pytest.mark.usefixtures("emulators")
def test_four_emulated_boards_end_with_the_theta_of_simulated_devices(theta: bytes, tmp_path: Path) -> None:
    fleet = [{"board": "mps2-an386", "count": 4}]
    run = simulate(out=tmp_path / "run", page=False, fleet=fleet, **EVERYWHERE)
    assert run.theta.tobytes() == theta
    assert run.result["left_out"] == {}


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"samples": 5}, "Give more --samples"),
        ({"support": 4}, "--support at least as large"),
        ({"task": "sine", "network": "mlp-8"}, "Take --algorithm tinyreptile"),
        ({"training_ways": 7}, "leave --training-ways out"),
        ({"network": "mlp-32-3"}, "a wider last layer|wider last layer"),
        ({"network": "mlp"}, "mlp-64"),
    ],
)
def test_what_cannot_learn_prototypes_is_refused_with_its_cure(options: dict[str, Any], cure: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=cure):
        simulate(**{**OPTIONS, **options}, out=tmp_path / "run")
