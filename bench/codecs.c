/* A source whose sample is one pass of a codec over 10,000 weights, for bench/codecs.py, which counts its instructions. The device
 * of a round says what to do: a verb in bits 0 and 1, the codec's kind in bits 2 to 4, its share above. */
#include "codec.h"
#include "source.h"

enum { INPUTS = 99, OUTPUTS = 100, WEIGHTS = (INPUTS + 1) * OUTPUTS };
enum { REST, PREPARE, ENCODE, DECODE };

static const tinyfl_layer layer = {.kind = TINYFL_DENSE, .learns = 1, .height = 1, .width = 1, .channels = INPUTS, .outputs = OUTPUTS,
                                   .kernel_height = 1, .kernel_width = 1, .stride_height = 1, .stride_width = 1};
static const tinyfl_plan plan = {&layer, 1, TINYFL_MEAN_SQUARED_ERROR};
static float values[WEIGHTS], decoded[WEIGHTS];
static uint8_t bytes[sizeof values];
static size_t count;

/* Numbers of many magnitudes, as the change of a round has them. */
static void prepare(void)
{
    uint32_t state = 1;
    for (size_t i = 0; i < WEIGHTS; i++) {
        state = state * 1664525u + 1013904223u;
        const float number = (float)(int32_t)state * 0x1p-31f;
        values[i] = number * number * number;
    }
}

static int work(const tinyfl_stream *stream, uint32_t index, float *x, float *y)
{
    const tinyfl_codec codec = {(uint8_t)(stream->device >> 2 & 7), (uint16_t)(stream->device >> 5)};
    (void)index;
    *x = *y = 0.0f;
    switch (stream->device & 3) {
    case PREPARE:
        prepare();
        return TINYFL_OK;
    case ENCODE:
        return tinyfl_encode(&codec, &plan, TINYFL_EVERY_LAYER, values, bytes, &count);
    case DECODE:
        return tinyfl_decode(&codec, &plan, TINYFL_EVERY_LAYER, bytes, count, 1.0f, decoded);
    default:
        return TINYFL_OK;
    }
}

const tinyfl_source tinyfl_sources[] = {{"codec", work}, {NULL, NULL}};
