/* RP2040's registers, by the names of Raspberry Pi's SVD.
 *
 * Every number here was compared with the register headers that Raspberry Pi generates for its SDK (src/rp2040/hardware_regs:
 * addressmap, clocks, io_bank0, io_qspi, pads_bank0, pll, psm, resets, sio, ssi, uart, watchdog, xip, xosc), and the boot ROM's
 * tables with the ROM's published source (bootrom_rt0.S); not with the SVD file or the data sheet. Boot ROM B1 itself runs on
 * the model that is made from this file (tests/simulators/test_rp2040.py). */
#ifndef TINYFL_RP2040_REGISTERS_H
#define TINYFL_RP2040_REGISTERS_H

/* The peripherals' base, and aliases of each peripheral: writes there change only the given bits of the register. */
#define PERIPHERALS_BASE 0x40000000u
#define ALIAS_SET 0x2000u
#define ALIAS_CLEAR 0x3000u

#define XIP_CTRL_BASE 0x14000000u

#define XIP_SSI_BASE 0x18000000u
#define XIP_SSI_CTRLR0 0x00u
#define XIP_SSI_CTRLR0_SPI_FRF (3u << 21)
#define XIP_SSI_CTRLR0_DFS_32 (31u << 16)
#define XIP_SSI_CTRLR0_DFS_32__32 (31u << 16)
#define XIP_SSI_CTRLR0_DFS_32__8 (7u << 16)
#define XIP_SSI_CTRLR0_TMOD (3u << 8)
#define XIP_SSI_CTRLR0_TMOD__TX_AND_RX (0u << 8)
#define XIP_SSI_CTRLR0_TMOD__EEPROM_READ (3u << 8)
#define XIP_SSI_CTRLR1 0x04u
#define XIP_SSI_SSIENR 0x08u
#define XIP_SSI_SSIENR_SSI_EN (1u << 0)
#define XIP_SSI_SER 0x10u
#define XIP_SSI_BAUDR 0x14u
#define XIP_SSI_TXFLR 0x20u
#define XIP_SSI_RXFLR 0x24u
#define XIP_SSI_SR 0x28u
#define XIP_SSI_SR_TFNF (1u << 1)
#define XIP_SSI_SR_TFE (1u << 2)
#define XIP_SSI_SR_RFNE (1u << 3)
#define XIP_SSI_DR0 0x60u
#define XIP_SSI_SPI_CTRLR0 0xF4u
#define XIP_SSI_SPI_CTRLR0_XIP_CMD (255u << 24)
#define XIP_SSI_SPI_CTRLR0_XIP_CMD__READ (3u << 24)
#define XIP_SSI_SPI_CTRLR0_WAIT_CYCLES (31u << 11)
#define XIP_SSI_SPI_CTRLR0_INST_L (3u << 8)
#define XIP_SSI_SPI_CTRLR0_INST_L__8B (2u << 8)
#define XIP_SSI_SPI_CTRLR0_ADDR_L (15u << 2)
#define XIP_SSI_SPI_CTRLR0_ADDR_L__24B (6u << 2)
#define XIP_SSI_SPI_CTRLR0_TRANS_TYPE (3u << 0)

#define CLOCKS_BASE 0x40008000u
#define CLOCKS_CLK_REF_CTRL 0x30u
#define CLOCKS_CLK_REF_CTRL_SRC (3u << 0)
#define CLOCKS_CLK_REF_CTRL_SRC__ROSC (0u << 0)
#define CLOCKS_CLK_REF_CTRL_SRC__XOSC (2u << 0)
#define CLOCKS_CLK_REF_DIV 0x34u
#define CLOCKS_CLK_REF_SELECTED 0x38u
#define CLOCKS_CLK_SYS_CTRL 0x3Cu
#define CLOCKS_CLK_SYS_CTRL_SRC (1u << 0)
#define CLOCKS_CLK_SYS_CTRL_AUXSRC (7u << 5)
#define CLOCKS_CLK_SYS_CTRL_AUXSRC__PLL_SYS (0u << 5)
#define CLOCKS_CLK_SYS_DIV 0x40u
#define CLOCKS_CLK_SYS_SELECTED 0x44u
#define CLOCKS_CLK_PERI_CTRL 0x48u
#define CLOCKS_CLK_PERI_CTRL_AUXSRC (7u << 5)
#define CLOCKS_CLK_PERI_CTRL_AUXSRC__CLK_SYS (0u << 5)
#define CLOCKS_CLK_PERI_CTRL_ENABLE (1u << 11)

