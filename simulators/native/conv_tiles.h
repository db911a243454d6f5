/* The faster twins of conv.h and depthwise.h: the same sums in the same order. A tile is TILE positions with the same taps of the
 * kernel on the input, times BLOCK chunks of channels; for the weights' gradient, TILE taps times BLOCK chunks.
 *
 * `kind` is TINYFL_CONV, or TINYFL_DEPTHWISE with a multiplier of 1, where each output has one input channel, its own. */
#ifndef TINYFL_CONV_TILES_H
#define TINYFL_CONV_TILES_H

#include "depthwise.h"
#include "tiles.h"

/* Positions along one side with the same taps: `count` from `first` on, `step` apart. */
typedef struct {
    size_t first, count, step;
} run;

/* Inputs of an output at one tap. */
TINYFL_INLINE size_t fan(const tinyfl_layer *l, const int kind) { return kind == TINYFL_CONV ? l->channels : 1; }

/* Position `index` of rows x columns, counted row by row. */
TINYFL_INLINE size_t position(const run *rows, const run *columns, size_t width, size_t index)
{
    return (rows->first + index / columns->count * rows->step) * width + columns->first + index % columns->count * columns->step;
}

/* Runs `call` with `at`, the index of the first of `tile` positions of `count`, a constant. Some positions may come twice. */
#define FOR_TILES(at, count, call)                                                                                            \
    if ((count) >= TILE) {                                                                                                    \
        enum { tile = TILE };                                                                                                 \
        for (size_t next_ = 0; next_ < (count); next_ += TILE) {                                                              \
            const size_t at = next_ + TILE <= (count) ? next_ : (count) - TILE;                                               \
            call;                                                                                                             \
        }                                                                                                                     \
    } else {                                                                                                                  \
        enum { tile = 1 };                                                                                                    \
        for (size_t at = 0; at < (count); at++)                                                                               \
            call;                                                                                                             \
    }

static run run_of_windows(tinyfl_side s, size_t size, size_t kernel, size_t stride, size_t first)
{
    const tinyfl_span taps = span(first, size, kernel, stride, s.before);
    size_t end = first + 1;
    for (; end < s.count; end++) {
        const tinyfl_span next = span(end, size, kernel, stride, s.before);
        if (next.first != taps.first || next.end != taps.end)
            break;
    }
    return (run){first, end - first, 1};
}

/* Stores a tile's sums: at each position's channels from out[p] on, of which `left` are there. */
TINYFL_INLINE void put_tile(real *const *out, chunk sum[TILE][BLOCK], size_t left, const int tile, const int block)
{
    EACH(p, tile)
        EACH(k, block)
            chunk_put(out[p] + (size_t)k * CHUNK, sum[p][k], left - (size_t)k * CHUNK);
}

TINYFL_INLINE void forward_tile(const conv *c, const int kind, const run *rows, const run *columns, const real *x, real *y,
                                size_t at, size_t j, const int tile, const int block)
{
    const tinyfl_layer *l = c->shape;
    const tinyfl_cover v = window_at(c, rows->first, columns->first);
    const size_t stretch = (v.columns.end - v.columns.first) * fan(l, kind), line = (size_t)l->width * l->channels;
    const real *in[TILE];
    real *out[TILE];
    chunk sum[TILE][BLOCK];
    EACH(p, tile)
    {
        const size_t index = at + (size_t)p, row = index / columns->count, column = index % columns->count;
        in[p] = x + ((v.rows.at + row * l->stride_height) * l->width + v.columns.at + column * l->stride_width) * l->channels;
        out[p] = y + position(rows, columns, c->columns.count, index) * l->outputs + j;
        EACH(k, block)
            sum[p][k] = chunk_at(c->b + j + (size_t)k * CHUNK);
    }
    for (size_t ky = v.rows.first; ky < v.rows.end; ky++) {
        const real *w = c->w + kernel_at(l, &v, ky) * fan(l, kind) * l->outputs + j;
        for (size_t i = 0; i < stretch; i++, w += l->outputs)
            EACH(k, block)
            {
                chunk weight = chunk_at(w + (size_t)k * CHUNK);
                KEEP(weight);
                EACH(p, tile)
                    if (kind == TINYFL_CONV)
                        sum[p][k] += weight * in[p][i];
                    else
                        sum[p][k] += weight * chunk_at(in[p] + i * l->channels + j + (size_t)k * CHUNK);
            }
        EACH(p, tile)
            in[p] += line;
    }
    put_tile(out, sum, l->outputs - j, tile, block);
}

