/* What the core's files share: the layout of layers' outputs in a learner's memory (SPEC.md, plan), and the layers that move.
 * The plan must be checked already. */
#ifndef TINYFL_PLAN_H
#define TINYFL_PLAN_H

#include "shape.h"

/* The lowest layer that learns; the last layer if none does. */
TINYFL_API size_t tinyfl_lowest(const tinyfl_plan *plan);

/* The first layer whose output the backward sweep needs, as the input of the lowest layer that learns. Outputs from there on
 * are stored in sequence from the start of the memory; earlier ones, read only by the next layer, alternate between its end
 * and its start. */
TINYFL_INLINE size_t first_kept(size_t lowest) { return lowest > 0 ? lowest - 1 : 0; }

/* Whether layer i moves in the learner's phase. */
TINYFL_INLINE int tinyfl_moves(const tinyfl_learner *learner, size_t i)
{
    return learner->plan->layers[i].learns && (learner->layers >> i & 1);
}

/* A sample forward, for objectives of several samples (learner.c): `output` is where its output is, and `ok` has the lanes that
 * pass the guard. TINYFL_OK, TINYFL_EINVAL, or TINYFL_ENUMERIC if no lane is left. */
TINYFL_API int tinyfl_look(const tinyfl_learner *learner, const tinyfl_real *x, const tinyfl_real *y, tinyfl_mask *ok,
                           tinyfl_real **output);

/* Where the gradient with respect to an output of `count` reals goes; and from there down, adding to `gradient`. */
TINYFL_API tinyfl_real *tinyfl_gradient_at(const tinyfl_learner *learner, size_t count);
TINYFL_API void tinyfl_sweep(tinyfl_learner *learner, const tinyfl_real *x, tinyfl_real *output, tinyfl_real *gradient);

/* Reals of memory. Each gradient is at the end, over outputs that the sweep no longer needs. */
TINYFL_API size_t tinyfl_learner_reals(const tinyfl_plan *plan);

#endif
