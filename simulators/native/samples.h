/* Groups of devices, one in each lane, and their samples. */
#ifndef TINYFL_SAMPLES_H
#define TINYFL_SAMPLES_H

#include "native.h"
#include "turn.h"

/* The devices in the lanes. The last group of a cohort repeats its last device in unused lanes. */
typedef struct {
    size_t first;
    int used;
    tinyfl_word number;
    tinyfl_sine sine;
    tinyfl_word words[4]; /* of samples 4 `quarter` to 4 `quarter` + 3 */
    uint32_t quarter;
} group;

static group group_at(const tinyfl_native_source *source, const uint32_t *devices, size_t first, size_t count)
{
    group g = {.quarter = UINT32_MAX, .first = first, .used = count - first < TINYFL_LANES ? (int)(count - first) : TINYFL_LANES};
    if (source->kind == TINYFL_SINE) {
        for (int l = 0; l < TINYFL_LANES; l++)
            set_word(&g.number, l, devices[first + (size_t)(l < g.used ? l : g.used - 1)]);
        g.sine = tinyfl_sine_of(source->seed, g.number);
    }
    return g;
}

#if TINYFL_LANES > 1

/* Squares of the table's rows, turned into the lanes from x[i] on; returns the first input that is left. Squares of bytes are
 * turned four by four, as words. */
static size_t gather_squares(const tinyfl_native_source *source, const size_t *from, size_t inputs, real gain, real *x)
{
    const size_t size = source->table ? sizeof(float) : 1, step = sizeof(row) / size;
    const char *table = source->table ? (const char *)source->table : (const char *)source->bytes;
    size_t i = 0;
    for (; i + step <= inputs; i += step) {
        row rows[SIDE];
        EACH(l, SIDE)
            memcpy(&rows[l], table + (from[l] + i) * size, sizeof rows[l]);
        turn(rows);
        if (source->table)
            EACH(l, SIDE)
                x[i + (size_t)l] = gain * rows[l];
        else
            EACH(l, SIDE)
                EACH(byte, 4)
                    x[i + (size_t)(4 * l + byte)] = gain * to_real((whole)(bits_of(rows[l]) >> 8 * byte & word_of(0xff)));
    }
    return i;
}

#else

static size_t gather_squares(const tinyfl_native_source *source, const size_t *from, size_t inputs, real gain, real *x)
{
    (void)source, (void)from, (void)inputs, (void)gain, (void)x;
    return 0;
}

#endif

/* The inputs of each lane's sample, from the table. */
static void gather(const tinyfl_native_source *source, const group *g, uint32_t samples, uint32_t index, size_t inputs, real *x)
{
    size_t from[TINYFL_LANES];
    real gain = real_of(1.0f);
    for (int l = 0; l < TINYFL_LANES; l++) {
        const size_t device = g->first + (size_t)(l < g->used ? l : g->used - 1);
        from[l] = (size_t)source->rows[device * samples + index] * inputs;
        if (source->gain)
            set_lane(&gain, l, source->gain[device]);
    }
    for (size_t i = gather_squares(source, from, inputs, gain, x); i < inputs; i++) {
        for (int l = 0; l < TINYFL_LANES; l++)
            set_lane(&x[i], l, source->table ? source->table[from[l] + i] : (float)source->bytes[from[l] + i]);
        x[i] = gain * x[i];
    }
}

/* Sample `index` of each lane's device; `samples` is the number per device in this call. */
static void sample(const tinyfl_native_source *source, group *g, uint32_t round, uint32_t samples, uint32_t index,
                   size_t inputs, size_t outputs, real *x, real *y)
{
    if (source->kind == TINYFL_SINE) {
        if (g->quarter != index / 4) {
            g->quarter = index / 4;
            tinyfl_random(source->seed, TINYFL_STREAM_SAMPLE, g->number, round, g->quarter, g->words);
        }
        sample_of_word(g->sine, g->words[index % 4], x, y);
        return;
    }
    gather(source, g, samples, index, inputs, x);
    memset(y, 0, outputs * sizeof *y);
    for (int l = 0; l < TINYFL_LANES; l++) {
        const size_t device = g->first + (size_t)(l < g->used ? l : g->used - 1);
        const size_t row = (size_t)source->rows[device * samples + index];
        if (source->labels)
            set_lane(&y[source->labels[device * samples + index]], l, 1.0f);
        else
            for (size_t j = 0; j < outputs; j++)
                set_lane(&y[j], l, source->targets[row * outputs + j]);
    }
}

#endif
