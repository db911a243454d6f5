"""Boards that are found, written, followed and asked: one, many, with others failing beside them."""

import json
import re
import threading
from pathlib import Path

import pytest
from desk import NUCLEO, held, silent
from typer.testing import CliRunner
from workbench import OLD, VERSION, FakeBoard, Workbench, version_in

from tinyfl.building import boards
from tinyfl.cli import app
from tinyfl.devices import inventory
from tinyfl.errors import ConfigError, FlashError
from tinyfl.flash import run
from tinyfl.flash.run import FAILED, FLASHED, OFFLINE, UNVERIFIED, UP_TO_DATE, Job
from tinyfl.flash.targets import FlashSelection

MICROBIT = boards.load("microbit-v2")
F401 = boards.load("nucleo-f401re")
PICO = boards.load("pico")


def takes(board: FakeBoard) -> object:
    """A tool that writes the image it is given to ``board``."""

    def written(argv: list[str]) -> int:
        (image,) = re.findall(r"[^ {}]+\.(?:hex|bin)", " ".join(argv))
        board.firmware = version_in(Path(image).read_bytes())
        return 0

    return written


def test_a_board_is_written_by_its_probe_and_then_asked(workbench: Workbench) -> None:
    board = FakeBoard(b"\xab\1", "nucleo-f401re")
    workbench.plug("ttyACM0", board, usb=NUCLEO, serial="066D")
    openocd = workbench.tool("openocd")
    openocd.writes(takes(board))
    (done,) = run.flash(FlashSelection((F401,)))
    assert (done.what, done.id, done.method, done.before, done.firmware) == (FLASHED, "ab01", "openocd", OLD, VERSION)
    ((_, *argv),) = openocd.calls
    assert argv[:4] == ["-f", "board/st_nucleo_f4.cfg", "-c", "adapter serial 066D"]
    (again,) = run.flash(FlashSelection((F401,)))
    assert again.what == UP_TO_DATE and len(openocd.calls) == 1
    (forced,) = run.flash(FlashSelection((F401,)), Job(force=True))
    assert forced.what == FLASHED and len(openocd.calls) == 2


def test_a_drive_takes_a_file_and_comes_back(workbench: Workbench) -> None:
    board = FakeBoard()
    workbench.plug("ttyACM0", board, serial="9904", drive="MICROBIT")

    def taken(path: Path) -> None:
        board.firmware = version_in(path.read_bytes())
        workbench.remount("MICROBIT")

    workbench.on_copy = taken
    (done,) = run.flash(FlashSelection((MICROBIT,)))
    assert (done.what, done.method, done.detail) == (FLASHED, "copy", "")


def test_a_board_that_still_runs_the_old_firmware_is_a_failure(workbench: Workbench) -> None:
    workbench.plug("ttyACM0", FakeBoard(b"\7", "nucleo-f401re"), usb=NUCLEO, serial="066D")
    workbench.tool("openocd")
    (done,) = run.flash(FlashSelection((F401,)))
    assert done.what == FAILED
    assert done.detail == (
        f"the board still runs {OLD}; {VERSION} was written. It did not restart, or the new firmware went elsewhere: press its "
        "reset button and run `tinyfl devices`; if the version stays, flash with another --method."
    )
    assert done.retry == "tinyfl flash --board nucleo-f401re --probe 066D"
    with pytest.raises(FlashError, match=r"1 of 1 boards could not be flashed: nucleo-f401re 07 \(failed\)"):
        run.demand_all([done])
    assert FlashError.exit_code == 9


def test_without_any_board_it_says_so(workbench: Workbench) -> None:
    with pytest.raises(FlashError, match="no board is connected, so none was flashed"):
        run.demand_all(run.flash(FlashSelection(everything=True)))


