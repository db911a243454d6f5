/* tinyfl's core: a small network that learns from one sample at a time.
 *
 * C99, no malloc, no recursion, no libc beyond mem*. The caller owns all memory; ask for the size first.
 * Every function that can fail returns TINYFL_OK or a negative code and, unless it says otherwise, has then changed
 * nothing. The arithmetic is exactly SPEC.md's: the same bits on a board, in an emulator and on the host. */
#ifndef TINYFL_H
#define TINYFL_H

#include "real.h"

#ifndef TINYFL_API
#define TINYFL_API
#endif

enum {
    TINYFL_OK = 0,
    TINYFL_EINVAL = -1,     /* a null pointer, reals out of alignment, or a number out of its range */
    TINYFL_EPLAN = -2,      /* a plan that contradicts itself: no layer, a size of 0, sizes that do not meet, an unknown kind,
                               activation or loss, or more than TINYFL_MAX_WEIGHTS weights or TINYFL_MAX_VALUES outputs */
    TINYFL_EMEMORY = -3,    /* the memory given is smaller than tinyfl_learner_bytes asks for */
    TINYFL_ENUMERIC = -4,   /* a value is NaN, infinite, or not below TINYFL_LIMIT in magnitude */
    TINYFL_EOVERSIZED = -5, /* an update moved a weight by TINYFL_MAX_CHANGE or more: sums cannot hold it exactly */
};

typedef enum { TINYFL_DENSE, TINYFL_CONV, TINYFL_DEPTHWISE, TINYFL_MAX_POOL, TINYFL_AVERAGE_POOL } tinyfl_kind;
typedef enum { TINYFL_IDENTITY, TINYFL_RELU, TINYFL_LEAKY_RELU, TINYFL_TANH, TINYFL_SIGMOID } tinyfl_activation;
typedef enum {
    TINYFL_MEAN_SQUARED_ERROR,
    TINYFL_SOFTMAX_CROSS_ENTROPY, /* both cross-entropies take logits: end in identity */
    TINYFL_SIGMOID_CROSS_ENTROPY, /* each output a yes or no of its own; the mean over them */
} tinyfl_loss;

#define TINYFL_LEAK 0.1f              /* slope of leaky relu below 0 */
#define TINYFL_MAX_LAYERS 64
#define TINYFL_MAX_WEIGHTS (1u << 24) /* floats; keeps every size in 32 bits */
#define TINYFL_MAX_VALUES (1u << 24)  /* outputs of all layers together, and inputs of one */
#define TINYFL_MAX_CHANGE 1024.0f
#define TINYFL_LIMIT 1.125899906842624e15f /* 2^50: inputs, activations, deltas and steps stay below, so that no weight
                                              can ever become infinite (SPEC.md, guard) */

/* A layer on its input: the record of a plan, byte for byte (SPEC.md, plan). Values lie row after row, column after column,
 * channels together, so flattening is nothing. A dense layer has one row and column and its inputs as channels. A layer that
 * does not learn (freeze) still passes the gradient on. */
typedef struct {
    uint8_t kind;       /* tinyfl_kind */
    uint8_t activation; /* tinyfl_activation; pools: identity */
    uint8_t learns;     /* 0 or 1; pools: 0 */
    uint8_t same;       /* 1: padded as TensorFlow's SAME, 0: VALID */
    uint16_t height, width, channels; /* of the input */
    uint16_t outputs;                 /* channels of the output; depthwise: a multiple of the input's, pools: the same */
    uint8_t kernel_height, kernel_width, stride_height, stride_width; /* dense: 1 */
} tinyfl_layer;

typedef struct {
    const tinyfl_layer *layers;
    uint16_t count;
    uint8_t loss; /* tinyfl_loss */
} tinyfl_plan;

/* Fields are the core's own; the caller only provides the room. */
typedef struct {
    const tinyfl_plan *plan;
    real *weights, *memory;
    size_t count;  /* of weights */
    size_t reals;  /* of memory */
    size_t lowest; /* the lowest layer that learns */
    float clip;
    mask alive;
} tinyfl_learner;

/* Reads the plan's bytes, whose layers must be aligned to 2 bytes and stay where they are, and checks it. TINYFL_OK,
 * TINYFL_EINVAL or TINYFL_EPLAN. */
TINYFL_API int tinyfl_plan_read(tinyfl_plan *plan, const void *bytes, size_t count);

/* TINYFL_OK, TINYFL_EINVAL or TINYFL_EPLAN. Every other function calls this first: no plan is trusted. */
TINYFL_API int tinyfl_plan_check(const tinyfl_plan *plan);

