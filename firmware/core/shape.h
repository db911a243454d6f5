/* Sizes of layers, and positions of windows on a layer's input. */
#ifndef TINYFL_SHAPE_H
#define TINYFL_SHAPE_H

#include "real.h"

/* Number of windows along one side, and padding before the input, as in TensorFlow. */
typedef struct {
    size_t count, before;
} tinyfl_side;

TINYFL_INLINE tinyfl_side side(size_t size, size_t kernel, size_t stride, int same)
{
    if (!same)
        return (tinyfl_side){size < kernel ? 0 : (size - kernel) / stride + 1, 0};
    const size_t count = (size + stride - 1) / stride, reach = (count - 1) * stride + kernel;
    return (tinyfl_side){count, reach > size ? (reach - size) / 2 : 0};
}

TINYFL_INLINE tinyfl_side rows_of(const tinyfl_layer *l)
{
    return side(l->height, l->kernel_height, l->stride_height, l->same);
}

TINYFL_INLINE tinyfl_side columns_of(const tinyfl_layer *l)
{
    return side(l->width, l->kernel_width, l->stride_width, l->same);
}

/* Part of a kernel along one side: its taps from `first` to `end` - 1 are on the input, the first of them at `at`. */
typedef struct {
    size_t first, end, at;
} tinyfl_span;

TINYFL_INLINE tinyfl_span span(size_t index, size_t size, size_t kernel, size_t stride, size_t before)
{
    const size_t start = index * stride; /* of the window, counted from `before` positions ahead of the input */
    const size_t first = start < before ? before - start : 0;
    const size_t left = size + before - start;
    return (tinyfl_span){first, left < kernel ? left : kernel, start + first - before};
}

/* Number of windows of a layer, and of its kernel's weights: 0 for pools. */
TINYFL_API size_t tinyfl_positions(const tinyfl_layer *l);
TINYFL_API size_t tinyfl_kernel_weights(const tinyfl_layer *l);

TINYFL_INLINE size_t layer_weights(const tinyfl_layer *l)
{
    const size_t kernel = tinyfl_kernel_weights(l);
    return kernel ? kernel + l->outputs : 0;
}

TINYFL_INLINE size_t inputs_of(const tinyfl_layer *l) { return (size_t)l->height * l->width * l->channels; }
TINYFL_INLINE size_t outputs_of(const tinyfl_layer *l) { return tinyfl_positions(l) * l->outputs; }
TINYFL_INLINE int is_pool(const tinyfl_layer *l) { return l->kind == TINYFL_MAX_POOL || l->kind == TINYFL_AVERAGE_POOL; }

#endif