def test_a_board_that_does_not_answer_afterwards_is_a_failure(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyfl.flash.verify.verify.__defaults__", ("", 1.5))
    board = FakeBoard(board="nucleo-f401re")
    url = workbench.plug("ttyACM0", board, usb=NUCLEO, serial="066D")

    def bricked(argv: list[str]) -> int:
        board.exchange = silent  # type: ignore[method-assign]
        workbench.desk.unplug("ttyACM0")
        workbench.desk.plug("ttyACM0", silent, usb=NUCLEO, serial="066D")
        return 0

    workbench.tool("openocd").writes(bricked)
    (done,) = run.flash(FlashSelection((F401,)))
    assert done.what == FAILED
    assert done.detail == (
        f"it was written, but nothing answered at {url} (USB serial number 066D) at 115,200 baud within 1.5 s. Press the "
        f"board's reset button and run `tinyfl devices --port {url}`; check that this port is wired to the pins in "
        "`tinyfl boards show nucleo-f401re`."
    )


def test_a_board_that_comes_back_under_another_name_is_followed(workbench: Workbench) -> None:
    board = FakeBoard(b"\7", "nucleo-f401re")
    workbench.plug("ttyACM0", board, usb=NUCLEO, serial="066D")
    other = FakeBoard(b"\x08", "nucleo-f401re", VERSION)

    def written(argv: list[str]) -> int:
        workbench.desk.unplug("ttyACM0")
        workbench.desk.plug("ttyACM0", other.exchange, usb=NUCLEO, serial="0777")
        board.firmware = VERSION
        threading.Timer(0.5, lambda: workbench.desk.plug("ttyACM1", board.exchange, usb=NUCLEO, serial="066D")).start()
        return 0

    workbench.tool("openocd").writes(written)
    (done,) = run.flash(FlashSelection((F401,)))
    assert (done.what, done.id) == (FLASHED, "07")


def test_one_that_fails_does_not_stop_the_rest(workbench: Workbench) -> None:
    """Three side by side: the first locked, the second up to date, the third flashed while the first is at it."""
    both = threading.Barrier(2, timeout=300)
    some = [FakeBoard(bytes([number]), "nucleo-f401re") for number in (1, 2, 3)]
    some[1].firmware = VERSION
    for number, board in enumerate(some, 1):
        workbench.plug(f"ttyACM{number}", board, usb=NUCLEO, serial=f"S{number}")

    def written(argv: list[str]) -> int:
        both.wait()
        if "adapter serial S1" in argv:
            return 1
        some[2].firmware = VERSION
        return 0

    workbench.tool("openocd").writes(written, says="Error: stm32x device protected")
    result = CliRunner().invoke(app, ["flash", "--all", "--json"])
    assert result.exit_code == 1  # CliRunner's; main() makes it FlashError's
    assert isinstance(result.exception, FlashError)
    said = json.loads(result.stdout)["boards"]
    assert [(each["id"], each["what"]) for each in said] == [("01", FAILED), ("02", UP_TO_DATE), ("03", FLASHED)]
    assert said[0]["retry"] == "tinyfl flash --board nucleo-f401re --probe S1"
    assert "the chip is locked" in said[0]["detail"] and said[1]["retry"] == said[2]["retry"] == ""


def test_of_several_boards_one_must_be_named(workbench: Workbench) -> None:
    for number in (1, 2):
        workbench.plug(f"ttyACM{number}", FakeBoard(bytes([number]), "nucleo-f401re"), usb=NUCLEO, serial=f"S{number}")
    workbench.tool("openocd")
    with pytest.raises(ConfigError) as refused:
        run.flash(FlashSelection((F401,)))
    assert str(refused.value) == (
        "2 connected boards match. Give --all for all of them, or use one of\n"
        "  tinyfl flash --board nucleo-f401re --probe S1\n  tinyfl flash --board nucleo-f401re --probe S2"
    )
    (done,) = run.flash(FlashSelection((F401,), probes=("S2",)))
    assert done.id == "02" and "still runs" in done.detail
    assert "adapter serial S2" in run.commands(FlashSelection((F401,), probes=("S2",)))[1]
    with pytest.raises(ConfigError, match="no boards are selected"):
        run.flash(FlashSelection())


def test_silent_boards_of_several_kinds_are_not_guessed_at(workbench: Workbench) -> None:
    workbench.plug("ttyACM0", FakeBoard(), usb=NUCLEO, serial="S1")
    workbench.desk.unplug("ttyACM0")
    workbench.desk.plug("ttyACM0", silent, usb=NUCLEO, serial="S1")
    openocd = workbench.tool("openocd")
    (done,) = run.flash(FlashSelection(everything=True))
    assert done.what == FAILED and "may be nucleo-f401re or nucleo-f446re or stm32f746-discovery" in done.detail
    assert openocd.calls == []


def test_a_silent_board_is_known_by_its_drive(workbench: Workbench) -> None:
    board = FakeBoard(board="nucleo-f446re")
    workbench.plug("ttyACM0", None, usb=NUCLEO, serial="S1", drive="NODE_F446RE")
    workbench.desk.plug("ttyACM0", silent, usb=NUCLEO, serial="S1")

    def written(argv: list[str]) -> int:
        workbench.desk.unplug("ttyACM0")
        workbench.desk.plug("ttyACM0", board.exchange, usb=NUCLEO, serial="S1")
        board.firmware = VERSION
        return 0

    workbench.tool("openocd").writes(written)
    (done,) = run.flash(FlashSelection(everything=True))
    assert (done.board, done.what) == ("nucleo-f446re", FLASHED)


def test_a_board_of_another_kind_is_not_written(workbench: Workbench) -> None:
    url = workbench.plug("ttyACM0", FakeBoard(b"\7", "nucleo-f446re"), usb=NUCLEO, serial="S1")
    openocd = workbench.tool("openocd")
    (done,) = run.flash(FlashSelection((F401,), ports=(url,)))
    assert done.what == FAILED and openocd.calls == []
    assert "by its description the board is nucleo-f446re, not nucleo-f401re. Nothing was written." in done.detail
    (missed,) = run.flash(FlashSelection((F401,)))
    assert missed.what == OFFLINE


def test_a_port_that_another_has_open_is_told_before_anything_is_written(workbench: Workbench) -> None:
    url = workbench.plug("ttyACM0", FakeBoard(board="nucleo-f401re"), usb=NUCLEO, serial="S1")
    openocd = workbench.tool("openocd")
    with held(url) as pid:
        (done,) = run.flash(FlashSelection((F401,)))
    assert done.what == FAILED and f"process {pid}" in done.detail and openocd.calls == []


def test_a_pico_in_its_bootloader_is_the_silent_board_at_its_debug_probe(workbench: Workbench) -> None:
    board = FakeBoard(b"\7", "pico")
    workbench.plug("ttyACM0", None, usb="2e8a:000c", serial="PROBE")
    workbench.desk.plug("ttyACM0", silent, usb="2e8a:000c", serial="PROBE")
    workbench.plug("", None, usb="2e8a:0003", serial="E0C9", drive="RPI-RP2")

    def taken(path: Path) -> None:
        board.firmware = version_in(path.read_bytes())
        assert path.suffix == ".uf2"
        workbench.desk.unplug("ttyACM0")
        workbench.desk.plug("ttyACM0", board.exchange, usb="2e8a:000c", serial="PROBE")

    workbench.on_copy = taken
    (done,) = run.flash(FlashSelection((PICO,)))
    assert (done.what, done.method, done.id) == (FLASHED, "copy", "07")


def test_a_board_without_a_link_is_written_and_not_verified(workbench: Workbench) -> None:
    workbench.plug("", None, usb="2e8a:0003", serial="E0C9", drive="RPI-RP2")
    (done,) = run.flash(FlashSelection((PICO,)))
    assert (done.what, done.id) == (UNVERIFIED, "E0C9") and "no serial port is known" in done.detail
    run.demand_all([done])


def test_boards_are_chosen_by_id_and_tag_and_waited_for(workbench: Workbench) -> None:
    Path("devices.toml").write_text(
        '[[device]]\nid = "01"\nboard = "nucleo-f401re"\ntags = ["lab"]\nusb-serial = "S1"\n'
        '[[device]]\nid = "02"\nboard = "nucleo-f401re"\ntags = ["lab"]\nusb-serial = "S2"\n'
        '[[device]]\nid = "03"\nboard = "nucleo-f401re"\nusb-serial = "S3"\n'
    )
    some = {number: FakeBoard(bytes([number]), "nucleo-f401re") for number in (1, 2, 3)}
    for number in (1, 3):
        workbench.plug(f"ttyACM{number}", some[number], usb=NUCLEO, serial=f"S{number}")

    def written(argv: list[str]) -> int:
        (number,) = [int(word[-1]) for word in argv if word.startswith("adapter serial")]
        some[number].firmware = VERSION
        if number == 1:
            workbench.plug("ttyACM2", some[2], usb=NUCLEO, serial="S2")
        return 0

    workbench.tool("openocd").writes(written)
    now = run.flash(FlashSelection(ids=("02",)))
    assert [(each.id, each.what) for each in now] == [("02", OFFLINE)]
    assert now[0].retry == "tinyfl flash --id 02 --wait 60"
    done = run.flash(FlashSelection(tags=("lab",)), wait=20)
    assert [(each.id, each.what) for each in done] == [("01", FLASHED), ("02", FLASHED)]
    assert some[3].firmware == OLD
    workbench.unplug("ttyACM2")
    everything = run.flash(FlashSelection(everything=True))
    assert {each.id: each.what for each in everything} == {"01": UP_TO_DATE, "03": FLASHED, "02": OFFLINE}
    assert inventory.read_inventory()[0].tags == ("lab",)


def test_a_dry_run_prints_what_would_run_and_opens_no_port(workbench: Workbench) -> None:
    board = FakeBoard()
    workbench.plug("ttyACM0", board, serial="9904", drive="MICROBIT")
    heard: list[bytes] = []
    board.exchange = lambda data: heard.append(data) or b""  # type: ignore[method-assign, assignment, func-returns-value]
    result = CliRunner().invoke(app, ["flash", "--board", "microbit-v2", "--dry-run"])
    image = workbench.folder / "cache/microbit-v2/microbit-v2.hex"
    assert result.stdout.splitlines() == [
        f"# microbit-v2 (9904): {VERSION}",
        "# copy may erase all of the flash, models and weights included",
        f"cp {image} {workbench.folder / 'media/MICROBIT'}/",
    ]
    assert heard == [] and list((workbench.folder / "media/MICROBIT").iterdir()) == []
    workbench.tool("pyocd")
    other = run.commands(FlashSelection((MICROBIT,)), Job(method="pyocd"))
    assert other[1:] == [f"pyocd flash --no-wait --target nrf52833 --uid 9904 -O auto_unlock=false {image}"]


def test_boards_that_are_not_flashed_are_refused(workbench: Workbench) -> None:
    with pytest.raises(ConfigError, match=r"mps2-an386 cannot be flashed: its manifest has no \[\[flash\]\]"):
        run.flash(FlashSelection((boards.load("mps2-an386"),)))
    with pytest.raises(ConfigError, match="microbit-v2 has no flash method 'bossac'; its manifest has copy, pyocd"):
        run.flash(FlashSelection((MICROBIT,)), Job(method="bossac"))


def test_a_boards_own_source_is_not_flashed_over_unasked(workbench: Workbench) -> None:
    own, plain = FakeBoard(b"\xab\1", "nucleo-f401re"), FakeBoard(b"\xab\2", "nucleo-f401re")
    own.sources = ("imu", "sine")
    for number, board in enumerate((own, plain)):
        workbench.plug(f"ttyACM{number}", board, usb=NUCLEO, serial=f"066{number}")
    openocd = workbench.tool("openocd")
    openocd.writes(lambda argv: takes(own if "0660" in str(argv) else plain)(argv))  # type: ignore[operator]
    kept, done = sorted(run.flash(FlashSelection((F401,), everything=True)), key=lambda each: each.id)
    assert (kept.what, done.what, own.firmware, plain.firmware) == (FAILED, FLASHED, OLD, VERSION)
    assert "has the source imu" in kept.detail and "source = FILE.c in devices.toml" in kept.detail
    Path("imu.c").write_text("/* the C file of its sensor */")
    Path("devices.toml").write_text('[[device]]\nid = "ab01"\nboard = "nucleo-f401re"\nsource = "imu.c"\n')
    assert [each.what for each in run.flash(FlashSelection((F401,), everything=True)) if each.id == "ab01"] == [FLASHED]
    own.firmware = OLD
    assert all(each.done for each in run.flash(FlashSelection((F401,), everything=True), Job(force=True)))
