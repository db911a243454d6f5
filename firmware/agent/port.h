/* The agent's only interface to a chip. A port fills it in; registers stay in firmware/ports. */
#ifndef TINYFL_PORT_H
#define TINYFL_PORT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TINYFL_ID_BYTES 12 /* the longest unique id, STM32's 96 bits */

/* Non-volatile memory, mapped for reading. */
typedef struct {
    const uint8_t *bytes;
    uint32_t count; /* 0: no slot */
} tinyfl_slot;

/* Two slots of one size for models, one for a program, and the store's two areas of one size, which may be missing. */
enum { TINYFL_PROGRAM_SLOT = 2, TINYFL_STORE_SLOT = 3, TINYFL_SLOTS = 5 };

typedef struct {
    const char *board;           /* the manifest's name (boards/NAME.toml) */
    uint32_t clock;              /* Hz; 0: unknown */
    uint8_t id[TINYFL_ID_BYTES]; /* unique among boards, independent of the port */
    uint8_t id_bytes;

    uint32_t baud;         /* of the link at boot; 0: the link has none */
    const uint32_t *rates; /* what else the link can do, up to a 0; NULL: nothing */
    void (*rate)(uint32_t baud); /* changes to one of them, or back, after sending the last byte; NULL: cannot */

    int (*read)(void); /* the next byte received, or -1 at once */
    void (*idle)(void); /* sleeps until a byte may have arrived; may return early */
    void (*write)(const uint8_t *bytes, size_t count); /* returns once the last byte is in transit */
    void (*alive)(void); /* called at every turn of the agent and during long work: feeds the watchdog, if any */
    void (*reset)(void); /* restarts the board, after sending the last byte */

    /* Milliseconds since some moment, without an end: after 2^32 it goes on from 0. NULL: the chip has no clock. */
    uint32_t (*millis)(void);
    /* Copies a recorded reading, which stands in for a sensor's (sensing.h): number `number`, and after the last from the first
     * again. 0, or -1 if none of this size are recorded. NULL: none are, as on every chip. */
    int (*recorded)(uint32_t number, void *reading, size_t bytes);

    /* Flash rules: erase sets all of a slot's bytes to one value, 0xff on most chips; program writes erased bytes, and fails at
     * others; offset and count are multiples of 4. Both return 0 or -1. */
    const tinyfl_slot *slots; /* TINYFL_SLOTS of them */
    int (*erase)(int slot);
    int (*program)(int slot, uint32_t offset, const uint8_t *bytes, size_t count);

    /* The stack, painted with TINYFL_PAINT before main, from its lowest word to its start. NULL: unknown. */
    const uint32_t *stack_low, *stack_high;
} tinyfl_port;

#define TINYFL_PAINT 0x5afe57acu

/* Starts clock, UART and flash, and describes the board. Called once, first. */
const tinyfl_port *tinyfl_port_start(void);

#ifdef __cplusplus
}
#endif

#endif
