/* The libc functions used by the firmware (memory.c), so that it needs no libc headers. */
#ifndef TINYFL_STRING_H
#define TINYFL_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t count);
void *memmove(void *to, const void *from, size_t count);
void *memset(void *at, int byte, size_t count);
int memcmp(const void *a, const void *b, size_t count);

/* As builtins, which a freestanding compiler does not assume: a copy of four bytes is then an instruction, not a call. */
#define memcpy __builtin_memcpy
#define memmove __builtin_memmove
#define memset __builtin_memset
#define memcmp __builtin_memcmp

#endif
