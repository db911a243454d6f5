"""A device's inner loop as plain data: a short list of phases, and what the device sends.

TinyReptile, Reptile and FedAvg have one phase; FedProx (Li et al. 2020; arXiv:1812.06127) one with a pull to theta; FOMAML
(Finn et al. 2017; arXiv:1703.03400, section 5.2) two, and sends the gradient of the second.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from math import copysign, inf

from tinyfl.codecs import FP32, Codec, Kind
from tinyfl.core import LIMIT
from tinyfl.errors import ConfigError

ALL = (1 << 64) - 1
"""Every layer, as a mask: bit i stands for layer i of the plan."""

MAX_PHASES = 4
"""Maximum number of phases of an inner loop (TINYFL_MAX_PHASES)."""

_HEAD, _PHASE, _FLOATS = struct.Struct("<BBBBH2xQ"), struct.Struct("<IIIfffQII"), struct.Struct("<fff")


@dataclass(frozen=True)
class Layer:
    """A layer with weights: its ``name``, its ``index`` in the plan, and the slice of theta that holds its kernel and bias."""

    name: str
    index: int
    weights: slice

    @property
    def bit(self) -> int:
        """The layer as a mask."""
        return 1 << self.index


@dataclass(frozen=True)
class Phase:
    """A part of an inner loop: ``passes`` over the next ``samples`` samples of the device's stream, with an SGD step of
    learning rate ``rate`` after every ``batch`` of them.

    Only the layers in the mask ``layers`` move. ``clip`` bounds the norm of the loss's gradient at the output; 0: no bound.
    ``pull`` adds pull / 2 |w - theta|^2 to the loss (FedProx's mu).

    With ``support`` the phase trains a network for prototypes (Snell et al. 2017; arXiv:1703.05175): in each pass its first
    ``support`` samples give the means of ``ways`` classes, the others are queries, and there is one step, on their mean loss,
    whatever ``batch`` is. The device takes support samples twice: it holds them, or they are sent twice."""

    samples: int
    rate: float
    batch: int = 1
    passes: int = 1
    clip: float = 0.0
    pull: float = 0.0
    layers: int = ALL
    support: int = 0
    ways: int = 0

    def __post_init__(self) -> None:
        if (self.support or self.ways) and not (1 <= self.ways <= self.support < self.samples < (1 << 32) - self.support):
            raise ConfigError(
                f"{self}: a support set has as many samples as ways or more, and fewer than the phase. Give more samples, or "
                "neither support nor ways."
            )
        least, most = min(self.samples, self.batch, self.passes), max(self.samples, self.batch, self.passes)
        if not 0 < least <= most < 1 << 32 or not 0 < self.layers <= ALL:
            raise ConfigError(f"{self}: samples, batch and passes are 1 to 2^32 - 1, and layers names at least one.")
        try:  # as a device computes them
            rate, clip, pull = _FLOATS.unpack(_FLOATS.pack(self.rate, self.clip, self.pull))
        except OverflowError:
            rate = clip = pull = inf
        usable = 0 <= rate < LIMIT and 0 <= clip < LIMIT and 0 <= pull < LIMIT
        negative = min(copysign(1, rate), copysign(1, clip), copysign(1, pull)) < 0  # 0 has a sign too
        if not usable or negative or rate * pull > 1 + 2**-24:  # exact; up to this it is 1 in float32
            raise ConfigError(
                f"{self}: rate, clip and pull are at least 0 and below 2^50, and rate x pull at most 1. "
                "Give a smaller rate or pull."
            )

    @property
    def steps(self) -> int:
        """Number of SGD steps."""
        return self.passes * (1 if self.support else -(-self.samples // self.batch))

    @property
    def taken(self) -> int:
        """Number of samples that the device takes, in the order of its stream and of the passes: support samples twice."""
        return self.passes * (self.samples + self.support)

    @property
    def held(self) -> int:
        """Number of samples that a device has to hold at once. In one pass of single steps it learns from each sample of its
        stream as it comes, and drops it: 1. Mini-batches and passes are of a support set that it holds (Nichol et al. 2018). In
        one pass for prototypes it holds the support set, and drops each query: support + 1."""
        if self.support and self.passes == 1:
            return self.support + 1
        return 1 if self.batch == self.passes == 1 else self.samples


class Returns(IntEnum):
    """What a device sends: the change of its weights; the mean gradient of its last phase, which then makes no step, by the
    weights there; or, on simulated devices only, by theta, through the steps of the phase before (MAML)."""

    change = 0
    gradient = 1
    meta_gradient = 2


_RETURNS = Returns.__members__

MAX_META_STEPS = 1000
"""Maximum number of steps that MAML's gradient goes through (TINYFL_MAX_META_STEPS)."""


def _differentiable(phases: Sequence[Phase]) -> bool:
    """Whether the simulator has MAML's gradient of these phases."""
    plain = all(not (phase.clip or phase.pull or phase.support) and phase.layers == ALL for phase in phases)
    first = phases[0]
    return plain and len(phases) == 2 and first.batch >= first.samples and first.passes <= MAX_META_STEPS


@dataclass(frozen=True, init=False)
class Inner:
    """A device's inner loop in a round: its phases, in order, from the weights theta on.

    The update is the change of the weights; or, with ``returns`` "gradient", minus the mean gradient of the last phase, as if
    one step of rate 1 had been taken from theta; or, with "meta_gradient", of MAML's: the first of two phases then makes
    full-batch steps, and neither has a bound or a pull. Layers in the mask ``local`` are never sent. They start from theta or,
    with ``kept``, from the device's own of its last round. What is sent is encoded by the codec ``up``; with ``residual``, a
    device adds what that loses to its next update (Seide et al. 2014).

    ``Inner(samples=..., rate=..., ...)`` has one phase, with Phase's arguments; ``lr`` is another name for its ``rate``."""

    phases: tuple[Phase, ...]
    returns: Returns
    local: int
    kept: bool
    up: Codec
    residual: bool

    def __init__(
        self,
        *phases: Phase,
        returns: str = "change",
        local: int = 0,
        kept: bool = False,
        up: Codec = FP32,
        residual: bool = False,
        samples: int | None = None,
        batch: int = 1,
        passes: int = 1,
        rate: float | None = None,
        lr: float | None = None,
        clip: float = 0.0,
        pull: float = 0.0,
    ) -> None:
        if samples is not None:
            step = rate if lr is None else lr
            if phases or step is None or None not in (rate, lr):
                raise ConfigError("an inner loop is a list of phases, or samples and a rate. Give one of them.")
            phases = (Phase(samples, step, batch, passes, clip, pull),)
        if not 1 <= len(phases) <= MAX_PHASES or returns not in _RETURNS or not 0 <= local < ALL:
            raise ConfigError(
                f"{len(phases)} phases that return {returns!r}, local {local:#x}. Give 1 to {MAX_PHASES}, returns "
                '"change", "gradient" or "meta_gradient", and local as a mask that leaves a layer to be sent.'
            )
        if residual and up == FP32:
            raise ConfigError("an update as fp32 loses nothing. Leave residual out, or encode the update.")
        if len(phases) > 1 and sum(phase.samples for phase in phases) >= 1 << 32:
            raise ConfigError("the phases have 2^32 samples or more. Give fewer.")
        if returns != "change" and phases[-1].passes > 1:
            raise ConfigError("the phase whose gradient is returned makes one pass. Leave its passes out.")
        if returns == "meta_gradient" and (local or not _differentiable(phases)):
            raise ConfigError(
                f"MAML's gradient takes two phases for all layers, the first of up to {MAX_META_STEPS} full-batch steps, "
                "without clip, pull, prototypes and local layers."
            )
        self.__dict__.update(
            phases=phases, returns=_RETURNS[returns], local=local, kept=kept, up=up, residual=residual
        )  # frozen

    @property
    def keeps(self) -> int:
        """What a device keeps from round to round, as flags: 1 the local layers, 2 what the codec loses."""
        return self.kept | self.residual << 1

    @property
    def samples(self) -> int:
        """Number of samples of all phases."""
        return sum(phase.samples for phase in self.phases)

    @property
    def total(self) -> int:
        """Number of sample gradients: each sample as often as its phase has passes."""
        return sum(phase.samples * phase.passes for phase in self.phases)

    @property
    def taken(self) -> int:
        """Number of samples that a device takes: as ``total``, and support samples once more."""
        return sum(phase.taken for phase in self.phases)

    @property
    def ways(self) -> int:
        """The most classes of a phase for prototypes; 0 without one."""
        return max(phase.ways for phase in self.phases)

    @property
    def held(self) -> int:
        """Number of samples that a device has to hold at once: those of the phase that holds the most."""
        return max(phase.held for phase in self.phases)

    @property
    def steps(self) -> int:
        """Number of SGD steps."""
        return sum(phase.steps for phase in self.phases)

    @property
    def batch(self) -> int:
        """The largest batch."""
        return max(phase.batch for phase in self.phases)

    def still(self) -> "Inner":
        """The same inner loop at a rate of 0, which measures the loss and changes nothing."""
        return Inner(*(replace(phase, rate=0.0) for phase in self.phases), returns=self.returns.name, local=self.local)

    def sent_as(self, up: Codec, residual: bool = False) -> "Inner":
        """The same inner loop, whose update is encoded by ``up``, and of which a device may keep the residual."""
        returns, local, kept = self.returns.name, self.local, self.kept
        return Inner(*self.phases, returns=returns, local=local, kept=kept, up=up, residual=residual)

    @property
    def holds_theta(self) -> bool:
        """Whether a device holds a copy of theta while it learns: for a pull, or to encode its change."""
        encodes = self.up.kind is not Kind.fp32 and self.returns is Returns.change
        return encodes or any(phase.pull for phase in self.phases)

    @property
    def needs(self) -> tuple[str, ...]:
        """What a board must be able to do beyond one phase, in the words of its description."""
        uses = {
            "phases": len(self.phases) > 1,
            "layers": any(phase.layers != ALL for phase in self.phases),
            "pull": any(phase.pull for phase in self.phases),
            "gradient": self.returns is Returns.gradient,
            "meta_gradient": self.returns is Returns.meta_gradient,
            "local": bool(self.local),
            "kept": self.kept,
            "residual": self.residual,
            "prototypes": self.ways > 0,
            self.up.kind.name: self.up.kind is not Kind.fp32,
        }
        return tuple(what for what, used in uses.items() if used)

    def to_bytes(self) -> bytes:
        """The record that C and messages carry (firmware/SPEC.md, inner loop)."""
        head = _HEAD.pack(len(self.phases), self.returns, self.keeps, self.up.kind, self.up.share, self.local)
        records = (
            _PHASE.pack(p.samples, p.batch, p.passes, p.rate, p.clip, p.pull, p.layers, p.support, p.ways) for p in self.phases
        )
        return head + b"".join(records)

    @classmethod
    def from_bytes(cls, record: bytes) -> "Inner":
        """The inverse of ``to_bytes``, with the float32 values that a device computes with.

        Raises ValueError for bytes that are no such record.
        """
        try:
            count, returns, keeps, up, share, local = _HEAD.unpack_from(record)
            rows = list(_PHASE.iter_unpack(record[_HEAD.size :]))
            if count != len(rows):
                raise ConfigError(f"{len(rows)} phases, not {count}.")
            phases = (Phase(s, rate, b, p, *more) for s, b, p, rate, *more in rows)
            codec = Codec(Kind(up), share)
            kept, residual = bool(keeps & 1), bool(keeps & 2)
            inner = cls(*phases, returns=Returns(returns).name, local=local, kept=kept, up=codec, residual=residual)
            if inner.to_bytes() != record:
                raise ValueError("it would be written differently")
            return inner
        except (struct.error, ConfigError) as error:
            raise ValueError(f"{len(record)} bytes are no inner loop: {error}") from error
