"""The emulated nRF52833, tried with loads and stores of a program that is not this project's firmware; and our port on it."""

import ctypes
import random
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from probe import Probe, need
from tinyfl.simulators import BoardFault

from tinyfl import boards

Start = Callable[..., Probe]

RXDRDY, INTENSET, INTENCLR, ENABLE, PSELTXD, RXD = (0x40002000 + at for at in (0x108, 0x304, 0x308, 0x500, 0x50C, 0x518))
STOPTX, STOPRX, SUSPEND = 0x4000200C, 0x40002004, 0x4000201C
ISER, ISPR, ICPR = 0xE000E100, 0xE000E200, 0xE000E280
READY, CONFIG, ERASEPAGE = 0x4001E400, 0x4001E504, 0x4001E508
HFCLKSTART, HFCLKSTARTED, HFCLKSTAT = 0x40000000, 0x40000100, 0x4000040C
REN, WEN, EEN = 0, 1, 2
SLOT, PAGE = 0x20000, 0x1000
ERASED = 0xFFFFFFFF


@pytest.fixture
def monitor(probe: Start) -> Probe:
    return probe("microbit-v2", serial=0x1122334455667788, budget=1_000_000)


def ready(monitor: Probe) -> None:
    while not monitor.read(READY):
        pass


def open_flash(monitor: Probe, mode: int) -> None:
    ready(monitor)
    monitor.write(CONFIG, mode)


# UART


def test_every_byte_that_comes_raises_its_event_and_the_interrupt(monitor: Probe) -> None:
    monitor.write(ICPR, 1 << 2)
    assert monitor.read(ISPR) == 1 << 2  # the next request is here
    monitor.write(INTENCLR, 1 << 2)
    monitor.write(ICPR, 1 << 2)
    assert monitor.read(ISPR) == 0
    assert monitor.read(INTENSET) == monitor.read(INTENCLR) == 0
    both = struct.pack("<cIBI", b"w", INTENSET, 4, 1 << 7) + struct.pack("<cI", b"r", ISPR)
    assert monitor.machine.exchange(both) == b"wr" + struct.pack("<I", 1 << 2)  # the byte that was sent raises its own


def test_an_event_that_is_cleared_late_loses_the_next_byte(monitor: Probe) -> None:
    """As on the chip: to read RXD brings the next byte up, so its event must not be cleared after that."""
    from tinyfl.simulators.unicorn import peripherals

    state, both = monitor.machine._state, ctypes.create_string_buffer(b"ab", 2)
    state.input, state.input_bytes, state.taken = ctypes.addressof(both), 2, 0
    lib = peripherals.library()
    lib.tinyfl_nrf52_uart_read.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint, ctypes.c_void_p]
    lib.tinyfl_nrf52_uart_write.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint, ctypes.c_uint64, ctypes.c_void_p]

    def read(register: int) -> int:
        return int(lib.tinyfl_nrf52_uart_read(None, register & 0xFFF, 4, ctypes.byref(state)))

    assert (read(RXDRDY), read(RXD), read(RXDRDY)) == (1, ord("a"), 1)
    lib.tinyfl_nrf52_uart_write(None, RXDRDY & 0xFFF, 4, 0, ctypes.byref(state))
    assert (read(RXDRDY), state.taken) == (0, 1)
    assert (read(RXD), read(RXDRDY), read(RXD)) == (ord("b"), 0, 0)


@pytest.mark.parametrize(("register", "value"), [(STOPTX, 1), (SUSPEND, 1), (PSELTXD, ERASED), (ENABLE, 0), (ENABLE, 8)])
def test_a_uart_that_does_not_run_sends_nothing_and_raises_no_event(monitor: Probe, register: int, value: int) -> None:
    with pytest.raises(BoardFault, match="did not sleep"):  # the monitor waits for its byte to be sent
        monitor.write(register, value)


def test_a_receiver_that_is_off_takes_nothing(monitor: Probe) -> None:
    monitor.write(STOPRX, 1)
    with pytest.raises(BoardFault, match="leaves 5 bytes of its input"):
        monitor.read(READY)


# Clock and number


def test_the_crystal_starts_when_told_to(monitor: Probe) -> None:
    assert (monitor.read(HFCLKSTARTED), monitor.read(HFCLKSTAT)) == (0, 0)
    monitor.write(HFCLKSTART, 1)
    assert (monitor.read(HFCLKSTARTED), monitor.read(HFCLKSTAT)) == (1, 0x10001)
    monitor.machine.reset()
    assert monitor.read(HFCLKSTARTED) == 0


def test_the_chip_has_a_number_of_its_own(monitor: Probe) -> None:
    assert (monitor.read(0x10000060), monitor.read(0x10000064)) == (0x55667788, 0x11223344)
    monitor.write(0x10000060, 0)
    assert monitor.read(0x10000060) == 0x55667788


# Flash


def test_flash_takes_no_write_that_is_not_enabled_or_not_a_word(monitor: Probe) -> None:
    for mode, size in ((REN, 4), (EEN, 4), (WEN, 1), (WEN, 2)):
        open_flash(monitor, mode)
        monitor.write(SLOT, 0, size)
        assert monitor.read(SLOT) == ERASED
    assert monitor.machine.slot_events == 0


