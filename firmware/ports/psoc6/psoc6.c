/* PSoC 62 with 2 MiB of flash by its registers (registers.h says where they are from): any SCB as UART, and slots in whole
 * sectors of 256 KiB, by calls of the boot ROM, which the Cortex-M0+ serves (boot.c). This is the Cortex-M4's part. */
#include "cortex_m.h"
#include "registers.h"

#define SRSS(register) REGISTER(SRSS_BASE + SRSS_##register)
#define CPUSS(register) REGISTER(CPUSS_BASE + CPUSS_##register)
#define PERI(register) REGISTER(PERI_BASE + PERI_##register)
#define FLASHC(register) REGISTER(FLASHC_BASE + FLASHC_##register)
#define IPC(register) REGISTER(IPC_BASE + IPC_STRUCT_BYTES + IPC_STRUCT_##register) /* the Cortex-M4's */
#define SCB(register) REGISTER(TINYFL_UART + SCB_##register)

#define OSCILLATOR 8000000u
#define OSCILLATOR_TURNS 100000u /* of 8 cycles or more: a tenth of a second, where 50 microseconds are needed */

#if TINYFL_CLOCK % 4000000 || TINYFL_CLOCK < 68000000 || TINYFL_CLOCK > 100000000
#error "this port makes a clock of 68 to 100 MHz, in steps of 4 MHz"
#endif
#if TINYFL_SLOT_BITS % SECTOR_BYTES
#error "a slot must be whole sectors of 256 KiB"
#endif
#if TINYFL_SLOT_3_BYTES && TINYFL_STORE_PAGE % ROW_BYTES
#error "the store's page must be whole rows of 512 bytes"
#endif

static int rises(uint32_t address, uint32_t bits, uint32_t wanted, uint32_t turns)
{
    while ((REGISTER(address) & bits) != wanted)
        if (turns-- == 0)
            return 0;
    return 1;
}

/* The boot code, or a debugger, may have left an FLL or a PLL on, which cannot be configured while running. */
static void oscillator_start(void)
{
    SRSS(CLK_FLL_CONFIG3) = (SRSS(CLK_FLL_CONFIG3) & ~SRSS_CLK_FLL_CONFIG3_BYPASS_SEL) | SRSS_CLK_FLL_CONFIG3_BYPASS_SEL__INPUT;
    SRSS(CLK_PATH_SELECT) &= ~SRSS_CLK_PATH_SELECT_PATH_MUX;
    SRSS(CLK_PATH_SELECT + 4) &= ~SRSS_CLK_PATH_SELECT_PATH_MUX;
    SRSS(CLK_ROOT_SELECT) &= ~(SRSS_CLK_ROOT_SELECT_ROOT_MUX | SRSS_CLK_ROOT_SELECT_ROOT_DIV);
    (void)SRSS(CLK_ROOT_SELECT);
    SRSS(CLK_FLL_CONFIG) &= ~SRSS_CLK_FLL_CONFIG_FLL_ENABLE;
    SRSS(CLK_PLL_CONFIG) = SRSS_CLK_PLL_CONFIG_BYPASS_SEL__INPUT;
    CPUSS(CM4_CLOCK_CTL) = 0;
    CPUSS(CM0_CLOCK_CTL) = 0;
}

/* The clock of the core in Hz: the manifest's, or the oscillator's if the PLL does not lock. The PLL takes half
 * of 8 MHz, makes three times the clock of it, which must be 200 to 400 MHz, and divides it by 3. Up to 100 MHz the core's
 * voltage and the wait states of RAM and ROM are enough as they are after reset; flash needs one for each 25 MHz. Peripherals
 * and the Cortex-M0+ run at half the clock. */
