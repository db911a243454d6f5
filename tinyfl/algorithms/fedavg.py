"""FedAvg (McMahan et al. 2017; arXiv:1602.05629), algorithm 1, for devices with the same number of samples per round.

phi_i <- SGD(theta; the samples of device i in mini-batches)
theta <- theta + step * mean_i (phi_i - theta)             step = 1 is the paper's mean of models
"""

from dataclasses import dataclass

from tinyfl.algorithms import Inner, TowardsMean
from tinyfl.algorithms.schedules import in_steps, scheduled


@dataclass(frozen=True)
class FedAvg(TowardsMean):
    samples: int = 40
    batch: int = 8
    rate: float = 0.05
    outer_step: float = 1.0
    clip: float = 0.0
    rounds: int = 1  # of the schedules
    outer_schedule: str = ""  # constant
    rate_schedule: str = ""  # constant
    outer_optimiser: str = "sgd"

    def inner(self, round: int) -> Inner:
        rate = self.rate * in_steps(self.rate_schedule, round, self.rounds)
        return Inner(samples=self.samples, batch=self.batch, passes=1, rate=rate, clip=self.clip)

    def alpha(self, round: int) -> float:
        return self.outer_step * scheduled(self.outer_schedule, round, self.rounds)
