/* The board's description and status. */
#include "commands.h"

#ifndef TINYFL_VERSION
#define TINYFL_VERSION "unversioned"
#endif

enum { CORE = 1 }; /* SPEC.md's arithmetic */

int tinyfl_echo(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    (void)agent;
    tinyfl_string text;
    if (!tinyfl_get_text(request, "d", &text))
        return TINYFL_REFUSED_INVALID;
    tinyfl_put_map(reply, 1);
    tinyfl_put_text(reply, "r");
    tinyfl_put_string(reply, text);
    return 0;
}

/* The agent restarts the board after the reply. */
int tinyfl_reset(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    (void)agent, (void)request;
    tinyfl_put_map(reply, 0);
    return 0;
}

int tinyfl_parameters(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    (void)agent, (void)request;
    tinyfl_put_map(reply, 2);
    tinyfl_put_text(reply, "buf_size");
    tinyfl_put_uint(reply, TINYFL_BUFFER);
    tinyfl_put_text(reply, "buf_count");
    tinyfl_put_uint(reply, TINYFL_WINDOW);
    return 0;
}

static void put_number(tinyfl_writer *reply, const char *key, uint64_t value)
{
    tinyfl_put_text(reply, key);
    tinyfl_put_uint(reply, value);
}

/* A hash, or no bytes if nothing is `present`. */
static void put_hash(tinyfl_writer *reply, const char *key, const uint8_t *hash, int present)
{
    tinyfl_put_text(reply, key);
    tinyfl_put_bytes(reply, hash, present ? TINYFL_SHA256_BYTES : 0);
}

static void put_texts(tinyfl_writer *reply, const char *key, const char *const *texts, size_t count)
{
    tinyfl_put_text(reply, key);
    tinyfl_put_array(reply, count);
    for (size_t i = 0; i < count; i++)
        tinyfl_put_text(reply, texts[i]);
}

static const char *const layers[] = {"dense", "conv", "depthwise", "max-pool", "average-pool"};
static const char *const dtypes[] = {"float32", "int8"};
static const char *const down[] = {"fp16", "int8", "int4", "delta"};
static const char *const classes[] = {"learner", "program"};
static const char *const online[] = {"learner", "program", "inputs"};
static const char *const inner[] = {"phases", "layers", "pull", "gradient", "local",
                                   "kept",   "residual", "prototypes", "fp16", "int8", "int4", "top"};

/* The sensors among the sources, each with what it declares. */
static void put_sensors(tinyfl_writer *reply)
{
    size_t count = 0;
    for (const tinyfl_source *source = tinyfl_sources; source->name; source++)
        count += (size_t)tinyfl_is_sensor(source);
    tinyfl_put_text(reply, "sensors");
    tinyfl_put_array(reply, count);
    for (const tinyfl_source *source = tinyfl_sources; source->name; source++) {
        if (!tinyfl_is_sensor(source))
            continue;
        tinyfl_put_map(reply, 9);
        tinyfl_put_text(reply, "name");
        tinyfl_put_text(reply, source->name);
        tinyfl_put_text(reply, "type");
        tinyfl_put_text(reply, source->type == TINYFL_READS_INT16 ? "int16" : "float32");
        put_number(reply, "channels", source->channels);
        tinyfl_put_text(reply, "rate");
        tinyfl_put_float(reply, source->rate);
        tinyfl_put_text(reply, "shape");
        const size_t axes = source->shape[1] == 0 ? 1 : source->shape[2] == 0 ? 2 : 3;
        tinyfl_put_array(reply, axes);
        for (size_t i = 0; i < axes; i++)
            tinyfl_put_uint(reply, source->shape[i]);
        put_number(reply, "outputs", source->outputs);
        put_number(reply, "loss", source->loss);
        tinyfl_put_text(reply, "labels");
        tinyfl_put_text(reply, source->labels ? source->labels : "");
        put_number(reply, "deadline", source->deadline);
    }
}

