/* The plan and the weights: how they come in, where they lie, how the weights leave. */
#include "commands.h"

enum { PLAN_HEADER = 8, PLAN_LAYER = 8, PLAN_VERSION = 1, DENSE = 0 };
#define MOST_PLAN_BYTES (PLAN_HEADER + PLAN_LAYER * TINYFL_MAX_LAYERS)

static uint16_t little_endian(const uint8_t *bytes) { return (uint16_t)(bytes[0] | bytes[1] << 8); }

static size_t words(size_t bytes) { return (bytes + 3) / 4 * 4; }

size_t tinyfl_weights_bytes(const tinyfl_agent *agent) { return tinyfl_plan_weights(&agent->plan) * sizeof(float); }

void tinyfl_drop_plan(tinyfl_agent *agent)
{
    agent->state = TINYFL_EMPTY;
    agent->plan_upload = agent->weights_upload = (tinyfl_upload){0};
    agent->feed = TINYFL_NO_STREAM;
}

int tinyfl_has_weights(const tinyfl_agent *agent)
{
    return agent->state == TINYFL_READY || agent->state == TINYFL_LEARNT;
}

static int read_layers(const uint8_t *bytes, size_t count, tinyfl_layer *layers)
{
    for (size_t i = 0; i < count; i++) {
        const uint8_t *b = bytes + PLAN_HEADER + PLAN_LAYER * i;
        if (b[0] != DENSE || b[3] != 0)
            return TINYFL_REFUSED_PLAN;
        layers[i] = (tinyfl_layer){
            .inputs = little_endian(b + 4), .outputs = little_endian(b + 6), .activation = b[1], .learns = b[2]};
    }
    return 0;
}

/* Lays the arena out as SPEC.md says; the gradient last, which only mini-batches use. */
static int lay_out(tinyfl_agent *agent, size_t used)
{
    const tinyfl_plan *plan = &agent->plan;
    const size_t weights = tinyfl_weights_bytes(agent), memory = tinyfl_learner_bytes(plan);
    const size_t inputs = plan->layers[0].inputs * sizeof(float);
    const size_t outputs = plan->layers[plan->count - 1].outputs * sizeof(float);
    /* Each part is below 2^27 bytes, so the sums cannot wrap. */
    const size_t x = used + weights + memory, gradient = x + inputs + outputs;
    if (gradient > agent->arena_bytes)
        return TINYFL_REFUSED_MEMORY;
    agent->weights = (void *)(agent->arena + used);
    agent->memory = agent->arena + used + weights;
    agent->x = (void *)(agent->arena + x);
    agent->y = (void *)(agent->arena + x + inputs);
    agent->gradient = weights <= agent->arena_bytes - gradient ? (void *)(agent->arena + gradient) : NULL;
    return 0;
}

