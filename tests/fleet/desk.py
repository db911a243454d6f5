"""Boards that come and go on the USB ports of a desk: a board's double behind a pty, under a name as Linux gives them."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from double import Double
from serial.tools.list_ports_common import ListPortInfo

from tinyfl.simulators.bridge import Bridge

MICROBIT, NUCLEO, STRANGER = "0d28:0204", "0483:374b", "10c4:ea60"
"""USB ids: of one board's port, of several boards' ports, and of an adapter that no manifest has."""

HOLDER = """
import serial, sys
port = serial.serial_for_url(sys.argv[1], exclusive=True)
print("held", flush=True)
sys.stdin.read()
"""


def never(fault: Exception) -> None:
    raise AssertionError(fault)


def silent(data: bytes) -> bytes:
    """Nobody at home."""
    return b""


class Desk:
    """``folder`` is its /dev. A port's name leads to a pty as long as its board is plugged in."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._plugged: dict[str, tuple[Bridge, ListPortInfo]] = {}
        self.looks = 0
        self.on_look: Callable[[int], None] = lambda look: None

    def plug(
        self, name: str, exchange: Callable[[bytes], bytes], *, usb: str = MICROBIT, serial: str = "", location: str = ""
    ) -> str:
        """Plugs a board in, whose UART is ``exchange``: its port's url."""
        link = self._folder / name
        bridge = Bridge(SimpleNamespace(exchange=exchange), "pty", never)
        link.symlink_to(bridge.url)
        info: Any = ListPortInfo(str(link), skip_link_detection=True)
        info.vid, info.pid = (int(part, 16) for part in usb.split(":"))
        info.serial_number, info.location, info.product = serial or None, location or None, "a board"
        self._plugged[name] = bridge, info
        return str(link)

    def unplug(self, name: str) -> None:
        """Pulls the cable."""
        bridge, _ = self._plugged.pop(name)
        (self._folder / name).unlink()
        bridge.close()

    def clear(self) -> None:
        for name in list(self._plugged):
            self.unplug(name)

    def comports(self) -> list[Any]:
        """What pyserial's function of this name would find."""
        self.looks += 1
        self.on_look(self.looks)
        return [info for _, info in self._plugged.values()]


class Fragile:
    """A board's UART at which ``happen`` is called once, with the first message that comes after ``after`` others; it returns
    what the board answers to that, or None to go on as if nothing were."""

    def __init__(self, board: Double, after: int, happen: Callable[[], bytes | None]) -> None:
        self.board, self.messages, self._after, self._happen = board, 0, after, happen

    def exchange(self, data: bytes) -> bytes:
        self.messages += 1
        if self.messages == self._after + 1:
            answer = self._happen()
            if answer is not None:
                return answer
        return self.board.exchange(data)


@contextmanager
def held(url: str, before: str = "") -> Iterator[int]:
    """Another process has the port open, for itself alone, and did ``before``; its number."""
    process = subprocess.Popen(
        [sys.executable, "-c", before + HOLDER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="replace"
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process.pid
    finally:
        process.communicate("")
