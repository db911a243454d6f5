#include "functions.h"

TINYFL_API tinyfl_sine tinyfl_sine_of(uint64_t seed, tinyfl_word device)
{
    tinyfl_word bits[4];
    tinyfl_random(seed, TINYFL_STREAM_TASK, device, 0, 0, bits);
    return (tinyfl_sine){.amplitude = 0.1f + 4.9f * uniform(bits[0]),
                         .phase = 6.28318530718f * uniform(bits[1])};
}

TINYFL_API real tinyfl_sine_at(tinyfl_sine sine, real x) { return sine.amplitude * real_sin(x + sine.phase); }

/* A sample from its word of the generator. */
TINYFL_INLINE void sample_of_word(tinyfl_sine sine, tinyfl_word word, real *x, real *y)
{
    *x = 10.0f * uniform(word) - 5.0f;
    *y = tinyfl_sine_at(sine, *x);
}

TINYFL_API void tinyfl_sine_sample(tinyfl_sine sine, uint64_t seed, tinyfl_word device, uint32_t round, uint32_t index,
                                   real *x, real *y)
{
    tinyfl_word bits[4];
    tinyfl_random(seed, TINYFL_STREAM_SAMPLE, device, round, index / 4, bits);
    sample_of_word(sine, bits[index % 4], x, y);
}
