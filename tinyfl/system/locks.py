"""One process at a time, by locks that end with the process that has them, however it ends."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(path: Path, waiting: str) -> Iterator[bool]:
    """Holds the folder or file at ``path`` against processes that would hold it too: they say that they wait, and what for
    (``waiting``). False where it cannot be held: it is not there, or on a file system without locks."""
    try:
        descriptor = _opened(path)
    except OSError:
        yield False
        return
    try:
        yield _locked(descriptor, waiting)
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR)  # as network file systems need it
    except OSError:  # a folder, or another user's
        return os.open(path, os.O_RDONLY)


def _locked(descriptor: int, waiting: str) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"tinyfl: {waiting}; waiting for it", file=sys.stderr, flush=True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return True
