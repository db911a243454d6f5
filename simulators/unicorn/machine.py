"""One emulated board in this process: unicorn executes the instructions, peripherals.c models the peripherals.

The board runs only inside ``advance`` and ``exchange``, so a fleet needs no threads; with threads boards run in parallel, since
Python's lock is released meanwhile. A board serves one thread at a time: others wait.

It runs in slices of a fixed number of instructions, so that a board in an endless loop can be stopped too. The ends of slices
do not affect the board's behaviour.
"""

import ctypes
import random
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unicorn.arm_const import UC_ARM_REG_PC, UC_ARM_REG_SP
from unicorn.unicorn_const import UC_PROT_READ
from unicorn.unicorn_py3.unicorn import UcError

from tinyfl.building.boards import Board
from tinyfl.errors import ConfigError
from tinyfl.simulators import BoardFault
from tinyfl.simulators.line import misread
from tinyfl.simulators.unicorn import peripherals
from tinyfl.simulators.unicorn.image import load_image
from tinyfl.simulators.unicorn.peripherals import (
    HALT_BUDGET,
    HALT_CRASH,
    HALT_OVERFLOW,
    HALT_POWER,
    HALT_RESET,
    HALT_START,
)

SLICE = 2_000_000
"""Instructions per slice, about a hundredth of a second."""

BOOT = 200_000_000
"""Instructions after which a board is up that does not sleep, since it learns from its own source by itself."""

MAX_INSTRUCTIONS = 20_000_000_000
"""Maximum instructions in one exchange: minutes of a board's time. A board that needs more is in an endless loop."""

READINGS = 0x6000_0000
"""The address of recorded readings: where no chip here has memory of its own (Arm's external RAM)."""

PAGE = 0x1000
NOWHERE = 0xFFFFFFFE
OUTPUT_ROOM = 1 << 16
IDLE_WAKES = 16
"""Maximum number of consecutive wake-ups in which a board takes none of its pending input."""


@dataclass(frozen=True)
class Snapshot:
    """The complete state of a board between two exchanges, for the machine that took it."""

    core: Any
    registers: bytes
    flash: bytes
    ram: bytes
    powered: bool


