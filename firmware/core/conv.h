/* Convolutions. At each output position, each kernel row within the input is one contiguous run of values and of weights: a
 * dense layer's arithmetic, in its order (SPEC.md, forward, backward). Blocks of independent sums stay in registers, as in
 * dense.h. */
#ifndef TINYFL_CONV_H
#define TINYFL_CONV_H

#include "dense.h"
#include "shape.h"

typedef struct {
    const tinyfl_layer *shape;
    tinyfl_side rows, columns;
    real *w; /* (kernel height, kernel width, channels, outputs) */
    real *b; /* (outputs) */
} conv;

TINYFL_INLINE conv conv_at(const tinyfl_layer *l, real *weights)
{
    return (conv){l, rows_of(l), columns_of(l), weights, weights + tinyfl_kernel_weights(l)};
}

/* The window of one output position. */
typedef struct {
    tinyfl_span rows, columns;
} tinyfl_cover;

TINYFL_INLINE tinyfl_cover window_at(const conv *c, size_t row, size_t column)
{
    const tinyfl_layer *l = c->shape;
    return (tinyfl_cover){span(row, l->height, l->kernel_height, l->stride_height, c->rows.before),
                           span(column, l->width, l->kernel_width, l->stride_width, c->columns.before)};
}

/* Row `ky` of a window: its start on the input and in the kernel, in columns. */
TINYFL_INLINE size_t input_at(const tinyfl_layer *l, const tinyfl_cover *v, size_t ky)
{
    return (v->rows.at + ky - v->rows.first) * l->width + v->columns.at;
}
TINYFL_INLINE size_t kernel_at(const tinyfl_layer *l, const tinyfl_cover *v, size_t ky)
{
    return ky * l->kernel_width + v->columns.first;
}

TINYFL_INLINE void conv_forward_block(const conv *c, const tinyfl_cover *v, const real *x, real *y, size_t first,
                                      const int block)
{
    const tinyfl_layer *l = c->shape;
    const size_t stretch = (v->columns.end - v->columns.first) * l->channels;
    real sum[TINYFL_BLOCK];
    for (int k = 0; k < block; k++)
        sum[k] = c->b[first + (size_t)k];
    for (size_t ky = v->rows.first; ky < v->rows.end; ky++) {
        const real *in = x + input_at(l, v, ky) * l->channels;
        const real *w = c->w + kernel_at(l, v, ky) * l->channels * l->outputs + first;
        for (size_t i = 0; i < stretch; i++, w += l->outputs)
            for (int k = 0; k < block; k++)
                sum[k] += w[k] * in[i];
    }
    for (int k = 0; k < block; k++)
        y[first + (size_t)k] = sum[k];
}

/* y = b + W * x */
static __attribute__((unused)) void conv_forward(const conv *c, const real *x, real *y)
{
    const size_t outputs = c->shape->outputs;
    for (size_t row = 0; row < c->rows.count; row++)
        for (size_t column = 0; column < c->columns.count; column++, y += outputs) {
            const tinyfl_cover v = window_at(c, row, column);
            size_t j = 0;
            for (; j + TINYFL_BLOCK <= outputs; j += TINYFL_BLOCK)
                conv_forward_block(c, &v, x, y, j, TINYFL_BLOCK);
            for (; j < outputs; j++)
                conv_forward_block(c, &v, x, y, j, 1);
        }
}

TINYFL_INLINE void conv_back_block(const real *w, const real *delta, size_t outputs, real *back, const int block)
{
    real sum[TINYFL_BLOCK];
    for (int k = 0; k < block; k++)
        sum[k] = back[k];
    for (size_t j = 0; j < outputs; j++)
        for (int k = 0; k < block; k++)
            sum[k] += w[(size_t)k * outputs + j] * delta[j];
    for (int k = 0; k < block; k++)
        back[k] = sum[k];
}

/* back, zeroed by the caller, += W delta at every tap of every window */
static __attribute__((unused)) void conv_back(const conv *c, const real *delta, real *back)
{
    const tinyfl_layer *l = c->shape;
    for (size_t row = 0; row < c->rows.count; row++)
        for (size_t column = 0; column < c->columns.count; column++, delta += l->outputs) {
            const tinyfl_cover v = window_at(c, row, column);
            const size_t stretch = (v.columns.end - v.columns.first) * l->channels;
            for (size_t ky = v.rows.first; ky < v.rows.end; ky++) {
                real *into = back + input_at(l, &v, ky) * l->channels;
                const real *w = c->w + kernel_at(l, &v, ky) * l->channels * l->outputs;
                size_t i = 0;
                for (; i + TINYFL_BLOCK <= stretch; i += TINYFL_BLOCK)
                    conv_back_block(w + i * l->outputs, delta, l->outputs, into + i, TINYFL_BLOCK);
                for (; i < stretch; i++)
                    conv_back_block(w + i * l->outputs, delta, l->outputs, into + i, 1);
            }
        }
}

