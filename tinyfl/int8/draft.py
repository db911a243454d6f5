"""A draft of a program: input and output of the lowering of .tflite operators."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite, prod

import numpy as np
from numpy.typing import NDArray

from tinyfl.errors import DataError
from tinyfl.int8 import fixed
from tinyfl.int8.program import HEADER_BYTES, MAX_BYTES, MAX_WORK, OP_BYTES, Four, Op, Operand, Three
from tinyfl.int8.tflite import Model, Operator, Tensor

MAX_OPS = 1024
ROOM = HEADER_BYTES + MAX_OPS * OP_BYTES
"""Maximum bytes of a program without its constants."""


@dataclass(frozen=True)
class Value:
    """An int8 or float32 tensor, and its location."""

    tensor: Tensor
    at: Operand

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def scale(self) -> float:
        assert self.tensor.quantization is not None
        return float(self.tensor.quantization.scales[0])

    @property
    def zero(self) -> int:
        assert self.tensor.quantization is not None
        return int(self.tensor.quantization.zeros[0])


@dataclass
class Draft:
    model: Model
    ops: list[Op] = field(default_factory=list)
    constants: bytearray = field(default_factory=bytearray)
    buffers: list[int] = field(default_factory=list)
    """Size of each buffer, in bytes."""
    places: dict[int, Operand] = field(default_factory=dict)
    """Locations of the tensors computed so far."""
    work: int = 0
    known: dict[bytes, int] = field(default_factory=dict)
    """Offset of each constant."""

    def value(self, operator: Operator, index: int, dtype: str = "INT8") -> Value:
        """Input ``index``: the result of an earlier operator, or a constant."""
        number = _numbered(operator.inputs, index, "input")
        tensor = self._checked(number, dtype)
        if number in self.places:
            return Value(tensor, self.places[number])
        if tensor.data is None:
            raise DataError(f"its input {tensor.name} is neither a constant nor the result of an earlier operator.")
        return Value(tensor, self.constant(tensor.data.tobytes()))

    def declared(self, operator: Operator) -> tuple[int, ...]:
        """The shape of the only output, according to the file."""
        return self._checked(_numbered(operator.outputs, 0, "output"), "INT8").shape

    def result(self, operator: Operator, shape: Sequence[int], dtype: str = "INT8", at: Operand | None = None) -> Value:
        """The only output, which must have ``shape``; in a new buffer, or ``at`` an existing location."""
        if len(operator.outputs) != 1:
            raise DataError(f"it has {len(operator.outputs)} outputs, but only 1 is supported.")
        number = operator.outputs[0]
        tensor = self._checked(number, dtype)
        if tensor.shape != tuple(shape):
            raise DataError(
                f"its output has the shape {tensor.shape}, but the operator computes {tuple(shape)}. The file is damaged."
            )
        if number in self.places or tensor.data is not None:
            raise DataError(f"its output {tensor.name} is computed twice, or a constant. The file is damaged.")
        self.places[number] = at or self.buffer(tensor.size * (4 if dtype == "FLOAT32" else 1))
        return Value(tensor, self.places[number])

    def buffer(self, size: int) -> Operand:
        self.buffers.append(size)
        return Operand(len(self.buffers) - 1)

    def tensor(self, operator: Operator, index: int) -> Tensor | None:
        """Input ``index`` of any kind; None if it is left out."""
        if index >= len(operator.inputs) or operator.inputs[index] == -1:
            return None
        return self.model.tensors[operator.inputs[index]]

    def integers(self, operator: Operator, index: int, of: str) -> NDArray[np.int64]:
        """A constant of int32, such as axes."""
        tensor = self.tensor(operator, index)
        if tensor is None or tensor.data is None or tensor.dtype != "INT32" or tensor.odd:
            raise DataError(f"its {of} must be a constant of type INT32.")
        return tensor.data.astype(np.int64)

    def constant(self, content: bytes) -> Operand:
        """Adds ``content`` to the constants, without duplicates, at a multiple of 4 bytes."""
        if content not in self.known:
            self.constants += bytes(-len(self.constants) % 4)
            self.known[content] = len(self.constants)
            self.constants += content
            if len(self.constants) > MAX_BYTES - ROOM:
                raise DataError(f"the constants up to it exceed {MAX_BYTES - ROOM:,} bytes. Use a smaller model.")
        return Operand(None, self.known[content])

    def add(self, op: Op) -> None:
        self.ops.append(op)
        self.work += op.work
        if len(self.ops) > MAX_OPS:
            raise DataError(f"the model needs more than {MAX_OPS:,} ops. Use a smaller one, or a batch of 1.")
        if self.work > MAX_WORK:
            raise DataError(f"the model up to it needs more than {MAX_WORK:,} steps. Use a smaller one.")

    def _checked(self, number: int, dtype: str) -> Tensor:
        tensor = self.model.tensors[number]
        if tensor.odd:
            raise DataError(f"tensor {tensor.name} is {tensor.odd}, which is not supported.")
        if tensor.dtype != dtype:
            raise DataError(
                f"tensor {tensor.name} is of type {tensor.dtype}, but {dtype} is needed. Convert the model with full integer "
                "quantisation (TFLITE_BUILTINS_INT8) and int8 or float32 input and output."
            )
        if dtype == "INT8":
            per_tensor(tensor)
        return tensor


def _numbered(numbers: Sequence[int], index: int, of: str) -> int:
    if index >= len(numbers) or numbers[index] == -1:
        raise DataError(f"its {of} {index} is missing. The file is damaged.")
    return numbers[index]


def per_tensor(tensor: Tensor) -> None:
    """Raises DataError unless ``tensor`` has one ordinary scale and a zero point within int8."""
    q = tensor.quantization
    if q is None or q.scales.size != 1 or q.zeros.size != 1:
        raise DataError(f"tensor {tensor.name} needs one scale and one zero point. Convert the model again.")
    if not good_scales(q.scales) or not -128 <= q.zeros[0] <= 127:
        raise DataError(
            f"tensor {tensor.name} has the scale {q.scales[0]} and the zero point {q.zeros[0]}. Convert the model again."
        )


def good_scales(scales: NDArray[np.float32]) -> bool:
    """Whether all scales are positive, finite and not subnormal."""
    return all(isfinite(s) and s >= np.finfo(np.float32).tiny for s in scales.tolist())


def clamp(operator: Operator, output: Value) -> tuple[int, int]:
    """The minimum and maximum of the output under the operator's fused activation."""
    from tflite import ActivationFunctionType as Fused

    activation = operator.option("FusedActivationFunction")
    bounds = {Fused.NONE: (None, None), Fused.RELU: (0, None), Fused.RELU6: (0, 6), Fused.RELU_N1_TO_1: (-1, 1)}
    if activation not in bounds:
        raise DataError(f"its fused activation ({activation}) is not supported: none, RELU, RELU6 and RELU_N1_TO_1 are.")
    low, high = (None if bound is None else nearest(bound, output) for bound in bounds[activation])
    return (-128 if low is None else max(-128, low)), (127 if high is None else min(127, high))


