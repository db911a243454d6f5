"""Lowers operators over a grid of values: sums, products, copies, functions of one value, means."""

from collections.abc import Callable
from math import prod

import numpy as np

from tinyfl.errors import DataError
from tinyfl.int8 import fixed
from tinyfl.int8.draft import Draft, Value, clamp, dense, four, merged, multipliers, nearest, overlap
from tinyfl.int8.program import MAX_SOFTMAX, Grid, Op, OpKind, Three
from tinyfl.int8.tflite import AGAIN, Operator


def add(draft: Draft, operator: Operator) -> None:
    a, b = draft.value(operator, 0), draft.value(operator, 1)
    y = draft.result(operator, _joint(a, b))
    twice = 2 * max(a.scale, b.scale)
    out = twice / (2**20 * y.scale)
    if out >= 1:
        raise DataError(f"its output's scale {y.scale} is too small for those of its inputs, {a.scale} and {b.scale}.")
    _binary(draft, operator, OpKind.add, a, b, y, *multipliers(a.scale / twice, b.scale / twice, out))


def mul(draft: Draft, operator: Operator) -> None:
    a, b = draft.value(operator, 0), draft.value(operator, 1)
    y = draft.result(operator, _joint(a, b))
    _binary(draft, operator, OpKind.multiply, a, b, y, *multipliers(0, 0, a.scale * b.scale / y.scale))


def _binary(
    draft: Draft, operator: Operator, kind: OpKind, a: Value, b: Value, y: Value, factors: Three, shifts: Three
) -> None:
    dims, (a_strides, b_strides) = merged(y.shape, _broadcast(a.shape, y.shape), _broadcast(b.shape, y.shape))
    grid = Grid(dims, a_strides, b_strides, factors)
    over = tuple(pair for v in (a, b) if v.shape == y.shape for pair in overlap(v, 0))
    zeros = (a.zero, b.zero, y.zero)
    low, high = clamp(operator, y)
    draft.add(Op(kind, grid, a.at, y.at, b.at, zeros, shifts, low, high, over=over))


def _joint(a: Value, b: Value) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(a.shape, b.shape)
    except ValueError as error:
        raise DataError(f"its inputs {a.shape} and {b.shape} cannot be broadcast together. The file is damaged.") from error


def _broadcast(shape: tuple[int, ...], to: tuple[int, ...]) -> list[int]:
    full = (1,) * (len(to) - len(shape)) + shape
    return [0 if size == 1 else stride for size, stride in zip(full, dense(full), strict=True)]


def concatenation(draft: Draft, operator: Operator) -> None:
    if operator.option("FusedActivationFunction") != 0:
        raise DataError("it has a fused activation, which is not supported.")
    parts = [draft.value(operator, i) for i in range(len(operator.inputs))]
    rank = len(parts[0].shape) if parts else 0
    axis = operator.option("Axis")
    axis = axis + rank if axis < 0 else axis
    others = {(len(p.shape), p.shape[:axis], p.shape[axis + 1 :]) for p in parts}
    if not 0 <= axis < rank or len(others) != 1:
        raise DataError(f"its inputs {', '.join(str(p.shape) for p in parts)} do not join along axis {axis}.")
    first = parts[0].shape
    y = draft.result(operator, (*first[:axis], sum(p.shape[axis] for p in parts), *first[axis + 1 :]))
    if any((p.scale, p.zero) != (y.scale, y.zero) for p in parts):
        raise DataError("its inputs and its output differ in scale or zero point, which is not supported.")
    line = prod(y.shape[axis:])
    at = y.at
    for part in parts:
        run = prod(part.shape[axis:])
        grid = Grid((1, 1, prod(first[:axis]), run), (0, 0, run, 1), (0, 0, line, 1))
        lead = at.offset + (grid.dims[2] - 1) * (line - run)
        draft.add(Op(OpKind.copy, grid, part.at, at, over=overlap(part, lead)))
        at = at.after(run)


