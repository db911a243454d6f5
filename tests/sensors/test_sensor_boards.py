"""Recording and watching a board's sensor, and keeping its source when it is flashed."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imu import write_readings, write_source
from numpy.typing import NDArray

import tinyfl
from tinyfl.cli import app
from tinyfl.devices.connected import reach
from tinyfl.devices.monitor import Line, monitor
from tinyfl.devices.ports import port
from tinyfl.devices.record import Recorder, record
from tinyfl.errors import ConfigError, DataError, Refused, SensorFault
from tinyfl.fleets import emulation
from tinyfl.link.status import BoardState
from tinyfl.networks import Network, network
from tinyfl.networks.layers import Activation, Loss
from tinyfl.sensors.source import HostSource, images
from tinyfl.system.loop import in_loop


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("imu")
    return write_source(folder / "imu.c"), write_readings(folder / "readings.npz", people=2)


@pytest.fixture(scope="module")
def url(files: tuple[Path, Path]) -> Iterator[str]:
    source, readings = files
    with emulation.emulate("posix", link="tcp", sources=[source], readings=images(readings, "imu", [source], 1)) as (board,):
        yield board.url


def test_recorded_readings_come_as_they_are_and_samples_as_the_c_file_makes_them(
    tmp_path: Path, url: str, files: tuple[Path, Path]
) -> None:
    source, taken = files
    raw = record(url, Recorder("imu", seconds=0.2, raw=True, device="me"), tmp_path / "raw.npz")
    held, first = np.load(tmp_path / "raw.npz"), np.load(taken)
    assert (raw.added, raw.rows, set(held["device"])) == (len(held["x"]), len(held["x"]), {"me"})
    rows = min(raw.added, 360)
    np.testing.assert_array_equal(held["x"][:rows], first["x"][:rows])
    np.testing.assert_array_equal(held["y"][:rows], first["y"][:rows])
    record(url, Recorder("imu", "walk", 0.1, raw=True), tmp_path / "raw.npz")
    more = np.load(tmp_path / "raw.npz")
    assert (more["y"][raw.added :] == "walk").all()
    done = record(url, Recorder("imu", seconds=0.2), tmp_path / "samples.npz")
    assert done.added == 20  # of ten readings each at 1,000 Hz, however fast they come
    samples = np.load(tmp_path / "samples.npz")
    assert samples["class_names"].tolist() == ["rest", "shake", "walk"]
    assert samples["x"].shape == (done.added, 10, 3)
    assert (samples["y"].sum(axis=1) == 1).all()
    host = HostSource([source], "imu")
    assert host.sensor.shape == samples["x"].shape[1:]
    host.close()


def test_a_recording_that_makes_no_sense_is_refused_with_a_word(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="has the labels rest, shake, walk, and no label run"):
        record(url, Recorder("imu", "run", 0.1), tmp_path / "a.npz")
    with pytest.raises(Refused, match="no sensor called gps; it has imu"):
        record(url, Recorder("gps", "", 0.1), tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=np.zeros((1, 2)), y=["rest"], device=["me"])
    with pytest.raises(ConfigError, match="Give another --out"):
        record(url, Recorder("imu", "", 0.1, raw=True), tmp_path / "b.npz")


def test_the_monitor_shows_live_values(url: str) -> None:
    lines: list[Line] = []

    def tell(line: Line) -> None:
        lines.append(line)
        if line.status:
            raise KeyboardInterrupt

    monitor(url, tell, sensor="imu")
    assert lines[0].description
    assert [each.name for each in lines[0].description.sensors] == ["imu"]
    assert len(lines[-1].reading) == 3
    assert "reading" in json.dumps(lines[-1].as_json())


def test_a_sensor_that_is_not_there_ends_the_monitor_with_those_that_are(url: str) -> None:
    lines: list[Line] = []
    with pytest.raises(Refused, match=r"no sensor called imv; it has imu\. Say --sensor imu"):
        monitor(url, lines.append, sensor="imv")
    assert [line.what for line in lines] == ["connected"]


def test_devices_lists_sensors_with_shape_type_and_rate(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    app(["devices", "--port", url, "--json"], standalone_mode=False)
    (sensor,) = next(each for each in json.loads(capsys.readouterr().out)["devices"] if each["port"] == url)["sensors"]
    assert sensor == {
        "name": "imu", "type": "int16", "channels": 3, "rate": 1000.0, "shape": [10, 3], "outputs": 3, "loss": 1, "deadline": 0,
        "labels": ["rest", "shake", "walk"],
    }  # fmt: skip
    app(["devices", "--port", url], standalone_mode=False)
    assert "imu: int16 x 3 at 1000 Hz" in " ".join(capsys.readouterr().out.split())


BAD: list[tuple[dict[str, Any], str]] = [
    ({"x": np.zeros((4, 2))}, "a reading of imu has 3"),
    ({"y": ["rest", "run", "", ""]}, "the label run, which is none of imu's"),
    ({"x": np.full((4, 3), 0.5)}, "not all whole numbers of 16 bits"),
    ({"device": np.zeros(4)}, "readings of 1 devices, and 2 boards"),
]


@pytest.mark.parametrize(("change", "word"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_readings_that_are_not_the_sensors_are_refused(
    tmp_path: Path, files: tuple[Path, Path], change: dict[str, Any], word: str
) -> None:
    arrays = {"x": np.zeros((4, 3)), "y": ["rest", "", "walk", ""], "device": np.arange(4) % 2, **change}
    np.savez(tmp_path / "readings.npz", **arrays)
    with pytest.raises(DataError, match=word):
        images(tmp_path / "readings.npz", "imu", [files[0]], 2)


def test_a_run_is_measured_on_the_boards_own_samples_which_stay_there(
    tmp_path: Path, url: str, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    source, readings = files
    people = write_readings(tmp_path / "people.npz")
    tinyfl.simulate(
        out=tmp_path / "run", task="sensor", sensor="imu", source=source, data=people, network="mlp-6", rounds=300, samples=10,
        rate=0.05, shots=3, tasks=20, page=False, fleet=[{"native": 2, "readings": str(readings)}], cohort=2,
    )  # fmt: skip
    words = ["evaluate", str(tmp_path / "run"), "--port", url, "--sensor", "imu", "--samples", "40", "--json"]
    app(words, standalone_mode=False)
    plain, adapted = json.loads(capsys.readouterr().out)["boards"]
    assert (plain["shots"], adapted["shots"], plain["samples"]) == (0, 10, 40)
    assert plain["accuracy"] > 0.5
    net, theirs = network("mlp-6", (10, 3, 1), 3, Loss.softmax_cross_entropy, Activation.leaky_relu), [np.float32(0.5)]
    other = network("mlp-4", (10, 3, 1), 3, Loss.softmax_cross_entropy, Activation.relu)
    for of, left in ((net, BoardState.ready), (other, BoardState.empty)):
        theta = np.resize(np.array(theirs, np.float32), of.parameters)
        in_loop(_put(url, of, theta))
        app(words, standalone_mode=False)
        state, weights = in_loop(_held(url))
        assert state == left
        assert weights == (sha256(theta.tobytes()).digest() if left == BoardState.ready else b"")
    with pytest.raises(ConfigError, match="needs both"):
        app(words[:4], standalone_mode=False)


async def _put(url: str, net: Network, theta: NDArray[np.float32]) -> None:
    board, _ = await reach(port(url))
    await board.put_plan(net.plan.bytes)
    await board.put_weights(theta)
    await board.close()


async def _held(url: str) -> tuple[int, bytes]:
    board, _ = await reach(port(url))
    status = await board.status()
    await board.close()
    return status.state, status.weights


def test_a_label_beyond_the_last_class_is_counted_and_named(tmp_path: Path) -> None:
    seven = (
        "static int seven(void *v, int32_t *l) { for (int i = 0; i < 3; i++) ((int16_t *)v)[i] = 1; *l = 7; return TINYFL_OK; }"
    )
    source = write_source(tmp_path / "imu.c", more=seven, fields=".read = seven")
    with emulation.emulate("posix", link="tcp", sources=[source]) as (board,):
        done = record(board.url, Recorder("imu", seconds=0.05, raw=True), tmp_path / "raw.npz")
        assert (done.unknown, done.unlabelled) == (50, 0)
        with pytest.raises(SensorFault, match="a label beyond its last class"):
            record(board.url, Recorder("imu", seconds=0.1), tmp_path / "samples.npz")


def test_no_reading_of_a_live_sensor_is_lost_between_two_messages(tmp_path: Path) -> None:
    counts = """static int count(void *values, int32_t *label)
    {
        static int16_t number;
        int16_t *axes = values;
        axes[0] = number++, axes[1] = axes[2] = 0, *label = 1;
        return TINYFL_OK;
    }"""
    source = write_source(tmp_path / "imu.c", more=counts, fields=".read = count")
    with emulation.emulate("posix", link="tcp", sources=[source]) as (board,):
        record(board.url, Recorder("imu", seconds=0.3, raw=True), tmp_path / "raw.npz")
    held = np.load(tmp_path / "raw.npz")
    np.testing.assert_array_equal(held["x"][:, 0], np.arange(300))
    assert set(held["y"]) == {"shake"}
