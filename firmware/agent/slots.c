/* The two model slots: the newest stays while the other is written, and a slot is valid once its first word is written
 * (SPEC.md, slots). */
#include <string.h>

#include "commands.h"

enum { MAGIC = 4, SEQUENCE = 4, PLAN = 8, WEIGHTS = 12, HASH = 16, HEADER = 48 };

/* The hash of a slot's header from `sequence` on, its plan and its weights. */
static void hash_parts(const tinyfl_port *port, const uint8_t *header, const void *plan, size_t plan_bytes,
                       const void *weights, size_t bytes, uint8_t hash[TINYFL_SHA256_BYTES])
{
    tinyfl_sha256 sum;
    tinyfl_sha256_start(&sum);
    tinyfl_sha256_add(&sum, header + SEQUENCE, HASH - SEQUENCE);
    tinyfl_hash_add(port, &sum, plan, plan_bytes);
    tinyfl_hash_add(port, &sum, weights, bytes);
    tinyfl_sha256_end(&sum, hash);
}

/* The slot's sequence number; 0 if the slot is invalid. */
static uint32_t valid(const tinyfl_port *port, int which)
{
    const uint8_t *slot = port->slots[which].bytes;
    const uint32_t room = port->slots[which].count;
    if (room < HEADER || memcmp(slot, "TFLS", MAGIC) != 0)
        return 0;
    const uint32_t plan = tinyfl_word_at(slot + PLAN), weights = tinyfl_word_at(slot + WEIGHTS);
    if (plan > room - HEADER || weights > room - HEADER - plan)
        return 0;
    uint8_t hash[TINYFL_SHA256_BYTES];
    hash_parts(port, slot, slot + HEADER, plan, slot + HEADER + plan, weights, hash);
    return memcmp(hash, slot + HASH, sizeof hash) == 0 ? tinyfl_word_at(slot + SEQUENCE) : 0;
}

/* Loads the slot's model; 0 if it cannot be used. */
static int load(tinyfl_agent *agent, int which)
{
    const uint8_t *slot = agent->port->slots[which].bytes;
    const uint32_t plan = tinyfl_word_at(slot + PLAN), weights = tinyfl_word_at(slot + WEIGHTS);
    if (plan > tinyfl_arena_end(agent))
        return 0;
    memcpy(agent->arena, slot + HEADER, plan);
    if (tinyfl_take_plan(agent, plan) != 0 || weights != tinyfl_weights_bytes(agent))
        return 0;
    memcpy(agent->weights, slot + HEADER + plan, weights);
    agent->plan_upload = (tinyfl_upload){.count = plan, .done = plan};
    tinyfl_sha256_of(agent->arena, plan, agent->plan_upload.sha);
    tinyfl_sha256_of(agent->weights, weights, agent->hash);
    if (tinyfl_take_weights(agent) != 0)
        return 0;
    agent->state = TINYFL_READY;
    return 1;
}

void tinyfl_load_newest_slot(tinyfl_agent *agent)
{
    const uint32_t first = valid(agent->port, 0), second = valid(agent->port, 1);
    agent->newest = first == 0 && second == 0 ? -1 : second > first;
    agent->sequence = second > first ? second : first;
    if (agent->newest >= 0 && !load(agent, agent->newest))
        tinyfl_drop_plan(agent);
}

void tinyfl_committed(const tinyfl_agent *agent, uint8_t hash[TINYFL_SHA256_BYTES])
{
    if (agent->newest < 0)
        return;
    const uint8_t *slot = agent->port->slots[agent->newest].bytes;
    tinyfl_sha256_of(slot + HEADER + tinyfl_word_at(slot + PLAN), tinyfl_word_at(slot + WEIGHTS), hash);
}

/* Erases the slot, and writes all of it, the first word last. */
static int write_slot(const tinyfl_agent *agent, int which, uint32_t sequence)
{
    const tinyfl_port *port = agent->port;
    const uint32_t plan = agent->plan_upload.count, weights = (uint32_t)tinyfl_weights_bytes(agent);
    uint8_t header[HEADER] = "TFLS";
    tinyfl_put_word(header + SEQUENCE, sequence);
    tinyfl_put_word(header + PLAN, plan);
    tinyfl_put_word(header + WEIGHTS, weights);
    hash_parts(port, header, agent->arena, plan, agent->weights, weights, header + HASH);
    const uint8_t *learnt = (const uint8_t *)agent->weights;
    if (port->erase(which) != 0 || port->program(which, MAGIC, header + MAGIC, HEADER - MAGIC) != 0 ||
        port->program(which, HEADER, agent->arena, plan) != 0 ||
        port->program(which, HEADER + plan, learnt, weights) != 0 || port->program(which, 0, header, MAGIC) != 0)
        return TINYFL_REFUSED_FLASH;
    return sequence != 0 && valid(port, which) == sequence ? 0 : TINYFL_REFUSED_FLASH;
}

/* Whether the newest slot already has this plan and these weights. */
static int is_committed(const tinyfl_agent *agent)
{
    if (agent->newest < 0)
        return 0;
    const uint8_t *slot = agent->port->slots[agent->newest].bytes;
    const uint32_t plan = tinyfl_word_at(slot + PLAN), weights = tinyfl_word_at(slot + WEIGHTS);
    return plan == agent->plan_upload.count && weights == tinyfl_weights_bytes(agent) &&
           memcmp(slot + HEADER, agent->arena, plan) == 0 && memcmp(slot + HEADER + plan, agent->weights, weights) == 0;
}

int tinyfl_commit(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    tinyfl_string sha;
    if (!tinyfl_get_bytes(request, "sha", &sha) || sha.count != sizeof agent->hash)
        return TINYFL_REFUSED_INVALID;
    if (!tinyfl_has_weights(agent))
        return TINYFL_REFUSED_STATE;
    if (memcmp(sha.bytes, agent->hash, sizeof agent->hash) != 0)
        return TINYFL_REFUSED_BASE;
    /* Weights beyond the guard's bounds could not be loaded again. */
    if (tinyfl_take_weights(agent) != 0)
        return TINYFL_REFUSED_NUMERIC;
    if (HEADER + agent->plan_upload.count + tinyfl_weights_bytes(agent) > agent->port->slots[0].count)
        return TINYFL_REFUSED_MEMORY;
    if (!is_committed(agent)) {
        const int other = agent->newest == 0;
        const int refusal = write_slot(agent, other, agent->sequence + 1);
        if (refusal)
            return refusal;
        agent->newest = other;
        agent->sequence++;
    }
    tinyfl_put_map(reply, 2);
    tinyfl_put_text(reply, "slot");
    tinyfl_put_uint(reply, (uint32_t)agent->newest);
    tinyfl_put_text(reply, "commits");
    tinyfl_put_uint(reply, agent->sequence);
    return 0;
}
