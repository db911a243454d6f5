"""Wires: bytes to a board and back, over a serial port, a pty, a socket, or into an emulated board in this process."""

import asyncio
import termios
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable

import serial
from smp.header import Header
from smpclient.transport import SMPTransport
from smpclient.transport.serial import Cobs

from tinyfl.errors import ConfigError, TinyflError
from tinyfl.link.errors import Dead

FIRST_PATIENCE = 0.25
"""Seconds that a board may take to answer, beside those that the line takes."""

LONGEST_EXCHANGE = 2 * 1024 * 10
"""Bits on the line of a request and a reply, as long as boards' buffers are as a rule."""

CLOSE_SECONDS = 2.0
"""A port that is stuck is left to itself after these."""


class Silent(Exception):
    """Nothing will come: the board sleeps, and has said all that it has to say."""


class Wire(Protocol):
    """Bytes both ways. Once the far end is gone, every method but ``close`` raises Dead."""

    patience: float
    """Seconds without an answer after which a request may be lost; infinite where ``receive`` raises Silent instead."""

    async def send(self, data: bytes) -> None:
        """Sends ``data``; returns once it is on its way."""

    async def receive(self) -> bytes:
        """The next bytes, at least one; waits for them. Raises Silent where none will ever come."""

    async def close(self) -> None:
        """Lets the port go. No method is called after it."""


Opener = Callable[[], Awaitable[Wire]]
"""Makes a connection to one board, as often as it is called. Raises Dead where nothing is there."""


