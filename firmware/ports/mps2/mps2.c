/* Arm's MPS2 FPGA boards: CMSDK UART; SSRAM1, whose upper end serves as flash. */
#include "cortex_m.h"

#define UART_DATA REGISTER(TINYFL_UART + 0x00)
#define UART_STATE REGISTER(TINYFL_UART + 0x04)
#define UART_CTRL REGISTER(TINYFL_UART + 0x08)
#define UART_INTCLEAR REGISTER(TINYFL_UART + 0x0C)
#define UART_BAUDDIV REGISTER(TINYFL_UART + 0x10)
enum { TX_FULL = 1, RX_FULL = 2 };                        /* STATE */
enum { TX_ENABLE = 1, RX_ENABLE = 2, RX_INTERRUPT = 8 };  /* CTRL */
enum { RX_PENDING = 2 };                                  /* INTCLEAR */

int tinyfl_uart_take(void)
{
    UART_INTCLEAR = RX_PENDING;
    return UART_STATE & RX_FULL ? (int)(UART_DATA & 0xff) : -1;
}

static void uart_write(const uint8_t *bytes, size_t count)
{
    while (count--) {
        while (UART_STATE & TX_FULL) {
        }
        UART_DATA = *bytes++;
    }
}

/* The UART does not report an empty shift register: that takes ten bit times after the buffer is empty. */
static void uart_flush(void)
{
    const uint32_t byte = 10 * UART_BAUDDIV;
    while (UART_STATE & TX_FULL) {
    }
    for (volatile uint32_t cycles = 0; cycles < byte; cycles++) {
    }
}

static void restart(void)
{
    uart_flush();
    tinyfl_system_reset();
}

static void rate(uint32_t baud)
{
    uart_flush();
    UART_BAUDDIV = (TINYFL_CLOCK + baud / 2) / baud;
}

static int erase(int slot)
{
    for (uint32_t i = 0; i < tinyfl_slots[slot].count / 4; i++)
        tinyfl_slot_words(slot)[i] = 0xffffffffu;
    return 0;
}

static int at_once(void) { return 0; }

static void alive(void) {} /* the watchdog stays off */

static int program(int slot, uint32_t offset, const uint8_t *bytes, size_t count)
{
    return tinyfl_slot_program(slot, offset, bytes, count, at_once);
}

const tinyfl_port *tinyfl_port_start(void)
{
    static tinyfl_port port = {
        TINYFL_CORTEX_M_PORT,
        .id_bytes = 8, /* of 0, unless identified */
        .rate = rate,
        .write = uart_write,
        .alive = alive,
        .reset = restart,
        .erase = erase,
        .program = program,
    };
    tinyfl_identity(&port);
    rate(TINYFL_BAUD);
    UART_CTRL = TX_ENABLE | RX_ENABLE | RX_INTERRUPT;
    (void)UART_DATA; /* drops a byte from before a reset, and lets QEMU deliver the bytes held back until now */
    tinyfl_clock_start(TINYFL_CLOCK);
    tinyfl_receive_start();
    return &port;
}
