/* Inner loops: phases of steps on a stream of samples. */
#include "plan.h"

enum { INNER_HEADER = 16, PHASE_BYTES = sizeof(tinyfl_phase) };
typedef char phase_is_its_record[PHASE_BYTES == 32 ? 1 : -1];

TINYFL_API int tinyfl_inner_read(tinyfl_inner *inner, const void *bytes, size_t count)
{
    const uint8_t *b = bytes;
    if (!inner || !b || count < INNER_HEADER || b[0] == 0 || b[0] > TINYFL_MAX_PHASES ||
        count != INNER_HEADER + PHASE_BYTES * (size_t)b[0])
        return TINYFL_EINVAL;
    for (size_t i = 3; i < 8; i++)
        if (b[i] != 0)
            return TINYFL_EINVAL;
    memset(inner, 0, sizeof *inner);
    inner->count = b[0];
    inner->returns = b[1];
    inner->kept = b[2];
    memcpy(&inner->local, b + 8, sizeof inner->local);
    memcpy(inner->phases, b + INNER_HEADER, count - INNER_HEADER);
    return tinyfl_inner_check(inner);
}

/* Whether a factor of a step is in its range; NaN is not. */
static int good(float value) { return value >= 0.0f && value < TINYFL_LIMIT; }

TINYFL_API int tinyfl_inner_check(const tinyfl_inner *inner)
{
    if (!inner || inner->count == 0 || inner->count > TINYFL_MAX_PHASES || inner->returns > TINYFL_GRADIENT || inner->kept > 1)
        return TINYFL_EINVAL;
    for (size_t i = 0; i < inner->count; i++) {
        const tinyfl_phase *p = &inner->phases[i];
        if (p->samples == 0 || p->batch == 0 || p->passes == 0 || !good(p->rate) || !good(p->clip) || !good(p->pull) ||
            !(p->rate * p->pull <= 1.0f))
            return TINYFL_EINVAL;
    }
    const int repeats = inner->returns == TINYFL_GRADIENT && inner->phases[inner->count - 1].passes > 1;
    return repeats || tinyfl_inner_samples(inner) > UINT32_MAX ? TINYFL_EINVAL : TINYFL_OK;
}

TINYFL_API uint64_t tinyfl_inner_samples(const tinyfl_inner *inner)
{
    uint64_t samples = 0;
    for (size_t i = 0; i < inner->count; i++)
        samples += inner->phases[i].samples;
    return samples;
}

TINYFL_API uint64_t tinyfl_inner_total(const tinyfl_inner *inner)
{
    uint64_t total = 0;
    for (size_t i = 0; i < inner->count; i++)
        total += (uint64_t)inner->phases[i].samples * inner->phases[i].passes;
    return total;
}

static int accumulates(const tinyfl_inner *inner)
{
    int yes = inner->returns == TINYFL_GRADIENT;
    for (size_t i = 0; i < inner->count; i++)
        yes |= inner->phases[i].batch > 1;
    return yes;
}

static int pulls(const tinyfl_inner *inner)
{
    int yes = 0;
    for (size_t i = 0; i < inner->count; i++)
        yes |= inner->phases[i].pull > 0.0f;
    return yes;
}

TINYFL_API size_t tinyfl_loop_bytes(const tinyfl_plan *plan, const tinyfl_inner *inner)
{
    return tinyfl_plan_weights(plan) * sizeof(real) * (size_t)(accumulates(inner) + pulls(inner));
}

/* Sets the learner for the current phase. */
static void begin_phase(tinyfl_loop *loop)
{
    const tinyfl_phase *p = &loop->inner->phases[loop->phase];
    tinyfl_learner *l = loop->learner;
    l->clip = p->clip;
    l->pull = p->pull;
    l->start = loop->start;
    l->layers = p->layers;
    l->bottom = l->lowest;
    while (l->bottom + 1u < l->plan->count && !tinyfl_moves(l, l->bottom))
        l->bottom++;
}

