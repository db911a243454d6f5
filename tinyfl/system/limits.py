"""The system's limits of open files and processes: raised where they may be, and named where they are met."""

import errno
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyfl.errors import ConfigError

MOST_FILES, FEW_FILES, SPARE_FILES = 8000, 256, 24
"""Open files that this process allows itself, if it may; so few that a small fleet of emulated boards needs more; and those
left for everything else."""

NO_THREAD = "can't start new thread"
"""What Python says where the system starts no further thread."""

FILES_CURE = (
    "Raise the limit (ulimit -n, LimitNOFILE= of a systemd service, docker run --ulimit nofile), or start fewer boards."
)


def limit_reached(error: BaseException) -> str:
    """The limit of this user or machine that ``error`` reports, and its cure; empty for another error."""
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EMFILE:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return f"a process may have {soft:,} open files here, and needs more. {FILES_CURE}"
    if number == errno.ENFILE:
        return "this machine has no open files left. End other programs, or raise fs.file-max (sysctl)."
    return _no_process() if isinstance(error, RuntimeError) and NO_THREAD in str(error) else ""


def _no_process() -> str:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    most = "" if soft == resource.RLIM_INFINITY else f" ({soft:,})"
    return (
        f"no process or thread can be started: the limit of this user{most} or of this container is reached. Raise it "
        "(ulimit -u; TasksMax= of a service; docker run --pids-limit), or start fewer boards."
    )


@contextmanager
def demand_resources() -> Iterator[None]:
    """Turns an error at a limit of this user or machine, where a process is started, into a ConfigError that names it."""
    try:
        yield
    except OSError as error:
        if words := _no_process() if error.errno == errno.EAGAIN else limit_reached(error):
            raise ConfigError(words) from error
        raise


def allow_files(needed: int, what: str) -> None:
    """Raises this process's limit of open files as far as it may, and at most to MOST_FILES: ``what`` needs ``needed`` more.

    Raises ConfigError if that is not enough.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = most_files()
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    total = _open_files() + needed + SPARE_FILES
    if total > allowed:
        raise ConfigError(f"{what} need {total:,} open files, and a process may have {allowed:,} here. {FILES_CURE}")


def most_files() -> int:
    """How many files this process may have open, once it has raised its limit as far as it may and needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(soft, MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard))


def _open_files() -> int:
    """The number of files that this process has open; where that is not known, a usual one."""
    try:
        return len(list(Path("/dev/fd").iterdir()))
    except OSError:
        return SPARE_FILES
