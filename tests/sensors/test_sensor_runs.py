"""Boards learn from their own sensor in federated rounds, and a source that cannot go on costs nobody else anything."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imu import write_readings, write_source

import tinyfl
from tinyfl.errors import ConfigError
from tinyfl.fleet import Event

SETTINGS: dict[str, Any] = {
    "task": "sensor", "sensor": "imu", "network": "mlp-6", "samples": 6, "rate": 0.05, "rounds": 3, "shots": 3, "tasks": 20,
    "page": False, "adapt_lr": 0.05,
}  # fmt: skip


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_readings(tmp_path_factory.mktemp("readings") / "readings.npz")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("source") / "imu.c")


def run(out: Path, source: Path, readings: Path, *parts: dict[str, Any], **changes: Any) -> tuple[Any, list[Event]]:
    events: list[Event] = []
    fleet = [{key: value for key, value in {"readings": str(readings), **part}.items() if value != ""} for part in parts]
    cohort = sum(part.get("count", part.get("native", 0)) for part in parts)
    given: dict[str, Any] = {**SETTINGS, "data": readings, "cohort": cohort}
    made = tinyfl.simulate(out=out, source=source, fleet=fleet, on_event=events.append, **{**given, **changes})
    return made, events


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory, source: Path, readings: Path) -> Any:
    return run(tmp_path_factory.mktemp("native") / "run", source, readings, {"native": 4})[0]


def test_emulated_boards_end_with_the_theta_of_simulated_devices(
    tmp_path: Path, source: Path, readings: Path, native: Any
) -> None:
    emulated, events = run(tmp_path / "run", source, readings, {"board": "mps2-an386", "count": 4})
    np.testing.assert_array_equal(emulated.theta, native.theta)
    assert {event.what for event in events} == {"connected"}


def test_processes_do_too_and_a_resumed_run_repeats_recorded_readings(
    tmp_path: Path, source: Path, readings: Path, native: Any
) -> None:
    board = {"board": "posix", "count": 4}
    run(tmp_path / "run", source, readings, board, rounds=1)
    more = tinyfl.simulate(resume=tmp_path / "run", rounds=3, source=source, page=False)
    whole, _ = run(tmp_path / "whole", source, readings, board)
    np.testing.assert_array_equal(whole.theta, native.theta)
    np.testing.assert_allclose(more.theta, native.theta, atol=0.05)  # the outer step follows the number of rounds


def test_a_run_is_saved_like_any_and_measures_held_out_people(native: Any) -> None:
    assert native.result["task"] == "sensor"
    assert {row["mode"] for row in native.evaluation} == {"batch", "stream"}
    assert all(0 <= row["accuracy"] <= 1 for row in native.evaluation)
    assert sorted(np.load(native.path / "data.npz")) == ["class_names", "device", "split", "validation", "x", "y"]


FAULTS = {
    "not a number": ("x[4] = logf(-1.0f);", "", "", "sensor", "not a finite number"),
    "no label": ("label = -1;", "", "", "sensor", "without a label"),
    "a code of its own": ("return -42;", "", "", "sensor", "its code -42"),
    "too many": ("for (int i = 0; i < 2; i++) x[WINDOW * AXES + i] = 0.0f;", "", "", "sensor", "wrote more values"),
    "too few": ("return TINYFL_OK;", "", "", "sensor", "left values of x, y or a reading unwritten"),
    "another label": ("label = 3;", "", "", "sensor", "a label beyond its last class"),
    "blocks": ("for (;;) {}", "", "", "late", "TINYFL_NOT_YET"),
    "late": (
        "for (uint32_t from = tinyfl_millis(); tinyfl_millis() - from < 20;) {}", "", ".deadline = 5", "", "after its deadline"
    ),
    "too much is read": (
        "", "static int four(void *v, int32_t *l) { *l = 1; for (int i = 0; i < 4; i++) ((int16_t *)v)[i] = 1; return 0; }",
        ".read = four", "sensor", "wrote more values",
    ),
    "silent": (
        "", "static int never(void *v, int32_t *l) { return (void)v, (void)l, TINYFL_NOT_YET; }",
        ".read = never, .deadline = 50", "sensor", "gave no reading",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_source_that_cannot_go_on_gets_a_word_and_costs_nobody_else(
    tmp_path: Path, source: Path, readings: Path, fault: str
) -> None:
    change, more, fields, reason, word = FAULTS[fault]
    bad = write_source(tmp_path / "bad.c", f"if (stream->device == 2) {{ {change} }}", more, fields)
    board = {"board": "posix", "count": 1, **({"readings": ""} if ".read" in fields else {})}
    seconds = 2.0 if fault == "blocks" else 60.0
    mixed, events = run(tmp_path / "run", bad, readings, {"native": 2}, board, rounds=1, seconds=seconds)
    said = [event for event in events if event.what != "connected"]
    assert [event.device for event in said] == [2]
    assert word in said[0].detail
    assert mixed.result["left_out"] == ({reason: 1} if reason else {})
    if reason:
        without, _ = run(tmp_path / "without", source, readings, {"native": 2}, rounds=1)
        np.testing.assert_array_equal(mixed.theta, without.theta)


def test_a_sensor_that_no_device_can_have_is_refused_and_boards_that_have_it_learn(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "task": "sine",
        "network": "mlp-4",
        "rounds": 1,
        "tasks": 2,
        "page": False,
        "out": tmp_path / "run",
    }
    with pytest.raises(ConfigError, match=r"--sensor sine: simulated devices have no sensor .* leave --sensor out"):
        tinyfl.simulate(devices=1, cohort=1, sensor="sine", **settings)
    assert tinyfl.simulate(fleet=[{"board": "posix", "count": 1}], cohort=1, sensor="sine", **settings).result["rounds"] == 1


def test_a_sensor_of_another_shape_than_the_network_is_told_before_it_learns(tmp_path: Path, source: Path) -> None:
    random = np.random.default_rng(3)
    x, y, device = random.normal(size=(90, 12)), np.arange(90) % 3, np.arange(90) // 10
    made = tinyfl.simulate(
        out=tmp_path / "run", task="npz", data={"x": x, "y": y, "device": device}, source=source, network="mlp-4", rounds=1,
        cohort=2, shots=3, page=False, fleet=[{"native": 1}, {"board": "posix", "sensor": "imu"}],
        on_event=(events := list[Event]()).append,
    )  # fmt: skip
    assert made.result["left_out"] == {"sensor": 1}
    assert "samples of 10 x 3 to 3, and mlp-4" in events[-1].detail
    assert "--task sensor" in events[-1].detail


def test_what_is_missing_is_said_before_the_first_round(tmp_path: Path, source: Path, readings: Path) -> None:
    def refused(word: str, **changes: Any) -> None:
        with pytest.raises(ConfigError, match=word):
            tinyfl.simulate(out=tmp_path / "run", **{**SETTINGS, "source": source, **changes})

    board = {"board": "posix", "readings": str(readings)}
    refused("Record some, and give them with --data: tinyfl record", fleet=[board])
    samples = {"x": np.ones((90, 30)), "y": np.arange(90) % 3, "device": np.arange(90) // 10}
    refused("without its C file: give --source", source=(), data=samples, fleet=[board])
    refused("has raw readings, .*give it, --source FILE.c", source=(), data=str(readings), devices=2)
    refused("no source is called 'gps'", sensor="gps", data=str(readings), fleet=[board])
    refused("source sine declares no sensor", sensor="sine", data=str(readings), fleet=[board])
    refused("say which, with --sensor NAME", sensor="", data=str(readings), fleet=[board])
