"""A board that learns online from its own sensor, with labels of the sensor or over the link, and without a host."""

import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imu import write_readings, write_source
from typer.testing import CliRunner

import tinyfl
from tinyfl.cli import app
from tinyfl.cli.show.devices import Monitor
from tinyfl.devices.listening import Listening, listen
from tinyfl.devices.monitor import Line, monitor
from tinyfl.errors import ConfigError, Refused
from tinyfl.fleets import emulation
from tinyfl.link.board import LinkedBoard
from tinyfl.link.online import OnlineBoard
from tinyfl.link.wire import SerialWire
from tinyfl.online import Head, OnlineSet, Standardised
from tinyfl.online.device import Device
from tinyfl.online.starts import of_nothing
from tinyfl.sensors.recording import read_recording
from tinyfl.sensors.source import HostSource, images
from tinyfl.system.loop import in_loop

BEATS = """
    {.name = "beat", .sample = beat, .type = TINYFL_READS_FLOAT32, .channels = 1, .rate = 200, .shape = {2}, .outputs = 2,
     .loss = TINYFL_SOFTMAX_CROSS_ENTROPY, .labels = "low,high", .read = beats},
    {.name = "sine", .sample = tinyfl_sine_source},"""
BEAT = """
static float count;

/* A chip of its own, without a recording: low and high in turn. */
static int beats(void *values, int32_t *label)
{
    count += 1.0f;
    *(float *)values = (int)count % 2 ? 1.0f : -1.0f;
    *label = (int)count % 2;
    return TINYFL_OK;
}

static int beat(const tinyfl_stream *stream, uint32_t index, float *x, float *y)
{
    int32_t label = -1;
    (void)index;
    const int code = tinyfl_reading(x, &label);
    x[1] = 1.0f;
    return code != TINYFL_OK ? code : tinyfl_one_hot(label, y, stream->outputs);
}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An accelerometer with recorded readings, beside a sensor that has none."""
    folder = tmp_path_factory.mktemp("own")
    source = write_source(folder / "imu.c", more=BEAT)
    source.write_text(source.read_text().replace('\n    {.name = "sine", .sample = tinyfl_sine_source},', BEATS))
    return source, write_readings(folder / "readings.npz", people=1)


@pytest.fixture
def url(files: tuple[Path, Path]) -> Iterator[str]:
    source, readings = files
    with emulation.emulate("posix", link="tcp", sources=[source], readings=images(readings, "imu", [source], 1)) as (board,):
        yield board.url


def invoked(*words: str) -> Any:
    said = CliRunner().invoke(app, ["online", *words, "--json"])
    assert said.exit_code == 0, said.output
    return json.loads(said.stdout)


def test_a_board_learns_from_its_sensor_and_its_labels_as_a_simulated_device_does(url: str, files: tuple[Path, Path]) -> None:
    """To the bit, and when it is asked again it goes on from there."""
    source, path = files
    host = HostSource([source], "imu")
    x, y = host.recorded(read_recording(path, host.sensor).of(0, host.sensor))
    names = np.array(host.sensor.labels, object)[y.argmax(axis=1)]
    set = OnlineSet(Head.classes, 30, 30, 11, Standardised.inputs, embedded=False, ring=16, rate=0.1)
    device = Device(set, of_nothing(30, Head.classes))
    for rows in (slice(0, 20), slice(20, 35)):
        said = invoked("--on", f"port:{url}", "--sensor", "imu", "--samples", str(rows.stop - rows.start), "--rate", "0.1")
        device.run(x[rows], np.arange(rows.start + 1, rows.stop + 1, dtype=np.uint32), names[rows])
        assert said["learnt"] == device.core.learnt().hex()
        assert (said["samples"], said["labels"], said["new"]) == (rows.stop, rows.stop, rows.stop - rows.start)
    assert said["classes"] == device.names
    assert not said["goes_on"]
    host.close()


def test_a_board_that_has_learnt_keeps_its_settings_and_drops_nothing_without_being_told(url: str) -> None:
    board = ("--on", f"port:{url}")
    begun = invoked(*board, "--sensor", "imu", "--samples", "20", "--rate", "0.1", "--unsure", "0.6", "--every", "50")
    on = invoked(*board, "--sensor", "imu", "--samples", "5")
    assert (on["samples"], on["new"]) == (25, 5)
    same = invoked(*board, "--sensor", "imu", "--samples", "5", "--rate", "0.1", "--unsure", "0.6", "--every", "50")
    assert same["samples"] == 30
    for words, had in (
        (["--rate", "0.05"], "with rate 0.1."),
        (["--every", "9", "--cap", "9"], "with cap 256, every 50."),
        (["--standardise", "nothing"], "with standardise inputs."),
    ):
        said = CliRunner().invoke(app, ["online", *board, "--sensor", "imu", "--samples", "1", *words])
        assert isinstance(said.exception, ConfigError)
        assert f"has learnt from 30 samples, {had}" in str(said.exception)
        assert "give --anew" in str(said.exception)
    said = CliRunner().invoke(app, ["online", *board, "--task", "sine", "--samples", "1"])
    assert isinstance(said.exception, ConfigError)
    assert "has learnt from 30 samples" in str(said.exception)
    again = invoked(*board, "--sensor", "imu", "--samples", "20", "--rate", "0.05", "--anew")
    assert again["samples"] == 20
    assert again["learnt"] != begun["learnt"]


