/* A monitor over the UART, to try emulated hardware with a processor's own loads and stores. Numbers are little-endian.
 *
 *   w ADDRESS SIZE VALUE   stores SIZE (1, 2 or 4) bytes;   answers "w"
 *   r ADDRESS              loads a word;                    answers "r" and the word
 *   l COUNT                runs a loop of two instructions COUNT times;  answers "l"
 *   z                      never ends
 * SIZE is one byte; ADDRESS, VALUE and COUNT are four. */
#include <stdint.h>

#define AT(address) (*(volatile uint32_t *)(address))

#if defined STM32F4
#define STATUS AT(0x40004400u)
#define DATA AT(0x40004404u)
#define FULL 0x20u
static void start_uart(void)
{
    AT(0x40023840u) |= 1u << 17;
    AT(0x40023830u) |= 1u << 0;
    AT(0x40020020u) = 7u << 8 | 7u << 12; /* PA2, PA3 */
    AT(0x40020000u) = 2u << 4 | 2u << 6;
    AT(0x40004408u) = 139; /* of 16 MHz */
    AT(0x4000440cu) = 1u << 13 | 1u << 3 | 1u << 2;
}
static void acknowledge(void) {}
static void put(uint8_t byte) { DATA = byte; }
#elif defined STM32F7
#define STATUS AT(0x4001101cu)
#define DATA AT(0x40011024u)
#define FULL 0x20u
static void start_uart(void)
{
    AT(0x40023844u) |= 1u << 4;
    AT(0x40023830u) |= 1u << 0 | 1u << 1;
    AT(0x40020024u) = 7u << 4; /* PA9 */
    AT(0x40020000u) = 2u << 18;
    AT(0x40020420u) = 7u << 28; /* PB7 */
    AT(0x40020400u) = 2u << 14;
    AT(0x4001100cu) = 139;
    AT(0x40011000u) = 1u << 3 | 1u << 2 | 1u << 0;
}
static void acknowledge(void) {}
static void put(uint8_t byte) { AT(0x40011028u) = byte; }
#elif defined NRF52
#define STATUS AT(0x40002108u)
#define FULL 1u
static uint8_t take(void)
{
    STATUS = 0;
    return (uint8_t)AT(0x40002518u);
}
#define DATA take()
static void start_uart(void)
{
    AT(0x50000508u) = 1u << 6; /* P0.06 is high */
    AT(0x50000518u) = 1u << 6;
    AT(0x50000a20u) = 0; /* P1.08 is an input */
    AT(0x4000250cu) = 6;
    AT(0x40002514u) = 40;
    AT(0x40002524u) = 0x01d7e000;
    AT(0x40002500u) = 4;
    AT(0x40002304u) = 1u << 2;
    AT(0x40002000u) = 1;
    AT(0x40002008u) = 1;
}
static void acknowledge(void) {}
static void put(uint8_t byte)
{
    AT(0x4000211cu) = 0;
    AT(0x4000251cu) = byte;
    while (!AT(0x4000211cu)) {
    }
}
#else
#define STATUS AT(0x40004004u)
#define DATA AT(0x40004000u)
#define FULL 2u
static void start_uart(void)
{
    AT(0x40004010u) = 217; /* of 25 MHz */
    AT(0x40004008u) = 3 | 8;
}
static void acknowledge(void) { AT(0x4000400cu) = 2; }
static void put(uint8_t byte) { DATA = byte; }
#endif

static uint8_t get(void)
{
    while (!(STATUS & FULL)) {
        __asm volatile("wfi" ::: "memory");
        acknowledge();
        AT(0xe000e280u) = 0xffffffffu;
        AT(0xe000e284u) = 0xffffffffu;
    }
    return (uint8_t)DATA;
}

static uint32_t get_word(void)
{
    uint32_t word = 0;
    for (int i = 0; i < 4; i++)
        word |= (uint32_t)get() << 8 * i;
    return word;
}

static void store(uint32_t address, uint8_t size, uint32_t value)
{
    if (size == 1)
        *(volatile uint8_t *)address = (uint8_t)value;
    else if (size == 2)
        *(volatile uint16_t *)address = (uint16_t)value;
    else
        AT(address) = value;
}

__attribute__((noinline)) static void loop(uint32_t count)
{
    __asm volatile("1: subs %0, %0, #1\n bne 1b" : "+l"(count)::"cc");
}

__attribute__((noreturn)) void monitor(void)
{
    __asm volatile("cpsid i");
    AT(0xe000e100u) = 0xffffffffu;
    AT(0xe000e104u) = 0xffffffffu;
    start_uart();
    for (;;) {
        uint8_t command = get();
        uint32_t argument = command == 'z' ? 0 : get_word(), answer = 0;
        if (command == 'w') {
            uint8_t size = get();
            store(argument, size, get_word());
        } else if (command == 'r') {
            answer = AT(argument);
        } else if (command == 'l') {
            loop(argument);
        } else {
            for (;;) {
            }
        }
        put(command);
        for (int i = 0; command == 'r' && i < 4; i++)
            put((uint8_t)(answer >> 8 * i));
    }
}

__attribute__((section(".vectors"), used)) void (*const vectors[16])(void) = {(void (*)(void))0x20010000u, monitor};