static uint32_t clock_start(void)
{
    const uint32_t dividers = 3u << 16 | 2u << 8 | TINYFL_CLOCK / 4000000u * 3;
    oscillator_start();
    SRSS(CLK_PLL_CONFIG) = SRSS_CLK_PLL_CONFIG_BYPASS_SEL__INPUT | dividers;
    SRSS(CLK_PLL_CONFIG) |= SRSS_CLK_PLL_CONFIG_ENABLE;
    if (!rises(SRSS_BASE + SRSS_CLK_PLL_STATUS, SRSS_CLK_PLL_STATUS_LOCKED, SRSS_CLK_PLL_STATUS_LOCKED, OSCILLATOR_TURNS)) {
        SRSS(CLK_PLL_CONFIG) &= ~SRSS_CLK_PLL_CONFIG_ENABLE;
        return OSCILLATOR;
    }
    FLASHC(FLASH_CTL) = (FLASHC(FLASH_CTL) & ~FLASHC_FLASH_CTL_MAIN_WS) | (TINYFL_CLOCK - 1) / 25000000u;
    (void)FLASHC(FLASH_CTL);
    CPUSS(CM0_CLOCK_CTL) = CPUSS_CM0_CLOCK_CTL_PERI_INT_DIV__2;
    SRSS(CLK_PLL_CONFIG) |= SRSS_CLK_PLL_CONFIG_BYPASS_SEL__OUTPUT;
    SRSS(CLK_ROOT_SELECT) |= SRSS_CLK_ROOT_SELECT_ROOT_MUX__PATH1;
    return TINYFL_CLOCK;
}

/* The interrupt's line is high as long as the flag, which is set again while a byte is waiting. */
int tinyfl_uart_take(void)
{
    SCB(INTR_RX) = SCB_INTR_RX_NOT_EMPTY | SCB_INTR_RX_OVERFLOW;
    return SCB(RX_FIFO_STATUS) & SCB_RX_FIFO_STATUS_USED ? (int)(SCB(RX_FIFO_RD) & 0xff) : -1;
}

enum { FIFO = 128 };

static void uart_write(const uint8_t *bytes, size_t count)
{
    while (count--) {
        while ((SCB(TX_FIFO_STATUS) & SCB_TX_FIFO_STATUS_USED) >= FIFO) {
        }
        SCB(TX_FIFO_WR) = *bytes++;
    }
}

static void uart_flush(void)
{
    (void)rises(TINYFL_UART + SCB_TX_FIFO_STATUS, SCB_TX_FIFO_STATUS_USED | SCB_TX_FIFO_STATUS_SR_VALID, 0,
                TINYFL_CLOCK / TINYFL_BAUD * 10 * (FIFO + 2));
}

static void restart(void)
{
    uart_flush();
    tinyfl_system_reset();
}

/* It resets the chip when a 16-bit counter at about 32 kHz reaches MATCH for the third time since feeding: after 4 to 6 s. */
static void alive(void)
{
    SRSS(SRSS_INTR) = SRSS_SRSS_INTR_WDT_MATCH;
    (void)SRSS(SRSS_INTR);
}

static void watchdog_start(void)
{
    SRSS(WDT_CTL) = SRSS_WDT_CTL_WDT_EN | SRSS_WDT_CTL_WDT_LOCK__CLEAR_0;
    SRSS(WDT_CTL) = SRSS_WDT_CTL_WDT_EN | SRSS_WDT_CTL_WDT_LOCK__CLEAR_1;
    SRSS(WDT_MATCH) = 0; /* and no bit ignored */
    SRSS(WDT_CTL) = SRSS_WDT_CTL_WDT_EN | SRSS_WDT_CTL_WDT_LOCK__SET;
    alive();
}

/* Flash. It is erased to 0, and programmed by rows of 512 bytes. */

#define LONGEST_CALL (TINYFL_CLOCK / 8 * 2) /* turns of 8 cycles or more: 2 s, where 16 ms are needed */

static volatile uint32_t call[4]; /* the ROM's arguments, and its answer in the first */

