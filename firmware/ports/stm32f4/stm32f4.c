/* STM32F4's own: a USART with one data register, and the flash's cache of instructions. */
#include "registers.h"
#include "stm32.h"

/* Turns off the data cache and the prefetch, which a bootloader may have turned on. */
void tinyfl_cache_start(void) { FLASH(ACR) = (FLASH(ACR) & FLASH_ACR_LATENCY) | FLASH_ACR_ICEN; }

/* Reading SR and then DR removes a byte, and clears an overrun. */
int tinyfl_uart_take(void)
{
    const uint32_t status = USART(SR);
    if (!(status & (USART_SR_RXNE | USART_SR_ORE)))
        return -1;
    const int byte = (int)(USART(DR) & 0xff);
    return status & USART_SR_RXNE ? byte : -1;
}

void tinyfl_usart_write(const uint8_t *bytes, size_t count)
{
    while (count--) {
        while (!(USART(SR) & USART_SR_TXE)) {
        }
        USART(DR) = *bytes++;
    }
}

int tinyfl_usart_sent(void) { return (USART(SR) & USART_SR_TC) != 0; }

void tinyfl_usart_start(uint32_t divisor)
{
    USART(CR1) = 0;
    USART(CR2) = USART(CR3) = 0;
    USART(BRR) = divisor;
    USART(CR1) = USART_CR1_UE | USART_CR1_TE | USART_CR1_RE | USART_CR1_RXNEIE;
}
