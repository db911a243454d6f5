"""Every operator has TensorFlow Lite Micro's bits."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tflite_micro", reason="needs tflite-micro, the oracle: pip install 'tinyfl[tf]'")
pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert's schema: pip install 'tinyfl[tf]'")

import tflm
from flat import Flat
from ops import ALL_INPUTS, IMAGES, SEEDS, ZEROS, Chain, one_function, scales

from tinyfl.int8 import fixed

FEW = settings(max_examples=60)


def begun(draw: st.DrawFn, seed: int) -> Chain:
    return Chain(draw, np.random.default_rng(seed))


@FEW
@given(st.data(), IMAGES, SEEDS)
def test_convolution(data: st.DataObject, shape: tuple[int, ...], seed: int) -> None:
    chain = begun(data.draw, seed)
    x = chain.start(shape)
    chain.conv()
    tflm.assert_equal(chain.content(x), seed=seed)


@settings(max_examples=20)
@given(st.data(), st.integers(1, 4), st.integers(1, 3), SEEDS)
def test_convolution_in_groups(data: st.DataObject, groups: int, depth: int, seed: int) -> None:
    chain = begun(data.draw, seed)
    x = chain.start((1, 6, 5, groups * depth))
    chain.conv(groups=groups)
    tflm.assert_equal(chain.content(x), seed=seed)


@FEW
@given(st.data(), IMAGES, SEEDS)
def test_depthwise_convolution(data: st.DataObject, shape: tuple[int, ...], seed: int) -> None:
    chain = begun(data.draw, seed)
    x = chain.start(shape)
    chain.depthwise()
    tflm.assert_equal(chain.content(x), seed=seed)


@FEW
@given(st.data(), IMAGES, st.sampled_from(["MAX_POOL_2D", "AVERAGE_POOL_2D"]), SEEDS)
def test_pools(data: st.DataObject, shape: tuple[int, ...], name: str, seed: int) -> None:
    chain = begun(data.draw, seed)
    x = chain.start(shape)
    chain.pool(name)
    tflm.assert_equal(chain.content(x), seed=seed)


@FEW
@given(st.data(), st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(1, 40), st.integers(1, 9), SEEDS)
def test_dense(data: st.DataObject, batch: list[int], depth: int, count: int, seed: int) -> None:
    chain = begun(data.draw, seed)
    x = chain.start((*batch[:-1], depth))
    chain.dense(count)
    tflm.assert_equal(chain.content(x), seed=seed)


@settings(max_examples=40)
@given(
    scales(1e-3, 0.2), scales(1e-3, 0.02), st.floats(500, 1000), st.booleans(), st.sampled_from(["FULLY_CONNECTED", "CONV_2D"])
)
def test_sums_whose_output_a_slightly_other_factor_would_change(
    of_input: float, of_weights: float, most: float, with_bias: bool, name: str
) -> None:
    flat, product, dense = Flat(), of_input * of_weights, name == "FULLY_CONNECTED"
    shape, one = ((1, 9), (1, 1)) if dense else ((1, 1, 1, 9), (1, 1, 1, 1))
    weights = np.array([127] * 8 + [1])
    x, w = flat.tensor(shape, of_input), flat.tensor(shape, [of_weights], data=weights)
    bias = flat.tensor((1,), [product], dtype="INT32", data=[0])
    y = flat.tensor(one, product * most)
    options = {"table": "FullyConnectedOptions"} if dense else {"table": "Conv2DOptions", "strideW": 1, "strideH": 1}
    flat.op(name, [x, w, bias if with_bias else -1], [y], 4 if dense else 3, **options)

    factor = product / float(flat.graph.tensors[y].quantization.scale[0])
    sums = np.arange(-int(127 / factor), int(127 / factor))
    multiplier, shift = map(int, fixed.quantize_multiplier(factor))
    less, more = (fixed.rescale(sums, multiplier + change, shift) for change in (-99, 99))
    delicate = sums[less != more]
    delicate = delicate if len(delicate) else sums[:1]
    parts = [np.clip(np.abs(delicate) // 127 - 127 * i, 0, 127) for i in range(8)]
    inputs = np.sign(delicate)[:, None] * np.stack([*parts, np.abs(delicate) % 127], axis=1)
    assert (inputs @ weights).tolist() == delicate.tolist()
    tflm.assert_equal(flat.content([x], [y]), inputs.astype(np.int8).reshape(-1, *shape[1:]))


@st.composite
def broadcast(draw: st.DrawFn) -> tuple[list[int], list[int], list[int]]:
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    a, b = ([draw(st.sampled_from([d, d, 1])) for d in shape] for _ in range(2))
    if draw(st.booleans()):
        b = b[draw(st.integers(0, len(b) - 1)) :]
    return a, b, list(np.broadcast_shapes(tuple(a), tuple(b)))


@FEW
@given(st.data(), broadcast(), st.sampled_from(["ADD", "MUL"]), st.booleans(), SEEDS)
def test_sums_and_products(
    data: st.DataObject, shapes: tuple[list[int], list[int], list[int]], name: str, constant: bool, seed: int
) -> None:
    chain = begun(data.draw, seed)
    x = chain.start(shapes[0])
    if constant:
        other = chain.constant(shapes[1])
    else:
        chain.function("RELU")
        other, chain.last = chain.last, x
        shapes = (shapes[0], shapes[0], shapes[0])
    chain.binary(name, other, shapes[2])
    tflm.assert_equal(chain.content(x), seed=seed)


@FEW
@given(st.data(), st.lists(st.integers(1, 7), min_size=1, max_size=4), SEEDS)
def test_mean(data: st.DataObject, shape: list[int], seed: int) -> None:
    chain = begun(data.draw, seed)
    x = chain.start(shape)
    axes = data.draw(st.lists(st.integers(-len(shape), len(shape) - 1), min_size=1, max_size=3))
    chain.mean(axes, data.draw(st.booleans()))
    tflm.assert_equal(chain.content(x), seed=seed)


@FEW
@given(st.data(), st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(1, 3), SEEDS)
def test_concatenation(data: st.DataObject, shape: list[int], others: int, seed: int) -> None:
    chain = begun(data.draw, seed)
    x = chain.start(shape)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    parts = []
    for _ in range(others):
        size = data.draw(st.integers(1, 4))
        parts.append(chain.constant([size if i == axis % len(shape) else d for i, d in enumerate(shape)], like=x))
    chain.concatenation(parts, axis)
    tflm.assert_equal(chain.content(x), seed=seed)


@FEW
@given(st.data(), st.lists(st.integers(1, 5), min_size=1, max_size=4), SEEDS)
def test_pad(data: st.DataObject, shape: list[int], seed: int) -> None:
    chain = begun(data.draw, seed)
    x = chain.start(shape)
    chain.pad([data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in shape])
    tflm.assert_equal(chain.content(x), seed=seed)


@FEW
@given(st.data(), st.integers(1, 5), st.integers(1, 300), scales(1e-5, 2.0), SEEDS)
def test_softmax(data: st.DataObject, rows: int, depth: int, scale: float, seed: int) -> None:
    chain = begun(data.draw, seed)
    x = chain.last = chain.flat.tensor((rows, depth), scale, data.draw(ZEROS))
    chain.shape = (rows, depth)
    chain.softmax()
    tflm.assert_equal(chain.content(x), seed=seed)


@FEW
@given(scales(1e-4, 4.0), ZEROS, scales(1e-3, 1.0), ZEROS, st.floats(-0.5, 1.5, width=32))
def test_functions_of_one_value_over_all_inputs(scale: float, zero: int, out_scale: float, out_zero: int, alpha: float) -> None:
    for name, out, options in (
        ("LOGISTIC", (1 / 256, -128), {}),
        ("TANH", (1 / 128, 0), {}),
        ("RELU", (out_scale, out_zero), {}),
        ("RELU6", (scale, zero), {}),
        ("LEAKY_RELU", (out_scale, out_zero), {"table": "LeakyReluOptions", "alpha": alpha}),
        ("QUANTIZE", (out_scale, out_zero), {"table": "QuantizeOptions"}),
    ):
        tflm.assert_equal(one_function(name, scale, zero, *out, **options), ALL_INPUTS)


ROUND = [0.1, 0.05, 0.024, 0.012, 6 / 255, 3 / 255, 1 / 256, 0.7]
"""Scales whose quotients come so near to ties that float32 and float64 round them apart."""


@pytest.mark.parametrize("name", ["LEAKY_RELU", "QUANTIZE", "RELU"])
def test_functions_of_one_value_between_round_scales(name: str) -> None:
    options = {"LEAKY_RELU": {"table": "LeakyReluOptions", "alpha": 0.2}}.get(name, {})
    for scale, out_scale in permutations(ROUND, 2):
        tflm.assert_equal(one_function(name, scale, -128, out_scale, -5, **options), ALL_INPUTS)
