/* Class means: a class is the mean of its samples' embeddings, and a sample belongs to the nearest (Snell et al. 2017,
 * arXiv:1703.05175; SPEC.md, class means). Learning without gradients: classes come and go while the device runs.
 *
 * The caller owns all memory. Every function that can fail returns TINYFL_OK or a negative code of tinyfl.h. */
#ifndef TINYFL_MEANS_H
#define TINYFL_MEANS_H

#include "tinyfl.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TINYFL_NO_CLASS UINT32_MAX
#define TINYFL_MAX_MEAN (1u << 24) /* samples of one class: as many as a float counts exactly; further ones are not added */

typedef struct {
    uint32_t size, places;     /* reals of an embedding; classes, numbered from 0 */
    const tinyfl_real *centre; /* (size): subtracted from each embedding; NULL: nothing */
    int normalised;            /* 1: each embedding is then scaled to norm 1 */
    tinyfl_real *sums;         /* (places, size): the sum of a class's prepared embeddings */
    tinyfl_word *counts;       /* (places): their number; 0: the class is not there */
} tinyfl_means;

/* Bytes of memory for the sums and counts; 0 if size or places is 0, or their product above TINYFL_MAX_VALUES. */
TINYFL_API size_t tinyfl_means_bytes(uint32_t size, uint32_t places);

/* Sets up means without any class.
 *   centre  (size), each below TINYFL_LIMIT in magnitude, or NULL; must stay in place, and so must
 *   memory  tinyfl_means_bytes bytes, aligned as a real
 * TINYFL_EINVAL, or TINYFL_ENUMERIC for the centre. */
TINYFL_API int tinyfl_means_init(tinyfl_means *means, uint32_t size, uint32_t places, const tinyfl_real *centre,
                                 int normalised, void *memory);

/* Centres and normalises an embedding in place: once for each, before the functions below. */
TINYFL_API void tinyfl_means_prepare(const tinyfl_means *means, tinyfl_real *embedding);

/* Adds a sample to its class. TINYFL_EINVAL if no lane has a class below `places`, TINYFL_ENUMERIC if none has an embedding
 * below TINYFL_LIMIT; lanes that fail are left out. */
TINYFL_API int tinyfl_means_add(tinyfl_means *means, tinyfl_word class_number, const tinyfl_real *embedding);

/* Forgets a class. */
TINYFL_API int tinyfl_means_clear(tinyfl_means *means, uint32_t class_number);

/* The squared Euclidean distance to each class's mean, `places` reals; infinite for a class that is not there. */
TINYFL_API void tinyfl_means_distances(const tinyfl_means *means, const tinyfl_real *embedding, tinyfl_real *distances);

/* The nearest class, the lowest number on a tie, and the squared distance to its mean; TINYFL_NO_CLASS if that is above
 * `threshold` (infinity: no bound), or no class is there, or the embedding is not below TINYFL_LIMIT, with an infinite distance in
 * these two cases. `distance` may be NULL. */
TINYFL_API void tinyfl_means_nearest(const tinyfl_means *means, const tinyfl_real *embedding, float threshold,
                                     tinyfl_word *class_number, tinyfl_real *distance);

#ifdef __cplusplus
}
#endif

#endif
