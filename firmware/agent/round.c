/* A round: the inner loop on this board, over fed samples or those of its own source. */
#include <string.h>

#include "commands.h"

size_t tinyfl_sample_bytes(const tinyfl_agent *agent)
{
    return ((size_t)agent->inputs + agent->outputs) * sizeof(float);
}

size_t tinyfl_fill(tinyfl_agent *agent, tinyfl_string data, size_t whole)
{
    const size_t at = (size_t)(agent->fed % whole), missing = whole - at;
    const size_t taken = data.count < missing ? data.count : missing;
    if (taken > 0)
        memcpy((uint8_t *)agent->x + at, data.bytes, taken);
    agent->fed += taken;
    return taken;
}

static uint64_t samples_in_all(const tinyfl_round *round) { return (uint64_t)round->samples * round->passes; }

/* One sample forward and backward; weights move after every `batch` samples, and at the end of a pass. */
static int learn(tinyfl_agent *agent, float *before)
{
    const tinyfl_round *round = &agent->round;
    if (round->batch == 1)
        return tinyfl_learn(&agent->learner, agent->x, agent->y, round->rate, before);
    const int code = tinyfl_accumulate(&agent->learner, agent->x, agent->y, agent->gradient, before);
    const uint32_t index = (uint32_t)(agent->done % round->samples), filled = index % round->batch + 1;
    if (code == TINYFL_OK && (filled == round->batch || index + 1 == round->samples))
        return tinyfl_step(&agent->learner, agent->gradient, round->rate, filled);
    return code;
}

static void fail(tinyfl_agent *agent, int code)
{
    agent->state = TINYFL_FAILED;
    agent->code = code;
}

/* Learns from the sample in x and y, and drops it. */
static void take_sample(tinyfl_agent *agent)
{
    float before;
    const int code = learn(agent, &before);
    if (code != TINYFL_OK) {
        fail(agent, code);
        return;
    }
    agent->loss += before;
    if (++agent->done < samples_in_all(&agent->round))
        return;
    tinyfl_sha256_of(agent->weights, tinyfl_weights_bytes(agent), agent->hash);
    agent->state = TINYFL_LEARNT;
}

void tinyfl_round_step(tinyfl_agent *agent)
{
    const tinyfl_round *round = &agent->round;
    const uint32_t index = (uint32_t)(agent->done % round->samples);
    const int code = round->source->sample(&round->stream, index, agent->x, agent->y);
    if (code == TINYFL_OK)
        take_sample(agent);
    else
        fail(agent, code);
}

/* The source of this name, or NULL. */
static const tinyfl_source *source_called(tinyfl_string name)
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

static int get_u32(const tinyfl_map *request, const char *key, uint32_t least, uint32_t *value)
{
    uint64_t number;
    if (!tinyfl_get_uint(request, key, UINT32_MAX, &number) || number < least)
        return 0;
    *value = (uint32_t)number;
    return 1;
}

static int get_rate(const tinyfl_map *request, const char *key, float *value)
{
    return tinyfl_get_float(request, key, value) && *value >= 0.0f && *value < TINYFL_LIMIT;
}

static int read_round(const tinyfl_agent *agent, const tinyfl_map *request, tinyfl_round *round)
{
    tinyfl_string base, source;
    memset(round, 0, sizeof *round);
    round->stream.inputs = agent->inputs;
    round->stream.outputs = agent->outputs;
    if (!get_u32(request, "round", 0, &round->stream.round) || !get_u32(request, "device", 0, &round->stream.device) ||
        !tinyfl_get_uint(request, "seed", UINT64_MAX, &round->stream.seed) ||
        !get_u32(request, "samples", 1, &round->samples) || !get_u32(request, "batch", 1, &round->batch) ||
        !get_u32(request, "passes", 1, &round->passes) || !get_rate(request, "rate", &round->rate) ||
        !get_rate(request, "clip", &round->clip) || !tinyfl_get_bytes(request, "base", &base) ||
        base.count != sizeof round->base || !tinyfl_get_text(request, "source", &source))
        return TINYFL_REFUSED_INVALID;
    memcpy(round->base, base.bytes, sizeof round->base);
    if (source.count == 0)
        return 0;
    round->source = source_called(source);
    return round->source ? 0 : TINYFL_REFUSED_SOURCE;
}

