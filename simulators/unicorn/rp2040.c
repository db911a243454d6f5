/* The RP2040's buses, resets, clocks, pads, UARTs and watchdog, from the descriptions in its SDK's register headers and
 * from memory of its data sheet; addresses and bits from the port's registers.h. */
#include "../../firmware/ports/rp2040/registers.h"
#include "rp2040.h"

#define EVERY_RESET 0x01ffffffu

/* The bit in RESETS that holds a peripheral; 0: none does. */
static uint32_t reset_bit(unsigned peripheral)
{
    switch (peripheral) {
    case IO_BANK0: return RESETS_RESET_IO_BANK0;
    case IO_QSPI: return RESETS_RESET_IO_QSPI;
    case PADS_BANK0: return RESETS_RESET_PADS_BANK0;
    case PADS_QSPI: return RESETS_RESET_PADS_QSPI;
    case PLL_SYS: return RESETS_RESET_PLL_SYS;
    case UART0: return RESETS_RESET_UART0;
    case UART1: return RESETS_RESET_UART1;
    default: return 0;
    }
}

int rp2040_held(const tinyfl_machine *m, unsigned peripheral)
{
    return (cell(m, RESETS, RESETS_RESET) & reset_bit(peripheral)) != 0;
}

void rp2040_reset_peripheral(tinyfl_machine *m, unsigned peripheral)
{
    uint32_t *words = cells(m, peripheral);
    memset(words, 0, CELLS * sizeof *words);
    for (unsigned i = 0; i < TURNS; i++) {
        if (peripheral == PADS_BANK0 && i > 0)
            words[i] = 0x56; /* input on, pulled down, 4 mA, Schmitt trigger */
        if ((peripheral == IO_BANK0 || peripheral == IO_QSPI) && i % 2)
            words[i] = 0x1f; /* no function */
    }
    if (peripheral == PLL_SYS) {
        words[PLL_SYS_CS / 4] = 1;
        words[PLL_SYS_PWR / 4] = 0x2d;
        words[PLL_SYS_PRIM / 4] = 0x77000;
    } else if (peripheral == UART0 || peripheral == UART1) {
        words[UART_UARTCR / 4] = UART_UARTCR_TXE | UART_UARTCR_RXE;
        words[UART_UARTIFLS / 4] = 0x12;
    }
}

/* Clocks, in MHz; 0: stopped. */

static double crystal(const tinyfl_machine *m)
{
    const uint32_t on = field(cell(m, XOSC, XOSC_CTRL), XOSC_CTRL_ENABLE) == field(XOSC_CTRL_ENABLE__ENABLE, XOSC_CTRL_ENABLE);
    return on && m->now.chip[CELLS * XOSC + TURNS] >= READS_TO_READY ? 12 : 0;
}

/* The PLL's frequency if it locks. */
static double pll_turns(const tinyfl_machine *m)
{
    const uint32_t divider = field(cell(m, PLL_SYS, PLL_SYS_CS), PLL_SYS_CS_REFDIV);
    const uint32_t times = cell(m, PLL_SYS, PLL_SYS_FBDIV_INT);
    if (rp2040_held(m, PLL_SYS) || (cell(m, PLL_SYS, PLL_SYS_PWR) & (PLL_SYS_PWR_PD | PLL_SYS_PWR_VCOPD)) || divider == 0)
        return 0;
    const double turns = crystal(m) / divider * times;
    return times < 16 || times > 320 || crystal(m) / divider < 5 || turns < 750 || turns > 1600 ? 0 : turns;
}

static int pll_locked(const tinyfl_machine *m)
{
    return pll_turns(m) > 0 && m->now.chip[CELLS * PLL_SYS + TURNS] >= READS_TO_READY;
}

static double pll(const tinyfl_machine *m)
{
    const uint32_t dividers = cell(m, PLL_SYS, PLL_SYS_PRIM);
    const uint32_t by = field(dividers, PLL_SYS_PRIM_POSTDIV1) * field(dividers, PLL_SYS_PRIM_POSTDIV2);
    return !pll_locked(m) || (cell(m, PLL_SYS, PLL_SYS_PWR) & PLL_SYS_PWR_POSTDIVPD) || by == 0 ? 0 : pll_turns(m) / by;
}

