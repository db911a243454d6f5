"""A bench on which boards hang by USB, each with a port, a probe and a drive, and on which tools lie that only pretend."""

import json
import os
import re
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from desk import MICROBIT, Desk
from double import Double

from tinyfl.building.boards import Board
from tinyfl.building.build import Firmware

VERSION = "0.1.0+0ddba11d"
"""Of what a fake build makes."""

OLD = "0.1.0+01d01d01"

# Says what it is told to, after asking the bench, if that listens, to write what it is given.
TOOL = """#!{python} -S
import json, pathlib, socket, sys, time
told = json.loads(pathlib.Path({told!r}).read_text())
print(told["says"], flush=True)
if told["asks"]:
    asked = socket.socket(socket.AF_UNIX)
    asked.connect(told["asks"])
    asked.sendall(json.dumps(sys.argv).encode() + b"\\n")
    sys.exit(int(asked.makefile().readline() or 1))
time.sleep(told["sleeps"])
sys.exit(told["code"])
"""


class Tool:
    """A script that stands for a flash tool, in the folder ``bin``. It says ``says`` and ends with ``code``; or it asks
    ``written``, which gets its arguments and returns its exit code."""

    def __init__(self, bin: Path, name: str) -> None:
        bin.mkdir(exist_ok=True)
        self._told = bin / f"{name}.json"
        self.path = bin / name
        self.path.write_text(TOOL.format(python=sys.executable, told=str(self._told)))
        self.path.chmod(0o755)
        self.calls: list[list[str]] = []
        self._listener: socket.socket | None = None
        self.does()

    def does(self, says: str = "", code: int = 0, sleeps: float = 0.0) -> None:
        """From now on."""
        self._told.write_text(json.dumps({"says": says, "code": code, "sleeps": sleeps, "asks": ""}))

    def writes(self, written: Callable[[list[str]], int], says: str = "") -> None:
        """From now on."""
        path = str(self.path.with_suffix(".socket"))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        threading.Thread(target=self._serve, args=(self._listener, written), daemon=True).start()
        self._told.write_text(json.dumps({"says": says, "code": 0, "sleeps": 0, "asks": path}))

    def _serve(self, listener: socket.socket, written: Callable[[list[str]], int]) -> None:
        with suppress(OSError):
            while True:
                asked, _ = listener.accept()
                threading.Thread(target=self._answer, args=(asked, written), daemon=True).start()

    def _answer(self, asked: socket.socket, written: Callable[[list[str]], int]) -> None:
        with asked:
            argv = json.loads(asked.makefile().readline())
            self.calls.append(argv)
            code = written(argv)
            with suppress(OSError):  # the tool was killed
                asked.sendall(f"{code}\n".encode())

    def close(self) -> None:
        if self._listener:
            self._listener.close()


class FakeBoard(Double):
    """A board that says what it is told to say that it is."""

    def __init__(self, id: bytes = b"\1", board: str = "microbit-v2", firmware: str = OLD) -> None:
        super().__init__(id)
        self.board, self.firmware = board, firmware

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "board": self.board, "firmware": self.firmware}


