"""Runs that start from the user's own Keras file: on the inputs that it was trained on, by the loss that it was made for."""

from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest

import tinyfl
from tinyfl.cli.show import runs as show
from tinyfl.errors import ConfigError, DataError, TinyflError
from tinyfl.networks.keras import from_keras
from tinyfl.networks.layers import Loss
from tinyfl.report import page as report
from tinyfl.runs.directory import RunDirectory
from tinyfl.simulation.result import Run

DEVICE = np.repeat(np.arange(12), 20)
RNG = np.random.default_rng(0)
YES = RNG.integers(0, 2, len(DEVICE))
X = (5 + 2 * RNG.normal(size=(len(DEVICE), 4)) + 3 * YES[:, None]).astype(np.float32)
COUNTS = RNG.integers(0, 40, len(DEVICE))
HELD_OUT = [2, 7]


@pytest.fixture(autouse=True, scope="module")
def load_keras(tensorflow: Any) -> None:
    """Loads Keras for the tests: collection does without it."""
    global keras, L
    import keras
    from keras import layers as L


def saved(path: Path, units: int, activation: str, loss: Any) -> Path:
    """A model with weights that answer, saved as a user does."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), L.Dense(6, activation="tanh"), L.Dense(units, activation=activation)])
    if loss:
        model.compile("adam", loss() if callable(loss) else loss)
    model.save(path)
    return path


def learn(folder: Path, file: Path, y: Any, **options: Any) -> Run:
    np.savez(folder / "own.npz", x=X, y=y, device=DEVICE, split=HELD_OUT)
    settings = {"rounds": 3, "tasks": 20, "shots": (5,), "out": folder / "run"}
    return tinyfl.simulate(task="npz", data=str(folder / "own.npz"), network=str(file), **{**settings, **options})


def answers(file: Path, x: np.ndarray) -> np.ndarray:
    return np.asarray(keras.saving.load_model(file)(x))


def logits() -> Any:
    return keras.losses.BinaryCrossentropy(from_logits=True)


@pytest.mark.parametrize("form", ["whole", "floats", "truth", "one-hot"])
@pytest.mark.parametrize(("activation", "loss"), [("sigmoid", "binary_crossentropy"), ("linear", logits), ("sigmoid", None)])
def test_a_classifier_with_one_output_starts_with_its_own_answers(
    tmp_path: Path, no_page: None, activation: str, loss: Any, form: str
) -> None:
    file = saved(tmp_path / "binary.keras", 1, activation, loss)
    y = {"whole": YES, "floats": YES.astype(np.float32), "truth": YES == 1, "one-hot": np.eye(2)[YES]}[form]
    if form != "whole" and activation == "linear":
        pytest.skip("the form of y and the end of the model have nothing to do with each other")
    run = learn(tmp_path, file, y)
    network, theta = from_keras(file, loss=Loss.softmax_cross_entropy)
    assert network.outputs == 2

    logits = nets.outputs(network, theta, X)
    probability = 1 / (1 + np.exp(-answers(file, X).ravel())) if activation == "linear" else answers(file, X).ravel()
    np.testing.assert_allclose(1 / (1 + np.exp(logits[:, 0] - logits[:, 1])), probability, atol=1e-6)
    assert run.evaluation[0]["accuracy"] is not None
    assert any("single yes-or-no output became two" in note for note in run.result["notes"])


def test_a_files_weights_start_from_inputs_as_they_are_and_are_called_the_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = saved(tmp_path / "own.keras", 2, "softmax", "sparse_categorical_crossentropy")
    run = learn(tmp_path, file, YES)
    held_out = np.isin(DEVICE, HELD_OUT)
    right = (answers(file, X[held_out]).argmax(axis=1) == YES[held_out]).mean()
    assert run.baseline[0]["accuracy"] == pytest.approx(right, abs=0.06), "query sets are drawn from those samples"
    scaled = learn(tmp_path, file, YES, standardise=True, out=tmp_path / "scaled")
    assert scaled.result["theta_sha256"] != run.result["theta_sha256"]
    assert not RunDirectory(run.path).config().standardise
    assert run.result["start"] == "your weights"
    show.run(run.result)
    page = (run.path / "report.html").read_text()
    for words in (capsys.readouterr().out, page):
        assert "your weights" in words
        assert "random" not in words.lower().replace("random.png", "")
    assert "start: your weights, from own.keras" in page
    assert "x: as it is in the file" in page
    report.rebuild(run.path)
    assert (run.path / "report.html").read_text() == page, "the rebuilt page starts from the file's weights too"
    file.write_bytes(file.read_bytes() + b"more")
    report.rebuild(run.path)
    assert "own.keras was changed since the run" in (run.path / "report.html").read_text()


@pytest.mark.parametrize(
    ("units", "activation", "loss", "y", "options", "accuracy", "says"),
    [
        (1, "linear", "mse", COUNTS, {}, False, "values to predict"),
        (1, "linear", "mae", COUNTS, {}, False, "mean_squared_error, instead of mean_absolute_error"),
        (1, "linear", None, COUNTS, {"targets": "values"}, False, "values to predict"),
        (2, "softmax", "categorical_crossentropy", np.eye(2)[YES], {}, True, "one-hot rows"),
        (2, "softmax", None, YES.astype(float), {}, True, "in an array of floats"),
        (2, "linear", "mse", np.eye(2)[YES], {}, False, "values to predict"),
        (2, "linear", "mse", YES, {"targets": "classes"}, True, "softmax_cross_entropy, instead of mean_squared_error"),
    ],
)
def test_the_loss_that_a_file_was_made_for_says_what_y_holds(
    tmp_path: Path,
    no_page: None,
    units: int,
    activation: str,
    loss: Any,
    y: np.ndarray,
    options: dict[str, Any],
    accuracy: bool,
    says: str,
) -> None:
    run = learn(tmp_path, saved(tmp_path / "own.keras", units, activation, loss), y, rate=1e-5, adapt_lr=1e-4, **options)
    assert (run.evaluation[0]["accuracy"] is not None) == accuracy
    assert says in "\n".join(run.result["notes"])
    assert tinyfl.simulate(resume=run.path).result["theta_sha256"] == run.result["theta_sha256"]


@pytest.mark.parametrize(
    ("units", "activation", "loss", "y", "options", "kind", "says"),
    [
        (2, "softmax", "categorical_crossentropy", YES + 0.5, {}, DataError, r"array y is float64 .* and has [01]\.5 in row 0"),
        (2, "softmax", None, YES + 0.5, {"targets": "values"}, ConfigError, "targets are values to predict.*no activation"),
        (1, "linear", None, COUNTS, {}, ConfigError, "y has 38 classes, one output each; or, .* give --targets values"),
        (3, "linear", "mse", YES, {}, ConfigError, "3 outputs, .* if y are classes, give --targets classes"),
        (2, "tanh", None, YES, {}, ConfigError, "ends in tanh, but the task's classes .* one output per class"),
        (2, "sigmoid", "binary_crossentropy", YES, {}, ConfigError, "ends in sigmoid, but the task's classes"),
    ],
)
def test_what_a_file_and_y_cannot_do_together_is_said_of_both(
    tmp_path: Path,
    units: int,
    activation: str,
    loss: Any,
    y: np.ndarray,
    options: dict[str, Any],
    kind: type[TinyflError],
    says: str,
) -> None:
    with pytest.raises(kind, match=says):
        learn(tmp_path, saved(tmp_path / "own.keras", units, activation, loss), y, **options)


def test_a_file_whose_loss_keras_cannot_read_back_still_starts_a_run(tmp_path: Path, no_page: None) -> None:
    run = learn(tmp_path, saved(tmp_path / "old.h5", 1, "linear", "mse"), X[:, 0] / 10, rate=1e-4)
    assert run.evaluation[0]["accuracy"] is None
