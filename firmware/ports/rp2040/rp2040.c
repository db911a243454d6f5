/* RP2040 by its registers: UART0 or UART1, and slots in the flash chip beside it, by the functions of the boot ROM. While flash
 * is erased, written or asked for its number it is not readable: the code for that is in RAM, with interrupts off. */
#include "cortex_m.h"
#include "registers.h"

#define UART(register) REGISTER(TINYFL_UART + UART_##register)
#define CLOCKS(register) REGISTER(CLOCKS_BASE + CLOCKS_##register)
#define PLL(register) REGISTER(PLL_SYS_BASE + PLL_SYS_##register)
#define WATCHDOG(register) REGISTER(WATCHDOG_BASE + WATCHDOG_##register)
#define SSI(register) REGISTER(XIP_SSI_BASE + XIP_SSI_##register)
#define SET(address) REGISTER((address) + ALIAS_SET)
#define CLEAR(address) REGISTER((address) + ALIAS_CLEAR)

#define CRYSTAL 12000000u
#define RING_OSCILLATOR 6500000u /* the clock after reset: 1.8 to 12 MHz */
#define CLOCK_TURNS 200000u      /* of 8 cycles or more: a tenth of a second, where milliseconds are needed */

/* The PLL makes 12 MHz x the clock's MHz, which must be 750 to 1600 MHz, and divides it by 6 and by 2. */
#if TINYFL_CLOCK % 1000000 || TINYFL_CLOCK < 63000000 || TINYFL_CLOCK > 133000000
#error "the clock must be whole megahertz from 63 to 133"
#endif

#if TINYFL_UART == UART0_BASE
#define UART_RESET RESETS_RESET_UART0
#elif TINYFL_UART == UART1_BASE
#define UART_RESET RESETS_RESET_UART1
#else
#error "this port knows UART0 and UART1"
#endif

enum { PAGE = 256, BLOCK = 0x10000, BLOCK_ERASE = 0xD8, READ_UNIQUE_ID = 0x4B, ID_AT = 5, ID_BYTES = 8 };
#if TINYFL_SLOT_BITS % 0x10000
#error "a slot must be whole blocks of 64 KiB"
#endif

static int turns_to(uint32_t address, uint32_t bits, uint32_t wanted)
{
    for (uint32_t turns = 0; turns < CLOCK_TURNS; turns++)
        if ((REGISTER(address) & bits) == wanted)
            return 1;
    return 0;
}

static void restart_blocks(uint32_t blocks)
{
    SET(RESETS_BASE + RESETS_RESET) = blocks;
    CLEAR(RESETS_BASE + RESETS_RESET) = blocks;
    (void)turns_to(RESETS_BASE + RESETS_RESET_DONE, blocks, blocks);
}

