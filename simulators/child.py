"""Processes that end with this one, however that ends."""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import IO

DEADLINE = 30.0
"""Seconds within which a process must end."""


class Child:
    """A running ``command``, and the processes that it starts in its session. It gets no input and is not of this terminal, so
    Ctrl-C is left to whoever started it."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, pass_fds=pass_fds, start_new_session=True
        )
        # The watch's input ends when this process does, even by kill -9.
        self._watch = subprocess.Popen(
            ["sh", "-c", 'read -r line; kill -s KILL -- "-$0"', str(self.process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def kill(self) -> None:
        """Ends the process and those of its session at once. The watch goes first: it must not outlive what it watches."""
        self._watch.kill()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self._watch.communicate(timeout=DEADLINE)
        self.process.wait(DEADLINE)
        if self.process.stdout:
            self.process.stdout.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()
