/* From ST's reference manual RM0090, sections 7.3 (RCC), 8.4 (GPIO), 3.9 (flash), 21.4 (IWDG), 30.6 (USART); addresses and
 * bits from the port's registers.h, which is checked against ST's SVD files. */
#include "../../firmware/ports/stm32f4/registers.h"

#include "stm32.h"

enum { RCC_BYTES = 0x90, OSCILLATOR_MEGAHERTZ = 16 };

/* The PLL's frequency in MHz; 0 if it does not lock: off, not from the internal oscillator, or out of its bounds. */
static uint32_t pll(const tinyfl_machine *m)
{
    const uint32_t config = m->now.clock[RCC_PLLCFGR / 4];
    const uint32_t divider = field(config, RCC_PLLCFGR_PLLM), p = 2 * field(config, RCC_PLLCFGR_PLLP) + 2;
    if (!(m->now.clock[RCC_CR / 4] & RCC_CR_PLLON) || (config & RCC_PLLCFGR_PLLSRC) || divider < 8 || divider > 16 ||
        field(config, RCC_PLLCFGR_PLLQ) < 2)
        return 0;
    const uint32_t turns = OSCILLATOR_MEGAHERTZ * field(config, RCC_PLLCFGR_PLLN) / divider;
    return turns < 192 || turns > 432 || turns / p * 1000000 > m->hertz ? 0 : turns / p;
}

static uint64_t rcc_read(const tinyfl_machine *m, uint64_t offset)
{
    uint32_t value = m->now.clock[offset / 4];
    if (offset == RCC_CR && pll(m))
        value |= RCC_CR_PLLRDY;
    return value;
}

/* The core takes the PLL once that is ready. With too few wait states (one for each 30 MHz, section 3.5.1) it fetches invalid
 * code. */
static void rcc_write(tinyfl_machine *m, void *engine, uint64_t offset, uint32_t value)
{
    uint32_t *clock = m->now.clock;
    const uint32_t running = clock[RCC_CFGR / 4] & RCC_CFGR_SWS;
    if (offset == RCC_PLLCFGR && (clock[RCC_CR / 4] & RCC_CR_PLLON))
        return;
    if (offset == RCC_CR)
        value = (value & ~RCC_CR_PLLRDY) | RCC_CR_HSIRDY | (running ? RCC_CR_PLLON : 0);
    clock[offset / 4] = value;
    if (offset != RCC_CFGR)
        return;
    const uint32_t wanted = value & RCC_CFGR_SW, megahertz = pll(m);
    const uint32_t taken = wanted == RCC_CFGR_SW__PLL && megahertz ? RCC_CFGR_SWS__PLL : 0;
    clock[RCC_CFGR / 4] = (value & ~RCC_CFGR_SWS) | (wanted ? taken : 0);
    if (taken && 30 * ((m->now.flash[FLASH_ACR / 4] & FLASH_ACR_LATENCY) + 1) < megahertz)
        halt(m, engine, TINYFL_HALT_CRASH);
}

double stm32_usart_hertz(const tinyfl_machine *m)
{
    const uint32_t config = m->now.clock[RCC_CFGR / 4], core = field(config, RCC_CFGR_HPRE);
    const uint32_t bus = field(config, m->uart == USART2_BASE ? RCC_CFGR_PPRE1 : RCC_CFGR_PPRE2);
    const uint32_t megahertz = config & RCC_CFGR_SWS ? pll(m) : OSCILLATOR_MEGAHERTZ;
    const uint32_t core_shift = core < 8 ? 0 : core < 12 ? core - 7 : core - 6; /* 2, 4, 8, 16, 64, 128, 256, 512 */
    return megahertz * 1e6 / (1u << core_shift << (bus < 4 ? 0 : bus - 3));
}

/* GPIO. A port keeps only writes made while its clock is on. */
enum { GPIO_PORT_BYTES = GPIOB_BASE - GPIOA_BASE, GPIO_PORTS = 11, GPIO_PINS = 16 };

static int gpio_clocked(const tinyfl_machine *m, uint32_t port)
{
    return port < GPIO_PORTS && (m->now.clock[RCC_AHB1ENR / 4] & RCC_AHB1ENR_GPIOAEN << port) != 0;
}

/* In the mode of alternate functions, 2, and of these USART1's and USART2's 7 or USART6's 8. */
int stm32_usart_has_pin(const tinyfl_machine *m, uint32_t pin)
{
    const uint32_t port = pin / 32, number = pin % 32;
    if (!gpio_clocked(m, port) || number >= GPIO_PINS)
        return 0;
    const uint32_t *gpio = m->now.chip + GPIO_AT + GPIO_WORDS * port;
    const uint32_t function = gpio[(number < 8 ? GPIO_AFRL : GPIO_AFRH) / 4] >> number % 8 * 4 & 15;
    return (gpio[GPIO_MODER / 4] >> 2 * number & 3) == 2 && function == (m->uart == USART6_BASE ? 8 : 7);
}

