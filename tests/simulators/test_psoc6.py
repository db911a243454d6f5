"""The emulated PSoC 62, its registers tried one by one; and the port of it on that, with both cores' parts."""

import asyncio
import ctypes
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bus import Bus
from probe import need
from rounds import demand_the_native_theta

from tinyfl.building import boards
from tinyfl.simulators import BoardFault

NAME = "cy8ckit-062s2"
SERIAL = 0x1122334455667788

CM4_STATUS, CM4_VECTOR_TABLE_BASE, CM4_PWR_CTL, CM0_CLOCK_CTL = 0x40200004, 0x40200200, 0x40201200, 0x40201008
IPC1, ACQUIRE, RELEASE, NOTIFY, DATA0, LOCK_STATUS = 0x40220020, 0x00, 0x04, 0x08, 0x0C, 0x1C
FLASH_CTL, FLASH_CMD = 0x40240000, 0x40240008
WDT_CTL, WDT_CNT, WDT_MATCH, SRSS_INTR = 0x40260180, 0x40260184, 0x40260188, 0x40260700
PATH1, ROOT0, PLL0_CONFIG, PLL0_STATUS = 0x40260344, 0x40260380, 0x40260600, 0x40260640
DIV_CMD, SCB5_CLOCK, DIV_16_5 = 0x40000400, 0x40000C14, 0x40001800
HSIOM5, GPIO5_CFG = 0x40300050, 0x403102C4
SCB5 = 0x40650000
CTRL, UART_TX_CTRL, UART_RX_CTRL, TX_CTRL, RX_CTRL = 0x000, 0x044, 0x048, 0x200, 0x300
TX_FIFO_WR, RX_FIFO_STATUS, RX_FIFO_RD, INTR_RX = 0x240, 0x308, 0x340, 0xFC0
SFLASH = 0x16000000
FLASH, RAM, ROW, SECTOR = 0x10000000, 0x08010000, 0x200, 0x40000
SLOT = 0x10080000
WRITE_ROW, PROGRAM_ROW, ERASE_SECTOR, ERASE_ROW = 0x05000100, 0x06000100, 0x14000100, 0x1C000100
SUCCESS, INVALID_ADDRESS = 0xA0000000, 0xF0000004
PLL_100 = 3 << 16 | 2 << 8 | 75
INPUT, OUTPUT, ENABLE = 2 << 28, 3 << 28, 1 << 31
STOPPED = {"start": 5, "crash": 6, "power": 2}