static double clk_ref(const tinyfl_machine *m)
{
    const uint32_t source = cell(m, CLOCKS, CLOCKS_CLK_REF_CTRL) & CLOCKS_CLK_REF_CTRL_SRC;
    const uint32_t by = cell(m, CLOCKS, CLOCKS_CLK_REF_DIV) >> 8;
    return (source == CLOCKS_CLK_REF_CTRL_SRC__ROSC ? 6.5 : source == CLOCKS_CLK_REF_CTRL_SRC__XOSC ? crystal(m) : 0) / by;
}

double rp2040_clk_sys(const tinyfl_machine *m)
{
    const uint32_t control = cell(m, CLOCKS, CLOCKS_CLK_SYS_CTRL), by = cell(m, CLOCKS, CLOCKS_CLK_SYS_DIV) >> 8;
    if (!(control & CLOCKS_CLK_SYS_CTRL_SRC))
        return clk_ref(m) / by;
    return (control & CLOCKS_CLK_SYS_CTRL_AUXSRC) == CLOCKS_CLK_SYS_CTRL_AUXSRC__PLL_SYS ? pll(m) / by : 0;
}

static double clk_peri(const tinyfl_machine *m)
{
    const uint32_t control = cell(m, CLOCKS, CLOCKS_CLK_PERI_CTRL);
    return (control & CLOCKS_CLK_PERI_CTRL_ENABLE) &&
                   (control & CLOCKS_CLK_PERI_CTRL_AUXSRC) == CLOCKS_CLK_PERI_CTRL_AUXSRC__CLK_SYS
               ? rp2040_clk_sys(m)
               : 0;
}

/* UARTs. A divisor, in 64ths, takes effect once the line's settings are written after it. */

enum { PINS = 30 };

/* TX is on pins 0, 12, 16 and 28 of UART0, and 4 below or above of UART1; RX is beside it. */
static int has_pin(const tinyfl_machine *m, unsigned uart, unsigned receives)
{
    const uint32_t pin = m->pins[receives], group = pin / 4;
    if (pin >= PINS)
        return 0;
    const uint32_t pad = cell(m, PADS_BANK0, PADS_BANK0_GPIO0 + 4 * pin);
    const uint32_t function = cell(m, IO_BANK0, IO_BANK0_GPIO0_CTRL + 8 * pin) & IO_BANK0_GPIO0_CTRL_FUNCSEL;
    const unsigned owner = group == 1 || group == 2 || group == 5 || group == 6 ? UART1 : UART0;
    return pin % 4 == receives && owner == uart && function == IO_BANK0_GPIO0_CTRL_FUNCSEL__UART &&
           (receives ? pad & PADS_BANK0_GPIO0_IE : !(pad & PADS_BANK0_GPIO0_OD));
}

static int uart_runs(tinyfl_machine *m, unsigned uart, uint32_t direction)
{
    const uint32_t both = UART_UARTCR_UARTEN | direction, line = cell(m, uart, UART_UARTLCR_H);
    const uint32_t divisor = m->now.chip[CELLS * uart + LATCHED_DIVISOR];
    return m->uart == PERIPHERALS_BASE + uart * 0x4000 && !rp2040_held(m, uart) &&
           (cell(m, uart, UART_UARTCR) & both) == both && (line & ~UART_UARTLCR_H_FEN) == UART_UARTLCR_H_WLEN__8 &&
           divisor >= 64 && understood(m, clk_peri(m) * 1e6 * 64 / 16 / divisor) && !rp2040_held(m, IO_BANK0) &&
           !rp2040_held(m, PADS_BANK0) && has_pin(m, uart, direction == UART_UARTCR_RXE);
}

static uint32_t uart_read(tinyfl_machine *m, unsigned uart, uint32_t offset)
{
    const int waits = uart_runs(m, uart, UART_UARTCR_RXE) && input_waits(m);
    const uint32_t raised = waits ? UART_UARTRIS_RXRIS | UART_UARTRIS_RTRIS : 0;
    switch (offset) {
    case UART_UARTDR: return waits ? take(m) : 0;
    case UART_UARTFR: return UART_UARTFR_TXFE | (waits ? 0 : UART_UARTFR_RXFE);
    case UART_UARTRIS: return raised;
    case UART_UARTMIS: return raised & cell(m, uart, UART_UARTIMSC);
    default: return cell(m, uart, offset);
    }
}

