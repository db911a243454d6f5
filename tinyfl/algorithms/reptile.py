"""Reptile (Nichol, Achiam, Schulman 2018; arXiv:1803.02999), algorithms 1 (serial) and 2 (batched).

Each device takes k SGD steps on mini-batches; the server moves part of the way towards the mean of the devices:

    phi_i <- SGD(theta; k mini-batches of device i)
    theta <- theta + epsilon_t * mean_i (phi_i - theta)       epsilon_t falls to 0, by default linearly
"""

from dataclasses import dataclass

from tinyfl.algorithms import Inner, TowardsMean, refuse_joint_training
from tinyfl.algorithms.schedules import in_steps, scheduled


@dataclass(frozen=True)
class Reptile(TowardsMean):
    rounds: int
    samples: int = 50
    batch: int = 10
    rate: float = 0.02
    outer_step: float = 1.0  # epsilon_0
    clip: float = 0.0
    outer_schedule: str = ""  # linear
    rate_schedule: str = ""  # constant
    outer_optimiser: str = "sgd"

    def __post_init__(self) -> None:
        refuse_joint_training("reptile", self.inner(0))

    def inner(self, round: int) -> Inner:
        rate = self.rate * in_steps(self.rate_schedule, round, self.rounds)
        return Inner(samples=self.samples, batch=self.batch, passes=1, rate=rate, clip=self.clip)

    def alpha(self, round: int) -> float:  # epsilon_t
        return self.outer_step * scheduled(self.outer_schedule or "linear", round, self.rounds)
