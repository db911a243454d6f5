"""What is built, lost, tried again and stopped, and how it is said."""

import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from desk import MICROBIT, NUCLEO, STRANGER
from typer.testing import CliRunner
from workbench import VERSION, FakeBoard, Workbench, version_in

from tinyfl.building import boards
from tinyfl.building.build import Firmware
from tinyfl.cli import app
from tinyfl.devices.connected import usb_devices
from tinyfl.errors import ConfigError, DoesNotFit, Interrupted
from tinyfl.flash import run, ways
from tinyfl.flash.run import FAILED, FLASHED, Job
from tinyfl.flash.targets import FlashSelection
from tinyfl.fleets import emulation
from tinyfl.link.wire import SerialWire

F401, F405, MICROBIT_V2 = map(boards.load, ("nucleo-f401re", "stm32f405", "microbit-v2"))
MANIFESTS = boards.data("boards")

really_built = emulation.firmware


class Modelled(FakeBoard):
    """A board with a model and an int8 model, until it is erased."""

    held = b"\1" * 32

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "model": self.held, "inference": self.held}


@pytest.mark.parametrize("erases", [True, False])
def test_a_model_that_is_gone_is_told(workbench: Workbench, erases: bool) -> None:
    board = Modelled(b"\xab")
    workbench.plug("ttyACM0", board, serial="9904", drive="MICROBIT")

    def taken(path: Path) -> None:
        board.firmware = version_in(path.read_bytes())
        board.held = b"" if erases else board.held
        workbench.remount("MICROBIT")

    workbench.on_copy = taken
    (done,) = run.flash(FlashSelection((MICROBIT_V2,)))
    lost = "the board's {} is lost. To restore it: tinyfl push {} --id ab"
    told = [lost.format("model", "RUN"), lost.format("int8 model", "MODEL.tflite")] if erases else []
    assert (done.what, done.detail.splitlines()) == (FLASHED, told)


def test_a_method_that_erases_models_is_told_beforehand(workbench: Workbench) -> None:
    workbench.plug("ttyACM0", FakeBoard(b"\7", "nano-33-ble"), usb="2341:005a", serial="A504")
    workbench.plug("", None, usb="2e8a:0003", serial="E0C9", drive="RPI-RP2")
    workbench.tool("bossac")
    lines = run.commands(FlashSelection((boards.load("nano-33-ble"),), probes=("A504",)))
    assert lines[1] == "# bossac erases all of the flash, models and weights included"
    assert len(run.commands(FlashSelection((boards.load("pico"),)))) == 2  # of the Pico's flash, what is written is erased


