/* Programs from anywhere: refused, or run within their bounds.
 *   fuzz_program SEED COUNT FILE ...   opens COUNT programs made from the files by damage, and runs those that open
 *   fuzz_program -                     the same for programs from standard input, each after its length (32 bits)
 * Bytes and arena end where their heap blocks do, so that the sanitizers see any step beyond. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

enum { MAX_FILES = 64, MAX_STEPS = 300000 };

static uint32_t state;

static uint32_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 17;
    return state ^= state << 5;
}

static uint32_t below(uint32_t limit) { return draw() % limit; }

static unsigned long refused, ran, too_long;

static void *room(size_t bytes)
{
    void *block = malloc(bytes ? bytes : 1);
    if (!block)
        exit(3);
    return block;
}

static void require(int condition, const char *what)
{
    if (!condition) {
        printf("%s\n", what);
        exit(1);
    }
}

static void attempt(const unsigned char *bytes, size_t count)
{
    tinyfl_program program;
    const int code = tinyfl_program_open(&program, bytes, count);
    require(code == TINYFL_OK || code == TINYFL_EPLAN, "open gave a code that it does not document");
    if (code != TINYFL_OK) {
        refused++;
        return;
    }
    require(program.arena_bytes <= TINYFL_MAX_PROGRAM && program.input.offset + program.input.bytes <= program.arena_bytes &&
                program.output.offset + program.output.bytes <= program.arena_bytes,
            "input or output leave the arena");
    if (program.work > MAX_STEPS || program.arena_bytes > 1u << 24) {
        too_long++;
        return;
    }
    unsigned char *arena = room(program.arena_bytes);
    for (size_t i = 0; i < program.arena_bytes; i++)
        arena[i] = (unsigned char)draw();
    if (program.arena_bytes > 0)
        require(tinyfl_program_run(&program, arena, program.arena_bytes - 1) == TINYFL_EMEMORY, "a small arena was taken");
    require(tinyfl_program_run(&program, arena, program.arena_bytes) == TINYFL_OK, "an open program did not run");
    free(arena);
    ran++;
}

/* One to four times: a bit, a byte, a word at its place or anywhere, a word moved, or the end cut off. */
static size_t damage(unsigned char *bytes, size_t count)
{
    static const uint32_t edges[] = {0,      1,       2,          0x7f,        0x80,        0xff,
                                     0xffff, 0x10000, 0x7fffffff, 0x80000000u, 0xfffffffeu, 0xffffffffu};
    for (uint32_t n = 1 + below(4); n > 0; n--) {
        const uint32_t span = below(2) ? (uint32_t)count : (uint32_t)(count < 700 ? count : 700);
        const uint32_t at = below(span), aligned = at & ~3u;
        uint32_t word = below(2) ? edges[below(sizeof edges / sizeof *edges)] : draw() >> below(32);
        switch (below(7)) {
        case 0:
            bytes[at] ^= (unsigned char)(1u << below(8));
            break;
        case 1:
            bytes[at] = (unsigned char)draw();
            break;
        case 2:
        case 3:
            if (aligned + 4 <= count)
                memcpy(bytes + aligned, &word, 4);
            break;
        case 4:
            if (aligned + 4 <= count) {
                memcpy(&word, bytes + (below((uint32_t)count - 3) & ~3u), 4);
                memcpy(bytes + aligned, &word, 4);
            }
            break;
        case 5:
            if (at + 2 <= count)
                memcpy(bytes + at, &word, 2);
            break;
        default:
            if (below(8) == 0) {
                count = at < 4 ? count : at;
                word = (uint32_t)count; /* and the header says so */
                if (count >= 12)
                    memcpy(bytes + 8, &word, 4);
            }
            break;
        }
    }
    return count;
}

static unsigned char *contents(const char *path, size_t *count)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0)
        exit(2);
    *count = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = room(*count);
    if (fread(bytes, 1, *count, file) != *count)
        exit(2);
    fclose(file);
    return bytes;
}

/* What a careless caller is told. */
static void misuse(const unsigned char *bytes, size_t count)
{
    tinyfl_program program;
    unsigned char *moved = room(count + 1), arena[8];
    memcpy(moved + 1, bytes, count);
    require(tinyfl_program_open(NULL, bytes, count) == TINYFL_EINVAL, "open took no program");
    require(tinyfl_program_open(&program, NULL, count) == TINYFL_EINVAL, "open took no bytes");
    require(tinyfl_program_open(&program, moved + 1, count) == TINYFL_EINVAL, "open took bytes that are not aligned");
    require(tinyfl_program_open(&program, bytes, count) == TINYFL_OK, "a good program was refused");
    require(tinyfl_program_run(NULL, arena, sizeof arena) == TINYFL_EINVAL, "run took no program");
    require(tinyfl_program_run(&program, NULL, sizeof arena) == TINYFL_EINVAL, "run took no arena");
    free(moved);
}

static void from_files(int count, char **paths, unsigned long wanted)
{
    unsigned char *originals[MAX_FILES];
    size_t sizes[MAX_FILES];
    if (count > MAX_FILES)
        exit(2);
    for (int i = 0; i < count; i++) {
        originals[i] = contents(paths[i], &sizes[i]);
        misuse(originals[i], sizes[i]);
        attempt(originals[i], sizes[i]);
    }
    for (; wanted > 0; wanted--) {
        const uint32_t which = below((uint32_t)count);
        unsigned char *scratch = room(sizes[which]);
        memcpy(scratch, originals[which], sizes[which]);
        const size_t left = damage(scratch, sizes[which]);
        unsigned char *exact = room(left);
        memcpy(exact, scratch, left);
        attempt(exact, left);
        free(exact);
        free(scratch);
    }
    for (int i = 0; i < count; i++)
        free(originals[i]);
}

static void from_input(void)
{
    uint32_t count;
    while (fread(&count, sizeof count, 1, stdin) == 1) {
        unsigned char *bytes = room(count);
        if (fread(bytes, 1, count, stdin) != count)
            exit(2);
        attempt(bytes, count);
        free(bytes);
    }
}

int main(int count, char **arguments)
{
    state = 2463534242u;
    if (count == 2) {
        from_input();
    } else if (count > 3) {
        state ^= (uint32_t)strtoul(arguments[1], NULL, 10) * 2654435761u;
        from_files(count - 3, arguments + 3, strtoul(arguments[2], NULL, 10));
    } else {
        return 2;
    }
    printf("refused %lu ran %lu too_long %lu\n", refused, ran, too_long);
    return 0;
}
