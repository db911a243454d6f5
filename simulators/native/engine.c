/* Devices in lockstep, one per lane. Built as one unit with the core, for inlining.
 * TINYFL_LANES gives the width and TINYFL_ENGINE the name of the table below. */
#define TINYFL_API static __attribute__((unused))
#define TINYFL_KERNELS "kernels.h"

#include "unroll.h"

#include "../../firmware/core/random.c"
#include "../../firmware/core/sine.c"
#include "../../firmware/core/plan.c"
#include "../../firmware/core/learner.c"
#include "../../firmware/core/means.c"
#include "../../firmware/core/prototypes.c"
#include "../../firmware/core/codec.c"
#include "../../firmware/core/inner.c"
#include "draws.h"
#include "engine.h"
#include "samples.h"

#if TINYFL_LANES == 1
typedef double wide;
typedef int64_t fixed;
TINYFL_INLINE wide wide_of(real value) { return (double)value; }
TINYFL_INLINE fixed fixed_of_mask(mask m) { return m ? -1 : 0; }
TINYFL_INLINE void drop_lane(mask *m, int index) { (void)m, (void)index; }
#else
typedef double wide __attribute__((vector_size(8 * TINYFL_LANES), may_alias));
typedef int64_t fixed __attribute__((vector_size(8 * TINYFL_LANES), may_alias));
TINYFL_INLINE wide wide_of(real value) { return __builtin_convertvector(value, wide); }
TINYFL_INLINE fixed fixed_of_mask(mask m) { return __builtin_convertvector(m, fixed); }
TINYFL_INLINE void drop_lane(mask *m, int index) { (*m)[index] = 0; }
#endif

typedef struct {
    tinyfl_learner learner;
    tinyfl_loop loop;
    size_t count, inputs, outputs;
    real *weights, *x, *y, *output;
} bench;

/* Lays out the group's working memory, and loads theta into every lane. */
static int bench_set(bench *b, const tinyfl_plan *plan, const float *theta, void *memory)
{
    b->count = tinyfl_plan_weights(plan);
    b->inputs = tinyfl_plan_inputs(plan);
    b->outputs = tinyfl_plan_outputs(plan);
    b->weights = memory;
    b->x = b->weights + b->count;
    b->y = b->x + b->inputs;
    b->output = b->y + b->outputs;
    for (size_t i = 0; i < b->count; i++)
        b->weights[i] = real_of(theta[i]);
    return tinyfl_learner_init(&b->learner, plan, b->weights, b->output + b->outputs, tinyfl_learner_bytes(plan), 0.0f);
}

/* Begins the inner loop, behind the learner's memory. */
static int begin(bench *b, const tinyfl_inner *inner)
{
    real *learner = b->output + b->outputs;
    return tinyfl_loop_init(&b->loop, inner, &b->learner, learner + b->learner.reals);
}

/* Adds the successful lanes' changes to the sum, lane by lane, in units of 2^-32: a double of 1.5 x 2^20 has exactly this unit,
 * so adding it rounds a change to it (to nearest, ties to even), with the number of units in the low bits. */
static void add_changes(const bench *b, const float *theta, mask good, fixed *sum)
{
    const double shift = 1572864.0;
    int64_t shift_bits;
    memcpy(&shift_bits, &shift, sizeof shift_bits);
    const fixed keep = fixed_of_mask(good);
    for (size_t i = 0; i < b->count; i++) {
        const wide shifted = wide_of(b->weights[i]) - (double)theta[i] + shift;
        fixed units;
        memcpy(&units, &shifted, sizeof units);
        sum[i] += (units - shift_bits) & keep;
    }
}

/* Copies a lane's weights of some layers, together, from `own`; or to it, to store them. */
static void exchange(const bench *b, const tinyfl_plan *plan, uint64_t layers, int l, float *own, int store)
{
    real *weights = b->weights;
    for (size_t i = 0; i < plan->count; i++) {
        const size_t count = layer_weights(&plan->layers[i]);
        for (size_t k = 0; layers >> i & 1 && k < count; k++) {
            if (store)
                *own++ = lane(weights[k], l);
            else
                set_lane(&weights[k], l, *own++);
        }
        weights += count;
    }
}

