/* The plan and the weights: upload, layout in the arena, download. */
#include <string.h>

#include "commands.h"

#define MAX_PLAN_BYTES (8 + sizeof(tinyfl_layer) * TINYFL_MAX_LAYERS)

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
    agent->held = (tinyfl_held){0};
    agent->kept = (tinyfl_kept){.blocks = agent->y + agent->outputs};
    return 0;
}

/* Gives weights that are held a place behind the sample, or takes it away; either drops what is kept behind it. 0 or a refusal. */
static int place_held(tinyfl_agent *agent, int held)
{
    float *place = agent->y + agent->outputs;
    const size_t start = (size_t)((uint8_t *)place - agent->arena), bytes = tinyfl_weights_bytes(agent);
    if (held == (agent->held.weights != NULL))
        return 0;
    if (held && bytes > tinyfl_arena_end(agent) - start)
        return TINYFL_REFUSED_MEMORY;
    if (held)
        tinyfl_drop_prediction(agent);
    agent->held = (tinyfl_held){.weights = held ? place : NULL};
    agent->kept = (tinyfl_kept){.blocks = held ? place + bytes / sizeof *place : place};
    return 0;
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
        tinyfl_drop_sets_of(agent, TINYFL_OF_LEARNER);
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

/* Reads what the first block of an upload says of its form. 0 or a refusal. */
static int read_form(const tinyfl_agent *agent, const tinyfl_map *request, tinyfl_form *form)
{
    const tinyfl_held *held = &agent->held;
    uint64_t kind = TINYFL_CODEC_FP32;
    tinyfl_string onto;
    *form = (tinyfl_form){0};
    tinyfl_get_uint(request, "codec", TINYFL_CODEC_INT4, &kind);
    form->codec.kind = (uint8_t)kind;
    if (!tinyfl_get_bytes(request, "onto", &onto))
        return 0;
    form->held = 1;
    form->adds = onto.count > 0;
    if (form->adds && onto.count != sizeof held->sha)
        return TINYFL_REFUSED_INVALID;
    return form->adds && !(held->valid && memcmp(onto.bytes, held->sha, onto.count) == 0) ? TINYFL_REFUSED_BASE : 0;
}

/* Whether a first block announces the agent's upload. */
static int is_upload(const tinyfl_agent *agent, const tinyfl_block *b, const tinyfl_form *form)
{
    const tinyfl_form *ours = &agent->form;
    return tinyfl_block_continues(b, &agent->weights_upload) && form->codec.kind == ours->codec.kind &&
           form->held == ours->held && form->adds == ours->adds;
}

/* Whether the weights that a first block announces are here already: in a request that is repeated, or since the device has
 * learnt them. A change that was added is not one of the weights held now. */
static int is_here(const tinyfl_agent *agent, const tinyfl_block *b, const tinyfl_form *form, int unknown)
{
    const int repeated = agent->state == TINYFL_READY && is_upload(agent, b, form) && (!form->adds || unknown);
    return repeated || (tinyfl_has_weights(agent) && !form->held && form->codec.kind == TINYFL_CODEC_FP32 &&
                        memcmp(agent->hash, b->sha.bytes, sizeof agent->hash) == 0);
}

/* Begins an upload, unless it is here, or goes on. 0 or a refusal. */
static int begin_upload(tinyfl_agent *agent, const tinyfl_map *request, const tinyfl_block *b)
{
    tinyfl_upload *upload = &agent->weights_upload;
    tinyfl_form form;
    const int unknown = read_form(agent, request, &form);
    if (unknown == TINYFL_REFUSED_INVALID ||
        b->count != tinyfl_codec_bytes(&form.codec, &agent->plan, TINYFL_EVERY_LAYER))
        return TINYFL_REFUSED_INVALID;
    if (is_here(agent, b, &form, unknown)) {
        agent->state = TINYFL_READY;
        agent->form = form;
        tinyfl_upload_start(upload, b);
        upload->done = upload->count;
        return 0;
    }
    if (unknown)
        return unknown;
    if (agent->state == TINYFL_PLANNED && is_upload(agent, b, &form))
        return 0;
    const int refusal = place_held(agent, form.held);
    if (refusal)
        return refusal;
    agent->form = form;
    tinyfl_upload_start(upload, b);
    agent->state = TINYFL_PLANNED;
    agent->feed = TINYFL_NO_STREAM;
    return 0;
}

/* Makes weights of a complete upload's bytes, which are in their place. 0 or a refusal. */
static int take_upload(tinyfl_agent *agent)
{
    const tinyfl_form *form = &agent->form;
    const tinyfl_upload *upload = &agent->weights_upload;
    tinyfl_held *held = &agent->held;
    const size_t bytes = tinyfl_weights_bytes(agent);
    int code = TINYFL_OK;
    if (form->adds)
        code = tinyfl_decode(&form->codec, &agent->plan, TINYFL_EVERY_LAYER, agent->weights, upload->count, 1.0f, held->weights);
    else if (form->codec.kind != TINYFL_CODEC_FP32)
        code = tinyfl_decode_in_place(&form->codec, &agent->plan, TINYFL_EVERY_LAYER, agent->weights, upload->count);
    if (code != TINYFL_OK)
        return TINYFL_REFUSED_NUMERIC;
    held->valid = 0;
    if (form->adds)
        memcpy(agent->weights, held->weights, bytes);
    else if (form->held)
        memcpy(held->weights, agent->weights, bytes);
    const int refusal = tinyfl_take_weights(agent);
    if (refusal)
        return refusal;
    if (form->codec.kind == TINYFL_CODEC_FP32)
        memcpy(agent->hash, upload->sha, sizeof agent->hash);
    else
        tinyfl_hash_of(agent->port, agent->weights, bytes, agent->hash);
    memcpy(held->sha, agent->hash, sizeof held->sha);
    held->valid = form->held;
    agent->state = TINYFL_READY;
    return 0;
}

int tinyfl_weights_write(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    tinyfl_upload *upload = &agent->weights_upload;
    tinyfl_block b;
    if (agent->state == TINYFL_EMPTY || agent->state == TINYFL_LEARNING)
        return TINYFL_REFUSED_STATE;
    const size_t bytes = tinyfl_weights_bytes(agent);
    if (!tinyfl_block_read(request, bytes, &b))
        return TINYFL_REFUSED_INVALID;
    int refusal = b.off == 0 ? begin_upload(agent, request, &b) : 0;
    if (refusal)
        return refusal;
    const int last = tinyfl_take_block(agent->port, upload, &b, (uint8_t *)agent->weights);
    if (last < 0)
        return -last;
    refusal = last ? take_upload(agent) : 0;
    if (refusal) {
        *upload = (tinyfl_upload){0};
        return refusal;
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
