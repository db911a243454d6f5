"""The emulated boards of simulators/unicorn, tried with loads and stores of a program that is not this project's firmware."""

import ctypes
import random
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from probe import Probe

from tinyfl.building import boards
from tinyfl.errors import ConfigError, RunError
from tinyfl.simulators import BoardFault

Start = Callable[..., Probe]

AIRCR, CPUID = 0xE000ED0C, 0xE000ED00
RAM = 0x20004000


@pytest.mark.parametrize("board", ["mps2-an386", "stm32f405", "microbit-v2"])
def test_a_board_takes_bytes_and_answers(probe: Start, board: str) -> None:
    monitor = probe(board)
    monitor.write(RAM, 0x12345678)
    assert monitor.read(RAM) == 0x12345678
    monitor.write(RAM + 1, 0xFF, size=1)
    assert monitor.read(RAM) == 0x1234FF78


def test_a_request_in_pieces_is_a_request(probe: Start) -> None:
    machine = probe("mps2-an386").machine
    request = struct.pack("<cI", b"r", CPUID)
    assert [machine.exchange(request[i : i + 1]) for i in range(5)][:4] == [b""] * 4
    assert machine.exchange(request * 3) == machine.exchange(request) * 3


def test_the_identity_record_is_in_flash(probe: Start) -> None:
    for board in ("mps2-an386", "stm32f405", "microbit-v2"):
        memory = boards.load(board).memory
        assert memory is not None
        machine = probe(board, serial=0x0102030405060708).machine
        assert machine.read_memory(memory.identity, 16) == b"TFLI\1\2\3\4\5\6\7\x08\0\0\0\0"


def test_instructions_are_counted_one_by_one(probe: Start) -> None:
    monitor = probe("mps2-an386")

    def cost(count: int) -> int:
        before = monitor.machine.instructions
        monitor.ask(struct.pack("<cI", b"l", count))
        return int(monitor.machine.instructions - before)

    base = cost(1)
    assert [cost(count) - base for count in (2, 3, 1000, 100_000)] == [2, 4, 1998, 199_998]


def test_the_same_requests_cost_the_same_and_leave_the_same_memory(probe: Start) -> None:
    a, b = (probe("mps2-an386").machine for _ in range(2))
    for machine in (a, b):
        machine.exchange(struct.pack("<cIBI", b"w", RAM, 4, 7))
    assert (a.instructions, a.snapshot().ram) == (b.instructions, b.snapshot().ram)


def test_a_snapshot_is_all_of_the_board(probe: Start) -> None:
    monitor = probe("stm32f405")
    monitor.write(RAM, 1)
    monitor.machine.exchange(b"r" + RAM.to_bytes(4, "little")[:2])  # in the middle of a request
    kept, instructions = monitor.machine.snapshot(), monitor.machine.instructions
    rest = RAM.to_bytes(4, "little")[2:]
    first = monitor.machine.exchange(rest), monitor.machine.instructions
    monitor.write(RAM, 2)
    _unlock(monitor)
    monitor.machine.restore(kept)
    assert monitor.machine.instructions == instructions
    assert (monitor.machine.exchange(rest), monitor.machine.instructions) == first
    assert monitor.read(FLASH_CR) == LOCK


def test_reset_keeps_ram_and_a_power_cycle_does_not(probe: Start) -> None:
    monitor = probe("mps2-an386")
    monitor.write(RAM, 0xCAFE)
    monitor.machine.reset()
    assert monitor.read(RAM) == 0xCAFE
    monitor.machine.power_cycle()
    assert monitor.read(RAM) != 0xCAFE


def test_the_program_can_reset_its_board(probe: Start) -> None:
    monitor = probe("mps2-an386")
    wrong_key, request = (struct.pack("<cIBI", b"w", AIRCR, 4, value) for value in (0x12340004, 0x05FA0004))
    assert monitor.machine.exchange(wrong_key) == b"w"
    assert monitor.machine.exchange(request) == b""
    monitor.write(RAM, 5)
    assert monitor.read(RAM) == 5


