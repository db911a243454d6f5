/* Ops with a sliding window over an image: convolutions and pools. A dense layer is a convolution with a one-pixel window. */
#include "fixed.h"
#include "program_ops.h"

#ifdef __ARM_FEATURE_DSP
#include <arm_acle.h>
#endif

/* The taps of a window inside the image; the others contribute nothing. */
typedef struct {
    size_t first[2], count[2]; /* rows and columns */
    size_t step[2];            /* bytes from a tap to the one below, and to the right */
    const int8_t *in;          /* the pixel under the first */
} taps;

/* Taps in one direction, for the output's row or column `at`; returns the position of the first one, or 0 if there is none. */
static size_t taps_along(const tinyfl_window *w, int direction, uint32_t at, taps *t)
{
    const int dilation = w->dilation[direction], kernel = w->kernel[direction];
    const int origin = (int)(at * w->stride[direction]) - w->pad[direction];
    const int first = origin < 0 ? (-origin + dilation - 1) / dilation : 0;
    const int beyond = (w->in[direction] - origin + dilation - 1) / dilation;
    const int last = beyond < kernel ? beyond : kernel;
    t->first[direction] = t->count[direction] = 0;
    if (first >= last)
        return 0;
    t->first[direction] = (size_t)first;
    t->count[direction] = (size_t)(last - first);
    return (size_t)(origin + first * dilation);
}

#ifdef __ARM_FEATURE_DSP
TINYFL_INLINE int32_t four_at(const int8_t *bytes)
{
    int32_t four;
    memcpy(&four, bytes, sizeof four);
    return four;
}

TINYFL_INLINE int32_t turned(int32_t four) { return (int32_t)((uint32_t)four >> 8 | (uint32_t)four << 24); }

/* Four products, two per instruction: the same sum in another order, which also wraps around. */
TINYFL_INLINE uint32_t dot_of_four(int32_t even, int32_t odd, const int8_t *w, uint32_t sum)
{
    const int32_t four = four_at(w);
    return (uint32_t)__smlad(odd, __sxtb16(turned(four)), __smlad(even, __sxtb16(four), (int32_t)sum));
}
#endif

/* Adds to four dot products of the same run of inputs, so that each is loaded once; rows of weights are `apart` bytes apart. A
 * separate function, so that all its values fit into registers. */
static __attribute__((noinline)) void dot(const int8_t *x, const int8_t *w, size_t apart, size_t count, int32_t zero,
                                          uint32_t sum[4])
{
    uint32_t s0 = sum[0], s1 = sum[1], s2 = sum[2], s3 = sum[3];
    const int8_t *const end = x + count;
#ifdef __ARM_FEATURE_DSP
    const int32_t minus_zero = (int32_t)((uint32_t)-zero << 16 | ((uint32_t)-zero & 0xffff));
    for (const int8_t *const fours = x + count / 4 * 4; x < fours; x += 4, w += 4) {
        const int32_t four = four_at(x);
        const int32_t even = __sxtab16(minus_zero, four), odd = __sxtab16(minus_zero, turned(four));
        const int8_t *row = w;
        s0 = dot_of_four(even, odd, row, s0);
        s1 = dot_of_four(even, odd, row += apart, s1);
        s2 = dot_of_four(even, odd, row += apart, s2);
        s3 = dot_of_four(even, odd, row += apart, s3);
    }
#endif
    for (; x < end; x++, w++) {
        const int32_t value = *x - zero;
        s0 += (uint32_t)(value * w[0]);
        s1 += (uint32_t)(value * w[apart]);
        s2 += (uint32_t)(value * w[2 * apart]);
        s3 += (uint32_t)(value * w[3 * apart]);
    }
    sum[0] = s0, sum[1] = s1, sum[2] = s2, sum[3] = s3;
}

static int8_t channel_output(const tinyfl_op *op, uint32_t sum, const tinyfl_channel *channel)
{
    return tinyfl_op_output(op, rescale((int32_t)(sum + (uint32_t)channel->bias), channel->multiplier, channel->shift));
}

