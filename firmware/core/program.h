/* Int8 inference: runs a program, which the host compiles from an int8 .tflite (SPEC.md, program).
 *
 * A program is one read-only block of bytes. It runs in place, also from flash, and nothing in it is trusted: open checks
 * every range that run will access, and bounds the work. C99, no malloc, no recursion, no libc beyond memcpy. */
#ifndef TINYFL_PROGRAM_H
#define TINYFL_PROGRAM_H

#include "tinyfl.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TINYFL_MAX_PROGRAM (1u << 28) /* bytes of a program, and of an arena */
#define TINYFL_MAX_WORK 0xffffffffu   /* steps of all inner loops together, about one multiply-add each */

enum { TINYFL_INT8 = 0, TINYFL_FLOAT32 = 1 };

/* The input or the output, in the arena. An int8 value q represents scale x (q - zero). */
typedef struct {
    uint32_t offset; /* from the start of the arena; a multiple of 4 */
    uint32_t bytes;
    float scale;
    int8_t zero;
    uint8_t dtype; /* TINYFL_INT8 or TINYFL_FLOAT32 */
} tinyfl_tensor;

/* An open program, read-only for the caller. */
typedef struct {
    const unsigned char *bytes;
    uint32_t count;       /* bytes of the program */
    uint32_t arena_bytes; /* needed by run */
    uint32_t work;        /* steps of all inner loops in one run */
    uint16_t ops;
    tinyfl_tensor input, output;
} tinyfl_program;

/* Opens the program in `bytes`, which must stay in place, unchanged, during its use.
 *   bytes  `count` bytes, aligned to 4
 * TINYFL_EINVAL: a null pointer, or misaligned bytes.
 * TINYFL_EPLAN: another version or length, or a program that is inconsistent, exceeds its arena or its bytes, or needs more
 *               than TINYFL_MAX_WORK steps. */
TINYFL_API int tinyfl_program_open(tinyfl_program *program, const void *bytes, size_t count);

/* Runs the program once, from the input at arena + program->input.offset to the output at program->output.offset. The arena
 * keeps nothing between runs, and the input may be overwritten.
 *   arena  at least program->arena_bytes, aligned to 4
 * TINYFL_EINVAL: a null pointer, or a misaligned arena. TINYFL_EMEMORY: the arena is too small. */
TINYFL_API int tinyfl_program_run(const tinyfl_program *program, void *arena, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