def nearest(real: float, value: Value) -> int:
    """Quantises ``real`` in the scale of ``value``, rounded as in TFLM; the result may lie outside int8."""
    steps = min(max(real / value.scale, -1e6), 1e6)
    return value.zero + int(np.copysign(np.floor(abs(np.float32(steps)) + np.float64(0.5)), steps))


def overlap(x: Value, lead: int) -> tuple[tuple[int, int], ...]:
    """For Op.over: lets the output overlap ``x`` if it starts ``lead`` bytes before; empty for a constant x."""
    return () if x.at.buffer is None else ((x.at.buffer, lead),)


def multipliers(a: float, b: float, out: float) -> tuple[Three, Three]:
    """Fixed-point multipliers and shifts of three real factors."""
    (m0, m1, m2), (s0, s1, s2) = (part.tolist() for part in fixed.quantize_multiplier(np.array([a, b, out])))
    return (m0, m1, m2), (s0, s1, s2)


def dense(shape: Sequence[int]) -> list[int]:
    """Strides of a contiguous tensor."""
    return [prod(shape[i + 1 :]) for i in range(len(shape))]


def merged(dims: Sequence[int], *strides: Sequence[int]) -> tuple[Four, list[Four]]:
    """Merges dimensions to at most four that visit the same elements in the same order.

    Raises DataError if more are needed.
    """
    rows: list[tuple[int, ...]] = []
    for row in zip(dims, *strides, strict=True):
        if row[0] == 1:
            continue
        if rows and all(a == row[0] * b for a, b in zip(rows[-1][1:], row[1:], strict=True)):
            rows[-1] = (rows[-1][0] * row[0], *row[1:])
        else:
            rows.append(row)
    if len(rows) > 4:
        raise DataError(f"it goes over {len(rows)} separate dimensions, but only 4 are supported. Reshape its inputs.")
    rows = [(1, *(0 for _ in strides))] * (4 - len(rows)) + rows
    columns = [four(column) for column in zip(*rows, strict=True)]
    return columns[0], columns[1:]


def four(values: Iterable[int]) -> Four:
    a, b, c, d = values
    return a, b, c, d
