"""Frozen layers, from the option to the adapted device."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyfl
from tinyfl.config import resolve
from tinyfl.errors import ConfigError, RunError
from tinyfl.networks import BATCHES, SINGLE, network
from tinyfl.runs.adaptation import Initialisation
from tinyfl.tasks import load_task

SMALL: dict[str, Any] = {
    "task": "digits", "network": "conv-4-6-leaky-relu", "devices": 20, "cohort": 4, "rounds": 6, "tasks": 10, "samples": 6,
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick(no_page: None) -> None:
    """No run here is about its page."""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """8 devices, each with 30 images of 6 x 6 that are bright above or below."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 240)
    x = rng.normal(0, 0.3, (240, 6, 6))
    x[y == 0, :3] += 1
    x[y == 1, 3:] += 1
    path = tmp_path / "images.npz"
    np.savez(path, x=x, y=y, device=np.repeat(np.arange(8), 30))
    return path


@pytest.mark.parametrize("algorithm", ["tinyreptile", "reptile"])
@pytest.mark.parametrize("freeze", range(3))
def test_the_first_layers_keep_what_they_start_from_and_the_others_learn(tmp_path: Path, algorithm: str, freeze: int) -> None:
    batch = 3 if algorithm == "reptile" else 1
    run = tinyfl.simulate(**SMALL, algorithm=algorithm, batch=batch, freeze=freeze, out=tmp_path / "run")
    task = load_task("digits", None, 0)
    net = network(SMALL["network"], task.shape, task.outputs, task.loss, task.activation)
    moved = []
    for (kernel, bias), (first, zero) in zip(net.split(run.theta), net.split(net.initial_weights(0)), strict=True):
        moved.append((not np.array_equal(kernel, first), not np.array_equal(bias, zero)))
    assert moved == [(i >= freeze, i >= freeze) for i in range(3)]
    held = Initialisation.load(tmp_path / "run")
    assert [layer.learns for layer in held.network.placed] == [i >= freeze for i in range(3)]
    assert run.result["device_ram_bytes"] == net.frozen(freeze).ram_bytes(BATCHES if batch > 1 else SINGLE)


def test_a_network_of_which_nothing_learns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no layer of network .* learns\. Give a smaller --freeze"):
        tinyfl.simulate(**SMALL, freeze=3, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_key_of_a_config_file_is_the_option(tmp_path: Path) -> None:
    file = tmp_path / "head.toml"
    file.write_text("".join(f"{key} = {value!r}\n" for key, value in SMALL.items()) + "freeze = 2\n")
    by_file = tinyfl.simulate(config=file, out=tmp_path / "file")
    by_option = tinyfl.simulate(**SMALL, freeze=2, out=tmp_path / "option")
    assert by_file.result["theta_sha256"] == by_option.result["theta_sha256"]
    assert by_file.result["config_sha256"] == by_option.result["config_sha256"]
    assert "freeze = 2" in (tmp_path / "option" / "config.toml").read_text()
    assert resolve({}).freeze == 0
    with pytest.raises(RunError, match="freeze 2"):
        tinyfl.simulate(freeze=1, resume=tmp_path / "file")


@pytest.mark.parametrize(
    ("freeze", "says"),
    [(3, "no layer .* learns.*--freeze"), (4, "has 3 with weights.*--freeze"), (-1, "freeze"), (65, "freeze"), (1.5, "freeze")],
)
def test_a_number_of_layers_that_cannot_be_is_refused_before_the_run(tmp_path: Path, freeze: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        tinyfl.simulate(**SMALL, freeze=freeze, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_new_device_adapts_just_the_layers_that_learn_on_its_rows_and_columns(tmp_path: Path, images: Path) -> None:
    options = {**SMALL, "task": "npz", "data": str(images), "devices": None, "cohort": 2, "shots": 5}
    run = tinyfl.simulate(**options, freeze=1, out=tmp_path / "run")
    held = Initialisation.load(tmp_path / "run")
    assert held.network.shape == (6, 6, 1)
    arrays = np.load(images)
    mine = arrays["device"] == 3
    np.savez(tmp_path / "mine.npz", x=arrays["x"][mine], y=arrays["y"][mine])
    tinyfl.adapt(tmp_path / "run", tmp_path / "mine.npz", shots=10, steps=5, out=tmp_path / "phi.npz")
    phi = np.load(tmp_path / "phi.npz")["theta"]
    frozen = held.network.placed[0].weights
    np.testing.assert_array_equal(phi[:frozen], run.theta[:frozen])
    assert not np.array_equal(phi[frozen:], run.theta[frozen:])
