#include "peripherals.h"

#include <string.h>

/* Callbacks after the core was stopped belong to instructions that hardware would not have executed. */
static void halt(tinyfl_machine *m, void *engine, uint32_t why)
{
    if (!m->now.halt)
        m->now.halt = why;
    m->stop(engine);
}

void tinyfl_count(void *engine, uint64_t address, uint32_t size, void *user)
{
    tinyfl_machine *m = user;
    const uint8_t *code = NULL;
    if (address - m->flash_origin < m->flash_bytes)
        code = m->flash + (address - m->flash_origin);
    else if (address - m->ram_origin < m->ram_bytes)
        code = m->ram + (address - m->ram_origin);
    uint64_t count = 0;
    for (uint32_t at = 0; code && at < size; count++)
        at += code[at + 1] >= 0xe8 ? 4 : 2; /* the upper five bits of a 32-bit instruction are 11101, 11110 or 11111 */
    m->now.instructions += count;
    if (m->now.instructions >= m->budget)
        halt(m, engine, TINYFL_HALT_BUDGET);
}

static int input_waits(const tinyfl_machine *m) { return m->taken < m->input_bytes; }

static uint8_t take(tinyfl_machine *m) { return input_waits(m) ? m->input[m->taken++] : 0; }

static void send(tinyfl_machine *m, void *engine, uint64_t value)
{
    if (m->sent < m->output_room)
        m->output[m->sent++] = (uint8_t)value;
    else
        halt(m, engine, TINYFL_HALT_OVERFLOW);
}

enum { CMSDK_DATA = 0x00, CMSDK_STATE = 0x04, CMSDK_CTRL = 0x08, CMSDK_BAUDDIV = 0x10 };
enum { CMSDK_TX_ENABLE = 1, CMSDK_RX_ENABLE = 2, CMSDK_RX_FULL = 2, CMSDK_LEAST_DIVIDER = 16 };

static int cmsdk_runs(const tinyfl_machine *m, uint32_t enable)
{
    return (m->now.uart[CMSDK_CTRL / 4] & enable) && m->now.uart[CMSDK_BAUDDIV / 4] >= CMSDK_LEAST_DIVIDER;
}

uint64_t tinyfl_cmsdk_read(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    if (m->now.halt)
        return 0;
    switch (offset) {
    case CMSDK_DATA: return cmsdk_runs(m, CMSDK_RX_ENABLE) ? take(m) : 0;
    case CMSDK_STATE: return cmsdk_runs(m, CMSDK_RX_ENABLE) && input_waits(m) ? CMSDK_RX_FULL : 0;
    case CMSDK_CTRL:
    case CMSDK_BAUDDIV: return m->now.uart[offset / 4];
    default: return 0;
    }
}

void tinyfl_cmsdk_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    (void)size;
    if (m->now.halt)
        return;
    if (offset == CMSDK_DATA && cmsdk_runs(m, CMSDK_TX_ENABLE))
        send(m, engine, value);
    else if (offset == CMSDK_CTRL)
        m->now.uart[CMSDK_CTRL / 4] = value & 0x7f;
    else if (offset == CMSDK_BAUDDIV)
        m->now.uart[CMSDK_BAUDDIV / 4] = value & 0xfffff;
}

/* RM0090 30.6. SR's flags come from the state of the line, so only the control registers are kept. */
enum { USART2 = 0x400, USART_SR = 0x00, USART_DR = 0x04, USART_CR1 = 0x0c, USART_GTPR = 0x18 };
enum { SR_RXNE = 1 << 5, SR_TC = 1 << 6, SR_TXE = 1 << 7, CR1_RE = 1 << 2, CR1_TE = 1 << 3, CR1_UE = 1 << 13 };
enum { RCC = 0x800, RCC_CR = 0x00, RCC_AHB1ENR = 0x30, RCC_APB1ENR = 0x40, APB1_USART2 = 1 << 17 };

static int usart_clocked(const tinyfl_machine *m) { return (m->now.rcc[RCC_APB1ENR / 4] & APB1_USART2) != 0; }

static int usart_runs(const tinyfl_machine *m, uint32_t direction)
{
    return (m->now.uart[USART_CR1 / 4] & (CR1_UE | direction)) == (CR1_UE | direction);
}

uint64_t tinyfl_usart_read(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    offset -= USART2;
    if (m->now.halt || offset > USART_GTPR || !usart_clocked(m))
        return 0;
    if (offset == USART_SR)
        return SR_TC | SR_TXE | (usart_runs(m, CR1_RE) && input_waits(m) ? SR_RXNE : 0);
    if (offset == USART_DR)
        return usart_runs(m, CR1_RE) ? take(m) : 0;
    return m->now.uart[offset / 4];
}

