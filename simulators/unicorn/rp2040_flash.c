/* The RP2040's SSI and the flash chip behind it, a W25Q16JV, from the SDK's register headers, their use in the boot ROM's
 * source, and from memory of both data sheets; addresses and bits from the port's registers.h.
 *
 * The flash chip takes commands byte by byte. It is readable as memory only while the SSI turns every access into a serial
 * read (command 03h); reads over four lines are not modelled. */
#include "../../firmware/ports/rp2040/registers.h"
#include "rp2040.h"

enum { FIFO_WORDS = 16 };

/* Flash: the chip. */

/* A cut page write has written half of its bytes. */
static void chip_programs(tinyfl_machine *m, void *engine)
{
    const uint8_t *page = (const uint8_t *)&m->now.flash[PAGE];
    uint8_t *there = m->flash + m->now.flash[ADDRESS] / PAGE_BYTES * PAGE_BYTES % m->flash_bytes;
    unsigned count = 0, done = 0;
    for (unsigned i = 0; i < PAGE_BYTES; i++)
        count += page[i] != 0xff;
    if (cut(m, engine))
        count /= 2;
    for (unsigned i = 0; done < count; done += page[i++] != 0xff)
        there[i] &= page[i];
}

static void chip_erases(tinyfl_machine *m, void *engine, uint32_t bytes)
{
    const uint32_t start = m->now.flash[ADDRESS] % m->flash_bytes / bytes * bytes;
    erase(m, engine, start, start + bytes);
}

/* Commands that write take effect when the chip is deselected, with exactly their number of bytes. */
static void chip_let_go(tinyfl_machine *m, void *engine)
{
    uint32_t *chip = m->now.flash;
    const uint32_t command = chip[COMMAND], index = chip[INDEX], enabled = chip[WRITE_ENABLED];
    chip[INDEX] = 0;
    if (command == 0x06 && index == 1) {
        chip[WRITE_ENABLED] = 1;
    } else if (enabled && ((command == 0x02 && index > 4) || ((command == 0x20 || command == 0xd8) && index == 4))) {
        if (command == 0x02)
            chip_programs(m, engine);
        else
            chip_erases(m, engine, command == 0x20 ? 0x1000 : 0x10000);
        chip[WRITE_ENABLED] = 0;
        m->now.flash_busy = READS_TO_READY;
    }
}

/* One byte in, and one out at the same time. */
static uint8_t chip_exchange(tinyfl_machine *m, uint8_t byte)
{
    static const uint8_t jedec[3] = {0xef, 0x40, 0x15};
    uint32_t *chip = m->now.flash;
    const uint32_t index = chip[INDEX]++;
    if (index == 0) {
        chip[COMMAND] = m->now.flash_busy && byte != 0x05 ? 0 : byte;
        chip[ADDRESS] = 0;
        memset(&chip[PAGE], 0xff, PAGE_BYTES);
        return 0xff;
    }
    switch (chip[COMMAND]) {
    case 0x05: return (uint8_t)((m->now.flash_busy ? m->now.flash_busy-- > 0 : 0) | chip[WRITE_ENABLED] << 1);
    case 0x4b: return index > 4 && index < 13 ? (uint8_t)(m->serial >> 8 * (12 - index)) : 0xff;
    case 0x9f: return index < 4 ? jedec[index - 1] : 0xff;
    case 0x02:
    case 0x03:
    case 0x20:
    case 0xd8:
        if (index < 4)
            chip[ADDRESS] = chip[ADDRESS] << 8 | byte;
        else if (chip[COMMAND] == 0x02)
            ((uint8_t *)&chip[PAGE])[(chip[ADDRESS] + index - 4) % PAGE_BYTES] = byte; /* wraps around within its page */
        else if (chip[COMMAND] == 0x03)
            return m->flash[(chip[ADDRESS] + index - 4) % m->flash_bytes];
    }
    return 0xff;
}

/* Flash: the SSI. */

static int wired(const tinyfl_machine *m)
{
    const uint32_t control = cell(m, IO_QSPI, IO_QSPI_GPIO_QSPI_SS_CTRL);
    return !rp2040_held(m, IO_QSPI) && !rp2040_held(m, PADS_QSPI) && (control & IO_QSPI_GPIO_QSPI_SS_CTRL_FUNCSEL) == 0;
}

static uint32_t override_of(const tinyfl_machine *m)
{
    return cell(m, IO_QSPI, IO_QSPI_GPIO_QSPI_SS_CTRL) & IO_QSPI_GPIO_QSPI_SS_CTRL_OUTOVER;
}

static int ssi_runs(const tinyfl_machine *m, uint32_t format)
{
    const uint32_t *ssi = m->now.flash;
    const uint32_t all = XIP_SSI_CTRLR0_SPI_FRF | XIP_SSI_CTRLR0_DFS_32 | XIP_SSI_CTRLR0_TMOD;
    return ssi[XIP_SSI_SSIENR / 4] && ssi[XIP_SSI_SER / 4] == 1 && (ssi[XIP_SSI_CTRLR0 / 4] & all) == format &&
           ssi[XIP_SSI_BAUDR / 4] / 2 > 0;
}

