/* Common code of the ports to Cortex-M chips. The build defines, from the board's manifest: TINYFL_BOARD, TINYFL_CLOCK,
 * TINYFL_ID_RECORD, TINYFL_FLASH_ORIGIN and TINYFL_FLASH_BYTES, TINYFL_SLOT_0 and TINYFL_SLOT_0_BYTES, and so on to 4 (3 and 4,
 * the store's areas, are 0 where there is none), and for its first link TINYFL_UART (its registers), TINYFL_UART_INTERRUPT,
 * TINYFL_BAUD, TINYFL_RATES (each followed by a comma) and the pins' numbers TINYFL_TX_PORT, TINYFL_TX_PIN, TINYFL_RX_PORT and TINYFL_RX_PIN (port A is 0). */
#ifndef TINYFL_CORTEX_M_H
#define TINYFL_CORTEX_M_H

#include "port.h"
#include "string.h"

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* Readings in an emulator's memory: their number, the bytes of each, and the readings. */
static const uint32_t *tinyfl_recording;

static inline int tinyfl_recorded(uint32_t number, void *reading, size_t bytes)
{
    const uint32_t *at = tinyfl_recording;
    if (!at || at[0] == 0 || at[1] != bytes)
        return -1;
    memcpy(reading, (const uint8_t *)(at + 2) + number % at[0] * bytes, bytes);
    return 0;
}

/* Reads the 16 bytes at TINYFL_ID_RECORD, programmed separately from the firmware: "TFLI", a serial number (8 bytes), and 4
 * bytes of 0 or, in an emulator, the address of recorded readings. If they exist, the number becomes the board's id. */
static inline int tinyfl_identity(tinyfl_port *port)
{
    const uint8_t *record = (const uint8_t *)(uintptr_t)TINYFL_ID_RECORD;
    uint32_t recording;
    if (memcmp(record, "TFLI", 4) != 0)
        return 0;
    memcpy(port->id, record + 4, 8);
    port->id_bytes = 8;
    memcpy(&recording, record + 12, sizeof recording);
    tinyfl_recording = (const uint32_t *)(uintptr_t)recording;
    return 1;
}

/* Origins and sizes of slots are multiples of this word's size. */
#define TINYFL_SLOT_BITS \
    (TINYFL_SLOT_0 | TINYFL_SLOT_0_BYTES | TINYFL_SLOT_1 | TINYFL_SLOT_1_BYTES | TINYFL_SLOT_2 | TINYFL_SLOT_2_BYTES | \
     TINYFL_SLOT_3 | TINYFL_SLOT_3_BYTES | TINYFL_SLOT_4 | TINYFL_SLOT_4_BYTES)

static const tinyfl_slot tinyfl_slots[TINYFL_SLOTS] = {
    {(const uint8_t *)TINYFL_SLOT_0, TINYFL_SLOT_0_BYTES},
    {(const uint8_t *)TINYFL_SLOT_1, TINYFL_SLOT_1_BYTES},
    {(const uint8_t *)TINYFL_SLOT_2, TINYFL_SLOT_2_BYTES},
    {(const uint8_t *)TINYFL_SLOT_3, TINYFL_SLOT_3_BYTES},
    {(const uint8_t *)TINYFL_SLOT_4, TINYFL_SLOT_4_BYTES},
};

static const uint32_t tinyfl_link_rates[] = {TINYFL_RATES 0};

static inline volatile uint32_t *tinyfl_slot_words(int slot)
{
    return (volatile uint32_t *)(uintptr_t)tinyfl_slots[slot].bytes;
}

/* 0 if the whole slot reads as erased, else -1. */
static inline int tinyfl_slot_erased(int slot)
{
    for (uint32_t i = 0; i < tinyfl_slots[slot].count / 4; i++)
        if (tinyfl_slot_words(slot)[i] != 0xffffffffu)
            return -1;
    return 0;
}

/* Writes words to an unlocked slot: only to erased ones, with read-back, since without a flash controller (as in QEMU's
 * STM32F405) nothing reports a failure. `done` waits for the end of a word's write: 0 or -1. */
static inline int tinyfl_slot_program(int slot, uint32_t offset, const uint8_t *bytes, size_t count, int (*done)(void))
{
    volatile uint32_t *at = tinyfl_slot_words(slot) + offset / 4;
    for (size_t i = 0; i < count; i += 4, at++) {
        uint32_t word;
        memcpy(&word, bytes + i, 4);
        if (*at != 0xffffffffu)
            return -1;
        *at = word;
        if (done() != 0 || *at != word)
            return -1;
    }
    return 0;
}

/* The core's own registers (ARMv7-M and ARMv6-M architecture reference manuals, B3). */
#define SYST_CSR 0xE000E010u
#define SYST_RVR 0xE000E014u
#define SYST_CVR 0xE000E018u
#define NVIC_ISER 0xE000E100u
#define NVIC_ICER 0xE000E180u
#define NVIC_ICPR 0xE000E280u
#define VTOR 0xE000ED08u
#define AIRCR 0xE000ED0Cu

/* receive.c: a ring of received bytes, filled by the UART's interrupt. A port defines the first, calls the second at the end of
 * its start, and uses the next two as its `read` and `idle`. */

/* The UART's next byte, or -1. Also clears all causes of the interrupt, such as an overrun. */
int tinyfl_uart_take(void);

void tinyfl_receive_start(void);
int tinyfl_receive(void);
void tinyfl_receive_idle(void);
void tinyfl_uart_interrupt(void);

/* clock.c: milliseconds from a core of this many hertz, up to 2^24 x 1000. It wakes a sleeping core before every 2^24 of its
 * cycles, and stands still where sleep stops SysTick. */
void tinyfl_clock_start(uint32_t hertz);
void tinyfl_clock_tick(void);
uint32_t tinyfl_clock_millis(void);

static inline void tinyfl_system_reset(void)
{
    __asm volatile("dsb" ::: "memory");
    REGISTER(AIRCR) = 0x05FA0004u; /* key, SYSRESETREQ */
    for (;;)
        __asm volatile("dsb" ::: "memory");
}

extern const uint32_t tinyfl_stack_low[], tinyfl_stack_high[]; /* link.ld */

/* The part of a tinyfl_port's initializer that does not depend on the chip. A port adds write, alive, reset, erase and program,
 * the id (tinyfl_identity), and the clock if it is not always the manifest's. */
#define TINYFL_CORTEX_M_PORT \
    .board = TINYFL_BOARD, .clock = TINYFL_CLOCK, .baud = TINYFL_BAUD, .rates = tinyfl_link_rates, .read = tinyfl_receive, .idle = tinyfl_receive_idle, \
    .millis = tinyfl_clock_millis, .recorded = tinyfl_recorded, \
    .slots = tinyfl_slots, .stack_low = tinyfl_stack_low, .stack_high = tinyfl_stack_high

#endif
