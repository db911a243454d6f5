"""devices.toml: what is read, what is refused, what is left as it was; and which devices are meant."""

import threading
import time
import tomllib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from desk import MICROBIT, STRANGER, Desk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tinyfl.cli import app
from tinyfl.devices import inventory
from tinyfl.devices.connected import Device
from tinyfl.devices.inventory import Saved, Selection
from tinyfl.devices.ports import Port
from tinyfl.errors import ConfigError
from tinyfl.link.status import Description

OWN = """# My boards.
note = "mine"

[[device]]
id = "AB01"   # the one with the dent
tags = [
    "lab",    # by the window
]
colour = "red"

[[device]]
id = "cd02"
board = "nucleo-f401re"
port = "/dev/ttyACM9"
usb-serial = "X"

[elsewhere]
kept = true
"""
DESCRIBED = Description(3, "1", 1, "double", b"", 0, 1, 512, 1, 1, (), (), (), (), b"", b"", 1, b"")


def device(id: str, board: str = "double", url: str = "/dev/pts/0", serial: str = "", baud: int = 115_200) -> Device:
    described = replace(DESCRIBED, board=board, id=bytes.fromhex(id))
    return Device(Port(url, usb=MICROBIT if serial else "", serial=serial), "free", "", described, baud)


def quiet(url: str, serial: str = "", usb: str = MICROBIT, state: str = "silent") -> Device:
    return Device(Port(url, usb=usb, serial=serial), state, "nothing answers")


