/* tinyfl's core: a small network that learns from one sample at a time.
 *
 * C99, no malloc, no recursion, no libc beyond mem*. The caller owns all memory; ask for the size first.
 * Every function that can fail returns TINYFL_OK or a negative code; on failure nothing has changed, unless stated
 * otherwise. The arithmetic is exactly SPEC.md's: the same bits on a board, in an emulator and on the host. */
#ifndef TINYFL_H
#define TINYFL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef TINYFL_API
#define TINYFL_API
#endif

#ifndef TINYFL_LANES
#define TINYFL_LANES 1
#endif

/* The number type: float in your program. In the host's simulator, which builds the core with more lanes, it is a vector of
 * floats, each of another device (real.h). */
#if TINYFL_LANES == 1
typedef float tinyfl_real;
typedef uint32_t tinyfl_word;
typedef int tinyfl_mask;
#else
typedef float tinyfl_real __attribute__((vector_size(4 * TINYFL_LANES), may_alias));
typedef uint32_t tinyfl_word __attribute__((vector_size(4 * TINYFL_LANES), may_alias));
typedef int32_t tinyfl_mask __attribute__((vector_size(4 * TINYFL_LANES), may_alias));
#endif

enum {
    TINYFL_OK = 0,
    TINYFL_EINVAL = -1,     /* a null pointer, misaligned reals, or a number out of range */
    TINYFL_EPLAN = -2,      /* an inconsistent plan: no layer, a size of 0, sizes that do not match, an unknown kind,
                               activation or loss, or more than TINYFL_MAX_WEIGHTS weights or TINYFL_MAX_VALUES outputs */
    TINYFL_EMEMORY = -3,    /* the memory is smaller than tinyfl_learner_bytes */
    TINYFL_ENUMERIC = -4,   /* a value is NaN, infinite, or not below TINYFL_LIMIT in magnitude */
    TINYFL_EOVERSIZED = -5, /* an update moved a weight by TINYFL_MAX_CHANGE or more: sums cannot hold it exactly */
};

typedef enum { TINYFL_DENSE, TINYFL_CONV, TINYFL_DEPTHWISE, TINYFL_MAX_POOL, TINYFL_AVERAGE_POOL } tinyfl_kind;
typedef enum {
    TINYFL_IDENTITY,
    TINYFL_RELU,
    TINYFL_LEAKY_RELU,
    TINYFL_TANH,
    TINYFL_SIGMOID,
    TINYFL_ACTIVATIONS, /* their number */
} tinyfl_activation;
typedef enum {
    TINYFL_MEAN_SQUARED_ERROR,
    TINYFL_SOFTMAX_CROSS_ENTROPY, /* both cross-entropies take logits: the last activation is identity */
    TINYFL_SIGMOID_CROSS_ENTROPY, /* each output is a separate yes or no; the mean over outputs */
    TINYFL_PROTOTYPES,            /* the outputs are an embedding, and classes are its means (means.h): no loss of one sample */
} tinyfl_loss;

#define TINYFL_LEAK 0.1f              /* slope of leaky relu below 0 */
#define TINYFL_MAX_LAYERS 64
#define TINYFL_MAX_WEIGHTS (1u << 24) /* floats; keeps every size in 32 bits */
#define TINYFL_MAX_VALUES (1u << 24)  /* outputs of all layers together, and inputs of one */
#define TINYFL_MAX_CHANGE 1024.0f
#define TINYFL_LIMIT 1.125899906842624e15f /* 2^50: the bound on inputs, activations, deltas and steps, so that no
                                              weight can become infinite (SPEC.md, guard) */

/* A layer: the record of a plan, byte for byte (SPEC.md, plan). Values are in the order row, column, channel, so flattening
 * needs no work. A dense layer has one row, one column, and its inputs as channels. A frozen layer (learns 0) still passes the
 * gradient on. */
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

