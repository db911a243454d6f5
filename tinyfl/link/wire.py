"""Wires: bytes to a board and back, over a serial port, a pty, a socket, or into an emulated board in this process."""

import asyncio
import errno
import io
import os
import termios
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Protocol, runtime_checkable

import serial
from smp.header import Header
from smpclient.transport import SMPTransport
from smpclient.transport.serial import Cobs

from tinyfl.errors import Corrupt, Dead, NoLink, TinyflError
from tinyfl.errors.words import plain
from tinyfl.link.line import Line

FIRST_PATIENCE = 0.25
"""Time for a board's answer, in seconds, in addition to the time on the line."""

EXCHANGE_BITS = 2 * 1024 * 10
"""Bits on the line of a request and a reply of the usual buffer size."""

MAX_READ = 1 << 12
"""Maximum bytes per read, so that a port that never falls silent leaves time for the others."""

CLOSE_SECONDS = 2.0
"""Timeout for closing a port; a stuck one is abandoned."""

READ_SECONDS = 0.1
"""Timeout of a read in a reader thread, before it checks whether the port was closed."""

PTYS = ("/dev/pts/", "/dev/ttys")
"""Where Linux and macOS have ptys, which carry bytes at no rate."""

HINT = "Give a serial port, a pty's path, socket://host:port or rfc2217://host:port."


class Silent(Exception):
    """No more bytes will come: the board sleeps, and has sent everything."""


class Overtaken(Exception):
    """A later request was answered: a board answers in order, so the earlier request, or its answer, was lost."""


class Wire(Protocol):
    """A byte stream in both directions. Once the far end is gone, every method but ``close`` raises Dead."""

    patience: float
    """Seconds without an answer before a request is sent again; infinite if ``receive`` raises Silent instead."""

    async def send(self, data: bytes) -> None:
        """Sends ``data``; returns once it is in transit."""

    async def receive(self) -> bytes:
        """Waits for the next bytes, at least one, and returns them. Raises Silent if none will ever come."""

    async def close(self) -> None:
        """Releases the port. No method may be called after it."""


Opener = Callable[[], Awaitable[Wire]]
"""Opens a connection to one board at each call. Raises Dead if there is no board."""


