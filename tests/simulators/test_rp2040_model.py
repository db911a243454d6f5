"""The emulated RP2040 without a core, tried load by load and store by store."""

import ctypes
import random

import pytest
from bus import Bus
from probe import need

SET, CLEAR, XOR = 0x2000, 0x3000, 0x1000
CLOCKS, RESETS, PSM, IO_BANK0, IO_QSPI = 0x40008000, 0x4000C000, 0x40010000, 0x40014000, 0x40018000
PADS_BANK0, XOSC, PLL, UART0, WATCHDOG = 0x4001C000, 0x40024000, 0x40028000, 0x40034000, 0x40058000
SSI, DOOR = 0x18000000, 0x4000
CTRLR0, CTRLR1, SSIENR, SER, BAUDR, RXFLR, SR, DR0, SPI_CTRLR0 = 0, 4, 8, 0x10, 0x14, 0x24, 0x28, 0x60, 0xF4
SELECT, LOW, HIGH = IO_QSPI + 0x0C, 2 << 8, 3 << 8
LOOKUP, CONNECT, LEAVE_XIP, ERASE, PROGRAM, FLUSH = range(6)
STOPPED, RESTARTED, POWER, CRASHED = 0, 1, 2, 6
FLASH, RAM, SLOT = 0x10000000, 0x20000000, 0x80000
ID = 0x1122334455667788


class Chip:
    """The model without a core: what its buses say to loads and stores."""

    def __init__(self) -> None:
        need("unicorn")
        from tinyfl.simulators.unicorn import peripherals

        self.lib = peripherals.library()
        self.flash, self.ram, self.out = (ctypes.create_string_buffer(size) for size in (2 << 20, 264 << 10, 64))
        ctypes.memset(self.flash, 0xFF, len(self.flash))
        self._stop = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(lambda engine: 0)
        self.state = peripherals.State(
            stop=ctypes.cast(self._stop, ctypes.c_void_p),
            chip=ctypes.pointer(peripherals.chip("rp2040")),
            flash=ctypes.addressof(self.flash),
            ram=ctypes.addressof(self.ram),
            output=ctypes.addressof(self.out),
            output_room=len(self.out),
            flash_origin=FLASH,
            flash_bytes=len(self.flash),
            ram_origin=RAM,
            ram_bytes=len(self.ram),
            vectors=FLASH + 0x100,
            slots_origin=FLASH + SLOT,
            uart=UART0,
            baud=115_200,
            pins=(ctypes.c_uint32 * 2)(0, 1),
            hertz=125_000_000,
            serial=ID,
        )
        self.now = self.state.now
        self.bus = Bus("rp2040", self.state)
        self.reset()

    def reset(self) -> None:
        self.lib.tinyfl_machine_reset(ctypes.byref(self.state))

    def read(self, address: int) -> int:
        return self.bus.read(address)

    def write(self, address: int, value: int, size: int = 4) -> None:
        self.bus.write(address, value, size)

    def until(self, address: int, bits: int) -> bool:
        return any(self.read(address) & bits for _ in range(10))

    def call(self, function: int, *arguments: int) -> int:
        for at, argument in enumerate(arguments):
            self.write(DOOR + 4 * at, argument)
        self.write(DOOR + 16, function)
        return self.read(DOOR + 20)

    def read_by_bus(self, **changed: int) -> None:
        """Sets the SSI up as boot2 does, but for what is changed."""
        settings = {"SER": 1, "BAUDR": 4, "CTRLR0": 0x1F0300, "CTRLR1": 0, "SPI_CTRLR0": 0x03000218} | changed
        offsets = {"SER": SER, "BAUDR": BAUDR, "CTRLR0": CTRLR0, "CTRLR1": CTRLR1, "SPI_CTRLR0": SPI_CTRLR0}
        self.write(SSI + SSIENR, 0)
        for name, value in settings.items():
            self.write(SSI + offsets[name], value)
        self.write(SSI + SSIENR, 1)

    def command(self, *out: int) -> bytes:
        """Bytes to the flash chip, and what comes back with each."""
        self.write(SELECT, LOW)
        back = []
        for byte in out:
            self.write(SSI + DR0, byte)
            back.append(self.read(SSI + DR0))
        self.write(SELECT, HIGH)
        return bytes(back)

    def run_from_crystal(self) -> None:
        self.write(XOSC, 0xFABAA0)
        assert self.until(XOSC + 4, 1 << 31)
        self.write(CLOCKS + 0x30, 2)

    def lock_pll(self, times: int = 125, dividers: int = 0x62000) -> bool:
        self.write(RESETS + CLEAR, 1 << 12)
        self.write(PLL + 8, times)
        self.write(PLL + 0xC, dividers)
        self.write(PLL + 4 + CLEAR, 0x29)
        return self.until(PLL, 1 << 31)

    def start_uart(self, leave_out: str = "") -> None:
        steps = {
            "clk_peri": (CLOCKS + 0x48, 1 << 11),
            "reset": (RESETS + CLEAR, 1 << 22 | 1 << 8 | 1 << 5),
            "divisor": (UART0 + 0x24, 3),  # and 34 64ths, of 6.5 MHz
            "fraction": (UART0 + 0x28, 34),
            "line": (UART0 + 0x2C, 0x70),
            "on": (UART0 + 0x30, 0x301),
            "tx": (IO_BANK0 + 4, 2),
            "rx": (IO_BANK0 + 12, 2),
        }
        for name, (address, value) in steps.items():
            if name != leave_out:
                self.write(address, value)

    def send(self, byte: int) -> bytes:
        self.state.sent = 0
        self.write(UART0, byte)
        return self.out.raw[: self.state.sent]