def pad(draft: Draft, operator: Operator) -> None:
    """Fills the output, then copies the input into it."""
    x = draft.value(operator, 0)
    margins = draft.integers(operator, 1, "paddings")
    if margins.size != 2 * len(x.shape) or margins.min(initial=0) < 0 or margins.max(initial=0) > 1 << 28:
        raise DataError(f"its paddings {margins.tolist()[:16]} do not fit its input {x.shape}.")
    before, after = margins.reshape(-1, 2).T.tolist()
    y = draft.result(operator, [b + size + a for b, size, a in zip(before, x.shape, after, strict=True)])
    strides = dense(y.shape)
    dims, (inside, outside) = merged(x.shape, dense(x.shape), strides)
    fill = draft.constant(np.int8(y.zero).tobytes())
    draft.add(Op(OpKind.copy, Grid((1, 1, 1, prod(y.shape)), b_strides=(0, 0, 0, 1)), fill, y.at))
    start = y.at.after(sum(b * s for b, s in zip(before, strides, strict=True)))
    draft.add(Op(OpKind.copy, Grid(dims, inside, outside), x.at, start))


def reshape(draft: Draft, operator: Operator) -> None:
    """Adds no op: the output is the input under another shape."""
    x = draft.value(operator, 0)
    shape = draft.declared(operator)
    if prod(shape) != prod(x.shape):
        raise DataError(f"its input {x.shape} and its output {shape} differ in size. The file is damaged.")
    draft.result(operator, shape, at=x.at)


