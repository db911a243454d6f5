/* MAML's gradient (Finn et al. 2017; arXiv:1703.03400): that of the query set's loss with respect to theta, through the steps on
 * the support set. With the Hessian H_j of the support set's loss before step j, and v the query set's gradient after the last:
 *
 *     for j = k - 1 .. 0:   v <- v - rate H_j v
 *
 * H v is the derivative of the gradient along v: each value of the forward and the backward sweep goes with its own derivative
 * along v, its tangent (Pearlmutter 1994, Fast exact multiplication by the Hessian). Names of tangents end in _t. Layers are
 * linear in their weights and, but for max pools, in their input, so that the learner's kernels compute tangents too. */
#ifndef TINYFL_SECOND_ORDER_H
#define TINYFL_SECOND_ORDER_H

#include "native.h"

typedef struct {
    const tinyfl_learner *learner;
    real *v;         /* (weights): the direction */
    real *unbiased;  /* (weights): the learner's, with biases of 0 */
    real *of_delta;  /* (weights): the sum of x delta_t */
    real *of_input;  /* (weights): the sum of x_t delta, with biases that mean nothing */
    real *values;    /* every layer's output, one after another ... */
    real *values_t;  /* ... and its tangent */
    real *back, *back_t, *delta, *delta_t, *spare; /* (largest layer) */
} tangents;

static size_t values_of(const tinyfl_plan *plan, size_t *largest)
{
    size_t values = 0;
    *largest = inputs_of(&plan->layers[0]);
    for (size_t i = 0; i < plan->count; i++) {
        const size_t count = outputs_of(&plan->layers[i]);
        values += count;
        *largest = count > *largest ? count : *largest;
    }
    return values;
}

static tangents tangents_at(const tinyfl_learner *learner, real *memory)
{
    size_t largest;
    const size_t count = learner->count, values = values_of(learner->plan, &largest);
    tangents t = {.learner = learner, .v = memory};
    t.unbiased = t.v + count;
    t.of_delta = t.unbiased + count;
    t.of_input = t.of_delta + count;
    t.values = t.of_input + count;
    t.values_t = t.values + values;
    t.back = t.values_t + values;
    t.back_t = t.back + largest;
    t.delta = t.back_t + largest;
    t.delta_t = t.delta + largest;
    t.spare = t.delta_t + largest;
    return t;
}

static void add(real *to, const real *from, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] += from[i];
}

/* The tangent of a window's first maximum. */
static void max_pool_tangent(const conv *c, const real *x, const real *x_t, const real *y, real *y_t)
{
    const tinyfl_layer *l = c->shape;
    for (size_t row = 0; row < c->rows.count; row++)
        for (size_t column = 0; column < c->columns.count; column++, y += l->outputs, y_t += l->outputs) {
            const tinyfl_cover v = window_at(c, row, column);
            for (size_t i = 0; i < l->channels; i++) {
                mask waiting = every();
                for (size_t ky = v.rows.first; ky < v.rows.end; ky++)
                    for (size_t kx = 0; kx < v.columns.end - v.columns.first; kx++) {
                        const size_t at = (input_at(l, &v, ky) + kx) * l->channels + i;
                        const mask here = waiting & (x[at] == y[i]);
                        y_t[i] = where(here, x_t[at], y_t[i]);
                        waiting &= ~here;
                    }
            }
        }
}

/* The tangent of a layer's output before its activation, from the input x, the output y and x_t (NULL: 0). */
static void layer_tangent(const tangents *t, const tinyfl_layer *l, size_t at, const real *x, const real *x_t, const real *y,
                          real *y_t)
{
    const size_t count = outputs_of(l);
    if (layer_weights(l)) {
        layer_forward(l, t->v + at, x, y_t);
        if (x_t) {
            layer_forward(l, t->unbiased + at, x_t, t->spare);
            add(y_t, t->spare, count);
        }
    } else if (!x_t) {
        memset(y_t, 0, count * sizeof *y_t);
    } else if (l->kind == TINYFL_MAX_POOL) {
        const conv c = conv_at(l, t->v);
        memset(y_t, 0, count * sizeof *y_t);
        max_pool_tangent(&c, x, x_t, y, y_t);
    } else {
        layer_forward(l, t->v, x_t, y_t);
    }
}

