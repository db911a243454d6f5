"""The job of a peer's process, and its turns. NumPy alone, since each peer has an environment of its own.

A peer runs as ``python with_NAME.py FOLDER VARIANT``. It does its first round at once, and then as many as each line on its
standard input asks for; after each turn it prints the rounds done. bench/peers.py does the timing.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

ROUNDS = 100_000
"""The number of rounds over which the outer step falls to 0; no peer does as many."""


@dataclass(frozen=True)
class Job:
    """A round of a cohort: samples x (cohort, samples, inputs), float32 or, for images, uint8, and targets y float32 (cohort,
    samples, outputs), read from the folder's files as they are used."""

    folder: Path
    name: str
    cohort: int
    rate: float

    @classmethod
    def read(cls, folder: Path) -> "Job":
        return cls(folder, **json.loads((folder / "job.json").read_text()))

    @property
    def theta(self) -> Floats:
        """The initial weights: of each layer the kernel in Keras's layout, then the bias."""
        return self._array("theta", None)

    @property
    def x(self) -> NDArray[Any]:
        return self._array("x", "r")

    @property
    def y(self) -> Floats:
        return self._array("y", "r")

    def _array(self, name: str, mode: Any) -> NDArray[Any]:
        array: NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode=mode)
        return array


def outer_step(round: int) -> float:
    """TinyReptile's alpha in round ``round``, from 0."""
    return 1 - round / ROUNDS


class Turns:
    """Called after every round, it waits when the rounds of a turn are done. It takes standard output for itself: what else
    the process prints goes to standard error."""

    def __init__(self, result: Path) -> None:
        self._result = result
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._wanted, self._done = 1, 0

    def __call__(self, theta: Callable[[], Floats] | None = None, rounds: int = 1) -> None:
        """``rounds`` more rounds are done. ``theta`` gives the weights, and is called after the first round only. Raises
        SystemExit when no more rounds are wanted."""
        self._done += rounds
        while self._done >= self._wanted:
            print(self._done, file=self._out, flush=True)
            if theta and not self._result.exists():
                self.save(theta())
            line = sys.stdin.readline()
            if not line.strip():
                raise SystemExit
            self._wanted, self._done = int(line), 0

    def save(self, theta: Floats) -> None:
        """Saves theta after the first round, in Keras's layout."""
        np.save(self._result, theta)


def asked() -> tuple[Job, str, Turns]:
    """The job and the variant in this process's arguments, and its turns."""
    folder, variant = Path(sys.argv[1]), sys.argv[2]
    return Job.read(folder), variant, Turns(folder / f"{Path(sys.argv[0]).stem}-{variant}.npy")
