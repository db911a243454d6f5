/* The firmware: the agent, with the RAM left by the linker as its arena. */
#include "agent.h"

extern uint8_t tinyfl_arena[], tinyfl_arena_end[];

int main(void)
{
    static tinyfl_agent agent;
    tinyfl_agent_init(&agent, tinyfl_port_start(), tinyfl_arena, (size_t)(tinyfl_arena_end - tinyfl_arena));
    for (;;)
        tinyfl_agent_turn(&agent);
}
