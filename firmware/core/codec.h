/* Codecs: weights, or a change of them, as fewer bytes and back (SPEC.md, codecs).
 *
 * The vector holds the weights of some layers of a plan, together: of each its kernel and its bias, an array each. The plan
 * must be checked already. The caller owns all memory. Functions that can fail return TINYFL_OK or a negative code; on failure
 * nothing has changed. */
#ifndef TINYFL_CODEC_H
#define TINYFL_CODEC_H

#include "tinyfl.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What is wrong with encoded bytes. */
enum {
    TINYFL_ELENGTH = -7, /* too few or too many */
    TINYFL_EINDEX = -8,  /* an index beyond the vector */
    TINYFL_ESCALE = -9,  /* a scale is negative, NaN, or not below TINYFL_LIMIT */
    TINYFL_EVALUE = -10, /* a value is not finite, not below TINYFL_LIMIT, or none that the encoder writes */
};

/* TINYFL_OK or TINYFL_EINVAL. */
TINYFL_API int tinyfl_codec_check(const tinyfl_codec *codec);

/* The most bytes that a checked codec makes of these layers' weights: at most 4 for each weight. Only TINYFL_CODEC_TOP may make
 * fewer. */
TINYFL_API size_t tinyfl_codec_bytes(const tinyfl_codec *codec, const tinyfl_plan *plan, uint64_t layers);

/* Encodes `values`, one for each weight of `layers`, which must have at least one.
 *   bytes  tinyfl_codec_bytes; may be at the place of `values`
 *   count  gets the number of bytes written
 * TINYFL_ENUMERIC: a value is not finite, or not below TINYFL_LIMIT. */
TINYFL_API int tinyfl_encode(const tinyfl_codec *codec, const tinyfl_plan *plan, uint64_t layers, const float *values,
                             void *bytes, size_t *count);

/* Adds the decoded values, times `factor`, to `values`: 1 adds a change, -1 leaves what the encoder lost. Any bytes are safe:
 * TINYFL_OK, or what is wrong with them. */
TINYFL_API int tinyfl_decode(const tinyfl_codec *codec, const tinyfl_plan *plan, uint64_t layers, const void *bytes,
                             size_t count, float factor, float *values);

/* Puts the decoded values in the place of their bytes, which begin where `values` do. Not of TINYFL_CODEC_TOP. As safe. */
TINYFL_API int tinyfl_decode_in_place(const tinyfl_codec *codec, const tinyfl_plan *plan, uint64_t layers, float *values,
                                      size_t count);

#ifdef __cplusplus
}
#endif

#endif
