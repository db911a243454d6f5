"""Class means of firmware/SPEC.md a second time, from that page alone."""

from dataclasses import dataclass, field

import numpy as np
from reference import LIMIT, exp, log, rsqrt, total
from reference_layers import F32, f32

INFINITE = f32(np.inf)


@dataclass
class Means:
    size: int
    places: int
    centre: F32 | None = None
    normalised: bool = False
    sums: F32 = field(init=False)
    counts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.sums, self.counts = np.zeros((self.places, self.size), f32), [0] * self.places

    def prepared(self, e: F32) -> F32:
        if self.centre is not None:
            e = e - self.centre
        if self.normalised:
            q = total(e * e)
            if q > f32(2.0**-100):
                e = e * rsqrt(q)
        return e

    def add(self, number: int, e: F32) -> None:
        if (np.abs(e) < LIMIT).all():
            self.sums[number] = self.sums[number] + e
            self.counts[number] += 1

    def clear(self, number: int) -> None:
        self.sums[number], self.counts[number] = 0, 0

    def distances(self, e: F32) -> F32:
        return np.array([self._distance(number, e) for number in range(self.places)], f32)

    def _distance(self, number: int, e: F32) -> np.float32:
        if self.counts[number] == 0:
            return INFINITE
        u = e - self.sums[number] * (f32(1) / f32(self.counts[number]))
        return total(u * u)

    def nearest(self, e: F32, threshold: float) -> tuple[int | None, np.float32]:
        """The class, None for none, and the least distance."""
        distances = self.distances(e)
        if not (np.abs(e) < LIMIT).all() or not (distances < INFINITE).any():
            return None, INFINITE
        number = int(distances.argmin())
        return (number if distances[number] <= f32(threshold) else None), distances[number]


class Prototypes:
    """A pass of a phase for prototypes: gradients with respect to embeddings, sample after sample."""

    def __init__(self, size: int, ways: int) -> None:
        self.means, self.pulls = Means(size, ways), np.zeros((ways, size), f32)

    def _places(self) -> F32:
        """Of the class means, (ways, size); 0 for classes without samples."""
        shares = [f32(1) / f32(max(count, 1)) for count in self.means.counts]
        return np.array([sum * share for sum, share in zip(self.means.sums, shares, strict=True)], f32)

    def add(self, number: int, e: F32) -> None:
        if number < self.means.places:
            self.means.add(number, e)

    def query(self, number: int, e: F32) -> tuple[np.float32, F32]:
        """The loss, and its gradient with respect to the embedding."""
        gradient = np.zeros_like(e)
        found = query_loss(self.means.distances(e), number) if number < self.means.places else None
        if found is None:
            return f32(0), gradient
        for k, (g, mean) in enumerate(zip(found[1], self._places(), strict=True)):
            part = f32(2) * g * (e - mean)
            gradient, self.pulls[k] = gradient + part, self.pulls[k] - part
        return found[0], gradient

    def support(self, number: int, e: F32) -> F32:
        """The gradient with respect to the embedding of a support sample, the second time."""
        if number >= self.means.places:
            return np.zeros_like(e)
        return f32(1) / f32(max(self.means.counts[number], 1)) * self.pulls[number]


def query_loss(distances: F32, own: int) -> tuple[np.float32, F32] | None:
    """The loss and its gradient with respect to the distances; None if the query's own class has no samples."""
    there = distances < INFINITE
    if not there[own]:
        return None
    least = distances.min()
    z = np.where(there, exp(np.where(there, least - distances, f32(0))), f32(0))
    s = total(z)
    gradient = (np.arange(len(distances)) == own).astype(f32) - z / s
    return f32(log(s) + (distances[own] - least)), gradient
