"""Int8 inference on this machine, with the same C source as on a board."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.core.binding import library
from tinyfl.errors import ConfigError, DataError
from tinyfl.int8.compile import compile_tflite
from tinyfl.int8.program import Program, TensorInfo
from tinyfl.int8.tflite import MAX_BYTES

__all__ = ["Program", "TensorInfo", "load_program", "quantized", "run_native"]


def load_program(path: Path) -> Program:
    """Compiles the int8 .tflite file ``path`` for the core.

    Raises DataError if it cannot be read, is damaged, or has an unsupported operator, which is named.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        return compile_tflite(content)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def run_native(program: Program, x: NDArray[Any]) -> NDArray[Any]:
    """Runs a program: raw outputs, (n, *program.output.shape) of its dtype, for ``x``, (n, *program.input.shape) of the input's
    dtype, or float32 for an int8 input, which is then quantised.

    Raises ConfigError for another shape or dtype.
    """
    inputs = np.ascontiguousarray(quantized(program.input, x))
    y = np.empty((len(inputs), *program.output.shape), program.output.dtype)
    run = library().tinyfl_native_program_run
    run.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    content = ctypes.create_string_buffer(program.content, len(program.content))
    code = run(content, len(program.content), inputs.ctypes.data, y.ctypes.data, len(inputs))
    if code:
        raise DataError(f"the core refuses the program ({code}). It is damaged: compile the model again.")
    return y


def quantized(info: TensorInfo, x: NDArray[Any]) -> NDArray[Any]:
    """Converts ``x``, (n, *info.shape), to the tensor's raw values: float32 to int8 as in TFLM's QUANTIZE, NaN to the minimum.

    Raises ConfigError for another shape or dtype.
    """
    if x.shape[1:] != info.shape or x.ndim != len(info.shape) + 1:
        raise ConfigError(f"the input has the shape {x.shape}, but the model needs (n, {', '.join(map(str, info.shape))}).")
    if x.dtype == info.dtype:
        return x
    if x.dtype != np.float32 or info.dtype != "int8":
        raise ConfigError(f"the input is {x.dtype}, but the model needs {info.dtype}{' or float32' * (info.dtype == 'int8')}.")
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.fmin(np.fmax(x / np.float32(info.scale), np.float32(-512)), np.float32(512))
    rounded = np.trunc(steps)
    rounded += (steps - rounded >= 0.5).astype(np.float32) - (steps - rounded <= -0.5).astype(np.float32)
    values: NDArray[np.int8] = np.clip(rounded + info.zero, -128, 127).astype(np.int8)
    return values
