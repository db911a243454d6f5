/* Common code of the models of the STM32 families. registers.h is the family's. */
#ifndef TINYFL_STM32_MODEL_H
#define TINYFL_STM32_MODEL_H

#include "chip.h"

/* stm32f4.c's, for both families: GPIO's three pages; the watchdog's page; the page with RCC and the flash controller; stores
 * to flash; and the reset. */
tinyfl_load stm32_gpio_load, stm32_iwdg_load, stm32_rcc_load;
tinyfl_store stm32_gpio_store, stm32_iwdg_store, stm32_rcc_store, stm32_flash_store;
void stm32_reset(tinyfl_machine *m);
enum { GPIO_PAGES = 3 };

/* Places in chip[]: the watchdog's registers as they lie in its page, whether they are unlocked, the size of the first sectors
 * in KiB, and 16 words of each GPIO. Sectors 0 to 3 are of that size, 4 of four times and all others of eight times of it. */
enum { IWDG_OPEN = 64, SMALL_KIB = 65, GPIO_AT = 128, GPIO_WORDS = 16 };

static inline int usart_clocked(const tinyfl_machine *m)
{
    const uint32_t *clock = m->now.clock;
    switch (m->uart) {
    case USART1_BASE: return (clock[RCC_APB2ENR / 4] & RCC_APB2ENR_USART1EN) != 0;
    case USART2_BASE: return (clock[RCC_APB1ENR / 4] & RCC_APB1ENR_USART2EN) != 0;
    case USART6_BASE: return (clock[RCC_APB2ENR / 4] & RCC_APB2ENR_USART6EN) != 0;
    default: return 0;
    }
}

/* stm32f4.c: what the link's USART is clocked with, in Hz; and whether a pin of the link is given to it. */
double stm32_usart_hertz(const tinyfl_machine *m);
int stm32_usart_has_pin(const tinyfl_machine *m, uint32_t pin);

/* Whether the USART is on in one direction, TE or RE, at the link's baud and with its pin. */
static inline int usart_runs(tinyfl_machine *m, uint32_t direction)
{
    const uint32_t both = USART_CR1_UE | direction, divisor = m->now.uart[USART_BRR / 4];
    return (m->now.uart[USART_CR1 / 4] & both) == both && divisor >= 16 && understood(m, stm32_usart_hertz(m) / divisor) &&
           stm32_usart_has_pin(m, m->pins[direction == USART_CR1_RE]);
}

/* The page with the unique id, which is read only. */
static inline uint64_t id_load(void *engine, uint64_t offset, unsigned size, void *machine)
{
    const tinyfl_machine *m = machine;
    (void)engine, (void)size;
    switch (offset - (UNIQUE_ID & 0xfff)) {
    case 0: return m->serial & 0xffffffffu;
    case 4: return m->serial >> 32;
    case 8: return 0;
    default: return 0xffffffffu;
    }
}

/* A family's entry, with its own UART. */
#define STM32_CHIP(chip_name, chip_reset)                                                \
    {                                                                                    \
        .name = chip_name,                                                               \
        .regions = TINYFL_REGIONS(                                                       \
            {TINYFL_LINK_PAGE, TINYFL_PAGE, usart_load, usart_store},                    \
            {TINYFL_PAGE_OF(UNIQUE_ID), TINYFL_PAGE, id_load, ignore},                   \
            {GPIOA_BASE, GPIO_PAGES * TINYFL_PAGE, stm32_gpio_load, stm32_gpio_store},   \
            {IWDG_BASE, TINYFL_PAGE, stm32_iwdg_load, stm32_iwdg_store},                 \
            {TINYFL_PAGE_OF(RCC_BASE), TINYFL_PAGE, stm32_rcc_load, stm32_rcc_store}),   \
        .store_slot = stm32_flash_store, .reset = chip_reset,                            \
    }

#endif
