#include "source.h"

int tinyfl_sine_source(const tinyfl_stream *stream, uint32_t index, float *x, float *y)
{
    if (stream->inputs != 1 || stream->outputs != 1)
        return TINYFL_EINVAL;
    const tinyfl_sine sine = tinyfl_sine_of(stream->seed, stream->device);
    tinyfl_sine_sample(sine, stream->seed, stream->device, stream->round, index, x, y);
    return TINYFL_OK;
}