def softmax(draft: Draft, operator: Operator) -> None:
    x = draft.value(operator, 0)
    y = draft.result(operator, x.shape)
    depth = x.shape[-1] if x.shape else 1
    if depth > MAX_SOFTMAX:
        raise DataError(f"it goes over {depth:,} values, but only {MAX_SOFTMAX:,} are supported.")
    _demand_steps(y, 256, -128)
    real = min(float(operator.option("Beta")) * x.scale * 2.0**26, 2.0**31 - 1)
    if not real > 1:
        raise DataError(f"its input's scale {x.scale} times beta is too small.")
    (factor, _, _), (shift, _, _) = multipliers(real * 2.0**-31, 0, 0)
    shift += 31
    farthest = min(int(31 * 2.0**26 / 2.0**shift), 255)
    grid = Grid((prod(x.shape) // depth, depth, 1, 1), multipliers=(factor, farthest, 0))
    draft.add(Op(OpKind.softmax, grid, x.at, y.at, shifts=(shift, 0, 0), over=overlap(x, 0)))


def mean(draft: Draft, operator: Operator) -> None:
    x = draft.value(operator, 0)
    rank = len(x.shape)
    axes = {int(axis) + (rank if axis < 0 else 0) for axis in draft.integers(operator, 1, "axes")}
    if not all(0 <= axis < rank for axis in axes):
        raise DataError(f"its axes {sorted(axes)} do not fit its input {x.shape}.")
    keeps = operator.option("KeepDims")
    y = draft.result(operator, [1 if i in axes else d for i, d in enumerate(x.shape) if keeps or i not in axes])
    count = prod(x.shape[axis] for axis in axes)
    multiplier, shift = (int(v) for v in fixed.quantize_multiplier(x.scale / y.scale))
    halvings = min(count.bit_length() - 1, 32, 31 + shift)
    strides = dense(x.shape)
    kept, reduced = (
        merged([x.shape[i] for i in chosen], [strides[i] for i in chosen])
        for chosen in ([i for i in range(rank) if i not in axes], sorted(axes))
    )
    if max(kept[0][:2] + reduced[0][:2]) > 1:
        raise DataError(f"its axes {sorted(axes)} of {x.shape} are too scattered: compute the mean in two steps.")
    grid = Grid(
        four((*kept[0][2:], *reduced[0][2:])),
        four((*kept[1][0][2:], *reduced[1][0][2:])),
        multipliers=(0, 0, (multiplier << halvings) // count),
    )
    draft.add(Op(OpKind.mean, grid, x.at, y.at, zeros=(x.zero, 0, y.zero), shifts=(0, 0, shift - halvings)))


def relu(draft: Draft, operator: Operator) -> None:
    _function(draft, operator, lambda x, y: fixed.rescale_table(x.scale / y.scale, x.zero, y.zero, low=y.zero))


def relu6(draft: Draft, operator: Operator) -> None:
    def table(x: Value, y: Value) -> bytes:
        if (x.scale, x.zero) != (y.scale, y.zero):  # TFLM would copy values in range without rescaling
            raise DataError(
                "its input and output differ in scale or zero point, which is not supported. Use RELU instead, or put it "
                "right after a layer with weights that has no other reader: the converter then fuses both."
            )
        return fixed.clip_table(x.zero, min(nearest(6, x), 127))

    _function(draft, operator, table)


def leaky_relu(draft: Draft, operator: Operator) -> None:
    alpha = float(operator.option("Alpha"))

    def table(x: Value, y: Value) -> bytes:
        return fixed.rescale_table(x.scale / y.scale, x.zero, y.zero, below=x.scale * alpha / y.scale)

    _function(draft, operator, table)


def logistic(draft: Draft, operator: Operator) -> None:
    def table(x: Value, y: Value) -> bytes:
        _demand_steps(y, 256, -128)
        return fixed.logistic_table(x.scale, x.zero)

    _function(draft, operator, table)


def tanh(draft: Draft, operator: Operator) -> None:
    def table(x: Value, y: Value) -> bytes:
        _demand_steps(y, 128, 0)
        return fixed.tanh_table(x.scale, x.zero)

    _function(draft, operator, table)


def _demand_steps(y: Value, steps: int, zero: int) -> None:
    """Raises DataError unless ``y`` has the scale 1/``steps`` and the zero point ``zero``, as TFLM assumes."""
    if y.scale != 1 / steps or y.zero != zero:
        raise DataError(
            f"its output must have the scale 1/{steps} and the zero point {zero}, but has {y.scale} and {y.zero}. {AGAIN}"
        )


def quantize(draft: Draft, operator: Operator) -> None:
    source = draft.tensor(operator, 0)
    if source is not None and source.dtype == "FLOAT32":
        x = draft.value(operator, 0, "FLOAT32")
        y = draft.result(operator, x.shape)
        _converted(draft, OpKind.quantize, x, y, y.scale, (0, 0, y.zero))
    else:
        _function(draft, operator, lambda x, y: fixed.rescale_table(x.scale / y.scale, x.zero, y.zero))


def dequantize(draft: Draft, operator: Operator) -> None:
    x = draft.value(operator, 0)
    y = draft.result(operator, x.shape, "FLOAT32")
    _converted(draft, OpKind.dequantize, x, y, x.scale, (x.zero, 0, 0))


def _converted(draft: Draft, kind: OpKind, x: Value, y: Value, scale: float, zeros: Three) -> None:
    bits = int(np.float32(scale).view(np.int32))
    grid = Grid((prod(x.shape), 1, 1, 1), multipliers=(bits, 0, 0))
    lead = 3 * prod(x.shape) if kind is OpKind.dequantize else 0
    draft.add(Op(kind, grid, x.at, y.at, zeros=zeros, over=overlap(x, lead)))


def _function(draft: Draft, operator: Operator, table: Callable[[Value, Value], bytes]) -> None:
    x = draft.value(operator, 0)
    y = draft.result(operator, x.shape)
    grid = Grid((1, 1, 1, prod(x.shape)), (0, 0, 0, 1), (0, 0, 0, 1))
    draft.add(Op(OpKind.table, grid, x.at, y.at, draft.constant(table(x, y)), over=overlap(x, 0)))