static void conv(const tinyfl_op *op, const taps *t, const int8_t *weights, const tinyfl_channel *channels, int8_t *out)
{
    const tinyfl_window *w = &op->as.window;
    const size_t depth = w->in_channels, row = w->kernel[1] * depth, volume = w->kernel[0] * row;
    /* Taps contiguous in memory form one run. */
    const int joined = t->step[1] == depth && t->count[1] > 0;
    const size_t run = joined ? depth * t->count[1] : depth, runs = joined ? 1 : t->count[1];
    const size_t count = w->out_channels, lanes = count < 4 ? 1 : 4;
    weights += t->first[0] * row + t->first[1] * depth;
    for (size_t o = 0; o < count; o += lanes) {
        if (o + lanes > count)
            o = count - lanes; /* some channels twice, as cheap as a loop over the remaining ones */
        uint32_t sum[4] = {0, 0, 0, 0};
        for (size_t y = 0; y < t->count[0]; y++)
            for (size_t x = 0; x < runs; x++)
                dot(t->in + y * t->step[0] + x * t->step[1], weights + o * volume + y * row + x * depth,
                    lanes == 4 ? volume : 0, run, op->zero[0], sum);
        for (size_t i = 0; i < lanes; i++)
            out[o + i] = channel_output(op, sum[i], &channels[o + i]);
    }
}

/* `lanes` neighbouring channels, 1 or 4. */
TINYFL_INLINE void depthwise_lanes(const tinyfl_op *op, const taps *t, size_t input, const int8_t *weights,
                                   const tinyfl_channel *channels, int8_t *out, const size_t lanes)
{
    const tinyfl_window *w = &op->as.window;
    const int32_t zero = op->zero[0];
    uint32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (size_t i = 0; i < t->count[0]; i++)
        for (size_t j = 0; j < t->count[1]; j++) {
            const int8_t *x = t->in + i * t->step[0] + j * t->step[1] + input;
            const int8_t *tap = weights + ((t->first[0] + i) * w->kernel[1] + t->first[1] + j) * w->out_channels;
            s0 += (uint32_t)((x[0] - zero) * tap[0]);
            if (lanes == 4) {
                s1 += (uint32_t)((x[1] - zero) * tap[1]);
                s2 += (uint32_t)((x[2] - zero) * tap[2]);
                s3 += (uint32_t)((x[3] - zero) * tap[3]);
            }
        }
    const uint32_t sum[4] = {s0, s1, s2, s3};
    for (size_t i = 0; i < lanes; i++)
        out[i] = channel_output(op, sum[i], &channels[i]);
}

static void depthwise(const tinyfl_op *op, const taps *t, const int8_t *weights, const tinyfl_channel *channels, int8_t *out)
{
    const size_t count = op->as.window.out_channels, multiplier = count / op->as.window.in_channels;
    size_t o = 0;
    if (multiplier == 1)
        for (; o + 4 <= count; o += 4)
            depthwise_lanes(op, t, o, weights + o, channels + o, out + o, 4);
    for (; o < count; o++)
        depthwise_lanes(op, t, o / multiplier, weights + o, channels + o, out + o, 1);
}

static void pool(const tinyfl_op *op, const taps *t, int8_t *out)
{
    const int32_t count = (int32_t)(t->count[0] * t->count[1]);
    for (size_t c = 0; c < op->as.window.out_channels; c++) {
        int32_t sum = 0, most = INT8_MIN;
        for (size_t i = 0; i < t->count[0]; i++)
            for (size_t j = 0; j < t->count[1]; j++) {
                const int8_t x = t->in[i * t->step[0] + j * t->step[1] + c];
                sum = wrap_add(sum, x);
                most = x > most ? x : most;
            }
        if (op->kind == TINYFL_OP_AVERAGE_POOL) /* rounded to nearest, halves away from 0 */
            most = wrap_add(sum, sum > 0 ? count / 2 : -(count / 2)) / count;
        out[c] = tinyfl_op_output(op, most);
    }
}

void tinyfl_op_window(const tinyfl_op *op, const int8_t *in, const int8_t *weights, const tinyfl_channel *channels,
                      int8_t *out)
{
    const tinyfl_window *w = &op->as.window;
    const size_t line = (size_t)w->in[1] * w->in_pixel;
    taps t = {.step = {w->dilation[0] * line, (size_t)w->dilation[1] * w->in_pixel}};
    for (uint32_t y = 0; y < w->out[0]; y++) {
        const size_t top = taps_along(w, 0, y, &t);
        for (uint32_t x = 0; x < w->out[1]; x++) {
            const size_t left = taps_along(w, 1, x, &t);
            int8_t *pixel = out + ((size_t)y * w->out[1] + x) * w->out_pixel;
            t.in = in + top * line + left * w->in_pixel;
            if (op->kind == TINYFL_OP_CONV)
                conv(op, &t, weights, channels, pixel);
            else if (op->kind == TINYFL_OP_DEPTHWISE)
                depthwise(op, &t, weights, channels, pixel);
            else
                pool(op, &t, pixel);
        }
    }
}
