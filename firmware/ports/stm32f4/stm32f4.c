/* STM32F405/407 by its registers (ST's reference manual RM0090): USART2 on PA2 and PA3, slots in the flash's large
 * sectors. It runs from the internal 16 MHz oscillator, as the chip starts: flash without wait states, and its caches, which
 * would go stale when a slot is written, off. */
#include "cortex_m.h"

#define RCC_AHB1ENR REGISTER(0x40023830u)
#define RCC_APB1ENR REGISTER(0x40023840u)
#define GPIOA_MODER REGISTER(0x40020000u)
#define GPIOA_PUPDR REGISTER(0x4002000Cu)
#define GPIOA_AFRL REGISTER(0x40020020u)

#define USART_SR REGISTER(TINYFL_UART + 0x00)
#define USART_DR REGISTER(TINYFL_UART + 0x04)
#define USART_BRR REGISTER(TINYFL_UART + 0x08)
#define USART_CR1 REGISTER(TINYFL_UART + 0x0C)
enum { ORE = 1 << 3, RXNE = 1 << 5, TC = 1 << 6, TXE = 1 << 7 };         /* SR */
enum { RE = 1 << 2, TE = 1 << 3, RXNEIE = 1 << 5, UE = 1 << 13 };        /* CR1 */

#define FLASH_KEYR REGISTER(0x40023C04u)
#define FLASH_SR REGISTER(0x40023C0Cu)
#define FLASH_CR REGISTER(0x40023C10u)
#define BSY (1u << 16)
#define SR_ERRORS 0x1F2u /* RDERR, PGSERR, PGPERR, PGAERR, WRPERR, OPERR: cleared by writing 1 */
#define PG (1u << 0)
#define SER (1u << 1)
#define SNB(sector) ((uint32_t)(sector) << 3)
#define PSIZE_32 (2u << 8) /* needs 2.7 V or more */
#define STRT (1u << 16)
#define LOCK (1u << 31)

#define UNIQUE_ID 0x1FFF7A10u /* 96 bits */
#define SECTOR_BYTES 0x20000u /* from sector 5, 128 KiB into the flash, on */
#define SECTOR(address) (((address) - 0x08000000u) / SECTOR_BYTES + 4)
#if TINYFL_SLOT_BITS % SECTOR_BYTES
#error "a slot must be whole sectors of 128 KiB"
#endif
#if SECTOR(TINYFL_SLOT_0) < 5
#error "the first slot must begin at sector 5 or above"
#endif
#define LONGEST_ERASE (TINYFL_CLOCK / 8 * 4) /* turns of 8 cycles or more: 4 s, twice the data sheet's longest */

/* An overrun is cleared as a byte is, by reading SR and then DR. */
static int uart_read(void)
{
    const uint32_t status = USART_SR;
    if (!(status & (RXNE | ORE)))
        return -1;
    const int byte = (int)(USART_DR & 0xff);
    return status & RXNE ? byte : -1;
}

static void uart_idle(void)
{
    tinyfl_interrupt_clear();
    if (!(USART_SR & (RXNE | ORE)))
        tinyfl_interrupt_wait();
}

static void uart_write(const uint8_t *bytes, size_t count)
{
    while (count--) {
        while (!(USART_SR & TXE)) {
        }
        USART_DR = *bytes++;
    }
}

static void restart(void)
{
    for (uint32_t turns = 0; !(USART_SR & TC) && turns < TINYFL_CLOCK / TINYFL_BAUD * 20; turns++) {
    }
    tinyfl_system_reset();
}

static int flash_done(void)
{
    uint32_t turns = 0;
    while (FLASH_SR & BSY)
        if (++turns == LONGEST_ERASE)
            return -1;
    return FLASH_SR & SR_ERRORS ? -1 : 0;
}

static int flash_open(void)
{
    if (FLASH_CR & LOCK) {
        FLASH_KEYR = 0x45670123u;
        FLASH_KEYR = 0xCDEF89ABu;
    }
    FLASH_SR = SR_ERRORS;
    return FLASH_CR & LOCK ? -1 : flash_done();
}

static int erase(int slot)
{
    const uint32_t first = SECTOR((uint32_t)(uintptr_t)tinyfl_slots[slot].bytes);
    int code = flash_open();
    for (uint32_t i = 0; code == 0 && i < tinyfl_slots[slot].count / SECTOR_BYTES; i++) {
        FLASH_CR = PSIZE_32 | SNB(first + i) | SER;
        FLASH_CR = PSIZE_32 | SNB(first + i) | SER | STRT;
        code = flash_done();
    }
    FLASH_CR = LOCK;
    return code == 0 ? tinyfl_slot_erased(slot) : code;
}

static int program(int slot, uint32_t offset, const uint8_t *bytes, size_t count)
{
    int code = flash_open();
    if (code == 0)
        FLASH_CR = PSIZE_32 | PG;
    if (code == 0)
        code = tinyfl_slot_program(slot, offset, bytes, count, flash_done);
    FLASH_CR = LOCK;
    return code;
}

static void uart_start(void)
{
    RCC_AHB1ENR |= 1u << 0;  /* GPIOA */
    RCC_APB1ENR |= 1u << 17; /* USART2 */
    (void)RCC_APB1ENR;       /* a clock takes two cycles to come on */
    GPIOA_MODER = (GPIOA_MODER & ~0xF0u) | 0xA0u;      /* PA2, PA3: alternate function ... */
    GPIOA_AFRL = (GPIOA_AFRL & ~0xFF00u) | 0x7700u;    /* ... 7 */
    GPIOA_PUPDR = (GPIOA_PUPDR & ~0xF0u) | 0x50u;      /* pulled up: an open line is no byte */
    USART_BRR = (TINYFL_CLOCK + TINYFL_BAUD / 2) / TINYFL_BAUD;
    USART_CR1 = UE | TE | RE | RXNEIE;
    tinyfl_interrupt_enable();
}

const tinyfl_port *tinyfl_port_start(void)
{
    static tinyfl_port port = {
        .board = TINYFL_BOARD,
        .clock = TINYFL_CLOCK,
        .read = uart_read,
        .idle = uart_idle,
        .write = uart_write,
        .reset = restart,
        .slots = tinyfl_slots,
        .erase = erase,
        .program = program,
        .stack_low = tinyfl_stack_low,
        .stack_high = tinyfl_stack_high,
    };
    if (!tinyfl_identity(&port)) { /* first: QEMU has nothing where the unique id is, and faults */
        memcpy(port.id, (const void *)UNIQUE_ID, 12);
        port.id_bytes = 12;
    }
    uart_start();
    return &port;
}
