"""Joint training: one model for the samples of all devices, the baseline without meta-learning.

Every device of the cohort takes one step on one batch from the same theta, and the server averages the results: one SGD step on
the samples of the whole cohort (FedSGD; McMahan et al. 2017, section 2).
"""

from dataclasses import dataclass

from tinyfl.algorithms import Inner, TowardsMean
from tinyfl.algorithms.schedules import in_steps


@dataclass(frozen=True)
class Joint(TowardsMean):
    samples: int = 1
    rate: float = 0.003
    clip: float = 0.0
    rounds: int = 1  # of the schedule
    rate_schedule: str = ""  # constant

    def inner(self, round: int) -> Inner:
        rate = self.rate * in_steps(self.rate_schedule, round, self.rounds)
        return Inner(samples=self.samples, batch=self.samples, passes=1, rate=rate, clip=self.clip)

    def alpha(self, round: int) -> float:
        return 1.0
