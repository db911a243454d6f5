"""Drives: found by their label, whatever desktop mounts them, and what becomes of a copy that goes wrong."""

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest
from workbench import FakeBoard, Workbench

from tinyfl.building import boards
from tinyfl.flash import drives, run
from tinyfl.flash.run import FAILED, FLASHED
from tinyfl.flash.targets import FlashSelection

SIZE = 40_031
"""Bytes of the image that a fake build makes."""

MICROBIT = FlashSelection((boards.load("microbit-v2"),))


def test_drives_are_found_by_label_with_the_serial_number_of_their_board(workbench: Workbench) -> None:
    for serial in ("9904", "9905"):
        workbench.plug("", None, serial=serial, drive="MICROBIT")
    workbench.plug("", None, serial="E0C9", drive="RPI-RP2")
    found = drives.mounted("MICROBIT")
    assert [(each.path.name, each.serial, each.writable) for each in found] == [
        ("MICROBIT", "9904", True),
        ("MICROBIT1", "9905", True),  # as udisks mounts a second one
    ]
    assert drives.mounted("NODE_F401RE") == [] and drives.mounted("MICRO") == []


def test_a_drive_that_is_mounted_elsewhere_is_found_by_its_device(workbench: Workbench, tmp_path: Path) -> None:
    (tmp_path / "sdb").touch()
    (tmp_path / "labels" / r"MY\x20BOARD").symlink_to(tmp_path / "sdb")
    (tmp_path / "mounts").write_text(f"31 1 8:16 / /mnt/a\\040place ro,noexec - vfat {tmp_path / 'sdb'} ro\n")
    (found,) = drives.mounted("MY BOARD")
    assert (str(found.path), found.writable, found.serial) == ("/mnt/a place", False, "")
    assert drives.unmounted("MY BOARD") == ""
    (tmp_path / "mounts").write_text("")
    assert drives.unmounted("MY BOARD") == str(tmp_path / "sdb")


def test_labels_and_serial_numbers_that_are_no_text_hide_no_drive(workbench: Workbench, tmp_path: Path) -> None:
    """A stranger's stick may be called anything, and stands in the same list."""
    workbench.plug("", None, serial="9904", drive="MICROBIT")
    with (tmp_path / "mounts").open("ab") as mounts:
        mounts.write(b"98 1 8:99 / /media/\xff\x1b[31m rw - vfat /dev/sdx rw\n")
        mounts.write("99 1 8:99 / /media/a\u2028b\x0cc rw - vfat /dev/sdy rw\n".encode())
    (tmp_path / "sys/1-1/serial").write_bytes(b"\xff04\n")
    (found,) = drives.mounted("MICROBIT")
    assert found.serial == ""


def test_of_a_verdict_a_line_is_read_however_long_it_is(tmp_path: Path) -> None:
    (tmp_path / "FAIL.TXT").write_bytes(b"error:\r\n \x1b[31m\xff" + b"x" * 5_000_000)
    said = drives.verdict_now(drives.Drive(tmp_path, True, "", "1"))
    assert said.startswith("error: ")
    assert len(said) <= drives.MAX_VERDICT_CHARS
    assert said.isprintable()


def test_a_drive_that_is_not_mounted_is_told_from_one_that_is_not_there(workbench: Workbench, tmp_path: Path) -> None:
    (tmp_path / "sdb").touch()
    (tmp_path / "labels/MICROBIT").symlink_to(tmp_path / "sdb")
    (done,) = run.flash(MICROBIT)
    assert f"copy: the drive MICROBIT is not mounted. Mount it: udisksctl mount -b {tmp_path / 'sdb'}" in done.detail


def plugged(workbench: Workbench) -> Path:
    workbench.plug("ttyACM0", FakeBoard(), serial="9904", drive="MICROBIT")
    return workbench.folder / "media/MICROBIT"


def test_a_drive_that_is_read_only(workbench: Workbench) -> None:
    path = plugged(workbench)
    workbench.remount("MICROBIT", writable=False)
    (done,) = run.flash(MICROBIT)
    assert done.what == FAILED
    assert done.detail == (
        f"the drive at {path} is read-only. Unplug the board and plug it in again; if the drive stays read-only, its file "
        "system is damaged or its probe protects it: remount it (mount -o remount,rw) or flash with another --method."
    )


def test_a_drive_that_is_full(workbench: Workbench) -> None:
    path = plugged(workbench)
    (path / "microbit-v2.hex").symlink_to("/dev/full")  # the kernel's own word for it
    (done,) = run.flash(MICROBIT)
    assert done.what == FAILED
    assert done.detail == (
        f"the drive at {path} is full: 0 of {SIZE:,} bytes fit. Check that it is the board's drive, unplug the board and plug "
        "it in again, which empties the drive, and flash again."
    )


class Unplugged(io.FileIO):
    """A file whose drive goes away with its second block."""

    def write(self, data: Any) -> int:
        if self.tell():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().write(data)


def test_a_board_that_is_unplugged_in_the_middle_and_flashed_again(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plugged(workbench)
    with monkeypatch.context() as patched:
        (drive,), image = drives.mounted("MICROBIT"), workbench.folder / "microbit-v2.hex"
        image.write_bytes(bytes(SIZE))
        patched.setattr(Path, "open", lambda self, mode, **_: Unplugged(self, mode.replace("b", "")))
        patched.setattr(Path, "read_bytes", lambda self: bytes(SIZE))
        with pytest.raises(drives.FlashError) as failed:
            drives.copy(image, drive)
    assert str(failed.value) == (
        f"the drive at {path} disappeared after 16,384 of {SIZE:,} bytes (Input/output error). Check the cable, put the "
        "board into its bootloader again, and flash again. The board's firmware is lost and, if the drive erases the whole "
        "chip, so are its models."
    )
    assert (path / "microbit-v2.hex").stat().st_size == 16_384  # what a second try must mend
    board = FakeBoard()
    workbench.unplug("ttyACM0")
    workbench.plug("ttyACM0", board, serial="9904")

    def taken(file: Path) -> None:
        assert file.stat().st_size == SIZE
        board.firmware = "0.1.0+0ddba11d"
        workbench.remount("MICROBIT")

    workbench.on_copy = taken
    (done,) = run.flash(MICROBIT)
    assert done.what == FLASHED


def test_a_board_that_restarts_before_its_drive_is_asked_is_no_failure(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With its last block the RP2040 leaves, so that the drive's answer is an error."""
    plugged(workbench)

    def gone(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", gone)
    image = tmp_path / "image.uf2"
    image.write_bytes(b"all of it")
    drives.copy(image, drives.mounted("MICROBIT")[0])
    assert (tmp_path / "media/MICROBIT/image.uf2").read_bytes() == b"all of it"


def test_volumes_of_a_mac(workbench: Workbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tinyfl.flash.drives.sys.platform", "darwin")
    monkeypatch.setattr("tinyfl.flash.drives.VOLUMES", tmp_path / "media")
    for name in ("MICROBIT", "MICROBIT 1", "MICROBITE"):
        (tmp_path / "media" / name).mkdir()
    assert [each.path.name for each in drives.mounted("MICROBIT")] == ["MICROBIT", "MICROBIT 1"]
    assert drives.unmounted("RPI-RP2") == ""
