/* From memory of Nordic's product specification of the nRF52833, and not from the port. */
#include "chip.h"

enum { HFCLKSTART = 0x000, HFCLKSTOP = 0x004, HFCLKSTARTED = 0x100, HFCLKSTAT = 0x40c };

uint64_t tinyfl_nrf52_clock_read(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    if (offset == HFCLKSTAT)
        return m->now.clock[HFCLKSTART / 4] ? 0x10001 : 0;
    return offset == HFCLKSTARTED ? m->now.clock[offset / 4] : 0;
}

void tinyfl_nrf52_clock_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    if (m->now.halt)
        return;
    if (offset == HFCLKSTARTED)
        m->now.clock[offset / 4] = value & 1;
    else if (offset == HFCLKSTART && (value & 1))
        m->now.clock[HFCLKSTART / 4] = m->now.clock[HFCLKSTARTED / 4] = 1;
    else if (offset == HFCLKSTOP && (value & 1))
        m->now.clock[HFCLKSTART / 4] = 0;
}

/* The UART without DMA. Of a task's register is kept whether it is under way, and of RXD whether a byte lies there. */
enum { STARTRX = 0x000, STOPRX = 0x004, STARTTX = 0x008, STOPTX = 0x00c, SUSPEND = 0x01c };
enum { RXDRDY = 0x108, TXDRDY = 0x11c, EVENTS = 0x100, SHORTS = 0x200, INTENSET = 0x304, INTENCLR = 0x308 };
enum { ENABLE = 0x500, PSELTXD = 0x50c, PSELRXD = 0x514, RXD = 0x518, TXD = 0x51c, BAUDRATE = 0x524, CONFIG = 0x56c };
enum { ENABLED = 4, INTERRUPT = 2, ISPR = 0x200 };
#define DISCONNECTED 0x80000000u

static int runs(const tinyfl_machine *m, uint32_t task, uint32_t pin)
{
    return m->now.uart[ENABLE / 4] == ENABLED && m->now.uart[task / 4] && !(m->now.uart[pin / 4] & DISCONNECTED);
}

/* Bit n of INTEN belongs to the event at 0x100 + 4 n. */
static void happened(tinyfl_machine *m, uint32_t event)
{
    m->now.uart[event / 4] = 1;
    if (m->now.uart[INTENSET / 4] >> (event - EVENTS) / 4 & 1)
        m->now.system[ISPR / 4] |= 1u << INTERRUPT;
}

/* A byte that waits moves to RXD once that is free. */
static void receive(tinyfl_machine *m)
{
    if (m->now.uart[RXD / 4] || !input_waits(m) || !runs(m, STARTRX, PSELRXD))
        return;
    m->now.uart[RXD / 4] = 1;
    happened(m, RXDRDY);
}

uint64_t tinyfl_nrf52_uart_read(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    if (m->now.halt || offset < EVENTS || offset == TXD || offset > CONFIG)
        return 0;
    receive(m);
    if (offset == RXD) {
        const uint64_t byte = m->now.uart[RXD / 4] ? take(m) : 0;
        m->now.uart[RXD / 4] = 0;
        receive(m);
        return byte;
    }
    return m->now.uart[(offset == INTENCLR ? INTENSET : offset) / 4];
}

void tinyfl_nrf52_uart_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    uint32_t *uart = m->now.uart;
    (void)size;
    if (m->now.halt || offset > CONFIG || offset == RXD)
        return;
    if (offset == STARTRX || offset == STARTTX) {
        uart[offset / 4] |= value & 1;
    } else if (offset == STOPRX || offset == STOPTX || offset == SUSPEND) {
        uart[STARTRX / 4] &= ~(uint32_t)(offset != STOPTX && (value & 1));
        uart[STARTTX / 4] &= ~(uint32_t)(offset != STOPRX && (value & 1));
    } else if (offset >= EVENTS && offset < SHORTS) {
        uart[offset / 4] = value & 1;
    } else if (offset == INTENSET) {
        uart[INTENSET / 4] |= (uint32_t)value;
    } else if (offset == INTENCLR) {
        uart[INTENSET / 4] &= ~(uint32_t)value;
    } else if (offset == TXD) {
        if (runs(m, STARTTX, PSELTXD)) {
            send(m, engine, value);
            happened(m, TXDRDY);
        }
    } else if (offset >= ENABLE) {
        uart[offset / 4] = (uint32_t)value;
    }
}

enum { READY = 0x400, READYNEXT = 0x408, NVMC_CONFIG = 0x504, ERASEPAGE = 0x508, ICACHECNF = 0x540 };
enum { READ_ONLY, WRITE, ERASE, BUSY_READS = 4, PAGE = 4096 };

uint64_t tinyfl_nrf52_nvmc_read(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    if (m->now.halt)
        return 0;
    if (offset == READY && m->now.flash_busy) {
        m->now.flash_busy--;
        return 0;
    }
    if (offset == READY || offset == READYNEXT)
        return 1;
    return offset == NVMC_CONFIG || offset == ICACHECNF ? m->now.flash[offset / 4] : 0;
}

/* A page's address with ones below does not name a page. */
static void erase_page(tinyfl_machine *m, void *engine, uint32_t address)
{
    const uint32_t start = address - m->flash_origin;
    if (m->now.flash[NVMC_CONFIG / 4] != ERASE || start % PAGE || start >= m->flash_bytes)
        return;
    erase(m, engine, start, start + PAGE);
    m->now.flash_busy = BUSY_READS;
}

void tinyfl_nrf52_nvmc_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    (void)size;
    if (m->now.halt)
        return;
    if (offset == NVMC_CONFIG && !m->now.flash_busy) /* not to be changed before READY */
        m->now.flash[offset / 4] = value & 3;
    else if (offset == ICACHECNF)
        m->now.flash[offset / 4] = (uint32_t)value;
    else if (offset == ERASEPAGE)
        erase_page(m, engine, (uint32_t)value);
}

/* What is not a whole word, or comes while writing is not enabled, is not taken. */
void tinyfl_nrf52_flash_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    if (m->now.halt || size != 4 || m->now.flash[NVMC_CONFIG / 4] != WRITE)
        return;
    program(m, engine, offset, size, value);
    m->now.flash_busy = BUSY_READS;
}

enum { DEVICEID = 0x060 };

uint64_t tinyfl_nrf52_ficr_read(void *engine, uint64_t offset, unsigned size, void *user)
{
    const tinyfl_machine *m = user;
    (void)engine;
    if (offset < DEVICEID || offset + size > DEVICEID + sizeof m->serial)
        return 0xffffffffu >> (32 - 8 * size);
    return (m->serial >> 8 * (offset - DEVICEID)) & 0xffffffffu >> (32 - 8 * size);
}

/* It is read only. */
void tinyfl_nrf52_ficr_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    (void)engine, (void)offset, (void)size, (void)value, (void)user;
}

void tinyfl_nrf52_reset(tinyfl_machine *m)
{
    m->now.uart[PSELTXD / 4] = m->now.uart[PSELRXD / 4] = ~0u;
    m->now.uart[BAUDRATE / 4] = 0x04000000;
}
