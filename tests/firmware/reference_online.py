"""Online learning of firmware/SPEC.md a second time, from that page alone."""

import struct
from dataclasses import dataclass, field

import numpy as np
import reference as ref
from reference_layers import F32, f32

VALUES, CLASSES, LABELS, RECONSTRUCT = range(4)
NOTHING, INPUTS, EMBEDDINGS = range(3)
OK, INVALID, NUMERIC, FULL, ONLY, GONE = 0, -1, -4, -11, -12, -13
MOST = 1 << 24
LARGEST = f32(3.4e38)
ZERO = f32(0)
LOSSES = (ref.MEAN_SQUARED_ERROR, ref.SOFTMAX_CROSS_ENTROPY, ref.SIGMOID_CROSS_ENTROPY, ref.MEAN_SQUARED_ERROR)


class Refused(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


@dataclass(frozen=True)
class Set:
    head: int = CLASSES
    standardised: int = INPUTS
    embedded: int = 0
    inputs: int = 3
    size: int = 3
    places: int = 4
    ring: int = 2
    cap: int = 0
    window: int = 0
    rate: float = 0.1
    clip: float = 0.0
    threshold: float = np.inf
    tolerance: float = 0.05
    alarm: float = 0.0
    unsure: int = 0

    @property
    def record(self) -> bytes:
        words = self.inputs, self.size, self.places, self.ring, self.cap, self.window
        floats = self.rate, self.clip, self.threshold, self.tolerance, self.alarm
        return struct.pack("<4B6I5f", self.head, self.standardised, self.embedded, self.unsure, *words, *floats)

    @property
    def width(self) -> int:
        """Numbers of what is standardised."""
        return (0, self.inputs, self.size)[self.standardised]


def towards(a: F32, u: F32, c: int) -> F32:
    return np.asarray(a + (u - a) * (f32(1) / f32(c)), f32)


def demand(values: F32, limit: np.float32 = ref.LIMIT) -> None:
    if not (np.abs(values) < limit).all():
        raise Refused(NUMERIC)


@dataclass
class Online:
    set: Set
    n: int
    count: int = 0
    number: int = 0
    measured: int = 0
    compared: int = 0
    alarms: int = 0
    alarmed: int = 0
    confidence: np.float32 = ZERO
    error: np.float32 = ZERO
    usual: np.float32 = ZERO
    excess: np.float32 = ZERO
    ring: dict[int, F32] = field(default_factory=dict)
    unsure: int = 0

    def __post_init__(self) -> None:
        self.m, self.v = np.zeros(self.set.width, f32), np.zeros(self.set.width, f32)
        self.counts, self.w = [0] * self.set.places, np.zeros((self.set.size + 1, self.n), f32)

    @property
    def learnt(self) -> bytes:
        state = struct.pack(
            "<4I2fI2f2I", self.n, self.count, self.number, self.measured, self.confidence, self.error,
            self.compared, self.usual, self.excess, self.alarms, self.alarmed,
        )  # fmt: skip
        return state + self.m.tobytes() + self.v.tobytes() + np.array(self.counts, np.uint32).tobytes() + self.w.tobytes()

    def enter(self, x: F32) -> F32:
        if not self.set.width:
            return x
        demand(x)
        self.count = min(self.count + 1, self.set.cap or MOST)
        d = x - self.m
        self.m = towards(self.m, x, self.count)
        e = x - self.m
        self.v = towards(self.v, d * e, self.count)
        return np.where(self.v > f32(2.0**-100), e * ref.rsqrt(np.maximum(self.v, f32(2.0**-100))), f32(0)).astype(f32)

    def outputs(self, e: F32) -> F32:
        demand(e)
        o = self.w[-1].copy()
        for row, value in zip(self.w, e, strict=False):
            o = o + row * value
        demand(o)
        return o

    def _gradient(self, o: F32, t: F32) -> tuple[np.float32, F32]:
        loss, g = ref.loss_and_gradient(o, t, LOSSES[self.set.head])
        demand(np.array([loss]), LARGEST)
        demand(g)
        g = ref.clipped(g, f32(self.set.clip))
        demand(g, ref.LIMIT / max(f32(self.set.rate), f32(1)))
        return f32(loss), g

    def _step(self, e: F32, g: F32) -> None:
        if self.set.rate > 0:
            self.w = self.w - f32(self.set.rate) * g * np.append(e, f32(1))[:, None]

    def _hear(self, u: np.float32) -> None:
        self.measured += 1
        self.error = towards(self.error, u, min(self.measured, self.set.window or MOST))[()]
        if not self.set.alarm > 0:
            return
        self.compared = min(self.compared + 1, MOST)
        self.usual = towards(self.usual, u, self.compared)[()]
        self.excess = max(self.excess + (u - self.usual - f32(self.set.tolerance)), f32(0))
        if self.excess > f32(self.set.alarm):
            self.alarms, self.alarmed, self.compared = self.alarms + 1, self.number, 0
            self.usual = self.excess = f32(0)

    def _confidence(self, o: F32) -> np.float32:
        if self.set.head == CLASSES:
            return f32(1) / ref.total(ref.exp(o - o.max()))
        if self.set.head == LABELS:
            return ref.total(f32(1) / (f32(1) + ref.exp(-np.abs(o)))) / f32(self.n)
        return f32(0)

    def sample(self, e: F32, x: F32 | None = None) -> tuple[int, int, np.float32, np.float32, int]:
        """The sample's number and class, its confidence and score, and whether the head learnt from it."""
        o, score, learns = self.outputs(e), f32(0), False
        if self.set.head == RECONSTRUCT:
            assert x is not None
            demand(x)
            score, g = self._gradient(o, x)
            learns = bool(score < f32(self.set.threshold))
        self.number += 1
        sure = self._confidence(o)
        if self.set.unsure and (sure * f32(256) < self.set.unsure or (self.set.head == CLASSES and self.n == 1)):
            self.unsure = self.number
        self.confidence = towards(self.confidence, sure, min(self.number, self.set.window or MOST))[()]
        if self.set.head == RECONSTRUCT:
            if learns:
                self._step(e, g)
            self._hear(score)
        else:
            self.ring = {k: v for k, v in self.ring.items() if k > self.number - self.set.ring} | {self.number: e}
        return self.number, int(o.argmax()) if self.set.head == CLASSES else 0, sure, score, int(learns)

    @property
    def wanted(self) -> int:
        return self.unsure if self.unsure in self.ring else 0

    def label(self, number: int, label: int) -> np.float32:
        if self.set.head != CLASSES or label > self.n:
            raise Refused(INVALID)
        if label == self.set.places:
            raise Refused(FULL)
        if number not in self.ring:
            raise Refused(GONE)
        e, new = self.ring[number], label == self.n
        o = self.outputs(e)
        error = f32(o.argmax() != label)
        o = np.append(o, f32(0)) if new else o
        loss, g = self._gradient(o, (np.arange(len(o)) == label).astype(f32))
        if new:
            self.add()
        self.counts[label] += 1
        self._hear(error)
        self._step(e, g)
        del self.ring[number]
        return loss

    def target(self, number: int, t: F32) -> np.float32:
        t = t[: self.n]
        if self.set.head not in (VALUES, LABELS) or (self.set.head == LABELS and not ((t >= 0) & (t <= 1)).all()):
            raise Refused(INVALID)
        if number not in self.ring:
            raise Refused(GONE)
        demand(t)
        e = self.ring[number]
        o = self.outputs(e)
        loss, g = self._gradient(o, t)
        error = loss
        if self.set.head == LABELS:
            for j in np.flatnonzero(t > 0.5):
                self.counts[j] += 1
            error = f32(((o > 0) != (t > 0.5)).sum()) / f32(self.n)
        self._hear(error)
        self._step(e, g)
        del self.ring[number]
        return loss

    def add(self) -> None:
        if self.set.head not in (CLASSES, LABELS):
            raise Refused(INVALID)
        if self.n == self.set.places:
            raise Refused(FULL)
        self.w, self.n = np.column_stack([self.w, np.zeros(len(self.w), f32)]), self.n + 1

    def replace(self, head: F32) -> None:
        """Another head, (size + 1, outputs)."""
        if not self.n <= head.shape[1] <= self.set.places:
            raise Refused(INVALID)
        demand(head)
        self.w, self.n = head, head.shape[1]

    def remove(self, number: int) -> None:
        if self.set.head not in (CLASSES, LABELS) or number >= self.n:
            raise Refused(INVALID)
        if self.n == 1:
            raise Refused(ONLY)
        self.w, self.n = np.delete(self.w, number, axis=1), self.n - 1
        del self.counts[number]
        self.counts.append(0)
