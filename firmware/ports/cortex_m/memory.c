/* memcpy and the like, by words if both sides are aligned. Built with -fno-builtin and without loop recognition, which
 * would turn each into a call to itself. */
#include <stddef.h>
#include <stdint.h>

typedef uint32_t __attribute__((may_alias)) any_word;

static int aligned(const void *a, const void *b) { return (((uintptr_t)a | (uintptr_t)b) & 3) == 0; }

void *memcpy(void *restrict to, const void *restrict from, size_t count)
{
    uint8_t *t = to;
    const uint8_t *f = from;
    if (aligned(to, from))
        for (; count >= 4; count -= 4, t += 4, f += 4)
            *(any_word *)t = *(const any_word *)f;
    while (count--)
        *t++ = *f++;
    return to;
}

void *memmove(void *to, const void *from, size_t count)
{
    uint8_t *t = to;
    const uint8_t *f = from;
    if ((uintptr_t)to - (uintptr_t)from >= count) /* forward never overtakes itself */
        while (count--)
            *t++ = *f++;
    else
        while (count--)
            t[count] = f[count];
    return to;
}

void *memset(void *at, int byte, size_t count)
{
    uint8_t *a = at;
    const uint32_t word = (uint8_t)byte * 0x01010101u;
    for (; count && !aligned(a, a); count--)
        *a++ = (uint8_t)byte;
    for (; count >= 4; count -= 4, a += 4)
        *(any_word *)a = word;
    while (count--)
        *a++ = (uint8_t)byte;
    return at;
}

int memcmp(const void *a, const void *b, size_t count)
{
    const uint8_t *p = a, *q = b;
    for (; count--; p++, q++)
        if (*p != *q)
            return *p < *q ? -1 : 1;
    return 0;
}