/* Calls the ROM, and waits. In RAM, with interrupts off, since flash must not be read meanwhile. */
__attribute__((noinline, section(".in_ram"))) static int rom_works(void)
{
    uint32_t turns = LONGEST_CALL;
    __asm volatile("cpsid i\n dsb" ::: "memory");
    IPC(NOTIFY) = IPC_STRUCT_NOTIFY_INTR_NOTIFY__ROM;
    while (IPC(LOCK_STATUS) & IPC_STRUCT_LOCK_STATUS_ACQUIRED && turns)
        turns--;
    FLASHC(FLASH_CMD) = FLASHC_FLASH_CMD_INV; /* caches and buffers are stale */
    while (FLASHC(FLASH_CMD) & FLASHC_FLASH_CMD_INV && turns)
        turns--;
    __asm volatile("cpsie i" ::: "memory");
    return turns ? 0 : -1;
}

static int rom_call(uint32_t opcode, uint32_t first, uint32_t second, uint32_t third)
{
    int (*volatile works)(void) = rom_works; /* too far for a branch */
    if (!(IPC(ACQUIRE) & IPC_STRUCT_ACQUIRE_SUCCESS))
        return -1;
    alive();
    call[0] = opcode | ROM_BLOCKING;
    call[1] = first;
    call[2] = second;
    call[3] = third;
    IPC(DATA0) = (uint32_t)(uintptr_t)call;
    return works() == 0 && (call[0] & ROM_STATUS) == ROM_STATUS__SUCCESS ? 0 : -1;
}

static int erase(int slot)
{
    const uint32_t origin = (uint32_t)(uintptr_t)tinyfl_slots[slot].bytes;
    for (uint32_t at = 0; at < tinyfl_slots[slot].count; at += SECTOR_BYTES)
        if (rom_call(ROM_ERASE_SECTOR, origin + at, 0, 0) != 0)
            return -1;
    for (uint32_t i = 0; i < tinyfl_slots[slot].count / 4; i++)
        if (tinyfl_slot_words(slot)[i] != 0)
            return -1;
    return 0;
}

/* Adds bytes to a row, which the ROM erases and rewrites. A power cut meanwhile loses the row, but only in the slot being
 * written, which becomes valid with its first word, written last, and has a hash over the rest. (After a reset meanwhile,
 * according to the vendor, flash may change anywhere; the other slot's hash would detect it.) */
static int write_row(const uint8_t *at, uint32_t within, const uint8_t *bytes, uint32_t count)
{
    static uint32_t row[ROW_BYTES / 4];
    uint8_t *part = (uint8_t *)row + within;
    memcpy(row, at, ROW_BYTES);
    for (uint32_t i = 0; i < count; i++)
        if (part[i] != 0)
            return -1;
    memcpy(part, bytes, count);
    if (rom_call(ROM_WRITE_ROW, 0, (uint32_t)(uintptr_t)at, (uint32_t)(uintptr_t)row) != 0)
        return -1;
    return memcmp(row, at, ROW_BYTES) == 0 ? 0 : -1;
}

static int program(int slot, uint32_t offset, const uint8_t *bytes, size_t count)
{
    while (count) {
        const uint32_t within = offset % ROW_BYTES, room = ROW_BYTES - within, part = count < room ? (uint32_t)count : room;
        if (write_row(tinyfl_slots[slot].bytes + (offset - within), within, bytes, part) != 0)
            return -1;
        offset += part;
        bytes += part;
        count -= part;
    }
    return 0;
}

/* Connects a pin to the UART; an output is driven high until then. */
static void pin_start(uint32_t port, uint32_t pin, uint32_t mode)
{
    const uint32_t gpio = GPIO_BASE + GPIO_PRT_BYTES * port;
    const uint32_t select = HSIOM_BASE + HSIOM_PRT_BYTES * port + HSIOM_PRT_PORT_SEL0 + pin / 4 * 4;
    const uint32_t place = pin % 4 * 8, uart = HSIOM_PRT_PORT_SEL0_IO0_SEL__UART << place;
    REGISTER(gpio + GPIO_PRT_OUT_SET) = 1u << pin;
    REGISTER(select) = (REGISTER(select) & ~(HSIOM_PRT_PORT_SEL0_IO0_SEL << place)) | uart;
    REGISTER(gpio + GPIO_PRT_CFG) = (REGISTER(gpio + GPIO_PRT_CFG) & ~(15u << 4 * pin)) | mode << 4 * pin;
}

