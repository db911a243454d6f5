"""The core's arithmetic a second time, from firmware/SPEC.md alone: plain, slow, in NumPy's float32.

Every function works elementwise on arrays; sums run one term after another, never through np.sum or a matrix product. What a
layer sums up is in reference_layers.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import reference_layers
from numpy.typing import NDArray
from reference_layers import DENSE, F32, Layer, f32, lowest, split

U32 = NDArray[np.uint32]
u32 = np.uint32

ACTIVATIONS = IDENTITY, RELU, LEAKY_RELU, TANH, SIGMOID = range(5)
MEAN_SQUARED_ERROR, SOFTMAX_CROSS_ENTROPY, SIGMOID_CROSS_ENTROPY, PROTOTYPES = range(4)
LIMIT = f32(2.0**50)


def bits(x: F32) -> U32:
    return np.asarray(x, f32).view(u32)


def from_bits(x: U32) -> F32:
    return np.asarray(x, u32).view(f32)


def horner(x: F32, *coefficients: float) -> F32:
    p = np.full_like(x, f32(coefficients[0]))
    for c in coefficients[1:]:
        p = p * x + f32(c)
    return p


def nearest(k: F32) -> NDArray[np.int32]:
    return np.trunc(np.where(k < 0, k - f32(0.5), k + f32(0.5))).astype(np.int32)


def exp(x: F32) -> F32:
    x = np.asarray(x, f32)
    nan = np.isnan(x)
    b = np.clip(np.where(nan, f32(0), x), f32(-87), f32(88))
    n = nearest(b * f32(1.44269504))
    r = b - n.astype(f32) * f32(0.693359375)
    r = r - n.astype(f32) * f32(-2.12194440e-4)
    p = horner(r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
    p = p * (r * r) + r + f32(1)
    return np.where(nan, x, p * from_bits(((n + 127) << 23).astype(u32)))


def log(x: F32) -> F32:
    x = np.asarray(x, f32)
    e = (bits(x) >> u32(23)).astype(np.int32) - 127
    m = from_bits((bits(x) & u32(0x007FFFFF)) | u32(0x3F800000))
    high = m > f32(1.41421356)
    m = np.where(high, m * f32(0.5), m)
    f = (e + high).astype(f32)
    r = m - f32(1)
    z = r * r
    p = horner(
        r, 7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
        -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    )  # fmt: skip
    p = p * r * z + f * f32(-2.12194440e-4) - z * f32(0.5)
    return np.where(np.isnan(x), x, r + p + f * f32(0.693359375))


def tanh(x: F32) -> F32:
    x = np.clip(np.asarray(x, f32), f32(-7.9), f32(7.9))
    z = x * x
    p = horner(z, 1.75496961e-11, -1.260321e-08, 9.23180687e-06, 2.91839638e-03, 1.29175544e-01, 1)
    q = horner(z, 2.27685188e-04, 2.37550717e-02, 4.62508649e-01, 1)
    return x * p / q


def sin(x: F32) -> F32:
    x = np.asarray(x, f32)
    inside = np.abs(x) < f32(8192)
    b = np.where(inside, x, f32(0))
    n = nearest(b * f32(0.318309886))
    r = b
    for part in (3.140625, 9.67502593994140625e-4, 1.509957990978376432e-7):
        r = r - n.astype(f32) * f32(part)
    z = r * r
    p = horner(z, 2.60563115e-06, -1.98095397e-04, 8.33306555e-03, -1.66666597e-01)
    p = p * z * r + r
    return np.where(inside, np.where(n % 2 == 1, -p, p), f32(np.nan))


def rsqrt(x: F32) -> F32:
    x = np.asarray(x, f32)
    y = from_bits(u32(0x5F3759DF) - (bits(x) >> u32(1)))
    for _ in range(4):
        y = y * (f32(1.5) - f32(0.5) * x * y * y)
    return y


ROTATIONS = ((10, 26), (11, 21), (13, 27), (23, 5), (6, 20), (17, 11), (25, 10), (18, 20))


def threefry(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Threefry-4x32-20 of any counter and key, four words each."""
    word = 0xFFFFFFFF
    keys = [*key, 0x1BD11BDA ^ key[0] ^ key[1] ^ key[2] ^ key[3]]
    x = [(c + k) & word for c, k in zip(counter, key, strict=True)]

    def mix(p: int, q: int, n: int) -> None:
        x[p] = (x[p] + x[q]) & word
        x[q] = (x[q] << n | x[q] >> (32 - n)) & word ^ x[p]

    for r in range(20):
        a, b = ROTATIONS[r % 8]
        mix(0, 1 if r % 2 == 0 else 3, a)
        mix(2, 3 if r % 2 == 0 else 1, b)
        if r % 4 == 3:
            s = r // 4 + 1
            x = [(x[i] + keys[(s + i) % 5]) & word for i in range(4)]
            x[3] = (x[3] + s) & word
    return x


