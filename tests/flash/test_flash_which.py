"""Which boards are meant and which are not: nothing is guessed at, none is lost, and none is done twice."""

import re
import shlex
import threading
from pathlib import Path
from typing import Any

import pytest
from desk import MICROBIT, NUCLEO, STRANGER, silent
from typer.testing import CliRunner
from workbench import OLD, VERSION, FakeBoard, Tool, Workbench

from tinyfl.building import boards
from tinyfl.cli import app
from tinyfl.devices import connected
from tinyfl.devices.connected import Probe
from tinyfl.errors import ConfigError
from tinyfl.flash import run
from tinyfl.flash.run import FAILED, FLASHED, OFFLINE, UNVERIFIED, Job
from tinyfl.flash.targets import FlashSelection

F401, F405, F446, NANO, PICO = map(boards.load, ("nucleo-f401re", "stm32f405", "nucleo-f446re", "nano-33-ble", "pico"))
ANY_NUCLEO = "nucleo-f401re or nucleo-f446re or stm32f746-discovery"


def seen_by_pyocd(monkeypatch: pytest.MonkeyPatch, *ids: str) -> None:
    monkeypatch.setattr(connected, "_pyocd_probes", lambda: [Probe(id, "STM32 STLink", "", ()) for id in ids])


def written(workbench: Workbench, name: str = "openocd") -> Tool:
    """A tool that says that it wrote, and did not."""
    tool = workbench.tool(name)
    tool.writes(lambda argv: 0)
    return tool


def quiet(workbench: Workbench, serial: str = "S1") -> str:
    """A Nucleo's port at which nothing answers."""
    workbench.plug("", None, usb=NUCLEO, serial=serial)
    return workbench.desk.plug("ttyACM0", silent, usb=NUCLEO, serial=serial)


