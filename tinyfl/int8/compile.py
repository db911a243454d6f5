"""Compiles an int8 .tflite to a program for the core, with outputs bit-identical to those of TensorFlow Lite Micro."""

from collections import defaultdict
from collections.abc import Callable
from types import MappingProxyType
from typing import NamedTuple

from tinyfl.errors import DataError
from tinyfl.int8 import grids, memory, windows
from tinyfl.int8.draft import Draft, Value, per_tensor
from tinyfl.int8.program import MAX_BYTES, Operand, Program, TensorInfo, pack
from tinyfl.int8.tflite import AGAIN, MAX_ENTRIES, Model, Operator, Tensor, read_tflite


class Lowering(NamedTuple):
    """A supported operator: its lowering function, the newest supported version, the maximum number of inputs, and the table of
    its options, if any."""

    lower: Callable[[Draft, Operator], None]
    version: int
    inputs: int
    options: str = ""


LOWERED: MappingProxyType[str, Lowering] = MappingProxyType(
    {
        "ADD": Lowering(grids.add, 5, 2, "AddOptions"),
        "AVERAGE_POOL_2D": Lowering(windows.average_pool_2d, 3, 1, "Pool2DOptions"),
        "CONCATENATION": Lowering(grids.concatenation, 4, MAX_ENTRIES, "ConcatenationOptions"),
        "CONV_2D": Lowering(windows.conv_2d, 8, 3, "Conv2DOptions"),
        "DEPTHWISE_CONV_2D": Lowering(windows.depthwise_conv_2d, 7, 3, "DepthwiseConv2DOptions"),
        "DEQUANTIZE": Lowering(grids.dequantize, 6, 1),
        "FULLY_CONNECTED": Lowering(windows.fully_connected, 13, 3, "FullyConnectedOptions"),
        "LEAKY_RELU": Lowering(grids.leaky_relu, 2, 1, "LeakyReluOptions"),
        "LOGISTIC": Lowering(grids.logistic, 3, 1),
        "MAX_POOL_2D": Lowering(windows.max_pool_2d, 3, 1, "Pool2DOptions"),
        "MEAN": Lowering(grids.mean, 3, 2, "ReducerOptions"),
        "MUL": Lowering(grids.mul, 7, 2, "MulOptions"),
        "PAD": Lowering(grids.pad, 4, 2),
        "QUANTIZE": Lowering(grids.quantize, 4, 1),
        "RELU": Lowering(grids.relu, 3, 1),
        "RELU6": Lowering(grids.relu6, 3, 1),
        "RESHAPE": Lowering(grids.reshape, 1, 2),
        "SOFTMAX": Lowering(grids.softmax, 3, 1, "SoftmaxOptions"),
        "TANH": Lowering(grids.tanh, 3, 1),
    }
)
"""Supported operators, by their names in the schema."""


def compile_tflite(content: bytes) -> Program:
    """Compiles the ``content`` of a .tflite file.

    Raises DataError for a damaged file or an unsupported operator; the message names the operator.
    """
    model = read_tflite(content)
    draft = Draft(model)
    source = _end(model.inputs, model, "input")
    draft.places[model.inputs[0]] = draft.buffer(source.size * (4 if source.dtype == "FLOAT32" else 1))
    names = []
    for number, operator in enumerate(model.operators):
        try:
            if _lower(draft, operator):
                names.append(operator.name)
        except DataError as error:
            raise DataError(f"operator {number} ({operator.name}): {error}") from error
    target = _end(model.outputs, model, "output")
    return _finished(draft, source, target, names)


def _end(numbers: tuple[int, ...], model: Model, of: str) -> Tensor:
    if len(numbers) != 1:
        raise DataError(f"it has {len(numbers)} {of}s, but only 1 is supported.")
    tensor = model.tensors[numbers[0]]
    if tensor.odd or tensor.data is not None or tensor.dtype not in ("INT8", "FLOAT32"):
        raise DataError(
            f"its {of} {tensor.name} is {tensor.dtype}{', ' + tensor.odd if tensor.odd else ''}: int8 or float32 of a fixed "
            "size is needed. Convert the model with inference_input_type and inference_output_type int8."
        )
    if tensor.dtype == "INT8":
        per_tensor(tensor)
    return tensor


def _lower(draft: Draft, operator: Operator) -> bool:
    """Lowers an operator; returns whether it added ops. Integer operators are skipped: they compute shapes, as Keras does
    before a RESHAPE, and the file has their results; any other reader of the integers is refused."""
    if operator.outputs and all(draft.model.tensors[i].dtype in ("INT32", "INT64") for i in operator.outputs):
        return False
    if operator.custom or operator.name not in LOWERED:
        raise DataError(f"{'a custom operator' if operator.custom else 'it'} is not supported. Known are {', '.join(LOWERED)}.")
    known = LOWERED[operator.name]
    if not 1 <= operator.version <= known.version:
        raise DataError(
            f"its version {operator.version} is not supported; the newest is {known.version}. Convert with an older TensorFlow."
        )
    if len(operator.inputs) > known.inputs:
        raise DataError(f"it has {len(operator.inputs)} inputs, but only {known.inputs} are supported.")
    if known.options and operator.options != known.options:
        raise DataError(f"its options are {operator.options or 'missing'}, but {known.options} are needed. {AGAIN}")
    if operator.odd:
        raise DataError(f"it has {operator.odd}, which are not supported. {AGAIN}")
    ops = len(draft.ops)
    known.lower(draft, operator)
    return len(draft.ops) > ops


def _finished(draft: Draft, source: Tensor, target: Tensor, names: list[str]) -> Program:
    model = draft.model
    start, end = draft.places[model.inputs[0]], draft.places.get(model.outputs[0], Operand(None))
    if start.buffer is None or end.buffer is None:
        raise DataError(f"its output {target.name} is not computed by any operator. The file is damaged.")
    offsets, arena = memory.place_buffers(_lifetimes(draft, start.buffer, end.buffer))
    if max(arena, len(draft.constants)) > MAX_BYTES:
        raise DataError(f"it needs an arena of {arena:,} bytes, but only {MAX_BYTES:,} are supported. Use a smaller model.")
    ends = [(_info(source), start), (_info(target), end)]
    content = pack(draft.ops, bytes(draft.constants), arena, ends, offsets.__getitem__)
    return Program(content, ends[0][0], ends[1][0], arena, tuple(names), draft.work)


def _lifetimes(draft: Draft, source: int, target: int) -> list[memory.Buffer]:
    first, last = {source: -1}, {source: -1}
    over: dict[int, dict[int, int]] = defaultdict(dict)
    for step, op in enumerate(draft.ops):
        for operand in (op.a, op.b, op.out):
            if operand.buffer is not None:
                first.setdefault(operand.buffer, step)
                last[operand.buffer] = step
        if op.out.buffer is not None and first[op.out.buffer] == step:
            over[op.out.buffer] = dict(op.over)
    last[target] = len(draft.ops)
    return [
        memory.Buffer(size, first[i], last[i], {j: lead for j, lead in over[i].items() if last[j] == first[i]})
        for i, size in enumerate(draft.buffers)
    ]


def _info(tensor: Tensor) -> TensorInfo:
    shape = tensor.shape[1:] if len(tensor.shape) > 1 and tensor.shape[0] == 1 else tensor.shape
    if tensor.dtype == "FLOAT32":
        return TensorInfo(shape, "float32", 1.0, 0)
    value = Value(tensor, Operand(None))
    return TensorInfo(shape, "int8", value.scale, value.zero)
