/* STM32F4 by the names of ST's SVD files, against which tests/firmware/test_registers.py checks every line: X_BASE is a
 * peripheral's address, X_Y a register's offset in it, X_Y_Z a field's bits, X_Y_Z__V a value of it in its place. What F401,
 * F405 and F446 have alike is all that is here. */
#ifndef TINYFL_STM32F4_REGISTERS_H
#define TINYFL_STM32F4_REGISTERS_H

#define RCC_BASE 0x40023800u
#define RCC_CR 0x00u
#define RCC_CR_HSION (1u << 0)
#define RCC_CR_HSIRDY (1u << 1)
#define RCC_CR_PLLON (1u << 24)
#define RCC_CR_PLLRDY (1u << 25)
#define RCC_PLLCFGR 0x04u
#define RCC_PLLCFGR_PLLM (63u << 0)
#define RCC_PLLCFGR_PLLN (511u << 6)
#define RCC_PLLCFGR_PLLP (3u << 16)
#define RCC_PLLCFGR_PLLSRC (1u << 22)
#define RCC_PLLCFGR_PLLQ (15u << 24)
#define RCC_CFGR 0x08u
#define RCC_CFGR_SW (3u << 0)
#define RCC_CFGR_SW__PLL (2u << 0)
#define RCC_CFGR_SWS (3u << 2)
#define RCC_CFGR_SWS__PLL (2u << 2)
#define RCC_CFGR_HPRE (15u << 4)
#define RCC_CFGR_PPRE1 (7u << 10)
#define RCC_CFGR_PPRE1__4 (5u << 10)
#define RCC_CFGR_PPRE2 (7u << 13)
#define RCC_CFGR_PPRE2__4 (5u << 13)
#define RCC_AHB1ENR 0x30u
#define RCC_AHB1ENR_GPIOAEN (1u << 0)
#define RCC_APB1ENR 0x40u
#define RCC_APB1ENR_USART2EN (1u << 17)
#define RCC_APB2ENR 0x44u
#define RCC_APB2ENR_USART1EN (1u << 4)
#define RCC_APB2ENR_USART6EN (1u << 5)

#define GPIOA_BASE 0x40020000u
#define GPIOB_BASE 0x40020400u
#define GPIO_MODER 0x00u
#define GPIO_PUPDR 0x0Cu
#define GPIO_AFRL 0x20u
#define GPIO_AFRH 0x24u

#define USART1_BASE 0x40011000u
#define USART2_BASE 0x40004400u
#define USART6_BASE 0x40011400u
#define USART_SR 0x00u
#define USART_SR_ORE (1u << 3)
#define USART_SR_RXNE (1u << 5)
#define USART_SR_TC (1u << 6)
#define USART_SR_TXE (1u << 7)
#define USART_DR 0x04u
#define USART_BRR 0x08u
#define USART_CR1 0x0Cu
#define USART_CR1_RE (1u << 2)
#define USART_CR1_TE (1u << 3)
#define USART_CR1_RXNEIE (1u << 5)
#define USART_CR1_UE (1u << 13)
#define USART_CR2 0x10u
#define USART_CR3 0x14u
#define USART_GTPR 0x18u

#define FLASH_BASE 0x40023C00u
#define FLASH_ACR 0x00u
#define FLASH_ACR_LATENCY (7u << 0)
#define FLASH_ACR_ICEN (1u << 9)
#define FLASH_KEYR 0x04u
#define FLASH_SR 0x0Cu
#define FLASH_SR_EOP (1u << 0)
#define FLASH_SR_OPERR (1u << 1)
#define FLASH_SR_WRPERR (1u << 4)
#define FLASH_SR_PGAERR (1u << 5)
#define FLASH_SR_PGPERR (1u << 6)
#define FLASH_SR_PGSERR (1u << 7)
#define FLASH_SR_BSY (1u << 16)
#define FLASH_CR 0x10u
#define FLASH_CR_PG (1u << 0)
#define FLASH_CR_SER (1u << 1)
#define FLASH_CR_MER (1u << 2)
#define FLASH_CR_SNB (15u << 3)
#define FLASH_CR_PSIZE (3u << 8)
#define FLASH_CR_PSIZE__32 (2u << 8)
#define FLASH_CR_STRT (1u << 16)
#define FLASH_CR_EOPIE (1u << 24)
#define FLASH_CR_ERRIE (1u << 25)
#define FLASH_CR_LOCK (1u << 31)
#define FLASH_OPTCR 0x14u

#define IWDG_BASE 0x40003000u
#define IWDG_KR 0x00u
#define IWDG_PR 0x04u
#define IWDG_PR_PR (7u << 0)
#define IWDG_PR_PR__256 (6u << 0)
#define IWDG_RLR 0x08u
#define IWDG_RLR_RL (4095u << 0)
#define IWDG_SR 0x0Cu
#define IWDG_SR_PVU (1u << 0)
#define IWDG_SR_RVU (1u << 1)

#define UNIQUE_ID 0x1FFF7A10u          /* 96 bits; in no SVD */
#define TINYFL_SECTOR_BYTES 0x20000u /* of sector 5 and on */

#endif