TINYFL_INLINE void forward_channels(const conv *c, const int kind, const real *x, real *y, size_t j, const int block)
{
    const tinyfl_layer *l = c->shape;
    run rows, columns;
    for (size_t row = 0; row < c->rows.count; row += rows.count) {
        rows = run_of_windows(c->rows, l->height, l->kernel_height, l->stride_height, row);
        for (size_t column = 0; column < c->columns.count; column += columns.count) {
            columns = run_of_windows(c->columns, l->width, l->kernel_width, l->stride_width, column);
            FOR_TILES(at, rows.count * columns.count, forward_tile(c, kind, &rows, &columns, x, y, at, j, tile, block))
        }
    }
}

static void fast_conv_forward(const conv *c, const real *x, real *y)
{
    FOR_BLOCKS(j, BLOCK, (size_t)c->shape->outputs, forward_channels(c, TINYFL_CONV, x, y, j, block))
}

static void fast_depthwise_forward(const conv *c, const real *x, real *y)
{
    if (multiplier_of(c->shape) == 1)
        FOR_BLOCKS(j, BLOCK, (size_t)c->shape->outputs, forward_channels(c, TINYFL_DEPTHWISE, x, y, j, block))
    else
        depthwise_forward(c, x, y);
}

/* The taps on one place of the input, along one side: tap `first` of window `window`, then stride by stride less of the windows
 * after it, `count` in all. */
typedef struct {
    size_t window, first, count;
} taps;

static taps taps_on(tinyfl_side s, size_t place, size_t kernel, size_t stride)
{
    const size_t at = place + s.before, last = at / stride, end = last < s.count ? last + 1 : s.count;
    const size_t first = at < kernel ? 0 : (at - kernel) / stride + 1;
    return (taps){first, at - first * stride, first < end ? end - first : 0};
}

static run run_of_places(tinyfl_side s, size_t size, size_t kernel, size_t stride, size_t first)
{
    const taps here = taps_on(s, first, kernel, stride);
    size_t count = 1;
    for (size_t place = first + stride; place < size; place += stride, count++) {
        const taps next = taps_on(s, place, kernel, stride);
        if (next.first != here.first || next.count != here.count)
            break;
    }
    return (run){first, count, stride};
}

/* One tap: sum[p][k] += W delta, outputs in order; `w` is at the tap's weights of the first of the tile's channels. */
TINYFL_INLINE void back_tap(const tinyfl_layer *l, const real *w, const real *const *delta, size_t window,
                            chunk sum[TILE][BLOCK], const int tile, const int block)
{
    for (size_t j = 0; j < l->outputs; j += CHUNK)
        EACH(k, block)
        {
            const size_t left = l->outputs - j;
            chunk column[CHUNK];
            columns_at(column, w + (size_t)k * CHUNK * l->outputs + j, l->outputs);
            if (left >= CHUNK)
                EACH(m, CHUNK)
                {
                    KEEP(column[m]);
                    EACH(p, tile)
                        sum[p][k] += column[m] * delta[p][window + j + (size_t)m];
                }
            else
                for (size_t m = 0; m < left; m++)
                    EACH(p, tile)
                        sum[p][k] += column[m] * delta[p][window + j + m];
        }
}

TINYFL_INLINE void back_tile(const conv *c, const int kind, const run *rows, const run *columns, const real *delta, real *back,
                             size_t at, size_t i, const int tile, const int block)
{
    const tinyfl_layer *l = c->shape;
    const taps vertical = taps_on(c->rows, rows->first, l->kernel_height, l->stride_height);
    const taps horizontal = taps_on(c->columns, columns->first, l->kernel_width, l->stride_width);
    const real *in[TILE];
    real *out[TILE];
    chunk sum[TILE][BLOCK];
    EACH(p, tile)
    {
        const size_t index = at + (size_t)p, row = index / columns->count, column = index % columns->count;
        in[p] = delta + ((vertical.window + row) * c->columns.count + horizontal.window + column) * l->outputs;
        out[p] = back + position(rows, columns, l->width, index) * l->channels + i;
        EACH(k, block)
            sum[p][k] = chunk_of(0.0f);
    }
    for (size_t a = 0; a < vertical.count; a++)
        for (size_t b = 0; b < horizontal.count; b++) {
            const size_t ky = vertical.first - a * l->stride_height, kx = horizontal.first - b * l->stride_width;
            const size_t tap = (ky * l->kernel_width + kx) * l->channels + i, window = (a * c->columns.count + b) * l->outputs;
            if (kind == TINYFL_CONV)
                back_tap(l, c->w + tap * l->outputs, in, window, sum, tile, block);
            else
                EACH(k, block)
                    EACH(p, tile)
                        sum[p][k] += chunk_at(c->w + tap + (size_t)k * CHUNK) * chunk_at(in[p] + window + i + (size_t)k * CHUNK);
        }
    put_tile(out, sum, l->channels - i, tile, block);
}

