"""Where things are kept that can be made again: firmware, and what compilers and libraries keep for themselves.

Not everybody has a home: a container may run as a user whom its system does not know, a service without HOME, and either in a
home that may not be written.
"""

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType

from tinyfl.errors import ConfigError

LENT: Mapping[str, str] = MappingProxyType({"KERAS_HOME": "keras", "MPLCONFIGDIR": "matplotlib"})
"""What tells a library where it keeps its files, and the folder of the cache that it may have."""

NOTHING = "there is neither a home nor a temporary directory"
CURE = "Set XDG_CACHE_HOME to a folder that you may write to."


def home() -> Path | None:
    """The user's home directory, if there is one."""
    try:
        path = Path.home()
    except RuntimeError:  # neither HOME nor an entry in the list of users
        return None
    return path if path.is_absolute() and os.access(path, os.X_OK) and path.is_dir() else None


def place() -> Path | None:
    """The cache, which need not be there yet: ``tinyfl`` in $XDG_CACHE_HOME, else in ``.cache`` in the home; where that cannot
    be written, a folder in the temporary directory that no other user may enter. None where that cannot be had either."""
    return next((path for path, usable in _places() if usable), None)


def missed() -> str:
    """Why it is in no better place, in words; empty where there is none."""
    tried = [str(path) for path, _ in takewhile(lambda each: not each[1], _places())]
    return f"{' and '.join(tried)} cannot be written" if tried else ""


def folder(*names: str) -> Path:
    """The folder ``names`` of the cache, made if need be.

    Raises ConfigError where it cannot be had.
    """
    where = place()
    if where is None:
        raise ConfigError(f"there is no place for what tinyfl builds: {missed() or NOTHING}. {CURE}")
    made = where.joinpath(*names)
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        where.mkdir(mode=0o700, exist_ok=True)
        if place() != where:  # somebody else has made it in the meantime
            raise PermissionError("it is not yours")
        made.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"tinyfl's cache {where} cannot be used ({error}). {CURE}") from error
    return made


def writable(path: Path) -> bool:
    """Whether the folder can be written, or made."""
    there = next((each for each in (path, *path.parents) if os.access(each, os.F_OK)), path)
    return os.access(there, os.W_OK | os.X_OK) and there.is_dir()


def lend() -> None:
    """Gives the libraries of LENT, before they are imported, folders of the cache where there is no home that they could write
    to, and nobody has said where else."""
    at = home()
    for variable, name in LENT.items() if not (at and writable(at)) else ():
        if variable not in os.environ:
            os.environ[variable] = str(folder(name))


def _places() -> Iterator[tuple[Path, bool]]:
    """Where the cache may be, best first, and whether it can be there."""
    given, at = Path(os.environ.get("XDG_CACHE_HOME", "")), home()
    if given.is_absolute():  # else it is to be ignored, says the XDG Base Directory Specification
        yield given / "tinyfl", writable(given / "tinyfl")
    elif at:
        yield at / ".cache" / "tinyfl", writable(at / ".cache" / "tinyfl")
    try:
        temporary = Path(tempfile.gettempdir()) / f"tinyfl-{os.getuid()}"
    except FileNotFoundError:
        return
    yield temporary, _private(temporary) and writable(temporary)


def _private(path: Path) -> bool:
    """Whether only this user may enter the folder, or it is not there yet."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return True
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