class Machine:
    """Board ``serial`` of kind ``board``, started with the firmware in the ELF file ``elf``. ``readings`` are those of its
    sensor (tinyfl.sensors.recording.image).

    ``instructions`` counts executed instructions, ``slot_events`` words written and sectors or pages erased in its slots;
    ``boot_seconds`` is the host's time for the boot. Raises BoardFault if the boot fails.
    """

    def __init__(self, elf: Path, board: Board, serial: int, *, budget: int = MAX_INSTRUCTIONS, readings: bytes = b"") -> None:
        started = time.perf_counter()
        if board.memory is None:
            raise ConfigError(f"{board.name} is a process on this machine, not a chip to emulate: give --engine process.")
        self.board, self.serial, self.budget = board, serial, budget
        self.memory = board.memory
        self._lock = threading.Lock()
        self._unread, self._delivered = b"", 0
        self._line = 0
        self.image = load_image(elf)
        self._flash = ctypes.create_string_buffer(self.memory.flash.size)
        self._ram = ctypes.create_string_buffer(self.memory.ram.size)
        self._output = ctypes.create_string_buffer(OUTPUT_ROOM)
        self._state = peripherals.State(
            output=ctypes.addressof(self._output),
            output_room=OUTPUT_ROOM,
            flash=ctypes.addressof(self._flash),
            ram=ctypes.addressof(self._ram),
            flash_origin=self.memory.flash.origin,
            flash_bytes=self.memory.flash.size,
            ram_origin=self.memory.ram.origin,
            ram_bytes=self.memory.ram.size,
            vectors=self.memory.application,
            slots_origin=self.memory.written,
            uart=board.links[0].registers,
            baud=board.links[0].baud,
            pins=peripherals.pins(board),
            hertz=board.clock,
            serial=serial,
        )
        self._readings = ctypes.create_string_buffer(readings, -(-len(readings) // PAGE) * PAGE) if readings else None
        self._program()
        self._core = peripherals.build_core(board, self._state)
        if self._readings:
            self._core.mem_map_ptr(READINGS, len(self._readings), UC_PROT_READ, ctypes.addressof(self._readings))
        self._as_reset = self._core.context_save()
        self.power_cycle()
        self.boot_seconds = time.perf_counter() - started

    @property
    def rates(self) -> tuple[int, ...]:
        """Baud rates that the board's link has beyond its first."""
        return self.board.links[0].rates

    def tune(self, baud: int) -> None:
        """Gives the host's end of the line a rate, 0: the first. From now on an end hears bytes of another rate than its own
        as those that its UART makes of them. Until then a firmware of another rate than the manifest's hears nothing."""
        self._line = baud or self.board.links[0].baud

    def advance(self, data: bytes = b"") -> tuple[bytes, bool]:
        """Feeds ``data`` to the board's UART and runs the board until it sleeps without pending input, or for a slice. Returns
        (output, asleep); if not asleep, the next call continues. Output is held back until the board sleeps, or has sent
        nothing for a whole slice, so that the next request finds the board in the same state as without slices.

        Without power nothing runs and the output is empty. Raises BoardFault if the board crashes, does not take its input, or
        sends more than 64 KiB before it sleeps; it then stays halted until reset.
        """
        with self._lock:
            return self._advance(data)

    def exchange(self, data: bytes) -> bytes:
        """Feeds ``data`` to the board's UART, runs the board until it sleeps without pending input, and returns its output.

        Raises BoardFault as ``advance`` does, and if the board exceeds its budget of instructions.
        """
        with self._lock:
            return self._exchange(data)

    def _exchange(self, data: bytes) -> bytes:
        limit = self.instructions + self.budget
        output, asleep = self._advance(data)
        while not asleep:
            self._demand_below(limit)
            more, asleep = self._advance(b"")
            output += more
        return output

    def _demand_below(self, limit: int) -> None:
        if self.instructions >= limit:
            raise self._faulted(f"did not sleep within {self.budget:,} instructions")

    def _advance(self, data: bytes) -> tuple[bytes, bool]:
        if self._fault:
            raise BoardFault(self._fault)
        state, sent_before = self._state, self._state.sent
        if self._line:
            state.baud = state.uart_baud
            data = misread(data, self._line, state.uart_baud)
        data = self._unread + data
        buffer = ctypes.create_string_buffer(data, len(data))
        state.input, state.input_bytes, state.taken = ctypes.addressof(buffer), len(data), 0
        state.budget = state.now.instructions + SLICE
        asleep = self._run_until_asleep()
        self._unread = data[state.taken :]
        output = b""
        if asleep or state.sent == sent_before:
            output, self._delivered = ctypes.string_at(self._output, state.sent)[self._delivered :], state.sent
            output = misread(output, state.baud, self._line or state.baud)
        if asleep:
            self._clear_line()
        return output, asleep

    def reset(self) -> None:
        """Resets the board as by its reset pin: the program restarts; RAM and flash stay."""
        with self._lock:
            self._boot()

    def power_cycle(self) -> None:
        """Cycles the power: flash stays, RAM gets this board's own random content."""
        with self._lock:
            ctypes.memmove(self._ram, random.Random(self.serial).randbytes(len(self._ram)), len(self._ram))
            self.powered = True
            self._state.now.cut_at = 0
            self._boot()

    def cut_power_after(self, slot_events: int) -> None:
        """Cuts the power in the middle of the slot write or erase that follows ``slot_events`` further complete ones."""
        self._state.now.cut_at = self.slot_events + slot_events + 1

    def snapshot(self) -> Snapshot:
        """Takes a snapshot of the board. Call it between exchanges."""
        return Snapshot(self._core.context_save(), bytes(self._state.now), self._flash.raw, self._ram.raw, self.powered)

    def restore(self, snapshot: Snapshot) -> None:
        """Restores the state of a snapshot, including counters."""
        self._core.context_restore(snapshot.core)
        self._state.now = peripherals.Registers.from_buffer_copy(snapshot.registers)
        ctypes.memmove(self._flash, snapshot.flash, len(self._flash))
        ctypes.memmove(self._ram, snapshot.ram, len(self._ram))
        self.powered, self._fault = snapshot.powered, ""
        self._clear_line()

    @property
    def instructions(self) -> int:
        """Number of instructions executed so far."""
        return int(self._state.now.instructions)

    @property
    def slot_events(self) -> int:
        """Number of words written and sectors or pages erased in the slots so far."""
        return int(self._state.now.slot_events)

    def symbol(self, name: str) -> int:
        """The address of a function or variable of the firmware.

        Raises KeyError for an unknown name.
        """
        return int(self.image.symbols[name])

    def read_memory(self, address: int, count: int) -> bytes:
        """Reads ``count`` bytes of flash or RAM.

        Raises ValueError for other addresses.
        """
        for origin, memory in ((self.memory.flash.origin, self._flash), (self.memory.ram.origin, self._ram)):
            at = address - origin
            if at >= 0 and at + count <= len(memory):
                return ctypes.string_at(ctypes.addressof(memory) + at, count)
        raise ValueError(f"{count} bytes at {address:#010x} are not in this board's flash or RAM")

    def _program(self) -> None:
        """Fills flash as at the factory: erased, then programmed with the firmware and the identity record."""
        ctypes.memset(self._flash, 0xFF, len(self._flash))
        identity = struct.pack(">4sQ", b"TFLI", self.serial) + struct.pack("<I", READINGS if self._readings else 0)
        for address, data in (*self.image.segments, (self.memory.identity, identity)):
            at = address - self.memory.flash.origin
            if at < 0 or at + len(data) > len(self._flash):
                raise ConfigError(
                    f"the firmware has {len(data):,} bytes at {address:#010x}, outside the flash of {self.board.name}."
                )
            ctypes.memmove(ctypes.addressof(self._flash) + at, data, len(data))

    def _boot(self) -> None:
        self._clear_line()
        self._restart()
        limit, up = self.instructions + self.budget, self.instructions + BOOT
        while not self._advance(b"")[1] and self.instructions < up:
            self._demand_below(limit)

    def _clear_line(self) -> None:
        """Drops pending bytes in both directions."""
        self._unread = b""
        self._delivered = self._state.sent = 0

    def _restart(self) -> None:
        peripherals.library().tinyfl_machine_reset(ctypes.byref(self._state))
        self._start()
        self._fault = ""

    def _start(self) -> None:
        """Starts the core at the chip's entry point, which a boot ROM or another core may set."""
        self._core.context_restore(self._as_reset)
        self._core.reg_write(UC_ARM_REG_SP, self._state.now.stack)
        self._core.reg_write(UC_ARM_REG_PC, self._state.now.entry)

    def _run_until_asleep(self) -> bool:
        """Runs until the board sleeps; returns False at the end of the slice."""
        state, wakes = self._state, 0
        while self.powered and wakes < IDLE_WAKES:
            taken = state.taken
            self._run()
            if state.now.halt == HALT_BUDGET:
                state.now.halt = 0
                return False
            if state.now.halt == HALT_RESET:
                state.taken = state.input_bytes  # bytes that arrive during a restart are lost
                self._restart()
            elif state.now.halt == HALT_START:
                state.now.halt = 0
                self._start()
            elif state.now.halt == HALT_POWER:
                self.powered = False
            elif self._line and state.uart_baud != state.baud:
                state.taken = state.input_bytes  # bytes that arrive while the rate changes are lost
                return True
            elif state.taken == state.input_bytes:
                return True
            else:
                wakes = wakes + 1 if state.taken == taken else 0
        if wakes and self.powered:
            raise self._faulted(f"sleeps and leaves {state.input_bytes - state.taken} bytes of its input")
        return True

    def _run(self) -> None:
        try:
            self._core.emu_start(self._core.reg_read(UC_ARM_REG_PC) | 1, NOWHERE)
        except UcError as error:
            raise self._faulted(f"crashed ({error})") from error
        if self._state.now.halt == HALT_CRASH:
            raise self._faulted("crashed (its settings of clock or flash make code unreadable)")
        if self._state.now.halt == HALT_OVERFLOW:
            raise self._faulted(f"sent more than {OUTPUT_ROOM:,} bytes at once")

    def _faulted(self, what: str) -> BoardFault:
        at = self.image.near(self._core.reg_read(UC_ARM_REG_PC) & ~1)
        self._fault = f"board {self.serial} ({self.board.name}) {what} at {at}. Reset it to go on."
        return BoardFault(self._fault)