@pytest.fixture
def chip() -> Chip:
    return Chip()


# Buses, clocks, watchdog


def test_aliases_change_single_bits_and_narrow_stores_come_on_all_lanes(chip: Chip) -> None:
    register = CLOCKS + 0x78
    chip.write(register, 0x0F)
    chip.write(register + SET, 0xF0)
    assert chip.read(register) == 0xFF
    chip.write(register + CLEAR, 0x3C)
    assert chip.read(register) == 0xC3
    chip.write(register + XOR, 0xFF)
    assert chip.read(register) == 0x3C
    chip.write(register, 0xA5, size=1)
    assert chip.read(register) == 0xA5A5A5A5


def test_what_is_held_in_reset_takes_nothing_and_comes_up_anew(chip: Chip) -> None:
    pad = PADS_BANK0 + 4
    assert chip.read(RESETS + 8) & 1 << 8 == chip.read(pad) == 0
    chip.write(pad, 0x80)
    chip.write(RESETS + CLEAR, 1 << 8)
    assert (chip.read(RESETS + 8) & 1 << 8, chip.read(pad)) == (1 << 8, 0x56)
    chip.write(pad, 0x80)
    assert chip.read(pad) == 0x80
    chip.write(RESETS + SET, 1 << 8)
    chip.write(RESETS + CLEAR, 1 << 8)
    assert chip.read(pad) == 0x56


def test_the_crystal_needs_its_word_and_its_time(chip: Chip) -> None:
    chip.write(XOSC, 0xAA0)
    assert not chip.until(XOSC + 4, 1 << 31)
    chip.write(XOSC, 0xFABAA0)
    assert chip.read(XOSC + 4) == 1 << 12
    assert chip.until(XOSC + 4, 1 << 31)


@pytest.mark.parametrize(("times", "locks"), [(15, False), (62, False), (63, True), (125, True), (133, True), (134, False)])
def test_a_pll_locks_within_its_bounds_and_only_with_the_crystal(chip: Chip, times: int, locks: bool) -> None:
    assert not chip.lock_pll(times)
    chip.run_from_crystal()
    assert chip.lock_pll(times) == locks


def test_a_core_that_takes_a_clock_that_stands_still_crashes(chip: Chip) -> None:
    chip.run_from_crystal()
    chip.write(CLOCKS + 0x3C + SET, 1)
    assert chip.now.halt == CRASHED
    for dividers, halted in ((0x62000, STOPPED), (0x52000, CRASHED)):  # 125 and 150 MHz
        chip.reset()
        chip.run_from_crystal()
        assert chip.lock_pll(dividers=dividers)
        chip.write(CLOCKS + 0x3C + SET, 1)
        assert (chip.now.halt, chip.read(CLOCKS + 0x44)) == (halted, 0 if halted else 2)


def test_the_watchdog_counts_twice_and_resets_what_is_selected(chip: Chip) -> None:
    chip.run_from_crystal()
    chip.write(WATCHDOG + 0x2C, 12 | 1 << 9)
    chip.write(WATCHDOG + 4, 2_000_000)
    chip.write(WATCHDOG + SET, 1 << 30)
    assert chip.now.watchdog == 0  # it would reset nothing
    chip.write(PSM + 8, 0x1FFFC)
    chip.write(WATCHDOG + 4, 2_000_000)
    assert chip.now.watchdog == pytest.approx(125_000_000, rel=1e-6)  # a second, by the clock that the manifest gives
    chip.write(WATCHDOG + SET, 1 << 31)
    assert chip.now.halt == RESTARTED


# UART


