/* Tiles: what the host's kernels are made of (dense_tiles.h, conv_tiles.h).
 *
 * A tile is a rectangle of independent sums in registers, so that a value once loaded serves a whole row or column of them.
 * Each sum has its terms in the order of its plain twin in firmware/core, so tiles give the same bits.
 *
 * A chunk is what a tile holds of `CHUNK` neighbouring sums. With several lanes it is one real, which is a vector of devices.
 * With one lane it is a vector of 4 or 8 neighbouring outputs of one device. Then the last chunk of a row may reach beyond it:
 * loads need readable memory behind weights and values (tinyfl_engine_padding), and stores leave out what is not there. */
#ifndef TINYFL_TILES_H
#define TINYFL_TILES_H

#include "shape.h"
#include "turn.h"

#if TINYFL_LANES > 1
enum { CHUNK = 1 };
typedef real chunk, chunk_in_memory;
#else
enum { CHUNK = SIDE };
typedef row chunk;
typedef float chunk_in_memory __attribute__((vector_size(4 * TINYFL_SIDE), aligned(4), may_alias));
#endif

/* TILE x BLOCK sums, or ROW in a single row. Vector registers: 32 of AVX-512 and NEON, else 16. */
#if defined(__AVX512VL__) || defined(__aarch64__)
#define TINYFL_REGISTERS 32
#else
#define TINYFL_REGISTERS 16
#endif
#if TINYFL_REGISTERS == 16
enum { TILE = 3, BLOCK = 4 };
#elif TINYFL_LANES > 1
enum { TILE = 3, BLOCK = 8 };
#else
enum { TILE = 6, BLOCK = 4 };
#endif
enum { ROW = 8 };

/* Runs `call` for blocks of up to `most` chunks from `at` on, until `size` reals are done. In `call`, `block` is a constant. */
#define FOR_BLOCKS(at, most, size, call)                                                                                      \
    for (size_t at = 0, chunks_; (chunks_ = ((size) - at + CHUNK - 1) / CHUNK) > 0;)                                          \
        if ((most) >= 8 && chunks_ >= 8) {                                                                                    \
            enum { block = 8 };                                                                                               \
            call;                                                                                                             \
            at += 8 * CHUNK;                                                                                                  \
        } else if (chunks_ >= 4) {                                                                                            \
            enum { block = 4 };                                                                                               \
            call;                                                                                                             \
            at += 4 * CHUNK;                                                                                                  \
        } else {                                                                                                              \
            enum { block = 1 };                                                                                               \
            call;                                                                                                             \
            at += CHUNK;                                                                                                      \
        }

TINYFL_INLINE chunk chunk_at(const real *from) { return *(const chunk_in_memory *)from; }
TINYFL_INLINE chunk chunk_of(float value) { return value - (chunk){0}; }

/* Keeps a value in a register: compilers rather load it anew for each of its uses, and loads are what limits a tile. */
#if TINYFL_REGISTERS == 32 && defined(__AVX512VL__)
#define KEEP(value) __asm__("" : "+v"(value))
#elif defined(__x86_64__) && (TINYFL_LANES == 4 || defined(__AVX__))
#define KEEP(value) __asm__("" : "+x"(value))
#elif defined(__aarch64__) && TINYFL_LANES == 4
#define KEEP(value) __asm__("" : "+w"(value))
#else
#define KEEP(value) (void)(value)
#endif

/* Stores the first `count` reals of a chunk; more than CHUNK count as CHUNK. */
TINYFL_INLINE void chunk_put(real *to, chunk value, size_t count)
{
    if (count >= CHUNK)
        *(chunk_in_memory *)to = value;
#if TINYFL_LANES == 1
    else
        for (size_t i = 0; i < count; i++)
            to[i] = value[i];
#endif
}

/* CHUNK chunks of a matrix's columns: `column[j]` is element j of CHUNK rows, which are `stride` apart. */
TINYFL_INLINE void columns_at(chunk column[CHUNK], const real *rows, size_t stride)
{
#if TINYFL_LANES > 1
    (void)stride;
    column[0] = *rows;
#else
    EACH(i, CHUNK)
        column[i] = chunk_at(rows + (size_t)i * stride);
    turn(column);
#endif
}

#endif
