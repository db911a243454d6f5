"""Safe reading and atomic writing of files, and temporary folders that are removed even after a kill."""

import errno
import fcntl
import io
import math
import os
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.errors import ConfigError, DataError, RunError
from tinyfl.errors.words import plain
from tinyfl.system.limits import limit_reached

KINDS = "biufSU"
"""NumPy's kinds of plain arrays: truth values, numbers and text. Others may hold Python objects, or are useless here."""

SPARE = 4
"""Arrays may take 1 / SPARE of the free memory, since callers make copies."""

CURE = "Give an --out with room that you may write to."

LOCK = "owner"
"""The lock file in a temporary folder."""


UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EPERM, errno.EACCES}
"""Errors of fsync on file systems without it: for folders on network shares and FUSE, as a rule."""

TEMPORARY_CURE = "Set TMPDIR to a folder with room that you may write to."


def temporary() -> Path:
    """The folder for temporary files.

    Raises ConfigError if there is none.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        given = os.environ.get("TMPDIR")
        places = f"TMPDIR ({plain(given)}), /tmp and /var/tmp" if given else "/tmp and /var/tmp"
        raise ConfigError(f"there is no folder for temporary files: {places} cannot be written. {TEMPORARY_CURE}") from error


@contextmanager
def private_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder for this user alone, while the context lasts. The folder of a killed process is removed by the next
    call with the same ``prefix``, if its file system has locks.

    Raises ConfigError if it cannot be made.
    """
    parent = temporary()
    _remove_ownerless(parent, prefix)
    with ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory("", prefix, parent, ignore_cleanup_errors=True)))
            lock = stack.enter_context((folder / f"{LOCK}.new").open("w"))
            with suppress(OSError):  # no locks there: nobody can tell that its owner has ended, and it stays after a kill
                fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / f"{LOCK}.new").rename(folder / LOCK)  # locked before it has its name: no owner is overlooked
        except OSError as error:
            raise ConfigError(
                limit_reached(error) or f"{parent} cannot take temporary files ({plain(error)}). {TEMPORARY_CURE}"
            ) from error
        yield folder


def _remove_ownerless(parent: Path, prefix: str) -> None:
    """Removes this user's temporary folders with this prefix whose owner has ended, and so released its lock."""
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):  # another user's, already gone, or locked
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)