/* Compares all fields, but not the padding between them. */
static int same_round(const tinyfl_round *a, const tinyfl_round *b)
{
    return a->stream.seed == b->stream.seed && a->stream.device == b->stream.device && a->stream.round == b->stream.round &&
           a->samples == b->samples && a->batch == b->batch && a->passes == b->passes &&
           memcmp(&a->rate, &b->rate, sizeof a->rate) == 0 && memcmp(&a->clip, &b->clip, sizeof a->clip) == 0 &&
           memcmp(a->base, b->base, sizeof a->base) == 0 && a->source == b->source;
}

static int start_round(tinyfl_agent *agent, const tinyfl_round *round)
{
    if (memcmp(round->base, agent->hash, sizeof round->base) != 0)
        return TINYFL_REFUSED_BASE;
    if (round->batch > 1 && !agent->gradient)
        return TINYFL_REFUSED_MEMORY;
    if (tinyfl_learner_init(&agent->learner, &agent->plan, agent->weights, agent->memory,
                            tinyfl_learner_bytes(&agent->plan), round->clip) != TINYFL_OK)
        return TINYFL_REFUSED_NUMERIC;
    if (round->batch > 1) {
        tinyfl_drop_prediction(agent);
        memset(agent->gradient, 0, tinyfl_weights_bytes(agent));
    }
    agent->round = *round;
    agent->state = TINYFL_LEARNING;
    agent->feed = round->source ? TINYFL_NO_STREAM : TINYFL_SAMPLES;
    agent->fed = agent->done = 0;
    agent->loss = 0.0f;
    return 0;
}

int tinyfl_train(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    tinyfl_round round;
    if (agent->state == TINYFL_EMPTY || agent->state == TINYFL_PLANNED)
        return TINYFL_REFUSED_STATE;
    int refusal = read_round(agent, request, &round);
    if (refusal)
        return refusal;
    const int again = agent->state != TINYFL_READY && same_round(&round, &agent->round);
    if (!again && (agent->state == TINYFL_LEARNING || agent->state == TINYFL_FAILED))
        return TINYFL_REFUSED_STATE;
    if (!again) {
        refusal = start_round(agent, &round);
        if (refusal)
            return refusal;
    }
    if (agent->state == TINYFL_LEARNING && agent->round.source)
        return TINYFL_LATER;
    return tinyfl_status(agent, request, reply);
}

int tinyfl_samples(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    uint64_t off;
    tinyfl_string data;
    if (!tinyfl_get_uint(request, "off", UINT64_MAX, &off) || !tinyfl_get_bytes(request, "data", &data))
        return TINYFL_REFUSED_INVALID;
    if (agent->feed != TINYFL_SAMPLES || agent->state < TINYFL_LEARNING)
        return TINYFL_REFUSED_STATE;
    if (agent->state == TINYFL_LEARNING && off == agent->fed) {
        const size_t whole = tinyfl_sample_bytes(agent);
        const uint64_t missing = (samples_in_all(&agent->round) - agent->done) * whole - agent->fed % whole;
        if (data.count > missing)
            return TINYFL_REFUSED_INVALID;
        while (data.count > 0 && agent->state == TINYFL_LEARNING) {
            const size_t taken = tinyfl_fill(agent, data, whole);
            data.bytes += taken;
            data.count -= taken;
            if (agent->fed % whole == 0)
                take_sample(agent);
        }
    }
    if (agent->state == TINYFL_FAILED)
        return agent->code == TINYFL_ENUMERIC ? TINYFL_REFUSED_NUMERIC : TINYFL_REFUSED_STATE;
    tinyfl_put_map(reply, 1);
    tinyfl_put_text(reply, "off");
    tinyfl_put_uint(reply, agent->fed);
    return 0;
}

int tinyfl_abort(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    if (agent->state == TINYFL_LEARNING)
        fail(agent, TINYFL_EABORTED);
    return tinyfl_status(agent, request, reply);
}
