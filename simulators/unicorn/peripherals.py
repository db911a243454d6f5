"""The structures of peripherals.h in ctypes, and the attachment of a chip's model to a core.

The chips are those that the compiled models register: names, addresses and functions stand in C only.
"""

import ctypes
import itertools
import weakref
from collections.abc import Iterator
from functools import cache
from typing import Any

from unicorn import arm_const as arm
from unicorn import unicorn_const as uc
from unicorn.unicorn_py3.unicorn import Uc, UcError, uclib

from tinyfl.building.boards import Board, pin_number
from tinyfl.core import binding
from tinyfl.errors import ConfigError

_CORE = "UC_CPU_ARM_CORTEX_M"
CORES = {f"cortex-m{name.removeprefix(_CORE)}": number for name, number in vars(arm).items() if name.startswith(_CORE)}
HALT_RESET, HALT_POWER, HALT_BUDGET, HALT_OVERFLOW, HALT_START, HALT_CRASH = 1, 2, 3, 4, 5, 6
PAGE, LINK_PAGE = 0x1000, 1

LOAD = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint, ctypes.c_void_p)
STORE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint, ctypes.c_uint64, ctypes.c_void_p)


class Region(ctypes.Structure):
    _fields_ = (("start", ctypes.c_uint32), ("bytes", ctypes.c_uint32), ("load", LOAD), ("store", STORE))


class Chip(ctypes.Structure):
    pass


Chip._fields_ = (
    ("name", ctypes.c_char_p),
    ("regions", ctypes.POINTER(Region)),
    ("store_slot", STORE),
    ("reset", ctypes.c_void_p),
    ("rom", ctypes.c_void_p),
    ("rom_bytes", ctypes.c_uint32),
    ("next", ctypes.POINTER(Chip)),
)


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
        ("ticked", ctypes.c_uint64),
    )


class State(ctypes.Structure):
    _fields_ = (
        ("stop", ctypes.c_void_p),
        ("chip", ctypes.POINTER(Chip)),
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
        ("uart_baud", ctypes.c_uint32),
        ("pins", ctypes.c_uint32 * 2),
        ("hertz", ctypes.c_uint32),
        ("serial", ctypes.c_uint64),
        ("now", Registers),
    )


@cache
def chips() -> dict[str, Chip]:
    """The chips that can be emulated, by the names that manifests give them."""
    found, at = {}, ctypes.POINTER(Chip).in_dll(library(), "tinyfl_chips")
    while at:
        found[at.contents.name.decode()] = at.contents
        at = at.contents.next
    return dict(sorted(found.items()))


def chip(name: str) -> Chip:
    """The chip with a manifest's name ``name``.

    Raises ConfigError for an unknown name.
    """
    if name not in chips():
        raise ConfigError(
            f"no peripherals are called {name!r}. There are: {', '.join(chips())}. "
            "A model's new file is compiled by `pip install -e .` in the clone."
        )
    return chips()[name]


def regions(chip: Chip, uart: int) -> Iterator[tuple[int, Region]]:
    """The chip's regions, each with its address, for a link whose UART has its registers at ``uart``."""
    for number in itertools.count():
        region = chip.regions[number]
        if not region.bytes:
            return
        yield uart & -PAGE if region.start == LINK_PAGE else region.start, region


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
    flash, written = board.memory.flash, board.memory.written
    model = chip(board.unicorn.peripherals)
    core = Uc(uc.UC_ARCH_ARM, uc.UC_MODE_THUMB | uc.UC_MODE_MCLASS, CORES[board.unicorn.core])
    for value in vars(core).values():
        if isinstance(value, weakref.finalize):
            value.atexit = False  # at exit a thread may still run a slice; the process frees the memory
    state.stop = ctypes.cast(uclib.uc_emu_stop, ctypes.c_void_p)
    state.chip = ctypes.pointer(model)
    core.mem_map_ptr(flash.origin, written - flash.origin, uc.UC_PROT_READ | uc.UC_PROT_EXEC, state.flash)
    core.mem_map_ptr(state.ram_origin, state.ram_bytes, uc.UC_PROT_ALL, state.ram)
    if model.rom:
        core.mem_map(0, PAGE, uc.UC_PROT_READ | uc.UC_PROT_EXEC)
        core.mem_write(0, ctypes.string_at(model.rom, model.rom_bytes))
    system = Region.in_dll(library(), "tinyfl_system")
    for start, region in (*regions(model, state.uart), (system.start, system)):
        if region.load:
            _map(core, start, region.bytes, region.load, region.store, state)
        else:
            core.mem_map(start, region.bytes)
    _map(core, written, flash.end - written, library().tinyfl_slots_load, model.store_slot, state)
    hook, everywhere, count = ctypes.c_size_t(), (1, 0), _address(library().tinyfl_count)
    user = ctypes.addressof(state)
    _check(uclib.uc_hook_add(core._uch, ctypes.byref(hook), uc.UC_HOOK_BLOCK, count, user, *everywhere))
    return core


def _map(core: Uc, start: int, size: int, load: Any, store: Any, state: State) -> None:
    user = ctypes.addressof(state)
    _check(uclib.uc_mmio_map(core._uch, start, size, _address(load), user, _address(store), user))


def _address(function: Any) -> ctypes.c_void_p:
    return ctypes.cast(function, ctypes.c_void_p)


def _check(status: int) -> None:
    if status:
        raise UcError(status)
