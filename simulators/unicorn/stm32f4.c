#include "chip.h"

/* RM0090 30.6. SR's flags come from the state of the line, so only the control registers are kept. */
enum { USART2 = 0x400, USART_SR = 0x00, USART_DR = 0x04, USART_CR1 = 0x0c, USART_GTPR = 0x18 };
enum { SR_RXNE = 1 << 5, SR_TC = 1 << 6, SR_TXE = 1 << 7, CR1_RE = 1 << 2, CR1_TE = 1 << 3, CR1_UE = 1 << 13 };
enum { RCC = 0x800, RCC_BYTES = 0x100, RCC_CR = 0x00, RCC_AHB1ENR = 0x30, RCC_APB1ENR = 0x40, APB1_USART2 = 1 << 17 };

static int usart_clocked(const tinyfl_machine *m) { return (m->now.clock[RCC_APB1ENR / 4] & APB1_USART2) != 0; }

static int usart_runs(const tinyfl_machine *m, uint32_t direction)
{
    return (m->now.uart[USART_CR1 / 4] & (CR1_UE | direction)) == (CR1_UE | direction);
}

uint64_t tinyfl_stm32f4_usart_read(void *engine, uint64_t offset, unsigned size, void *user)
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

void tinyfl_stm32f4_usart_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
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

/* RM0090 3.9, single bank. */
enum { FLASH = 0xc00, FLASH_KEYR = 0x04, FLASH_SR = 0x0c, FLASH_CR = 0x10, FLASH_OPTCR = 0x14 };
enum { SR_EOP = 1 << 0, SR_PGPERR = 1 << 6, SR_PGSERR = 1 << 7, SR_ERRORS = 0x1f3, SR_BSY = 1 << 16 };
enum { CR_PG = 1 << 0, CR_SER = 1 << 1, CR_MER = 1 << 2, CR_SNB_AT = 3, CR_PSIZE_AT = 8, CR_STRT = 1 << 16 };
enum { CR_EOPIE = 1 << 24 };
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

static void erase_sector(tinyfl_machine *m, void *engine, uint32_t sector)
{
    static const uint32_t kib[SECTORS + 1] = {0, 16, 32, 48, 64, 128, 256, 384, 512, 640, 768, 896, 1024};
    if (sector >= SECTORS || kib[sector + 1] * 1024 > m->flash_bytes)
        return;
    erase(m, engine, kib[sector] * 1024, kib[sector + 1] * 1024);
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

/* A core stores aligned words, which never leave a row of 128 bits, so the alignment error cannot come up. */
void tinyfl_stm32f4_flash_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
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
    program(m, engine, offset, size, value);
    operation_done(m);
}

uint64_t tinyfl_stm32f4_read(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    if (m->now.halt)
        return 0;
    if (offset >= RCC && offset < RCC + RCC_BYTES)
        return m->now.clock[(offset - RCC) / 4];
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
    if (offset >= RCC && offset < RCC + RCC_BYTES)
        m->now.clock[(offset - RCC) / 4] = (uint32_t)value;
    else if (offset == FLASH)
        m->now.flash[0] = (uint32_t)value;
    else if (offset == FLASH + FLASH_KEYR)
        flash_unlock(m, (uint32_t)value);
    else if (offset == FLASH + FLASH_SR)
        m->now.flash[FLASH_SR / 4] &= ~((uint32_t)value & SR_ERRORS);
    else if (offset == FLASH + FLASH_CR)
        flash_control(m, engine, (uint32_t)value);
}

void tinyfl_stm32f4_reset(tinyfl_machine *m)
{
    m->now.flash[FLASH_CR / 4] = CR_LOCK;
    m->now.flash[FLASH_OPTCR / 4] = 0x0fffaaed;
    m->now.clock[RCC_CR / 4] = 0x83; /* the internal oscillator is on and ready */
    m->now.clock[RCC_AHB1ENR / 4] = 0x00100000;
}
