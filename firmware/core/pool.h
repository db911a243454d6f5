/* Pools. Of equal maxima in a window the first counts; an average covers only values on the input. */
#ifndef TINYFL_POOL_H
#define TINYFL_POOL_H

#include "conv.h"

TINYFL_INLINE float places(const tinyfl_cover *v)
{
    return (float)((v->rows.end - v->rows.first) * (v->columns.end - v->columns.first));
}

static void max_pool_forward(const conv *c, const real *x, real *y)
{
    const tinyfl_layer *l = c->shape;
    for (size_t row = 0; row < c->rows.count; row++)
        for (size_t column = 0; column < c->columns.count; column++, y += l->outputs) {
            const tinyfl_cover v = window_at(c, row, column);
            memcpy(y, x + input_at(l, &v, v.rows.first) * l->channels, l->channels * sizeof(real));
            for (size_t ky = v.rows.first; ky < v.rows.end; ky++) {
                const real *in = x + input_at(l, &v, ky) * l->channels;
                for (size_t kx = v.columns.first; kx < v.columns.end; kx++, in += l->channels)
                    for (size_t i = 0; i < l->channels; i++)
                        y[i] = larger(in[i], y[i]);
            }
        }
}

/* back, zeroed by the caller: the first maximum gets the delta. */
static void max_pool_back(const conv *c, const real *x, const real *delta, real *back)
{
    const tinyfl_layer *l = c->shape;
    for (size_t row = 0; row < c->rows.count; row++)
        for (size_t column = 0; column < c->columns.count; column++, delta += l->outputs) {
            const tinyfl_cover v = window_at(c, row, column);
            for (size_t i = 0; i < l->channels; i++) {
                real top = x[input_at(l, &v, v.rows.first) * l->channels + i];
                for (size_t ky = v.rows.first; ky < v.rows.end; ky++)
                    for (size_t kx = 0; kx < v.columns.end - v.columns.first; kx++)
                        top = larger(x[(input_at(l, &v, ky) + kx) * l->channels + i], top);
                mask waiting = every();
                for (size_t ky = v.rows.first; ky < v.rows.end; ky++)
                    for (size_t kx = 0; kx < v.columns.end - v.columns.first; kx++) {
                        const size_t at = (input_at(l, &v, ky) + kx) * l->channels + i;
                        const mask here = waiting & (x[at] == top);
                        back[at] = where(here, back[at] + delta[i], back[at]);
                        waiting &= ~here;
                    }
            }
        }
}

static void average_pool_forward(const conv *c, const real *x, real *y)
{
    const tinyfl_layer *l = c->shape;
    for (size_t row = 0; row < c->rows.count; row++)
        for (size_t column = 0; column < c->columns.count; column++, y += l->outputs) {
            const tinyfl_cover v = window_at(c, row, column);
            memset(y, 0, l->outputs * sizeof(real));
            for (size_t ky = v.rows.first; ky < v.rows.end; ky++) {
                const real *in = x + input_at(l, &v, ky) * l->channels;
                for (size_t kx = v.columns.first; kx < v.columns.end; kx++, in += l->channels)
                    for (size_t i = 0; i < l->channels; i++)
                        y[i] += in[i];
            }
            for (size_t i = 0; i < l->channels; i++)
                y[i] = y[i] / places(&v);
        }
}

/* back, zeroed by the caller */
static void average_pool_back(const conv *c, const real *delta, real *back)
{
    const tinyfl_layer *l = c->shape;
    for (size_t row = 0; row < c->rows.count; row++)
        for (size_t column = 0; column < c->columns.count; column++, delta += l->outputs) {
            const tinyfl_cover v = window_at(c, row, column);
            for (size_t ky = v.rows.first; ky < v.rows.end; ky++) {
                real *into = back + input_at(l, &v, ky) * l->channels;
                for (size_t kx = v.columns.first; kx < v.columns.end; kx++, into += l->channels)
                    for (size_t i = 0; i < l->channels; i++)
                        into[i] += delta[i] / places(&v);
            }
        }
}

#endif
