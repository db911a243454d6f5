/* Checks a plan, and computes its memory. */
#include "plan.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "a plan's layers are used where they lie, and are little-endian"
#endif

enum { PLAN_HEADER = 8, PLAN_VERSION = 2 };

TINYFL_API int tinyfl_plan_read(tinyfl_plan *plan, const void *bytes, size_t count)
{
    const uint8_t *b = bytes;
    if (!plan || !b || (uintptr_t)b % sizeof(uint16_t) != 0)
        return TINYFL_EINVAL;
    if (count < PLAN_HEADER || memcmp(b, "TFLP", 4) != 0 || b[4] != PLAN_VERSION)
        return TINYFL_EPLAN;
    const tinyfl_plan read = {
        .layers = (const void *)(b + PLAN_HEADER), .count = (uint16_t)(b[6] | b[7] << 8), .loss = b[5]};
    if (count != PLAN_HEADER + read.count * sizeof(tinyfl_layer))
        return TINYFL_EPLAN;
    const int code = tinyfl_plan_check(&read);
    if (code == TINYFL_OK)
        *plan = read;
    return code;
}

TINYFL_API size_t tinyfl_positions(const tinyfl_layer *l)
{
    return l->kind == TINYFL_DENSE ? 1 : rows_of(l).count * columns_of(l).count;
}

TINYFL_API size_t tinyfl_kernel_weights(const tinyfl_layer *l)
{
    if (is_pool(l))
        return 0;
    const size_t window = (size_t)l->kernel_height * l->kernel_width;
    return window * l->outputs * (l->kind == TINYFL_DEPTHWISE ? 1 : l->channels);
}

/* Whether the layer is consistent by itself. */
static int sound(const tinyfl_layer *l)
{
    if (l->height == 0 || l->width == 0 || l->channels == 0 || l->outputs == 0 || l->kernel_height == 0 ||
        l->kernel_width == 0 || l->stride_height == 0 || l->stride_width == 0 || l->kind > TINYFL_AVERAGE_POOL ||
        l->activation >= TINYFL_ACTIVATIONS || l->learns > 1 || l->same > 1 || tinyfl_positions(l) == 0)
        return 0;
    switch (l->kind) {
    case TINYFL_DENSE:
        return l->height == 1 && l->width == 1 && l->kernel_height == 1 && l->kernel_width == 1 && l->stride_height == 1 &&
               l->stride_width == 1 && !l->same;
    case TINYFL_DEPTHWISE:
        return l->outputs % l->channels == 0;
    case TINYFL_CONV:
        return 1;
    default:
        return l->outputs == l->channels && l->activation == TINYFL_IDENTITY && !l->learns;
    }
}

/* Whether size x size x size exceeds the bound. Each factor is below 2^16, so no product wraps. */
static int above(size_t rows, size_t columns, size_t channels, size_t bound)
{
    return rows * columns > bound || (uint64_t)(rows * columns) * channels > bound;
}

TINYFL_API int tinyfl_plan_check(const tinyfl_plan *plan)
{
    if (!plan || !plan->layers)
        return TINYFL_EINVAL;
    if (plan->count == 0 || plan->count > TINYFL_MAX_LAYERS || plan->loss > TINYFL_PROTOTYPES)
        return TINYFL_EPLAN;
    size_t weights = 0, values = 0;
    for (size_t i = 0; i < plan->count; i++) {
        const tinyfl_layer *l = &plan->layers[i];
        if (!sound(l) || above(l->height, l->width, l->channels, TINYFL_MAX_VALUES) ||
            above(rows_of(l).count, columns_of(l).count, l->outputs, TINYFL_MAX_VALUES - values) ||
            (!is_pool(l) && above((size_t)l->kernel_height * l->kernel_width, l->kind == TINYFL_DEPTHWISE ? 1 : l->channels,
                                  l->outputs, TINYFL_MAX_WEIGHTS - weights)))
            return TINYFL_EPLAN;
        if (i > 0 && inputs_of(l) != outputs_of(&plan->layers[i - 1]))
            return TINYFL_EPLAN;
        values += outputs_of(l);
        weights += layer_weights(l);
        if (weights > TINYFL_MAX_WEIGHTS)
            return TINYFL_EPLAN;
    }
    return TINYFL_OK;
}

TINYFL_API size_t tinyfl_plan_weights(const tinyfl_plan *plan)
{
    size_t weights = 0;
    if (tinyfl_plan_check(plan) == TINYFL_OK)
        for (size_t i = 0; i < plan->count; i++)
            weights += layer_weights(&plan->layers[i]);
    return weights;
}

TINYFL_API size_t tinyfl_plan_inputs(const tinyfl_plan *plan)
{
    return tinyfl_plan_check(plan) == TINYFL_OK ? inputs_of(&plan->layers[0]) : 0;
}

TINYFL_API size_t tinyfl_plan_outputs(const tinyfl_plan *plan)
{
    return tinyfl_plan_check(plan) == TINYFL_OK ? outputs_of(&plan->layers[plan->count - 1]) : 0;
}

TINYFL_API size_t tinyfl_lowest(const tinyfl_plan *plan)
{
    size_t lowest = 0;
    while (lowest + 1u < plan->count && !plan->layers[lowest].learns)
        lowest++;
    return lowest;
}

static size_t larger_of(size_t a, size_t b) { return a > b ? a : b; }

TINYFL_API size_t tinyfl_learner_reals(const tinyfl_plan *plan)
{
    const size_t lowest = tinyfl_lowest(plan), first = first_kept(lowest);
    size_t most = 0, kept = 0;
    for (size_t i = 0; i < first; i++)
        most = larger_of(most, outputs_of(&plan->layers[i]) + outputs_of(&plan->layers[i + 1]));
    for (size_t i = first; i < plan->count; i++) {
        kept += outputs_of(&plan->layers[i]);
        /* The gradient with respect to the output below, computed while this layer's delta exists; or the loss's. */
        if (i > lowest)
            most = larger_of(most, kept + outputs_of(&plan->layers[i - 1]));
        if (i + 1u == plan->count)
            most = larger_of(most, kept + outputs_of(&plan->layers[i]));
    }
    return most;
}

TINYFL_API size_t tinyfl_learner_bytes(const tinyfl_plan *plan)
{
    return tinyfl_plan_check(plan) == TINYFL_OK ? tinyfl_learner_reals(plan) * sizeof(real) : 0;
}