def test_programming_clears_bits_and_sets_none(monitor: Probe) -> None:
    open_flash(monitor, WEN)
    monitor.write(SLOT, 0xF0F0F0F0)
    assert monitor.read(READY) == 0
    ready(monitor)
    monitor.write(SLOT, 0x0FF00FF0)
    assert (monitor.read(SLOT), monitor.read(SLOT + 4)) == (0x00F000F0, ERASED)
    assert monitor.machine.slot_events == 2


def test_what_is_busy_does_not_change_its_mode(monitor: Probe) -> None:
    open_flash(monitor, WEN)
    monitor.write(SLOT, 0)
    monitor.write(CONFIG, EEN)
    assert monitor.read(CONFIG) == WEN
    open_flash(monitor, EEN)
    assert monitor.read(CONFIG) == EEN


def test_an_erase_takes_its_whole_page_and_no_other(monitor: Probe) -> None:
    open_flash(monitor, WEN)
    for address in (SLOT + PAGE - 4, SLOT + PAGE, SLOT + 2 * PAGE - 4, SLOT + 2 * PAGE):
        monitor.write(address, 0)
    monitor.write(ERASEPAGE, SLOT + PAGE)  # not while writing
    open_flash(monitor, EEN)
    monitor.write(ERASEPAGE, SLOT + PAGE + 4)  # no page
    monitor.write(ERASEPAGE, 0x80000)  # nor this
    assert monitor.machine.slot_events == 4
    monitor.write(ERASEPAGE, SLOT + PAGE)
    assert monitor.read(READY) == 0
    ready(monitor)
    assert monitor.machine.read_memory(SLOT + PAGE, PAGE) == b"\xff" * PAGE
    assert (monitor.read(SLOT + PAGE - 4), monitor.read(SLOT + 2 * PAGE)) == (0, 0)


def test_reset_closes_flash(monitor: Probe) -> None:
    open_flash(monitor, WEN)
    monitor.machine.reset()
    assert monitor.read(CONFIG) == REN


def test_a_cut_in_an_erase_leaves_neither_the_old_nor_an_erased_page(monitor: Probe) -> None:
    old = random.Random(1).randbytes(512)
    open_flash(monitor, WEN)
    for at in range(0, len(old), 4):
        monitor.write(SLOT + PAGE - len(old) + at, int.from_bytes(old[at : at + 4], "little"))
    open_flash(monitor, EEN)
    monitor.machine.cut_power_after(0)
    assert monitor.machine.exchange(struct.pack("<cIBI", b"w", ERASEPAGE, 4, SLOT)) == b""
    monitor.machine.power_cycle()
    page = monitor.machine.read_memory(SLOT, PAGE)
    assert page[: PAGE // 2] == b"\xff" * (PAGE // 2)
    assert page[-len(old) :] not in (old, b"\xff" * len(old))


def test_a_cut_in_a_word_programs_half_of_it(monitor: Probe) -> None:
    open_flash(monitor, WEN)
    monitor.machine.cut_power_after(1)
    monitor.write(SLOT, 0)
    assert monitor.machine.exchange(struct.pack("<cIBI", b"w", SLOT + 4, 4, 0)) == b""
    monitor.machine.power_cycle()
    assert monitor.machine.read_memory(SLOT, 12) == bytes(6) + b"\xff" * 6


# Our port


def test_a_board_that_sleeps_can_be_woken_by_a_byte(firmware: Callable[[str], Path]) -> None:
    """unicorn goes on after any wfi; a chip only with the interrupt of the UART, in both places, and the crystal runs."""
    need("unicorn")
    from tinyfl.simulators.unicorn import Machine
    from unicorn.arm_const import UC_ARM_REG_PRIMASK

    machine = Machine(firmware("microbit-v2"), boards.load("microbit-v2"), 1)
    now = machine._state.now
    assert now.uart[(INTENSET & 0xFFF) // 4] == 1 << 2
    assert now.system[(ISER & 0xFFF) // 4] == 1 << 2
    assert now.clock[(HFCLKSTARTED & 0xFFF) // 4] == 1
    assert machine._core.reg_read(UC_ARM_REG_PRIMASK) == 1


def test_without_an_identity_record_a_board_has_the_chips_number(firmware: Callable[[str], Path]) -> None:
    need("unicorn")
    from stock import Describe, ask
    from tinyfl.simulators.bridge import Bridge
    from tinyfl.simulators.unicorn import Machine

    board = boards.load("microbit-v2")
    assert board.memory is not None
    machine = Machine(firmware("microbit-v2"), board, 0x1122334455667788)
    kept, at = machine.snapshot(), board.memory.identity
    machine.restore(replace(kept, flash=kept.flash[:at] + b"\xff" * 16 + kept.flash[at + 16 :]))
    machine.reset()

    def faulted(fault: BoardFault) -> None:
        raise fault

    with Bridge(machine.exchange, "pty", faulted) as bridge:
        assert ask(bridge.url, Describe())[0].id == bytes.fromhex("8877665544332211")
