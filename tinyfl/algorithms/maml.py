"""MAML (Finn, Abbeel, Levine 2017; arXiv:1703.03400), algorithm 1 with k inner steps.

Each device adapts on its support set, and sends the gradient of its query set's loss with respect to where it began:

    phi_i(theta):   phi_i <- theta;   k times:  phi_i <- phi_i - alpha * grad L(phi_i; support)
    theta <- Adam(theta; mean_i d L(phi_i(theta); query) / d theta)

The derivative of phi_i has second derivatives, for which a board has no code: simulated devices only.
"""

from dataclasses import dataclass

from tinyfl.algorithms import Inner
from tinyfl.algorithms.fomaml import FOMAML
from tinyfl.errors import ConfigError


@dataclass(frozen=True)
class MAML(FOMAML):
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip:
            raise ConfigError("MAML differentiates plain steps, without a bound: leave --clip out, or say --algorithm fomaml.")

    def inner(self, round: int) -> Inner:
        return Inner(*super().inner(round).phases, returns="meta_gradient")