static int ssi_talks(const tinyfl_machine *m)
{
    return ssi_runs(m, XIP_SSI_CTRLR0_DFS_32__8 | XIP_SSI_CTRLR0_TMOD__TX_AND_RX);
}

/* Command 03h must not come faster than 50 MHz. */
static int ssi_reads_memory(const tinyfl_machine *m)
{
    const uint32_t *ssi = m->now.flash, format = ssi[XIP_SSI_SPI_CTRLR0 / 4];
    const uint32_t all = XIP_SSI_SPI_CTRLR0_XIP_CMD | XIP_SSI_SPI_CTRLR0_WAIT_CYCLES | XIP_SSI_SPI_CTRLR0_INST_L |
                         XIP_SSI_SPI_CTRLR0_ADDR_L | XIP_SSI_SPI_CTRLR0_TRANS_TYPE;
    return ssi_runs(m, XIP_SSI_CTRLR0_DFS_32__32 | XIP_SSI_CTRLR0_TMOD__EEPROM_READ) && ssi[XIP_SSI_CTRLR1 / 4] == 0 &&
           (format & all) ==
               (XIP_SSI_SPI_CTRLR0_XIP_CMD__READ | XIP_SSI_SPI_CTRLR0_INST_L__8B | XIP_SSI_SPI_CTRLR0_ADDR_L__24B) &&
           rp2040_clk_sys(m) / (ssi[XIP_SSI_BAUDR / 4] & ~1u) <= 50 && !m->now.flash_busy;
}

/* After any possible change of the chip's select line, the read mode or the clock. */
void rp2040_settle(tinyfl_machine *m, void *engine)
{
    const uint32_t selected = wired(m) && override_of(m) == IO_QSPI_GPIO_QSPI_SS_CTRL_OUTOVER__LOW;
    if (m->now.flash[SELECTED] && !selected)
        chip_let_go(m, engine);
    m->now.flash[SELECTED] = selected;
    m->now.away = !(wired(m) && override_of(m) == IO_QSPI_GPIO_QSPI_SS_CTRL_OUTOVER__NORMAL && ssi_reads_memory(m));
    if (rp2040_clk_sys(m) <= 0 || rp2040_clk_sys(m) > 133.001)
        halt(m, engine, TINYFL_HALT_CRASH);
}

void rp2040_ssi_put(tinyfl_machine *m, uint8_t byte)
{
    uint32_t *ssi = m->now.flash;
    if (!ssi_talks(m))
        return;
    const uint8_t answer = ssi[SELECTED] ? chip_exchange(m, byte) : 0xff;
    if (ssi[FIFO_COUNT] < FIFO_WORDS)
        ssi[FIFO + ssi[FIFO_COUNT]++] = answer;
}

uint8_t rp2040_ssi_get(tinyfl_machine *m)
{
    uint32_t *ssi = m->now.flash;
    if (ssi[FIFO_COUNT] == 0)
        return 0;
    const uint8_t byte = (uint8_t)ssi[FIFO];
    memmove(&ssi[FIFO], &ssi[FIFO + 1], --ssi[FIFO_COUNT] * sizeof *ssi);
    return byte;
}

uint64_t rp2040_ssi_load(void *engine, uint64_t offset, unsigned size, void *user)
{
    tinyfl_machine *m = user;
    (void)engine, (void)size;
    if (m->now.halt)
        return 0;
    switch (offset) {
    case XIP_SSI_DR0: return rp2040_ssi_get(m);
    case XIP_SSI_RXFLR: return m->now.flash[FIFO_COUNT];
    case XIP_SSI_TXFLR: return 0;
    case XIP_SSI_SR: return XIP_SSI_SR_TFE | XIP_SSI_SR_TFNF | (m->now.flash[FIFO_COUNT] ? XIP_SSI_SR_RFNE : 0);
    default: return offset < 4 * FIFO ? m->now.flash[offset / 4] : 0;
    }
}

/* Its settings cannot be changed while it is on. */
void rp2040_ssi_store(void *engine, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    tinyfl_machine *m = user;
    uint32_t *ssi = m->now.flash;
    (void)size;
    if (m->now.halt || offset >= 4 * FIFO)
        return;
    if (offset == XIP_SSI_DR0) {
        rp2040_ssi_put(m, (uint8_t)value);
    } else if (offset == XIP_SSI_SSIENR) {
        ssi[offset / 4] = value & XIP_SSI_SSIENR_SSI_EN;
        if (!ssi[offset / 4])
            ssi[FIFO_COUNT] = 0;
    } else if (!ssi[XIP_SSI_SSIENR / 4]) {
        ssi[offset / 4] = (uint32_t)value;
    }
    rp2040_settle(m, engine);
}