TINYFL_API int tinyfl_loop_init(tinyfl_loop *loop, const tinyfl_inner *inner, tinyfl_learner *learner, void *memory)
{
    if (!loop || !learner || tinyfl_inner_check(inner) != TINYFL_OK)
        return TINYFL_EINVAL;
    const size_t count = learner->count;
    real *next = memory;
    if ((accumulates(inner) || pulls(inner)) && (!next || (uintptr_t)next % sizeof(real) != 0))
        return TINYFL_EINVAL;
    *loop = (tinyfl_loop){.inner = inner, .learner = learner, .loss = real_of(0.0f)};
    if (accumulates(inner)) {
        loop->gradient = next;
        memset(next, 0, count * sizeof(real));
        next += count;
    }
    if (pulls(inner)) {
        loop->start = next;
        memcpy(next, learner->weights, count * sizeof(real));
    }
    begin_phase(loop);
    return TINYFL_OK;
}

TINYFL_API int tinyfl_loop_done(const tinyfl_loop *loop) { return loop->phase == loop->inner->count; }

TINYFL_API uint64_t tinyfl_loop_index(const tinyfl_loop *loop) { return (uint64_t)loop->first + loop->sample; }

/* Whether the current phase only sums up its gradient, to return it. */
static int returns_gradient(const tinyfl_loop *loop)
{
    return loop->inner->returns == TINYFL_GRADIENT && loop->phase + 1u == loop->inner->count;
}

/* Counts a sample, and at the end of the phase begins the next one. */
static void advance(tinyfl_loop *loop)
{
    const tinyfl_phase *p = &loop->inner->phases[loop->phase];
    if (++loop->sample < p->samples)
        return;
    loop->sample = 0;
    if (++loop->pass < p->passes)
        return;
    loop->pass = 0;
    loop->first += p->samples;
    if (++loop->phase < loop->inner->count)
        begin_phase(loop);
}

TINYFL_API int tinyfl_loop_learn(tinyfl_loop *loop, const tinyfl_real *x, const tinyfl_real *y)
{
    if (!loop || tinyfl_loop_done(loop))
        return TINYFL_EINVAL;
    const tinyfl_phase *p = &loop->inner->phases[loop->phase];
    const int gradient = returns_gradient(loop);
    real before;
    int code;
    if (p->batch == 1 && !gradient) {
        code = tinyfl_learn(loop->learner, x, y, p->rate, &before);
    } else {
        code = tinyfl_accumulate(loop->learner, x, y, loop->gradient, &before);
        const uint32_t filled = loop->sample % p->batch + 1;
        const int last = loop->sample + 1 == p->samples;
        if (code == TINYFL_OK && !gradient && (filled == p->batch || last))
            code = tinyfl_step(loop->learner, loop->gradient, p->rate, filled);
        else if (code == TINYFL_OK && gradient && last)
            code = tinyfl_mean_gradient(loop->learner, loop->gradient, p->samples);
    }
    if (code != TINYFL_OK)
        return code;
    loop->loss += before;
    advance(loop);
    return TINYFL_OK;
}

TINYFL_API const tinyfl_real *tinyfl_loop_gradient(const tinyfl_loop *loop)
{
    return loop->inner->returns == TINYFL_GRADIENT ? loop->gradient : NULL;
}

TINYFL_API size_t tinyfl_layers_weights(const tinyfl_plan *plan, uint64_t layers)
{
    size_t weights = 0;
    for (size_t i = 0; i < plan->count; i++)
        if (layers >> i & 1)
            weights += layer_weights(&plan->layers[i]);
    return weights;
}

TINYFL_API void tinyfl_layers_gather(const tinyfl_plan *plan, uint64_t layers, const tinyfl_real *all, tinyfl_real *into)
{
    for (size_t i = 0; i < plan->count; i++) {
        const size_t weights = layer_weights(&plan->layers[i]);
        if (layers >> i & 1) {
            memmove(into, all, weights * sizeof *all);
            into += weights;
        }
        all += weights;
    }
}

TINYFL_API void tinyfl_layers_scatter(const tinyfl_plan *plan, uint64_t layers, const tinyfl_real *from, tinyfl_real *all)
{
    for (size_t i = 0; i < plan->count; i++) {
        const size_t weights = layer_weights(&plan->layers[i]);
        if (layers >> i & 1) {
            memcpy(all, from, weights * sizeof *all);
            from += weights;
        }
        all += weights;
    }
}
