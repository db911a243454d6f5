/* PSoC 62 with 2 MiB of flash (CY8C62xA; psoc6_02 in Infineon's files) by the names of Infineon's SVD file: X_BASE is a
 * peripheral's address, X_Y a register's offset in it, X_Y_Z a field's bits, X_Y_Z__V a value of it in its place.
 *
 * No SVD file of this chip is at hand. Every figure was read in Infineon's library mtb-pdl-cat1: addresses in
 * cy8c624abzi_s2d44.h and cy_device.c, registers and fields in its ip/cyip_*.h of cpuss_v2, flashc, gpio_v2, hsiom_v2, ipc_v2,
 * peri_v2, scb, sflash_psoc6_02 and srss; values of fields, and what the boot ROM takes and answers, in its drivers for flash,
 * clocks, pins, UART and watchdog and in its start of the Cortex-M4. Not against the reference manual. */
#ifndef TINYFL_PSOC6_REGISTERS_H
#define TINYFL_PSOC6_REGISTERS_H

#define CPUSS_BASE 0x40200000u
#define CPUSS_CM4_STATUS 0x004u
#define CPUSS_CM4_STATUS_PWR_DONE (1u << 4)
#define CPUSS_CM4_CLOCK_CTL 0x008u
#define CPUSS_CM4_CLOCK_CTL_FAST_INT_DIV (0xFFu << 8)
#define CPUSS_CM4_VECTOR_TABLE_BASE 0x200u
#define CPUSS_CM4_VECTOR_TABLE_BASE_ADDR22 (0x3FFFFFu << 10)
#define CPUSS_CM0_CLOCK_CTL 0x1008u
#define CPUSS_CM0_CLOCK_CTL_SLOW_INT_DIV (0xFFu << 8)
#define CPUSS_CM0_CLOCK_CTL_PERI_INT_DIV (0xFFu << 24)
#define CPUSS_CM0_CLOCK_CTL_PERI_INT_DIV__2 (1u << 24)
#define CPUSS_CM4_PWR_CTL 0x1200u
#define CPUSS_CM4_PWR_CTL_PWR_MODE (3u << 0)
#define CPUSS_CM4_PWR_CTL_PWR_MODE__ENABLED (3u << 0)
#define CPUSS_CM4_PWR_CTL_VECTKEYSTAT (0xFFFFu << 16)
#define CPUSS_CM4_PWR_CTL_VECTKEYSTAT__KEY (0x05FAu << 16)

/* A structure of IPC for each of the cores: the Cortex-M0+ has the first, the Cortex-M4 the second. */
#define IPC_BASE 0x40220000u
#define IPC_STRUCT_BYTES 0x20u
#define IPC_STRUCT_ACQUIRE 0x00u
#define IPC_STRUCT_ACQUIRE_SUCCESS (1u << 31)
#define IPC_STRUCT_RELEASE 0x04u
#define IPC_STRUCT_NOTIFY 0x08u
#define IPC_STRUCT_NOTIFY_INTR_NOTIFY (0xFFFFu << 0)
#define IPC_STRUCT_NOTIFY_INTR_NOTIFY__ROM (1u << 0)
#define IPC_STRUCT_DATA0 0x0Cu
#define IPC_STRUCT_LOCK_STATUS 0x1Cu
#define IPC_STRUCT_LOCK_STATUS_ACQUIRED (1u << 31)

#define FLASHC_BASE 0x40240000u
#define FLASHC_FLASH_CTL 0x00u
#define FLASHC_FLASH_CTL_MAIN_WS (15u << 0)
#define FLASHC_FLASH_CMD 0x08u
#define FLASHC_FLASH_CMD_INV (1u << 0)