def test_a_uart_that_is_set_up_sends_and_receives(chip: Chip) -> None:
    chip.start_uart()
    assert chip.send(ord("x")) == b"x"
    held = ctypes.create_string_buffer(b"ab", 2)
    chip.state.input, chip.state.input_bytes = ctypes.addressof(held), 2
    chip.write(UART0 + 0x38, 1 << 4)
    assert (chip.read(UART0 + 0x3C), chip.read(UART0 + 0x40)) == (1 << 4 | 1 << 6, 1 << 4)
    assert [chip.read(UART0 + at) for at in (0x18, 0, 0x18, 0, 0x18)] == [0x80, ord("a"), 0x80, ord("b"), 0x90]
    assert chip.read(UART0 + 0x3C) == 0


@pytest.mark.parametrize("missing", ["clk_peri", "reset", "divisor", "fraction", "line", "on", "tx"])
def test_a_uart_that_lacks_anything_sends_nothing(chip: Chip, missing: str) -> None:
    chip.start_uart(leave_out=missing)
    assert chip.send(ord("x")) == b""


def test_a_divisor_counts_once_the_line_is_set_after_it(chip: Chip) -> None:
    chip.start_uart(leave_out="divisor")
    chip.write(UART0 + 0x24, 3)
    assert chip.send(ord("x")) == b""
    chip.write(UART0 + 0x2C, 0x70)
    assert chip.send(ord("x")) == b"x"


