/* Learning: one sample forward, its loss, and the sweep back. */
#include "activations.h"
#include "dense.h"
#include "depthwise.h"
#include "losses.h"
#include "plan.h"
#include "pool.h"

#ifdef TINYFL_KERNELS
#include TINYFL_KERNELS /* the host's faster twins */
#define FAST(kernel) fast_##kernel
#else
#define FAST(kernel) kernel
#endif

static int aligned(const void *pointer) { return pointer && (uintptr_t)pointer % sizeof(real) == 0; }

TINYFL_API int tinyfl_learner_init(tinyfl_learner *learner, const tinyfl_plan *plan, real *weights, void *memory,
                                   size_t bytes, float clip)
{
    const int code = tinyfl_plan_check(plan);
    if (code != TINYFL_OK)
        return code;
    if (!learner || !aligned(weights) || !aligned(memory) || !(clip >= 0.0f && clip < TINYFL_LIMIT))
        return TINYFL_EINVAL;
    const size_t reals = tinyfl_learner_reals(plan);
    if (bytes < reals * sizeof(real))
        return TINYFL_EMEMORY;
    const size_t count = tinyfl_plan_weights(plan);
    const mask alive = below(weights, count, TINYFL_LIMIT);
    if (!any(alive))
        return TINYFL_ENUMERIC;
    *learner = (tinyfl_learner){.plan = plan,
                                .weights = weights,
                                .memory = memory,
                                .count = count,
                                .reals = reals,
                                .lowest = tinyfl_lowest(plan),
                                .bottom = tinyfl_lowest(plan),
                                .layers = TINYFL_EVERY_LAYER,
                                .clip = clip,
                                .alive = alive};
    return TINYFL_OK;
}

static dense dense_at(const tinyfl_layer *l, real *weights)
{
    return (dense){l->channels, l->outputs, weights, weights + (size_t)l->channels * l->outputs};
}

static void layer_forward(const tinyfl_layer *l, real *weights, const real *x, real *y)
{
    if (l->kind == TINYFL_DENSE) {
        const dense d = dense_at(l, weights);
        FAST(dense_forward)(&d, x, y);
        return;
    }
    const conv c = conv_at(l, weights);
    if (l->kind == TINYFL_CONV)
        FAST(conv_forward)(&c, x, y);
    else if (l->kind == TINYFL_DEPTHWISE)
        FAST(depthwise_forward)(&c, x, y);
    else if (l->kind == TINYFL_MAX_POOL)
        max_pool_forward(&c, x, y);
    else
        average_pool_forward(&c, x, y);
}

/* The gradient with respect to the layer's input, from the current weights. */
static void layer_back(const conv *c, const real *x, const real *delta, real *back)
{
    memset(back, 0, inputs_of(c->shape) * sizeof *back);
    switch (c->shape->kind) {
    case TINYFL_CONV:
        FAST(conv_back)(c, delta, back);
        break;
    case TINYFL_DEPTHWISE:
        FAST(depthwise_back)(c, delta, back);
        break;
    case TINYFL_MAX_POOL:
        max_pool_back(c, x, delta, back);
        break;
    default:
        average_pool_back(c, delta, back);
        break;
    }
}

/* Subtracts rate x gradient from the layer's weights or, if `gradient` is not NULL, adds the gradient to it. Overwrites the
 * delta. */
static void layer_learn(const conv *c, const real *x, real *delta, float rate, real *gradient)
{
    const size_t count = outputs_of(c->shape);
    const int depthwise = c->shape->kind == TINYFL_DEPTHWISE;
    if (gradient && depthwise) {
        FAST(depthwise_weights)(c, x, delta, gradient, CONV_GATHER);
    } else if (gradient) {
        FAST(conv_weights)(c, x, delta, gradient, CONV_GATHER);
    } else {
        for (size_t i = 0; i < count; i++)
            delta[i] = rate * delta[i];
        if (depthwise)
            FAST(depthwise_weights)(c, x, delta, c->w, CONV_MOVE);
        else
            FAST(conv_weights)(c, x, delta, c->w, CONV_MOVE);
    }
}

/* Both of the above for a dense layer, in one sweep over its weights; `back` may be NULL. */
static void dense_learn(const tinyfl_layer *l, real *weights, const real *x, const real *delta, float rate, real *back,
                        real *gradient, int moves)
{
    const dense d = dense_at(l, weights);
    const int updates = moves && !gradient;
    if (back && updates)
        FAST(dense_backward)(&d, x, delta, rate, back, DENSE_DELTA | DENSE_UPDATE);
    else if (back)
        FAST(dense_backward)(&d, x, delta, rate, back, DENSE_DELTA);
    else if (updates)
        FAST(dense_backward)(&d, x, delta, rate, back, DENSE_UPDATE);
    if (moves && gradient)
        dense_accumulate(&d, x, delta, gradient);
}

