/* STM32F401, F405/407, F446 and F746 by their registers (ST's reference manuals RM0368, RM0090, RM0390, RM0385): any USART
 * whose pins the manifest names, slots and the store's areas in sectors of flash. The clock comes from the internal 16 MHz
 * oscillator, so that no crystal need be known; up to 84 MHz (F401), 168 MHz (F405, F446) or 180 MHz (F746) the core's voltage
 * is enough as it is after reset. */
#include "stm32.h"

#define OSCILLATOR 16000000u
#define BUS_DIVIDER 4 /* of both peripheral buses: at most 42 MHz (F4) and 45 MHz (F7) */
#define OSCILLATOR_TURNS 100000u /* milliseconds, where microseconds are needed */
#if TINYFL_CLOCK != OSCILLATOR && (TINYFL_CLOCK < 48000000u || TINYFL_CLOCK % 2000000u)
#error "the clock must be the oscillator's 16 MHz, or an even number of MHz from 48 on"
#endif

#if TINYFL_UART == USART2_BASE
#define USART_CLOCK RCC(APB1ENR)
#define USART_CLOCK_ON RCC_APB1ENR_USART2EN
#define ALTERNATE_FUNCTION 7u
#elif TINYFL_UART == USART1_BASE
#define USART_CLOCK RCC(APB2ENR)
#define USART_CLOCK_ON RCC_APB2ENR_USART1EN
#define ALTERNATE_FUNCTION 7u
#elif TINYFL_UART == USART6_BASE
#define USART_CLOCK RCC(APB2ENR)
#define USART_CLOCK_ON RCC_APB2ENR_USART6EN
#define ALTERNATE_FUNCTION 8u
#else
#error "this port knows USART1, USART2 and USART6"
#endif

/* Sectors 0 to 3 are small, 4 is of four such, and from 5 on each is of eight (TINYFL_SECTOR_BYTES). What is written at run time
 * begins sectors, so that no two parts share one. */
#define SMALL_BYTES (TINYFL_SECTOR_BYTES / 8)
#define FROM_START(address) ((address)-TINYFL_FLASH_ORIGIN)
#define BEGINS_SECTOR(address)                                                                     \
    (FROM_START(address) < 4 * SMALL_BYTES   ? FROM_START(address) % SMALL_BYTES == 0              \
     : FROM_START(address) < 8 * SMALL_BYTES ? FROM_START(address) == 4 * SMALL_BYTES              \
                                             : FROM_START(address) % TINYFL_SECTOR_BYTES == 0)
#if !BEGINS_SECTOR(TINYFL_SLOT_0) || !BEGINS_SECTOR(TINYFL_SLOT_1) || !BEGINS_SECTOR(TINYFL_SLOT_2)
#error "a slot must begin a sector"
#endif
#if TINYFL_SLOT_3_BYTES && !(BEGINS_SECTOR(TINYFL_SLOT_3) && BEGINS_SECTOR(TINYFL_SLOT_4))
#error "an area of the store must begin a sector"
#endif
#define LONGEST_ERASE (TINYFL_CLOCK / 8 * 4) /* turns of 8 cycles or more: 4 s */
#define FLASH_ERRORS \
    (FLASH_SR_OPERR | FLASH_SR_WRPERR | FLASH_SR_PGAERR | FLASH_SR_PGPERR | FLASH_SR_PGSERR) /* cleared by writing 1 */
#define PLL_FIELDS (RCC_PLLCFGR_PLLM | RCC_PLLCFGR_PLLN | RCC_PLLCFGR_PLLP | RCC_PLLCFGR_PLLSRC | RCC_PLLCFGR_PLLQ)

static int becomes(uint32_t address, uint32_t bits, uint32_t wanted, uint32_t turns)
{
    while ((REGISTER(address) & bits) != wanted)
        if (turns-- == 0)
            return 0;
    return 1;
}

