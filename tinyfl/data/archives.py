"""What a user downloads of a published data set: a folder, a zip or tar archive, or one file. Nothing is unpacked to disk."""

import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tinyfl.errors import DataError
from tinyfl.errors.words import plain
from tinyfl.system.files import SPARE, memory, read_arrays


def contents(path: Path, *endings: str) -> Iterator[tuple[str, bytes]]:
    """The name and the bytes of each file in ``path`` whose name has one of the ``endings``; of a file that is no archive, its
    own.

    Raises DataError if it is missing or damaged, or has a file that is too large for this machine's memory.
    """
    try:
        yield from _contents(path, endings)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except Exception as error:  # archives and their decompressors raise almost anything on a damaged file
        raise DataError(
            f"{path} cannot be read ({plain(error)}). Give the file as it was downloaded, or as tinyfl data convert wrote it."
        ) from error


def _contents(path: Path, endings: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for each in sorted(path.rglob("*")):
            if each.is_file() and each.name.endswith(endings):
                _demand_room(each.name, each.stat().st_size)
                yield each.relative_to(path).as_posix(), each.read_bytes()
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.endswith(endings):
                    _demand_room(info.filename, info.file_size)
                    yield info.filename, archive.read(info)
    elif path.is_file() and tarfile.is_tarfile(path):
        with tarfile.open(path) as packed:
            for member in packed:
                if member.isfile() and member.name.endswith(endings):
                    _demand_room(member.name, member.size)
                    file = packed.extractfile(member)
                    assert file is not None
                    yield member.name, file.read()
    else:
        _demand_room(path.name, path.stat().st_size)
        yield path.name, path.read_bytes()


def _demand_room(name: str, size: int) -> None:
    room = memory() // SPARE
    if size > room:
        raise DataError(f"{plain(name)} takes {size:,} bytes, and {room:,} may be used. Use a machine with more memory.")


def arrays_of(
    path: Path, names: Sequence[str], more: Sequence[str], convert: Callable[[Path], Mapping[str, NDArray[Any]]]
) -> Mapping[str, NDArray[Any]]:
    """The arrays ``names``, and those of ``more`` that exist, of an .npz file, or of what ``convert`` makes of a download.

    Raises DataError for a folder, whose change a resumed run would not notice, and as ``convert`` does.
    """
    if path.is_dir():
        raise DataError(
            f"{path} is a folder. Give the archive as it was downloaded, or make a file of it: tinyfl data convert."
        )
    return read_arrays(path, names, more) if path.suffix == ".npz" or not path.is_file() else convert(path)