class Chip:
    """The model without a core: loads, stores, and why a core would have stopped."""

    def __init__(self) -> None:
        from tinyfl.simulators.unicorn import peripherals

        lib = peripherals.library()
        self._stop = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(lambda _: 0)
        self.flash, self.ram = ctypes.create_string_buffer(0x200000), ctypes.create_string_buffer(0x10000)
        self._input, self._output = ctypes.create_string_buffer(b"abc", 3), ctypes.create_string_buffer(64)
        memory = boards.load(NAME).memory
        assert memory is not None
        self.state = peripherals.State(
            stop=ctypes.cast(self._stop, ctypes.c_void_p),
            chip=ctypes.pointer(peripherals.chip("psoc6")),
            flash=ctypes.addressof(self.flash), ram=ctypes.addressof(self.ram),
            flash_origin=FLASH, flash_bytes=len(self.flash), ram_origin=RAM, ram_bytes=len(self.ram),
            input=ctypes.addressof(self._input), output=ctypes.addressof(self._output), output_room=64,
            vectors=memory.application, slots_origin=SLOT, uart=SCB5, baud=115_200, hertz=100_000_000, serial=SERIAL,
        )  # fmt: skip
        self._bus, self._slots = Bus("psoc6", self.state), peripherals.LOAD(("tinyfl_slots_load", lib))
        lib.tinyfl_machine_reset(ctypes.byref(self.state))

    def read(self, address: int) -> int:
        return self._bus.read(address)

    def write(self, address: int, value: int) -> None:
        self._bus.write(address, value)

    def sflash(self, offset: int, size: int = 1) -> int:
        return self._bus.read(SFLASH + offset, size)

    def slot(self) -> int:
        """The first byte of the first slot, as the core reads it."""
        return int(self._slots(None, 0, 1, ctypes.addressof(self.state))) & 0xFF

    @property
    def stopped(self) -> int:
        return int(self.state.now.halt)

    def start_uart(self, **changed: int) -> None:
        """SCB5 as a UART, register for register; ``changed`` has some otherwise."""
        steps = {
            "divider": (DIV_16_5, 3 << 8 | 11 << 3),  # by 4 and 11/32, of 4 MHz
            "clock": (SCB5_CLOCK, 2 << 8),
            "command": (DIV_CMD, ENABLE | 0x03FF0000 | 2 << 8),
            "select": (HSIOM5, 18 << 8 | 18),
            "drive": (GPIO5_CFG, 6 << 4 | 8),
            "tx": (SCB5 + TX_CTRL, 7),
            "rx": (SCB5 + RX_CTRL, 7),
            "tx_frame": (SCB5 + UART_TX_CTRL, 1),
            "rx_frame": (SCB5 + UART_RX_CTRL, 1),
            "control": (SCB5 + CTRL, 2 << 24 | 1 << 11 | 7),
            "enable": (SCB5 + CTRL, ENABLE | 2 << 24 | 1 << 11 | 7),
        }
        for name, (register, value) in steps.items():
            self.write(register, changed.get(name, value))

    def call(self, opcode: int, *arguments: int, at: int = RAM) -> int:
        """What the ROM answers in its block at ``at``; the opcode, if it never does."""
        if 0 <= at - RAM < len(self.ram):
            struct.pack_into("<4I", self.ram, at - RAM, opcode, *(*arguments, 0, 0, 0)[:3])
        assert self.read(IPC1 + ACQUIRE) == 1 << 31
        self.write(IPC1 + DATA0, at)
        self.write(IPC1 + NOTIFY, 1)
        for _ in range(16):
            if not self.read(IPC1 + LOCK_STATUS):
                return int(struct.unpack_from("<I", self.ram, at - RAM)[0])
        return opcode


@pytest.fixture
def chip() -> Chip:
    need("unicorn")
    return Chip()


# Two cores


def test_the_second_core_starts_by_the_key_and_where_its_table_is(chip: Chip) -> None:
    struct.pack_into("<II", chip.flash, 0x2000, 0x08012000, 0x10002101)
    chip.write(CM4_VECTOR_TABLE_BASE, 0x10002000 | 0x3FF)
    assert chip.read(CM4_VECTOR_TABLE_BASE) == 0x10002000  # tables begin at multiples of 1 KiB
    for wrong in (3, 0xFA050003, 0x05FA0000, 0x05FA0001):
        chip.write(CM4_PWR_CTL, wrong)
        assert (chip.stopped, chip.read(CM4_STATUS)) == (0, 0)
    chip.write(CM4_PWR_CTL, 0x05FA0003)
    assert (chip.stopped, chip.state.now.stack, chip.state.now.entry) == (STOPPED["start"], 0x08012000, 0x10002101)
    chip.state.now.halt = 0
    assert chip.read(CM4_STATUS) == 1 << 4
    assert chip.read(CM4_PWR_CTL) & 0xFFFF == 3


def test_a_table_outside_of_flash_starts_nothing(chip: Chip) -> None:
    chip.write(CM4_VECTOR_TABLE_BASE, 0x20000000)
    chip.write(CM4_PWR_CTL, 0x05FA0003)
    assert chip.stopped == 0


# Clocks


def to_pll(chip: Chip, config: int, states: int = 3) -> None:
    chip.write(FLASH_CTL, states)
    chip.write(PLL0_CONFIG, INPUT | config)
    chip.write(PLL0_CONFIG, INPUT | config | ENABLE)


def test_the_pll_locks_within_its_bounds(chip: Chip) -> None:
    for config, locks in (
        (PLL_100, 1),
        (2 << 16 | 1 << 8 | 25, 1),
        (3 << 16 | 2 << 8 | 49, 0),  # 196 MHz
        (3 << 16 | 1 << 8 | 51, 0),  # 408 MHz
        (1 << 16 | 2 << 8 | 75, 0),
        (3 << 16 | 3 << 8 | 100, 0),  # from less than 4 MHz
        (3 << 16 | 75, 0),
    ):
        chip.write(PLL0_CONFIG, INPUT)
        to_pll(chip, config)
        assert chip.read(PLL0_STATUS) == locks, hex(config)
    chip.write(PATH1, 1)  # a clock from outside, that is not there
    to_pll(chip, PLL_100)
    assert chip.read(PLL0_STATUS) == 0


