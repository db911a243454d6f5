/* A round: the inner loop on this board, over fed samples or those of its own source. */
#include <string.h>

#include "commands.h"

static void fail(tinyfl_agent *agent, int code)
{
    agent->state = TINYFL_FAILED;
    agent->code = code;
}

/* What the codec has lost so far, of all that is sent; NULL if that is not kept. */
static float *residual_of(const tinyfl_agent *agent)
{
    const tinyfl_inner *inner = &agent->round.inner;
    const size_t layers = inner->kept & TINYFL_KEEPS_LAYERS ? tinyfl_layers_weights(&agent->plan, inner->local) : 0;
    return inner->kept & TINYFL_KEEPS_RESIDUAL ? agent->kept.blocks + layers : NULL;
}

/* Turns the weights that are sent into what is encoded: their change since `start`, if it is not NULL, and the residual. */
static void make_change(const tinyfl_agent *agent, const float *start, const float *residual)
{
    size_t at = 0;
    for (size_t i = 0; i < agent->plan.count; i++) {
        const int sent = !(agent->round.inner.local >> i & 1);
        for (const size_t end = at + tinyfl_layers_weights(&agent->plan, 1ull << i); at < end; at++) {
            if (sent && start)
                agent->weights[at] -= start[at];
            if (sent && residual)
                agent->weights[at] += *residual++;
        }
    }
}

/* Encodes the values in the place of the weights, and leaves in the residual what that loses of them. */
static void encode(tinyfl_agent *agent, uint64_t sent, float *residual)
{
    const tinyfl_codec *up = &agent->round.inner.up;
    if (residual)
        memcpy(residual, agent->weights, agent->sent);
    tinyfl_encode(up, &agent->plan, sent, agent->weights, agent->weights, &agent->sent);
    if (residual)
        tinyfl_decode(up, &agent->plan, sent, agent->weights, agent->sent, -1.0f, residual);
}

/* The round's end: what is kept goes to its block, and what is returned to the place of the weights. */
static void finish(tinyfl_agent *agent)
{
    const tinyfl_inner *inner = &agent->round.inner;
    const uint64_t sent = ~inner->local;
    const int encoded = inner->up.kind != TINYFL_CODEC_FP32;
    float *residual = residual_of(agent);
    if (encoded)
        make_change(agent, inner->returns == TINYFL_CHANGE ? agent->loop.start : NULL, residual);
    if ((inner->kept & TINYFL_KEEPS_LAYERS && !tinyfl_layers_below_limit(&agent->learner, inner->local)) ||
        (encoded && !tinyfl_layers_below_limit(&agent->learner, sent))) {
        fail(agent, TINYFL_ENUMERIC);
        return;
    }
    if (inner->kept & TINYFL_KEEPS_LAYERS)
        tinyfl_layers_gather(&agent->plan, inner->local, agent->weights, agent->kept.blocks);
    if (inner->kept)
        agent->kept.round = agent->round.stream.round + 1;
    tinyfl_layers_gather(&agent->plan, sent, agent->weights, agent->weights);
    agent->sent = tinyfl_layers_weights(&agent->plan, sent) * sizeof(float);
    if (encoded)
        encode(agent, sent, residual);
    agent->state = TINYFL_LEARNT;
    tinyfl_sha256_of(agent->weights, agent->sent, agent->hash);
}

/* Learns from the sample in x and y, and drops it. */
static void take_sample(tinyfl_agent *agent)
{
    const int code = tinyfl_loop_learn(&agent->loop, agent->x, agent->y);
    if (code != TINYFL_OK) {
        fail(agent, code);
        return;
    }
    agent->done++;
    if (tinyfl_loop_done(&agent->loop))
        finish(agent);
}

void tinyfl_round_step(tinyfl_agent *agent)
{
    const tinyfl_round *round = &agent->round;
    const uint32_t index = (uint32_t)tinyfl_loop_index(&agent->loop);
    const int code = tinyfl_sense(&agent->sensing, round->source, &round->stream, index, agent->x, agent->y);
    if (code == TINYFL_EOVERRUN) { /* what lies behind the sample is lost */
        agent->held.valid = 0;
        agent->kept.round = agent->kept.copied = 0;
    }
    if (code == TINYFL_OK)
        take_sample(agent);
    else
        fail(agent, code == TINYFL_UNLABELLED ? TINYFL_EUNLABELLED : code);
}

static int get_u32(const tinyfl_map *request, const char *key, uint32_t *value)
{
    uint64_t number;
    if (!tinyfl_get_uint(request, key, UINT32_MAX, &number))
        return 0;
    *value = (uint32_t)number;
    return 1;
}

