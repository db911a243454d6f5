/* Peripherals of an emulated core: UART, system control, flash. A chip's model registers itself with one tinyfl_chip, which
 * simulators/unicorn/peripherals.py reads: there is no other list of chips.
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
    uint64_t ticked;       /* the count of instructions (as cycles) at which SysTick last began */
} tinyfl_registers;

typedef struct tinyfl_machine {
    int (*stop)(void *engine); /* uc_emu_stop */
    const struct tinyfl_chip *chip;
    const uint8_t *input; /* from the host ... */
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
    uint32_t uart_baud;    /* of the firmware's UART, when it last used it */
    uint32_t pins[2];      /* of the link, transmit and receive: 32 x port + pin */
    uint32_t hertz;        /* of the core, from the manifest */
    uint64_t serial;       /* the chip's own number, if it has one */
    tinyfl_registers now;
} tinyfl_machine;

/* Callbacks of unicorn's memory-mapped I/O: a load and a store of `size` bytes at an offset in a region. `machine` is a
 * tinyfl_machine. */
typedef uint64_t tinyfl_load(void *engine, uint64_t offset, unsigned size, void *machine);
typedef void tinyfl_store(void *engine, uint64_t offset, unsigned size, uint64_t value, void *machine);

/* Whole pages of addresses that the model answers for; without functions they are plain memory. */
typedef struct {
    uint32_t start, bytes;
    tinyfl_load *load;
    tinyfl_store *store;
} tinyfl_region;

#define TINYFL_PAGE 0x1000u
#define TINYFL_PAGE_OF(address) ((address) & ~(TINYFL_PAGE - 1))
#define TINYFL_LINK_PAGE 1u /* as a region's start: the page with the registers of the link's UART */
#define TINYFL_REGIONS(...) (const tinyfl_region[]){__VA_ARGS__, {0}} /* ends with one of 0 bytes */

typedef struct tinyfl_chip {
    const char *name;                       /* in manifests, `peripherals` of [emulators] unicorn */
    const tinyfl_region *regions;           /* TINYFL_REGIONS(...) */
    tinyfl_store *store_slot;               /* for slot memory; `offset` is from its start */
    void (*reset)(tinyfl_machine *machine); /* sets registers whose value after a reset is not 0; NULL: none */
    const void *rom;                        /* at address 0; NULL: none */
    uint32_t rom_bytes;                     /* at most a page */
    struct tinyfl_chip *next;
} tinyfl_chip;

#define TINYFL_EXPORT __attribute__((visibility("default")))

TINYFL_EXPORT extern tinyfl_chip *tinyfl_chips; /* the first */

/* Adds a chip to the list when the library is loaded. The model's object must be linked as it is: out of a static library the
 * linker would take only what others refer to. */
#define TINYFL_REGISTER(chip) \
    __attribute__((constructor)) static void add_to_chips(void) \
    { \
        (chip).next = tinyfl_chips; \
        tinyfl_chips = &(chip); \
    }

/* Registers as after a reset, `stack` and `entry` from the table of vectors unless the chip's own reset says otherwise.
 * Counters and the cut stay. */
TINYFL_EXPORT void tinyfl_machine_reset(tinyfl_machine *machine);

/* The system control space, which all chips have: plain memory, except the reset request and the interrupts' set and clear
 * registers. */
TINYFL_EXPORT extern const tinyfl_region tinyfl_system;

/* Loads from slot memory. */
TINYFL_EXPORT tinyfl_load tinyfl_slots_load;

/* Block hook: counts the block's instructions exactly. A core without budget stops before the block, which counts when the core
 * continues and executes it. */
TINYFL_EXPORT void tinyfl_count(void *engine, uint64_t address, uint32_t size, void *machine);

#endif
