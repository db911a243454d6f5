"""The structures of peripherals.h in ctypes, and the attachment of a chip's models to a core."""

import ctypes
import weakref
from dataclasses import dataclass
from functools import cache
from typing import Any

from unicorn import arm_const as arm
from unicorn import unicorn_const as uc
from unicorn.unicorn_py3.unicorn import Uc, UcError, uclib

from tinyfl.building.boards import Board, pin_number
from tinyfl.core import binding
from tinyfl.errors import ConfigError

CORES = {
    "cortex-m0": arm.UC_CPU_ARM_CORTEX_M0,
    "cortex-m3": arm.UC_CPU_ARM_CORTEX_M3,
    "cortex-m4": arm.UC_CPU_ARM_CORTEX_M4,
    "cortex-m7": arm.UC_CPU_ARM_CORTEX_M7,
    "cortex-m33": arm.UC_CPU_ARM_CORTEX_M33,
}
HALT_RESET, HALT_POWER, HALT_BUDGET, HALT_OVERFLOW, HALT_START, HALT_CRASH = 1, 2, 3, 4, 5, 6
PAGE = 0x1000
ROM_BYTES = 256


class Registers(ctypes.Structure):
    _fields_ = (
        ("instructions", ctypes.c_uint64),
        ("slot_events", ctypes.c_uint64),
        ("cut_at", ctypes.c_uint64),
        ("halt", ctypes.c_uint32),
        ("uart", ctypes.c_uint32 * 384),
        ("flash", ctypes.c_uint32 * 384),
        ("flash_key", ctypes.c_uint32),
        ("flash_busy", ctypes.c_uint32),
        ("clock", ctypes.c_uint32 * 384),
        ("chip", ctypes.c_uint32 * 1024),
        ("system", ctypes.c_uint32 * 1024),
        ("stack", ctypes.c_uint32),
        ("entry", ctypes.c_uint32),
        ("watchdog", ctypes.c_uint64),
        ("away", ctypes.c_uint32),
        ("stale", ctypes.c_uint32),
    )


class State(ctypes.Structure):
    _fields_ = (
        ("stop", ctypes.c_void_p),
        ("reset", ctypes.c_void_p),
        ("input", ctypes.c_void_p),
        ("input_bytes", ctypes.c_uint64),
        ("taken", ctypes.c_uint64),
        ("output", ctypes.c_void_p),
        ("output_room", ctypes.c_uint64),
        ("sent", ctypes.c_uint64),
        ("budget", ctypes.c_uint64),
        ("flash", ctypes.c_void_p),
        ("ram", ctypes.c_void_p),
        ("flash_origin", ctypes.c_uint32),
        ("flash_bytes", ctypes.c_uint32),
        ("ram_origin", ctypes.c_uint32),
        ("ram_bytes", ctypes.c_uint32),
        ("vectors", ctypes.c_uint32),
        ("slots_origin", ctypes.c_uint32),
        ("uart", ctypes.c_uint32),
        ("baud", ctypes.c_uint32),
        ("pins", ctypes.c_uint32 * 2),
        ("hertz", ctypes.c_uint32),
        ("serial", ctypes.c_uint64),
        ("now", Registers),
    )


@dataclass(frozen=True)
class Models:
    """A chip's models: pages as (address, model), registers without function as (address, bytes), the function for writes to
    slot memory, the function that resets the registers, models of several pages as (address, bytes, model), and a ROM at 0."""

    pages: tuple[tuple[int, str], ...]
    memory: tuple[tuple[int, int], ...]
    slot_write: str
    reset: str = ""
    wide: tuple[tuple[int, int, str], ...] = ()
    rom: str = ""


