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
    if (label < 0)
        return TINYFL_UNLABELLED;
    if ((uint32_t)label >= outputs)
        return TINYFL_ELABEL;
    memset(y, 0, outputs * sizeof *y);
    y[label] = 1.0f;
    return TINYFL_OK;
}

/* What places hold before a source writes them: a NaN that no arithmetic makes by itself. */
#define UNWRITTEN 0x7fd1ce5bu
enum { GUARDED = 32, BEHIND = 4 }; /* floats of y for which there is a place of their own, so that too many of x are seen;
                                     * and words behind them, of which those that overrun them write the first */

static void fill(void *place, size_t words)
{
    const uint32_t unwritten = UNWRITTEN;
    for (size_t i = 0; i < words; i++)
        memcpy((uint8_t *)place + i * sizeof unwritten, &unwritten, sizeof unwritten);
}

/* How many of the words were not written. */
static size_t unwritten(const void *place, size_t words)
{
    size_t count = 0;
    for (size_t i = 0; i < words; i++) {
        uint32_t word;
        memcpy(&word, (const uint8_t *)place + i * sizeof word, sizeof word);
        count += word == UNWRITTEN;
    }
    return count;
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
    uint32_t held[TINYFL_MAX_READING / 4 + GUARDED]; /* aligned for any type */
    const size_t words = sizeof held / sizeof *held, bytes = tinyfl_values_bytes(source), past = (bytes + 3) / 4;
    int code;
    fill(held, words);
    while ((code = source->read(held, label)) == TINYFL_NOT_YET) {
        if (reached(asked + patience))
            return TINYFL_ESILENT;
        port->alive();
    }
    now->due += period;
    if (code != TINYFL_OK)
        return code;
    const uint16_t spare = UNWRITTEN >> 16; /* what an odd number of int16 leaves of its last word */
    if (unwritten(held + past, words - past) < words - past ||
        (bytes % 4 && memcmp((const uint8_t *)held + bytes, &spare, sizeof spare) != 0))
        return TINYFL_EOVERRUN;
    if (source->type == TINYFL_READS_FLOAT32 && unwritten(held, past))
        return TINYFL_EUNFILLED;
    memcpy(values, held, bytes);
    return TINYFL_OK;
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

int tinyfl_reading_of(void *values, size_t bytes, int32_t *label)
{
    const tinyfl_source *source = now->source;
    int32_t unused = -1;
    if (!label)
        label = &unused;
    *label = -1;
    if (!tinyfl_is_sensor(source) || tinyfl_values_bytes(source) > TINYFL_MAX_READING)
        return TINYFL_EINVAL;
    /* A place of single values, or of a whole reading; of bytes, it is anything. */
    if (bytes > 1 && bytes != tinyfl_values_bytes(source) / source->channels && bytes < tinyfl_values_bytes(source))
        return TINYFL_ETYPE;
    uint8_t reading[TINYFL_MAX_READING + sizeof *label];
    now->taken++;
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
    const size_t inputs = stream->inputs, outputs = stream->outputs;
    float apart[GUARDED + BEHIND], *place = outputs <= GUARDED ? apart : y;
    if (place == apart)
        fill(apart, outputs + BEHIND);
    fill(x, inputs);
    fill(y, outputs);
    code = source->sample(stream, index, x, place);
    if (code < 0)
        return code;
    if (place == apart && (unwritten(y, outputs) < outputs || unwritten(apart + outputs, BEHIND) < BEHIND))
        return TINYFL_EOVERRUN;
    if (unwritten(x, inputs) || (code == TINYFL_OK && unwritten(place, outputs)))
        return TINYFL_EUNFILLED;
    if (place == apart && code == TINYFL_OK)
        memcpy(y, apart, outputs * sizeof *y);
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
    const int started = use(sensing, source), code = started == TINYFL_OK ? tinyfl_reading_of(values, 0, &label) : started;
    if (code != TINYFL_OK)
        return code;
    const size_t bytes = tinyfl_reading_bytes(source);
    memcpy(reading, values, bytes - sizeof label);
    memcpy(reading + bytes - sizeof label, &label, sizeof label);
    return TINYFL_OK;
}
