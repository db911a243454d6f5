/* Threads over groups of devices, and selection of the widest engine for this processor. */
#include <math.h>
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

/* The number of devices that take less time one after another than in a group of `lanes`: more of them where a layer's weights
 * serve many positions, which keeps the processor busy with one device alone. */
static size_t few(const tinyfl_plan *plan, int lanes)
{
    size_t eighths = 3;
    for (size_t i = 0; i < plan->count; i++)
        if (plan->layers[i].kind == TINYFL_CONV || plan->layers[i].kind == TINYFL_DEPTHWISE)
            eighths = 6;
    return (size_t)(lanes > 8 ? 8 : lanes) * eighths / 8;
}

/* The most classes of a phase. */
static uint32_t ways_of(const tinyfl_inner *inner)
{
    uint32_t most = 0;
    for (size_t i = 0; i < inner->count; i++)
        most = inner->phases[i].ways > most ? inner->phases[i].ways : most;
    return most;
}

size_t tinyfl_native_working_bytes(const tinyfl_plan *plan, int lanes, uint32_t ways)
{
    const tinyfl_engine *engine = engine_of(lanes);
    if (!engine)
        return 0;
    const size_t sums = tinyfl_native_weights(plan) * (size_t)(lanes + 1) * sizeof(int64_t);
    return tinyfl_engine_reals(plan, ways) * engine->bytes_per_real + sums;
}

/* One of the adaptations in a race, and how far it is. */
typedef struct {
    const tinyfl_adaptation *adaptation;
    size_t started, measured; /* devices */
    double cost;              /* of those measured: the sum of their losses, or of 1 - accuracy. It never falls. */
} entry;

/* A call's work, shared by its threads: rounds on cohorts, the entries of a race, or an embedding. */
typedef struct {
    const tinyfl_engine *engine;
    const tinyfl_plan *plan;
    const atomic_int *stop;
    size_t count; /* devices, of a round or of all entries; or samples */
    tinyfl_cohort now; /* the round that runs, which ends before device now.count */
    const double *alphas; /* (rounds): the outer steps; NULL: none */
    float *theta;
    float *start; /* what devices get of theta, from `down`; NULL: theta itself */
    tinyfl_codec down;
    size_t rounds;      /* left, with the one that runs; 0 once the call is over */
    atomic_size_t next; /* first device of the round's next group, or first sample */
    entry *entries;
    size_t entry_count;
    int by_accuracy;
    const tinyfl_embedding *embedding;
    atomic_int failed;    /* TINYFL_EMEMORY if a thread got no memory, TINYFL_ESTOPPED if one saw `stop`, TINYFL_ENUMERIC if theta
                             cannot be encoded */
    pthread_mutex_t lock; /* guards now.sum, the entries, and: */
    int threads, arrived; /* of the call; at the end of the round */
    pthread_cond_t next_round;
} work;

static void *aligned_zeros(size_t bytes)
{
    const size_t rounded = (bytes + 127) / 128 * 128;
    void *memory = aligned_alloc(128, rounded);
    if (memory)
        memset(memory, 0, rounded);
    return memory;
}

/* Adds a thread's sums, (weights, lanes), to the round's, and clears them. */
static void add_lanes(work *w, size_t weights, size_t lanes, int64_t *sum)
{
    for (size_t i = 0; i < weights; i++)
        for (size_t l = 1; l < lanes; l++)
            sum[i * lanes] += sum[i * lanes + l];
    pthread_mutex_lock(&w->lock);
    for (size_t i = 0; i < weights; i++)
        w->now.sum[i] += sum[i * lanes];
    pthread_mutex_unlock(&w->lock);
    memset(sum, 0, weights * lanes * sizeof *sum);
}

/* The outer step as TowardsMean takes it (tinyfl/algorithms), from the round's sums. */
static void outer_step(work *w)
{
    const size_t weights = tinyfl_native_weights(w->plan);
    size_t devices = 0;
    for (size_t d = w->now.count - w->count; d < w->now.count; d++)
        devices += w->now.code[d] == TINYFL_OK;
    const double unit = 0x1p-32 / (double)(devices ? devices : 1), alpha = *w->alphas++;
    for (size_t i = 0; i < weights; i++) {
        const double theta = w->theta[i], mean = theta + (double)w->now.sum[i] * unit;
        w->theta[i] = (float)(theta + alpha * (mean - theta));
    }
    memset(w->now.sum, 0, weights * sizeof *w->now.sum);
}

