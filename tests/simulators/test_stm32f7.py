"""The emulated STM32F746, tried with loads and stores of a program that is not this project's firmware; and the port of STM32
on it and on the other chips of its families."""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bus import Bus
from probe import Probe, need
from rounds import demand_the_native_theta

from tinyfl.building import boards
from tinyfl.simulators import BoardFault

Start = Callable[..., Probe]

NAME = "stm32f746-discovery"
FAMILIES = ["stm32f405", "nucleo-f401re", "nucleo-f446re", NAME]

USART1 = 0x40011000
CR1, BRR, ISR = 0x00, 0x0C, 0x1C
RCC_CR, PLLCFGR, CFGR, APB2ENR = 0x40023800, 0x40023804, 0x40023808, 0x40023844
PLLON, PLLRDY, SW_PLL, SWS_PLL = 1 << 24, 1 << 25, 2, 2 << 2
PPRE2_2, PPRE2_8 = 4 << 13, 6 << 13
AHB1ENR, GPIOA, GPIOB, MODER, AFRH = 0x40023830, 0x40020000, 0x40020400, 0x00, 0x24
ACR, KEYR, SR, CR = 0x40023C00, 0x40023C04, 0x40023C0C, 0x40023C10
KEY1, KEY2, BSY, LOCK = 0x45670123, 0xCDEF89AB, 1 << 16, 1 << 31
PG, SER, STRT, PSIZE_32 = 1 << 0, 1 << 1, 1 << 16, 2 << 8
ERSERR, PGPERR = 1 << 7, 1 << 6
IWDG_KR, IWDG_PR, IWDG_RLR = 0x40003000, 0x40003004, 0x40003008
UNIQUE_ID = 0x1FF0F420
SECTOR_5, SECTOR_6, KIB_256 = 0x08040000, 0x08080000, 0x40000
ERASED = 0xFFFFFFFF


@pytest.fixture
def monitor(probe: Start) -> Probe:
    return probe(NAME, serial=0x1122334455667788, budget=1_000_000)


def open_flash(monitor: Probe, control: int) -> None:
    monitor.write(KEYR, KEY1)
    monitor.write(KEYR, KEY2)
    monitor.write(CR, control)


def ready(monitor: Probe) -> None:
    while monitor.read(SR) & BSY:
        pass


# USART


def test_its_divisor_can_be_set_only_while_it_is_off(monitor: Probe) -> None:
    monitor.write(USART1 + BRR, 140)
    assert monitor.read(USART1 + BRR) == 139  # as the program has set it
    bus = Bus("stm32f7", monitor.machine._state)
    for register, value in ((CR1, 0), (BRR, 140), (CR1, 1 << 3 | 1 << 2 | 1)):
        bus.write(USART1 + register, value)
    assert monitor.read(USART1 + BRR) == 140


@pytest.mark.parametrize(
    ("register", "value"),
    [
        (USART1 + CR1, 1 << 2 | 1),
        (USART1 + CR1, 1 << 3 | 1 << 2),
        (APB2ENR, 0),
        (CFGR, PPRE2_2),
        (AHB1ENR, 1 << 1),
        (GPIOA + MODER, 1 << 18),
        (GPIOA + AFRH, 8 << 4),
    ],
    ids=["transmitter off", "off", "its clock off", "half the baud", "pin's clock off", "an output", "another's pin"],
)
def test_a_usart_that_is_not_set_up_says_nothing(monitor: Probe, register: int, value: int) -> None:
    assert monitor.machine.exchange(struct.pack("<cIBI", b"w", register, 4, value)) == b""


def test_a_usart_whose_receiver_has_no_pin_takes_nothing(monitor: Probe) -> None:
    monitor.write(GPIOB + MODER, 0)  # and the transmitter answers
    with pytest.raises(BoardFault, match="leaves 5 bytes of its input"):
        monitor.read(SR)


