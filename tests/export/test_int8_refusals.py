"""What the int8 engine does not do is refused by name, with what to do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert's schema: pip install 'tinyfl[tf]'")

from flat import PADDING, Flat, schema

from tinyfl.errors import ConfigError, DataError
from tinyfl.int8.compile import compile_tflite
from tinyfl.int8.native import load_program, quantized, run_native


def one(name: str, version: int = 1, x: dict[str, Any] | None = None, y: dict[str, Any] | None = None, **options: Any) -> bytes:
    """``name`` over (1, 4, 4, 2)."""
    f = Flat()
    ends = [f.tensor((1, 4, 4, 2), **({"scale": 0.1} | (end or {}))) for end in (x, y)]
    f.op(name, ends[:1], ends[1:], version, **options)
    return f.content(ends[:1], ends[1:])


def dense(weights: dict[str, Any] | None = None, bias: dict[str, Any] | None = None, **options: Any) -> bytes:
    f = Flat()
    x, y = f.tensor((1, 4), 0.1), f.tensor((1, 3), 0.1)
    w = f.tensor((3, 4), **({"scale": 0.1, "data": np.ones((3, 4))} | (weights or {})))
    b = f.tensor((3,), **({"scale": 0.01, "dtype": "INT32", "data": [1, 2, 3]} | (bias or {})))
    f.op("FULLY_CONNECTED", [x, w, b], [y], 4, table="FullyConnectedOptions", **options)
    return f.content([x], [y])


def joined(shapes: list[tuple[int, ...]], scales: list[float], axis: int) -> bytes:
    f = Flat()
    x, other = (f.tensor(s, scale) for s, scale in zip(shapes, scales, strict=True))
    f.op("RELU", [x], [other], 1)
    y = f.tensor((1, 4), 0.1)
    f.op("CONCATENATION", [x, other], [y], 2, table="ConcatenationOptions", axis=axis)
    return f.content([x], [y])


def changed(change: Callable[[Flat], object]) -> bytes:
    f = Flat()
    x, y = f.tensor((1, 4), 0.1), f.tensor((1, 4), 0.1)
    f.op("RELU", [x], [y], 1)
    f.graph.inputs, f.graph.outputs = [x], [y]
    change(f)
    return f.content(f.graph.inputs, f.graph.outputs)


def sparse(f: Flat) -> None:
    f.graph.tensors[0].sparsity = schema.SparsityParametersT()


def custom(f: Flat) -> None:
    code = f.model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = b"Mine"


def dynamic(f: Flat) -> None:
    f.graph.tensors[0].shapeSignature = [1, -1]


def mean(shape: tuple[int, ...], axes: list[int], out: tuple[int, ...]) -> bytes:
    f = Flat()
    x, y = f.tensor(shape, 0.1), f.tensor(out, 0.1)
    f.op("MEAN", [x, f.tensor((len(axes),), dtype="INT32", data=axes)], [y], 2, table="ReducerOptions", keepDims=False)
    return f.content([x], [y])


def wide_sum(other: tuple[int, ...] = (1, 2, 1, 2, 1)) -> bytes:
    f = Flat()
    x, y = f.tensor((2, 1, 2, 1, 2), 0.1), f.tensor((2, 2, 2, 2, 2), 0.1)
    f.op("ADD", [x, f.tensor(other, 0.1, data=np.ones(other))], [y], 2, table="AddOptions")
    return f.content([x], [y])


def dense_of_rows() -> bytes:
    """Rows that are kept, but not as long as the weights."""
    f = Flat()
    x, y = f.tensor((1, 2, 6), 0.1), f.tensor((1, 2, 3), 0.1)
    w = f.tensor((3, 4), 0.1, data=np.ones((3, 4)))
    f.op("FULLY_CONNECTED", [x, w], [y], 6, table="FullyConnectedOptions", keepNumDims=True)
    return f.content([x], [y])


def reshaped_constant() -> bytes:
    f = Flat()
    x, y = f.tensor((1, 4), 0.1), f.tensor((1, 4), 0.1)
    f.op("RELU", [x], [y], 1)
    end = f.tensor((4,), 0.1)
    f.op("RESHAPE", [f.tensor((1, 4), 0.1, data=np.ones(4))], [end], 1)
    return f.content([x], [end])


POOL = {"table": "Pool2DOptions", "padding": PADDING["valid"], "strideH": 1, "strideW": 1, "filterHeight": 1, "filterWidth": 1}
CASES: dict[str, tuple[bytes, str]] = {
    "operator": (one("GATHER_ND"), r"operator 0 \(GATHER_ND\): it is not supported. Known are ADD,"),
    "custom operator": (changed(custom), r"operator 0 \(Mine\): a custom operator is not supported"),
    "version": (one("RELU", 9), r"\(RELU\): its version 9 is not supported; the newest is 3"),
    "float": (
        one("RELU", x={"dtype": "FLOAT32", "scale": None}),
        "of type FLOAT32, but INT8 is needed. Convert the model with full",
    ),
    "int16": (one("RELU", y={"dtype": "INT16"}), "of type INT16, but INT8 is needed"),
    "int16 input": (one("RELU", x={"dtype": "INT16"}), "its input t0 is INT16: int8 or float32 of a fixed size is needed"),
    "scales": (one("RELU", x={"scale": [0.1, 0.2]}), "t0 needs one scale and one zero point"),
    "zero point": (one("RELU", x={"zero": 200}), "the zero point 200"),
    "scale": (one("RELU", x={"scale": float("nan")}), "has the scale nan"),
    "factor": (
        one("RELU", x={"scale": 1e30}, y={"scale": 1e-30}),
        "ask for a factor of 1e\\+60, but it must be less than 2\\^30",
    ),
    "sparse": (changed(sparse), "t0 is INT8, sparse"),
    "dynamic": (changed(dynamic), "of a size known only at run time: give the model a batch of 1"),
    "inputs": (changed(lambda f: f.graph.inputs.append(1)), "it has 2 inputs, but only 1 is supported"),
    "outputs": (changed(lambda f: f.graph.outputs.append(0)), "it has 2 outputs, but only 1 is supported"),
    "subgraphs": (changed(lambda f: f.model.subgraphs.append(f.graph)), "it has 2 subgraphs"),
    "schema": (changed(lambda f: setattr(f.model, "version", 4)), "its schema has version 4"),
    "weights' zero point": (dense({"zero": 3}), r"\(FULLY_CONNECTED\): its weights t2 have a zero point"),
    "weights' type": (dense({"dtype": "FLOAT32"}), "its weights t2 are FLOAT32"),
    "weights not constant": (dense({"data": None}), "its weights t2 are INT8, not constant"),
    "weights' scales": (dense({"scale": [0.1] * 4, "axis": 1}), "need one good scale, or one for each output channel"),
    "shuffled weights": (dense(weightsFormat=1), "its weights are shuffled"),
    "bias": (dense(bias={"dtype": "FLOAT32"}), r"its bias t3 must be 3 constants of type INT32, but is FLOAT32"),
    "activation": (dense(fusedActivationFunction=4), "its fused activation"),
    "pool": (one("MAX_POOL_2D", 2, x={"zero": 3}, **POOL), "differ in scale or zero point, which is not supported for a pool"),
    "window": (one("MAX_POOL_2D", 2, **POOL | {"filterWidth": 9}), "covers 9 pixels, but its input has only 4"),
    "softmax": (one("SOFTMAX", 2, table="SoftmaxOptions", beta=1.0), "must have the scale 1/256 and the zero point -128"),
    "logistic": (one("LOGISTIC", y={"zero": -128}), "must have the scale 1/256 and the zero point -128, but has 0.1"),
    "tanh": (one("TANH"), "must have the scale 1/128 and the zero point 0, but has 0.1"),
    "relu6": (one("RELU6", y={"scale": 0.2}), "differ in scale or zero point, which is not supported. Use RELU"),
    "concatenation": (joined([(1, 2), (1, 2)], [0.1, 0.2], 1), r"\(CONCATENATION\): its inputs and its output differ in scale"),
    "axis": (joined([(1, 2), (1, 2)], [0.1, 0.1], 2), "do not join along axis 2"),
    "mean": (mean((2, 2, 2, 2, 2), [0, 2, 4], (2, 2)), "are too scattered: compute the mean in two steps"),
    "axes": (mean((2, 2), [3], (2, 2)), "do not fit its input"),
    "dense rows": (dense_of_rows(), r"\(3, 4\) do not fit its input \(1, 2, 6\)"),
    "constant output": (reshaped_constant(), "its output t2 is not computed by any operator"),
    "alpha": (one("LEAKY_RELU", table="LeakyReluOptions", alpha=float("inf")), "ask for a factor of inf"),
    "shapes": (wide_sum((3,)), "cannot be broadcast together"),
    "shape": (mean((2, 2), [0], (3,)), "has the shape \\(3,\\), but the operator computes \\(2,\\)"),
    "dimensions": (wide_sum(), r"\(ADD\): it goes over 5 separate dimensions, but only 4 are supported"),
}


@pytest.mark.parametrize("case", CASES)
def test_refusal_names_it(case: str) -> None:
    content, message = CASES[case]
    with pytest.raises(DataError, match=message):
        compile_tflite(content)


def test_a_model_beyond_all_bounds_is_refused_before_it_takes_memory() -> None:
    f = Flat()
    size = 1 << 14
    x, y = f.tensor((1, size, size, 1), 0.1), f.tensor((1, size, size, 1), 0.1)
    w = f.tensor((1, 99, 99, 1), 0.1, data=np.ones(99 * 99))
    options = {"padding": PADDING["same"], "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    f.op("CONV_2D", [x, w], [y], 3, table="Conv2DOptions", **options)
    with pytest.raises(DataError, match="more than 4,294,967,295 steps"):
        compile_tflite(f.content([x], [y]))


def test_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    with pytest.raises(DataError, match=r"model\.tflite cannot be read: No such file"):
        load_program(path)
    path.write_bytes(b"not a model")
    with pytest.raises(DataError, match=r"model\.tflite: it is not a \.tflite file"):
        load_program(path)
    path.write_bytes(changed(lambda f: None))
    assert load_program(path).ops == ("RELU",)


def test_inputs_of_another_shape_or_type_are_refused() -> None:
    program = compile_tflite(changed(lambda f: None))
    for x in (np.zeros((2, 5), np.int8), np.zeros(4, np.int8), np.zeros((2, 2, 2), np.float32)):
        with pytest.raises(ConfigError, match=r"the model needs \(n, 4\)"):
            run_native(program, x)
    with pytest.raises(ConfigError, match="the input is int64, but the model needs int8 or float32"):
        quantized(program.input, np.zeros((2, 4), np.int64))
    assert run_native(program, np.zeros((0, 4), np.int8)).shape == (0, 4)
