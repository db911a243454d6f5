"""tinyfl emulate, and the bridge between a board of this process and the world."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import serial
from probe import need
from stock import EchoWrite, ask, demand_a_board

from tinyfl.building import boards
from tinyfl.errors import ConfigError
from tinyfl.fleets.emulation import emulate
from tinyfl.simulators import BoardFault
from tinyfl.simulators.bridge import Bridge


def never(fault: BoardFault) -> None:
    raise AssertionError(fault)


def address(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("socket://").split(":")
    return host, int(port)


def answering(exchange: Callable[[bytes], bytes]) -> Any:
    """A machine that says what ``exchange`` does."""
    return SimpleNamespace(exchange=exchange)


DOUBLED = answering(lambda data: data + data)


@pytest.mark.parametrize("link", ["pty", "tcp"])
def test_a_bridge_passes_every_byte_both_ways(link: Any) -> None:
    data = bytes(range(256)) * 8
    with Bridge(DOUBLED, link, never) as bridge:
        for _ in range(3):  # a client may leave, and come again
            with serial.serial_for_url(bridge.url, timeout=120) as port:
                for at in range(0, len(data), 512):
                    port.write(data[at : at + 512])
                    assert sorted(port.read(1024)) == sorted(data[at : at + 512] * 2)


def test_a_client_that_never_reads_does_not_stop_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyfl.simulators.bridge.PATIENCE", 0.05)
    with Bridge(answering(lambda data: bytes(1 << 16) if b"flood" in data else data), "pty", never) as bridge:
        with serial.serial_for_url(bridge.url) as port:
            port.write(b"flood")
        for _ in range(50):
            with serial.serial_for_url(bridge.url, timeout=1) as port:
                port.write(b"hello")
                if port.read(5) == b"hello":
                    return
    raise AssertionError("the next client got no answer")


def test_a_client_that_is_cut_off_does_not_stop_the_next() -> None:
    with Bridge(DOUBLED, "tcp", never) as bridge:
        for _ in range(3):
            with socket.create_connection(address(bridge.url)) as client:
                client.sendall(b"x" * 1000)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # ends with a reset
        with socket.create_connection(address(bridge.url), timeout=120) as client:
            client.sendall(b"ab")
            assert client.recv(4) in (b"abab", b"aabb")


def test_a_board_that_faults_is_reported_and_leaves_the_link() -> None:
    faults: list[BoardFault] = []

    def broken(data: bytes) -> bytes:
        raise BoardFault("gone")

    with Bridge(answering(broken), "tcp", faults.append) as bridge:
        with socket.create_connection(address(bridge.url), timeout=120) as client:
            client.sendall(b"x")
            assert client.recv(1) == b""
        bridge._thread.join(300)
        with pytest.raises(OSError):
            socket.create_connection(address(bridge.url), timeout=10).close()
    assert [str(fault) for fault in faults] == ["gone"]


@pytest.mark.parametrize(("board", "link"), [("mps2-an386", "pty"), ("mps2-an386", "tcp"), ("stm32f405", "pty")])
def test_a_stock_client_speaks_to_a_board_in_this_process(firmware: Callable[[str], Path], board: str, link: Any) -> None:
    need("unicorn")
    from tinyfl.simulators.unicorn import Machine

    machine = Machine(firmware(board), boards.load(board), 0xABCDEF)
    with Bridge(machine, link, never) as bridge:
        for _ in range(2):
            demand_a_board(bridge.url, board, 0xABCDEF)
        text = "x" * 700
        assert ask(bridge.url, EchoWrite(d=text))[0].r == text


def test_boards_of_one_process_are_many(firmware: Callable[[str], Path]) -> None:
    need("unicorn")
    with emulate("mps2-an386", 16, link="tcp", first=100, out=firmware("mps2-an386").parent) as running:
        assert [board.id for board in running] == [f"{serial_number:016x}" for serial_number in range(100, 116)]
        assert len({board.url for board in running}) == 16
        for serial_number in (100, 115):
            demand_a_board(running[serial_number - 100].url, "mps2-an386", serial_number)


@contextmanager
def run(cache: Path, *options: str) -> "Iterator[subprocess.Popen[str]]":
    command = [sys.executable, "-m", "tinyfl.cli", "emulate", *options]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as emulating:
        try:
            yield emulating
        finally:
            emulating.kill()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_boards_until_a_signal(firmware: Callable[[str], Path], tmp_path: Path, end: signal.Signals) -> None:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler (cc): apt-get install gcc libc6-dev")
    out = str(firmware("posix").parent)
    with run(tmp_path, "--board", "posix", "--count", "2", "--link", "tcp", "--json", "--out", out) as emulating:
        assert emulating.stdout is not None
        running = json.loads(emulating.stdout.readline())["boards"]
        assert [board["board"] for board in running] == ["posix", "posix"]
        for serial_number, board in enumerate(running, 1):
            assert board["id"] == f"{serial_number:016x}"
            demand_a_board(board["url"], "posix", serial_number)
        emulating.send_signal(end)
        assert emulating.wait(300) == 0
    for board in running:
        with pytest.raises(OSError):
            socket.create_connection(address(board["url"]), timeout=10).close()


@pytest.mark.usefixtures("qemu")
def test_the_command_prints_a_table(firmware: Callable[[str], Path], tmp_path: Path) -> None:
    out = str(firmware("mps2-an386").parent)
    options = ["--board", "mps2-an386", "--engine", "qemu", "--link", "tcp", "--first-id", "7", "--out", out]
    with run(tmp_path, *options) as emulating:
        assert emulating.stdout is not None
        line = next(line for line in emulating.stdout if "0000000000000007" in line)
        assert "mps2-an386" in line
        demand_a_board(next(word for word in line.split() if word.startswith("socket://")), "mps2-an386", 7)
        emulating.terminate()
        assert emulating.wait(300) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "bochs"}, "no engine is called 'bochs'"),
        ({"link": "usb"}, "no link is called 'usb'"),
        ({"engine": "process"}, "engine process does not run mps2-an386"),
        ({"count": 0}, "0 boards"),
        ({"first": -1}, "--first-id -1"),
    ],
)
def test_what_cannot_be_emulated_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said), emulate("mps2-an386", **options):
        pass
