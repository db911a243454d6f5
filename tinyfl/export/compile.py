"""Compiles an int8 .tflite to a program for the core, whose outputs have the very bits that TensorFlow Lite Micro's have."""

from collections import defaultdict
from collections.abc import Callable
from types import MappingProxyType

from tinyfl.errors import DataError
from tinyfl.export import grids, memory, windows
from tinyfl.export.draft import Draft, Value, per_tensor
from tinyfl.export.program import MOST_BYTES, Operand, Program, TensorInfo, pack
from tinyfl.export.tflite import Model, Operator, Tensor, read_tflite

_Lower = Callable[[Draft, Operator], None]
LOWERED: MappingProxyType[str, tuple[_Lower, int]] = MappingProxyType(
    {
        "ADD": (grids.add, 5),
        "AVERAGE_POOL_2D": (windows.average_pool_2d, 3),
        "CONCATENATION": (grids.concatenation, 4),
        "CONV_2D": (windows.conv_2d, 8),
        "DEPTHWISE_CONV_2D": (windows.depthwise_conv_2d, 7),
        "DEQUANTIZE": (grids.dequantize, 6),
        "FULLY_CONNECTED": (windows.fully_connected, 13),
        "LEAKY_RELU": (grids.leaky_relu, 2),
        "LOGISTIC": (grids.logistic, 3),
        "MAX_POOL_2D": (windows.max_pool_2d, 3),
        "MEAN": (grids.mean, 3),
        "MUL": (grids.mul, 7),
        "PAD": (grids.pad, 4),
        "QUANTIZE": (grids.quantize, 4),
        "RELU": (grids.relu, 3),
        "RELU6": (grids.relu6, 3),
        "RESHAPE": (grids.reshape, 1),
        "SOFTMAX": (grids.softmax, 3),
        "TANH": (grids.tanh, 3),
    }
)
"""How each operator becomes ops, and the last version of it that is known."""


def compile_tflite(content: bytes) -> Program:
    """The program for a .tflite file's ``content``.

    Raises DataError for what is damaged, or beyond the int8 engine; the message names the operator.
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
        raise DataError(f"it has {len(numbers)} {of}s, and 1 is supported.")
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
    """Whether it does anything when the program runs. What computes integers computes shapes, as Keras does before a RESHAPE;
    the file says what they come to, and whoever else would read the integers is refused."""
    if operator.outputs and all(draft.model.tensors[i].dtype in ("INT32", "INT64") for i in operator.outputs):
        return False
    if operator.custom or operator.name not in LOWERED:
        raise DataError(f"{'a custom operator' if operator.custom else 'it'} is not supported. Known are {', '.join(LOWERED)}.")
    lower, newest = LOWERED[operator.name]
    if not 1 <= operator.version <= newest:
        raise DataError(
            f"its version {operator.version} is not known, {newest} is the newest. Convert with an older TensorFlow."
        )
    ops = len(draft.ops)
    lower(draft, operator)
    return len(draft.ops) > ops


def _finished(draft: Draft, source: Tensor, target: Tensor, names: list[str]) -> Program:
    model = draft.model
    start, end = draft.places[model.inputs[0]], draft.places.get(model.outputs[0], Operand(None))
    if start.buffer is None or end.buffer is None:
        raise DataError(f"its output {target.name} is not what an operator computes. The file is damaged.")
    offsets, arena = memory.plan(_lifetimes(draft, start.buffer, end.buffer))
    if max(arena, len(draft.constants)) > MOST_BYTES:
        raise DataError(f"it needs an arena of {arena:,} bytes, and {MOST_BYTES:,} are supported. Take a smaller model.")
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