/* What a lane's device keeps, of which the first value is NaN if there is nothing yet; the residual comes after the layers. */
static float *kept_of(const tinyfl_cohort *c, const group *g, int l)
{
    return c->kept + (g->first + (size_t)l) * tinyfl_kept_weights(c->plan, &c->inner);
}

static float *residual_of(const tinyfl_cohort *c, const group *g, int l)
{
    return kept_of(c, g, l) + (c->inner.kept & TINYFL_KEEPS_LAYERS ? tinyfl_layers_weights(c->plan, c->inner.local) : 0);
}

/* Loads each lane's own weights of the local layers, if there are any; or stores those of the lanes in `ok`. */
static void exchange_kept(const bench *b, const tinyfl_cohort *c, const group *g, int store, mask ok)
{
    if (!(c->inner.kept & TINYFL_KEEPS_LAYERS) || tinyfl_layers_weights(c->plan, c->inner.local) == 0)
        return;
    for (int l = 0; l < g->used; l++) {
        float *own = kept_of(c, g, l);
        if (store ? lane_of_mask(ok, l) : own[0] == own[0])
            exchange(b, c->plan, c->inner.local, l, own, store);
    }
}

static void add_floats(float *to, const float *more, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] += more[i];
}

/* Turns the weights that are sent into their change, if that is what the codec takes, and then those of each lane in `ok` into
 * what arrives of it. Returns the lanes that could be encoded. */
static mask send(const bench *b, const tinyfl_cohort *c, const group *g, mask ok)
{
    const tinyfl_codec *up = &c->inner.up;
    const uint64_t sent = ~c->inner.local;
    float *change = (float *)(b->output + b->outputs + b->learner.reals), *arrived = change + b->count; /* the loop is over */
    const size_t count = tinyfl_layers_weights(c->plan, sent);
    size_t at = 0, bytes;
    for (size_t i = 0; i < c->plan->count && c->inner.returns == TINYFL_CHANGE; i++)
        for (const size_t end = at + layer_weights(&c->plan->layers[i]); at < end; at++)
            if (sent >> i & 1)
                b->weights[at] -= real_of(c->theta[at]);
    for (int l = 0; l < g->used; l++) {
        float *residual = c->inner.kept & TINYFL_KEEPS_RESIDUAL ? residual_of(c, g, l) : NULL;
        if (!lane_of_mask(ok, l))
            continue;
        exchange(b, c->plan, sent, l, change, 1);
        if (residual && kept_of(c, g, l)[0] == kept_of(c, g, l)[0])
            add_floats(change, residual, count);
        if (residual)
            memcpy(arrived, change, count * sizeof *change);
        if (tinyfl_encode(up, c->plan, sent, change, change, &bytes) != TINYFL_OK) {
            drop_lane(&ok, l);
            continue;
        }
        if (residual) {
            memcpy(residual, arrived, count * sizeof *residual);
            tinyfl_decode(up, c->plan, sent, change, bytes, -1.0f, residual);
        }
        memset(arrived, 0, b->count * sizeof *arrived);
        tinyfl_decode(up, c->plan, sent, change, bytes, 1.0f, arrived);
        exchange(b, c->plan, sent, l, arrived, 0);
    }
    return ok;
}

/* Whether devices send what is to be added to theta, and not their weights. */
static int adds(const tinyfl_inner *inner) { return inner->returns != TINYFL_CHANGE || inner->up.kind != TINYFL_CODEC_FP32; }

/* Turns the weights into phi: theta in local layers, and theta plus what is sent if that is no weights. */
static void finish(const bench *b, const tinyfl_cohort *c)
{
    size_t at = 0;
    for (size_t i = 0; i < c->plan->count; i++) {
        const size_t end = at + layer_weights(&c->plan->layers[i]);
        const int local = c->inner.local >> i & 1;
        for (; at < end; at++)
            if (local)
                b->weights[at] = real_of(c->theta[at]);
            else if (adds(&c->inner))
                b->weights[at] += c->theta[at];
    }
}

