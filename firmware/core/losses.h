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

/* The loss of a query of class `own` by its squared distances to the class means: cross-entropy of the softmax over minus the
 * distances (Snell et al. 2017, arXiv:1703.05175, equation 2), and the gradient with respect to the distances. An infinite
 * distance is no candidate. 0, with a gradient of 0, in lanes whose own class is none; `counted` are the others. */
static __attribute__((unused)) real prototypes_loss(const real *distances, tinyfl_word own, size_t places, real *gradient,
                                                    mask *counted)
{
    const float infinite = __builtin_inff();
    real least = real_of(infinite), of_own = real_of(infinite), sum = real_of(0.0f);
    for (size_t k = 0; k < places; k++) {
        least = where(distances[k] < least, distances[k], least);
        of_own = where(own == word_of((uint32_t)k), distances[k], of_own);
    }
    *counted = of_own < infinite;
    for (size_t k = 0; k < places; k++) {
        const mask there = *counted & (distances[k] < infinite);
        gradient[k] = where(there, real_exp(where(there, least - distances[k], real_of(0.0f))), real_of(0.0f));
        sum += gradient[k];
    }
    sum = where(*counted, sum, real_of(1.0f));
    for (size_t k = 0; k < places; k++)
        gradient[k] = where(*counted & (own == word_of((uint32_t)k)), real_of(1.0f), real_of(0.0f)) - gradient[k] / sum;
    return where(*counted, real_log(sum) + (of_own - least), real_of(0.0f));
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