uint64_t stm32_gpio_load(void *engine, uint64_t offset, unsigned size, void *user)
{
    const tinyfl_machine *m = user;
    const uint32_t port = (uint32_t)offset / GPIO_PORT_BYTES, at = offset % GPIO_PORT_BYTES / 4;
    (void)engine, (void)size;
    return gpio_clocked(m, port) && at < GPIO_WORDS ? m->now.chip[GPIO_AT + GPIO_WORDS * port + at] : 0;
}

void stm32_gpio_store(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    const uint32_t port = (uint32_t)offset / GPIO_PORT_BYTES, at = offset % GPIO_PORT_BYTES / 4;
    (void)engine, (void)size;
    if (!m->now.halt && gpio_clocked(m, port) && at < GPIO_WORDS)
        m->now.chip[GPIO_AT + GPIO_WORDS * port + at] = (uint32_t)value;
}

/* SR's flags come from the state of the line, so only the control registers are kept. */
static uint64_t usart_load(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    offset -= m->uart & 0xfff;
    if (m->now.halt || offset > USART_GTPR || !usart_clocked(m))
        return 0;
    if (offset == USART_SR)
        return USART_SR_TC | USART_SR_TXE | (usart_runs(m, USART_CR1_RE) && input_waits(m) ? USART_SR_RXNE : 0);
    if (offset == USART_DR)
        return usart_runs(m, USART_CR1_RE) ? take(m) : 0;
    return m->now.uart[offset / 4];
}

static void usart_store(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    (void)size;
    offset -= m->uart & 0xfff;
    if (m->now.halt || offset > USART_GTPR || !usart_clocked(m))
        return;
    if (offset == USART_DR && usart_runs(m, USART_CR1_TE))
        send(m, engine, value);
    else if (offset > USART_DR)
        m->now.uart[offset / 4] = (uint32_t)value;
}

/* Its own oscillator is between 17 and 47 kHz: the model uses the fastest, so that feeding in time is always in time. */
#define FASTEST_OSCILLATOR 47000.0

uint64_t stm32_iwdg_load(void *engine, uint64_t offset, unsigned size, void *user)
{
    const tinyfl_machine *m = user;
    (void)engine, (void)size;
    return offset == IWDG_PR || offset == IWDG_RLR ? m->now.chip[offset / 4] : 0;
}

void stm32_iwdg_store(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    uint32_t *chip = m->now.chip;
    (void)engine, (void)size;
    if (m->now.halt)
        return;
    if (offset == IWDG_KR) {
        chip[IWDG_OPEN] = value == 0x5555;
        if (value == 0xCCCC || (value == 0xAAAA && m->now.watchdog))
            feed(m, (chip[IWDG_RLR / 4] + 1.0) * (4u << (chip[IWDG_PR / 4] & IWDG_PR_PR)) / FASTEST_OSCILLATOR);
    } else if (chip[IWDG_OPEN] && offset == IWDG_PR) {
        chip[offset / 4] = value & IWDG_PR_PR;
    } else if (chip[IWDG_OPEN] && offset == IWDG_RLR) {
        chip[offset / 4] = value & IWDG_RLR_RL;
    }
}

/* The flash controller, with a single bank. */
#define SR_ERRORS (FLASH_SR_EOP | FLASH_SR_OPERR | FLASH_SR_WRPERR | FLASH_SR_PGAERR | FLASH_SR_PGPERR | FLASH_SR_PGSERR)
#define CR_OPERATION (FLASH_CR_PG | FLASH_CR_SER | FLASH_CR_MER)
#define CR_KEPT (CR_OPERATION | FLASH_CR_SNB | FLASH_CR_PSIZE | FLASH_CR_EOPIE | FLASH_CR_ERRIE | FLASH_CR_LOCK)
#define KEY1 0x45670123u
#define KEY2 0xcdef89abu
enum { BUSY_READS = 4, SECTORS = 12 };

static void operation_done(tinyfl_machine *m)
{
    m->now.flash_busy = BUSY_READS;
    if (m->now.flash[FLASH_CR / 4] & FLASH_CR_EOPIE)
        m->now.flash[FLASH_SR / 4] |= FLASH_SR_EOP;
}

/* Where a sector starts, in bytes. */
static uint32_t sector_start(const tinyfl_machine *m, uint32_t sector)
{
    return m->now.chip[SMALL_KIB] * 1024 * (sector < 5 ? sector : 8 * (sector - 4));
}