def test_what_a_board_does_wrong_is_named(probe: Start) -> None:
    monitor = probe("mps2-an386", budget=1_000_000)
    kept = monitor.machine.snapshot()
    with pytest.raises(BoardFault, match=r"board 1 \(mps2-an386\) crashed .* at 0x[0-9a-f]{8} \((monitor|store) \+ \d+\)"):
        monitor.machine.exchange(struct.pack("<cIBI", b"w", 0x70000000, 4, 0))
    with pytest.raises(BoardFault, match="crashed"):
        monitor.machine.exchange(b"r")
    monitor.machine.restore(kept)
    with pytest.raises(BoardFault, match=r"did not sleep within 1,000,000 instructions at .*monitor"):
        monitor.machine.exchange(b"z")
    monitor.machine.reset()
    monitor.write(RAM, 1)
    with pytest.raises(BoardFault, match="crashed"):  # its own program is not for writing
        monitor.write(0x100, 1)


def test_a_board_that_does_not_stop_talking_is_named(probe: Start) -> None:
    with pytest.raises(BoardFault, match="more than 65,536 bytes"):
        probe("mps2-an386").machine.exchange(struct.pack("<cI", b"r", RAM) * 20_000)


def test_a_board_that_is_deaf_is_named(probe: Start) -> None:
    monitor = probe("mps2-an386")
    monitor.ask(struct.pack("<cIBI", b"w", 0x40004008, 4, 1))  # the receiver is off, the transmitter on
    with pytest.raises(BoardFault, match="leaves 5 bytes of its input"):
        monitor.machine.exchange(struct.pack("<cI", b"r", RAM))


@pytest.mark.parametrize(
    ("board", "register", "value"),
    [
        ("mps2-an386", 0x40004010, 15),  # a divider below 16 is not one
        ("mps2-an386", 0x40004010, 222),  # 2.3 % slower than the link
        ("mps2-an386", 0x40004008, 2 | 8),  # transmitter off
        ("stm32f405", 0x4000440C, 1 << 13 | 1 << 2),  # the same
        ("stm32f405", 0x4000440C, 1 << 3 | 1 << 2),  # USART off
        ("stm32f405", 0x40023840, 0),  # its clock off
        ("stm32f405", 0x40004408, 136),  # 2.1 % faster than the link
        ("stm32f405", 0x40004408, 142),  # 2.2 % slower
        ("stm32f405", 0x40023808, 4 << 10),  # the bus at half of the clock
        ("stm32f405", 0x40023808, 8 << 4),  # the core too
        ("stm32f405", 0x40023830, 1 << 1),  # the clock of its pin's port off
        ("stm32f405", 0x40020000, 1 << 4 | 2 << 6),  # its pin an output of another's
        ("stm32f405", 0x40020020, 8 << 8 | 7 << 12),  # its pin another peripheral's
    ],
)
def test_a_uart_that_is_not_set_up_says_nothing(probe: Start, board: str, register: int, value: int) -> None:
    assert probe(board).machine.exchange(struct.pack("<cIBI", b"w", register, 4, value)) == b""


@pytest.mark.parametrize(
    ("register", "value"),
    [(0x40004408, 137), (0x40004408, 141), (0x40023808, 4 << 13), (0x40023808, 7 << 4)],
    ids=["1.4 % faster", "1.5 % slower", "the other bus slower", "not divided"],
)
def test_a_uart_that_is_nearly_right_is_understood(probe: Start, register: int, value: int) -> None:
    monitor = probe("stm32f405")
    monitor.write(register, value)
    assert monitor.read(register) == value


def test_a_pin_keeps_what_is_set_only_while_its_port_is_clocked(probe: Start) -> None:
    monitor = probe("stm32f405")
    pin, clocks = 0x40020800, 0x40023830
    monitor.write(pin, 2)
    assert monitor.read(pin) == 0
    monitor.write(clocks, 0b101)
    monitor.write(pin, 2)
    assert (monitor.read(pin), monitor.read(pin + 0x20)) == (2, 0)


