"""Flower's SuperExec as a program: it starts a process for each task, a run's coordinator or a message's ClientApp.

Three things differ from Flower's. A task's token goes to its process by standard input, not in the command line, which every
user of the machine can read. The number of concurrent tasks is limited: Flower reissues a task whose process is not up within
30 seconds without ending the first one, so the load of a busy machine would only grow. And a message's process is a fork of one
that has imported all it needs, since the imports take far longer than the message.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.process import BaseProcess, current_process
from types import SimpleNamespace
from typing import Any

from tinyfl.deployment.inner import inner

MAX_TASKS = 4
"""Maximum number of concurrent processes; a further task waits until one has ended."""

KINDS = {"flwr-serverapp", "flwr-clientapp"}
"""Kinds of tasks that a known app needs. Flower has others, for agents."""


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["flwr.supernode.cli", "tinyfl.flower.client_app"])


class Tasks:
    """The started processes, with the interface that Flower's executor for processes uses."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes] | BaseProcess] = []

    def start(self, command: Sequence[str], **options: Any) -> None:
        """Starts the command ``command``: a ClientApp as a fork, if its output stays with this process's."""
        if command[0] == "flwr-clientapp" and not options:
            process = FORKS.Process(target=_client_app, args=(list(command),), daemon=True)
            process.start()
            self._running.append(process)
        else:
            self.popen(command, **options)

    def popen(self, command: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
        """Starts the command ``command``, with the value of --token in an unnamed file instead."""
        at = command.index("--token")
        with tempfile.TemporaryFile() as token:
            token.write(command[at + 1].encode())
            token.seek(0)
            command = [*command[:at], "--token-file", "/dev/stdin", *command[at + 2 :]]
            process = subprocess.Popen(command, stdin=token, **options)
        self._running.append(process)
        return process

    def eligible(self, kinds: set[Any], **_: object) -> tuple[set[Any], set[str]]:
        """The ``kinds`` of tasks that may be started now; and the hashes of agents' apps, always empty."""
        self._running = [process for process in self._running if _lives(process)]
        return {kind for kind in kinds if kind in KINDS} if len(self._running) < MAX_TASKS else set(), set()


def _lives(process: subprocess.Popen[bytes] | BaseProcess) -> bool:
    return process.is_alive() if isinstance(process, BaseProcess) else process.poll() is None


def _client_app(command: list[str]) -> None:
    """Runs Flower's program for a message, in a fork."""
    sys.argv = command
    inner("flwr.supernode.cli", "flwr_clientapp").flwr_clientapp()


def main() -> None:
    """Runs Flower's program with these changes.

    Raises InstallError for another version of Flower.
    """
    # The fork server's socket: in the folder of its SuperNode, since nothing removes the one that Python would make.
    current_process()._config["tempdir"] = os.environ.get("FLWR_HOME")  # type: ignore[attr-defined]
    if not sys.stderr.isatty():
        inner("flwr.supercore.logger", "update_console_handler").update_console_handler(colored=False)
    executor = inner("flwr.supercore.superexec.executor.subprocess_executor", "subprocess", "SubprocessExecutor")
    tasks = Tasks()
    executor.SubprocessExecutor.get_eligible_capacity = staticmethod(tasks.eligible)
    executor.subprocess = SimpleNamespace(Popen=tasks.start, DEVNULL=subprocess.DEVNULL)
    inner("flwr.supercore.cli", "flower_superexec").flower_superexec()


if __name__ == "__main__":
    main()
