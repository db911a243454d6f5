"""Wires: bytes to a board and back, over a serial port, a pty, a socket, or into an emulated board in this process."""

import asyncio
import errno
import io
import termios
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, runtime_checkable

import serial
from smp.header import Header
from smpclient.transport import SMPTransport
from smpclient.transport.serial import Cobs

from tinyfl.errors import Corrupt, Dead, NoLink, TinyflError
from tinyfl.errors.words import plain

FIRST_PATIENCE = 0.25
"""Seconds that a board may take to answer, beside those that the line takes."""

LONGEST_EXCHANGE = 2 * 1024 * 10
"""Bits on the line of a request and a reply, as long as boards' buffers are as a rule."""

MAX_READ = 1 << 12
"""Bytes that are taken from a port at a time, so that one that never falls silent leaves time for the others."""

CLOSE_SECONDS = 2.0
"""A port that is stuck is left to itself after these."""


LISTEN_SECONDS = 0.1
"""What a thread that reads a port waits at a time, before it looks whether the port is still wanted."""

GIVE = "Give a serial port, a pty's path, socket://host:port or rfc2217://host:port."


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
    """Whatever pyserial opens: a serial port, the path of a pty, ``socket://host:port``, ``rfc2217://host:port``.

    Waits on the file descriptor in the event loop. DTR and RTS stay low, so that opening resets no board."""

    timeouts: tuple[float | None, float | None] = (0, 0)
    """Of the port, for reading and for writing."""

    def __init__(self, port: serial.SerialBase) -> None:
        self._port = port
        self.patience = FIRST_PATIENCE + LONGEST_EXCHANGE / port.baudrate

    @classmethod
    async def open(cls, url: str, baud: int = 115200) -> "SerialWire":
        """Opens ``url`` for this process alone. Raises Dead where that fails, NoLink for an address that is none; whatever
        pyserial's handler of the address raises comes out as one of them."""
        try:
            port = serial.serial_for_url(_address(url), do_not_open=True, baudrate=baud, exclusive=True)
            kind = ThreadedWire if type(port).fileno is io.IOBase.fileno else cls
            port.timeout, port.write_timeout = kind.timeouts
            port.dtr = port.rts = False
        except OSError as error:
            raise Dead(_unopened(url, error)) from error
        except Exception as error:
            raise NoLink(f"{plain(url)} is no link ({_said(error)}). {GIVE}") from error
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
            raise Dead(_unopened(url, error)) from error
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
        """Waits until the port can be written, or read."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        watch, unwatch = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
        watch(self._port.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            unwatch(self._port.fileno())

    def _gone(self, error: Exception) -> Dead:
        return Dead(f"{plain(self._port.port)} is gone: {_said(error)}.")


class ThreadedWire(SerialWire):
    """A port that has no file descriptor to wait on, such as ``rfc2217://host:port``: a thread of its own reads it, so that
    a wait that is given up loses nothing. Such ports know no deadline for writing."""

    timeouts = (LISTEN_SECONDS, None)

    def __init__(self, port: serial.SerialBase) -> None:
        super().__init__(port)
        self._loop = asyncio.get_running_loop()
        self._heard: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self._over = False
        threading.Thread(target=self._listen, name=f"tinyfl-{port.port}", daemon=True).start()

    async def send(self, data: bytes) -> None:
        try:
            await asyncio.to_thread(self._port.write, data)
        except Exception as error:
            raise self._gone(error) from error

    async def receive(self) -> bytes:
        heard = await self._heard.get()
        if isinstance(heard, Exception):
            self._heard.put_nowait(heard)  # for whoever asks again
            raise self._gone(heard) from heard
        return heard

    async def close(self) -> None:
        self._over = True
        await super().close()

    def _listen(self) -> None:
        """Reads until the port is closed here or gone there."""
        try:
            while not self._over:
                if data := self._port.read(self._port.in_waiting or 1):
                    self._tell(bytes(data))
        except Exception as error:  # handlers raise what they like
            self._tell(error)

    def _tell(self, heard: bytes | Exception) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._heard.put_nowait, heard)


def _address(url: str) -> str:
    """As pyserial is to have it: RFC 2217 servers of ports without DTR and RTS, such as ptys, do not answer when these are
    set, and pyserial otherwise waits for that answer and gives up."""
    if not url.startswith("rfc2217://") or "ign_set_control" in url:
        return url
    return url + ("&" if "?" in url else "?") + "ign_set_control"


def _unopened(url: str, error: Exception) -> str:
    first = error.__context__
    if isinstance(first, OSError | termios.error) and first.args[:1] in ((errno.ENOTTY,), (errno.EISDIR,)):
        return f"{plain(url)} is no serial port ({_said(error)}). {GIVE}"
    return f"{plain(url)} cannot be opened ({_said(error)}). Check the cable, the name and who else has it open."


def _said(error: Exception) -> str:
    return plain(error) or type(error).__name__


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
        """The answer to ``data``. Whatever else arrives, such as a late answer to an earlier request, is passed over.

        Raises Corrupt for one that is longer than the board's buffer.
        """
        await self.send(data)
        while not _answers(message := await self.receive(), data):
            pass
        most = self._smp_server_transport_buffer_size or len(message)
        if len(message) > most:
            raise Corrupt(f"an answer has {len(message):,} bytes, and the board's buffer {most:,}.")
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
