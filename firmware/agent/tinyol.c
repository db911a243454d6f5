/* Online learning while the board runs (core/online.h): a head over the output of the learner's network or of the int8 program,
 * dequantised, or over the inputs themselves. The set lies at the upper end of the arena, in the place of class means; a commit
 * keeps it in the store (SPEC.md, online). */
#include <string.h>

#include "commands.h"

enum { STAGE = 0, OUTPUTS = 4, EVERY = 8, SHA = 12, SET = 44, RECORD = TINYFL_ONLINE_RECORD }; /* of the set's record */
enum { OF_INPUTS = 2 };                                                      /* a stage, besides tinyfl_stage */
enum { NAME = TINYFL_NAME_BYTES, ROUND = 8 };

static size_t rounded(size_t bytes) { return (bytes + ROUND - 1) / ROUND * ROUND; }

static int has_set(const tinyfl_agent *agent) { return agent->online.core.state != NULL; }

uint8_t *tinyfl_online_record(const tinyfl_agent *agent)
{
    return agent->arena + agent->arena_bytes / ROUND * ROUND - rounded(RECORD);
}

void tinyfl_drop_online(tinyfl_agent *agent)
{
    agent->online = (tinyfl_online_board){0};
    tinyfl_drop_prediction(agent);
}

void tinyfl_drop_online_of(tinyfl_agent *agent, tinyfl_stage stage)
{
    if (agent->online.claimed > 0 && (!has_set(agent) || agent->online.stage == stage))
        tinyfl_drop_online(agent);
}

uint8_t *tinyfl_online_claim(tinyfl_agent *agent, size_t bytes)
{
    const size_t whole = agent->arena_bytes / ROUND * ROUND;
    if (bytes > whole || whole - bytes < tinyfl_learner_end(agent))
        return NULL;
    tinyfl_drop_class_set(agent);
    agent->online.claimed = agent->arena_bytes - (whole - bytes);
    tinyfl_drop_prediction(agent);
    return agent->arena + (whole - bytes);
}

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
    if (set->embedded != (stage != OF_INPUTS))
        return TINYFL_REFUSED_INVALID;
    if (stage == OF_INPUTS)
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
    if (stage > OF_INPUTS || bytes == 0 || (is_named(&set) && set.places > TINYFL_MAX_CLASSES))
        return TINYFL_REFUSED_INVALID;
    const int refusal = check_stage(agent, stage, &set, record + SHA);
    if (refusal)
        return refusal;
    const size_t names = is_named(&set) ? (size_t)NAME * set.places : 0;
    const size_t x = rounded(set.inputs * sizeof(float)), embedding = rounded(set.size * sizeof(float));
    const size_t y = rounded(set.places * sizeof(float));
    uint8_t *memory = tinyfl_online_claim(agent, 2 * rounded(bytes) + x + embedding + y + rounded(names) + rounded(RECORD));
    if (!memory)
        return TINYFL_REFUSED_MEMORY;
    o->staged = memory + rounded(bytes);
    o->x = (void *)(o->staged + rounded(bytes));
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
        if (!tinyfl_online_claim(agent, rounded(RECORD)))
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

static tinyfl_string name_of(const tinyfl_agent *agent, uint32_t number)
{
    tinyfl_string name = {agent->online.names + (size_t)number * NAME, 0};
    while (name.count < NAME && name.bytes[name.count])
        name.count++;
    return name;
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
    return has_set(agent) ? tinyfl_online_wanted(&agent->online.core) : 0;
}

/* What the monitor says, and the counts and names of outputs from `first` on, as many as fit. */
int tinyfl_online_read(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    enum { AROUND = 364, EACH = 5 + NAME + 1 }; /* maximum bytes of the reply besides the outputs, and of each */
    const tinyfl_online *core = &agent->online.core;
    const tinyfl_online_state none = {0}, *s = has_set(agent) ? core->state : &none;
    const uint32_t most = (uint32_t)((reply->room - AROUND) / EACH);
    uint64_t first;
    if (!tinyfl_get_uint(request, "first", UINT32_MAX, &first))
        return TINYFL_REFUSED_INVALID;
    const uint32_t listed = has_set(agent) && is_named(&core->set) ? s->outputs : 0;
    const uint32_t from = first < listed ? (uint32_t)first : listed, found = listed - from < most ? listed - from : most;
    tinyfl_put_map(reply, 16);
    tinyfl_put_text(reply, "set");
    tinyfl_put_bytes(reply, agent->online.upload.sha, has_set(agent) ? TINYFL_SHA256_BYTES : 0);
    tinyfl_put_text(reply, "record");
    tinyfl_put_bytes(reply, tinyfl_online_record(agent), has_set(agent) ? RECORD : 0);
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
    put_number(reply, "places", has_set(agent) ? core->set.places : 0);
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
        code = tinyfl_online_sample(&o->core, o->stage == OF_INPUTS ? o->x : o->embedding, o->x, &o->result);
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
    if (!has_set(agent))
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

int tinyfl_online_refusal(int code)
{
    return code == TINYFL_EFULL      ? TINYFL_REFUSED_MEMORY
           : code == TINYFL_EONLY    ? TINYFL_REFUSED_STATE
           : code == TINYFL_EGONE    ? TINYFL_REFUSED_BASE
           : code == TINYFL_ENUMERIC ? TINYFL_REFUSED_NUMERIC
           : code == TINYFL_OK       ? 0
                                     : TINYFL_REFUSED_INVALID;
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
    if (!has_set(agent))
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
        if (!has_set(agent))
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
    put_number(reply, "outputs", has_set(agent) ? o->core.state->outputs : 0);
    return 0;
}