/* Fills values and values_t for an input. Returns the lanes whose values pass the guard. */
static mask forward_tangents(const tangents *t, const real *x)
{
    const tinyfl_plan *plan = t->learner->plan;
    const real *x_t = NULL;
    real *y = t->values, *y_t = t->values_t;
    mask ok = every();
    for (size_t i = 0, at = 0; i < plan->count; i++) {
        const tinyfl_layer *l = &plan->layers[i];
        const size_t count = outputs_of(l);
        layer_forward(l, t->learner->weights + at, x, y);
        layer_tangent(t, l, at, x, x_t, y, y_t);
        ok &= below(y, count, TINYFL_LIMIT) & below(y_t, count, TINYFL_LIMIT);
        activate(y, count, l->activation);
        memcpy(t->spare, y, count * sizeof *y);
        through_activation(t->spare, y_t, count, l->activation);
        memcpy(y_t, t->spare, count * sizeof *y);
        at += layer_weights(l);
        x = y, x_t = y_t;
        y += count, y_t += count;
    }
    return ok;
}

/* The tangent of the loss's gradient, which is in `gradient`. */
static void loss_tangent(uint8_t loss, const real *output_t, const real *y, const real *gradient, size_t count, real *gradient_t)
{
    const float outputs = (float)count;
    real mean = real_of(0.0f);
    for (size_t i = 0; loss == TINYFL_SOFTMAX_CROSS_ENTROPY && i < count; i++)
        mean += (gradient[i] + y[i]) * output_t[i];
    for (size_t i = 0; i < count; i++)
        if (loss == TINYFL_SOFTMAX_CROSS_ENTROPY) {
            gradient_t[i] = (gradient[i] + y[i]) * (output_t[i] - mean);
        } else if (loss == TINYFL_SIGMOID_CROSS_ENTROPY) {
            const real p = gradient[i] * outputs + y[i];
            gradient_t[i] = p * (1.0f - p) * output_t[i] / outputs;
        } else {
            gradient_t[i] = 2.0f * output_t[i] / outputs;
        }
}

/* delta and delta_t of a layer with output y, from the gradient with respect to it, back and back_t. */
static void delta_tangent(const tangents *t, const tinyfl_layer *l, const real *y, const real *y_t)
{
    const size_t count = outputs_of(l);
    memcpy(t->delta, y, count * sizeof *y);
    memcpy(t->delta_t, y, count * sizeof *y);
    through_activation(t->delta, t->back, count, l->activation);
    through_activation(t->delta_t, t->back_t, count, l->activation);
    bend_activation(t->delta_t, t->back, y, y_t, count, l->activation);
}

/* Adds the gradient of a layer's weights for an input and a delta. */
static void gather_weights(const tinyfl_layer *l, const real *x, real *delta, real *sum)
{
    switch ((tinyfl_kind)l->kind) { /* no default: a compiler refuses a kind that this file does not know */
    case TINYFL_DENSE: {
        const dense d = dense_at(l, sum);
        dense_accumulate(&d, x, delta, sum);
        break;
    }
    case TINYFL_CONV:
    case TINYFL_DEPTHWISE: {
        const conv c = conv_at(l, sum);
        layer_learn(&c, x, delta, 0.0f, sum);
        break;
    }
    case TINYFL_MAX_POOL: /* no weights */
    case TINYFL_AVERAGE_POOL:
        break;
    }
}

/* The gradient with respect to a layer's input. */
static void input_gradient(const tinyfl_layer *l, real *weights, const real *x, const real *delta, real *back)
{
    if (l->kind == TINYFL_DENSE) {
        dense_learn(l, weights, x, delta, 0.0f, back, NULL, 0);
    } else {
        const conv c = conv_at(l, weights);
        layer_back(&c, x, delta, back);
    }
}

/* Adds a sample's part of H v to of_delta and of_input, after forward_tangents. */
static void backward_tangents(const tangents *t, const real *x, const real *target)
{
    const tinyfl_learner *learner = t->learner;
    const tinyfl_plan *plan = learner->plan;
    size_t at = learner->count, largest, end = values_of(plan, &largest);
    const size_t outputs = outputs_of(&plan->layers[plan->count - 1]);
    loss_of(plan->loss, t->values + end - outputs, target, outputs, t->back);
    loss_tangent(plan->loss, t->values_t + end - outputs, target, t->back, outputs, t->back_t);
    for (size_t i = plan->count; i-- > learner->lowest;) {
        const tinyfl_layer *l = &plan->layers[i];
        const size_t count = outputs_of(l), inputs = inputs_of(l);
        at -= layer_weights(l);
        end -= count;
        delta_tangent(t, l, t->values + end, t->values_t + end);
        const real *in = i > 0 ? t->values + end - inputs : x, *in_t = i > 0 ? t->values_t + end - inputs : NULL;
        if (layer_weights(l) && l->learns) {
            gather_weights(l, in, t->delta_t, t->of_delta + at);
            if (in_t)
                gather_weights(l, in_t, t->delta, t->of_input + at);
        }
        if (i == learner->lowest)
            break;
        input_gradient(l, learner->weights + at, in, t->delta, t->back);
        input_gradient(l, learner->weights + at, in, t->delta_t, t->back_t);
        if (layer_weights(l)) {
            input_gradient(l, t->v + at, in, t->delta, t->spare);
            add(t->back_t, t->spare, inputs);
        }
    }
}

