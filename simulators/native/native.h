/* The native fleet: whole cohorts of simulated devices in one call, with the same source as on a board.
 *
 * Host code (it allocates memory and creates threads). Arrays are flat, in C order, and owned by the caller. A call that fails
 * returns a negative code of tinyfl.h, and leaves undefined output. */
#ifndef TINYFL_NATIVE_H
#define TINYFL_NATIVE_H

#include <stdatomic.h>

#include "tinyfl.h"

#define TINYFL_ESTOPPED (-6) /* the call's `stop` was set */

/* An inner loop's `returns` that only a host has: minus the gradient of the last phase's loss with respect to the weights given,
 * through the steps of the phase before (MAML). The loop has two phases for all layers, the first in full batches, both
 * without clip, pull and prototypes, and no local layers. Its memory holds the weights before each step. */
#define TINYFL_META_GRADIENT 2
#define TINYFL_MAX_META_STEPS 1000

/* Where the samples come from, as a board's source (agent/source.h), but for all devices of a call. They are rows 0, 1, ... of
 * `rows` and `labels`, not device numbers. */
typedef struct {
    enum { TINYFL_SINE, TINYFL_TABLE } kind;
    uint64_t seed;        /* sine: determines every sample, with the device's number and the round */
    const float *table;   /* table: the inputs of all devices, (rows of the table, inputs); or NULL ... */
    const uint8_t *bytes; /* ... with the same as bytes */
    const int32_t *rows;  /* (devices, samples): the row of each sample */
    const int32_t *labels;/* (devices, samples): its class; or NULL ... */
    const float *targets; /* ... with (rows of the table, outputs) */
    const float *gain;    /* (devices): multiplies the device's inputs; NULL: 1 */
} tinyfl_native_source;

/* One round on a cohort. phi is a device's weights after it, with theta's in local layers; or theta - gradient, if the gradient
 * is returned. */
typedef struct {
    const tinyfl_plan *plan;
    const float *theta; /* (weights) */
    tinyfl_native_source source;
    const uint32_t *devices; /* (count): device numbers */
    size_t count;
    uint32_t round;
    tinyfl_inner inner;
    int64_t *sum;   /* (weights): += the sum over successful devices of (phi - theta) 2^32; exact in any order */
    float *updates; /* (count, weights): each phi, or theta if it is left out; or NULL */
    float *kept;    /* (count, weights of the local layers): each device's own, NaN where it has none; replaced by those after a
                       successful round; or NULL */
    float *loss;    /* (count): mean loss over the round's samples, each before learning from it, without support sets; infinite
                       on failure */
    int32_t *code;  /* (count): TINYFL_OK, or the reason why the device's update is left out of the sum */
    const atomic_int *stop; /* checked before every sample: a value other than 0 ends the call with TINYFL_ESTOPPED */
} tinyfl_cohort;

/* Adaptation of one initialisation to many devices, measured on their query sets. */
typedef struct {
    const tinyfl_plan *plan;
    const float *theta;
    tinyfl_native_source support, query; /* tables */
    size_t count;
    uint32_t shots, queries; /* samples in each device's support and query set */
    tinyfl_inner inner;      /* every phase on all of the support set, without one of its own */
    const uint32_t *steps;   /* (checkpoints), ascending: numbers of passes over the support set, of all phases together */
    size_t checkpoints;
    float *loss;     /* (checkpoints, count): mean over the query set; infinite once the device diverged */
    float *accuracy; /* (checkpoints, count): share of argmax right; or NULL */
    float *outputs;  /* (checkpoints, count, queries, outputs), 0 once the device diverged; or NULL */
    float *weights;  /* (count, weights) after the last step, theta where the device diverged; or NULL */
    const atomic_int *stop; /* as above */
} tinyfl_adaptation;

/* The network's outputs for many samples. */
typedef struct {
    const tinyfl_plan *plan;
    const float *theta;
    tinyfl_native_source source; /* a table, with one sample of each device; its labels and targets are not read */
    size_t count;                /* samples */
    float *outputs;              /* (count, outputs): NaN where the guard fails */
    const atomic_int *stop;      /* as above */
} tinyfl_embedding;

/* Few-shot problems, solved by class means (firmware/core/means.h) of given embeddings. */
typedef struct {
    uint32_t size, places; /* numbers of an embedding; classes */
    const float *centre;   /* (size); or NULL */
    int normalised;
    size_t count;
    uint32_t shots, queries;                      /* samples in each problem's support and query set */
    const float *support, *query;                 /* (count, shots, size), (count, queries, size) */
    const int32_t *support_labels, *query_labels; /* (count, shots), (count, queries) */
    float *loss;      /* (count): mean of the prototypes' loss over the queries that count */
    float *accuracy;  /* (count) */
    int32_t *nearest; /* (count, queries): the class, -1 for none */
    float *means;     /* (count, places, size): each class's mean, 0 without samples; or NULL */
    int32_t *counts;  /* (count, places): its samples; or NULL, as means */
} tinyfl_problems;

#define TINYFL_MAX_PICKS 64

/* Numbers without replacement for many devices: `picks` of 0 to `available` - 1 each, in random order. They are those with the
 * smallest words of the generator, in round 0 from word `skip` on; of equal words the lower number comes first. */
