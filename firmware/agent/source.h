/* A source: where a board's samples come from, such as a sensor, under a name by which a coordinator requests it. Write its
 * function, add it to tinyfl_sources, and build it in with `tinyfl build --source FILE`. Samples fed over the link need no
 * source. */
#ifndef TINYFL_SOURCE_H
#define TINYFL_SOURCE_H

#include "tinyfl.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The coordinator's request. */
typedef struct {
    uint64_t seed;
    uint32_t device, round;
    uint32_t inputs, outputs; /* floats of x and y */
} tinyfl_stream;

/* Results of a source's functions besides TINYFL_OK and its own negative codes. */
enum {
    TINYFL_UNLABELLED = 1, /* of sample: x is filled, y is not */
    TINYFL_NOT_YET = 1,    /* of read: there is no reading yet; it is asked again */
};

/* Codes of the agent for a source that cannot go on; a status has them, as it has a source's own. */
enum {
    TINYFL_ESILENT = -7,     /* no reading came within the deadline of a sample, or TINYFL_SILENCE */
    TINYFL_EUNLABELLED = -8, /* a round learns from labelled samples alone */
    TINYFL_ENOTFINITE = -9,  /* a value of x or y is NaN or infinite */
    TINYFL_ESHAPE = -10,     /* the network's inputs or outputs are not those of the sensor's samples */
    TINYFL_EUNFILLED = -11,  /* a value of x, y or a reading was not written */
    TINYFL_EOVERRUN = -12,   /* more was written than x, y or a reading has */
    TINYFL_ETYPE = -13,      /* tinyfl_reading got a place for values of another type than the sensor's */
    TINYFL_ELABEL = -14,     /* a label is beyond the last class */
};

#define TINYFL_SILENCE 10000u /* ms */
#define TINYFL_MAX_READING 64 /* bytes of a reading's values */

typedef enum { TINYFL_READS_FLOAT32, TINYFL_READS_INT16 } tinyfl_type;

typedef struct {
    const char *name;
    /* Fills x and y with sample `index` of this round. TINYFL_OK, or a negative code, which ends the round on this board.
     * Called in order; with several passes an index recurs, and must give the same sample. */
    int (*sample)(const tinyfl_stream *stream, uint32_t index, float *x, float *y);

    /* A sensor has the rest too, and gives each sample once; `channels` of 0: a source of another kind. */
    int (*start)(void);                        /* once, before the first reading; NULL: there is nothing to start */
    int (*read)(void *values, int32_t *label); /* takes a reading from the chip, without waiting; `label` is -1 before */
    uint8_t type;                              /* tinyfl_type of a reading's values ... */
    uint8_t channels;                          /* ... and their number */
    float rate;                                /* readings a second */
    uint16_t shape[3];                         /* of x, up to a 0: {24}, {50, 3}, or height, width, channels */
    uint16_t outputs;                          /* floats of y */
    uint8_t loss;                              /* tinyfl_loss of y */
    const char *labels;                        /* names of y's classes, with commas between; NULL: they are numbers */
    uint32_t deadline;                         /* ms for a sample, which is late after it; 0: it is never late */
} tinyfl_source;

/* Ends with a NULL name, without which no build takes it. The built-in table has "sine", the task in firmware/core; your own table replaces it. */
extern const tinyfl_source tinyfl_sources[];

/* The function of the built-in source, for use in your own table. */
extern int tinyfl_sine_source(const tinyfl_stream *stream, uint32_t index, float *x, float *y);

/* For a sensor's `sample`: its next reading. It waits until the reading is due by the sensor's rate, and calls `read`; where a
 * board has recorded readings instead, it takes the next of those. `label` gets the class, or -1; it may be NULL. TINYFL_OK or
 * a negative code, for `sample` to return. `values` points to `channels` values of the sensor's type, which is checked. */
#define tinyfl_reading(values, label) tinyfl_reading_of((values), sizeof *(values), (label))
extern int tinyfl_reading_of(void *values, size_t bytes, int32_t *label);

/* y of class `label`: 1 there, 0 elsewhere. TINYFL_OK; TINYFL_UNLABELLED below 0; TINYFL_ELABEL beyond the last class. */
extern int tinyfl_one_hot(int32_t label, float *y, uint32_t outputs);

/* Milliseconds since some moment; the difference of two is a time, for 49 days. 0 where the port has no clock. */
extern uint32_t tinyfl_millis(void);

/* The functions behind firmware/math/math.h: the same bits on every board and on the host. */
extern float tinyfl_sinf(float x);  /* |x| < 8192, NaN beyond; within 2^-22 */
extern float tinyfl_cosf(float x);  /* the same */
extern float tinyfl_expf(float x);  /* within 1 ulp; x is first clipped to [-87, 88] */
extern float tinyfl_logf(float x);  /* within 1 ulp; 2 where x is below 2^-126 */
extern float tinyfl_tanhf(float x); /* within 7 ulp */
extern float tinyfl_sqrtf(float x); /* exactly rounded */

#ifdef __cplusplus
}
#endif

#endif
