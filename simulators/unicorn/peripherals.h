/* Peripherals of an emulated core: UART, system control, flash. Callbacks of unicorn's memory-mapped I/O, with a
 * tinyfl_machine as user data; simulators/unicorn/peripherals.py attaches them.
 *
 * A model follows the chip's reference manual, not the port's code: it refuses what hardware refuses. Time does not pass: a
 * byte is sent at once, and an erase ends after a few reads of its busy flag. */
#ifndef TINYFL_PERIPHERALS_H
#define TINYFL_PERIPHERALS_H

#include <stdint.h>

/* The reason for a stop of the core; 0: it sleeps, or has faulted by itself. */
enum {
    TINYFL_HALT_RESET = 1,    /* the program asked for a system reset */
    TINYFL_HALT_POWER = 2,    /* power was cut */
    TINYFL_HALT_BUDGET = 3,   /* `budget` instructions are used up: nothing is lost, and the core can continue */
    TINYFL_HALT_OVERFLOW = 4, /* more bytes sent than fit into `output` */
    TINYFL_HALT_START = 5,    /* a core starts at `entry`, without a reset */
    TINYFL_HALT_CRASH = 6,    /* the program left the chip without executable code */
};

/* The peripherals' state, as in a snapshot. */
typedef struct {
    uint64_t instructions; /* executed since power first came on */
    uint64_t slot_events;  /* words written and sectors or pages erased in the slots' memory */
    uint64_t cut_at;       /* the event, counted from 1, in which power is cut; 0: none */
    uint32_t halt;         /* as above */
    uint32_t uart[384];    /* by the registers' offsets / 4, here and below */
    uint32_t flash[384];   /* the flash controller */
    uint32_t flash_key;    /* STM32F4's unlock sequence: 0 none, 1 the first key, 2 a wrong one: locked until reset */
    uint32_t flash_busy;   /* remaining status reads that report busy */
    uint32_t clock[384];   /* STM32F4: RCC. nRF52: CLOCK */
    uint32_t chip[1024];   /* further state of a chip's model */
    uint32_t system[1024]; /* the system control space, 0xe000e000 */
    uint32_t stack, entry; /* where the core starts */
    uint64_t watchdog;     /* the count of instructions (as cycles) at which it resets the chip; 0: off */
    uint32_t away;         /* flash is not readable as memory now */
    uint32_t stale;        /* a cache may hold old contents of slots */
} tinyfl_registers;

typedef struct tinyfl_machine {
    int (*stop)(void *engine);                     /* uc_emu_stop */
    void (*reset)(struct tinyfl_machine *machine); /* the chip's, or NULL */
    const uint8_t *input;      /* from the host ... */
    uint64_t input_bytes, taken;
    uint8_t *output; /* ... and the board */
    uint64_t output_room, sent;
    uint64_t budget; /* the count of instructions at which the core is stopped, at the start of a block */
    uint8_t *flash, *ram;
    uint32_t flash_origin, flash_bytes, ram_origin, ram_bytes;
    uint32_t vectors;      /* the application's table of vectors */
    uint32_t slots_origin; /* start of slot memory, which extends to the end of flash */
    uint32_t uart;         /* base address of the link's UART */
    uint32_t baud;         /* of the link */
    uint32_t pins[2];      /* of the link, transmit and receive: 32 x port + pin */
    uint32_t hertz;        /* of the core, from the manifest */
    uint64_t serial;       /* the chip's own number, if it has one */
    tinyfl_registers now;
} tinyfl_machine;

#define TINYFL_EXPORT __attribute__((visibility("default")))

/* Registers as after a reset, `stack` and `entry` from the table of vectors unless the chip's own reset says otherwise.
 * Counters and the cut stay. */
TINYFL_EXPORT void tinyfl_machine_reset(tinyfl_machine *machine);

/* mps2.c: Arm's CMSDK APB UART, one page; and writes to static RAM that stands in for flash. */
TINYFL_EXPORT uint64_t tinyfl_cmsdk_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_cmsdk_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT void tinyfl_sram_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);

