/* The plan and the weights: upload, layout in the arena, download. */
#include <string.h>

#include "commands.h"

#define MAX_PLAN_BYTES (8 + sizeof(tinyfl_layer) * TINYFL_MAX_LAYERS)

size_t tinyfl_weights_bytes(const tinyfl_agent *agent) { return tinyfl_plan_weights(&agent->plan) * sizeof(float); }

void tinyfl_drop_plan(tinyfl_agent *agent)
{
    agent->state = TINYFL_EMPTY;
    agent->plan_upload = agent->weights_upload = (tinyfl_upload){0};
    agent->kept = (tinyfl_kept){0};
    agent->feed = TINYFL_NO_STREAM;
}

int tinyfl_has_weights(const tinyfl_agent *agent)
{
    const tinyfl_inner *inner = &agent->round.inner;
    return agent->state == TINYFL_READY ||
           (agent->state == TINYFL_LEARNT && inner->returns == TINYFL_CHANGE && !inner->local &&
            inner->up.kind == TINYFL_CODEC_FP32);
}

int tinyfl_has_update(const tinyfl_agent *agent)
{
    return agent->state == TINYFL_READY || agent->state == TINYFL_LEARNT;
}

size_t tinyfl_update_bytes(const tinyfl_agent *agent)
{
    return agent->state == TINYFL_LEARNT ? agent->sent : tinyfl_weights_bytes(agent);
}

/* Lays out the arena after the plan's bytes, as in SPEC.md. */
static int lay_out(tinyfl_agent *agent, size_t plan)
{
    const size_t weights = tinyfl_weights_bytes(agent), memory = tinyfl_learner_bytes(&agent->plan);
    const size_t inputs = agent->inputs * sizeof(float), outputs = agent->outputs * sizeof(float);
    /* Each part is at most 2^27 bytes, so the sums cannot wrap. */
    const size_t x = plan + weights + memory;
    if (x + inputs + outputs > tinyfl_arena_end(agent))
        return TINYFL_REFUSED_MEMORY;
    agent->weights = (void *)(agent->arena + plan);
    agent->memory = agent->arena + plan + weights;
    agent->x = (void *)(agent->arena + x);
    agent->y = (void *)(agent->arena + x + inputs);
    agent->kept = (tinyfl_kept){.blocks = agent->y + agent->outputs};
    return 0;
}

size_t tinyfl_learner_end(const tinyfl_agent *agent)
{
    if (agent->state == TINYFL_EMPTY)
        return agent->plan_upload.count;
    const size_t loop = agent->state == TINYFL_LEARNING ? tinyfl_loop_bytes(&agent->plan, &agent->round.inner) : 0;
    return (size_t)((const uint8_t *)(agent->kept.blocks + 2 * agent->kept.count) - agent->arena) + loop;
}

int tinyfl_take_plan(tinyfl_agent *agent, size_t count)
{
    if (tinyfl_plan_read(&agent->plan, agent->arena, count) != TINYFL_OK)
        return TINYFL_REFUSED_PLAN;
    agent->inputs = (uint32_t)tinyfl_plan_inputs(&agent->plan);
    agent->outputs = (uint32_t)tinyfl_plan_outputs(&agent->plan);
    const int refusal = lay_out(agent, count);
    if (refusal)
        return refusal;
    agent->state = TINYFL_PLANNED;
    agent->weights_upload = (tinyfl_upload){0};
    return 0;
}

int tinyfl_take_weights(tinyfl_agent *agent)
{
    if (tinyfl_learner_init(&agent->learner, &agent->plan, agent->weights, agent->memory, tinyfl_learner_bytes(&agent->plan),
                            0.0f) != TINYFL_OK)
        return TINYFL_REFUSED_NUMERIC;
    return 0;
}

int tinyfl_plan_write(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    const size_t most = tinyfl_arena_end(agent) < MAX_PLAN_BYTES ? tinyfl_arena_end(agent) : MAX_PLAN_BYTES;
    tinyfl_upload *upload = &agent->plan_upload;
    tinyfl_block b;
    if (!tinyfl_block_read(request, most, &b))
        return TINYFL_REFUSED_INVALID;
    if (agent->state == TINYFL_LEARNING)
        return TINYFL_REFUSED_STATE;
    tinyfl_drop_prediction(agent);
    if (!tinyfl_block_continues(&b, upload)) {
        tinyfl_drop_plan(agent);
        tinyfl_drop_classes(agent, TINYFL_OF_LEARNER);
        tinyfl_upload_start(upload, &b);
    }
    const int last = tinyfl_take_block(agent->port, upload, &b, agent->arena);
    const int refusal = last < 0 ? -last : last ? tinyfl_take_plan(agent, upload->count) : 0;
    if (refusal) {
        if (last) /* complete, but invalid */
            tinyfl_drop_plan(agent);
        return refusal;
    }
    return tinyfl_put_offset(reply, upload->done);
}

int tinyfl_weights_write(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    tinyfl_upload *upload = &agent->weights_upload;
    tinyfl_block b;
    if (agent->state == TINYFL_EMPTY || agent->state == TINYFL_LEARNING)
        return TINYFL_REFUSED_STATE;
    const size_t bytes = tinyfl_weights_bytes(agent);
    if (!tinyfl_block_read(request, bytes, &b) || (b.off == 0 && b.count != bytes))
        return TINYFL_REFUSED_INVALID;
    if (b.off == 0 && tinyfl_has_weights(agent) && memcmp(agent->hash, b.sha.bytes, sizeof agent->hash) == 0) {
        agent->state = TINYFL_READY;
        tinyfl_upload_start(upload, &b);
        upload->done = upload->count;
    } else if (b.off == 0 && (agent->state != TINYFL_PLANNED || !tinyfl_block_continues(&b, upload))) {
        tinyfl_upload_start(upload, &b);
        agent->state = TINYFL_PLANNED;
        agent->feed = TINYFL_NO_STREAM;
    }
    const int last = tinyfl_take_block(agent->port, upload, &b, (uint8_t *)agent->weights);
    if (last < 0)
        return -last;
    if (last) {
        memcpy(agent->hash, upload->sha, sizeof agent->hash);
        const int refusal = tinyfl_take_weights(agent);
        if (refusal) {
            *upload = (tinyfl_upload){0};
            return refusal;
        }
        agent->state = TINYFL_READY;
    }
    return tinyfl_put_offset(reply, upload->done);
}

int tinyfl_weights_read(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    uint64_t off;
    if (!tinyfl_has_update(agent))
        return TINYFL_REFUSED_STATE;
    const size_t bytes = tinyfl_update_bytes(agent);
    if (!tinyfl_get_uint(request, "off", bytes, &off))
        return TINYFL_REFUSED_INVALID;
    return tinyfl_put_part(reply, off, (const uint8_t *)agent->weights, bytes, off);
}
