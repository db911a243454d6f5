/* From ST's reference manual RM0385, section 31.8 (USART). RCC, flash controller and watchdog are those of stm32f4.c.
 * Addresses and bits from the port's registers.h. */
#include "../../firmware/ports/stm32f7/registers.h"

#include "stm32.h"

/* ISR keeps the overrun: until it is cleared, no byte is received. */
static int byte_waits(tinyfl_machine *m)
{
    return usart_runs(m, USART_CR1_RE) && input_waits(m) && !(m->now.uart[USART_ISR / 4] & USART_ISR_ORE);
}

static uint64_t usart_load(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    offset -= m->uart & 0xfff;
    if (m->now.halt || offset > USART_TDR || !usart_clocked(m))
        return 0;
    if (offset == USART_ISR)
        return USART_ISR_TC | USART_ISR_TXE | m->now.uart[USART_ISR / 4] | (byte_waits(m) ? USART_ISR_RXNE : 0);
    if (offset == USART_RDR)
        return byte_waits(m) ? take(m) : 0;
    return m->now.uart[offset / 4];
}

/* While it is on, only CR1 of its settings can be changed. */
static void usart_store(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    (void)size;
    offset -= m->uart & 0xfff;
    if (m->now.halt || offset > USART_TDR || !usart_clocked(m))
        return;
    if (offset == USART_TDR && usart_runs(m, USART_CR1_TE))
        send(m, engine, value);
    else if (offset == USART_ICR)
        m->now.uart[USART_ISR / 4] &= ~((uint32_t)value & USART_ICR_ORECF); /* the flag's own bit */
    else if (offset == USART_CR1 || (offset <= USART_BRR && !(m->now.uart[USART_CR1 / 4] & USART_CR1_UE)))
        m->now.uart[offset / 4] = (uint32_t)value;
}

static void reset(tinyfl_machine *m)
{
    stm32_reset(m);
    m->now.chip[SMALL_KIB] = 32;
}

static tinyfl_chip chip = STM32_CHIP("stm32f7", reset);
TINYFL_REGISTER(chip)