#define RESETS_BASE 0x4000C000u
#define RESETS_RESET 0x00u
#define RESETS_RESET_IO_BANK0 (1u << 5)
#define RESETS_RESET_IO_QSPI (1u << 6)
#define RESETS_RESET_PADS_BANK0 (1u << 8)
#define RESETS_RESET_PADS_QSPI (1u << 9)
#define RESETS_RESET_PLL_SYS (1u << 12)
#define RESETS_RESET_UART0 (1u << 22)
#define RESETS_RESET_UART1 (1u << 23)
#define RESETS_RESET_DONE 0x08u

#define PSM_BASE 0x40010000u
#define PSM_WDSEL 0x08u
#define PSM_WDSEL__ALL 0x1FFFFu
#define PSM_WDSEL_ROSC (1u << 0)
#define PSM_WDSEL_XOSC (1u << 1)
#define PSM_WDSEL_PROC0 (1u << 15)

/* Of pin n: 8 n further on in IO_BANK0, 4 n in PADS_BANK0. */
#define IO_BANK0_BASE 0x40014000u
#define IO_BANK0_GPIO0_CTRL 0x04u
#define IO_BANK0_GPIO0_CTRL_FUNCSEL (31u << 0)
#define IO_BANK0_GPIO0_CTRL_FUNCSEL__UART (2u << 0)

#define PADS_BANK0_BASE 0x4001C000u
#define PADS_BANK0_GPIO0 0x04u
#define PADS_BANK0_GPIO0_PDE (1u << 2)
#define PADS_BANK0_GPIO0_PUE (1u << 3)
#define PADS_BANK0_GPIO0_IE (1u << 6)
#define PADS_BANK0_GPIO0_OD (1u << 7)

#define IO_QSPI_BASE 0x40018000u
#define IO_QSPI_GPIO_QSPI_SS_CTRL 0x0Cu
#define IO_QSPI_GPIO_QSPI_SS_CTRL_FUNCSEL (31u << 0)
#define IO_QSPI_GPIO_QSPI_SS_CTRL_OUTOVER (3u << 8)
#define IO_QSPI_GPIO_QSPI_SS_CTRL_OUTOVER__NORMAL (0u << 8)
#define IO_QSPI_GPIO_QSPI_SS_CTRL_OUTOVER__LOW (2u << 8)
#define IO_QSPI_GPIO_QSPI_SS_CTRL_OUTOVER__HIGH (3u << 8)

#define XOSC_BASE 0x40024000u
#define XOSC_CTRL 0x00u
#define XOSC_CTRL_FREQ_RANGE__1_15MHZ (0xAA0u << 0)
#define XOSC_CTRL_ENABLE (0xFFFu << 12)
#define XOSC_CTRL_ENABLE__ENABLE (0xFABu << 12)
#define XOSC_STATUS 0x04u
#define XOSC_STATUS_ENABLED (1u << 12)
#define XOSC_STATUS_STABLE (1u << 31)
#define XOSC_STARTUP 0x0Cu

