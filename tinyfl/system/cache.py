"""The cache folder for reproducible files: firmware, and the caches of compilers and libraries.

There may be no home: a container may run as an unknown user, a service without HOME, and either with a read-only home.
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
"""The environment variable with a library's folder, and the cache folder lent to it."""

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
    """The cache's path, which may not exist yet: ``tinyfl`` in $XDG_CACHE_HOME, else in ``.cache`` in the home; if that is not
    writable, a private folder in the temporary directory. None if that is impossible, too."""
    return next((path for path, usable in _places() if usable), None)


def missed() -> str:
    """The reason for not using a better place, as text; empty if the best one is used."""
    tried = [str(path) for path, _ in takewhile(lambda each: not each[1], _places())]
    return f"{' and '.join(tried)} cannot be written" if tried else ""


def folder(*names: str) -> Path:
    """The folder ``names`` of the cache, created if needed.

    Raises ConfigError if it cannot be created.
    """
    where = place()
    if where is None:
        raise ConfigError(f"there is no place for what tinyfl builds: {missed() or NOTHING}. {CURE}")
    path = where.joinpath(*names)
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        where.mkdir(mode=0o700, exist_ok=True)
        if place() != where:  # another user has created it in the meantime
            raise PermissionError("it is not yours")
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"tinyfl's cache {where} cannot be used ({error}). {CURE}") from error
    return path


def writable(path: Path) -> bool:
    """Whether the folder can be written or created."""
    nearest = next((each for each in (path, *path.parents) if os.access(each, os.F_OK)), path)
    return os.access(nearest, os.W_OK | os.X_OK) and nearest.is_dir()


def lend() -> None:
    """Gives the libraries of LENT folders in the cache, if the home is not writable and their variables are unset. Call it
    before their import."""
    home_path = home()
    for variable, name in LENT.items() if not (home_path and writable(home_path)) else ():
        if variable not in os.environ:
            os.environ[variable] = str(folder(name))


def _places() -> Iterator[tuple[Path, bool]]:
    """Possible places for the cache, best first, and whether each is usable."""
    given, home_path = Path(os.environ.get("XDG_CACHE_HOME", "")), home()
    if given.is_absolute():  # relative paths are ignored, as the XDG Base Directory Specification requires
        yield given / "tinyfl", writable(given / "tinyfl")
    elif home_path:
        yield home_path / ".cache" / "tinyfl", writable(home_path / ".cache" / "tinyfl")
    try:
        temporary = Path(tempfile.gettempdir()) / f"tinyfl-{os.getuid()}"
    except FileNotFoundError:
        return
    yield temporary, _private(temporary) and writable(temporary)


def _private(path: Path) -> bool:
    """Whether only this user may enter the folder, or it does not exist yet."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return True
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
