/* From the descriptions in Infineon's mtb-pdl-cat1 (headers of its registers, notes in its drivers) and of OpenOCD's driver for
 * the chip's smaller kin; addresses and bits from the port's registers.h, which says where each was read. Where those leave
 * the effect of an error open, the model does nothing, and a program that waits for it waits forever.
 *
 * The Cortex-M0+ runs first, on the same emulated core. Once it enables the Cortex-M4, that starts, and the M0+ is no longer
 * emulated: its later work, serving calls of the boot ROM, is in psoc6_rom.c. */
#include "../../firmware/ports/psoc6/registers.h"

#include "psoc6.h"

static uint32_t *kept(tinyfl_machine *m, uint32_t address)
{
    tinyfl_registers *now = &m->now;
    const struct {
        uint32_t start, words, *at;
    } parts[] = {
        {m->uart, SCB_WORDS, now->chip},
        {SRSS_BASE + SRSS_WDT_CTL, SRSS_WORDS, now->clock},
        {HSIOM_BASE, HSIOM_WORDS, now->uart},
        {GPIO_BASE, GPIO_WORDS, now->uart + HSIOM_WORDS},
        {IPC_BASE, IPC_WORDS, now->flash + IPC_AT},
        {PERI_BASE + PERI_CLOCK_CTL, SELECTS, now->flash + SELECT_AT},
        {PERI_BASE + PERI_DIV_16_5_CTL, DIVIDERS, now->flash + DIVIDER_AT},
        {CPUSS_BASE + CPUSS_CM4_CLOCK_CTL, 1, now->flash + M4_DIVIDER},
        {CPUSS_BASE + CPUSS_CM4_VECTOR_TABLE_BASE, 1, now->flash + M4_VECTORS},
        {CPUSS_BASE + CPUSS_CM0_CLOCK_CTL, 1, now->flash + BUS_DIVIDERS},
        {CPUSS_BASE + CPUSS_CM4_PWR_CTL, 1, now->flash + M4_MODE},
        {FLASHC_BASE + FLASHC_FLASH_CTL, 1, now->flash + FLASH_STATES},
        {FLASHC_BASE + FLASHC_FLASH_CMD, 1, now->flash + FLASH_COMMAND},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (address - parts[i].start < 4 * parts[i].words)
            return parts[i].at + (address - parts[i].start) / 4;
    return NULL;
}

static uint32_t srss(const tinyfl_machine *m, uint32_t offset) { return m->now.clock[(offset - SRSS_WDT_CTL) / 4]; }

/* Its power, set with a key; it starts from the table of vectors at the configured address. */
static void m4_write(tinyfl_machine *m, void *engine, uint32_t value)
{
    const uint32_t mode = value & CPUSS_CM4_PWR_CTL_PWR_MODE, was = m->now.flash[M4_MODE];
    const uint8_t *table = psoc6_memory(m->flash, m->flash_origin, m->flash_bytes, m->now.flash[M4_VECTORS], 8);
    if ((value & CPUSS_CM4_PWR_CTL_VECTKEYSTAT) != CPUSS_CM4_PWR_CTL_VECTKEYSTAT__KEY)
        return;
    m->now.flash[M4_MODE] = mode;
    if (mode != CPUSS_CM4_PWR_CTL_PWR_MODE__ENABLED || mode == was || !table)
        return;
    memcpy(&m->now.stack, table, 4);
    memcpy(&m->now.entry, table + 4, 4);
    halt(m, engine, TINYFL_HALT_START);
}

/* Clocks */

enum { OSCILLATOR_MEGAHERTZ = 8, MAX_MEGAHERTZ = 100 };

/* The PLL's frequency in MHz; 0 if it does not lock: off, not from the internal oscillator, or out of its bounds. */
static uint32_t pll(const tinyfl_machine *m)
{
    const uint32_t config = srss(m, SRSS_CLK_PLL_CONFIG), from = srss(m, SRSS_CLK_PATH_SELECT + 4);
    const uint32_t feedback = field(config, SRSS_CLK_PLL_CONFIG_FEEDBACK_DIV);
    const uint32_t reference = field(config, SRSS_CLK_PLL_CONFIG_REFERENCE_DIV);
    const uint32_t output = field(config, SRSS_CLK_PLL_CONFIG_OUTPUT_DIV);
    if (!(config & SRSS_CLK_PLL_CONFIG_ENABLE) || (from & SRSS_CLK_PATH_SELECT_PATH_MUX) || feedback < 22 || feedback > 112 ||
        reference < 1 || OSCILLATOR_MEGAHERTZ / reference < 4 || output < 2 || output > 16)
        return 0;
    const uint32_t turns = OSCILLATOR_MEGAHERTZ * feedback / reference;
    return turns < 200 || turns > 400 ? 0 : turns / output;
}

/* HF0's frequency in MHz; 0: none. On the FLL's path only the oscillator is modelled. */
static uint32_t hf0(const tinyfl_machine *m)
{
    const uint32_t root = srss(m, SRSS_CLK_ROOT_SELECT), path = field(root, SRSS_CLK_ROOT_SELECT_ROOT_MUX);
    const uint32_t bypass = srss(m, SRSS_CLK_PLL_CONFIG) & SRSS_CLK_PLL_CONFIG_BYPASS_SEL;
    const int bypassed = path == 0 || bypass == SRSS_CLK_PLL_CONFIG_BYPASS_SEL__INPUT ||
                         (bypass != SRSS_CLK_PLL_CONFIG_BYPASS_SEL__OUTPUT && !pll(m));
    if (path > 1 || (path == 0 && (srss(m, SRSS_CLK_FLL_CONFIG) & SRSS_CLK_FLL_CONFIG_FLL_ENABLE)) ||
        (srss(m, SRSS_CLK_PATH_SELECT + 4 * path) & SRSS_CLK_PATH_SELECT_PATH_MUX))
        return 0;
    return (bypassed ? OSCILLATOR_MEGAHERTZ : pll(m)) >> field(root, SRSS_CLK_ROOT_SELECT_ROOT_DIV);
}

/* After every change of HF0's source. Without a clock, too fast for flash's wait states (one for each 25 MHz), or for
 * those of RAM and ROM, which the model does not change, the cores fetch invalid code. */
static void clocked_anew(tinyfl_machine *m, void *engine)
{
    const uint32_t megahertz = hf0(m), states = m->now.flash[FLASH_STATES] & FLASHC_FLASH_CTL_MAIN_WS;
    if (megahertz == 0 || megahertz > MAX_MEGAHERTZ || 25 * (states + 1) < megahertz)
        halt(m, engine, TINYFL_HALT_CRASH);
}

/* The watchdog, with a counter at 32,768 Hz that is never reset. */

static uint32_t ticks(const tinyfl_machine *m)
{
    return (uint32_t)(m->now.instructions * 32768 / m->hertz) & SRSS_WDT_MATCH_MATCH;
}

static void feed_wdt(tinyfl_machine *m)
{
    const uint32_t match = srss(m, SRSS_WDT_MATCH), period = 0x10000u >> field(match, SRSS_WDT_MATCH_IGNORE_BITS);
    const uint32_t ahead = (match - ticks(m)) % period;
    m->now.watchdog = 0;
    if (srss(m, SRSS_WDT_CTL) & SRSS_WDT_CTL_WDT_EN)
        feed(m, ((ahead ? ahead : period) + 2 * period) / 32768.0);
}

/* When locked, only the lock itself is writable; two writes open it. */
static void wdt_write(tinyfl_machine *m, uint32_t offset, uint32_t value)
{
    uint32_t *control = m->now.clock, lock = *control & SRSS_WDT_CTL_WDT_LOCK;
    const int open = lock == 0;
    if (open && offset == SRSS_WDT_MATCH)
        m->now.clock[(SRSS_WDT_MATCH - SRSS_WDT_CTL) / 4] = value & (SRSS_WDT_MATCH_MATCH | SRSS_WDT_MATCH_IGNORE_BITS);
    if (offset == SRSS_WDT_CTL) {
        const uint32_t change = value & SRSS_WDT_CTL_WDT_LOCK;
        lock = change == SRSS_WDT_CTL_WDT_LOCK__SET ? change : lock & ~change;
        *control = lock | ((open ? value : *control) & SRSS_WDT_CTL_WDT_EN);
    }
    if (open)
        feed_wdt(m);
}

/* The PLL's dividers are fixed while it is on; HF0 is always on. */
static void srss_write(tinyfl_machine *m, void *engine, uint32_t offset, uint32_t value)
{
    const uint32_t dividers =
        SRSS_CLK_PLL_CONFIG_FEEDBACK_DIV | SRSS_CLK_PLL_CONFIG_REFERENCE_DIV | SRSS_CLK_PLL_CONFIG_OUTPUT_DIV;
    uint32_t *here = &m->now.clock[(offset - SRSS_WDT_CTL) / 4];
    switch (offset) {
    case SRSS_WDT_CTL:
    case SRSS_WDT_MATCH: wdt_write(m, offset, value); return;
    case SRSS_SRSS_INTR:
        if (value & SRSS_SRSS_INTR_WDT_MATCH)
            feed_wdt(m);
        return;
    case SRSS_CLK_PLL_CONFIG:
        *here = *here & SRSS_CLK_PLL_CONFIG_ENABLE ? (value & ~dividers) | (*here & dividers) : value;
        break;
    case SRSS_CLK_ROOT_SELECT: *here = value | SRSS_CLK_ROOT_SELECT_ENABLE; break;
    default: *here = value; break;
    }
    clocked_anew(m, engine);
}

/* A divider's EN is set by commands only. */
static void divider_command(tinyfl_machine *m, uint32_t value)
{
    const uint32_t number = field(value, PERI_DIV_CMD_DIV_SEL), aligned = PERI_DIV_CMD_PA_TYPE_SEL | PERI_DIV_CMD_PA_DIV_SEL;
    if ((value & PERI_DIV_CMD_TYPE_SEL) != PERI_DIV_CMD_TYPE_SEL__16_5 || number >= DIVIDERS)
        return;
    uint32_t *divider = &m->now.flash[DIVIDER_AT + number];
    if (value & PERI_DIV_CMD_DISABLE)
        *divider &= ~PERI_DIV_16_5_CTL_EN;
    else if ((value & PERI_DIV_CMD_ENABLE) && (value & aligned) == aligned)
        *divider |= PERI_DIV_16_5_CTL_EN;
}

/* SCB5, which the kit wires: P5.0 receives, P5.1 sends. */

enum { SCB = 5, PORT = 5, RECEIVE = 0, TRANSMIT = 1, FIFO = 128 };

static int pin_is(const tinyfl_machine *m, uint32_t pin, uint32_t mode)
{
    const uint32_t select = m->now.uart[(PORT * HSIOM_PRT_BYTES + HSIOM_PRT_PORT_SEL0) / 4] >> 8 * pin;
    const uint32_t config = m->now.uart[HSIOM_WORDS + (PORT * GPIO_PRT_BYTES + GPIO_PRT_CFG) / 4] >> 4 * pin;
    return (select & HSIOM_PRT_PORT_SEL0_IO0_SEL) == HSIOM_PRT_PORT_SEL0_IO0_SEL__UART && (config & 15) == mode;
}

/* A divider's output from the peripherals' clock; 0: none. */
static double scb_hertz(const tinyfl_machine *m, uint32_t number)
{
    const uint32_t divider = number < DIVIDERS ? m->now.flash[DIVIDER_AT + number] : 0;
    const double bus = hf0(m) * 1e6 / (field(m->now.flash[BUS_DIVIDERS], CPUSS_CM0_CLOCK_CTL_PERI_INT_DIV) + 1);
    const double by = field(divider, PERI_DIV_16_5_CTL_INT16_DIV) + 1 + field(divider, PERI_DIV_16_5_CTL_FRAC5_DIV) / 32.0;
    return divider & PERI_DIV_16_5_CTL_EN ? bus / by : 0;
}

/* As a UART of 8 bits, least first, no parity and a stop bit, 8 to 16 samples a bit, with a clock. */
static int scb_runs(tinyfl_machine *m)
{
    const uint32_t *scb = m->now.chip, control = scb[SCB_CTRL / 4], select = m->now.flash[SELECT_AT + SCB];
    return m->uart == SCB0_BASE + SCB * (SCB1_BASE - SCB0_BASE) && (control & SCB_CTRL_ENABLED) &&
           (control & SCB_CTRL_MODE) == SCB_CTRL_MODE__UART && (control & SCB_CTRL_BYTE_MODE) &&
           field(control, SCB_CTRL_OVS) >= 7 && !(scb[SCB_UART_CTRL / 4] & SCB_UART_CTRL_MODE) &&
           (select & PERI_CLOCK_CTL_TYPE_SEL) == PERI_CLOCK_CTL_TYPE_SEL__16_5 &&
           understood(m, scb_hertz(m, field(select, PERI_CLOCK_CTL_DIV_SEL)) / (field(control, SCB_CTRL_OVS) + 1));
}

static int sends(tinyfl_machine *m)
{
    const uint32_t frame = SCB_UART_TX_CTRL_STOP_BITS | SCB_UART_TX_CTRL_PARITY_ENABLED;
    return scb_runs(m) && (m->now.chip[SCB_UART_TX_CTRL / 4] & frame) == SCB_UART_TX_CTRL_STOP_BITS__1 &&
           m->now.chip[SCB_TX_CTRL / 4] == SCB_TX_CTRL_DATA_WIDTH__8 &&
           pin_is(m, TRANSMIT, GPIO_PRT_CFG_DRIVE_MODE0__STRONG);
}

static uint32_t received(tinyfl_machine *m)
{
    const uint32_t frame = SCB_UART_RX_CTRL_STOP_BITS | SCB_UART_RX_CTRL_PARITY_ENABLED;
    if (!scb_runs(m) || (m->now.chip[SCB_UART_RX_CTRL / 4] & frame) != SCB_UART_RX_CTRL_STOP_BITS__1 ||
        m->now.chip[SCB_RX_CTRL / 4] != SCB_RX_CTRL_DATA_WIDTH__8 || !pin_is(m, RECEIVE, GPIO_PRT_CFG_IN_EN0))
        return 0;
    const uint64_t waits = m->input_bytes - m->taken;
    return waits < FIFO ? (uint32_t)waits : FIFO;
}

static uint32_t scb_read(tinyfl_machine *m, uint32_t offset)
{
    switch (offset) {
    case SCB_TX_FIFO_STATUS: return 0;
    case SCB_RX_FIFO_STATUS: return received(m);
    case SCB_RX_FIFO_RD: return received(m) ? take(m) : 0;
    case SCB_INTR_RX: return m->now.chip[offset / 4] | (received(m) ? SCB_INTR_RX_NOT_EMPTY : 0);
    default: return m->now.chip[offset / 4];
    }
}

/* Its settings can be changed only while it is off. */
static void scb_write(tinyfl_machine *m, void *engine, uint32_t offset, uint32_t value)
{
    uint32_t *scb = m->now.chip;
    if (offset == SCB_TX_FIFO_WR) {
        if (sends(m))
            send(m, engine, value);
    } else if (offset == SCB_INTR_RX) {
        scb[offset / 4] &= ~value;
    } else if (offset == SCB_INTR_RX_MASK || !(scb[SCB_CTRL / 4] & SCB_CTRL_ENABLED) ||
               (offset == SCB_CTRL && !(value & SCB_CTRL_ENABLED))) {
        scb[offset / 4] = value;
    }
}

/* Everything from 0x40000000 on. */

/* Checks flash's caches after a command to invalidate them. */
enum { CACHE_READS = 2 };

static int caches_empty(tinyfl_machine *m)
{
    uint32_t *left = &m->now.flash[FLASH_COMMAND];
    if (*left && --*left == 0 && !m->now.away)
        m->now.stale = 0;
    return *left == 0;
}

static uint64_t load(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    const uint32_t address = (uint32_t)offset + PERI_BASE, *word = kept(m, address);
    (void)engine, (void)size;
    if (m->now.halt)
        return 0;
    if (address - IPC_BASE < 4 * IPC_WORDS)
        return psoc6_ipc_read(m, address - IPC_BASE);
    if (address - m->uart < 4 * SCB_WORDS)
        return scb_read(m, address - m->uart);
    switch (address) {
    case CPUSS_BASE + CPUSS_CM4_STATUS:
        return m->now.flash[M4_MODE] == CPUSS_CM4_PWR_CTL_PWR_MODE__ENABLED ? CPUSS_CM4_STATUS_PWR_DONE : 0;
    case SRSS_BASE + SRSS_WDT_CNT: return ticks(m);
    case SRSS_BASE + SRSS_CLK_PLL_STATUS: return pll(m) ? SRSS_CLK_PLL_STATUS_LOCKED : 0;
    case FLASHC_BASE + FLASHC_FLASH_CMD: return caches_empty(m) ? 0 : FLASHC_FLASH_CMD_INV;
    default: return word ? *word : 0;
    }
}

static void store(void *engine, uint64_t offset, unsigned size, uint64_t wide, void *user)
{
    tinyfl_machine *m = user;
    const uint32_t address = (uint32_t)offset + PERI_BASE, value = (uint32_t)wide;
    uint32_t *word = kept(m, address);
    (void)size;
    if (m->now.halt)
        return;
    if (address - IPC_BASE < 4 * IPC_WORDS)
        psoc6_ipc_write(m, engine, address - IPC_BASE, value);
    else if (address - m->uart < 4 * SCB_WORDS)
        scb_write(m, engine, address - m->uart, value);
    else if (address - (SRSS_BASE + SRSS_WDT_CTL) < 4 * SRSS_WORDS)
        srss_write(m, engine, address - SRSS_BASE, value);
    else if (address - (PERI_BASE + PERI_DIV_16_5_CTL) < 4 * DIVIDERS)
        *word = (*word & PERI_DIV_16_5_CTL_EN) | (value & ~PERI_DIV_16_5_CTL_EN);
    else if (address == PERI_BASE + PERI_DIV_CMD)
        divider_command(m, value);
    else if (address == CPUSS_BASE + CPUSS_CM4_PWR_CTL)
        m4_write(m, engine, value);
    else if (address == CPUSS_BASE + CPUSS_CM4_VECTOR_TABLE_BASE)
        *word = value & CPUSS_CM4_VECTOR_TABLE_BASE_ADDR22;
    else if (address == FLASHC_BASE + FLASHC_FLASH_CMD)
        *word = value & FLASHC_FLASH_CMD_INV ? CACHE_READS + 1 : *word;
    else if (word)
        *word = value;
    if (address == FLASHC_BASE + FLASHC_FLASH_CTL)
        clocked_anew(m, engine);
}

/* Flash is not writable as memory. */
static void flash_store(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    (void)offset, (void)size, (void)value;
    halt(user, engine, TINYFL_HALT_CRASH);
}

/* The die's lot, wafer and position are derived from the serial number, its date is not. */
static uint64_t sflash_load(void *engine, uint64_t offset, unsigned size, void *user)
{
    const tinyfl_machine *m = user;
    uint8_t die[16] = {[8] = 22, [9] = 11, [10] = 26};
    uint64_t value = 0;
    (void)engine;
    for (int i = 0; i < 8; i++)
        die[i] = (uint8_t)(m->serial >> 8 * i);
    if (offset >= SFLASH_DIE_LOT && offset + size <= SFLASH_DIE_LOT + sizeof die)
        memcpy(&value, die + (offset - SFLASH_DIE_LOT), size);
    return value;
}

/* The boot code starts the Cortex-M0+ at the start of flash, leaves the oscillator running and the watchdog on, locked. */
static void reset(tinyfl_machine *m)
{
    memcpy(&m->now.stack, m->flash, 4);
    memcpy(&m->now.entry, m->flash + 4, 4);
    m->now.flash[BUS_DIVIDERS] = CPUSS_CM0_CLOCK_CTL_PERI_INT_DIV__2;
    m->now.clock[(SRSS_CLK_ROOT_SELECT - SRSS_WDT_CTL) / 4] = SRSS_CLK_ROOT_SELECT_ENABLE;
    m->now.clock[0] = SRSS_WDT_CTL_WDT_EN | SRSS_WDT_CTL_WDT_LOCK__SET;
    m->now.clock[(SRSS_WDT_MATCH - SRSS_WDT_CTL) / 4] = 4096;
    m->now.chip[SCB_TX_CTRL / 4] = SCB_TX_CTRL_MSB_FIRST | SCB_TX_CTRL_DATA_WIDTH__8;
    m->now.chip[SCB_RX_CTRL / 4] = SCB_RX_CTRL_MSB_FIRST | SCB_RX_CTRL_DATA_WIDTH__8;
    feed_wdt(m);
}

static tinyfl_chip chip = {
    .name = "psoc6",
    .regions = TINYFL_REGIONS(
        {PERI_BASE, 0x700000, load, store}, /* to behind the SCBs */
        {SFLASH_BASE, TINYFL_PAGE, sflash_load, flash_store}
    ),
    .store_slot = flash_store,
    .reset = reset,
};
TINYFL_REGISTER(chip)
