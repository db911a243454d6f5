"""The emulated nRF52833 and nRF52840, tried with loads and stores of a program that is not this project's firmware; and our
port on them."""

import ctypes
import random
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bus import Bus
from probe import Probe, need

from tinyfl.building import boards
from tinyfl.simulators import BoardFault

Start = Callable[..., Probe]

RXDRDY, INTENSET, INTENCLR, ENABLE, PSELTXD, RXD = (0x40002000 + at for at in (0x108, 0x304, 0x308, 0x500, 0x50C, 0x518))
STOPTX, STOPRX, SUSPEND, STARTTX, TXD = 0x4000200C, 0x40002004, 0x4000201C, 0x40002008, 0x4000251C
ISER, ISPR, ICPR = 0xE000E100, 0xE000E200, 0xE000E280
READY, CONFIG, ERASEPAGE = 0x4001E400, 0x4001E504, 0x4001E508
HFCLKSTART, HFCLKSTARTED, HFCLKSTAT = 0x40000000, 0x40000100, 0x4000040C
STARTRX, PSELRXD, EVENTS_ERROR, ERRORSRC, UART_CONFIG = 0x40002000, 0x40002514, 0x40002124, 0x40002480, 0x4000256C
WDT_START, RUNSTATUS, REQSTATUS, CRV, RREN, RR0 = (0x40010000 + at for at in (0, 0x400, 0x404, 0x504, 0x508, 0x600))
RELOAD = 0x6E524635
OUT, OUTSET, OUTCLR, DIR, DIRSET, DIRCLR = (0x50000000 + at for at in (0x504, 0x508, 0x50C, 0x514, 0x518, 0x51C))
BAUDRATE, PIN_CNF, P1 = 0x40002524, 0x50000700, 0x300
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


@pytest.fixture
def uart(monitor: Probe) -> "Uart":
    return Uart(monitor.machine._state)


class Uart:
    """The UART's registers without a core between, and bytes that arrive whether someone looks or not."""

    def __init__(self, state: Any) -> None:
        from tinyfl.simulators.unicorn import peripherals

        self.state, self.lib = state, peripherals.library()
        self.lib.tinyfl_nrf52_uart_arrive.argtypes = [ctypes.c_void_p, ctypes.c_uint8]
        self.bus = Bus("nrf52", state)

    def arrive(self, data: bytes) -> None:
        for byte in data:
            self.lib.tinyfl_nrf52_uart_arrive(ctypes.byref(self.state), byte)

    def read(self, register: int) -> int:
        return self.bus.read(register)

    def write(self, register: int, value: int) -> None:
        self.bus.write(register, value)

    def take(self) -> bytes:
        """As a driver does it: the event first, then its byte."""
        taken = b""
        while self.read(RXDRDY):
            self.write(RXDRDY, 0)
            taken += bytes([self.read(RXD)])
        return taken


def test_an_event_that_is_cleared_late_loses_the_next_byte(uart: Any) -> None:
    """As on the chip: to read RXD brings the next byte up, so its event must not be cleared after that."""
    uart.arrive(b"ab")
    assert (uart.read(RXDRDY), uart.read(RXD), uart.read(RXDRDY)) == (1, ord("a"), 1)
    uart.write(RXDRDY, 0)
    assert uart.read(RXDRDY) == 0
    assert (uart.read(RXD), uart.read(RXDRDY), uart.read(RXD)) == (ord("b"), 0, 0)


def test_six_bytes_wait_and_a_seventh_costs_the_oldest(uart: Any) -> None:
    uart.arrive(b"abcdef")
    assert (uart.read(EVENTS_ERROR), uart.read(ERRORSRC)) == (0, 0)
    assert uart.take() == b"abcdef"
    uart.arrive(b"abcdefg")
    assert (uart.read(EVENTS_ERROR), uart.read(ERRORSRC)) == (1, 1)
    uart.write(ERRORSRC, 1)
    assert (uart.take(), uart.read(ERRORSRC)) == (b"bcdefg", 0)


