/* Online learning while the board runs: samples and labels that a host sends, and what the set says of itself (SPEC.md,
 * online). */
#include <string.h>

#include "commands.h"

enum { NAME = TINYFL_NAME_BYTES };

static tinyfl_string name_of(const tinyfl_agent *agent, uint32_t number)
{
    return tinyfl_padded(agent->online.names + (size_t)number * NAME, NAME);
}

static void put_number(tinyfl_writer *reply, const char *key, uint32_t value)
{
    tinyfl_put_text(reply, key);
    tinyfl_put_uint(reply, value);
}

static void put_real(tinyfl_writer *reply, const char *key, float value)
{
    tinyfl_put_text(reply, key);
    tinyfl_put_float(reply, value);
}

uint32_t tinyfl_online_wants(const tinyfl_agent *agent)
{
    return tinyfl_has_online(agent) ? tinyfl_online_wanted(&agent->online.core) : 0;
}

/* What the monitor says, and the counts and names of outputs from `first` on, as many as fit. */
int tinyfl_online_read(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    enum { AROUND = 364, EACH = 5 + NAME + 1 }; /* maximum bytes of the reply besides the outputs, and of each */
    const tinyfl_online *core = &agent->online.core;
    const tinyfl_online_state none = {0}, *s = tinyfl_has_online(agent) ? core->state : &none;
    const uint32_t most = (uint32_t)((reply->room - AROUND) / EACH);
    uint64_t first;
    if (!tinyfl_get_uint(request, "first", UINT32_MAX, &first))
        return TINYFL_REFUSED_INVALID;
    const uint32_t listed = tinyfl_has_online(agent) && tinyfl_online_names(agent) > 0 ? s->outputs : 0;
    const uint32_t from = first < listed ? (uint32_t)first : listed, found = listed - from < most ? listed - from : most;
    tinyfl_put_map(reply, 16);
    tinyfl_put_text(reply, "set");
    tinyfl_put_bytes(reply, agent->online.upload.sha, tinyfl_has_online(agent) ? TINYFL_SHA256_BYTES : 0);
    tinyfl_put_text(reply, "record");
    tinyfl_put_bytes(reply, tinyfl_online_record(agent), tinyfl_has_online(agent) ? TINYFL_ONLINE_RECORD : 0);
    put_number(reply, "samples", s->samples);
    put_number(reply, "labels", s->measured);
    put_real(reply, "confidence", s->confidence);
    put_real(reply, "error", s->error);
    put_number(reply, "drifts", s->drifts);
    put_number(reply, "drifted", s->drifted);
    put_number(reply, "wanted", tinyfl_online_wants(agent));
    tinyfl_put_text(reply, "source");
    tinyfl_put_text(reply, agent->online.source ? agent->online.source->name : "");
    tinyfl_put_text(reply, "code");
    tinyfl_put_int(reply, agent->online.sensed);
    put_number(reply, "outputs", s->outputs);
    put_number(reply, "places", tinyfl_has_online(agent) ? core->set.places : 0);
    put_number(reply, "next", from + found < listed ? from + found : s->outputs);
    tinyfl_put_text(reply, "counts");
    tinyfl_put_array(reply, found);
    for (uint32_t i = 0; i < found; i++)
        tinyfl_put_uint(reply, core->counts[from + i]);
    tinyfl_put_text(reply, "names");
    tinyfl_put_array(reply, found);
    for (uint32_t i = 0; i < found; i++)
        tinyfl_put_string(reply, name_of(agent, from + i));
    return 0;
}

/* Adds a block to the current x. 1 if it is complete, 0 if not, or minus a refusal. `off` gets the expected offset. */
static int take_x(tinyfl_agent *agent, const tinyfl_map *request, uint64_t *off)
{
    tinyfl_online_board *o = &agent->online;
    const size_t whole = o->core.set.inputs * sizeof(float);
    tinyfl_string data;
    if (!tinyfl_get_uint(request, "off", UINT32_MAX, off) || !tinyfl_get_bytes(request, "data", &data))
        return -TINYFL_REFUSED_INVALID;
    if (*off == 0)
        o->fed = 0;
    if (*off == o->fed) {
        if (data.count > whole - o->fed)
            return -TINYFL_REFUSED_INVALID;
        if (data.count > 0)
            memcpy((uint8_t *)o->x + o->fed, data.bytes, data.count);
        o->fed += (uint32_t)data.count;
    }
    *off = o->fed;
    return o->fed == whole;
}

int tinyfl_online_go(tinyfl_agent *agent)
{
    tinyfl_online_board *o = &agent->online;
    const int late = o->core.set.standardised == TINYFL_EMBEDDINGS_STANDARDISED;
    const int program = o->stage == TINYFL_OF_PROGRAM;
    int code = late || program ? TINYFL_OK : tinyfl_online_enter(&o->core, o->x);
    if (code == TINYFL_OK && o->stage == TINYFL_OF_LEARNER)
        code = tinyfl_infer(&agent->learner, o->x, o->embedding);
    if (code == TINYFL_OK && late)
        code = tinyfl_online_enter(&o->core, o->embedding);
    if (code == TINYFL_OK)
        code = tinyfl_online_sample(&o->core, o->stage == TINYFL_OF_INPUTS ? o->x : o->embedding, o->x, &o->result);
    if (code == TINYFL_OK)
        tinyfl_online_moved(o);
    return code;
}

void tinyfl_online_mark(tinyfl_agent *agent)
{
    if (agent->online.every > 0 && agent->online.core.state->samples % agent->online.every == 0)
        (void)tinyfl_online_commit(agent); /* a store that fails is named by `commit` */
}

