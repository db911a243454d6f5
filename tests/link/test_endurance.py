"""A link that is used hard: opened and closed all day, shared with others, at the emulator's full speed, and while the board
is at work. Requests here are sent once: a byte that is lost ends in Late, not in a repeat."""

import asyncio
import fcntl
import hashlib
import os
import random
import shutil
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import serial
from smp.os_management import EchoWriteResponse
from smpclient.requests.os_management import EchoWrite
from smpclient.transport.serial import Cobs

from tinyfl.algorithms import Inner
from tinyfl.errors import Dead
from tinyfl.fleets.emulation import emulate
from tinyfl.link.board import LinkedBoard, Round, floats
from tinyfl.link.messages import rounds
from tinyfl.link.status import BoardState
from tinyfl.link.wire import SerialWire, Wire
from tinyfl.networks import Network, network
from tinyfl.tasks.sine import Sine

BOARD = "mps2-an386"
TASK = Sine(1)
SECONDS = 60.0
"""Before a request would be sent again, or given up."""


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Serves one emulated board on a link: its url."""
    for module in ("unicorn", "elftools", "ziglang"):
        if find_spec(module) is None:
            pytest.skip(f"needs {module}: pip install 'tinyfl[firmware]'")
    folder = tmp_path_factory.mktemp("firmware")

    @contextmanager
    def served(engine: str, link: Any = "pty") -> Iterator[str]:
        if engine == "qemu" and shutil.which("qemu-system-arm") is None:
            pytest.skip("needs qemu-system-arm: apt-get install qemu-system-arm")
        with emulate(BOARD, engine=engine, link=link, out=folder) as (board,):
            yield board.url

    return served


def mlp(name: str) -> Network:
    return network(name, (1,), 1, TASK.loss, TASK.activation)


class Once:
    """A wire that counts frames and bytes, and does not have them repeated."""

    def __init__(self, wire: Wire) -> None:
        self.wire, self.patience = wire, SECONDS
        self.frames = self.sent = self.received = 0

    @classmethod
    async def open(cls, url: str) -> "Once":
        """Waits for whoever has the port."""
        while True:
            try:
                return cls(await SerialWire.open(url))
            except Dead as busy:
                if "lock" not in str(busy):
                    raise
                await asyncio.sleep(0.001)

    async def send(self, data: bytes) -> None:
        self.frames += 1
        self.sent += len(data)
        await self.wire.send(data)

    async def receive(self) -> bytes:
        data = await self.wire.receive()
        self.received += len(data)
        return data

    async def close(self) -> None:
        await self.wire.close()


async def connect(url: str) -> LinkedBoard:
    return await LinkedBoard.connect(partial(Once.open, url), SECONDS)


def frames(board: LinkedBoard) -> int:
    assert isinstance(board._wire, Once)
    return board._wire.frames


def framed(request: Any) -> bytes:
    return b"\0" + b"".join(Cobs().encode(bytes(request)))


class Others:
    """Everyone else who uses the port, each time for a moment and under its lock: they ask and read their answer, or write
    noise or a part of a request and leave; ``rude``, they also leave while they are being answered. Their requests have a
    number that ours do not reach."""

    def __init__(self, url: str, rude: bool) -> None:
        self.url, self.rude, self.draw = url, rude, random.Random(1)
        self.asked = self.left = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Others":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self.draw.uniform(0, 0.002)):
            port = os.open(self.url, os.O_RDWR | os.O_NOCTTY)
            fcntl.flock(port, fcntl.LOCK_EX)
            text = "x" * self.draw.randrange(300)
            request = framed(EchoWrite(sequence=200, d=text))
            if self.draw.random() < 0.5:
                self.asked += self._answer(port, request) == text
            else:
                os.write(port, self._something(request))
                self.left += 1
            os.close(port)

    def _answer(self, port: int, request: bytes) -> str:
        termios.tcflush(port, termios.TCIFLUSH)
        os.write(port, request)
        framing = Cobs()
        while True:
            framing.feed(os.read(port, 4096))
            while (message := framing.take()) is not None:
                if message[6] == 200:
                    return EchoWriteResponse.loads(message).r

    def _something(self, request: bytes) -> Any:
        draw = self.draw
        part = request[: draw.randrange(1, len(request))]
        noise = draw.randbytes(draw.choice((1, 30, 3000)))
        rude = (request, request + part, noise + request, request * 3)
        return draw.choice((part, noise, b"\0" * 40, *(rude if self.rude else ())))


@pytest.mark.parametrize("engine", ["unicorn", "qemu"])
def test_200_opens_beside_others_lose_no_byte_and_reset_nothing(serve: Callable[..., Any], engine: str) -> None:
    net, draw = mlp("mlp-8-8"), random.Random(2)
    theta = net.initial_weights(1)
    held = hashlib.sha256(floats(theta)).digest()

    async def first(url: str) -> None:
        board = await connect(url)
        await board.put_plan(net.plan.bytes)
        await board.put_weights(theta)
        await board.close()

    async def visit(url: str, number: int) -> None:
        board = await connect(url)
        text = "ü" * draw.randrange(200) + "x" * draw.randrange(200)
        assert await board.echo(text) == text
        status = await board.status()
        assert (status.state, status.weights) == (BoardState.ready, held)  # in RAM: a reset would have emptied it
        assert frames(board) == 3
        if number % 20 == 0:
            np.testing.assert_array_equal(await board.weights(status), theta)
        await board.close()

    with serve(engine) as url:
        # QEMU looks once in a second whether somebody opened its pty, unless somebody has it open.
        keeper = os.open(url, os.O_RDWR | os.O_NOCTTY)
        asyncio.run(first(url))
        # And it has its board wait for whoever does not read what the board says, as no line would.
        with Others(url, rude=engine == "unicorn") as others:
            for number in range(200):
                asyncio.run(visit(url, number))
        os.close(keeper)
    assert others.asked > 20 and others.left > 20


@pytest.mark.parametrize("engine", ["unicorn", "qemu"])
def test_bulk_goes_there_and_back_without_a_loss_or_a_repeat(serve: Callable[..., Any], engine: str) -> None:
    """bench/link.py does the same with a megabyte."""
    net, draw = mlp("mlp-32-32"), random.Random(3)

    async def script(url: str) -> None:
        board = await connect(url)
        for _ in range(40):
            text = "".join(chr(draw.randrange(1, 0x7F)) for _ in range(700))
            assert await board.echo(text) == text
        assert frames(board) == 41
        await board.put_plan(net.plan.bytes)
        before = frames(board)
        for round in range(4):
            theta = net.initial_weights(round)
            await board.put_weights(theta)
            np.testing.assert_array_equal(await board.weights(), theta)
        size = len(floats(net.initial_weights(0)))
        blocks = -(-size // (board.description.buffer - 100))
        assert frames(board) - before <= 4 * (2 * blocks + 2)  # one more may hold the hash; the status
        await board.close()

    with serve(engine) as url:
        asyncio.run(script(url))


def test_a_board_at_work_hears_everything(serve: Callable[..., Any]) -> None:
    """In QEMU the UART's interrupt comes: twenty requests in one go, one after another, and the end of it, while it learns."""
    net = mlp("mlp-128-128")
    theta = net.initial_weights(1)

    async def script(url: str) -> None:
        board = await connect(url)
        await board.put_plan(net.plan.bytes)
        await board.put_weights(theta)
        base = hashlib.sha256(floats(theta)).digest()
        transport = board._transport
        endless = Round(0, 0, 0, Inner(samples=1 << 31, rate=0.0).to_bytes(), base, "sine")
        await transport.send(bytes(rounds.Train(sequence=250, **vars(endless))))
        done = []
        for _ in range(50):
            status = await board.status()
            assert status.state == BoardState.learning
            done.append(status.done)
        assert done == sorted(done) and done[-1] > done[0]
        await board._wire.send(b"".join(framed(rounds.StatusRead(sequence=100 + i)) for i in range(20)))
        answers = [await transport.receive() for _ in range(20)]
        assert [answer[6] for answer in answers] == list(range(100, 120))
        aborted = await board.abort()
        assert (aborted.state, aborted.code) == (BoardState.failed, -6)
        await transport.send(bytes(rounds.StatusRead(sequence=251)))
        assert {(await transport.receive())[6] for _ in range(2)} == {250, 251}  # the round's own answer is not forgotten
        await board.close()

    with serve("qemu") as url:
        asyncio.run(asyncio.wait_for(script(url), 4 * SECONDS))


