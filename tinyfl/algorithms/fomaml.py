"""FOMAML, first-order MAML (Finn, Abbeel, Levine 2017; arXiv:1703.03400, section 5.2).

Each device adapts on its support set, and sends the gradient of its query set's loss where it then is:

    phi_i <- theta;   k times:  phi_i <- phi_i - alpha * grad L(phi_i; support)
    theta <- Adam(theta; mean_i grad L(phi_i; query))          MAML without the derivative of phi_i with respect to theta
"""

from dataclasses import dataclass

from tinyfl.algorithms import Inner, Phase, TowardsMean
from tinyfl.algorithms.schedules import in_steps, scheduled
from tinyfl.errors import ConfigError


@dataclass(frozen=True)
class FOMAML(TowardsMean):
    samples: int = 50
    support: int = 0  # half of the samples
    steps: int = 5  # k
    rate: float = 0.05  # alpha
    clip: float = 0.0
    outer_step: float = 0.001  # Adam's rate
    outer_optimiser: str = "adam"
    rounds: int = 1  # of the schedules
    outer_schedule: str = ""  # constant
    rate_schedule: str = ""  # constant

    def __post_init__(self) -> None:
        if self.samples < 2 or self.support >= self.samples:
            raise ConfigError(
                f"of {self.samples} samples, {self.support or 'half'} as the support set leave none to measure on. "
                "Give more --samples, or a smaller --support."
            )

    def inner(self, round: int) -> Inner:
        support = self.support or self.samples // 2
        rate = self.rate * in_steps(self.rate_schedule, round, self.rounds)
        adapt = Phase(support, rate, batch=support, passes=self.steps, clip=self.clip)
        return Inner(adapt, Phase(self.samples - support, rate=0.0, clip=self.clip), returns="gradient")

    def alpha(self, round: int) -> float:
        return self.outer_step * scheduled(self.outer_schedule, round, self.rounds)
