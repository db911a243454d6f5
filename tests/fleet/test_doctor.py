"""tinyfl doctor: each thing is well, or has its cure; and udev's rules."""

import os
import stat
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from desk import MICROBIT, Desk, silent

from tinyfl import doctor
from tinyfl.building import boards
from tinyfl.devices import udev
from tinyfl.devices.connected import find_tool
from tinyfl.doctor import Check, demand_needed
from tinyfl.errors import InstallError

TOOLS = (
    "arm-none-eabi-gcc", "aarch64-linux-gnu-gcc", "cc", "qemu-system-arm", "qemu-aarch64", "openocd", "dfu-util", "bossac",
    "pyocd",
)  # fmt: skip


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for module in ("doctor", "flash.methods"):
        monkeypatch.setattr(f"tinyfl.{module}.find_tool", lambda name: str(folder / name) if (folder / name).exists() else None)
    monkeypatch.setattr("tinyfl.flash.methods.ARDUINO", ())
    return folder


def put(shelf: Path, name: str, script: str) -> None:
    file = shelf / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def named(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_without_any_tool_each_has_its_cure_and_tinyfl_is_well(
    desk: Desk, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", lacking)
    found = doctor.doctor()
    for name in (*TOOLS, "ziglang", "unicorn", "pyelftools"):
        check = named(found)[name]
        assert (check.state, check.needed) == ("missing", False) and "nstall" in check.cure and check.purpose
    assert "pip install 'tinyfl[flash]'" in named(found)["pyocd"].cure
    assert "Arduino's bossac" in named(found)["bossac"].cure and "nano-33-ble" in named(found)["bossac"].purpose
    demand_needed(found)
    assert doctor.as_json(found)["ok"] is True


def test_tools_say_their_versions(desk: Desk, shelf: Path) -> None:
    put(shelf, "openocd", "echo Open On-Chip Debugger 0.12.0 >&2; echo Licensed")
    put(shelf, "bossac", "echo Usage; echo 'Application (BOSSA) Version 1.9.1'; exit 1")
    put(shelf, "dfu-util", "echo dfu-util: error while loading shared libraries: libusb-1.0.so.0 >&2; exit 127")
    put(shelf, "pyocd", 'echo \'{"error": "no libusb library was found"}\'')
    found = named(doctor.doctor())
    assert (found["openocd"].state, found["openocd"].found) == ("ok", "Open On-Chip Debugger 0.12.0")
    assert found["bossac"].state == "broken" and "not Arduino's" in found["bossac"].cure
    put(shelf, "bossac", "echo Usage --arduino-erase; echo 'Application (BOSSA) Version 1.9.1-arduino2'; exit 1")
    assert named(doctor.doctor())["bossac"].ok
    assert found["dfu-util"].state == "broken" and "libusb-1.0.so.0" in found["dfu-util"].cure
    assert found["pyocd"].state == "broken" and "no libusb library was found" in found["pyocd"].cure


@pytest.fixture(scope="module")
def tools() -> dict[str, Check]:
    """What the tools of this machine really answer."""
    return named(doctor._tools())


@pytest.mark.slow
@pytest.mark.parametrize("name", TOOLS)
def test_a_real_tool_is_well(name: str, tools: dict[str, Check]) -> None:
    if find_tool(name) is None:
        pytest.skip(f"needs {name}")
    check = tools[name]
    assert (check.ok or name == "bossac") and any(letter.isdigit() for letter in check.found), check


def test_an_installation_that_lacks_its_core_is_not_well(desk: Desk, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> None:
        raise InstallError("the compiled core is not there. Run pip install.")

    monkeypatch.setattr("tinyfl.core.binding.library", lost)
    found = doctor.doctor()
    assert named(found)["compiled core"].state == "missing" and not doctor.as_json(found)["ok"]
    with pytest.raises(InstallError, match=r"lacks compiled core\. the compiled core is not there"):
        demand_needed(found)


def test_a_port_that_may_not_be_opened_names_the_group(desk: Desk, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = desk.plug("ttyACM0", silent)
    assert named(doctor.doctor())[url].ok
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    check = named(doctor.doctor())[url]
    assert check.state == "broken" and "usermod -aG" in check.cure
    assert "microbit-v2" in named(doctor.doctor())["serial ports"].found


def test_an_inventory_that_cannot_be_read_is_told(desk: Desk, shelf: Path) -> None:
    Path("devices.toml").write_text("[[device]")
    assert "is not TOML" in named(doctor.doctor())["devices.toml"].cure
    Path("devices.toml").write_text("[[device]]\nid = 'ab'")
    assert named(doctor.doctor())["devices.toml"].found == "1 devices"


def test_the_rules_that_are_printed_are_those_that_were_lacking(tmp_path: Path) -> None:
    probes, ports = doctor.usb_ids()
    assert MICROBIT in probes and MICROBIT in ports
    assert set(probes) >= {id for board in boards.select("all") for id in board.usb.bootloader}
    assert udev.without_rule(probes, [tmp_path]) == sorted(probes)
    (tmp_path / "70-tinyfl.rules").write_text(udev.rules(probes, ports))
    assert udev.without_rule([*probes, *ports], [tmp_path]) == []
    assert Path(udev.FILE).name < "73-seat-late.rules"  # where uaccess is acted on


def test_probes_that_are_connected_are_tried(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyfl.devices.connected.USB_NODES", tmp_path / "nodes")
    monkeypatch.setattr(udev, "FOLDERS", ())
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (tmp_path / "nodes/001").mkdir(parents=True)
    for number, id in ((4, MICROBIT), (5, "1d6b:0002")):
        folder = tmp_path / "sys" / f"1-{number}"
        folder.mkdir(parents=True)
        for name, text in zip(("busnum", "devnum", "idVendor", "idProduct"), ("1", f"{number}", *id.split(":")), strict=True):
            (folder / name).write_text(text + "\n")
    assert doctor._probe_rules().found == f"{MICROBIT} may not be used"
    (tmp_path / "nodes/001/004").touch()
    check = doctor._probe_rules()
    assert check.state == "missing" and MICROBIT not in check.found and "tinyfl doctor --udev-rules" in check.cure


@pytest.mark.parametrize(
    ("rule", "grants"),
    [
        ('ATTRS{idVendor}=="0d28", ATTRS{idProduct}=="0204", MODE="660", GROUP="plugdev", TAG+="uaccess"', True),
        ('SUBSYSTEM=="usb", ATTR{idVendor}=="0d28", MODE:="0666"', True),
        ('ATTRS{idVendor}=="0d28", ATTRS{idProduct}=="02*", TAG+="uaccess"', True),
        ('ATTRS{idVendor}=="0d28", \\\n  ATTRS{idProduct}=="1234|0204", TAG+="uaccess"', True),
        ('ENV{ID_VENDOR_ID}=="0d28", ENV{ID_MODEL_ID}=="0204", TAG+="uaccess"', True),
        ('# ATTRS{idVendor}=="0d28", ATTRS{idProduct}=="0204", TAG+="uaccess"', False),
        ('ATTRS{idVendor}=="0d28", ATTRS{idProduct}=="0205", TAG+="uaccess"', False),
        ('ATTRS{idVendor}=="0d28", ATTRS{idProduct}=="0204", SYMLINK+="microbit"', False),
        ('ATTRS{idProduct}=="0204", TAG+="uaccess"', False),
        ("", False),
    ],
)
def test_what_rules_grant(tmp_path: Path, rule: str, grants: bool) -> None:
    (tmp_path / "50-some.rules").write_text(rule)
    assert udev.without_rule([MICROBIT], [tmp_path]) == ([] if grants else [MICROBIT])


def test_rules_of_openocd_are_understood() -> None:
    files = [file for folder in udev.FOLDERS for file in folder.glob("*openocd.rules")]
    if not files:
        pytest.skip("needs openocd's udev rules: apt-get install openocd")
    assert udev.without_rule(["0483:374b", "0483:fffe"], [files[0].parent]) == ["0483:fffe"]


def run(*arguments: str, cwd: Path) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "tinyfl.cli", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_command_changes_nothing_and_ends_well(tmp_path: Path) -> None:
    said = run("doctor", cwd=tmp_path)
    assert (said.returncode, said.stderr) == (0, "") and "compiled core" in said.stdout
    rules = run("doctor", "--udev-rules", cwd=tmp_path)
    assert rules.stdout == udev.rules(*doctor.usb_ids())
    assert list(tmp_path.iterdir()) == []
