/* STM32F7's own: a USART with two data registers, and the Cortex-M7's cache of instructions. Flash is at its AXI address, where
 * that cache works; the core's cache of data stays off. */
#include "registers.h"
#include "stm32.h"

#define SCB(register) REGISTER(SCB_BASE + SCB_##register)

static void settle(void) { __asm volatile("dsb\n isb" ::: "memory"); }

void tinyfl_cache_start(void)
{
    settle();
    SCB(ICIALLU) = 0;
    settle();
    SCB(CCR) |= SCB_CCR_IC;
    settle();
}

/* Reading RDR removes a byte; an overrun is cleared separately. */
int tinyfl_uart_take(void)
{
    const uint32_t status = USART(ISR);
    if (status & USART_ISR_ORE)
        USART(ICR) = USART_ICR_ORECF;
    return status & USART_ISR_RXNE ? (int)(USART(RDR) & 0xff) : -1;
}

void tinyfl_usart_write(const uint8_t *bytes, size_t count)
{
    while (count--) {
        while (!(USART(ISR) & USART_ISR_TXE)) {
        }
        USART(TDR) = *bytes++;
    }
}

int tinyfl_usart_sent(void) { return (USART(ISR) & USART_ISR_TC) != 0; }

/* The divisor can be set only while the USART is off; a bootloader may have left two stop bits or flow control. */
void tinyfl_usart_start(uint32_t divisor)
{
    USART(CR1) = 0;
    USART(CR2) = USART(CR3) = 0;
    USART(BRR) = divisor;
    USART(CR1) = USART_CR1_UE | USART_CR1_TE | USART_CR1_RE | USART_CR1_RXNEIE;
}
