/* One width of the core: engine.c is compiled once for each, and native.c selects one at run time. */
#ifndef TINYFL_ENGINE_H
#define TINYFL_ENGINE_H

#include "native.h"

typedef struct {
    int lanes;
    size_t bytes_per_real;
    /* Both work on devices first .. first + lanes - 1 of the call (fewer at its end), in `memory` of the caller; train
     * adds each device's change to its lane of `sum`, int64_t (weights, lanes). Once the call's `stop` is set both end early,
     * and what they have written means nothing. */
    void (*train)(const tinyfl_cohort *cohort, size_t first, void *memory, void *sum);
    void (*adapt)(const tinyfl_adaptation *adaptation, size_t first, void *memory);
    void (*distinct)(const tinyfl_draw *draw, size_t first);
    void (*embed)(const tinyfl_embedding *embedding, size_t first, void *memory);
    void (*classify)(const tinyfl_problems *problems, size_t first, void *memory);
} tinyfl_engine;

static inline int tinyfl_stopped(const atomic_int *stop) { return atomic_load_explicit(stop, memory_order_relaxed); }

/* Reals of memory for train, adapt and embed: weights, learner, one sample, at most a gradient and a copy of the weights, and the
 * prototypes of so many ways. */
size_t tinyfl_engine_reals(const tinyfl_plan *plan, uint32_t ways);

/* Further reals for train where the inner loop returns MAML's gradient, else 0: the weights before each step, and tangents. */
size_t tinyfl_second_order_reals(const tinyfl_plan *plan, const tinyfl_inner *inner);

/* Makes of weights what a codec makes of them on their way. TINYFL_OK or TINYFL_ENUMERIC. */
int tinyfl_engine_recode(const tinyfl_codec *codec, const tinyfl_plan *plan, float *weights);

/* Reals at its end for loads of one lane's chunks beyond the last weight or value (tiles.h): 8 rows of a layer's weights. */
size_t tinyfl_engine_padding(const tinyfl_plan *plan);

#endif