/* stm32f4.c: the page with the link's USART; the three pages of GPIO; IWDG's page; the page 0x40023000, with RCC and the flash
 * controller; writes to flash; the page with the unique id; and the reset of these registers. */
TINYFL_EXPORT uint64_t tinyfl_stm32f4_usart_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_stm32f4_usart_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT uint64_t tinyfl_stm32f4_gpio_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_stm32f4_gpio_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT uint64_t tinyfl_stm32f4_iwdg_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_stm32f4_iwdg_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT uint64_t tinyfl_stm32f4_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_stm32f4_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT void tinyfl_stm32f4_flash_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT uint64_t tinyfl_stm32f4_id_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_stm32f4_id_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT void tinyfl_stm32f4_reset(tinyfl_machine *machine);

/* stm32f7.c: what differs there, USART and unique id; and the reset of these and of stm32f4.c's registers. */
TINYFL_EXPORT uint64_t tinyfl_stm32f7_usart_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_stm32f7_usart_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT uint64_t tinyfl_stm32f7_id_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_stm32f7_id_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT void tinyfl_stm32f7_reset(tinyfl_machine *machine);

/* nrf52.c: the pages of CLOCK, of the pins, of UART0, of the watchdog, of NVMC, which is the flash controller, and of FICR,
 * which has the chip's number; writes to flash; and the reset of these registers. A byte that arrives does not wait for the
 * core. */
TINYFL_EXPORT uint64_t tinyfl_nrf52_clock_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_nrf52_clock_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT uint64_t tinyfl_nrf52_gpio_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_nrf52_gpio_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT uint64_t tinyfl_nrf52_uart_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_nrf52_uart_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT void tinyfl_nrf52_uart_arrive(tinyfl_machine *machine, uint8_t byte);
TINYFL_EXPORT uint64_t tinyfl_nrf52_wdt_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_nrf52_wdt_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT uint64_t tinyfl_nrf52_nvmc_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_nrf52_nvmc_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT uint64_t tinyfl_nrf52_ficr_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_nrf52_ficr_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT void tinyfl_nrf52_flash_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT void tinyfl_nrf52_reset(tinyfl_machine *machine);

/* rp2040.c: the peripherals, 28 of 16 KiB from 0x40000000; the SSI's page, before the flash chip; SIO's; the ROM, and the page
 * behind it, by which its functions are the model's; and the reset of these registers, with what the ROM does at a start. */
#define TINYFL_RP2040_ROM_BYTES 256
TINYFL_EXPORT extern const uint16_t tinyfl_rp2040_rom[TINYFL_RP2040_ROM_BYTES / 2];
TINYFL_EXPORT uint64_t tinyfl_rp2040_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_rp2040_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT uint64_t tinyfl_rp2040_ssi_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_rp2040_ssi_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT uint64_t tinyfl_rp2040_sio_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_rp2040_sio_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT uint64_t tinyfl_rp2040_door_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_rp2040_door_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT void tinyfl_rp2040_flash_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT void tinyfl_rp2040_reset(tinyfl_machine *machine);

/* psoc6.c: everything from 0x40000000 to behind the SCBs; writes to flash; the page of supervisory flash with the die's number;
 * and the reset of these registers, with what the boot code does. */
TINYFL_EXPORT uint64_t tinyfl_psoc6_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_psoc6_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT uint64_t tinyfl_psoc6_sflash_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_psoc6_sflash_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT void tinyfl_psoc6_flash_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);
TINYFL_EXPORT void tinyfl_psoc6_reset(tinyfl_machine *machine);

/* The system control space: plain memory, except the reset request and the interrupts' set and clear registers. */
TINYFL_EXPORT uint64_t tinyfl_system_read(void *engine, uint64_t offset, unsigned size, void *machine);
TINYFL_EXPORT void tinyfl_system_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);

/* Reads of slot memory. */
TINYFL_EXPORT uint64_t tinyfl_slots_read(void *engine, uint64_t offset, unsigned size, void *machine);

/* Block hook: counts the block's instructions exactly. A core without budget stops before the block, which counts when the core
 * continues and executes it. */
TINYFL_EXPORT void tinyfl_count(void *engine, uint64_t address, uint32_t size, void *machine);

#endif
