"""The digits task: scikit-learn's 1,797 real handwritten digits, 8 x 8 pixels, spread over a fleet of odd cameras.

Every device sees 5 of the 10 digits, under its own label order, turned by its own quarter turns and with its own gain
(0.5 to 1.5). The images of each digit are split in the data set's own order, which goes by writer: the first 60 % train,
the next 15 % choose adaptation rates, the last 25 % test. So test devices and test images are both unseen.
"""

import numpy as np

from tinyfl.tasks.episodic import ClassPool, Episodic

WAYS = 5
TURNS = 4


def digits(seed: int) -> Episodic:
    """The task; no download: scikit-learn brings the images."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8) / 16).astype(np.float32)
    rank = np.empty(len(labels))
    for digit in range(10):
        mine = labels == digit
        rank[mine] = np.arange(mine.sum()) / mine.sum()

    def pool(low: float, high: float) -> ClassPool:
        chosen = (rank >= low) & (rank < high)
        turned = [np.rot90(images[chosen], turn, axes=(1, 2)).reshape(-1, 64) for turn in range(TURNS)]
        classes = [turn * 10 + labels[chosen] for turn in range(TURNS)]
        return ClassPool.of(np.concatenate(turned), np.concatenate(classes).astype(np.int32), 10 * TURNS)

    train, validation, test = pool(0, 0.6), pool(0.6, 0.75), pool(0.75, 1)
    return Episodic("digits", seed, (8, 8, 1), WAYS, TURNS, (0.5, 1.5), train=train, validation=validation, test=test)