/* A bootloader may have left the PLL running, and its settings cannot be changed then. */
static int oscillator_start(void)
{
    RCC(CR) |= RCC_CR_HSION;
    if (!becomes(RCC_BASE + RCC_CR, RCC_CR_HSIRDY, RCC_CR_HSIRDY, OSCILLATOR_TURNS))
        return 0;
    RCC(CFGR) = RCC_CFGR_PPRE1__4 | RCC_CFGR_PPRE2__4;
    if (!becomes(RCC_BASE + RCC_CFGR, RCC_CFGR_SWS, 0, OSCILLATOR_TURNS))
        return 0;
    RCC(CR) &= ~RCC_CR_PLLON;
    return becomes(RCC_BASE + RCC_CR, RCC_CR_PLLRDY, 0, OSCILLATOR_TURNS);
}

/* The clock of the core in Hz: the manifest's, or the oscillator's if the PLL fails. The PLL makes
 * N x 2 MHz, which must be 192 MHz or more, and divides it by P: 2 or 4. Flash needs a wait state for each 30 MHz. */
static uint32_t clock_start(void)
{
    const uint32_t p = TINYFL_CLOCK < 96000000u ? 4 : 2, n = TINYFL_CLOCK / 2000000u * p, m = OSCILLATOR / 2000000u;
    if (!oscillator_start() || TINYFL_CLOCK == OSCILLATOR)
        return OSCILLATOR;
    RCC(PLLCFGR) = (RCC(PLLCFGR) & ~PLL_FIELDS) | 7u << 24 | (p / 2 - 1) << 16 | n << 6 | m; /* Q, of USB, is 7: legal */
    RCC(CR) |= RCC_CR_PLLON;
    if (!becomes(RCC_BASE + RCC_CR, RCC_CR_PLLRDY, RCC_CR_PLLRDY, OSCILLATOR_TURNS))
        return OSCILLATOR;
    FLASH(ACR) = (FLASH(ACR) & ~FLASH_ACR_LATENCY) | (TINYFL_CLOCK - 1) / 30000000u;
    (void)FLASH(ACR);
    RCC(CFGR) |= RCC_CFGR_SW__PLL;
    return becomes(RCC_BASE + RCC_CFGR, RCC_CFGR_SWS, RCC_CFGR_SWS__PLL, OSCILLATOR_TURNS) ? TINYFL_CLOCK : OSCILLATOR;
}

static void usart_flush(void)
{
    for (uint32_t turns = TINYFL_CLOCK / TINYFL_BAUD * 20; turns > 0 && !tinyfl_usart_sent(); turns--) {
    }
}

static void restart(void)
{
    usart_flush();
    tinyfl_system_reset();
}

static void alive(void) { IWDG(KR) = 0xAAAA; }

/* It starts its own oscillator, between 17 and 47 kHz: 1000 turns of 256 are 5 to 15 s. It cannot be stopped again. */
static void watchdog_start(void)
{
    IWDG(KR) = 0xCCCC;
    IWDG(KR) = 0x5555;
    IWDG(PR) = IWDG_PR_PR__256;
    IWDG(RLR) = 1000;
    (void)becomes(IWDG_BASE + IWDG_SR, IWDG_SR_PVU | IWDG_SR_RVU, 0, OSCILLATOR_TURNS);
    alive();
}

/* Otherwise a Cortex-M7 may read the status before its store has reached the flash, or store before it has control. */
static void barrier(void) { __asm volatile("dsb" ::: "memory"); }

/* A slot full of words, or a sector's erase, takes seconds. */
static int flash_done(void)
{
    barrier();
    alive();
    if (!becomes(FLASH_BASE + FLASH_SR, FLASH_SR_BSY, 0, LONGEST_ERASE))
        return -1;
    return FLASH(SR) & FLASH_ERRORS ? -1 : 0;
}

