"""The way down: what devices get of theta, and what they then start from."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from tinyfl.codecs import FP32, Codec, decode, encode
from tinyfl.core import F32
from tinyfl.errors import diverged


@dataclass(frozen=True)
class Encoded:
    """How theta goes down to a board: as the ``data`` of ``codec``, of theta itself if ``onto`` is None, else of its change
    since the weights with the SHA-256 ``onto``, which the board must hold. If ``onto`` is empty, theta goes as floats, and
    the board is to hold it."""

    codec: Codec
    data: bytes
    onto: bytes | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """What a board must be able to take, as in its description."""
        form = () if self.codec == FP32 else (self.codec.kind.name,)
        return form if self.onto is None else (*form, "delta")


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

    def sent(self, theta: F32, before: F32 | None) -> tuple[F32, Encoded | None]:
        """What the devices start this round from, float32 (parameters,), if they have started the round before from
        ``before``; and how a board gets it, None for theta as it is.

        Raises TrainingError if theta has a value that is not finite, or not below 2^50.
        """
        try:
            return self._sent(theta, before)
        except ValueError as error:
            raise diverged(error) from error

    def _sent(self, theta: F32, before: F32 | None) -> tuple[F32, Encoded | None]:
        if self.plain:
            return theta, None
        if not self.delta:
            data = encode(self.codec, theta, self.arrays)
            return decode(self.codec, data, self.arrays), Encoded(self.codec, data)
        if before is None:
            return theta + np.float32(0), Encoded(FP32, b"", b"")
        data = encode(self.codec, theta - before, self.arrays)
        onto = sha256(before.astype("<f4").tobytes()).digest()
        return before + decode(self.codec, data, self.arrays), Encoded(self.codec, data, onto)

    @property
    def held_bytes(self) -> int:
        """RAM of a device for the weights that it holds while it learns."""
        return 4 * sum(self.arrays) if self.delta else 0

    def bytes(self, whole: bool) -> int:
        """The bytes for a device; ``whole``: one that takes part for the first time, or did not in the round before."""
        as_floats = self.plain or (self.delta and whole)
        return 4 * sum(self.arrays) if as_floats else self.codec.bytes(self.arrays)


PLAIN = Down()
"""Theta goes down as it is."""

MOST = 7 / 8
"""The share of a fleet in a round from which int4 with ``delta`` takes no more bytes than int8 without (docs/codecs.md)."""


def told(down: Down, cohort: int, devices: int) -> list[str]:
    """A note if ``delta`` takes more bytes than it saves, as devices that were not in the round before get theta whole."""
    if not down.delta or cohort >= MOST * devices:
        return []
    return [
        f"--delta: with {cohort:,} of {devices:,} devices in a round, many get all of theta, as float32; without, --down int8 "
        "takes fewer bytes (docs/codecs.md)"
    ]
