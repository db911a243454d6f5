/* The store over two areas in memory, with the rules of flash: erased to ERASED, and a cut of power ruins a whole page. */
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "store.h"

#ifndef ERASED
#define ERASED 0xff
#endif
enum { AREA = 4096 };

static uint8_t flash[2 * AREA] __attribute__((aligned(8)));
static const tinyfl_slot slots[TINYFL_SLOTS] = {[TINYFL_STORE_SLOT] = {flash, AREA}, {flash + AREA, AREA}};
static long left, events, erasures, fails; /* events until the power is cut, or until flash fails; -1: never */
static jmp_buf off;

/* Whether power is cut in this event, or flash fails. */
static int breaks(void)
{
    events++;
    return left >= 0 && left-- == 0;
}

static int broken(void)
{
    if (!fails)
        longjmp(off, 1);
    return -1;
}

static uint8_t *area_at(int slot) { return flash + (slot - TINYFL_STORE_SLOT) * AREA; }

static int erase(int slot)
{
    erasures++;
    if (breaks()) {
        memset(area_at(slot), 0xa5, AREA / 2);
        return broken();
    }
    memset(area_at(slot), ERASED, AREA);
    return 0;
}

static int program(int slot, uint32_t offset, const uint8_t *bytes, size_t count)
{
    if (offset % 4 || count % 4 || offset > AREA || count > AREA - offset)
        abort();
    for (uint32_t i = 0; i < count; i += 4) {
        uint8_t *at = area_at(slot) + offset + i;
        for (int k = 0; k < 4; k++)
            if (at[k] != ERASED)
                return -1;
        if (breaks()) {
            if (TINYFL_STORE_PAGE == 4)
                memcpy(at, bytes + i, 2);
            else
                memset(area_at(slot) + (offset + i) / TINYFL_STORE_PAGE * TINYFL_STORE_PAGE, 0x5a, TINYFL_STORE_PAGE);
            return broken();
        }
        memcpy(at, bytes + i, 4);
    }
    return 0;
}

static void alive(void) {}
static const tinyfl_port port = {.alive = alive, .slots = slots, .erase = erase, .program = program};
static tinyfl_store store;

uint8_t *store_flash(void);
uint8_t *store_flash(void) { return flash; }

void store_blank(void);
void store_blank(void)
{
    memset(flash, ERASED, sizeof flash);
    erasures = 0;
}

void store_start(void);
void store_start(void) { tinyfl_store_open(&store, &port); }

/* The commit's result, or 1 if the power went after `after` complete events; without `cut`, flash fails there instead. */
int store_commit(const tinyfl_record *records, size_t count, long after, int cut);
int store_commit(const tinyfl_record *records, size_t count, long after, int cut)
{
    left = after;
    fails = !cut;
    events = 0;
    return setjmp(off) ? 1 : tinyfl_store_commit(&store, records, count);
}

long store_events(void);
long store_events(void) { return events; }
long store_erasures(void);
long store_erasures(void) { return erasures; }

const void *store_find(const char *name, uint32_t *count);
const void *store_find(const char *name, uint32_t *count) { return tinyfl_store_find(&store, name, count); }
