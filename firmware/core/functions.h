/* exp, log, tanh, sin, cos and 1/sqrt from +, -, x, / and integer operations alone, so that every compiler, processor and
 * lane gives the same bits (SPEC.md, functions). NaN gives NaN. Errors are relative to exact values. */
#ifndef TINYFL_FUNCTIONS_H
#define TINYFL_FUNCTIONS_H

#include "real.h"

/* e^x, within 1 ulp; x is first clipped to [-87, 88]. */
TINYFL_INLINE real real_exp(real x)
{
    const mask number = x == x;
    real r = where(number, x, real_of(0.0f));
    r = where(r < -87.0f, real_of(-87.0f), r);
    r = where(r > 88.0f, real_of(88.0f), r);

    const real k = r * 1.44269504f;
    const whole n = truncated(k + where(k < 0.0f, real_of(-0.5f), real_of(0.5f)));
    r = r - to_real(n) * 0.693359375f;
    r = r - to_real(n) * -2.12194440e-4f;

    real p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return where(number, p * from_bits((tinyfl_word)(n + 127) << 23), x);
}

/* The natural logarithm of a normal positive number, within 1 ulp. */
TINYFL_INLINE real real_log(real x)
{
    const tinyfl_word bits = bits_of(x);
    whole exponent = (whole)(bits >> 23) - 127;
    real m = from_bits((bits & word_of(0x007fffffu)) | word_of(0x3f800000u)); /* [1, 2) */
    const mask high = m > 1.41421356f;
    m = where(high, m * 0.5f, m);
    const real e = to_real(exponent) + where(high, real_of(1.0f), real_of(0.0f));

    const real r = m - 1.0f, z = r * r;
    real p = r * 7.0376836292e-2f - 1.1514610310e-1f;
    p = p * r + 1.1676998740e-1f;
    p = p * r - 1.2420140846e-1f;
    p = p * r + 1.4249322787e-1f;
    p = p * r - 1.6668057665e-1f;
    p = p * r + 2.0000714765e-1f;
    p = p * r - 2.4999993993e-1f;
    p = p * r + 3.3333331174e-1f;
    p = p * r * z + e * -2.12194440e-4f - z * 0.5f;
    return where(x == x, r + p + e * 0.693359375f, x);
}

/* tanh x = x P(x^2) / Q(x^2) on [-7.9, 7.9], within 7 ulp and never beyond 1; coefficients by bench/fit_functions.py. */
TINYFL_INLINE real real_tanh(real x)
{
    x = where(x < -7.9f, real_of(-7.9f), x);
    x = where(x > 7.9f, real_of(7.9f), x);
    const real z = x * x;
    real p = z * 1.75496961e-11f - 1.260321e-08f;
    p = p * z + 9.23180687e-06f;
    p = p * z + 2.91839638e-03f;
    p = p * z + 1.29175544e-01f;
    p = p * z + 1.0f;
    real q = z * 2.27685188e-04f + 2.37550717e-02f;
    q = q * z + 4.62508649e-01f;
    q = q * z + 1.0f;
    return x * p / q;
}

/* 1 / (1 + e^-x) */
TINYFL_INLINE real real_sigmoid(real x) { return 1.0f / (1.0f + real_exp(-x)); }

/* sin x for |x| < 8192 (NaN beyond), within 2^-22 of the exact value; coefficients by bench/fit_functions.py. */
TINYFL_INLINE real real_sin(real x)
{
    const mask inside = magnitude(x) < 8192.0f;
    const real safe = where(inside, x, real_of(0.0f));
    const real k = safe * 0.318309886f;
    const whole n = truncated(k + where(k < 0.0f, real_of(-0.5f), real_of(0.5f)));
    real r = safe - to_real(n) * 3.140625f;
    r = r - to_real(n) * 9.67502593994140625e-4f;
    r = r - to_real(n) * 1.509957990978376432e-7f;

    const real z = r * r;
    real p = z * 2.60563115e-06f - 1.98095397e-04f;
    p = p * z + 8.33306555e-03f;
    p = p * z - 1.66666597e-01f;
    p = p * z * r + r;
    return where(inside, from_bits(bits_of(p) ^ ((tinyfl_word)n << 31)), from_bits(word_of(0x7fc00000u)));
}

/* cos x for |x| < 8192 (NaN beyond), within 2^-22 of the exact value: the sine of what is left of x beyond an odd multiple of
 * pi / 2. */
TINYFL_INLINE real real_cos(real x)
{
    const mask inside = magnitude(x) < 8192.0f;
    const real safe = where(inside, magnitude(x), real_of(0.0f));
    const whole n = truncated(safe * 0.318309886f);
    const real odd = to_real(n) + 0.5f;
    real r = safe - odd * 3.140625f;
    r = r - odd * 9.67502593994140625e-4f;
    r = r - odd * 1.509957990978376432e-7f;

    const real z = r * r;
    real p = z * 2.60563115e-06f - 1.98095397e-04f;
    p = p * z + 8.33306555e-03f;
    p = p * z - 1.66666597e-01f;
    p = p * z * r + r;
    return where(inside, from_bits(bits_of(p) ^ ((tinyfl_word)(n + 1) << 31)), from_bits(word_of(0x7fc00000u)));
}

/* x^-1/2 of a normal positive number, within 3 ulp: an estimate from the exponent, then four Newton steps. */
TINYFL_INLINE real real_rsqrt(real x)
{
    real y = from_bits(word_of(0x5f3759dfu) - (bits_of(x) >> 1));
    for (int i = 0; i < 4; i++)
        y = y * (1.5f - 0.5f * x * y * y);
    return y;
}

#endif
