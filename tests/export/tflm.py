"""TensorFlow Lite Micro, the oracle: the bits that int8 inference must have, and the arena that it takes."""

import os
import re
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tflite_micro import runtime

from tinyfl.int8.compile import compile_tflite
from tinyfl.int8.native import run_native
from tinyfl.int8.program import Program

ROOM = 1 << 21
"""Bytes for TFLM's arena: by itself it takes ten times the file, which is too little for some."""


def outputs(content: bytes, x: NDArray[Any]) -> NDArray[Any]:
    """Raw outputs (n, ...) for raw inputs (n, ...), each with the batch of 1 in it or not."""
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=ROOM)
    shape = interpreter.get_input_details(0)["shape"]
    results = []
    for sample in x:
        interpreter.set_input(sample.reshape(shape), 0)
        interpreter.invoke()
        results.append(interpreter.get_output(0).copy())
    return np.array(results)


def head_bytes(content: bytes) -> int:
    """The head section of TFLM's arena: activations and scratch, which is what a program's arena holds."""
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=ROOM)
    saved = os.dup(2)
    with tempfile.TemporaryFile() as log:
        try:
            os.dup2(log.fileno(), 2)
            interpreter.print_allocations()
        finally:
            os.dup2(saved, 2)
            os.close(saved)
        log.seek(0)
        found = re.search(r"Arena allocation head (\d+) bytes", log.read().decode())
    assert found
    return int(found[1])


def random_inputs(program: Program, count: int, seed: int = 0) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    shape = (count, *program.input.shape)
    if program.input.dtype == "float32":
        return rng.normal(0, 2, shape).astype(np.float32)
    return rng.integers(-128, 128, shape, np.int8)


def assert_equal(content: bytes, x: NDArray[Any] | None = None, *, count: int = 4, seed: int = 0) -> NDArray[Any]:
    """The core's outputs have the oracle's bits, in an arena that is no larger; the outputs."""
    program = compile_tflite(content)
    x = random_inputs(program, count, seed) if x is None else x
    expected = outputs(content, x)
    found = run_native(program, x)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)
    assert program.arena_bytes <= head_bytes(content)
    return found
