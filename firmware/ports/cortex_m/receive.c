/* Received bytes. The UART's interrupt puts them into a ring while the core learns or hashes; on an emulator without
 * interrupts, reading from an empty ring does the same, so that one binary runs on both. */
#include "cortex_m.h"

/* Space for bytes that arrive while the agent works: status and abort requests. Long frames arrive only while it waits, and are
 * then read immediately. */
enum { RING = 512 };

static volatile uint8_t ring[RING];
static volatile uint32_t put, got; /* total bytes; their difference is the number in the ring */

static inline void mask(void) { __asm volatile("cpsid i" ::: "memory"); }
static inline void unmask(void) { __asm volatile("cpsie i" ::: "memory"); }

/* The UART's bit in one of the NVIC's registers, in which writing 1 acts and 0 has no effect. */
static inline void set(uint32_t nvic)
{
    REGISTER(nvic + TINYFL_UART_INTERRUPT / 32 * 4) = 1u << TINYFL_UART_INTERRUPT % 32;
}

static void look(void)
{
    for (int byte; put - got < RING && (byte = tinyfl_uart_take()) >= 0;)
        ring[put++ % RING] = (uint8_t)byte;
}

/* When the ring is full, bytes stay in the UART until the agent has emptied the ring: on a real line the sender does not wait,
 * so bytes are lost, which their frame's CRC detects; an emulator waits. */
void tinyfl_uart_interrupt(void)
{
    look();
    if (put - got == RING)
        set(NVIC_ICER);
}

int tinyfl_receive(void)
{
    if (got == put) {
        mask();
        look();
        set(NVIC_ISER);
        unmask();
    }
    return got == put ? -1 : ring[got++ % RING];
}

/* A pending interrupt ends the wait even if masked. Its flag is cleared before the check: the check sees earlier bytes, and a
 * later byte is pending. */
void tinyfl_receive_idle(void)
{
    mask();
    set(NVIC_ICPR);
    look();
    if (got == put)
        __asm volatile("dsb\n wfi" ::: "memory");
    unmask();
}

void tinyfl_receive_start(void)
{
    set(NVIC_ISER);
    unmask();
}
