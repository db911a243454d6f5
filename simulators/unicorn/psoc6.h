/* Declarations shared by the files of the PSoC 62's model. */
#ifndef TINYFL_PSOC6_H
#define TINYFL_PSOC6_H

#include <string.h>

#include "chip.h"

/* Storage of the registers: SCB's page is chip[], SRSS from its watchdog on clock[], pins are uart[], the others flash[]. */
enum { SCB_WORDS = 1024, SRSS_WORDS = 384, HSIOM_WORDS = 96, GPIO_WORDS = 288 };
enum { IPC_AT = 0, IPC_STRUCTS = 16, IPC_WORDS = 128, SELECT_AT = 128, SELECTS = 64, DIVIDER_AT = 192, DIVIDERS = 4 };
enum { M4_DIVIDER = 196, M4_VECTORS, BUS_DIVIDERS, M4_MODE, FLASH_STATES, FLASH_COMMAND, ROM_ANSWER, ROM_BLOCK };

/* NULL if a memory has fewer bytes from the address on. */
static inline uint8_t *psoc6_memory(uint8_t *bytes, uint32_t origin, uint32_t size, uint32_t address, uint32_t count)
{
    const uint32_t at = address - origin;
    return at < size && count <= size - at ? bytes + at : NULL;
}

/* psoc6_rom.c: the structures of IPC, by which the boot ROM is called. */
uint32_t psoc6_ipc_read(tinyfl_machine *m, uint32_t offset);
void psoc6_ipc_write(tinyfl_machine *m, void *engine, uint32_t offset, uint32_t value);

#endif
