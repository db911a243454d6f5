"""Programs: int8 networks as the core runs them, and their bytes (firmware/SPEC.md, program; firmware/core/program_ops.h)."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from math import prod

import numpy as np

VERSION = 1
CONSTANT = 1 << 31
"""Set in where an operand lies: from the program's start, not the arena's."""
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
    """Where an op reads or writes: bytes from the start of a buffer, which gets its place in the arena later, or from the
    start of the constants."""

    buffer: int | None
    offset: int = 0

    def after(self, count: int) -> "Operand":
        return Operand(self.buffer, self.offset + count)


@dataclass(frozen=True)
class Window:
    """Pairs are rows, columns."""

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
    """Where bias, multiplier and shift of each output channel begin among the constants."""


@dataclass(frozen=True)
class Grid:
    """The innermost dimension last; strides in bytes."""

    dims: Four
    a_strides: Four = (0, 0, 0, 0)
    b_strides: Four = (0, 0, 0, 0)
    multipliers: Three = (0, 0, 0)


@dataclass(frozen=True)
class Op:
    """One record. Zero points and shifts are those of a, b and the output."""

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
    """Input buffers over which the output may lie once they are not needed any more, if it starts so many bytes before."""

    @property
    def work(self) -> int:
        """Steps of the inner loop, as the core counts them."""
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
    """int8 values q stand for scale x (q - zero); of float32 it is 1."""
    zero: int

    @cached_property
    def bytes(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Program:
    """An int8 network, compiled. ``content`` is what a board keeps and runs."""

    content: bytes
    input: TensorInfo
    output: TensorInfo
    arena_bytes: int
    ops: tuple[str, ...]
    """What the .tflite calls those that do something."""
    work: int
    """Steps of all inner loops, about a multiply and an add each."""


def pack(
    ops: Sequence[Op], constants: bytes, arena: int, ends: Sequence[tuple[TensorInfo, Operand]], place: Callable[[int], int]
) -> bytes:
    """The program's bytes. ``ends`` are its input and output, and ``place`` tells where in the arena a buffer lies."""
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
