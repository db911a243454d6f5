"""An emulated Cortex-M4F, which has its own dot products, gives the bits that this machine gives."""

import shutil
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert's schema: pip install 'tinyfl[tf]'")

import damage
import m4f

from tinyfl.int8.compile import compile_tflite
from tinyfl.int8.native import run_native


@pytest.fixture(scope="module", params=["zig", "gcc"])
def board(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> m4f.Board:
    for module in ("unicorn", "elftools", *(["ziglang"] if request.param == "zig" else [])):
        if find_spec(module) is None:
            pytest.skip(f"needs {module}: pip install 'tinyfl[firmware]'")
    if request.param == "gcc" and not shutil.which("arm-none-eabi-gcc"):
        pytest.skip("no arm-none-eabi-gcc on the path")
    return m4f.Board(m4f.image(tmp_path_factory.mktemp("m4f"), request.param))


def test_every_operator(board: m4f.Board) -> None:
    rng = np.random.default_rng(5)
    for content in damage.good_files():
        program = compile_tflite(content)
        x = rng.normal(0, 60, (8, *program.input.shape)).astype(program.input.dtype)
        np.testing.assert_array_equal(board.run(program, x), run_native(program, x))


@pytest.mark.parametrize("name", ["ds-cnn", "autoencoder", "resnet-8", "mobilenet", "branches"])
def test_whole_networks(keras_files: Callable[..., bytes], board: m4f.Board, name: str) -> None:
    program = compile_tflite(keras_files(name))
    x = np.random.default_rng(6).integers(-128, 128, (2, *program.input.shape), np.int8)
    np.testing.assert_array_equal(board.run(program, x), run_native(program, x))
