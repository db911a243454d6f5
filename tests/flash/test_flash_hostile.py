"""Hostile words from USB devices, boards, drives, tools and manifests: none is run, and none leads to another file."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from desk import NUCLEO
from workbench import FakeBoard, Workbench

from tinyfl.building import boards
from tinyfl.building.boards import Bossac, DfuUtil, Openocd, Pyocd
from tinyfl.devices import inventory
from tinyfl.devices.connected import connected_devices
from tinyfl.devices.ports import serial_ports
from tinyfl.errors import ConfigError
from tinyfl.flash import drives, methods, run
from tinyfl.flash.drives import MAX_VERDICT_CHARS, Drive
from tinyfl.flash.run import FAILED
from tinyfl.flash.targets import FlashSelection

MANIFESTS = boards.data("boards")
STEERS = "\x1b]0;t\x07\x1b[2J\u202e"
SERIALS = (
    "066DFF; exec touch PWNED; #", "[exec touch PWNED]", "x} ; exec touch PWNED ; {", "$(touch PWNED)", "`touch PWNED`",
    "-c exec", "--command=exec touch PWNED", "../../PWNED", "a b 'c' \"d\"", "[/x][bold]", "<script>", "\\", "{",
)  # fmt: skip


def marks(folder: Path) -> list[Path]:
    return list(folder.rglob("PWNED*"))


def real(workbench: Workbench, name: str) -> None:
    """The tool of this machine, on the bench."""
    if not (path := shutil.which(name)):
        pytest.skip(f"needs {name}")
    (workbench.folder / "bin" / name).symlink_to(path)


@pytest.mark.parametrize("serial", SERIALS)
def test_a_usb_serial_number_runs_nothing(workbench: Workbench, serial: str) -> None:
    """By the real OpenOCD, which finds no probe; then by the shell, where a person pastes the command that tries it again."""
    real(workbench, "openocd")
    workbench.plug("ttyACM0", FakeBoard(b"\1", "nucleo-f401re"), usb=NUCLEO, serial=serial)
    (done,) = run.flash(FlashSelection(everything=True), run.Job(method="openocd"))
    assert done.what == FAILED and "last lines of openocd" in done.detail, done
    assert not marks(workbench.folder)
    echoed = subprocess.run(["/bin/sh", "-c", f"set -- {done.retry}; printf '%s\\0' \"$@\""], capture_output=True, text=True)
    assert serial in echoed.stdout.split("\0")
    for line in run.commands(FlashSelection(everything=True), run.Job(method="openocd")):
        subprocess.run(["/bin/sh", "-c", line], capture_output=True)
    assert not marks(workbench.folder)


@pytest.mark.parametrize("serial", [f"066{STEERS}", "a" * 100_000])
def test_a_usb_serial_number_that_no_person_could_give_is_none(workbench: Workbench, serial: str) -> None:
    workbench.plug("ttyACM0", FakeBoard(b"\1", "nucleo-f401re"), usb=NUCLEO, serial=serial)
    assert [each.serial for each in serial_ports()] == [""]
    openocd = workbench.tool("openocd")
    openocd.writes(lambda argv: 1)
    (done,) = run.flash(FlashSelection(everything=True), run.Job(method="openocd"))
    assert done.what == FAILED and not any("adapter serial" in word for word in openocd.calls[0])


def test_an_image_whose_path_is_a_command_runs_nothing(workbench: Workbench) -> None:
    real(workbench, "openocd")
    stand_ins = "proc init {} {}; proc poll {args} {}; proc reset {args} {}; proc flash {args} {}; proc verify_image {args} {}"
    openocd = Openocd(method="openocd", config=("x.cfg",))
    for name in ("a b.hex", "[exec touch PWNED].hex", "$x; exec touch PWNED.hex", "{a}.hex", '"; exec touch PWNED; ".hex'):
        program = methods.command(openocd, workbench.folder / name, "")[-1]
        done = subprocess.run(["openocd", "-c", stand_ins, "-c", program], capture_output=True, text=True, timeout=300)
        assert "** Verified OK **" in done.stderr, done.stderr
        assert not marks(workbench.folder), name
    for name in ("a} [exec touch PWNED] {.hex", "{.hex", "a\\"):
        with pytest.raises(ConfigError, match="Give --out a folder without braces"):
            methods.command(openocd, workbench.folder / name, "")


def test_a_serial_number_is_no_option_and_no_list_to_other_tools() -> None:
    image = Path("/a/x.bin")
    assert "--uid=-O" in methods.command(Pyocd(method="pyocd", target="nrf52"), image, "-O")
    dfu = methods.command(DfuUtil(method="dfu-util", address=0x0800_0000), image, "A,B", ("0483:df11",))
    assert dfu[dfu.index("--serial") + 1] == ",A,B"  # A is that of a device before it is in DFU mode, and none is meant
    assert "--port=-h" in methods.command(Bossac(method="bossac"), image, "-h")


def test_what_a_tool_says_is_shown_and_kept_as_words(workbench: Workbench) -> None:
    workbench.plug("ttyACM0", FakeBoard(b"\1", "nucleo-f401re"), usb=NUCLEO, serial="../" * 50)
    workbench.tool("openocd").does(f"Error: {STEERS}{'x' * 100_000}\n", 1)
    (done,) = run.flash(FlashSelection(everything=True), run.Job(method="openocd"))
    assert len(done.detail) < 2000 and done.detail.replace("\n", "").isprintable()
    (log,) = workbench.folder.rglob("*.log")
    assert log.parent.name == "nucleo-f401re" and log.read_text().replace("\n", "").isprintable()


@pytest.mark.parametrize("kind", ["words", "endless", "pipe", "link"])
def test_a_drives_verdict_is_a_line_of_words(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "FAIL.TXT"
    if kind == "words":
        file.write_text(f"error: {STEERS}\r\ntype: target\r\n")
    elif kind == "endless":
        with file.open("wb") as made:
            made.truncate(1 << 40)
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    said = drives.verdict_now(Drive(tmp_path, True, "", "1"))
    assert said.isprintable() and len(said) <= MAX_VERDICT_CHARS
    assert said.endswith("type: target") or kind != "words"


def test_a_boards_name_is_no_path(workbench: Workbench) -> None:
    """Nor is it written into devices.toml with what steers a terminal."""
    evil = (MANIFESTS / "nucleo-f401re.toml").read_text().replace('name = "nucleo-f401re"', 'name = "evil"')
    Path("evil.toml").write_text(evil)
    url = workbench.plug("ttyACM0", FakeBoard(b"\1", str(Path("evil.toml").resolve())), usb=NUCLEO, serial="S")
    (done,) = run.flash(FlashSelection(ports=(url,)))
    assert done.what == run.FAILED and "no built-in board is called" in done.detail
    other = workbench.plug("ttyACM1", FakeBoard(b"\2", STEERS), usb=NUCLEO, serial="T")
    inventory.save(connected_devices([url, other]))
    assert {each.id for each in inventory.read_inventory()} == {"01", "02"}
    assert Path("devices.toml").read_text().replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('title = "Nucleo-F401RE"', f'title = "{STEERS.encode("unicode_escape").decode().replace("x", "u00")}"'),
        ('port = "stm32f4"', 'port = "../ports/stm32f4"'),
        ('config = ["board/st_nucleo_f4.cfg"]', 'config = ["x} [exec touch PWNED] {"]'),
        ('drive = "NODE_F401RE"', 'drive = "../../etc"'),
        ('name = "nucleo-f401re"', 'name = "../mine"'),
        ('chip = "STM32F401RE"', f'chip = "{"x" * 100_000}"'),
        ('bridge = "ST-Link', 'bridge = "\\u001b[2J'),
    ],
)
def test_a_strangers_manifest_has_names_for_names_and_lines_for_lines(tmp_path: Path, old: str, new: str) -> None:
    text = (MANIFESTS / "nucleo-f401re.toml").read_text().replace('"nucleo-f401re"', '"mine"')
    old = old.replace("nucleo-f401re", "mine")
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert boards.check(path)[1] == []
    path.write_text(text.replace(old, new))
    board, wrong = boards.check(path)
    assert board is None and len(wrong[0]) < 1000 and wrong[0].isprintable()
    assert old.split(" ")[0] in wrong[0]


def test_a_manifests_qemu_machine_is_a_name(tmp_path: Path) -> None:
    text = (MANIFESTS / "mps2-an386.toml").read_text().replace('"mps2-an386"', '"mine"')
    path = tmp_path / "mine.toml"
    path.write_text(text.replace('machine = "mine"', 'machine = "mps2-an386,dumpdtb=PWNED"'))
    assert boards.check(path)[1][0].startswith("emulators.qemu.machine: ")
