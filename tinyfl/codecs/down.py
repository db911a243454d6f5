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

    def data(self, theta: F32, before: F32 | None) -> bytes:
        """What goes down, if the devices have started the round before from ``before``; empty where theta goes whole.

        Raises ValueError if theta has a value that is not finite, or not below 2^50.
        """
        if self.plain or (self.delta and before is None):
            return b""
        return encode(self.codec, theta - before if self.delta and before is not None else theta, self.arrays)

    def start(self, theta: F32, before: F32 | None) -> F32:
        """What the devices start this round from. Raises as ``data`` does."""
        data = self.data(theta, before)
        if not data:
            return theta if self.plain else theta + np.float32(0)
        change = decode(self.codec, data, self.arrays)
        return before + change if self.delta and before is not None else change

    def bytes(self, whole: bool) -> int:
        """The bytes for a device; ``whole``: one that takes part for the first time, or did not in the round before."""
        as_floats = self.plain or (self.delta and whole)
        return 4 * sum(self.arrays) if as_floats else self.codec.bytes(self.arrays)


PLAIN = Down()
"""Theta goes down as it is."""
