"""Serial ports: what they are of, where a board went, who has one open."""

import os
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import MICROBIT, NUCLEO, STRANGER, Desk, held, silent
from double import Double
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serial.tools.list_ports_common import ListPortInfo

from tinyfl.devices import connected, ports
from tinyfl.errors import Dead, Late, Refused
from tinyfl.link.wire import SerialWire
from tinyfl.system.loop import in_loop

BOOTLOADER = "2341:005a"

DESKS = st.dictionaries(st.sampled_from(["1-1", "1-2", "1-3"]), st.sampled_from(["", "A", "B"]), max_size=3)


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


def twins(desk: Desk, *names: str) -> list[ports.Port]:
    """Adapters as some leave the factory, all with one serial number, each in the socket of its name's number."""
    for name in names:
        desk.plug(name, silent, usb=STRANGER, serial="0001", location=f"1-{name[-1]}")
    return ports.serial_ports()


def test_of_adapters_with_one_serial_number_each_is_followed_to_itself(desk: Desk) -> None:
    for at in twins(desk, "ttyUSB0", "ttyUSB1", "ttyUSB2"):
        assert at.shared and ports.where(at) == at and "USB socket 1-" in ports.named(at)


def test_one_that_is_gone_is_not_looked_for_in_its_twin_and_comes_back_under_any_name(desk: Desk) -> None:
    _, second = twins(desk, "ttyUSB0", "ttyUSB1")
    desk.unplug("ttyUSB1")
    assert ports.where(second) is None
    with pytest.raises(Dead, match=r"nothing at .*ttyUSB1 \(USB socket 1-1\) came back within 0 s"):
        in_loop(ports.follow(second, 0))
    desk.plug("ttyUSB7", silent, usb=STRANGER, serial="0001", location="1-1")
    assert in_loop(ports.follow(second, 0)).url.endswith("ttyUSB7")


def test_a_serial_number_that_two_have_finds_neither_in_another_socket(desk: Desk) -> None:
    (only,) = twins(desk, "ttyUSB0")
    assert not only.shared
    desk.clear()
    twins(desk, "ttyUSB3", "ttyUSB4")
    assert ports.where(only) is None
    desk.unplug("ttyUSB3")
    assert ports.where(only) is not None  # a cable that was moved


def test_another_board_in_the_socket_is_not_the_one_that_was_there(two: Desk) -> None:
    first = ports.serial_ports()[0]
    two.unplug("ttyACM0")
    two.plug("ttyACM0", silent, serial="C", location="1-1.1:1.1")
    assert ports.where(first) is None
    two.plug("ttyACM2", silent, serial="A", location="1-1.9:1.1")
    assert in_loop(ports.follow(first, 0)).url.endswith("ttyACM2")


def test_of_an_adapter_with_several_ports_none_stands_for_another(desk: Desk) -> None:
    """They appear one after the other, and at each hangs a board."""
    for number in range(4):
        desk.plug(f"ttyUSB{number}", silent, usb=STRANGER, serial="A", location=f"1-1:1.{number}")
    last = ports.serial_ports()[3]
    desk.unplug("ttyUSB3")
    assert ports.where(last) is None


def test_a_macs_two_names_of_a_port_are_one(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyfl.system.addresses.sys.platform", "darwin")
    now = [ports.Port("/dev/cu.usbmodem1", usb=MICROBIT, serial="A")]
    assert ports.port("/dev/tty.usbmodem1", present=now) == ports.port("/dev/cu.usbmodem1", present=now) == now[0]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=DESKS, after=DESKS)
def test_whatever_is_moved_a_port_is_followed_to_its_own_thing_or_nowhere(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, before: dict[str, str], after: dict[str, str]
) -> None:
    """``before`` and ``after``: the serial number of what is in each socket. Nobody is taken for another in the same moment,
    nor for one with another serial number."""

    def seen(sockets: dict[str, str]) -> list[ports.Port]:
        infos = []
        for number, (socket, serial) in enumerate(sockets.items()):
            info: Any = ListPortInfo(f"/dev/ttyUSB{number}")
            info.vid, info.pid, info.serial_number, info.location = 0x10C4, 0xEA60, serial or None, socket
            infos.append(info)
        monkeypatch.setattr("serial.tools.list_ports.comports", lambda: infos)
        return ports.serial_ports()

    was = seen(before)
    now = seen(after)
    found = [at for each in was if (at := ports.where(each))]
    assert len({at.url for at in found}) == len(found) and {at.url for at in found} <= {at.url for at in now}
    for each in was:
        at = ports.where(each)
        if at:
            assert at.serial == each.serial
        elif after.get(each.socket) == each.serial:
            raise AssertionError("it is still there")


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
        (found,) = [
            each for each in connected.connected_devices([os.ttyname(theirs)], within=1) if each.port.url.startswith("/dev/pts")
        ]
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
