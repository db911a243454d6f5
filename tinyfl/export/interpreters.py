"""The interpreters of .tflite files on this machine, by their names in a model card."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import F32
from tinyfl.int8.compile import compile_tflite
from tinyfl.int8.native import quantized, run_native
from tinyfl.system.installed import quiet, tensorflow_part

Run = Callable[[bytes, F32], F32]
"""Maps a model and inputs float32 (rows, *shape) to outputs float32 (rows, outputs), row by row. All interpreters get equally
quantised inputs for an int8 model."""


def available(int8: bool) -> tuple[dict[str, Run], dict[str, str]]:
    """The available interpreters, and the reasons why others are not.

    Raises InstallError without ai-edge-litert, which comes with TensorFlow.
    """
    litert = tensorflow_part("ai_edge_litert.interpreter").Interpreter
    runs: dict[str, Run] = {f"LiteRT {version('ai-edge-litert')}": lambda model, x: _interpreted(litert, model, x)}
    missing = {}
    try:
        name = f"tflite-runtime {version('tflite-runtime')}"
    except PackageNotFoundError:
        missing["tflite-runtime"] = "not installed: pip install 'tinyfl[tflite-runtime]', on Python below 3.12"
    else:
        if int(np.__version__.partition(".")[0]) < 2:
            runtime = tensorflow_part("tflite_runtime.interpreter").Interpreter
            runs[name] = lambda model, x: _interpreted(runtime, model, x)
        else:
            missing[name] = f"needs numpy below 2, but {np.__version__} is installed"
    if int8:
        runs["tinyfl's core, as TFLM"] = _core
    return runs, missing


def _core(model: bytes, x: F32) -> F32:
    """Runs an int8 model in the core, bit-identical to TensorFlow Lite Micro."""
    program = compile_tflite(model)
    y = run_native(program, x)
    return _real(y.reshape(len(x), -1), program.output.scale, program.output.zero)


def _interpreted(interpreter: Any, model: bytes, x: F32) -> F32:
    with quiet():
        instance = interpreter(model_content=model)
        instance.allocate_tensors()
    (input,), (output,) = instance.get_input_details(), instance.get_output_details()
    int8 = input["dtype"] == np.int8
    rows = []
    for row in quantized(compile_tflite(model).input, x) if int8 else x:
        instance.set_tensor(input["index"], row[None])
        instance.invoke()
        rows.append(instance.get_tensor(output["index"]).ravel())
    y = np.stack(rows)
    return _real(y, *output["quantization"]) if int8 else y


def _real(y: NDArray[Any], scale: float, zero: int) -> F32:
    return ((y.astype(np.int32) - zero) * np.float32(scale)).astype(np.float32)
