"""Manifests: those of the package hold together, and a bad one is refused with what is wrong."""

import re
from pathlib import Path

import pytest

from tinyfl import boards
from tinyfl.errors import ConfigError

CHIPS = [name for name in boards.names() if boards.load(name).memory]


def test_the_boards_are_those_of_the_clone() -> None:
    assert boards.names() == ["microbit-v2", "mps2-an385", "mps2-an386", "mps2-an500", "mps2-an505", "posix", "stm32f405"]


def test_a_board_is_what_its_manifest_says() -> None:
    board = boards.load("stm32f405")
    assert (board.port, board.core, board.clock, board.buffer) == ("stm32f4", "cortex-m4f", 16_000_000, 1024)
    assert board.memory is not None
    assert board.memory.flash == boards.Region(0x0800_0000, 1 << 20)
    assert board.memory.program.end == board.memory.identity
    # Sectors 8 to 11 of the 1 MiB chip, 128 KiB each; the identity record ends sector 7.
    assert [slot.origin for slot in board.memory.slots] == [0x0808_0000, 0x080A_0000]
    assert board.memory.inference == boards.Region(0x080C_0000, 0x4_0000)
    assert board.links[0] == boards.Link("usart2", 0x4000_4400, 38, 115_200, ("PA2", "PA3"))
    assert board.qemu == boards.Qemu("netduinoplus2", 1)


@pytest.mark.parametrize("name", CHIPS)
def test_a_chips_memory_has_room_and_no_overlap(name: str) -> None:
    memory = boards.load(name).memory
    assert memory is not None
    first, second = memory.slots
    assert memory.flash.origin < memory.identity < memory.identity + 16 <= first.origin
    assert first.end <= second.origin < second.end <= memory.inference.origin < memory.inference.end <= memory.flash.end
    assert min(first.size, second.size, memory.inference.size) >= 65_536
    assert memory.program.size >= 65_536


def test_a_process_has_no_memory_of_its_own() -> None:
    board = boards.load("posix")
    assert (board.memory, board.links, board.qemu, board.unicorn) == (None, (), None, None)


def test_an_unknown_board_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no board is called 'nucleo'. There are: microbit-v2, .*stm32f405"):
        boards.load("nucleo")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('port = "stm32f4"', 'port = "stm32g9"', "no port 'stm32g9' in firmware/ports"),
        ('core = "cortex-m4f"', 'core = "z80"', "core is 'z80', which is none of cortex-m3"),
        ("clock = 16_000_000", 'clock = "fast"', "clock in the manifest is 'fast', not a number"),
        ("clock = 16_000_000", "clock = true", "clock in the manifest is True, not a number"),
        ("clock = 16_000_000", "clock = -1", "clock in the manifest is -1, not a number of 32 bits"),
        ("clock = 16_000_000", "", "the manifest lacks clock"),
        ("buffer = 1024", "buffer = 100", "buffer is 100; a message has room in 512 to 65,535 bytes"),
        ("stack = 4_096", "stack = 4_097", "stack is 4,097; it must be a multiple of 8"),
        ("stack = 4_096", "stack = 200_000", "below the RAM's 131,072 bytes"),
        ("identity = 0x0807_fff0", "identity = 0x0808_0000", "16 bytes at 0x08080000 are not in the flash before 0x08080000"),
        ("0x080a_0000]", "0x0900_0000]", "131,072 bytes at 0x09000000 are not in the flash"),
        ("0x080a_0000]", "0x080a_0000, 1]", "not two addresses"),
        ("0x080a_0000]", "0x080c_0000]", "131,072 bytes at 0x080c0000 are not in the flash before 0x080c0000"),
        ("size = 262_144 }             # sec", "size = 262_152 } # sec", "262,152 bytes at 0x080c0000 are not in the flash"),
        ("size = 262_144 }             # sec", "size = 262_140 } # sec", "is not a multiple of 8"),
        ("origin = 0x080c_0000, size", "size", "[inference] lacks origin"),
        ("inference =", "inferences =", "[memory] lacks inference"),
        ("baud = 115_200", "baud = 0", "baud in [[link]] is 0"),
        ("[[link]]", "[[links]]", "lacks link"),
        ("stack =", "heap = 1\nstack =", "[memory] has heap, which tinyfl does not know"),
        ("serial = 1 }", "serial = 1, kvm = 1 }", "[qemu] has kvm"),
        ('name = "stm32f405"', 'name = "other"', "the board is called 'other', the file 'stm32f405'"),
        ("[memory]", "[memory", "is no board's manifest"),
    ],
)
def test_a_bad_manifest_is_refused_with_what_is_wrong(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (boards.data("boards") / "stm32f405.toml").read_text()
    assert old in text
    path = tmp_path / "stm32f405.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=re.escape(said)) as refused:
        boards.read(path)
    assert str(path) in str(refused.value)
