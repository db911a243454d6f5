#include "dense.h"
#include "functions.h"
#include "tinyfl.h"

static size_t layer_weights(const tinyfl_layer *layer) { return ((size_t)layer->inputs + 1) * layer->outputs; }

static dense layer_at(const tinyfl_layer *layer, real *weights)
{
    return (dense){layer->inputs, layer->outputs, weights, weights + (size_t)layer->inputs * layer->outputs};
}

static int aligned(const void *pointer) { return pointer && (uintptr_t)pointer % sizeof(real) == 0; }

TINYFL_API int tinyfl_plan_check(const tinyfl_plan *plan)
{
    if (!plan || !plan->layers)
        return TINYFL_EINVAL;
    if (plan->count == 0 || plan->count > TINYFL_MAX_LAYERS || plan->loss > TINYFL_SOFTMAX_CROSS_ENTROPY)
        return TINYFL_EPLAN;
    size_t weights = 0;
    for (size_t i = 0; i < plan->count; i++) {
        const tinyfl_layer *layer = &plan->layers[i];
        if (layer->inputs == 0 || layer->outputs == 0 || layer->activation > TINYFL_SIGMOID || layer->learns > 1)
            return TINYFL_EPLAN;
        if (i > 0 && layer->inputs != plan->layers[i - 1].outputs)
            return TINYFL_EPLAN;
        if (layer_weights(layer) > TINYFL_MAX_WEIGHTS - weights)
            return TINYFL_EPLAN;
        weights += layer_weights(layer);
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

/* Reals for all activations, and for the widest of them. */
static size_t activations(const tinyfl_plan *plan, size_t *widest)
{
    size_t all_of_them = 0;
    *widest = 0;
    for (size_t i = 0; i < plan->count; i++) {
        const size_t outputs = plan->layers[i].outputs;
        all_of_them += outputs;
        if (outputs > *widest)
            *widest = outputs;
    }
    return all_of_them;
}

TINYFL_API size_t tinyfl_learner_bytes(const tinyfl_plan *plan)
{
    if (tinyfl_plan_check(plan) != TINYFL_OK)
        return 0;
    size_t widest;
    const size_t outputs = activations(plan, &widest);
    return (outputs + 2 * widest) * sizeof(real);
}

/* The guard: NaN and infinity are not below any limit either. */
static mask below(const real *values, size_t count, float limit)
{
    mask ok = every();
    for (size_t i = 0; i < count; i++)
        ok &= magnitude(values[i]) < limit;
    return ok;
}

TINYFL_API int tinyfl_learner_init(tinyfl_learner *learner, const tinyfl_plan *plan, real *weights, void *memory,
                                   size_t bytes, float clip)
{
    const int code = tinyfl_plan_check(plan);
    if (code != TINYFL_OK)
        return code;
    if (!learner || !aligned(weights) || !aligned(memory) || !(clip >= 0.0f && clip < TINYFL_LIMIT))
        return TINYFL_EINVAL;
    if (bytes < tinyfl_learner_bytes(plan))
        return TINYFL_EMEMORY;
    const mask alive = below(weights, tinyfl_plan_weights(plan), TINYFL_LIMIT);
    if (!any(alive))
        return TINYFL_ENUMERIC;

    size_t widest;
    real *room = memory;
    const size_t outputs = activations(plan, &widest);
    *learner = (tinyfl_learner){.plan = plan,
                                .weights = weights,
                                .activations = room,
                                .delta = room + outputs,
                                .next_delta = room + outputs + widest,
                                .clip = clip,
                                .alive = alive};
    return TINYFL_OK;
}

static void activate(real *y, size_t count, uint8_t activation)
{
    switch (activation) {
    case TINYFL_RELU:
        for (size_t i = 0; i < count; i++)
            y[i] = where(y[i] > 0.0f, y[i], real_of(0.0f));
        break;
    case TINYFL_LEAKY_RELU:
        for (size_t i = 0; i < count; i++)
            y[i] = where(y[i] > 0.0f, y[i], TINYFL_LEAK * y[i]);
        break;
    case TINYFL_TANH:
        for (size_t i = 0; i < count; i++)
            y[i] = real_tanh(y[i]);
        break;
    case TINYFL_SIGMOID:
        for (size_t i = 0; i < count; i++)
            y[i] = real_sigmoid(y[i]);
        break;
    default: /* identity */
        break;
    }
}

/* delta = gradient x act', with act' from the activation's own output. */
static void through_activation(real *delta, const real *y, size_t count, uint8_t activation)
{
    switch (activation) {
    case TINYFL_RELU:
        for (size_t i = 0; i < count; i++)
            delta[i] = where(y[i] > 0.0f, delta[i], real_of(0.0f));
        break;
    case TINYFL_LEAKY_RELU:
        for (size_t i = 0; i < count; i++)
            delta[i] = where(y[i] > 0.0f, delta[i], TINYFL_LEAK * delta[i]);
        break;
    case TINYFL_TANH:
        for (size_t i = 0; i < count; i++)
            delta[i] = delta[i] * (1.0f - y[i] * y[i]);
        break;
    case TINYFL_SIGMOID:
        for (size_t i = 0; i < count; i++)
            delta[i] = delta[i] * (y[i] * (1.0f - y[i]));
        break;
    default: /* identity */
        break;
    }
}

/* Fills the activations; the last `outputs` of them are the network's output. */
static mask forward(const tinyfl_learner *learner, const real *x)
{
    real *weights = learner->weights, *y = learner->activations;
    mask ok = below(x, learner->plan->layers[0].inputs, TINYFL_LIMIT);
    for (size_t i = 0; i < learner->plan->count; i++) {
        const tinyfl_layer *layer = &learner->plan->layers[i];
        const dense l = layer_at(layer, weights);
        dense_forward(&l, x, y);
        ok &= below(y, layer->outputs, TINYFL_LIMIT);
        activate(y, layer->outputs, layer->activation);
        weights += layer_weights(layer);
        x = y;
        y += layer->outputs;
    }
    return ok;
}

static real mean_squared_error(const real *output, const real *y, size_t count, real *gradient)
{
    const float outputs = (float)count;
    real sum = real_of(0.0f);
    for (size_t i = 0; i < count; i++) {
        const real e = output[i] - y[i];
        sum += e * e;
        gradient[i] = 2.0f * e / outputs;
    }
    return sum / outputs;
}

static real softmax_cross_entropy(const real *output, const real *y, size_t count, real *gradient)
{
    real top = output[0], sum = real_of(0.0f), loss = real_of(0.0f);
    for (size_t i = 1; i < count; i++)
        top = larger(top, output[i]);
    for (size_t i = 0; i < count; i++) {
        gradient[i] = real_exp(output[i] - top);
        sum += gradient[i];
    }
    const real log_sum = real_log(sum);
    for (size_t i = 0; i < count; i++) {
        loss += y[i] * (log_sum - (output[i] - top));
        gradient[i] = gradient[i] / sum - y[i];
    }
    return loss;
}

/* Scales the gradient to a norm of at most `clip`. The norm is taken relative to the largest element, so that no square
 * can overflow. */
static void clip_norm(real *gradient, size_t count, float clip)
{
    real top = real_of(0.0f), sum = real_of(0.0f);
    for (size_t i = 0; i < count; i++)
        top = larger(top, magnitude(gradient[i]));
    const real safe = where(top > 0.0f, top, real_of(1.0f));
    for (size_t i = 0; i < count; i++) {
        const real part = gradient[i] / safe;
        sum += part * part;
    }
    sum = where(sum > 1.0f, sum, real_of(1.0f));
    const real scale = clip / safe * real_rsqrt(sum);
    const mask over = (scale < 1.0f) & (top > 0.0f);
    for (size_t i = 0; i < count; i++)
        gradient[i] = where(over, gradient[i] * scale, gradient[i]);
}

/* The loss, and in learner->delta its gradient with respect to the output, clipped: all that is checked before any weight
 * moves. `ok` loses the lanes that fail. */
static real loss_gradient(const tinyfl_learner *learner, const real *y, mask *ok)
{
    const tinyfl_layer *last = &learner->plan->layers[learner->plan->count - 1];
    size_t widest;
    const real *output = learner->activations + activations(learner->plan, &widest) - last->outputs;
    const real loss = learner->plan->loss == TINYFL_MEAN_SQUARED_ERROR
                          ? mean_squared_error(output, y, last->outputs, learner->delta)
                          : softmax_cross_entropy(output, y, last->outputs, learner->delta);
    *ok &= magnitude(loss) < 3.4e38f;
    *ok &= below(learner->delta, last->outputs, TINYFL_LIMIT);
    if (learner->clip > 0.0f)
        clip_norm(learner->delta, last->outputs, learner->clip);
    return loss;
}

/* From the output down to the lowest layer that learns: move its weights (gradient NULL), or add to the gradient. Returns
 * the lanes whose deltas all stayed below the limit. */
static mask backward(tinyfl_learner *learner, const real *x, float rate, real *gradient)
{
    const tinyfl_plan *plan = learner->plan;
    const float limit = TINYFL_LIMIT / (rate > 1.0f ? rate : 1.0f); /* bounds delta and rate x delta alike */
    real *weights = learner->weights + tinyfl_plan_weights(plan);
    size_t widest;
    real *y = learner->activations + activations(plan, &widest);
    size_t lowest = 0;
    while (lowest + 1 < plan->count && !plan->layers[lowest].learns)
        lowest++;

    mask ok = every();
    for (size_t i = plan->count; i-- > lowest;) {
        const tinyfl_layer *layer = &plan->layers[i];
        weights -= layer_weights(layer);
        y -= layer->outputs;
        const real *in = i > 0 ? y - layer->inputs : x;
        const dense l = layer_at(layer, weights);

        through_activation(learner->delta, y, layer->outputs, layer->activation);
        ok &= below(learner->delta, layer->outputs, limit);
        if (!any(ok & learner->alive))
            break;
        const int learns = layer->learns && !gradient;
        if (i > lowest && learns)
            dense_backward(&l, in, learner->delta, rate, learner->next_delta, DENSE_DELTA | DENSE_UPDATE);
        else if (i > lowest)
            dense_backward(&l, in, learner->delta, rate, learner->next_delta, DENSE_DELTA);
        else if (learns)
            dense_backward(&l, in, learner->delta, rate, learner->next_delta, DENSE_UPDATE);
        if (layer->learns && gradient)
            dense_accumulate(&l, in, learner->delta, gradient + (weights - learner->weights));

        real *swap = learner->delta;
        learner->delta = learner->next_delta;
        learner->next_delta = swap;
    }
    return ok;
}

static void copy_output(const tinyfl_learner *learner, real *output)
{
    const size_t outputs = learner->plan->layers[learner->plan->count - 1].outputs;
    size_t widest;
    memcpy(output, learner->activations + activations(learner->plan, &widest) - outputs, outputs * sizeof(real));
}

TINYFL_API int tinyfl_infer(tinyfl_learner *learner, const real *x, real *output)
{
    if (!learner || !aligned(x) || !aligned(output))
        return TINYFL_EINVAL;
    if (!any(learner->alive & forward(learner, x)))
        return TINYFL_ENUMERIC;
    copy_output(learner, output);
    return TINYFL_OK;
}

/* Forward and the loss with its gradient; `ok` are the lanes that may go on. */
static int look(tinyfl_learner *learner, const real *x, const real *y, real *loss, mask *ok)
{
    if (!learner || !aligned(x) || !aligned(y) || (loss && !aligned(loss)))
        return TINYFL_EINVAL;
    if (!any(learner->alive))
        return TINYFL_ENUMERIC;
    *ok = forward(learner, x);
    const real value = loss_gradient(learner, y, ok);
    if (!any(learner->alive & *ok))
        return TINYFL_ENUMERIC;
    if (loss)
        *loss = where(learner->alive & *ok, value, real_of(__builtin_inff()));
    return TINYFL_OK;
}

TINYFL_API int tinyfl_evaluate(tinyfl_learner *learner, const real *x, const real *y, real *loss, real *output)
{
    if (!loss || (output && !aligned(output)))
        return TINYFL_EINVAL;
    mask ok;
    const int code = look(learner, x, y, loss, &ok);
    if (code == TINYFL_OK && output)
        copy_output(learner, output);
    return code;
}

/* One sample forward and backward; weights move where gradient is NULL. */
static int learn(tinyfl_learner *learner, const real *x, const real *y, float rate, real *gradient, real *loss)
{
    mask ok;
    const int code = look(learner, x, y, loss, &ok);
    if (code != TINYFL_OK)
        return code;
    learner->alive &= ok;
    learner->alive &= backward(learner, x, rate, gradient);
    return any(learner->alive) ? TINYFL_OK : TINYFL_ENUMERIC;
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

TINYFL_API int tinyfl_step(tinyfl_learner *learner, real *gradient, float rate, uint32_t samples)
{
    if (!learner || !aligned(gradient) || samples == 0 || !(rate >= 0.0f && rate < TINYFL_LIMIT))
        return TINYFL_EINVAL;
    const size_t count = tinyfl_plan_weights(learner->plan);
    const float scale = rate / (float)samples;
    mask ok = learner->alive;
    for (size_t i = 0; i < count; i++)
        ok &= magnitude(scale * gradient[i]) < TINYFL_LIMIT;
    if (!any(ok))
        return TINYFL_ENUMERIC;
    learner->alive = ok;
    for (size_t i = 0; i < count; i++) {
        learner->weights[i] -= scale * gradient[i];
        gradient[i] = real_of(0.0f);
    }
    return TINYFL_OK;
}
