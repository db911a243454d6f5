"""Files that are read with care and replaced whole, and temporary folders that are removed whatever happens."""

import fcntl
import io
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.errors import DataError, RunError
from tinyfl.errors.words import plain

KINDS = "biufSU"
"""NumPy's kinds of plain arrays: truth values, numbers and text. Others may hold Python objects, or are of no use here."""

SPARE = 4
"""Arrays may take this part of the memory that is free: whoever reads them makes copies."""

CURE = "Give an --out with room that you may write to."

LOCK = "owner"
"""The file of a temporary folder that its owner holds locked."""


@contextmanager
def private_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder that only this user may enter, as long as the context lasts. A process that is killed leaves its own
    to the next that asks for one with this ``prefix``."""
    _remove_ownerless(prefix)
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with (folder / f"{LOCK}.new").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / f"{LOCK}.new").rename(folder / LOCK)  # the lock is there when the name is: no owner is ever overlooked
            yield folder


def _remove_ownerless(prefix: str) -> None:
    """Removes this user's temporary folders that begin so and whose owner has ended, which has dropped its lock."""
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):  # of another user, gone already, or locked
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)


def read_arrays(path: Path, names: Sequence[str], more: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """The arrays ``names`` of the .npz file at ``path``, and those of ``more`` that it has, in this machine's byte order and
    C-contiguous; nothing else in it is read.

    Raises DataError if there is no such file, if it is no .npz of plain arrays, if an array of ``names`` is missing, or if they
    take more memory than there is.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give --data the path of an .npz file.")
    try:
        with zipfile.ZipFile(path) as file:
            held = {info.filename[:-4]: info for info in file.infolist() if info.filename.endswith(".npy")}
            wanted = {name: held[name] for name in (*names, *more) if name in held}
            room = memory() // SPARE
            arrays = {}
            for name, info in wanted.items():
                with file.open(info) as stream:
                    arrays[name] = _array(stream, info.file_size, room)
                room -= arrays[name].nbytes
    except MemoryError as error:
        raise _too_large(path, error) from error
    except Exception as error:  # zipfile, its decompressors and NumPy raise almost anything on a damaged file
        raise DataError(
            f"{path} is not an .npz file of plain arrays ({plain(error)}). Write it with numpy.savez(path, x=..., ...)."
        ) from error
    missing = [name for name in names if name not in arrays]
    if missing:
        raise DataError(
            f"{path} lacks the array {missing[0]!r}; it has {plain(', '.join(sorted(held))) or 'none'}. "
            f"Needed: {', '.join(names)} (docs/tasks.md)."
        )
    return arrays


def array_names(path: Path) -> list[str]:
    """The names of the arrays in the .npz file at ``path``, which ``read_arrays`` has read from."""
    with zipfile.ZipFile(path) as file:
        return [name.removesuffix(".npy") for name in file.namelist()]


def read_array(path: Path) -> NDArray[Any]:
    """The array in the .npy file at ``path``, likewise."""
    if not path.is_file():
        raise DataError(f"{path} cannot be read: no such file. Give the path of an .npy file.")
    try:
        with path.open("rb") as file:
            return _array(file, path.stat().st_size, memory() // SPARE)
    except MemoryError as error:
        raise _too_large(path, error) from error
    except Exception as error:
        raise DataError(f"{path} is no .npy file of a plain array ({plain(error)}). Write one with numpy.save.") from error


def demand_room(path: Path) -> None:
    """Raises MemoryError where what is packed in the file at ``path``, if it is a zip, does not fit in memory."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as file:
        takes, room = sum(info.file_size for info in file.infolist()), memory() // SPARE
    if takes > room:
        raise MemoryError(f"{takes:,} bytes are packed in it, of which {room:,} may be taken while {memory():,} are free")


def _too_large(path: Path, error: MemoryError) -> DataError:
    return DataError(
        f"{path} has an array that is too large for this machine's memory ({plain(error)}). Leave some of its rows out, write "
        "them as float32, or take a machine with more memory."
    )


def _array(stream: IO[bytes], size: int, room: int) -> NDArray[Any]:
    """The array in ``stream``, a file of ``size`` bytes, if it says that it takes just these, and no more than ``room``."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"NumPy's format {version} is of no plain array")
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(stream)
    takes = math.prod(shape) * dtype.itemsize
    if dtype.kind not in KINDS or not dtype.itemsize or min(shape, default=0) < 0:
        raise ValueError(f"an array of {dtype} {shape}, where numbers or text are needed")
    if stream.tell() + takes != size:
        raise ValueError(f"an array of {dtype} {shape} takes {takes:,} bytes, and {size - stream.tell():,} are there")
    if takes > room:
        raise MemoryError(f"{takes:,} bytes, of which {max(room, 0):,} may be taken while {memory():,} are free")
    stream.seek(0)
    array = np.lib.format.read_array(stream, allow_pickle=False)
    if stream.read(1):  # which also has zipfile compare the checksum
        raise ValueError("more bytes than the array has")
    return np.asarray(array, array.dtype.newbyteorder("="), order="C")


def memory() -> int:
    """Bytes of memory that are free, as far as the system tells: of the machine, or of the container that this runs in."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) << 10
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        return min(free, limit - used)
    except (OSError, ValueError, KeyError):  # a Mac, an old kernel, or a container without a limit ("max")
        return free


def npz(**arrays: Any) -> bytes:
    """An .npz file of ``arrays``, for ``write_whole``."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@contextmanager
def writing(path: Path, cure: str = CURE) -> Iterator[None]:
    """Turns what goes wrong while ``path`` is written into a RunError with the ``cure``."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be written ({plain(error)}). {cure}") from error


def write_whole(path: Path, data: bytes, cure: str = CURE) -> None:
    """Replaces the file at ``path`` by ``data``: after a cut it holds the old bytes or the new, never a part, nor parts of two
    that are written at once.

    Raises RunError, with the ``cure``, where it cannot be written; it is then as it was.
    """
    with writing(path, cure):
        new = path.with_name(f"{path.name}.{os.getpid()}.new")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with new.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except OSError:
            new.unlink(missing_ok=True)  # a full disk needs the room
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