int tinyfl_describe(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    (void)request;
    const tinyfl_port *port = agent->port;
    size_t sources = 0;
    while (tinyfl_sources[sources].name)
        sources++;
    uint8_t model[TINYFL_SHA256_BYTES];
    tinyfl_committed(agent, model);

    tinyfl_put_map(reply, 23);
    put_number(reply, "protocol", TINYFL_PROTOCOL);
    tinyfl_put_text(reply, "firmware");
    tinyfl_put_text(reply, TINYFL_VERSION);
    put_number(reply, "core", CORE);
    tinyfl_put_text(reply, "board");
    tinyfl_put_text(reply, port->board);
    tinyfl_put_text(reply, "id");
    tinyfl_put_bytes(reply, port->id, port->id_bytes);
    put_number(reply, "clock", port->clock);
    put_number(reply, "arena", agent->arena_bytes);
    put_number(reply, "buffer", TINYFL_BUFFER);
    put_number(reply, "window", TINYFL_WINDOW);
    put_number(reply, "slot", port->slots[0].count);
    put_texts(reply, "layers", layers, sizeof layers / sizeof layers[0]);
    put_texts(reply, "dtypes", dtypes, sizeof dtypes / sizeof dtypes[0]);
    put_texts(reply, "inner", inner, sizeof inner / sizeof inner[0]);
    tinyfl_put_text(reply, "sources");
    tinyfl_put_array(reply, sources);
    for (size_t i = 0; i < sources; i++)
        tinyfl_put_text(reply, tinyfl_sources[i].name);
    put_hash(reply, "plan", agent->plan_upload.sha, agent->state != TINYFL_EMPTY);
    put_hash(reply, "model", model, agent->newest >= 0);
    put_number(reply, "store", port->slots[TINYFL_PROGRAM_SLOT].count);
    put_number(reply, "areas", port->slots[TINYFL_STORE_SLOT].count);
    put_texts(reply, "down", down, sizeof down / sizeof down[0]);
    put_texts(reply, "classes", classes, sizeof classes / sizeof classes[0]);
    put_texts(reply, "online", online, sizeof online / sizeof online[0]);
    put_hash(reply, "inference", agent->program_upload.sha, tinyfl_has_program(agent));
    put_sensors(reply);
    return 0;
}

/* Bytes of stack whose paint is gone. */
static size_t stack_used(const tinyfl_port *port)
{
    const uint32_t *word = port->stack_low;
    if (!word)
        return 0;
    while (word < port->stack_high && *word == TINYFL_PAINT)
        word++;
    return (size_t)(port->stack_high - word) * sizeof *word;
}

int tinyfl_status(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    (void)request;
    const int rounds = agent->state >= TINYFL_LEARNING;
    const uint64_t done = agent->state == TINYFL_EMPTY     ? agent->plan_upload.done
                          : agent->state == TINYFL_PLANNED ? agent->weights_upload.done
                                                           : agent->done;
    tinyfl_put_map(reply, 12);
    put_number(reply, "state", agent->state);
    put_number(reply, "round", agent->round.stream.round);
    put_hash(reply, "base", agent->round.base, rounds);
    put_number(reply, "done", done);
    tinyfl_put_text(reply, "loss");
    tinyfl_put_float(reply, tinyfl_loop_loss(&agent->loop));
    tinyfl_put_text(reply, "code");
    tinyfl_put_int(reply, agent->state == TINYFL_FAILED ? agent->code : 0);
    put_hash(reply, "weights", agent->hash, tinyfl_has_update(agent));
    put_number(reply, "kept", agent->kept_from);
    put_number(reply, "stack", stack_used(agent->port));
    put_number(reply, "late", agent->sensing.late);
    put_number(reply, "drifts", agent->online.core.state ? agent->online.core.state->drifts : 0);
    put_number(reply, "wanted", tinyfl_online_wants(agent));
    return 0;
}
