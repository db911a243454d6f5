/* The first 256 bytes of flash. The boot ROM copies them to RAM and starts them there, if their CRC is right: they make flash
 * readable as memory. Then they start the application, or return if they were called.
 *
 * Every read of the bus becomes a serial read (command 03h), which all flash chips support by default: slower than four
 * lines, but the cache holds a learner's code. */
#include "cortex_m.h"
#include "registers.h"

#define DIVIDER 4       /* 31 MHz from 125 MHz; W25Q16JV, the Pico's, takes 50 MHz */
#define CRC 0xE6DD4D3Du /* CRC-32/MPEG-2 of the 252 bytes before it */

__attribute__((naked, used, section(".boot"))) static void boot2(void)
{
    __asm volatile("   .balign 4\n"
                   "0: ldr r3, 2f\n"
                   "   movs r1, #0\n"
                   "   str r1, [r3, %[enable]]\n" /* off during configuration */
                   "   movs r2, %[divider]\n"
                   "   str r2, [r3, %[baud]]\n"
                   "   ldr r2, 3f\n"
                   "   str r2, [r3, %[control]]\n"
                   "   str r1, [r3, %[frames]]\n" /* one frame of 32 bits per read */
                   "   ldr r2, 4f\n"
                   "   movs r0, %[format]\n"
                   "   str r2, [r3, r0]\n"
                   "   movs r1, #1\n"
                   "   str r1, [r3, %[enable]]\n"
                   "   mov r0, lr\n"
                   "   cmp r0, #0\n" /* the value left there by the ROM */
                   "   beq 1f\n"
                   "   bx lr\n"
                   "1: ldr r0, 5f\n"
                   "   ldr r1, 6f\n"
                   "   str r0, [r1]\n"
                   "   ldr r1, [r0]\n"
                   "   msr msp, r1\n"
                   "   ldr r1, [r0, #4]\n"
                   "   bx r1\n"
                   "   .balign 4\n"
                   "2: .word %c[ssi]\n"
                   "3: .word %c[control_is]\n"
                   "4: .word %c[format_is]\n"
                   "5: .word %c[application]\n"
                   "6: .word %c[vtor]\n"
                   "   .space %c[bytes] - 4 - (. - 0b)\n"
                   "   .word %c[crc]\n"
                   :
                   : [ssi] "i"(XIP_SSI_BASE), [enable] "i"(XIP_SSI_SSIENR), [baud] "i"(XIP_SSI_BAUDR),
                     [divider] "i"(DIVIDER), [control] "i"(XIP_SSI_CTRLR0), [frames] "i"(XIP_SSI_CTRLR1),
                     [format] "i"(XIP_SSI_SPI_CTRLR0),
                     [control_is] "i"(XIP_SSI_CTRLR0_DFS_32__32 | XIP_SSI_CTRLR0_TMOD__EEPROM_READ),
                     [format_is] "i"(XIP_SSI_SPI_CTRLR0_XIP_CMD__READ | XIP_SSI_SPI_CTRLR0_INST_L__8B |
                                     XIP_SSI_SPI_CTRLR0_ADDR_L__24B),
                     [application] "i"(TINYFL_FLASH_ORIGIN + BOOT2_BYTES), [vtor] "i"(VTOR), [bytes] "i"(BOOT2_BYTES),
                     [crc] "i"(CRC));
}
