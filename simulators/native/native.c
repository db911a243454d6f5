/* Threads over groups of devices, and selection of the widest engine for this processor. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

#if defined(__x86_64__)
extern const tinyfl_engine tinyfl_engine_16, tinyfl_engine_8, tinyfl_engine_1_avx512, tinyfl_engine_1_avx2;
#endif
extern const tinyfl_engine tinyfl_engine_4, tinyfl_engine_1;

int tinyfl_native_lanes(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return 16;
    if (__builtin_cpu_supports("avx2"))
        return 8;
#endif
    return 4;
}

/* One device at a time, with this processor's widest vectors over neighbouring outputs. */
static const tinyfl_engine *engine_of_one(void)
{
#if defined(__x86_64__)
    if (tinyfl_native_lanes() == 16)
        return &tinyfl_engine_1_avx512;
    if (tinyfl_native_lanes() == 8)
        return &tinyfl_engine_1_avx2;
#endif
    return &tinyfl_engine_1;
}

static const tinyfl_engine *engine_of(int lanes)
{
    if (lanes > tinyfl_native_lanes())
        return NULL;
    switch (lanes) {
#if defined(__x86_64__)
    case 16:
        return &tinyfl_engine_16;
    case 8:
        return &tinyfl_engine_8;
#endif
    case 4:
        return &tinyfl_engine_4;
    case 1:
        return engine_of_one();
    default:
        return NULL;
    }
}

/* A call's work, shared by its threads: exactly one of cohort and adaptation is set. */
typedef struct {
    const tinyfl_engine *engine;
    const tinyfl_cohort *cohort;
    const tinyfl_adaptation *adaptation;
    const tinyfl_plan *plan;
    size_t count;
    atomic_size_t next;  /* first device of the next group */
    atomic_int failed;   /* TINYFL_EMEMORY if a thread got no memory, TINYFL_ESTOPPED if one saw `stop` */
    pthread_mutex_t lock; /* guards cohort->sum */
} work;

static const atomic_int *stop_of(const work *w) { return w->cohort ? w->cohort->stop : w->adaptation->stop; }

static void *aligned_zeros(size_t bytes)
{
    const size_t rounded = (bytes + 127) / 128 * 128;
    void *memory = aligned_alloc(128, rounded);
    if (memory)
        memset(memory, 0, rounded);
    return memory;
}

static void add_lanes(work *w, size_t weights, const int64_t *sum)
{
    const size_t lanes = (size_t)w->engine->lanes;
    pthread_mutex_lock(&w->lock);
    for (size_t i = 0; i < weights; i++)
        for (size_t l = 0; l < lanes; l++)
            w->cohort->sum[i] += sum[i * lanes + l];
    pthread_mutex_unlock(&w->lock);
}

static void *worker(void *argument)
{
    work *w = argument;
    const size_t lanes = (size_t)w->engine->lanes, weights = tinyfl_native_weights(w->plan);
    void *memory = aligned_zeros(tinyfl_engine_reals(w->plan) * w->engine->bytes_per_real);
    int64_t *sum = w->cohort ? aligned_zeros(weights * lanes * sizeof *sum) : NULL;
    if (!memory || (w->cohort && !sum)) {
        atomic_store(&w->failed, TINYFL_EMEMORY);
    } else {
        for (size_t first; !atomic_load(&w->failed) && (first = atomic_fetch_add(&w->next, lanes)) < w->count;) {
            if (w->cohort)
                w->engine->train(w->cohort, first, memory, sum);
            else
                w->engine->adapt(w->adaptation, first, memory);
            if (tinyfl_stopped(stop_of(w)))
                atomic_store(&w->failed, TINYFL_ESTOPPED);
        }
        if (w->cohort)
            add_lanes(w, weights, sum);
    }
    free(sum);
    free(memory);
    return NULL;
}

enum { MAX_THREADS = 256 };

static int run(work *w, int threads)
{
    const size_t groups = (w->count + (size_t)w->engine->lanes - 1) / (size_t)w->engine->lanes;
    pthread_t others[MAX_THREADS];
    int started = 0;
    pthread_mutex_init(&w->lock, NULL);
    while (started + 1 < threads && (size_t)started + 1 < groups && started < MAX_THREADS &&
           pthread_create(&others[started], NULL, worker, w) == 0)
        started++;
    worker(w);
    for (int i = 0; i < started; i++)
        pthread_join(others[i], NULL);
    pthread_mutex_destroy(&w->lock);
    return atomic_load(&w->failed);
}

