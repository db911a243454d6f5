/* Codecs. Nothing is written before it was read, so that a board encodes and decodes in place. */
#include "codec.h"

#include "shape.h"

enum { SCALE = sizeof(float), GAP = 255 }; /* GAP: a pair of TINYFL_CODEC_TOP that skips as many weights, and has no value */

static uint32_t float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_at(const uint8_t *bytes)
{
    float value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

/* The bits of a value's magnitude, in its order. Those of NaN and infinity are the largest. */
static uint32_t magnitude_bits(float value) { return float_bits(value) & 0x7fffffffu; }

#define LIMIT_BITS 0x58800000u /* of TINYFL_LIMIT */
#define LEAST_BITS 0x0d800000u /* of 2^-100, below which the reciprocal of a scale would overflow */

/* The nearest whole number, ties to even, of a value below 2^22. */
static int nearest(float value)
{
    const float shifted = value + 12582912.0f; /* 1.5 x 2^23: floats are whole numbers there */
    return (int)(float_bits(shifted) & 0x7fffffu) - 0x400000;
}

/* The arrays of some layers, in order: kernel, bias, kernel, ... */
typedef struct {
    const tinyfl_plan *plan;
    uint64_t layers;
    size_t layer;
    int bias;
} arrays;

/* Number of weights of the next array; 0 after the last. */
static size_t next_array(arrays *a)
{
    for (; a->layer < a->plan->count; a->layer++) {
        const tinyfl_layer *l = &a->plan->layers[a->layer];
        const size_t kernel = a->layers >> a->layer & 1 ? tinyfl_kernel_weights(l) : 0;
        if (kernel && !a->bias) {
            a->bias = 1;
            return kernel;
        }
        a->bias = 0;
        if (kernel) {
            a->layer++;
            return l->outputs;
        }
    }
    return 0;
}

static size_t weights_of(const tinyfl_plan *plan, uint64_t layers)
{
    arrays a = {plan, layers, 0, 0};
    size_t total = 0;
    for (size_t n = next_array(&a); n; n = next_array(&a))
        total += n;
    return total;
}

static size_t chosen(const tinyfl_codec *codec, size_t weights)
{
    return (size_t)(((uint64_t)weights * codec->share + TINYFL_WHOLE - 1) / TINYFL_WHOLE);
}

TINYFL_API int tinyfl_codec_check(const tinyfl_codec *codec)
{
    if (!codec || codec->kind >= TINYFL_CODECS || codec->share > TINYFL_WHOLE)
        return TINYFL_EINVAL;
    return (codec->kind == TINYFL_CODEC_TOP) == (codec->share > 0) ? TINYFL_OK : TINYFL_EINVAL;
}

/* The form of an array of n weights. A single one is a float, which is shorter than a scale and a whole number. */
static int form_of(const tinyfl_codec *codec, size_t n)
{
    return n == 1 && codec->kind > TINYFL_CODEC_FP16 ? TINYFL_CODEC_FP32 : codec->kind;
}

static int has_scale(int form) { return form > TINYFL_CODEC_FP16; }

static size_t array_bytes(int form, size_t n)
{
    switch (form) {
    case TINYFL_CODEC_FP32:
        return 4 * n;
    case TINYFL_CODEC_FP16:
        return 2 * n;
    case TINYFL_CODEC_INT4:
        return (n + 1) / 2 + SCALE;
    default:
        return n + SCALE;
    }
}

TINYFL_API size_t tinyfl_codec_bytes(const tinyfl_codec *codec, const tinyfl_plan *plan, uint64_t layers)
{
    if (codec->kind == TINYFL_CODEC_TOP) {
        const size_t weights = weights_of(plan, layers), k = chosen(codec, weights);
        return 2 * (k + (weights - k) / GAP) + SCALE;
    }
    arrays a = {plan, layers, 0, 0};
    size_t total = 0;
    for (size_t n = next_array(&a); n; n = next_array(&a))
        total += array_bytes(form_of(codec, n), n);
    return total;
}

static uint16_t half_of(float value)
{
    const uint32_t bits = magnitude_bits(value), sign = float_bits(value) >> 16 & 0x8000u;
    if (bits > 0x477fe000u) /* 65504, the largest */
        return (uint16_t)(sign | 0x7bffu);
    if (bits < 0x38800000u) { /* below 2^-14 halves are multiples of 2^-24, and so are floats from 0.5 to 1 */
        const float shifted = (value < 0 ? -value : value) + 0.5f;
        return (uint16_t)(sign | (float_bits(shifted) - 0x3f000000u));
    }
    return (uint16_t)(sign | (bits - 0x38000000u + 0xfffu + (bits >> 13 & 1)) >> 13);
}

static float half_at(const uint8_t *bytes)
{
    const uint32_t half = bytes[0] | (uint32_t)bytes[1] << 8, magnitude = half & 0x7fffu;
    const uint32_t bits = (magnitude << 13) + 0x38000000u;
    float value = magnitude < 0x400u ? (float)magnitude * 0x1p-24f : 0.0f;
    if (magnitude >= 0x400u)
        memcpy(&value, &bits, sizeof value);
    return half & 0x8000u ? -value : value;
}

/* The scale of an array whose largest whole number is `top`, and what values are multiplied by. */
typedef struct {
    float scale, inverse;
} scaling;

static scaling scaling_of(const float *values, size_t n, float top)
{
    uint32_t most = 0;
    for (size_t i = 0; i < n; i++)
        most = magnitude_bits(values[i]) > most ? magnitude_bits(values[i]) : most;
    float largest;
    memcpy(&largest, &most, sizeof largest);
    return most < LEAST_BITS ? (scaling){0.0f, 0.0f} : (scaling){largest / top, top / largest};
}

static void encode_array(int form, const float *values, size_t n, uint8_t *bytes)
{
    const scaling s = scaling_of(values, has_scale(form) ? n : 0, form == TINYFL_CODEC_INT4 ? 7.0f : 127.0f);
    for (size_t i = 0; i < n; i++) {
        if (form == TINYFL_CODEC_FP32) {
            memmove(bytes + 4 * i, values + i, sizeof *values);
        } else if (form == TINYFL_CODEC_FP16) {
            const uint16_t half = half_of(values[i]);
            memcpy(bytes + 2 * i, &half, sizeof half);
        } else {
            const int q = nearest(values[i] * s.inverse);
            if (form == TINYFL_CODEC_INT8)
                bytes[i] = (uint8_t)q;
            else
                bytes[i / 2] = (uint8_t)(i % 2 ? bytes[i / 2] | q * 16 : q & 15);
        }
    }
    if (has_scale(form))
        memcpy(bytes + array_bytes(form, n) - SCALE, &s.scale, SCALE);
}

/* The bits of the k-th largest magnitude, 4 at a time from the top; `ties`: how many of that magnitude are among the k. */
static uint32_t threshold(const float *values, size_t n, size_t k, size_t *ties)
{
    uint32_t found = 0;
    for (int shift = 28; shift >= 0; shift -= 4) {
        size_t counts[16] = {0};
        for (size_t i = 0; i < n; i++)
            if (((uint64_t)(magnitude_bits(values[i]) ^ found) >> (shift + 4)) == 0)
                counts[magnitude_bits(values[i]) >> shift & 15]++;
        uint32_t digit = 15;
        for (; k > counts[digit]; digit--)
            k -= counts[digit];
        found |= digit << shift;
    }
    *ties = k;
    return found;
}

static size_t encode_top(const tinyfl_codec *codec, const float *values, size_t n, uint8_t *bytes)
{
    size_t ties, gap = 0;
    const uint32_t least = threshold(values, n, chosen(codec, n), &ties);
    const scaling s = scaling_of(values, n, 127.0f);
    uint8_t *next = bytes;
    for (size_t i = 0; i < n; i++) {
        const float value = values[i];
        const uint32_t bits = magnitude_bits(value);
        if (bits < least || (bits == least && ties == 0)) {
            gap++;
            continue;
        }
        ties -= bits == least;
        for (; gap >= GAP; gap -= GAP) {
            *next++ = GAP;
            *next++ = 0;
        }
        *next++ = (uint8_t)gap;
        *next++ = (uint8_t)nearest(value * s.inverse);
        gap = 0;
    }
    memcpy(next, &s.scale, SCALE);
    return (size_t)(next - bytes) + SCALE;
}

TINYFL_API int tinyfl_encode(const tinyfl_codec *codec, const tinyfl_plan *plan, uint64_t layers, const float *values,
                             void *bytes, size_t *count)
{
    const size_t weights = weights_of(plan, layers);
    uint8_t *next = bytes;
    for (size_t i = 0; i < weights; i++)
        if (magnitude_bits(values[i]) >= LIMIT_BITS)
            return TINYFL_ENUMERIC;
    if (codec->kind == TINYFL_CODEC_TOP) {
        *count = encode_top(codec, values, weights, bytes);
        return TINYFL_OK;
    }
    arrays a = {plan, layers, 0, 0};
    for (size_t n = next_array(&a); n; values += n, n = next_array(&a)) {
        encode_array(form_of(codec, n), values, n, next);
        next += array_bytes(form_of(codec, n), n);
    }
    *count = (size_t)(next - (uint8_t *)bytes);
    return TINYFL_OK;
}

/* The value at index i of an array, without its scale. */
static float value_at(int form, const uint8_t *bytes, size_t i)
{
    switch (form) {
    case TINYFL_CODEC_FP32:
        return float_at(bytes + 4 * i);
    case TINYFL_CODEC_FP16:
        return half_at(bytes + 2 * i);
    case TINYFL_CODEC_INT4:
        return (float)(((bytes[i / 2] >> i % 2 * 4 & 15) ^ 8) - 8);
    default:
        return (float)((bytes[i] ^ 128) - 128);
    }
}

static int good_scale(const uint8_t *bytes) { return float_bits(float_at(bytes)) < LIMIT_BITS; } /* with a sign it is above */

static int check_array(int form, const uint8_t *bytes, size_t n)
{
    static const float bounds[] = {TINYFL_LIMIT, 65536.0f, 128.0f, 8.0f};
    for (size_t i = 0; i < n; i++)
        if (magnitude_bits(value_at(form, bytes, i)) >= float_bits(bounds[form]))
            return TINYFL_EVALUE;
    if (form == TINYFL_CODEC_INT4 && n % 2 && bytes[n / 2] >> 4)
        return TINYFL_EVALUE;
    return !has_scale(form) || good_scale(bytes + array_bytes(form, n) - SCALE) ? TINYFL_OK : TINYFL_ESCALE;
}

static void add_array(int form, const uint8_t *bytes, size_t n, float factor, float *values)
{
    const float scale = has_scale(form) ? float_at(bytes + array_bytes(form, n) - SCALE) : 1.0f;
    for (size_t i = 0; i < n; i++)
        values[i] += factor * (value_at(form, bytes, i) * scale);
}

static int check_top(const tinyfl_codec *codec, const uint8_t *bytes, size_t count, size_t weights)
{
    size_t left = chosen(codec, weights), index = 0;
    if (count % 2 || count < SCALE)
        return TINYFL_ELENGTH;
    for (const uint8_t *pair = bytes, *end = bytes + count - SCALE; pair < end; pair += 2) {
        const int skips = pair[0] == GAP;
        index += pair[0];
        if (left == 0)
            return TINYFL_ELENGTH;
        if (index >= weights)
            return TINYFL_EINDEX;
        if (pair[1] == 128 || (skips && pair[1]))
            return TINYFL_EVALUE;
        left -= !skips;
        index += !skips;
    }
    if (left > 0)
        return TINYFL_ELENGTH;
    return good_scale(bytes + count - SCALE) ? TINYFL_OK : TINYFL_ESCALE;
}

static void add_top(const uint8_t *bytes, size_t count, float factor, float *values)
{
    const float scale = float_at(bytes + count - SCALE);
    for (size_t at = 0; at < count - SCALE; at += 2) {
        values += bytes[at];
        if (bytes[at] != GAP)
            *values++ += factor * (value_at(TINYFL_CODEC_INT8, bytes, at + 1) * scale);
    }
}

static int check_bytes(const tinyfl_codec *codec, const tinyfl_plan *plan, uint64_t layers, const uint8_t *bytes, size_t count)
{
    if (codec->kind == TINYFL_CODEC_TOP)
        return check_top(codec, bytes, count, weights_of(plan, layers));
    if (count != tinyfl_codec_bytes(codec, plan, layers))
        return TINYFL_ELENGTH;
    arrays a = {plan, layers, 0, 0};
    int code = TINYFL_OK;
    for (size_t n = next_array(&a); n && code == TINYFL_OK; n = next_array(&a)) {
        code = check_array(form_of(codec, n), bytes, n);
        bytes += array_bytes(form_of(codec, n), n);
    }
    return code;
}

TINYFL_API int tinyfl_decode(const tinyfl_codec *codec, const tinyfl_plan *plan, uint64_t layers, const void *bytes,
                             size_t count, float factor, float *values)
{
    const int code = check_bytes(codec, plan, layers, bytes, count);
    if (code != TINYFL_OK)
        return code;
    if (codec->kind == TINYFL_CODEC_TOP) {
        add_top(bytes, count, factor, values);
        return TINYFL_OK;
    }
    const uint8_t *next = bytes;
    arrays a = {plan, layers, 0, 0};
    for (size_t n = next_array(&a); n; values += n, n = next_array(&a)) {
        add_array(form_of(codec, n), next, n, factor, values);
        next += array_bytes(form_of(codec, n), n);
    }
    return TINYFL_OK;
}

/* Decodes an array from its last value on, since a value is longer than its bytes. */
static void decode_array(int form, const uint8_t *bytes, size_t n, float *values)
{
    const float scale = has_scale(form) ? float_at(bytes + array_bytes(form, n) - SCALE) : 1.0f;
    while (n-- > 0) {
        const float value = value_at(form, bytes, n) * scale + 0.0f;
        memcpy(values + n, &value, sizeof value);
    }
}

TINYFL_API int tinyfl_decode_in_place(const tinyfl_codec *codec, const tinyfl_plan *plan, uint64_t layers, float *values,
                                      size_t count)
{
    uint8_t *bytes = (uint8_t *)values;
    const int code = codec->kind == TINYFL_CODEC_TOP ? TINYFL_EINVAL : check_bytes(codec, plan, layers, bytes, count);
    if (code != TINYFL_OK)
        return code;
    bytes += count;
    values += weights_of(plan, layers);
    for (size_t i = plan->count; i-- > 0;) {
        const size_t kernel = layers >> i & 1 ? tinyfl_kernel_weights(&plan->layers[i]) : 0;
        const size_t parts[] = {kernel ? plan->layers[i].outputs : 0, kernel}; /* from the end: the bias, then the kernel */
        for (int part = 0; part < 2 && kernel; part++) {
            const int form = form_of(codec, parts[part]);
            bytes -= array_bytes(form, parts[part]);
            values -= parts[part];
            decode_array(form, bytes, parts[part], values);
        }
    }
    return TINYFL_OK;
}
