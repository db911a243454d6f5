/* From reset to main. */
#include "port.h"
#include "string.h"

extern uint8_t tinyfl_data[], tinyfl_data_end[], tinyfl_data_load[], tinyfl_bss[], tinyfl_bss_end[];
extern const uint32_t tinyfl_stack_high[];

int main(void);
void Reset_Handler(void);

/* Naked, since the stack may be what is broken. A board that has faulted stays so, for a debugger to see, until reset. */
__attribute__((naked)) static void fault(void)
{
    __asm volatile("1: wfi\n"
                   "   b 1b\n");
}

/* No device interrupt is ever taken (cortex_m.h), so the table ends with the system's own. */
__attribute__((section(".vectors"), used)) static const struct {
    const void *stack;
    void (*handlers[15])(void);
} vectors = {
    tinyfl_stack_high,
    {Reset_Handler, fault, fault, fault, fault, fault, fault, 0, 0, 0, fault, fault, 0, fault, fault},
};

static const uint32_t __attribute__((used)) paint = TINYFL_PAINT;

__attribute__((used, noreturn)) static void begin(void)
{
    memcpy(tinyfl_data, tinyfl_data_load, (size_t)(tinyfl_data_end - tinyfl_data));
    memset(tinyfl_bss, 0, (size_t)(tinyfl_bss_end - tinyfl_bss));
    main();
    for (;;)
        fault();
}

/* In assembly up to the first use of the stack, which is painted here, and so that no floating-point instruction can come
 * before the FPU is on: coprocessors 10 and 11 in CPACR. */
__attribute__((naked)) void Reset_Handler(void)
{
    __asm volatile(
#ifdef __ARM_FP
        "   ldr r0, =0xE000ED88\n"
        "   ldr r1, [r0]\n"
        "   orr r1, r1, #0xF00000\n"
        "   str r1, [r0]\n"
        "   dsb\n"
        "   isb\n"
#endif
        "   ldr r0, =tinyfl_stack_low\n"
        "   ldr r1, =tinyfl_stack_high\n"
        "   ldr r2, =paint\n"
        "   ldr r2, [r2]\n"
        "1: str r2, [r0], #4\n"
        "   cmp r0, r1\n"
        "   blo 1b\n"
        "   ldr r0, =begin\n"
        "   bx r0\n"
        "   .ltorg\n");
}
