"""Wires of every kind, against a board that answers from a thread; and any way of cutting the bytes."""

import asyncio
import os
import queue
import select
import socket
import threading
import tty
from binascii import crc_hqx
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import serial
from double import Double, cobs
from hypothesis import given
from hypothesis import strategies as st
from serial import rfc2217

from tinyfl.devices.ports import trouble
from tinyfl.errors import Dead, NoLink
from tinyfl.link.board import LinkedBoard, floats
from tinyfl.link.wire import MachineWire, SerialWire, Silent, TunedWire, Wire, WireTransport
from tinyfl.networks import network
from tinyfl.simulators.faults import Fault, faulty
from tinyfl.tasks.sine import Sine

TASK = Sine(1)
NETWORK = network("mlp-20-20", (1,), 1, TASK.loss, TASK.activation)
THETA = NETWORK.initial_weights(1)


def serve(board: Double, source: int, stop: threading.Event) -> None:
    """A board's main loop over a file descriptor, until ``stop`` or the far end goes."""
    while not stop.is_set():
        if select.select([source], [], [], 0.01)[0]:
            try:
                data = os.read(source, 100)
            except OSError:
                return
            if not data:
                return
            os.write(source, board.exchange(data))


@contextmanager
def served(board: Double, source: int) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=serve, args=(board, source, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def pty_board(board: Double) -> Iterator[str]:
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    try:
        with served(board, ours):
            yield os.ttyname(theirs)
    finally:
        os.close(ours)
        os.close(theirs)


@contextmanager
def socket_board(board: Double) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[socket.socket] = []

        def accept() -> None:
            connection, _ = listener.accept()
            accepted.append(connection)
            serve(board, connection.fileno(), stop)

        stop = threading.Event()
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"socket://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            thread.join()
            for connection in accepted:
                connection.close()


class Answering(serial.SerialBase):  # type: ignore[misc]
    """A port of pyserial's, without modem lines, at whose far end is ``board``."""

    def __init__(self, board: Double) -> None:
        super().__init__()
        self._board, self._heard = board, queue.SimpleQueue[int]()
        self.is_open = True

    def write(self, data: bytes) -> int:
        for byte in self._board.exchange(bytes(data)):
            self._heard.put(byte)
        return len(data)

    def read(self, size: int = 1) -> bytes:
        return bytes(self._heard.get() for _ in range(min(size, self.in_waiting)))

    @property
    def in_waiting(self) -> int:
        return self._heard.qsize()

    cts = dsr = ri = cd = False

    def _reconfigure_port(self) -> None:
        pass

    _update_dtr_state = _update_rts_state = reset_input_buffer = reset_output_buffer = _reconfigure_port


@contextmanager
def rfc2217_board(board: Double) -> Iterator[str]:
    """Behind pyserial's own server of RFC 2217."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                far = Answering(board)
                manager = rfc2217.PortManager(far, SimpleNamespace(write=connection.sendall))
                while not stop.is_set():
                    if select.select([connection], [], [], 0.01)[0]:
                        if not (data := connection.recv(1024)):
                            return
                        far.write(b"".join(manager.filter(data)))
                        connection.sendall(b"".join(manager.escape(far.read(1 << 16))))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"rfc2217://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            thread.join()


async def put_and_get(url: str) -> Any:
    board = await LinkedBoard.connect(lambda: SerialWire.open(url))
    await board.put_plan(NETWORK.plan.bytes)
    await board.put_weights(THETA)
    weights = await board.weights()
    await board.close()
    return weights


@pytest.mark.parametrize("kind", [pty_board, socket_board, rfc2217_board])
def test_weights_go_there_and_back(kind: Callable[[Double], Any]) -> None:
    with kind(Double()) as url:
        assert (asyncio.run(put_and_get(url)) == THETA).all()


def test_lost_frames_are_sent_again_over_a_port_that_does_not_say_so() -> None:
    lost = [Fault("to-board", 2, "drop"), Fault("to-host", 4, "flip", 9), Fault("to-host", 6, "delay")]

    async def script(url: str) -> Any:
        board = await LinkedBoard.connect(faulty(lambda: SerialWire.open(url, baud=1_000_000), lost))
        await board.put_plan(NETWORK.plan.bytes)
        await board.put_weights(THETA)
        return await board.weights()

    with pty_board(Double()) as url:
        assert (asyncio.run(script(url)) == THETA).all()


def test_a_port_has_one_user_and_can_be_opened_again() -> None:
    async def script(url: str) -> None:
        first = await SerialWire.open(url)
        with pytest.raises(Dead, match="cannot be opened"):
            await SerialWire.open(url)
        await first.close()
        await (await SerialWire.open(url)).close()

    with pty_board(Double()) as url:
        asyncio.run(script(url))


def test_a_long_message_goes_through_a_narrow_pipe() -> None:
    """More than a pty's buffer holds, so that sending has to wait for the far end."""

    async def script(url: str) -> None:
        wire = await SerialWire.open(url)
        await wire.send(b"\1" * 100_000 + b"\0")
        await LinkedBoard(wire).describe()
        await wire.close()

    with pty_board(Double()) as url:
        asyncio.run(script(url))


@pytest.mark.parametrize("url", ["/dev/there-is-no-such-port", "socket://127.0.0.1:1"])
def test_a_port_that_is_not_there_is_dead(url: str) -> None:
    with pytest.raises(Dead, match="cannot be opened"):
        asyncio.run(SerialWire.open(url))


@pytest.mark.parametrize("url", ["carrier-pigeon://roof", "cp2110://1", "alt:///dev/null?class=Nope"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(NoLink, match=r"is not a link \(.*Give a serial port, a pty's path, socket://host:port or rfc2217://"):
        asyncio.run(SerialWire.open(url))


@pytest.mark.parametrize("name", ["file", "folder", "fifo", "/dev/null"])
def test_what_is_no_serial_port_is_said_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Dead, match=r"is not a serial port \(.*Give a serial port"):
        asyncio.run(SerialWire.open(str(tmp_path / name)))


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\ud800", "", "/dev/ttyUSB0\x1b[2J"])
def test_no_name_raises_anything_else(name: str) -> None:
    with pytest.raises(Dead, match="cannot be opened") as raised:
        asyncio.run(SerialWire.open(name))
    assert len(str(raised.value)) < 1000 and str(raised.value).isprintable()
    assert trouble(raised.value) == "gone"


@pytest.mark.parametrize(
    "error", [NotImplementedError("no"), RuntimeError(), TypeError("\x1b[2J"), ImportError("hid"), OSError(5, "io")]
)
@pytest.mark.parametrize("when", ["made", "opened"])
def test_whatever_a_handler_of_addresses_raises_costs_this_port_only(
    monkeypatch: pytest.MonkeyPatch, error: Exception, when: str
) -> None:
    class Handler(serial.SerialBase):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            if when == "made":
                raise error

        dtr = rts = timeout = write_timeout = None

        def open(self) -> None:
            raise error

    monkeypatch.setattr(serial, "serial_for_url", lambda url, do_not_open, **options: Handler(url, **options))
    with pytest.raises(Dead) as raised:
        asyncio.run(SerialWire.open("odd://port"))
    assert "\x1b" not in str(raised.value) and trouble(raised.value) == "gone"


def test_a_port_that_a_thread_reads_loses_nothing_to_a_wait_that_is_given_up_and_is_dead_once_it_is_gone() -> None:
    class Port(Answering):
        gone = threading.Event()

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(Double())

        def open(self) -> None:
            pass

        def read(self, size: int = 1) -> bytes:
            if self.gone.is_set():
                raise TypeError("what pyserial raises")
            return super().read(size) or (self.gone.wait(0.01) and b"") or b""

    async def script() -> None:
        wire = await SerialWire.open("odd://port")
        waiting = asyncio.create_task(wire.receive())
        await asyncio.sleep(0.05)
        waiting.cancel()
        board = LinkedBoard(wire)
        assert (await board.describe()).board == "double"
        Port.gone.set()
        for _ in range(2):
            with pytest.raises(Dead, match="odd://port is gone: what pyserial raises"):
                await wire.receive()
        await wire.close()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(serial, "serial_for_url", lambda url, do_not_open, **options: port)
        port = Port()
        port._port = "odd://port"
        asyncio.run(script())


def test_a_socket_keeps_its_rate_which_its_far_end_would_not_follow() -> None:
    async def script(url: str) -> None:
        board = await LinkedBoard.connect(lambda: TunedWire.open(url))
        assert await board.echo("there") == "there"
        await board.close()

    double = Double()
    with socket_board(double) as url:
        asyncio.run(script(url))
    assert double.baud == 115_200


def test_a_port_that_cannot_have_a_rate_keeps_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    really, set_to = serial.Serial._reconfigure_port, list[int]()

    def reconfigured(self: serial.Serial, **options: Any) -> None:
        if self.baudrate > 400_000:
            raise ValueError("an old adapter")
        set_to.append(self.baudrate)
        really(self, **options)

    async def script(url: str) -> None:
        wire = await TunedWire.open(url)
        board = await LinkedBoard.connect(lambda: asyncio.sleep(0, wire))
        assert isinstance(wire, TunedWire) and wire.baud == double.baud == 230_400
        assert await board.echo("there") == "there"
        await board.close()

    double = Double()
    monkeypatch.setattr(serial.Serial, "_reconfigure_port", reconfigured)
    with pty_board(double) as url:
        asyncio.run(script(url))
    assert double.baud == 115_200 and set_to[:4] == [115_200, 115_200, 230_400, 115_200]


def test_a_port_that_goes_is_dead() -> None:
    async def script() -> None:
        ours, theirs = os.openpty()
        wire = await SerialWire.open(os.ttyname(theirs))
        os.close(theirs)
        os.close(ours)
        with pytest.raises(Dead, match="is gone"):
            await wire.receive()
        with pytest.raises(Dead, match="is gone"):
            await wire.send(b"\0")
        await wire.close()

    asyncio.run(script())


def test_a_socket_that_is_closed_is_dead() -> None:
    async def script() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            wire = await SerialWire.open(f"socket://127.0.0.1:{listener.getsockname()[1]}")
            listener.accept()[0].close()
            with pytest.raises(Dead, match="is gone"):
                await wire.receive()
            await wire.close()

    asyncio.run(script())


def test_a_machine_that_sleeps_is_silent() -> None:
    async def script() -> None:
        wire = await MachineWire(Double()).open()
        with pytest.raises(Silent):
            await wire.receive()
        await wire.send(b"\1\2\3\0")
        with pytest.raises(Silent):
            await wire.receive()

    asyncio.run(script())


def test_a_wait_that_is_given_up_does_not_overlap_the_machines_next_exchange() -> None:
    class Deep:
        inside, go = 0, threading.Event()

        def exchange(self, data: bytes) -> bytes:
            assert self.inside == 0
            self.inside += 1
            self.go.wait()
            self.inside -= 1
            return data

    async def script() -> None:
        machine = Deep()
        wire = await MachineWire(machine).open()
        await wire.send(b"1")
        waiting = asyncio.create_task(wire.receive())
        await asyncio.sleep(0)
        waiting.cancel()
        await wire.send(b"2")
        machine.go.set()
        assert await wire.receive() + await wire.receive() == b"12"

    asyncio.run(script())


class Pieces:
    """A wire that brings prepared pieces, then is silent."""

    patience = float("inf")

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    async def send(self, data: bytes) -> None:
        pass

    async def receive(self) -> bytes:
        if not self.pieces:
            raise Silent
        return self.pieces.pop(0)

    async def close(self) -> None:
        pass


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(at % (len(data) + 1) for at in cuts), len(data)]
    return [piece for a, b in pairwise(edges) if (piece := data[a:b])]


def framed(message: bytes) -> bytes:
    return cobs(message + crc_hqx(message, 0).to_bytes(2)) + b"\0"


async def all_of(wire: Wire) -> list[bytes]:
    transport, heard = WireTransport(wire), []
    try:
        while True:
            heard.append(await transport.receive())
    except Silent:
        return heard


messages = st.lists(st.binary(min_size=1, max_size=600), max_size=5)
cuts = st.lists(st.integers(0, 5000), max_size=20)


@given(messages, cuts)
def test_messages_arrive_whole_however_the_bytes_are_cut(sent: list[bytes], cuts: list[int]) -> None:
    assert asyncio.run(all_of(Pieces(cut(b"".join(map(framed, sent)), cuts)))) == sent


@given(messages, st.binary(max_size=300), cuts)
def test_noise_costs_no_message_after_its_first_zero(sent: list[bytes], noise: bytes, cuts: list[int]) -> None:
    data = noise + b"\0" + b"".join(map(framed, sent))
    heard = asyncio.run(all_of(Pieces(cut(data, cuts))))
    assert heard[len(heard) - len(sent) :] == sent


@given(st.lists(st.binary(max_size=40), max_size=6), cuts)
def test_a_request_finds_its_answer_in_any_noise(noise: list[bytes], cuts: list[int]) -> None:
    request = bytes([8, 0, 0, 1, 0, 65, 7, 0, 0xA0])
    answer = bytes([9, 0, 0, 1, 0, 65, 7, 0, 0xA0])
    stale = [answer[:6] + b"\6" + answer[7:], request, answer + b"x", answer[:7] + b"\1" + answer[8:]]
    data = b"".join(framed(message) for message in (*stale, *filter(None, noise), answer))
    assert asyncio.run(WireTransport(Pieces(cut(data, cuts))).send_and_receive(request)) == answer


def test_floats_travel_little_endian() -> None:
    assert floats(THETA[:1]) == THETA[:1].astype("<f4").tobytes()
