/* Element-wise ops over a grid of values, and reductions. */
#include "fixed.h"
#include "program_ops.h"

static int32_t scaled(const tinyfl_op *op, int operand, int32_t value)
{
    return rescale(value, op->as.grid.multiplier[operand], op->shift[operand]);
}

/* Both inputs are first rescaled to a common scale, with 20 extra bits. */
static int8_t add(const tinyfl_op *op, int8_t a, int8_t b)
{
    const int32_t left = scaled(op, 0, (a - op->zero[0]) * (1 << 20));
    const int32_t right = scaled(op, 1, (b - op->zero[1]) * (1 << 20));
    return tinyfl_op_output(op, scaled(op, 2, wrap_add(left, right)));
}

static int8_t multiply(const tinyfl_op *op, int8_t a, int8_t b)
{
    return tinyfl_op_output(op, scaled(op, 2, (a - op->zero[0]) * (b - op->zero[1])));
}

/* A row of the innermost dimension. */
static void row(const tinyfl_op *op, const int8_t *a, const int8_t *b, int8_t *out, size_t out_stride)
{
    const size_t a_stride = op->as.grid.a_strides[3], b_stride = op->as.grid.b_strides[3];
    for (size_t i = 0; i < op->as.grid.dims[3]; i++) {
        const int8_t value = a[i * a_stride];
        int8_t *to = &out[i * out_stride];
        switch (op->kind) {
        case TINYFL_OP_ADD:
            *to = add(op, value, b[i * b_stride]);
            break;
        case TINYFL_OP_MULTIPLY:
            *to = multiply(op, value, b[i * b_stride]);
            break;
        case TINYFL_OP_TABLE:
            *to = b[value + 128];
            break;
        default:
            *to = value;
            break;
        }
    }
}

/* Sums and products write a contiguous output; copies and tables use b's strides for it. */
static void rows(const tinyfl_op *op, const int8_t *a, const int8_t *b, int8_t *out)
{
    const tinyfl_grid *g = &op->as.grid;
    const int dense = op->kind <= TINYFL_OP_MULTIPLY;
    for (size_t i = 0; i < g->dims[0]; i++)
        for (size_t j = 0; j < g->dims[1]; j++)
            for (size_t k = 0; k < g->dims[2]; k++) {
                const size_t from = i * g->a_strides[0] + j * g->a_strides[1] + k * g->a_strides[2];
                const size_t other = i * g->b_strides[0] + j * g->b_strides[1] + k * g->b_strides[2];
                if (dense) {
                    row(op, a + from, b + other, out, 1);
                    out += g->dims[3];
                } else {
                    row(op, a + from, b, out + other, g->b_strides[3]);
                }
            }
}

/* Over the two inner dimensions, for each element of the two outer ones. */
static void mean(const tinyfl_op *op, const int8_t *a, int8_t *out)
{
    const tinyfl_grid *g = &op->as.grid;
    for (size_t i = 0; i < g->dims[0]; i++)
        for (size_t j = 0; j < g->dims[1]; j++) {
            const int8_t *from = a + i * g->a_strides[0] + j * g->a_strides[1];
            uint32_t sum = 0;
            for (size_t k = 0; k < g->dims[2]; k++)
                for (size_t l = 0; l < g->dims[3]; l++)
                    sum += (uint32_t)(from[k * g->a_strides[2] + l * g->a_strides[3]] - op->zero[0]);
            *out++ = tinyfl_op_output(op, scaled(op, 2, (int32_t)sum));
        }
}

/* exp(a - most) in units of 2^-31; 0 if the difference exceeds the second multiplier. */
static int32_t exponential(const tinyfl_op *op, int32_t a, int32_t most)
{
    const int32_t difference = most - a;
    return difference <= op->as.grid.multiplier[1] ? exp_of_negative(scaled(op, 0, -difference)) : 0;
}

static void softmax_row(const tinyfl_op *op, const int8_t *a, int8_t *out)
{
    const size_t count = op->as.grid.dims[1];
    int32_t most = INT8_MIN, sum = 0, bits = 0;
    for (size_t i = 0; i < count; i++)
        most = a[i] > most ? a[i] : most;
    for (size_t i = 0; i < count; i++)
        sum += round_shift(exponential(op, a[i], most), 12);
    while (!((uint32_t)sum >> (31 - bits)))
        bits++;
    const int32_t scale = one_over_one_plus((int32_t)(((uint32_t)sum << bits) - ((uint32_t)1 << 31)));
    for (size_t i = 0; i < count; i++) {
        const int32_t share = high_multiply(scale, exponential(op, a[i], most));
        const int32_t value = bits < 4 ? 0 : round_shift(share, 35 - bits);
        out[i] = (int8_t)((value < 255 ? value : 255) - 128);
    }
}

static void quantize(const tinyfl_op *op, const int8_t *a, int8_t *out)
{
    float scale, value;
    memcpy(&scale, &op->as.grid.multiplier[0], sizeof scale);
    for (size_t i = 0; i < op->as.grid.dims[0]; i++) {
        memcpy(&value, a + i * sizeof value, sizeof value);
        value /= scale;
        value = value > -512.0f ? (value < 512.0f ? value : 512.0f) : -512.0f; /* NaN too */
        int32_t whole_part = (int32_t)value;
        const float rest = value - (float)whole_part;
        whole_part += (rest >= 0.5f) - (rest <= -0.5f);
        out[i] = tinyfl_op_output(op, whole_part);
    }
}

static void dequantize(const tinyfl_op *op, const int8_t *a, int8_t *out)
{
    float scale;
    memcpy(&scale, &op->as.grid.multiplier[0], sizeof scale);
    for (size_t i = 0; i < op->as.grid.dims[0]; i++) {
        const float value = scale * (float)(a[i] - op->zero[0]);
        memcpy(out + i * sizeof value, &value, sizeof value);
    }
}

void tinyfl_op_grid(const tinyfl_op *op, const int8_t *a, const int8_t *b, int8_t *out)
{
    switch (op->kind) {
    case TINYFL_OP_MEAN:
        mean(op, a, out);
        break;
    case TINYFL_OP_SOFTMAX:
        for (size_t i = 0, depth = op->as.grid.dims[1]; i < op->as.grid.dims[0]; i++)
            softmax_row(op, a + i * depth, out + i * depth);
        break;
    case TINYFL_OP_QUANTIZE:
        quantize(op, a, out);
        break;
    case TINYFL_OP_DEQUANTIZE:
        dequantize(op, a, out);
        break;
    default:
        rows(op, a, b, out);
        break;
    }
}
