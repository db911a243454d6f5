"""One emulated board in this process: unicorn runs the instructions, peripherals.c is what surrounds the core.

The board runs only inside ``advance`` and ``exchange``, so a fleet of them needs no threads; with threads they run in parallel,
as Python's lock is released while a board runs. A board is one thread's at a time: others wait.

It runs in slices of so many instructions, whatever it executes, so a board that does not end can be left at any time. Where a
slice ends changes nothing of what the board does.
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
from unicorn.unicorn_py3.unicorn import UcError

from tinyfl.building.boards import Board
from tinyfl.errors import ConfigError
from tinyfl.simulators import BoardFault
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
"""Instructions, which take about a hundredth of a second."""

MAX_INSTRUCTIONS = 20_000_000_000
"""In one exchange: minutes of a board's time. A board that asks for more has run away."""

NOWHERE = 0xFFFFFFFE
OUTPUT_ROOM = 1 << 16
IDLE_WAKES = 16
"""Times in a row that a board may go to sleep again and take nothing of its waiting input."""


@dataclass(frozen=True)
class Snapshot:
    """All of a board between two exchanges. Good for the machine that made it."""

    core: Any
    registers: bytes
    flash: bytes
    ram: bytes
    powered: bool


class Machine:
    """Board ``serial`` of kind ``board``, started with the firmware in the ELF file ``elf``.

    ``instructions`` counts what it has executed, ``slot_events`` words written and sectors or pages erased in its slots;
    ``boot_seconds`` is what it took this computer to bring it up. Raises BoardFault if it does not come up.
    """

    def __init__(self, elf: Path, board: Board, serial: int, *, budget: int = MAX_INSTRUCTIONS) -> None:
        started = time.perf_counter()
        if board.memory is None:
            raise ConfigError(f"{board.name} is a process of this machine, not a chip to emulate: give --engine process.")
        self.board, self.serial, self.budget = board, serial, budget
        self.memory = board.memory
        self._lock = threading.Lock()
        self._unread, self._told = b"", 0
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
            slots_origin=self.memory.slots[0].origin,
            uart=board.links[0].registers,
            baud=board.links[0].baud,
            pins=peripherals.pins(board),
            hertz=board.clock,
            serial=serial,
        )
        self._program()
        self._core = peripherals.build_core(board, self._state)
        self._as_reset = self._core.context_save()
        self.power_cycle()
        self.boot_seconds = time.perf_counter() - started

    def advance(self, data: bytes = b"") -> tuple[bytes, bool]:
        """Feeds ``data`` to the board's UART and runs the board until it sleeps with all of its input taken, or for a slice.
        Returns what it sent, and whether it sleeps; where it does not, the next call goes on. What it sends is kept back until
        it sleeps, or has sent nothing for a whole slice, so that the next request finds it as it would be without slices.

        Without power nothing runs and nothing comes back. Raises BoardFault if the board crashes, does not take its input, or
        sends more than 64 KiB before it sleeps; it then stays as it is until reset.
        """
        with self._lock:
            return self._advance(data)

    def exchange(self, data: bytes) -> bytes:
        """Feeds ``data`` to the board's UART, runs the board until it sleeps with all of it taken, and returns what it sent.

        Raises BoardFault as ``advance``, and if the board runs away.
        """
        with self._lock:
            return self._exchange(data)

    def _exchange(self, data: bytes) -> bytes:
        most = self.instructions + self.budget
        said, asleep = self._advance(data)
        while not asleep:
            if self.instructions >= most:
                raise self._faulted(f"did not sleep within {self.budget:,} instructions")
            more, asleep = self._advance(b"")
            said += more
        return said

    def _advance(self, data: bytes) -> tuple[bytes, bool]:
        if self._fault:
            raise BoardFault(self._fault)
        state, sent_before = self._state, self._state.sent
        data = self._unread + data
        held = ctypes.create_string_buffer(data, len(data))
        state.input, state.input_bytes, state.taken = ctypes.addressof(held), len(data), 0
        state.budget = state.now.instructions + SLICE
        asleep = self._run_until_asleep()
        self._unread = data[state.taken :]
        said = b""
        if asleep or state.sent == sent_before:
            said, self._told = ctypes.string_at(self._output, state.sent)[self._told :], state.sent
        if asleep:
            self._forget()
        return said, asleep

    def reset(self) -> None:
        """As by the reset pin: the program starts again; RAM and flash stay."""
        with self._lock:
            self._boot()

    def power_cycle(self) -> None:
        """Power off and on again: flash stays, RAM comes up with what this board's RAM comes up with."""
        with self._lock:
            ctypes.memmove(self._ram, random.Random(self.serial).randbytes(len(self._ram)), len(self._ram))
            self.powered = True
            self._state.now.cut_at = 0
            self._boot()

    def cut_power_after(self, slot_events: int) -> None:
        """Power goes in the middle of the slot write or erase that comes after ``slot_events`` more whole ones."""
        self._state.now.cut_at = self.slot_events + slot_events + 1

    def snapshot(self) -> Snapshot:
        """All of the board, to come back to. Call it between exchanges."""
        return Snapshot(self._core.context_save(), bytes(self._state.now), self._flash.raw, self._ram.raw, self.powered)

    def restore(self, snapshot: Snapshot) -> None:
        """Brings the board back to where it was at ``snapshot``, counters included."""
        self._core.context_restore(snapshot.core)
        self._state.now = peripherals.Registers.from_buffer_copy(snapshot.registers)
        ctypes.memmove(self._flash, snapshot.flash, len(self._flash))
        ctypes.memmove(self._ram, snapshot.ram, len(self._ram))
        self.powered, self._fault = snapshot.powered, ""
        self._forget()

    @property
    def instructions(self) -> int:
        """Instructions executed so far; those of one exchange are the difference across it."""
        return int(self._state.now.instructions)

    @property
    def slot_events(self) -> int:
        """Words written and sectors or pages erased in the slots so far."""
        return int(self._state.now.slot_events)

    def symbol(self, name: str) -> int:
        """The address of a function or variable of the firmware.

        Raises KeyError if it has none of this name.
        """
        return int(self.image.symbols[name])

    def read_memory(self, address: int, count: int) -> bytes:
        """``count`` bytes of flash or RAM.

        Raises ValueError outside of them.
        """
        for origin, memory in ((self.memory.flash.origin, self._flash), (self.memory.ram.origin, self._ram)):
            at = address - origin
            if at >= 0 and at + count <= len(memory):
                return ctypes.string_at(ctypes.addressof(memory) + at, count)
        raise ValueError(f"{count} bytes at {address:#010x} are not in this board's flash or RAM")

    def _program(self) -> None:
        """Flash as it leaves the factory and the programmer: erased, then the firmware and the identity record."""
        ctypes.memset(self._flash, 0xFF, len(self._flash))
        identity = struct.pack(">4sQI", b"TFLI", self.serial, 0)
        for address, data in (*self.image.segments, (self.memory.identity, identity)):
            at = address - self.memory.flash.origin
            if at < 0 or at + len(data) > len(self._flash):
                raise ConfigError(
                    f"the firmware has {len(data):,} bytes at {address:#010x}, where {self.board.name} has no flash."
                )
            ctypes.memmove(ctypes.addressof(self._flash) + at, data, len(data))

    def _boot(self) -> None:
        self._forget()
        self._restart()
        self._exchange(b"")

    def _forget(self) -> None:
        """Drops what is on the line, in both directions."""
        self._unread = b""
        self._told = self._state.sent = 0

    def _restart(self) -> None:
        peripherals.library().tinyfl_machine_reset(ctypes.byref(self._state))
        self._start()
        self._fault = ""

    def _start(self) -> None:
        """Where the chip says that a core starts: a boot ROM, or one core for the other, may have a say in it."""
        self._core.context_restore(self._as_reset)
        self._core.reg_write(UC_ARM_REG_SP, self._state.now.stack)
        self._core.reg_write(UC_ARM_REG_PC, self._state.now.entry)

    def _run_until_asleep(self) -> bool:
        """False where the slice is over first."""
        state, wakes = self._state, 0
        while self.powered and wakes < IDLE_WAKES:
            taken = state.taken
            self._run()
            if state.now.halt == HALT_BUDGET:
                state.now.halt = 0
                return False
            if state.now.halt == HALT_RESET:
                state.taken = state.input_bytes  # what arrives while a board restarts is lost
                self._restart()
            elif state.now.halt == HALT_START:
                state.now.halt = 0
                self._start()
            elif state.now.halt == HALT_POWER:
                self.powered = False
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
            raise self._faulted("crashed (it set up its clock or its flash so that no code can be read)")
        if self._state.now.halt == HALT_OVERFLOW:
            raise self._faulted(f"sent more than {OUTPUT_ROOM:,} bytes at once")

    def _faulted(self, what: str) -> BoardFault:
        at = self.image.near(self._core.reg_read(UC_ARM_REG_PC) & ~1)
        self._fault = f"board {self.serial} ({self.board.name}) {what} at {at}. Reset it to go on."
        return BoardFault(self._fault)
