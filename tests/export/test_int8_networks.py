"""Whole networks have TensorFlow Lite Micro's bits, in an arena that is never larger."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tflite_micro", reason="needs tflite-micro, the oracle: pip install 'tinyfl[tf]'")
pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert's schema: pip install 'tinyfl[tf]'")

import damage
import tflm
from ops import SEEDS, Chain

from tinyfl.int8.compile import LOWERED, compile_tflite
from tinyfl.int8.native import run_native

KerasFiles = Callable[..., bytes]


@pytest.mark.parametrize(("name", "share"), [("ds-cnn", 0.7), ("autoencoder", 1.0), ("resnet-8", 0.7), ("mobilenet", 0.55)])
def test_mlperf_tiny_shapes(keras_files: KerasFiles, name: str, share: float) -> None:
    """With at most ``share`` of TFLM's arena, where layers can overlap."""
    content = keras_files(name)
    outputs = tflm.assert_equal(content, count=16)
    assert len(np.unique(outputs, axis=0)) > 8
    assert compile_tflite(content).arena_bytes <= share * tflm.head_bytes(content)


def test_every_operator_in_one_model() -> None:
    content = damage.good_files()[0]
    assert set(compile_tflite(content).ops) | {"RESHAPE"} == set(LOWERED)
    tflm.assert_equal(content, count=16)


@pytest.mark.parametrize("end", ["int8", "float32"])
@pytest.mark.parametrize("per_tensor", [False, True])
def test_a_model_of_many_layers(keras_files: KerasFiles, end: str, per_tensor: bool) -> None:
    content = keras_files("branches", end=end, per_tensor=per_tensor)
    program = compile_tflite(content)
    assert program.input.dtype == program.output.dtype == end
    if end == "int8":
        tflm.assert_equal(content, count=16)
    else:
        tflm.assert_equal(content, np.random.default_rng(3).normal(0, 3, (16, 12, 12, 3)).astype(np.float32))


def test_float_input_is_quantised_as_tflm_does(keras_files: KerasFiles) -> None:
    """An int8 model given floats, beside the same model whose first operator is QUANTIZE."""
    plain, whole = (compile_tflite(keras_files("branches", end=end)) for end in ("int8", "float32"))
    x = np.random.default_rng(4).normal(0, 3, (8, 12, 12, 3)).astype(np.float32)
    q = run_native(plain, x)
    expected = plain.output.scale * (q.astype(np.float32) - plain.output.zero)
    np.testing.assert_array_equal(run_native(whole, x), expected)


def test_floats_beyond_int8_saturate_and_nan_is_the_least(keras_files: KerasFiles) -> None:
    """Where TFLM's own conversion is undefined."""
    plain, whole = (compile_tflite(keras_files("branches", end=end)) for end in ("int8", "float32"))
    limits = np.array([np.inf, -np.inf, 3e38, -3e38, np.nan], np.float32)
    x = np.broadcast_to(limits[:, None, None, None], (5, 12, 12, 3))
    raw = np.array([127, -128, 127, -128, -128], np.int8)
    expected = run_native(plain, np.broadcast_to(raw[:, None, None, None], x.shape))
    np.testing.assert_array_equal(run_native(plain, x), expected)
    floats = plain.output.scale * (expected.astype(np.float32) - plain.output.zero)
    np.testing.assert_array_equal(run_native(whole, x), floats)


def test_inputs_at_their_limits(keras_files: KerasFiles) -> None:
    """All at one end of int8, they saturate what random ones do not."""
    content = keras_files("branches")
    limits = np.array([-128, 127, 0, compile_tflite(content).input.zero], np.int8)
    tflm.assert_equal(content, np.broadcast_to(limits[:, None, None, None], (4, 12, 12, 3)).copy())


@st.composite
def networks(draw: st.DrawFn) -> bytes:
    """Chains of layers with shortcuts and branches, so that buffers of all sizes meet in the arena."""
    chain = Chain(draw, np.random.default_rng(draw(SEEDS)))
    source = chain.start((1, draw(st.integers(1, 10)), draw(st.integers(1, 10)), draw(st.integers(1, 8))))
    earlier: list[tuple[tuple[int, ...], int]] = []
    for _ in range(draw(st.integers(1, 8))):
        earlier.append((chain.shape, chain.last))
        alike = [t for shape, t in earlier[:-1] if shape == chain.shape]
        kind = draw(st.sampled_from(["conv", "conv", "depthwise", "pool", "function", "add", "concat", "pad", "reshape"]))
        if kind == "conv":
            chain.conv(draw(st.integers(1, 16)))
        elif kind == "depthwise":
            chain.depthwise()
        elif kind == "pool":
            chain.pool(draw(st.sampled_from(["MAX_POOL_2D", "AVERAGE_POOL_2D"])))
        elif kind == "function":
            chain.function(draw(st.sampled_from(["RELU", "LEAKY_RELU", "RELU6", "TANH", "LOGISTIC"])))
        elif kind == "add" and alike:
            chain.binary(draw(st.sampled_from(["ADD", "MUL"])), draw(st.sampled_from(alike)), chain.shape)
        elif kind == "concat":
            chain.concatenation([chain.constant(chain.shape, like=chain.last)], draw(st.sampled_from([1, 2, 3])))
        elif kind == "pad":
            chain.pad([(0, 0), (1, 0), (0, 2), draw(st.sampled_from([(0, 0), (1, 0)]))])
        elif kind == "reshape":
            batch, rows, columns, depth = chain.shape
            chain.reshape((batch, columns, rows, depth))
    end = draw(st.sampled_from(["dense", "mean", "softmax", "nothing"]))
    if end == "dense":
        chain.dense(draw(st.integers(1, 6)))
    elif end == "mean":
        chain.mean([1, 2], keeps=draw(st.booleans()))
    elif end == "softmax":
        chain.softmax()
    return chain.content(source)


@pytest.mark.slow
@settings(max_examples=150)
@given(networks(), SEEDS)
def test_random_networks(content: bytes, seed: int) -> None:
    tflm.assert_equal(content, seed=seed)
