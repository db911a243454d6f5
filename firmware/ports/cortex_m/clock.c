/* The clock: SysTick, which counts the core's cycles down and interrupts when it begins again. */
#include "cortex_m.h"

enum { COUNTED = 1 << 16 }; /* SYST_CSR: it has begun again since the last read */

static volatile uint32_t begun; /* how often */
static uint32_t per_ms, period; /* cycles, and ms, from one beginning to the next */

static void count(void)
{
    while (REGISTER(SYST_CSR) & COUNTED)
        begun++;
}

/* Wakes a sleeping core too, so that the agent's turn feeds the watchdog; it does not feed it itself: a board must prove that
 * its main loop runs. */
void tinyfl_clock_tick(void) { count(); }

uint32_t tinyfl_clock_millis(void)
{
    __asm volatile("cpsid i" ::: "memory");
    count();
    uint32_t left = REGISTER(SYST_CVR);
    const uint32_t before = begun;
    count();
    if (begun != before)
        left = REGISTER(SYST_CVR);
    const uint32_t time = begun * period + (per_ms ? (period * per_ms - 1 - left) / per_ms : 0);
    __asm volatile("cpsie i" ::: "memory");
    return time;
}

void tinyfl_clock_start(uint32_t hertz)
{
    per_ms = hertz / 1000;
    period = 0x1000000u / per_ms;
    REGISTER(SYST_RVR) = period * per_ms - 1;
    REGISTER(SYST_CVR) = 0;
    REGISTER(SYST_CSR) = 7; /* the core's clock, interrupt, on */
}
