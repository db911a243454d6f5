"""What is connected: every port asked at once, none that is not meant, none reset."""

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest
from desk import MICROBIT, NUCLEO, STRANGER, Desk, held, silent
from double import Double
from lies import LIES, Liar, fields_of

from tinyfl.devices import connected
from tinyfl.devices.connected import Device, Probe
from tinyfl.errors import Dead
from tinyfl.link.messages.about import DescribeReply
from tinyfl.link.wire import SerialWire
from tinyfl.system.loop import in_loop


def test_every_port_has_its_state(desk: Desk) -> None:
    heard: list[bytes] = []
    old = Double(b"\2")
    old.protocol = 1
    free = desk.plug("ttyACM0", Double(b"\xab\1").exchange, serial="A")
    busy = desk.plug("ttyACM1", Double(b"\3").exchange, usb=NUCLEO)
    desk.plug("ttyACM2", silent)
    desk.plug("ttyACM3", old.exchange)
    desk.plug("ttyUSB0", lambda data: heard.append(data) or b"", usb=STRANGER)  # type: ignore[func-returns-value]
    with held(busy) as pid:
        found = connected.connected_devices(within=2)
    assert [each.state for each in found] == ["free", "busy", "silent", "refused", "unknown"]
    first, second, third, fourth, _ = found
    assert (first.id, first.boards, first.baud, first.port.url) == ("ab01", ("double",), 115_200, free)
    assert f"process {pid}" in second.detail and "nucleo-f401re" in second.boards
    assert "nothing answers" in third.detail and third.boards == ("microbit-v2",)
    assert "speaks protocol 1" in fourth.detail
    assert heard == []
    assert json.loads(json.dumps([each.as_json() for each in found]))[0]["firmware"] == "double"


def test_a_port_that_is_named_is_asked_whatever_it_is(desk: Desk) -> None:
    url = desk.plug("ttyUSB0", Double(b"\7").exchange, usb=STRANGER)
    (found,) = connected.connected_devices([url], within=60)
    assert (found.id, found.state) == ("07", "free")
    gone, again = connected.connected_devices(["/dev/there-is-no-such-port"], within=2)
    assert (gone.state, again.state) == ("gone", "unknown")


def test_every_speed_of_a_port_is_tried(monkeypatch: pytest.MonkeyPatch, desk: Desk) -> None:
    url, tried = desk.plug("ttyACM0", Double(b"\7").exchange), []
    really = SerialWire.open

    async def open(url: str, baud: int = 0) -> SerialWire:
        tried.append(baud)
        if baud != 230_400:
            raise Dead("another speed")
        return await really(url, baud)

    monkeypatch.setattr(SerialWire, "open", open)
    port = connected.Port(url, bauds=(115_200, 921_600, 230_400, 57_600))
    (found,) = [each for each in in_loop(connected.look([port])) if each.port == port]
    assert (found.id, found.baud, tried) == ("07", 230_400, [115_200, 921_600, 230_400])


def test_a_port_is_left_as_it_was_found(desk: Desk) -> None:
    """A look at a board resets nothing, and drops nothing that it has."""
    board = Double(b"\7")
    url = desk.plug("ttyACM0", board.exchange)
    board.state = 2  # it has weights
    for _ in range(3):
        assert connected.connected_devices()[0].state == "free"
    assert board.state == 2
    assert os.path.realpath(url).startswith("/dev/pts/")


def test_probes_are_seen_by_their_ids_and_by_pyocd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, vendor, product, serial in (
        ("1-1", "0d28", "0204", "9904"),
        ("1-2", "0483", "374b", "066D"),
        ("1-3", "2e8a", "000c", ""),
        ("usb1", "1d6b", "2", ""),
    ):
        folder = tmp_path / "sys" / name
        folder.mkdir(parents=True)
        for file, text in (("idVendor", vendor), ("idProduct", product), ("serial", serial), ("product", "a probe")):
            (folder / file).write_text(text + "\n")
    tool = tmp_path / "pyocd"
    listed = {"boards": [{"unique_id": "066D", "info": "ST-Link of a Nucleo", "target": "no such target"},
                         {"unique_id": "E66", "info": "Picoprobe", "target": "cortex_m"}]}  # fmt: skip
    tool.write_text(f"#!/bin/sh\n[ \"$*\" = 'json --probes' ] && echo '{json.dumps(listed)}'\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(connected, "USB_DEVICES", tmp_path / "sys")
    monkeypatch.setattr(connected, "find_tool", lambda name: str(tool))
    found = {each.id: each for each in connected.probes()}
    assert set(found) == {"9904", "066D", "E66", ""}
    assert found[""] == Probe("", "a probe", "2e8a:000c", ("pico",), "1-3")  # its id is not the socket's name
    assert found["9904"] == Probe("9904", "a probe", MICROBIT, ("microbit-v2",), "1-1")
    assert found["066D"].name == "ST-Link of a Nucleo" and "nucleo-f401re" in found["066D"].boards
    assert found["E66"] == Probe("E66", "Picoprobe", "", ())
    tool.write_text("#!/bin/sh\necho Traceback; exit 1\n")
    assert {each.id for each in connected.probes()} == {"9904", "066D", ""}


def test_a_device_without_an_answer_has_no_id() -> None:
    quiet = Device(connected.Port("/dev/ttyACM0", usb=MICROBIT), "silent")
    assert (quiet.id, quiet.boards) == ("", ("microbit-v2",))


def test_lies_of_one_board_hide_no_other(desk: Desk) -> None:
    """A lie in each field of a board's description, all boards asked at once."""
    fields = fields_of(DescribeReply)
    desk.plug("ttyACM00", Double(b"\xab").exchange)
    for number, field in enumerate(fields, 1):
        lie = list(LIES)[number % len(LIES)] if number % 2 else "10^20,000,000"
        desk.plug(f"ttyACM{number:02}", Liar(bytes([number]), DescribeReply, field, LIES[lie]).exchange)
    found = connected.connected_devices(within=20)
    assert len(found) == 1 + len(fields)
    assert (found[0].state, found[0].id) == ("free", "ab")
    assert {each.state for each in found[2::2]} == {"corrupt"}
    assert all("\n" not in each.detail for each in found)


def test_a_process_with_a_name_that_is_no_text_is_a_holder_all_the_same(desk: Desk) -> None:
    """Any process may give itself any name."""
    url = desk.plug("ttyACM0", Double(b"\1").exchange)
    rename = "import ctypes; ctypes.CDLL(None).prctl(15, b'\\xff\\x1b[31m', 0, 0, 0)\n"
    with held(url, before=rename):
        (found,) = connected.connected_devices(within=1)
    assert (found.state, "\ufffd" in found.detail) == ("busy", True)


def test_a_board_that_was_flashed_and_lies_is_said_to(desk: Desk) -> None:
    from tinyfl.errors import FlashError
    from tinyfl.flash.verify import verify

    url = desk.plug("ttyACM0", Liar(b"\1", DescribeReply, "clock", LIES["10^20,000,000"]).exchange)
    with pytest.raises(FlashError, match="cannot be verified: the board's answer to Describe cannot be read: it has the tag 4"):
        asyncio.run(verify(connected.port(url), None, within=0.5))  # type: ignore[arg-type]
