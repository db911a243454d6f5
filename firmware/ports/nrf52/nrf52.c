/* nRF52833 by its registers (Nordic's product specification): UART0 on P0.06 and P1.08, as the micro:bit v2 is wired; slots in
 * pages of flash. The instruction cache, which is on, holds no data, so slots are read as they are. */
#include "cortex_m.h"

#define CLOCK_HFCLKSTART REGISTER(0x40000000u)
#define CLOCK_HFCLKSTARTED REGISTER(0x40000100u)
#define GPIO_P0_OUTSET REGISTER(0x50000508u)
#define GPIO_P0_DIRSET REGISTER(0x50000518u)
#define GPIO_P1_PIN_CNF(pin) REGISTER(0x50000A00u + 4u * (pin))
enum { TX_PIN = 6, RX_PIN = 8, PORT_1 = 1 << 5, PULL_UP = 3 << 2 };

#define UART_STARTRX REGISTER(TINYFL_UART + 0x000)
#define UART_STARTTX REGISTER(TINYFL_UART + 0x008)
#define UART_RXDRDY REGISTER(TINYFL_UART + 0x108)
#define UART_TXDRDY REGISTER(TINYFL_UART + 0x11C)
#define UART_INTENSET REGISTER(TINYFL_UART + 0x304)
#define UART_ENABLE REGISTER(TINYFL_UART + 0x500)
#define UART_PSELTXD REGISTER(TINYFL_UART + 0x50C)
#define UART_PSELRXD REGISTER(TINYFL_UART + 0x514)
#define UART_RXD REGISTER(TINYFL_UART + 0x518)
#define UART_TXD REGISTER(TINYFL_UART + 0x51C)
#define UART_BAUDRATE REGISTER(TINYFL_UART + 0x524)
enum { RXDRDY = 1 << 2, ENABLED = 4 };
/* In units of 16 MHz / 2^32, of which the lowest 12 bits do not count. */
#define BAUDRATE ((uint32_t)((((uint64_t)TINYFL_BAUD << 32) / 16000000u + 0x800u) & 0xFFFFF000u))

#define NVMC_READY REGISTER(0x4001E400u)
#define NVMC_CONFIG REGISTER(0x4001E504u)
#define NVMC_ERASEPAGE REGISTER(0x4001E508u)
#define NVMC_ICACHECNF REGISTER(0x4001E540u)
enum { READ_ONLY, WRITE, ERASE }; /* CONFIG */

#define DEVICE_ID 0x10000060u /* 64 bits */
#define PAGE_BYTES 0x1000u
#if TINYFL_SLOT_BITS % PAGE_BYTES
#error "a slot must be whole pages of 4 KiB"
#endif
#define LONGEST (TINYFL_CLOCK / 8 / 4) /* turns of 8 cycles or more: 0.25 s, thrice a page's erase */

/* The event is cleared before the byte is taken, which brings the next byte and its event up. */
static int uart_read(void)
{
    if (!UART_RXDRDY)
        return -1;
    UART_RXDRDY = 0;
    (void)UART_RXDRDY; /* the write is through */
    return (int)(UART_RXD & 0xff);
}

static void uart_idle(void)
{
    tinyfl_interrupt_clear();
    if (!UART_RXDRDY)
        tinyfl_interrupt_wait();
}

static void uart_write(const uint8_t *bytes, size_t count)
{
    while (count--) {
        UART_TXDRDY = 0;
        UART_TXD = *bytes++;
        while (!UART_TXDRDY) {
        }
    }
}

static int flash_done(void)
{
    uint32_t turns = 0;
    while (!(NVMC_READY & 1))
        if (++turns == LONGEST)
            return -1;
    return 0;
}

static int erase(int slot)
{
    const uint32_t first = (uint32_t)(uintptr_t)tinyfl_slots[slot].bytes;
    int code = 0;
    NVMC_CONFIG = ERASE;
    for (uint32_t at = 0; code == 0 && at < tinyfl_slots[slot].count; at += PAGE_BYTES) {
        NVMC_ERASEPAGE = first + at;
        code = flash_done();
    }
    NVMC_CONFIG = READ_ONLY;
    return code == 0 ? tinyfl_slot_erased(slot) : code;
}

static int program(int slot, uint32_t offset, const uint8_t *bytes, size_t count)
{
    NVMC_CONFIG = WRITE;
    const int code = tinyfl_slot_program(slot, offset, bytes, count, flash_done);
    NVMC_CONFIG = READ_ONLY;
    return code;
}

/* The core runs at 64 MHz from the start; the crystal is what makes the baud rate exact. */
static void clock_start(void)
{
    CLOCK_HFCLKSTART = 1;
    for (uint32_t turns = 0; !CLOCK_HFCLKSTARTED && turns < LONGEST; turns++) {
    }
    NVMC_ICACHECNF = 1;
}

static void uart_start(void)
{
    GPIO_P0_OUTSET = 1u << TX_PIN; /* an idle line is high */
    GPIO_P0_DIRSET = 1u << TX_PIN;
    GPIO_P1_PIN_CNF(RX_PIN) = PULL_UP; /* an open line is no byte */
    UART_PSELTXD = TX_PIN;
    UART_PSELRXD = PORT_1 | RX_PIN;
    UART_BAUDRATE = BAUDRATE;
    UART_ENABLE = ENABLED;
    UART_INTENSET = RXDRDY;
    UART_STARTRX = 1;
    UART_STARTTX = 1;
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
        .reset = tinyfl_system_reset,
        .slots = tinyfl_slots,
        .erase = erase,
        .program = program,
        .stack_low = tinyfl_stack_low,
        .stack_high = tinyfl_stack_high,
    };
    if (!tinyfl_identity(&port)) {
        memcpy(port.id, (const void *)DEVICE_ID, 8);
        port.id_bytes = 8;
    }
    clock_start();
    uart_start();
    return &port;
}
