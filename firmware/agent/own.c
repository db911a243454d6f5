/* Online learning from the board's own source, without a host: a sample at each turn of the agent, between requests
 * (SPEC.md, online). */
#include <string.h>

#include "commands.h"

enum { NAME = TINYFL_NAME_BYTES, ENDLESS = 0 };

static int is_class_head(const tinyfl_online_board *o) { return o->core.set.head == TINYFL_HEAD_CLASSES; }

/* Whether samples of the source fit the set, and its labels the head if they are to be learnt. */
static int fits(const tinyfl_online_board *o, const tinyfl_source *source, int labels)
{
    const tinyfl_online_set *set = &o->core.set;
    if (o->stage == TINYFL_OF_PROGRAM)
        return 0;
    if (!tinyfl_is_sensor(source))
        return 1;
    return tinyfl_sensor_inputs(source) == set->inputs && source->outputs <= set->places &&
           (!labels || is_class_head(o) || source->outputs == o->core.state->outputs);
}

int tinyfl_online_use(tinyfl_agent *agent, tinyfl_string name, int labels, uint32_t samples)
{
    tinyfl_online_board *o = &agent->online;
    const tinyfl_source *source = NULL;
    if (name.count > TINYFL_SOURCE_NAME || (labels && o->core.set.head == TINYFL_HEAD_RECONSTRUCT))
        return TINYFL_REFUSED_INVALID;
    if (name.count > 0) {
        source = tinyfl_source_called(name);
        if (!source)
            return TINYFL_REFUSED_SOURCE;
        if (!fits(o, source, labels))
            return TINYFL_REFUSED_INVALID;
    }
    memset(o->sensor, 0, sizeof o->sensor);
    o->sensor[0] = (uint32_t)labels;
    if (name.count > 0)
        memcpy(o->sensor + 1, name.bytes, name.count);
    o->source = source;
    o->left = samples;
    o->bounded = samples != ENDLESS;
    o->sensed = TINYFL_OK;
    return 0;
}

void tinyfl_online_resume(tinyfl_agent *agent)
{
    uint32_t count;
    const uint8_t *sensor = tinyfl_store_find(&agent->store, "sensor", &count);
    if (!tinyfl_has_online(agent) || !sensor || count != sizeof agent->online.sensor)
        return;
    const tinyfl_string name = tinyfl_padded(sensor + 4, TINYFL_SOURCE_NAME);
    (void)tinyfl_online_use(agent, name, sensor[0] & 1, ENDLESS); /* a firmware without this source waits for a host */
}

int tinyfl_online_listen(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    tinyfl_string name;
    uint64_t samples, labels;
    if (!tinyfl_get_text(request, "source", &name) || !tinyfl_get_uint(request, "samples", UINT32_MAX, &samples) ||
        !tinyfl_get_uint(request, "labels", 1, &labels))
        return TINYFL_REFUSED_INVALID;
    if (!tinyfl_has_online(agent))
        return TINYFL_REFUSED_STATE;
    const int refusal = tinyfl_online_use(agent, name, (int)labels, (uint32_t)samples);
    if (refusal)
        return refusal;
    tinyfl_put_map(reply, 1);
    tinyfl_put_text(reply, "samples");
    tinyfl_put_uint(reply, agent->online.core.state->samples);
    return 0;
}

/* The name of class `number` among those in a source's `labels`, with commas between; empty beyond them. */
static tinyfl_string label_called(const tinyfl_source *source, uint32_t number)
{
    const char *at = source->labels ? source->labels : "";
    for (; number > 0 && *at; number--) {
        while (*at && *at != ',')
            at++;
        at += *at == ',';
    }
    while (*at == ' ')
        at++;
    tinyfl_string name = {(const uint8_t *)at, 0};
    while (name.count < NAME && at[name.count] && at[name.count] != ',')
        name.count++;
    return name;
}

/* The output of that name, or the first without one, or a new one. */
static uint32_t output_called(const tinyfl_agent *agent, tinyfl_string name)
{
    const uint8_t *names = agent->online.names;
    const uint32_t outputs = agent->online.core.state->outputs;
    uint32_t free = outputs;
    for (uint32_t i = outputs; i-- > 0;) {
        const uint8_t *here = names + (size_t)i * NAME;
        if (memcmp(here, name.bytes, name.count) == 0 && (name.count == NAME || here[name.count] == 0))
            return i;
        if (here[0] == 0)
            free = i;
    }
    return free;
}

/* Learns from the label that the source gave its sample: TINYFL_OK or a code. */
static int own_label(tinyfl_agent *agent, uint32_t outputs)
{
    tinyfl_online_board *o = &agent->online;
    const uint32_t sample = o->core.state->samples;
    if (!is_class_head(o))
        return tinyfl_online_target(&o->core, sample, o->y, NULL);
    const uint32_t number = tinyfl_largest(o->y, outputs);
    const tinyfl_string name = label_called(o->source, number);
    const uint32_t output = name.count > 0 ? output_called(agent, name) : number;
    const int code = tinyfl_online_label(&o->core, sample, output, NULL);
    if (code == TINYFL_OK && name.count > 0)
        tinyfl_online_name(agent, output, name);
    return code;
}

static int take(tinyfl_agent *agent)
{
    tinyfl_online_board *o = &agent->online;
    const uint32_t outputs = tinyfl_is_sensor(o->source) ? o->source->outputs : o->core.state->outputs;
    const tinyfl_stream stream = {.round = UINT32_MAX, .inputs = o->core.set.inputs, .outputs = outputs};
    if (tinyfl_online_ready(agent) != 0)
        return TINYFL_EABORTED;
    o->fed = 0; /* a host's incomplete sample has lost its place */
    const int sensed = tinyfl_sense(&agent->sensing, o->source, &stream, agent->sensing.index++, o->x, o->y);
    if (sensed < 0)
        return sensed;
    const int code = tinyfl_online_go(agent);
    return code == TINYFL_OK && o->sensor[0] && sensed == TINYFL_OK ? own_label(agent, outputs) : code;
}

int tinyfl_online_step(tinyfl_agent *agent)
{
    tinyfl_online_board *o = &agent->online;
    if (!o->source || agent->state == TINYFL_LEARNING)
        return 0;
    const uint32_t before = o->core.state->samples;
    o->sensed = take(agent);
    if (o->core.state->samples != before)
        tinyfl_online_mark(agent);
    if (o->bounded && --o->left == 0)
        o->source = NULL;
    return o->source && (o->bounded || !tinyfl_is_recorded(&agent->sensing));
}
