/* Transposes a square of floats in vector registers: element j of row i becomes element i of row j. */
#ifndef TINYFL_TURN_H
#define TINYFL_TURN_H

#include "unroll.h"

#include "real.h"

#if TINYFL_LANES > 1
#define TINYFL_SIDE TINYFL_LANES
typedef real row;
typedef mask row_index;
#else
#ifdef __AVX__
#define TINYFL_SIDE 8
#else
#define TINYFL_SIDE 4
#endif
typedef float row __attribute__((vector_size(4 * TINYFL_SIDE)));
typedef int32_t row_index __attribute__((vector_size(4 * TINYFL_SIDE)));
#endif
enum { SIDE = TINYFL_SIDE };

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (row_index){__VA_ARGS__})
#endif
#define EACH(index, count) TINYFL_UNROLL for (int index = 0; index < (count); index++)

#define LIST_4(pick, at, step) pick(at, step), pick((at) + 1, step), pick((at) + 2, step), pick((at) + 3, step)
#define LIST_8(pick, at, step) LIST_4(pick, at, step), LIST_4(pick, (at) + 4, step)
#if TINYFL_SIDE == 4
#define LIST(pick, step) LIST_4(pick, 0, step)
#elif TINYFL_SIDE == 16
#define LIST(pick, step) LIST_8(pick, 0, step), LIST_8(pick, 8, step)
#else
#define LIST(pick, step) LIST_8(pick, 0, step)
#endif

/* Of two rows `step` apart, the upper right and the lower left squares of side `step` change places. */
#define UPPER(at, step) ((at) & (step) ? SIDE + (at) - (step) : (at))
#define LOWER(at, step) ((at) & (step) ? SIDE + (at) : (at) + (step))
#define SWAP(rows, step)                                                                                                      \
    EACH(i_, SIDE)                                                                                                            \
    if (!(i_ & (step))) {                                                                                                     \
        const row a_ = (rows)[i_], b_ = (rows)[i_ | (step)];                                                                  \
        (rows)[i_] = SHUFFLE(a_, b_, LIST(UPPER, step));                                                                      \
        (rows)[i_ | (step)] = SHUFFLE(a_, b_, LIST(LOWER, step));                                                             \
    }

TINYFL_INLINE void turn(row rows[SIDE])
{
    SWAP(rows, 1)
    SWAP(rows, 2)
#if TINYFL_SIDE > 4
    SWAP(rows, 4)
#endif
#if TINYFL_SIDE > 8
    SWAP(rows, 8)
#endif
}

#endif