/* The clock of the core and of the UART in Hz: the manifest's, or a fallback if crystal or PLL fail. */
static uint32_t clock_start(void)
{
    CLEAR(CLOCKS_BASE + CLOCKS_CLK_SYS_CTRL) = CLOCKS_CLK_SYS_CTRL_SRC; /* a bootloader may have left the PLL on */
    (void)turns_to(CLOCKS_BASE + CLOCKS_CLK_SYS_SELECTED, 1, 1);
    CLEAR(CLOCKS_BASE + CLOCKS_CLK_REF_CTRL) = CLOCKS_CLK_REF_CTRL_SRC;
    (void)turns_to(CLOCKS_BASE + CLOCKS_CLK_REF_SELECTED, 1, 1);
    CLOCKS(CLK_PERI_CTRL) = CLOCKS_CLK_PERI_CTRL_AUXSRC__CLK_SYS | CLOCKS_CLK_PERI_CTRL_ENABLE;

    REGISTER(XOSC_BASE + XOSC_STARTUP) = CRYSTAL / 1000 / 256 + 1; /* a millisecond, in 256 periods */
    REGISTER(XOSC_BASE + XOSC_CTRL) = XOSC_CTRL_FREQ_RANGE__1_15MHZ | XOSC_CTRL_ENABLE__ENABLE;
    if (!turns_to(XOSC_BASE + XOSC_STATUS, XOSC_STATUS_STABLE, XOSC_STATUS_STABLE))
        return RING_OSCILLATOR;
    CLOCKS(CLK_REF_CTRL) = CLOCKS_CLK_REF_CTRL_SRC__XOSC;
    if (!turns_to(CLOCKS_BASE + CLOCKS_CLK_REF_SELECTED, 4, 4))
        return RING_OSCILLATOR;

    restart_blocks(RESETS_RESET_PLL_SYS);
    PLL(CS) = 1; /* the crystal's clock, divided by 1 */
    PLL(FBDIV_INT) = TINYFL_CLOCK / 1000000;
    CLEAR(PLL_SYS_BASE + PLL_SYS_PWR) = PLL_SYS_PWR_PD | PLL_SYS_PWR_VCOPD;
    if (!turns_to(PLL_SYS_BASE + PLL_SYS_CS, PLL_SYS_CS_LOCK, PLL_SYS_CS_LOCK))
        return CRYSTAL;
    PLL(PRIM) = PLL_SYS_PRIM_POSTDIV1__6 | PLL_SYS_PRIM_POSTDIV2__2;
    CLEAR(PLL_SYS_BASE + PLL_SYS_PWR) = PLL_SYS_PWR_POSTDIVPD;
    CLOCKS(CLK_SYS_CTRL) = CLOCKS_CLK_SYS_CTRL_AUXSRC__PLL_SYS;
    SET(CLOCKS_BASE + CLOCKS_CLK_SYS_CTRL) = CLOCKS_CLK_SYS_CTRL_SRC;
    return turns_to(CLOCKS_BASE + CLOCKS_CLK_SYS_SELECTED, 2, 2) ? TINYFL_CLOCK : CRYSTAL;
}

/* The receive FIFO keeps its two interrupts up until it is empty, so nothing else needs clearing. */
int tinyfl_uart_take(void)
{
    return UART(UARTFR) & UART_UARTFR_RXFE ? -1 : (int)(UART(UARTDR) & UART_UARTDR_DATA);
}

static void uart_write(const uint8_t *bytes, size_t count)
{
    while (count--) {
        while (UART(UARTFR) & UART_UARTFR_TXFF) {
        }
        UART(UARTDR) = *bytes++;
    }
}

/* Connects a pin to the UART, pulled up, so that an open line sends no byte. */
static void pin_start(uint32_t pin)
{
    REGISTER(PADS_BANK0_BASE + PADS_BANK0_GPIO0 + 4 * pin + ALIAS_CLEAR) = PADS_BANK0_GPIO0_PDE;
    REGISTER(PADS_BANK0_BASE + PADS_BANK0_GPIO0 + 4 * pin + ALIAS_SET) = PADS_BANK0_GPIO0_PUE;
    REGISTER(IO_BANK0_BASE + IO_BANK0_GPIO0_CTRL + 8 * pin) = IO_BANK0_GPIO0_CTRL_FUNCSEL__UART;
}

static uint32_t uart_clock;

static void uart_flush(void)
{
    for (uint32_t turns = 0; (UART(UARTFR) & UART_UARTFR_BUSY) && turns < TINYFL_CLOCK / TINYFL_BAUD * 40; turns++) {
    }
}

/* The divisor can be set only while the UART is off. */
static void rate(uint32_t baud)
{
    const uint32_t divisor = (4 * uart_clock + baud / 2) / baud; /* of 16 samples a bit, in 64ths */
    uart_flush();
    UART(UARTCR) = 0;
    UART(UARTIBRD) = divisor / 64;
    UART(UARTFBRD) = divisor % 64;
    UART(UARTLCR_H) = UART_UARTLCR_H_WLEN__8 | UART_UARTLCR_H_FEN; /* also applies the divisor */
    UART(UARTCR) = UART_UARTCR_UARTEN | UART_UARTCR_TXE | UART_UARTCR_RXE;
}

