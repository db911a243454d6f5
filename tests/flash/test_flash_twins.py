"""Things with one USB serial number, or none: each is written once, one can be named, and no image goes to another's board."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from desk import MICROBIT, NUCLEO, STRANGER, silent
from workbench import OLD, VERSION, FakeBoard, Workbench, version_in

from tinyfl.building import boards
from tinyfl.devices import connected
from tinyfl.devices.connected import Probe
from tinyfl.errors import ConfigError
from tinyfl.flash import methods, run
from tinyfl.flash.run import FAILED, FLASHED, OFFLINE, UNVERIFIED, FlashResult, Job
from tinyfl.flash.targets import FlashSelection

F401, F405, PICO, MICRO, NANO = map(boards.load, ("nucleo-f401re", "stm32f405", "pico", "microbit-v2", "nano-33-ble"))
EVERY_RP2040 = "E0C9125B0D9B"
BOOTSEL, DFU, NANO_BOOT = "2e8a:0003", "0483:df11", "2341:005a"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyfl.flash.verify.verify.__defaults__", ("", 0.5))


def picos(workbench: Workbench, serial: str, count: int = 2) -> list[str]:
    """In BOOTSEL; what is written, by the drive's name."""
    copied: list[str] = []
    for _ in range(count):
        workbench.plug("", None, usb=BOOTSEL, serial=serial, drive="RPI-RP2")
    workbench.on_copy = lambda path: copied.append(path.parent.name)
    return copied


def again(workbench: Workbench, one: FlashResult) -> tuple[FlashResult, ...]:
    """What the command under "to try again" does."""
    words = shlex.split(one.retry)[2:]
    given = {name: tuple(words[i + 1] for i, word in enumerate(words) if word == f"--{name}") for name in ("probe", "port")}
    kinds = tuple(boards.load(words[i + 1]) for i, word in enumerate(words) if word == "--board")
    return run.flash(FlashSelection(kinds, probes=given["probe"], ports=given["port"]))


@pytest.mark.parametrize("serial", [EVERY_RP2040, ""])
@pytest.mark.parametrize(
    "asked", [FlashSelection((PICO,), everything=True), FlashSelection(everything=True)], ids=["--board --all", "--all"]
)
def test_picos_in_bootsel_are_all_written_once_and_counted(workbench: Workbench, serial: str, asked: FlashSelection) -> None:
    copied = picos(workbench, serial, 3)
    done = run.flash(asked)
    assert [(each.board, each.id, each.what) for each in done] == [("pico", f"1-{i}", UNVERIFIED) for i in (1, 2, 3)]
    assert sorted(copied) == ["RPI-RP2", "RPI-RP21", "RPI-RP22"]


@pytest.mark.parametrize("serial", [EVERY_RP2040, ""])
@pytest.mark.parametrize("word", ["1-2", "{media}/RPI-RP21", "{media}/RPI-RP21/"])
def test_one_of_them_is_named_by_its_socket_or_its_drive(workbench: Workbench, serial: str, word: str) -> None:
    copied = picos(workbench, serial)
    (done,) = run.flash(FlashSelection((PICO,), probes=(word.format(media=workbench.folder / "media"),)))
    assert (done.what, copied) == (UNVERIFIED, ["RPI-RP21"])


def test_none_of_them_is_guessed_and_what_is_said_can_be_typed(workbench: Workbench) -> None:
    copied = picos(workbench, EVERY_RP2040)
    with pytest.raises(ConfigError, match=f"2 USB devices have the name {EVERY_RP2040}.*--probe: 1-1, 1-2"):
        run.flash(FlashSelection((PICO,), probes=(EVERY_RP2040,)))
    with pytest.raises(ConfigError) as several:
        run.flash(FlashSelection((PICO,)))
    said = re.findall(r"--probe (\S+)", str(several.value))
    assert (said, copied) == (["1-1", "1-2"], [])
    for word in said:
        run.flash(FlashSelection((PICO,), probes=(word,)))
    assert copied == ["RPI-RP2", "RPI-RP21"]


def test_one_that_fails_is_tried_again_alone_though_its_drive_is_at_the_others_place_by_then(workbench: Workbench) -> None:
    copied = picos(workbench, EVERY_RP2040)
    workbench.remount("RPI-RP21", writable=False)
    first, second = run.flash(FlashSelection((PICO,), everything=True))
    assert (first.what, second.what, second.retry) == (UNVERIFIED, FAILED, "tinyfl flash --board pico --probe 1-2")
    path, *_ = workbench.drives["RPI-RP2"]  # the first restarted, and a desktop mounts the other in its place
    _, mount, _, number = workbench.drives.pop("RPI-RP21")
    workbench.drives["RPI-RP2"] = path, mount + 1, True, number
    (workbench.folder / "sys/1-1/idVendor").unlink()
    workbench._mount()
    (done,) = again(workbench, second)
    assert (done.id, done.what, copied) == (EVERY_RP2040, UNVERIFIED, ["RPI-RP2", "RPI-RP2"])


