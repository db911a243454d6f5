/* From Raspberry Pi's RP2040 data sheet: 2.1 (buses, aliases), 2.6.3 (flash), 2.8 (boot ROM), 2.14 to 2.19 (resets, clocks, pads),
 * 4.2 (UART), 4.7 (watchdog), 4.10 (SSI), and Winbond's of the W25Q16JV; addresses and bits from the port's registers.h.
 *
 * Flash is a chip that understands commands byte by byte. It is memory only while the SSI is set up to make a serial read
 * (command 03h) of every access; other ways to read, by four lines, are not modelled. */
#include "../../firmware/ports/rp2040/registers.h"

#include <string.h>

#include "chip.h"

/* The peripherals' numbers, by 16 KiB from 0x40000000. Those below 16 have 64 words each in chip[], the watchdog has clock[]. */
enum {
    CLOCKS = 2, RESETS = 3, PSM = 4, IO_BANK0 = 5, IO_QSPI = 6, PADS_BANK0 = 7, PADS_QSPI = 8, XOSC = 9, PLL_SYS = 10,
    UART0 = 13, UART1 = 14, KEPT = 16, WATCHDOG = 22,
};
enum { CELLS = 64, TURNS = 63, LATCHED_IBRD = 62 }; /* the last words of a peripheral's are the model's */
enum { READS_TO_READY = 4 };
#define EVERY_RESET 0x01ffffffu
#define PERIPHERALS 0x40000000u

/* In flash[]: SSI's registers, then the model's of SSI, of the flash chip, and what the ROM was called with. */
enum { FIFO = 64, FIFO_WORDS = 16, FIFO_COUNT = 80, SELECTED, COMMAND, INDEX, ADDRESS, WRITE_ENABLED, CALLED, RESULT = 92, PAGE = 96 };
enum { PAGE_BYTES = 256 };

static uint32_t field(uint32_t value, uint32_t mask) { return (value & mask) / (mask & -mask); }

static uint32_t *cells(tinyfl_machine *m, unsigned peripheral) { return m->now.chip + CELLS * peripheral; }

static uint32_t cell(const tinyfl_machine *m, unsigned peripheral, uint32_t offset)
{
    return m->now.chip[CELLS * peripheral + offset / 4];
}

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

static int held(const tinyfl_machine *m, unsigned peripheral)
{
    return (cell(m, RESETS, RESETS_RESET) & reset_bit(peripheral)) != 0;
}

static void reset_peripheral(tinyfl_machine *m, unsigned peripheral)
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

/* Clocks, in MHz; 0: stands still. */

static double crystal(const tinyfl_machine *m)
{
    const uint32_t on = field(cell(m, XOSC, XOSC_CTRL), XOSC_CTRL_ENABLE) == field(XOSC_CTRL_ENABLE__ENABLE, XOSC_CTRL_ENABLE);
    return on && m->now.chip[CELLS * XOSC + TURNS] >= READS_TO_READY ? 12 : 0;
}

/* What the PLL turns at if it locks. */
static double pll_turns(const tinyfl_machine *m)
{
    const uint32_t divider = field(cell(m, PLL_SYS, PLL_SYS_CS), PLL_SYS_CS_REFDIV), times = cell(m, PLL_SYS, PLL_SYS_FBDIV_INT);
    if (held(m, PLL_SYS) || (cell(m, PLL_SYS, PLL_SYS_PWR) & (PLL_SYS_PWR_PD | PLL_SYS_PWR_VCOPD)) || divider == 0)
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

static double clk_sys(const tinyfl_machine *m)
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
               ? clk_sys(m)
               : 0;
}

/* Flash: the chip. */

/* A page that is cut has half of the bytes that there were to write. */
static void chip_programs(tinyfl_machine *m, void *engine)
{
    const uint8_t *page = (const uint8_t *)&m->now.flash[PAGE];
    uint8_t *there = m->flash + m->now.flash[ADDRESS] / PAGE_BYTES * PAGE_BYTES % m->flash_bytes;
    unsigned count = 0, done = 0;
    for (unsigned i = 0; i < PAGE_BYTES; i++)
        count += page[i] != 0xff;
    if (cut(m, engine))
        count /= 2;
    for (unsigned i = 0; done < count; done += page[i++] != 0xff)
        there[i] &= page[i];
}