/* A phase of an inner loop: its record, byte for byte (SPEC.md, inner loop). */
typedef struct {
    uint32_t samples, batch, passes; /* 1 or more each; a step after every `batch` samples, and at the end of a pass. With a
                                        support set only there, whatever `batch` is */
    float rate;                      /* learning rate, at least 0 and below TINYFL_LIMIT */
    float clip;                      /* bounds the Euclidean norm of the loss's gradient at the output; 0: no bound */
    float pull;                      /* adds the gradient of pull / 2 x |w - w at the start|^2; rate x pull at most 1 */
    uint64_t layers;                 /* bit i: layer i of the plan may move */
    uint32_t support, ways;          /* with TINYFL_PROTOTYPES: how many of the samples, the first, are the support set, at
                                        least one and not all, and of how many classes, at most as many; 0, 0 otherwise */
} tinyfl_phase;

typedef enum { TINYFL_CHANGE, TINYFL_GRADIENT } tinyfl_returns;

/* How weights, or a change of them, are encoded (codec.h). */
typedef enum {
    TINYFL_CODEC_FP32,
    TINYFL_CODEC_FP16,
    TINYFL_CODEC_INT8,
    TINYFL_CODEC_INT4,
    TINYFL_CODEC_TOP,
    TINYFL_CODECS, /* their number */
} tinyfl_codec_kind;

#define TINYFL_WHOLE 10000 /* all weights, in hundredths of a per cent */

typedef struct {
    uint8_t kind;   /* tinyfl_codec_kind */
    uint16_t share; /* TINYFL_CODEC_TOP: how many of the weights, 1 to TINYFL_WHOLE; else 0 */
} tinyfl_codec;

/* What a device keeps from its last round: its local layers, which go on from there instead of the given weights, and what its
 * codec lost of its change, which is added to the next one. */
enum { TINYFL_KEEPS_LAYERS = 1, TINYFL_KEEPS_RESIDUAL = 2 };

#define TINYFL_MAX_PHASES 4
#define TINYFL_EVERY_LAYER UINT64_MAX

/* An inner loop: what a device does in a round. Each phase goes on with the samples after those of the phase before. */
typedef struct {
    uint8_t count;   /* of phases */
    uint8_t returns; /* tinyfl_returns: the change of the weights, or minus the mean gradient of the last phase */
    uint8_t kept;    /* TINYFL_KEEPS_LAYERS, TINYFL_KEEPS_RESIDUAL, both or 0 */
    tinyfl_codec up; /* of what is returned: TINYFL_CODEC_FP32 sends the weights, any other their change */
    uint64_t local;  /* bit i: layer i is not returned */
    tinyfl_phase phases[TINYFL_MAX_PHASES];
} tinyfl_inner;

/* Fields are private to the core; the caller only provides the memory. */
typedef struct {
    const tinyfl_plan *plan;
    tinyfl_real *weights, *memory;
    size_t count;           /* of weights */
    size_t reals;           /* of memory */
    size_t lowest, bottom;  /* the lowest layer that learns, and the lowest that moves in this phase */
    uint64_t layers;        /* of this phase */
    float clip, pull;
    const tinyfl_real *start; /* of the pull */
    tinyfl_mask alive;
} tinyfl_learner;

typedef struct {
    const tinyfl_inner *inner;
    tinyfl_learner *learner;
    tinyfl_real *gradient, *start, *prototypes;
    uint32_t phase, pass, sample; /* of the next step */
    uint32_t first;               /* index of the phase's first sample */
    uint64_t measured;            /* samples that had a loss: all but those of a support set */
    tinyfl_real loss;             /* their sum, each before learning from it */
} tinyfl_loop;

/* Reads and checks a plan. Its layers must be aligned to 2 bytes, and stay in place. TINYFL_OK, TINYFL_EINVAL or
 * TINYFL_EPLAN. */
TINYFL_API int tinyfl_plan_read(tinyfl_plan *plan, const void *bytes, size_t count);

/* TINYFL_OK, TINYFL_EINVAL or TINYFL_EPLAN. Every other function calls this first: no plan is trusted. */
TINYFL_API int tinyfl_plan_check(const tinyfl_plan *plan);

/* Number of weights, of inputs, and of outputs, in reals; 0 for an invalid plan. */
TINYFL_API size_t tinyfl_plan_weights(const tinyfl_plan *plan);
TINYFL_API size_t tinyfl_plan_inputs(const tinyfl_plan *plan);
TINYFL_API size_t tinyfl_plan_outputs(const tinyfl_plan *plan);

