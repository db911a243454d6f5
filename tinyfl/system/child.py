"""Child processes that end with this process, even if it is killed."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from tinyfl.system.interrupts import signals_deferred
from tinyfl.system.limits import demand_resources

DEADLINE = 30.0
"""Seconds within which a process must end."""


class Child:
    """A running ``command`` and its own children, in a session of their own: as a rule without input, and without this
    terminal's Ctrl-C, which the caller handles."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] | None = None,
        pass_fds: Sequence[int] = (),
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._watchdog: subprocess.Popen[bytes] | None = None
        with signals_deferred(), demand_resources():  # no process is left without its watchdog
            self.process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=pass_fds,
                cwd=cwd,
                env=env,
                start_new_session=True,
            )
            try:
                # The watchdog's input ends when this process does, even by kill -9.
                self._watchdog = subprocess.Popen(
                    ["sh", "-c", 'read -r line; kill -s KILL -- "-$0"', str(self.process.pid)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except BaseException:
                self.kill()
                raise

    def kill(self) -> None:
        """Kills the process and its session. The watchdog ends before the process is reaped, while its id cannot be reused."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if self._watchdog:
            self._watchdog.kill()
            self._watchdog.communicate(timeout=DEADLINE)
        self.process.wait(DEADLINE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                with suppress(BrokenPipeError):  # of input that it did not take
                    stream.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()


def run(
    command: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs ``command`` to its end in the folder ``cwd``, with the environment ``env``; returns its exit code and output."""
    with Child(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd, env=env) as child:
        output = [stream.decode(errors="replace") for stream in child.process.communicate()]
    return subprocess.CompletedProcess(command, child.process.returncode, *output)
