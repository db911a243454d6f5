/* nRF52833 and nRF52840 by the names of Nordic's SVD files (nrf52833.svd, nrf52840.svd), against which
 * tests/firmware/test_registers.py checks every line: X_BASE is a peripheral's address, X_Y a register's offset in it, X_Y_Z a
 * field's bits, X_Y_Z__V a value of it in its place. Only registers common to both chips are here. A register of an array
 * is its first; P1 has the registers of P0. */
#ifndef TINYFL_NRF52_REGISTERS_H
#define TINYFL_NRF52_REGISTERS_H

/* In no SVD file; from Nordic's MDK (nrf52_erratas.h, configuration 249; system_nrf52_approtect.h). */
#define CHIP_PART 0x10000130u
#define CHIP_PART__NRF52840 0x08u
#define CHIP_PART__NRF52833 0x0Du
#define CHIP_STEP 0x10000134u
#define APPROTECT_DISABLE 0x40000558u

#define UICR_BASE 0x10001000u
#define UICR_APPROTECT 0x208u

#define FICR_BASE 0x10000000u
#define FICR_DEVICEID0 0x060u

#define CLOCK_BASE 0x40000000u
#define CLOCK_TASKS_HFCLKSTART 0x000u
#define CLOCK_TASKS_HFCLKSTOP 0x004u
#define CLOCK_EVENTS_HFCLKSTARTED 0x100u
#define CLOCK_HFCLKSTAT 0x40Cu
#define CLOCK_HFCLKSTAT_SRC (1u << 0)
#define CLOCK_HFCLKSTAT_SRC__XTAL (1u << 0)
#define CLOCK_HFCLKSTAT_STATE (1u << 16)
#define CLOCK_HFCLKSTAT_STATE__RUNNING (1u << 16)

#define P0_BASE 0x50000000u
#define P1_BASE 0x50000300u
#define P0_OUTSET 0x508u
#define P0_DIRSET 0x518u
#define P0_PIN_CNF0 0x700u
#define P0_PIN_CNF0_PULL__PULLUP (3u << 2)

#define UART0_BASE 0x40002000u
#define UART_TASKS_STARTRX 0x000u
#define UART_TASKS_STOPRX 0x004u
#define UART_TASKS_STARTTX 0x008u
#define UART_TASKS_STOPTX 0x00Cu
#define UART_TASKS_SUSPEND 0x01Cu
#define UART_EVENTS_CTS 0x100u
#define UART_EVENTS_RXDRDY 0x108u
#define UART_EVENTS_TXDRDY 0x11Cu
#define UART_EVENTS_ERROR 0x124u
#define UART_SHORTS 0x200u
#define UART_INTENSET 0x304u
#define UART_INTENSET_RXDRDY (1u << 2)
#define UART_INTENCLR 0x308u
#define UART_ERRORSRC 0x480u
#define UART_ERRORSRC_OVERRUN (1u << 0)
#define UART_ENABLE 0x500u
#define UART_ENABLE_ENABLE (15u << 0)
#define UART_ENABLE_ENABLE__ENABLED (4u << 0)
#define UART_PSEL_RTS 0x508u
#define UART_PSEL_TXD 0x50Cu
#define UART_PSEL_CTS 0x510u
#define UART_PSEL_RXD 0x514u
#define UART_PSEL_RXD_PORT (1u << 5)
#define UART_PSEL_RXD_CONNECT (1u << 31)
#define UART_PSEL_RXD_CONNECT__DISCONNECTED (1u << 31)
#define UART_RXD 0x518u
#define UART_TXD 0x51Cu
#define UART_BAUDRATE 0x524u
#define UART_CONFIG 0x56Cu

#define WDT_BASE 0x40010000u
#define WDT_TASKS_START 0x000u
#define WDT_RUNSTATUS 0x400u
#define WDT_RUNSTATUS_RUNSTATUS (1u << 0)
#define WDT_REQSTATUS 0x404u
#define WDT_CRV 0x504u
#define WDT_RREN 0x508u
#define WDT_RREN_RR0 (1u << 0)
#define WDT_CONFIG 0x50Cu
#define WDT_CONFIG_SLEEP (1u << 0)
#define WDT_RR0 0x600u
#define WDT_RR0_RR__RELOAD 0x6E524635u

#define NVMC_BASE 0x4001E000u
#define NVMC_READY 0x400u
#define NVMC_READY_READY (1u << 0)
#define NVMC_READYNEXT 0x408u
#define NVMC_CONFIG 0x504u
#define NVMC_CONFIG_WEN (3u << 0)
#define NVMC_CONFIG_WEN__WEN (1u << 0)
#define NVMC_CONFIG_WEN__EEN (2u << 0)
#define NVMC_ERASEPAGE 0x508u
#define NVMC_ICACHECNF 0x540u
#define NVMC_ICACHECNF_CACHEEN (1u << 0)

#endif