int tinyfl_take_plan(tinyfl_agent *agent, size_t count)
{
    const uint8_t *bytes = agent->arena;
    if (count < PLAN_HEADER || memcmp(bytes, "TFLP", 4) != 0 || bytes[4] != PLAN_VERSION)
        return TINYFL_REFUSED_PLAN;
    const uint16_t layers = little_endian(bytes + 6);
    if (layers == 0 || layers > TINYFL_MAX_LAYERS || count != PLAN_HEADER + PLAN_LAYER * (size_t)layers)
        return TINYFL_REFUSED_PLAN;
    const size_t table = words(count), used = table + words(layers * sizeof(tinyfl_layer));
    if (used > agent->arena_bytes)
        return TINYFL_REFUSED_MEMORY;
    tinyfl_layer *into = (void *)(agent->arena + table);
    int refusal = read_layers(bytes, layers, into);
    if (refusal)
        return refusal;
    agent->plan = (tinyfl_plan){.layers = into, .count = layers, .loss = bytes[5]};
    if (tinyfl_plan_check(&agent->plan) != TINYFL_OK)
        return TINYFL_REFUSED_PLAN;
    refusal = lay_out(agent, used);
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

typedef struct {
    uint64_t off, count; /* count and sha only where off is 0 */
    tinyfl_string data, sha;
} block;

static int read_block(const tinyfl_map *request, uint64_t most, block *b)
{
    return tinyfl_get_uint(request, "off", UINT32_MAX, &b->off) && tinyfl_get_bytes(request, "data", &b->data) &&
           (b->off > 0 || (tinyfl_get_uint(request, "len", UINT32_MAX, &b->count) && b->count > 0 && b->count <= most &&
                           tinyfl_get_bytes(request, "sha", &b->sha) && b->sha.count == TINYFL_SHA256_BYTES));
}

/* Is this the whole that is on its way? */
static int announced(const tinyfl_upload *upload, const block *b)
{
    return upload->count == b->count && memcmp(upload->sha, b->sha.bytes, TINYFL_SHA256_BYTES) == 0;
}

static void start(tinyfl_upload *upload, const block *b)
{
    *upload = (tinyfl_upload){.count = (uint32_t)b->count};
    memcpy(upload->sha, b->sha.bytes, TINYFL_SHA256_BYTES);
}

/* Takes the block if it is the next one. 1 where it was the last, 0, or minus a refusal. */
static int take_block(tinyfl_upload *upload, const block *b, uint8_t *into)
{
    if (b->off != upload->done || upload->done == upload->count)
        return 0;
    if (b->data.count > upload->count - upload->done)
        return -TINYFL_REFUSED_INVALID;
    if (b->data.count > 0)
        memcpy(into + upload->done, b->data.bytes, b->data.count);
    upload->done += (uint32_t)b->data.count;
    if (upload->done < upload->count)
        return 0;
    uint8_t hash[TINYFL_SHA256_BYTES];
    tinyfl_sha256_of(into, upload->count, hash);
    if (memcmp(hash, upload->sha, sizeof hash) == 0)
        return 1;
    *upload = (tinyfl_upload){0};
    return -TINYFL_REFUSED_HASH;
}

static int reply_offset(tinyfl_writer *reply, uint64_t off)
{
    tinyfl_put_map(reply, 1);
    tinyfl_put_text(reply, "off");
    tinyfl_put_uint(reply, off);
    return 0;
}

int tinyfl_plan_write(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    const size_t most = agent->arena_bytes < MOST_PLAN_BYTES ? agent->arena_bytes : MOST_PLAN_BYTES;
    tinyfl_upload *upload = &agent->plan_upload;
    block b;
    if (!read_block(request, most, &b))
        return TINYFL_REFUSED_INVALID;
    if (agent->state == TINYFL_LEARNING)
        return TINYFL_REFUSED_STATE;
    if (b.off == 0 && !announced(upload, &b)) {
        tinyfl_drop_plan(agent);
        start(upload, &b);
    }
    const int last = take_block(upload, &b, agent->arena);
    const int refusal = last < 0 ? -last : last ? tinyfl_take_plan(agent, upload->count) : 0;
    if (refusal) {
        if (last) /* all of it came, and it is of no use */
            tinyfl_drop_plan(agent);
        return refusal;
    }
    return reply_offset(reply, upload->done);
}

int tinyfl_weights_write(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    tinyfl_upload *upload = &agent->weights_upload;
    block b;
    if (agent->state == TINYFL_EMPTY || agent->state == TINYFL_LEARNING)
        return TINYFL_REFUSED_STATE;
    const size_t bytes = tinyfl_weights_bytes(agent);
    if (!read_block(request, bytes, &b) || (b.off == 0 && b.count != bytes))
        return TINYFL_REFUSED_INVALID;
    if (b.off == 0 && tinyfl_has_weights(agent) && memcmp(agent->hash, b.sha.bytes, sizeof agent->hash) == 0) {
        agent->state = TINYFL_READY;
        start(upload, &b);
        upload->done = upload->count;
    } else if (b.off == 0 && (agent->state != TINYFL_PLANNED || !announced(upload, &b))) {
        start(upload, &b);
        agent->state = TINYFL_PLANNED;
        agent->feed = TINYFL_NO_STREAM;
    }
    const int last = take_block(upload, &b, (uint8_t *)agent->weights);
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
    return reply_offset(reply, upload->done);
}

int tinyfl_weights_read(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    enum { AROUND = 32 }; /* bytes of the map about the data, at most */
    uint64_t off;
    if (!tinyfl_has_weights(agent))
        return TINYFL_REFUSED_STATE;
    const size_t bytes = tinyfl_weights_bytes(agent);
    if (!tinyfl_get_uint(request, "off", bytes, &off))
        return TINYFL_REFUSED_INVALID;
    const size_t left = bytes - (size_t)off, room = reply->room - AROUND;
    tinyfl_put_map(reply, 3);
    tinyfl_put_text(reply, "off");
    tinyfl_put_uint(reply, off);
    tinyfl_put_text(reply, "len");
    tinyfl_put_uint(reply, bytes);
    tinyfl_put_text(reply, "data");
    tinyfl_put_bytes(reply, (const uint8_t *)agent->weights + off, left < room ? left : room);
    return 0;
}