/* The inner loop. Returns TINYFL_OK while any lane is valid. */
static int inner_loop(bench *b, const tinyfl_cohort *c, group *g)
{
    const uint32_t samples = (uint32_t)tinyfl_inner_samples(&c->inner);
    int code = begin(b, &c->inner);
    while (code == TINYFL_OK && !tinyfl_loop_done(&b->loop)) {
        if (tinyfl_stopped(c->stop))
            return TINYFL_ESTOPPED;
        sample(&c->source, g, c->round, samples, (uint32_t)tinyfl_loop_index(&b->loop), b->inputs, b->outputs, b->x, b->y);
        code = tinyfl_loop_learn(&b->loop, b->x, b->y);
    }
    return code;
}

#include "second_order.h"

static void train(const tinyfl_cohort *c, size_t first, void *memory, void *sum)
{
    group g = group_at(&c->source, c->devices, first, c->count);
    bench b;
    int code = bench_set(&b, c->plan, c->theta, memory);
    if (code == TINYFL_OK && c->inner.kept)
        exchange_kept(&b, c, &g, 0, none());
    if (code == TINYFL_OK && c->inner.returns == TINYFL_META_GRADIENT)
        code = meta_gradient(&b, c, &g, (real *)memory + tinyfl_engine_reals(c->plan, 0));
    else if (code == TINYFL_OK)
        code = inner_loop(&b, c, &g);
    mask ok = code == TINYFL_OK ? b.learner.alive : none();
    if (code == TINYFL_OK && c->inner.kept & TINYFL_KEEPS_LAYERS)
        ok &= tinyfl_layers_below_limit(&b.learner, c->inner.local);
    if (code == TINYFL_OK && c->inner.up.kind != TINYFL_CODEC_FP32)
        ok = send(&b, c, &g, ok);
    if (code == TINYFL_OK && c->inner.kept)
        exchange_kept(&b, c, &g, 1, ok);
    if (code == TINYFL_OK && (c->inner.local || adds(&c->inner)))
        finish(&b, c);

    mask good = ok;
    for (size_t i = 0; i < b.count; i++)
        good &= magnitude(b.weights[i] - c->theta[i]) < TINYFL_MAX_CHANGE;
    const real loss = code == TINYFL_OK ? tinyfl_loop_loss(&b.loop) : real_of(0.0f);
    for (int l = 0; l < TINYFL_LANES; l++) {
        if (l >= g.used) {
            drop_lane(&good, l);
            continue;
        }
        const size_t device = first + (size_t)l;
        const int learnt = lane_of_mask(good, l);
        c->loss[device] = lane_of_mask(ok, l) ? lane(loss, l) : __builtin_inff();
        c->code[device] = learnt                  ? TINYFL_OK
                          : lane_of_mask(ok, l) ? TINYFL_EOVERSIZED
                          : code == TINYFL_OK     ? TINYFL_ENUMERIC
                                                  : code;
        if (c->updates)
            for (size_t i = 0; i < b.count; i++)
                c->updates[device * b.count + i] = learnt ? lane(b.weights[i], l) : c->theta[i];
    }
    add_changes(&b, c->theta, good, sum);
}

/* One pass over the support set. */
static int one_pass(bench *b, const tinyfl_adaptation *a, group *g)
{
    int code = TINYFL_OK;
    for (uint32_t s = 0; s < a->shots && code == TINYFL_OK; s++) {
        if (tinyfl_stopped(a->stop))
            return TINYFL_ESTOPPED;
        sample(&a->support, g, 0, a->shots, s, b->inputs, b->outputs, b->x, b->y);
        code = tinyfl_loop_learn(&b->loop, b->x, b->y);
    }
    return code;
}

static int right(const bench *b, int l)
{
    size_t guess = 0, truth = 0;
    for (size_t j = 1; j < b->outputs; j++) {
        if (lane(b->output[j], l) > lane(b->output[guess], l))
            guess = j;
        if (lane(b->y[j], l) > lane(b->y[truth], l))
            truth = j;
    }
    return guess == truth;
}

