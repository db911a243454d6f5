/* From Nordic's product specification of the nRF52833, and of the UART's receiver also after BabbleSim's model of it; addresses
 * and bits from the port's registers.h, which is checked against Nordic's SVD files. The same for the nRF52840. */
#include "../../firmware/ports/nrf52/registers.h"

#include <string.h>

#include "chip.h"

/* Either oscillator gives the core its 64 MHz, so the crystal starts at once. */
static uint64_t clock_load(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    if (offset == CLOCK_HFCLKSTAT)
        return CLOCK_HFCLKSTAT_STATE__RUNNING |
               (m->now.clock[CLOCK_TASKS_HFCLKSTART / 4] ? CLOCK_HFCLKSTAT_SRC__XTAL : 0);
    return offset == CLOCK_EVENTS_HFCLKSTARTED ? m->now.clock[offset / 4] : 0;
}

static void clock_store(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    uint32_t *clock = m->now.clock;
    (void)engine, (void)size;
    if (m->now.halt)
        return;
    if (offset == CLOCK_EVENTS_HFCLKSTARTED)
        clock[offset / 4] = value & 1;
    else if (offset == CLOCK_TASKS_HFCLKSTART && (value & 1))
        clock[CLOCK_TASKS_HFCLKSTART / 4] = clock[CLOCK_EVENTS_HFCLKSTARTED / 4] = 1;
    else if (offset == CLOCK_TASKS_HFCLKSTOP && (value & 1))
        clock[CLOCK_TASKS_HFCLKSTART / 4] = 0;
}

/* Pins, by 32 a port: a word of OUT for each port, and PIN_CNF of each pin, in chip[]. DIR is another view of PIN_CNF's lowest
 * bit. No driver here uses registers that are not in registers.h. */
enum { PINS = 2 * 32, OUT = 32, PIN_CNF = 64, PIN_CNF_DIR = 1, PIN_CNF_INPUT_OFF = 2 };
enum { P0_OUT = P0_OUTSET - 4, P0_OUTCLR = P0_OUTSET + 4, P0_DIR = P0_DIRSET - 4, P0_DIRCLR = P0_DIRSET + 4 };
enum { P1_AT = P1_BASE - P0_BASE, PIN_CNF_END = P0_PIN_CNF0 + 4 * 32 };

static uint32_t directions(const uint32_t *pins)
{
    uint32_t outputs = 0;
    for (uint32_t n = 0; n < 32; n++)
        outputs |= (pins[n] & PIN_CNF_DIR) << n;
    return outputs;
}

static void turn(uint32_t *pins, uint32_t outputs)
{
    for (uint32_t n = 0; n < 32; n++)
        pins[n] = (pins[n] & ~(uint32_t)PIN_CNF_DIR) | (outputs >> n & PIN_CNF_DIR);
}

static uint64_t gpio_load(void *engine, uint64_t offset, unsigned size, void *user)
{
    const tinyfl_machine *m = user;
    const uint32_t port = offset >= P1_AT + P0_OUT, at = (uint32_t)offset - port * P1_AT;
    const uint32_t *pins = m->now.chip + PIN_CNF + 32 * port;
    (void)engine, (void)size;
    if (at >= P0_OUT && at <= P0_OUTCLR)
        return m->now.chip[OUT + port];
    if (at >= P0_DIR && at <= P0_DIRCLR)
        return directions(pins);
    return at >= P0_PIN_CNF0 && at < PIN_CNF_END ? pins[(at - P0_PIN_CNF0) / 4] : 0;
}

static void gpio_store(void *engine, uint64_t offset, unsigned size, uint64_t wide, void *user)
{
    tinyfl_machine *m = user;
    const uint32_t port = offset >= P1_AT + P0_OUT, at = (uint32_t)offset - port * P1_AT, value = (uint32_t)wide;
    uint32_t *out = m->now.chip + OUT + port, *pins = m->now.chip + PIN_CNF + 32 * port;
    (void)engine, (void)size;
    if (m->now.halt)
        return;
    switch (at) {
    case P0_OUT: *out = value; break;
    case P0_OUTSET: *out |= value; break;
    case P0_OUTCLR: *out &= ~value; break;
    case P0_DIR: turn(pins, value); break;
    case P0_DIRSET: turn(pins, directions(pins) | value); break;
    case P0_DIRCLR: turn(pins, directions(pins) & ~value); break;
    default:
        if (at >= P0_PIN_CNF0 && at < PIN_CNF_END)
            pins[(at - P0_PIN_CNF0) / 4] = value;
    }
}

