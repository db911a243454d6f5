"""FedAvg (McMahan et al. 2017; arXiv:1602.05629), algorithm 1, for devices with the same number of samples per round.

phi_i <- SGD(theta; the samples of device i in mini-batches)
theta <- theta + step * mean_i (phi_i - theta)             step = 1 is the paper's mean of models
"""

from dataclasses import dataclass

from tinyfl.algorithms import Inner, TowardsMean


@dataclass(frozen=True)
class FedAvg(TowardsMean):
    samples: int = 40
    batch: int = 8
    rate: float = 0.05
    outer_step: float = 1.0
    clip: float = 0.0

    def inner(self, round: int) -> Inner:
        return Inner(samples=self.samples, batch=self.batch, passes=1, rate=self.rate, clip=self.clip)

    def alpha(self, round: int) -> float:
        return self.outer_step
