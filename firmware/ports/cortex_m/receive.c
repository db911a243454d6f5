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

/* The UART's bit in one of the NVIC's registers, where to write 1 is to act and 0 does nothing. */
static inline void set(uint32_t nvic)
{
    REGISTER(nvic + TINYFL_UART_INTERRUPT / 32 * 4) = 1u << TINYFL_UART_INTERRUPT % 32;
}

static void look(void)
{
    for (int byte; put - got < RING && (byte = tinyfl_uart_take()) >= 0;)
        ring[put++ % RING] = (uint8_t)byte;
}

/* Once the ring is full the rest stays in the UART, until the agent has emptied the ring: on a line nothing holds the sender
 * back, so bytes are lost there and their frame's CRC tells; but an emulator waits, and is not to be outrun. */
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

/* Masked, an interrupt that is pending still ends the wait. Its flag is cleared before the look: a byte that comes earlier is
 * seen by the look, one that comes later is pending. */
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
