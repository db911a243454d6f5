/* The number type inside the core, with short names; never included by a public header.
 *
 * On a board `real` is float. On a host it may be a vector of 4, 8 or 16 floats whose lanes are different devices in
 * lockstep: the same operations in the same order per lane, so each lane is bit-identical to a board.
 * Set TINYFL_LANES before including. Arithmetic uses plain operators; data-dependent choices use the
 * functions below, since a vector comparison gives a mask, for which C has no ?:.
 *
 *   tinyfl_word   32 bits, unsigned, per lane (`word` alone is Arduino's)
 *   mask          a comparison's result: combine with &, never with &&
 */
#ifndef TINYFL_REAL_H
#define TINYFL_REAL_H

#include <float.h>
#include <string.h>

#include "tinyfl.h"

#if FLT_EVAL_METHOD == 1 || FLT_EVAL_METHOD == 2
#error "float is computed with excess precision here (x87), which gives other bits: build for SSE or another target"
#endif

#ifndef TINYFL_UNROLL
#define TINYFL_UNROLL /* before a loop that a host unrolls; on a board it would cost flash */
#endif

#define TINYFL_INLINE static inline __attribute__((always_inline, unused))

typedef tinyfl_real real;
typedef tinyfl_mask mask;

#if TINYFL_LANES == 1

typedef int32_t whole;

TINYFL_INLINE real where(mask m, real yes, real no) { return m ? yes : no; }
TINYFL_INLINE int any(mask m) { return m; }
TINYFL_INLINE mask none(void) { return 0; }
TINYFL_INLINE mask every(void) { return 1; }
TINYFL_INLINE real real_of(float value) { return value; }
TINYFL_INLINE tinyfl_word word_of(uint32_t value) { return value; }
TINYFL_INLINE real to_real(whole value) { return (real)value; }
TINYFL_INLINE whole truncated(real value) { return (whole)value; }
TINYFL_INLINE float lane(real value, int index) { (void)index; return value; }
TINYFL_INLINE int lane_of_mask(mask m, int index) { (void)index; return m; }
TINYFL_INLINE void set_lane(real *value, int index, float to) { (void)index; *value = to; }
TINYFL_INLINE void set_word(tinyfl_word *value, int index, uint32_t to) { (void)index; *value = to; }
TINYFL_INLINE uint32_t lane_of_word(tinyfl_word value, int index) { (void)index; return value; }

#else

typedef mask whole;

TINYFL_INLINE real where(mask m, real yes, real no) { return (real)((m & (mask)yes) | (~m & (mask)no)); }
TINYFL_INLINE int any(mask m)
{
    int32_t bits = 0;
    for (int i = 0; i < TINYFL_LANES; i++)
        bits |= m[i];
    return bits != 0;
}
TINYFL_INLINE mask none(void) { return (mask){0}; }
TINYFL_INLINE mask every(void) { return ~none(); }
TINYFL_INLINE real real_of(float value) { return value - (real){0}; }
TINYFL_INLINE tinyfl_word word_of(uint32_t value) { return value - (tinyfl_word){0}; }
TINYFL_INLINE real to_real(whole value) { return __builtin_convertvector(value, real); }
TINYFL_INLINE whole truncated(real value) { return __builtin_convertvector(value, whole); }
TINYFL_INLINE float lane(real value, int index) { return value[index]; }
TINYFL_INLINE int lane_of_mask(mask m, int index) { return m[index] != 0; }
TINYFL_INLINE void set_lane(real *value, int index, float to) { (*value)[index] = to; }
TINYFL_INLINE void set_word(tinyfl_word *value, int index, uint32_t to) { (*value)[index] = to; }
TINYFL_INLINE uint32_t lane_of_word(tinyfl_word value, int index) { return value[index]; }

#endif

TINYFL_INLINE tinyfl_word bits_of(real value)
{
    tinyfl_word bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

TINYFL_INLINE real from_bits(tinyfl_word bits)
{
    real value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* A float in [0, 1) from the upper 24 bits of a word. */
TINYFL_INLINE real uniform(tinyfl_word bits) { return to_real((whole)(bits >> 8)) * 5.9604644775390625e-8f; }

TINYFL_INLINE real magnitude(real value) { return from_bits(bits_of(value) & word_of(0x7fffffffu)); }
TINYFL_INLINE real larger(real a, real b) { return where(a > b, a, b); }

/* The guard: NaN and infinity fail it too. */
static __attribute__((unused)) mask below(const real *values, size_t count, float limit)
{
    mask ok = every();
    for (size_t i = 0; i < count; i++)
        ok &= magnitude(values[i]) < limit;
    return ok;
}

#endif
