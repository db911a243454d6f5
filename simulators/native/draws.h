/* Draws without replacement, each lane's its own device. */
#ifndef TINYFL_DRAWS_H
#define TINYFL_DRAWS_H

#include "engine.h"

/* One lane's smallest words so far in ascending order, and their numbers. */
typedef struct {
    uint32_t word[TINYFL_MAX_PICKS];
    int32_t *number;
    uint32_t count;
} shortlist;

static void take(shortlist *s, uint32_t picks, uint32_t word, uint32_t number)
{
    if (s->count == picks)
        s->count--;
    uint32_t at = s->count++;
    for (; at > 0 && s->word[at - 1] > word; at--) {
        s->word[at] = s->word[at - 1];
        s->number[at] = s->number[at - 1];
    }
    s->word[at] = word;
    s->number[at] = (int32_t)number;
}

/* See tinyfl_native_distinct; the devices `first` to `first` + TINYFL_LANES - 1. */
static void distinct(const tinyfl_draw *d, size_t first)
{
    const int used = d->count - first < TINYFL_LANES ? (int)(d->count - first) : TINYFL_LANES;
    shortlist lists[TINYFL_LANES];
    tinyfl_word device = word_of(0), most = word_of(0), four[4];
    for (int l = 0; l < used; l++) {
        set_word(&device, l, d->devices[first + (size_t)l]);
        lists[l].number = d->out + (first + (size_t)l) * d->picks;
        lists[l].count = 0;
    }
    const uint32_t end = d->skip + d->available;
    for (uint32_t at = d->skip - d->skip % 4; at < end; at += 4) {
        tinyfl_random(d->seed, d->stream, device, 0, at / 4, four);
        const mask smaller =
            (mask)((four[0] < most) | (four[1] < most) | (four[2] < most) | (four[3] < most)); /* rarely any */
        if (at >= d->skip + d->picks && !any(smaller))
            continue;
        for (uint32_t i = at < d->skip ? d->skip : at; i < at + 4 && i < end; i++)
            for (int l = 0; l < used; l++)
                if (i < d->skip + d->picks || lane_of_word(four[i % 4], l) < lane_of_word(most, l)) {
                    take(&lists[l], d->picks, lane_of_word(four[i % 4], l), i - d->skip);
                    set_word(&most, l, lists[l].word[lists[l].count - 1]);
                }
    }
}

#endif