/* Moves `count` weights, from `weights` on, towards their values at the start. */
static __attribute__((noinline)) void pull_back(const tinyfl_learner *learner, real *weights, size_t count, float rate)
{
    const float share = rate * learner->pull;
    const real *start = learner->start + (weights - learner->weights);
    for (size_t i = 0; i < count; i++)
        weights[i] -= share * (weights[i] - start[i]);
}

/* Layer i in the sweep back: the gradient with respect to its input, if `back` is not NULL, from the weights before its step;
 * then the step, or its part of the gradient. */
static void layer_step(const tinyfl_learner *learner, size_t i, real *weights, const real *x, real *delta, float rate,
                       real *back, real *gradient)
{
    const tinyfl_layer *l = &learner->plan->layers[i];
    const int moves = tinyfl_moves(learner, i), pulled = moves && !gradient && learner->pull > 0.0f;
    if (l->kind == TINYFL_DENSE) {
        if (pulled) {
            dense_learn(l, weights, x, delta, rate, back, NULL, 0);
            pull_back(learner, weights, layer_weights(l), rate);
            back = NULL;
        }
        dense_learn(l, weights, x, delta, rate, back, gradient, moves);
        return;
    }
    const conv c = conv_at(l, weights);
    if (back)
        layer_back(&c, x, delta, back);
    if (pulled)
        pull_back(learner, weights, layer_weights(l), rate);
    if (moves)
        layer_learn(&c, x, delta, rate, gradient);
}

/* Fills the memory with outputs (plan.h), and returns the last layer's; clears the lanes in `ok` that fail the guard. */
static real *forward(const tinyfl_learner *learner, const real *x, mask *ok)
{
    const size_t first = first_kept(learner->lowest);
    real *weights = learner->weights, *kept = learner->memory, *y = NULL;
    *ok = below(x, inputs_of(&learner->plan->layers[0]), TINYFL_LIMIT);
    for (size_t i = 0; i < learner->plan->count; i++) {
        const tinyfl_layer *l = &learner->plan->layers[i];
        const size_t count = outputs_of(l);
        y = i < first && (first - i) % 2 == 1 ? learner->memory + learner->reals - count : kept;
        layer_forward(l, weights, x, y);
        *ok &= below(y, count, TINYFL_LIMIT);
        activate(y, count, l->activation);
        weights += layer_weights(l);
        if (i >= first)
            kept += count;
        x = y;
    }
    return y;
}

TINYFL_API real *tinyfl_gradient_at(const tinyfl_learner *learner, size_t count)
{
    return learner->memory + learner->reals - count;
}

static size_t outputs(const tinyfl_learner *learner) { return outputs_of(&learner->plan->layers[learner->plan->count - 1]); }

/* The loss and its gradient with respect to the output: the last check before any weight moves. Clears the lanes in `ok` that
 * fail. */
static real loss_gradient(const tinyfl_learner *learner, const real *output, const real *y, mask *ok)
{
    const size_t count = outputs(learner);
    real *gradient = tinyfl_gradient_at(learner, count);
    const real loss = loss_of(learner->plan->loss, output, y, count, gradient);
    *ok &= magnitude(loss) < 3.4e38f;
    *ok &= below(gradient, count, TINYFL_LIMIT);
    return loss;
}

/* From the output at `y`, whose gradient is first clipped, down to the lowest layer that moves: moves weights (gradient NULL),
 * or adds to the gradient. Returns the lanes whose deltas all stayed below the limit. */
static mask backward(const tinyfl_learner *learner, const real *x, real *y, float rate, real *gradient)
{
    const tinyfl_plan *plan = learner->plan;
    const float limit = TINYFL_LIMIT / (rate > 1.0f ? rate : 1.0f); /* bounds both delta and rate x delta */
    real *weights = learner->weights + learner->count;
    mask ok = every();
    if (learner->clip > 0.0f)
        clip_norm(tinyfl_gradient_at(learner, outputs(learner)), outputs(learner), learner->clip);
    for (size_t i = plan->count; i-- > learner->bottom;) {
        const tinyfl_layer *l = &plan->layers[i];
        const size_t count = outputs_of(l);
        weights -= layer_weights(l);
        through_activation(y, tinyfl_gradient_at(learner, count), count, l->activation);
        ok &= below(y, count, limit / (float)tinyfl_positions(l));
        if (!any(ok & learner->alive))
            break;
        const real *in = i > 0 ? y - inputs_of(l) : x;
        real *back = i > learner->bottom ? tinyfl_gradient_at(learner, inputs_of(l)) : NULL;
        layer_step(learner, i, weights, in, y, rate, back, gradient ? gradient + (weights - learner->weights) : NULL);
        if (i > learner->bottom)
            y -= inputs_of(l);
    }
    return ok;
}

