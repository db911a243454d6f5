"""Units of two sites' data: what is learnt does not depend on them, as in one process."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from site_gateways import Federation

from tinyfl.flower import remote
from tinyfl.simulation.result import Run

pytestmark = pytest.mark.slow

RUN: dict[str, Any] = {"task": "npz", "tasks": 200, "shots": (10,)}
UNITS = {
    "celsius": (21, 3), "kelvin": (294, 3), "co2_ppm": (800, 200), "pascal": (101_325, 300), "metre": (0, 0.002),
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick(no_page: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, seconds in {"POLL": 0.0, "LOOK": 0.01, "RETRY": 0.0}.items():
        monkeypatch.setattr(remote, f"{name}_SECONDS", seconds)
    monkeypatch.chdir(tmp_path)


def over_two_sites(name: str, arrays: dict[str, np.ndarray], **options: Any) -> Run:
    """The run of two sites, one with the even devices and one with the odd ones."""
    files = {}
    for site in (0, 1):
        mine = {key: array[arrays["device"] % 2 == site] for key, array in arrays.items() if key != "split"}
        if "split" in arrays:
            mine["split"] = arrays["split"][arrays["split"] % 2 == site]
        files[f"lab-{site}"] = Path(f"{name}-{site}.npz")
        np.savez(files[f"lab-{site}"], **mine)  # type: ignore[arg-type]
    return Federation(files).run(Path("runs", name), **RUN, **options)


def r2(run: Run) -> float:
    """R² after 10 full-batch steps, against the mean of the support set."""
    loss = next(row["loss"] for row in run.evaluation if (row["mode"], row["steps"]) == ("batch", 10))
    return 1 - loss / run.result["floor"][-1]["loss"]


def test_values_in_six_units_are_learnt_alike_over_two_sites() -> None:
    rng = np.random.default_rng(0)
    device = np.repeat(np.arange(30), 60)
    gain, zero = rng.uniform(0.7, 1.3, 30)[device], rng.normal(size=30)[device] * 0.3
    x = rng.normal(size=(device.size, 3))
    y = gain * (np.sin(x[:, 0]) + 0.5 * x[:, 1]) + zero + 0.05 * rng.normal(size=device.size)
    rest = {"x": x, "device": device, "split": np.arange(0, 30, 5)}
    plain = r2(over_two_sites("unit", {**rest, "y": y}, rounds=1000))
    assert plain > 0.9
    for name, (origin, scale) in UNITS.items():
        assert r2(over_two_sites(name, {**rest, "y": origin + scale * y}, rounds=1000)) == pytest.approx(plain, abs=0.01), name


def test_inputs_far_from_zero_are_learnt_as_centred_ones_over_two_sites() -> None:
    rng = np.random.default_rng(0)
    device = np.repeat(np.arange(20), 60)
    y = rng.integers(0, 3, device.size)
    noise = rng.normal(size=(device.size, 2))
    seconds = 1.7e9 + y * 1200 + rng.uniform(0, 1200, device.size)
    latitude = 48.1351 + 1e-5 * (y - 1) + 2e-6 * rng.normal(size=y.size)
    for name, column, zero in (("time", seconds, 1.7e9), ("gps", latitude, 48.1351)):
        reached = []
        for called, values in ((name, column), (f"{name}_centred", column - zero)):
            run = over_two_sites(called, {"x": np.c_[noise, values], "y": y, "device": device}, rounds=500)
            reached.append(next(row["accuracy"] for row in run.evaluation if (row["mode"], row["steps"]) == ("batch", 10)))
        assert reached[0] == pytest.approx(reached[1], abs=0.01), name
        assert reached[0] > 0.95