static void chip_erases(tinyfl_machine *m, void *engine, uint32_t bytes)
{
    const uint32_t start = m->now.flash[ADDRESS] % m->flash_bytes / bytes * bytes;
    erase(m, engine, start, start + bytes);
}

/* Commands that change anything do so when the chip is let go, after as many bytes as they have. */
static void chip_let_go(tinyfl_machine *m, void *engine)
{
    uint32_t *chip = m->now.flash;
    const uint32_t command = chip[COMMAND], index = chip[INDEX], enabled = chip[WRITE_ENABLED];
    chip[INDEX] = 0;
    if (command == 0x06 && index == 1) {
        chip[WRITE_ENABLED] = 1;
    } else if (enabled && ((command == 0x02 && index > 4) || ((command == 0x20 || command == 0xd8) && index == 4))) {
        if (command == 0x02)
            chip_programs(m, engine);
        else
            chip_erases(m, engine, command == 0x20 ? 0x1000 : 0x10000);
        chip[WRITE_ENABLED] = 0;
        m->now.flash_busy = READS_TO_READY;
    }
}

/* One byte in, and one out at the same time. */
static uint8_t chip_exchange(tinyfl_machine *m, uint8_t byte)
{
    static const uint8_t jedec[3] = {0xef, 0x40, 0x15};
    uint32_t *chip = m->now.flash;
    const uint32_t index = chip[INDEX]++;
    if (index == 0) {
        chip[COMMAND] = m->now.flash_busy && byte != 0x05 ? 0 : byte;
        chip[ADDRESS] = 0;
        memset(&chip[PAGE], 0xff, PAGE_BYTES);
        return 0xff;
    }
    switch (chip[COMMAND]) {
    case 0x05: return (uint8_t)((m->now.flash_busy ? m->now.flash_busy-- > 0 : 0) | chip[WRITE_ENABLED] << 1);
    case 0x4b: return index > 4 && index < 13 ? (uint8_t)(m->serial >> 8 * (12 - index)) : 0xff;
    case 0x9f: return index < 4 ? jedec[index - 1] : 0xff;
    case 0x02:
    case 0x03:
    case 0x20:
    case 0xd8:
        if (index < 4)
            chip[ADDRESS] = chip[ADDRESS] << 8 | byte;
        else if (chip[COMMAND] == 0x02)
            ((uint8_t *)&chip[PAGE])[(chip[ADDRESS] + index - 4) % PAGE_BYTES] = byte; /* it never leaves its page */
        else if (chip[COMMAND] == 0x03)
            return m->flash[(chip[ADDRESS] + index - 4) % m->flash_bytes];
    }
    return 0xff;
}

/* Flash: the SSI. */

static int wired(const tinyfl_machine *m)
{
    const uint32_t control = cell(m, IO_QSPI, IO_QSPI_GPIO_QSPI_SS_CTRL);
    return !held(m, IO_QSPI) && !held(m, PADS_QSPI) && (control & IO_QSPI_GPIO_QSPI_SS_CTRL_FUNCSEL) == 0;
}

static uint32_t override_of(const tinyfl_machine *m)
{
    return cell(m, IO_QSPI, IO_QSPI_GPIO_QSPI_SS_CTRL) & IO_QSPI_GPIO_QSPI_SS_CTRL_OUTOVER;
}

static int ssi_runs(const tinyfl_machine *m, uint32_t format)
{
    const uint32_t *ssi = m->now.flash;
    const uint32_t all = XIP_SSI_CTRLR0_SPI_FRF | XIP_SSI_CTRLR0_DFS_32 | XIP_SSI_CTRLR0_TMOD;
    return ssi[XIP_SSI_SSIENR / 4] && ssi[XIP_SSI_SER / 4] == 1 && (ssi[XIP_SSI_CTRLR0 / 4] & all) == format &&
           ssi[XIP_SSI_BAUDR / 4] / 2 > 0;
}

static int ssi_talks(const tinyfl_machine *m)
{
    return ssi_runs(m, XIP_SSI_CTRLR0_DFS_32__8 | XIP_SSI_CTRLR0_TMOD__TX_AND_RX);
}