/* Loss and accuracy on the query set, at checkpoint k; `ok` is 0 if the whole group has failed. */
static void measure(bench *b, const tinyfl_adaptation *a, group *g, size_t k, int ok)
{
    real loss = real_of(0.0f);
    float hits[TINYFL_LANES] = {0};
    for (uint32_t q = 0; q < a->queries && ok; q++) {
        real value;
        sample(&a->query, g, 0, a->queries, q, b->inputs, b->outputs, b->x, b->y);
        ok = !tinyfl_stopped(a->stop) && tinyfl_evaluate(&b->learner, b->x, b->y, &value, b->output) == TINYFL_OK;
        if (!ok)
            break;
        loss += value;
        for (int l = 0; l < g->used; l++) {
            const size_t device = g->first + (size_t)l;
            if (a->accuracy)
                hits[l] += (float)right(b, l);
            if (a->outputs)
                for (size_t j = 0; j < b->outputs; j++)
                    a->outputs[((k * a->count + device) * a->queries + q) * b->outputs + j] = lane(b->output[j], l);
        }
    }
    for (int l = 0; l < g->used; l++) {
        const size_t at = k * a->count + g->first + (size_t)l;
        const int fine = ok && lane_of_mask(b->learner.alive, l) && lane(loss, l) < __builtin_inff();
        a->loss[at] = fine ? lane(loss, l) / (float)a->queries : __builtin_inff();
        if (a->accuracy)
            a->accuracy[at] = fine ? hits[l] / (float)a->queries : 0.0f;
        if (a->outputs && !fine)
            memset(a->outputs + at * a->queries * b->outputs, 0, a->queries * b->outputs * sizeof(float));
    }
}

static void adapt(const tinyfl_adaptation *a, size_t first, void *memory)
{
    group g = group_at(&a->support, NULL, first, a->count);
    bench b;
    int code = bench_set(&b, a->plan, a->theta, memory);
    if (code == TINYFL_OK)
        code = begin(&b, &a->inner);
    uint32_t step = 0;
    for (size_t k = 0; k < a->checkpoints; k++) {
        for (; step < a->steps[k] && code == TINYFL_OK; step++)
            code = one_pass(&b, a, &g);
        measure(&b, a, &g, k, code == TINYFL_OK);
    }
    if (a->weights)
        for (int l = 0; l < g.used; l++)
            for (size_t i = 0; i < b.count; i++)
                a->weights[(first + (size_t)l) * b.count + i] =
                    code == TINYFL_OK && lane_of_mask(b.learner.alive, l) ? lane(b.weights[i], l) : a->theta[i];
}

#include "classes.h"

#ifdef TINYFL_EXPORTS
TINYFL_EXPORT int tinyfl_native_samples(const tinyfl_native_source *source, const uint32_t *devices, size_t count,
                                        uint32_t round, uint32_t samples, uint32_t inputs, uint32_t outputs, float *x,
                                        float *y)
{
    if (!source || !devices || !x || !y)
        return TINYFL_EINVAL;
    for (size_t d = 0; d < count; d++) {
        group g = group_at(source, devices, d, count);
        for (uint32_t s = 0; s < samples; s++)
            sample(source, &g, round, samples, s, inputs, outputs, x + (d * samples + s) * inputs,
                   y + (d * samples + s) * outputs);
    }
    return TINYFL_OK;
}

TINYFL_EXPORT void tinyfl_native_sine(uint64_t seed, const uint32_t *devices, size_t count, const float *x, size_t points,
                                      float *y)
{
    for (size_t d = 0; d < count; d++) {
        const tinyfl_sine sine = tinyfl_sine_of(seed, devices[d]);
        for (size_t i = 0; i < points; i++)
            y[d * points + i] = tinyfl_sine_at(sine, x[d * points + i]);
    }
}

TINYFL_EXPORT void tinyfl_native_random(uint64_t seed, uint32_t stream, const uint32_t *devices, const uint32_t *rounds,
                                        size_t count, size_t words, uint32_t *out)
{
    for (size_t d = 0; d < count; d++)
        for (size_t at = 0; at < words; at += 4) {
            uint32_t four[4];
            tinyfl_random(seed, stream, devices[d], rounds[d], (uint32_t)(at / 4), four);
            memcpy(out + d * words + at, four, (words - at < 4 ? words - at : 4) * sizeof *out);
        }
}

TINYFL_EXPORT size_t tinyfl_native_weights(const tinyfl_plan *plan) { return tinyfl_plan_weights(plan); }