/* Sends theta down to the devices of the next round. */
static void send_down(work *w)
{
    if (!w->start)
        return;
    memcpy(w->start, w->theta, tinyfl_native_weights(w->plan) * sizeof *w->start);
    const int code = tinyfl_engine_recode(&w->down, w->plan, w->start);
    if (code != TINYFL_OK)
        atomic_store(&w->failed, code);
}

/* Waits for the other threads at the end of a round; the last one begins the next. Returns the number of rounds left. */
static size_t end_round(work *w)
{
    pthread_mutex_lock(&w->lock);
    const size_t left = w->rounds - 1;
    if (++w->arrived < w->threads) {
        while (w->rounds > left)
            pthread_cond_wait(&w->next_round, &w->lock);
    } else {
        if (w->alphas)
            outer_step(w);
        if (left > 0)
            send_down(w);
        w->arrived = 0;
        w->rounds = atomic_load(&w->failed) ? 0 : left;
        w->now.round++;
        atomic_store(&w->next, w->now.count);
        w->now.count += w->count;
        pthread_cond_broadcast(&w->next_round);
    }
    const size_t rounds = w->rounds;
    pthread_mutex_unlock(&w->lock);
    return rounds;
}

/* Takes groups of the round's devices until none is left. sum: (weights, lanes), sum_alone: (weights). */
static void train_groups(work *w, void *memory, int64_t *sum, int64_t *sum_alone)
{
    const tinyfl_engine *alone = engine_of(1);
    const size_t lanes = (size_t)w->engine->lanes, end = w->now.count, weights = tinyfl_native_weights(w->plan);
    const size_t left_alone = few(w->plan, w->engine->lanes);
    int together = 0, apart = 0;
    for (size_t first; !atomic_load(&w->failed) && (first = atomic_fetch_add(&w->next, lanes)) < end;) {
        if (end - first > left_alone) {
            w->engine->train(&w->now, first, memory, sum);
            together = 1;
        } else {
            for (size_t device = first; device < end; device++)
                alone->train(&w->now, device, memory, sum_alone);
            apart = 1;
        }
        if (tinyfl_stopped(w->stop))
            atomic_store(&w->failed, TINYFL_ESTOPPED);
    }
    if (together)
        add_lanes(w, weights, lanes, sum);
    if (apart)
        add_lanes(w, weights, 1, sum_alone);
}

static void *trainer(void *argument)
{
    work *w = argument;
    const size_t lanes = (size_t)w->engine->lanes, weights = tinyfl_native_weights(w->plan);
    const tinyfl_inner *inner = &w->now.inner;
    const size_t reals = tinyfl_engine_reals(w->plan, ways_of(inner)) + tinyfl_second_order_reals(w->plan, inner);
    void *memory = aligned_zeros(reals * w->engine->bytes_per_real);
    int64_t *sum = aligned_zeros(weights * (lanes + 1) * sizeof *sum);
    if (!memory || !sum)
        atomic_store(&w->failed, TINYFL_EMEMORY);
    do {
        if (memory && sum)
            train_groups(w, memory, sum, sum + weights * lanes);
    } while (end_round(w));
    free(sum);
    free(memory);
    return NULL;
}

/* The entry whose next group is worth measuring: the leader of those with devices left, the first on a tie. NULL once there is
 * none, or its cost is above that of an entry with none left: it has lost, and so have those behind it. Costs are rounded, in
 * the order in which groups happen to end, and the caller may sum in another: SURELY is far above the error of 2^20 terms. */
static entry *leader(work *w)
{
    const double SURELY = 1.0 - 1e-9;
    double best = INFINITY;
    entry *leading = NULL;
    for (entry *e = w->entries; e < w->entries + w->entry_count; e++)
        if (e->measured == e->adaptation->count)
            best = e->cost < best ? e->cost : best;
        else if (e->started < e->adaptation->count && (!leading || e->cost < leading->cost))
            leading = e;
    return leading && leading->cost * SURELY <= best ? leading : NULL;
}

/* Counts a group that was measured. */
static void count_group(const work *w, entry *e, size_t first)
{
    const tinyfl_adaptation *a = e->adaptation;
    const size_t last = (a->checkpoints - 1) * a->count;
    for (size_t d = first; d < a->count && d < first + (size_t)w->engine->lanes; d++, e->measured++)
        e->cost += w->by_accuracy ? 1.0 - (double)a->accuracy[last + d] : (double)a->loss[last + d];
}

