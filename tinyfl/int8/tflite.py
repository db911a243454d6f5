"""Reads a .tflite file into plain data. Nothing in it is trusted: every length and index is checked, so that time and memory
stay in proportion to the file."""

import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
from flatbuffers.number_types import Int32Flags, SOffsetTFlags, VOffsetTFlags
from numpy.typing import NDArray

from tinyfl.errors import DataError
from tinyfl.errors.words import plain

DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {"INT8": np.dtype(np.int8), "INT32": np.dtype("<i4"), "FLOAT32": np.dtype("<f4")}
)
"""The tensor types used by programs."""

MAX_BYTES = 1 << 28
MAX_DIMENSIONS = 8
MAX_ENTRIES, MAX_OPERATORS = 1024, 4096
MAX_NAME = 80

FIELDS: Mapping[str, int] = MappingProxyType(
    {
        "AddOptions": 2,
        "Buffer": 3,
        "ConcatenationOptions": 2,
        "Conv2DOptions": 7,
        "DepthwiseConv2DOptions": 7,
        "FullyConnectedOptions": 5,
        "LeakyReluOptions": 1,
        "MulOptions": 1,
        "Operator": 14,
        "OperatorCode": 4,
        "Pool2DOptions": 6,
        "QuantizationParameters": 7,
        "ReducerOptions": 1,
        "SoftmaxOptions": 1,
        "Tensor": 10,
    }
)
"""Number of fields of each table in the supported schema. A later field may change the meaning of the others."""

MAX_LATER = 128
"""Maximum bytes checked of a table's offsets to later fields."""

NEWER = "of a newer schema"
AGAIN = "Convert the model again with TensorFlow's converter."

BUILTIN_CODE = 10
"""Slot of an operator code's number. The tflite package's accessor returns the deprecated field instead."""


@dataclass(frozen=True)
class Quantization:
    """Quantisation: real value = scale x (q - zero), with one scale and zero point, or one for each index along ``axis``."""

    scales: NDArray[np.float32]
    zeros: NDArray[np.int64]
    """As in the file; may be empty."""
    axis: int


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    """Each at least 1; a batch of unknown size is 1."""
    dtype: str
    """The type's name in the schema: INT8, FLOAT32, ..."""
    quantization: Quantization | None
    data: NDArray[Any] | None
    """The values of a constant, flat; None otherwise."""
    odd: str
    """An unsupported property ("sparse", "a variable", ...), or empty."""

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Operator:
    name: str
    """The name in the schema: CONV_2D, ...; or a custom operator's name."""
    custom: bool
    version: int
    inputs: tuple[int, ...]
    """Indices of tensors; -1 for one left out."""
    outputs: tuple[int, ...]
    options: str
    """The name of its options' table in the schema (Conv2DOptions, ...); empty without options."""
    option: Callable[[str], Any]
    """Returns an option by its name in the schema (StrideW, Padding, ...). Raises DataError if the file lacks it."""
    odd: str
    """An unsupported property ("custom options", ...), or empty."""


@dataclass(frozen=True)
class Model:
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_tflite(content: bytes) -> Model:
    """Reads the only subgraph from the ``content`` of a .tflite file.

    Raises DataError for another or a damaged file, or for several subgraphs.
    """
    import tflite

    if len(content) > MAX_BYTES:
        raise DataError(f"it has {len(content):,} bytes, but a model may have at most {MAX_BYTES:,}.")
    if len(content) < 8 or content[4:8] != b"TFL3":
        raise DataError("it is not a .tflite file: it does not begin with a TFL3 header.")
    with _demand_undamaged():
        model = tflite.Model.GetRootAs(content)
        if model.Version() != 3:
            raise DataError(f"its schema has version {model.Version()}, but only 3 is supported. Convert the model again.")
        if model.SubgraphsLength() != 1:
            raise DataError(f"it has {model.SubgraphsLength()} subgraphs, but only 1 is supported: no control flow.")
        buffers = [*_tables(content, model.BuffersLength(), model.Buffers)]
        codes = [_code(code) for code in _tables(content, model.OperatorCodesLength(), model.OperatorCodes)]
        graph = model.Subgraphs(0)
        if graph.OperatorsLength() > MAX_OPERATORS:
            raise DataError(f"it has {graph.OperatorsLength():,} operators, but only {MAX_OPERATORS:,} are supported.")
        tensors = tuple(_tensor(t, buffers, content) for t in _tables(content, graph.TensorsLength(), graph.Tensors))
        operators = tuple(_operator(o, codes, len(tensors)) for o in _tables(content, graph.OperatorsLength(), graph.Operators))
        inputs, outputs = _vector(graph, "Inputs"), _vector(graph, "Outputs")
        for index in [*inputs, *outputs]:
            _index(index, len(tensors), "tensor")
    return Model(tensors, operators, inputs, outputs)


@contextmanager
def _demand_undamaged() -> Iterator[None]:
    """Turns errors of the schema's accessors, from invalid offsets, into DataError."""
    try:
        yield
    except (struct.error, IndexError, KeyError, ValueError, TypeError, OverflowError, AttributeError) as error:
        raise DataError(f"it is damaged ({error}). Convert the model again, or copy the file again.") from error


def _tables(content: bytes, count: int, at: Callable[[int], Any]) -> Iterator[Any]:
    """Iterates over a vector of tables; an entry has 4 bytes."""
    if count > len(content) // 4:
        raise DataError(f"it is damaged: {count:,} entries in a file of {len(content):,} bytes. Copy the file again.")
    return map(at, range(count))


