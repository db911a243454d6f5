/* What the ports of Cortex-M chips share. The build defines, from the board's manifest: TINYFL_BOARD, TINYFL_CLOCK,
 * TINYFL_ID_RECORD, TINYFL_SLOT_0 and TINYFL_SLOT_0_BYTES, and so on to 2, and of its first link TINYFL_UART (its registers),
 * TINYFL_UART_INTERRUPT and TINYFL_BAUD. */
#ifndef TINYFL_CORTEX_M_H
#define TINYFL_CORTEX_M_H

#include "port.h"
#include "string.h"

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* The 16 bytes at TINYFL_ID_RECORD, programmed apart from the firmware: "TFLI", a serial number (8 bytes), 4 of 0. If they
 * are there, takes the number as the board's id. */
static inline int tinyfl_identity(tinyfl_port *port)
{
    const uint8_t *record = (const uint8_t *)(uintptr_t)TINYFL_ID_RECORD;
    if (memcmp(record, "TFLI", 4) != 0)
        return 0;
    memcpy(port->id, record + 4, 8);
    port->id_bytes = 8;
    return 1;
}

/* Every origin and size of a slot is a multiple of what this is one of. */
#define TINYFL_SLOT_BITS \
    (TINYFL_SLOT_0 | TINYFL_SLOT_0_BYTES | TINYFL_SLOT_1 | TINYFL_SLOT_1_BYTES | TINYFL_SLOT_2 | TINYFL_SLOT_2_BYTES)

static const tinyfl_slot tinyfl_slots[TINYFL_SLOTS] = {
    {(const uint8_t *)TINYFL_SLOT_0, TINYFL_SLOT_0_BYTES},
    {(const uint8_t *)TINYFL_SLOT_1, TINYFL_SLOT_1_BYTES},
    {(const uint8_t *)TINYFL_SLOT_2, TINYFL_SLOT_2_BYTES},
};

static inline volatile uint32_t *tinyfl_slot_words(int slot)
{
    return (volatile uint32_t *)(uintptr_t)tinyfl_slots[slot].bytes;
}

/* 0 where the whole slot reads as erased, else -1. */
static inline int tinyfl_slot_erased(int slot)
{
    for (uint32_t i = 0; i < tinyfl_slots[slot].count / 4; i++)
        if (tinyfl_slot_words(slot)[i] != 0xffffffffu)
            return -1;
    return 0;
}

/* Writes words to a slot that is open for it: only what is erased, and each is read back, for where there is no flash
 * controller (QEMU's STM32F405 has none) nothing reports the failure. `done` waits until a word is in: 0 or -1. */
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

/* No interrupt is ever taken: PRIMASK stays set, and wfi wakes on one that is pending. So there is no handler that could
 * come between, and the same binary sleeps on a chip, in QEMU and in an emulator that has no interrupts. */
static inline void tinyfl_interrupt_enable(void)
{
    __asm volatile("cpsid i" ::: "memory");
    REGISTER(0xE000E100u + TINYFL_UART_INTERRUPT / 32 * 4) = 1u << TINYFL_UART_INTERRUPT % 32; /* NVIC_ISER */
}

/* To sleep without missing a byte: clear the device's flag, this, look whether a byte is there, and only then wait. A byte that
 * comes before the look is seen by it, one that comes after is pending. */
static inline void tinyfl_interrupt_clear(void)
{
    REGISTER(0xE000E280u + TINYFL_UART_INTERRUPT / 32 * 4) = 1u << TINYFL_UART_INTERRUPT % 32; /* NVIC_ICPR */
}

static inline void tinyfl_interrupt_wait(void) { __asm volatile("dsb\n wfi" ::: "memory"); }

static inline void tinyfl_system_reset(void)
{
    __asm volatile("dsb" ::: "memory");
    REGISTER(0xE000ED0Cu) = 0x05FA0004u; /* AIRCR: key, SYSRESETREQ */
    for (;;)
        __asm volatile("dsb" ::: "memory");
}

extern const uint32_t tinyfl_stack_low[], tinyfl_stack_high[]; /* link.ld */

#endif
