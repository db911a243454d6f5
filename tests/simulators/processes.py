"""Whether processes run, for tests of what ends with what."""

import subprocess
import time
from collections.abc import Sequence


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has reaped yet does not."""
    said = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout.strip()
    return bool(said) and not said.startswith("Z")


def all_end(pids: Sequence[int]) -> bool:
    """Whether all of them end within half a minute."""
    for _ in range(300):
        if not any(map(runs, pids)):
            return True
        time.sleep(0.1)
    return False
