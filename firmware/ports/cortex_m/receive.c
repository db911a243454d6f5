/* Bytes that have come in. The UART's interrupt puts them into a ring while the core learns or hashes; where no interrupt
 * comes (an emulator without them), the look into an empty ring does the same. So one binary serves on both. */
#include "cortex_m.h"

/* What may arrive while the agent is at work: requests to look at it or to stop it. Frames of a full buffer come only when
 * it waits, and then they are read as they come. */
enum { RING = 512 };

static volatile uint8_t ring[RING];
static volatile uint32_t put, got; /* bytes ever; their difference is what waits */

static inline void mask(void) { __asm volatile("cpsid i" ::: "memory"); }
static inline void unmask(void) { __asm volatile("cpsie i" ::: "memory"); }

/* What finds the ring full is lost, and its frame's CRC tells. */
void tinyfl_uart_interrupt(void)
{
    for (int byte; (byte = tinyfl_uart_take()) >= 0;)
        if (put - got < RING)
            ring[put++ % RING] = (uint8_t)byte;
}

/* The same without loss, with interrupts masked: the rest stays where it is. */
static void look(void)
{
    for (int byte; put - got < RING && (byte = tinyfl_uart_take()) >= 0;)
        ring[put++ % RING] = (uint8_t)byte;
}

int tinyfl_receive(void)
{
    if (got == put) {
        mask();
        look();
        unmask();
    }
    return got == put ? -1 : ring[got++ % RING];
}

/* Masked, an interrupt that is pending still ends the wait. Its flag is cleared before the look: a byte that comes earlier is
 * seen by the look, one that comes later is pending. */
void tinyfl_receive_idle(void)
{
    mask();
    REGISTER(NVIC_ICPR + TINYFL_UART_INTERRUPT / 32 * 4) = 1u << TINYFL_UART_INTERRUPT % 32;
    look();
    if (got == put)
        __asm volatile("dsb\n wfi" ::: "memory");
    unmask();
}

void tinyfl_receive_start(void)
{
    REGISTER(NVIC_ISER + TINYFL_UART_INTERRUPT / 32 * 4) = 1u << TINYFL_UART_INTERRUPT % 32;
    unmask();
}