/* Number of weights, of inputs, and of outputs, counted in reals; 0 where the plan is bad. */
TINYFL_API size_t tinyfl_plan_weights(const tinyfl_plan *plan);
TINYFL_API size_t tinyfl_plan_inputs(const tinyfl_plan *plan);
TINYFL_API size_t tinyfl_plan_outputs(const tinyfl_plan *plan);

/* Bytes of working memory: the outputs that the backward sweep needs, and room for one gradient among those it no longer does
 * (SPEC.md, plan); 0 where the plan is bad. A learner's RAM is this plus the weights; a mini-batch needs room for one gradient
 * more (as large as the weights). */
TINYFL_API size_t tinyfl_learner_bytes(const tinyfl_plan *plan);

/* Prepares a learner over the caller's weights and memory, which must stay while it is used.
 *   weights  tinyfl_plan_weights reals, already set; plan and layers must outlive the learner too
 *   memory   tinyfl_learner_bytes bytes, aligned as a real
 *   clip     bounds the Euclidean norm of the loss's gradient at the output; 0: no bound
 * TINYFL_ENUMERIC: a weight is not finite or not below TINYFL_LIMIT. */
TINYFL_API int tinyfl_learner_init(tinyfl_learner *learner, const tinyfl_plan *plan, real *weights, void *memory,
                                   size_t bytes, float clip);

/* The network's output for x: `inputs` reals in, `outputs` reals out (logits for softmax cross-entropy). */
TINYFL_API int tinyfl_infer(tinyfl_learner *learner, const real *x, real *output);

/* The loss on one sample and, where `output` is not NULL, the network's output for it; nothing is learnt. */
TINYFL_API int tinyfl_evaluate(tinyfl_learner *learner, const real *x, const real *y, real *loss, real *output);

/* One step of SGD on one sample. Each layer's weights move as soon as its input's delta is known, so no gradient is stored.
 *   x, y   `inputs` and `outputs` reals; y is one-hot, or a distribution, for softmax cross-entropy
 *   rate   learning rate, at least 0 and below TINYFL_LIMIT
 *   loss   the loss before the step; may be NULL
 * TINYFL_ENUMERIC: the sample, an activation, the loss or its gradient at the output fails the guard, and the weights are as
 * before; or a deeper delta does, weights may have moved, and the learner refuses to go on until it is initialised
 * again. With more than one lane the call succeeds while any lane is well; a lane that fails is out until then, its loss
 * infinite. */
TINYFL_API int tinyfl_learn(tinyfl_learner *learner, const real *x, const real *y, float rate, real *loss);

/* Mini-batches: add the gradient of one sample to `gradient` (as many reals as weights, zeroed by the caller), which fails
 * as tinyfl_learn does ... */
TINYFL_API int tinyfl_accumulate(tinyfl_learner *learner, const real *x, const real *y, real *gradient, real *loss);

/* ... then take one step along it, weights -= (rate / samples) gradient, and zero it for the next batch. */
TINYFL_API int tinyfl_step(tinyfl_learner *learner, real *gradient, float rate, uint32_t samples);

/* The random generator: Threefry-4x32-20 (Salmon, Moraes, Dror, Shaw, SC'11). A pure function of its arguments: four
 * words for each (seed, stream, device, round, index). */
TINYFL_API void tinyfl_random(uint64_t seed, uint32_t stream, word device, uint32_t round, uint32_t index, word out[4]);

/* Who uses which stream, so that no two purposes share numbers. */
enum {
    TINYFL_STREAM_WEIGHTS = 0,
    TINYFL_STREAM_COHORT = 1,
    TINYFL_STREAM_TASK = 2,
    TINYFL_STREAM_SAMPLE = 3,
    TINYFL_STREAM_SUPPORT = 4,
    TINYFL_STREAM_QUERY = 5,
};

/* A word as a float in [0, 1): its upper 24 bits. */
TINYFL_INLINE real tinyfl_uniform(word bits) { return to_real((whole)(bits >> 8)) * 5.9604644775390625e-8f; }

/* The sine task (Finn et al. 2017, section 5.1, with the phase over a whole turn as in Nichol et al. 2018): device d has
 * y = a sin(x + p) with a in [0.1, 5), p in [0, 2 pi). */
typedef struct {
    real amplitude, phase;
} tinyfl_sine;

TINYFL_API tinyfl_sine tinyfl_sine_of(uint64_t seed, word device);
TINYFL_API real tinyfl_sine_at(tinyfl_sine sine, real x);
/* Sample `index` of the device's stream in this round: x in [-5, 5), y. */
TINYFL_API void tinyfl_sine_sample(tinyfl_sine sine, uint64_t seed, word device, uint32_t round, uint32_t index, real *x,
                                   real *y);

#endif