class Workbench:
    """What is plugged in, and what tools and drives make of it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from serial.tools import list_ports

        self.folder, self._monkeypatch = folder, monkeypatch
        self.desk = Desk(folder / "dev")
        self.drives: dict[str, tuple[Path, int, bool, str]] = {}
        self.on_copy: Callable[[Path], None] = lambda path: None
        self._tools: list[Tool] = []
        self._mounts = 20
        for name in ("sys", "blocks", "labels", "bin", "media"):
            (folder / name).mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setattr(list_ports, "comports", self.desk.comports)
        monkeypatch.setattr("tinyfl.devices.connected.USB_DEVICES", folder / "sys")
        monkeypatch.setattr("tinyfl.devices.connected.find_tool", lambda name: None)
        monkeypatch.setattr("tinyfl.flash.methods.find_tool", self._found)
        monkeypatch.setattr("tinyfl.flash.methods.ARDUINO", ())
        for name, where in {"MOUNTS": "mounts", "BLOCKS": "blocks", "LABELS": "labels"}.items():
            monkeypatch.setattr(f"tinyfl.flash.drives.{name}", folder / where)
        monkeypatch.setattr("tinyfl.flash.drives.sys.platform", "linux")
        monkeypatch.setattr("tinyfl.flash.drives.VERDICT_SECONDS", 5.0)
        monkeypatch.setattr("tinyfl.flash.verify.SETTLE_SECONDS", 0.3)
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        really = os.fsync

        def fsync(file: int) -> None:
            path = Path(f"/proc/self/fd/{file}").readlink()
            really(file)
            if path.is_relative_to(folder / "media"):
                self.on_copy(path)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr("tinyfl.fleets.emulation.firmware", self._built)
        monkeypatch.setattr("tinyfl.building.images.write", self._image)
        self._mount()

    def tool(self, name: str) -> Tool:
        """A tool of this name, on the path from now on."""
        self._tools.append(Tool(self.folder / "bin", name))
        return self._tools[-1]

    def plug(self, name: str, board: FakeBoard | None, *, usb: str = MICROBIT, serial: str = "", drive: str = "") -> str:
        """Plugs in a board that answers at a port of this name (None: shows no port), under a USB id and serial number that its
        probe has too, with a drive of this label: the port's url."""
        device = self.folder / "sys" / f"1-{len(list((self.folder / 'sys').iterdir())) + 1}"
        device.mkdir()
        for file, text in zip(("idVendor", "idProduct"), usb.split(":"), strict=True):
            (device / file).write_text(text + "\n")
        if serial:
            (device / "serial").write_text(serial + "\n")
        if drive:
            number = f"8:{len(self.drives)}"
            (device / "block").mkdir()
            (self.folder / "blocks" / number).symlink_to(device / "block")
            same = sum(name.startswith(drive) for name in self.drives)
            path = self.folder / "media" / f"{drive}{same or ''}"
            path.mkdir(exist_ok=True)
            self.drives[path.name] = path, self._mounts, True, number
            self._mount()
        return self.desk.plug(name, board.exchange, usb=usb, serial=serial, location=device.name) if board else ""

    def unplug(self, name: str) -> None:
        """Pulls the cable of the board with the port of this name."""
        (info,) = (each for each in self.desk.comports() if Path(each.device).name == name)
        self.desk.unplug(name)
        for file in ("idVendor", "idProduct"):
            (self.folder / "sys" / info.location / file).unlink()

    def remount(self, drive: str, *, writable: bool = True, holds: dict[str, str] | None = None) -> None:
        """The drive goes and comes back, with these files on it."""
        path, _, _, number = self.drives[drive]
        self._mounts += 1
        for file in path.iterdir():
            file.unlink()
        for name, text in (holds or {}).items():
            (path / name).write_text(text)
        self.drives[drive] = path, self._mounts, writable, number
        self._mount()

    def _mount(self) -> None:
        lines = ["1 0 8:99 / / rw,relatime - ext4 /dev/sda2 rw"]
        for path, mount, writable, number in self.drives.values():
            where = str(path).replace(" ", "\\040")
            lines.append(f"{mount} 1 {number} / {where} {'rw' if writable else 'ro'},nosuid - vfat /dev/{number} rw")
        new = self.folder / "mounts.new"  # whole at any moment, as the kernel's
        new.write_text("\n".join(lines) + "\n")
        new.replace(self.folder / "mounts")

    def _found(self, name: str) -> str | None:
        path = self.folder / "bin" / name
        return str(path) if path.exists() else None

    def _built(self, board: Board, toolchain: str, out: Path | None = None, sources: Any = ()) -> Firmware:
        folder = self.folder / "cache" / board.name
        folder.mkdir(parents=True, exist_ok=True)
        return Firmware(folder / f"{board.name}.elf", board, toolchain, VERSION, None)

    def _image(self, elf: Path, format: str, path: Path, *, family: int = 0) -> None:
        path.write_bytes(f"{format} {elf.stem} {VERSION}\n".encode() + bytes(40_000))

    def __enter__(self) -> "Workbench":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.desk.clear()
        for tool in self._tools:
            tool.close()


def version_in(image: bytes) -> str:
    """The version that an image's firmware will say."""
    found = re.search(rb"\d+\.\d+\.\d+\+[0-9a-f]{8}", image)
    assert found
    return found[0].decode()