#define SRSS_BASE 0x40260000u
#define SRSS_WDT_CTL 0x180u
#define SRSS_WDT_CTL_WDT_EN (1u << 0)
#define SRSS_WDT_CTL_WDT_LOCK (3u << 30)
#define SRSS_WDT_CTL_WDT_LOCK__CLEAR_0 (1u << 30)
#define SRSS_WDT_CTL_WDT_LOCK__CLEAR_1 (2u << 30)
#define SRSS_WDT_CTL_WDT_LOCK__SET (3u << 30)
#define SRSS_WDT_CNT 0x184u
#define SRSS_WDT_MATCH 0x188u
#define SRSS_WDT_MATCH_MATCH (0xFFFFu << 0)
#define SRSS_WDT_MATCH_IGNORE_BITS (15u << 16)
#define SRSS_CLK_PATH_SELECT 0x340u /* of path 0, which the FLL feeds; those of the PLLs follow */
#define SRSS_CLK_PATH_SELECT_PATH_MUX (7u << 0)
#define SRSS_CLK_ROOT_SELECT 0x380u /* of HF0: the cores, flash and peripherals */
#define SRSS_CLK_ROOT_SELECT_ROOT_MUX (15u << 0)
#define SRSS_CLK_ROOT_SELECT_ROOT_MUX__PATH1 (1u << 0)
#define SRSS_CLK_ROOT_SELECT_ROOT_DIV (3u << 4)
#define SRSS_CLK_ROOT_SELECT_ENABLE (1u << 31)
#define SRSS_CLK_FLL_CONFIG 0x580u
#define SRSS_CLK_FLL_CONFIG_FLL_ENABLE (1u << 31)
#define SRSS_CLK_FLL_CONFIG3 0x588u
#define SRSS_CLK_FLL_CONFIG3_BYPASS_SEL (3u << 28)
#define SRSS_CLK_FLL_CONFIG3_BYPASS_SEL__INPUT (2u << 28)
#define SRSS_CLK_PLL_CONFIG 0x600u /* of the first PLL, which feeds path 1 */
#define SRSS_CLK_PLL_CONFIG_FEEDBACK_DIV (0x7Fu << 0)
#define SRSS_CLK_PLL_CONFIG_REFERENCE_DIV (0x1Fu << 8)
#define SRSS_CLK_PLL_CONFIG_OUTPUT_DIV (0x1Fu << 16)
#define SRSS_CLK_PLL_CONFIG_BYPASS_SEL (3u << 28)
#define SRSS_CLK_PLL_CONFIG_BYPASS_SEL__INPUT (2u << 28)
#define SRSS_CLK_PLL_CONFIG_BYPASS_SEL__OUTPUT (3u << 28)
#define SRSS_CLK_PLL_CONFIG_ENABLE (1u << 31)
#define SRSS_CLK_PLL_STATUS 0x640u
#define SRSS_CLK_PLL_STATUS_LOCKED (1u << 0)
#define SRSS_SRSS_INTR 0x700u
#define SRSS_SRSS_INTR_WDT_MATCH (1u << 0)

#define PERI_BASE 0x40000000u
#define PERI_DIV_CMD 0x400u
#define PERI_DIV_CMD_DIV_SEL (0xFFu << 0)
#define PERI_DIV_CMD_TYPE_SEL (3u << 8)
#define PERI_DIV_CMD_TYPE_SEL__16_5 (2u << 8)
#define PERI_DIV_CMD_PA_DIV_SEL (0xFFu << 16)
#define PERI_DIV_CMD_PA_TYPE_SEL (3u << 24)
#define PERI_DIV_CMD_DISABLE (1u << 30)
#define PERI_DIV_CMD_ENABLE (1u << 31)
#define PERI_CLOCK_CTL 0xC00u /* of SCB0; those of the other SCBs follow */
#define PERI_CLOCK_CTL_DIV_SEL (0xFFu << 0)
#define PERI_CLOCK_CTL_TYPE_SEL (3u << 8)
#define PERI_CLOCK_CTL_TYPE_SEL__16_5 (2u << 8)
#define PERI_DIV_16_5_CTL 0x1800u /* of divider 0 */
#define PERI_DIV_16_5_CTL_EN (1u << 0)
#define PERI_DIV_16_5_CTL_FRAC5_DIV (31u << 3)
#define PERI_DIV_16_5_CTL_INT16_DIV (0xFFFFu << 8)

#define HSIOM_BASE 0x40300000u
#define HSIOM_PRT_BYTES 0x10u
#define HSIOM_PRT_PORT_SEL0 0x00u /* of pins 0 to 3, 8 bits each; those of 4 to 7 follow */
#define HSIOM_PRT_PORT_SEL0_IO0_SEL (31u << 0)
#define HSIOM_PRT_PORT_SEL0_IO0_SEL__UART (18u << 0)

