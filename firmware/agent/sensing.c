#include "sensing.h"

#include <string.h>

/* Whose source runs: a source's functions have no argument for it. */
static tinyfl_sensing *now;

int tinyfl_is_sensor(const tinyfl_source *source) { return source->channels > 0; }

uint32_t tinyfl_sensor_inputs(const tinyfl_source *source)
{
    uint32_t inputs = 1;
    for (size_t i = 0; i < 3 && source->shape[i]; i++) {
        inputs *= source->shape[i];
        if (inputs > TINYFL_MAX_VALUES)
            return 0;
    }
    return inputs;
}

size_t tinyfl_values_bytes(const tinyfl_source *source)
{
    return source->channels * (source->type == TINYFL_READS_INT16 ? sizeof(int16_t) : sizeof(float));
}

size_t tinyfl_reading_bytes(const tinyfl_source *source)
{
    return (tinyfl_values_bytes(source) + 3) / 4 * 4 + sizeof(int32_t);
}

uint32_t tinyfl_millis(void) { return now && now->port->millis ? now->port->millis() : 0; }

int tinyfl_one_hot(int32_t label, float *y, uint32_t outputs)
{
    if (label < 0 || (uint32_t)label >= outputs)
        return TINYFL_UNLABELLED;
    memset(y, 0, outputs * sizeof *y);
    y[label] = 1.0f;
    return TINYFL_OK;
}

/* Whether the time, in ms, has come; times wrap around. */
static int reached(uint32_t time) { return (int32_t)(tinyfl_millis() - time) >= 0; }

/* A reading of the chip, once it is due. A sensor that fell behind by more than one goes on from now. */
static int read_chip(const tinyfl_source *source, void *values, int32_t *label)
{
    const tinyfl_port *port = now->port;
    const uint32_t period = source->rate > 0.0f ? (uint32_t)(1000.0f / source->rate) : 0;
    const uint32_t patience = source->deadline ? source->deadline : TINYFL_SILENCE;
    if (!source->read)
        return TINYFL_ESILENT;
    if (reached(now->due + period) || !port->millis)
        now->due = tinyfl_millis();
    while (!reached(now->due))
        port->alive();
    const uint32_t asked = tinyfl_millis();
    int code;
    while ((code = source->read(values, label)) == TINYFL_NOT_YET) {
        if (reached(asked + patience))
            return TINYFL_ESILENT;
        port->alive();
    }
    now->due += period;
    return code;
}

/* Copies the recorded reading `number`. Whether there is one. */
static int read_recorded(const tinyfl_source *source, uint32_t number, uint8_t *reading)
{
    return tinyfl_is_sensor(source) && tinyfl_values_bytes(source) <= TINYFL_MAX_READING && now->port->recorded &&
           now->port->recorded(number, reading, tinyfl_reading_bytes(source)) == 0;
}

int tinyfl_is_recorded(const tinyfl_sensing *sensing)
{
    uint8_t reading[TINYFL_MAX_READING + sizeof(int32_t)];
    return now == sensing && sensing->source && read_recorded(sensing->source, 0, reading);
}

int tinyfl_reading(void *values, int32_t *label)
{
    const tinyfl_source *source = now->source;
    int32_t unused = -1;
    if (!label)
        label = &unused;
    *label = -1;
    if (!tinyfl_is_sensor(source) || tinyfl_values_bytes(source) > TINYFL_MAX_READING)
        return TINYFL_EINVAL;
    uint8_t reading[TINYFL_MAX_READING + sizeof *label];
    if (!read_recorded(source, now->cursor, reading))
        return read_chip(source, values, label);
    now->cursor++;
    memcpy(values, reading, tinyfl_values_bytes(source));
    memcpy(label, reading + tinyfl_reading_bytes(source) - sizeof *label, sizeof *label);
    return TINYFL_OK;
}

void tinyfl_sensing_begin(tinyfl_sensing *sensing, const tinyfl_stream *stream)
{
    uint32_t words[4];
    tinyfl_random(stream->seed, TINYFL_STREAM_READINGS, stream->device, stream->round, 0, words);
    sensing->cursor = words[0];
    sensing->late = 0;
}

/* Makes this the source that runs, and starts it if another did; there is no chip to start where readings are recorded. */
static int use(tinyfl_sensing *sensing, const tinyfl_source *source)
{
    now = sensing;
    if (sensing->source == source)
        return TINYFL_OK;
    sensing->source = source;
    sensing->due = tinyfl_millis();
    uint8_t reading[TINYFL_MAX_READING + sizeof(int32_t)];
    const int code = source->start && !read_recorded(source, 0, reading) ? source->start() : TINYFL_OK;
    if (code < 0)
        sensing->source = NULL; /* it is started again */
    return code < 0 ? code : TINYFL_OK;
}

static int all_finite(const float *values, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (!(values[i] - values[i] == 0.0f))
            return 0;
    return 1;
}

int tinyfl_sense(tinyfl_sensing *sensing, const tinyfl_source *source, const tinyfl_stream *stream, uint32_t index, float *x,
                 float *y)
{
    if (tinyfl_is_sensor(source) && (stream->inputs != tinyfl_sensor_inputs(source) || stream->outputs != source->outputs))
        return TINYFL_ESHAPE;
    int code = use(sensing, source);
    if (code != TINYFL_OK)
        return code;
    const uint32_t asked = tinyfl_millis();
    code = source->sample(stream, index, x, y);
    if (code < 0)
        return code;
    if (source->deadline && tinyfl_millis() - asked > source->deadline)
        sensing->late++;
    if (!all_finite(x, stream->inputs) || (code == TINYFL_OK && !all_finite(y, stream->outputs)))
        return TINYFL_ENOTFINITE;
    return code;
}

int tinyfl_sense_reading(tinyfl_sensing *sensing, const tinyfl_source *source, uint8_t *reading)
{
    int32_t label;
    uint32_t values[TINYFL_MAX_READING / sizeof(uint32_t)] = {0}; /* aligned for any type */
    const int started = use(sensing, source), code = started == TINYFL_OK ? tinyfl_reading(values, &label) : started;
    if (code != TINYFL_OK)
        return code;
    const size_t bytes = tinyfl_reading_bytes(source);
    memcpy(reading, values, bytes - sizeof label);
    memcpy(reading + bytes - sizeof label, &label, sizeof label);
    return TINYFL_OK;
}