TINYFL_INLINE void back_channels(const conv *c, const int kind, const real *delta, real *back, size_t i, const int block)
{
    const tinyfl_layer *l = c->shape;
    run rows, columns;
    for (size_t y = 0; y < l->stride_height && y < l->height; y++)
        for (size_t row = y; row < l->height; row += rows.count * rows.step) {
            rows = run_of_places(c->rows, l->height, l->kernel_height, l->stride_height, row);
            for (size_t x = 0; x < l->stride_width && x < l->width; x++)
                for (size_t column = x; column < l->width; column += columns.count * columns.step) {
                    columns = run_of_places(c->columns, l->width, l->kernel_width, l->stride_width, column);
                    FOR_TILES(at, rows.count * columns.count,
                              back_tile(c, kind, &rows, &columns, delta, back, at, i, tile, block))
                }
        }
}

static void fast_conv_back(const conv *c, const real *delta, real *back)
{
    FOR_BLOCKS(i, BLOCK, (size_t)c->shape->channels, back_channels(c, TINYFL_CONV, delta, back, i, block))
}

static void fast_depthwise_back(const conv *c, const real *delta, real *back)
{
    if (multiplier_of(c->shape) == 1)
        FOR_BLOCKS(i, BLOCK, (size_t)c->shape->channels, back_channels(c, TINYFL_DEPTHWISE, delta, back, i, block))
    else
        depthwise_back(c, delta, back);
}

TINYFL_INLINE chunk start_of(const real *into, int what)
{
    if (what == CONV_GATHER)
        return chunk_at(into);
    return chunk_of(0.0f);
}

TINYFL_INLINE void use_sum(real *into, chunk sum, size_t count, int what)
{
    if (what == CONV_MOVE)
        sum = chunk_at(into) - sum;
    chunk_put(into, sum, count);
}

/* The taps of a tile of the weights' gradient: neighbours in row `row` of the kernel, tap and input channel counted together,
 * each on the input at the windows `columns` of a row. */
typedef struct {
    size_t row, at;
    tinyfl_reach columns[TILE];
    tinyfl_reach any, all; /* windows with at least one of them, and with all of them, on the input */
} tap_row;

TINYFL_INLINE tap_row taps_from(const conv *c, const int kind, size_t row, size_t at, const int tile)
{
    const tinyfl_layer *l = c->shape;
    tap_row t = {.row = row, .at = at, .any = {c->columns.count, 0}, .all = {0, c->columns.count}};
    EACH(p, tile)
    {
        const tinyfl_reach on = reach(c->columns, l->width, l->stride_width, (at + (size_t)p) / fan(l, kind));
        t.columns[p] = on;
        t.all.first = on.first > t.all.first ? on.first : t.all.first;
        t.all.end = on.end < t.all.end ? on.end : t.all.end;
        t.any.first = on.first < t.any.first ? on.first : t.any.first;
        t.any.end = on.end > t.any.end ? on.end : t.any.end;
    }
    if (t.all.first >= t.all.end)
        t.all.first = t.all.end = t.any.end;
    return t;
}

/* sum[p][k] += delta[k] x[p] over the windows `first` to `end` - 1 of a row, at `delta` and `x`; `in` is the first tap's place at
 * window 0, which may lie before x. */
TINYFL_INLINE void weights_row(const conv *c, const int kind, const tap_row *t, const real *x, size_t in, const real *delta,
                               size_t first, size_t end, const int whole_tile, chunk sum[TILE][BLOCK], const int tile,
                               const int block)
{
    const tinyfl_layer *l = c->shape;
    const size_t step = (size_t)l->stride_width * l->channels;
    const real *d = delta + first * l->outputs;
    in += first * step;
    for (size_t window = first; window < end; window++, d += l->outputs, in += step)
        EACH(k, block)
        {
            chunk value = chunk_at(d + (size_t)k * CHUNK);
            KEEP(value);
            EACH(p, tile)
                if (!whole_tile && (window < t->columns[p].first || window >= t->columns[p].end))
                    (void)0;
                else if (kind == TINYFL_CONV)
                    sum[p][k] += value * x[in + (size_t)p];
                else
                    sum[p][k] += value * chunk_at(x + in + (size_t)p * l->channels + (size_t)k * CHUNK);
        }
}

