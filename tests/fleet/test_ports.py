"""Serial ports: what they are of, where a board went, who has one open."""

import os
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import MICROBIT, NUCLEO, STRANGER, Desk, held, silent
from double import Double
from serial.tools.list_ports_common import ListPortInfo

from tinyfl import devices, ports
from tinyfl.devices import in_loop
from tinyfl.link.errors import Dead, Late, Refused
from tinyfl.link.wire import SerialWire

BOOTLOADER = "2341:005a"


@pytest.fixture
def two(desk: Desk) -> Iterator[Desk]:
    desk.plug("ttyACM0", silent, serial="A", location="1-1.1:1.1")
    desk.plug("ttyACM1", silent, serial="B", location="1-1.2:1.1")
    yield desk


def test_a_ports_ids_say_which_boards_it_may_be_of(desk: Desk) -> None:
    desk.plug("ttyACM0", silent, usb=MICROBIT, serial="A", location="1-1:1.1")
    desk.plug("ttyACM1", silent, usb=NUCLEO)
    desk.plug("ttyUSB0", silent, usb=STRANGER)
    microbit, nucleo, stranger = ports.serial_ports()
    assert (microbit.usb, microbit.serial, microbit.socket, microbit.interface) == (MICROBIT, "A", "1-1", "1.1")
    assert microbit.boards == ("microbit-v2",)
    assert {"nucleo-f401re", "nucleo-f446re"} <= set(nucleo.boards)
    assert stranger.boards == () and stranger.bauds == (115_200,)


def test_a_board_is_followed_by_its_serial_number_whatever_its_ports_name(two: Desk) -> None:
    first, second = ports.serial_ports()
    two.clear()
    two.plug("ttyACM0", silent, serial="B", location="1-1.7:1.1")
    two.plug("ttyACM1", silent, serial="A", location="1-1.8:1.1")
    assert in_loop(ports.follow(first, 0)).url.endswith("ttyACM1")
    assert in_loop(ports.follow(second, 0)).url.endswith("ttyACM0")


def test_it_is_waited_for_and_the_wait_ends(two: Desk) -> None:
    first = ports.serial_ports()[0]
    two.unplug("ttyACM0")
    with pytest.raises(Dead, match="serial number A came back within 0 s"):
        in_loop(ports.follow(first, 0))
    began = two.looks
    two.on_look = lambda look: look == began + 3 and two.plug("ttyACM7", silent, serial="A", location="1-1.1:1.1")
    assert in_loop(ports.follow(first, 60)).url.endswith("ttyACM7")


def test_of_several_interfaces_it_is_the_same_one(desk: Desk) -> None:
    for name, interface in (("ttyACM0", "1.0"), ("ttyACM1", "1.2")):
        desk.plug(name, silent, serial="A", location=f"1-1:{interface}")
    second = ports.serial_ports()[1]
    desk.clear()
    for name, interface in (("ttyACM3", "1.2"), ("ttyACM4", "1.0")):
        desk.plug(name, silent, serial="A", location=f"1-1:{interface}")
    assert in_loop(ports.follow(second, 0)).url.endswith("ttyACM3")


def test_a_board_without_a_serial_number_is_known_by_its_socket(desk: Desk) -> None:
    desk.plug("ttyUSB0", silent, usb=STRANGER, location="1-1.1")
    desk.plug("ttyUSB1", silent, usb=STRANGER, location="1-1.2")
    second = ports.serial_ports()[1]
    desk.clear()
    desk.plug("ttyUSB0", silent, usb=STRANGER, location="1-1.2")
    assert in_loop(ports.follow(second, 0)).url.endswith("ttyUSB0")
    desk.clear()
    desk.plug("ttyUSB1", silent, usb=STRANGER, location="1-1.1")
    with pytest.raises(Dead, match=r"nothing at .*ttyUSB1 came back"):
        in_loop(ports.follow(second, 0))


