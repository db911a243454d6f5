"""The way down: what devices get of theta, and what they then start from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinyfl.codecs import FP32, Codec, decode, encode
from tinyfl.core import F32


@dataclass(frozen=True)
class Down:
    """Devices start a round from ``start``, which a codec has made of theta; with ``delta`` they get what changed since the
    round before. With theta_r the server's, T_r the devices', and c the encoding followed by the decoding:

        T_r = c(theta_r);   with delta   T_0 = theta_0,   T_r = T_(r-1) + c(theta_r - T_(r-1))

    The change of a round is that from T_r, and moves theta_r itself: what the codec loses of theta is not lost to the server,
    and with ``delta`` it comes later. A device that does not hold T_(r-1) gets T_r whole, as floats. ``arrays`` are the sizes
    of theta's kernels and biases."""

    codec: Codec = FP32
    delta: bool = False
    arrays: Sequence[int] = ()

    @property
    def plain(self) -> bool:
        """Whether devices get theta itself."""
        return self.codec == FP32

    def start(self, theta: F32, before: F32 | None) -> F32:
        """What the devices start this round from, if they have started the round before from ``before``.

        Raises ValueError if theta has a value that is not finite, or not below 2^50.
        """
        if self.plain:
            return theta
        if not self.delta:
            return self._arrived(theta)
        return theta + np.float32(0) if before is None else before + self._arrived(theta - before)

    def _arrived(self, values: F32) -> F32:
        """What devices decode of encoded ``values``."""
        return decode(self.codec, encode(self.codec, values, self.arrays), self.arrays)

    def bytes(self, whole: bool) -> int:
        """The bytes for a device; ``whole``: one that takes part for the first time, or did not in the round before."""
        as_floats = self.plain or (self.delta and whole)
        return 4 * sum(self.arrays) if as_floats else self.codec.bytes(self.arrays)


PLAIN = Down()
"""Theta goes down as it is."""
