/* A board's sources as a library of this machine, for simulated devices and for recordings: their samples from recorded
 * readings. tinyfl/sensors/worker.py calls it. */
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
void tinyfl_host_begin(const tinyfl_stream *stream);
int32_t tinyfl_host_sample(uint32_t source, const tinyfl_stream *stream, uint32_t index, float *x);
int tinyfl_host_spent(void);

/* Makes these the recorded readings; they stay the caller's. */
void tinyfl_host_hold(const uint8_t *readings, uint32_t count, uint32_t bytes)
{
    held = readings;
    held_count = count;
    held_bytes = bytes;
}

/* Begins a round as a board does or, without one, at the first reading. */
void tinyfl_host_begin(const tinyfl_stream *stream)
{
    if (stream)
        tinyfl_sensing_begin(&sensing, stream);
    else
        sensing.cursor = 0;
}

/* Takes a sample, and its code: x, and y directly behind it. */
int32_t tinyfl_host_sample(uint32_t source, const tinyfl_stream *stream, uint32_t index, float *x)
{
    return tinyfl_sense(&sensing, &tinyfl_sources[source], stream, index, x, x + stream->inputs);
}

/* Whether the last sample took more readings than there are. */
int tinyfl_host_spent(void) { return sensing.cursor > held_count; }