/* Whether a pin of the link is set up for it: the transmitter's drives high, the receiver's is an input that is connected. */
static int pin_is_ready(const tinyfl_machine *m, int receives)
{
    const uint32_t pin = m->pins[receives];
    if (pin >= PINS)
        return 0;
    const uint32_t config = m->now.chip[PIN_CNF + pin];
    return receives ? !(config & (PIN_CNF_DIR | PIN_CNF_INPUT_OFF))
                    : (config & PIN_CNF_DIR) && (m->now.chip[OUT + pin / 32] >> pin % 32 & 1);
}

/* The UART without DMA. A task's register tells whether it is active. Unread bytes are in chip[FIFO], oldest first,
 * chip[FILLED] of them; RXD is the first. chip[DRIVEN] tells whether the transmitter's pin was ready when the UART took it
 * over: if not, the line fell, and the first byte is corrupted. */
enum { FIFO = 0, FIFO_BYTES = 6, FILLED = 6, DRIVEN = 7, INTERRUPT = 2, ISPR = 0x200 };

static int enabled(const tinyfl_machine *m) { return m->now.uart[UART_ENABLE / 4] == UART_ENABLE_ENABLE__ENABLED; }

static int runs(tinyfl_machine *m, uint32_t task, uint32_t pin)
{
    const int receives = pin == UART_PSEL_RXD;
    return enabled(m) && m->now.uart[task / 4] && m->now.uart[pin / 4] == m->pins[receives] && pin_is_ready(m, receives) &&
           (receives || m->now.chip[DRIVEN]) && understood(m, m->now.uart[UART_BAUDRATE / 4] * 16e6 / 4294967296.0);
}

/* The interrupt's line is high while any event enabled in INTEN is set: bit n belongs to the event at 0x100 + 4 n. */
static void drive_interrupt(tinyfl_machine *m)
{
    for (uint32_t n = 0; n < 32; n++)
        if (m->now.uart[UART_INTENSET / 4] >> n & m->now.uart[UART_EVENTS_CTS / 4 + n] & 1)
            m->now.system[ISPR / 4] |= 1u << INTERRUPT;
}

/* Removes the FIFO's oldest byte. The next, if any, is then in RXD, which is another event. */
static uint8_t pop(tinyfl_machine *m)
{
    uint32_t *fifo = m->now.chip + FIFO, *filled = m->now.chip + FILLED;
    const uint8_t byte = (uint8_t)fifo[0];
    memmove(fifo, fifo + 1, (FIFO_BYTES - 1) * sizeof *fifo);
    if (--*filled)
        m->now.uart[UART_EVENTS_RXDRDY / 4] = 1;
    return byte;
}

/* A byte arrives on the line, whether or not the core looks; in a full FIFO it replaces the oldest. Exported for tests. */
TINYFL_EXPORT void tinyfl_nrf52_uart_arrive(tinyfl_machine *m, uint8_t byte);

void tinyfl_nrf52_uart_arrive(tinyfl_machine *m, uint8_t byte)
{
    uint32_t *fifo = m->now.chip + FIFO, *filled = m->now.chip + FILLED, *uart = m->now.uart;
    if (!runs(m, UART_TASKS_STARTRX, UART_PSEL_RXD))
        return;
    if (*filled == FIFO_BYTES) {
        pop(m);
        uart[UART_ERRORSRC / 4] |= UART_ERRORSRC_OVERRUN;
        uart[UART_EVENTS_ERROR / 4] = 1;
    }
    fifo[(*filled)++] = byte;
    if (*filled == 1)
        uart[UART_EVENTS_RXDRDY / 4] = 1;
    drive_interrupt(m);
}

/* The host waits for a full FIFO: the UART's interrupt is not handled while the core works. */
static void receive(tinyfl_machine *m)
{
    while (runs(m, UART_TASKS_STARTRX, UART_PSEL_RXD) && m->now.chip[FILLED] < FIFO_BYTES && input_waits(m))
        tinyfl_nrf52_uart_arrive(m, take(m));
}

