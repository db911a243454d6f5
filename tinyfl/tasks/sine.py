"""The sine task: device d has y = a sin(x + p), a ~ U[0.1, 5], p ~ U[0, 2 pi], x ~ U[-5, 5].

Amplitudes and x of Finn et al. 2017 (arXiv:1703.03400, section 5.1), phases of Nichol et al. 2018 (arXiv:1803.02999): its
losses are not comparable with MAML's, whose phases end at pi. The core generates every sample, here and on a board.
"""

import numpy as np

from tinyfl import core
from tinyfl.core import F32, U32, SineSource, Stream, TableSource
from tinyfl.networks.layers import Activation, Loss
from tinyfl.tasks import FIRST_TEST_DEVICE, FIRST_VALIDATION_DEVICE, Episodes, Split, numbers
from tinyfl.tasks.standard import Standardisation

GRID = np.linspace(-5, 5, 50, dtype=np.float32)
"""The x of query sets."""


class Sine:
    name = "sine"
    shape = (1,)
    outputs = 1
    loss = Loss.mean_squared_error
    activation = Activation.tanh
    fleet_size: int | None = None
    standardisation: Standardisation | None = None

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def stream(self, devices: U32, round: int, samples: int) -> SineSource:
        return SineSource(self.seed)

    def streams(self, devices: U32, rounds: U32, samples: int) -> SineSource:
        return SineSource(self.seed)

    def parameters(self, devices: U32) -> F32:
        """Each device's sine at 0 and at pi / 2, float32 (devices, 2): a sin p and a cos p, in which it is linear."""
        return core.sine(self.seed, devices, np.tile(np.array([0, np.pi / 2], np.float32), (len(devices), 1)))

    def episodes(self, split: Split, count: int, shots: int) -> Episodes:
        devices = numbers(FIRST_TEST_DEVICE if split == "test" else FIRST_VALIDATION_DEVICE, count)
        words = core.random(self.seed, Stream.support, devices, words=shots)
        x = np.float32(10) * core.uniform(words) - np.float32(5)
        grid = np.tile(GRID, (count, 1))
        return Episodes(self._source(devices, x), self._source(devices, grid), np.arange(count, dtype=np.int32))

    def recorded(self, split: Split, count: int, samples: int) -> list[tuple[str, TableSource]]:
        """One wave after another, 2 of 1,000 samples each if not said."""
        devices = numbers(FIRST_TEST_DEVICE if split == "test" else FIRST_VALIDATION_DEVICE, count or 2)
        words = core.random(self.seed, Stream.sample, devices, words=samples or 1000)
        x = np.float32(10) * core.uniform(words) - np.float32(5)
        return [
            (f"wave {number}", self._source(devices[number : number + 1], x[number : number + 1]))
            for number in range(len(devices))
        ]

    def _source(self, devices: U32, x: F32) -> TableSource:
        """The devices' own sines at ``x`` (devices, samples)."""
        y = core.sine(self.seed, devices, x)
        rows = np.arange(x.size, dtype=np.int32).reshape(x.shape)
        return TableSource(table=x.reshape(-1, 1), rows=rows, targets=y.reshape(-1, 1))