/* The weights of `tile` taps from `at` on in row `ky` of the kernel, times outputs from j on. */
TINYFL_INLINE void weights_tile(const conv *c, const int kind, const real *x, const real *delta, real *into, int what,
                                size_t ky, size_t at, size_t j, const int tile, const int block)
{
    const tinyfl_layer *l = c->shape;
    const tap_row t = taps_from(c, kind, ky, at, tile);
    const tinyfl_reach rows = reach(c->rows, l->height, l->stride_height, ky);
    chunk sum[TILE][BLOCK];
    const size_t offset = kind == TINYFL_CONV ? at : at * l->channels + j; /* of the first tap's input in a window's row */
    into += (ky * l->kernel_width * fan(l, kind) + at) * l->outputs + j;
    EACH(p, tile)
        EACH(k, block)
            sum[p][k] = start_of(into + (size_t)p * l->outputs + (size_t)k * CHUNK, what);
    for (size_t row = rows.first; row < rows.end; row++) {
        const size_t in = ((row * l->stride_height + ky - c->rows.before) * l->width - c->columns.before) * l->channels + offset;
        const real *d = delta + row * c->columns.count * l->outputs + j;
        weights_row(c, kind, &t, x, in, d, t.any.first, t.all.first, 0, sum, tile, block);
        weights_row(c, kind, &t, x, in, d, t.all.first, t.all.end, 1, sum, tile, block);
        weights_row(c, kind, &t, x, in, d, t.all.end, t.any.end, 0, sum, tile, block);
    }
    EACH(p, tile)
        EACH(k, block)
            use_sum(into + (size_t)p * l->outputs + (size_t)k * CHUNK, sum[p][k], l->outputs - j - (size_t)k * CHUNK, what);
}

TINYFL_INLINE void weights_outputs(const conv *c, const int kind, const real *x, const real *delta, real *into, int what,
                                   size_t j, const int block)
{
    const size_t stretch = c->shape->kernel_width * fan(c->shape, kind);
    for (size_t ky = 0; ky < c->shape->kernel_height; ky++) {
        size_t at = 0;
        for (; at + TILE <= stretch; at += TILE)
            weights_tile(c, kind, x, delta, into, what, ky, at, j, TILE, block);
        for (; at < stretch; at++)
            weights_tile(c, kind, x, delta, into, what, ky, at, j, 1, block);
    }
}

TINYFL_INLINE void bias_outputs(const conv *c, const real *delta, real *into, int what, size_t j, const int block)
{
    const size_t outputs = c->shape->outputs, count = c->rows.count * c->columns.count;
    chunk sum[BLOCK];
    EACH(k, block)
        sum[k] = start_of(into + j + (size_t)k * CHUNK, what);
    for (size_t i = 0; i < count; i++)
        EACH(k, block)
            sum[k] += chunk_at(delta + i * outputs + j + (size_t)k * CHUNK);
    EACH(k, block)
        use_sum(into + j + (size_t)k * CHUNK, sum[k], outputs - j - (size_t)k * CHUNK, what);
}

static void fast_conv_bias(const conv *c, const real *delta, real *into, int what)
{
    FOR_BLOCKS(j, BLOCK, (size_t)c->shape->outputs, bias_outputs(c, delta, into, what, j, block))
}

static void fast_conv_weights(const conv *c, const real *x, const real *delta, real *into, int what)
{
    FOR_BLOCKS(j, BLOCK, (size_t)c->shape->outputs, weights_outputs(c, TINYFL_CONV, x, delta, into, what, j, block))
    fast_conv_bias(c, delta, into + tinyfl_kernel_weights(c->shape), what);
}

static void fast_depthwise_weights(const conv *c, const real *x, const real *delta, real *into, int what)
{
    if (multiplier_of(c->shape) != 1) {
        depthwise_weights(c, x, delta, into, what);
        return;
    }
    FOR_BLOCKS(j, BLOCK, (size_t)c->shape->outputs, weights_outputs(c, TINYFL_DEPTHWISE, x, delta, into, what, j, block))
    fast_conv_bias(c, delta, into + tinyfl_kernel_weights(c->shape), what);
}

#endif