def test_a_firmware_of_another_board_is_refused(probe_elf: Callable[[str], Path], probe: Start) -> None:
    from tinyfl.simulators.unicorn import Machine

    with pytest.raises(ConfigError, match="has 64 bytes at 0x08000000"):
        Machine(probe_elf("stm32f405"), boards.load("mps2-an386"), 1)
    with pytest.raises(ConfigError, match="process"):
        Machine(probe_elf("stm32f405"), boards.load("posix"), 1)


def test_every_board_is_emulated_by_a_chip_that_the_library_has(probe: Start) -> None:
    from tinyfl.simulators.unicorn import peripherals

    named = {board.unicorn.peripherals for board in boards.select("all") if board.unicorn}
    assert named == peripherals.chips().keys()
    with pytest.raises(ConfigError, match=r"no peripherals are called 'toy'. There are: cmsdk, nrf52, .*, stm32f7\. A"):
        peripherals.chip("toy")


def test_structures_and_numbers_in_python_are_those_of_c(tmp_path: Path, probe: Start) -> None:
    from tinyfl.simulators.unicorn import peripherals as ours

    cc = shutil.which("cc")
    if cc is None:
        pytest.skip("needs a C compiler (cc): apt-get install gcc libc6-dev")
    structures = {"registers": ours.Registers, "machine": ours.State, "region": ours.Region, "chip": ours.Chip}
    measured = [f"offsetof(tinyfl_{name}, {field[0]})" for name, s in structures.items() for field in s._fields_]
    measured += [f"sizeof(tinyfl_{name})" for name in structures]
    numbers = [name for name in vars(ours) if name.startswith("HALT_") or name in ("PAGE", "LINK_PAGE")]
    measured += [f"(size_t)TINYFL_{name}" for name in numbers]
    lines = "".join(f'    printf("%zu\\n", {expression});\n' for expression in measured)
    header = Path(ours.__file__).with_name("peripherals.h")
    source = tmp_path / "sizes.c"
    source.write_text(f'#include <stddef.h>\n#include <stdio.h>\n#include "{header}"\nint main(void)\n{{\n{lines}}}\n')
    subprocess.run([cc, source, "-o", tmp_path / "sizes"], check=True)
    said = subprocess.run([tmp_path / "sizes"], check=True, capture_output=True, text=True).stdout
    expected = [getattr(s, field[0]).offset for s in structures.values() for field in s._fields_]
    expected += [*map(ctypes.sizeof, structures.values()), *(getattr(ours, name) for name in numbers)]
    assert [int(line) for line in said.split()] == expected


def test_a_file_that_is_no_firmware_is_refused(tmp_path: Path, probe: Start) -> None:
    from tinyfl.simulators.unicorn import Machine

    path = tmp_path / "firmware.elf"
    with pytest.raises(RunError, match="no firmware"):
        Machine(path, boards.load("mps2-an386"), 1)
    path.write_bytes(b"not an ELF")
    with pytest.raises(RunError, match="not an ELF"):
        Machine(path, boards.load("mps2-an386"), 1)


