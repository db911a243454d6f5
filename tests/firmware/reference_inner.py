"""Inner loops and kept blocks of firmware/SPEC.md a second time, from that page alone."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from reference import Bad, Dead, Learner, guard
from reference_layers import F32, Layer, f32, resting_bytes
from reference_means import Prototypes

from tinyfl.codecs import Codec, Kind, decode, encode

CHANGE, GRADIENT = range(2)
LOCAL, RESIDUAL = 1, 2
"""What is kept, as flags."""
EVERY = (1 << 64) - 1
LIMIT = 2.0**50


@dataclass(frozen=True)
class Phase:
    """A phase as its record holds it, field for field."""

    samples: int = 1
    batch: int = 1
    passes: int = 1
    rate: float = 0.0
    clip: float = 0.0
    pull: float = 0.0
    layers: int = EVERY
    support: int = 0
    ways: int = 0


@dataclass(frozen=True)
class Inner:
    phases: tuple[Phase, ...]
    returns: int = CHANGE
    kept: int = 0
    local: int = 0
    up: tuple[int, int] = (0, 0)
    """The codec of the update, and its share."""

    @property
    def total(self) -> int:
        """Samples that are taken, each as often as it is."""
        return sum((phase.samples + phase.support) * phase.passes for phase in self.phases)

    @property
    def measured(self) -> int:
        """Samples that have a loss, each as often as it is taken."""
        return sum((phase.samples - phase.support) * phase.passes for phase in self.phases)

    @property
    def partial(self) -> bool:
        """Whether the update is not all the weights."""
        return self.returns == GRADIENT or self.local != 0 or self.up != (0, 0)


def inner_bytes(inner: Inner) -> bytes:
    head = struct.pack("<BBBBH2xQ", len(inner.phases), inner.returns, inner.kept, *inner.up, inner.local)
    return head + b"".join(struct.pack("<3I3fQ2I", *astuple(phase)) for phase in inner.phases)


def read_inner(record: bytes) -> Inner:
    """Raises ValueError for bytes that are no record."""
    if len(record) < 16 or len(record) != 16 + 40 * record[0] or not 1 <= record[0] <= 4 or any(record[6:8]):
        raise ValueError("no record of an inner loop")
    phases = tuple(Phase(*row) for row in struct.iter_unpack("<3I3fQ2I", record[16:]))
    inner = Inner(phases, *record[1:3], int.from_bytes(record[8:16], "little"), (record[3], record[4] | record[5] << 8))
    if inner.up[0] > 4 or not (0 < inner.up[1] <= 10_000 if inner.up[0] == 4 else inner.up[1] == 0):
        raise ValueError("no codec")
    if inner.kept & RESIDUAL and inner.up == (0, 0):
        raise ValueError("a residual of nothing")
    if inner.returns > 1 or inner.kept > 3 or not all(map(_sound, phases)):
        raise ValueError("an inner loop that contradicts the page")
    if sum(phase.samples for phase in phases) >= 1 << 32 or (inner.returns == GRADIENT and phases[-1].passes > 1):
        raise ValueError("too many samples, or passes")
    return inner


def _sound(phase: Phase) -> bool:
    factors = [f32(value) for value in (phase.rate, phase.clip, phase.pull)]
    fit = all(0 <= value < LIMIT and not np.signbit(value) for value in factors)
    if phase.support or phase.ways:
        fit = fit and 1 <= phase.ways <= phase.support < phase.samples < (1 << 32) - phase.support
    return min(phase.samples, phase.batch, phase.passes) >= 1 and fit and bool(factors[0] * factors[2] <= 1)


@dataclass(frozen=True)
class Take:
    """A sample that the device takes: in which phase, its index in the stream, its number in the pass, and of how many samples
    the step after it is, 0 for none."""

    phase: int
    index: int
    number: int
    completes: int


def schedule(inner: Inner) -> Iterator[Take]:
    first = 0
    for number, phase in enumerate(inner.phases):
        for _ in range(phase.passes):
            last = phase.samples + phase.support - 1
            for i in range(last + 1):
                filled = i % phase.batch + 1
                completes = filled if not phase.support and (filled == phase.batch or i == last) else 0
                if phase.support and i == last:
                    completes = phase.samples - phase.support
                yield Take(number, first + i % phase.samples, i, completes)
        first += phase.samples


def chosen(layers: Sequence[Layer], mask: int) -> NDArray[np.bool_]:
    """Which weights are those of the layers in the mask."""
    return np.repeat([bool(mask >> i & 1) for i in range(len(layers))], [layer.weights for layer in layers])


class Loop:
    """An inner loop under way, over its own copy of the weights."""

    def __init__(self, layers: Sequence[Layer], loss: int, weights: F32, inner: Inner, residual: F32 | None = None) -> None:
        self.layers, self.kind, self.inner = layers, loss, inner
        self.residual = np.zeros(int((~chosen(layers, inner.local)).sum()), np.float32) if residual is None else residual
        self.weights, self.start, self.gradient = weights.copy(), weights.copy(), np.zeros_like(weights)
        self.done, self.sum = 0, f32(0)
        self._prototypes = Prototypes(0, 0)
        self._todo = schedule(inner)
        self._next = next(self._todo, None)

    @property
    def index(self) -> int | None:
        """Of the next sample; None when all are done."""
        return None if self._next is None else self._next.index

    def _learner(self, phase: Phase) -> Learner:
        layers = [replace(layer, learns=layer.learns and bool(phase.layers >> i & 1)) for i, layer in enumerate(self.layers)]
        return Learner(layers, self.kind, self.weights, phase.clip, phase.pull, self.start)

    def learn(self, x: F32, t: F32) -> None:
        """Raises Bad or Dead where the guard ends the round."""
        assert self._next is not None
        take = self._next
        phase = self.inner.phases[take.phase]
        learner = self._learner(phase)
        returned = self.inner.returns == GRADIENT and take.phase == len(self.inner.phases) - 1
        if phase.support:
            loss = self._of_episode(learner, phase, take.number, x, t)
        elif phase.batch == 1 and not returned:
            loss = learner.learn(x, t, phase.rate)
        else:
            loss = learner.accumulate(x, t, self.gradient)
        if take.completes and not returned and (phase.support or phase.batch > 1):
            learner.step(self.gradient, phase.rate, take.completes)
        following = next(self._todo, None)
        if following is None:
            self._finish(phase)
        self.sum, self.done, self._next = self.sum + loss, self.done + 1, following

    def _of_episode(self, learner: Learner, phase: Phase, number: int, x: F32, t: F32) -> np.float32:
        """Sample ``number`` of a pass for prototypes."""
        values, own, loss = learner.forward(x), int(t.argmax()), f32(0)
        if number == 0:
            self._prototypes = Prototypes(len(t), phase.ways)
        if number < phase.support:
            self._prototypes.add(own, values[-1])
            return loss
        if number < phase.samples:
            loss, g = self._prototypes.query(own, values[-1])
        else:
            g = self._prototypes.support(own, values[-1])
        learner.back(values, g, f32(1), self.gradient)
        return loss

    def _finish(self, last: Phase) -> None:
        if self.inner.returns == GRADIENT:
            mean = f32(1) / f32(last.samples - last.support) * self.gradient
            guard(mean[~chosen(self.layers, self.inner.local)])
            self.gradient[...] = f32(0) - mean
        if self.inner.kept & LOCAL:
            guard(self.local)

    @property
    def local(self) -> F32:
        """The weights of the local layers."""
        return self.weights[chosen(self.layers, self.inner.local)]

    @property
    def update(self) -> F32:
        """What the device sends."""
        of_all = self.gradient if self.inner.returns == GRADIENT else self.weights
        return of_all[~chosen(self.layers, self.inner.local)]

    @property
    def data(self) -> bytes:
        """Its bytes."""
        if self.inner.up == (0, 0):
            return self.update.astype("<f4").tobytes()
        return encode(self.codec, self.encoded, self.sizes)

    @property
    def encoded(self) -> F32:
        """The vector that is encoded."""
        start = f32(0) if self.inner.returns == GRADIENT else self.start[~chosen(self.layers, self.inner.local)]
        return self.update - start + self.residual

    @property
    def block(self) -> F32:
        """What is kept after the round."""
        local = self.local if self.inner.kept & LOCAL else _nothing()
        lost = self.encoded - decode(self.codec, self.data, self.sizes) if self.inner.kept & RESIDUAL else _nothing()
        return np.concatenate([local, lost])

    @property
    def codec(self) -> Codec:
        return Codec(Kind(self.inner.up[0]), self.inner.up[1])

    @property
    def sizes(self) -> list[int]:
        """Those of what it sends: kernel and bias of each layer."""
        sent = [layer for i, layer in enumerate(self.layers) if not self.inner.local >> i & 1 and layer.weights]
        return [size for layer in sent for size in (layer.weights - layer.outputs, layer.outputs)]

    @property
    def loss(self) -> np.float32:
        return f32(self.sum / f32(self.inner.measured))

    def phi(self, theta: F32) -> F32:
        """What the update stands for."""
        phi, sent = theta.copy(), ~chosen(self.layers, self.inner.local)
        if self.inner.up != (0, 0):
            phi[sent] = theta[sent] + decode(self.codec, self.data, self.sizes)
        else:
            phi[sent] = theta[sent] + self.update if self.inner.returns == GRADIENT else self.update
        return phi


def _nothing() -> F32:
    return np.zeros(0, np.float32)


@dataclass
class Kept:
    """What one device keeps: the block and its copy, with their numbers."""

    run: int | None = None
    local: int = 0
    keeps: int = 0
    number: int = 0
    copied: int = 0
    block: F32 = field(default_factory=_nothing)
    copy: F32 = field(default_factory=_nothing)
    floats: int = 0

    def after(self, inner: Inner, layers: Sequence[Layer], run: int) -> "Kept":
        """The blocks with which a round of this run begins: these, or none."""
        floats = kept_floats(layers, inner)
        if self.run == run and (not inner.kept or (self.local, self.floats) == (inner.local, floats)):
            return self
        return Kept(run, inner.local, inner.kept, floats=floats) if inner.kept else Kept(run)

    def recall(self, round: int, saved: int) -> None:
        if self.number > round:
            self.block, self.number = (self.copy, self.copied) if self.copied <= round else (self.block, 0)
        elif self.number <= saved:
            self.copy, self.copied = self.block, self.number

    def load(self, loop_weights: F32, layers: Sequence[Layer]) -> None:
        """Puts the block, if there is one, among the weights."""
        if self.number and self.keeps & LOCAL:
            of_layers = chosen(layers, self.local)
            loop_weights[of_layers] = self.block[: of_layers.sum()]

    def residual(self, layers: Sequence[Layer]) -> F32 | None:
        """What a codec has lost, None for nothing yet."""
        local = int(chosen(layers, self.local).sum()) if self.keeps & LOCAL else 0
        return self.block[local:] if self.number and self.keeps & RESIDUAL else None

    def store(self, block: F32, round: int) -> None:
        self.block, self.number = block.copy(), round + 1


def kept_floats(layers: Sequence[Layer], inner: Inner) -> int:
    """The floats of a block."""
    local = chosen(layers, inner.local)
    return int(local.sum()) * bool(inner.kept & LOCAL) + int((~local).sum()) * bool(inner.kept & RESIDUAL)


def loop_bytes(layers: Sequence[Layer], inner: Inner) -> int:
    """What a board stores for this inner loop, beyond blocks."""
    gradient = inner.returns == GRADIENT or any(phase.batch > 1 or phase.support for phase in inner.phases)
    start = any(phase.pull > 0 for phase in inner.phases) or (inner.up != (0, 0) and inner.returns == CHANGE)
    prototypes = 2 * max(phase.ways for phase in inner.phases) * (layers[-1].values + 1)
    return 4 * (sum(layer.weights for layer in layers) * (gradient + start) + prototypes)


def arena_bytes(layers: Sequence[Layer], inner: Inner) -> int:
    """What a board stores during this inner loop."""
    return resting_bytes(layers) + 8 * kept_floats(layers, inner) + loop_bytes(layers, inner)


def samples_of(inner: Inner, samples: Sequence[tuple[F32, F32]]) -> list[tuple[F32, F32]]:
    """The samples of a stream in the order in which they are taken."""
    return [samples[take.index] for take in schedule(inner)]


def learnt(
    layers: Sequence[Layer],
    loss: int,
    theta: F32,
    inner: Inner,
    samples: Sequence[tuple[F32, F32]],
    residual: F32 | None = None,
) -> Loop | None:
    """The loop at its end, or None if the guard ended it."""
    loop = Loop(layers, loss, theta, inner, residual)
    try:
        while loop.index is not None:
            loop.learn(*samples[loop.index])
    except (Bad, Dead):
        return None
    return loop
