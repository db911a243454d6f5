"""TinyMetaFed: meta-learning of a part of the network; the rest, as a rule the head, never leaves its device (Ren, Li, Anicic,
Runkler 2023; arXiv:2307.06822: partial local reconstruction, cosine-annealed rates).

A device first learns its own head h under the shared body b, then the body under that head, a sample at a time, and sends the
body alone:

    h_i <- h_0;    for (x, y) in stream:      h_i <- h_i - beta_t * grad_h L(b, h_i; x, y)
    b_i <- b;      for (x, y) in stream:      b_i <- b_i - beta_t * grad_b L(b_i, h_i; x, y)
    b <- b + alpha_t * (mean_i b_i - b)       alpha_t and beta_t fall to 0 along a cosine

A new device learns its head in the same way. h_0 is random, by the seed, and never moves; or, kept, a device's own head of its
last round. A reconstruction from the paper's abstract, which gives neither settings nor where a head starts. Its selective
communication is a codec, --up top:P (tinyfl.codecs).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tinyfl.algorithms import ALL, Inner, Layer, Phase, TowardsMean
from tinyfl.algorithms.schedules import in_steps, scheduled
from tinyfl.errors import ConfigError


@dataclass(frozen=True)
class TinyMetaFed(TowardsMean):
    rounds: int
    samples: int = 32  # S
    local_samples: int = 0  # S_1 of them; half
    local: str = ""  # the last layer
    local_start: str = "reconstructed"
    rate: float = 0.01  # beta_0
    outer_step: float = 1.0  # alpha_0
    clip: float = 0.0
    outer_schedule: str = ""  # cosine
    rate_schedule: str = ""  # cosine
    outer_optimiser: str = "sgd"

    def __post_init__(self) -> None:
        if not 0 < self.first < self.samples:
            raise ConfigError(
                f"of {self.samples} samples, {self.first} for the local layers leave none for them or for the shared ones. "
                "Give more --samples, or other --local-samples."
            )

    @property
    def first(self) -> int:
        return self.local_samples or self.samples // 2

    def inner(self, round: int, layers: Sequence[Layer]) -> Inner:
        local = mask(self.local, layers)
        rate = self.rate * in_steps(self.rate_schedule or "cosine", round, self.rounds)
        head = Phase(self.first, rate, clip=self.clip, layers=local)
        body = Phase(self.samples - self.first, rate, clip=self.clip, layers=ALL & ~local)
        return Inner(head, body, local=local, kept=self.local_start == "kept")

    def alpha(self, round: int) -> float:
        return self.outer_step * scheduled(self.outer_schedule or "cosine", round, self.rounds)

    def adaptation(self, phase: Phase, layers: Sequence[Layer]) -> tuple[Phase, ...]:
        return (replace(phase, layers=mask(self.local, layers)),)


def mask(local: str, layers: Sequence[Layer]) -> int:
    """The layers named in ``local``, with commas between them, as a mask; the last without a name.

    Raises ConfigError for a name that none has, or if no layer is left to be shared.
    """
    named = {layer.name: layer.bit for layer in layers}
    names = [name.strip() for name in local.split(",")] if local else [layers[-1].name]
    for name in names:
        if name not in named:
            raise ConfigError(f"no layer is called {name!r}. Give --local one or more of {', '.join(named)}.")
    if len(set(names)) == len(layers):
        raise ConfigError(f"all layers are local ({local or names[0]}), and none is left to be learnt together. Give fewer.")
    return sum(named[name] for name in set(names))