def models(name: str, uart: int) -> Models:
    """The models with a manifest's name ``name``, and the UART's registers at ``uart``.

    Raises ConfigError for an unknown name.
    """
    system = (0xE000E000, "system")
    own: tuple[tuple[int, str], ...]
    pages: tuple[tuple[int, str], ...]
    if name == "cmsdk":
        return Models(((uart, "cmsdk"), system), (), "sram_write")
    if name in ("stm32f4", "stm32f7"):
        unique_id = 0x1FFF7000 if name == "stm32f4" else 0x1FF0F000
        own = ((uart & -PAGE, f"{name}_usart"), (unique_id, f"{name}_id"))
        pages = (*own, (0x40003000, "stm32f4_iwdg"), (0x40023000, "stm32f4"), system)
        wide = (0x40020000, 3 * PAGE, "stm32f4_gpio")
        return Models(pages, (), "stm32f4_flash_write", f"{name}_reset", (wide,))
    if name == "nrf52":
        own = ((0x10000000, "nrf52_ficr"), (0x40000000, "nrf52_clock"), (uart, "nrf52_uart"))
        own += ((0x40010000, "nrf52_wdt"), (0x4001E000, "nrf52_nvmc"), (0x50000000, "nrf52_gpio"))
        return Models((*own, system), (), "nrf52_flash_write", "nrf52_reset")
    if name == "rp2040":
        pages = ((0x4000, "rp2040_door"), (0x18000000, "rp2040_ssi"), (0xD0000000, "rp2040_sio"), system)
        wide, cache = (0x40000000, 28 * 4 * PAGE, "rp2040"), (0x14000000, 4 * PAGE)
        return Models(pages, (cache,), "rp2040_flash_write", "rp2040_reset", (wide,), "rp2040_rom")
    if name == "psoc6":
        pages, wide = ((0x16000000, "psoc6_sflash"), system), (0x40000000, 0x700000, "psoc6")
        return Models(pages, (), "psoc6_flash_write", "psoc6_reset", (wide,))
    raise ConfigError(f"no peripherals are called {name!r}. There are: cmsdk, stm32f4, stm32f7, nrf52, rp2040, psoc6.")


def pins(board: Board) -> Any:
    """The link's pins, transmit and receive, as numbered in the models: 32 per port."""
    numbers = (pin_number(pin) for pin in board.links[0].pins)
    return (ctypes.c_uint32 * 2)(*(32 * port + pin for port, pin in numbers))


@cache
def library() -> Any:
    """The compiled models."""
    lib = binding.library()
    lib.tinyfl_machine_reset.argtypes = [ctypes.POINTER(State)]
    lib.tinyfl_machine_reset.restype = None
    return lib


def build_core(board: Board, state: State) -> Uc:
    """Builds a core with the board's memory map. ``state`` and the memory it points to must outlive it.

    Raises ConfigError if the manifest has no unicorn model, or an unknown one.
    """
    if board.unicorn is None or board.memory is None or board.unicorn.core not in CORES:
        raise ConfigError(f"{board.name} has no unicorn core. Give its manifest [emulators] unicorn with one of {[*CORES]}.")
    flash, slots = board.memory.flash, board.memory.slots
    chip = models(board.unicorn.peripherals, board.links[0].registers)
    core = Uc(uc.UC_ARCH_ARM, uc.UC_MODE_THUMB | uc.UC_MODE_MCLASS, CORES[board.unicorn.core])
    for value in vars(core).values():
        if isinstance(value, weakref.finalize):
            value.atexit = False  # at exit a thread may still run a slice; the process frees the memory
    state.stop = ctypes.cast(uclib.uc_emu_stop, ctypes.c_void_p)
    state.reset = _address(chip.reset) if chip.reset else None
    core.mem_map_ptr(flash.origin, slots[0].origin - flash.origin, uc.UC_PROT_READ | uc.UC_PROT_EXEC, state.flash)
    core.mem_map_ptr(state.ram_origin, state.ram_bytes, uc.UC_PROT_ALL, state.ram)
    for start, size in chip.memory:
        core.mem_map(start, size)
    for start, size, model in (*((start, PAGE, model) for start, model in chip.pages), *chip.wide):
        _map(core, start, size, f"{model}_read", f"{model}_write", state)
    if chip.rom:
        core.mem_map(0, PAGE, uc.UC_PROT_READ | uc.UC_PROT_EXEC)
        core.mem_write(0, bytes((ctypes.c_char * ROM_BYTES).in_dll(library(), f"tinyfl_{chip.rom}")))
    _map(core, slots[0].origin, flash.end - slots[0].origin, "slots_read", chip.slot_write, state)
    hook, everywhere, count = ctypes.c_size_t(), (1, 0), _address("count")
    user = ctypes.addressof(state)
    _check(uclib.uc_hook_add(core._uch, ctypes.byref(hook), uc.UC_HOOK_BLOCK, count, user, *everywhere))
    return core


def _map(core: Uc, start: int, size: int, read: str, write: str, state: State) -> None:
    user = ctypes.addressof(state)
    _check(uclib.uc_mmio_map(core._uch, start, size, _address(read), user, _address(write), user))


def _address(function: str) -> ctypes.c_void_p:
    return ctypes.cast(getattr(library(), f"tinyfl_{function}"), ctypes.c_void_p)


def _check(status: int) -> None:
    if status:
        raise UcError(status)
