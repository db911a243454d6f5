#include <string.h>

#include "agent.h"

#include "commands.h"

enum { HEADER = 8, READ = 0, WRITE = 2 };
enum { MALFORMED = 3, UNSUPPORTED = 8 }; /* MCUmgr's own error numbers */

static const struct {
    uint16_t group;
    uint8_t id, operation;
    tinyfl_command *run;
} commands[] = {
    {0, 0, WRITE, tinyfl_echo},
    {0, 5, WRITE, tinyfl_reset},
    {0, 6, READ, tinyfl_parameters},
    {TINYFL_GROUP, 0, READ, tinyfl_describe},
    {TINYFL_GROUP, 1, WRITE, tinyfl_plan_write},
    {TINYFL_GROUP, 2, WRITE, tinyfl_weights_write},
    {TINYFL_GROUP, 2, READ, tinyfl_weights_read},
    {TINYFL_GROUP, 3, WRITE, tinyfl_train},
    {TINYFL_GROUP, 4, WRITE, tinyfl_samples},
    {TINYFL_GROUP, 5, WRITE, tinyfl_evaluation},
    {TINYFL_GROUP, 6, WRITE, tinyfl_inference},
    {TINYFL_GROUP, 7, READ, tinyfl_status},
    {TINYFL_GROUP, 8, WRITE, tinyfl_abort},
    {TINYFL_GROUP, 9, WRITE, tinyfl_commit},
    {TINYFL_GROUP, 10, WRITE, tinyfl_program_write},
    {TINYFL_GROUP, 11, WRITE, tinyfl_predict},
    {TINYFL_GROUP, 11, READ, tinyfl_prediction},
    {TINYFL_GROUP, 12, WRITE, tinyfl_classes_write},
    {TINYFL_GROUP, 12, READ, tinyfl_classes_read},
    {TINYFL_GROUP, 13, WRITE, tinyfl_enrol},
    {TINYFL_GROUP, 14, WRITE, tinyfl_classify},
    {TINYFL_GROUP, 15, WRITE, tinyfl_forget},
    {TINYFL_GROUP, 16, WRITE, tinyfl_classes_commit},
    {TINYFL_GROUP, 17, READ, tinyfl_rates_read},
    {TINYFL_GROUP, 17, WRITE, tinyfl_rate_write},
    {TINYFL_GROUP, 18, WRITE, tinyfl_sense_write},
    {TINYFL_GROUP, 18, READ, tinyfl_sense_read},
    {TINYFL_GROUP, 19, WRITE, tinyfl_online_write},
    {TINYFL_GROUP, 19, READ, tinyfl_online_read},
    {TINYFL_GROUP, 20, WRITE, tinyfl_online_take},
    {TINYFL_GROUP, 21, WRITE, tinyfl_online_answer},
    {TINYFL_GROUP, 22, WRITE, tinyfl_online_forget},
    {TINYFL_GROUP, 23, WRITE, tinyfl_learnt_write},
    {TINYFL_GROUP, 23, READ, tinyfl_learnt_read},
    {TINYFL_GROUP, 24, WRITE, tinyfl_online_keep},
    {TINYFL_GROUP, 25, WRITE, tinyfl_online_back},
    {TINYFL_GROUP, 26, WRITE, tinyfl_head_write},
    {TINYFL_GROUP, 26, READ, tinyfl_head_read},
    {TINYFL_GROUP, 27, WRITE, tinyfl_online_listen},
};

static uint16_t big_endian(const uint8_t *bytes) { return (uint16_t)(bytes[0] << 8 | bytes[1]); }

static tinyfl_writer writer(tinyfl_agent *agent)
{
    return (tinyfl_writer){.bytes = agent->reply + HEADER, .room = TINYFL_BUFFER - HEADER};
}

/* Sends the body as the reply to the request with this header. */
static void send(tinyfl_agent *agent, const uint8_t header[HEADER], const tinyfl_writer *body)
{
    memcpy(agent->reply, header, HEADER);
    agent->reply[0] = (uint8_t)(header[0] + 1); /* read becomes read reply, write write reply */
    agent->reply[1] = 0;
    agent->reply[2] = (uint8_t)(body->count >> 8);
    agent->reply[3] = (uint8_t)body->count;
    tinyfl_frame_write(agent->reply, HEADER + body->count, agent->port->write);
}

