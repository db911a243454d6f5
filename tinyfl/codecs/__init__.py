"""Codecs: weights, or a change of them, as fewer bytes and back, bit for bit as firmware/core/codec.c has it on a board.

A vector is float32 (weights,); ``arrays`` has the sizes of its parts, the kernel and the bias of each layer. Whole numbers of 4
or 8 bits with a scale are QSGD's form (Alistarh et al. 2017; arXiv:1610.02132), here without chance and with a scale for each
array. The largest changes alone are sparse SGD's (Aji and Heafield 2017; arXiv:1704.05021), here with 8 bits each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import F32, LIMIT
from tinyfl.errors import ConfigError, Corrupt

WHOLE = 10_000
"""All weights, in hundredths of a per cent (TINYFL_WHOLE)."""

GAP = 255
"""The first byte of a pair of top P % that skips as many weights, and has no value."""

LEAST = np.float32(2.0**-100)
"""An array whose values are all smaller has the scale 0."""


class Kind(IntEnum):
    """The forms of a vector (tinyfl_codec_kind)."""

    fp32 = 0
    fp16 = 1
    int8 = 2
    int4 = 3
    top = 4


@dataclass(frozen=True)
class Codec:
    """A form of a vector; of Kind.top with the ``share`` of the weights that it holds, 1 to 10,000 hundredths of a per cent."""

    kind: Kind = Kind.fp32
    share: int = 0

    def __post_init__(self) -> None:
        if (self.kind is Kind.top) != (0 < self.share <= WHOLE) or (self.kind is not Kind.top and self.share):
            raise ConfigError(f"{self.share / 100:g} % of the weights is no share for {self.kind.name}. Say top:10.")

    def __str__(self) -> str:
        return f"top:{self.share / 100:g}" if self.kind is Kind.top else self.kind.name

    @classmethod
    def named(cls, name: str) -> "Codec":
        """The codec called ``name``: fp32, fp16, int8, int4, or top:P.

        Raises ConfigError for any other name.
        """
        kind, _, percent = name.partition(":")
        try:
            share = round(float(percent) * 100) if kind == "top" else 0
            if kind not in Kind.__members__ or (percent and kind != "top") or (percent and share / 100 != float(percent)):
                raise ValueError
            return cls(Kind[kind], share)
        except (ValueError, OverflowError, ConfigError):
            raise ConfigError(
                f"no codec is called {name!r}. There are fp32, fp16, int8, int4, and top:P for the P % largest changes, with P "
                "from 0.01 to 100, as in top:10."
            ) from None

    def chosen(self, weights: int) -> int:
        """How many of the weights top P % holds."""
        return -(-weights * self.share // WHOLE)

    def bytes(self, arrays: Sequence[int]) -> int:
        """The most bytes of such a vector. Only top P % may need fewer."""
        if self.kind is Kind.top:
            weights = sum(arrays)
            return 2 * (self.chosen(weights) + (weights - self.chosen(weights)) // GAP) + 4
        return sum(_array_bytes(_form(self.kind, size), size) for size in arrays)


FP32 = Codec()


def encode(codec: Codec, values: F32, arrays: Sequence[int]) -> bytes:
    """The bytes of ``values``.

    Raises ValueError for a value that is not finite, or not below 2^50.
    """
    if not (np.abs(values) < LIMIT).all():
        raise ValueError("a value is not finite, or not below 2^50")
    if codec.kind is Kind.top:
        return _encode_top(codec, values)
    ends = np.cumsum(arrays, dtype=np.int64).tolist()
    parts = [values[end - size : end] for size, end in zip(arrays, ends, strict=True)]
    return b"".join(_encode_array(_form(codec.kind, len(part)), part) for part in parts)


def decode(codec: Codec, data: bytes, arrays: Sequence[int]) -> F32:
    """The vector of these bytes, float32 (weights,), from +0 on.

    Raises Corrupt, which says what is wrong with them.
    """
    if codec.kind is Kind.top:
        return _decode_top(codec, data, sum(arrays))
    if len(data) != (expected := codec.bytes(arrays)):
        raise Corrupt(f"{len(data):,} bytes are not the {expected:,} of {sum(arrays):,} weights as {codec}.")
    parts, at = [np.empty(0, np.float32)], 0
    for size in arrays:
        form = _form(codec.kind, size)
        end = at + _array_bytes(form, size)
        parts.append(_decode_array(form, data[at:end], size))
        at = end
    return np.concatenate(parts) + np.float32(0)


def _form(kind: Kind, size: int) -> Kind:
    """The form of an array; a single weight is a float, which is shorter than a scale and a whole number."""
    return Kind.fp32 if size == 1 and kind in (Kind.int8, Kind.int4) else kind


def _array_bytes(form: Kind, size: int) -> int:
    return {Kind.fp32: 4 * size, Kind.fp16: 2 * size, Kind.int8: size + 4, Kind.int4: (size + 1) // 2 + 4}[form]


def _scaled(values: F32, top: int) -> tuple[NDArray[np.int8], bytes]:
    """Whole numbers of at most ``top``, int8, and their scale."""
    largest = np.abs(values).max(initial=np.float32(0))
    if largest < LEAST:
        return np.zeros(len(values), np.int8), np.float32(0).tobytes()
    return np.rint(values * (np.float32(top) / largest)).astype(np.int8), (largest / np.float32(top)).tobytes()


def _encode_array(form: Kind, values: F32) -> bytes:
    if form is Kind.fp32:
        return values.tobytes()
    if form is Kind.fp16:
        most = np.finfo(np.float16).max
        return np.clip(values, -most, most).astype("<f2").tobytes()
    whole, scale = _scaled(values, 127 if form is Kind.int8 else 7)
    if form is Kind.int8:
        return whole.tobytes() + scale
    pairs = np.append(whole, np.zeros(len(whole) % 2, np.int8)).view(np.uint8).reshape(-1, 2) & 15
    return (pairs[:, 0] | pairs[:, 1] << 4).tobytes() + scale


def _decode_array(form: Kind, data: bytes, size: int) -> F32:
    if form in (Kind.fp32, Kind.fp16):
        values = np.frombuffer(data, "<f4" if form is Kind.fp32 else "<f2").astype(np.float32)
        if not (np.abs(values) < LIMIT).all():
            raise Corrupt("a value is not finite, or not below 2^50.")
        return values
    whole = np.frombuffer(data[:-4], np.int8)
    if form is Kind.int4:
        nibbles = np.stack([whole << 4, whole], axis=1).reshape(-1) >> 4
        if nibbles[size:].any():
            raise Corrupt("half a byte is left over, and is not 0.")
        whole = nibbles[:size]
    if whole.min() == (-8 if form is Kind.int4 else -128):
        raise Corrupt("a whole number is below those that the codec has.")
    return whole.astype(np.float32) * _scale(data)


def _scale(data: bytes) -> np.float32:
    """The scale at the end of ``data``."""
    scale = np.frombuffer(data[-4:], "<f4")[0]
    if not 0 <= scale < LIMIT or np.signbit(scale):
        raise Corrupt(f"a scale is {scale}, and not from 0 to 2^50.")
    return np.float32(scale)


def _encode_top(codec: Codec, values: F32) -> bytes:
    order = np.argsort(-np.abs(values), kind="stable")  # ties: the lower index
    indices = np.sort(order[: codec.chosen(len(values))])
    whole, scale = _scaled(values, 127)
    pairs = bytearray()
    for gap, value in zip(np.diff(indices, prepend=-1) - 1, whole[indices].view(np.uint8), strict=True):
        pairs += bytes([GAP, 0]) * int(gap // GAP) + bytes([gap % GAP, value])
    return bytes(pairs) + scale


def _decode_top(codec: Codec, data: bytes, weights: int) -> F32:
    if len(data) < 4 or len(data) % 2:
        raise Corrupt(f"{len(data):,} bytes are no pairs and a scale.")
    pairs = np.frombuffer(data[:-4], np.uint8).reshape(-1, 2)
    skips = pairs[:, 0] == GAP
    whole = pairs[~skips, 1].view(np.int8)
    if len(whole) != (chosen := codec.chosen(weights)) or skips[-1:].any():
        raise Corrupt(f"{len(whole):,} values are not the {chosen:,} of {codec} of {weights:,} weights.")
    indices = (np.cumsum(pairs[:, 0], dtype=np.int64) + np.cumsum(~skips) - 1)[~skips]
    if (indices >= weights).any():
        raise Corrupt(f"index {indices[-1]:,} is beyond the {weights:,} weights.")
    if pairs[skips, 1].any() or (whole == -128).any():
        raise Corrupt("a whole number is below those that the codec has, or where there is none.")
    result = np.zeros(weights, np.float32)
    result[indices] += whole.astype(np.float32) * _scale(data)
    return result
