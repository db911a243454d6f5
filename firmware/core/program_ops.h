/* Internal to the core: a program's records, as laid out in SPEC.md, and the functions that run them. */
#ifndef TINYFL_PROGRAM_OPS_H
#define TINYFL_PROGRAM_OPS_H

#include "program.h"
#include "real.h"

enum {
    TINYFL_OP_CONV,
    TINYFL_OP_DEPTHWISE,
    TINYFL_OP_MAX_POOL,
    TINYFL_OP_AVERAGE_POOL, /* kinds up to here have a window, the others a grid */
    TINYFL_OP_ADD,
    TINYFL_OP_MULTIPLY,
    TINYFL_OP_COPY,
    TINYFL_OP_TABLE,
    TINYFL_OP_MEAN,
    TINYFL_OP_SOFTMAX,
    TINYFL_OP_QUANTIZE,
    TINYFL_OP_DEQUANTIZE,
    TINYFL_OP_KINDS,
};

#define TINYFL_CONSTANT 0x80000000u /* flag of an operand's offset: from the program's start, not the arena's */
#define TINYFL_MAX_SOFTMAX 4095     /* values in a row: more could overflow the sum of exponentials */

/* Bias and scale of an output channel. */
typedef struct __attribute__((may_alias)) {
    int32_t bias, multiplier, shift;
} tinyfl_channel;

/* A window over an image; pairs are (rows, columns). A pixel may have more bytes than channels, as part of a wider image. */
typedef struct {
    uint16_t in[2], out[2], kernel[2], stride[2], dilation[2], pad[2];
    uint32_t in_channels, out_channels, in_pixel, out_pixel;
    uint32_t channels; /* offset of the output channels' tinyfl_channel records: a constant, without TINYFL_CONSTANT */
} tinyfl_window;

/* Up to four dimensions, the innermost last, with the bytes from one element to the next. */
typedef struct {
    int32_t multiplier[3];
    uint32_t dims[4], a_strides[4], b_strides[4];
} tinyfl_grid;

typedef struct __attribute__((may_alias)) {
    uint8_t kind;
    int8_t zero[3]; /* of a, b and the output, and so below */
    int8_t low, high;
    int8_t shift[3];
    uint8_t unused[3];
    uint32_t a, b, out;
    union {
        tinyfl_window window;
        tinyfl_grid grid;
    } as;
} tinyfl_op;

typedef char tinyfl_op_has_84_bytes[sizeof(tinyfl_op) == 84 ? 1 : -1];

/* The output's last step: zero point and fused activation. */
TINYFL_INLINE int8_t tinyfl_op_output(const tinyfl_op *op, int32_t value)
{
    value = (int32_t)((uint32_t)value + (uint32_t)op->zero[2]);
    return value < op->low ? op->low : value > op->high ? op->high : (int8_t)value;
}

/* Each runs one checked op, accessing only the bytes given by its dimensions and strides. */
void tinyfl_op_window(const tinyfl_op *op, const int8_t *in, const int8_t *weights, const tinyfl_channel *channels,
                      int8_t *out);
void tinyfl_op_grid(const tinyfl_op *op, const int8_t *a, const int8_t *b, int8_t *out);

#endif