static int flash_open(void)
{
    if (FLASH(CR) & FLASH_CR_LOCK) {
        FLASH(KEYR) = 0x45670123u;
        FLASH(KEYR) = 0xCDEF89ABu;
    }
    FLASH(SR) = FLASH_ERRORS;
    return FLASH(CR) & FLASH_CR_LOCK ? -1 : flash_done();
}

static uint32_t sector_at(uint32_t address)
{
    const uint32_t small = FROM_START(address) / SMALL_BYTES;
    return small < 4 ? small : small < 8 ? 4 : small / 8 + 4;
}

static int erase(int slot)
{
    const uint32_t first = (uint32_t)(uintptr_t)tinyfl_slots[slot].bytes, last = first + tinyfl_slots[slot].count - 1;
    int code = flash_open();
    for (uint32_t at = sector_at(first); code == 0 && at <= sector_at(last); at++) {
        const uint32_t sector = FLASH_CR_PSIZE__32 | at << 3 | FLASH_CR_SER;
        FLASH(CR) = sector;
        FLASH(CR) = sector | FLASH_CR_STRT;
        code = flash_done();
    }
    FLASH(CR) = FLASH_CR_LOCK;
    return code == 0 ? tinyfl_slot_erased(slot) : code;
}

/* Whole words, which need a supply of at least 2.7 V. */
static int program(int slot, uint32_t offset, const uint8_t *bytes, size_t count)
{
    int code = flash_open();
    if (code == 0)
        FLASH(CR) = FLASH_CR_PSIZE__32 | FLASH_CR_PG;
    barrier();
    if (code == 0)
        code = tinyfl_slot_program(slot, offset, bytes, count, flash_done);
    FLASH(CR) = FLASH_CR_LOCK;
    return code;
}

/* Connects a pin to the USART, pulled up, so that an open line sends no byte. */
static void pin_start(uint32_t port, uint32_t pin)
{
    const uint32_t half = pin < 8 ? GPIO_AFRL : GPIO_AFRH, place = pin % 8 * 4;
    RCC(AHB1ENR) |= RCC_AHB1ENR_GPIOAEN << port;
    (void)RCC(AHB1ENR); /* a clock starts within two cycles */
    GPIO(port, half) = (GPIO(port, half) & ~(15u << place)) | ALTERNATE_FUNCTION << place;
    GPIO(port, GPIO_PUPDR) = (GPIO(port, GPIO_PUPDR) & ~(3u << 2 * pin)) | 1u << 2 * pin;
    GPIO(port, GPIO_MODER) = (GPIO(port, GPIO_MODER) & ~(3u << 2 * pin)) | 2u << 2 * pin;
}

static uint32_t bus_clock;

static void rate(uint32_t baud)
{
    usart_flush();
    tinyfl_usart_start((bus_clock + baud / 2) / baud);
}

static void uart_start(void)
{
    USART_CLOCK |= USART_CLOCK_ON;
    (void)USART_CLOCK;
    pin_start(TINYFL_TX_PORT, TINYFL_TX_PIN);
    pin_start(TINYFL_RX_PORT, TINYFL_RX_PIN);
    rate(TINYFL_BAUD);
}

const tinyfl_port *tinyfl_port_start(void)
{
    static tinyfl_port port = {
        TINYFL_CORTEX_M_PORT,
        .rate = rate,
        .write = tinyfl_usart_write,
        .alive = alive,
        .reset = restart,
        .erase = erase,
        .program = program,
    };
    if (!tinyfl_identity(&port)) { /* first: QEMU has nothing where the unique id is, and faults */
        memcpy(port.id, (const void *)UNIQUE_ID, 12);
        port.id_bytes = 12;
    }
    tinyfl_cache_start();
    port.clock = clock_start();
    if (port.clock != TINYFL_CLOCK)
        port.rates = NULL; /* too slow for them */
    bus_clock = port.clock / BUS_DIVIDER;
    uart_start();
    watchdog_start();
    tinyfl_clock_start(port.clock);
    tinyfl_receive_start();
    return &port;
}