def _vector(table: Any, name: str) -> tuple[int, ...]:
    """Reads a vector of integers; numpy checks its length against the file. Tables may share a vector, hence MAX_ENTRIES."""
    if getattr(table, f"{name}Length")() > MAX_ENTRIES:
        raise DataError(f"a tensor or operator has more than {MAX_ENTRIES:,} {name}. Use a smaller model.")
    values = getattr(table, f"{name}AsNumpy")()
    return () if isinstance(values, int) else tuple(values.tolist())


def _index(value: int, count: int, of: str) -> int:
    if not 0 <= value < count:
        raise DataError(f"it is damaged: {of} {value} of {count}. Convert the model again, or copy the file again.")
    return value


def _newer(table: Any, kind: str) -> bool:
    """Whether ``table`` has a field that the supported schema lacks."""
    start = table.Pos - table.Get(SOffsetTFlags, table.Pos)
    end = start + table.Get(VOffsetTFlags, start)
    later = table.Bytes[start + 4 + 2 * FIELDS[kind] : end]
    return len(later) > MAX_LATER or any(later)


def _code(code: Any) -> tuple[str, bool, int]:
    """(name, custom, version) of an operator code."""
    import tflite

    if _newer(code._tab, "OperatorCode"):
        raise DataError(f"an operator code is {NEWER}, which is not supported. {AGAIN}")
    number = max(code._tab.GetSlot(BUILTIN_CODE, 0, Int32Flags), code.DeprecatedBuiltinCode())
    if number == tflite.BuiltinOperator.CUSTOM:
        return _shown(code.CustomCode() or b"?"), True, code.Version()
    name = _names(tflite.BuiltinOperator).get(number, f"operator {number}")
    return name, False, code.Version()


def _shown(name: bytes) -> str:
    return plain(name.decode(errors="replace"), MAX_NAME)


@cache
def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _tensor(tensor: Any, buffers: list[Any], content: bytes) -> Tensor:
    import tflite

    name = _shown(tensor.Name() or b"")
    dtype = _names(tflite.TensorType).get(tensor.Type(), f"type {tensor.Type()}")
    shape = _vector(tensor, "Shape")
    signature = _vector(tensor, "ShapeSignature") or shape
    if len(shape) > MAX_DIMENSIONS or any(d < 1 for d in shape) or prod(shape) > MAX_BYTES:
        raise DataError(f"tensor {name} has the shape {shape}: between 1 and {MAX_BYTES:,} elements are supported.")
    buffer = buffers[_index(tensor.Buffer(), len(buffers), "buffer")]
    oddities = {
        NEWER: _newer(tensor._tab, "Tensor") or _newer(buffer._tab, "Buffer"),
        "sparse": tensor.Sparsity() is not None,
        "a variable": tensor.IsVariable(),
        "of several types": tensor.VariantTensorsLength(),
        "kept outside the model": buffer.Offset() > 1,
        "of a size known only at run time: give the model a batch of 1 before converting it": (
            len(signature) != len(shape) or -1 in signature[1:]
        ),
        "quantised by another rule than scale and zero point": _quantized_otherwise(tensor.Quantization()),
    }
    odd = [what for what, present in oddities.items() if present]
    raw = buffer.DataAsNumpy()
    data = None
    if dtype in DTYPES and not isinstance(raw, int) and raw.size:
        if raw.size != prod(shape) * DTYPES[dtype].itemsize:
            raise DataError(f"tensor {name} has {raw.size:,} bytes of data, which do not match its shape {shape}.")
        data = np.frombuffer(raw, DTYPES[dtype])
    elif not isinstance(raw, int) and raw.size:
        odd.append(f"a constant of type {dtype}")
    return Tensor(name, shape, dtype, _quantization(tensor.Quantization()), data, ", ".join(odd))


def _quantized_otherwise(quantization: Any) -> bool:
    """Whether another scheme is used, such as blocks or several axes."""
    return quantization is not None and (quantization.DetailsType() != 0 or _newer(quantization._tab, "QuantizationParameters"))


def _quantization(quantization: Any) -> Quantization | None:
    if quantization is None or not quantization.ScaleLength():
        return None
    scales = quantization.ScaleAsNumpy().astype(np.float32)
    zeros = quantization.ZeroPointAsNumpy() if quantization.ZeroPointLength() else np.zeros(0, np.int64)
    return Quantization(scales, zeros.astype(np.int64), quantization.QuantizedDimension())


def _operator(operator: Any, codes: list[tuple[str, bool, int]], tensors: int) -> Operator:
    name, custom, version = codes[_index(operator.OpcodeIndex(), len(codes), "operator code")]
    inputs, outputs = _vector(operator, "Inputs"), _vector(operator, "Outputs")
    for index in [*(i for i in inputs if i != -1), *outputs]:
        _index(index, tensors, "tensor")
    options, table = _options(operator)
    oddities = {
        f"fields {NEWER}": _newer(operator._tab, "Operator") or (options in FIELDS and _newer(table, options)),
        "custom options": operator.CustomOptionsLength() or operator.LargeCustomOptionsSize(),
        "intermediate tensors": operator.IntermediatesLength(),
    }
    odd = ", ".join(what for what, present in oddities.items() if present)
    return Operator(name, custom, version, inputs, outputs, options, _option(options, table), odd)


def _options(operator: Any) -> tuple[str, Any]:
    """The name of the operator's options table in the schema, and the table; "" and None without one."""
    import tflite

    table = operator.BuiltinOptions()
    if table is None:
        return "", None
    number = operator.BuiltinOptionsType()
    return _names(tflite.BuiltinOptions).get(number, f"options {number}"), table


def _option(kind: str, table: Any) -> Callable[[str], Any]:
    import tflite

    def option(name: str) -> Any:
        with _demand_undamaged():
            options = getattr(tflite, kind)()
            options.Init(table.Bytes, table.Pos)
            return getattr(options, name)()

    return option
