/* Online learning: a head over a frozen embedding that learns from one sample after another, with running standardisation
 * (TinyOL: Ren, Anicic, Runkler, IJCNN 2021, arXiv:2103.08295, of which only the abstract and notes could be read; SPEC.md, online
 * learning).
 *
 * For each sample, in this order: tinyfl_online_enter with the vector that is standardised; the caller's frozen network, if there
 * is one; tinyfl_online_sample with its output. When the sample's label comes, at once or later, tinyfl_online_label or
 * tinyfl_online_target. Of a sample only its embedding is kept, and only as long as a label may come.
 *
 * The caller owns all memory. Every function that can fail returns TINYFL_OK or a negative code, and then nothing has changed.
 * Like a board, it knows one device: there are no lanes. */
#ifndef TINYFL_ONLINE_H
#define TINYFL_ONLINE_H

#include "tinyfl.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Beyond those of tinyfl.h. */
enum {
    TINYFL_EFULL = -11, /* a further class, and all places are taken */
    TINYFL_EONLY = -12, /* the only class cannot be removed */
    TINYFL_EGONE = -13, /* the sample has left the ring, has its label already, or never came */
};

typedef enum {
    TINYFL_HEAD_VALUES,      /* mean squared error */
    TINYFL_HEAD_CLASSES,     /* softmax cross-entropy */
    TINYFL_HEAD_LABELS,      /* sigmoid cross-entropy: several at once */
    TINYFL_HEAD_RECONSTRUCT, /* the input, from an embedding that is narrower: its mean squared error is an anomaly score */
} tinyfl_online_head;

typedef enum { TINYFL_NOT_STANDARDISED, TINYFL_INPUTS_STANDARDISED, TINYFL_EMBEDDINGS_STANDARDISED } tinyfl_standardised;

#define TINYFL_MAX_ONLINE (1u << 24) /* the cap on every count behind a running mean: a float counts no further */

/* What a device is to do: the record of a set, byte for byte (SPEC.md, online learning). */
typedef struct {
    uint8_t head;         /* tinyfl_online_head */
    uint8_t standardised; /* tinyfl_standardised; of embeddings only with a network */
    uint8_t embedded;     /* 1: there is a frozen network; 0: the embedding is the input itself */
    uint8_t unsure;       /* CLASSES, LABELS: of a sample with less confidence, in 256ths, and of any of one class, the label
                           * is wanted; 0: of none */
    uint32_t inputs, size;         /* numbers of an input, and of an embedding */
    uint32_t places;               /* the most outputs; RECONSTRUCT: inputs */
    uint32_t ring;                 /* embeddings that wait for a label, at least 1; RECONSTRUCT: 0 */
    uint32_t cap, window;          /* of the count behind mean and variance, and behind error and confidence; 0: TINYFL_MAX_ONLINE */
    float rate, clip;              /* of the head's steps, as a phase's; rate 0: the head does not learn */
    float threshold;               /* RECONSTRUCT: only samples with a score below it are learnt; infinity: all */
    float tolerance, alarm;        /* of the drift monitor; alarm 0: none */
} tinyfl_online_set;

/* What a device has learnt begins with this; then come the means and variances, of each place the number of its labels, and the
 * head as a dense layer (SPEC.md, theta). Bytes that can be stored, and put back. */
typedef struct {
    uint32_t outputs;           /* now */
    uint32_t count;             /* behind the means and variances */
    uint32_t samples, measured; /* the number of the last sample, from 1; samples whose error is known */
    float confidence, error;    /* running means */
    uint32_t compared;          /* samples behind `usual` */
    float usual, excess;        /* the mean error since the last alarm, and how far the error is above it */
    uint32_t drifts, drifted;   /* alarms, and the number of the sample at the last one */
} tinyfl_online_state;

/* Fields are private to the core; the caller may read the state, the counts, and the outputs of the last sample or label. */
typedef struct {
    tinyfl_online_set set;
    tinyfl_online_state *state;
    float *mean, *variance; /* (inputs) or (size) */
    uint32_t *counts;       /* (places) */
    float *head;            /* (size + 1, outputs): the bias is the last row */
    float *ring;            /* (ring, size) */
    uint32_t *numbers;      /* (ring): of the samples in the ring; 0: none */
    float *output, *target, *gradient; /* (places) */
    uint32_t unsure; /* the last sample that there was too little confidence in */
} tinyfl_online;

