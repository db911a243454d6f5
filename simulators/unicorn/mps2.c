/* Arm's MPS2 FPGA boards: the CMSDK APB UART, and static RAM that stands in for flash. */
#include <string.h>

#include "chip.h"

enum { CMSDK_DATA = 0x00, CMSDK_STATE = 0x04, CMSDK_CTRL = 0x08, CMSDK_BAUDDIV = 0x10 };
enum { CMSDK_TX_ENABLE = 1, CMSDK_RX_ENABLE = 2, CMSDK_RX_FULL = 2, CMSDK_LEAST_DIVIDER = 16 };

static int cmsdk_runs(tinyfl_machine *m, uint32_t enable)
{
    const uint32_t divider = m->now.uart[CMSDK_BAUDDIV / 4];
    return (m->now.uart[CMSDK_CTRL / 4] & enable) && divider >= CMSDK_LEAST_DIVIDER &&
           understood(m, (double)m->hertz / divider);
}

static uint64_t load(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    if (m->now.halt)
        return 0;
    switch (offset) {
    case CMSDK_DATA: return cmsdk_runs(m, CMSDK_RX_ENABLE) ? take(m) : 0;
    case CMSDK_STATE: return cmsdk_runs(m, CMSDK_RX_ENABLE) && input_waits(m) ? CMSDK_RX_FULL : 0;
    case CMSDK_CTRL:
    case CMSDK_BAUDDIV: return m->now.uart[offset / 4];
    default: return 0;
    }
}

static void store(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    (void)size;
    if (m->now.halt)
        return;
    if (offset == CMSDK_DATA && cmsdk_runs(m, CMSDK_TX_ENABLE))
        send(m, engine, value);
    else if (offset == CMSDK_CTRL)
        m->now.uart[CMSDK_CTRL / 4] = value & 0x7f;
    else if (offset == CMSDK_BAUDDIV)
        m->now.uart[CMSDK_BAUDDIV / 4] = value & 0xfffff;
}

static void sram_store(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    if (m->now.halt)
        return;
    memcpy(slot_byte(m, offset), &value, cut(m, engine) ? size / 2 : size);
}

static tinyfl_chip chip = {
    .name = "cmsdk",
    .regions = TINYFL_REGIONS({TINYFL_LINK_PAGE, TINYFL_PAGE, load, store}),
    .store_slot = sram_store,
};
TINYFL_REGISTER(chip)