static void uart_write(tinyfl_machine *m, void *engine, unsigned uart, uint32_t offset, uint32_t value)
{
    if (offset == UART_UARTDR) {
        if (uart_runs(m, uart, UART_UARTCR_TXE))
            send(m, engine, value & UART_UARTDR_DATA);
        return;
    }
    cells(m, uart)[offset / 4] = value;
    if (offset == UART_UARTLCR_H)
        cells(m, uart)[LATCHED_DIVISOR] = 64 * cell(m, uart, UART_UARTIBRD) + cell(m, uart, UART_UARTFBRD) % 64;
}

/* The watchdog counts twice at each tick, erratum RP2040-E1. */
static void watchdog_write(tinyfl_machine *m, void *engine, uint32_t offset, uint32_t value)
{
    uint32_t *watchdog = m->now.clock;
    const uint32_t resets = cell(m, PSM, PSM_WDSEL) & PSM_WDSEL_PROC0, was = watchdog[WATCHDOG_CTRL / 4];
    watchdog[offset / 4] = value & ~WATCHDOG_CTRL_TRIGGER;
    if (offset == WATCHDOG_CTRL && (value & WATCHDOG_CTRL_TRIGGER) && resets)
        halt(m, engine, TINYFL_HALT_RESET);
    const uint32_t on = watchdog[WATCHDOG_CTRL / 4] & WATCHDOG_CTRL_ENABLE, tick = watchdog[WATCHDOG_TICK / 4];
    if (!on || !resets || !(tick & WATCHDOG_TICK_ENABLE) || !(tick & WATCHDOG_TICK_CYCLES))
        m->now.watchdog = 0;
    else if (offset == WATCHDOG_LOAD || !(was & WATCHDOG_CTRL_ENABLE))
        feed(m, (watchdog[WATCHDOG_LOAD / 4] & 0xffffff) / 2 * (tick & WATCHDOG_TICK_CYCLES) / (clk_ref(m) * 1e6));
}

/* All peripherals. */

static uint32_t ready(tinyfl_machine *m, unsigned peripheral, int will, uint32_t flag)
{
    uint32_t *turns = &cells(m, peripheral)[TURNS];
    if (!will)
        *turns = 0;
    else if (*turns < READS_TO_READY)
        ++*turns;
    return *turns >= READS_TO_READY ? flag : 0;
}

static uint32_t peripheral_read(tinyfl_machine *m, unsigned peripheral, uint32_t offset)
{
    if (peripheral == WATCHDOG)
        return m->now.clock[offset / 4 % CELLS];
    if (peripheral >= KEPT || offset >= 4 * LATCHED_DIVISOR || rp2040_held(m, peripheral))
        return 0;
    const uint32_t value = cell(m, peripheral, offset), on = XOSC_CTRL_ENABLE__ENABLE;
    if (peripheral == UART0 || peripheral == UART1)
        return uart_read(m, peripheral, offset);
    if (peripheral == RESETS && offset == RESETS_RESET_DONE)
        return ~cell(m, RESETS, RESETS_RESET) & EVERY_RESET;
    if (peripheral == XOSC && offset == XOSC_STATUS) {
        const int enabled = (cell(m, XOSC, XOSC_CTRL) & XOSC_CTRL_ENABLE) == on;
        return ready(m, XOSC, enabled, XOSC_STATUS_STABLE) | (enabled ? XOSC_STATUS_ENABLED : 0);
    }
    if (peripheral == PLL_SYS && offset == PLL_SYS_CS)
        return value | ready(m, PLL_SYS, pll_turns(m) > 0, PLL_SYS_CS_LOCK);
    if (peripheral == CLOCKS && offset == CLOCKS_CLK_REF_SELECTED)
        return clk_ref(m) > 0 ? 1u << (cell(m, CLOCKS, CLOCKS_CLK_REF_CTRL) & CLOCKS_CLK_REF_CTRL_SRC) : 0;
    if (peripheral == CLOCKS && offset == CLOCKS_CLK_SYS_SELECTED)
        return 1u << (cell(m, CLOCKS, CLOCKS_CLK_SYS_CTRL) & CLOCKS_CLK_SYS_CTRL_SRC);
    return value;
}

