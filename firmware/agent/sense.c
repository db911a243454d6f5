/* A source outside a round: its samples, what the network makes of them, and a sensor's readings. */
#include <string.h>

#include "commands.h"

enum { MEASURE_NOTHING = 0, MEASURE = 1 };

const tinyfl_source *tinyfl_source_called(tinyfl_string name)
{
    for (const tinyfl_source *source = tinyfl_sources; source->name; source++) {
        size_t same = 0;
        while (same < name.count && source->name[same] && (uint8_t)source->name[same] == name.bytes[same])
            same++;
        if (same == name.count && !source->name[same])
            return source;
    }
    return NULL;
}

/* A place for the sample: that of the learner or, without a plan, the start of the arena. 0 or a refusal. */
static int place_sample(tinyfl_agent *agent, const tinyfl_source *source)
{
    if (agent->state != TINYFL_EMPTY)
        return 0;
    const size_t start = (agent->plan_upload.count + 7u) / 8 * 8;
    const size_t inputs = tinyfl_is_sensor(source) ? tinyfl_sensor_inputs(source) : 1;
    const size_t outputs = tinyfl_is_sensor(source) ? source->outputs : 1;
    if (start > tinyfl_arena_end(agent) || (inputs + outputs) * sizeof(float) > tinyfl_arena_end(agent) - start)
        return TINYFL_REFUSED_MEMORY;
    tinyfl_drop_prediction(agent);
    agent->x = (void *)(agent->arena + start);
    agent->y = agent->x + inputs;
    agent->inputs = (uint32_t)inputs;
    agent->outputs = (uint32_t)outputs;
    return 0;
}

/* Replies with the network's answer to the sample, and its loss if it is labelled. 0 or a refusal. */
static int put_measured(tinyfl_agent *agent, int labelled, tinyfl_writer *reply)
{
    if (!tinyfl_has_weights(agent))
        return TINYFL_REFUSED_STATE;
    const uint32_t truth = tinyfl_largest(agent->y, agent->outputs);
    float loss = 0.0f;
    const int code = labelled ? tinyfl_evaluate(&agent->learner, agent->x, agent->y, &loss, agent->y)
                              : tinyfl_infer(&agent->learner, agent->x, agent->y);
    if (code != TINYFL_OK)
        return TINYFL_REFUSED_NUMERIC;
    const uint32_t best = tinyfl_largest(agent->y, agent->outputs);
    tinyfl_put_map(reply, 6);
    tinyfl_put_text(reply, "loss");
    tinyfl_put_float(reply, loss);
    tinyfl_put_text(reply, "right");
    tinyfl_put_uint(reply, labelled && best == truth);
    tinyfl_put_text(reply, "best");
    tinyfl_put_uint(reply, best);
    return 0;
}

/* As many readings of `most` as fit the reply. */
static void put_readings(tinyfl_agent *agent, const tinyfl_source *source, uint64_t most, tinyfl_writer *reply)
{
    enum { OVERHEAD = 80 }; /* maximum bytes of the map around them */
    const size_t bytes = tinyfl_reading_bytes(source), room = (reply->room - OVERHEAD) / bytes;
    const size_t count = most < room ? (size_t)most : room;
    uint8_t reading[TINYFL_MAX_READING + sizeof(int32_t)];
    tinyfl_put_map(reply, 4);
    tinyfl_put_text(reply, "data");
    uint8_t *at = tinyfl_put_room(reply, count * bytes);
    agent->sensed = at ? TINYFL_OK : TINYFL_EMEMORY;
    if (at)
        memset(at, 0, count * bytes);
    for (size_t i = 0; i < count && agent->sensed == TINYFL_OK; i++) {
        agent->port->alive();
        agent->sensed = tinyfl_sense_reading(&agent->sensing, source, reading);
        memcpy(at + i * bytes, reading, bytes);
    }
}

static void put_end(const tinyfl_agent *agent, tinyfl_writer *reply)
{
    tinyfl_put_text(reply, "code");
    tinyfl_put_int(reply, agent->sensed);
    tinyfl_put_text(reply, "late");
    tinyfl_put_uint(reply, agent->sensing.late);
    tinyfl_put_text(reply, "taken");
    tinyfl_put_uint(reply, agent->sensing.taken);
}

static int put_sample(const tinyfl_agent *agent, uint64_t from, tinyfl_writer *reply)
{
    enum { OVERHEAD = 80 };
    const size_t count = tinyfl_sample_bytes(agent);
    const size_t left = count - (size_t)from, room = reply->room - OVERHEAD;
    tinyfl_put_map(reply, 6);
    tinyfl_put_text(reply, "off");
    tinyfl_put_uint(reply, from);
    tinyfl_put_text(reply, "len");
    tinyfl_put_uint(reply, count);
    tinyfl_put_text(reply, "data");
    tinyfl_put_bytes(reply, (const uint8_t *)agent->x + from, left < room ? left : room);
    put_end(agent, reply);
    return 0;
}

/* Takes the next sample of the source. 0 or a refusal. */
static int take(tinyfl_agent *agent, const tinyfl_source *source)
{
    const int refusal = place_sample(agent, source);
    if (refusal)
        return refusal;
    const tinyfl_stream stream = {.round = UINT32_MAX, .inputs = agent->inputs, .outputs = agent->outputs};
    agent->feed = TINYFL_SENSED;
    agent->sensed = tinyfl_sense(&agent->sensing, source, &stream, agent->sensing.index++, agent->x, agent->y);
    if (agent->sensed < 0)
        memset(agent->x, 0, tinyfl_sample_bytes(agent));
    else if (agent->sensed == TINYFL_UNLABELLED)
        memset(agent->y, 0, agent->outputs * sizeof(float));
    return 0;
}

int tinyfl_sense_write(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    tinyfl_string name;
    uint64_t readings, measure, from;
    if (!tinyfl_get_text(request, "source", &name) || !tinyfl_get_uint(request, "readings", UINT32_MAX, &readings) ||
        !tinyfl_get_uint(request, "measure", MEASURE, &measure))
        return TINYFL_REFUSED_INVALID;
    if (agent->state == TINYFL_LEARNING)
        return TINYFL_REFUSED_STATE;
    const tinyfl_source *source = tinyfl_source_called(name);
    if (!source)
        return TINYFL_REFUSED_SOURCE;
    if (readings && (!tinyfl_is_sensor(source) || tinyfl_values_bytes(source) > TINYFL_MAX_READING))
        return TINYFL_REFUSED_SOURCE;
    if (tinyfl_get_uint(request, "at", UINT32_MAX, &from))
        agent->sensing.cursor = (uint32_t)from;
    agent->sensing.late = agent->sensing.taken = 0;
    if (readings) {
        put_readings(agent, source, readings, reply);
        put_end(agent, reply);
        return 0;
    }
    const int refusal = take(agent, source);
    if (refusal)
        return refusal;
    if (measure == MEASURE_NOTHING || agent->sensed < 0)
        return put_sample(agent, 0, reply);
    const int unmeasured = put_measured(agent, agent->sensed == TINYFL_OK, reply);
    if (!unmeasured)
        put_end(agent, reply);
    return unmeasured;
}

int tinyfl_sense_read(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    uint64_t from;
    if (agent->feed != TINYFL_SENSED)
        return TINYFL_REFUSED_STATE;
    if (!tinyfl_get_uint(request, "off", tinyfl_sample_bytes(agent), &from))
        return TINYFL_REFUSED_INVALID;
    return put_sample(agent, from, reply);
}
