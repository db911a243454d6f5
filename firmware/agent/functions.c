/* The core's functions for sources. */
#include "functions.h"

#include "source.h"

#define NOT_A_NUMBER 0x7fc00000u
#define INFINITE 0x7f800000u
#define NORMAL 0x00800000u /* the smallest */

float tinyfl_sinf(float x) { return real_sin(x); }

float tinyfl_cosf(float x) { return real_cos(x); }

float tinyfl_expf(float x) { return real_exp(x); }

float tinyfl_tanhf(float x) { return x == x ? real_tanh(x) : x; }

float tinyfl_logf(float x)
{
    const uint32_t bits = bits_of(x);
    if (x == 0.0f)
        return from_bits(INFINITE | 0x80000000u);
    if (x < 0.0f)
        return from_bits(NOT_A_NUMBER);
    if (bits >= INFINITE)
        return x;
    return bits < NORMAL ? real_log(x * 0x1p24f) - 16.6355323f : real_log(x);
}

/* Bit by bit, so that the result is exactly rounded with or without a floating-point unit. */
float tinyfl_sqrtf(float x)
{
    if (!(x > 0.0f))
        return x == 0.0f ? x : from_bits(NOT_A_NUMBER);
    if (bits_of(x) >= INFINITE)
        return x;
    const int small = bits_of(x) < NORMAL;
    const uint32_t bits = bits_of(small ? x * 0x1p24f : x);
    int32_t exponent = (int32_t)(bits >> 23) - 127;
    uint32_t rest = (bits & 0x007fffffu) | NORMAL, root = 0, sum = 0;
    if (exponent & 1)
        rest += rest;
    exponent = (exponent - (exponent & 1)) / 2;
    rest += rest;
    for (uint32_t bit = 0x01000000u; bit; bit >>= 1, rest += rest) {
        const uint32_t tried = sum + bit;
        if (tried <= rest) {
            sum = tried + bit;
            rest -= tried;
            root += bit;
        }
    }
    root += rest ? root & 1 : 0;
    const float y = from_bits((root >> 1) + 0x3f000000u + ((uint32_t)exponent << 23));
    return small ? y * 0x1p-12f : y;
}
