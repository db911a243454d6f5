/* The PSoC 62's boot ROM: flash functions called through IPC, from the same sources as psoc6.c. An erased bit is 0, and
 * programming only sets bits. Meanwhile flash is not readable, and afterwards caches hold its old contents until they are
 * invalidated (the notes on Cy_Flash_WriteRow in Infineon's driver). */
#include "../../firmware/ports/psoc6/registers.h"
#include "psoc6.h"

enum { ANSWER_READS = 4, M4_STRUCT = 1 };

static void erase_to_0(tinyfl_machine *m, void *engine, uint32_t start, uint32_t bytes)
{
    uint32_t end = start + bytes;
    if (cut(m, engine)) {
        const uint32_t middle = start + bytes / 2;
        for (uint32_t at = middle; at < end; at++)
            m->flash[at] = (uint8_t)(m->flash[at] & (at * 2654435761u) >> 24);
        end = middle;
    }
    memset(m->flash + start, 0, end - start);
}

static void program_row(tinyfl_machine *m, void *engine, uint32_t start, const uint8_t *data)
{
    for (uint32_t i = 0, done = cut(m, engine) ? ROW_BYTES / 2 : ROW_BYTES; i < done; i++)
        m->flash[start + i] |= data[i];
}

/* The offset in flash of the ROM's operand, or -1. */
static int64_t place(const tinyfl_machine *m, uint32_t address, uint32_t bytes)
{
    const uint32_t start = address - m->flash_origin;
    return start % bytes || start >= m->flash_bytes ? (int64_t)-1 : start;
}

/* The ROM's answer; 0: none, ever. A row's data must be in RAM, or the ROM would fault. Non-blocking calls would need an
 * interrupt handler, which is not modelled. */
static uint32_t rom_answer(tinyfl_machine *m, void *engine, const uint32_t block[4])
{
    const uint32_t opcode = block[0] & 0xff000000u, erases = opcode == ROM_ERASE_SECTOR || opcode == ROM_ERASE_ROW;
    const int64_t start = place(m, block[erases ? 1 : 2], opcode == ROM_ERASE_SECTOR ? SECTOR_BYTES : ROW_BYTES);
    const uint8_t *data = psoc6_memory(m->ram, m->ram_origin, m->ram_bytes, block[3], ROW_BYTES);
    if (!(block[0] & ROM_BLOCKING))
        return 0;
    if (!erases && opcode != ROM_WRITE_ROW && (opcode != ROM_PROGRAM_ROW || block[1] != ROM_DATA_IN_RAM))
        return 0;
    if (start < 0)
        return ROM_INVALID_FLASH_ADDRESS;
    if (!erases && !data)
        return 0;
    if (opcode != ROM_PROGRAM_ROW)
        erase_to_0(m, engine, (uint32_t)start, opcode == ROM_ERASE_SECTOR ? SECTOR_BYTES : ROW_BYTES);
    if (!erases && !m->now.halt)
        program_row(m, engine, (uint32_t)start, data);
    return ROM_STATUS__SUCCESS;
}

static void notify(tinyfl_machine *m, void *engine, const uint32_t *structure)
{
    uint32_t block[4];
    const uint32_t address = structure[IPC_STRUCT_DATA0 / 4];
    const uint8_t *bytes = psoc6_memory(m->ram, m->ram_origin, m->ram_bytes, address, sizeof block);
    if (!bytes || address % 4 || m->now.flash_busy)
        return;
    memcpy(block, bytes, sizeof block);
    m->now.flash[ROM_ANSWER] = rom_answer(m, engine, block);
    m->now.flash[ROM_BLOCK] = address - m->ram_origin;
    m->now.flash_busy = m->now.flash[ROM_ANSWER] ? ANSWER_READS : 0;
    m->now.away = m->now.flash_busy != 0;
    m->now.stale |= m->now.flash[ROM_ANSWER] == ROM_STATUS__SUCCESS;
}

/* The ROM writes its answer, then releases the structure. */
uint32_t psoc6_ipc_read(tinyfl_machine *m, uint32_t offset)
{
    const uint32_t number = offset / IPC_STRUCT_BYTES;
    uint32_t *structure = &m->now.flash[IPC_AT + number * IPC_STRUCT_BYTES / 4], *lock = &structure[IPC_STRUCT_LOCK_STATUS / 4];
    switch (offset % IPC_STRUCT_BYTES) {
    case IPC_STRUCT_ACQUIRE:
        if (*lock)
            return 0;
        *lock = IPC_STRUCT_LOCK_STATUS_ACQUIRED;
        return IPC_STRUCT_ACQUIRE_SUCCESS;
    case IPC_STRUCT_LOCK_STATUS:
        if (number == M4_STRUCT && m->now.flash_busy && --m->now.flash_busy == 0) {
            memcpy(m->ram + m->now.flash[ROM_BLOCK], &m->now.flash[ROM_ANSWER], 4);
            *lock = m->now.away = 0;
        }
        return *lock;
    default: return structure[offset % IPC_STRUCT_BYTES / 4];
    }
}

void psoc6_ipc_write(tinyfl_machine *m, void *engine, uint32_t offset, uint32_t value)
{
    const uint32_t number = offset / IPC_STRUCT_BYTES, at = offset % IPC_STRUCT_BYTES;
    uint32_t *structure = &m->now.flash[IPC_AT + number * IPC_STRUCT_BYTES / 4], *lock = &structure[IPC_STRUCT_LOCK_STATUS / 4];
    if (at == IPC_STRUCT_RELEASE)
        *lock = 0;
    else if (at == IPC_STRUCT_DATA0)
        structure[IPC_STRUCT_DATA0 / 4] = value;
    else if (at == IPC_STRUCT_NOTIFY && *lock && number == M4_STRUCT && (value & IPC_STRUCT_NOTIFY_INTR_NOTIFY__ROM))
        notify(m, engine, structure);
}