static uint64_t uart_load(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    if (m->now.halt || offset < UART_EVENTS_CTS || offset == UART_TXD || offset > UART_CONFIG)
        return 0;
    receive(m);
    if (offset == UART_RXD) {
        const uint8_t byte = enabled(m) && m->now.chip[FILLED] ? pop(m) : 0;
        receive(m);
        drive_interrupt(m);
        return byte;
    }
    return m->now.uart[(offset == UART_INTENCLR ? UART_INTENSET : offset) / 4];
}

/* A task starts only an enabled UART. Without flow control, suspend stops both directions. */
static void uart_task(tinyfl_machine *m, uint64_t task)
{
    uint32_t *uart = m->now.uart;
    if (task == UART_TASKS_STARTRX || task == UART_TASKS_STARTTX)
        uart[task / 4] |= (uint32_t)enabled(m);
    if (task == UART_TASKS_STOPRX || task == UART_TASKS_SUSPEND)
        uart[UART_TASKS_STARTRX / 4] = 0;
    if (task == UART_TASKS_STOPTX || task == UART_TASKS_SUSPEND)
        uart[UART_TASKS_STARTTX / 4] = 0;
}

/* When disabled, the UART drops its activity and received bytes. Pins can be selected only while it is off. */
static void uart_configure(tinyfl_machine *m, uint64_t offset, uint32_t value)
{
    uint32_t *uart = m->now.uart;
    if (offset >= UART_PSEL_RTS && offset <= UART_PSEL_RXD && uart[UART_ENABLE / 4])
        return;
    if (offset == UART_ENABLE && !enabled(m))
        m->now.chip[DRIVEN] = (uint32_t)pin_is_ready(m, 0);
    uart[offset / 4] = offset == UART_ENABLE ? value & UART_ENABLE_ENABLE : value;
    if (!enabled(m))
        uart[UART_TASKS_STARTRX / 4] = uart[UART_TASKS_STARTTX / 4] = m->now.chip[FILLED] = 0;
}

static void uart_store(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    uint32_t *uart = m->now.uart;
    (void)size;
    if (m->now.halt || offset > UART_CONFIG || offset == UART_RXD)
        return;
    if (offset < UART_EVENTS_CTS) {
        if (value & 1)
            uart_task(m, offset);
    } else if (offset < UART_SHORTS) {
        uart[offset / 4] = value & 1;
    } else if (offset == UART_INTENSET) {
        uart[UART_INTENSET / 4] |= (uint32_t)value;
    } else if (offset == UART_INTENCLR) {
        uart[UART_INTENSET / 4] &= ~(uint32_t)value;
    } else if (offset == UART_ERRORSRC) {
        uart[offset / 4] &= ~(uint32_t)value;
    } else if (offset == UART_TXD) {
        if (runs(m, UART_TASKS_STARTTX, UART_PSEL_TXD)) {
            send(m, engine, value);
            uart[UART_EVENTS_TXDRDY / 4] = 1;
        }
    } else if (offset >= UART_ENABLE) {
        uart_configure(m, offset, (uint32_t)value);
    }
    drive_interrupt(m);
}

/* The watchdog's registers lie in chip[WATCHDOG ...] as they do in its page, from RUNSTATUS on. It counts instructions, as
 * cycles; while the core sleeps no time passes, so its CONFIG cannot matter. Every reset stops it here; on the chip it goes on
 * after one that software asked for. */
enum { WATCHDOG = 16 };
#define LOW_FREQUENCY 32768.0

static uint32_t *wdt(tinyfl_machine *m, uint64_t offset) { return m->now.chip + WATCHDOG + (offset - WDT_RUNSTATUS) / 4; }

static void wdt_reload(tinyfl_machine *m)
{
    feed(m, (*wdt(m, WDT_CRV) + 1.0) / LOW_FREQUENCY);
    *wdt(m, WDT_REQSTATUS) = *wdt(m, WDT_RREN);
}

static uint64_t wdt_load(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    return offset >= WDT_RUNSTATUS && offset <= WDT_CONFIG ? *wdt(m, offset) : 0;
}