static int read_round(const tinyfl_agent *agent, const tinyfl_map *request, tinyfl_round *round)
{
    tinyfl_string base, source, inner;
    memset(round, 0, sizeof *round);
    round->stream.inputs = agent->inputs;
    round->stream.outputs = agent->outputs;
    if (!get_u32(request, "round", &round->stream.round) || !get_u32(request, "device", &round->stream.device) ||
        !tinyfl_get_uint(request, "seed", UINT64_MAX, &round->stream.seed) || !tinyfl_get_bytes(request, "inner", &inner) ||
        tinyfl_inner_read(&round->inner, inner.bytes, inner.count) != TINYFL_OK ||
        !tinyfl_get_uint(request, "run", UINT64_MAX, &round->run) || !get_u32(request, "saved", &round->saved) ||
        !tinyfl_get_bytes(request, "base", &base) || base.count != sizeof round->base ||
        !tinyfl_get_text(request, "source", &source))
        return TINYFL_REFUSED_INVALID;
    memcpy(round->base, base.bytes, sizeof round->base);
    if (source.count == 0)
        return 0;
    round->source = tinyfl_source_called(source);
    return round->source ? 0 : TINYFL_REFUSED_SOURCE;
}

static int same_inner(const tinyfl_inner *a, const tinyfl_inner *b)
{
    return a->count == b->count && a->returns == b->returns && a->kept == b->kept && a->up.kind == b->up.kind &&
           a->up.share == b->up.share && a->local == b->local &&
           memcmp(a->phases, b->phases, sizeof a->phases) == 0;
}

/* Compares what a round computes: all fields but `saved`, and not the padding between them. */
static int same_round(const tinyfl_round *a, const tinyfl_round *b)
{
    return a->stream.seed == b->stream.seed && a->stream.device == b->stream.device && a->stream.round == b->stream.round &&
           same_inner(&a->inner, &b->inner) && a->run == b->run && memcmp(a->base, b->base, sizeof a->base) == 0 &&
           a->source == b->source;
}

/* Brings the block to the state before this round, and the copy up to the run's last checkpoint. */
static void recall(tinyfl_kept *kept, const tinyfl_round *round)
{
    const size_t bytes = kept->count * sizeof *kept->blocks;
    float *copy = kept->blocks + kept->count;
    if (kept->round > round->stream.round) { /* of a round that an interrupted coordinator repeats */
        kept->round = kept->copied > round->stream.round ? 0 : kept->copied;
        if (kept->round)
            memcpy(kept->blocks, copy, bytes);
    } else if (kept->round <= round->saved) {
        memcpy(copy, kept->blocks, bytes);
        kept->copied = kept->round;
    }
}

/* Claims memory behind the sample for what the round keeps and for its inner loop. What is kept belongs to one run. 0 or a
 * refusal. */
static int claim(tinyfl_agent *agent, const tinyfl_round *round)
{
    const tinyfl_inner *inner = &round->inner;
    tinyfl_kept kept = agent->kept;
    const size_t count = tinyfl_kept_weights(&agent->plan, inner);
    if (kept.run != round->run || (inner->kept && (kept.layers != inner->local || kept.count != count)))
        kept = (tinyfl_kept){.run = round->run,
                             .layers = inner->kept ? inner->local : 0,
                             .blocks = kept.blocks,
                             .count = count};
    const size_t start = (size_t)((uint8_t *)kept.blocks - agent->arena), loop = tinyfl_loop_bytes(&agent->plan, inner);
    /* Each part is at most 2^27 bytes, so the sum cannot wrap. */
    if (2 * kept.count * sizeof *kept.blocks + loop > tinyfl_arena_end(agent) - start)
        return TINYFL_REFUSED_MEMORY;
    if (kept.count > agent->kept.count || loop > 0)
        tinyfl_drop_prediction(agent);
    agent->kept = kept;
    return 0;
}

static int start_round(tinyfl_agent *agent, const tinyfl_round *round)
{
    if (!tinyfl_has_weights(agent) || memcmp(round->base, agent->hash, sizeof round->base) != 0)
        return TINYFL_REFUSED_BASE;
    if (tinyfl_learner_init(&agent->learner, &agent->plan, agent->weights, agent->memory,
                            tinyfl_learner_bytes(&agent->plan), 0.0f) != TINYFL_OK)
        return TINYFL_REFUSED_NUMERIC;
    const int refusal = tinyfl_inner_fits(&agent->plan, &round->inner) ? claim(agent, round) : TINYFL_REFUSED_INVALID;
    if (refusal)
        return refusal;
    tinyfl_kept *kept = &agent->kept;
    if (round->inner.kept) {
        recall(kept, round);
        if (!kept->round)
            memset(kept->blocks, 0, kept->count * sizeof *kept->blocks);
        else if (round->inner.kept & TINYFL_KEEPS_LAYERS)
            tinyfl_layers_scatter(&agent->plan, kept->layers, kept->blocks, agent->weights);
    }
    agent->kept_from = round->inner.kept ? kept->round : 0;
    agent->round = *round;
    tinyfl_loop_init(&agent->loop, &agent->round.inner, &agent->learner, kept->blocks + 2 * kept->count);
    tinyfl_sensing_begin(&agent->sensing, &round->stream);
    agent->state = TINYFL_LEARNING;
    agent->feed = round->source ? TINYFL_NO_STREAM : TINYFL_SAMPLES;
    agent->fed = agent->done = 0;
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
        const uint64_t missing = (tinyfl_inner_total(&agent->round.inner) - agent->done) * whole - agent->fed % whole;
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
