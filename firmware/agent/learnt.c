/* What a board has learnt online, read and put back by a host, and kept in the store (SPEC.md, online). */
#include <string.h>

#include "commands.h"

int tinyfl_online_commit(tinyfl_agent *agent)
{
    tinyfl_online_board *o = &agent->online;
    const uint32_t names = tinyfl_online_names(agent);
    const tinyfl_record records[] = {
        {"classes", o->names, 0},
        {"online", tinyfl_online_record(agent), TINYFL_ONLINE_RECORD},
        {"names", o->names, names},
        {"sensor", o->sensor, o->source && !o->bounded ? (uint32_t)sizeof o->sensor : 0},
        {"learnt", o->core.state, (uint32_t)tinyfl_online_learnt_bytes(&o->core)},
    };
    return tinyfl_store_commit(&agent->store, records, sizeof records / sizeof records[0]);
}

int tinyfl_learnt_read(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    uint64_t off;
    if (!tinyfl_get_uint(request, "off", UINT32_MAX, &off))
        return TINYFL_REFUSED_INVALID;
    tinyfl_online_board *o = &agent->online;
    if (!tinyfl_has_online(agent) || (off > 0 && o->staging != TINYFL_SHOWS_LEARNT))
        return TINYFL_REFUSED_STATE;
    if (off == 0) {
        tinyfl_online_stage(o, TINYFL_SHOWS_LEARNT);
        o->shown = (uint32_t)tinyfl_online_learnt_bytes(&o->core);
        memcpy(o->staged, o->core.state, o->shown);
    }
    const uint64_t from = off < o->shown ? off : o->shown;
    return tinyfl_put_part(reply, from, o->staged, o->shown, from);
}

static void forget_requests(tinyfl_online_board *o)
{
    o->labelled = o->removed = o->fed = 0;
    o->result = (tinyfl_online_result){0};
}

int tinyfl_learnt_write(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    tinyfl_online_board *o = &agent->online;
    tinyfl_block b;
    if (!tinyfl_has_online(agent))
        return TINYFL_REFUSED_STATE;
    if (!tinyfl_block_read(request, tinyfl_online_bytes(&o->core.set), &b))
        return TINYFL_REFUSED_INVALID;
    tinyfl_online_stage(o, TINYFL_TAKES_LEARNT);
    if (!tinyfl_block_continues(&b, &o->learnt))
        tinyfl_upload_start(&o->learnt, &b);
    const int last = tinyfl_take_block(agent->port, &o->learnt, &b, o->staged);
    if (last < 0)
        return -last;
    if (last) {
        const int refusal = tinyfl_online_refusal(tinyfl_online_restore(&o->core, o->staged, o->learnt.count));
        if (refusal) {
            o->learnt = (tinyfl_upload){0};
            return refusal;
        }
        forget_requests(o);
    }
    return tinyfl_put_offset(reply, o->learnt.done);
}

int tinyfl_online_keep(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    (void)request;
    const int refusal = tinyfl_has_online(agent) ? tinyfl_online_commit(agent) : TINYFL_REFUSED_STATE;
    return refusal ? refusal : tinyfl_put_commits(agent, reply);
}

/* Puts back what the last commit kept of this very set. */
static int restore(tinyfl_agent *agent)
{
    tinyfl_online_board *o = &agent->online;
    const uint32_t expected = tinyfl_online_names(agent);
    uint32_t count, named = 0, kept;
    const void *record = tinyfl_store_find(&agent->store, "online", &count);
    if (!record || count != TINYFL_ONLINE_RECORD || memcmp(record, tinyfl_online_record(agent), TINYFL_ONLINE_RECORD) != 0)
        return 0;
    const void *names = tinyfl_store_find(&agent->store, "names", &named);
    const void *learnt = tinyfl_store_find(&agent->store, "learnt", &kept);
    if (named != expected || !learnt || tinyfl_online_restore(&o->core, learnt, kept) != TINYFL_OK)
        return 0;
    if (names && expected > 0)
        memcpy(o->names, names, expected);
    o->learnt = (tinyfl_upload){0};
    forget_requests(o);
    return 1;
}

int tinyfl_online_back(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    (void)request;
    if (!tinyfl_has_online(agent) || !restore(agent))
        return TINYFL_REFUSED_STATE;
    tinyfl_put_map(reply, 1);
    tinyfl_put_text(reply, "samples");
    tinyfl_put_uint(reply, agent->online.core.state->samples);
    return 0;
}

void tinyfl_load_online(tinyfl_agent *agent)
{
    uint32_t count;
    const void *record = tinyfl_store_find(&agent->store, "online", &count);
    if (agent->classes.claimed > 0 || !record || count != TINYFL_ONLINE_RECORD || !tinyfl_claim_online(agent, TINYFL_ONLINE_RECORD))
        return;
    memcpy(tinyfl_online_record(agent), record, count);
    agent->online.upload = (tinyfl_upload){.count = count, .done = count};
    tinyfl_sha256_of(tinyfl_online_record(agent), count, agent->online.upload.sha);
    if (tinyfl_online_lay_out(agent, count) != 0 || !restore(agent))
        tinyfl_drop_online(agent);
}