static void send_error(tinyfl_agent *agent, const uint8_t header[HEADER], uint16_t group, int rc)
{
    tinyfl_writer body = writer(agent);
    tinyfl_put_map(&body, 1);
    if (group == TINYFL_GROUP) {
        tinyfl_put_text(&body, "err");
        tinyfl_put_map(&body, 2);
        tinyfl_put_text(&body, "group");
        tinyfl_put_uint(&body, group);
    }
    tinyfl_put_text(&body, "rc");
    tinyfl_put_int(&body, rc);
    send(agent, header, &body);
}

static void send_refusal(tinyfl_agent *agent, const uint8_t header[HEADER], int refusal)
{
    const int version = header[0] >> 3, unknown = 1;
    if (big_endian(header + 4) == TINYFL_GROUP && version > 0)
        send_error(agent, header, TINYFL_GROUP, refusal);
    else
        send_error(agent, header, 0, big_endian(header + 4) == TINYFL_GROUP ? unknown : MALFORMED);
}

static void answer(tinyfl_agent *agent, const uint8_t *message, size_t count)
{
    if (count < HEADER || big_endian(message + 2) != count - HEADER)
        return;
    const uint8_t operation = message[0] & 7;
    if (message[0] >> 3 > 1 || (operation != READ && operation != WRITE))
        return; /* a reply, or a future version: not for us */

    const tinyfl_map request = {message + HEADER, count - HEADER};
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (big_endian(message + 4) != commands[i].group || message[7] != commands[i].id ||
            operation != commands[i].operation)
            continue;
        if (!tinyfl_map_check(&request)) {
            send_error(agent, message, 0, MALFORMED);
            return;
        }
        tinyfl_writer reply = writer(agent);
        int result = commands[i].run(agent, &request, &reply);
        if (result == 0 && reply.full)
            result = TINYFL_REFUSED_SIZE;
        if (result == 0) {
            send(agent, message, &reply);
            if (commands[i].run == tinyfl_reset)
                agent->port->reset();
            if (commands[i].run == tinyfl_rate_write)
                agent->port->rate(agent->baud);
        } else if (result == TINYFL_LATER) {
            memcpy(agent->waiting, message, HEADER);
            agent->is_waiting = 1;
        } else {
            send_refusal(agent, message, result);
        }
        return;
    }
    send_error(agent, message, 0, UNSUPPORTED);
}

void tinyfl_agent_init(tinyfl_agent *agent, const tinyfl_port *port, void *arena, size_t bytes)
{
    memset(agent, 0, sizeof *agent);
    agent->port = agent->sensing.port = port;
    agent->arena = arena;
    agent->arena_bytes = bytes;
    agent->frame.bytes = agent->request;
    agent->frame.room = sizeof agent->request;
    agent->newest = -1;
    tinyfl_load_newest_slot(agent);
    tinyfl_load_program(agent);
    tinyfl_load_classes(agent);
    tinyfl_load_online(agent);
    tinyfl_online_resume(agent);
}

void tinyfl_agent_turn(tinyfl_agent *agent)
{
    int byte;
    agent->port->alive();
    while ((byte = agent->port->read()) >= 0) {
        const size_t count = tinyfl_frame_take(&agent->frame, (uint8_t)byte);
        if (count > 0)
            answer(agent, agent->request, count);
        else
            tinyfl_rate_check(agent);
    }
    const int learns = agent->state == TINYFL_LEARNING && agent->round.source;
    if (learns)
        tinyfl_round_step(agent);
    const int awake = learns || tinyfl_online_step(agent);
    if (agent->is_waiting && agent->state != TINYFL_LEARNING) {
        tinyfl_writer reply = writer(agent);
        agent->is_waiting = 0;
        if (tinyfl_status(agent, NULL, &reply) == 0)
            send(agent, agent->waiting, &reply);
    } else if (!awake) {
        agent->port->idle();
    }
}