static void erase_sector(tinyfl_machine *m, void *engine, uint32_t sector)
{
    const uint32_t start = sector_start(m, sector), end = sector_start(m, sector + 1);
    if (sector >= SECTORS || end > m->flash_bytes)
        return;
    erase(m, engine, start, end);
    operation_done(m);
}

static void flash_control(tinyfl_machine *m, void *engine, uint32_t value)
{
    uint32_t *control = &m->now.flash[FLASH_CR / 4];
    if (*control & FLASH_CR_LOCK)
        return;
    m->now.flash_busy = 0; /* a write while busy stalls the bus until the operation is done */
    *control = value & CR_KEPT;
    if ((value & (FLASH_CR_STRT | CR_OPERATION)) == (FLASH_CR_STRT | FLASH_CR_SER))
        erase_sector(m, engine, field(value, FLASH_CR_SNB));
}

static void flash_unlock(tinyfl_machine *m, uint32_t key)
{
    if (m->now.flash_key == 0 && key == KEY1) {
        m->now.flash_key = 1;
    } else if (m->now.flash_key == 1 && key == KEY2) {
        m->now.flash_key = 0;
        m->now.flash[FLASH_CR / 4] &= ~FLASH_CR_LOCK;
    } else {
        m->now.flash_key = 2;
        m->now.flash[FLASH_CR / 4] |= FLASH_CR_LOCK;
    }
}

/* A core stores aligned words, which never cross a row of 128 bits, so the alignment error cannot occur. */
void stm32_flash_store(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    if (m->now.halt)
        return;
    uint32_t control = m->now.flash[FLASH_CR / 4], wrong = 0;
    if ((control & FLASH_CR_LOCK) || (control & CR_OPERATION) != FLASH_CR_PG)
        wrong |= FLASH_SR_PGSERR;
    if (size != 1u << (field(control, FLASH_CR_PSIZE)))
        wrong |= FLASH_SR_PGPERR;
    m->now.flash[FLASH_SR / 4] |= wrong;
    if (wrong)
        return;
    program(m, engine, offset, size, value);
    operation_done(m);
}

/* The page with RCC and the flash controller. */
enum { RCC_AT = RCC_BASE & 0xfff, FLASH_AT = FLASH_BASE & 0xfff };

uint64_t stm32_rcc_load(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    if (m->now.halt)
        return 0;
    if (offset >= RCC_AT && offset < RCC_AT + RCC_BYTES)
        return rcc_read(m, offset - RCC_AT);
    if (offset < FLASH_AT || offset > FLASH_AT + FLASH_OPTCR || offset == FLASH_AT + FLASH_KEYR)
        return 0;
    if (offset == FLASH_AT + FLASH_SR && m->now.flash_busy) {
        m->now.flash_busy--;
        return m->now.flash[FLASH_SR / 4] | FLASH_SR_BSY;
    }
    if (offset == FLASH_AT + FLASH_CR && m->now.flash_busy)
        return m->now.flash[FLASH_CR / 4] | (m->now.flash[FLASH_CR / 4] & FLASH_CR_SER ? FLASH_CR_STRT : 0);
    return m->now.flash[(offset - FLASH_AT) / 4];
}

void stm32_rcc_store(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    (void)size;
    if (m->now.halt)
        return;
    if (offset >= RCC_AT && offset < RCC_AT + RCC_BYTES)
        rcc_write(m, engine, offset - RCC_AT, (uint32_t)value);
    else if (offset == FLASH_AT + FLASH_ACR)
        m->now.flash[FLASH_ACR / 4] = (uint32_t)value;
    else if (offset == FLASH_AT + FLASH_KEYR)
        flash_unlock(m, (uint32_t)value);
    else if (offset == FLASH_AT + FLASH_SR)
        m->now.flash[FLASH_SR / 4] &= ~((uint32_t)value & SR_ERRORS);
    else if (offset == FLASH_AT + FLASH_CR)
        flash_control(m, engine, (uint32_t)value);
}

void stm32_reset(tinyfl_machine *m)
{
    m->now.flash[FLASH_CR / 4] = FLASH_CR_LOCK;
    m->now.flash[FLASH_OPTCR / 4] = 0x0fffaaed;
    m->now.clock[RCC_CR / 4] = 0x83; /* the internal oscillator is on and ready */
    m->now.clock[RCC_PLLCFGR / 4] = 0x24003010;
    m->now.clock[RCC_AHB1ENR / 4] = 0x00100000;
    m->now.chip[IWDG_RLR / 4] = IWDG_RLR_RL;
    m->now.chip[SMALL_KIB] = 16;
}

static tinyfl_chip chip = STM32_CHIP("stm32f4", stm32_reset);
TINYFL_REGISTER(chip)