def test_a_pll_that_is_on_keeps_its_dividers(chip: Chip) -> None:
    to_pll(chip, PLL_100)
    chip.write(PLL0_CONFIG, OUTPUT | 3 << 16 | 2 << 8 | 50 | ENABLE)
    assert chip.read(PLL0_CONFIG) == OUTPUT | PLL_100 | ENABLE


@pytest.mark.parametrize(
    ("config", "states", "runs"),
    [(PLL_100, 3, True), (PLL_100, 2, False), (3 << 16 | 2 << 8 | 49, 3, False), (2 << 16 | 2 << 8 | 60, 15, False)],
    ids=["100 MHz", "too few wait states", "not locked", "120 MHz"],
)
def test_the_cores_run_on_what_is_locked_and_slow_enough(chip: Chip, config: int, states: int, runs: bool) -> None:
    to_pll(chip, config, states)
    chip.write(PLL0_CONFIG, OUTPUT | config | ENABLE)
    chip.write(ROOT0, 1)
    assert chip.stopped == (0 if runs else STOPPED["crash"])


# Watchdog


def test_the_watchdog_is_on_and_locked_and_opens_by_two_writes(chip: Chip) -> None:
    assert chip.read(WDT_CTL) == 3 << 30 | 1
    assert chip.state.now.watchdog > 0
    chip.write(WDT_MATCH, 0)
    chip.write(WDT_CTL, 0)
    assert (chip.read(WDT_CTL), chip.read(WDT_MATCH)) == (3 << 30 | 1, 4096)
    chip.write(WDT_CTL, 1 << 30)
    chip.write(WDT_CTL, 2 << 30)
    assert chip.read(WDT_CTL) == 1
    chip.write(WDT_CTL, 0)
    assert chip.state.now.watchdog == 0
    chip.write(WDT_CTL, 3 << 30 | 1)
    chip.write(WDT_CTL, 0)
    assert chip.read(WDT_CTL) == 3 << 30 | 1


def test_it_bites_at_the_third_match(chip: Chip) -> None:
    chip.write(WDT_CTL, 1 << 30)
    chip.write(WDT_CTL, 2 << 30)
    chip.write(WDT_MATCH, 0)
    for seconds in (0.0, 0.5, 1.9):
        chip.state.now.instructions = int(seconds * 1e8) + 1_000_000_000  # 10 s, when the counter is at 0
        chip.write(SRSS_INTR, 1)
        left = (chip.state.now.watchdog - chip.state.now.instructions) / 1e8
        assert abs(left - (6 - seconds)) < 0.001
        assert abs(chip.read(WDT_CNT) - seconds * 32768) <= 1


# UART


def test_a_uart_sends_and_takes(chip: Chip) -> None:
    chip.state.input_bytes = 3
    chip.start_uart()
    chip.write(SCB5 + TX_FIFO_WR, ord("x"))
    assert (chip.state.sent, chip.read(SCB5 + RX_FIFO_STATUS)) == (1, 3)
    chip.write(SCB5 + INTR_RX, 4)
    assert chip.read(SCB5 + INTR_RX) & 4  # as long as a byte waits
    assert [chip.read(SCB5 + RX_FIFO_RD) for _ in range(3)] == [*b"abc"]
    chip.write(SCB5 + INTR_RX, 4)
    assert (chip.read(SCB5 + INTR_RX) & 4, chip.read(SCB5 + RX_FIFO_STATUS)) == (0, 0)