/* Command 03h must not come faster than 50 MHz. */
static int ssi_reads_memory(const tinyfl_machine *m)
{
    const uint32_t *ssi = m->now.flash, format = ssi[XIP_SSI_SPI_CTRLR0 / 4];
    const uint32_t all = XIP_SSI_SPI_CTRLR0_XIP_CMD | XIP_SSI_SPI_CTRLR0_WAIT_CYCLES | XIP_SSI_SPI_CTRLR0_INST_L |
                         XIP_SSI_SPI_CTRLR0_ADDR_L | XIP_SSI_SPI_CTRLR0_TRANS_TYPE;
    return ssi_runs(m, XIP_SSI_CTRLR0_DFS_32__32 | XIP_SSI_CTRLR0_TMOD__EEPROM_READ) && ssi[XIP_SSI_CTRLR1 / 4] == 0 &&
           (format & all) ==
               (XIP_SSI_SPI_CTRLR0_XIP_CMD__READ | XIP_SSI_SPI_CTRLR0_INST_L__8B | XIP_SSI_SPI_CTRLR0_ADDR_L__24B) &&
           clk_sys(m) / (ssi[XIP_SSI_BAUDR / 4] & ~1u) <= 50 && !m->now.flash_busy;
}

/* After whatever may have changed the chip's select line, the way to read it or the clock. */
static void settle(tinyfl_machine *m, void *engine)
{
    const uint32_t selected = wired(m) && override_of(m) == IO_QSPI_GPIO_QSPI_SS_CTRL_OUTOVER__LOW;
    if (m->now.flash[SELECTED] && !selected)
        chip_let_go(m, engine);
    m->now.flash[SELECTED] = selected;
    m->now.away = !(wired(m) && override_of(m) == IO_QSPI_GPIO_QSPI_SS_CTRL_OUTOVER__NORMAL && ssi_reads_memory(m));
    if (clk_sys(m) <= 0 || clk_sys(m) > 133.001)
        halt(m, engine, TINYFL_HALT_CRASH);
}

static void ssi_put(tinyfl_machine *m, uint8_t byte)
{
    uint32_t *ssi = m->now.flash;
    if (!ssi_talks(m))
        return;
    const uint8_t answer = ssi[SELECTED] ? chip_exchange(m, byte) : 0xff;
    if (ssi[FIFO_COUNT] < FIFO_WORDS)
        ssi[FIFO + ssi[FIFO_COUNT]++] = answer;
}

static uint8_t ssi_get(tinyfl_machine *m)
{
    uint32_t *ssi = m->now.flash;
    if (ssi[FIFO_COUNT] == 0)
        return 0;
    const uint8_t byte = (uint8_t)ssi[FIFO];
    memmove(&ssi[FIFO], &ssi[FIFO + 1], --ssi[FIFO_COUNT] * sizeof *ssi);
    return byte;
}

uint64_t tinyfl_rp2040_ssi_read(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    if (m->now.halt)
        return 0;
    switch (offset) {
    case XIP_SSI_DR0: return ssi_get(m);
    case XIP_SSI_RXFLR: return m->now.flash[FIFO_COUNT];
    case XIP_SSI_TXFLR: return 0;
    case XIP_SSI_SR: return XIP_SSI_SR_TFE | XIP_SSI_SR_TFNF | (m->now.flash[FIFO_COUNT] ? XIP_SSI_SR_RFNE : 0);
    default: return offset < 4 * FIFO ? m->now.flash[offset / 4] : 0;
    }
}

/* While it is on, it takes no other settings. */
void tinyfl_rp2040_ssi_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    uint32_t *ssi = m->now.flash;
    (void)size;
    if (m->now.halt || offset >= 4 * FIFO)
        return;
    if (offset == XIP_SSI_DR0) {
        ssi_put(m, (uint8_t)value);
    } else if (offset == XIP_SSI_SSIENR) {
        ssi[offset / 4] = value & XIP_SSI_SSIENR_SSI_EN;
        if (!ssi[offset / 4])
            ssi[FIFO_COUNT] = 0;
    } else if (!ssi[XIP_SSI_SSIENR / 4]) {
        ssi[offset / 4] = (uint32_t)value;
    }
    settle(m, engine);
}

/* UARTs. A divisor counts once the line's settings have been written after it. */