class SerialWire:
    """A link opened by pyserial: a serial port, the path of a pty, ``socket://host:port``, ``rfc2217://host:port``.

    Waits on the file descriptor in the event loop. DTR and RTS stay low, so that opening does not reset the board."""

    timeouts: tuple[float | None, float | None] = (0, 0)
    """The port's timeouts for reading and for writing."""

    def __init__(self, port: serial.SerialBase) -> None:
        self._port = port
        self.patience = FIRST_PATIENCE + EXCHANGE_BITS / port.baudrate
        at = str(port.port)
        self._paced = isinstance(port, serial.Serial) and not os.path.realpath(at).startswith(PTYS)
        self._paced |= at.startswith("rfc2217://")

    @property
    def rate(self) -> int:
        """The baud rate of the line; 0 for a socket or a pty, which has none."""
        return int(self._port.baudrate) if self._paced else 0

    @classmethod
    async def open(cls, url: str, baud: int = 115200) -> "SerialWire":
        """Opens ``url`` exclusively. Raises Dead if that fails, NoLink for an invalid address; any error of pyserial's handler
        is raised as one of these."""
        try:
            port = serial.serial_for_url(_address(url), do_not_open=True, baudrate=baud, exclusive=True)
            kind = ThreadedWire if type(port).fileno is io.IOBase.fileno else cls
            port.timeout, port.write_timeout = kind.timeouts
            port.dtr = port.rts = False
        except OSError as error:
            raise Dead(_open_failure(url, error)) from error
        except Exception as error:
            raise NoLink(f"{plain(url)} is not a link ({_reason(error)}). {HINT}") from error
        opening = asyncio.ensure_future(asyncio.to_thread(port.open))
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            loop = asyncio.get_running_loop()
            opening.add_done_callback(
                lambda done: done.cancelled() or done.exception() or loop.run_in_executor(None, port.close)
            )
            raise
        except Exception as error:
            raise Dead(_open_failure(url, error)) from error
        return kind(port)

    async def send(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                await self._ready(writing=True)
                rest = rest[self._port.write(rest) :]
        except OSError as error:
            raise self._gone(error) from error

    async def receive(self) -> bytes:
        try:
            while True:
                await self._ready(writing=False)
                if data := self._port.read(MAX_READ):
                    return bytes(data)
        except OSError as error:
            raise self._gone(error) from error

    async def close(self) -> None:
        await asyncio.wait([asyncio.ensure_future(asyncio.to_thread(self._port.close))], timeout=CLOSE_SECONDS)

    async def _ready(self, writing: bool) -> None:
        """Waits until the port is ready for writing, or for reading."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        watch, unwatch = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
        watch(self._port.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            unwatch(self._port.fileno())

    def _gone(self, error: Exception) -> Dead:
        return Dead(f"{plain(self._port.port)} is gone: {_reason(error)}.")


class TunedWire(SerialWire):
    """A serial port whose rate may change after it was opened (tinyfl.link.rates). Others that are opened as one keep theirs: a
    socket's far end would not follow."""

    def __init__(self, port: serial.SerialBase) -> None:
        super().__init__(port)
        self.first = self.baud = int(port.baudrate)

    async def tune(self, baud: int) -> None:
        """Changes the port's rate. Raises NoLink if it cannot have this one, and keeps the one before."""
        if not isinstance(self._port, serial.Serial):
            raise NoLink(f"{plain(self._port.port)} has no rate of its own. Leave --baud auto out.")
        failures = (OSError, ValueError, termios.error)
        try:
            await asyncio.to_thread(setattr, self._port, "baudrate", baud)
        except failures as error:
            with suppress(*failures):
                await asyncio.to_thread(setattr, self._port, "baudrate", self.baud)
            raise NoLink(f"{plain(self._port.port)} cannot have {baud:,} baud: {_reason(error)}.") from error
        self.baud, self.patience = baud, FIRST_PATIENCE + EXCHANGE_BITS / baud


def wire_kind(auto: bool) -> type[SerialWire]:
    """The kind of wire for a port whose rate is to be raised if ``auto``."""
    return TunedWire if auto else SerialWire


class ThreadedWire(SerialWire):
    """A port without a file descriptor to wait on, such as ``rfc2217://host:port``. Its own thread reads it, so that a
    cancelled wait loses nothing. Such ports have no timeout for writing."""

    timeouts = (READ_SECONDS, None)

    def __init__(self, port: serial.SerialBase) -> None:
        super().__init__(port)
        self._loop = asyncio.get_running_loop()
        self._received: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self._closed = False
        threading.Thread(target=self._read, name=f"tinyfl-{port.port}", daemon=True).start()

    async def send(self, data: bytes) -> None:
        try:
            await asyncio.to_thread(self._port.write, data)
        except Exception as error:
            raise self._gone(error) from error

    async def receive(self) -> bytes:
        item = await self._received.get()
        if isinstance(item, Exception):
            self._received.put_nowait(item)  # for the next call
            raise self._gone(item) from item
        return item

    async def close(self) -> None:
        self._closed = True
        await super().close()

    def _read(self) -> None:
        """Reads until the port is closed, or gone."""
        try:
            while not self._closed:
                if data := self._port.read(self._port.in_waiting or 1):
                    self._deliver(bytes(data))
        except Exception as error:  # pyserial's handlers raise any type
            self._deliver(error)

    def _deliver(self, item: bytes | Exception) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._received.put_nowait, item)


def _address(url: str) -> str:
    """The address for pyserial. RFC 2217 servers of ports without DTR and RTS, such as ptys, do not confirm these; pyserial
    must be told not to wait for the confirmation."""
    if not url.startswith("rfc2217://") or "ign_set_control" in url:
        return url
    return url + ("&" if "?" in url else "?") + "ign_set_control"


def _open_failure(url: str, error: Exception) -> str:
    first = error.__context__
    if isinstance(first, OSError | termios.error) and first.args[:1] in ((errno.ENOTTY,), (errno.EISDIR,)):
        return f"{plain(url)} is not a serial port ({_reason(error)}). {HINT}"
    return (
        f"{plain(url)} cannot be opened ({_reason(error)}). Check the cable, the name, and whether another process has it open."
    )


def _reason(error: Exception) -> str:
    return plain(error) or type(error).__name__


class Machine(Protocol):
    """An emulated board in this process."""

    def exchange(self, data: bytes) -> bytes:
        """Feeds ``data`` to the board's UART, runs the board until it sleeps without input, and returns its output."""


