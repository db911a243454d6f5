"""Processes that end with this one, however that ends."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from tinyfl.system.interrupts import held_back

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
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        with held_back():  # so that none is left without its watch
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                pass_fds=pass_fds,
                cwd=cwd,
                env=env,
                start_new_session=True,
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
        """Ends the process and those of its session at once. The watch goes next, while nobody else can have their number."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self._watch.kill()
        self._watch.communicate(timeout=DEADLINE)
        self.process.wait(DEADLINE)
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()


def run(
    command: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs ``command`` in the folder ``cwd``, with the environment ``env``, to its end: its code, and what it says."""
    with Child(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd, env=env) as child:
        said = [words.decode(errors="replace") for words in child.process.communicate()]
    return subprocess.CompletedProcess(command, child.process.returncode, *said)
