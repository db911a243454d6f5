/* The program of the Cortex-M0+, which starts first: it starts the Cortex-M4 and sleeps. It wakes only for calls of the
 * boot ROM, by its NMI, whose handler is in the ROM and uses the stack below. So it must stay in sleep, not in deep sleep,
 * where the clocks stop. Instructions are those of ARMv6-M. */
#include <stdint.h>

#include "registers.h"

#define CM4_VECTORS (TINYFL_FLASH_ORIGIN + 0x2000u) /* the manifest's `application`; a multiple of 1024 */

extern const uint32_t tinyfl_stack_low[]; /* link.ld: where the other core's RAM begins; what is before it is this one's */

__attribute__((naked, used, section(".boot"))) static void boot(void)
{
    __asm volatile("   .word tinyfl_stack_low\n"
                   "   .word 1f + 1\n"
                   "   .word %c[nmi]\n"
                   "   .word 2f + 1\n"
                   "1: cpsid i\n"
                   "   ldr r0, 3f\n"
                   "   ldr r1, 4f\n"
                   "   str r1, [r0]\n"
                   "   ldr r0, 5f\n"
                   "   ldr r1, 6f\n"
                   "   str r1, [r0]\n"
                   "2: wfi\n"
                   "   b 2b\n"
                   "   .balign 4\n"
                   "3: .word %c[vector_table_base]\n"
                   "4: .word %c[vectors]\n"
                   "5: .word %c[power]\n"
                   "6: .word %c[on]\n"
                   :
                   : [nmi] "i"(ROM_NMI_HANDLER), [vector_table_base] "i"(CPUSS_BASE + CPUSS_CM4_VECTOR_TABLE_BASE),
                     [vectors] "i"(CM4_VECTORS), [power] "i"(CPUSS_BASE + CPUSS_CM4_PWR_CTL),
                     [on] "i"(CPUSS_CM4_PWR_CTL_VECTKEYSTAT__KEY | CPUSS_CM4_PWR_CTL_PWR_MODE__ENABLED));
}