@runtime_checkable
class Sliced(Protocol):
    """An emulated board that runs in slices."""

    def advance(self, data: bytes) -> tuple[bytes, bool]:
        """Like ``exchange``, but for a short time only; returns (output, asleep). If not asleep, the next call continues."""


Advance = Callable[[bytes], tuple[bytes, bool]]


def slices(machine: Machine | Sliced) -> Advance:
    """The ``advance`` of a machine; one without slices runs whole exchanges."""
    return machine.advance if isinstance(machine, Sliced) else lambda data: (machine.exchange(data), True)


class MachineWire:
    """A machine's UART, one wire for its lifetime; ``open`` is its opener.

    While the wire is open, the machine runs in a thread, slice by slice. Bytes sent meanwhile reach it between slices, as in a
    UART's buffer. When the wire is closed, the machine stops where it is."""

    patience = float("inf")

    def __init__(self, machine: Machine | Sliced) -> None:
        self._advance = slices(machine)
        self._unsent: deque[bytes] = deque()
        self._received = bytearray()
        self._open = False
        self._slice: asyncio.Task[None] | None = None

    async def open(self) -> Wire:
        """Returns the wire itself, with empty buffers."""
        self._received.clear()
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
        """Runs a slice, and then another unless the board sleeps and has no input."""
        output, asleep = await asyncio.to_thread(self._advance, self._unsent.popleft() if self._unsent else b"")
        self._received += output
        if self._open and (self._unsent or not asleep):
            self._slice = asyncio.create_task(self._run())

    async def receive(self) -> bytes:
        while not self._received:
            if (slice := self._slice) is None:
                raise Silent
            try:
                await asyncio.shield(slice)
            except TinyflError as error:
                raise Dead(str(error)) from error
            if slice is self._slice:
                break
        if not self._received:
            raise Silent
        data = bytes(self._received)
        self._received.clear()
        return data

    async def close(self) -> None:
        """Stops the machine after the current slice."""
        self._open = False


class WireTransport(SMPTransport):
    """SMP over a wire, in frames of COBS and CRC-16. ``mtu`` is the maximum length of a message until ``initialize`` changes
    it.

    A frame also starts with a delimiter, which ends any partial frame that a fault left in the board's receiver."""

    def __init__(self, wire: Wire, mtu: int = 512) -> None:
        self._wire, self._mtu, self._framing = wire, mtu, Cobs()
        self.line = Line()

    async def connect(self, address: str, timeout_s: float) -> None:
        """Does nothing: the wire is already open."""

    async def disconnect(self) -> None:
        await self._wire.close()

    async def send(self, data: bytes) -> None:
        if len(data) > self.max_unencoded_size:
            raise ValueError(f"a message of {len(data)} bytes exceeds the board's maximum of {self.max_unencoded_size}")
        for frame in self._framing.encode(data):
            self.line = self.line.after(self._wire, sent=1 + len(frame))
            await self._wire.send(b"\0" + frame)

    async def receive(self) -> bytes:
        while (message := self._framing.take()) is None:
            received = await self._wire.receive()
            self.line = self.line.after(self._wire, received=len(received))
            self._framing.feed(received)
        return message

    async def send_and_receive(self, data: bytes) -> bytes:
        """Sends a request and returns its answer, as ``answer`` does."""
        await self.send(data)
        return await self.answer(data)

    async def answer(self, request: bytes, later: Iterable[bytes] = ()) -> bytes:
        """The answer to ``request``. Other messages, such as late answers to earlier requests, are ignored.

        Raises Overtaken for the answer to a request in ``later``, Corrupt for an answer longer than the board's buffer.
        """
        while not _answers(message := await self.receive(), request):
            if any(_answers(message, other) for other in later):
                raise Overtaken
        limit = self._smp_server_transport_buffer_size or len(message)
        if len(message) > limit:
            raise Corrupt(f"an answer has {len(message):,} bytes, but the board's buffer only {limit:,}.")
        return message

    @property
    def mtu(self) -> int:
        return self._mtu


def _answers(message: bytes, request: bytes) -> bool:
    """Whether ``message`` is complete, with the request's version, group, sequence and command, and the reply's operation."""
    return (
        len(message) >= Header.SIZE
        and message[0] == request[0] + 1
        and int.from_bytes(message[2:4]) == len(message) - Header.SIZE
        and message[4:8] == request[4:8]
    )
