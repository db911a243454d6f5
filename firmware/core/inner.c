/* Inner loops: phases of steps on a stream of samples. */
#include "codec.h"
#include "plan.h"
#include "prototypes.h"

enum { INNER_HEADER = 16, PHASE_BYTES = sizeof(tinyfl_phase) };
#define NOINLINE __attribute__((noinline)) /* flash counts here, speed does not */

typedef char phase_is_its_record[PHASE_BYTES == 40 ? 1 : -1];

TINYFL_API int tinyfl_inner_read(tinyfl_inner *inner, const void *bytes, size_t count)
{
    const uint8_t *b = bytes;
    if (!inner || !b || count < INNER_HEADER || b[0] == 0 || b[0] > TINYFL_MAX_PHASES ||
        count != INNER_HEADER + PHASE_BYTES * (size_t)b[0])
        return TINYFL_EINVAL;
    if (b[6] != 0 || b[7] != 0)
        return TINYFL_EINVAL;
    memset(inner, 0, sizeof *inner);
    inner->count = b[0];
    inner->returns = b[1];
    inner->kept = b[2];
    inner->up = (tinyfl_codec){b[3], (uint16_t)(b[4] | b[5] << 8)};
    memcpy(&inner->local, b + 8, sizeof inner->local);
    memcpy(inner->phases, b + INNER_HEADER, count - INNER_HEADER);
    return tinyfl_inner_check(inner);
}

/* Whether a factor of a step is in its range. NaN and negative numbers have larger bits. */
static int good(const float *value)
{
    uint32_t bits;
    memcpy(&bits, value, sizeof bits);
    return bits < 0x58800000u; /* those of TINYFL_LIMIT */
}

/* Whether a phase has a support set and queries, of classes that may all have support; or neither set nor classes. */
static int good_episode(const tinyfl_phase *p)
{
    if (p->support == 0)
        return p->ways == 0;
    return p->ways > 0 && p->ways <= p->support && p->support < p->samples && p->support <= UINT32_MAX - p->samples;
}

TINYFL_API int tinyfl_inner_check(const tinyfl_inner *inner)
{
    if (!inner || inner->count == 0 || inner->count > TINYFL_MAX_PHASES || inner->returns > TINYFL_GRADIENT || inner->kept > 3 ||
        tinyfl_codec_check(&inner->up) != TINYFL_OK || (inner->kept & TINYFL_KEEPS_RESIDUAL && inner->up.kind == TINYFL_CODEC_FP32))
        return TINYFL_EINVAL;
    for (size_t i = 0; i < inner->count; i++) {
        const tinyfl_phase *p = &inner->phases[i];
        const int returned = inner->returns == TINYFL_GRADIENT && i + 1u == inner->count;
        if (p->samples == 0 || p->batch == 0 || p->passes == 0 || !good(&p->rate) || !good(&p->clip) || !good(&p->pull) ||
            p->rate * p->pull > 1.0f || (returned && p->passes > 1) || !good_episode(p))
            return TINYFL_EINVAL;
    }
    return tinyfl_inner_samples(inner) > UINT32_MAX ? TINYFL_EINVAL : TINYFL_OK;
}

TINYFL_API uint64_t tinyfl_inner_samples(const tinyfl_inner *inner)
{
    uint64_t samples = 0;
    for (size_t i = 0; i < inner->count; i++)
        samples += inner->phases[i].samples;
    return samples;
}

/* Samples of a pass, of a support set twice. */
static uint32_t calls(const tinyfl_phase *p) { return p->samples + p->support; }

TINYFL_API uint64_t tinyfl_inner_total(const tinyfl_inner *inner)
{
    uint64_t total = 0;
    for (size_t i = 0; i < inner->count; i++)
        total += (uint64_t)calls(&inner->phases[i]) * inner->phases[i].passes;
    return total;
}

TINYFL_API int tinyfl_inner_fits(const tinyfl_plan *plan, const tinyfl_inner *inner)
{
    const size_t outputs = tinyfl_plan_outputs(plan);
    for (size_t i = 0; i < inner->count; i++) {
        const uint32_t ways = inner->phases[i].ways;
        if ((ways > 0) != (plan->loss == TINYFL_PROTOTYPES) || ways > outputs ||
            (ways > 0 && tinyfl_means_bytes((uint32_t)outputs, ways) == 0))
            return 0;
    }
    return 1;
}

