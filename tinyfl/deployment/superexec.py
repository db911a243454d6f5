"""Flower's SuperExec, as a program: what starts a process for each task, a run's coordinator or a message's ClientApp.

Two things differ. A task's token goes to its process by standard input, and not in a command line, which every user of the
machine can read. And only so many tasks are at hand at once: Flower hands a task out again where its process is not up within
30 seconds, and lets the first one be, so that a machine under load gets ever more of them.
"""

import subprocess
import tempfile
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from tinyfl.deployment.inner import inner

MAX_TASKS = 4
"""Processes at once; a further task waits until one has ended."""

KINDS = {"flwr-serverapp", "flwr-clientapp"}
"""Tasks that a known app needs. Flower has others, for agents."""


class Tasks:
    """The processes that were started, as Flower's executor for processes sees them."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def popen(self, words: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
        """Starts ``words``, with what follows --token in a file that has no name."""
        at = words.index("--token")
        with tempfile.TemporaryFile() as token:
            token.write(words[at + 1].encode())
            token.seek(0)
            words = [*words[:at], "--token-file", "/dev/stdin", *words[at + 2 :]]
            self._running.append(subprocess.Popen(words, stdin=token, **options))
        return self._running[-1]

    def wanted(self, kinds: set[Any], **_: object) -> tuple[set[Any], set[str]]:
        """Of ``kinds`` of tasks, those that may be started now; and the sums of agents' apps, which are none."""
        self._running = [process for process in self._running if process.poll() is None]
        return {kind for kind in kinds if kind in KINDS} if len(self._running) < MAX_TASKS else set(), set()


def main() -> None:
    """Flower's program with these two changes.

    Raises InstallError where another version of Flower's is installed.
    """
    executor = inner("flwr.supercore.superexec.executor.subprocess_executor", "subprocess", "SubprocessExecutor")
    tasks = Tasks()
    executor.SubprocessExecutor.get_eligible_capacity = staticmethod(tasks.wanted)
    executor.subprocess = SimpleNamespace(Popen=tasks.popen, DEVNULL=subprocess.DEVNULL)
    inner("flwr.supercore.cli", "flower_superexec").flower_superexec()


if __name__ == "__main__":
    main()
