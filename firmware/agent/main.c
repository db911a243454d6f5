/* The firmware: the agent in all the memory that the linker has left over. */
#include "agent.h"

extern uint8_t tinyfl_arena[], tinyfl_arena_end[];

int main(void)
{
    static tinyfl_agent agent;
    tinyfl_agent_init(&agent, tinyfl_port_start(), tinyfl_arena, (size_t)(tinyfl_arena_end - tinyfl_arena));
    for (;;)
        tinyfl_agent_turn(&agent);
}
