"""Flower's SuperExec, as a program, which hands a task's token to the process that does it by standard input.

Flower puts the token into the command line, where every user of the machine can read it.
"""

import subprocess
import tempfile
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from tinyfl.flower.inner import inner


def popen(words: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Starts ``words``, with what follows --token in a file that has no name."""
    at = words.index("--token")
    with tempfile.TemporaryFile() as token:
        token.write(words[at + 1].encode())
        token.seek(0)
        return subprocess.Popen([*words[:at], "--token-file", "/dev/stdin", *words[at + 2 :]], stdin=token, **options)


def main() -> None:
    """Flower's program with this one change.

    Raises InstallError where Flower starts its processes otherwise.
    """
    executor = inner("flwr.supercore.superexec.executor.subprocess_executor", "subprocess")
    executor.subprocess = SimpleNamespace(Popen=popen, DEVNULL=subprocess.DEVNULL)
    inner("flwr.supercore.cli", "flower_superexec").flower_superexec()


if __name__ == "__main__":
    main()