/* Bytes of working memory: the outputs for the backward sweep, overwritten by a gradient once they are used (SPEC.md, plan);
 * 0 for an invalid plan. A learner's RAM is this plus the weights; a mini-batch also needs a gradient as large as the
 * weights. */
TINYFL_API size_t tinyfl_learner_bytes(const tinyfl_plan *plan);

/* Prepares a learner over the caller's weights and memory, which must stay in place during its use.
 **   weights  tinyfl_plan_weights reals, already set; plan and layers must also outlive the learner
 *   memory   tinyfl_learner_bytes bytes, aligned as a real
 *   clip     bounds the Euclidean norm of the loss's gradient at the output; 0: no bound
 * TINYFL_ENUMERIC: a weight is not finite, or not below TINYFL_LIMIT in magnitude. */
TINYFL_API int tinyfl_learner_init(tinyfl_learner *learner, const tinyfl_plan *plan, tinyfl_real *weights, void *memory,
                                   size_t bytes, float clip);

/* The network's output for x: `inputs` reals in, `outputs` reals out (logits for softmax cross-entropy). */
TINYFL_API int tinyfl_infer(tinyfl_learner *learner, const tinyfl_real *x, tinyfl_real *output);

/* The loss on one sample and, if `output` is not NULL, the network's output for it, without learning. TINYFL_EINVAL, here and
 * below, for TINYFL_PROTOTYPES. */
TINYFL_API int tinyfl_evaluate(tinyfl_learner *learner, const tinyfl_real *x, const tinyfl_real *y, tinyfl_real *loss,
                               tinyfl_real *output);

/* One step of SGD on one sample. Each layer's weights move as soon as its input's delta is known, so no gradient is stored.
 *   x, y   `inputs` and `outputs` reals; y is one-hot, or a distribution, for softmax cross-entropy
 *   rate   learning rate, at least 0 and below TINYFL_LIMIT
 *   loss   the loss before the step; may be NULL
 * TINYFL_ENUMERIC: the sample, an activation, the loss or its gradient at the output fails the guard, and the weights are
 * unchanged; or a deeper delta fails it, weights may have moved, and the learner refuses to continue until it is initialised
 * again. With several lanes the call succeeds while any lane is valid; a failed lane stays invalid until then, with an
 * infinite loss. */
TINYFL_API int tinyfl_learn(tinyfl_learner *learner, const tinyfl_real *x, const tinyfl_real *y, float rate,
                            tinyfl_real *loss);

/* Mini-batches: adds the gradient of one sample to `gradient` (as many reals as weights, zeroed by the caller). Fails as
 * tinyfl_learn does. */
TINYFL_API int tinyfl_accumulate(tinyfl_learner *learner, const tinyfl_real *x, const tinyfl_real *y, tinyfl_real *gradient,
                                 tinyfl_real *loss);

/* Then takes one step, weights -= (rate / samples) gradient, and zeroes the gradient for the next batch. */
TINYFL_API int tinyfl_step(tinyfl_learner *learner, tinyfl_real *gradient, float rate, uint32_t samples);

/* Reads and checks an inner loop. TINYFL_OK or TINYFL_EINVAL. */
TINYFL_API int tinyfl_inner_read(tinyfl_inner *inner, const void *bytes, size_t count);
TINYFL_API int tinyfl_inner_check(const tinyfl_inner *inner);

/* Of a checked inner loop: samples of all phases, and calls of tinyfl_loop_learn, a sample each: as many as its phase has passes,
 * and twice that for a support sample. */
TINYFL_API uint64_t tinyfl_inner_samples(const tinyfl_inner *inner);
TINYFL_API uint64_t tinyfl_inner_total(const tinyfl_inner *inner);

/* Whether a checked plan can run a checked inner loop: phases have a support set if and only if its loss is TINYFL_PROTOTYPES, and
 * no more ways than outputs. */
TINYFL_API int tinyfl_inner_fits(const tinyfl_plan *plan, const tinyfl_inner *inner);

/* Bytes of memory of an inner loop that fits, beyond the learner's: a gradient for mini-batches, for prototypes or to return, a
 * copy of the weights for a pull or for their change, and for prototypes 2 x ways x (outputs + 1) reals. */
