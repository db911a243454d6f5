/* Prototypes: the objective of a phase with a support set (Snell et al. 2017, arXiv:1703.05175; SPEC.md, prototypes). Internal.
 *
 * The exact gradient with one sample's activations at a time. Support samples come twice: first only their embeddings are added
 * up, to the class means; then queries go backward at once, and what they ask of the means is added up too; then each support
 * sample goes backward with its share of that. */
#ifndef TINYFL_PROTOTYPES_H
#define TINYFL_PROTOTYPES_H

#include "means.h"

/* The loss of a query of class `own` by its squared distances to the class means, and the gradient with respect to the distances,
 * in their place: cross-entropy of the softmax over minus the distances (equation 2). An infinite distance is no candidate. 0,
 * with a gradient of 0, in lanes whose own class is none; `counted` are the others. */
TINYFL_API tinyfl_real tinyfl_prototypes_loss(tinyfl_real *distances, tinyfl_word own, size_t places, tinyfl_mask *counted);

/* Reals of memory for embeddings of `size`: class means, the gradients with respect to them, and distances. */
TINYFL_API size_t tinyfl_prototypes_reals(size_t size, uint32_t ways);

/* Adds the part of the loop's next sample to its gradient, and the loss of a query to its loss. Fails as tinyfl_learn does. */
TINYFL_API int tinyfl_prototypes_learn(tinyfl_loop *loop, const tinyfl_real *x, const tinyfl_real *y);

/* Forgets an episode's classes. */
TINYFL_API void tinyfl_prototypes_clear(tinyfl_loop *loop);

#endif
