"""Reads a user's file as a table."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tinyfl.data import Table
from tinyfl.data.arrays import as_text
from tinyfl.data.words import named
from tinyfl.system.files import array_names, read_arrays

NEEDED, OPTIONAL = ("x", "y", "device"), ("split", "validation", "inputs")


def read_table(path: Path) -> Table:
    """Reads the .npz file at ``path``, with the arrays ``x``, ``y``, ``device``, and perhaps ``split``, ``validation``
    and the inputs' names, ``inputs``.

    Raises DataError if the file is missing, is no .npz of plain arrays, or lacks one of them.
    """
    arrays = {name: as_text(array) for name, array in read_arrays(path, NEEDED, OPTIONAL).items()}
    names = arrays.get("inputs", np.empty(0))
    if names.dtype.kind != "U" or names.shape != arrays["x"].shape[1:]:
        names = np.empty(0)  # of something else
    return Table(
        str(path),
        arrays["x"],
        arrays["y"],
        arrays["device"],
        arrays.get("split"),
        arrays.get("validation"),
        tuple(names.tolist()),
        tuple(_unused(array_names(path), names.size > 0)),
    )


def _unused(arrays: Iterable[str], named_inputs: bool) -> list[str]:
    used = {*NEEDED, *OPTIONAL} - (set() if named_inputs else {"inputs"})
    unused = [name for name in arrays if name not in used]
    return [f"not used: the array{'s' * (len(unused) > 1)} {named(unused)}"] if unused else []
