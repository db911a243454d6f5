/* The set of what learns online (core/online.h): a head over the output of the learner's network or of the int8 program,
 * dequantised, or over the inputs themselves. It lies at the upper end of the arena, in the place of class means; a commit keeps
 * it in the store (SPEC.md, online). */
#include <string.h>

#include "commands.h"

enum { STAGE = 0, OUTPUTS = 4, EVERY = 8, SHA = 12, SET = 44, RECORD = TINYFL_ONLINE_RECORD }; /* of the set's record */
enum { NAME = TINYFL_NAME_BYTES };

uint8_t *tinyfl_online_record(const tinyfl_agent *agent) { return tinyfl_top(agent, RECORD); }

static int is_named(const tinyfl_online_set *set)
{
    return set->head == TINYFL_HEAD_CLASSES || set->head == TINYFL_HEAD_LABELS;
}

uint32_t tinyfl_online_names(const tinyfl_agent *agent)
{
    const tinyfl_online_set *set = &agent->online.core.set;
    return is_named(set) ? NAME * set->places : 0;
}

/* Whether the stage gives what the set is over: 0, or a refusal. */
static int check_stage(const tinyfl_agent *agent, uint32_t stage, const tinyfl_online_set *set, const uint8_t *sha)
{
    const tinyfl_tensor *in = &agent->program.input, *out = &agent->program.output;
    if (set->embedded != (stage != TINYFL_OF_INPUTS))
        return TINYFL_REFUSED_INVALID;
    if (stage == TINYFL_OF_INPUTS)
        return 0;
    if (stage == TINYFL_OF_LEARNER) {
        if (!tinyfl_has_weights(agent))
            return TINYFL_REFUSED_STATE;
        if (memcmp(sha, agent->hash, TINYFL_SHA256_BYTES) != 0)
            return TINYFL_REFUSED_BASE;
        return set->inputs == agent->inputs && set->size == agent->outputs ? 0 : TINYFL_REFUSED_INVALID;
    }
    if (!tinyfl_has_program(agent))
        return TINYFL_REFUSED_STATE;
    if (memcmp(sha, agent->program_upload.sha, TINYFL_SHA256_BYTES) != 0)
        return TINYFL_REFUSED_BASE;
    const int plain = set->standardised != TINYFL_INPUTS_STANDARDISED && set->head != TINYFL_HEAD_RECONSTRUCT;
    return plain && set->inputs == in->bytes / (in->dtype == TINYFL_INT8 ? 1 : 4) &&
                   set->size == out->bytes / (out->dtype == TINYFL_INT8 ? 1 : 4)
               ? 0
               : TINYFL_REFUSED_INVALID;
}

int tinyfl_online_ready(const tinyfl_agent *agent)
{
    return check_stage(agent, agent->online.stage, &agent->online.core.set, agent->online.sha);
}

int tinyfl_online_lay_out(tinyfl_agent *agent, size_t count)
{
    tinyfl_online_board *o = &agent->online;
    const uint8_t *record = tinyfl_online_record(agent);
    tinyfl_online_set set;
    if (count != RECORD)
        return TINYFL_REFUSED_INVALID;
    memcpy(&set, record + SET, sizeof set);
    const uint32_t stage = tinyfl_word_at(record + STAGE), outputs = tinyfl_word_at(record + OUTPUTS);
    const size_t bytes = tinyfl_online_bytes(&set);
    if (stage > TINYFL_OF_INPUTS || bytes == 0 || (is_named(&set) && set.places > TINYFL_MAX_CLASSES))
        return TINYFL_REFUSED_INVALID;
    const int refusal = check_stage(agent, stage, &set, record + SHA);
    if (refusal)
        return refusal;
    const size_t names = is_named(&set) ? (size_t)NAME * set.places : 0;
    const size_t x = tinyfl_rounded(set.inputs * sizeof(float)), embedding = tinyfl_rounded(set.size * sizeof(float));
    const size_t y = tinyfl_rounded(set.places * sizeof(float)), state = tinyfl_rounded(bytes);
    uint8_t *memory =
        tinyfl_claim_online(agent, 2 * state + x + embedding + y + tinyfl_rounded(names) + tinyfl_rounded(RECORD));
    if (!memory)
        return TINYFL_REFUSED_MEMORY;
    o->staged = memory + state;
    o->x = (void *)(o->staged + state);
    o->embedding = o->x + x / sizeof(float);
    o->y = o->embedding + embedding / sizeof(float);
    o->names = (uint8_t *)(o->y + y / sizeof(float));
    o->stage = stage;
    o->every = tinyfl_word_at(record + EVERY);
    memcpy(o->sha, record + SHA, sizeof o->sha);
    memset(o->y, 0, y + names);
    return tinyfl_online_init(&o->core, &set, outputs, memory) == TINYFL_OK ? 0 : TINYFL_REFUSED_INVALID;
}

int tinyfl_online_write(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    tinyfl_block b;
    if (!tinyfl_block_read(request, RECORD, &b))
        return TINYFL_REFUSED_INVALID;
    if (!tinyfl_block_continues(&b, &agent->online.upload)) {
        tinyfl_drop_online(agent);
        if (!tinyfl_claim_online(agent, RECORD))
            return TINYFL_REFUSED_MEMORY;
        tinyfl_upload_start(&agent->online.upload, &b);
    }
    const int last = tinyfl_take_block(agent->port, &agent->online.upload, &b, tinyfl_online_record(agent));
    const int refusal = last < 0 ? -last : last ? tinyfl_online_lay_out(agent, agent->online.upload.count) : 0;
    if (refusal) {
        if (last)
            tinyfl_drop_online(agent);
        return refusal;
    }
    return tinyfl_put_offset(reply, agent->online.upload.done);
}

void tinyfl_online_name(tinyfl_agent *agent, uint32_t number, tinyfl_string name)
{
    uint8_t *place = agent->online.names + (size_t)number * NAME;
    memset(place, 0, NAME);
    if (name.count > 0)
        memcpy(place, name.bytes, name.count);
}

int tinyfl_online_refusal(int code)
{
    return code == TINYFL_EFULL      ? TINYFL_REFUSED_MEMORY
           : code == TINYFL_EONLY    ? TINYFL_REFUSED_STATE
           : code == TINYFL_EGONE    ? TINYFL_REFUSED_BASE
           : code == TINYFL_ENUMERIC ? TINYFL_REFUSED_NUMERIC
           : code == TINYFL_OK       ? 0
                                     : TINYFL_REFUSED_INVALID;
}
