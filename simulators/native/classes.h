/* Embeddings of many samples, and classification of few-shot problems by class means: one sample, or one problem, in each
 * lane. */
#ifndef TINYFL_CLASSES_H
#define TINYFL_CLASSES_H

#include "means.h"
#include "native.h"
#include "prototypes.h"
#include "samples.h"

/* A problem's embedding `index` of an array (problems, samples, size), for each lane. */
static void embedding_at(const group *g, const float *embeddings, uint32_t samples, uint32_t index, uint32_t size, real *out)
{
    for (int l = 0; l < TINYFL_LANES; l++) {
        const size_t problem = g->first + (size_t)(l < g->used ? l : g->used - 1);
        const float *from = embeddings + (problem * samples + index) * size;
        for (size_t i = 0; i < size; i++)
            set_lane(&out[i], l, from[i]);
    }
}

static tinyfl_word label_at(const group *g, const int32_t *labels, uint32_t samples, uint32_t index)
{
    tinyfl_word label = word_of(0);
    for (int l = 0; l < TINYFL_LANES; l++) {
        const size_t problem = g->first + (size_t)(l < g->used ? l : g->used - 1);
        set_word(&label, l, (uint32_t)labels[problem * samples + index]);
    }
    return label;
}

/* The network's outputs for the samples from `first` on, in `memory` of tinyfl_engine_reals. */
static void embed(const tinyfl_embedding *e, size_t first, void *memory)
{
    const group g = group_at(&e->source, NULL, first, e->count);
    bench b;
    mask ok = none();
    if (bench_set(&b, e->plan, e->theta, memory) != TINYFL_OK)
        return;
    gather(&e->source, &g, 1, 0, b.inputs, b.x);
    const real *y = forward(&b.learner, b.x, &ok);
    for (int l = 0; l < g.used; l++)
        for (size_t j = 0; j < b.outputs; j++)
            e->outputs[(first + (size_t)l) * b.outputs + j] = lane_of_mask(ok, l) ? lane(y[j], l) : __builtin_nanf("");
}

/* Queries of a group: their losses are summed, and those that are right and those that count are counted. */
static void classify_queries(const tinyfl_problems *p, const group *g, const tinyfl_means *means, real *scratch)
{
    real *embedding = scratch, *distances = embedding + p->size;
    real loss = real_of(0.0f), counted = real_of(0.0f), hits = real_of(0.0f);
    for (uint32_t q = 0; q < p->queries; q++) {
        const tinyfl_word own = label_at(g, p->query_labels, p->queries, q);
        tinyfl_word nearest;
        mask counts;
        embedding_at(g, p->query, p->queries, q, p->size, embedding);
        tinyfl_means_prepare(means, embedding);
        tinyfl_means_nearest(means, embedding, __builtin_inff(), &nearest, NULL);
        tinyfl_means_distances(means, embedding, distances);
        loss += tinyfl_prototypes_loss(distances, own, p->places, &counts);
        counted += where(counts, real_of(1.0f), real_of(0.0f));
        hits += where(nearest == own, real_of(1.0f), real_of(0.0f));
        for (int l = 0; l < g->used; l++)
            p->nearest[(g->first + (size_t)l) * p->queries + q] = (int32_t)lane_of_word(nearest, l);
    }
    for (int l = 0; l < g->used; l++) {
        const size_t problem = g->first + (size_t)l;
        p->loss[problem] = lane(loss, l) / (lane(counted, l) > 0.0f ? lane(counted, l) : 1.0f);
        p->accuracy[problem] = lane(hits, l) / (float)p->queries;
    }
}

/* Each class's mean, as distances are to it, and its samples. */
static void write_means(const tinyfl_problems *p, const group *g, const tinyfl_means *means)
{
    for (int l = 0; l < g->used; l++)
        for (size_t k = 0; k < p->places; k++) {
            const size_t at = (g->first + (size_t)l) * p->places + k;
            const uint32_t count = lane_of_word(means->counts[k], l);
            const float share = 1.0f / (count > 0 ? (float)count : 1.0f);
            p->counts[at] = (int32_t)count;
            for (size_t i = 0; i < p->size; i++)
                p->means[at * p->size + i] = lane(means->sums[k * p->size + i], l) * share;
        }
}

/* The problems from `first` on, in `memory` of tinyfl_means_bytes, the centre, an embedding and places reals. */
static void classify(const tinyfl_problems *p, size_t first, void *memory)
{
    const group g = {.first = first, .used = p->count - first < TINYFL_LANES ? (int)(p->count - first) : TINYFL_LANES};
    tinyfl_means means;
    real *centre = NULL, *embedding = (real *)memory + ((size_t)p->size + 1) * p->places;
    if (p->centre) {
        centre = embedding;
        embedding += p->size;
        for (size_t i = 0; i < p->size; i++)
            centre[i] = real_of(p->centre[i]);
    }
    if (tinyfl_means_init(&means, p->size, p->places, centre, p->normalised, memory) != TINYFL_OK)
        return;
    for (uint32_t s = 0; s < p->shots; s++) {
        embedding_at(&g, p->support, p->shots, s, p->size, embedding);
        tinyfl_means_prepare(&means, embedding);
        tinyfl_means_add(&means, label_at(&g, p->support_labels, p->shots, s), embedding);
    }
    if (p->means)
        write_means(p, &g, &means);
    classify_queries(p, &g, &means, embedding);
}

#endif
