#include "peripherals.h"

#include <string.h>

#include "chip.h"

tinyfl_chip *tinyfl_chips;

void tinyfl_count(void *engine, uint64_t address, uint32_t size, void *user)
{
    tinyfl_machine *m = user;
    const uint8_t *code = NULL;
    if (m->now.instructions >= m->budget) {
        halt(m, engine, TINYFL_HALT_BUDGET);
        return;
    }
    if (address - m->flash_origin < m->flash_bytes) {
        code = m->flash + (address - m->flash_origin);
        if (m->now.away)
            halt(m, engine, TINYFL_HALT_CRASH);
    } else if (address - m->ram_origin < m->ram_bytes) {
        code = m->ram + (address - m->ram_origin);
    } else {
        m->budget--; /* also ends a loop in a ROM, whose instructions do not count */
    }
    uint64_t count = 0;
    for (uint32_t at = 0; code && at < size; count++)
        at += code[at + 1] >= 0xe8 ? 4 : 2; /* the upper five bits of a 32-bit instruction are 11101, 11110 or 11111 */
    m->now.instructions += count;
    if (m->now.watchdog && m->now.instructions >= m->now.watchdog)
        halt(m, engine, TINYFL_HALT_RESET);
}

static uint64_t load(const uint8_t *bytes, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, bytes, size);
    return value;
}

uint64_t tinyfl_slots_load(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    if (m->now.away)
        halt(m, engine, TINYFL_HALT_CRASH);
    const uint64_t value = load(slot_byte(m, offset), size);
    return m->now.stale ? ~value : value; /* stale data: any other value */
}

/* Offsets in the system control space (ARMv7-M architecture reference, B3). */
enum { SYST_CSR = 0x10, SYST_RVR = 0x14, SYST_CVR = 0x18, COUNTFLAG = 1 << 16 };
enum { ISER = 0x100, ICER = 0x180, ISPR = 0x200, ICPR = 0x280, IABR = 0x300, CPUID = 0xd00, AIRCR = 0xd0c };
enum { VECTKEY = 0x05fa, VECTKEYSTAT = 0xfa05, SYSRESETREQ = 1 << 2 };

/* SysTick counts instructions, each as a cycle. There are no interrupts here, so the flag is given once for each time that its
 * handler would have run. */
static uint64_t systick_load(tinyfl_machine *m, uint64_t offset)
{
    const uint64_t period = (uint64_t)m->now.system[SYST_RVR / 4] + 1;
    const int counts = m->now.system[SYST_CSR / 4] & 1;
    const uint64_t passed = counts ? m->now.instructions - m->now.ticked : 0;
    if (offset == SYST_CVR)
        return period - 1 - passed % period;
    if (passed < period)
        return m->now.system[SYST_CSR / 4];
    m->now.ticked += period;
    return m->now.system[SYST_CSR / 4] | COUNTFLAG;
}

static uint64_t system_load(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine;
    if (offset == SYST_CSR || offset == SYST_CVR)
        return systick_load(m, offset);
    if (offset == AIRCR)
        return (uint64_t)VECTKEYSTAT << 16;
    if ((offset >= ICER && offset < ISPR) || (offset >= ICPR && offset < IABR))
        offset -= ICER - ISER; /* a clear register reads as its set register */
    return load((uint8_t *)m->now.system + offset, size);
}

static void system_store(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    uint32_t *word = &m->now.system[offset / 4];
    if (m->now.halt || offset == CPUID)
        return;
    if (offset == SYST_CSR || offset == SYST_CVR)
        m->now.ticked = m->now.instructions;
    if (offset == AIRCR) {
        if (value >> 16 == VECTKEY && (value & SYSRESETREQ))
            halt(m, engine, TINYFL_HALT_RESET);
    } else if ((offset >= ISER && offset < ICER) || (offset >= ISPR && offset < ICPR)) {
        *word |= (uint32_t)value;
    } else if ((offset >= ICER && offset < ISPR) || (offset >= ICPR && offset < IABR)) {
        word[-(ICER - ISER) / 4] &= ~(uint32_t)value;
    } else {
        memcpy((uint8_t *)m->now.system + offset, &value, size);
    }
}

const tinyfl_region tinyfl_system = {0xe000e000, TINYFL_PAGE, system_load, system_store};

void tinyfl_machine_reset(tinyfl_machine *m)
{
    m->now.halt = 0;
    memset(m->now.uart, 0, sizeof m->now.uart);
    memset(m->now.flash, 0, sizeof m->now.flash);
    memset(m->now.clock, 0, sizeof m->now.clock);
    memset(m->now.chip, 0, sizeof m->now.chip);
    memset(m->now.system, 0, sizeof m->now.system);
    m->now.flash_key = m->now.flash_busy = 0;
    m->now.watchdog = m->now.away = m->now.stale = 0;
    memcpy(&m->now.stack, m->flash + (m->vectors - m->flash_origin), 4);
    memcpy(&m->now.entry, m->flash + (m->vectors - m->flash_origin) + 4, 4);
    m->now.system[CPUID / 4] = 0x410fc241;
    if (m->chip->reset)
        m->chip->reset(m);
}