/* 4 bytes of 32 in the FIFO raise an interrupt, and so does one that waits while 32 bits could have come. */
static void uart_start(void)
{
    restart_blocks(RESETS_RESET_IO_BANK0 | RESETS_RESET_PADS_BANK0 | UART_RESET);
    UART(UARTIFLS) = UART_UARTIFLS_RXIFLSEL__EIGHTH;
    UART(UARTIMSC) = UART_UARTIMSC_RXIM | UART_UARTIMSC_RTIM;
    rate(TINYFL_BAUD);
    pin_start(TINYFL_TX_PIN);
    pin_start(TINYFL_RX_PIN);
}

/* In microseconds, which the chip counts twice (erratum RP2040-E1): 8 s; the maximum of 24 bits is 8.4 s. */
static void alive(void) { WATCHDOG(LOAD) = 2 * 8000000u; }

static void watchdog_start(void)
{
    REGISTER(PSM_BASE + PSM_WDSEL) = PSM_WDSEL__ALL & ~(PSM_WDSEL_ROSC | PSM_WDSEL_XOSC);
    WATCHDOG(SCRATCH4) = 0; /* makes the ROM start from flash only */
    WATCHDOG(TICK) = CRYSTAL / 1000000 | WATCHDOG_TICK_ENABLE;
    alive();
    SET(WATCHDOG_BASE + WATCHDOG_CTRL) = WATCHDOG_CTRL_ENABLE;
}

/* The core's own reset would not reset the rest of the chip. */
static void restart(void)
{
    uart_flush();
    SET(WATCHDOG_BASE + WATCHDOG_CTRL) = WATCHDOG_CTRL_TRIGGER;
    for (;;)
        __asm volatile("dsb" ::: "memory");
}

/* The functions of the boot ROM, and boot2 in RAM, which makes flash readable again. */
static struct {
    void (*connect)(void), (*leave_xip)(void), (*flush)(void), (*enter_xip)(void);
    void (*erase)(uint32_t offset, size_t count, uint32_t block, uint8_t command);
    void (*program)(uint32_t offset, const uint8_t *bytes, size_t count);
} rom;

static uint32_t boot2[BOOT2_BYTES / 4];

/* The asm hides from gcc that the address is near 0, which it would take for NULL. */
static uintptr_t rom_pointer(uintptr_t address)
{
    __asm("" : "+r"(address));
    return *(const volatile uint16_t *)address;
}

static void *rom_function(uint32_t code)
{
    typedef void *(*lookup)(const uint16_t *table, uint32_t code);
    return ((lookup)rom_pointer(ROM_TABLE_LOOKUP))((const uint16_t *)rom_pointer(ROM_FUNCTION_TABLE), code);
}

static void rom_start(void)
{
    rom.connect = (void (*)(void))rom_function(ROM_CONNECT_INTERNAL_FLASH);
    rom.leave_xip = (void (*)(void))rom_function(ROM_FLASH_EXIT_XIP);
    rom.flush = (void (*)(void))rom_function(ROM_FLASH_FLUSH_CACHE);
    rom.erase = (void (*)(uint32_t, size_t, uint32_t, uint8_t))rom_function(ROM_FLASH_RANGE_ERASE);
    rom.program = (void (*)(uint32_t, const uint8_t *, size_t))rom_function(ROM_FLASH_RANGE_PROGRAM);
    memcpy(boot2, (const void *)TINYFL_FLASH_ORIGIN, BOOT2_BYTES);
    rom.enter_xip = (void (*)(void))((uintptr_t)boot2 | 1);
}