/* All enabled reload registers must be written before the counter restarts. */
static void wdt_store(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    if (m->now.halt)
        return;
    const uint32_t running = *wdt(m, WDT_RUNSTATUS), index = (uint32_t)(offset - WDT_RR0) / 4;
    if (offset == WDT_TASKS_START && (value & 1) && !running) {
        *wdt(m, WDT_RUNSTATUS) = 1;
        wdt_reload(m);
    } else if (offset >= WDT_CRV && offset <= WDT_CONFIG && !running) {
        *wdt(m, offset) = (uint32_t)value;
    } else if (offset >= WDT_RR0 && index < 8 && value == WDT_RR0_RR__RELOAD && running) {
        *wdt(m, WDT_REQSTATUS) &= ~(1u << index);
        if (*wdt(m, WDT_REQSTATUS) == 0)
            wdt_reload(m);
    }
}

/* The flash controller. */
enum { BUSY_READS = 4, PAGE = 4096 };

static uint64_t nvmc_load(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    if (m->now.halt)
        return 0;
    if (offset == NVMC_READY && m->now.flash_busy) {
        m->now.flash_busy--;
        return 0;
    }
    if (offset == NVMC_READY || offset == NVMC_READYNEXT)
        return NVMC_READY_READY;
    return offset == NVMC_CONFIG || offset == NVMC_ICACHECNF ? m->now.flash[offset / 4] : 0;
}

/* An address that is not a page's start is invalid. */
static void erase_page(tinyfl_machine *m, void *engine, uint32_t address)
{
    const uint32_t start = address - m->flash_origin;
    if (m->now.flash[NVMC_CONFIG / 4] != NVMC_CONFIG_WEN__EEN || start % PAGE || start >= m->flash_bytes ||
        m->flash_bytes - start < PAGE)
        return;
    erase(m, engine, start, start + PAGE);
    m->now.flash_busy = BUSY_READS;
}

static void nvmc_store(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    (void)size;
    if (m->now.halt)
        return;
    if (offset == NVMC_CONFIG && !m->now.flash_busy) /* not to be changed before READY */
        m->now.flash[offset / 4] = value & NVMC_CONFIG_WEN;
    else if (offset == NVMC_ICACHECNF)
        m->now.flash[offset / 4] = (uint32_t)value;
    else if (offset == NVMC_ERASEPAGE)
        erase_page(m, engine, (uint32_t)value);
}

/* Only whole words are written, and only while writing is enabled. */
static void flash_store(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    if (m->now.halt || size != 4 || m->now.flash[NVMC_CONFIG / 4] != NVMC_CONFIG_WEN__WEN)
        return;
    program(m, engine, offset, size, value);
    m->now.flash_busy = BUSY_READS;
}

static uint64_t ficr_load(void *engine, uint64_t offset, unsigned size, void *user)
{
    const tinyfl_machine *m = user;
    (void)engine;
    if (offset < FICR_DEVICEID0 || offset + size > FICR_DEVICEID0 + sizeof m->serial)
        return 0xffffffffu >> (32 - 8 * size);
    return (m->serial >> 8 * (offset - FICR_DEVICEID0)) & 0xffffffffu >> (32 - 8 * size);
}

static void reset(tinyfl_machine *m)
{
    for (uint32_t pin = 0; pin < PINS; pin++)
        m->now.chip[PIN_CNF + pin] = PIN_CNF_INPUT_OFF;
    for (uint32_t pin = UART_PSEL_RTS; pin <= UART_PSEL_RXD; pin += 4)
        m->now.uart[pin / 4] = ~0u;
    m->now.uart[UART_BAUDRATE / 4] = 0x04000000;
    *wdt(m, WDT_CRV) = ~0u;
    *wdt(m, WDT_RREN) = WDT_RREN_RR0;
    *wdt(m, WDT_CONFIG) = WDT_CONFIG_SLEEP;
}

static tinyfl_chip chip = {
    .name = "nrf52",
    .regions = TINYFL_REGIONS(
        {FICR_BASE, TINYFL_PAGE, ficr_load, ignore},
        {CLOCK_BASE, TINYFL_PAGE, clock_load, clock_store},
        {UART0_BASE, TINYFL_PAGE, uart_load, uart_store},
        {WDT_BASE, TINYFL_PAGE, wdt_load, wdt_store},
        {NVMC_BASE, TINYFL_PAGE, nvmc_load, nvmc_store},
        {P0_BASE, TINYFL_PAGE, gpio_load, gpio_store}
    ),
    .store_slot = flash_store,
    .reset = reset,
};
TINYFL_REGISTER(chip)
