"""The digits task: scikit-learn's 1,797 handwritten digits, 8 x 8 pixels, on a fleet of differing cameras.

Every device sees 5 of the 10 digits, with its own label order, rotation (quarter turns) and gain (0.5 to 1.5). The images of
each digit are split in the data set's order, which is by writer: the first 60 % for training, the next 15 % for choosing
adaptation rates, the last 25 % for testing. So both test devices and test images are unseen.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tinyfl.tasks.episodic import ClassPool, Episodic

WAYS = 5
TURNS = 4


def images_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """The values of scikit-learn's load_digits(return_X_y=True), without the second that its import takes."""
    spec = find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    rows = np.loadtxt(Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    return rows[:, :-1], rows[:, -1].astype(int)


def digits(seed: int) -> Episodic:
    """The task, without a download: the images are part of scikit-learn."""
    images, labels = images_and_labels()
    images = (images.reshape(-1, 8, 8) / 16).astype(np.float32)
    rank = np.empty(len(labels))
    for digit in range(10):
        of_digit = labels == digit
        rank[of_digit] = np.arange(of_digit.sum()) / of_digit.sum()

    def pool(low: float, high: float) -> ClassPool:
        chosen = (rank >= low) & (rank < high)
        rotated = [np.rot90(images[chosen], turn, axes=(1, 2)).reshape(-1, 64) for turn in range(TURNS)]
        classes = [turn * 10 + labels[chosen] for turn in range(TURNS)]
        return ClassPool.of(np.concatenate(rotated), np.concatenate(classes).astype(np.int32), [10] * TURNS)

    train, validation, test = pool(0, 0.6), pool(0.6, 0.75), pool(0.75, 1)
    return Episodic("digits", seed, (8, 8, 1), WAYS, (0.5, 1.5), train=train, validation=validation, test=test)
