"""Flower's SuperExec as a program: it starts a process for each task, a run's coordinator or a message's ClientApp.

Two things differ from Flower's. A task's token goes to its process by standard input, not in the command line, which every user
of the machine can read. And the number of concurrent tasks is limited: Flower reissues a task whose process is not up within 30
seconds without ending the first one, so the load of a busy machine would only grow.
"""

import subprocess
import tempfile
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from tinyfl.deployment.inner import inner

MAX_TASKS = 4
"""Maximum number of concurrent processes; a further task waits until one has ended."""

KINDS = {"flwr-serverapp", "flwr-clientapp"}
"""Kinds of tasks that a known app needs. Flower has others, for agents."""


class Tasks:
    """The started processes, with the interface that Flower's executor for processes uses."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def popen(self, command: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
        """Starts the command ``command``, with the value of --token in an unnamed file instead."""
        at = command.index("--token")
        with tempfile.TemporaryFile() as token:
            token.write(command[at + 1].encode())
            token.seek(0)
            command = [*command[:at], "--token-file", "/dev/stdin", *command[at + 2 :]]
            self._running.append(subprocess.Popen(command, stdin=token, **options))
        return self._running[-1]

    def eligible(self, kinds: set[Any], **_: object) -> tuple[set[Any], set[str]]:
        """The ``kinds`` of tasks that may be started now; and the hashes of agents' apps, always empty."""
        self._running = [process for process in self._running if process.poll() is None]
        return {kind for kind in kinds if kind in KINDS} if len(self._running) < MAX_TASKS else set(), set()


def main() -> None:
    """Runs Flower's program with these two changes.

    Raises InstallError for another version of Flower.
    """
    executor = inner("flwr.supercore.superexec.executor.subprocess_executor", "subprocess", "SubprocessExecutor")
    tasks = Tasks()
    executor.SubprocessExecutor.get_eligible_capacity = staticmethod(tasks.eligible)
    executor.subprocess = SimpleNamespace(Popen=tasks.popen, DEVNULL=subprocess.DEVNULL)
    inner("flwr.supercore.cli", "flower_superexec").flower_superexec()


if __name__ == "__main__":
    main()
