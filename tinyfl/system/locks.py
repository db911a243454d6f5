"""Mutual exclusion of processes, by locks that are released when their process ends in any way."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(path: Path, waiting: str) -> Iterator[bool]:
    """Holds an exclusive lock on the folder or file at ``path``; other processes wait, and print ``waiting``. Yields False if
    it cannot be locked: it does not exist, or is on a file system without locks."""
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
        return os.open(path, os.O_RDWR)  # required by network file systems
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
