"""Serves an emulated board in this process on a pty or TCP port, for any SMP client."""

import os
import select
import socket
import termios
import threading
import tty
from collections.abc import Callable, Generator
from contextlib import closing
from types import TracebackType
from typing import Literal, Protocol, runtime_checkable

from tinyfl.link.wire import Machine, Sliced, slices
from tinyfl.simulators import BoardFault

Link = Literal["pty", "tcp"]

AT_ONCE = 1 << 16
PATIENCE = 2.0
"""Seconds to wait for a client that does not read; unread bytes are then lost, as on a wire."""


SPEEDS = {getattr(termios, name): int(name[1:]) for name in dir(termios) if name[0] == "B" and name[1:].isdigit()}
"""Baud rates of a terminal's settings."""


@runtime_checkable
class Rated(Protocol):
    """A machine whose link has several baud rates (``rates``: beyond the first)."""

    @property
    def rates(self) -> tuple[int, ...]: ...

    def tune(self, baud: int) -> None:
        """Gives the host's end of the line this rate, 0: the first."""


class Bridge:
    """Serves ``machine`` at ``url`` in its own thread, one client after another, until ``close``.

    A board's fault is passed to ``faulted`` and ends the link.
    """

    def __init__(self, machine: Machine | Sliced, link: Link, faulted: Callable[[BoardFault], None]) -> None:
        self._advance, self._faulted = slices(machine), faulted
        self._rated, self._baud = machine if isinstance(machine, Rated) and link == "pty" else None, 0
        self._asleep = True
        self._stopped, self._stop = os.pipe()
        if link == "pty":
            # The client's side stays open here too, so that the line outlives its clients.
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
        """Closes the link after the board's current slice."""
        os.close(self._stop)
        self._thread.join()

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
        """Serves a client until it leaves, or the bridge is closed. A busy board gets input after its current slice."""
        while (ready := self._ready(line, wait=self._asleep)) is not None:
            try:
                data = os.read(line, AT_ONCE) if ready else b""
                if ready and not data:
                    return
                self._follow(line)
                output, self._asleep = self._advance(data)
                self._write(line, output)
            except OSError:  # the client left meanwhile
                return

    def _follow(self, line: int) -> None:
        """Gives the line the rate that its client chose, if the board has it too; any other counts as the first, for on a pty
        most clients choose none."""
        if self._rated is None:
            return
        baud = SPEEDS.get(termios.tcgetattr(line)[5], 0)
        baud = baud if baud in self._rated.rates else 0
        if baud != self._baud:
            self._baud = baud
            self._rated.tune(baud)

    def _clients(self, listener: socket.socket) -> Generator[int, None, None]:
        with listener:
            while self._ready(listener.fileno()) is not None:
                client, _ = listener.accept()
                with client:
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    client.setblocking(False)
                    yield client.fileno()

    def _ready(self, file: int, wait: bool = True) -> bool | None:
        """Whether ``file`` has input, after waiting for it if ``wait``; None if the bridge is closing."""
        return self._poll(file, select.POLLIN, None if wait else 0)

    def _write(self, line: int, data: bytes) -> None:
        while data and self._poll(line, select.POLLOUT, PATIENCE):
            data = data[os.write(line, data) :]

    def _poll(self, file: int, event: int, seconds: float | None) -> bool | None:
        """Whether ``file`` is ready within ``seconds`` (None: no timeout); None if the bridge is closing."""
        poll = select.poll()
        poll.register(file, event)
        poll.register(self._stopped, select.POLLIN)
        ready = dict(poll.poll(None if seconds is None else seconds * 1000))
        return None if self._stopped in ready else file in ready


def _pty(line: int, client: int) -> Generator[int, None, None]:
    try:
        yield line
    finally:
        os.close(line)
        os.close(client)