static void *racer(void *argument)
{
    work *w = argument;
    void *memory = aligned_zeros(tinyfl_engine_reals(w->plan, 0) * w->engine->bytes_per_real);
    if (!memory)
        atomic_store(&w->failed, TINYFL_EMEMORY);
    pthread_mutex_lock(&w->lock);
    for (entry *e; !atomic_load(&w->failed) && (e = leader(w));) {
        const size_t first = e->started;
        e->started += (size_t)w->engine->lanes;
        pthread_mutex_unlock(&w->lock);
        w->engine->adapt(e->adaptation, first, memory);
        if (tinyfl_stopped(w->stop))
            atomic_store(&w->failed, TINYFL_ESTOPPED);
        pthread_mutex_lock(&w->lock);
        count_group(w, e, first);
    }
    pthread_mutex_unlock(&w->lock);
    free(memory);
    return NULL;
}

static void *embedder(void *argument)
{
    work *w = argument;
    void *memory = aligned_zeros(tinyfl_engine_reals(w->plan, 0) * w->engine->bytes_per_real);
    if (!memory)
        atomic_store(&w->failed, TINYFL_EMEMORY);
    const size_t lanes = (size_t)w->engine->lanes;
    for (size_t first; !atomic_load(&w->failed) && (first = atomic_fetch_add(&w->next, lanes)) < w->count;) {
        w->engine->embed(w->embedding, first, memory);
        if (tinyfl_stopped(w->stop))
            atomic_store(&w->failed, TINYFL_ESTOPPED);
    }
    free(memory);
    return NULL;
}

enum { MAX_THREADS = 256 };

static int run(work *w, void *(*worker)(void *), int threads)
{
    const size_t groups = (w->count + (size_t)w->engine->lanes - 1) / (size_t)w->engine->lanes;
    pthread_t others[MAX_THREADS];
    int started = 0;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->next_round, NULL);
    w->threads = MAX_THREADS + 1; /* no round ends before this thread has arrived */
    while (started + 1 < threads && (size_t)started + 1 < groups && started < MAX_THREADS &&
           pthread_create(&others[started], NULL, worker, w) == 0)
        started++;
    pthread_mutex_lock(&w->lock);
    w->threads = started + 1;
    pthread_mutex_unlock(&w->lock);
    worker(w);
    for (int i = 0; i < started; i++)
        pthread_join(others[i], NULL);
    pthread_cond_destroy(&w->next_round);
    pthread_mutex_destroy(&w->lock);
    return atomic_load(&w->failed);
}

/* The lanes for a call: as few as hold each thread's share of the devices, since a group of 8 takes little more than half the
 * time of one of 16; and 1 for few devices. */
static int width(const tinyfl_plan *plan, size_t count, int lanes, int threads)
{
    const size_t share = (count + (size_t)threads - 1) / (size_t)threads;
    if (share <= few(plan, lanes))
        return 1;
    return lanes > 8 && share <= 8 ? 8 : lanes;
}

static int check(const tinyfl_cohort *c)
{
    if (!c || !c->theta || !c->devices || !c->sum || !c->loss || !c->code || !c->stop ||
        tinyfl_native_inner_check(&c->inner) != TINYFL_OK || (c->inner.kept && !c->kept))
        return TINYFL_EINVAL;
    const int code = tinyfl_native_check(c->plan);
    return code == TINYFL_OK && !tinyfl_native_inner_fits(c->plan, &c->inner) ? TINYFL_EINVAL : code;
}

static int can_train(const tinyfl_cohort *c, int lanes, int threads)
{
    return engine_of(lanes) && threads > 0 ? check(c) : TINYFL_EINVAL;
}

static work work_of(const tinyfl_cohort *c, int lanes, int threads)
{
    const tinyfl_engine *engine = engine_of(width(c->plan, c->count, lanes, threads));
    return (work){.engine = engine, .plan = c->plan, .stop = c->stop, .count = c->count, .now = *c, .rounds = 1};
}

int tinyfl_native_train(const tinyfl_cohort *c, int lanes, int threads)
{
    const int code = can_train(c, lanes, threads);
    if (code != TINYFL_OK)
        return code;
    work w = work_of(c, lanes, threads);
    return run(&w, trainer, threads);
}