@pytest.mark.parametrize(
    ("changed", "sends", "takes"),
    [
        ({"command": 0}, 0, 0),
        ({"command": ENABLE | 2 << 8}, 0, 0),
        ({"clock": 1 << 8}, 0, 0),
        ({"divider": 3 << 8 | 12 << 3}, 1, 3),  # 0.6 % slow
        ({"divider": 3 << 8 | 14 << 3}, 0, 0),  # 2 % slow
        ({"divider": 3 << 8 | 7 << 3}, 0, 0),  # 2.8 % fast
        ({"control": 2 << 24 | 1 << 11 | 8, "enable": ENABLE | 2 << 24 | 1 << 11 | 8}, 0, 0),  # 9 samples a bit
        ({"enable": 2 << 24 | 1 << 11 | 7}, 0, 0),
        ({"control": 1 << 24, "enable": ENABLE | 1 << 24 | 1 << 11 | 7}, 0, 0),
        ({"enable": ENABLE | 2 << 24 | 1 << 11 | 3}, 0, 0),
        ({"select": 18}, 0, 3),
        ({"select": 18 << 8}, 1, 0),
        ({"drive": 8}, 0, 3),
        ({"drive": 6 << 4}, 1, 0),
        ({"tx": 1 << 8 | 7}, 0, 3),
        ({"rx": 1 << 8 | 7}, 1, 0),
        ({"tx_frame": 0}, 0, 3),
        ({"rx_frame": 1 << 5 | 1}, 1, 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_a_uart_that_is_not_wholly_set_up_does_not_work(chip: Chip, changed: dict[str, int], sends: int, takes: int) -> None:
    chip.state.input_bytes = 3
    chip.start_uart(**changed)
    chip.write(SCB5 + TX_FIFO_WR, ord("x"))
    assert (chip.state.sent, chip.read(SCB5 + RX_FIFO_STATUS)) == (sends, takes)


def test_its_rate_follows_the_clocks(chip: Chip) -> None:
    chip.start_uart(divider=53 << 8 | 8 << 3)  # right for 50 MHz
    for register, value in ((FLASH_CTL, 3), (PLL0_CONFIG, PLL_100), (PLL0_CONFIG, OUTPUT | PLL_100 | ENABLE), (ROOT0, 1)):
        chip.write(SCB5 + TX_FIFO_WR, ord("x"))
        assert chip.state.sent == 0
        chip.write(register, value)
    chip.write(SCB5 + TX_FIFO_WR, ord("x"))
    assert chip.state.sent == 1
    chip.write(CM0_CLOCK_CTL, 0)
    chip.write(SCB5 + TX_FIFO_WR, ord("x"))
    assert chip.state.sent == 1


def test_what_is_on_keeps_its_settings(chip: Chip) -> None:
    chip.start_uart()
    chip.write(SCB5 + TX_CTRL, 0)
    assert chip.read(SCB5 + TX_CTRL) == 7


# Flash


def put_row(chip: Chip, data: bytes, at: int = RAM + 0x400) -> int:
    ctypes.memmove(ctypes.addressof(chip.ram) + at - RAM, data, len(data))
    return at


def held(chip: Chip, address: int, count: int = ROW) -> bytes:
    return ctypes.string_at(ctypes.addressof(chip.flash) + address - FLASH, count)


def test_a_row_is_written_programmed_and_erased(chip: Chip) -> None:
    data = bytes(i % 251 for i in range(ROW))
    ctypes.memset(chip.flash, 0xFF, len(chip.flash))
    assert chip.call(WRITE_ROW, 0, SLOT + ROW, put_row(chip, data)) == SUCCESS
    assert (held(chip, SLOT), held(chip, SLOT + ROW)) == (b"\xff" * ROW, data)
    assert chip.call(PROGRAM_ROW, 0x100, SLOT + ROW, put_row(chip, b"\x80" * ROW)) == SUCCESS
    assert held(chip, SLOT + ROW) == bytes(byte | 0x80 for byte in data)  # sets bits and clears none
    assert chip.call(ERASE_ROW, SLOT + ROW) == SUCCESS
    assert held(chip, SLOT + ROW, 2 * ROW) == bytes(ROW) + b"\xff" * ROW
    assert chip.state.now.slot_events == 4


def test_an_erase_takes_its_whole_sector_and_no_other(chip: Chip) -> None:
    ctypes.memset(chip.flash, 0xFF, len(chip.flash))
    assert chip.call(ERASE_SECTOR, SLOT) == SUCCESS
    assert held(chip, SLOT, SECTOR) == bytes(SECTOR)
    assert held(chip, SLOT - 1, 1) == held(chip, SLOT + SECTOR, 1) == b"\xff"


@pytest.mark.parametrize(
    ("opcode", "arguments", "answer"),
    [
        (WRITE_ROW, (0, SLOT + 4, RAM), INVALID_ADDRESS),
        (WRITE_ROW, (0, FLASH + 0x200000, RAM), INVALID_ADDRESS),
        (ERASE_SECTOR, (SLOT + ROW,), INVALID_ADDRESS),
        (ERASE_ROW, (0x08000000,), INVALID_ADDRESS),
        (WRITE_ROW, (0, SLOT, SLOT), None),
        (WRITE_ROW, (0, SLOT, RAM + 0x10000 - 4), None),
        (PROGRAM_ROW, (0, SLOT, RAM), None),
        (WRITE_ROW & ~0x100, (0, SLOT, RAM), None),
        (0x0A000100, (), None),
    ],
    ids=["off the row", "behind flash", "off the sector", "in RAM", "data in flash", "data beyond RAM", "data in the latches",
         "not blocking", "another call"],
)  # fmt: skip
def test_a_call_that_is_wrong_is_refused_or_never_answered(
    chip: Chip, opcode: int, arguments: tuple[int, ...], answer: int | None
) -> None:
    assert chip.call(opcode, *arguments) == (answer or opcode)
    assert chip.state.now.slot_events == 0


def test_a_call_needs_its_structure_and_a_block_in_ram(chip: Chip) -> None:
    struct.pack_into("<2I", chip.ram, 0, ERASE_SECTOR, SLOT)
    chip.write(IPC1 + DATA0, RAM)
    chip.write(IPC1 + NOTIFY, 1)  # not acquired
    assert chip.read(IPC1 + ACQUIRE) == 1 << 31
    assert chip.read(IPC1 + ACQUIRE) == 0  # by one at a time
    chip.write(IPC1 + NOTIFY, 2)  # another interrupt
    assert chip.state.now.slot_events == 0
    chip.write(IPC1 + RELEASE, 0)
    assert chip.call(ERASE_SECTOR, SLOT, at=SLOT) == ERASE_SECTOR
    assert chip.state.now.slot_events == 0


def test_the_answer_comes_once_the_structure_is_released(chip: Chip) -> None:
    struct.pack_into("<2I", chip.ram, 0, ERASE_SECTOR, SLOT)
    chip.read(IPC1 + ACQUIRE)
    chip.write(IPC1 + DATA0, RAM)
    chip.write(IPC1 + NOTIFY, 1)
    assert chip.read(IPC1 + LOCK_STATUS) == 1 << 31
    assert struct.unpack_from("<I", chip.ram)[0] == ERASE_SECTOR
    while chip.read(IPC1 + LOCK_STATUS):
        pass
    assert struct.unpack_from("<I", chip.ram)[0] == SUCCESS


def test_flash_is_no_memory_while_the_rom_works_and_old_until_the_caches_are_empty(chip: Chip) -> None:
    struct.pack_into("<2I", chip.ram, 0, ERASE_SECTOR, SLOT)
    assert chip.read(IPC1 + ACQUIRE) == 1 << 31
    chip.write(IPC1 + DATA0, RAM)
    assert chip.slot() == 0
    chip.write(IPC1 + NOTIFY, 1)
    chip.write(FLASH_CMD, 1)
    assert [chip.read(FLASH_CMD) for _ in range(3)] == [1, 1, 0]  # too early
    assert chip.state.now.away == 1
    while chip.read(IPC1 + LOCK_STATUS):
        assert chip.state.now.away == 1
    assert (chip.state.now.away, chip.slot()) == (0, 0xFF)
    chip.write(FLASH_CMD, 1)
    assert chip.slot() == 0xFF
    assert [chip.read(FLASH_CMD) for _ in range(3)] == [1, 1, 0]
    assert (chip.slot(), chip.stopped) == (0, 0)
    struct.pack_into("<2I", chip.ram, 0, ERASE_SECTOR, SLOT)
    assert chip.read(IPC1 + ACQUIRE) == 1 << 31
    chip.write(IPC1 + NOTIFY, 1)
    chip.slot()
    assert chip.stopped == STOPPED["crash"]


@pytest.mark.parametrize(("event", "half"), [(1, 0), (2, ROW // 2)], ids=["erasing", "programming"])
def test_a_cut_leaves_neither_the_old_row_nor_the_new(chip: Chip, event: int, half: int) -> None:
    old, new = b"\x5a" * ROW, b"\xa5" * ROW
    ctypes.memmove(ctypes.addressof(chip.flash) + SLOT - FLASH, old, ROW)
    chip.state.now.cut_at = event
    chip.call(WRITE_ROW, 0, SLOT, put_row(chip, new))
    assert chip.stopped == STOPPED["power"]
    found = held(chip, SLOT)
    assert found[:half] == new[:half] and found not in (old, new)
    assert found[half : ROW // 2] == bytes(ROW // 2 - half)


def test_the_caches_are_emptied_on_command(chip: Chip) -> None:
    chip.write(FLASH_CMD, 1)
    assert [chip.read(FLASH_CMD) for _ in range(3)] == [1, 1, 0]


def test_the_die_has_a_number_of_its_own(chip: Chip) -> None:
    assert bytes(chip.sflash(0x600 + i) for i in range(11)) == bytes.fromhex("8877665544332211160b1a")
    assert chip.sflash(0x600, 4) == 0x55667788


# Our port


def start(firmware: Callable[[str], Path], serial: int = 1) -> Any:
    need("unicorn")
    from tinyfl.simulators.unicorn import Machine

    return Machine(firmware(NAME), boards.load(NAME), serial)


def described(machine: Any) -> Any:
    from stock import Describe, ask

    from tinyfl.simulators.bridge import Bridge

    def faulted(fault: BoardFault) -> None:
        raise fault

    with Bridge(machine, "pty", faulted) as bridge:
        return ask(bridge.url, Describe())[0]


def register(machine: Any, address: int) -> int:
    return Bus("psoc6", machine._state).read(address)


def rate(machine: Any, clock: float) -> float:
    """The UART's, in baud, from the peripherals' clock in Hz."""
    divider, samples = register(machine, DIV_16_5), (register(machine, SCB5 + CTRL) & 15) + 1
    return clock / ((divider >> 8) + 1 + (divider >> 3 & 31) / 32) / samples


def test_a_board_starts_through_its_first_core_and_sets_its_clocks(firmware: Callable[[str], Path]) -> None:
    board = boards.load(NAME)
    machine = start(firmware)
    assert machine._state.now.entry == machine.symbol("Reset_Handler") | 1
    assert register(machine, CM4_VECTOR_TABLE_BASE) == board.memory.application  # type: ignore[union-attr]
    assert register(machine, PLL0_CONFIG) == OUTPUT | ENABLE | PLL_100
    assert (register(machine, ROOT0) & 0x3F, register(machine, FLASH_CTL)) == (1, 3)
    assert register(machine, CM0_CLOCK_CTL) == 1 << 24
    assert abs(rate(machine, 50e6) - board.links[0].baud) < 0.001 * board.links[0].baud
    assert register(machine, SCB5 + 0xFC8) == 4  # the interrupt of a byte that waits
    now = machine._state.now
    assert now.system[0x100 // 4 + 44 // 32] == 1 << 44 % 32
    assert 4e8 < now.watchdog - now.instructions <= 6.001e8
    assert register(machine, WDT_CTL) == 3 << 30 | 1


def test_without_an_identity_record_a_board_has_the_dies_number(firmware: Callable[[str], Path]) -> None:
    memory = boards.load(NAME).memory
    assert memory is not None
    machine = start(firmware, SERIAL)
    kept, at = machine.snapshot(), memory.identity - memory.flash.origin
    machine.restore(replace(kept, flash=kept.flash[:at] + bytes(16) + kept.flash[at + 16 :]))
    machine.reset()
    found = described(machine)
    assert found.id == bytes.fromhex("8877665544332211160b1a")
    assert (found.board, found.clock) == (NAME, 100_000_000)


def test_a_board_learns_to_the_same_bits_as_the_host(firmware: Callable[[str], Path]) -> None:
    from tinyfl.link.wire import MachineWire

    machine = start(firmware)
    demand_the_native_theta(MachineWire(machine).open)
    demand_the_native_theta(MachineWire(machine).open, "mlp-9-8-tanh")


def test_without_its_pll_a_board_runs_on_the_oscillator(mutant: Callable[..., Path]) -> None:
    """A port whose PLL gets a divider that it does not lock with."""
    machine = start(lambda board: mutant(board, "psoc6/psoc6.c", divider=("2u << 8", "3u << 8")))
    assert described(machine).clock == 8_000_000
    assert (register(machine, ROOT0) & 0x3F, register(machine, PLL0_CONFIG) & ENABLE) == (0, 0)
    assert abs(rate(machine, 8e6) - boards.load(NAME).links[0].baud) < 0.005 * rate(machine, 8e6)


def test_a_core_started_again_without_a_reset_comes_up(firmware: Callable[[str], Path]) -> None:
    """As by a debugger: the PLL is on and feeds it, and the UART is on too."""
    from tinyfl.link.wire import MachineWire

    machine = start(firmware)
    machine._start()
    demand_the_native_theta(MachineWire(machine).open)
    assert register(machine, PLL0_CONFIG) == OUTPUT | ENABLE | PLL_100


@pytest.mark.parametrize("how", ["asked", "bitten"])
def test_a_board_that_is_reset_comes_up_through_its_first_core(firmware: Callable[[str], Path], how: str) -> None:
    machine = start(firmware)
    now = machine._state.now
    now.entry = 0
    if how == "asked":
        talk(machine, lambda board: board.reset())
    else:
        now.watchdog = now.instructions + 1
        machine.exchange(b"\0")
    assert now.entry == machine.symbol("Reset_Handler") | 1
    assert described(machine).clock == 100_000_000


@pytest.mark.parametrize("damage", [bytes(8), b"\xff" * 8], ids=["erased", "all ones"])
def test_a_board_whose_first_core_has_no_program_does_not_start(firmware: Callable[[str], Path], damage: bytes) -> None:
    machine = start(firmware)
    kept = machine.snapshot()
    machine.restore(replace(kept, flash=damage + kept.flash[8:]))
    with pytest.raises(BoardFault, match="crashed"):
        machine.reset()


def test_both_toolchains_make_the_same_program_for_the_first_core(firmware: Callable[[str], Path], tmp_path: Path) -> None:
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("needs arm-none-eabi-gcc: apt-get install gcc-arm-none-eabi")
    from tinyfl.building.build import build
    from tinyfl.simulators.unicorn.image import load_image

    board = boards.load(NAME)
    images = (load_image(firmware(NAME)), load_image(build(board, tmp_path, toolchain="gcc").elf))
    first, second = (next(data for address, data in image.segments if address == FLASH) for image in images)
    assert first == second
    halves = struct.unpack_from("<9H", first, 16)
    assert all(half >> 11 < 0x1D for half in halves)  # no instruction of 32 bits: ARMv6-M has but few of these


def test_a_driver_that_waits_for_the_rom_in_flash_crashes(mutant: Callable[..., Path]) -> None:
    from tinyfl.errors import Dead

    machine = start(lambda board: mutant(board, "psoc6/psoc6.c", place=(', section(".in_ram")', "")))
    with pytest.raises(Dead, match=r"crashed .* at .*rom_works"):
        talk(machine, lambda board: board.put_program(program(1)))


def test_no_access_is_to_flash_while_the_rom_works(firmware: Callable[[str], Path]) -> None:
    """unicorn lets the firmware's own flash be read at any time."""
    machine = start(firmware)
    from unicorn import UC_HOOK_MEM_READ

    wrong, seen, now = [], [0], machine._state.now

    def look(core: Any, kind: int, address: int, size: int, value: int, user: Any) -> None:
        seen[0] += now.away
        if now.away and FLASH <= address < FLASH + 0x200000:
            wrong.append(hex(address))

    machine._core.hook_add(UC_HOOK_MEM_READ, look)
    machine._core.ctl_flush_tb()
    talk(machine, lambda board: board.put_program(program(1)))
    assert wrong == []
    assert seen[0] > 10


def test_a_driver_that_leaves_the_caches_as_they_are_reads_what_is_old(mutant: Callable[..., Path]) -> None:
    from tinyfl.errors import LinkError

    command = ("FLASHC(FLASH_CMD) = FLASHC_FLASH_CMD_INV;", "")
    machine = start(lambda board: mutant(board, "psoc6/psoc6.c", command=command))
    with pytest.raises(LinkError):
        talk(machine, lambda board: board.put_program(program(1)))


# Power


def talk(machine: Any, work: Callable[[Any], Any]) -> Any:
    from tinyfl.link.board import LinkedBoard
    from tinyfl.link.wire import MachineWire

    async def whole() -> Any:
        return await work(await LinkedBoard.connect(MachineWire(machine).open))

    return asyncio.run(whole())


def test_a_cut_at_every_row_and_sector_leaves_the_old_model_or_the_new(firmware: Callable[[str], Path]) -> None:
    from tinyfl.errors import Dead
    from tinyfl.link.board import LinkedBoard, floats
    from tinyfl.link.status import BoardState
    from tinyfl.networks import Activation, Loss, network

    net = network("mlp-16-12", (1,), 1, Loss.mean_squared_error, Activation.relu)
    old, new, last = (net.initial_weights(seed) for seed in (1, 2, 3))

    def commit(theta: Any) -> Callable[[LinkedBoard], Any]:
        async def work(board: LinkedBoard) -> int:
            await board.put_plan(net.plan.bytes)
            await board.put_weights(theta)
            return await board.commit(sha256(floats(theta)).digest())

        return work

    async def model(board: LinkedBoard) -> Any:
        status = await board.status()
        return status.state, await board.weights(status)

    machine = start(firmware)
    talk(machine, commit(last))
    assert talk(machine, commit(old)) == 1
    before, began = machine.snapshot(), machine.slot_events
    assert talk(machine, commit(new)) == 0
    rows = -(-(48 + len(net.plan.bytes) + len(floats(new))) // ROW)
    events = machine.slot_events - began
    assert rows > 2 and events == 1 + 2 * (rows + 3)  # the first row is written for header, plan, weights and the first word

    outcomes = {}
    for cut in range(events + 1):
        machine.restore(before)
        machine.cut_power_after(cut)
        if cut < events:
            with pytest.raises(Dead):
                talk(machine, commit(new))
        else:
            talk(machine, commit(new))
        machine.power_cycle()
        state, theta = talk(machine, model)
        assert state == BoardState.ready
        assert any(np.array_equal(theta, one) for one in (old, new))
        outcomes[cut] = np.array_equal(theta, new)
        assert talk(machine, commit(last)) == (1 if outcomes[cut] else 0)
    assert [cut for cut, is_new in outcomes.items() if is_new] == [events]


def program(seed: int) -> bytes:
    """4 values through a table of 256 (firmware/SPEC.md, program)."""
    from tinyfl.int8.program import Grid, Op, Operand, OpKind, TensorInfo, pack

    line = Grid((1, 1, 1, 4), (0, 0, 0, 1), (0, 0, 0, 1))
    info, x, y = TensorInfo((4,), "int8", 1.0, 0), Operand(0), Operand(1)
    table = bytes((7 * i + seed) % 256 for i in range(256))
    return pack([Op(OpKind.table, line, x, y)], table, 8, [(info, x), (info, y)], lambda buffer: 4 * buffer)


def test_a_cut_at_every_row_and_sector_leaves_a_whole_program_or_none(firmware: Callable[[str], Path]) -> None:
    """A block of it ends within a row, which the next block adds to."""
    from tinyfl.errors import Dead
    from tinyfl.link.board import LinkedBoard

    first, second = program(1), program(2)

    async def found(board: LinkedBoard) -> Any:
        hash = board.description.inference
        return hash, await board.predict(b"\0\1\x80\xff") if hash else b""

    machine = start(firmware)
    talk(machine, lambda board: board.put_program(first))
    before, began = machine.snapshot(), machine.slot_events
    talk(machine, lambda board: board.put_program(second))
    events, whole = machine.slot_events - began, talk(machine, found)
    assert whole[0] == sha256(second).digest()
    assert events >= 2 + 2 * 3  # two sectors, and the row of the head, of the table and of the first word
    for cut in range(events):
        machine.restore(before)
        machine.cut_power_after(cut)
        with pytest.raises(Dead):
            talk(machine, lambda board: board.put_program(second))
        machine.power_cycle()
        assert talk(machine, found) == (b"", b"")
        if cut % 4 == 0:
            talk(machine, lambda board: board.put_program(second))
            assert talk(machine, found) == whole