#define GPIO_BASE 0x40310000u
#define GPIO_PRT_BYTES 0x80u
#define GPIO_PRT_OUT_SET 0x08u
#define GPIO_PRT_CFG 0x44u /* 4 bits each pin */
#define GPIO_PRT_CFG_DRIVE_MODE0 (7u << 0)
#define GPIO_PRT_CFG_DRIVE_MODE0__STRONG (6u << 0)
#define GPIO_PRT_CFG_IN_EN0 (1u << 3)

#define SCB0_BASE 0x40600000u
#define SCB1_BASE 0x40610000u
#define SCB_CTRL 0x000u
#define SCB_CTRL_OVS (15u << 0)
#define SCB_CTRL_BYTE_MODE (1u << 11)
#define SCB_CTRL_MODE (3u << 24)
#define SCB_CTRL_MODE__UART (2u << 24)
#define SCB_CTRL_ENABLED (1u << 31)
#define SCB_UART_CTRL 0x040u
#define SCB_UART_CTRL_MODE (3u << 24)
#define SCB_UART_TX_CTRL 0x044u
#define SCB_UART_TX_CTRL_STOP_BITS (7u << 0)
#define SCB_UART_TX_CTRL_STOP_BITS__1 (1u << 0)
#define SCB_UART_TX_CTRL_PARITY_ENABLED (1u << 5)
#define SCB_UART_RX_CTRL 0x048u
#define SCB_UART_RX_CTRL_STOP_BITS (7u << 0)
#define SCB_UART_RX_CTRL_STOP_BITS__1 (1u << 0)
#define SCB_UART_RX_CTRL_PARITY_ENABLED (1u << 5)
#define SCB_UART_RX_CTRL_BREAK_WIDTH (15u << 16)
#define SCB_UART_RX_CTRL_BREAK_WIDTH__11 (10u << 16)
#define SCB_TX_CTRL 0x200u
#define SCB_TX_CTRL_DATA_WIDTH (15u << 0)
#define SCB_TX_CTRL_DATA_WIDTH__8 (7u << 0)
#define SCB_TX_CTRL_MSB_FIRST (1u << 8)
#define SCB_TX_FIFO_STATUS 0x208u
#define SCB_TX_FIFO_STATUS_USED (0x1FFu << 0)
#define SCB_TX_FIFO_STATUS_SR_VALID (1u << 15)
#define SCB_TX_FIFO_WR 0x240u
#define SCB_RX_CTRL 0x300u
#define SCB_RX_CTRL_DATA_WIDTH (15u << 0)
#define SCB_RX_CTRL_DATA_WIDTH__8 (7u << 0)
#define SCB_RX_CTRL_MSB_FIRST (1u << 8)
#define SCB_RX_FIFO_STATUS 0x308u
#define SCB_RX_FIFO_STATUS_USED (0x1FFu << 0)
#define SCB_RX_FIFO_RD 0x340u
#define SCB_INTR_RX 0xFC0u
#define SCB_INTR_RX_NOT_EMPTY (1u << 2)
#define SCB_INTR_RX_OVERFLOW (1u << 5)
#define SCB_INTR_RX_MASK 0xFC8u
#define SCB_INTR_RX_MASK_NOT_EMPTY (1u << 2)

#define SFLASH_BASE 0x16000000u
#define SFLASH_DIE_LOT 0x600u /* 3 bytes; then wafer, x, y, sort, minor, day, month and year, one byte each */

/* What the boot ROM does on a structure's notification: DATA0 points to a block of four words in RAM, whose first becomes the
 * status. In no SVD. */
#define ROM_BLOCKING (1u << 8)
#define ROM_WRITE_ROW (0x05u << 24)
#define ROM_PROGRAM_ROW (0x06u << 24)
#define ROM_ERASE_SECTOR (0x14u << 24)
#define ROM_ERASE_ROW (0x1Cu << 24)
#define ROM_DATA_IN_RAM 0x100u /* the second word of ROM_PROGRAM_ROW */
#define ROM_STATUS (15u << 28)
#define ROM_STATUS__SUCCESS (10u << 28)
#define ROM_INVALID_FLASH_ADDRESS 0xF0000004u
#define ROM_NMI_HANDLER 0x0000000Du /* the Cortex-M0+'s, which serves these calls */

#define ROW_BYTES 0x200u
#define SECTOR_BYTES 0x40000u

#endif