TINYFL_EXPORT size_t tinyfl_native_inputs(const tinyfl_plan *plan) { return tinyfl_plan_inputs(plan); }

TINYFL_EXPORT size_t tinyfl_native_outputs(const tinyfl_plan *plan) { return tinyfl_plan_outputs(plan); }

TINYFL_EXPORT int tinyfl_native_check(const tinyfl_plan *plan) { return tinyfl_plan_check(plan); }

TINYFL_EXPORT int tinyfl_native_read(tinyfl_plan *plan, const void *bytes, size_t count)
{
    return tinyfl_plan_read(plan, bytes, count);
}

TINYFL_EXPORT int tinyfl_native_inner_check(const tinyfl_inner *inner)
{
    if (!inner || inner->returns != TINYFL_META_GRADIENT)
        return tinyfl_inner_check(inner);
    tinyfl_inner first_order = *inner;
    first_order.returns = TINYFL_GRADIENT;
    for (size_t i = 0; i < 2; i++)
        if (inner->phases[i].clip > 0.0f || inner->phases[i].pull > 0.0f || inner->phases[i].layers != TINYFL_EVERY_LAYER ||
            inner->phases[i].ways > 0)
            return TINYFL_EINVAL;
    if (inner->count != 2 || inner->local || inner->phases[0].batch < inner->phases[0].samples ||
        inner->phases[0].passes > TINYFL_MAX_META_STEPS)
        return TINYFL_EINVAL;
    return tinyfl_inner_check(&first_order);
}

TINYFL_EXPORT int tinyfl_native_inner_fits(const tinyfl_plan *plan, const tinyfl_inner *inner)
{
    return tinyfl_inner_fits(plan, inner);
}

TINYFL_EXPORT int tinyfl_native_inner_read(tinyfl_inner *inner, const void *bytes, size_t count)
{
    uint8_t record[sizeof *inner];
    if (!inner || !bytes || count < 2 || count > sizeof record || ((const uint8_t *)bytes)[1] != TINYFL_META_GRADIENT)
        return tinyfl_inner_read(inner, bytes, count);
    memcpy(record, bytes, count);
    record[1] = TINYFL_GRADIENT;
    const int code = tinyfl_inner_read(inner, record, count);
    inner->returns = TINYFL_META_GRADIENT;
    return code == TINYFL_OK ? tinyfl_native_inner_check(inner) : code;
}

TINYFL_EXPORT size_t tinyfl_native_kept_weights(const tinyfl_plan *plan, const tinyfl_inner *inner)
{
    return tinyfl_kept_weights(plan, inner);
}

TINYFL_EXPORT size_t tinyfl_native_ram(const tinyfl_plan *plan, const tinyfl_inner *inner)
{
    const size_t kept = tinyfl_kept_weights(plan, inner);
    return tinyfl_learner_bytes(plan) + (tinyfl_plan_weights(plan) + 2 * kept) * sizeof(float) + tinyfl_loop_bytes(plan, inner);
}

size_t tinyfl_engine_reals(const tinyfl_plan *plan, uint32_t ways)
{
    const size_t outputs = tinyfl_plan_outputs(plan);
    return 3 * tinyfl_plan_weights(plan) + tinyfl_learner_bytes(plan) / sizeof(float) + tinyfl_plan_inputs(plan) +
           2 * outputs + tinyfl_prototypes_reals(outputs, ways) + tinyfl_engine_padding(plan);
}

int tinyfl_engine_recode(const tinyfl_codec *codec, const tinyfl_plan *plan, float *weights)
{
    size_t bytes;
    const int code = tinyfl_encode(codec, plan, TINYFL_EVERY_LAYER, weights, weights, &bytes);
    return code == TINYFL_OK ? tinyfl_decode_in_place(codec, plan, TINYFL_EVERY_LAYER, weights, bytes) : code;
}

size_t tinyfl_engine_padding(const tinyfl_plan *plan)
{
    size_t most = 0;
    for (size_t i = 0; i < plan->count; i++)
        most = plan->layers[i].outputs > most ? plan->layers[i].outputs : most;
    return 8 * (most + 1);
}
#endif

const tinyfl_engine TINYFL_ENGINE = {TINYFL_LANES, sizeof(real), train, adapt, distinct, embed, classify};
