/* Samples of a source, taken one after another, and of a sensor its readings. */
#ifndef TINYFL_SENSING_H
#define TINYFL_SENSING_H

#include "port.h"
#include "source.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where a board's source has got to. Fields are private to sensing.c, but for the last two. */
typedef struct {
    const tinyfl_port *port;
    const tinyfl_source *source; /* that is used, and started; NULL: none yet */
    uint32_t cursor;             /* the next recorded reading */
    uint32_t due;                /* ms: of the next reading of the chip */
    uint32_t index;              /* of the next sample outside a round */
    uint32_t late;               /* samples of the last round, or request, that came after their deadline */
    uint32_t taken;              /* readings of the last request */
} tinyfl_sensing;

/* Whether the source is a sensor. */
int tinyfl_is_sensor(const tinyfl_source *source);
/* Floats of a sensor's x; 0 for a shape that no network has. */
uint32_t tinyfl_sensor_inputs(const tinyfl_source *source);
/* Bytes of a reading's values, and of a whole reading: the values, padded to 4 bytes, then the label. */
size_t tinyfl_values_bytes(const tinyfl_source *source);
size_t tinyfl_reading_bytes(const tinyfl_source *source);

/* Whether recorded readings stand in for those of the source in use, which then come without waiting. */
int tinyfl_is_recorded(const tinyfl_sensing *sensing);

/* Begins a round: recorded readings go on at a place drawn from its seed, device and number. */
void tinyfl_sensing_begin(tinyfl_sensing *sensing, const tinyfl_stream *stream);

/* Takes sample `index`: TINYFL_OK, TINYFL_UNLABELLED, or a negative code. Starts the source before its first. Where y lies
 * directly behind x, it shows that too many values of x were written. */
int tinyfl_sense(tinyfl_sensing *sensing, const tinyfl_source *source, const tinyfl_stream *stream, uint32_t index, float *x,
                 float *y);

/* Takes a reading of a sensor: tinyfl_reading_bytes bytes. TINYFL_OK or a negative code. */
int tinyfl_sense_reading(tinyfl_sensing *sensing, const tinyfl_source *source, uint8_t *reading);

#ifdef __cplusplus
}
#endif

#endif