#define PLL_SYS_BASE 0x40028000u
#define PLL_SYS_CS 0x00u
#define PLL_SYS_CS_REFDIV (63u << 0)
#define PLL_SYS_CS_LOCK (1u << 31)
#define PLL_SYS_PWR 0x04u
#define PLL_SYS_PWR_PD (1u << 0)
#define PLL_SYS_PWR_POSTDIVPD (1u << 3)
#define PLL_SYS_PWR_VCOPD (1u << 5)
#define PLL_SYS_FBDIV_INT 0x08u
#define PLL_SYS_PRIM 0x0Cu
#define PLL_SYS_PRIM_POSTDIV1 (7u << 16)
#define PLL_SYS_PRIM_POSTDIV1__6 (6u << 16)
#define PLL_SYS_PRIM_POSTDIV2 (7u << 12)
#define PLL_SYS_PRIM_POSTDIV2__2 (2u << 12)

#define UART0_BASE 0x40034000u
#define UART1_BASE 0x40038000u
#define UART_UARTDR 0x00u
#define UART_UARTDR_DATA (255u << 0)
#define UART_UARTFR 0x18u
#define UART_UARTFR_BUSY (1u << 3)
#define UART_UARTFR_RXFE (1u << 4)
#define UART_UARTFR_TXFF (1u << 5)
#define UART_UARTFR_TXFE (1u << 7)
#define UART_UARTIBRD 0x24u
#define UART_UARTFBRD 0x28u
#define UART_UARTLCR_H 0x2Cu
#define UART_UARTLCR_H_FEN (1u << 4)
#define UART_UARTLCR_H_WLEN__8 (3u << 5)
#define UART_UARTCR 0x30u
#define UART_UARTCR_UARTEN (1u << 0)
#define UART_UARTCR_TXE (1u << 8)
#define UART_UARTCR_RXE (1u << 9)
#define UART_UARTIFLS 0x34u
#define UART_UARTIFLS_RXIFLSEL__EIGHTH (0u << 3)
#define UART_UARTIMSC 0x38u
#define UART_UARTIMSC_RXIM (1u << 4)
#define UART_UARTIMSC_RTIM (1u << 6)
#define UART_UARTRIS 0x3Cu
#define UART_UARTRIS_RXRIS (1u << 4)
#define UART_UARTRIS_RTRIS (1u << 6)
#define UART_UARTMIS 0x40u

#define WATCHDOG_BASE 0x40058000u
#define WATCHDOG_CTRL 0x00u
#define WATCHDOG_CTRL_PAUSE_JTAG (1u << 24)
#define WATCHDOG_CTRL_PAUSE_DBG0 (1u << 25)
#define WATCHDOG_CTRL_PAUSE_DBG1 (1u << 26)
#define WATCHDOG_CTRL_ENABLE (1u << 30)
#define WATCHDOG_CTRL_TRIGGER (1u << 31)
#define WATCHDOG_LOAD 0x04u
#define WATCHDOG_SCRATCH4 0x1Cu
#define WATCHDOG_TICK 0x2Cu
#define WATCHDOG_TICK_CYCLES (511u << 0)
#define WATCHDOG_TICK_ENABLE (1u << 9)

#define SIO_BASE 0xD0000000u
#define SIO_GPIO_HI_IN 0x08u

/* The boot ROM has no registers: half-words that point to its table of functions, and to the function that looks one up
 * there; the codes of functions, two letters each, the first in the low byte; where it puts the first 256 bytes of flash, and
 * where these expect the application's table of vectors. */
#define ROM_FUNCTION_TABLE 0x14u
#define ROM_TABLE_LOOKUP 0x18u
#define ROM_CONNECT_INTERNAL_FLASH ('I' | 'F' << 8)
#define ROM_FLASH_EXIT_XIP ('E' | 'X' << 8)
#define ROM_FLASH_RANGE_ERASE ('R' | 'E' << 8)
#define ROM_FLASH_RANGE_PROGRAM ('R' | 'P' << 8)
#define ROM_FLASH_FLUSH_CACHE ('F' | 'C' << 8)
#define BOOT2_BYTES 256u
#define BOOT2_RAM 0x20041F00u

#endif
