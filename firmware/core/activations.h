/* Activations, their derivatives and second derivatives, over a layer's values. */
#ifndef TINYFL_ACTIVATIONS_H
#define TINYFL_ACTIVATIONS_H

#include "functions.h"

static void activate(real *y, size_t count, uint8_t activation)
{
    switch (activation) {
    case TINYFL_RELU:
        for (size_t i = 0; i < count; i++)
            y[i] = where(y[i] > 0.0f, y[i], real_of(0.0f));
        break;
    case TINYFL_LEAKY_RELU:
        for (size_t i = 0; i < count; i++)
            y[i] = where(y[i] > 0.0f, y[i], TINYFL_LEAK * y[i]);
        break;
    case TINYFL_TANH:
        for (size_t i = 0; i < count; i++)
            y[i] = real_tanh(y[i]);
        break;
    case TINYFL_SIGMOID:
        for (size_t i = 0; i < count; i++)
            y[i] = real_sigmoid(y[i]);
        break;
    default: /* identity */
        break;
    }
}

/* Replaces an activation's output y by delta = gradient x act', with act' computed from y. */
static void through_activation(real *y, const real *gradient, size_t count, uint8_t activation)
{
    switch (activation) {
    case TINYFL_RELU:
        for (size_t i = 0; i < count; i++)
            y[i] = where(y[i] > 0.0f, gradient[i], real_of(0.0f));
        break;
    case TINYFL_LEAKY_RELU:
        for (size_t i = 0; i < count; i++)
            y[i] = where(y[i] > 0.0f, gradient[i], TINYFL_LEAK * gradient[i]);
        break;
    case TINYFL_TANH:
        for (size_t i = 0; i < count; i++)
            y[i] = gradient[i] * (1.0f - y[i] * y[i]);
        break;
    case TINYFL_SIGMOID:
        for (size_t i = 0; i < count; i++)
            y[i] = gradient[i] * (y[i] * (1.0f - y[i]));
        break;
    default: /* identity */
        memcpy(y, gradient, count * sizeof *y);
        break;
    }
}

/* Adds gradient x the tangent of act', computed from the output y and its tangent y_t, to a delta's tangent. For MAML, on hosts
 * only. No default: a compiler refuses an activation that is missing here. */
static inline void bend_activation(real *delta_t, const real *gradient, const real *y, const real *y_t, size_t count,
                                   uint8_t activation)
{
    switch ((tinyfl_activation)activation) {
    case TINYFL_TANH:
        for (size_t i = 0; i < count; i++)
            delta_t[i] -= gradient[i] * (2.0f * y[i] * y_t[i]);
        break;
    case TINYFL_SIGMOID:
        for (size_t i = 0; i < count; i++)
            delta_t[i] += gradient[i] * ((1.0f - 2.0f * y[i]) * y_t[i]);
        break;
    case TINYFL_IDENTITY: /* straight, or straight on both sides of 0 */
    case TINYFL_RELU:
    case TINYFL_LEAKY_RELU:
    case TINYFL_ACTIVATIONS:
        break;
    }
}

#endif