static int pin_of(const tinyfl_machine *m, unsigned uart, unsigned first)
{
    for (unsigned group = 0; group < 8; group++) { /* TX is on pins 0, 12, 16 and 28 of UART0, and 4 below or above of UART1 */
        const unsigned pin = 4 * group + first;
        if ((group == 1 || group == 2 || group == 5 || group == 6) != (uart == UART1) || pin > 29)
            continue;
        const uint32_t pad = cell(m, PADS_BANK0, PADS_BANK0_GPIO0 + 4 * pin);
        const uint32_t function = cell(m, IO_BANK0, IO_BANK0_GPIO0_CTRL + 8 * pin) & IO_BANK0_GPIO0_CTRL_FUNCSEL;
        if (function == IO_BANK0_GPIO0_CTRL_FUNCSEL__UART && (first ? pad & PADS_BANK0_GPIO0_IE : !(pad & PADS_BANK0_GPIO0_OD)))
            return 1;
    }
    return 0;
}

static int uart_runs(const tinyfl_machine *m, unsigned uart, uint32_t direction)
{
    const uint32_t both = UART_UARTCR_UARTEN | direction, line = cell(m, uart, UART_UARTLCR_H);
    return m->uart == PERIPHERALS + uart * 0x4000 && !held(m, uart) && clk_peri(m) > 0 &&
           (cell(m, uart, UART_UARTCR) & both) == both && (line & ~UART_UARTLCR_H_FEN) == UART_UARTLCR_H_WLEN__8 &&
           m->now.chip[CELLS * uart + LATCHED_IBRD] > 0 && !held(m, IO_BANK0) && !held(m, PADS_BANK0) &&
           pin_of(m, uart, direction == UART_UARTCR_RXE);
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
        cells(m, uart)[LATCHED_IBRD] = cell(m, uart, UART_UARTIBRD);
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
    if (peripheral >= KEPT || offset >= 4 * LATCHED_IBRD || held(m, peripheral))
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
    if (peripheral >= KEPT || offset >= 4 * LATCHED_IBRD || held(m, peripheral))
        return;
    if (peripheral == UART0 || peripheral == UART1) {
        uart_write(m, engine, peripheral, offset, value);
        return;
    }
    const double turned = pll_turns(m);
    cells(m, peripheral)[offset / 4] = value;
    if (pll_turns(m) < turned || pll_turns(m) > turned)
        (void)ready(m, PLL_SYS, 0, 0); /* it locks anew */
    for (unsigned other = 0; other < KEPT; other++)
        if (peripheral == RESETS && held(m, other))
            reset_peripheral(m, other);
    settle(m, engine);
}

uint64_t tinyfl_rp2040_read(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    return m->now.halt ? 0 : peripheral_read(m, (unsigned)(offset >> 14), offset & 0xffc) >> 8 * (offset & 3);
}

/* What is narrower than a word comes on all lanes. */
void tinyfl_rp2040_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
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
uint64_t tinyfl_rp2040_sio_read(void *engine, uint64_t offset, unsigned size, void *machine)
{
    (void)engine, (void)size, (void)machine;
    return offset == SIO_GPIO_HI_IN ? 1 << 1 : 0;
}

void tinyfl_rp2040_sio_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine)
{
    (void)engine, (void)offset, (void)size, (void)value, (void)machine;
}

/* The bus cannot write flash. */
void tinyfl_rp2040_flash_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine)
{
    (void)engine, (void)offset, (void)size, (void)value, (void)machine;
}

/* The boot ROM. Its functions are the model's: they leave their arguments at the door, the page behind the ROM, where a chip has
 * nothing. */
enum { LOOKUP, CONNECT, LEAVE_XIP, ERASE, PROGRAM, FLUSH };
enum { DOOR_CALL = 16, DOOR_RESULT = 20, ROM_TABLE = 0x40, ROM_STUBS = 0x80, STUB_BYTES = 20, ROM_DEAD = 0x1c, ROM_START = 0x20 };

/* push {r4}; movs r4, #1; lsls r4, #14; stmia r4!, {r0-r3}; movs r0, #n; str r0, [r4]; ldr r0, [r4, #4]; pop {r4}; bx lr; nop */
#define STUB(n) 0xb410, 0x2401, 0x03a4, 0xc40f, 0x2000 | (n), 0x6020, 0x6860, 0xbc10, 0x4770, 0x46c0
#define STUB_AT(n) (ROM_STUBS + STUB_BYTES * (n) + 1)

