"""The fixed-point arithmetic of TensorFlow Lite Micro, bit by bit, for a program's precomputed multipliers and tables
(firmware/SPEC.md, program). Integers are int64 arrays that hold 32-bit values."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tinyfl.errors import DataError

I64 = NDArray[np.int64]

MAX_SHIFT = 30
_ONE = (1 << 31) - 1
INPUTS: I64 = np.arange(-128, 128, dtype=np.int64)
"""All int8 inputs: the rows of a table."""


def quantize_multiplier(real: float | NDArray[np.float64]) -> tuple[I64, I64]:
    """Multipliers and shifts such that real = multiplier x 2^(shift - 31), with multipliers of 31 bits.

    Raises DataError unless real is below 2^30.
    """
    if not np.all(np.less(real, 2.0**MAX_SHIFT)):
        raise DataError(f"its scales ask for a factor of {np.max(real):.3g}, but it must be less than 2^{MAX_SHIFT}.")
    fraction, exponent = np.frexp(np.asarray(real, np.float64))
    multiplier = np.floor(fraction * 2.0**31 + 0.5).astype(np.int64)
    shift = exponent.astype(np.int64)
    shift = np.where(multiplier == 1 << 31, shift + 1, shift)
    multiplier = np.where(multiplier == 1 << 31, 1 << 30, multiplier)
    lost = shift < -31
    return np.where(lost, 0, multiplier), np.where(lost, 0, shift)


def high_multiply(a: I64 | int, b: I64 | int) -> I64:
    """The product of a and b as numbers in [-1, 1), rounded to nearest."""
    return (np.asarray(a, np.int64) * b + (1 << 30)) >> 31


def round_shift(a: I64, bits: int) -> I64:
    """a / 2^bits, rounded to nearest, halves away from 0."""
    half = (1 << bits) >> 1
    return np.where(a < 0, -((half - a) >> bits), (a + half) >> bits)


def rescale(a: I64, multiplier: int, shift: int) -> I64:
    """a x multiplier x 2^(shift - 31), rounded twice and wrapping around, as the core does."""
    shifted = (a << max(shift, 0)) & 0xFFFFFFFF
    product = high_multiply(np.where(shifted >> 31, shifted - (1 << 32), shifted), multiplier)
    return round_shift(product, min(max(-shift, 0), 40))


def exp_of_negative(a: I64, integer_bits: int) -> I64:
    """exp(a), in units of 2^-31, for a <= 0 in units of 2^(integer_bits - 31)."""
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    part = (a & (quarter - 1)) - quarter
    rest = part - a
    x = (part << integer_bits) + (1 << 28)
    x2 = high_multiply(x, x)
    x3, x4 = high_multiply(x2, x), high_multiply(x2, x2)
    tail = round_shift(high_multiply(round_shift(x4, 2) + x3, 715827883) + x2, 1)
    result = 1895147668 + high_multiply(1895147668, x + tail)
    for i, power in enumerate((1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)[: integer_bits + 2]):
        result = np.where((rest >> (fraction_bits - 2 + i)) & 1, high_multiply(result, power), result)
    return np.where(a == 0, _ONE, result)


def reciprocal(a: I64) -> I64:
    """2 / (1 + a), in units of 2^-29, for a in [0, 1) in units of 2^-31, by Newton's method."""
    half = (a + _ONE + 1) >> 1
    x = 1515870810 + high_multiply(half, -1010580540)
    for _ in range(3):
        x = x + high_multiply(x, (1 << 29) - high_multiply(half, x)) * 4
    return x


def logistic(a: I64) -> I64:
    """logistic(a), in units of 2^-31, for a in units of 2^-27."""
    positive = np.minimum(reciprocal(exp_of_negative(-np.abs(a), 4)) * 2, _ONE)
    return np.where(a == 0, 1 << 30, np.where(a > 0, positive, _ONE - positive))


def tanh(a: I64) -> I64:
    """tanh(a), in units of 2^-31, for a in units of 2^-27."""
    positive = np.minimum((reciprocal(exp_of_negative(-np.abs(a), 5)) - (1 << 29)) * 4, _ONE)
    return np.where(a == 0, 0, np.where(a > 0, positive, -positive))


def _int8(values: I64) -> bytes:
    return np.clip(values, -128, 127).astype(np.int8).tobytes()


def _sigmoidal(function: Callable[[I64], I64], scale: float, zero: int, bits: int, offset: int) -> bytes:
    fraction, shift = np.frexp(scale * 2.0**27)
    multiplier = int(np.floor(fraction * 2.0**31 + 0.5))
    radius = np.floor(15 * 2.0**27 / 2.0**shift)
    x = INPUTS - zero
    inside = np.abs(x) < radius
    values = round_shift(function(rescale(np.where(inside, x, 0), multiplier, int(shift))), 31 - bits) + offset
    return _int8(np.where(x <= -radius, -128, np.where(x >= radius, 127, values)))


def logistic_table(scale: float, zero: int) -> bytes:
    return _sigmoidal(logistic, scale, zero, 8, -128)


def tanh_table(scale: float, zero: int) -> bytes:
    return _sigmoidal(tanh, scale, zero, 7, 0)


def rescale_table(real: float, zero_in: int, zero_out: int, *, below: float | None = None, low: int = -128) -> bytes:
    """q -> zero_out + real (q - zero_in), at least ``low``; ``below``, if given, is the factor for q < zero_in."""
    x = INPUTS - zero_in
    factors = [real, real if below is None else below]
    multiplier, shift = quantize_multiplier(np.abs(factors))
    above, under = (
        rescale(x, int(m), int(s)) * (-1 if factor < 0 else 1) for m, s, factor in zip(multiplier, shift, factors, strict=True)
    )
    return _int8(np.maximum(np.where(x >= 0, above, under) + zero_out, low))


def clip_table(low: int, high: int) -> bytes:
    """q -> q, clipped to [``low``, ``high``]; if low > high, any q <= high gives low, and a greater one high."""
    return _int8(np.where(high < INPUTS, high, np.maximum(INPUTS, low)))
