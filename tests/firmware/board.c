/* A board in memory for the tests: the agent over two buffers, and slots with the rules of flash. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"

enum { SLOT = 4096, STORE = 8192, AREA = 4096 };

static const uint8_t *in;
static size_t in_left;
static uint8_t *out;
static size_t out_room, out_count;
static int asleep, resets;
static uint64_t flash[(2 * SLOT + STORE + 2 * AREA) / sizeof(uint64_t)]; /* aligned, for a program runs where it lies */
static const tinyfl_slot slots[TINYFL_SLOTS] = {
    {(const uint8_t *)flash, SLOT},
    {(const uint8_t *)flash + SLOT, SLOT},
    {(const uint8_t *)flash + 2 * SLOT, STORE},
    {(const uint8_t *)flash + 2 * SLOT + STORE, AREA},
    {(const uint8_t *)flash + 2 * SLOT + STORE + AREA, AREA},
};
static long events_left = -1; /* slot writes until the power is cut; -1: never */
static long events;
static long turns_most = LONG_MAX; /* per exchange: a hostile round may be endless */
static uint8_t *arena;
static tinyfl_agent *agent; /* both on the heap, where a sanitizer sees the bytes around them */

static int port_read(void)
{
    if (in_left == 0)
        return -1;
    in_left--;
    return *in++;
}

static void port_idle(void) { asleep = 1; }

static void port_write(const uint8_t *bytes, size_t count)
{
    const size_t room = out_room - out_count, taken = count < room ? count : room;
    if (taken > 0)
        memcpy(out + out_count, bytes, taken);
    out_count += taken;
}

static const uint32_t rates[] = {230400, 921600, 0};
static uint32_t baud; /* as the agent last set it */

static void port_rate(uint32_t to) { baud = to; }
static void port_alive(void) {}
static void port_reset(void) { resets++; }

/* 0 once the power is gone. */
static int powered(void)
{
    if (events_left == 0)
        return 0;
    if (events_left > 0)
        events_left--;
    events++;
    return 1;
}

static uint8_t *slot_at(int slot) { return (uint8_t *)flash + (slots[slot].bytes - slots[0].bytes); }

static int port_erase(int slot)
{
    if (!powered()) {
        memset(slot_at(slot), 0xa5, slots[slot].count / 2); /* cut half way: part garbage, part as it was */
        return -1;
    }
    memset(slot_at(slot), 0xff, slots[slot].count);
    return 0;
}

static int port_program(int slot, uint32_t offset, const uint8_t *bytes, size_t count)
{
    uint8_t *at = slot_at(slot) + offset;
    if (offset % 4 || count % 4 || offset > slots[slot].count || count > slots[slot].count - offset)
        abort();
    for (size_t i = 0; i < count; i += 4) {
        if (!powered())
            return -1;
        for (size_t k = i; k < i + 4; k++) {
            if (at[k] != 0xff) {
                if (slot < TINYFL_STORE_SLOT)
                    abort(); /* written twice without an erase between */
                return -1;
            }
            at[k] = bytes[k];
        }
    }
    return 0;
}

static tinyfl_port port = {
    .board = "memory",
    .clock = 1000000,
    .id = {0, 0, 0, 0, 0, 0, 0, 7},
    .id_bytes = 8,
    .read = port_read,
    .idle = port_idle,
    .baud = 115200,
    .rates = rates,
    .rate = port_rate,
    .write = port_write,
    .alive = port_alive,
    .reset = port_reset,
    .slots = slots,
    .erase = port_erase,
    .program = port_program,
};

const tinyfl_port *tinyfl_port_start(void) { return &port; }

/* Power on. With `blank`, flash is as new; RAM never keeps anything. */
void board_start(size_t arena_bytes, int blank);
void board_start(size_t arena_bytes, int blank)
{
    free(arena);
    free(agent);
    arena = malloc(arena_bytes);
    agent = malloc(sizeof *agent);
    if (!arena || !agent)
        abort();
    memset(arena, 0xee, arena_bytes);
    if (blank)
        memset(flash, 0xff, sizeof flash);
    events_left = -1;
    tinyfl_agent_init(agent, tinyfl_port_start(), arena, arena_bytes);
}

/* Gives the agent `count` bytes and lets it work until it sleeps; how many bytes it sent, of which `room` are kept. */
size_t board_exchange(const uint8_t *bytes, size_t count, uint8_t *reply, size_t room);
size_t board_exchange(const uint8_t *bytes, size_t count, uint8_t *reply, size_t room)
{
    in = bytes;
    in_left = count;
    out = reply;
    out_room = room;
    out_count = 0;
    asleep = 0;
    for (long turns = 0; turns < turns_most && (!asleep || in_left > 0); turns++)
        tinyfl_agent_turn(agent);
    return out_count;
}

void board_cut_after(long writes);
void board_cut_after(long writes)
{
    events_left = writes;
    events = 0;
}

uint32_t board_baud(void);
uint32_t board_baud(void) { return baud; }
long board_events(void);
long board_events(void) { return events; }

/* The most turns per exchange, for a board that does not sleep; 0: no limit. */
void board_turns(long most);
void board_turns(long most) { turns_most = most > 0 ? most : LONG_MAX; }

/* The slots, one after the other. */
uint8_t *board_flash(void);
uint8_t *board_flash(void) { return slot_at(0); }

/* Copies the numbers of what the device keeps, then the block and its copy; how many floats these are together. */
size_t board_kept(uint32_t numbers[2], float *into);
size_t board_kept(uint32_t numbers[2], float *into)
{
    const tinyfl_kept *kept = &agent->kept;
    numbers[0] = kept->round;
    numbers[1] = kept->copied;
    if (kept->count > 0)
        memcpy(into, kept->blocks, 2 * kept->count * sizeof *into);
    return 2 * kept->count;
}

int board_resets(void);
int board_resets(void) { return resets; }
