/* The dense layer's arithmetic, in one loop nest each way. Sums start from the bias (forward) or 0 (backward) and run in
 * input order (forward) or output order (backward); every faster form must keep this order (SPEC.md, arithmetic).
 *
 * Each nest works on a block of independent sums side by side, held in registers: with a block of 1 it is the plain loop,
 * which also computes the tail of every layer. tests/firmware compares both with an independent version. */
#ifndef TINYFL_DENSE_H
#define TINYFL_DENSE_H

#include "real.h"

#ifndef TINYFL_BLOCK
#define TINYFL_BLOCK (TINYFL_LANES == 8 ? 4 : 8) /* sums that fit the registers: 16 of AVX2, 32 elsewhere */
#endif

typedef struct {
    size_t inputs, outputs;
    real *w; /* (inputs, outputs) */
    real *b; /* (outputs) */
} dense;

/* The action of a backward sweep on each weight. */
enum { DENSE_DELTA = 1, DENSE_UPDATE = 2 };

TINYFL_INLINE void dense_forward_block(const dense *l, const real *x, real *y, size_t first, const int block)
{
    real sum[TINYFL_BLOCK];
    for (int k = 0; k < block; k++)
        sum[k] = l->b[first + (size_t)k];
    for (size_t i = 0; i < l->inputs; i++) {
        const real *w = l->w + i * l->outputs + first;
        for (int k = 0; k < block; k++)
            sum[k] += w[k] * x[i];
    }
    for (int k = 0; k < block; k++)
        y[first + (size_t)k] = sum[k];
}

/* y = b + x W */
TINYFL_INLINE void dense_forward(const dense *l, const real *x, real *y)
{
    size_t j = 0;
    for (; j + TINYFL_BLOCK <= l->outputs; j += TINYFL_BLOCK)
        dense_forward_block(l, x, y, j, TINYFL_BLOCK);
    for (; j < l->outputs; j++)
        dense_forward_block(l, x, y, j, 1);
}

TINYFL_INLINE void dense_backward_block(const dense *l, const real *x, const real *delta, float rate, real *back,
                                        size_t first, const int block, const int what)
{
    real sum[TINYFL_BLOCK], in[TINYFL_BLOCK], old[TINYFL_BLOCK];
    for (int k = 0; k < block; k++) {
        sum[k] = real_of(0.0f);
        in[k] = x[first + (size_t)k];
    }
    for (size_t j = 0; j < l->outputs; j++) {
        const real d = delta[j], step = rate * d;
        real *w = l->w + first * l->outputs + j;
        /* All loads before the first store: otherwise rows a multiple of 4 KiB apart would wait for each other. */
        for (int k = 0; k < block; k++)
            old[k] = w[(size_t)k * l->outputs];
        for (int k = 0; k < block; k++) {
            if (what & DENSE_DELTA)
                sum[k] += old[k] * d;
            if (what & DENSE_UPDATE)
                w[(size_t)k * l->outputs] = old[k] - step * in[k];
        }
    }
    if (what & DENSE_DELTA)
        for (int k = 0; k < block; k++)
            back[first + (size_t)k] = sum[k];
}

/* back = W delta, from the old weights; w -= (rate delta) x and b -= rate delta; each if requested. */
TINYFL_INLINE void dense_backward(const dense *l, const real *x, const real *delta, float rate, real *back, const int what)
{
    size_t i = 0;
    for (; i + TINYFL_BLOCK <= l->inputs; i += TINYFL_BLOCK)
        dense_backward_block(l, x, delta, rate, back, i, TINYFL_BLOCK, what);
    for (; i < l->inputs; i++)
        dense_backward_block(l, x, delta, rate, back, i, 1, what);
    if (what & DENSE_UPDATE)
        for (size_t j = 0; j < l->outputs; j++)
            l->b[j] -= rate * delta[j];
}

/* gradient += delta x, in the layout of the layer's weights. */
TINYFL_INLINE void dense_accumulate(const dense *l, const real *x, const real *delta, real *gradient)
{
    for (size_t i = 0; i < l->inputs; i++)
        for (size_t j = 0; j < l->outputs; j++)
            gradient[i * l->outputs + j] += delta[j] * x[i];
    for (size_t j = 0; j < l->outputs; j++)
        gradient[l->inputs * l->outputs + j] += delta[j];
}

#endif