enum { SAMPLES = 8 }; /* per bit */

static uint32_t peripheral_clock;

/* Fractional divider 0 provides the SCB's clock; it divides by multiples of 1/32. */
static void uart_clock_start(uint32_t baud)
{
    const uint32_t number = (TINYFL_UART - SCB0_BASE) / (SCB1_BASE - SCB0_BASE);
    const uint32_t parts = (peripheral_clock * (32 / SAMPLES) + baud / 2) / baud, by = parts < 32 ? 32 : parts;
    PERI(DIV_CMD) = PERI_DIV_CMD_DISABLE | PERI_DIV_CMD_TYPE_SEL__16_5;
    PERI(DIV_16_5_CTL) = (by / 32 - 1) << 8 | by % 32 << 3;
    PERI(CLOCK_CTL + 4 * number) = PERI_CLOCK_CTL_TYPE_SEL__16_5;
    PERI(DIV_CMD) = PERI_DIV_CMD_ENABLE | PERI_DIV_CMD_PA_TYPE_SEL | PERI_DIV_CMD_PA_DIV_SEL | PERI_DIV_CMD_TYPE_SEL__16_5;
    (void)PERI(DIV_CMD);
}

static void rate(uint32_t baud)
{
    uart_flush();
    uart_clock_start(baud);
}

static void uart_start(void)
{
    SCB(CTRL) = 0;
    uart_clock_start(TINYFL_BAUD);
    pin_start(TINYFL_RX_PORT, TINYFL_RX_PIN, GPIO_PRT_CFG_IN_EN0);
    pin_start(TINYFL_TX_PORT, TINYFL_TX_PIN, GPIO_PRT_CFG_DRIVE_MODE0__STRONG);
    SCB(CTRL) = SCB_CTRL_MODE__UART | SCB_CTRL_BYTE_MODE | (SAMPLES - 1);
    SCB(UART_CTRL) = 0;
    SCB(UART_TX_CTRL) = SCB_UART_TX_CTRL_STOP_BITS__1;
    SCB(UART_RX_CTRL) = SCB_UART_RX_CTRL_STOP_BITS__1 | SCB_UART_RX_CTRL_BREAK_WIDTH__11;
    SCB(TX_CTRL) = SCB_TX_CTRL_DATA_WIDTH__8;
    SCB(RX_CTRL) = SCB_RX_CTRL_DATA_WIDTH__8;
    SCB(INTR_RX_MASK) = SCB_INTR_RX_MASK_NOT_EMPTY;
    SCB(CTRL) |= SCB_CTRL_ENABLED;
}

const tinyfl_port *tinyfl_port_start(void)
{
    static tinyfl_port port = {
        TINYFL_CORTEX_M_PORT,
        .rate = rate,
        .write = uart_write,
        .alive = alive,
        .reset = restart,
        .erase = erase,
        .program = program,
    };
    if (!tinyfl_identity(&port)) {
        memcpy(port.id, (const void *)(SFLASH_BASE + SFLASH_DIE_LOT), 11);
        port.id_bytes = 11;
    }
    port.clock = clock_start();
    if (port.clock != TINYFL_CLOCK)
        port.rates = NULL; /* too slow for them */
    peripheral_clock = port.clock == OSCILLATOR ? OSCILLATOR : port.clock / 2;
    uart_start();
    watchdog_start();
    tinyfl_clock_start(port.clock);
    tinyfl_receive_start();
    return &port;
}