class SerialWire:
    """Whatever pyserial opens: a serial port, the path of a pty, ``socket://host:port``.

    Waits on the file descriptor in the event loop. DTR and RTS stay low, so that opening resets no board."""

    def __init__(self, port: serial.SerialBase) -> None:
        self._port = port
        self.patience = FIRST_PATIENCE + LONGEST_EXCHANGE / port.baudrate

    @classmethod
    async def open(cls, url: str, baud: int = 115200) -> "SerialWire":
        """Opens ``url`` for this process alone. Raises Dead where that fails."""
        try:
            port = serial.serial_for_url(url, do_not_open=True, baudrate=baud, timeout=0, write_timeout=0, exclusive=True)
            port.dtr = port.rts = False
            opening = asyncio.ensure_future(asyncio.to_thread(port.open))
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            loop = asyncio.get_running_loop()
            opening.add_done_callback(
                lambda done: done.cancelled() or done.exception() or loop.run_in_executor(None, port.close)
            )
            raise
        except ValueError as error:
            raise ConfigError(f"{url} is no link ({error}). Give a serial port, a pty's path or socket://host:port.") from error
        except (OSError, termios.error) as error:
            raise Dead(f"{url} cannot be opened ({error}). Check the cable, the name and who else has it open.") from error
        return cls(port)

    async def send(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                await self._ready(writing=True)
                rest = rest[self._port.write(rest) :]
        except OSError as error:
            raise Dead(f"{self._port.port} is gone: {error}.") from error

    async def receive(self) -> bytes:
        try:
            while True:
                await self._ready(writing=False)
                if data := self._port.read(1 << 16):
                    return bytes(data)
        except OSError as error:
            raise Dead(f"{self._port.port} is gone: {error}.") from error

    async def close(self) -> None:
        await asyncio.wait([asyncio.ensure_future(asyncio.to_thread(self._port.close))], timeout=CLOSE_SECONDS)

    async def _ready(self, writing: bool) -> None:
        """Waits until the port can be written, or read."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        watch, unwatch = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
        watch(self._port.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            unwatch(self._port.fileno())


class Machine(Protocol):
    """An emulated board in this process."""

    def exchange(self, data: bytes) -> bytes:
        """Feeds ``data`` to the board's UART, runs it until it sleeps with its input used up, and returns what it sent."""


@runtime_checkable
class Sliced(Protocol):
    """One that gives way while it works."""

    def advance(self, data: bytes) -> tuple[bytes, bool]:
        """As ``exchange``, for a moment at most; also returns whether the board sleeps. If not, the next call goes on."""


Advance = Callable[[bytes], tuple[bytes, bool]]


def slices(machine: Machine | Sliced) -> Advance:
    """``machine``'s work in slices, or in whole exchanges where it has none."""
    return machine.advance if isinstance(machine, Sliced) else lambda data: (machine.exchange(data), True)


class MachineWire:
    """A machine's UART, one wire for all of its life; ``open`` is its opener.

    The machine runs in a thread, slice after slice, while the wire is open. In between it hears what was sent meanwhile, as a
    board does whose UART fills a buffer. Closed, it stands still where it is."""

    patience = float("inf")

    def __init__(self, machine: Machine | Sliced) -> None:
        self._advance = slices(machine)
        self._unsent: deque[bytes] = deque()
        self._heard = bytearray()
        self._open = False
        self._slice: asyncio.Task[None] | None = None

    async def open(self) -> Wire:
        """The wire itself, with nothing heard."""
        self._heard.clear()
        self._unsent.clear()
        self._open = True
        if self._slice is not None and self._slice.done():
            self._slice = None
        return self

    async def send(self, data: bytes) -> None:
        self._unsent.append(data)
        if self._slice is None or self._slice.done():
            self._slice = asyncio.create_task(self._run())

    async def _run(self) -> None:
        """A slice; unless the board sleeps then, and has nothing to hear, another follows."""
        said, asleep = await asyncio.to_thread(self._advance, self._unsent.popleft() if self._unsent else b"")
        self._heard += said
        if self._open and (self._unsent or not asleep):
            self._slice = asyncio.create_task(self._run())

    async def receive(self) -> bytes:
        while not self._heard:
            if (slice := self._slice) is None:
                raise Silent
            try:
                await asyncio.shield(slice)
            except TinyflError as error:
                raise Dead(str(error)) from error
            if slice is self._slice:
                break
        if not self._heard:
            raise Silent
        data = bytes(self._heard)
        self._heard.clear()
        return data

    async def close(self) -> None:
        """Leaves the machine as it is, once its slice is over."""
        self._open = False


class WireTransport(SMPTransport):
    """SMP over a wire, in frames of COBS and CRC-16. ``mtu`` is the longest message, until ``initialize`` says otherwise.

    A frame starts with a delimiter too, so that whatever a fault left in the board's receiver ends there."""

    def __init__(self, wire: Wire, mtu: int = 512) -> None:
        self._wire, self._mtu, self._framing = wire, mtu, Cobs()

    async def connect(self, address: str, timeout_s: float) -> None:
        """The wire is open already."""

    async def disconnect(self) -> None:
        await self._wire.close()

    async def send(self, data: bytes) -> None:
        if len(data) > self.max_unencoded_size:
            raise ValueError(f"a message of {len(data)} bytes; the board takes {self.max_unencoded_size}")
        for frame in self._framing.encode(data):
            await self._wire.send(b"\0" + frame)

    async def receive(self) -> bytes:
        while (message := self._framing.take()) is None:
            self._framing.feed(await self._wire.receive())
        return message

    async def send_and_receive(self, data: bytes) -> bytes:
        """The answer to ``data``. Whatever else arrives, such as a late answer to an earlier request, is passed over."""
        await self.send(data)
        while not _answers(message := await self.receive(), data):
            pass
        return message

    @property
    def mtu(self) -> int:
        return self._mtu


def _answers(message: bytes, request: bytes) -> bool:
    """Whether ``message`` is whole and has the request's version, group, sequence and command, and the reply's operation."""
    return (
        len(message) >= Header.SIZE
        and message[0] == request[0] + 1
        and int.from_bytes(message[2:4]) == len(message) - Header.SIZE
        and message[4:8] == request[4:8]
    )
