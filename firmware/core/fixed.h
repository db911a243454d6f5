/* Fixed-point arithmetic of int8 inference, bit for bit that of TensorFlow Lite Micro (SPEC.md, program). Sums wrap
 * around, so that no input causes undefined behaviour. */
#ifndef TINYFL_FIXED_H
#define TINYFL_FIXED_H

#include "real.h"

TINYFL_INLINE int32_t wrap_add(int32_t a, int32_t b) { return (int32_t)((uint32_t)a + (uint32_t)b); }

TINYFL_INLINE int32_t wrap_shift(int32_t a, int bits) { return (int32_t)((uint32_t)a << bits); }

/* a b / 2^31, rounded to nearest, halves up: the product of numbers in [-1, 1). */
TINYFL_INLINE int32_t high_multiply(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + ((int64_t)1 << 30)) >> 31);
}

/* a / 2^bits, rounded to nearest, halves away from 0; bits from 0 to 31. */
TINYFL_INLINE int32_t round_shift(int32_t a, int bits)
{
    const uint32_t mask = ((uint32_t)1 << bits) - 1;
    const uint32_t half = (mask >> 1) + (a < 0);
    return (a >> bits) + (((uint32_t)a & mask) > half);
}

/* a × multiplier / 2^31 × 2^shift; multiplier at least 0, shift from -31 to 31. */
TINYFL_INLINE int32_t rescale(int32_t a, int32_t multiplier, int shift)
{
    const int32_t product = high_multiply(shift > 0 ? wrap_shift(a, shift) : a, multiplier);
    return shift < 0 ? round_shift(product, -shift) : product;
}

/* exp(a), in units of 2^-31, for a <= 0 in units of 2^-26. */
TINYFL_INLINE int32_t exp_of_negative(int32_t a)
{
    static const int32_t powers[] = {1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242}; /* exp(-2^(i - 2)) */
    const int32_t quarter = (int32_t)1 << 24;
    const int32_t part = (a & (quarter - 1)) - quarter; /* in [-1/4, 0) ... */
    const uint32_t rest = (uint32_t)part - (uint32_t)a; /* ... and the remaining quarters */
    const int32_t x = part * 32 + ((int32_t)1 << 28);   /* relative to -1/8, the centre of the series */
    const int32_t x2 = high_multiply(x, x), x3 = high_multiply(x2, x), x4 = high_multiply(x2, x2);
    const int32_t tail = round_shift(high_multiply(round_shift(x4, 2) + x3, 715827883) + x2, 1);
    int32_t result = 1895147668 + high_multiply(1895147668, x + tail); /* exp(-1/8) */
    for (int i = 0; i < 7; i++)
        if (rest >> (24 + i) & 1)
            result = high_multiply(result, powers[i]);
    return a == 0 ? INT32_MAX : result;
}

/* 1 / (1 + a) by Newton's method, for a in [0, 1), both in units of 2^-31. */
TINYFL_INLINE int32_t one_over_one_plus(int32_t a)
{
    const int32_t half = (int32_t)(((int64_t)a + INT32_MAX + 1) / 2);
    int32_t x = 1515870810 + high_multiply(half, -1010580540); /* 48 / 17 and 32 / 17 in units of 2^-29 */
    for (int i = 0; i < 3; i++) {
        const int32_t error = ((int32_t)1 << 29) - high_multiply(half, x);
        x += high_multiply(x, error) * 4;
    }
    return x > INT32_MAX / 2 ? INT32_MAX : x * 2;
}

#endif
