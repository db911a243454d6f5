/* Declarations shared by the files of the RP2040's model. */
#ifndef TINYFL_RP2040_H
#define TINYFL_RP2040_H

#include <string.h>

#include "chip.h"

/* The peripherals' numbers, by 16 KiB each. Those below 16 have 64 words in chip[]; the watchdog has clock[]. */
enum {
    CLOCKS = 2, RESETS = 3, PSM = 4, IO_BANK0 = 5, IO_QSPI = 6, PADS_BANK0 = 7, PADS_QSPI = 8, XOSC = 9, PLL_SYS = 10,
    UART0 = 13, UART1 = 14, KEPT = 16, WATCHDOG = 22,
};
enum { CELLS = 64, TURNS = 63, LATCHED_DIVISOR = 62 }; /* the last words of a peripheral's are the model's */
enum { READS_TO_READY = 4 };

/* In flash[]: the SSI's registers, the model's state of the SSI and of the flash chip, the ROM's arguments and results, and the
 * page to be written by the chip. */
enum { FIFO = 64, FIFO_COUNT = 80, SELECTED, COMMAND, INDEX, ADDRESS, WRITE_ENABLED, CALLED, RESULT = 92, PAGE = 96 };
enum { PAGE_BYTES = 256 };

static inline uint32_t *cells(tinyfl_machine *m, unsigned peripheral) { return m->now.chip + CELLS * peripheral; }

static inline uint32_t cell(const tinyfl_machine *m, unsigned peripheral, uint32_t offset)
{
    return m->now.chip[CELLS * peripheral + offset / 4];
}

/* rp2040.c: whether RESETS holds a peripheral; its registers as after that; the core's clock in MHz, 0 if it is stopped. */
int rp2040_held(const tinyfl_machine *m, unsigned peripheral);
void rp2040_reset_peripheral(tinyfl_machine *m, unsigned peripheral);
double rp2040_clk_sys(const tinyfl_machine *m);

/* rp2040_flash.c: to be called after any possible change of the flash chip's select line, the read mode or the clock; a byte to
 * the SSI; and one from it. */
void rp2040_settle(tinyfl_machine *m, void *engine);
void rp2040_ssi_put(tinyfl_machine *m, uint8_t byte);
uint8_t rp2040_ssi_get(tinyfl_machine *m);

/* The SSI's page, before the flash chip. */
tinyfl_load rp2040_ssi_load;
tinyfl_store rp2040_ssi_store;

/* rp2040_rom.c: the boot ROM; the page behind it, by which its functions are the model's; and its actions at power-on. */
enum { RP2040_ROM_BYTES = 256, RP2040_DOOR = 0x4000 };
extern const uint16_t rp2040_rom[RP2040_ROM_BYTES / 2];
tinyfl_load rp2040_door_load;
tinyfl_store rp2040_door_store;
void rp2040_boot(tinyfl_machine *m);

#endif
