/* The RP2040's boot ROM, from its published source. */
#include "../../firmware/ports/rp2040/registers.h"
#include "rp2040.h"

/* The boot ROM. Its functions are implemented in the model: each writes its arguments to the page after the ROM (the "door"),
 * which is empty on the chip. */
enum { LOOKUP, CONNECT, LEAVE_XIP, ERASE, PROGRAM, FLUSH };
enum { DOOR_CALL = 16, DOOR_RESULT = 20 };
enum { ROM_DEAD = 0x1c, ROM_START = 0x20, ROM_TABLE = 0x40, ROM_STUBS = 0x80, STUB_BYTES = 20 };

/* push {r4}; movs r4, #1; lsls r4, #14; stmia r4!, {r0-r3}; movs r0, #n; str r0, [r4]; ldr r0, [r4, #4]; pop {r4}; bx lr */
#define STUB(n) 0xb410, 0x2401, 0x03a4, 0xc40f, 0x2000 | (n), 0x6020, 0x6860, 0xbc10, 0x4770, 0x46c0
#define STUB_AT(n) (ROM_STUBS + STUB_BYTES * (n) + 1)

const uint16_t rp2040_rom[RP2040_ROM_BYTES / 2] = {
    [0] = BOOT2_RAM & 0xffff, BOOT2_RAM >> 16, ROM_START + 1, 0, ROM_DEAD + 1, 0, ROM_DEAD + 1, 0, 'M' | 'u' << 8, 2 << 8 | 1,
    [ROM_FUNCTION_TABLE / 2] = ROM_TABLE, [ROM_TABLE_LOOKUP / 2] = STUB_AT(LOOKUP),
    [ROM_DEAD / 2] = 0xbf30, 0xe7fd,                               /* wfi; b back */
    [ROM_START / 2] = 0x2000, 0x4686, 0x4801, 0x4700, 0x46c0, 0x46c0, /* movs r0, #0; mov lr, r0; ldr r0, =boot2; bx r0 */
    (BOOT2_RAM + 1) & 0xffff, BOOT2_RAM >> 16,
    [ROM_TABLE / 2] = ROM_CONNECT_INTERNAL_FLASH, STUB_AT(CONNECT), ROM_FLASH_EXIT_XIP, STUB_AT(LEAVE_XIP),
    ROM_FLASH_RANGE_ERASE, STUB_AT(ERASE), ROM_FLASH_RANGE_PROGRAM, STUB_AT(PROGRAM), ROM_FLASH_FLUSH_CACHE, STUB_AT(FLUSH), 0,
    [ROM_STUBS / 2] = STUB(LOOKUP), STUB(CONNECT), STUB(LEAVE_XIP), STUB(ERASE), STUB(PROGRAM), STUB(FLUSH),
};

static uint32_t rom_lookup(uint32_t table, uint32_t code)
{
    for (uint32_t at = table / 2; at + 1 < RP2040_ROM_BYTES / 2 && rp2040_rom[at]; at += 2)
        if (rp2040_rom[at] == code)
            return rp2040_rom[at + 1];
    return 0;
}

static void rom_select(tinyfl_machine *m, void *engine, uint32_t how)
{
    cells(m, IO_QSPI)[IO_QSPI_GPIO_QSPI_SS_CTRL / 4] = how;
    rp2040_settle(m, engine);
}

static void rom_connect(tinyfl_machine *m, void *engine)
{
    rp2040_reset_peripheral(m, IO_QSPI);
    rp2040_reset_peripheral(m, PADS_QSPI);
    cells(m, RESETS)[RESETS_RESET / 4] &= ~(RESETS_RESET_IO_QSPI | RESETS_RESET_PADS_QSPI);
    memset(cells(m, IO_QSPI), 0, CELLS * sizeof(uint32_t));
    rp2040_settle(m, engine);
}

static void rom_leave_xip(tinyfl_machine *m, void *engine)
{
    uint32_t *ssi = m->now.flash;
    ssi[XIP_SSI_BAUDR / 4] = 6;
    ssi[XIP_SSI_CTRLR0 / 4] = XIP_SSI_CTRLR0_DFS_32__8 | XIP_SSI_CTRLR0_TMOD__TX_AND_RX;
    ssi[XIP_SSI_SER / 4] = ssi[XIP_SSI_SSIENR / 4] = 1;
    ssi[FIFO_COUNT] = 0;
    rom_select(m, engine, IO_QSPI_GPIO_QSPI_SS_CTRL_OUTOVER__NORMAL);
}

