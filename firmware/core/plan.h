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

/* Makes a sum of gradients of so many samples the step of rate 1 from 0, after check 4 of the guard. */
TINYFL_API int tinyfl_mean_gradient(tinyfl_learner *learner, real *gradient, uint32_t samples);

/* Reals of memory. Each gradient is at the end, over outputs that the sweep no longer needs. */
TINYFL_API size_t tinyfl_learner_reals(const tinyfl_plan *plan);

#endif
