/* A source of samples on the board itself: a sensor, say. Write one, name it in tinyfl_sources, and build it in with
 * `tinyfl build --source FILE`; a coordinator then asks for it by name. Samples fed over the link need none. */
#ifndef TINYFL_SOURCE_H
#define TINYFL_SOURCE_H

#include "tinyfl.h"

/* What the coordinator asked for. */
typedef struct {
    uint64_t seed;
    uint32_t device, round;
    uint32_t inputs, outputs; /* floats of x and y */
} tinyfl_stream;

typedef struct {
    const char *name;
    /* Sample `index` of this round: fill x and y. TINYFL_OK, or a negative code, which ends the round on this board.
     * Asked for in order; with several passes an index comes again and must give the same sample. */
    int (*sample)(const tinyfl_stream *stream, uint32_t index, float *x, float *y);
} tinyfl_source;

/* Ends with a NULL name. The built-in table holds "sine", the task of firmware/core; a table of your own replaces it. */
extern const tinyfl_source tinyfl_sources[];

/* The built-in source, for a table that keeps it. */
extern int tinyfl_sine_source(const tinyfl_stream *stream, uint32_t index, float *x, float *y);

#endif