TINYFL_API size_t tinyfl_loop_bytes(const tinyfl_plan *plan, const tinyfl_inner *inner);

/* Prepares an inner loop of an initialised learner, over tinyfl_loop_bytes of memory, aligned as a real. All three must stay
 * in place, and the learner keeps to its last phase, until it is initialised again. TINYFL_OK or TINYFL_EINVAL. */
TINYFL_API int tinyfl_loop_init(tinyfl_loop *loop, const tinyfl_inner *inner, tinyfl_learner *learner, void *memory);

/* Whether all phases are done; else the index, from 0, of the next sample. */
TINYFL_API int tinyfl_loop_done(const tinyfl_loop *loop);
TINYFL_API uint64_t tinyfl_loop_index(const tinyfl_loop *loop);

/* Learns from the next sample. Fails as tinyfl_learn does. After the last one the learner's weights are the result or, if the
 * gradient is returned, minus the mean gradient. */
TINYFL_API int tinyfl_loop_learn(tinyfl_loop *loop, const tinyfl_real *x, const tinyfl_real *y);

/* Mean loss of the samples so far that had one; 0 without any. */
TINYFL_API tinyfl_real tinyfl_loop_loss(const tinyfl_loop *loop);

/* Number of floats that a device keeps: of its local layers, then of what is sent. */
TINYFL_API size_t tinyfl_kept_weights(const tinyfl_plan *plan, const tinyfl_inner *inner);

/* The weights of some layers, together: their number, and copies out of all weights (`into` may be `all`) and back. */
TINYFL_API size_t tinyfl_layers_weights(const tinyfl_plan *plan, uint64_t layers);
TINYFL_API void tinyfl_layers_gather(const tinyfl_plan *plan, uint64_t layers, tinyfl_real *all, tinyfl_real *into);
TINYFL_API void tinyfl_layers_scatter(const tinyfl_plan *plan, uint64_t layers, tinyfl_real *from, tinyfl_real *all);

/* Whether a learner could start again with its weights of these layers: each is below TINYFL_LIMIT in magnitude. */
TINYFL_API tinyfl_mask tinyfl_layers_below_limit(const tinyfl_learner *learner, uint64_t layers);

/* The random generator: Threefry-4x32-20 (Salmon, Moraes, Dror, Shaw, SC'11). A pure function of its arguments:
 * four words for each (seed, stream, device, round, index). */
TINYFL_API void tinyfl_random(uint64_t seed, uint32_t stream, tinyfl_word device, uint32_t round, uint32_t index,
                              tinyfl_word out[4]);

/* Converts a word to a float in [0, 1), from its upper 24 bits. */
TINYFL_API tinyfl_real tinyfl_uniform(tinyfl_word bits);

/* The use of each stream, so that no two purposes share numbers. */
enum {
    TINYFL_STREAM_WEIGHTS = 0,
    TINYFL_STREAM_COHORT = 1,
    TINYFL_STREAM_TASK = 2,
    TINYFL_STREAM_SAMPLE = 3,
    TINYFL_STREAM_SUPPORT = 4,
    TINYFL_STREAM_QUERY = 5,
    TINYFL_STREAM_READINGS = 6,
};

/* The sine task (Finn et al. 2017, section 5.1, with the phase over a whole turn as in Nichol et al. 2018): device d has
 * y = a sin(x + p) with a in [0.1, 5), p in [0, 2 pi). */
typedef struct {
    tinyfl_real amplitude, phase;
} tinyfl_sine;

TINYFL_API tinyfl_sine tinyfl_sine_of(uint64_t seed, tinyfl_word device);
TINYFL_API tinyfl_real tinyfl_sine_at(tinyfl_sine sine, tinyfl_real x);
/* Sample `index` of the device's stream in this round: x in [-5, 5), y. */
TINYFL_API void tinyfl_sine_sample(tinyfl_sine sine, uint64_t seed, tinyfl_word device, uint32_t round, uint32_t index,
                                   tinyfl_real *x, tinyfl_real *y);

#ifdef __cplusplus
}
#endif

#endif