def test_the_rate_is_that_of_the_clock_and_the_divisor(chip: Chip) -> None:
    chip.start_uart()
    for parts, sent in ((220, b""), (222, b"x"), (229, b"x"), (231, b"")):  # of 64; 225.7 would be right
        chip.write(UART0 + 0x24, parts // 64)
        chip.write(UART0 + 0x28, parts % 64)
        chip.write(UART0 + 0x2C, 0x70)
        assert chip.send(ord("x")) == sent
    chip.run_from_crystal()
    assert chip.send(ord("x")) == b""


def test_a_pin_that_is_not_the_links_sends_nothing(chip: Chip) -> None:
    chip.start_uart(leave_out="tx")
    chip.write(IO_BANK0 + 4 + 8 * 12, 2)  # UART0 as well
    assert chip.send(ord("x")) == b""


# Flash


@pytest.mark.parametrize(
    ("changed", "away"),
    [
        ({}, False),
        ({"SER": 0}, True),
        ({"BAUDR": 0}, True),
        ({"CTRLR0": 0x1F0000}, True),
        ({"CTRLR0": 0x070300}, True),
        ({"CTRLR0": 0x5F0300}, True),
        ({"CTRLR1": 1}, True),
        ({"SPI_CTRLR0": 0x0B000218}, True),
        ({"SPI_CTRLR0": 0x03000118}, True),
        ({"SPI_CTRLR0": 0x03000220}, True),
    ],
)
def test_flash_is_memory_only_behind_a_serial_read(chip: Chip, changed: dict[str, int], away: bool) -> None:
    assert chip.now.away  # as the ROM leaves it
    chip.read_by_bus(**changed)
    assert bool(chip.now.away) == away


def test_flash_that_is_read_too_fast_or_deselected_is_no_memory(chip: Chip) -> None:
    chip.run_from_crystal()
    assert chip.lock_pll()
    for divider, away in ((4, 0), (2, 1)):
        chip.write(CLOCKS + 0x3C + CLEAR, 1)
        chip.read_by_bus(BAUDR=divider)
        assert not chip.now.away
        chip.write(CLOCKS + 0x3C + SET, 1)
        assert chip.now.away == away
    chip.write(CLOCKS + 0x3C + CLEAR, 1)
    chip.write(SELECT, HIGH)
    assert chip.now.away


def test_settings_of_an_ssi_that_is_on_do_not_change(chip: Chip) -> None:
    chip.read_by_bus()
    chip.write(SSI + CTRLR0, 0)
    assert (chip.read(SSI + CTRLR0), chip.now.away) == (0x1F0300, 0)


def test_the_chip_tells_its_number_and_its_kind(chip: Chip) -> None:
    assert chip.command(0x4B, 0, 0, 0, 0, *bytes(8))[5:] == ID.to_bytes(8, "big")
    assert chip.command(0x9F, 0, 0, 0)[1:] == b"\xef\x40\x15"


def test_a_fifo_that_is_full_loses_what_comes(chip: Chip) -> None:
    chip.write(SELECT, LOW)
    for _ in range(20):
        chip.write(SSI + DR0, 0x4B)
    assert (chip.read(SSI + RXFLR), chip.read(SSI + SR) & 8) == (16, 8)


def test_the_chip_writes_only_what_is_enabled_and_only_clears_bits(chip: Chip) -> None:
    page = SLOT >> 16, SLOT >> 8 & 0xFF, 0
    chip.command(0x02, *page, 0x00)
    assert chip.flash.raw[SLOT] == 0xFF
    chip.command(0x06)
    assert chip.command(0x05, 0)[1] == 2
    chip.command(0x02, *page, 0xF0, 0xAA)
    assert [chip.command(0x05, 0)[1] for _ in range(6)] == [1, 1, 1, 1, 0, 0]
    chip.command(0x06)
    chip.command(0x02, *page, 0x3C)
    assert chip.flash.raw[SLOT : SLOT + 3] == b"\x30\xaa\xff"
    assert chip.command(0x03, *page, 0, 0)[4:] == b"\xff\xff"  # busy
    while chip.command(0x05, 0)[1]:
        pass
    assert chip.command(0x03, *page, 0, 0)[4:] == b"\x30\xaa"
    assert chip.now.slot_events == 2


def test_what_runs_over_a_page_begins_it_again(chip: Chip) -> None:
    chip.command(0x06)
    chip.command(0x02, SLOT >> 16, 0, 0xFE, 1, 2, 3)
    assert chip.flash.raw[SLOT + 0xFE : SLOT + 0x101] == b"\1\2\xff"
    assert chip.flash.raw[SLOT] == 3


# The boot ROM


def test_the_rom_knows_its_functions_by_their_letters(chip: Chip) -> None:
    def find(letters: bytes) -> int:
        return chip.call(LOOKUP, 0x40, int.from_bytes(letters, "little"))

    assert len({find(letters) for letters in (b"IF", b"EX", b"RE", b"RP", b"FC")} - {0}) == 5
    assert all(find(letters) & 1 for letters in (b"IF", b"FC"))
    assert find(b"XX") == 0


def test_the_rom_erases_and_writes_what_it_is_told(chip: Chip) -> None:
    old = random.Random(1).randbytes(0x30000)
    ctypes.memmove(ctypes.addressof(chip.flash) + SLOT, old, len(old))
    new = random.Random(2).randbytes(512)
    ctypes.memmove(ctypes.addressof(chip.ram) + 0x100, new, len(new))
    chip.call(ERASE, SLOT + 0xF000, 0x12000, 0x10000, 0xD8)  # a sector, a block, a sector
    erased = bytes(old[:0xF000]) + b"\xff" * 0x12000 + old[0x21000:]
    assert chip.flash.raw[SLOT : SLOT + len(old)] == erased
    assert chip.now.slot_events == 3
    chip.call(PROGRAM, SLOT + 0x10000, RAM + 0x100, len(new))
    assert chip.flash.raw[SLOT + 0x10000 : SLOT + 0x10200] == new
    chip.call(FLUSH)
    chip.read_by_bus()
    assert (chip.now.away, chip.now.halt) == (0, STOPPED)


def test_the_roms_functions_do_nothing_while_flash_is_memory(chip: Chip) -> None:
    chip.read_by_bus()
    ctypes.memset(chip.ram, 0, 256)
    chip.call(PROGRAM, SLOT, RAM, 256)
    ctypes.memset(ctypes.addressof(chip.flash) + SLOT, 0, 256)
    chip.call(ERASE, SLOT, 0x1000, 0x10000, 0xD8)
    assert (chip.now.slot_events, chip.flash.raw[SLOT]) == (0, 0)
    chip.call(CONNECT)
    chip.call(LEAVE_XIP)
    chip.call(ERASE, SLOT, 0x1000, 0x10000, 0xD8)
    assert (chip.now.slot_events, chip.flash.raw[SLOT]) == (1, 0xFF)
    chip.read_by_bus()
    assert chip.now.away  # until the chip is let go
    chip.call(FLUSH)
    assert not chip.now.away


def test_what_is_written_cannot_come_from_flash(chip: Chip) -> None:
    chip.call(PROGRAM, SLOT, FLASH, 256)
    assert chip.now.halt == CRASHED


def test_a_cut_leaves_half_a_page_and_half_a_block(chip: Chip) -> None:
    ctypes.memset(chip.ram, 0, 256)
    chip.now.cut_at = 1
    chip.call(PROGRAM, SLOT, RAM, 256)
    assert chip.now.halt == POWER
    assert chip.flash.raw[SLOT : SLOT + 256] == bytes(128) + b"\xff" * 128
    chip.reset()
    chip.now.cut_at = 2
    chip.call(ERASE, SLOT, 0x10000, 0x10000, 0xD8)
    half = chip.flash.raw[SLOT : SLOT + 0x10000]
    assert chip.now.halt == POWER
    assert half[:0x8000] == b"\xff" * 0x8000
