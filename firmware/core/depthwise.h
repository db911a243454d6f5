/* Depthwise convolutions: output channel j has its own kernel over input channel j / multiplier. */
#ifndef TINYFL_DEPTHWISE_H
#define TINYFL_DEPTHWISE_H

#include "conv.h"

TINYFL_INLINE size_t multiplier_of(const tinyfl_layer *l) { return (size_t)l->outputs / l->channels; }

/* y = b + W x, for each channel separately; w is (kernel height, kernel width, channels, multiplier) */
static __attribute__((unused)) void depthwise_forward(const conv *c, const real *x, real *y)
{
    const tinyfl_layer *l = c->shape;
    const size_t multiplier = multiplier_of(l);
    for (size_t row = 0; row < c->rows.count; row++)
        for (size_t column = 0; column < c->columns.count; column++, y += l->outputs) {
            const tinyfl_cover v = window_at(c, row, column);
            for (size_t j = 0; j < l->outputs; j++)
                y[j] = c->b[j];
            for (size_t ky = v.rows.first; ky < v.rows.end; ky++) {
                const real *in = x + input_at(l, &v, ky) * l->channels;
                const real *w = c->w + kernel_at(l, &v, ky) * l->outputs;
                for (size_t kx = v.columns.first; kx < v.columns.end; kx++, in += l->channels, w += l->outputs)
                    for (size_t i = 0, j = 0; i < l->channels; i++)
                        for (size_t m = 0; m < multiplier; m++, j++)
                            y[j] += w[j] * in[i];
            }
        }
}

/* back, zeroed by the caller, += W delta at every tap of every window */
static __attribute__((unused)) void depthwise_back(const conv *c, const real *delta, real *back)
{
    const tinyfl_layer *l = c->shape;
    const size_t multiplier = multiplier_of(l);
    for (size_t row = 0; row < c->rows.count; row++)
        for (size_t column = 0; column < c->columns.count; column++, delta += l->outputs) {
            const tinyfl_cover v = window_at(c, row, column);
            for (size_t ky = v.rows.first; ky < v.rows.end; ky++) {
                real *into = back + input_at(l, &v, ky) * l->channels;
                const real *w = c->w + kernel_at(l, &v, ky) * l->outputs;
                for (size_t kx = v.columns.first; kx < v.columns.end; kx++, into += l->channels, w += l->outputs)
                    for (size_t i = 0, j = 0; i < l->channels; i++)
                        for (size_t m = 0; m < multiplier; m++, j++)
                            into[i] += w[j] * delta[j];
            }
        }
}

/* As conv_weights. */
TINYFL_INLINE void depthwise_weights(const conv *c, const real *x, const real *delta, real *into, const int what)
{
    const tinyfl_layer *l = c->shape;
    const size_t multiplier = multiplier_of(l);
    for (size_t ky = 0; ky < l->kernel_height; ky++)
        for (size_t kx = 0; kx < l->kernel_width; kx++) {
            const tinyfl_field f = field(c, ky, kx);
            real *row = into + (ky * l->kernel_width + kx) * l->outputs;
            for (size_t i = 0, j = 0; i < l->channels; i++)
                for (size_t m = 0; m < multiplier; m++, j++)
                    conv_weights_block(c, &f, x + f.at * l->channels + i, delta + j, row + j, what, 1);
        }
    conv_bias(c, delta, into + tinyfl_kernel_weights(l), what);
}

#endif