def test_a_drive_that_is_another_by_now_is_not_written(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the firmware is built, the board goes and another's drive takes its place."""
    copied = picos(workbench, EVERY_RP2040, 1)
    really = run.writing.image
    monkeypatch.setattr(run.writing, "image", lambda *args: (workbench.remount("RPI-RP2"), really(*args))[1])
    (done,) = run.flash(FlashSelection((PICO,)))
    assert done.what == FAILED and "disappeared, and nothing was written" in done.detail and copied == []


def two(workbench: Workbench, usb: str, kind: str, serial: str = "0001", drive: str = "") -> list[FakeBoard]:
    """Boards that answer at ports of their probes, which have one serial number."""
    some = [FakeBoard(bytes([i]), kind) for i in (1, 2)]
    for i, board in enumerate(some):
        workbench.plug(f"ttyACM{i}", board, usb=usb, serial=serial, drive=drive)
    return some


@pytest.mark.parametrize("serial", ["0001", ""])
def test_of_two_st_links_each_writes_its_own_board(workbench: Workbench, serial: str) -> None:
    some = two(workbench, NUCLEO, "nucleo-f401re", serial)

    def written(argv: list[str]) -> int:
        (socket,) = (word.removeprefix("adapter usb location ") for word in argv if word.startswith("adapter usb"))
        some[int(socket[-1]) - 1].firmware = VERSION
        return 0

    workbench.tool("openocd").writes(written)
    done = run.flash(FlashSelection((F401,), everything=True))
    assert [(each.id, each.what) for each in done] == [("01", FLASHED), ("02", FLASHED)]


@pytest.mark.parametrize("serial", ["0001", ""])
def test_of_two_micro_bits_each_has_its_own_drive_and_verdict(workbench: Workbench, serial: str) -> None:
    some = two(workbench, MICROBIT, "microbit-v2", serial, "MICROBIT")

    def taken(path: Path) -> None:
        if path.parent.name == "MICROBIT":
            some[0].firmware = version_in(path.read_bytes())
            workbench.remount("MICROBIT")
        else:
            workbench.remount("MICROBIT1", holds={"FAIL.TXT": "error: The hex file is bad"})

    workbench.on_copy = taken
    done = run.flash(FlashSelection((MICRO,), everything=True))
    assert [(each.id, each.what) for each in done] == [("01", FLASHED), ("02", FAILED)]
    assert "MICROBIT1/FAIL.TXT: " in done[1].detail and done[1].retry == "tinyfl flash --board microbit-v2 --probe 1-2"


@pytest.mark.parametrize("serial", ["STM32FxSTM32", ""])
def test_devices_in_dfu_mode_are_told_apart_by_their_sockets(workbench: Workbench, serial: str) -> None:
    for _ in range(2):
        workbench.plug("", None, usb=DFU, serial=serial)
    dfu = workbench.tool("dfu-util")
    dfu.writes(lambda argv: 0)
    done = run.flash(FlashSelection((F405,), everything=True))
    assert [(each.id, each.what) for each in done] == [("1-1", UNVERIFIED), ("1-2", UNVERIFIED)]
    assert sorted(argv[argv.index("--path") + 1] for argv in dfu.calls) == ["1-1", "1-2"]
    assert not [argv for argv in dfu.calls if "--serial" in argv]


def test_bootloaders_of_arduinos_are_told_apart_by_their_sockets(workbench: Workbench) -> None:
    urls = []
    for i in (1, 2):
        workbench.plug("", None, usb=NANO_BOOT, serial="0001")
        urls.append(workbench.desk.plug(f"ttyACM{i}", silent, usb=NANO_BOOT, serial="0001", location=f"1-{i}"))
    bossac = workbench.tool("bossac")
    bossac.writes(lambda argv: 0)
    run.flash(FlashSelection((NANO,), everything=True))
    assert sorted(argv[1] for argv in bossac.calls) == [f"--port={url}" for url in urls]
    run.flash(FlashSelection((NANO,), probes=("1-2",)))
    assert bossac.calls[2][1] == f"--port={urls[1]}"


@pytest.mark.parametrize("tool", ["pyocd", "openocd"])
def test_a_tool_that_knows_probes_by_their_serial_number_only_is_not_asked_to_guess(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    """pyOCD knows no sockets, and OpenOCD's CMSIS-DAP driver heeds none."""
    for _ in range(2):
        workbench.plug("", None, usb="2e8a:000c", serial="0001")
    monkeypatch.setattr(connected, "_pyocd_probes", lambda: [Probe("0001", "Debug Probe", "", ())])
    used = workbench.tool(tool)
    done = run.flash(FlashSelection((PICO,), everything=True), Job(method=tool))
    assert [each.what for each in done] == [FAILED, FAILED] and used.calls == []
    assert f"{tool} selects such probes only by serial number, and 2 have 0001. Unplug the others." in done[0].detail


def test_by_a_socket_the_tools_are_told_so(tmp_path: Path) -> None:
    openocd, _ = F401.flash
    _, dfu = F405.flash
    assert "adapter usb location 1-1.2" in methods.command(openocd, tmp_path, "1-1.2", by_socket=True)
    assert "adapter serial 1-1.2" in methods.command(openocd, tmp_path, "1-1.2")
    assert "adapter usb location 1-1.2" in methods.unlock(openocd, "1-1.2", by_socket=True)
    assert methods.command(dfu, tmp_path, "1-1.2", by_socket=True)[1:3] == ("--path", "1-1.2")


def adapters(workbench: Workbench, *some: FakeBoard) -> list[str]:
    """Boards behind adapters with one serial number, and one probe without a board of its own."""
    urls = [workbench.plug(f"ttyUSB{i}", board, usb=STRANGER, serial="0001") for i, board in enumerate(some)]
    workbench.plug("", None, usb="0483:3748", serial="LINK")
    return urls


def test_a_board_behind_a_twin_is_asked_at_its_own_port_afterwards(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connected, "_pyocd_probes", lambda: [Probe("LINK", "STLink", "", ())])
    some = [FakeBoard(bytes([i]), "stm32f405") for i in (1, 2)]
    urls = adapters(workbench, *some)

    def written(argv: list[str]) -> int:
        some[1].firmware = VERSION
        return 0

    workbench.tool("openocd").writes(written)
    (done,) = run.flash(FlashSelection((F405,), ports=(urls[1],)), Job(force=True))
    assert (done.id, done.what) == ("02", FLASHED)
    (kept,) = run.flash(FlashSelection((F405,), ports=(urls[1], urls[1])))
    assert kept.what == "up to date" and some[0].firmware == OLD


@pytest.mark.parametrize("then", ["another", "silent", "gone"])
def test_a_board_that_is_another_once_the_firmware_is_built_is_not_written(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    board = FakeBoard(b"\1", "nucleo-f401re")
    workbench.plug("ttyACM0", board, usb=NUCLEO, serial="S1")
    openocd = workbench.tool("openocd")
    exchange: dict[str, Callable[[bytes], bytes]] = {
        "another": FakeBoard(b"\2", "nucleo-f401re").exchange, "silent": silent,
    }  # fmt: skip

    def built(*args: object) -> object:
        workbench.desk.unplug("ttyACM0")
        if then != "gone":
            workbench.desk.plug("ttyACM0", exchange[then], usb=NUCLEO, serial="S1", location="1-1")
        return workbench._built(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("tinyfl.fleets.emulation.firmware", built)
    (done,) = run.flash(FlashSelection((F401,)))
    assert done.what == FAILED and openocd.calls == []
    assert "Nothing was written. Swap the cables back" in done.detail
    assert ("another board, 02, now answers" in done.detail) == (then == "another")


OWN = Path(__file__).parents[2] / "boards" / "stm32f405.toml"


def own(workbench: Workbench, name: str = "my-board", version: str = VERSION) -> str:
    """A board of an own manifest behind an adapter that no manifest has; its port's url."""
    Path(f"{name}.toml").write_text(OWN.read_text().replace('name = "stm32f405"', f'name = "{name}"'))
    return workbench.plug("ttyUSB0", FakeBoard(b"\5", name, version), usb=STRANGER)


def table(url: str, *lines: str, id: str = "05", board: str = "my-board") -> str:
    return "\n".join(["[[device]]", f'id = "{id}"', f'board = "{board}"', 'tags = ["desk"]', f'port = "{url}"', *lines, ""])


WAYS = [FlashSelection(tags=("desk",)), FlashSelection(ids=("05",)), FlashSelection(everything=True)]


@pytest.mark.parametrize("asked", WAYS, ids=["--tag", "--id", "--all"])
@pytest.mark.parametrize("there", [True, False], ids=["answers", "silent"])
def test_a_board_of_an_own_manifest_is_found_by_what_is_saved(workbench: Workbench, asked: FlashSelection, there: bool) -> None:
    url = own(workbench, version=OLD)
    if not there:
        workbench.desk.unplug("ttyUSB0")
        workbench.desk.plug("ttyUSB0", silent, usb=STRANGER)
    Path("devices.toml").write_text(table(url, 'manifest = "my-board.toml"'))
    (done,) = run.flash(asked)
    assert (done.board, done.what, done.retry) == ("my-board", FAILED, "tinyfl flash --id 05")
    assert "no flash method is available" in done.detail  # it is known what it is
    lines = run.commands(asked)
    assert lines[0].startswith("# my-board (") and "by openocd" in lines[1]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            'manifest = "gone.toml"',
            r"devices.toml names gone.toml as the manifest of board 05. gone.toml is not a valid board manifest",
        ),
        ("", "no built-in board is called 'my-board'. Give the path of its manifest with --board, or write it into"),
    ],
)
@pytest.mark.parametrize("asked", WAYS, ids=["--tag", "--id", "--all"])
def test_a_manifest_that_is_not_there_costs_that_board_only(
    workbench: Workbench, asked: FlashSelection, line: str, says: str
) -> None:
    url = own(workbench)
    Path("my-board.toml").unlink()
    nucleo = workbench.plug("ttyACM0", FakeBoard(b"\6", "nucleo-f401re", VERSION), usb=NUCLEO, serial="S1")
    text = table(url, line) + table(nucleo, id="06", board="nucleo-f401re").replace("port", 'usb-serial = "S1"\nport')
    Path("devices.toml").write_text(text)
    done = {each.id: each for each in run.flash(FlashSelection(ids=("05", "06")) if asked.ids else asked)}
    assert {id: each.what for id, each in done.items()} == {"05": FAILED, "06": "up to date"}
    assert says in done["05"].detail and done["05"].retry == "tinyfl flash --id 05"


@pytest.mark.slow
def test_of_silent_twins_the_one_that_is_meant_is_known_by_its_socket(workbench: Workbench) -> None:
    for i in (0, 1):
        workbench.plug("", None, usb=NUCLEO, serial="0001")
        workbench.desk.plug(f"ttyACM{i}", silent, usb=NUCLEO, serial="0001", location=f"1-{i + 1}")
    text = "".join(
        table("", 'usb-serial = "0001"', f'usb-location = "1-{i}"', id=f"0{i}", board="nucleo-f401re") for i in (1, 2)
    )
    Path("devices.toml").write_text(text)
    openocd = workbench.tool("openocd")
    openocd.writes(lambda argv: 0)
    run.flash(FlashSelection(ids=("02",)))
    assert ["adapter usb location 1-2" in argv for argv in openocd.calls] == [True]
    workbench.unplug("ttyACM1")  # the first is not the second, though its serial number is nobody else's now
    (done,) = run.flash(FlashSelection(ids=("02",)))
    assert (done.what, len(openocd.calls)) == (OFFLINE, 1)
    Path("devices.toml").write_text(re.sub("usb-location.*", "", text))
    (unknown,) = run.flash(FlashSelection(ids=("02",)))
    assert (unknown.what, len(openocd.calls)) == (OFFLINE, 1)


@pytest.mark.slow
def test_a_silent_port_that_two_devices_were_last_at_is_neithers(workbench: Workbench) -> None:
    url = workbench.desk.plug("ttyUSB0", silent, usb=STRANGER)
    Path("devices.toml").write_text(table(url, id="05", board="nucleo-f401re") + table(url, id="06", board="nucleo-f446re"))
    openocd = workbench.tool("openocd")
    openocd.writes(lambda argv: 0)
    for asked in (FlashSelection(ids=("05",)), FlashSelection(tags=("desk",)), FlashSelection(everything=True)):
        assert {each.what for each in run.flash(asked)} == {OFFLINE} and not openocd.calls


@pytest.mark.parametrize(
    "asked",
    [
        FlashSelection((PICO,), tags=("desk",)),
        FlashSelection((PICO,), everything=True),
        FlashSelection((PICO,)),
        FlashSelection(everything=True),
    ],
)
def test_where_nothing_is_found_the_retry_asks_for_what_was_asked_for(workbench: Workbench, asked: FlashSelection) -> None:
    Path("devices.toml").write_text(table("/dev/pts/99", board="nucleo-f401re") if asked.tags else "")
    (done,) = run.flash(asked)
    assert (done.what, done.retry) == (OFFLINE, f"tinyfl flash {shlex.join(asked.options())} --wait 60")


def test_a_port_that_is_unclear_ends_no_other(workbench: Workbench) -> None:
    odd = workbench.desk.plug("ttyUSB0", silent, usb=STRANGER)
    well = workbench.plug("ttyACM0", FakeBoard(b"\5", "nucleo-f401re", VERSION), usb=NUCLEO, serial="S1")
    own_kind = workbench.plug("ttyUSB1", FakeBoard(b"\6", "a\x1b[2Jb", VERSION), usb=STRANGER)
    done = run.flash(FlashSelection(ports=(odd, well, own_kind, "carrier://roof", "/dev/null")))
    assert [each.what for each in done] == [FAILED, "up to date", FAILED, OFFLINE, OFFLINE]
    assert "Give it with --board NAME" in done[0].detail and "\x1b" not in done[2].detail
