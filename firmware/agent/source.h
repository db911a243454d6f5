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

typedef struct {
    const char *name;
    /* Fills x and y with sample `index` of this round. TINYFL_OK, or a negative code, which ends the round on this board.
     * Called in order; with several passes an index recurs, and must give the same sample. */
    int (*sample)(const tinyfl_stream *stream, uint32_t index, float *x, float *y);
} tinyfl_source;

/* Ends with a NULL name. The built-in table has "sine", the task in firmware/core; your own table replaces it. */
extern const tinyfl_source tinyfl_sources[];

/* The function of the built-in source, for use in your own table. */
extern int tinyfl_sine_source(const tinyfl_stream *stream, uint32_t index, float *x, float *y);

#ifdef __cplusplus
}
#endif

#endif
