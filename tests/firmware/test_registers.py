"""Every address and bit that a port and its chip's model use, held against the vendors' own descriptions.

A port's registers.h follows the names of the SVD file (see firmware/ports/stm32f4/registers.h). Where no SVD file is at hand,
the chip stands in UNCOVERED, with what it was held against instead.
"""

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from svd import Peripheral, peripherals

from tinyfl.building import boards

PORTS = boards.data("firmware") / "ports"
MODELS = Path(__file__).parents[2] / "simulators" / "unicorn"

COVERED = {
    "stm32f4": ("STM32F401xE.svd", "STM32F40x.svd", "STM32F446x.svd"),
    "stm32f7": ("STM32F446x.svd",),
    "nrf52": ("nrf52833.svd", "nrf52840.svd"),
}
"""The SVD files of a port's chips. What is alike in all of them is what registers.h may say."""

UNCOVERED = {
    "rp2040": "no package at hand carries an SVD file of the RP2040",
    "psoc6": "no package at hand carries an SVD file of the CY8C62",
    "mps2": "an FPGA image, of which there is no SVD file; QEMU has its own model of it",
}

NOT_IN_SVD = {
    ("nrf52", "CHIP_PART"): "Nordic's MDK, nrf52_erratas.h",
    ("nrf52", "CHIP_PART__NRF52840"): "the same",
    ("nrf52", "CHIP_PART__NRF52833"): "the same",
    ("nrf52", "CHIP_STEP"): "the same",
    ("nrf52", "APPROTECT_DISABLE"): "Nordic's MDK, system_nrf52_approtect.h",
    ("stm32f4", "UNIQUE_ID"): "RM0090 39.1, RM0368 24.1, RM0390 34.1: in no SVD file",
    ("stm32f7", "UNIQUE_ID"): "RM0385 41.1: in no SVD file",
    ("stm32f7", "FLASH_ACR_LATENCY"): "RM0385 3.7.1: of 4 bits, where the F4 has 3",
    **{("stm32f7", name): "ARMv7-M B3.2, Cortex-M7" for name in ("SCB_BASE", "SCB_CCR", "SCB_CCR_IC", "SCB_ICIALLU")},
}
"""Single lines that no SVD file has."""

FAMILIES = {"USART": r"USART\d", "GPIO": r"GPIO[A-K]", "UART": r"UART\d", "P": r"P\d"}
"""Peripherals of which the manifest picks one: their registers have no number in registers.h."""


def defines(port: str) -> dict[str, int]:
    """The numbers of registers.h, as the compiler sees them."""
    header = PORTS / port / "registers.h"
    names = re.findall(r"^#define (\w+) +\S", header.read_text(), re.M)
    lines = "".join(f'printf("{name} %llu\\n", (unsigned long long)({name}));\n' for name in names)
    program = f'#include <stdio.h>\n#include "{header}"\nint main(void) {{\n{lines}return 0;\n}}\n'
    with TemporaryDirectory() as folder:
        path = Path(folder, "print")
        path.with_suffix(".c").write_text(program)
        subprocess.run(["cc", "-w", path.with_suffix(".c"), "-o", path], check=True)
        said = subprocess.run([path], capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in (line.split() for line in said.splitlines())}


def described(port: str, file: str) -> dict[str, Peripheral]:
    """What ``file`` says of the port's chips. No package at hand carries the STM32F746's: it has the F4's peripherals at the
    F4's addresses, but the F303's USART."""
    chip = peripherals(file)
    if port != "stm32f7":
        return chip
    newer = peripherals("STM32F303x.svd")["USART1"].registers
    usarts = {name: replace(part, registers=newer) for name, part in chip.items() if re.fullmatch(FAMILIES["USART"], name)}
    return chip | usarts


def candidates(name: str, chip: dict[str, Peripheral]) -> list[tuple[Peripheral, str]]:
    """The peripherals that a macro may belong to, each with the rest of its name."""
    found = []
    for prefix in (name[:at] for at in range(len(name), 0, -1) if at == len(name) or name[at] == "_"):
        rest = name[len(prefix) + 1 :]
        pattern = FAMILIES.get(prefix, re.escape(prefix))
        found += [(part, rest) for key, part in chip.items() if re.fullmatch(pattern, key)]
    return found


def fits(part: Peripheral, rest: str, value: int) -> bool:
    """Whether ``rest`` of a macro's name is the peripheral's base, a register or a field of it with just this value."""
    if rest == "BASE":
        return part.base == value
    if rest in part.registers:
        return part.registers[rest].offset == value
    name, _, chosen = rest.partition("__")
    for register, described in part.registers.items():
        if not name.startswith(f"{register}_"):
            continue
        field = name[len(register) + 1 :]
        single = [mask for key, mask in described.fields.items() if re.fullmatch(rf"{re.escape(field)}\d*", key)]
        if field in described.fields:
            single = [described.fields[field]]
        mask = sum(single)
        if single and (value == mask if not chosen else value and value & ~mask == 0):
            return True
    return False


@pytest.mark.parametrize("port", COVERED)
def test_every_register_is_where_the_vendor_says(port: str) -> None:
    for file in COVERED[port]:
        chip = described(port, file)
        for name, value in defines(port).items():
            if (port, name) in NOT_IN_SVD or name.startswith("TINYFL_"):
                continue
            assert any(fits(part, rest, value) for part, rest in candidates(name, chip)), (
                f"{name} = {value:#x} is not in {file}"
            )


@pytest.mark.parametrize("port", COVERED)
def test_a_wrong_address_or_bit_is_found(port: str) -> None:
    """The comparison itself: every line, changed a little, no longer fits."""
    chip = described(port, COVERED[port][0])
    for name, value in defines(port).items():
        if (port, name) in NOT_IN_SVD or "__" in name:
            continue
        wrong = value << 1 if value else 4
        assert not any(fits(part, rest, wrong) for part, rest in candidates(name, chip)), name


def test_each_port_is_covered_or_says_why_not() -> None:
    ports = {path.name for path in PORTS.iterdir() if path.is_dir()} - {"cortex_m", "posix", "host", "stm32"}
    assert ports == COVERED.keys() | UNCOVERED.keys()
    assert not COVERED.keys() & UNCOVERED.keys()


@pytest.mark.parametrize("port", [*COVERED, *UNCOVERED])
def test_addresses_stand_in_registers_h_alone(port: str) -> None:
    """So that what is held against the SVD file is what port and model use."""
    if port == "mps2":
        return
    for source in (PORTS / port / f"{port}.c", MODELS / f"{port}.c"):
        text = re.sub(r"/\*.*?\*/", "", source.read_text(), flags=re.S)
        assert re.search(r'#include "(?:.*/)?registers.h"', text)
        peripheral = [number for number in re.findall(r"0x[0-9a-fA-F]{8}", text) if number[2:3] in "45eE"]
        keys = {"0x45670123", "0xcdef89ab"}
        assert {number.lower() for number in peripheral} <= keys, source


UARTS = [board for board in map(boards.load, boards.names()) if board.port in COVERED]


@pytest.mark.parametrize("board", UARTS, ids=[board.name for board in UARTS])
def test_a_manifests_uart_is_where_the_vendor_says(board: boards.Board) -> None:
    for link in board.links:
        found = [peripherals(file).get(link.uart.upper()) for file in COVERED[board.port]]
        found = [part for part in found if part]
        assert found, f"{link.uart} is in none of {COVERED[board.port]}"
        assert {part.base for part in found} == {link.registers}
        numbers = {number for part in found for number in part.interrupts}
        assert not numbers or link.interrupt in numbers
