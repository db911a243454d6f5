/* What the Python tests need of the core beyond its public functions: the inline ones, over arrays. */
#include "functions.h"
#include "online.h"
#include "tinyfl.h"

#define OVER(name, expression)                              \
    void name(const float *in, float *out, size_t count);   \
    void name(const float *in, float *out, size_t count)    \
    {                                                       \
        for (size_t i = 0; i < count; i++) {                \
            const float x = in[i];                          \
            out[i] = expression;                            \
        }                                                   \
    }

OVER(over_exp, real_exp(x))
OVER(over_log, real_log(x))
OVER(over_tanh, real_tanh(x))
OVER(over_sigmoid, real_sigmoid(x))
OVER(over_sin, real_sin(x))
OVER(over_rsqrt, real_rsqrt(x))
OVER(over_uniform, uniform(bits_of(x)))

float mean_loss(float sum, uint64_t measured);
float mean_loss(float sum, uint64_t measured)
{
    const tinyfl_loop loop = {.loss = sum, .measured = measured};
    return tinyfl_loop_loss(&loop);
}

size_t learner_size(void);
size_t learner_size(void) { return sizeof(tinyfl_learner); }

size_t online_size(void);
size_t online_size(void) { return sizeof(tinyfl_online); }

void sine(uint64_t seed, uint32_t device, uint32_t round, uint32_t index, float out[4]);
void sine(uint64_t seed, uint32_t device, uint32_t round, uint32_t index, float out[4])
{
    const tinyfl_sine s = tinyfl_sine_of(seed, device);
    out[0] = s.amplitude;
    out[1] = s.phase;
    tinyfl_sine_sample(s, seed, device, round, index, &out[2], &out[3]);
}