/* Sends a command, an address if there is one (below 2^24), then data; returns the last byte received. */
static uint8_t rom_command(tinyfl_machine *m, void *engine, uint8_t command, uint32_t address, const uint8_t *data,
                           size_t count)
{
    uint8_t last = 0;
    rom_select(m, engine, IO_QSPI_GPIO_QSPI_SS_CTRL_OUTOVER__LOW);
    rp2040_ssi_put(m, command);
    (void)rp2040_ssi_get(m);
    for (unsigned i = 0; i < 3 && address < 1u << 24; i++) {
        rp2040_ssi_put(m, (uint8_t)(address >> (16 - 8 * i)));
        (void)rp2040_ssi_get(m);
    }
    for (size_t i = 0; i < count; i++) {
        rp2040_ssi_put(m, data[i]);
        last = rp2040_ssi_get(m);
    }
    rom_select(m, engine, IO_QSPI_GPIO_QSPI_SS_CTRL_OUTOVER__HIGH);
    return last;
}

static void rom_change(tinyfl_machine *m, void *engine, uint8_t command, uint32_t address, const uint8_t *data, size_t count)
{
    const uint8_t nothing = 0;
    (void)rom_command(m, engine, 0x06, UINT32_MAX, NULL, 0);
    (void)rom_command(m, engine, command, address % (1u << 24), data, count);
    while (!m->now.halt && (rom_command(m, engine, 0x05, UINT32_MAX, &nothing, 1) & 1)) {
    }
}

static void rom_erase(tinyfl_machine *m, void *engine, uint32_t address, uint32_t count, uint32_t block, uint8_t command)
{
    for (const uint32_t end = address + count; address < end && !m->now.halt;) {
        const int whole = !(address & (block - 1)) && end - address >= block;
        rom_change(m, engine, whole ? command : 0x20, address, NULL, 0);
        address += whole ? block : 0x1000;
    }
}

/* From RAM: flash cannot be read now. */
static void rom_program(tinyfl_machine *m, void *engine, uint32_t address, uint32_t from, uint32_t count)
{
    from -= m->ram_origin;
    for (uint32_t i = 0; i < count && !m->now.halt; i += PAGE_BYTES) {
        if (from > m->ram_bytes - PAGE_BYTES || i > m->ram_bytes - PAGE_BYTES - from) {
            halt(m, engine, TINYFL_HALT_CRASH);
            return;
        }
        rom_change(m, engine, 0x02, address + i, m->ram + from + i, PAGE_BYTES);
    }
}

uint64_t rp2040_door_load(void *engine, uint64_t offset, unsigned size, void *user)
{
    const tinyfl_machine *m = user;
    (void)engine, (void)size;
    return offset == DOOR_RESULT ? m->now.flash[RESULT] : 0;
}

void rp2040_door_store(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    uint32_t *with = &m->now.flash[CALLED];
    (void)size;
    if (m->now.halt || offset > DOOR_CALL)
        return;
    if (offset < DOOR_CALL) {
        with[offset / 4] = (uint32_t)value;
        return;
    }
    m->now.flash[RESULT] = 0;
    switch (value) {
    case LOOKUP: m->now.flash[RESULT] = rom_lookup(with[0], with[1]); break;
    case CONNECT: rom_connect(m, engine); break;
    case LEAVE_XIP: rom_leave_xip(m, engine); break;
    case ERASE: rom_erase(m, engine, with[0], with[1], with[2], (uint8_t)with[3]); break;
    case PROGRAM: rom_program(m, engine, with[0], with[1], with[2]); break;
    case FLUSH: rom_select(m, engine, IO_QSPI_GPIO_QSPI_SS_CTRL_OUTOVER__NORMAL); break;
    }
}

/* CRC-32/MPEG-2. */
static uint32_t rom_crc(const uint8_t *bytes, size_t count)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < 8 * count; i++) {
        const uint32_t bit = (crc >> 31) ^ (bytes[i / 8] >> (7 - i % 8) & 1);
        crc = crc << 1 ^ (bit ? 0x04c11db7 : 0);
    }
    return crc;
}

/* boot2 goes to RAM and runs, if its CRC is right. */
void rp2040_boot(tinyfl_machine *m)
{
    const uint8_t *boot2 = m->flash;
    uint32_t crc;
    rom_connect(m, NULL);
    rom_leave_xip(m, NULL);
    memcpy(&crc, boot2 + BOOT2_BYTES - 4, 4);
    m->now.stack = BOOT2_RAM;
    m->now.entry = ROM_DEAD + 1;
    if (rom_crc(boot2, BOOT2_BYTES - 4) != crc)
        return;
    memcpy(m->ram + (BOOT2_RAM - m->ram_origin), boot2, BOOT2_BYTES);
    m->now.entry = ROM_START + 1;
}