def read_arrays(path: Path, names: Sequence[str], more: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Reads the arrays ``names`` of the .npz file at ``path``, and those of ``more`` that exist, in this machine's byte order
    and C-contiguous; nothing else is read.

    Raises DataError if the file is missing, is no .npz of plain arrays, or lacks an array of ``names``, or if the arrays do not
    fit in memory.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give --data the path of an .npz file.")
    try:
        with zipfile.ZipFile(path) as file:
            members = {info.filename[:-4]: info for info in file.infolist() if info.filename.endswith(".npy")}
            requested = {name: members[name] for name in (*names, *more) if name in members}
            room = memory() // SPARE
            arrays = {}
            for name, info in requested.items():
                with file.open(info) as stream:
                    arrays[name] = _array(stream, info.file_size, room, name)
                room -= arrays[name].nbytes
    except MemoryError as error:
        raise _too_large(path, error) from error
    except PythonObjects as error:
        raise DataError(f"{path}: {error}") from error
    except Exception as error:  # zipfile, its decompressors and NumPy raise almost anything on a damaged file
        raise DataError(
            f"{path} is not an .npz file of plain arrays ({plain(error)}). Write it with numpy.savez(path, x=..., ...)."
        ) from error
    missing = [name for name in names if name not in arrays]
    if missing:
        raise DataError(
            f"{path} lacks the array {missing[0]!r}; it has {plain(', '.join(sorted(members))) or 'none'}. "
            f"Needed: {', '.join(names)} (docs/tasks.md)."
        )
    return arrays


def array_names(path: Path) -> list[str]:
    """The names of all arrays in the .npz file at ``path``, already checked by ``read_arrays``."""
    with zipfile.ZipFile(path) as file:
        return [name.removesuffix(".npy") for name in file.namelist()]


def read_array(path: Path) -> NDArray[Any]:
    """Reads the array in the .npy file at ``path``, with the checks of ``read_arrays``."""
    if not path.is_file():
        raise DataError(f"{path} cannot be read: no such file. Give the path of an .npy file.")
    try:
        with path.open("rb") as file:
            return _array(file, path.stat().st_size, memory() // SPARE, path.stem)
    except MemoryError as error:
        raise _too_large(path, error) from error
    except PythonObjects as error:
        raise DataError(f"{path}: {error}") from error
    except Exception as error:
        raise DataError(f"{path} is no .npy file of a plain array ({plain(error)}). Write one with numpy.save.") from error


def demand_room(path: Path) -> None:
    """Raises MemoryError if the file at ``path`` is a zip whose unpacked contents do not fit in memory."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as file:
        needed, room = sum(info.file_size for info in file.infolist()), memory() // SPARE
    if needed > room:
        raise MemoryError(f"it unpacks to {needed:,} bytes; {room:,} may be used while {memory():,} are free")


def _too_large(path: Path, error: MemoryError) -> DataError:
    return DataError(
        f"{path} has an array that is too large for this machine's memory ({plain(error)}). Leave some of its rows out, write "
        "them as float32, or use a machine with more memory."
    )


class PythonObjects(ValueError):
    """An array of Python objects, whose loading may run any code."""


def _array(stream: IO[bytes], size: int, room: int, name: str) -> NDArray[Any]:
    """Reads the array ``name`` in ``stream``, a file of ``size`` bytes. Raises ValueError if its header does not match this
    size, PythonObjects if it has some, MemoryError if it exceeds ``room`` bytes."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"NumPy's format {version} is not for plain arrays")
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(stream)
    needed = math.prod(shape) * dtype.itemsize
    if dtype.kind == "O":
        raise PythonObjects(
            f"array {plain(name, 40)} holds Python objects, and only plain arrays are read from a file. Write it as "
            f"{plain(name, 40)}.astype(str) for names, or .astype(float) for numbers."
        )
    if dtype.kind not in KINDS or not dtype.itemsize or min(shape, default=0) < 0:
        raise ValueError(f"an array of {dtype} {shape}, but numbers or text are needed")
    if stream.tell() + needed != size:
        raise ValueError(f"an array of {dtype} {shape} takes {needed:,} bytes, but the file has {size - stream.tell():,}")
    if needed > room:
        raise MemoryError(f"it takes {needed:,} bytes; {max(room, 0):,} may be used while {memory():,} are free")
    stream.seek(0)
    array = np.lib.format.read_array(stream, allow_pickle=False)
    if stream.read(1):  # reading to the end also makes zipfile check the checksum
        raise ValueError("more bytes than the array has")
    return np.asarray(array, array.dtype.newbyteorder("="), order="C")


def memory() -> int:
    """Free memory of the machine or of this container, in bytes, as reported by the system."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) << 10
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        return min(free, limit - used)
    except (OSError, ValueError, KeyError):  # a Mac, an old kernel, or a container without a limit ("max")
        return free


def npz(**arrays: Any) -> bytes:
    """The bytes of an .npz file of ``arrays``, for ``write_whole``."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@contextmanager
def writing(path: Path, cure: str = CURE) -> Iterator[None]:
    """Turns errors in writing ``path`` into a RunError with the ``cure``."""
    try:
        yield
    except (OSError, ValueError) as error:
        limit = limit_reached(error)
        raise RunError(f"{path} cannot be written{f': {limit}' if limit else f' ({plain(error)}). {cure}'}") from error


def write_whole(path: Path, data: bytes, cure: str = CURE) -> None:
    """Replaces the file at ``path`` atomically: after an interruption or concurrent writes it has the old bytes or ``data``,
    never a part or a mixture.

    Raises RunError with the ``cure`` if it cannot be written; the file is then unchanged.
    """
    with writing(path, cure):
        new = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_native_id()}.new")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with new.open("wb") as file:
                file.write(data)
                file.flush()
                sync(file.fileno())
            new.replace(path)
        except OSError:
            new.unlink(missing_ok=True)  # a full disk needs the room
            raise
        sync_folder(path.parent)


def sync(descriptor: int) -> None:
    """Flushes an open file or folder to disk, where the file system can."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def sync_folder(path: Path) -> None:
    """Flushes the names in the folder ``path`` to disk, where the file system can, and where this user may read the folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