def test_a_board_stops_at_once_and_keeps_what_it_has_learnt(url: str) -> None:
    words = ("--on", f"port:{url}")
    begun = invoked(*words, "--sensor", "imu", "--rate", "0.1", "--label", "sitting", "--seconds", "0.5")
    assert begun["goes_on"]
    for again in ((), ("--sensor", "imu")):
        stopped = invoked(*words, "--stop", *again)
        assert (stopped["goes_on"], stopped["kept"], stopped["classes"]) == (False, True, ["sitting"])
        assert stopped["samples"] >= begun["samples"]


@pytest.mark.slow
@pytest.mark.parametrize("board", ["mps2-an386", "pico"])
def test_a_cortex_m_that_learns_from_its_sensor_has_the_bits_of_a_process(
    url: str, files: tuple[Path, Path], board: str, firmware_cache: None
) -> None:
    pytest.importorskip("unicorn")
    source, path = files
    given, what = {"rate": 0.1}, Listening("imu", samples=30)
    said = listen(partial(SerialWire.open, url), None, given, what, lambda _: None)
    taken = images(path, "imu", [source], 1)
    with emulation.started(board, sources=[source], readings=taken) as (running,):
        assert listen(running.opener, None, given, what, lambda _: None)["learnt"] == said["learnt"]


def test_a_run_on_the_sensors_samples_goes_on_on_the_board(tmp_path: Path, url: str, files: tuple[Path, Path]) -> None:
    """Its statistics begin at the run's standardisation, its classes have the run's names."""
    source, path = files
    host = HostSource([source], "imu")
    x, y = host.recorded(read_recording(path, host.sensor).of(0, host.sensor))
    names, device = np.array(host.sensor.labels)[y.argmax(axis=1)], np.repeat(np.arange(6), len(x) // 6)
    np.savez(tmp_path / "data.npz", x=x[: len(device)], y=names[: len(device)], device=device)
    run, words = tmp_path / "run", ("--on", f"port:{url}", "--sensor", "imu", "--samples", "12", "--rate", "0.02")
    tinyfl.simulate(task="npz", data=tmp_path / "data.npz", network="mlp-8", rounds=200, shots=(2,), tasks=2, out=run)
    said = invoked(str(run), *words)
    assert said["classes"] == ["rest", "shake", "walk"]
    assert said["error"] < 0.4
    assert invoked(str(run), *words)["samples"] == 24
    refused = CliRunner().invoke(app, ["online", *words[:4], "--samples", "1", "--anew", str(run), "--standardise", "nothing"])
    assert isinstance(refused.exception, ConfigError)
    assert "Take --standardise inputs" in str(refused.exception)
    host.close()


def test_labels_come_over_the_link_while_the_board_goes_on(url: str) -> None:
    given = {"rate": 0.1, "unsure": 0.9}
    opener = partial(SerialWire.open, url)
    seen = list[Any]()
    for label in ("sitting", "running"):
        what = Listening("imu", label, seconds=0.5, interval=0.01)
        said = listen(opener, None, given, what, seen.append)
    assert said["classes"] == ["sitting", "running"]
    assert said["goes_on"]
    assert 0 < said["labels"] <= said["samples"]
    assert any(watched.wanted for watched in seen)
    assert not listen(opener, None, {}, Listening("imu", seconds=0, stop=True), seen.append)["goes_on"]


def test_a_board_goes_on_without_a_host_and_after_its_power_was_lost(url: str) -> None:
    """A sensor with a clock of its own: samples come while nobody is there, from the last commit on after a restart."""

    def state() -> Any:
        async def ask() -> Any:
            board = await LinkedBoard.connect(partial(SerialWire.open, url))
            watched = await OnlineBoard(board).watched()
            await board.close()
            return watched

        return in_loop(ask())

    async def restart() -> None:
        board = await LinkedBoard.connect(partial(SerialWire.open, url))
        await board.reset()
        await board.close()

    given = {"standardised": Standardised.nothing, "rate": 0.1}
    said = listen(partial(SerialWire.open, url), None, given, Listening("beat", seconds=0.2, interval=0.05), lambda _: None)
    assert (said["goes_on"], said["kept"]) == (True, True)
    time.sleep(0.5)
    later = state()
    assert later.samples > said["samples"] + 10
    assert (later.source, later.labels) == ("beat", later.samples)
    in_loop(restart())
    time.sleep(1.0)
    again = state()
    assert again.source == "beat"
    assert again.samples >= said["samples"]
    assert again.names == ("low", "high") or again.names == ("high", "low")
    assert again.error < 0.1


def test_the_monitor_shows_what_is_learnt_online(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    listen(partial(SerialWire.open, url), None, {"rate": 0.1}, Listening("imu", samples=20), print)
    lines, shown = list[Line](), Monitor()

    def tell(line: Line) -> None:
        lines.append(line)
        shown.tell(line)
        if line.status:
            raise KeyboardInterrupt

    monitor(url, tell)
    assert lines[-1].online
    assert lines[-1].as_json()["online"]["samples"] == 20
    assert "online 20 samples, 20 labels" in capsys.readouterr().out


def test_what_makes_no_sense_is_refused_with_a_cure(url: str) -> None:
    for words, why in (
        (["--sensor", "imu"], "give the board too, --on port:PORT"),
        (["--stop"], "give the board too, --on port:PORT"),
        (["--stop", "--on", f"port:{url}"], "learns nothing online"),
        (["--label", "x", "--on", f"port:{url}"], "give --sensor NAME too"),
        (["--sensor", "imu", "--on", f"port:{url}", "--rate", "-1"], "--rate is at least 0"),
    ):
        said = CliRunner().invoke(app, ["online", *words])
        assert isinstance(said.exception, ConfigError)
        assert why in str(said.exception)
    with pytest.raises(Refused, match="no sensor called gps"):
        listen(partial(SerialWire.open, url), None, {}, Listening("gps"), print)
