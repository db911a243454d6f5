"""Small .tflite files made piece by piece: what no converter gives, such as odd scales, paddings and damage."""

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import ArrayLike, NDArray

_NUMPY = {"INT8": np.int8, "INT32": np.int32, "FLOAT32": np.float32}


class Flat:
    """A model of one subgraph. Tensors and operators are numbered in the order in which they are added."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.description = b"test"
        self.model.operatorCodes = []
        self.model.buffers = [schema.BufferT()]
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def tensor(
        self,
        shape: Sequence[int],
        scale: float | Sequence[float] | None = None,
        zero: int = 0,
        *,
        dtype: str = "INT8",
        data: ArrayLike | None = None,
        axis: int = 0,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name = f"t{len(self.graph.tensors)}".encode()
        tensor.shape = list(shape)
        tensor.type = getattr(schema.TensorType, dtype)
        tensor.hasRank = True
        tensor.buffer = 0
        if scale is not None:
            scales = np.atleast_1d(np.asarray(scale, np.float32))
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = scales
            tensor.quantization.zeroPoint = np.full(scales.size, zero, np.int64)
            tensor.quantization.quantizedDimension = axis
        if data is not None:
            buffer = schema.BufferT()
            content: NDArray[Any] = np.ascontiguousarray(data, _NUMPY.get(dtype))
            buffer.data = np.frombuffer(content.tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def op(self, name: str, inputs: Sequence[int], outputs: Sequence[int], version: int = 1, **options: Any) -> Any:
        """``options`` are those of the operator's table, whose name is given as ``table``."""
        code = schema.OperatorCodeT()
        number = getattr(schema.BuiltinOperator, name)
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes)
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        table = options.pop("table", None)
        if table:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            operator.builtinOptions = getattr(schema, f"{table}T")()
            for key, value in options.items():
                assert hasattr(operator.builtinOptions, key), key
                setattr(operator.builtinOptions, key, value)
        self.model.operatorCodes.append(code)
        self.graph.operators.append(operator)
        return operator

    def content(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        self.graph.inputs, self.graph.outputs = list(inputs), list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


FUSED = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
    "relu_n1_to_1": schema.ActivationFunctionType.RELU_N1_TO_1,
}
PADDING = {"same": schema.Padding.SAME, "valid": schema.Padding.VALID}
