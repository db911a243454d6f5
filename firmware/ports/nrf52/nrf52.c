/* nRF52833 and nRF52840 by their registers (Nordic's product specifications): UART0, the one without DMA, on any two pins;
 * slots in pages of flash. The instruction cache, which is on, holds no data, so slots are read as they are. A bootloader may
 * have run before: its settings of the peripherals used here are turned off; a running watchdog is fed. */
#include "cortex_m.h"
#include "registers.h"

#define CLOCK(register) REGISTER(CLOCK_BASE + CLOCK_##register)
#define PORT(port, register) REGISTER(((port) ? P1_BASE : P0_BASE) + P0_##register)
#define UART(register) REGISTER(TINYFL_UART + UART_##register)
#define WDT(register) REGISTER(WDT_BASE + WDT_##register)
#define NVMC(register) REGISTER(NVMC_BASE + NVMC_##register)

#if TINYFL_UART != UART0_BASE
#error "UART0 is the only one without DMA"
#endif
#if TINYFL_CLOCK != 64000000
#error "these chips run at 64 MHz"
#endif

#define PAGE_BYTES 0x1000u
#if TINYFL_SLOT_BITS % PAGE_BYTES
#error "a slot must be whole pages of 4 KiB"
#endif

#define READ_ONLY 0u /* of NVMC's CONFIG */
#define LONGEST (TINYFL_CLOCK / 8 / 4) /* turns of 8 cycles or more: 0.25 s, thrice a page's erase */
#define WATCHDOG_SECONDS 8u

/* The event is cleared before the byte is taken, which brings the next byte and its event up. An overrun stops nothing; the
 * frame's CRC detects it. */
int tinyfl_uart_take(void)
{
    if (!UART(EVENTS_RXDRDY))
        return -1;
    UART(EVENTS_RXDRDY) = 0;
    (void)UART(EVENTS_RXDRDY); /* waits for the write */
    return (int)(UART(RXD) & 0xff);
}

/* The event means that the byte has been sent. */
static void uart_write(const uint8_t *bytes, size_t count)
{
    while (count--) {
        UART(EVENTS_TXDRDY) = 0;
        UART(TXD) = *bytes++;
        while (!UART(EVENTS_TXDRDY)) {
        }
    }
}

/* Every enabled reload register must be written: more than ours if a bootloader started the watchdog. */
static void alive(void)
{
    for (uint32_t i = 0; i < 8; i++)
        if (WDT(RREN) >> i & 1)
            REGISTER(WDT_BASE + WDT_RR0 + 4 * i) = WDT_RR0_RR__RELOAD;
}

/* Once started it can be neither changed nor stopped, not even by a software reset. It counts only while the core is awake:
 * SysTick stops while this core sleeps, so nothing would wake a board that waits for its host. */
static void watchdog_start(void)
{
    if (!(WDT(RUNSTATUS) & WDT_RUNSTATUS_RUNSTATUS)) {
        WDT(CONFIG) = 0; /* paused in sleep, and where a debugger has stopped the core */
        WDT(CRV) = WATCHDOG_SECONDS * 32768u - 1;
        WDT(RREN) = WDT_RREN_RR0;
        WDT(TASKS_START) = 1;
    }
    alive();
}

static int flash_done(void)
{
    uint32_t turns = 0;
    __asm volatile("dsb" ::: "memory"); /* waits for the store */
    while (!(NVMC(READY) & NVMC_READY_READY))
        if (++turns == LONGEST)
            return -1;
    return 0;
}

static int erase(int slot)
{
    const uint32_t first = (uint32_t)(uintptr_t)tinyfl_slots[slot].bytes;
    int code = 0;
    NVMC(CONFIG) = NVMC_CONFIG_WEN__EEN;
    for (uint32_t at = 0; code == 0 && at < tinyfl_slots[slot].count; at += PAGE_BYTES) {
        alive();
        NVMC(ERASEPAGE) = first + at;
        code = flash_done();
    }
    NVMC(CONFIG) = READ_ONLY;
    return code == 0 ? tinyfl_slot_erased(slot) : code;
}

