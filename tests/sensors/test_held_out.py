"""Nobody whose readings the fleet learns from is held out to measure it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imu import write_readings, write_source

import tinyfl
from tinyfl.errors import ConfigError
from tinyfl.sensors.source import HostSource, read_recording

SETTINGS: dict[str, Any] = {
    "task": "sensor", "sensor": "imu", "network": "mlp-4", "samples": 4, "rounds": 1, "shots": 3, "tasks": 8, "page": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("imu")
    return write_source(folder / "imu.c"), write_readings(folder / "readings.npz")


def changed(path: Path, to: Path, **arrays: Any) -> Path:
    np.savez(to, **{**np.load(path), **arrays})
    return to


def held_out(out: Path, files: tuple[Path, Path], data: Path, seed: int = 0, **changes: Any) -> set[str]:
    source, readings = files
    fleet = [{"native": 4, "readings": str(readings)}]
    tinyfl.simulate(out=out, source=source, data=data, fleet=fleet, cohort=4, seed=seed, **{**SETTINGS, **changes})
    held = np.load(out / "data.npz")
    return {*held["split"].tolist(), *held["validation"].tolist()}


@pytest.mark.parametrize("seed", range(3))
def test_the_people_of_the_fleet_are_never_those_who_are_tested(tmp_path: Path, files: tuple[Path, Path], seed: int) -> None:
    notes: list[str] = []
    assert held_out(tmp_path / "run", files, files[1], seed, on_note=notes.append) == {"person 4", "person 5"}
    assert any("of the 2 devices whose readings no device of the fleet has" in note for note in notes)


def test_samples_are_known_by_their_people_and_readings_under_other_names_by_what_they_are(
    tmp_path: Path, files: tuple[Path, Path]
) -> None:
    source = HostSource([files[0]], "imu")
    made = source.samples_of(read_recording(files[1], source.sensor))
    source.close()
    np.savez(tmp_path / "samples.npz", x=made.x, y=made.y, device=made.device)
    assert held_out(tmp_path / "a", files, tmp_path / "samples.npz") == {"person 4", "person 5"}
    device = np.load(files[1])["device"]
    renamed = changed(files[1], tmp_path / "other.npz", device=[f"x{9 - int(each[-1])}" for each in device])
    assert held_out(tmp_path / "b", files, renamed) == {"x5", "x4"}


def test_a_split_of_the_fleets_people_is_refused_and_so_is_a_fleet_of_everybody(
    tmp_path: Path, files: tuple[Path, Path]
) -> None:
    own = changed(files[1], tmp_path / "own.npz", split=["person 3", "person 5"])
    with pytest.raises(ConfigError, match=r"split holds out person 3.* Take others into split"):
        held_out(tmp_path / "run", files, own)
    four = write_readings(tmp_path / "four.npz", people=4)
    with pytest.raises(ConfigError, match=r"of all 4 devices.* Record further people, or take fewer boards"):
        held_out(tmp_path / "run", files, four)


def test_own_data_of_another_task_that_hold_the_fleets_people_out_are_refused(tmp_path: Path, files: tuple[Path, Path]) -> None:
    random, device = np.random.default_rng(1), [f"person {i // 9}" for i in range(54)]
    x, y = random.normal(size=(54, 30)), np.arange(54) % 3
    np.savez(tmp_path / "own.npz", x=x, y=y, device=device, split=["person 0"])
    with pytest.raises(ConfigError, match="person 0 is held out, and the fleet learns from"):
        held_out(tmp_path / "run", files, tmp_path / "own.npz", task="npz")
