"""Bytes at 1 Mbaud come in while the core is at work, on a line that waits for nobody.

unicorn has no interrupts, so the test makes them: it stops the core at any instruction, as the next byte arrives, and runs the
handler in between. The nRF52's UART holds six bytes.
"""

import asyncio
import ctypes
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from probe import need
from smpclient.requests.os_management import EchoWrite
from smpclient.transport.serial import Cobs

from tinyfl.algorithms import Inner
from tinyfl.building import boards
from tinyfl.link.board import LinkedBoard, Round, floats
from tinyfl.link.messages import rounds
from tinyfl.link.wire import MachineWire
from tinyfl.networks import network
from tinyfl.tasks.sine import Sine

BYTE = 400
"""Instructions in the time of a byte: 640 cycles of 64 MHz, with a third of them lost to flash that is slower than the core."""

TASK = Sine(1)
NETWORK = network("mlp-64-64", (1,), 1, TASK.loss, TASK.activation)
THETA = NETWORK.initial_weights(1)

INTERRUPT, ERRORSRC, STATUSES = 2, 0x480, 20


class Line:
    """The wires to a machine whose core runs meanwhile; its interrupts are taken if ``interrupts``."""

    def __init__(self, machine: Any, interrupts: bool) -> None:
        from tinyfl.simulators.unicorn import peripherals

        self.machine, self.core, self.state, self.interrupts = machine, machine._core, machine._state, interrupts
        self.arrive = peripherals.library().tinyfl_nrf52_uart_arrive
        self.arrive.argtypes = [ctypes.c_void_p, ctypes.c_uint8]
        self.state.budget, self.state.sent, self.state.input_bytes, self.state.taken = 1 << 62, 0, 0, 0
        self.taken = 0

    def send(self, data: bytes) -> None:
        for byte in data:
            self.run(BYTE)
            self.arrive(ctypes.byref(self.state), byte)

    def run(self, instructions: int) -> None:
        from unicorn.arm_const import UC_ARM_REG_PC, UC_ARM_REG_PRIMASK, UC_ARM_REG_XPSR

        self.core.emu_start(self.core.reg_read(UC_ARM_REG_PC) | 1, 0xFFFFFFFE, count=instructions)
        while self.core.reg_read(UC_ARM_REG_XPSR) & 0x0600FC00:  # within an if-then block, whose state a handler must not see
            self.core.emu_start(self.core.reg_read(UC_ARM_REG_PC) | 1, 0xFFFFFFFE, count=1)
        enabled, pending = self.state.now.system[0x100 // 4], self.state.now.system[0x200 // 4]
        if self.interrupts and enabled & pending & 1 << INTERRUPT and not self.core.reg_read(UC_ARM_REG_PRIMASK):
            self._interrupt()

    def _interrupt(self) -> None:
        from unicorn.arm_const import UC_ARM_REG_LR

        back = self.state.now.entry & ~1
        kept = self.core.context_save()
        self.state.now.system[0x200 // 4] &= ~(1 << INTERRUPT)
        self.core.reg_write(UC_ARM_REG_LR, back | 1)
        self.core.emu_start(self.machine.symbol("tinyfl_uart_interrupt") | 1, back)
        self.core.context_restore(kept)
        self.taken += 1

    def heard(self) -> list[bytes]:
        framing = Cobs()
        framing.feed(ctypes.string_at(self.machine._output, self.state.sent))
        return list(iter(framing.take, None))

    def overrun(self) -> bool:
        return bool(self.state.now.uart[ERRORSRC // 4] & 1)


def framed(request: Any) -> bytes:
    return b"\0" + b"".join(Cobs().encode(bytes(request)))


@pytest.fixture
def learning(firmware: Callable[[str], Path]) -> Callable[[bool], Line]:
    """A board in the middle of a round without end, one step of which takes longer than the UART could keep what comes."""
    need("unicorn")
    from tinyfl.simulators.unicorn import Machine

    endless = Round(0, 0, 0, Inner(samples=1 << 31, rate=0.0).to_bytes(), hashlib.sha256(floats(THETA)).digest(), "sine")

    async def prepare(machine: Any) -> None:
        board = await LinkedBoard.connect(MachineWire(machine).open)
        await board.put_plan(NETWORK.plan.bytes)
        await board.put_weights(THETA)

    def start(interrupts: bool) -> Line:
        machine = Machine(firmware("microbit-v2"), boards.load("microbit-v2"), 1)
        asyncio.run(prepare(machine))
        line = Line(machine, interrupts)
        line.send(framed(rounds.Train(sequence=250, **vars(endless))))
        line.run(1_000_000)
        assert not line.overrun() and not line.heard()
        return line

    return start


def statuses() -> bytes:
    return b"".join(framed(rounds.StatusRead(sequence=i)) for i in range(STATUSES))


def test_a_core_at_work_loses_no_byte_at_a_million_baud(learning: Callable[[bool], Line]) -> None:
    line, requests = learning(True), statuses()
    assert 256 < len(requests) < 512  # what the ring holds
    before = line.taken
    line.send(requests)
    for _ in range(100):
        line.run(100_000)
    assert line.taken - before > len(requests) / 2  # bytes came in by the interrupt, and not when the agent looked
    assert [answer[6] for answer in line.heard()] == [*range(STATUSES)]
    done = [messages_of(answer)["done"] for answer in line.heard()]
    assert done == sorted(done)
    line.send(framed(rounds.Abort(sequence=STATUSES)))
    for _ in range(20):
        line.run(100_000)
    assert [answer[6] for answer in line.heard()][STATUSES:] == [STATUSES, 250]
    assert not line.overrun()


def test_full_frames_are_read_as_they_come_at_a_million_baud(learning: Callable[[bool], Line]) -> None:
    line = learning(True)
    line.send(framed(rounds.Abort(sequence=0)))
    line.run(1_000_000)
    for i in range(3):
        line.send(framed(EchoWrite(sequence=10 + i, d="x" * 1000)))
        line.run(1_000_000)
    assert [(answer[6], len(answer)) for answer in line.heard()[2:]] == [(10 + i, 8 + 3 + 3 + 1000) for i in range(3)]
    assert not line.overrun()


def test_a_window_of_blocks_is_taken_as_it_comes_at_a_million_baud(learning: Callable[[bool], Line]) -> None:
    line, data = learning(True), floats(THETA + 1)
    line.send(framed(rounds.Abort(sequence=0)))
    line.run(1_000_000)
    announced = {"len": len(data), "sha": hashlib.sha256(data).digest()}
    blocks = [
        rounds.WeightsWrite(sequence=10 + i, off=900 * i, data=data[900 * i : 900 * (i + 1)], **(announced if i == 0 else {}))
        for i in range(4)
    ]
    line.send(b"".join(map(framed, blocks)))
    line.run(1_000_000)
    assert [messages_of(answer) for answer in line.heard()[2:]] == [{"off": 900 * (i + 1)} for i in range(4)]
    assert not line.overrun()


def test_without_the_interrupt_the_same_line_does_lose_bytes(learning: Callable[[bool], Line]) -> None:
    line = learning(False)
    line.send(statuses())
    for _ in range(100):
        line.run(100_000)
    assert line.overrun() and len(line.heard()) < STATUSES


def messages_of(answer: bytes) -> Any:
    import cbor2

    return cbor2.loads(answer[8:])