# Control lines


def test_dtr_and_rts_are_low_before_a_port_opens_and_stay_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pty has no such lines: a port that writes down what is done to it stands in."""
    done: list[tuple[str, Any]] = []

    class Port:
        port, baudrate = "/dev/ttyACM0", 115_200

        def __setattr__(self, name: str, value: Any) -> None:
            done.append((name, value))

        def fileno(self) -> int:
            return 0

        def open(self) -> None:
            done.append(("open", None))

        def close(self) -> None:
            done.append(("close", None))

    def serial_for_url(url: str, **options: Any) -> Port:
        assert options["do_not_open"] and options["exclusive"]
        assert not any(options.get(flow) for flow in ("dsrdtr", "rtscts"))  # those would raise the lines
        return Port()

    async def script() -> None:
        wire = await SerialWire.open("/dev/ttyACM0")
        await wire.close()

    monkeypatch.setattr(serial, "serial_for_url", serial_for_url)
    asyncio.run(script())
    assert sorted(done[:4]) == [("dtr", False), ("rts", False), ("timeout", 0), ("write_timeout", 0)]
    assert done[4:] == [("open", None), ("close", None)]


def test_pyserial_only_ever_lowers_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyserial's own code on a pty, with the requests to the lines caught on their way to the kernel."""
    from serial import serialposix

    asked: list[int] = []

    class Caught:
        def __getattr__(self, name: str) -> Any:
            return getattr(fcntl, name)

        @staticmethod
        def ioctl(file: int, request: int, *rest: Any) -> Any:
            asked.append(request)
            return fcntl.ioctl(file, request, *rest) if request == serialposix.TIOCINQ else rest[0] if rest else 0

    async def script(url: str) -> None:
        wire = await SerialWire.open(url)
        await wire.send(b"hello")
        await wire.close()

    monkeypatch.setattr(serialposix, "fcntl", Caught())
    line, client = os.openpty()
    try:
        asyncio.run(script(os.ttyname(client)))
    finally:
        os.close(line)
        os.close(client)
    assert asked.count(serialposix.TIOCMBIC) == 2
    assert serialposix.TIOCMBIS not in asked