void tinyfl_usart_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    (void)size;
    offset -= USART2;
    if (m->now.halt || offset > USART_GTPR || !usart_clocked(m))
        return;
    if (offset == USART_DR && usart_runs(m, CR1_TE))
        send(m, engine, value);
    else if (offset > USART_DR)
        m->now.uart[offset / 4] = (uint32_t)value;
}

static uint64_t load(const uint8_t *bytes, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, bytes, size);
    return value;
}

/* Counts an event of the slots' memory. Whether power goes in the middle of it. */
static int cut(tinyfl_machine *m, void *engine)
{
    if (++m->now.slot_events != m->now.cut_at)
        return 0;
    halt(m, engine, TINYFL_HALT_POWER);
    return 1;
}

uint64_t tinyfl_slots_read(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine;
    return load(m->flash + (m->slots_origin - m->flash_origin) + offset, size);
}

void tinyfl_sram_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    if (m->now.halt)
        return;
    memcpy(m->flash + (m->slots_origin - m->flash_origin) + offset, &value, cut(m, engine) ? size / 2 : size);
}

/* RM0090 3.9, single bank. */
enum { FLASH = 0xc00, FLASH_KEYR = 0x04, FLASH_SR = 0x0c, FLASH_CR = 0x10, FLASH_OPTCR = 0x14 };
enum { SR_EOP = 1 << 0, SR_PGPERR = 1 << 6, SR_PGSERR = 1 << 7, SR_ERRORS = 0x1f3, SR_BSY = 1 << 16 };
enum { CR_PG = 1 << 0, CR_SER = 1 << 1, CR_MER = 1 << 2, CR_SNB_AT = 3, CR_PSIZE_AT = 8, CR_STRT = 1 << 16, CR_EOPIE = 1 << 24 };
#define CR_LOCK (1u << 31)
#define CR_KEPT 0x0300037fu
#define KEY1 0x45670123u
#define KEY2 0xcdef89abu
enum { BUSY_READS = 4, SECTORS = 12 };

static void operation_done(tinyfl_machine *m)
{
    m->now.flash_busy = BUSY_READS;
    if (m->now.flash[FLASH_CR / 4] & CR_EOPIE)
        m->now.flash[FLASH_SR / 4] |= SR_EOP;
}

/* An erase that is cut leaves half of the sector erased and the rest neither one thing nor the other. */
static void erase_sector(tinyfl_machine *m, void *engine, uint32_t sector)
{
    static const uint32_t kib[SECTORS + 1] = {0, 16, 32, 48, 64, 128, 256, 384, 512, 640, 768, 896, 1024};
    if (sector >= SECTORS || kib[sector + 1] * 1024 > m->flash_bytes)
        return;
    uint32_t start = kib[sector] * 1024, end = kib[sector + 1] * 1024;
    if (cut(m, engine)) {
        uint32_t middle = start + (end - start) / 2;
        for (uint32_t at = middle; at < end; at++)
            m->flash[at] = (uint8_t)(m->flash[at] | (at * 2654435761u) >> 24);
        end = middle;
    }
    memset(m->flash + start, 0xff, end - start);
    operation_done(m);
}

static void flash_control(tinyfl_machine *m, void *engine, uint32_t value)
{
    uint32_t *control = &m->now.flash[FLASH_CR / 4];
    if (*control & CR_LOCK)
        return;
    m->now.flash_busy = 0; /* a write while busy stalls the bus until the operation is done */
    *control = value & (CR_KEPT | CR_LOCK);
    if ((value & (CR_STRT | CR_SER | CR_MER | CR_PG)) == (CR_STRT | CR_SER))
        erase_sector(m, engine, value >> CR_SNB_AT & 0xf);
}

static void flash_unlock(tinyfl_machine *m, uint32_t key)
{
    if (m->now.flash_key == 0 && key == KEY1) {
        m->now.flash_key = 1;
    } else if (m->now.flash_key == 1 && key == KEY2) {
        m->now.flash_key = 0;
        m->now.flash[FLASH_CR / 4] &= ~CR_LOCK;
    } else {
        m->now.flash_key = 2;
        m->now.flash[FLASH_CR / 4] |= CR_LOCK;
    }
}

/* Programming only clears bits; a 1 over a 0 is not an error, and stays 0. A core stores aligned words, which never leave a row
 * of 128 bits, so the alignment error cannot come up. */
