/* What surrounds an emulated core: UART, system control, flash. Callbacks of unicorn's memory-mapped I/O, with a
 * tinyfl_machine as user data; simulators/unicorn/peripherals.py attaches them.
 *
 * A model follows the chip's reference manual and not the port's code: what hardware would refuse, it refuses. Time does not
 * pass in it: a byte written is sent at once, and an erase is done when its busy flag has been read a few times. */
#ifndef TINYFL_PERIPHERALS_H
#define TINYFL_PERIPHERALS_H

#include <stdint.h>

/* Why the core was stopped; 0: it sleeps, or has run into a fault of its own. */
enum {
    TINYFL_HALT_RESET = 1,    /* the program asked for a system reset */
    TINYFL_HALT_POWER = 2,    /* power was cut */
    TINYFL_HALT_BUDGET = 3,   /* `budget` instructions are used up */
    TINYFL_HALT_OVERFLOW = 4, /* more bytes sent than `output` holds */
};

/* Registers that are more than memory, as a snapshot keeps them. */
typedef struct {
    uint64_t instructions; /* executed since power first came on */
    uint64_t slot_events;  /* words written and sectors or pages erased in the slots' memory */
    uint64_t cut_at;       /* the event, counted from 1, in which power is cut; 0: none */
    uint32_t halt;         /* as above */
    uint32_t uart[384];    /* by the registers' offsets / 4, here and below */
    uint32_t flash[384];   /* the flash controller */
    uint32_t flash_key;    /* STM32F4's unlock sequence: 0 none, 1 the first key, 2 a wrong one: locked until reset */
    uint32_t flash_busy;   /* reads of the controller's status that still show it busy */
    uint32_t clock[384];   /* STM32F4: RCC. nRF52: CLOCK */
    uint32_t system[1024]; /* the system control space, 0xe000e000 */
} tinyfl_registers;

typedef struct tinyfl_machine {
    int (*stop)(void *engine);                     /* uc_emu_stop */
    void (*reset)(struct tinyfl_machine *machine); /* the chip's, or NULL */
    const uint8_t *input;      /* what the host sends ... */
    uint64_t input_bytes, taken;
    uint8_t *output; /* ... and the board */
    uint64_t output_room, sent;
    uint64_t budget; /* the count of instructions at which the core is stopped */
    uint8_t *flash, *ram;
    uint32_t flash_origin, flash_bytes, ram_origin, ram_bytes;
    uint32_t slots_origin; /* where slot memory starts, which is flash to its end */
    uint64_t serial;       /* the chip's own number, where it has one */
    tinyfl_registers now;
} tinyfl_machine;

#define TINYFL_EXPORT __attribute__((visibility("default")))

/* Registers as after a reset. Counters and the cut stay. */
TINYFL_EXPORT void tinyfl_machine_reset(tinyfl_machine *machine);

/* mps2.c: Arm's CMSDK APB UART, one page; and writes to static RAM that stands in for flash. */
TINYFL_EXPORT uint64_t tinyfl_cmsdk_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_cmsdk_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT void tinyfl_sram_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);

/* stm32f4.c (RM0090): the page 0x40004000, with USART2; the page 0x40023000, with RCC and the flash controller; writes to
 * flash; and the reset of these registers. */
TINYFL_EXPORT uint64_t tinyfl_stm32f4_usart_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_stm32f4_usart_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT uint64_t tinyfl_stm32f4_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_stm32f4_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT void tinyfl_stm32f4_flash_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT void tinyfl_stm32f4_reset(tinyfl_machine *machine);

/* nrf52.c: the pages of CLOCK, of UART0, of NVMC, which is the flash controller, and of FICR, which has the chip's number;
 * writes to flash; and the reset of these registers. */
TINYFL_EXPORT uint64_t tinyfl_nrf52_clock_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_nrf52_clock_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT uint64_t tinyfl_nrf52_uart_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_nrf52_uart_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT uint64_t tinyfl_nrf52_nvmc_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_nrf52_nvmc_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT uint64_t tinyfl_nrf52_ficr_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_nrf52_ficr_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT void tinyfl_nrf52_flash_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT void tinyfl_nrf52_reset(tinyfl_machine *machine);

/* The system control space: memory, but for the reset request and interrupts' set and clear registers. */
TINYFL_EXPORT uint64_t tinyfl_system_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_system_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);

/* Reads of slot memory. */
TINYFL_EXPORT uint64_t tinyfl_slots_read(void *engine, uint64_t offset, unsigned size, void *machine);

/* Block hook: counts the block's instructions, exactly, and ends a core that has used up its budget. */
TINYFL_EXPORT void tinyfl_count(void *engine, uint64_t address, uint32_t size, void *machine);

#endif