const uint16_t tinyfl_rp2040_rom[TINYFL_RP2040_ROM_BYTES / 2] = {
    [0] = BOOT2_RAM & 0xffff, BOOT2_RAM >> 16, ROM_START + 1, 0, ROM_DEAD + 1, 0, ROM_DEAD + 1, 0, 'M' | 'u' << 8, 2 << 8 | 1,
    [ROM_FUNCTION_TABLE / 2] = ROM_TABLE, [ROM_TABLE_LOOKUP / 2] = STUB_AT(LOOKUP),
    [ROM_DEAD / 2] = 0xbf30, 0xe7fd,                               /* wfi; b back */
    [ROM_START / 2] = 0x2000, 0x4686, 0x4801, 0x4700, 0x46c0, 0x46c0, /* movs r0, #0; mov lr, r0; ldr r0, =boot2; bx r0 */
    (BOOT2_RAM + 1) & 0xffff, BOOT2_RAM >> 16,
    [ROM_TABLE / 2] = ROM_CONNECT_INTERNAL_FLASH, STUB_AT(CONNECT), ROM_FLASH_EXIT_XIP, STUB_AT(LEAVE_XIP),
    ROM_FLASH_RANGE_ERASE, STUB_AT(ERASE), ROM_FLASH_RANGE_PROGRAM, STUB_AT(PROGRAM), ROM_FLASH_FLUSH_CACHE, STUB_AT(FLUSH), 0,
    [ROM_STUBS / 2] = STUB(LOOKUP), STUB(CONNECT), STUB(LEAVE_XIP), STUB(ERASE), STUB(PROGRAM), STUB(FLUSH),
};

static uint32_t rom_lookup(uint32_t table, uint32_t code)
{
    for (uint32_t at = table / 2; at + 1 < TINYFL_RP2040_ROM_BYTES / 2 && tinyfl_rp2040_rom[at]; at += 2)
        if (tinyfl_rp2040_rom[at] == code)
            return tinyfl_rp2040_rom[at + 1];
    return 0;
}

static void rom_select(tinyfl_machine *m, void *engine, uint32_t how)
{
    cells(m, IO_QSPI)[IO_QSPI_GPIO_QSPI_SS_CTRL / 4] = how;
    settle(m, engine);
}

static void rom_connect(tinyfl_machine *m, void *engine)
{
    reset_peripheral(m, IO_QSPI);
    reset_peripheral(m, PADS_QSPI);
    cells(m, RESETS)[RESETS_RESET / 4] &= ~(RESETS_RESET_IO_QSPI | RESETS_RESET_PADS_QSPI);
    memset(cells(m, IO_QSPI), 0, CELLS * sizeof(uint32_t));
    settle(m, engine);
}

static void rom_leave_xip(tinyfl_machine *m, void *engine)
{
    uint32_t *ssi = m->now.flash;
    ssi[XIP_SSI_BAUDR / 4] = 6;
    ssi[XIP_SSI_CTRLR0 / 4] = XIP_SSI_CTRLR0_DFS_32__8 | XIP_SSI_CTRLR0_TMOD__TX_AND_RX;
    ssi[XIP_SSI_SER / 4] = ssi[XIP_SSI_SSIENR / 4] = 1;
    ssi[FIFO_COUNT] = 0;
    rom_select(m, engine, IO_QSPI_GPIO_QSPI_SS_CTRL_OUTOVER__NORMAL);
}

/* Sends a command, an address where there is one (below 2^24), then data. What comes back last. */
static uint8_t rom_command(tinyfl_machine *m, void *engine, uint8_t command, uint32_t address, const uint8_t *data, size_t count)
{
    uint8_t last = 0;
    rom_select(m, engine, IO_QSPI_GPIO_QSPI_SS_CTRL_OUTOVER__LOW);
    ssi_put(m, command);
    (void)ssi_get(m);
    for (unsigned i = 0; i < 3 && address < 1u << 24; i++) {
        ssi_put(m, (uint8_t)(address >> (16 - 8 * i)));
        (void)ssi_get(m);
    }
    for (size_t i = 0; i < count; i++) {
        ssi_put(m, data[i]);
        last = ssi_get(m);
    }
    rom_select(m, engine, IO_QSPI_GPIO_QSPI_SS_CTRL_OUTOVER__HIGH);
    return last;
}

static void rom_change(tinyfl_machine *m, void *engine, uint8_t command, uint32_t address, const uint8_t *data, size_t count)
{
    const uint8_t nothing = 0;
    (void)rom_command(m, engine, 0x06, UINT32_MAX, NULL, 0);
    (void)rom_command(m, engine, command, address % (1u << 24), data, count);
    while (!m->now.halt && (rom_command(m, engine, 0x05, UINT32_MAX, &nothing, 1) & 1)) {
    }
}

