"""The Omniglot task, from a user's ``omniglot28.npz`` (docs/tasks.md gives its arrays).

Training uses characters of 26 background alphabets, with quarter turns as further classes; 4 background alphabets serve to
choose adaptation rates; the evaluation alphabets are for testing (Lake, Salakhutdinov, Tenenbaum, Science 2015).
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinyfl.errors import DataError
from tinyfl.system.files import read_arrays
from tinyfl.tasks.episodic import ClassPool, Episodic

VALIDATION_ALPHABETS = 4

TURNS = 4


def omniglot(data: Path, seed: int, ways: int = 5, training_ways: int = 0, one_alphabet: bool = False) -> Episodic:
    """Loads the task from the file ``data``. With ``one_alphabet`` all characters of a device are of the same alphabet, in
    training turned alike; alphabets with too few of them are left out.

    Raises DataError if an array is missing or has the wrong shape, or there are fewer characters than ``ways``.
    """
    images, characters, alphabet, split = _images(data)
    background = np.flatnonzero(split == 0)
    if len(background) <= VALIDATION_ALPHABETS:
        raise DataError(f"{data}: alphabet_split marks {len(background)} background alphabets (0); 5 or more are needed.")
    validation = background[-VALIDATION_ALPHABETS:]

    def pool(alphabets: NDArray[np.integer], turns: int, least: int) -> ClassPool:
        sets = [[each] for each in alphabets.tolist()] if one_alphabet else [alphabets.tolist()]
        parts = [np.isin(alphabet, each) for each in sets]
        sizes = [len(np.unique(characters[part])) for part in parts]
        fit = [(part, size) for part, size in zip(parts, sizes, strict=True) if size >= least]
        if not fit:
            where = (
                f"none of the alphabets {alphabets.tolist()} has"
                if one_alphabet
                else f"the alphabets {alphabets.tolist()} have not"
            )
            raise DataError(f"{data}: {where} {least} characters. Give fewer --ways or --training-ways: {max(sizes)} at most.")
        turned = [(np.rot90(images[part], turn, axes=(1, 2)), characters[part]) for turn in range(turns) for part, _ in fit]
        return _pool(turned, [size for _ in range(turns) for _, size in fit], one_alphabet)

    return Episodic(
        "omniglot",
        seed,
        (28, 28, 1),
        ways,
        gains=(1.0, 1.0),
        train=pool(background[:-VALIDATION_ALPHABETS], TURNS, max(ways, training_ways)),
        validation=pool(validation, 1, ways),
        test=pool(np.flatnonzero(split == 1), 1, ways),
        training_ways=training_ways,
    )


def _images(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.integer], NDArray[np.integer], NDArray[np.integer]]:
    """The images, uint8 (images, 28, 28), the character and the alphabet of each, and which alphabets are evaluated."""
    arrays = read_arrays(path, ("bits", "cls", "alphabet", "alphabet_split"))
    bits, split = arrays["bits"], arrays["alphabet_split"]
    if bits.ndim != 2 or bits.shape[1] != 98 or bits.dtype != np.uint8:
        raise DataError(f"{path}: array bits is {bits.dtype} {bits.shape}, not uint8 (images, 98): 28 x 28 bits packed.")
    for name, length in (("cls", len(bits)), ("alphabet", len(bits)), ("alphabet_split", split.size)):
        if arrays[name].shape != (length,) or arrays[name].dtype.kind not in "iu":
            raise DataError(
                f"{path}: array {name} is {arrays[name].dtype} {arrays[name].shape}, not whole numbers ({length},)."
            )
    return np.unpackbits(bits, axis=1).reshape(-1, 28, 28), arrays["cls"], arrays["alphabet"], split


def _pool(parts: list[tuple[NDArray[np.uint8], NDArray[np.integer]]], sizes: list[int], apart: bool) -> ClassPool:
    """The pool of ``parts``, images with the character of each, of ``sizes`` characters: each a group if they are ``apart``."""
    before = np.cumsum(sizes) - sizes
    labels = [start + np.unique(of, return_inverse=True)[1] for start, (_, of) in zip(before, parts, strict=True)]
    table = np.concatenate([each.reshape(-1, 784) for each, _ in parts])
    return ClassPool.of(table, np.concatenate(labels).astype(np.int32), sizes if apart else [sum(sizes)])
