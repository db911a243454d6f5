"""``tinyfl.predict``: what a saved network says of new samples, in the user's units and by the user's names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyfl
from tinyfl.errors import ConfigError, DataError, RunError
from tinyfl.networks import network
from tinyfl.networks.layers import Activation, Loss
from tinyfl.online import online

RNG = np.random.default_rng(2)
DEVICE = np.repeat(np.arange(12), 30)
X = 300 + 50 * RNG.normal(size=(360, 3))
NAMES = np.array(["idle", "walk"])[(X[:, 0] > 300).astype(int)]
KELVIN = 294 + 0.6 * (X[:, :1] - 300) + RNG.normal(size=(12, 1))[DEVICE]
QUICK: dict[str, Any] = {"task": "npz", "network": "mlp-8", "rounds": 60, "shots": (10,), "tasks": 4, "page": False}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def trained(y: Any, **options: Any) -> Path:
    np.savez("own.npz", x=X, y=y, device=DEVICE)
    np.savez("new.npz", x=X[:30], y=y[:30])
    return tinyfl.simulate(data="own.npz", out="run", **QUICK, **options).path


@pytest.mark.parametrize("y", [NAMES, KELVIN], ids=["classes", "values"])
def test_predictions_are_those_that_the_adaptation_was_measured_by(y: Any) -> None:
    run = trained(y)
    curve = tinyfl.adapt(run, "new.npz", shots=10, out="adapted.npz")["curve"]
    for weights, point in ((run, curve[0]), ("adapted.npz", curve[-1])):
        said, truth = tinyfl.predict(weights, X[10:30]), y[10:30]
        assert said.shape == truth.shape
        if y is NAMES:
            assert set(said) <= set(NAMES)
            assert (said == truth).mean() == pytest.approx(point["accuracy"])
        else:
            assert ((said - truth) ** 2).mean() == pytest.approx(point["loss"], rel=1e-4)


def test_labels_have_probabilities() -> None:
    with np.load(trained(KELVIN) / "initialisation.npz") as saved:
        arrays = dict(saved)
    net = network("mlp-8", (3,), 1, Loss.sigmoid_cross_entropy, Activation.relu)
    np.savez("labels.npz", **{**arrays, "network": net.name, "plan": np.frombuffer(net.plan.bytes, np.uint8)})
    outputs = (tinyfl.predict("run", X) - arrays["target_mean"]) / arrays["target_scale"]
    assert tinyfl.predict("labels.npz", X) == pytest.approx(1 / (1 + np.exp(-outputs)), abs=1e-6)


def test_what_cannot_be_predicted_is_refused_with_a_cure() -> None:
    run = trained(NAMES, algorithm="tinymetafed")
    with pytest.raises(ConfigError, match=r"Take a device's: .*tinyfl adapt"):
        tinyfl.predict(run, X)
    tinyfl.adapt(run, "new.npz", shots=10, out="adapted.npz")
    assert len(tinyfl.predict("adapted.npz", X)) == 360
    assert online("adapted.npz", samples=10)["task"] == "npz"  # the run's held-out devices
    with pytest.raises(DataError, match="x has 2 inputs per row"):
        tinyfl.predict("adapted.npz", X[:, :2])
    with pytest.raises(DataError, match="not numbers"):
        tinyfl.predict("adapted.npz", NAMES)
    with pytest.raises(RunError, match="holds no"):
        tinyfl.predict("nowhere", X)
