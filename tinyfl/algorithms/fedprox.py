"""FedProx (Li et al. 2020; arXiv:1812.06127), algorithm 2: FedAvg whose devices are pulled towards theta.

phi_i <- SGD(theta; L(phi) + mu / 2 |phi - theta|^2, the samples of device i in mini-batches)
theta <- theta + step * mean_i (phi_i - theta)             step = 1 is the paper's mean of models
"""

from dataclasses import dataclass, replace

from tinyfl.algorithms import Inner
from tinyfl.algorithms.fedavg import FedAvg


@dataclass(frozen=True)
class FedProx(FedAvg):
    pull: float = 0.01  # mu

    def inner(self, round: int) -> Inner:
        (phase,) = super().inner(round).phases
        return Inner(replace(phase, pull=self.pull))