/* The output positions whose windows have tap `k` of the kernel on the input, along one side: `first` to `end` - 1. */
typedef struct {
    size_t first, end;
} tinyfl_reach;

TINYFL_INLINE tinyfl_reach reach(tinyfl_side s, size_t size, size_t stride, size_t k)
{
    const size_t first = k < s.before ? (s.before - k + stride - 1) / stride : 0;
    const size_t end = k < size + s.before ? (size + s.before - k - 1) / stride + 1 : 0;
    return (tinyfl_reach){first, end < s.count ? end : s.count};
}

/* The output positions over which a weight's gradient is summed: rows, columns, and the first position on the input. */
typedef struct {
    tinyfl_reach rows, columns;
    size_t at;
} tinyfl_field;

TINYFL_INLINE tinyfl_field field(const conv *c, size_t ky, size_t kx)
{
    const tinyfl_layer *l = c->shape;
    const tinyfl_reach rows = reach(c->rows, l->height, l->stride_height, ky);
    const tinyfl_reach columns = reach(c->columns, l->width, l->stride_width, kx);
    if (rows.first >= rows.end || columns.first >= columns.end)
        return (tinyfl_field){{0, 0}, {0, 0}, 0}; /* this tap is never on the input */
    const size_t row = rows.first * l->stride_height + ky - c->rows.before;
    const size_t column = columns.first * l->stride_width + kx - c->columns.before;
    return (tinyfl_field){rows, columns, row * l->width + column};
}

/* sum[k] += delta[first + k] x over the field's positions in order, for one input channel */
TINYFL_INLINE void conv_sum_block(const conv *c, const tinyfl_field *f, const real *x, const real *delta, real *sum,
                                  const int block)
{
    const tinyfl_layer *l = c->shape;
    for (size_t row = f->rows.first; row < f->rows.end; row++) {
        const real *in = x + (row - f->rows.first) * l->stride_height * l->width * l->channels;
        const real *d = delta + (row * c->columns.count + f->columns.first) * l->outputs;
        for (size_t column = f->columns.first; column < f->columns.end; column++) {
            for (int k = 0; k < block; k++)
                sum[k] += d[k] * in[0];
            in += (size_t)l->stride_width * l->channels;
            d += l->outputs;
        }
    }
}

/* The use of the sums: subtract them from the weights, or add them to a gradient. */
enum { CONV_MOVE, CONV_GATHER };

TINYFL_INLINE real start(real held, const int what)
{
    if (what == CONV_GATHER)
        return held;
    return real_of(0.0f);
}

TINYFL_INLINE real result(real held, real sum, const int what)
{
    if (what == CONV_GATHER)
        return sum;
    return held - sum;
}

TINYFL_INLINE void conv_weights_block(const conv *c, const tinyfl_field *f, const real *x, const real *delta, real *into,
                                      const int what, const int block)
{
    real sum[TINYFL_BLOCK];
    for (int k = 0; k < block; k++)
        sum[k] = start(into[k], what);
    conv_sum_block(c, f, x, delta, sum, block);
    for (int k = 0; k < block; k++)
        into[k] = result(into[k], sum[k], what);
}

/* As conv_weights_block, for the bias, whose input is 1 everywhere. */
TINYFL_INLINE void conv_bias(const conv *c, const real *delta, real *into, const int what)
{
    const size_t outputs = c->shape->outputs, count = c->rows.count * c->columns.count;
    for (size_t j = 0; j < outputs; j++) {
        real sum = start(into[j], what);
        for (size_t p = 0; p < count; p++)
            sum += delta[p * outputs + j];
        into[j] = result(into[j], sum, what);
    }
}

/* CONV_MOVE: w -= the sum over positions of delta x, with the delta already multiplied by the rate; CONV_GATHER: adds the same
 * sum, of the plain delta, to `into`, which has the layout of the weights. */
TINYFL_INLINE void conv_weights(const conv *c, const real *x, const real *delta, real *into, const int what)
{
    const tinyfl_layer *l = c->shape;
    for (size_t ky = 0; ky < l->kernel_height; ky++)
        for (size_t kx = 0; kx < l->kernel_width; kx++) {
            const tinyfl_field f = field(c, ky, kx);
            for (size_t i = 0; i < l->channels; i++) {
                const real *in = x + f.at * l->channels + i;
                real *row = into + ((ky * l->kernel_width + kx) * l->channels + i) * l->outputs;
                size_t j = 0;
                for (; j + TINYFL_BLOCK <= l->outputs; j += TINYFL_BLOCK)
                    conv_weights_block(c, &f, in, delta + j, row + j, what, TINYFL_BLOCK);
                for (; j < l->outputs; j++)
                    conv_weights_block(c, &f, in, delta + j, row + j, what, 1);
            }
        }
    conv_bias(c, delta, into + tinyfl_kernel_weights(l), what);
}

#endif