/* Code in .data, so in RAM. It may call only such code and the ROM, and must not read constants from flash. */
#define IN_RAM __attribute__((noinline, section(".in_ram")))

static uint32_t interrupts_off(void)
{
    uint32_t were;
    __asm volatile("mrs %0, primask\n cpsid i" : "=r"(were)::"memory");
    return were;
}

static void interrupts_as(uint32_t were) { __asm volatile("msr primask, %0" ::"r"(were) : "memory"); }

IN_RAM static void write_page(uint32_t offset, const uint8_t *page)
{
    rom.connect();
    rom.leave_xip();
    rom.program(offset, page, PAGE);
    rom.flush();
    rom.enter_xip();
}

IN_RAM static void erase_block(uint32_t offset)
{
    rom.connect();
    rom.leave_xip();
    rom.erase(offset, BLOCK, BLOCK, BLOCK_ERASE);
    rom.flush();
    rom.enter_xip();
}

/* A command, four dummy bytes, then the number: 13 bytes; the FIFO holds 16. */
IN_RAM static void read_id(uint8_t *id)
{
    volatile uint32_t *const select = &REGISTER(IO_QSPI_BASE + IO_QSPI_GPIO_QSPI_SS_CTRL);
    rom.connect();
    rom.leave_xip();
    *select = IO_QSPI_GPIO_QSPI_SS_CTRL_OUTOVER__LOW;
    SSI(DR0) = READ_UNIQUE_ID;
    for (int i = 1; i < ID_AT + ID_BYTES; i++)
        SSI(DR0) = 0;
    for (int i = 0; i < ID_AT + ID_BYTES; i++) {
        for (uint32_t turns = 0; !(SSI(SR) & XIP_SSI_SR_RFNE) && turns < CLOCK_TURNS; turns++) {
        }
        const uint32_t byte = SSI(DR0);
        if (i >= ID_AT)
            id[i - ID_AT] = (uint8_t)byte;
    }
    *select = IO_QSPI_GPIO_QSPI_SS_CTRL_OUTOVER__HIGH;
    rom.flush();
    rom.enter_xip();
}

static int erase(int slot)
{
    const uint32_t first = (uint32_t)(uintptr_t)tinyfl_slots[slot].bytes - TINYFL_FLASH_ORIGIN;
    for (uint32_t at = 0; at < tinyfl_slots[slot].count; at += BLOCK) {
        alive();
        const uint32_t were = interrupts_off();
        erase_block(first + at);
        interrupts_as(were);
    }
    alive();
    return tinyfl_slot_erased(slot);
}

/* Page by page; bytes of 0xff leave flash unchanged. */
static int program(int slot, uint32_t offset, const uint8_t *bytes, size_t count)
{
    static uint8_t page[PAGE];
    while (count > 0) {
        const uint32_t at = offset % PAGE;
        const size_t part = count < PAGE - at ? count : PAGE - at;
        const uint8_t *there = tinyfl_slots[slot].bytes + offset;
        for (size_t i = 0; i < part; i++)
            if (there[i] != 0xff)
                return -1;
        memset(page, 0xff, PAGE);
        memcpy(page + at, bytes, part);
        alive();
        const uint32_t were = interrupts_off();
        write_page((uint32_t)(uintptr_t)(there - at) - TINYFL_FLASH_ORIGIN, page);
        interrupts_as(were);
        if (memcmp(there, bytes, part) != 0)
            return -1;
        offset += (uint32_t)part;
        bytes += part;
        count -= part;
    }
    return 0;
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
    port.clock = clock_start();
    if (port.clock != TINYFL_CLOCK)
        port.rates = NULL; /* too slow for them */
    watchdog_start();
    rom_start();
    if (!tinyfl_identity(&port)) {
        read_id(port.id);
        port.id_bytes = ID_BYTES;
    }
    uart_clock = port.clock;
    uart_start();
    tinyfl_clock_start(port.clock);
    tinyfl_receive_start();
    return &port;
}