/* What is known of a sample at once. */
typedef struct {
    uint32_t number;       /* the sample's */
    uint32_t class_number; /* CLASSES: the output that is largest; else 0 */
    float confidence;      /* CLASSES, LABELS: of the prediction, by its probability; else 0 */
    float score;           /* RECONSTRUCT: the mean squared error; else 0 */
    int learnt;            /* RECONSTRUCT: whether the head has learnt from it; else 0 */
} tinyfl_online_result;

/* Bytes of memory, aligned to 4; 0 if the set is senseless: a size of 0 or above TINYFL_MAX_VALUES, RECONSTRUCT without a network
 * or from an embedding that is not narrower than the input, a number out of range. */
TINYFL_API size_t tinyfl_online_bytes(const tinyfl_online_set *set);

/* Starts with a head of zeros and `outputs` outputs: 1 to places; all places for VALUES and RECONSTRUCT. TINYFL_EINVAL. */
TINYFL_API int tinyfl_online_init(tinyfl_online *online, const tinyfl_online_set *set, uint32_t outputs, void *memory);

/* A vector enters the running mean and variance, and is standardised by them in place: `inputs` numbers, `size` if embeddings are
 * standardised, none if nothing is. TINYFL_ENUMERIC if one is not below TINYFL_LIMIT. */
TINYFL_API int tinyfl_online_enter(tinyfl_online *online, float *values);

/* Predicts, and keeps the embedding, (size), for a label. RECONSTRUCT also learns, towards `input`, (inputs), which others do not
 * read. TINYFL_ENUMERIC if an embedding, an output or the loss is too large: the sample has no number. */
TINYFL_API int tinyfl_online_sample(tinyfl_online *online, const float *embedding, const float *input,
                                    tinyfl_online_result *result);

/* CLASSES: the class of a sample, and one step. The number of outputs itself is a class not seen before: it gets an output.
 *   loss  before the step; may be NULL
 * TINYFL_EINVAL: another head, or a class beyond; TINYFL_EFULL, TINYFL_EGONE, or TINYFL_ENUMERIC as above. */
TINYFL_API int tinyfl_online_label(tinyfl_online *online, uint32_t sample, uint32_t class_number, float *loss);

/* VALUES, LABELS: the same with `outputs` numbers; for LABELS each from 0 to 1, else TINYFL_EINVAL. */
TINYFL_API int tinyfl_online_target(tinyfl_online *online, uint32_t sample, const float *target, float *loss);

/* The last sample that there was too little confidence in, as long as its label may still come; 0: none. */
TINYFL_API uint32_t tinyfl_online_wanted(const tinyfl_online *online);

/* CLASSES, LABELS: appends an output with weights of 0; removes one, and those after it move up. TINYFL_EINVAL, TINYFL_EFULL,
 * TINYFL_EONLY. */
TINYFL_API int tinyfl_online_add(tinyfl_online *online);
TINYFL_API int tinyfl_online_remove(tinyfl_online *online, uint32_t number);

/* Puts another head in its place, over the same embedding: (size + 1, outputs), of at least as many outputs as now; what is more
 * are outputs without labels. All else stays: statistics, counts, monitor and ring. TINYFL_EINVAL if `outputs` do not fit,
 * TINYFL_ENUMERIC for a weight that is not good. */
TINYFL_API int tinyfl_online_replace(tinyfl_online *online, uint32_t outputs, const float *head);

/* Bytes of what is learnt, from online->state on: the state, means, variances, counts and head. */
TINYFL_API size_t tinyfl_online_learnt_bytes(const tinyfl_online *online);

/* Puts such bytes back, aligned to 4, of the same set but perhaps of other outputs; the ring is then empty. TINYFL_EINVAL if
 * their number or a count does not fit, TINYFL_ENUMERIC for a value that the core would never have left. */
TINYFL_API int tinyfl_online_restore(tinyfl_online *online, const void *bytes, size_t count);

#ifdef __cplusplus
}
#endif

#endif
