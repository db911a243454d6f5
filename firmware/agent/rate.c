/* The link's rate: a host may raise it, and what is no frame lowers it. */
#include "commands.h"

static const uint32_t none;

static const uint32_t *rates_of(const tinyfl_port *port) { return port->rate && port->rates ? port->rates : &none; }

static uint32_t rate_now(const tinyfl_agent *agent) { return agent->baud ? agent->baud : agent->port->baud; }

int tinyfl_rates_read(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    (void)request;
    const uint32_t *rates = rates_of(agent->port);
    size_t count = 0;
    while (rates[count])
        count++;
    tinyfl_put_map(reply, 2);
    tinyfl_put_text(reply, "baud");
    tinyfl_put_uint(reply, rate_now(agent));
    tinyfl_put_text(reply, "rates");
    tinyfl_put_array(reply, count);
    for (size_t i = 0; i < count; i++)
        tinyfl_put_uint(reply, rates[i]);
    return 0;
}

/* The agent changes the rate after the reply. */
int tinyfl_rate_write(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply)
{
    const uint32_t *rate = rates_of(agent->port);
    uint64_t baud;
    if (!*rate || !tinyfl_get_uint(request, "baud", UINT32_MAX, &baud))
        return TINYFL_REFUSED_INVALID;
    while (*rate && *rate != baud)
        rate++;
    if (!*rate && baud != agent->port->baud)
        return TINYFL_REFUSED_INVALID;
    agent->baud = (uint32_t)baud;
    tinyfl_put_map(reply, 1);
    tinyfl_put_text(reply, "baud");
    tinyfl_put_uint(reply, baud);
    return 0;
}

void tinyfl_rate_check(tinyfl_agent *agent)
{
    if (agent->frame.bad < TINYFL_BAD_FRAMES || rate_now(agent) == agent->port->baud)
        return;
    agent->frame.bad = 0;
    agent->baud = agent->port->baud;
    agent->port->rate(agent->baud);
}
