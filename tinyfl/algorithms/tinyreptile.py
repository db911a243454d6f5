"""TinyReptile: federated meta-learning by online learning (Ren, Anicic, Runkler; IJCNN 2023; arXiv:2304.05201).

One device per round learns from its stream, one sample at a time, and drops each sample; the server follows part of the way:

    phi   <- theta;   for (x, y) in stream:  phi <- phi - beta * grad L(phi; x, y)
    theta <- theta + alpha_t * (phi - theta)          alpha_t falls to 0, by default linearly

With a larger cohort the server follows the mean of the devices. A reconstruction from the paper's abstract and introduction;
its pseudocode and hyperparameters are not public.
"""

from dataclasses import dataclass

from tinyfl.algorithms import Inner, TowardsMean, refuse_joint_training
from tinyfl.algorithms.schedules import in_steps, scheduled


@dataclass(frozen=True)
class TinyReptile(TowardsMean):
    rounds: int
    samples: int = 32  # S: the stream's length
    rate: float = 0.01  # beta
    outer_step: float = 1.0  # alpha_0
    clip: float = 0.0
    outer_schedule: str = ""  # linear
    rate_schedule: str = ""  # constant
    outer_optimiser: str = "sgd"

    def __post_init__(self) -> None:
        refuse_joint_training("tinyreptile", self.inner(0))

    def inner(self, round: int) -> Inner:
        rate = self.rate * in_steps(self.rate_schedule, round, self.rounds)
        return Inner(samples=self.samples, batch=1, passes=1, rate=rate, clip=self.clip)

    def alpha(self, round: int) -> float:
        return self.outer_step * scheduled(self.outer_schedule or "linear", round, self.rounds)