@pytest.mark.parametrize("serial", ["A", "", "another"])
def test_a_bootloader_is_found_by_its_ids_and_serial_number_or_socket(two: Desk, serial: str) -> None:
    first = ports.serial_ports()[0]
    two.unplug("ttyACM0")
    two.plug("ttyACM2", silent, usb=BOOTLOADER, serial="stranger", location="1-3:1.0")
    assert ports.where(first, [BOOTLOADER]) is None
    two.plug("ttyACM3", silent, usb=BOOTLOADER, serial=serial, location="1-1.1:1.0")
    assert in_loop(ports.follow(first, 0, [BOOTLOADER])).url.endswith("ttyACM3")
    assert ports.where(first) is None  # its application is not back


def test_a_pty_or_a_socket_stays_where_it_is(desk: Desk) -> None:
    url = desk.plug("ttyACM0", silent)
    pty = str(Path(url).resolve())
    desk.comports = lambda: []  # type: ignore[method-assign]
    assert ports.where(ports.Port(pty)) == ports.Port(pty)
    assert ports.where(ports.Port("socket://127.0.0.1:1")) == ports.Port("socket://127.0.0.1:1")
    assert ports.where(ports.Port("/dev/there-is-no-such-port")) is None


def test_a_port_may_be_named_by_a_link_and_its_speed_given(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info: Any = ListPortInfo(str(tmp_path / "ttyACM0"))
    info.vid, info.pid, info.serial_number = 0x0D28, 0x0204, "A"
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: [info])
    (tmp_path / "ttyACM0").touch()
    (tmp_path / "by-id").symlink_to(tmp_path / "ttyACM0")
    named = ports.port(str(tmp_path / "by-id"), 921_600)
    assert (named.serial, named.boards, named.bauds) == ("A", ("microbit-v2",), (921_600,))


def test_a_port_that_vanishes_while_it_is_read_is_no_trouble(two: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from serial.tools import list_ports

    def vanishing() -> Any:
        monkeypatch.setattr(list_ports, "comports", two.comports)
        return int(None, 16)  # type: ignore[call-overload]

    monkeypatch.setattr(list_ports, "comports", vanishing)
    assert len(ports.serial_ports()) == 2


def trouble_at(url: str) -> str:
    with pytest.raises(Dead) as raised:
        in_loop(SerialWire.open(url))
    return ports.trouble(raised.value)


def test_a_port_that_another_process_has_is_busy_and_the_process_named(desk: Desk) -> None:
    url = desk.plug("ttyACM0", Double().exchange)
    assert ports.holders(url) == []
    with held(url) as pid:
        assert trouble_at(url) == "busy"
        (holder,) = ports.holders(url)
        assert holder.pid == pid and "python" in str(holder) and str(pid) in str(holder)
    assert ports.holders(url) == []


def test_each_trouble_has_its_word() -> None:
    def after(cause: BaseException) -> Dead:
        error = Dead("")
        error.__cause__ = cause
        return error

    assert trouble_at("/dev/there-is-no-such-port") == "gone"
    assert trouble_at("socket://127.0.0.1:1") == "gone"
    assert ports.trouble(after(PermissionError(13, "no"))) == "denied"
    assert ports.trouble(after(Late("no answer"))) == "silent"
    assert ports.trouble(Refused("another protocol")) == "refused"


def test_a_pty_that_is_somebodys_terminal_is_not_talked_to(desk: Desk) -> None:
    """A pty's number is used again: what was an emulated board may be a shell by now."""
    import pty
    import subprocess
    import sys

    terminal, theirs = pty.openpty()
    shell = "import os, fcntl, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); print('up'); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-uc", shell], stdin=theirs, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.read(2) == b"up"
        before = termios.tcgetattr(theirs)
        (found,) = [each for each in devices.devices([os.ttyname(theirs)], within=1) if each.port.url.startswith("/dev/pts")]
        assert found.state == "busy" and f"process {process.pid}" in found.detail
        assert termios.tcgetattr(theirs) == before
        process.kill()
    os.close(terminal)
    os.close(theirs)


def test_a_port_that_is_open_without_a_lock_is_busy_too(desk: Desk) -> None:
    opened = {"/dev/ttyUSB7": [ports.Holder(77, "screen")]}
    with pytest.raises(Dead, match=r"in use by screen \(process 77\)") as raised:
        ports.demand_free(ports.Port("/dev/ttyUSB7"), opened)
    assert ports.trouble(raised.value) == "busy"
    ports.demand_free(ports.Port("/dev/ttyUSB8"), opened)
