"""The Omniglot task: 5-way, from a user's ``omniglot28.npz`` (docs/tasks.md gives its arrays).

Training uses characters of 26 background alphabets, with quarter turns as further classes; 4 background alphabets serve to
choose adaptation rates; the evaluation alphabets are for testing (Lake, Salakhutdinov, Tenenbaum, Science 2015).
"""

from pathlib import Path

import numpy as np

from tinyfl.errors import DataError
from tinyfl.system.files import read_arrays
from tinyfl.tasks.episodic import ClassPool, Episodic

WAYS = 5
VALIDATION_ALPHABETS = 4


def omniglot(data: Path, seed: int) -> Episodic:
    """Loads the task from the file ``data``.

    Raises DataError if an array is missing or has the wrong shape.
    """
    path = data
    arrays = read_arrays(path, ("bits", "cls", "alphabet", "alphabet_split"))
    bits, characters, alphabet = arrays["bits"], arrays["cls"], arrays["alphabet"]
    if bits.ndim != 2 or bits.shape[1] != 98 or bits.dtype != np.uint8:
        raise DataError(f"{path}: array bits is {bits.dtype} {bits.shape}, not uint8 (images, 98): 28 x 28 bits packed.")
    for name, length in (("cls", len(bits)), ("alphabet", len(bits)), ("alphabet_split", arrays["alphabet_split"].size)):
        if arrays[name].shape != (length,) or arrays[name].dtype.kind not in "iu":
            raise DataError(
                f"{path}: array {name} is {arrays[name].dtype} {arrays[name].shape}, not whole numbers ({length},)."
            )
    images = np.unpackbits(bits, axis=1).reshape(-1, 28, 28)
    background = np.flatnonzero(arrays["alphabet_split"] == 0)
    if len(background) <= VALIDATION_ALPHABETS:
        raise DataError(f"{path}: alphabet_split marks {len(background)} background alphabets (0); 5 or more are needed.")
    validation = background[-VALIDATION_ALPHABETS:]

    def pool(alphabets: np.ndarray, turns: int) -> ClassPool:
        chosen = np.isin(alphabet, alphabets)
        names, labels = np.unique(characters[chosen], return_inverse=True)
        classes = len(names)
        if classes < WAYS:
            raise DataError(f"{path}: alphabets {alphabets.tolist()} have {classes} characters; {WAYS} or more are needed.")
        rotated = [np.rot90(images[chosen], turn, axes=(1, 2)).reshape(-1, 784) for turn in range(turns)]
        numbers = [turn * classes + labels for turn in range(turns)]
        return ClassPool.of(np.concatenate(rotated), np.concatenate(numbers).astype(np.int32), turns * classes)

    return Episodic(
        "omniglot",
        seed,
        (28, 28, 1),
        WAYS,
        groups=1,
        gains=(1.0, 1.0),
        train=pool(background[:-VALIDATION_ALPHABETS], turns=4),
        validation=pool(validation, turns=1),
        test=pool(np.flatnonzero(arrays["alphabet_split"] == 1), turns=1),
    )
