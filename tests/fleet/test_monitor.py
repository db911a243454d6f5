"""tinyfl monitor: what a board says, across restarts and pulled cables, until Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from desk import Desk, held, silent
from double import Double

from tinyfl.devices import monitor as watching
from tinyfl.devices.monitor import Line, monitor
from tinyfl.errors import ConfigError, Dead


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "RECONNECT_SECONDS", 0.01)


def test_it_tells_what_the_board_is_and_how_it_stands_until_ctrl_c(desk: Desk) -> None:
    url = desk.plug("ttyACM0", Double(b"\xab").exchange)
    said: list[Line] = []

    def tell(line: Line) -> None:
        said.append(line)
        if len(said) == 4:
            raise KeyboardInterrupt

    monitor(url, tell, interval=0.01)
    assert [line.what for line in said] == ["connected", "status", "status", "status"]
    first = json.loads(json.dumps(said[0].as_json()))
    assert (first["port"], first["description"]["id"], first["description"]["board"]) == (url, "ab", "double")
    assert json.loads(json.dumps(said[1].as_json()))["status"]["state"] == "empty"


def test_a_board_that_comes_back_under_another_name_is_watched_on(desk: Desk) -> None:
    board = Double(b"\xab")
    desk.plug("ttyACM0", Double(b"\1").exchange, serial="other")
    desk.plug("ttyACM1", board.exchange, serial="A")
    said: list[Line] = []

    def tell(line: Line) -> None:
        said.append(line)
        if len(said) == 2:
            desk.unplug("ttyACM1")
        elif line.what == "gone":
            desk.plug("ttyACM7", board.exchange, serial="A")
        elif len(said) > 4:
            raise KeyboardInterrupt

    monitor("", tell, id="ab", interval=0.01)
    assert [line.what for line in said] == ["connected", "status", "gone", "connected", "status"]
    assert [Path(line.port).name for line in said] == ["ttyACM1"] * 3 + ["ttyACM7"] * 2
    assert "is gone" in said[2].detail or "cannot be opened" in said[2].detail


def test_by_id_no_other_board_takes_its_place(desk: Desk) -> None:
    """A port without USB facts has another board now; by its id, only the first one is watched."""
    board, other, said = Double(b"\xab"), Double(b"\1"), list[Line]()
    now = [board, board, board, other, other, other, board]
    url = desk.plug("ttyACM0", lambda data: (now.pop(0) if len(now) > 1 else board).exchange(data))

    def tell(line: Line) -> None:
        said.append(line)
        if line.what == "status" and len(said) == 2:
            desk.unplug("ttyACM0")
            desk.plug("ttyACM0", lambda data: (now.pop(0) if len(now) > 1 else board).exchange(data))
        elif len(said) > 4:
            raise KeyboardInterrupt

    monitor("", tell, id="ab", interval=0.01)
    described = [line.description.id for line in said if line.description]
    assert described == [b"\xab", b"\xab"] and {line.port for line in said} == {url}


@pytest.mark.parametrize("socket", ["1-2", "1-3"], ids=["same socket", "moved"])
def test_behind_twins_a_board_is_watched_on_by_its_id(desk: Desk, socket: str) -> None:
    """Both adapters have one serial number; the other board stays where it is."""
    board, usb = Double(b"\xab"), "10c4:ea60"
    desk.plug("ttyUSB0", Double(b"\1").exchange, usb=usb, serial="0001", location="1-1")
    url = desk.plug("ttyUSB1", board.exchange, usb=usb, serial="0001", location="1-2")
    Path("devices.toml").write_text(f"[[device]]\nid = 'ab'\nport = '{url}'\nusb-serial = '0001'\n")
    said: list[Line] = []

    def tell(line: Line) -> None:
        said.append(line)
        if len(said) == 2:
            desk.unplug("ttyUSB1")
        elif line.what == "gone":
            desk.plug("ttyUSB2", board.exchange, usb=usb, serial="0001", location=socket)
        elif len(said) > 4:
            raise KeyboardInterrupt

    monitor("", tell, id="ab", interval=0.01)
    assert [line.what for line in said] == ["connected", "status", "gone", "connected", "status"]
    assert said[3].description is not None and said[3].description.id == b"\xab" and said[3].port.endswith("ttyUSB2")


def test_a_port_at_which_another_board_answers_says_so(desk: Desk) -> None:
    url, said = desk.plug("ttyACM0", Double(b"\xab").exchange), []

    def tell(line: Line) -> None:
        said.append(line)
        if len(said) == 2:
            desk.unplug("ttyACM0")
            desk.plug("ttyACM0", Double(b"\xcd").exchange)
        elif len(said) > 4:
            raise KeyboardInterrupt

    monitor(url, tell, interval=0.01)
    assert [line.what for line in said] == ["connected", "status", "gone", "another board", "status"]
    assert "it replaces ab. To monitor a certain board only, give --id." in said[3].detail


def test_what_cannot_be_watched_is_said_at_once(desk: Desk) -> None:
    url = desk.plug("ttyACM0", Double(b"\xab").exchange)

    def never(line: Line) -> None:
        raise AssertionError(line)

    for which in ({"url": ""}, {"url": url, "id": "ab"}):
        with pytest.raises(ConfigError, match="no board is selected"):
            monitor(**which, tell=never)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--interval 0 is out of range"):
        monitor(url, never, interval=0)
    with pytest.raises(Dead, match="no board has the id 77"):
        monitor("", never, id="77")
    with pytest.raises(Dead, match="cannot be opened"):
        monitor("/dev/there-is-no-such-port", never)
    with held(url) as pid, pytest.raises(Dead, match=rf"in use by .*process {pid}"):
        monitor(url, never)
    desk.unplug("ttyACM0")
    Path("devices.toml").write_text(f"[[device]]\nid = 'ab'\nport = '{desk.plug('ttyUSB0', silent, usb='10c4:ea60')}'\n")
    with pytest.raises(Dead, match=r"board ab does not answer\. At its possible port: nothing answers"):
        monitor("", never, id="ab")


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--json"], []])
def test_the_command_prints_a_line_each_and_leaves_well(desk: Desk, options: list[str]) -> None:
    url = os.path.realpath(desk.plug("ttyACM0", Double(b"\xab").exchange))
    process = subprocess.Popen(
        [sys.executable, "-m", "tinyfl.cli", "monitor", url, "--interval", "0.05", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines: list[Any] = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    if options:
        assert [json.loads(line)["what"] for line in lines] == ["connected", "status", "status"]
    else:
        assert "connected double ab" in lines[0] and "empty" in lines[1]