def test_no_command_names_a_board_that_was_guessed(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyfl.flash.verify.verify.__defaults__", ("", 0.5))
    url = quiet(workbench)
    openocd = written(workbench)
    (done,) = run.flash(FlashSelection(everything=True))
    assert (done.board, done.what, done.retry) == (ANY_NUCLEO, FAILED, "tinyfl flash --board NAME --probe S1")
    assert CliRunner().invoke(app, shlex.split(done.retry)[1:]).exit_code and not openocd.calls
    (line,) = run.commands(FlashSelection(everything=True))
    assert line == f"# {ANY_NUCLEO} (S1): it will be queried for its kind. If it does not answer, give its kind: --board NAME"
    assert run.commands(FlashSelection(ports=(url,))) == [line]
    (mine,) = run.flash(FlashSelection((F401,)))
    assert mine.board == "nucleo-f401re" and len(openocd.calls) == 1  # the user's word


def test_a_port_of_no_known_kind_is_asked_and_a_dry_run_says_so(workbench: Workbench) -> None:
    url = workbench.plug("ttyUSB0", FakeBoard(b"\5", "stm32f405", VERSION), usb=STRANGER, serial="A1")
    (line,) = run.commands(FlashSelection(ports=(url,)))
    assert line.startswith(f"# a board ({url}): it will be queried for its kind.")
    (done,) = run.flash(FlashSelection(ports=(url,)))
    assert (done.board, done.id) == ("stm32f405", "05")
    assert run.commands(FlashSelection(everything=True)) == ["# no board is connected"]


@pytest.mark.parametrize("method", ["", "openocd"])
def test_another_boards_probe_is_not_taken(workbench: Workbench, method: str) -> None:
    workbench.plug("ttyACM0", FakeBoard(b"\5", "nucleo-f446re"), usb=NUCLEO, serial="NUC")
    openocd = written(workbench)
    (done,) = run.flash(FlashSelection((F405,)), Job(method=method))
    assert done.what == OFFLINE and openocd.calls == []
    assert ("other boards (NUC)" if method else "For one that only openocd sees: --method openocd") in done.detail
    assert not [line for line in run.commands(FlashSelection((F405,)), Job(method=method)) if not line.startswith("#")]
    (none,) = run.flash(FlashSelection((F401,)), Job(method=method))
    assert none.what == OFFLINE and openocd.calls == []
    assert none.detail.startswith("none is connected")
    (named,) = run.flash(FlashSelection((F405,), probes=("NUC",)))  # its jumpers may lead to another chip
    assert "nucleo-f446re, not stm32f405" in named.detail


@pytest.mark.parametrize(("board", "tool"), [(F405, "openocd"), (NANO, "pyocd"), (PICO, "pyocd")])
def test_a_probe_that_is_no_boards_own_serves_those_without_one(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch, board: boards.Board, tool: str
) -> None:
    seen_by_pyocd(monkeypatch, "LINK")
    used = written(workbench, tool)
    (done,) = run.flash(FlashSelection((board,)))
    assert (done.what, done.method) == (UNVERIFIED, tool)
    ((_, *argv),) = used.calls
    assert ("adapter serial LINK" if tool == "openocd" else "LINK") in argv
    if tool != "openocd":
        written(workbench)
    (nucleo,) = run.flash(FlashSelection((F401,)))
    assert nucleo.what == OFFLINE and len(used.calls) == 1


def test_one_probe_serves_one_board_at_a_time(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen_by_pyocd(monkeypatch, "LINK")
    first, second = (FakeBoard(id, "stm32f405") for id in (b"\5", b"\6"))
    urls = [workbench.plug(f"ttyUSB{i}", each, usb=STRANGER, serial=f"A{i}") for i, each in enumerate((first, second))]

    def really(argv: list[str]) -> int:
        first.firmware = VERSION
        return 0

    openocd = workbench.tool("openocd")
    openocd.writes(really)
    one, other = run.flash(FlashSelection((F405,), ports=tuple(urls)))
    assert (one.what, other.what, len(openocd.calls)) == (FLASHED, FAILED, 1)
    assert other.detail.startswith("LINK is already used for stm32f405 05. Nothing was written.")
    assert other.retry == f"tinyfl flash --board stm32f405 --port {urls[1]}"


def test_of_two_kinds_that_one_unseen_probe_may_have_neither_is_lost(workbench: Workbench) -> None:
    openocd = written(workbench)
    done = run.flash(FlashSelection((F401, F446)), Job(method="openocd"))
    assert [(each.board, each.what) for each in done] == [("nucleo-f401re", FAILED), ("nucleo-f446re", FAILED)]
    assert openocd.calls == [] and done[1].retry == "tinyfl flash --board nucleo-f446re --method openocd"


def test_drives_without_serial_numbers_are_all_done(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyfl.flash.verify.verify.__defaults__", ("", 0.5))
    workbench.plug("", None, usb="2e8a:0003", drive="RPI-RP2")
    workbench.plug("ttyACM5", FakeBoard(b"\5", "nucleo-f401re", VERSION), usb=NUCLEO, serial="S1")
    workbench.plug("", None, usb=MICROBIT, drive="MICROBIT")
    copied: list[str] = []

    def taken(path: Path) -> None:
        copied.append(path.name)
        if path.suffix == ".hex":
            workbench.remount("MICROBIT")

    workbench.on_copy = taken
    done = run.flash(FlashSelection(everything=True))
    assert {each.board for each in done} == {"nucleo-f401re", "pico", "microbit-v2"}
    assert sorted(copied) == ["microbit-v2.hex", "pico.uf2"]


def test_a_board_whose_name_changes_is_done_once(workbench: Workbench) -> None:
    """Silent, it is known by its serial number; flashed, by its id."""
    table = '[[device]]\nid = "0{0}"\nboard = "nucleo-f401re"\nusb-serial = "S{0}"\n'
    Path("devices.toml").write_text(table.format(1) + table.format(2))
    quiet(workbench)
    board = FakeBoard(b"\1", "nucleo-f401re")

    def really(argv: list[str]) -> int:
        workbench.desk.unplug("ttyACM0")
        workbench.desk.plug("ttyACM0", board.exchange, usb=NUCLEO, serial="S1")
        board.firmware = VERSION
        return 0

    openocd = workbench.tool("openocd")
    openocd.writes(really)
    done = run.flash(FlashSelection(everything=True), Job(force=True), wait=3)
    assert [(each.id, each.what) for each in done] == [("01", FLASHED), ("02", OFFLINE)] and len(openocd.calls) == 1


def test_adapters_with_one_serial_number_are_two_boards(workbench: Workbench) -> None:
    urls = [
        workbench.plug(f"ttyUSB{i}", FakeBoard(bytes([i]), "stm32f405", VERSION), usb=STRANGER, serial="0001") for i in (5, 6)
    ]
    done = run.flash(FlashSelection(ports=tuple(urls)))
    assert [each.id for each in done] == ["05", "06"]


def test_a_boards_second_port_is_not_a_second_board(workbench: Workbench) -> None:
    board = FakeBoard(b"\5", "nucleo-f401re", VERSION)
    workbench.desk.plug("ttyACM0", silent, usb=NUCLEO, serial="S1", location="1-1:1.0")
    workbench.desk.plug("ttyACM1", board.exchange, usb=NUCLEO, serial="S1", location="1-1:1.2")
    (done,) = run.flash(FlashSelection(everything=True))
    assert done.id == "05"


def test_two_boards_with_one_id_are_not_one(workbench: Workbench) -> None:
    urls = [workbench.plug(f"ttyACM{i}", FakeBoard(b"\5", "nucleo-f401re"), usb=NUCLEO, serial=f"S{i}") for i in (0, 1)]
    openocd = written(workbench)
    for asked in (FlashSelection(everything=True), FlashSelection(ids=("05",))):
        with pytest.raises(ConfigError, match=re.escape(f"two boards report the id 05, at {urls[0]} and {urls[1]}.")):
            run.flash(asked)
    assert openocd.calls == []
    (done,) = run.flash(FlashSelection(ports=(urls[1],)))
    assert "adapter serial S1" in openocd.calls[0] and "still runs" in done.detail


def test_what_has_no_serial_number_is_given_none(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyfl.flash.verify.verify.__defaults__", ("", 0.5))
    workbench.plug("", None, usb=NUCLEO)
    openocd = written(workbench)
    (done,) = run.flash(FlashSelection((F401,)))
    assert "nothing answered at the serial port in USB socket 1-1 at" in done.detail
    assert "adapter usb location 1-1" in openocd.calls[0] and not [
        word for word in openocd.calls[0] if "adapter serial" in word
    ]
    (unclear,) = run.flash(FlashSelection(everything=True))
    assert unclear.board == ANY_NUCLEO and unclear.retry == "tinyfl flash --board NAME --probe 1-1"
    seen_by_pyocd(monkeypatch, "LINK")
    (crowd,) = run.flash(FlashSelection((F401,)))
    assert "adapter usb location 1-1" in openocd.calls[1] and crowd.retry == "tinyfl flash --board nucleo-f401re --probe 1-1"
    workbench.plug("", None, usb=NUCLEO, serial="S1")
    (unheard,) = run.flash(FlashSelection((F401,), probes=("S1",)))
    assert "nothing answered at the serial port of USB serial number S1" in unheard.detail
    assert "run `tinyfl devices`;" in unheard.detail


@pytest.mark.parametrize("where", ["--probe", "--port"])
def test_a_probe_and_a_port_that_are_not_there_are_waited_for(workbench: Workbench, where: str) -> None:
    board = FakeBoard(b"\5", "nucleo-f401re", VERSION)
    url = str(workbench.folder / "dev/ttyACM0")
    asked: dict[str, Any] = {"probes": ("S1",)} if where == "--probe" else {"ports": (url,)}
    written(workbench)
    (done,) = run.flash(FlashSelection((F401,), **asked))
    name = done.id
    assert done.what == OFFLINE and done.retry == f"tinyfl flash --board nucleo-f401re {where} {name} --wait 60"
    plugging = threading.Timer(1.5, lambda: workbench.plug("ttyACM0", board, usb=NUCLEO, serial="S1"))
    plugging.start()
    (came,) = run.flash(FlashSelection((F401,), **asked), wait=20)
    plugging.join()
    assert came.id == "05" and came.before == VERSION and OLD != VERSION