TINYFL_API int tinyfl_infer(tinyfl_learner *learner, const real *x, real *output)
{
    mask ok;
    if (!learner || !aligned(x) || !aligned(output))
        return TINYFL_EINVAL;
    const real *y = forward(learner, x, &ok);
    if (!any(learner->alive & ok))
        return TINYFL_ENUMERIC;
    memcpy(output, y, outputs(learner) * sizeof(real));
    return TINYFL_OK;
}

TINYFL_API int tinyfl_look(const tinyfl_learner *learner, const real *x, const real *y, mask *ok, real **output)
{
    if (!learner || !aligned(x) || !aligned(y))
        return TINYFL_EINVAL;
    if (!any(learner->alive))
        return TINYFL_ENUMERIC;
    *output = forward(learner, x, ok);
    return any(learner->alive & *ok) ? TINYFL_OK : TINYFL_ENUMERIC;
}

/* Forward pass, loss and its gradient; `ok` are the lanes that continue, `output` is the location of the output. */
static int look(const tinyfl_learner *learner, const real *x, const real *y, real *loss, mask *ok, real **output)
{
    if (!learner || (loss && !aligned(loss)) || learner->plan->loss == TINYFL_PROTOTYPES)
        return TINYFL_EINVAL;
    const int code = tinyfl_look(learner, x, y, ok, output);
    if (code != TINYFL_OK)
        return code;
    const real value = loss_gradient(learner, *output, y, ok);
    if (!any(learner->alive & *ok))
        return TINYFL_ENUMERIC;
    if (loss)
        *loss = where(learner->alive & *ok, value, real_of(__builtin_inff()));
    return TINYFL_OK;
}

TINYFL_API int tinyfl_evaluate(tinyfl_learner *learner, const real *x, const real *y, real *loss, real *output)
{
    mask ok;
    real *made;
    if (!loss || (output && !aligned(output)))
        return TINYFL_EINVAL;
    const int code = look(learner, x, y, loss, &ok, &made);
    if (code == TINYFL_OK && output)
        memcpy(output, made, outputs(learner) * sizeof(real));
    return code;
}

/* One sample forward and backward; weights move if gradient is NULL. */
static int learn(tinyfl_learner *learner, const real *x, const real *y, float rate, real *gradient, real *loss)
{
    mask ok;
    real *output;
    const int code = look(learner, x, y, loss, &ok, &output);
    if (code != TINYFL_OK)
        return code;
    learner->alive &= ok;
    learner->alive &= backward(learner, x, output, rate, gradient);
    return any(learner->alive) ? TINYFL_OK : TINYFL_ENUMERIC;
}

TINYFL_API void tinyfl_sweep(tinyfl_learner *learner, const real *x, real *output, real *gradient)
{
    learner->alive &= backward(learner, x, output, 1.0f, gradient);
}

TINYFL_API int tinyfl_learn(tinyfl_learner *learner, const real *x, const real *y, float rate, real *loss)
{
    if (!(rate >= 0.0f && rate < TINYFL_LIMIT))
        return TINYFL_EINVAL;
    return learn(learner, x, y, rate, NULL, loss);
}

TINYFL_API int tinyfl_accumulate(tinyfl_learner *learner, const real *x, const real *y, real *gradient, real *loss)
{
    if (!aligned(gradient))
        return TINYFL_EINVAL;
    return learn(learner, x, y, 1.0f, gradient, loss);
}

static void pull_layers_back(const tinyfl_learner *learner, float rate)
{
    real *weights = learner->weights;
    for (size_t i = 0; i < learner->plan->count; i++) {
        const size_t count = layer_weights(&learner->plan->layers[i]);
        if (tinyfl_moves(learner, i))
            pull_back(learner, weights, count, rate);
        weights += count;
    }
}

TINYFL_API tinyfl_mask tinyfl_layers_below_limit(const tinyfl_learner *learner, uint64_t layers)
{
    const real *weights = learner->weights;
    mask ok = every();
    for (size_t i = 0; i < learner->plan->count; i++) {
        const size_t count = layer_weights(&learner->plan->layers[i]);
        if (layers >> i & 1)
            ok &= below(weights, count, TINYFL_LIMIT);
        weights += count;
    }
    return ok;
}

TINYFL_API int tinyfl_step(tinyfl_learner *learner, tinyfl_real *gradient, float rate, uint32_t samples)
{
    if (!learner || !aligned(gradient) || samples == 0 || !(rate >= 0.0f && rate < TINYFL_LIMIT))
        return TINYFL_EINVAL;
    const size_t count = learner->count;
    const float scale = rate / (float)samples;
    mask ok = learner->alive;
    for (size_t i = 0; i < count; i++)
        ok &= magnitude(scale * gradient[i]) < TINYFL_LIMIT;
    if (!any(ok))
        return TINYFL_ENUMERIC;
    learner->alive = ok;
    if (learner->pull > 0.0f)
        pull_layers_back(learner, rate);
    for (size_t i = 0; i < count; i++) {
        learner->weights[i] -= scale * gradient[i];
        gradient[i] = real_of(0.0f);
    }
    return TINYFL_OK;
}
