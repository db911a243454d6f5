/* Losses and their gradients, and the clipping of a gradient's norm. */
#ifndef TINYFL_LOSSES_H
#define TINYFL_LOSSES_H

#include "functions.h"

static real mean_squared_error(const real *output, const real *y, size_t count, real *gradient)
{
    const float outputs = (float)count;
    real sum = real_of(0.0f);
    for (size_t i = 0; i < count; i++) {
        const real e = output[i] - y[i];
        sum += e * e;
        gradient[i] = 2.0f * e / outputs;
    }
    return sum / outputs;
}

static real softmax_cross_entropy(const real *output, const real *y, size_t count, real *gradient)
{
    real top = output[0], sum = real_of(0.0f), loss = real_of(0.0f);
    for (size_t i = 1; i < count; i++)
        top = larger(top, output[i]);
    for (size_t i = 0; i < count; i++) {
        gradient[i] = real_exp(output[i] - top);
        sum += gradient[i];
    }
    const real log_sum = real_log(sum);
    for (size_t i = 0; i < count; i++) {
        loss += y[i] * (log_sum - (output[i] - top));
        gradient[i] = gradient[i] / sum - y[i];
    }
    return loss;
}

static real sigmoid_cross_entropy(const real *output, const real *y, size_t count, real *gradient)
{
    const float outputs = (float)count;
    real loss = real_of(0.0f);
    for (size_t i = 0; i < count; i++) {
        const real e = real_exp(-magnitude(output[i])); /* in (0, 1], so that nothing overflows */
        const mask positive = output[i] > 0.0f;
        loss += where(positive, output[i], real_of(0.0f)) - output[i] * y[i] + real_log(1.0f + e);
        gradient[i] = (where(positive, real_of(1.0f), e) / (1.0f + e) - y[i]) / outputs;
    }
    return loss / outputs;
}

/* The loss of an output for its target, and the gradient with respect to the output. */
static real loss_of(uint8_t loss, const real *output, const real *y, size_t count, real *gradient)
{
    switch (loss) {
    case TINYFL_MEAN_SQUARED_ERROR:
        return mean_squared_error(output, y, count, gradient);
    case TINYFL_SOFTMAX_CROSS_ENTROPY:
        return softmax_cross_entropy(output, y, count, gradient);
    default:
        return sigmoid_cross_entropy(output, y, count, gradient);
    }
}

/* Scales the gradient to a norm of at most `clip`. The norm is taken relative to the largest element, so that no square
 * can overflow. */
static void clip_norm(real *gradient, size_t count, float clip)
{
    real top = real_of(0.0f), sum = real_of(0.0f);
    for (size_t i = 0; i < count; i++)
        top = larger(top, magnitude(gradient[i]));
    const real safe = where(top > 0.0f, top, real_of(1.0f));
    for (size_t i = 0; i < count; i++) {
        const real part = gradient[i] / safe;
        sum += part * part;
    }
    sum = where(sum > 1.0f, sum, real_of(1.0f));
    const real scale = clip / safe * real_rsqrt(sum);
    const mask over = (scale < 1.0f) & (top > 0.0f);
    for (size_t i = 0; i < count; i++)
        gradient[i] = where(over, gradient[i] * scale, gradient[i]);
}

#endif
