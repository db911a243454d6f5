/* The head of what learns online, read and replaced by a host that averages the heads of many boards: names and weights, and
 * nothing else of what a board has learnt (SPEC.md, online). */
#include <string.h>

#include "commands.h"

enum { NAME = TINYFL_NAME_BYTES };

void tinyfl_online_stage(tinyfl_online_board *o, uint32_t what)
{
    if (o->staging == what)
        return;
    o->staging = what;
    o->learnt = (tinyfl_upload){0};
    if (o->answer == TINYFL_NO_CLASS)
        o->labelled = 0; /* its numbers were staged too */
}

void tinyfl_online_moved(tinyfl_online_board *o)
{
    if (o->learnt.done == o->learnt.count)
        o->learnt = (tinyfl_upload){0};
}

/* Bytes of a head of so many outputs: their names, if the set has names, then the weights. */
static size_t name_bytes(const tinyfl_agent *agent) { return tinyfl_online_names(agent) > 0 ? NAME : 0; }

static size_t each_bytes(const tinyfl_agent *agent)
{
    return name_bytes(agent) + ((size_t)agent->online.core.set.size + 1) * sizeof(float);
}

int tinyfl_head_read(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    tinyfl_online_board *o = &agent->online;
    uint64_t off;
    if (!tinyfl_get_uint(request, "off", UINT32_MAX, &off))
        return TINYFL_REFUSED_INVALID;
    if (!tinyfl_has_online(agent) || (off > 0 && o->staging != TINYFL_SHOWS_HEAD))
        return TINYFL_REFUSED_STATE;
    if (off == 0) {
        const size_t names = name_bytes(agent) * o->core.state->outputs;
        tinyfl_online_stage(o, TINYFL_SHOWS_HEAD);
        o->shown = (uint32_t)(each_bytes(agent) * o->core.state->outputs);
        memcpy(o->staged, o->names, names);
        memcpy(o->staged + names, o->core.head, o->shown - names);
    }
    const uint64_t from = off < o->shown ? off : o->shown;
    return tinyfl_put_part(reply, from, o->staged, o->shown, from);
}

/* Whether the staged names begin with those here; an output without a name may get one. */
static int keeps_names(const tinyfl_agent *agent)
{
    const tinyfl_online_board *o = &agent->online;
    for (uint32_t i = 0; name_bytes(agent) > 0 && i < o->core.state->outputs; i++)
        if (o->names[i * NAME] && memcmp(o->names + i * NAME, o->staged + i * NAME, NAME) != 0)
            return 0;
    return 1;
}

/* The complete head. 0 or a refusal. */
static int take_head(tinyfl_agent *agent)
{
    tinyfl_online_board *o = &agent->online;
    const size_t each = each_bytes(agent), outputs = o->learnt.count / each, names = name_bytes(agent) * outputs;
    if (o->learnt.count % each || outputs < o->core.state->outputs || outputs > o->core.set.places)
        return TINYFL_REFUSED_INVALID;
    if (!keeps_names(agent))
        return TINYFL_REFUSED_BASE;
    const float *head = (const float *)(const void *)(o->staged + names);
    const int refusal = tinyfl_online_refusal(tinyfl_online_replace(&o->core, (uint32_t)outputs, head));
    if (refusal == 0)
        memcpy(o->names, o->staged, names);
    return refusal;
}

int tinyfl_head_write(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    tinyfl_online_board *o = &agent->online;
    tinyfl_block b;
    if (!tinyfl_has_online(agent))
        return TINYFL_REFUSED_STATE;
    if (!tinyfl_block_read(request, each_bytes(agent) * o->core.set.places, &b))
        return TINYFL_REFUSED_INVALID;
    tinyfl_online_stage(o, TINYFL_TAKES_HEAD);
    if (!tinyfl_block_continues(&b, &o->learnt))
        tinyfl_upload_start(&o->learnt, &b);
    const int last = tinyfl_take_block(agent->port, &o->learnt, &b, o->staged);
    const int refusal = last < 0 ? -last : last ? take_head(agent) : 0;
    if (refusal) {
        o->learnt = (tinyfl_upload){0};
        return refusal;
    }
    return tinyfl_put_offset(reply, o->learnt.done);
}