@pytest.mark.parametrize("where", ["", "--port"])
def test_a_manifest_of_ones_own_gives_the_speed(workbench: Workbench, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    text = (MANIFESTS / "nucleo-f401re.toml").read_text()
    text = text.replace('name = "nucleo-f401re"', 'name = "mine"').replace("baud = 115_200", "baud = 1_000_000")
    text = re.sub(r"^rates = .*\n", "", text, flags=re.MULTILINE)
    Path("mine.toml").write_text(text)
    mine = boards.load("mine.toml")
    board = FakeBoard(b"\1", "mine")
    url = workbench.plug("ttyACM0", board, usb=STRANGER if where else NUCLEO, serial="S1")
    tried: list[int] = []
    really = SerialWire.open

    async def open(url: str, baud: int = 0) -> SerialWire:
        tried.append(baud)
        return await really(url, baud)

    def written(argv: list[str]) -> int:
        board.firmware = VERSION
        return 0

    monkeypatch.setattr(SerialWire, "open", open)
    workbench.tool("openocd").writes(written)
    asked = FlashSelection((mine,), ports=(url,) if where else (), words=("mine.toml",))
    (done,) = run.flash(asked, Job(method="openocd"))
    assert (done.what, tried) == (FLASHED, [1_000_000] * 3)  # found, still the same, flashed
    tried.clear()
    run.flash(FlashSelection((mine,), ports=(url,), baud=57_600), Job(method="openocd"))
    assert set(tried) == {57_600}


def test_a_kind_that_does_not_build_stops_no_other(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    def build(board: boards.Board, *rest: Any) -> Firmware:
        built.append(board.name)
        if board.name == "nucleo-f401re":
            raise DoesNotFit("too big by 7 bytes")
        return workbench._built(board, *rest)

    monkeypatch.setattr("tinyfl.fleets.emulation.firmware", build)
    for number in (1, 2):
        workbench.plug(f"ttyACM{number}", FakeBoard(bytes([number]), "nucleo-f401re"), usb=NUCLEO, serial=f"S{number}")
    workbench.plug("ttyACM3", FakeBoard(b"\3", "microbit-v2", VERSION), usb=MICROBIT, serial="S3")
    done = run.flash(FlashSelection(everything=True))
    assert [(each.id, each.what) for each in done] == [("01", FAILED), ("02", FAILED), ("03", "up to date")]
    assert done[1].detail == "too big by 7 bytes" and sorted(built) == ["microbit-v2", "nucleo-f401re"]


def interrupt(after: float) -> threading.Timer:
    timer = threading.Timer(after, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    return timer


def test_ctrl_c_where_a_board_is_followed_ends_at_once(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread is left that looks for it for a minute."""
    monkeypatch.setattr("tinyfl.flash.verify.verify.__defaults__", ("", 60.0))
    workbench.plug("ttyACM0", FakeBoard(b"\1", "nucleo-f401re"), usb=NUCLEO, serial="S1")

    def written(argv: list[str]) -> int:
        workbench.desk.unplug("ttyACM0")
        interrupt(1.0)
        return 0

    workbench.tool("openocd").writes(written)
    with pytest.raises(Interrupted, match=r"^stopped\. No board was being written\.$"):
        run.flash(FlashSelection((F401,)))


def test_ctrl_c_names_what_was_being_written(workbench: Workbench) -> None:
    workbench.plug("ttyACM0", FakeBoard(b"\1", "nucleo-f401re"), usb=NUCLEO, serial="S1")
    openocd = workbench.tool("openocd")
    openocd.writes(lambda argv: interrupt(0.2).join() or threading.Event().wait(30))  # type: ignore[func-returns-value]
    with pytest.raises(Interrupted, match="Flash these again, they were being written: nucleo-f401re 01"):
        run.flash(FlashSelection((F401,)))


def test_what_is_tried_again_is_the_same_command(workbench: Workbench) -> None:
    Path("other.toml").write_text("")
    url = workbench.plug("ttyUSB0", FakeBoard(b"\5", "stm32f405"), usb=STRANGER, serial="A1")
    workbench.plug("", None, usb="0483:374b", serial="P")
    workbench.tool("openocd").does("Error: open failed", 1)
    job = Job("openocd", "gcc", (Path("own.c"),), True, Path("o"))
    (done,) = run.flash(FlashSelection((F405,), ports=(url,), probes=("P",), baud=9600), job, devices=Path("other.toml"))
    assert done.what == FAILED and done.retry == (
        f"tinyfl flash --board stm32f405 --probe P --port {url} --method openocd --toolchain gcc --source own.c --force "
        "--out o --baud 9600 --inventory other.toml"
    )
    (none,) = run.flash(FlashSelection(everything=True), Job(force=True), devices=Path("other.toml"))
    assert done.retry.split()[2:] != none.retry.split()[2:]
    for number in (1, 2):
        workbench.plug(f"ttyACM{number}", FakeBoard(bytes([number]), "nucleo-f401re"), usb=NUCLEO, serial=f"S{number}")
    with pytest.raises(ConfigError, match="--board nucleo-f401re --probe S2 --force"):
        run.flash(FlashSelection((F401,)), Job(force=True))


def test_a_method_that_is_none_and_one_that_the_board_lacks(workbench: Workbench) -> None:
    with pytest.raises(ConfigError, match=r"'nonsense'\. There are: pyocd, openocd, copy, bossac, dfu-util"):
        run.flash(FlashSelection(everything=True), Job(method="nonsense"))
    workbench.plug("ttyACM0", FakeBoard(), serial="M", drive="MICROBIT")
    (done,) = run.flash(FlashSelection(everything=True), Job(method="openocd"))
    lacks = "microbit-v2 has no flash method 'openocd'; its manifest has copy, pyocd."
    assert (done.what, done.detail) == (FAILED, lacks)
    assert run.commands(FlashSelection(everything=True), Job(method="openocd")) == [f"# microbit-v2 (M): {lacks}"]
    url = workbench.plug("ttyUSB0", FakeBoard(b"\7", "mps2-an386"), usb=STRANGER)
    (emulated,) = run.flash(FlashSelection(ports=(url,)), Job(force=True))
    assert "mps2-an386 cannot be flashed" in emulated.detail


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--wait", "-3"], "--wait"),
        (["--baud", "-7"], "--baud"),
        (["--id", "zz"], "--id 'zz' is not a board's id"),
        (["--tag", "lab", "--inventory", "nope.toml"], "there is no file nope.toml"),
    ],
)
def test_options_that_are_none_are_refused(workbench: Workbench, options: list[str], says: str) -> None:
    result = CliRunner().invoke(app, ["flash", *options, "--dry-run"])
    assert result.exit_code and says in f"{result.output} {result.exception}"


def test_a_folder_that_cannot_be_built_in_is_said(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyfl.fleets.emulation.firmware", really_built)
    with pytest.raises(
        ConfigError, match=r"cannot write to the build folder /proc/x/microbit-v2 \(.*Give --out a writable folder"
    ):
        run.commands(FlashSelection((MICROBIT_V2,)), Job(out=Path("/proc/x")))


def test_probes_are_looked_for_anew_only_where_something_changed(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr("tinyfl.devices.connected._pyocd_probes", lambda: looks.append(1) or [])  # type: ignore[func-returns-value]
    first = ways.seen()
    assert ways.seen(first) is first and len(looks) == 1
    workbench.plug("", None, usb="2e8a:0003", serial="E0C9")
    assert ways.seen(first).usb == tuple(usb_devices()) and len(looks) == 2
