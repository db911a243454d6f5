/* What a C library does for a program on a bare Cortex-M4F: start, printf and exit, by Arm's semihosting, which QEMU answers. */
#include <stdarg.h>
#include <stdint.h>

#include "stdio.h"

enum { WRITE0 = 0x04, EXIT = 0x18, EXITED = 0x20026 };

int main(void);
void start(void);

static void ask(uintptr_t what, uintptr_t with)
{
    register uintptr_t r0 __asm("r0") = what;
    register uintptr_t r1 __asm("r1") = with;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

/* `value`, from 0 to 9999, with three decimals. */
static char *put(char *text, double value)
{
    uint32_t thousandths = (uint32_t)(value * 1000.0 + 0.5), unit = 1000000;
    while (unit > 1000 && thousandths < unit)
        unit /= 10;
    for (; unit > 0; unit /= 10) {
        *text++ = (char)('0' + thousandths / unit % 10);
        if (unit == 1000)
            *text++ = '.';
    }
    return text;
}

/* Knows %.3f only, four characters of the format. */
int printf(const char *format, ...)
{
    char text[128], *end = text;
    va_list values;
    va_start(values, format);
    while (*format) {
        if (*format == '%') {
            end = put(end, va_arg(values, double));
            format += 4;
        } else {
            *end++ = *format++;
        }
    }
    va_end(values);
    *end = 0;
    ask(WRITE0, (uintptr_t)text);
    return (int)(end - text);
}

__attribute__((section(".vectors"), used)) static const struct {
    uintptr_t stack;
    void (*reset)(void);
} vectors = {0x20100000, start};

void start(void)
{
    *(volatile uint32_t *)0xE000ED88 = 0xF00000; /* CPACR: the FPU on */
    ask(EXIT, main() == 0 ? EXITED : 0);
}
