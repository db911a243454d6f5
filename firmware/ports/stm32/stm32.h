/* Common code of the STM32 families (stm32.c), and the functions each family provides (ports/stm32f4, ports/stm32f7).
 * registers.h is the family's. */
#ifndef TINYFL_STM32_H
#define TINYFL_STM32_H

#include "cortex_m.h"
#include "registers.h"

#define RCC(register) REGISTER(RCC_BASE + RCC_##register)
#define FLASH(register) REGISTER(FLASH_BASE + FLASH_##register)
#define USART(register) REGISTER(TINYFL_UART + USART_##register)
#define IWDG(register) REGISTER(IWDG_BASE + IWDG_##register)
#define GPIO(port, register) REGISTER(GPIOA_BASE + (GPIOB_BASE - GPIOA_BASE) * (port) + (register))

/* Provided by each family, in addition to tinyfl_uart_take (cortex_m.h). */
void tinyfl_cache_start(void);            /* the instruction cache; data are not cached, or a slot's would be stale */
void tinyfl_usart_start(uint32_t divisor); /* divisor of the bus's clock; its pins and its clock are on */
void tinyfl_usart_write(const uint8_t *bytes, size_t count);
int tinyfl_usart_sent(void); /* whether the last byte has been sent */

#endif
