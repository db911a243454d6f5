/* The faster twins of dense.h: the same sums in the same order. */
#ifndef TINYFL_DENSE_TILES_H
#define TINYFL_DENSE_TILES_H

#include "dense.h"
#include "tiles.h"

TINYFL_INLINE void forward_block(const dense *l, const real *x, real *y, size_t first, const int block)
{
    chunk sum[ROW];
    EACH(k, block)
        sum[k] = chunk_at(l->b + first + (size_t)k * CHUNK);
    const real *w = l->w + first;
    for (size_t i = 0; i < l->inputs; i++, w += l->outputs)
        EACH(k, block)
            sum[k] += chunk_at(w + k * CHUNK) * x[i];
    EACH(k, block)
        chunk_put(y + first + (size_t)k * CHUNK, sum[k], l->outputs - first - (size_t)k * CHUNK);
}

static void fast_dense_forward(const dense *l, const real *x, real *y)
{
    FOR_BLOCKS(j, ROW, l->outputs, forward_block(l, x, y, j, block))
}

#if TINYFL_LANES > 1

#define fast_dense_backward dense_backward

#else

/* A square of weights: CHUNK inputs from `w` on, `count` outputs of them. Adds to the sums of the inputs in output order, and
 * moves the weights. */
TINYFL_INLINE chunk square_back(const dense *l, real *w, const real *x, const real *delta, float rate, chunk sum, size_t count,
                                const int what)
{
    chunk old[CHUNK], column[CHUNK];
    EACH(i, CHUNK)
        old[i] = column[i] = chunk_at(w + (size_t)i * l->outputs);
    if (what & DENSE_DELTA) {
        turn(column);
        if (count >= CHUNK)
            EACH(j, CHUNK)
                sum += column[j] * delta[j];
        else
            for (size_t j = 0; j < count; j++)
                sum += column[j] * delta[j];
    }
    if (what & DENSE_UPDATE) {
        const chunk step = rate * chunk_at(delta);
        EACH(i, CHUNK)
            chunk_put(w + (size_t)i * l->outputs, old[i] - step * x[i], count);
    }
    return sum;
}

TINYFL_INLINE void fast_dense_backward(const dense *l, const real *x, const real *delta, float rate, real *back, const int what)
{
    size_t i = 0;
    for (; i + CHUNK <= l->inputs; i += CHUNK) {
        chunk sum = chunk_of(0.0f);
        for (size_t j = 0; j < l->outputs; j += CHUNK)
            sum = square_back(l, l->w + i * l->outputs + j, x + i, delta + j, rate, sum, l->outputs - j, what);
        if (what & DENSE_DELTA)
            chunk_put(back + i, sum, CHUNK);
    }
    for (; i < l->inputs; i++)
        dense_backward_block(l, x, delta, rate, back, i, 1, what);
    if (what & DENSE_UPDATE)
        for (size_t j = 0; j < l->outputs; j++)
            l->b[j] -= rate * delta[j];
}

#endif

#endif
