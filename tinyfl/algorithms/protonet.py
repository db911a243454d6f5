"""Prototypical networks (Snell, Swersky, Zemel 2017; arXiv:1703.05175), trained federated, in the memory of one sample's
activations.

A device embeds the samples of an episode. Class k is the mean c_k of its support samples' embeddings; a query x is of class k
with a probability by its distance to c_k. The device takes a step on the queries' mean loss (equations 1 and 2):

    c_k = mean of f(x) over the support samples of class k;      p(k | x) = softmax_k(-|f(x) - c_k|^2)
    phi_i <- theta - rate * grad mean over queries (-log p(y | x))
    theta <- Adam(theta; mean_i phi_i - theta)
"""

from dataclasses import dataclass
from typing import ClassVar

from tinyfl.algorithms import Inner, Phase, TowardsMean
from tinyfl.algorithms.schedules import scheduled
from tinyfl.errors import ConfigError


@dataclass(frozen=True)
class ProtoNet(TowardsMean):
    trains: ClassVar[str] = "prototypes"

    samples: int = 30
    support: int = 0  # one sample of each class
    ways: int = 5
    training_ways: int = 0  # as many
    rate: float = 1.0
    clip: float = 0.0
    outer_step: float = 0.002  # Adam's rate
    outer_optimiser: str = "adam"
    rounds: int = 1  # of the schedule
    outer_schedule: str = ""  # linear

    def __post_init__(self) -> None:
        if self.shots >= self.samples or self.shots < self.classes:
            raise ConfigError(
                f"of {self.samples} samples, a support set of {self.shots} for {self.classes} classes leaves no queries, or a "
                "class without support. Give more --samples, or --support at least as large as the number of classes."
            )

    @property
    def classes(self) -> int:
        return self.training_ways or self.ways

    @property
    def shots(self) -> int:
        return self.support or self.classes

    def inner(self, round: int) -> Inner:
        return Inner(Phase(self.samples, self.rate, clip=self.clip, support=self.shots, ways=self.classes))

    def alpha(self, round: int) -> float:
        return self.outer_step * scheduled(self.outer_schedule or "linear", round, self.rounds)