typedef struct {
    uint64_t seed;
    uint32_t stream;
    const uint32_t *devices; /* (count) */
    size_t count;
    uint32_t skip, available, picks; /* picks at most `available` and TINYFL_MAX_PICKS */
    int32_t *out;                    /* (count, picks) */
} tinyfl_draw;

#define TINYFL_EXPORT __attribute__((visibility("default")))

/* The maximum number of lanes on this processor: 16, 8 or 4. */
TINYFL_EXPORT int tinyfl_native_lanes(void);

/* Bytes that each thread of a call allocates, at most, in inner loops of at most so many ways; 0 for a number of lanes that this
 * processor lacks. */
TINYFL_EXPORT size_t tinyfl_native_working_bytes(const tinyfl_plan *plan, int lanes, uint32_t ways);

/* lanes: 16, 8, 4 or 1, at most tinyfl_native_lanes; threads: 1 or more. */
TINYFL_EXPORT int tinyfl_native_train(const tinyfl_cohort *cohort, int lanes, int threads);
TINYFL_EXPORT int tinyfl_native_adapt(const tinyfl_adaptation *adaptation, int lanes, int threads);

/* Rounds one after another: in round cohort->round + r, the `count` devices from devices[r count] on learn from the theta that
 * the round before left, and theta += alphas[r] (mean phi - theta), in double, over those devices whose update counts.
 *   cohort  its devices, loss, code and the source's rows: (rounds, count). Its theta and updates are not used, its sum is
 *           working memory, 0 at first, and nothing is kept
 *   alphas  (rounds)
 *   down    how theta goes down: devices learn from what is decoded there, and their mean change moves theta itself. No
 *           TINYFL_CODEC_TOP. TINYFL_ENUMERIC if theta cannot be encoded
 *   theta   (weights): from before the first round to after the last one */
TINYFL_EXPORT int tinyfl_native_train_rounds(const tinyfl_cohort *cohort, size_t rounds, const double *alphas,
                                             const tinyfl_codec *down, float *theta, int lanes, int threads);

enum { TINYFL_MAX_RACE = 64 };

/* Adaptations of the same devices, for whoever wants the best at the last checkpoint: the least sum of losses, or the highest
 * of accuracies. Each is measured, device after device, until it surely does worse than one that is through; so the best ones
 * are measured on all devices, whatever the order of the threads, and a loser's results keep their values from the first
 * device that it was spared.
 *   adaptations  (count), with the same plan, devices and stop; count is at most TINYFL_MAX_RACE */
TINYFL_EXPORT int tinyfl_native_race(const tinyfl_adaptation *adaptations, size_t count, int by_accuracy, int lanes,
                                     int threads);

TINYFL_EXPORT int tinyfl_native_embed(const tinyfl_embedding *embedding, int lanes, int threads);
TINYFL_EXPORT int tinyfl_native_classify(const tinyfl_problems *problems);

/* Samples 0 .. samples - 1 of each device in this round: x (count, samples, inputs), y (count, samples, outputs). */
TINYFL_EXPORT int tinyfl_native_samples(const tinyfl_native_source *source, const uint32_t *devices, size_t count,
                                        uint32_t round, uint32_t samples, uint32_t inputs, uint32_t outputs, float *x,
                                        float *y);

/* The sine task's function of each device: y (count, points) at x (count, points). */
TINYFL_EXPORT void tinyfl_native_sine(uint64_t seed, const uint32_t *devices, size_t count, const float *x, size_t points,
                                      float *y);

/* Words of the generator: out (count, words), from index 0 of each device in its round, rounds (count). */
TINYFL_EXPORT void tinyfl_native_random(uint64_t seed, uint32_t stream, const uint32_t *devices, const uint32_t *rounds,
                                        size_t count, size_t words, uint32_t *out);

TINYFL_EXPORT int tinyfl_native_distinct(const tinyfl_draw *draw);

/* The functions of the same names in tinyfl.h. */
TINYFL_EXPORT int tinyfl_native_read(tinyfl_plan *plan, const void *bytes, size_t count);
TINYFL_EXPORT int tinyfl_native_check(const tinyfl_plan *plan);
TINYFL_EXPORT size_t tinyfl_native_weights(const tinyfl_plan *plan);
TINYFL_EXPORT size_t tinyfl_native_inputs(const tinyfl_plan *plan);
TINYFL_EXPORT size_t tinyfl_native_outputs(const tinyfl_plan *plan);

TINYFL_EXPORT int tinyfl_native_inner_check(const tinyfl_inner *inner);
TINYFL_EXPORT int tinyfl_native_inner_fits(const tinyfl_plan *plan, const tinyfl_inner *inner);
TINYFL_EXPORT int tinyfl_native_inner_read(tinyfl_inner *inner, const void *bytes, size_t count);

/* Bytes of RAM that one device needs for the inner loop: weights, tinyfl_learner_bytes, tinyfl_loop_bytes, and two blocks of
 * what it keeps. */
TINYFL_EXPORT size_t tinyfl_native_ram(const tinyfl_plan *plan, const tinyfl_inner *inner);

/* tinyfl_kept_weights. */
TINYFL_EXPORT size_t tinyfl_native_kept_weights(const tinyfl_plan *plan, const tinyfl_inner *inner);

#endif
