/* Common code of the chips' models: register fields, the line to the host, and stopping the core. */
#ifndef TINYFL_CHIP_H
#define TINYFL_CHIP_H

#include "peripherals.h"

/* A field's value, from the mask of its bits. */
static inline uint32_t field(uint32_t value, uint32_t mask) { return (value & mask) / (mask & -mask); }

/* Stops the core. Later callbacks belong to instructions that hardware would not have executed. */
static inline void halt(tinyfl_machine *m, void *engine, uint32_t why)
{
    if (!m->now.halt)
        m->now.halt = why;
    m->stop(engine);
}

/* Restarts the watchdog, which resets the chip after this many seconds of the chip's time. */
static inline void feed(tinyfl_machine *m, double seconds)
{
    m->now.watchdog = m->now.instructions + 1 + (uint64_t)(seconds * m->hertz);
}

/* Whether a UART at this baud rate matches the link: at most 2 % off, of the 5 % that shift a byte's last bit by a half, shared
 * by both ends and the edges. At any other rate the models receive and send nothing. */
static inline int understood(tinyfl_machine *m, double baud)
{
    m->uart_baud = (uint32_t)(baud + 0.5); /* for the line */
    return baud > 0.98 * m->baud && baud < 1.02 * m->baud;
}

static inline int input_waits(const tinyfl_machine *m) { return m->taken < m->input_bytes; }

static inline uint8_t take(tinyfl_machine *m) { return input_waits(m) ? m->input[m->taken++] : 0; }

static inline void send(tinyfl_machine *m, void *engine, uint64_t value)
{
    if (m->sent < m->output_room)
        m->output[m->sent++] = (uint8_t)value;
    else
        halt(m, engine, TINYFL_HALT_OVERFLOW);
}

/* Counts an event of the slots' memory. Returns whether power is cut in the middle of it. */
static inline int cut(tinyfl_machine *m, void *engine)
{
    if (++m->now.slot_events != m->now.cut_at)
        return 0;
    halt(m, engine, TINYFL_HALT_POWER);
    return 1;
}

static inline uint8_t *slot_byte(tinyfl_machine *m, uint64_t offset)
{
    return m->flash + (m->slots_origin - m->flash_origin) + offset;
}

/* Programming only clears bits; a 1 over a 0 is not an error, and stays 0. */
static inline void program(tinyfl_machine *m, void *engine, uint64_t offset, unsigned size, uint64_t value)
{
    uint8_t *bytes = slot_byte(m, offset);
    for (unsigned i = 0, done = cut(m, engine) ? size / 2 : size; i < done; i++)
        bytes[i] &= (uint8_t)(value >> 8 * i);
}

/* Erases flash from offset `start` to `end`. A cut erase leaves half of it erased and the rest undefined. */
static inline void erase(tinyfl_machine *m, void *engine, uint32_t start, uint32_t end)
{
    if (cut(m, engine)) {
        const uint32_t middle = start + (end - start) / 2;
        for (uint32_t at = middle; at < end; at++)
            m->flash[at] = (uint8_t)(m->flash[at] | (at * 2654435761u) >> 24);
        end = middle;
    }
    for (uint32_t at = start; at < end; at++)
        m->flash[at] = 0xff;
}

/* The store of registers that are read only. */
static inline void ignore(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine)
{
    (void)engine, (void)offset, (void)size, (void)value, (void)machine;
}

#endif
