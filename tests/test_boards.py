"""Manifests: those of the package hold together, a bad one is refused with all that is wrong, and the schema is theirs."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tinyfl.building import boards
from tinyfl.cli import app
from tinyfl.errors import ConfigError

CHIPS = [name for name in boards.names() if boards.load(name).memory]
SOLD = {
    "cy8ckit-062s2", "microbit-v2", "nano-33-ble", "nucleo-f401re", "nucleo-f446re", "pico", "stm32f405", "stm32f746-discovery",
}  # fmt: skip
EMULATED = {"mps2-an385", "mps2-an386", "mps2-an500", "mps2-an505"}
PROCESSES = {"posix", "raspberry-pi"}


def test_the_boards_are_those_of_the_clone() -> None:
    assert set(boards.names()) == SOLD | EMULATED | PROCESSES
    assert {name for name in boards.names() if boards.load(name).sold} == SOLD | {"raspberry-pi"}


def test_a_board_is_what_its_manifest_says() -> None:
    board = boards.load("stm32f405")
    assert (board.port, board.core, board.clock, board.buffer) == ("stm32f4", "cortex-m4f", 168_000_000, 1024)
    assert board.memory is not None
    assert board.memory.flash == boards.Region(origin=0x0800_0000, size=1 << 20)
    assert board.memory.application == 0x0800_0000
    assert board.memory.program.end == board.memory.identity
    # Sectors 6 to 11 of the 1 MiB chip, 128 KiB each; the identity record ends sector 5.
    assert [slot.origin for slot in board.memory.slots] == [0x0808_0000, 0x080A_0000]
    assert board.memory.inference == boards.Region(origin=0x080C_0000, size=0x4_0000)
    assert board.memory.store and [area.origin for area in board.memory.store.areas] == [0x0804_0000, 0x0806_0000]
    assert board.memory.written == 0x0804_0000
    link = board.links[0]
    assert (link.uart, link.registers, link.interrupt, link.baud, link.pins) == (
        "usart2", 0x4000_4400, 38, 115_200, ("PA2", "PA3"),
    )  # fmt: skip
    assert board.qemu == boards.Qemu(machine="netduinoplus2", serial=1)
    assert [method.method for method in board.flash] == ["openocd", "dfu-util"]


@pytest.mark.parametrize("name", CHIPS)
def test_a_chips_memory_has_room_and_no_overlap(name: str) -> None:
    memory = boards.load(name).memory
    assert memory is not None
    first, second = memory.slots
    assert memory.flash.origin <= memory.application < memory.identity < memory.identity + 16 <= first.origin
    assert first.end <= second.origin < second.end <= memory.inference.origin < memory.inference.end <= memory.flash.end
    assert min(first.size, second.size, memory.inference.size) >= 65_536
    for area in memory.store.areas if memory.store else ():
        others = (first, second, memory.inference)
        assert memory.identity + 16 <= area.origin < area.end <= memory.flash.end
        assert all(area.end <= other.origin or other.end <= area.origin for other in others)
    assert memory.program.size >= 65_536


@pytest.mark.parametrize("name", sorted(SOLD))
def test_a_board_that_is_sold_can_be_found_flashed_and_emulated_and_says_what_was_checked(name: str) -> None:
    board = boards.load(name)
    assert board.flash and board.unicorn and board.power and board.links[0].pins and board.links[0].bridge
    assert board.checked is not None
    assert all(board.checked.model_dump().values()) or not board.checked.silicon


@pytest.mark.parametrize("name", sorted(PROCESSES))
def test_a_process_has_no_memory_of_its_own(name: str, tmp_path: Path) -> None:
    board = boards.load(name)
    assert (board.memory, board.links, board.qemu, board.unicorn) == (None, (), None, None)
    chip = (boards.data("boards") / "stm32f405.toml").read_text()
    (tmp_path / "stm32f405.toml").write_text(chip.replace('core = "cortex-m4f"', f'core = "{board.core}"'))
    with pytest.raises(ConfigError, match=rf"core '{board.core}' is a process: leave \[memory\] and \[\[link\]\] out"):
        boards.read_manifest(tmp_path / "stm32f405.toml")


def test_an_unknown_board_is_refused_with_those_that_there_are() -> None:
    words = r"no board is called 'nucleo'. Did you mean nucleo-f446re\? There are: .*microbit-v2, .*stm32f405"
    with pytest.raises(ConfigError, match=words):
        boards.load("nucleo")


def test_pins_are_numbered_as_their_vendors_do() -> None:
    pins = {"PA2": (0, 2), "PB7": (1, 7), "PC10": (2, 10), "P0.06": (0, 6), "P1.08": (1, 8), "P5_1": (5, 1), "GP17": (0, 17)}
    pins |= {"PN3": (13, 3), "P11_10": (11, 10), "IO4": (0, 4), "GPIO21": (0, 21)}
    assert {pin: boards.pin_number(pin) for pin in pins} == pins


BAD = [
    ('port = "stm32f4"', 'port = "stm32g9"', "there is no port 'stm32g9' in firmware/ports"),
    ('core = "cortex-m4f"', 'core = "z80"', "core is 'z80', not one of cortex-m0plus"),
    ("clock = 168_000_000", 'clock = "fast"', "clock: Input should be a valid integer (is 'fast')"),
    ("clock = 168_000_000", "clock = true", "clock: Input should be a valid integer (is True)"),
    ("clock = 168_000_000", "clock = -1", "clock: Input should be greater than or equal to 0 (is -1)"),
    ("clock = 168_000_000", "", "clock: is missing"),
    ("buffer = 1024", "buffer = 100", "buffer: Input should be greater than or equal to 512 (is 100)"),
    ("stack = 4_096", "stack = 4_097", "memory.stack: Input should be a multiple of 8 (is 4097)"),
    ("stack = 4_096", "stack = 200_000", "memory: stack is 200,000 bytes, but the RAM has only 131,072"),
    (
        "identity = 0x0803_fff0",
        "identity = 0x0804_0000",
        "store 0 at 0x08040000 to 0x08060000 is outside the flash left for it, 0x08040010",
    ),
    (
        "stack = 4",
        "application = 0x0700_0000\nstack = 4",
        "application at 0x07000000 to 0x0803fff0 is outside the flash left for it",
    ),
    ("origin = 0x080a_0000", "origin = 0x0900_0000", "slot 1 at 0x09000000 to 0x09020000 is outside the flash left for it"),
    ("origin = 0x080a_0000, size = 131_072", "origin = 0x080a_0000, size = 65_536", "the two slots differ in size"),
    (
        "origin = 0x080a_0000",
        "origin = 0x080c_0000",
        "inference at 0x080c0000 to 0x08100000 is outside the flash left for it, 0x080e0000",
    ),
    ("origin = 0x0806_0000", "origin = 0x0805_0000", "store 1 at 0x08050000 to 0x08070000 is outside the flash left for it"),
    ("0x0806_0000, size = 131_072", "0x0806_0000, size = 65_536", "memory.store: the two areas differ in size"),
    ("page = 4 ", "page = 12 ", "memory.store: page is 12, not a power of two"),
    ("0x0806_0000, size = 131_072", "0x0806_0008, size = 131_072", "slot 0 at 0x08080000 to 0x080a0000 is outside"),
    ("page = 4 ", "page = 2 ", "memory.store.page: Input should be greater than or equal to 4 (is 2)"),
    ("size = 262_144 }", "size = 262_152 }", "inference at 0x080c0000 to 0x08100008 is outside the flash left for it"),
    ("size = 262_144 }", "size = 262_140 }", "memory.inference.size: Input should be a multiple of 8 (is 262140)"),
    ("origin = 0x080c_0000, size", "size", "memory.inference.origin: is missing"),
    ("inference =", "inferences =", "memory.inferences: is a key that tinyfl does not know"),
    ("baud = 115_200", "baud = 0", "link.0.baud: Input should be greater than or equal to 1200 (is 0)"),
    ('"PA2", "PA3"', '"PA2", "A3"', "link.0.pins"),
    ('"PA2", "PA3"', '"PA2", "P3"', "link.0.pins"),
    ('"PA2", "PA3"', '"PA2", "PA2_1"', "link.0.pins"),
    ('["0483:df11"]', '["0483:DF11"]', "usb.bootloader.0: String should match pattern"),
    ('method = "dfu-util"', 'method = "magic"', "flash.1: Input tag 'magic' found using 'method' does not match any of"),
    ("[[link]]", "[[links]]", "links: is a key that tinyfl does not know"),
    ("serial = 1 }", "serial = 1, kvm = 1 }", "emulators.qemu.kvm: is a key that tinyfl does not know"),
    ("[checked]", "[tested]", "tested: is a key that tinyfl does not know"),
    ('name = "stm32f405"', 'name = "other"', "the board is called 'other', the file 'stm32f405'"),
    ("[memory]", "[memory", "Use"),
]


def changed(folder: Path, old: str, new: str) -> Path:
    text = (boards.data("boards") / "stm32f405.toml").read_text()
    assert old in text
    path = folder / "stm32f405.toml"
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize(("old", "new", "said"), BAD)
def test_a_bad_manifest_is_refused_with_what_is_wrong(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = changed(tmp_path, old, new)
    with pytest.raises(ConfigError) as refused:
        boards.read_manifest(path)
    assert said in str(refused.value) and str(path) in str(refused.value)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = changed(tmp_path, "clock = 168_000_000", "")
    text = path.read_text().replace("stack = 4_096", "stack = 7").replace("baud = 115_200", "baud = 7")
    text = text.replace('core = "cortex-m4f"', 'core = "cortex-m4"').replace('port = "stm32f4"', 'port = "stm32f9"')
    path.write_text(text.replace('name = "stm32f405"', 'name = "other"'))
    result = CliRunner().invoke(app, ["boards", "check", str(path)])
    assert isinstance(result.exception, ConfigError)
    words = ("clock", "memory.stack", "link.0.baud", "core is", "no port", "name: ")
    assert [word for word in words if word not in str(result.exception)] == []


def test_a_manifest_of_your_own_is_a_board_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "my-board.toml"
    text = (boards.data("boards") / "stm32f405.toml").read_text().replace('name = "stm32f405"', 'name = "my-board"')
    path.write_text(text[: text.index("[[flash]]")] + text[text.index("[checked]") :])
    assert boards.load(str(path)).name == "my-board"
    said = CliRunner().invoke(app, ["boards", "check", str(path)]).stdout
    for lack in ("[[flash]]", "usb in [[link]]", "[power]", "[emulators]"):
        assert f"without {lack}" in said
    assert f"tinyfl build --board {path}" in said


def test_the_published_schema_is_the_codes() -> None:
    """When it is not: tinyfl boards schema > boards/schema.json."""
    assert json.loads((boards.data("boards") / "schema.json").read_text()) == boards.schema()


@pytest.mark.parametrize("name", boards.names())
def test_list_and_show_name_every_board(name: str) -> None:
    assert name in CliRunner().invoke(app, ["boards", "list"], env={"COLUMNS": "200"}).stdout
    assert boards.load(name).title in CliRunner().invoke(app, ["boards", "show", name], env={"COLUMNS": "200"}).stdout
    listed = json.loads(CliRunner().invoke(app, ["boards", "list", "--json"]).stdout)["boards"]
    assert boards.load(name).model_dump(mode="json", by_alias=True) in listed
