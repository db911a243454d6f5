"""Reads a user's file as a table."""

from collections.abc import Iterable
from pathlib import Path

from tinyfl.data import Table
from tinyfl.data.arrays import as_text
from tinyfl.data.words import named
from tinyfl.system.files import array_names, read_arrays

NEEDED, OPTIONAL = ("x", "y", "device"), ("split", "validation")


def read_table(path: Path) -> Table:
    """Reads the .npz file at ``path``, with the arrays ``x``, ``y``, ``device``, and perhaps ``split`` and ``validation``.

    Raises DataError if the file is missing, is no .npz of plain arrays, or lacks one of them.
    """
    arrays = {name: as_text(array) for name, array in read_arrays(path, NEEDED, OPTIONAL).items()}
    notes = tuple(_unused(array_names(path)))
    return Table(
        str(path), arrays["x"], arrays["y"], arrays["device"], arrays.get("split"), arrays.get("validation"), notes=notes
    )


def _unused(arrays: Iterable[str]) -> list[str]:
    unused = [name for name in arrays if name not in (*NEEDED, *OPTIONAL)]
    return [f"not used: the array{'s' * (len(unused) > 1)} {named(unused)}"] if unused else []
