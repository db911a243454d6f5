"""tinyfl infer on this machine; boards are in tests/export/test_on_boards.py."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyfl.errors import ConfigError, DataError, TinyflError
from tinyfl.export.infer import infer
from tinyfl.networks import network
from tinyfl.networks.layers import Activation, Loss

pytestmark = pytest.mark.usefixtures("tensorflow")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tinyfl.export.convert import convert

    net = network("conv-4", (8, 8, 1), 5, Loss.softmax_cross_entropy, Activation.relu)
    seen = np.random.default_rng(0).uniform(0, 1, (50, 8, 8, 1)).astype(np.float32)
    path = tmp_path_factory.mktemp("model") / "model.tflite"
    path.write_bytes(convert(net, net.initial_weights(3), seen))
    return path


def test_a_batch_of_floats_gives_what_its_quantised_values_give(model: Path, tmp_path: Path) -> None:
    from tinyfl.int8.native import load_program, quantized, run_native

    x = np.random.default_rng(1).uniform(0, 1, (6, 8, 8, 1))
    program = load_program(model)
    raw = quantized(program.input, x.astype(np.float32))
    for name, batch in (("floats", x), ("raw", raw)):
        np.save(tmp_path / f"{name}.npy", batch)
        said = infer(model, input=tmp_path / f"{name}.npy", output=tmp_path / f"{name}-y.npy")
        assert (said["inputs"], said["dtype"], said["shape"]) == (6, "int8", [5])
        assert np.array_equal(np.load(tmp_path / f"{name}-y.npy"), run_native(program, raw))


def test_accuracy_on_a_task_is_that_of_its_query_sets(model: Path) -> None:
    from tinyfl.int8.native import load_program, run_native
    from tinyfl.tasks import load_task

    said = infer(model, task="digits")
    query = load_task("digits", None, 0).episodes("test", 100, 1).query
    assert query.gain is not None
    x = query.gain[:, None, None] * query.table[query.rows]
    y = run_native(load_program(model), x.reshape(-1, 8, 8, 1)).reshape(*query.rows.shape, 5)
    assert said["devices"] == 100
    assert said["accuracy"] == pytest.approx((y.argmax(axis=2) == query.labels).mean(), abs=1e-6)


@pytest.mark.parametrize("end", ["int8", "float32"])
def test_labels_are_right_above_one_half_however_a_model_gives_probabilities(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str
) -> None:
    import tensorflow as tf

    from tinyfl.core import TableSource
    from tinyfl.tasks import Episodes

    keras = tf.keras
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="sigmoid")])
    net.layers[-1].set_weights([np.eye(4, 2, dtype=np.float32) * 4, np.zeros(2, np.float32)])
    x = np.random.default_rng(0).uniform(-1, 1, (64, 4)).astype(np.float32)
    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in x)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = getattr(tf, end)
    (tmp_path / "model.tflite").write_bytes(converter.convert())

    source = TableSource(x, np.arange(64, dtype=np.int32)[None], targets=(x[:, :2] > 0).astype(np.float32))

    class Labels:
        name, shape, outputs, loss = "labels", (4,), 2, Loss.sigmoid_cross_entropy
        standardisation = None

        def episodes(self, *_: object) -> Episodes:
            return Episodes(source, source, np.zeros(1, np.int32))

    monkeypatch.setattr("tinyfl.export.infer.load_task", lambda *_, **__: Labels())
    assert infer(tmp_path / "model.tflite", task="labels")["accuracy"] > 0.95


def test_what_cannot_be_inferred_from_is_refused_with_what_to_do(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 7, 8, 1), np.float32))
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "cut.tflite").write_bytes(model.read_bytes()[:500])
    x, out = tmp_path / "x.npy", tmp_path / "y.npy"
    wrong: list[tuple[type[TinyflError], str, dict[str, Any]]] = [
        (ConfigError, "there is no input", {}),
        (ConfigError, "go together", {"input": x}),
        (ConfigError, "the model needs", {"input": x, "output": out}),
        (DataError, "numpy.save", {"input": tmp_path / "text.npy", "output": out}),
        (DataError, "cannot be read", {"input": tmp_path / "missing.npy", "output": out}),
        (ConfigError, "emulated:BOARD", {"task": "digits", "on": "emulated:"}),
        (ConfigError, "run's directory", {"task": "digits", "device": 0}),
        (ConfigError, "the model has 64 inputs", {"task": "sine"}),
    ]
    for kind, what, options in wrong:
        with pytest.raises(kind, match=what):
            infer(model, **options)
    with pytest.raises(DataError):
        infer(tmp_path / "cut.tflite", task="digits")
    assert not out.exists()