def test_boards_run_in_parallel_threads(probe: Start) -> None:
    monitors = [probe("mps2-an386", serial=n) for n in range(8)]

    def use(n: int) -> None:
        for value in range(50):
            monitors[n].write(RAM, n << 16 | value)

    threads = [threading.Thread(target=use, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [monitor.read(RAM) for monitor in monitors] == [n << 16 | 49 for n in range(8)]
    assert len({monitor.machine.instructions for monitor in monitors}) == 1


def test_sram_slots_are_memory_and_a_cut_tears_the_word(probe: Start) -> None:
    monitor = probe("mps2-an386")
    slot = 0x40000
    monitor.write(slot, 0x11111111)
    monitor.write(slot, 0xFFFFFFFF)
    assert (monitor.read(slot), monitor.machine.slot_events) == (0xFFFFFFFF, 2)
    monitor.machine.cut_power_after(1)
    monitor.write(slot, 0x22222222)
    assert monitor.machine.exchange(struct.pack("<cIBI", b"w", slot + 4, 4, 0x33333333)) == b""
    assert not monitor.machine.powered
    assert monitor.machine.exchange(b"r") == b""
    monitor.machine.power_cycle()
    assert (monitor.read(slot), monitor.read(slot + 4)) == (0x22222222, 0xFFFF3333)
    monitor.write(slot + 8, 1)  # one cut, once


# STM32F4's flash, by RM0090, chapter 3.

FLASH_KEYR, FLASH_SR, FLASH_CR = 0x40023C04, 0x40023C0C, 0x40023C10
LOCK, STRT, EOPIE = 1 << 31, 1 << 16, 1 << 24
PG, SER, MER, WORDS = 1, 2, 4, 2 << 8
SECTOR_8, SECTOR_9 = 8 << 3, 9 << 3
SLOT_0, SLOT_1, SLOT_BYTES = 0x08080000, 0x080A0000, 0x20000
EOP, PGPERR, PGSERR, BUSY = 1, 1 << 6, 1 << 7, 1 << 16


def _unlock(monitor: Probe) -> None:
    monitor.write(FLASH_KEYR, 0x45670123)
    monitor.write(FLASH_KEYR, 0xCDEF89AB)


def _ready(monitor: Probe) -> int:
    while (status := monitor.read(FLASH_SR)) & BUSY:
        pass
    return status


@pytest.fixture
def flash(probe: Start) -> Probe:
    """An unlocked flash."""
    monitor = probe("stm32f405")
    assert monitor.read(FLASH_CR) == LOCK
    _unlock(monitor)
    assert monitor.read(FLASH_CR) == 0
    return monitor


def test_flash_is_locked_and_stays_so_without_the_keys(probe: Start) -> None:
    monitor = probe("stm32f405")
    monitor.write(FLASH_CR, WORDS | PG)
    assert monitor.read(FLASH_CR) == LOCK
    monitor.write(SLOT_0, 0, size=1)
    assert (monitor.read(SLOT_0), monitor.read(FLASH_SR)) == (0xFFFFFFFF, PGSERR)


@pytest.mark.parametrize("keys", [(0xCDEF89AB, 0x45670123), (0x45670123, 0x45670123), (1,)])
def test_a_wrong_key_locks_flash_until_reset(probe: Start, keys: tuple[int, ...]) -> None:
    monitor = probe("stm32f405")
    for key in keys:
        monitor.write(FLASH_KEYR, key)
    _unlock(monitor)
    assert monitor.read(FLASH_CR) == LOCK
    monitor.machine.reset()
    _unlock(monitor)
    assert monitor.read(FLASH_CR) == 0


def test_locking_again_and_reset_both_lock_flash(flash: Probe) -> None:
    flash.write(FLASH_CR, LOCK)
    flash.write(FLASH_CR, WORDS | PG)
    assert flash.read(FLASH_CR) == LOCK
    _unlock(flash)
    assert flash.read(FLASH_CR) == 0
    flash.machine.reset()
    assert flash.read(FLASH_CR) == LOCK


def test_programming_clears_bits_and_sets_none(flash: Probe) -> None:
    flash.write(FLASH_CR, WORDS | PG)
    flash.write(SLOT_0, 0xF0F0F0F0)
    assert _ready(flash) == 0
    flash.write(SLOT_0, 0x0FF00FF0)
    assert (_ready(flash), flash.read(SLOT_0)) == (0, 0x00F000F0)
    assert flash.read(SLOT_0 + 4) == 0xFFFFFFFF
    assert flash.machine.slot_events == 2


@pytest.mark.parametrize(
    ("control", "address", "size", "errors"),
    [
        (WORDS, SLOT_0, 4, PGSERR),
        (WORDS | PG | SER, SLOT_0, 4, PGSERR),
        (WORDS | PG, SLOT_0, 1, PGPERR),
        (WORDS | PG, SLOT_0, 2, PGPERR),
        (PG, SLOT_0, 4, PGPERR),
        (WORDS, SLOT_0, 2, PGSERR | PGPERR),
    ],
)
def test_a_wrong_store_is_flagged_and_not_done(flash: Probe, control: int, address: int, size: int, errors: int) -> None:
    flash.write(FLASH_CR, control)
    flash.write(address, 0, size)
    assert flash.read(FLASH_SR) == errors
    assert flash.machine.read_memory(SLOT_0, 64) == b"\xff" * 64
    flash.write(FLASH_SR, errors)
    assert flash.read(FLASH_SR) == 0


@pytest.mark.parametrize(("control", "size"), [(PG, 1), (1 << 8 | PG, 2), (WORDS | PG, 4)])
def test_each_parallelism_takes_its_own_size(flash: Probe, control: int, size: int) -> None:
    flash.write(FLASH_CR, control)
    flash.write(SLOT_1, 0, size)
    assert _ready(flash) == 0
    assert flash.machine.read_memory(SLOT_1, 8) == bytes(size) + b"\xff" * (8 - size)


def test_an_erase_takes_its_whole_sector_and_no_other(flash: Probe) -> None:
    flash.write(FLASH_CR, WORDS | PG)
    for address in (SLOT_0 + SLOT_BYTES - 4, SLOT_1, SLOT_1 + SLOT_BYTES - 4):
        flash.write(address, 0)
    flash.write(FLASH_CR, SER | SECTOR_9)
    assert flash.machine.read_memory(SLOT_1, 4) == bytes(4)  # nothing starts by itself
    flash.write(FLASH_CR, SER | SECTOR_9 | STRT)
    assert flash.read(FLASH_SR) == BUSY
    assert flash.read(FLASH_CR) & STRT
    assert _ready(flash) == 0
    assert flash.read(FLASH_CR) == SER | SECTOR_9
    assert flash.machine.read_memory(SLOT_1, SLOT_BYTES) == b"\xff" * SLOT_BYTES
    assert flash.machine.read_memory(SLOT_0 + SLOT_BYTES - 4, 4) == bytes(4)


@pytest.mark.parametrize("control", [SER | MER | SECTOR_8, SER | PG | SECTOR_8, SER | 12 << 3, SER | 15 << 3, SECTOR_8])
def test_an_erase_that_is_none_erases_nothing(flash: Probe, control: int) -> None:
    flash.write(FLASH_CR, WORDS | PG)
    flash.write(SLOT_0, 0)
    before = flash.machine.snapshot().flash
    flash.write(FLASH_CR, control | STRT)
    _ready(flash)
    assert flash.machine.snapshot().flash == before


def test_the_end_of_an_operation_is_flagged_where_its_interrupt_is_on(flash: Probe) -> None:
    flash.write(FLASH_CR, WORDS | PG | EOPIE)
    flash.write(SLOT_0, 0)
    assert _ready(flash) == EOP
    flash.write(FLASH_SR, EOP)
    assert flash.read(FLASH_SR) == 0


def test_a_cut_in_an_erase_leaves_neither_the_old_nor_an_erased_sector(flash: Probe) -> None:
    old = random.Random(1).randbytes(1024)
    flash.write(FLASH_CR, WORDS | PG)
    for at in range(0, 1024, 4):
        flash.write(SLOT_1 + SLOT_BYTES - 1024 + at, int.from_bytes(old[at : at + 4], "little"))
    flash.machine.cut_power_after(0)
    assert flash.machine.exchange(struct.pack("<cIBI", b"w", FLASH_CR, 4, SER | SECTOR_9 | STRT)) == b""
    flash.machine.power_cycle()
    sector = flash.machine.read_memory(SLOT_1, SLOT_BYTES)
    assert sector[: SLOT_BYTES // 2] == b"\xff" * (SLOT_BYTES // 2)
    assert sector[-1024:] != old
    assert sector[-1024:] != b"\xff" * 1024
    assert all(now | was == now for now, was in zip(sector[-1024:], old, strict=True))


def test_a_cut_in_a_word_programs_half_of_it(flash: Probe) -> None:
    flash.write(FLASH_CR, WORDS | PG)
    flash.machine.cut_power_after(1)
    flash.write(SLOT_0, 0)
    assert flash.machine.exchange(struct.pack("<cIBI", b"w", SLOT_0 + 4, 4, 0)) == b""
    flash.machine.power_cycle()
    assert flash.machine.read_memory(SLOT_0, 12) == bytes(6) + b"\xff" * 6
