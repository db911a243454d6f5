"""Programs: int8 networks compiled for the core, and their encoding (firmware/SPEC.md, program;
firmware/core/program_ops.h)."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from math import prod

import numpy as np

VERSION = 1
CONSTANT = 1 << 31
"""Flag of an operand's offset: from the program's start, not the arena's."""
MAX_BYTES = 1 << 28
MAX_WORK = (1 << 32) - 1
MAX_SOFTMAX = 4095

Pair = tuple[int, int]
Three = tuple[int, int, int]
Four = tuple[int, int, int, int]

_HEADER = struct.Struct("<4sBBHII")
_TENSOR = struct.Struct("<IIfbBH")
_HEAD = struct.Struct("<B8b3x3I")
_WINDOW = struct.Struct("<12H5I16x")
_GRID = struct.Struct("<3i12I")
OP_BYTES = _HEAD.size + _GRID.size
HEADER_BYTES = _HEADER.size + 2 * _TENSOR.size


class OpKind(IntEnum):
    conv = 0
    depthwise = 1
    max_pool = 2
    average_pool = 3
    add = 4
    multiply = 5
    copy = 6
    table = 7
    mean = 8
    softmax = 9
    quantize = 10
    dequantize = 11


@dataclass(frozen=True)
class Operand:
    """The location of an op's input or output: an offset in bytes from the start of a buffer, which is placed in the arena
    later, or from the start of the constants."""

    buffer: int | None
    offset: int = 0

    def after(self, count: int) -> "Operand":
        return Operand(self.buffer, self.offset + count)


@dataclass(frozen=True)
class Window:
    """A sliding window. Pairs are (rows, columns)."""

    inside: Pair
    outside: Pair
    kernel: Pair
    stride: Pair
    dilation: Pair
    pad: Pair
    in_channels: int
    out_channels: int
    in_pixel: int
    out_pixel: int
    channels: int = 0
    """Offset, in the constants, of each output channel's bias, multiplier and shift."""


@dataclass(frozen=True)
class Grid:
    """A grid of up to four dimensions, the innermost last; strides in bytes."""

    dims: Four
    a_strides: Four = (0, 0, 0, 0)
    b_strides: Four = (0, 0, 0, 0)
    multipliers: Three = (0, 0, 0)


@dataclass(frozen=True)
class Op:
    """An op. Zero points and shifts are for a, b and the output."""

    kind: OpKind
    body: Window | Grid
    a: Operand
    out: Operand
    b: Operand = Operand(None)
    zeros: Three = (0, 0, 0)
    shifts: Three = (0, 0, 0)
    low: int = -128
    high: int = 127
    over: tuple[tuple[int, int], ...] = ()
    """Input buffers that the output may overlap after their last use, and the bytes by which it must then start earlier."""

    @property
    def work(self) -> int:
        """Steps of the inner loop, counted as in the core."""
        body = self.body
        if isinstance(body, Grid):
            return prod(body.dims[:2] if self.kind is OpKind.softmax else body.dims)
        count = body.out_channels
        if self.kind is OpKind.conv:
            count = (-(-count // 4) if count > 3 else count) * 4 * body.in_channels
        return prod(body.outside) * prod(body.kernel) * count


@dataclass(frozen=True)
class TensorInfo:
    """The input or the output of a program."""

    shape: tuple[int, ...]
    """Without a leading batch of 1."""
    dtype: str
    """int8 or float32."""
    scale: float
    """An int8 value q represents scale x (q - zero); 1 for float32."""
    zero: int

    @cached_property
    def bytes(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Program:
    """A compiled int8 network. ``content`` are the bytes that a board stores and runs."""

    content: bytes
    input: TensorInfo
    output: TensorInfo
    arena_bytes: int
    ops: tuple[str, ...]
    """The .tflite's names of the operators that produced ops."""
    work: int
    """Steps of all inner loops, about one multiply-add each."""


def pack(
    ops: Sequence[Op], constants: bytes, arena: int, ends: Sequence[tuple[TensorInfo, Operand]], place: Callable[[int], int]
) -> bytes:
    """Encodes a program. ``ends`` are its input and output; ``place`` maps a buffer to its offset in the arena."""
    start = HEADER_BYTES + OP_BYTES * len(ops)

    def at(operand: Operand) -> int:
        if operand.buffer is None:
            return CONSTANT | (start + operand.offset if constants else 0)
        return place(operand.buffer) + operand.offset

    head = _HEADER.pack(b"TFLI", VERSION, 0, len(ops), start + len(constants), arena)
    tensors = (
        _TENSOR.pack(at(where), info.bytes, info.scale, info.zero, int(info.dtype == "float32"), 0) for info, where in ends
    )
    records = (
        _HEAD.pack(op.kind, *op.zeros, op.low, op.high, *op.shifts, at(op.a), at(op.b), at(op.out)) + _body(op.body, start)
        for op in ops
    )
    return b"".join((head, *tensors, *records, constants))


def _body(body: Window | Grid, constants: int) -> bytes:
    if isinstance(body, Grid):
        return _GRID.pack(*body.multipliers, *body.dims, *body.a_strides, *body.b_strides)
    w = body
    pairs = (*w.inside, *w.outside, *w.kernel, *w.stride, *w.dilation, *w.pad)
    return _WINDOW.pack(*pairs, w.in_channels, w.out_channels, w.in_pixel, w.out_pixel, constants + w.channels)