int tinyfl_native_train_rounds(const tinyfl_cohort *c, size_t rounds, const double *alphas, const tinyfl_codec *down, float *theta,
                               int lanes, int threads)
{
    if (!c || rounds == 0 || !alphas || !down || down->kind >= TINYFL_CODEC_TOP || down->share || !theta || c->inner.kept)
        return TINYFL_EINVAL;
    tinyfl_cohort first = *c;
    first.theta = theta;
    first.updates = NULL;
    int code = can_train(&first, lanes, threads);
    if (code != TINYFL_OK)
        return code;
    work w = work_of(&first, lanes, threads);
    w.rounds = rounds, w.alphas = alphas, w.theta = theta, w.down = *down;
    if (down->kind != TINYFL_CODEC_FP32) {
        w.now.theta = w.start = aligned_zeros(tinyfl_native_weights(c->plan) * sizeof *theta);
        if (!w.start)
            return TINYFL_EMEMORY;
    }
    send_down(&w);
    code = atomic_load(&w.failed);
    code = code == TINYFL_OK ? run(&w, trainer, threads) : code;
    free(w.start);
    return code;
}

static int check_adaptation(const tinyfl_adaptation *a)
{
    if (!a->theta || !a->steps || a->checkpoints == 0 || !a->loss || !a->stop || a->shots == 0 || a->queries == 0 ||
        tinyfl_native_inner_check(&a->inner) != TINYFL_OK || a->inner.returns != TINYFL_CHANGE || ways_of(&a->inner) > 0 ||
        a->support.kind != TINYFL_TABLE || a->query.kind != TINYFL_TABLE)
        return TINYFL_EINVAL;
    const int code = tinyfl_native_check(a->plan);
    return code == TINYFL_OK && !tinyfl_native_inner_fits(a->plan, &a->inner) ? TINYFL_EINVAL : code;
}

int tinyfl_native_race(const tinyfl_adaptation *a, size_t count, int by_accuracy, int lanes, int threads)
{
    if (!a || count == 0 || count > TINYFL_MAX_RACE || !engine_of(lanes) || threads < 1)
        return TINYFL_EINVAL;
    entry entries[TINYFL_MAX_RACE] = {0};
    for (size_t i = 0; i < count; i++) {
        const int code = check_adaptation(&a[i]);
        if (code != TINYFL_OK)
            return code;
        if (a[i].plan != a->plan || a[i].stop != a->stop || a[i].count != a->count || (by_accuracy && !a[i].accuracy))
            return TINYFL_EINVAL;
        entries[i].adaptation = &a[i];
    }
    const tinyfl_engine *engine = engine_of(width(a->plan, count * a->count, lanes, threads));
    work w = {.engine = engine, .plan = a->plan, .stop = a->stop, .count = count * a->count, .entries = entries,
              .entry_count = count, .by_accuracy = by_accuracy};
    return run(&w, racer, threads);
}

int tinyfl_native_adapt(const tinyfl_adaptation *a, int lanes, int threads) { return tinyfl_native_race(a, 1, 0, lanes, threads); }

int tinyfl_native_embed(const tinyfl_embedding *e, int lanes, int threads)
{
    if (!e || !e->theta || !e->outputs || !e->stop || e->source.kind != TINYFL_TABLE || !engine_of(lanes) || threads < 1)
        return TINYFL_EINVAL;
    const int code = tinyfl_native_check(e->plan);
    if (code != TINYFL_OK)
        return code;
    const tinyfl_engine *engine = engine_of(width(e->plan, e->count, lanes, threads));
    work w = {.engine = engine, .plan = e->plan, .stop = e->stop, .count = e->count, .embedding = e};
    return run(&w, embedder, threads);
}

int tinyfl_native_classify(const tinyfl_problems *p)
{
    if (!p || !p->support || !p->query || !p->support_labels || !p->query_labels || !p->loss || !p->accuracy || !p->nearest ||
        !p->means != !p->counts || p->shots == 0 || p->queries == 0 || p->size == 0 || p->places == 0 ||
        (uint64_t)p->size * p->places > TINYFL_MAX_VALUES)
        return TINYFL_EINVAL;
    const tinyfl_engine *engine = engine_of(p->count > 1 ? tinyfl_native_lanes() : 1);
    const size_t reals = ((size_t)p->size + 1) * p->places + 2 * (size_t)p->size + p->places;
    void *memory = aligned_zeros(reals * engine->bytes_per_real);
    if (!memory)
        return TINYFL_EMEMORY;
    for (size_t first = 0; first < p->count; first += (size_t)engine->lanes)
        engine->classify(p, first, memory);
    free(memory);
    return TINYFL_OK;
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