/* v -= share H v, where H v is in of_delta and of_input. */
static void subtract_product(const tangents *t, float share)
{
    const tinyfl_plan *plan = t->learner->plan;
    for (size_t i = 0, at = 0; i < plan->count; i++) {
        const size_t kernel = tinyfl_kernel_weights(&plan->layers[i]), count = layer_weights(&plan->layers[i]);
        add(t->of_delta + at, t->of_input + at, kernel);
        for (size_t k = at; k < at + count; k++)
            t->v[k] -= share * t->of_delta[k];
        at += count;
    }
}

/* v <- v - rate H v, with H of the support set's mean loss at the learner's weights. */
static int through_step(const tangents *t, bench *b, const tinyfl_cohort *c, group *g)
{
    const tinyfl_plan *plan = c->plan;
    const uint32_t samples = (uint32_t)tinyfl_inner_samples(&c->inner), support = c->inner.phases[0].samples;
    memcpy(t->unbiased, b->weights, b->count * sizeof(real));
    for (size_t i = 0, at = 0; i < plan->count; at += layer_weights(&plan->layers[i++])) {
        const size_t kernel = tinyfl_kernel_weights(&plan->layers[i]);
        memset(t->unbiased + at + kernel, 0, (layer_weights(&plan->layers[i]) - kernel) * sizeof(real));
    }
    memset(t->of_delta, 0, 2 * b->count * sizeof(real)); /* and of_input */
    for (uint32_t s = 0; s < support; s++) {
        if (tinyfl_stopped(c->stop))
            return TINYFL_ESTOPPED;
        sample(&c->source, g, c->round, samples, s, b->inputs, b->outputs, b->x, b->y);
        b->learner.alive &= forward_tangents(t, b->x);
        if (!any(b->learner.alive))
            return TINYFL_ENUMERIC;
        backward_tangents(t, b->x, b->y);
    }
    subtract_product(t, c->inner.phases[0].rate / (float)support);
    b->learner.alive &= below(t->v, b->count, TINYFL_LIMIT);
    return any(b->learner.alive) ? TINYFL_OK : TINYFL_ENUMERIC;
}

/* The inner loop, after which the weights are minus MAML's gradient. `memory` holds tinyfl_second_order_reals. */
static int meta_gradient(bench *b, const tinyfl_cohort *c, group *g, real *memory)
{
    const uint32_t samples = (uint32_t)tinyfl_inner_samples(&c->inner), steps = c->inner.phases[0].passes;
    const size_t bytes = b->count * sizeof(real);
    tinyfl_inner first_order = c->inner;
    first_order.returns = TINYFL_GRADIENT;
    int code = begin(b, &first_order);
    while (code == TINYFL_OK && !tinyfl_loop_done(&b->loop)) {
        if (tinyfl_stopped(c->stop))
            return TINYFL_ESTOPPED;
        if (b->loop.phase == 0 && b->loop.sample == 0)
            memcpy(memory + b->loop.pass * b->count, b->weights, bytes);
        sample(&c->source, g, c->round, samples, (uint32_t)tinyfl_loop_index(&b->loop), b->inputs, b->outputs, b->x, b->y);
        code = tinyfl_loop_learn(&b->loop, b->x, b->y);
    }
    const tangents t = tangents_at(&b->learner, memory + steps * b->count);
    memcpy(t.v, b->weights, bytes);
    for (uint32_t j = steps; j-- > 0 && code == TINYFL_OK;) {
        memcpy(b->weights, memory + j * b->count, bytes);
        code = through_step(&t, b, c, g);
    }
    memcpy(b->weights, t.v, bytes);
    return code;
}

#ifdef TINYFL_EXPORTS
size_t tinyfl_second_order_reals(const tinyfl_plan *plan, const tinyfl_inner *inner)
{
    size_t largest;
    const size_t values = values_of(plan, &largest);
    if (inner->returns != TINYFL_META_GRADIENT)
        return 0;
    return (inner->phases[0].passes + 4) * tinyfl_plan_weights(plan) + 2 * values + 5 * largest + tinyfl_engine_padding(plan);
}
#endif

#endif
