#include "program.h"

#include "program_ops.h"

enum { PROGRAM_HEADER = 48, PROGRAM_VERSION = 1, PROGRAM_MAGIC = 0x494c4654 /* TFLI */ };

#define TOO_MANY ((uint64_t)1 << 32) /* above every limit; a few of them can be added without overflow */

static uint32_t word_at(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static int finite_above_zero(uint32_t bits) { return bits > 0 && bits < 0x7f800000u; }

static int aligned(const void *pointer) { return pointer && (uintptr_t)pointer % 4 == 0; }

/* A product that saturates at TOO_MANY. */
static uint64_t times(uint64_t a, uint32_t b)
{
    const uint64_t product = a * b;
    return product < TOO_MANY ? product : TOO_MANY;
}

static const tinyfl_op *op_at(const tinyfl_program *program, size_t index)
{
    return (const tinyfl_op *)(const void *)(program->bytes + PROGRAM_HEADER + index * sizeof(tinyfl_op));
}

/* Whether `count` bytes from the operand's offset exist. */
static int in_arena(const tinyfl_program *program, uint32_t operand, uint64_t count)
{
    return operand + count <= program->arena_bytes;
}

static int readable(const tinyfl_program *program, uint32_t operand, uint64_t count)
{
    if (operand & TINYFL_CONSTANT)
        return (operand & ~TINYFL_CONSTANT) + count <= program->count;
    return in_arena(program, operand, count);
}

static const int8_t *operand_at(const tinyfl_program *program, const int8_t *arena, uint32_t operand)
{
    if (operand & TINYFL_CONSTANT)
        return (const int8_t *)program->bytes + (operand & ~TINYFL_CONSTANT);
    return arena + operand;
}

static int multiplier_ok(int32_t multiplier, int32_t shift) { return multiplier >= 0 && shift >= -31 && shift <= 31; }

static int channels_ok(const tinyfl_program *program, uint32_t at, uint32_t count)
{
    if (at + times(count, sizeof(tinyfl_channel)) > program->count)
        return 0;
    const tinyfl_channel *channels = (const tinyfl_channel *)(const void *)(program->bytes + at);
    for (uint32_t i = 0; i < count; i++)
        if (!multiplier_ok(channels[i].multiplier, channels[i].shift))
            return 0;
    return 1;
}

/* Bytes from the first byte of an image to its last. */
static uint64_t image_bytes(const uint16_t size[2], uint32_t channels, uint32_t pixel)
{
    return times((uint64_t)size[0] * size[1] - 1, pixel) + channels;
}

/* Whether each window begins in the image or in the padding before it, and extends past that padding. */
static int geometry_ok(const tinyfl_window *w)
{
    for (int i = 0; i < 2; i++) {
        if (!w->in[i] || !w->out[i] || !w->kernel[i] || !w->stride[i] || !w->dilation[i])
            return 0;
        const uint32_t reach = (w->kernel[i] - 1u) * w->dilation[i], last = (w->out[i] - 1u) * w->stride[i];
        if (w->pad[i] > reach || last >= (uint32_t)w->in[i] + w->pad[i])
            return 0;
    }
    return w->in_channels && w->out_channels && w->in_channels <= w->in_pixel && w->out_channels <= w->out_pixel;
}

/* Steps for each output pixel; 0 for missing weights or channels, or an invalid pool. */
static uint64_t pixel_work(const tinyfl_program *program, const tinyfl_op *op)
{
    const tinyfl_window *w = &op->as.window;
    const uint32_t window = (uint32_t)w->kernel[0] * w->kernel[1], outputs = w->out_channels;
    const uint64_t flat = times(window, outputs), deep = times(flat, w->in_channels);
    const int with_channels = channels_ok(program, w->channels, outputs);
    switch (op->kind) {
    case TINYFL_OP_CONV: /* four channels at a time */
        if (!with_channels || !readable(program, op->b, deep))
            return 0;
        return times(times(window, w->in_channels), outputs < 4 ? 4 * outputs : (outputs + 3) / 4 * 4);
    case TINYFL_OP_DEPTHWISE:
        return with_channels && outputs % w->in_channels == 0 && readable(program, op->b, flat) ? flat : 0;
    default:
        return outputs == w->in_channels && w->dilation[0] == 1 && w->dilation[1] == 1 && window <= 1u << 24 ? flat : 0;
    }
}

static uint64_t window_work(const tinyfl_program *program, const tinyfl_op *op)
{
    const tinyfl_window *w = &op->as.window;
    if (!geometry_ok(w) || w->channels % 4 != 0 || w->channels > program->count ||
        !readable(program, op->a, image_bytes(w->in, w->in_channels, w->in_pixel)) ||
        !in_arena(program, op->out, image_bytes(w->out, w->out_channels, w->out_pixel)))
        return 0;
    return times(pixel_work(program, op), (uint32_t)w->out[0] * w->out[1]);
}

/* Bytes from the first element of a grid to its last. */
static uint64_t grid_bytes(const uint32_t dims[4], const uint32_t strides[4])
{
    uint64_t bytes = 1;
    for (int i = 0; i < 4; i++)
        bytes += times(dims[i] - 1u, strides[i]);
    return bytes;
}

static uint64_t grid_work(const tinyfl_program *program, const tinyfl_op *op)
{
    const tinyfl_grid *g = &op->as.grid;
    uint64_t elements = 1;
    for (int i = 0; i < 4; i++) {
        if (g->dims[i] == 0)
            return 0;
        elements = times(elements, g->dims[i]);
    }
    uint64_t out = elements, a = grid_bytes(g->dims, g->a_strides);
    switch (op->kind) {
    case TINYFL_OP_ADD:
    case TINYFL_OP_MULTIPLY:
        if (!readable(program, op->b, grid_bytes(g->dims, g->b_strides)))
            return 0;
        break;
    case TINYFL_OP_TABLE:
        if (!readable(program, op->b, 256))
            return 0;
        out = grid_bytes(g->dims, g->b_strides);
        break;
    case TINYFL_OP_COPY:
        out = grid_bytes(g->dims, g->b_strides);
        break;
    case TINYFL_OP_MEAN:
        out = times(g->dims[0], g->dims[1]);
        break;
    case TINYFL_OP_SOFTMAX:
        if (g->dims[1] > TINYFL_MAX_SOFTMAX || op->shift[0] < 0)
            return 0;
        a = out = elements = times(g->dims[0], g->dims[1]);
        break;
    default: /* quantize and dequantize */
        if (!finite_above_zero((uint32_t)g->multiplier[0]))
            return 0;
        a = times(g->dims[0], op->kind == TINYFL_OP_QUANTIZE ? 4 : 1);
        out = times(g->dims[0], op->kind == TINYFL_OP_QUANTIZE ? 1 : 4);
        elements = g->dims[0];
        break;
    }
    return readable(program, op->a, a) && in_arena(program, op->out, out) ? elements : 0;
}

/* Steps of the inner loop; 0 for an invalid op. */
static uint64_t op_work(const tinyfl_program *program, const tinyfl_op *op)
{
    if (!readable(program, op->b, 0))
        return 0;
    if (op->kind <= TINYFL_OP_AVERAGE_POOL)
        return window_work(program, op);
    for (int i = 0; i < 3; i++)
        if (!multiplier_ok(op->as.grid.multiplier[i], op->shift[i]))
            return 0;
    return op->kind < TINYFL_OP_KINDS ? grid_work(program, op) : 0;
}

static tinyfl_tensor tensor_at(const unsigned char *bytes)
{
    tinyfl_tensor tensor = {.offset = word_at(bytes), .bytes = word_at(bytes + 4)};
    tensor.zero = (int8_t)bytes[12];
    tensor.dtype = bytes[13];
    memcpy(&tensor.scale, bytes + 8, sizeof tensor.scale);
    return tensor;
}

static int tensor_ok(const tinyfl_program *program, const tinyfl_tensor *tensor)
{
    uint32_t scale;
    memcpy(&scale, &tensor->scale, sizeof scale);
    return tensor->offset % 4 == 0 && tensor->bytes > 0 && in_arena(program, tensor->offset, tensor->bytes) &&
           tensor->dtype <= TINYFL_FLOAT32 && (tensor->dtype == TINYFL_INT8 || tensor->bytes % 4 == 0) &&
           finite_above_zero(scale);
}

TINYFL_API int tinyfl_program_open(tinyfl_program *program, const void *bytes, size_t count)
{
    if (!program || !aligned(bytes))
        return TINYFL_EINVAL;
    const unsigned char *header = bytes;
    if (count < PROGRAM_HEADER || count > TINYFL_MAX_PROGRAM || word_at(header) != PROGRAM_MAGIC ||
        header[4] != PROGRAM_VERSION || header[5] != 0 || word_at(header + 8) != count)
        return TINYFL_EPLAN;
    tinyfl_program opened = {.bytes = header,
                             .count = (uint32_t)count,
                             .arena_bytes = word_at(header + 12),
                             .ops = (uint16_t)(header[6] | header[7] << 8),
                             .input = tensor_at(header + 16),
                             .output = tensor_at(header + 32)};
    if (opened.arena_bytes > TINYFL_MAX_PROGRAM || PROGRAM_HEADER + opened.ops * sizeof(tinyfl_op) > count ||
        !tensor_ok(&opened, &opened.input) || !tensor_ok(&opened, &opened.output))
        return TINYFL_EPLAN;
    uint64_t work = 0;
    for (size_t i = 0; i < opened.ops; i++) {
        const uint64_t more = op_work(&opened, op_at(&opened, i));
        work += more;
        if (more == 0 || work > TINYFL_MAX_WORK)
            return TINYFL_EPLAN;
    }
    opened.work = (uint32_t)work;
    *program = opened;
    return TINYFL_OK;
}

TINYFL_API int tinyfl_program_run(const tinyfl_program *program, void *arena, size_t bytes)
{
    if (!program || !aligned(arena))
        return TINYFL_EINVAL;
    if (bytes < program->arena_bytes)
        return TINYFL_EMEMORY;
    for (size_t i = 0; i < program->ops; i++) {
        const tinyfl_op *op = op_at(program, i);
        const int8_t *a = operand_at(program, arena, op->a);
        const int8_t *b = operand_at(program, arena, op->b);
        int8_t *out = (int8_t *)arena + op->out;
        if (op->kind <= TINYFL_OP_AVERAGE_POOL)
            tinyfl_op_window(op, a, b, (const void *)(program->bytes + op->as.window.channels), out);
        else
            tinyfl_op_grid(op, a, b, out);
    }
    return TINYFL_OK;
}