def random(seed: int, stream: int, device: int, round: int, index: int) -> list[int]:
    return threefry((index, round, device, 0), (seed & 0xFFFFFFFF, seed >> 32, stream, 0))


def uniform(word: int) -> np.float32:
    return f32(word >> 8) * f32(2.0**-24)


def sine_of(seed: int, device: int) -> tuple[np.float32, np.float32]:
    """(amplitude, phase) of a device's sine."""
    words = random(seed, 2, device, 0, 0)
    return f32(0.1) + f32(4.9) * uniform(words[0]), f32(6.28318530718) * uniform(words[1])


def sine_sample(seed: int, device: int, round: int, index: int) -> tuple[np.float32, np.float32]:
    amplitude, phase = sine_of(seed, device)
    x = f32(10) * uniform(random(seed, 3, device, round, index // 4)[index % 4]) - f32(5)
    return x, amplitude * sin(x + phase)[()]


def initial(layers: Sequence[Layer], seed: int) -> F32:
    """The weights that a network starts from."""
    theta: list[np.float32] = []
    for number, layer in enumerate(layers):
        is_dense = layer.kind == DENSE
        limit = f32(np.sqrt((1 if is_dense else 6) / layer.fan_in))
        drawn = [limit * (f32(2) * uniform(random(seed, 0, number, 0, k // 4)[k % 4]) - f32(1)) for k in range(layer.weights)]
        theta += drawn if is_dense else [*drawn[: prod(layer.kernel)], *[f32(0)] * layer.outputs] if drawn else []
    return np.array(theta, f32)


def activate(s: F32, activation: int) -> F32:
    if activation == RELU:
        return np.where(s > 0, s, f32(0))
    if activation == LEAKY_RELU:
        return np.where(s > 0, s, f32(0.1) * s)
    if activation == TANH:
        return tanh(s)
    if activation == SIGMOID:
        return f32(1) / (f32(1) + exp(-s))
    return s


def through(g: F32, y: F32, activation: int) -> F32:
    if activation == RELU:
        return np.where(y > 0, g, f32(0))
    if activation == LEAKY_RELU:
        return np.where(y > 0, g, f32(0.1) * g)
    if activation == TANH:
        return g * (f32(1) - y * y)
    if activation == SIGMOID:
        return g * (y * (f32(1) - y))
    return g


def total(terms: F32) -> np.float32:
    sum = f32(0)
    for term in terms:
        sum = sum + term
    return sum


def loss_and_gradient(o: F32, t: F32, loss: int) -> tuple[np.float32, F32]:
    n = f32(len(o))
    if loss == MEAN_SQUARED_ERROR:
        e = o - t
        return total(e * e) / n, f32(2) * e / n
    if loss == SIGMOID_CROSS_ENTROPY:
        z = exp(-np.abs(o))
        terms = np.where(o > 0, o, f32(0)) - o * t + log(f32(1) + z)
        return total(terms) / n, (np.where(o > 0, f32(1), z) / (f32(1) + z) - t) / n
    m = o.max()
    z = exp(o - m)
    s = total(z)
    return total(t * (log(s) - (o - m))), z / s - t


def clipped(g: F32, clip: np.float32) -> F32:
    m = np.abs(g).max()
    if not clip > 0 or not m > 0:
        return g
    q = max(total((g / m) * (g / m)), f32(1))
    k = clip / m * rsqrt(q)[()]
    return g * k if k < 1 else g


class Bad(Exception):
    """A value failed the guard before any weight moved."""


class Dead(Exception):
    """A value failed the guard deeper, and the learner is to be initialised again."""


def guard(values: F32, limit: np.float32 = LIMIT, otherwise: type[Exception] = Bad) -> None:
    if not (np.abs(values) < limit).all():
        raise otherwise


@dataclass
class Learner:
    """One device: layers, loss, theta (moved in place), clip, and the pull towards ``start``."""

    layers: Sequence[Layer]
    loss: int
    theta: F32
    clip: float = 0.0
    pull: float = 0.0
    start: F32 | None = None

    def forward(self, x: F32) -> list[F32]:
        """x and each layer's output, flat."""
        guard(x)
        values = [x]
        for layer, (w, b) in zip(self.layers, split(self.layers, self.theta), strict=True):
            s = reference_layers.forward(layer, w, b, values[-1])
            guard(s)
            values.append(activate(s, layer.activation))
        return values

    def _sweep(self, x: F32, t: F32, rate: np.float32, gradient: F32 | None) -> np.float32:
        values = self.forward(x)
        loss, g = loss_and_gradient(values[-1], t, self.loss)
        guard(np.array([loss]), f32(3.4e38))
        self.back(values, g, rate, gradient)
        return loss

    def back(self, values: list[F32], g: F32, rate: np.float32, gradient: F32 | None) -> None:
        """From the gradient ``g`` with respect to the output, of the sample with these ``values``, down."""
        guard(g)
        g = clipped(g, f32(self.clip))
        parts = split(self.layers, self.theta)
        sums = split(self.layers, gradient) if gradient is not None else []
        for i in reversed(range(lowest(self.layers), len(parts))):
            layer, (w, b), below = self.layers[i], parts[i], values[i]
            delta = through(g, values[i + 1], layer.activation)
            guard(delta, LIMIT / max(rate, f32(1)) / f32(layer.windows), Dead)
            g = reference_layers.back(layer, w, below, delta)
            if not layer.learns:
                continue
            if gradient is None:
                self._pull_back(i, rate)
                reference_layers.move(layer, below, rate * delta, w, b)
            else:
                reference_layers.gather(layer, below, delta, *sums[i])

    def learn(self, x: F32, t: F32, rate: float) -> np.float32:
        return self._sweep(x, t, f32(rate), None)

    def accumulate(self, x: F32, t: F32, gradient: F32) -> np.float32:
        return self._sweep(x, t, f32(1), gradient)

    def step(self, gradient: F32, rate: float, samples: int) -> None:
        move = f32(rate) / f32(samples) * gradient
        guard(move)
        for i, layer in enumerate(self.layers):
            if layer.learns:
                self._pull_back(i, f32(rate))
        self.theta -= move
        gradient[...] = 0

    def _pull_back(self, i: int, rate: np.float32) -> None:
        if not self.pull > 0:
            return
        assert self.start is not None
        for w, v in zip(split(self.layers, self.theta)[i], split(self.layers, self.start)[i], strict=True):
            w -= rate * f32(self.pull) * (w - v)


def fixed(phi: F32, theta: F32) -> NDArray[np.int64]:
    """A device's change in units of 2^-32."""
    return np.rint((phi.astype(np.float64) - theta.astype(np.float64)) * 2.0**32).astype(np.int64)