int tinyfl_online_take(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    tinyfl_online_board *o = &agent->online;
    uint64_t number, off = 0;
    if (!tinyfl_get_uint(request, "number", UINT32_MAX, &number))
        return TINYFL_REFUSED_INVALID;
    if (!tinyfl_has_online(agent))
        return TINYFL_REFUSED_STATE;
    const uint32_t last = o->core.state->samples;
    const int again = last > 0 && number == last - 1 && o->result.number == last; /* a repeat of the last sample */
    if (!again && number != last)
        return TINYFL_REFUSED_BASE;
    int complete = again ? 1 : -tinyfl_online_ready(agent);
    if (complete < 0)
        return -complete;
    if (!again)
        complete = o->stage == TINYFL_OF_PROGRAM ? tinyfl_take_input(agent, request, o->embedding, &off)
                                                 : take_x(agent, request, &off);
    if (complete < 0)
        return -complete;
    if (complete && !again) {
        o->fed = 0;
        if (o->stage == TINYFL_OF_PROGRAM)
            tinyfl_drop_prediction(agent);
        if (tinyfl_online_go(agent) != TINYFL_OK)
            return TINYFL_REFUSED_NUMERIC;
        tinyfl_online_mark(agent);
    }
    if (again)
        off = o->stage == TINYFL_OF_PROGRAM ? agent->program.input.bytes : o->core.set.inputs * sizeof(float);
    const int named = complete && o->core.set.head == TINYFL_HEAD_CLASSES;
    tinyfl_put_map(reply, complete ? 7 : 1);
    tinyfl_put_text(reply, "off");
    tinyfl_put_uint(reply, off);
    if (!complete)
        return 0;
    put_number(reply, "number", o->result.number);
    put_number(reply, "label", o->result.class_number);
    put_real(reply, "confidence", o->result.confidence);
    put_real(reply, "score", o->result.score);
    put_number(reply, "learnt", (uint32_t)o->result.learnt);
    tinyfl_put_text(reply, "name");
    tinyfl_put_string(reply, named ? name_of(agent, o->result.class_number) : (tinyfl_string){(const uint8_t *)"", 0});
    return 0;
}

/* A class by number, or numbers in `data`. */
int tinyfl_online_answer(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    tinyfl_online_board *o = &agent->online;
    tinyfl_string name = {NULL, 0}, data;
    uint64_t sample, number = TINYFL_NO_CLASS;
    const int named = tinyfl_get_text(request, "name", &name), is_class = tinyfl_get_uint(request, "label", TINYFL_NO_CLASS - 1, &number);
    if (!tinyfl_get_uint(request, "sample", UINT32_MAX, &sample) || name.count > NAME ||
        (!is_class && !tinyfl_get_bytes(request, "data", &data)))
        return TINYFL_REFUSED_INVALID;
    if (!tinyfl_has_online(agent))
        return TINYFL_REFUSED_STATE;
    const int same = is_class ? o->answer == number
                              : o->answer == TINYFL_NO_CLASS && data.count == o->core.state->outputs * sizeof(float) &&
                                    memcmp(data.bytes, o->staged, data.count) == 0;
    if (o->labelled == 0 || o->labelled != sample || !same) { /* else a repeat */
        int code;
        if (is_class) {
            code = tinyfl_online_label(&o->core, (uint32_t)sample, (uint32_t)number, &o->loss);
        } else {
            if (data.count != o->core.state->outputs * sizeof(float))
                return TINYFL_REFUSED_INVALID;
            tinyfl_online_stage(o, TINYFL_TAKES_ANSWER);
            o->labelled = 0;
            memcpy(o->staged, data.bytes, data.count);
            code = tinyfl_online_target(&o->core, (uint32_t)sample, (const float *)(const void *)o->staged, &o->loss);
        }
        if (code != TINYFL_OK)
            return tinyfl_online_refusal(code);
        if (named && is_class)
            tinyfl_online_name(agent, (uint32_t)number, name);
        tinyfl_online_moved(o);
        o->labelled = (uint32_t)sample;
        o->answer = is_class ? (uint32_t)number : TINYFL_NO_CLASS;
    }
    tinyfl_put_map(reply, 2);
    put_number(reply, "outputs", o->core.state->outputs);
    put_real(reply, "loss", o->loss);
    return 0;
}

/* Removes an output; without `number` drops the set. `outputs` is their number before, so that a repeat removes nothing. */
int tinyfl_online_forget(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    tinyfl_online_board *o = &agent->online;
    uint64_t number, before;
    if (!tinyfl_get_uint(request, "number", UINT32_MAX, &number)) {
        tinyfl_drop_online(agent);
    } else {
        if (!tinyfl_get_uint(request, "outputs", UINT32_MAX, &before))
            return TINYFL_REFUSED_INVALID;
        if (!tinyfl_has_online(agent))
            return TINYFL_REFUSED_STATE;
        const uint32_t now = o->core.state->outputs;
        const int again = o->removed == number + 1 && before == (uint64_t)now + 1;
        if (!again && before != now)
            return TINYFL_REFUSED_BASE;
        const int refusal = again ? 0 : tinyfl_online_refusal(tinyfl_online_remove(&o->core, (uint32_t)number));
        if (refusal)
            return refusal;
        if (!again) {
            uint8_t *place = o->names + (size_t)number * NAME;
            memmove(place, place + NAME, (size_t)NAME * (now - 1 - (uint32_t)number));
            tinyfl_online_name(agent, now - 1, (tinyfl_string){NULL, 0});
            o->removed = (uint32_t)number + 1;
            tinyfl_online_moved(o);
        }
    }
    tinyfl_put_map(reply, 1);
    put_number(reply, "outputs", tinyfl_has_online(agent) ? o->core.state->outputs : 0);
    return 0;
}
