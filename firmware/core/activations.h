/* Activations and their derivatives, over a layer's values. */
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

#endif
