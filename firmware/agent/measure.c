/* The current network's outputs, and its loss on labelled samples, without learning. */
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

/* Prepares the stream of floats `feed` for a block at `off`. 1 if the block is the next one, 0 if not, or minus a refusal. */
static int open_stream(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_feed feed, tinyfl_string *data)
{
    uint64_t off;
    if (!tinyfl_get_uint(request, "off", UINT64_MAX, &off) || !tinyfl_get_bytes(request, "data", data))
        return -TINYFL_REFUSED_INVALID;
    if (!tinyfl_has_weights(agent))
        return -TINYFL_REFUSED_STATE;
    if (off == 0 || agent->feed != feed) {
        agent->feed = feed;
        agent->fed = 0;
        agent->measured = agent->right = 0;
        agent->measured_loss = 0.0f;
    }
    return off == agent->fed;
}

uint32_t tinyfl_largest(const float *values, uint32_t count)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++)
        if (values[i] > values[best])
            best = i;
    return best;
}

/* Measures the sample in x and y. The output overwrites the target, after the comparison. */
static int measure(tinyfl_agent *agent)
{
    const uint32_t outputs = agent->outputs;
    const uint32_t truth = tinyfl_largest(agent->y, outputs);
    float loss;
    if (tinyfl_evaluate(&agent->learner, agent->x, agent->y, &loss, agent->y) != TINYFL_OK)
        return TINYFL_REFUSED_NUMERIC;
    agent->measured++;
    agent->measured_loss += loss;
    agent->right += tinyfl_largest(agent->y, outputs) == truth;
    return 0;
}

int tinyfl_evaluation(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    tinyfl_string data;
    const int next = open_stream(agent, request, TINYFL_EVALUATE, &data);
    if (next < 0)
        return -next;
    const size_t whole = tinyfl_sample_bytes(agent);
    while (next && data.count > 0) {
        const size_t taken = tinyfl_fill(agent, data, whole);
        data.bytes += taken;
        data.count -= taken;
        const int refusal = agent->fed % whole == 0 ? measure(agent) : 0;
        if (refusal) {
            agent->feed = TINYFL_NO_STREAM;
            return refusal;
        }
    }
    tinyfl_put_map(reply, 4);
    tinyfl_put_text(reply, "off");
    tinyfl_put_uint(reply, agent->fed);
    tinyfl_put_text(reply, "samples");
    tinyfl_put_uint(reply, agent->measured);
    tinyfl_put_text(reply, "loss");
    tinyfl_put_float(reply, agent->measured > 0 ? agent->measured_loss / (float)agent->measured : 0.0f);
    tinyfl_put_text(reply, "right");
    tinyfl_put_uint(reply, agent->right);
    return 0;
}

int tinyfl_take_x(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_feed feed, float *outputs, uint64_t *off)
{
    tinyfl_string data;
    const int next = open_stream(agent, request, feed, &data);
    if (next < 0)
        return next;
    const size_t whole = agent->inputs * sizeof(float);
    if (next && data.count > whole - agent->fed)
        return -TINYFL_REFUSED_INVALID;
    if (next && data.count > 0)
        tinyfl_fill(agent, data, whole);
    *off = agent->fed;
    if (agent->fed < whole)
        return 0;
    return tinyfl_infer(&agent->learner, agent->x, outputs) == TINYFL_OK ? 1 : -TINYFL_REFUSED_NUMERIC;
}

int tinyfl_inference(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    uint64_t off;
    const int complete = tinyfl_take_x(agent, request, TINYFL_INFER, agent->y, &off);
    if (complete < 0)
        return -complete;
    tinyfl_put_map(reply, complete ? 2 : 1);
    tinyfl_put_text(reply, "off");
    tinyfl_put_uint(reply, off);
    if (complete) {
        tinyfl_put_text(reply, "data");
        tinyfl_put_bytes(reply, agent->y, agent->outputs * sizeof(float));
    }
    return 0;
}
