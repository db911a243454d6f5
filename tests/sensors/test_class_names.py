"""Classes by name have the numbers that the sensor's C file gives them, wherever a sample comes from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imu import write_readings, write_source

import tinyfl
from tinyfl.errors import ConfigError, DataError, TrainingError
from tinyfl.fleet import Event
from tinyfl.runs.adaptation import Initialisation
from tinyfl.sensors.source import HostSource, read_recording

LABELS = ("walk", "rest", "shake")
SETTINGS: dict[str, Any] = {
    "task": "sensor", "sensor": "imu", "network": "mlp-8", "samples": 10, "rate": 0.05, "rounds": 200, "shots": 3, "tasks": 20,
    "page": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_source(tmp_path_factory.mktemp("imu") / "imu.c")
    path.write_text(path.read_text().replace("rest,shake,walk", ",".join(LABELS)))
    return path


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_readings(tmp_path_factory.mktemp("readings") / "readings.npz")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory, source: Path, readings: Path) -> Path:
    """As a person makes them: the class of each by name."""
    host = HostSource([source], "imu")
    made = host.samples_of(read_recording(readings, host.sensor))
    host.close()
    path = tmp_path_factory.mktemp("samples") / "samples.npz"
    np.savez(path, x=made.x, y=np.array(LABELS)[made.y.argmax(axis=1)], device=made.device)
    return path


def run(out: Path, source: Path | None, data: Path, readings: Path, **changes: Any) -> tuple[Any, list[Event]]:
    part = {"native": 4, "readings": str(readings)} if source else {"board": "posix", "sensor": "imu"}
    events: list[Event] = []
    given = {**SETTINGS, "fleet": [part], "cohort": 4, "on_event": events.append, **changes}
    return tinyfl.simulate(out=out, source=source or (), data=data, **given), events


def test_samples_by_name_and_readings_by_name_end_in_one_model_that_is_right(
    tmp_path: Path, source: Path, samples: Path, readings: Path
) -> None:
    by_name, _ = run(tmp_path / "names", source, samples, readings)
    by_readings, _ = run(tmp_path / "readings", source, readings, readings)
    np.testing.assert_array_equal(by_name.theta, by_readings.theta)
    assert by_name.evaluation == by_readings.evaluation
    assert by_name.evaluation[0]["accuracy"] > 0.6  # as it is, unadapted: classes of another order would be below a third


def test_names_of_classes_reach_the_notes_the_result_and_the_model(
    tmp_path: Path, source: Path, samples: Path, readings: Path
) -> None:
    notes: list[str] = []
    made, _ = run(tmp_path / "run", source, samples, readings, on_note=notes.append, rounds=1)
    assert made.result["classes"] == list(LABELS)
    assert any("3 classes" in note and "walk, rest, shake" in note for note in notes)
    assert Initialisation.load(made.path).standard.classes.tolist() == list(LABELS)
    again = tinyfl.simulate(resume=made.path, rounds=2, source=source, page=False)
    assert again.result["classes"] == list(LABELS)


def test_a_name_that_is_none_of_the_labels_is_refused_and_so_are_other_class_names(
    tmp_path: Path, source: Path, samples: Path, readings: Path
) -> None:
    held = dict(np.load(samples))
    np.savez(tmp_path / "run.npz", **{**held, "y": np.where(held["y"] == "walk", "run", held["y"])})
    with pytest.raises(DataError, match=r"the class run in row .*none of walk, rest, shake"):
        run(tmp_path / "a", source, tmp_path / "run.npz", readings)
    np.savez(tmp_path / "other.npz", **held, class_names=sorted(LABELS))
    with pytest.raises(ConfigError, match=r"class_names rest, shake, walk, and sensor imu the \.labels walk, rest, shake"):
        run(tmp_path / "b", source, tmp_path / "other.npz", readings)


@pytest.mark.slow
def test_a_board_with_another_order_than_the_datas_is_told_and_learns_nothing_wrong(
    tmp_path: Path, source: Path, samples: Path, readings: Path
) -> None:
    from tinyfl.fleets import emulation
    from tinyfl.sensors.source import images

    held = dict(np.load(samples))
    np.savez(tmp_path / "named.npz", **held, class_names=LABELS)
    image = images(readings, "imu", [source], 1)
    with emulation.emulate("posix", link="tcp", sources=[source], readings=image) as (board,):
        ports = {"fleet": [{"ports": [board.url], "sensor": "imu"}], "cohort": 1, "rounds": 1}
        with pytest.raises(TrainingError, match="numbers its classes walk, rest, shake, and the run's data rest, shake, walk"):
            run(tmp_path / "a", None, samples, readings, **ports)
        good, events = run(tmp_path / "b", None, tmp_path / "named.npz", readings, **ports)
    assert good.result["left_out"] == {}
    assert [event.what for event in events] == ["connected"]