/* The memory that an inner loop needs beyond the learner's. */
enum { GRADIENT = 1, START = 2 };

static NOINLINE int needs(const tinyfl_inner *inner)
{
    int what = inner->returns == TINYFL_GRADIENT ? GRADIENT : inner->up.kind != TINYFL_CODEC_FP32 ? START : 0;
    for (size_t i = 0; i < inner->count; i++) {
        const tinyfl_phase *p = &inner->phases[i];
        what |= (p->batch > 1 || p->support > 0 ? GRADIENT : 0) | (p->pull > 0.0f ? START : 0);
    }
    return what;
}

/* Reals for the prototypes of the phase with most classes. */
static NOINLINE size_t prototypes(const tinyfl_plan *plan, const tinyfl_inner *inner)
{
    uint32_t most = 0;
    for (size_t i = 0; i < inner->count; i++)
        most = inner->phases[i].ways > most ? inner->phases[i].ways : most;
    return most ? tinyfl_prototypes_reals(tinyfl_plan_outputs(plan), most) : 0;
}

TINYFL_API size_t tinyfl_loop_bytes(const tinyfl_plan *plan, const tinyfl_inner *inner)
{
    const int what = needs(inner);
    return (tinyfl_plan_weights(plan) * (size_t)((what & 1) + (what >> 1)) + prototypes(plan, inner)) * sizeof(real);
}

/* Sets the learner for the current phase. */
static NOINLINE void begin_phase(tinyfl_loop *loop)
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
    if (p->support)
        tinyfl_prototypes_clear(loop);
}

TINYFL_API int tinyfl_loop_init(tinyfl_loop *loop, const tinyfl_inner *inner, tinyfl_learner *learner, void *memory)
{
    if (!loop || !learner || tinyfl_inner_check(inner) != TINYFL_OK || !tinyfl_inner_fits(learner->plan, inner))
        return TINYFL_EINVAL;
    const size_t count = learner->count;
    const int what = needs(inner);
    real *next = memory;
    if (what && (!next || (uintptr_t)next % sizeof(real) != 0))
        return TINYFL_EINVAL;
    memset(loop, 0, sizeof *loop);
    loop->inner = inner;
    loop->learner = learner;
    if (what & GRADIENT) {
        loop->gradient = next;
        memset(next, 0, count * sizeof(real));
        next += count;
    }
    if (what & START) {
        loop->start = next;
        memcpy(next, learner->weights, count * sizeof(real));
        next += count;
    }
    loop->prototypes = next;
    begin_phase(loop);
    return TINYFL_OK;
}

TINYFL_API int tinyfl_loop_done(const tinyfl_loop *loop) { return loop->phase == loop->inner->count; }

TINYFL_API uint64_t tinyfl_loop_index(const tinyfl_loop *loop)
{
    const uint32_t samples = loop->inner->phases[loop->phase].samples;
    return (uint64_t)loop->first + (loop->sample < samples ? loop->sample : loop->sample - samples);
}

/* Counts a sample, and at the end of the phase begins the next one. */
static void advance(tinyfl_loop *loop)
{
    const tinyfl_phase *p = &loop->inner->phases[loop->phase];
    if (++loop->sample < calls(p))
        return;
    loop->sample = 0;
    if (p->support)
        tinyfl_prototypes_clear(loop);
    if (++loop->pass < p->passes)
        return;
    loop->pass = 0;
    loop->first += p->samples;
    if (++loop->phase < loop->inner->count)
        begin_phase(loop);
}

/* Makes the weights that are returned minus the mean gradient, by a step of rate 1 from 0; the local ones stay. */
static int return_gradient(tinyfl_loop *loop, uint32_t samples)
{
    tinyfl_learner *l = loop->learner;
    l->pull = 0.0f;
    real *weights = l->weights, *gradient = loop->gradient;
    for (size_t i = 0; i < l->plan->count; i++) {
        const size_t count = layer_weights(&l->plan->layers[i]);
        memset(loop->inner->local >> i & 1 ? gradient : weights, 0, count * sizeof(real));
        weights += count;
        gradient += count;
    }
    return tinyfl_step(l, loop->gradient, 1.0f, samples);
}

