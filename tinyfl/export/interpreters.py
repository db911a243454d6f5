"""Those that run a .tflite file on this machine, each by the name that a model card has."""

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
"""From a model and inputs float32 (rows, *shape) to outputs float32 (rows, outputs), each row by itself. An int8 model gets
every input quantised alike, whoever runs it."""


def available(int8: bool) -> tuple[dict[str, Run], dict[str, str]]:
    """Those that can run a model on this machine, and why the others cannot.

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
            missing[name] = f"needs numpy below 2, and this is {np.__version__}"
    if int8:
        runs["tinyfl's core, as TFLM"] = _core
    return runs, missing


def _core(model: bytes, x: F32) -> F32:
    """An int8 model by the core, whose outputs have the bits of TensorFlow Lite Micro's."""
    program = compile_tflite(model)
    y = run_native(program, x)
    return _real(y.reshape(len(x), -1), program.output.scale, program.output.zero)


def _interpreted(interpreter: Any, model: bytes, x: F32) -> F32:
    with quiet():
        running = interpreter(model_content=model)
        running.allocate_tensors()
    (given,), (taken,) = running.get_input_details(), running.get_output_details()
    int8 = given["dtype"] == np.int8
    rows = []
    for row in quantized(compile_tflite(model).input, x) if int8 else x:
        running.set_tensor(given["index"], row[None])
        running.invoke()
        rows.append(running.get_tensor(taken["index"]).ravel())
    y = np.stack(rows)
    return _real(y, *taken["quantization"]) if int8 else y


def _real(y: NDArray[Any], scale: float, zero: int) -> F32:
    return ((y.astype(np.int32) - zero) * np.float32(scale)).astype(np.float32)
