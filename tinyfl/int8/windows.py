"""Lowers operators that slide a window over an image: convolutions, dense layers and pools."""

from dataclasses import replace
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from tinyfl.errors import DataError
from tinyfl.int8 import fixed
from tinyfl.int8.draft import Draft, Value, clamp, good_scales, overlap
from tinyfl.int8.program import Op, Operand, OpKind, Pair, Window
from tinyfl.int8.tflite import AGAIN, Operator, Tensor

MAX_SIZE = 65_535
"""Maximum of a window's 16-bit numbers."""


def conv_2d(draft: Draft, operator: Operator) -> None:
    x = _image(draft, operator)
    weights = _weights(draft, operator, rank=4, axis=0)
    (batch, *inside, depth), (count, *kernel, volume) = x.shape, weights.shape
    if depth % volume or count % (depth // volume):
        raise DataError(f"its weights {weights.shape} do not fit its input {x.shape}. The file is damaged.")
    window = _window(operator, _pair(inside), _pair(kernel), depth, count, dilated=True)
    y = draft.result(operator, (batch, *window.outside, count))
    _emit(draft, operator, OpKind.conv, window, x, y, weights, batch, groups=depth // volume)


def depthwise_conv_2d(draft: Draft, operator: Operator) -> None:
    x = _image(draft, operator)
    weights = _weights(draft, operator, rank=4, axis=3)
    (batch, *inside, depth), (one, *kernel, count) = x.shape, weights.shape
    if one != 1 or count % depth or count // depth != operator.option("DepthMultiplier"):
        raise DataError(f"its weights {weights.shape} do not fit its input {x.shape}. The file is damaged.")
    window = _window(operator, _pair(inside), _pair(kernel), depth, count, dilated=True)
    y = draft.result(operator, (batch, *window.outside, count))
    _emit(draft, operator, OpKind.depthwise, window, x, y, weights, batch)


def fully_connected(draft: Draft, operator: Operator) -> None:
    """Lowers a dense layer to a convolution with a window of one pixel, over one pixel per row of the input."""
    if operator.option("WeightsFormat") != 0:
        raise DataError("its weights are shuffled, but only the default format is supported.")
    x = draft.value(operator, 0)
    weights = _weights(draft, operator, rank=2, axis=0)
    count, depth = weights.shape
    rows, rest = divmod(prod(x.shape), depth)
    keeps = operator.option("KeepNumDims")
    if rest or (keeps and x.shape[-1:] != (depth,)):
        raise DataError(f"its weights {weights.shape} do not fit its input {x.shape}. The file is damaged.")
    y = draft.result(operator, (*x.shape[:-1], count) if keeps else (rows, count))
    ones = (1, 1)
    window = Window(_small(1, rows), (1, rows), ones, ones, ones, (0, 0), depth, count, depth, count)
    _emit(draft, operator, OpKind.conv, window, x, y, weights)


def average_pool_2d(draft: Draft, operator: Operator) -> None:
    _pool(draft, operator, OpKind.average_pool)


def max_pool_2d(draft: Draft, operator: Operator) -> None:
    _pool(draft, operator, OpKind.max_pool)


def _pool(draft: Draft, operator: Operator, kind: OpKind) -> None:
    x = _image(draft, operator)
    batch, *inside, depth = x.shape
    kernel = operator.option("FilterHeight"), operator.option("FilterWidth")
    window = _window(operator, _pair(inside), kernel, depth, depth, dilated=False)
    if prod(kernel) > 1 << 24:
        raise DataError(f"its window of {kernel} is too large: at most 2^24 taps are supported.")
    y = draft.result(operator, (batch, *window.outside, depth))
    if abs(x.scale - y.scale) > 1e-6 or x.zero != y.zero:
        raise DataError("its input and output differ in scale or zero point, which is not supported for a pool.")
    _emit(draft, operator, kind, window, x, y, None, batch)


def _emit(
    draft: Draft,
    operator: Operator,
    kind: OpKind,
    window: Window,
    x: Value,
    y: Value,
    weights: Tensor | None,
    batch: int = 1,
    groups: int = 1,
) -> None:
    """Adds an op for each image of a batch and each group of channels; without weights for a pool."""
    low, high = clamp(operator, y)
    zeros, channels, at = (0, 0, 0), 0, Operand(None)
    if weights is not None:
        zeros, channels = (x.zero, 0, y.zero), _channels(draft, operator, x, weights, y)
        at = draft.constant(_data(weights).tobytes())
    of_group = replace(window, in_channels=window.in_channels // groups, out_channels=window.out_channels // groups)
    volume = prod(window.kernel) * of_group.in_channels
    over = overlap(x, _lead(window)) if batch * groups == 1 else ()
    for image, group in product(range(batch), range(groups)):
        first = group * of_group.out_channels
        body = replace(of_group, channels=channels + first * 12)
        a = x.at.after(image * prod(window.inside) * window.in_pixel + group * of_group.in_channels)
        out = y.at.after(image * prod(window.outside) * window.out_pixel + first)
        draft.add(Op(kind, body, a, out, at.after(first * volume), zeros, low=low, high=high, over=over))


def _lead(window: Window) -> int:
    """Minimum number of bytes by which the output must begin before its input, so that a written pixel never covers input still
    to be read. The maximum over all pixels is at a row's ends, or where its windows leave the padding."""
    (_, width), (rows, columns) = window.inside, window.outside
    top = np.maximum(np.arange(rows + 1, dtype=np.int64) * window.stride[0] - window.pad[0], 0) * width * window.in_pixel
    leaving = window.pad[1] // window.stride[1]
    x = np.array(sorted({0, min(leaving, columns - 1), min(leaving + 1, columns - 1), columns - 1}), np.int64)
    left = np.maximum(x * window.stride[1] - window.pad[1], 0) * window.in_pixel
    top[rows] = np.iinfo(np.int64).max
    still_read = np.minimum(top[:rows, None] + left, top[1:, None])
    written = (np.arange(rows, dtype=np.int64)[:, None] * columns + x + 1) * window.out_pixel
    return int((written - still_read).max())


def _image(draft: Draft, operator: Operator) -> Value:
    x = draft.value(operator, 0)
    if len(x.shape) != 4:
        raise DataError(f"its input has the shape {x.shape}, but (batch, rows, columns, channels) is needed.")
    return x


def _window(operator: Operator, inside: Pair, kernel: Pair, depth: int, count: int, *, dilated: bool) -> Window:
    from tflite import Padding

    stride = operator.option("StrideH"), operator.option("StrideW")
    dilation = (operator.option("DilationHFactor"), operator.option("DilationWFactor")) if dilated else (1, 1)
    padding = operator.option("Padding")
    if padding not in (Padding.SAME, Padding.VALID):
        raise DataError(f"its padding ({padding}) is not supported: SAME and VALID are.")
    for numbers in (inside, kernel, stride, dilation):
        _small(*numbers)
    outside, pad = [], []
    for size, taps, step, apart in zip(inside, kernel, stride, dilation, strict=True):
        reach = (taps - 1) * apart + 1
        out = -(-(size if padding == Padding.SAME else size - reach + 1) // step)
        if out < 1:
            raise DataError(f"its window covers {reach} pixels, but its input has only {size}.")
        outside.append(out)
        pad.append(max((out - 1) * step + reach - size, 0) // 2 if padding == Padding.SAME else 0)
    return Window(inside, _pair(outside), kernel, stride, dilation, _small(*_pair(pad), least=0), depth, count, depth, count)


def _pair(values: list[int]) -> Pair:
    rows, columns = values
    return rows, columns


def _small(rows: int, columns: int, least: int = 1) -> Pair:
    if not (least <= rows <= MAX_SIZE and least <= columns <= MAX_SIZE):
        raise DataError(
            f"its image, window, stride, dilation or padding is {rows} x {columns}: {least} to {MAX_SIZE:,} are supported."
        )
    return rows, columns


def _weights(draft: Draft, operator: Operator, *, rank: int, axis: int) -> Tensor:
    """Checks the weights: constant int8, one scale or one for each channel, and no zero point."""
    weights = draft.tensor(operator, 1)
    if weights is None or len(weights.shape) != rank:
        raise DataError(f"its weights are missing, or not of rank {rank}. The file is damaged.")
    if weights.dtype != "INT8" or weights.odd or weights.data is None:
        odd = weights.odd or ("not constant" if weights.data is None else "no int8")
        raise DataError(f"its weights {weights.name} are {weights.dtype}, {odd}: constant, dense int8 is needed.")
    q = weights.quantization
    if (
        q is None
        or not good_scales(q.scales)
        or (q.scales.size > 1 and (q.axis != axis or q.scales.size != weights.shape[axis]))
    ):
        raise DataError(
            f"its weights {weights.name} need one good scale, or one for each output channel. Convert the model again."
        )
    if q.zeros.size != q.scales.size:
        raise DataError(
            f"its weights {weights.name} have {q.scales.size} scales and {q.zeros.size} zero points. Convert the model again."
        )
    if q.zeros.any():
        raise DataError(
            f"its weights {weights.name} have a zero point, but int8 weights must be symmetric. Convert the model again."
        )
    return weights


def _data(weights: Tensor) -> NDArray[np.int8]:
    assert weights.data is not None
    return weights.data


def _channels(draft: Draft, operator: Operator, x: Value, weights: Tensor, y: Value) -> int:
    """Adds bias, multiplier and shift of each output channel to the constants; returns their offset."""
    count = y.shape[-1]
    bias = draft.tensor(operator, 2)
    if bias is not None and (bias.dtype != "INT32" or bias.data is None or bias.size != count or bias.odd):
        raise DataError(f"its bias {bias.name} must be {count} constants of type INT32, but is {bias.dtype} {bias.shape}.")
    assert weights.quantization is not None
    scales = weights.quantization.scales
    real = x.scale * scales.astype(np.float64)
    if scales.size == 1 and operator.name == "FULLY_CONNECTED" and bias is not None and bias.quantization is not None:
        _demand_scale(bias.quantization.scales, real, y.scale)  # as in TFLM
    table = np.zeros((count, 3), "<i4")
    table[:, 0] = 0 if bias is None or bias.data is None else bias.data
    table[:, 1], table[:, 2] = fixed.quantize_multiplier(real / y.scale)
    return draft.constant(table.tobytes()).offset


def _demand_scale(bias: NDArray[np.float32], sums: NDArray[np.float64], step: float) -> None:
    """Raises DataError if the scale of a bias differs from that of the ``sums`` by more than a fiftieth of the output's
    ``step``."""
    if not (np.abs(bias - sums) <= 0.02 * step).all():
        raise DataError(f"its bias has the scale {bias[0]}, but the product of input and weights has {sums[0]}. {AGAIN}")