static int program(int slot, uint32_t offset, const uint8_t *bytes, size_t count)
{
    NVMC(CONFIG) = NVMC_CONFIG_WEN__WEN;
    const int code = tinyfl_slot_program(slot, offset, bytes, count, flash_done);
    NVMC(CONFIG) = READ_ONLY;
    return code;
}

/* The core runs at 64 MHz from the start; the crystal makes the baud rate exact. Without one the link may still work, since the
 * internal oscillator is off by a few per cent at most. */
static void clock_start(void)
{
    const uint32_t crystal = CLOCK_HFCLKSTAT_SRC__XTAL | CLOCK_HFCLKSTAT_STATE__RUNNING;
    CLOCK(TASKS_HFCLKSTART) = 1;
    for (uint32_t turns = 0; (CLOCK(HFCLKSTAT) & crystal) != crystal && turns < LONGEST; turns++) {
    }
    NVMC(ICACHECNF) = NVMC_ICACHECNF_CACHEEN;
}

/* In units of 16 MHz / 2^32, of which the lowest 12 bits have no effect: baud / 15625 x 2^10, times 2^12. */
static void rate(uint32_t baud) { UART(BAUDRATE) = (baud * 1024u + 15625u / 2) / 15625u << 12; }

/* Pins can be selected only while the UART, and the one with DMA that shares its registers, is off. */
static void uart_start(void)
{
    UART(ENABLE) = 0;
    UART(INTENCLR) = 0xFFFFFFFFu;
    UART(SHORTS) = 0;
    PORT(TINYFL_TX_PORT, OUTSET) = 1u << TINYFL_TX_PIN; /* an idle line is high */
    PORT(TINYFL_TX_PORT, DIRSET) = 1u << TINYFL_TX_PIN;
    PORT(TINYFL_RX_PORT, PIN_CNF0 + 4 * TINYFL_RX_PIN) = P0_PIN_CNF0_PULL__PULLUP; /* so that an open line sends no byte */
    UART(PSEL_RTS) = UART(PSEL_CTS) = UART_PSEL_RXD_CONNECT__DISCONNECTED;
    UART(PSEL_TXD) = TINYFL_TX_PORT * UART_PSEL_RXD_PORT | TINYFL_TX_PIN;
    UART(PSEL_RXD) = TINYFL_RX_PORT * UART_PSEL_RXD_PORT | TINYFL_RX_PIN;
    rate(TINYFL_BAUD);
    UART(CONFIG) = 0; /* no parity, no flow control */
    UART(EVENTS_RXDRDY) = 0;
    UART(ENABLE) = UART_ENABLE_ENABLE__ENABLED;
    UART(INTENSET) = UART_INTENSET_RXDRDY;
    UART(TASKS_STARTRX) = 1;
    UART(TASKS_STARTTX) = 1;
}

/* From these revisions on a chip closes its debug port at every reset, unless a probe's setting in UICR keeps it open and the
 * firmware applies it. Otherwise a second flash would find the chip locked, and could only erase it. */
static void debug_start(void)
{
    const uint32_t part = REGISTER(CHIP_PART), step = REGISTER(CHIP_STEP);
    if ((part == CHIP_PART__NRF52840 && step >= 5) || (part == CHIP_PART__NRF52833 && step >= 2))
        REGISTER(APPROTECT_DISABLE) = REGISTER(UICR_BASE + UICR_APPROTECT);
}

const tinyfl_port *tinyfl_port_start(void)
{
    static tinyfl_port port = {
        TINYFL_CORTEX_M_PORT,
        .rate = rate,
        .write = uart_write,
        .reset = tinyfl_system_reset,
        .alive = alive,
        .erase = erase,
        .program = program,
    };
    if (!tinyfl_identity(&port)) {
        memcpy(port.id, (const void *)(FICR_BASE + FICR_DEVICEID0), 8);
        port.id_bytes = 8;
    }
    watchdog_start();
    debug_start();
    clock_start();
    uart_start();
    tinyfl_clock_start(TINYFL_CLOCK);
    tinyfl_receive_start();
    return &port;
}