def test_what_a_user_wrote_stays(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "devices.toml"
    path.write_text(OWN)
    saved = inventory.save([device("ab01", "microbit-v2", "/dev/ttyACM0", "A"), device("ef03", baud=921_600)], ["desk"], path)
    assert saved[0] == Saved("ab01", "microbit-v2", ("lab", "desk"), "/dev/ttyACM0", "A")
    assert saved[1] == Saved("ef03", "double", ("desk",), "/dev/pts/0", "", 921_600)
    text = path.read_text()
    for line in ("# My boards.", 'id = "AB01"   # the one with the dent', "# by the window", 'colour = "red"', "kept = true"):
        assert line in text
    untouched = Saved("cd02", "nucleo-f401re", (), "/dev/ttyACM9", "X")
    assert inventory.read_inventory(path) == (saved[0], untouched, saved[1])
    before = path.stat().st_mtime_ns
    inventory.save([device("ab01", "microbit-v2", "/dev/ttyACM0", "A")], ["desk"], path)
    assert (path.read_text(), path.stat().st_mtime_ns) == (text, before)


def test_a_board_that_moved_has_its_new_port_only(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "devices.toml"
    inventory.save([device("ab01", url="/dev/ttyACM0", serial="A")], path=path)
    inventory.save([device("ab01", url="/dev/pts/4")], path=path)
    assert inventory.read_inventory(path) == (Saved("ab01", "double", (), "/dev/pts/4"),)
    assert "usb-serial" not in path.read_text()


def test_two_that_save_at_once_do_so_one_after_the_other(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, really, begun = tmp_path / "devices.toml", inventory._text, threading.Event()
    with ThreadPoolExecutor() as pool:
        other: list[Future[object]] = []

        def read(path: Path) -> str:
            text = really(path)
            if not begun.is_set():  # the second comes when the first has read and not written
                begun.set()
                other.append(pool.submit(inventory.save, [device("ab01")], (), path))
                while "another tinyfl is writing" not in (said := capsys.readouterr().err):
                    assert not said and not other[0].done()
                    time.sleep(0.01)
            return text

        monkeypatch.setattr(inventory, "_text", read)
        inventory.save([device("ef03")], (), path)
        other[0].result()
    assert [each.id for each in inventory.read_inventory(path)] == ["ef03", "ab01"]


def test_there_is_none_at_first_and_silent_ports_are_not_saved(desk: Desk, tmp_path: Path) -> None:
    assert inventory.read_inventory() == ()
    assert inventory.save([quiet("/dev/ttyACM0")]) == ()
    assert inventory.read_inventory() == ()


def test_a_file_that_is_named_must_be_there_and_is_the_one_that_is_blamed(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    with pytest.raises(ConfigError, match=f"there is no file {path}"):
        inventory.read_inventory(path)
    with pytest.raises(ConfigError, match=f"Give devices tags in {path}"):
        inventory.select(Selection(tags=("lab",)), [], [], path)
    saved = CliRunner().invoke(app, ["devices", "--save", "--inventory", str(path)])
    assert saved.exit_code == 0 and f"saved in {path}: nothing" in saved.stdout


def test_two_boards_with_one_id_are_refused_by_name(desk: Desk, tmp_path: Path) -> None:
    found = [device("ab01", "posix"), device("ab01", "posix", "/dev/pts/1")]
    with pytest.raises(ConfigError, match="two boards report the id ab01, at /dev/pts/0 and /dev/pts/1"):
        inventory.select(Selection(), found)
    with pytest.raises(ConfigError, match="two boards report the id ab01"):
        inventory.save(found, path=tmp_path / "devices.toml")
    assert not (tmp_path / "devices.toml").exists()
    assert inventory.select(Selection(ports=("/dev/pts/1",)), found).present == (found[1],)


def test_ports_are_looked_at_once_however_many_devices_there_are(desk: Desk, tmp_path: Path) -> None:
    desk.plug("ttyACM0", lambda data: b"", serial="A")
    inventory.ports_of([Saved(f"{number:02x}", usb_serial="A") for number in range(9)])
    inventory.save([device("ab01", "microbit-v2", "/dev/ttyACM0", "A"), device("cd01")], path=tmp_path / "devices.toml")
    assert desk.looks == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[device]", "is not TOML"),
        ("device = 3", "not a list of tables"),
        ("device = [3]", "number 1 is 3, not a table"),
        ("[[device]]", "the id ''"),
        ("[[device]]\nid = 7", "the id 7"),
        ("[[device]]\nid = 'xy'", "the id 'xy'"),
        ("[[device]]\nid = 'ab'\nport = 3", "the port 3"),
        ('[[device]]\nid = "ab"\nport = "a\\u0007b"', "the port"),
        ("[[device]]\nid = 'ab'\ntags = 'lab'", "the tags 'lab'"),
        ("[[device]]\nid = 'ab'\ntags = ['a b']", "the tags"),
        ("[[device]]\nid = 'ab'\nbaud = -1", "the baud -1"),
        ("[[device]]\nid = 'ab'\n[[device]]\nid = 'AB'", "ab more than once"),
    ],
)
def test_what_is_no_inventory_is_refused_and_left_alone(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "devices.toml"
    path.write_text(text)
    for use in (lambda: inventory.read_inventory(path), lambda: inventory.save([device("ab01")], path=path)):
        with pytest.raises(ConfigError, match=said):
            use()
    assert path.read_text() == text


def test_a_layout_that_cannot_be_added_to_is_refused_and_left_alone(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "devices.toml"
    path.write_text(text := 'device = [{ id = "ab01" }]\n')
    assert inventory.read_inventory(path) == (Saved("ab01"),)
    with pytest.raises(ConfigError, match="cannot update safely"):
        inventory.save([device("cd02")], path=path)
    assert path.read_text() == text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
LINES = st.sampled_from(
    ["[[device]]", "[device]", 'id = "ab01"', 'id = "AB02"', "id = 3", 'tags = ["lab"]', "tags = 1", 'board = "x"', "# words",
     "[[other]]", "[device.sub]", "[[device.more]]", 'device = [{id = "0a"}]', "a.b = 1", "x = 1979-05-27", 'port = """\na"""',
     "baud = 9600", '"id" = "ab03"', "", "\t", "device.x = 1", "k = nan", "'usb-serial' = 'S'", "\ufeff"]
)  # fmt: skip


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.lists(LINES, max_size=12).map("\n".join) | st.text(max_size=40) | st.binary(max_size=40))
def test_any_file_is_read_and_added_to_or_refused_and_left_alone(desk: Desk, tmp_path: Path, text: Any) -> None:
    path = tmp_path / "devices.toml"
    path.write_bytes(content := text if isinstance(text, bytes) else text.encode())
    try:
        before = inventory.read_inventory(path)
    except ConfigError:
        with pytest.raises(ConfigError):
            inventory.save([device("ef03")], ["desk"], path)
        assert path.read_bytes() == content
        return
    try:
        inventory.save([device("ef03")], ["desk"], path)
    except ConfigError:
        assert path.read_bytes() == content
        return
    assert inventory.read_inventory(path) == (*before, Saved("ef03", "double", ("desk",), "/dev/pts/0"))
    old, new = tomllib.loads(content.decode()), tomllib.loads(path.read_bytes().decode())
    for part in (old, new):
        part.pop("device", None)
    assert repr(new) == repr(old)  # NaN is not equal to itself


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.dictionaries(st.sampled_from(["id", "board", "tags", "port", "usb-serial", "baud", "x"]), VALUES))
def test_any_device_is_read_or_refused(values: dict[str, Any]) -> None:
    try:
        saved = inventory._device(values, "here")
    except ConfigError as error:
        assert "here" in str(error) and "\x00" not in str(error)
    else:
        assert bytes.fromhex(saved.id)


@pytest.mark.parametrize("tag", ["", "two words", "-x", "é", "x" * 65, "a\n"])
def test_a_tag_that_is_none_is_refused(tmp_path: Path, tag: str) -> None:
    with pytest.raises(ConfigError, match="is not a tag"):
        inventory.save([device("ab01")], [tag], tmp_path / "devices.toml")


FOUND = [
    device("ab01", "posix"),
    device("ab02", "double", "/dev/pts/1"),
    quiet("/dev/ttyACM0", "A"),
    quiet("/dev/ttyUSB0", usb=STRANGER, state="unknown"),
]
KNOWN = [
    Saved("ab01", "posix", ("lab", "desk")),
    Saved("cd03", "microbit-v2", ("lab",), "/dev/ttyACM5", "A"),
    Saved("cd04", "posix", (), "/dev/ttyACM0"),
]


@pytest.mark.parametrize(
    ("asked", "there", "missing", "unclear"),
    [
        (Selection(), ["ab01", "ab02"], ["cd03", "cd04"], []),
        (Selection(boards=("posix",)), ["ab01"], ["cd04"], []),
        (Selection(boards=("microbit-v2",)), [], ["cd03"], []),
        (Selection(tags=("lab",)), ["ab01"], ["cd03"], []),
        (Selection(tags=("lab", "desk"), boards=("posix",)), ["ab01"], [], []),
        (Selection(ids=("ab01", "cd04")), ["ab01"], ["cd04"], []),
        (Selection(ids=("cd03", "77")), [], ["cd03", "77"], []),
        (Selection(ports=("/dev/pts/1",)), ["ab02"], [], []),
        (Selection(ports=("/dev/ttyACM0",)), [], [], ["/dev/ttyACM0"]),
    ],
)
def test_which_devices_are_meant(asked: Selection, there: list[str], missing: list[str], unclear: list[str]) -> None:
    chosen = inventory.select(asked, FOUND, KNOWN)
    assert [each.id for each in chosen.present] == there
    assert [saved.id for saved, _ in chosen.missing] == missing
    assert [each.port.url for each in chosen.unclear] == unclear


def test_a_port_that_does_not_answer_is_of_whom_it_may_be() -> None:
    everything = inventory.select(Selection(), FOUND, [])
    assert [each.port.url for each in everything.unclear] == ["/dev/ttyACM0"]
    (_, at), _ = inventory.select(Selection(), FOUND, KNOWN).missing
    assert at is not None and at.port.serial == "A"


def test_the_beginning_of_an_id_serves_if_it_is_one_devices() -> None:
    assert [each.id for each in inventory.select(Selection(ids=("ab02"[:4],)), FOUND, KNOWN).present] == ["ab02"]
    assert [each.id for each, _ in inventory.select(Selection(ids=("cd03"[:4],)), FOUND, KNOWN).missing] == ["cd03"]
    with pytest.raises(ConfigError, match="matches ab01, ab02"):
        inventory.select(Selection(ids=("ab",)), FOUND, KNOWN)


def test_a_selection_says_what_it_means() -> None:
    for nothing in ({}, {"boards": ["posix"], "everything": True}):
        with pytest.raises(ConfigError, match="no boards are selected"):
            inventory.selection(**nothing)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="is not a board's id"):
        inventory.selection(ids=["xyz"])
    with pytest.raises(ConfigError, match="no board is called 'abacus'"):
        inventory.select(inventory.selection(boards=["abacus"]), FOUND, KNOWN)
    with pytest.raises(ConfigError, match="no device has the tag 'roof'; there are desk, lab"):
        inventory.select(inventory.selection(tags=["roof"]), FOUND, KNOWN)
    assert inventory.selection(everything=True) == Selection()


def test_adapters_with_one_serial_number_are_saved_and_told_apart_by_their_sockets(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "devices.toml"
    there = [
        replace(
            device(f"0{i}", url=f"/dev/ttyUSB{i}", serial="0001"), port=Port(f"/dev/ttyUSB{i}", STRANGER, "0001", "", f"1-{i}")
        )
        for i in (1, 2)
    ]
    inventory.save(there, path=path)
    saved = inventory.read_inventory(path)
    assert [(each.usb_serial, each.usb_location) for each in saved] == [("0001", "1-1"), ("0001", "1-2")]
    silent = [replace(quiet(f"/dev/ttyUSB{9 - i}", "0001"), port=Port(f"/dev/ttyUSB{9 - i}", STRANGER, "0001", "", f"1-{i}"))
              for i in (1, 2)]  # fmt: skip
    chosen = inventory.select(Selection(), silent, saved)
    assert [(each.id, at.port.location) for each, at in chosen.missing if at] == [("01", "1-1"), ("02", "1-2")]
    assert [inventory.entry_of(each, saved) for each in silent] == list(saved)
    (_, at), (_, nowhere) = inventory.select(Selection(), silent[:1], saved).missing
    assert at == silent[0] and nowhere is None


def test_a_board_of_an_own_manifest_is_saved_with_where_that_is(desk: Desk, tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here, elsewhere):
        folder.mkdir()
    text = (Path(__file__).parents[2] / "boards/stm32f405.toml").read_text()
    mine = device("0a", "mine")
    (own,) = inventory.save([mine], path=here / "devices.toml")
    assert own.manifest == "" and inventory.without_manifest([own, Saved("0b", "pico")]) == [own]
    (tmp_path / "mine.toml").write_text("name = 'mine'")  # is none
    assert inventory.save([mine], path=here / "devices.toml")[0].manifest == ""
    (tmp_path / "mine.toml").write_text(text.replace('"stm32f405"', '"mine"', 1))  # in the current folder
    (own,) = inventory.save([mine], path=here / "devices.toml")
    assert inventory.manifest(own, here / "devices.toml") == tmp_path / "mine.toml"
    (own,) = inventory.save([mine], path=tmp_path / "devices.toml")
    assert own.manifest == "mine.toml"
    file = here / "devices.toml"
    file.write_text(file.read_text().replace(str(tmp_path / "mine.toml"), "../elsewhere/mine.toml"))
    (kept,) = inventory.save([mine], path=file)
    assert inventory.manifest(kept, file) == here / "../elsewhere/mine.toml"
    (now,) = inventory.save([device("0a", "pico")], path=file)
    assert now.manifest == "" and "manifest" not in file.read_text()


def test_devices_are_asked_where_their_serial_numbers_are_and_else_where_they_were(desk: Desk) -> None:
    url = desk.plug("ttyACM2", lambda data: b"", usb=STRANGER, serial="X")
    moved = Saved("01", port="/dev/ttyACM0", usb_serial="X", baud=9600)
    gone = Saved("02", port="/dev/ttyACM1", usb_serial="Y")
    pty = Saved("03", port="/dev/pts/77")
    assert [(each.url, each.bauds) for each in inventory.ports_of([moved, gone, pty])] == [
        (url, (9600,)),
        ("/dev/pts/77", (115_200,)),
    ]
