/* Runs an int8 program over a batch, with the same source as on a board. */
#include <stdlib.h>
#include <string.h>

#include "native.h"
#include "program.h"

TINYFL_EXPORT int tinyfl_native_program_run(const void *bytes, size_t count, const void *inputs, void *outputs, size_t batch)
{
    tinyfl_program program;
    const int code = tinyfl_program_open(&program, bytes, count);
    if (code != TINYFL_OK)
        return code;
    char *arena = calloc(program.arena_bytes, 1);
    if (!arena)
        return TINYFL_EMEMORY;
    const char *in = inputs;
    char *out = outputs;
    for (; batch > 0; batch--, in += program.input.bytes, out += program.output.bytes) {
        memcpy(arena + program.input.offset, in, program.input.bytes);
        tinyfl_program_run(&program, arena, program.arena_bytes);
        memcpy(out, arena + program.output.offset, program.output.bytes);
    }
    free(arena);
    return TINYFL_OK;
}
