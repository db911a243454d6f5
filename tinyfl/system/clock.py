"""This machine's clock, and whether it is set from the network."""

import shutil
import subprocess

CURE = "Set it: sudo timedatectl set-ntp true."

SECONDS = 10.0
"""Time limit for an answer of timedatectl, in seconds."""


def set_from_network() -> bool | None:
    """Whether the clock is set from the network; None if nobody on this machine says."""
    tool = shutil.which("timedatectl")
    if tool is None:
        return None
    command = [tool, "show", "--property", "NTPSynchronized", "--value"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"yes": True, "no": False}.get(done.stdout.strip())
