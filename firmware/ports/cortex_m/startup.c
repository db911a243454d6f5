/* From reset to main. */
#include "cortex_m.h"

extern uint8_t tinyfl_data[], tinyfl_data_end[], tinyfl_data_load[], tinyfl_bss[], tinyfl_bss_end[];

int main(void);
void Reset_Handler(void);

/* Naked, since the stack may be broken. A faulted board stays here until its watchdog, or a person, resets it; it does not
 * sleep, since some watchdogs sleep too. */
__attribute__((naked)) static void fault(void) { __asm volatile("b .\n"); }

/* Aligned as VTOR requires for a table of this size. */
#define TABLE_BYTES (TINYFL_UART_INTERRUPT < 48 ? 256 : 1024)

__attribute__((section(".vectors"), used, aligned(TABLE_BYTES))) static const struct {
    const void *stack;
    void (*handlers[15 + TINYFL_UART_INTERRUPT + 1])(void);
} vectors = {
    tinyfl_stack_high,
    {
        Reset_Handler, fault, fault, fault, fault, fault, 0, 0, 0, 0, fault, fault, 0, fault, tinyfl_clock_tick,
        [15 + TINYFL_UART_INTERRUPT] = tinyfl_uart_interrupt,
    },
};

static const uint32_t __attribute__((used)) paint = TINYFL_PAINT;

/* Of 32 interrupts each: ARMv6-M has 32, the others have 240 at most. */
#ifdef __ARM_ARCH_6M__
enum { INTERRUPT_WORDS = 1 };
#else
enum { INTERRUPT_WORDS = 8 };
#endif

__attribute__((used, noreturn)) static void begin(void)
{
    REGISTER(VTOR) = (uint32_t)(uintptr_t)&vectors;
    REGISTER(SYST_CSR) = 0;
    for (uint32_t i = 0; i < INTERRUPT_WORDS; i++)
        REGISTER(NVIC_ICER + 4 * i) = 0xFFFFFFFFu;
    memcpy(tinyfl_data, tinyfl_data_load, (size_t)(tinyfl_data_end - tinyfl_data));
    memset(tinyfl_bss, 0, (size_t)(tinyfl_bss_end - tinyfl_bss));
    main();
    for (;;)
        fault();
}

/* In assembly up to the first use of the stack, which is painted here, and so that no floating-point instruction precedes
 * enabling the FPU (coprocessors 10 and 11 in CPACR). A bootloader may have left interrupts on, and its own stack and vector
 * table. */
__attribute__((naked)) void Reset_Handler(void)
{
    __asm volatile(
        "   cpsid i\n"
        "   movs r0, #0\n"
        "   msr control, r0\n"
#ifndef __ARM_ARCH_6M__
        "   msr basepri, r0\n"
        "   msr faultmask, r0\n"
#endif
        "   isb\n"
        "   ldr r1, =tinyfl_stack_high\n"
        "   mov sp, r1\n"
#ifdef __ARM_FP
        "   ldr r0, =0xE000ED88\n"
        "   ldr r2, [r0]\n"
        "   orr r2, r2, #0xF00000\n"
        "   str r2, [r0]\n"
        "   dsb\n"
        "   isb\n"
#endif
        "   ldr r0, =tinyfl_stack_low\n"
        "   ldr r2, =paint\n"
        "   ldr r2, [r2]\n"
        "1: str r2, [r0]\n"
        "   adds r0, r0, #4\n"
        "   cmp r0, r1\n"
        "   blo 1b\n"
        "   ldr r0, =begin\n"
        "   bx r0\n"
        "   .ltorg\n");
}