static void peripheral_write(tinyfl_machine *m, void *engine, unsigned peripheral, uint32_t offset, uint32_t value)
{
    if (peripheral == WATCHDOG) {
        watchdog_write(m, engine, offset % (4 * CELLS), value);
        return;
    }
    if (peripheral >= KEPT || offset >= 4 * LATCHED_DIVISOR || rp2040_held(m, peripheral))
        return;
    if (peripheral == UART0 || peripheral == UART1) {
        uart_write(m, engine, peripheral, offset, value);
        return;
    }
    const double turned = pll_turns(m);
    cells(m, peripheral)[offset / 4] = value;
    if (pll_turns(m) < turned || pll_turns(m) > turned)
        (void)ready(m, PLL_SYS, 0, 0); /* it must lock again */
    for (unsigned other = 0; other < KEPT; other++)
        if (peripheral == RESETS && rp2040_held(m, other))
            rp2040_reset_peripheral(m, other);
    rp2040_settle(m, engine);
}

static uint64_t load(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    return m->now.halt ? 0 : peripheral_read(m, (unsigned)(offset >> 14), offset & 0xffc) >> 8 * (offset & 3);
}

/* A narrow write appears on all byte lanes. */
static void store(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    if (m->now.halt)
        return;
    const unsigned peripheral = (unsigned)(offset >> 14), alias = offset & 0x3000;
    const uint32_t at = offset & 0xffc;
    uint32_t word = (uint32_t)value * (size == 1 ? 0x01010101u : size == 2 ? 0x00010001u : 1);
    if (alias) {
        const uint32_t old = peripheral_read(m, peripheral, at);
        word = alias == ALIAS_SET ? old | word : alias == ALIAS_CLEAR ? old & ~word : old ^ word;
    }
    peripheral_write(m, engine, peripheral, at, word);
}

/* SIO: core 0, and no one holds BOOTSEL, which would pull the flash's select line down. */
static uint64_t sio_load(void *engine, uint64_t offset, unsigned size, void *machine)
{
    (void)engine, (void)size, (void)machine;
    return offset == SIO_GPIO_HI_IN ? 1 << 1 : 0;
}

/* The chip's state after power-on, then the ROM's actions. */
static void reset(tinyfl_machine *m)
{
    cells(m, RESETS)[RESETS_RESET / 4] = EVERY_RESET;
    for (unsigned peripheral = 0; peripheral < KEPT; peripheral++)
        if (rp2040_held(m, peripheral))
            rp2040_reset_peripheral(m, peripheral);
    cells(m, CLOCKS)[CLOCKS_CLK_REF_DIV / 4] = cells(m, CLOCKS)[CLOCKS_CLK_SYS_DIV / 4] = 0x100;
    m->now.clock[WATCHDOG_CTRL / 4] = WATCHDOG_CTRL_PAUSE_DBG0 | WATCHDOG_CTRL_PAUSE_DBG1 | WATCHDOG_CTRL_PAUSE_JTAG;
    m->now.clock[WATCHDOG_TICK / 4] = WATCHDOG_TICK_ENABLE;
    rp2040_boot(m);
}

enum { PERIPHERALS = 28, PERIPHERAL_BYTES = 4 * TINYFL_PAGE, CACHE_BYTES = 4 * TINYFL_PAGE };

static tinyfl_chip chip = {
    .name = "rp2040",
    .regions = TINYFL_REGIONS(
        {RP2040_DOOR, TINYFL_PAGE, rp2040_door_load, rp2040_door_store},
        {XIP_CTRL_BASE, CACHE_BYTES, NULL, NULL},
        {XIP_SSI_BASE, TINYFL_PAGE, rp2040_ssi_load, rp2040_ssi_store},
        {PERIPHERALS_BASE, PERIPHERALS * PERIPHERAL_BYTES, load, store},
        {SIO_BASE, TINYFL_PAGE, sio_load, ignore}
    ),
    .store_slot = ignore, /* the bus cannot write flash */
    .reset = reset,
    .rom = rp2040_rom,
    .rom_bytes = sizeof rp2040_rom,
};
TINYFL_REGISTER(chip)
