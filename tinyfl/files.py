"""Files that are read with care and replaced whole."""

import io
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.errors import DataError, RunError


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """All arrays of the .npz file at ``path``.

    Raises DataError if there is no such file, if it is no .npz of plain arrays, or if an array of ``names`` is missing.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. Give --data the path of an .npz file.") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise DataError(
            f"{path} is not an .npz file of plain arrays ({error}). Write it with numpy.savez(path, x=..., ...)."
        ) from error
    missing = [name for name in names if name not in arrays]
    if missing:
        raise DataError(
            f"{path} lacks the array {missing[0]!r}; it has {', '.join(sorted(arrays)) or 'none'}. "
            f"Needed: {', '.join(names)} (docs/tasks.md)."
        )
    return arrays


def npz(**arrays: Any) -> bytes:
    """An .npz file of ``arrays``, for ``write_whole``."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def write_whole(path: Path, data: bytes) -> None:
    """Replaces the file at ``path`` by ``data``: after a cut it holds the old bytes or the new, never a part, nor parts of two
    that are written at once.

    Raises RunError where it cannot be written.
    """
    try:
        new = path.with_name(f"{path.name}.{os.getpid()}.new")
        path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be written ({error}). Give an --out with room that you may write to.") from error