void tinyfl_flash_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    if (m->now.halt)
        return;
    uint32_t control = m->now.flash[FLASH_CR / 4], wrong = 0;
    if ((control & CR_LOCK) || (control & (CR_PG | CR_SER | CR_MER)) != CR_PG)
        wrong |= SR_PGSERR;
    if (size != 1u << (control >> CR_PSIZE_AT & 3))
        wrong |= SR_PGPERR;
    m->now.flash[FLASH_SR / 4] |= wrong;
    if (wrong)
        return;
    uint8_t *bytes = m->flash + (m->slots_origin - m->flash_origin) + offset;
    for (unsigned i = 0, done = cut(m, engine) ? size / 2 : size; i < done; i++)
        bytes[i] &= (uint8_t)(value >> 8 * i);
    operation_done(m);
}

uint64_t tinyfl_stm32f4_read(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    if (m->now.halt)
        return 0;
    if (offset >= RCC && offset < RCC + sizeof m->now.rcc)
        return m->now.rcc[(offset - RCC) / 4];
    if (offset < FLASH || offset > FLASH + FLASH_OPTCR || offset == FLASH + FLASH_KEYR)
        return 0;
    if (offset == FLASH + FLASH_SR && m->now.flash_busy) {
        m->now.flash_busy--;
        return m->now.flash[FLASH_SR / 4] | SR_BSY;
    }
    if (offset == FLASH + FLASH_CR && m->now.flash_busy)
        return m->now.flash[FLASH_CR / 4] | (m->now.flash[FLASH_CR / 4] & CR_SER ? CR_STRT : 0);
    return m->now.flash[(offset - FLASH) / 4];
}

void tinyfl_stm32f4_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    (void)size;
    if (m->now.halt)
        return;
    if (offset >= RCC && offset < RCC + sizeof m->now.rcc)
        m->now.rcc[(offset - RCC) / 4] = (uint32_t)value;
    else if (offset == FLASH)
        m->now.flash[0] = (uint32_t)value;
    else if (offset == FLASH + FLASH_KEYR)
        flash_unlock(m, (uint32_t)value);
    else if (offset == FLASH + FLASH_SR)
        m->now.flash[FLASH_SR / 4] &= ~((uint32_t)value & SR_ERRORS);
    else if (offset == FLASH + FLASH_CR)
        flash_control(m, engine, (uint32_t)value);
}

/* Offsets in the system control space (ARMv7-M architecture reference, B3). */
enum { ISER = 0x100, ICER = 0x180, ISPR = 0x200, ICPR = 0x280, IABR = 0x300, CPUID = 0xd00, AIRCR = 0xd0c };
enum { VECTKEY = 0x05fa, VECTKEYSTAT = 0xfa05, SYSRESETREQ = 1 << 2 };

uint64_t tinyfl_system_read(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine;
    if (offset == AIRCR)
        return (uint64_t)VECTKEYSTAT << 16;
    if ((offset >= ICER && offset < ISPR) || (offset >= ICPR && offset < IABR))
        offset -= ICER - ISER; /* a clear register reads as its set register */
    return load((uint8_t *)m->now.system + offset, size);
}

void tinyfl_system_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    uint32_t *word = &m->now.system[offset / 4];
    if (m->now.halt || offset == CPUID)
        return;
    if (offset == AIRCR) {
        if (value >> 16 == VECTKEY && (value & SYSRESETREQ))
            halt(m, engine, TINYFL_HALT_RESET);
    } else if ((offset >= ISER && offset < ICER) || (offset >= ISPR && offset < ICPR)) {
        *word |= (uint32_t)value;
    } else if ((offset >= ICER && offset < ISPR) || (offset >= ICPR && offset < IABR)) {
        word[-(ICER - ISER) / 4] &= ~(uint32_t)value;
    } else {
        memcpy((uint8_t *)m->now.system + offset, &value, size);
    }
}

void tinyfl_machine_reset(tinyfl_machine *m)
{
    m->now.halt = 0;
    memset(m->now.uart, 0, sizeof m->now.uart);
    memset(m->now.flash, 0, sizeof m->now.flash);
    memset(m->now.rcc, 0, sizeof m->now.rcc);
    memset(m->now.system, 0, sizeof m->now.system);
    m->now.flash[FLASH_CR / 4] = CR_LOCK;
    m->now.flash[FLASH_OPTCR / 4] = 0x0fffaaed;
    m->now.flash_key = m->now.flash_busy = 0;
    m->now.rcc[RCC_CR / 4] = 0x83; /* the internal oscillator is on and ready */
    m->now.rcc[RCC_AHB1ENR / 4] = 0x00100000;
    m->now.system[CPUID / 4] = 0x410fc241;
}
