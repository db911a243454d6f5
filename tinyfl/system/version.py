"""The version of the tinyfl that runs here, for what is kept of its results."""

import subprocess
from functools import cache
from pathlib import Path

from tinyfl import __version__

ROOT = Path(__file__).resolve().parents[2]


@cache
def version() -> str:
    """0.1.0; from a clone with its commit, 0.1.0+f94218a, and 0.1.0+f94218a.changed with changes that no commit has."""
    if not (ROOT / ".git").exists():
        return __version__
    try:
        commit, changes = _git("rev-parse", "--short", "HEAD"), _git("status", "--porcelain")
    except (OSError, subprocess.SubprocessError):  # no git, or a clone of somebody else's
        return __version__
    return f"{__version__}+{commit}{'.changed' if changes else ''}"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