/* Whether a layer's weights serve many positions, so that one device alone keeps the processor busy. */
static int has_windows(const tinyfl_plan *plan)
{
    for (size_t i = 0; i < plan->count; i++)
        if (plan->layers[i].kind == TINYFL_CONV || plan->layers[i].kind == TINYFL_DEPTHWISE)
            return 1;
    return 0;
}

/* The lanes for a call: as few as hold each thread's share of the devices, since a group of 8 takes little more than half the
 * time of one of 16; and 1 for a share that takes less time one after another than in one group. */
static int width(const tinyfl_plan *plan, size_t count, int lanes, int threads)
{
    const size_t share = (count + (size_t)threads - 1) / (size_t)threads;
    const int narrow = lanes > 8 ? 8 : lanes;
    if (8 * share <= (size_t)narrow * (has_windows(plan) ? 5 : 2))
        return 1;
    return share <= 8 ? narrow : lanes;
}

static int check(const tinyfl_cohort *c)
{
    if (!c || !c->theta || !c->devices || !c->sum || !c->loss || !c->code || !c->stop ||
        tinyfl_native_inner_check(&c->inner) != TINYFL_OK || (c->inner.kept && !c->kept))
        return TINYFL_EINVAL;
    return tinyfl_native_check(c->plan);
}

int tinyfl_native_train(const tinyfl_cohort *c, int lanes, int threads)
{
    const int code = engine_of(lanes) && threads > 0 ? check(c) : TINYFL_EINVAL;
    if (code != TINYFL_OK)
        return code;
    const tinyfl_engine *engine = engine_of(width(c->plan, c->count, lanes, threads));
    work w = {.engine = engine, .cohort = c, .plan = c->plan, .count = c->count};
    return run(&w, threads);
}

int tinyfl_native_train_serially(const tinyfl_cohort *c, const double *alphas, float *theta)
{
    if (!c || !alphas || !theta || c->inner.kept)
        return TINYFL_EINVAL;
    tinyfl_cohort now = *c; /* the cohort in the round that runs */
    now.theta = theta;
    now.updates = NULL;
    int code = check(&now);
    if (code != TINYFL_OK)
        return code;
    const tinyfl_engine *engine = engine_of(1);
    const size_t weights = tinyfl_native_weights(c->plan);
    void *memory = aligned_zeros(tinyfl_engine_reals(c->plan) * engine->bytes_per_real);
    if (!memory)
        return TINYFL_EMEMORY;
    for (size_t r = 0; r < c->count && code == TINYFL_OK; r++, now.round++) {
        memset(c->sum, 0, weights * sizeof *c->sum);
        engine->train(&now, r, memory, c->sum);
        for (size_t i = 0; i < weights; i++) { /* as TowardsMean.outer does (tinyfl/algorithms) */
            const double mean = (double)theta[i] + (double)c->sum[i] * 0x1p-32;
            theta[i] = (float)((double)theta[i] + alphas[r] * (mean - (double)theta[i]));
        }
        if (tinyfl_stopped(c->stop))
            code = TINYFL_ESTOPPED;
    }
    free(memory);
    return code;
}

int tinyfl_native_adapt(const tinyfl_adaptation *a, int lanes, int threads)
{
    const tinyfl_engine *engine = engine_of(a && a->plan && threads > 0 ? width(a->plan, a->count, lanes, threads) : 1);
    if (!engine || !a || !a->theta || !a->steps || !a->loss || !a->stop || threads < 1 || a->shots == 0 ||
        a->queries == 0 || tinyfl_native_inner_check(&a->inner) != TINYFL_OK || a->support.kind != TINYFL_TABLE ||
        a->query.kind != TINYFL_TABLE)
        return TINYFL_EINVAL;
    const int code = tinyfl_native_check(a->plan);
    if (code != TINYFL_OK)
        return code;
    work w = {.engine = engine, .adaptation = a, .plan = a->plan, .count = a->count};
    return run(&w, threads);
}

int tinyfl_native_distinct(const tinyfl_draw *d)
{
    if (!d || !d->devices || !d->out || d->picks == 0 || d->picks > TINYFL_MAX_PICKS || d->picks > d->available ||
        d->available > INT32_MAX - d->skip)
        return TINYFL_EINVAL;
    const tinyfl_engine *engine = engine_of(d->count > 1 ? tinyfl_native_lanes() : 1);
    for (size_t first = 0; first < d->count; first += (size_t)engine->lanes)
        engine->distinct(d, first);
    return TINYFL_OK;
}