@pytest.mark.parametrize(("register", "value"), [(BRR, 15), (BRR, 142), (CR1, 1 << 3 | 1), (ISR, 1 << 3)])
def test_a_usart_without_its_divisor_or_its_receiver_or_after_an_overrun_takes_nothing(
    monitor: Probe, register: int, value: int
) -> None:
    monitor.machine._state.now.uart[register // 4] = value
    with pytest.raises(BoardFault, match="leaves 5 bytes of its input"):
        monitor.read(SR)


# Clock, watchdog and number


def pll(n: int, p: int, m: int = 8) -> int:
    return 0x27000000 | (p // 2 - 1) << 16 | n << 6 | m


def test_the_clock_comes_from_the_pll_once_that_is_ready(monitor: Probe) -> None:
    monitor.write(CFGR, SW_PLL)
    assert monitor.read(CFGR) & SWS_PLL == 0
    monitor.write(CFGR, 0)
    monitor.write(PLLCFGR, pll(128, 2))
    assert monitor.read(RCC_CR) & PLLRDY == 0
    monitor.write(RCC_CR, monitor.read(RCC_CR) | PLLON)
    assert monitor.read(RCC_CR) & PLLRDY
    monitor.write(ACR, 4)
    monitor.write(CFGR, SW_PLL | PPRE2_8)  # 128 MHz, and the bus as before
    assert monitor.read(CFGR) & SWS_PLL
    monitor.write(RCC_CR, monitor.read(RCC_CR) & ~PLLON)  # not while the core runs from it
    assert monitor.read(RCC_CR) & PLLON


@pytest.mark.parametrize("config", [pll(216, 2), pll(90, 2), pll(180, 2, 4)], ids=["too fast", "too slow a PLL", "divider"])
def test_a_pll_out_of_its_bounds_does_not_lock(monitor: Probe, config: int) -> None:
    monitor.write(PLLCFGR, config)
    monitor.write(RCC_CR, monitor.read(RCC_CR) | PLLON)
    assert monitor.read(RCC_CR) & PLLRDY == 0


def test_too_few_wait_states_are_a_crash(monitor: Probe) -> None:
    monitor.write(PLLCFGR, pll(180, 2))
    monitor.write(RCC_CR, monitor.read(RCC_CR) | PLLON)
    monitor.write(ACR, 4)
    with pytest.raises(BoardFault):
        monitor.write(CFGR, SW_PLL)


def test_a_watchdog_that_nobody_feeds_resets_the_chip(monitor: Probe) -> None:
    monitor.write(IWDG_RLR, 7)
    assert monitor.read(IWDG_RLR) == 0xFFF  # it is locked
    for register, value in ((IWDG_KR, 0x5555), (IWDG_RLR, 7), (IWDG_PR, 0), (IWDG_KR, 0xCCCC)):
        monitor.write(register, value)
    for _ in range(3):  # 8 x 4 turns of 47 kHz, its fastest, are 122,553 cycles of 180 MHz
        monitor.ask(struct.pack("<cI", b"l", 50_000))
        monitor.write(IWDG_KR, 0xAAAA)
    assert monitor.read(IWDG_RLR) == 7
    assert monitor.machine.exchange(struct.pack("<cI", b"l", 75_000)) == b""
    assert monitor.read(IWDG_RLR) == 0xFFF


def test_the_chip_has_a_number_of_its_own(monitor: Probe) -> None:
    assert [monitor.read(UNIQUE_ID + at) for at in (0, 4, 8)] == [0x55667788, 0x11223344, 0]
    monitor.write(UNIQUE_ID, 0)
    assert monitor.read(UNIQUE_ID) == 0x55667788


# Flash


def test_flash_takes_no_write_that_is_not_enabled_or_not_a_word(monitor: Probe) -> None:
    monitor.write(SECTOR_5, 0)
    assert (monitor.read(SECTOR_5), monitor.read(SR)) == (ERASED, ERSERR | PGPERR)
    monitor.write(SR, ERSERR | PGPERR)
    open_flash(monitor, PSIZE_32)
    monitor.write(SECTOR_5, 0)
    assert (monitor.read(SECTOR_5), monitor.read(SR)) == (ERASED, ERSERR)
    monitor.write(SR, ERSERR)
    monitor.write(CR, PSIZE_32 | PG)
    monitor.write(SECTOR_5, 0, 2)
    assert (monitor.read(SECTOR_5), monitor.read(SR)) == (ERASED, PGPERR)
    monitor.write(SR, PGPERR)
    monitor.write(SECTOR_5, 0xF0F0F0F0)
    assert monitor.read(SR) == BSY
    ready(monitor)
    monitor.write(SECTOR_5, 0x0FF00FF0)
    assert (monitor.read(SECTOR_5), monitor.read(SECTOR_5 + 4)) == (0x00F000F0, ERASED)


def test_an_erase_takes_its_whole_sector_and_no_other(monitor: Probe) -> None:
    """4 sectors of 32 KiB, one of 128 and 3 of 256, of which the last three hold the slots."""
    open_flash(monitor, PSIZE_32 | PG)
    for address in (SECTOR_5, SECTOR_6 - 4, SECTOR_6, SECTOR_6 + KIB_256 - 4, SECTOR_6 + KIB_256):
        ready(monitor)
        monitor.write(address, 0)
    ready(monitor)
    monitor.write(CR, PSIZE_32 | SER | 8 << 3 | STRT)  # there is no sector 8
    assert monitor.read(SECTOR_6) == 0
    monitor.write(CR, PSIZE_32 | SER | 6 << 3 | STRT)
    assert monitor.read(SR) & BSY
    ready(monitor)
    assert monitor.machine.read_memory(SECTOR_6, KIB_256) == b"\xff" * KIB_256
    assert (monitor.read(SECTOR_5), monitor.read(SECTOR_6 - 4), monitor.read(SECTOR_6 + KIB_256)) == (0, 0, 0)
    monitor.machine.reset()
    assert monitor.read(CR) == LOCK


# The port


def start(firmware: Callable[[str], Path], board: str, serial: int = 1) -> Any:
    need("unicorn")
    from tinyfl.simulators.unicorn import Machine

    return Machine(firmware(board), boards.load(board), serial)


def word(registers: Any, address: int) -> int:
    return int(registers[(address & 0x3FF) // 4])


CLOCKS = {"stm32f405": (168, 5), "nucleo-f401re": (84, 2), "nucleo-f446re": (168, 5), NAME: (180, 5)}
"""MHz, and flash's wait states at that (RM0090 table 10, RM0368 table 6, RM0390 table 5, RM0385 table 5)."""


@pytest.mark.parametrize("board", FAMILIES)
def test_the_port_sets_up_what_the_manifest_says(firmware: Callable[[str], Path], board: str) -> None:
    machine = start(firmware, board)
    now, (megahertz, wait_states), link = machine._state.now, CLOCKS[board], boards.load(board).links[0]
    assert word(now.clock, CFGR) & 0xFF == SW_PLL | SWS_PLL
    assert word(now.clock, CFGR) & 0xFC00 == 5 << 10 | 5 << 13  # both buses at a quarter
    assert word(now.clock, PLLCFGR) & 0xF0000000 == 0x20000000  # as after reset: no field of all chips
    assert word(now.flash, ACR) & 0xF == wait_states
    divisor = int(now.uart[(BRR if board == NAME else 0x08) // 4])
    assert abs(megahertz * 1e6 / 4 / divisor - link.baud) < 0.005 * link.baud
    assert now.watchdog > now.instructions + 5 * megahertz * 1_000_000
    assert now.system[0x100 // 4 + link.interrupt // 32] == 1 << link.interrupt % 32
    if board == NAME:
        assert now.system[0xD14 // 4] & (1 << 17 | 1 << 16) == 1 << 17  # the cache of instructions, not that of data


@pytest.mark.parametrize("board", FAMILIES)
def test_a_board_learns_to_the_same_bits_as_the_host(firmware: Callable[[str], Path], board: str) -> None:
    from tinyfl.link.wire import MachineWire

    machine = start(firmware, board)
    demand_the_native_theta(MachineWire(machine).open)
    demand_the_native_theta(MachineWire(machine).open, "mlp-9-8-tanh")


@pytest.mark.parametrize("board", ["stm32f405", NAME])
def test_a_board_starts_behind_a_bootloader_that_left_its_pll_on(firmware: Callable[[str], Path], board: str) -> None:
    """And at a clock that is not ours."""
    from tinyfl.link.wire import MachineWire

    machine = start(firmware, board)
    ours = bytes(machine._state.now.clock)
    machine._start()
    machine._state.now.clock[(PLLCFGR & 0x3FF) // 4] = pll(100, 2)
    demand_the_native_theta(MachineWire(machine).open)
    assert bytes(machine._state.now.clock) == ours


def test_an_overrun_does_not_make_a_board_deaf(firmware: Callable[[str], Path]) -> None:
    from tinyfl.link.wire import MachineWire

    machine = start(firmware, NAME)
    machine._state.now.uart[ISR // 4] = 1 << 3
    demand_the_native_theta(MachineWire(machine).open)


@pytest.mark.parametrize("board", FAMILIES)
def test_without_an_identity_record_a_board_has_the_chips_number(firmware: Callable[[str], Path], board: str) -> None:
    """As every real board is."""
    from stock import Describe, ask

    from tinyfl.simulators.bridge import Bridge

    memory = boards.load(board).memory
    assert memory is not None
    machine = start(firmware, board, 0x1122334455667788)
    kept, at = machine.snapshot(), memory.identity - memory.flash.origin
    machine.restore(replace(kept, flash=kept.flash[:at] + b"\xff" * 16 + kept.flash[at + 16 :]))
    machine.reset()

    def faulted(fault: BoardFault) -> None:
        raise fault

    with Bridge(machine, "pty", faulted) as bridge:
        described = ask(bridge.url, Describe())[0]
    assert described.id == bytes.fromhex("887766554433221100000000")
    assert (described.board, described.clock) == (board, boards.load(board).clock)