/* A step, at the end of a mini-batch or of the phase whose gradient is returned. `filled`: samples whose gradients it sums. */
static int end_batch(tinyfl_loop *loop, const tinyfl_phase *p, int returned, uint32_t filled)
{
    return returned ? return_gradient(loop, filled) : tinyfl_step(loop->learner, loop->gradient, p->rate, filled);
}

TINYFL_API int tinyfl_loop_learn(tinyfl_loop *loop, const tinyfl_real *x, const tinyfl_real *y)
{
    if (!loop || tinyfl_loop_done(loop))
        return TINYFL_EINVAL;
    const tinyfl_phase *p = &loop->inner->phases[loop->phase];
    const int returned = loop->inner->returns == TINYFL_GRADIENT && loop->phase + 1u == loop->inner->count;
    const int last = loop->sample + 1 == calls(p), single = p->batch == 1 && !returned && !p->support;
    real before = real_of(0.0f);
    int code;
    if (p->support)
        code = tinyfl_prototypes_learn(loop, x, y);
    else if (single)
        code = tinyfl_learn(loop->learner, x, y, p->rate, &before);
    else
        code = tinyfl_accumulate(loop->learner, x, y, loop->gradient, &before);
    const uint32_t filled = p->support ? p->samples - p->support : returned ? p->samples : loop->sample % p->batch + 1;
    if (code == TINYFL_OK && !single && (last || (!returned && !p->support && filled == p->batch)))
        code = end_batch(loop, p, returned, filled);
    if (code != TINYFL_OK)
        return code;
    loop->loss += before;
    loop->measured += loop->sample >= p->support && loop->sample < p->samples;
    advance(loop);
    return TINYFL_OK;
}

/* The nearest float. A cast from 64 bits brings 3.5 KB of double arithmetic with it where there is no floating-point unit. */
static float float_of(uint64_t count)
{
    float unit = 1.0f;
    for (; count >> 32; unit *= 2.0f)
        count = count >> 1 | (count & 1); /* what is lost still decides a tie */
    return (float)(uint32_t)count * unit;
}

TINYFL_API real tinyfl_loop_loss(const tinyfl_loop *loop)
{
    if (loop->measured == 0)
        return real_of(0.0f);
    return loop->loss / float_of(loop->measured);
}

/* Copies the weights of some layers, together in `some`, out of `all` or back. */
static NOINLINE void copy_layers(const tinyfl_plan *plan, uint64_t layers, real *all, real *some, int back)
{
    for (size_t i = 0; i < plan->count; i++, layers >>= 1) {
        const size_t weights = layer_weights(&plan->layers[i]);
        if (layers & 1) {
            memmove(back ? all : some, back ? some : all, weights * sizeof *all);
            some += weights;
        }
        all += weights;
    }
}

TINYFL_API void tinyfl_layers_gather(const tinyfl_plan *plan, uint64_t layers, tinyfl_real *all, tinyfl_real *into)
{
    copy_layers(plan, layers, all, into, 0);
}

TINYFL_API void tinyfl_layers_scatter(const tinyfl_plan *plan, uint64_t layers, tinyfl_real *from, tinyfl_real *all)
{
    copy_layers(plan, layers, all, from, 1);
}

TINYFL_API size_t tinyfl_layers_weights(const tinyfl_plan *plan, uint64_t layers)
{
    size_t weights = 0;
    for (size_t i = 0; i < plan->count; i++, layers >>= 1)
        if (layers & 1)
            weights += layer_weights(&plan->layers[i]);
    return weights;
}

TINYFL_API size_t tinyfl_kept_weights(const tinyfl_plan *plan, const tinyfl_inner *inner)
{
    return (inner->kept & TINYFL_KEEPS_LAYERS ? tinyfl_layers_weights(plan, inner->local) : 0) +
           (inner->kept & TINYFL_KEEPS_RESIDUAL ? tinyfl_layers_weights(plan, ~inner->local) : 0);
}