def test_what_is_switched_off_forgets_what_it_had(uart: Any) -> None:
    uart.arrive(b"abc")
    uart.write(STOPRX, 1)
    uart.arrive(b"d")
    uart.write(STARTRX, 1)
    uart.arrive(b"e")
    assert uart.take() == b"abce"
    uart.arrive(b"abc")
    uart.write(RXDRDY, 0)
    uart.write(ENABLE, 0)
    uart.write(ENABLE, 4)
    uart.arrive(b"d")  # the receiver must be started anew
    assert (uart.take(), uart.read(RXD)) == (b"", 0)


def test_pins_are_not_to_be_changed_while_it_is_on(uart: Any) -> None:
    before = uart.read(PSELTXD)
    uart.write(PSELTXD, ERASED)
    assert uart.read(PSELTXD) == before
    uart.write(ENABLE, 0)
    uart.write(PSELTXD, ERASED)
    assert uart.read(PSELTXD) == ERASED


@pytest.mark.parametrize(
    ("register", "value"),
    [
        (STOPTX, 1),
        (SUSPEND, 1),
        (ENABLE, 0),
        (ENABLE, 8),
        (BAUDRATE, 0x00EBF000),  # half of it
        (BAUDRATE, 0x01D7E000 // 1000 * 1021),
        (OUTCLR, 1 << 6),
        (DIRCLR, 1 << 6),
        (PIN_CNF + 4 * 6, 0),
    ],
)
def test_a_uart_that_does_not_run_sends_nothing_and_raises_no_event(monitor: Probe, register: int, value: int) -> None:
    with pytest.raises(BoardFault, match="did not sleep"):  # the monitor waits for its byte to be sent
        monitor.write(register, value)


def test_a_receiver_that_is_off_takes_nothing(monitor: Probe) -> None:
    monitor.write(STOPRX, 1)
    with pytest.raises(BoardFault, match="leaves 5 bytes of its input"):
        monitor.read(READY)


@pytest.mark.parametrize("config", [1, 2, 3], ids=["an output", "not connected", "neither"])
def test_a_receiver_whose_pin_is_no_input_takes_nothing(monitor: Probe, config: int) -> None:
    monitor.write(PIN_CNF + P1 + 4 * 8, config)
    with pytest.raises(BoardFault, match="leaves 5 bytes of its input"):
        monitor.read(READY)


@pytest.mark.parametrize(("register", "pin"), [(PSELTXD, 7), (PSELTXD, 6), (PSELRXD, 8), (PSELRXD, 40)])
def test_only_the_links_pins_are_wired(uart: Any, register: int, pin: int) -> None:
    for at, value in ((ENABLE, 0), (register, pin), (ENABLE, 4), (STARTRX, 1), (STARTTX, 1)):
        uart.write(at, value)
    uart.arrive(b"a")
    uart.write(TXD, ord("b"))
    assert (uart.take(), uart.state.sent) == (b"" if pin == 8 else b"a", pin != 7)


def test_a_line_that_was_not_high_before_is_not_understood(uart: Any) -> None:
    for first, sent in ((OUTSET, 1), (OUTCLR, 0)):
        uart.state.sent = 0
        for at, value in ((ENABLE, 0), (first, 1 << 6), (ENABLE, 4), (OUTSET, 1 << 6), (STARTTX, 1), (TXD, 1)):
            uart.write(at, value)
        assert uart.state.sent == sent


def test_pins_have_a_register_each_and_share_those_of_their_port(monitor: Probe) -> None:
    for port, pin in ((0, 3), (P1, 5)):
        config, bit = PIN_CNF + port + 4 * pin, 1 << pin
        others = monitor.read(DIR + port), monitor.read(OUT + port)
        assert monitor.read(config) == 2  # not connected
        monitor.write(DIRSET + port, bit)
        assert (monitor.read(config), monitor.read(DIR + port)) == (3, others[0] | bit)
        monitor.write(config, 0xC)
        assert (monitor.read(config), monitor.read(DIRSET + port)) == (0xC, others[0])
        monitor.write(DIR + port, others[0] | bit)
        monitor.write(DIRCLR + port, bit)
        assert monitor.read(config) == 0xC
        monitor.write(OUTSET + port, bit)
        assert monitor.read(OUT + port) == others[1] | bit
        monitor.write(OUTCLR + port, bit)
        assert monitor.read(OUTCLR + port) == others[1]


# Watchdog, clock and number


def test_a_watchdog_that_nobody_feeds_resets_the_chip(monitor: Probe) -> None:
    monitor.write(CRV, 327)  # 328 / 32,768 of a second: 640,625 cycles
    assert monitor.read(RUNSTATUS) == 0
    monitor.write(WDT_START, 1)
    assert monitor.read(RUNSTATUS) == 1
    for _ in range(4):
        monitor.ask(struct.pack("<cI", b"l", 150_000))
        monitor.write(RR0, RELOAD)
    assert monitor.read(RUNSTATUS) == 1
    monitor.write(RR0, RELOAD - 1)
    assert monitor.machine.exchange(struct.pack("<cI", b"l", 450_000)) == b""
    assert (monitor.read(RUNSTATUS), monitor.read(CRV)) == (0, ERASED)  # it has started again


def test_a_watchdog_wants_all_its_reload_registers_and_no_new_settings(monitor: Probe) -> None:
    monitor.write(CRV, 327)
    monitor.write(RREN, 0b101)
    monitor.write(WDT_START, 1)
    monitor.write(CRV, ERASED)
    monitor.write(RREN, 1)
    assert (monitor.read(CRV), monitor.read(RREN), monitor.read(REQSTATUS)) == (327, 0b101, 0b101)
    monitor.write(RR0, RELOAD)
    assert monitor.read(REQSTATUS) == 0b100
    monitor.write(RR0 + 8, RELOAD)
    assert monitor.read(REQSTATUS) == 0b101
    monitor.write(RR0, RELOAD)
    assert monitor.machine.exchange(struct.pack("<cI", b"l", 450_000)) == b""


def test_the_crystal_starts_when_told_to(monitor: Probe) -> None:
    assert (monitor.read(HFCLKSTARTED), monitor.read(HFCLKSTAT)) == (0, 0x10000)
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


BOARDS = {"microbit-v2": (6, 1 << 5 | 8), "nano-33-ble": (1 << 5 | 3, 1 << 5 | 10)}
"""PSEL.TXD and PSEL.RXD of the pins that the manifests name: port times 32 and pin."""


def start(firmware: Callable[[str], Path], board: str, serial: int = 1) -> Any:
    need("unicorn")
    from tinyfl.simulators.unicorn import Machine

    return Machine(firmware(board), boards.load(board), serial)


@pytest.mark.parametrize("board", BOARDS)
def test_a_board_that_sleeps_can_be_woken_by_a_byte(firmware: Callable[[str], Path], board: str) -> None:
    """unicorn goes on after any wfi; a chip only with the interrupt of the UART, in both places, and the crystal runs."""
    from unicorn.arm_const import UC_ARM_REG_PRIMASK

    machine = start(firmware, board)
    now = machine._state.now
    assert now.uart[(INTENSET & 0xFFF) // 4] == 1 << 2
    assert list(now.system[(ISER & 0xFFF) // 4 :][:8]) == [1 << 2, *7 * [0]]
    assert now.clock[(HFCLKSTART & 0xFFF) // 4] == 1
    assert (now.uart[(PSELTXD & 0xFFF) // 4], now.uart[(PSELRXD & 0xFFF) // 4]) == BOARDS[board]
    assert now.watchdog > now.instructions + 7 * 64_000_000
    assert machine._core.reg_read(UC_ARM_REG_PRIMASK) == 1  # wakes inside the wait, which is masked


def learns_as_the_host_does(machine: Any) -> None:
    """A round of TinyReptile on `sine`, whose plan and weights are more than ring and FIFO hold: theta is the native one."""
    from tinyfl.algorithms import Inner
    from tinyfl.fleets.linked import LinkFleet
    from tinyfl.link.wire import MachineWire
    from tinyfl.networks import network
    from tinyfl.simulators.native import NativeFleet
    from tinyfl.tasks.sine import Sine

    task, cohort = Sine(3), np.zeros(1, np.uint32)
    net = network("mlp-32-32-relu", (1,), 1, task.loss, task.activation)
    with LinkFleet([MachineWire(machine).open], task, net) as board:
        fleets = (board, NativeFleet(task, net, 1))
        ours, theirs = (fleet.run_each(cohort, 0, net.initial_weights(3), Inner(samples=32, rate=0.01)) for fleet in fleets)
    assert ours.reasons == ("",)
    np.testing.assert_array_equal(ours.phi, theirs.phi)
    np.testing.assert_array_equal(ours.loss, theirs.loss)


@pytest.mark.parametrize("board", BOARDS)
def test_a_board_learns_to_the_same_bits_as_the_host(firmware: Callable[[str], Path], board: str) -> None:
    learns_as_the_host_does(start(firmware, board))


@pytest.mark.parametrize("mode", [4, 8])
def test_a_board_starts_behind_a_bootloader_that_left_things_on(firmware: Callable[[str], Path], mode: int) -> None:
    """UART0 or UARTE0 on, with interrupts and flow control, and a watchdog of its own with two reload registers, which must
    be fed and cannot be changed."""
    machine = start(firmware, "nano-33-ble")
    now = machine._state.now
    machine._start()
    for register, value in ((INTENSET, 0x20084), (ENABLE, mode), (PSELTXD, 9), (PSELRXD, 10), (UART_CONFIG, 1), (RXDRDY, 1)):
        now.uart[(register & 0xFFF) // 4] = value
    now.system[(ISER & 0xFFF) // 4 + 1] = 1 << 7  # USBD's interrupt
    watchdog = 16 - 0x400 // 4
    for register, value in ((RUNSTATUS, 1), (REQSTATUS, 0b11), (CRV, 2 * 32_768), (RREN, 0b11)):
        now.chip[watchdog + (register & 0xFFF) // 4] = value
    now.watchdog = now.instructions + 1_000_000
    learns_as_the_host_does(machine)
    assert now.chip[watchdog + (RREN & 0xFFF) // 4] == 0b11
    assert list(now.system[(ISER & 0xFFF) // 4 :][:2]) == [1 << 2, 0]
    assert (now.uart[(PSELTXD & 0xFFF) // 4], now.uart[(PSELRXD & 0xFFF) // 4]) == BOARDS["nano-33-ble"]
    assert (now.uart[(UART_CONFIG & 0xFFF) // 4], now.uart[(INTENSET & 0xFFF) // 4]) == (0, 1 << 2)


def test_the_bootloaders_flash_is_left_alone(firmware: Callable[[str], Path]) -> None:
    memory = boards.load("nano-33-ble").memory
    assert memory is not None
    machine = start(firmware, "nano-33-ble")
    assert machine.read_memory(0, memory.application) == b"\xff" * memory.application
    assert all(address >= memory.application for address, data in machine.image.segments if data)
    assert memory.inference.end <= 0xE0000


def test_without_an_identity_record_a_board_has_the_chips_number(firmware: Callable[[str], Path]) -> None:
    from stock import Describe, ask

    from tinyfl.simulators.bridge import Bridge

    memory = boards.load("microbit-v2").memory
    assert memory is not None
    machine = start(firmware, "microbit-v2", 0x1122334455667788)
    kept, at = machine.snapshot(), memory.identity
    machine.restore(replace(kept, flash=kept.flash[:at] + b"\xff" * 16 + kept.flash[at + 16 :]))
    machine.reset()

    def faulted(fault: BoardFault) -> None:
        raise fault

    with Bridge(machine, "pty", faulted) as bridge:
        assert ask(bridge.url, Describe())[0].id == bytes.fromhex("8877665544332211")