static void rom_erase(tinyfl_machine *m, void *engine, uint32_t address, uint32_t count, uint32_t block, uint8_t command)
{
    for (const uint32_t end = address + count; address < end && !m->now.halt;) {
        const int whole = !(address & (block - 1)) && end - address >= block;
        rom_change(m, engine, whole ? command : 0x20, address, NULL, 0);
        address += whole ? block : 0x1000;
    }
}

/* From RAM: what lies in flash cannot be read now. */
static void rom_program(tinyfl_machine *m, void *engine, uint32_t address, uint32_t from, uint32_t count)
{
    from -= m->ram_origin;
    for (uint32_t i = 0; i < count && !m->now.halt; i += PAGE_BYTES) {
        if (from > m->ram_bytes - PAGE_BYTES || i > m->ram_bytes - PAGE_BYTES - from) {
            halt(m, engine, TINYFL_HALT_CRASH);
            return;
        }
        rom_change(m, engine, 0x02, address + i, m->ram + from + i, PAGE_BYTES);
    }
}

uint64_t tinyfl_rp2040_door_read(void *engine, uint64_t offset, unsigned size, void *user)
{
    const tinyfl_machine *m = user;
    (void)engine, (void)size;
    return offset == DOOR_RESULT ? m->now.flash[RESULT] : 0;
}

void tinyfl_rp2040_door_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    uint32_t *with = &m->now.flash[CALLED];
    (void)size;
    if (m->now.halt || offset > DOOR_CALL)
        return;
    if (offset < DOOR_CALL) {
        with[offset / 4] = (uint32_t)value;
        return;
    }
    m->now.flash[RESULT] = 0;
    switch (value) {
    case LOOKUP: m->now.flash[RESULT] = rom_lookup(with[0], with[1]); break;
    case CONNECT: rom_connect(m, engine); break;
    case LEAVE_XIP: rom_leave_xip(m, engine); break;
    case ERASE: rom_erase(m, engine, with[0], with[1], with[2], (uint8_t)with[3]); break;
    case PROGRAM: rom_program(m, engine, with[0], with[1], with[2]); break;
    case FLUSH: rom_select(m, engine, IO_QSPI_GPIO_QSPI_SS_CTRL_OUTOVER__NORMAL); break;
    }
}

/* CRC-32/MPEG-2. */
static uint32_t rom_crc(const uint8_t *bytes, size_t count)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < 8 * count; i++) {
        const uint32_t bit = (crc >> 31) ^ (bytes[i / 8] >> (7 - i % 8) & 1);
        crc = crc << 1 ^ (bit ? 0x04c11db7 : 0);
    }
    return crc;
}

/* The chip as it comes up, and then what the ROM does: boot2 goes to RAM and runs, if its CRC is right. */
void tinyfl_rp2040_reset(tinyfl_machine *m)
{
    const uint8_t *boot2 = m->flash;
    uint32_t crc;
    cells(m, RESETS)[RESETS_RESET / 4] = EVERY_RESET;
    for (unsigned peripheral = 0; peripheral < KEPT; peripheral++)
        if (held(m, peripheral))
            reset_peripheral(m, peripheral);
    cells(m, CLOCKS)[CLOCKS_CLK_REF_DIV / 4] = cells(m, CLOCKS)[CLOCKS_CLK_SYS_DIV / 4] = 0x100;
    m->now.clock[WATCHDOG_CTRL / 4] = WATCHDOG_CTRL_PAUSE_DBG0 | WATCHDOG_CTRL_PAUSE_DBG1 | WATCHDOG_CTRL_PAUSE_JTAG;
    m->now.clock[WATCHDOG_TICK / 4] = WATCHDOG_TICK_ENABLE;
    rom_connect(m, NULL);
    rom_leave_xip(m, NULL);
    memcpy(&crc, boot2 + BOOT2_BYTES - 4, 4);
    m->now.stack = BOOT2_RAM;
    m->now.entry = ROM_DEAD + 1;
    if (rom_crc(boot2, BOOT2_BYTES - 4) != crc)
        return;
    memcpy(m->ram + (BOOT2_RAM - m->ram_origin), boot2, BOOT2_BYTES);
    m->now.entry = ROM_START + 1;
}
