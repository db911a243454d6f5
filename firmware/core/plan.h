/* Where a learner keeps the outputs of layers in its memory (SPEC.md, plan). Nothing here checks the plan. */
#ifndef TINYFL_PLAN_H
#define TINYFL_PLAN_H

#include "shape.h"

/* The lowest layer that learns; the last where none does. */
TINYFL_API size_t tinyfl_lowest(const tinyfl_plan *plan);

/* The first layer whose output the backward sweep needs: the lowest that learns has it as its input. Outputs from there on lie
 * one after the other from the start of the memory; those below, which only the layer above reads, take turns at its end and
 * its start. */
TINYFL_INLINE size_t first_kept(size_t lowest) { return lowest > 0 ? lowest - 1 : 0; }

/* Reals of memory. Each gradient lies at the end, over outputs that the sweep has passed. */
TINYFL_API size_t tinyfl_learner_reals(const tinyfl_plan *plan);

#endif
