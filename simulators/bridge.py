"""A board of this process on a link of the outside world, for any program that speaks SMP."""

import os
import select
import socket
import threading
import tty
from collections.abc import Callable, Generator
from contextlib import closing
from types import TracebackType
from typing import Literal

from tinyfl.simulators import BoardFault

Link = Literal["pty", "tcp"]

AT_ONCE = 1 << 16
PATIENCE = 2.0
"""Seconds to wait for a client that does not read; what it leaves unread is then lost, as on a wire."""


class Bridge:
    """Serves ``exchange`` at ``url`` from a thread of its own, one client after another, until ``close``.

    A board that faults is reported to ``faulted`` and leaves the link.
    """

    def __init__(self, exchange: Callable[[bytes], bytes], link: Link, faulted: Callable[[BoardFault], None]) -> None:
        self._exchange, self._faulted = exchange, faulted
        self._stopped, self._stop = os.pipe()
        if link == "pty":
            # This end of the client's side stays open, so that the line outlives its clients.
            line, client = os.openpty()
            tty.setraw(client)
            os.set_blocking(line, False)
            self.url = os.ttyname(client)
            lines = _pty(line, client)
        else:
            listener = socket.create_server(("127.0.0.1", 0))
            self.url = f"socket://127.0.0.1:{listener.getsockname()[1]}"
            lines = self._clients(listener)
        self._thread = threading.Thread(target=self._serve, args=(lines,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the link, once the exchange under way is done; does not wait long for that."""
        os.close(self._stop)
        self._thread.join(PATIENCE)

    def __enter__(self) -> "Bridge":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _serve(self, lines: Generator[int, None, None]) -> None:
        try:
            with closing(lines):
                for line in lines:
                    self._talk(line)
        except BoardFault as fault:
            self._faulted(fault)
        finally:
            os.close(self._stopped)

    def _talk(self, line: int) -> None:
        """Until the client leaves, or the bridge is closed."""
        while self._ready(line):
            try:
                data = os.read(line, AT_ONCE)
                if not data:
                    return
                _write(line, self._exchange(data))
            except OSError:  # the client left in the middle of it
                return

    def _clients(self, listener: socket.socket) -> Generator[int, None, None]:
        with listener:
            while self._ready(listener.fileno()):
                client, _ = listener.accept()
                with client:
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    client.setblocking(False)
                    yield client.fileno()

    def _ready(self, file: int) -> bool:
        """Waits for input of ``file``; False once the bridge is to close."""
        poll = select.poll()
        poll.register(file, select.POLLIN)
        poll.register(self._stopped, select.POLLIN)
        return self._stopped not in dict(poll.poll())


def _pty(line: int, client: int) -> Generator[int, None, None]:
    try:
        yield line
    finally:
        os.close(line)
        os.close(client)


def _write(line: int, data: bytes) -> None:
    poll = select.poll()
    poll.register(line, select.POLLOUT)
    while data and poll.poll(PATIENCE * 1000):
        data = data[os.write(line, data) :]
