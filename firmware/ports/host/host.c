/* A board's sources as a library of this machine, for simulated devices and for recordings: their samples from recorded
 * readings. tinyfl/sensors/source.py calls it. */
#include "sensing.h"

static const uint8_t *held; /* readings */
static uint32_t held_count;
static size_t held_bytes; /* of each */

static int recorded(uint32_t number, void *reading, size_t bytes)
{
    if (held_count == 0 || bytes != held_bytes)
        return -1;
    const uint8_t *from = held + (size_t)(number % held_count) * bytes;
    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)reading)[i] = from[i];
    return 0;
}

static void alive(void) {}

static const tinyfl_port port = {.alive = alive, .recorded = recorded};
static tinyfl_sensing sensing = {.port = &port};

void tinyfl_host_hold(const uint8_t *readings, uint32_t count, uint32_t bytes);
void tinyfl_host_round(uint32_t source, const tinyfl_stream *stream, uint32_t samples, float *x, float *y, int32_t *codes);
uint32_t tinyfl_host_recording(uint32_t source, const tinyfl_stream *stream, uint32_t most, float *x, float *y,
                               int32_t *codes);

/* Makes these the recorded readings; they stay the caller's. */
void tinyfl_host_hold(const uint8_t *readings, uint32_t count, uint32_t bytes)
{
    held = readings;
    held_count = count;
    held_bytes = bytes;
}

static int32_t take(uint32_t source, const tinyfl_stream *stream, uint32_t index, float *x, float *y)
{
    return tinyfl_sense(&sensing, &tinyfl_sources[source], stream, index, x + (size_t)index * stream->inputs,
                        y + (size_t)index * stream->outputs);
}

/* The samples of a round, and the code of each, as on a board. */
void tinyfl_host_round(uint32_t source, const tinyfl_stream *stream, uint32_t samples, float *x, float *y, int32_t *codes)
{
    tinyfl_sensing_begin(&sensing, stream);
    for (uint32_t i = 0; i < samples; i++)
        codes[i] = take(source, stream, i, x, y);
}

/* The samples of the readings from the first to the last, each reading once; returns their number, at most `most`. */
uint32_t tinyfl_host_recording(uint32_t source, const tinyfl_stream *stream, uint32_t most, float *x, float *y, int32_t *codes)
{
    uint32_t count = 0;
    for (sensing.cursor = 0; count < most; count++) {
        codes[count] = take(source, stream, count, x, y);
        if (sensing.cursor > held_count)
            break;
    }
    return count;
}
