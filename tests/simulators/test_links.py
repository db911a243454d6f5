"""What an emulated board is wired to: a firmware whose UART has another baud or other pins than the link's is not heard."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from probe import need
from rated import FIRST, Line, uart

from tinyfl.building import boards
from tinyfl.building.build import build
from tinyfl.link.board import LinkedBoard
from tinyfl.link.wire import MachineWire
from tinyfl.simulators import BoardFault

ELSEWHERE = {
    "stm32f405": ("PD5", "PD6"),
    "nucleo-f401re": ("PD5", "PD6"),
    "nucleo-f446re": ("PD5", "PD6"),
    "stm32f746-discovery": ("PB6", "PA10"),
    "microbit-v2": ("P0.08", "P1.06"),
    "nano-33-ble": ("P1.10", "P1.03"),
    "pico": ("GP16", "GP17"),
}
"""Other pins on which the chip's UART could be."""

WIRED = [*ELSEWHERE, "cy8ckit-062s2"]


def changed(board: str, **link: Any) -> boards.Board:
    known = boards.load(board)
    return known.model_copy(update={"links": (known.links[0].model_copy(update=link),)})


def machine(elf: Path, board: boards.Board) -> Any:
    need("unicorn")
    from tinyfl.simulators.unicorn import Machine

    return Machine(elf, board, 1)


def clock(machine: Any) -> int:
    import asyncio

    async def ask() -> int:
        return (await LinkedBoard.connect(MachineWire(machine).open)).description.clock

    return asyncio.run(ask())


@pytest.mark.parametrize("percent", [-3, 3, 100])
@pytest.mark.parametrize("board", [*WIRED, "mps2-an386"])
def test_a_firmware_of_another_baud_is_deaf(firmware: Callable[[str], Path], board: str, percent: int) -> None:
    baud = boards.load(board).links[0].baud
    with pytest.raises(BoardFault, match="leaves 5 bytes of its input"):
        machine(firmware(board), changed(board, baud=baud * (100 + percent) // 100)).exchange(b"hello")


@pytest.mark.parametrize("board", ELSEWHERE)
def test_a_firmware_on_other_pins_is_deaf(firmware: Callable[[str], Path], board: str) -> None:
    with pytest.raises(BoardFault, match="leaves 5 bytes of its input"):
        machine(firmware(board), changed(board, pins=ELSEWHERE[board])).exchange(b"hello")


@pytest.mark.parametrize("board", [*sorted(ELSEWHERE.keys() - {"nucleo-f446re", "nano-33-ble"}), "cy8ckit-062s2"])
def test_a_manifest_of_another_baud_and_other_pins_makes_a_board_that_is_heard(board: str, tmp_path: Path) -> None:
    need("ziglang")
    need("elftools")
    link = {"baud": 460_800} | ({"pins": ELSEWHERE[board]} if board in ELSEWHERE else {})
    other = changed(board, **link)
    assert clock(machine(build(other, tmp_path).elf, other)) == other.clock


@pytest.mark.parametrize("board", [*sorted(ELSEWHERE.keys() - {"nucleo-f446re", "nano-33-ble"}), "cy8ckit-062s2", "mps2-an386"])
def test_a_host_may_raise_the_rate(firmware: Callable[[str], Path], board: str) -> None:
    import asyncio

    line = Line(machine(firmware(board), boards.load(board)))

    async def ask() -> None:
        linked = await LinkedBoard.connect(line.open)
        assert line.baud == uart(line.machine) == boards.load(board).links[0].rates[-1]
        await linked.close()

    asyncio.run(ask())
    assert line.baud == uart(line.machine) == FIRST


FALLBACKS = {
    "stm32f405": ("stm32/stm32.c", "n << 6 | m", "n << 6 | m / 2", 16_000_000),
    "stm32f746-discovery": ("stm32/stm32.c", "n << 6 | m", "n << 6 | m / 2", 16_000_000),
    "pico": ("rp2040/rp2040.c", "PLL(FBDIV_INT) = ", "PLL(FBDIV_INT) = 8 * ", 12_000_000),
    "pico without its crystal": ("rp2040/rp2040.c", " | XOSC_CTRL_ENABLE__ENABLE", "", 6_500_000),
}


@pytest.mark.parametrize("case", FALLBACKS)
def test_a_board_whose_clock_does_not_come_up_is_heard(mutant: Callable[..., Path], case: str) -> None:
    """Its UART's divisor is that of the clock that runs."""
    board, (file, line, wrong, hertz) = case.split()[0], FALLBACKS[case]
    elf = mutant(board, file, line=(line, wrong))
    assert clock(machine(elf, boards.load(board))) == hertz


MISTAKES = {
    "stm32f405": ("stm32/stm32.c", "clock / BUS_DIVIDER", "clock"),
    "nucleo-f401re": ("stm32/stm32.c", "ALTERNATE_FUNCTION << place;", "8u << place;"),
    "stm32f746-discovery": ("stm32/stm32.c", "    pin_start(TINYFL_RX_PORT, TINYFL_RX_PIN);\n", ""),
    "microbit-v2": ("nrf52/nrf52.c", "P0_PIN_CNF0_PULL__PULLUP;", "2;"),
    "pico": ("rp2040/rp2040.c", "UART(UARTFBRD) = divisor % 64;", "UART(UARTFBRD) = 0;\n    UART(UARTIBRD) = divisor / 16;"),
    "cy8ckit-062s2": ("psoc6/psoc6.c", ": port.clock / 2;", ": port.clock;"),
}


@pytest.mark.parametrize("board", MISTAKES)
def test_a_port_that_is_mistaken_about_its_line_is_deaf(mutant: Callable[..., Path], board: str) -> None:
    file, line, wrong = MISTAKES[board]
    with pytest.raises(BoardFault, match="leaves 5 bytes of its input"):
        machine(mutant(board, file, line=(line, wrong)), boards.load(board)).exchange(b"hello")
