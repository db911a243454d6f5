"""Models of one operator, or of a few in a chain, with numbers drawn by hypothesis."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flat import FUSED, PADDING, Flat
from hypothesis import strategies as st
from numpy.typing import NDArray

ZEROS = st.one_of(st.sampled_from([-128, 0, 127]), st.integers(-128, 127))
FUSIONS = st.sampled_from(list(FUSED))


def scales(low: float = 1e-3, high: float = 0.5) -> st.SearchStrategy[float]:
    """Of the size that activations have, spread over orders of magnitude."""
    return st.floats(np.log2(low), np.log2(high)).map(lambda e: float(np.float32(2**e)))


@dataclass
class Chain:
    """A model in the making, whose last tensor is the input of what comes next."""

    draw: st.DrawFn
    rng: np.random.Generator
    flat: Flat = field(default_factory=Flat)
    shape: tuple[int, ...] = ()
    last: int = 0

    def start(self, shape: Sequence[int]) -> int:
        self.shape = tuple(shape)
        self.last = self.activation(shape)
        return self.last

    def activation(self, shape: Sequence[int]) -> int:
        return self.flat.tensor(shape, self.draw(scales(0.02, 0.1)), self.draw(ZEROS))

    def scale(self, tensor: int) -> float:
        return float(self.flat.graph.tensors[tensor].quantization.scale[0])

    def follow(self, shape: Sequence[int], like: int | None = None) -> int:
        """The next tensor; ``like`` one whose scale and zero point it must share."""
        if like is None:
            self.last = self.activation(shape)
        else:
            q = self.flat.graph.tensors[like].quantization
            self.last = self.flat.tensor(shape, float(q.scale[0]), int(q.zeroPoint[0]))
        self.shape = tuple(shape)
        return self.last

    def weights(self, shape: Sequence[int], axis: int, spread: float) -> tuple[int, int]:
        """int8 weights and an int32 bias, whose sums come near the range of the output, or far beyond it."""
        count = shape[axis]
        per_channel = self.draw(st.booleans())
        scale = self.rng.uniform(0.5, 2, count if per_channel else 1) * self.draw(scales(2e-3, 2e-2)) / spread
        w = self.flat.tensor(shape, scale.tolist(), data=self.rng.integers(-127, 128, shape), axis=axis)
        of_bias = (scale * self.scale(self.last)).tolist()
        bias = self.flat.tensor((count,), of_bias, dtype="INT32", data=self.rng.integers(-9999, 9999, count))
        return w, bias if self.draw(st.booleans()) else -1

    def window(self, kernel: tuple[int, int], dilation: tuple[int, int] = (1, 1)) -> tuple[tuple[int, int], dict[str, Any]]:
        """Rows and columns of the output, and the options."""
        fits = all((k - 1) * d + 1 <= n for k, d, n in zip(kernel, dilation, self.shape[1:3], strict=True))
        padding = self.draw(st.sampled_from(["same", "valid"] if fits else ["same"]))
        stride = self.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
        size = (
            self.shape[1:3]
            if padding == "same"
            else [n - (k - 1) * d for n, k, d in zip(self.shape[1:3], kernel, dilation, strict=True)]
        )
        rows, columns = (-(-n // s) for n, s in zip(size, stride, strict=True))
        options = {"padding": PADDING[padding], "strideH": stride[0], "strideW": stride[1]}
        options["fusedActivationFunction"] = FUSED[self.draw(FUSIONS)]
        return (rows, columns), options

    def conv(self, count: int | None = None, groups: int = 1) -> None:
        kernel, dilation = self.draw(_SIDES), self.draw(_APART)
        (rows, columns), options = self.window(kernel, dilation)
        count = groups * (count or self.draw(st.integers(1, 9)))
        depth = self.shape[3] // groups
        w, bias = self.weights((count, *kernel, depth), 0, np.sqrt(depth * np.prod(kernel)))
        options |= {"table": "Conv2DOptions", "dilationHFactor": dilation[0], "dilationWFactor": dilation[1]}
        x = self.last
        self.flat.op("CONV_2D", [x, w, bias], [self.follow((self.shape[0], rows, columns, count))], 3, **options)

    def depthwise(self) -> None:
        kernel, dilation, multiplier = self.draw(_SIDES), self.draw(_APART), self.draw(st.sampled_from([1, 1, 2, 3]))
        (rows, columns), options = self.window(kernel, dilation)
        count = self.shape[3] * multiplier
        w, bias = self.weights((1, *kernel, count), 3, np.sqrt(np.prod(kernel)))
        options |= {"table": "DepthwiseConv2DOptions", "depthMultiplier": multiplier}
        options |= {"dilationHFactor": dilation[0], "dilationWFactor": dilation[1]}
        x, shape = self.last, (self.shape[0], rows, columns, count)
        inputs = [x, w] if bias == -1 else [x, w, bias]  # TFLM crashes on -1 here
        self.flat.op("DEPTHWISE_CONV_2D", inputs, [self.follow(shape)], 3, **options)

    def pool(self, name: str) -> None:
        kernel = self.draw(_SIDES)
        (rows, columns), options = self.window(kernel)
        options |= {"table": "Pool2DOptions", "filterHeight": kernel[0], "filterWidth": kernel[1]}
        x, shape = self.last, (self.shape[0], rows, columns, self.shape[3])
        self.flat.op(name, [x], [self.follow(shape, like=x)], 2, **options)

    def dense(self, count: int) -> None:
        depth = self.shape[-1]
        w, bias = self.weights((count, depth), 0, np.sqrt(depth))
        rows = int(np.prod(self.shape)) // depth
        keeps = self.draw(st.booleans())
        shape = (*self.shape[:-1], count) if keeps else (rows, count)
        options = {"fusedActivationFunction": FUSED[self.draw(FUSIONS)], "keepNumDims": keeps}
        x = self.last
        self.flat.op("FULLY_CONNECTED", [x, w, bias], [self.follow(shape)], 4, table="FullyConnectedOptions", **options)

    def binary(self, name: str, other: int, shape: Sequence[int]) -> None:
        a, b = self.draw(st.permutations([self.last, other]))
        y = self.flat.tensor(shape, self.draw(scales(0.02, 0.2)), self.draw(ZEROS))
        table = {"ADD": "AddOptions", "MUL": "MulOptions"}[name]
        self.flat.op(name, [a, b], [y], 2, table=table, fusedActivationFunction=FUSED[self.draw(FUSIONS)])
        self.last, self.shape = y, tuple(shape)

    def constant(self, shape: Sequence[int], like: int | None = None) -> int:
        data = self.rng.integers(-128, 128, shape)
        if like is None:
            return self.flat.tensor(shape, self.draw(scales(0.02, 0.1)), self.draw(ZEROS), data=data)
        q = self.flat.graph.tensors[like].quantization
        return self.flat.tensor(shape, float(q.scale[0]), int(q.zeroPoint[0]), data=data)

    def mean(self, axes: Sequence[int], keeps: bool) -> None:
        rank = len(self.shape)
        indices = self.flat.tensor((len(axes),), dtype="INT32", data=list(axes))
        reduced = {a % rank for a in axes}
        shape = [1 if i in reduced else d for i, d in enumerate(self.shape) if keeps or i not in reduced]
        x = self.last
        same = self.draw(st.booleans())
        y = self.follow(shape, like=x if same else None)
        self.flat.op("MEAN", [x, indices], [y], 2, table="ReducerOptions", keepDims=keeps)

    def concatenation(self, others: Sequence[int], axis: int) -> None:
        position = self.draw(st.integers(0, len(others)))
        parts = [*others[:position], self.last, *others[position:]]
        shapes = [self.flat.graph.tensors[p].shape for p in parts]
        shape = [sum(s[i] for s in shapes) if i == axis % len(shapes[0]) else d for i, d in enumerate(shapes[0])]
        y = self.follow(shape, like=self.last)
        self.flat.op("CONCATENATION", parts, [y], 2, table="ConcatenationOptions", axis=axis)

    def pad(self, margins: Sequence[Sequence[int]]) -> None:
        paddings = self.flat.tensor((len(margins), 2), dtype="INT32", data=np.asarray(margins))
        x = self.last
        y = self.follow([d + sum(m) for d, m in zip(self.shape, margins, strict=True)], like=x)
        self.flat.op("PAD", [x, paddings], [y], 2, table="PadOptions")

    def reshape(self, shape: Sequence[int]) -> None:
        target = self.flat.tensor((len(shape),), dtype="INT32", data=list(shape))
        x = self.last
        self.flat.op("RESHAPE", [x, target], [self.follow(shape, like=x)], 1, table="ReshapeOptions", newShape=list(shape))

    def function(self, name: str) -> None:
        x, version = self.last, 1 if name == "RELU6" else 2
        options: dict[str, Any] = {}
        if name == "LEAKY_RELU":
            options = {"table": "LeakyReluOptions", "alpha": self.draw(st.floats(-0.5, 1.5, width=32))}
        if name == "LOGISTIC":
            y = self.flat.tensor(self.shape, 1 / 256, -128)
        elif name == "TANH":
            y = self.flat.tensor(self.shape, 1 / 128, 0)
        else:
            y = self.follow(self.shape, like=x if name == "RELU6" else None)
        self.last = y
        self.flat.op(name, [x], [y], version, **options)

    def softmax(self) -> None:
        y = self.flat.tensor(self.shape, 1 / 256, -128)
        beta = self.draw(st.sampled_from([1.0, 0.5, 2.0]))
        self.flat.op("SOFTMAX", [self.last], [y], 2, table="SoftmaxOptions", beta=beta)
        self.last = y

    def content(self, source: int) -> bytes:
        return self.flat.content([source], [self.last])


_SIDES = st.tuples(st.integers(1, 5), st.integers(1, 5))
_APART = st.one_of(st.just((1, 1)), st.tuples(st.integers(1, 3), st.integers(1, 3)))
IMAGES = st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
SEEDS = st.integers(0, 2**32 - 1)


def one_function(name: str, scale: float, zero: int, out_scale: float, out_zero: int, **options: Any) -> bytes:
    """``name`` over all 256 inputs."""
    flat = Flat()
    x, y = flat.tensor((1, 256), scale, zero), flat.tensor((1, 256), out_scale, out_zero)
    flat.op(name, [x], [y], 1, **options)
    return flat.content([x], [y])


ALL_INPUTS: NDArray[np.int8] = np.arange(-128, 128, dtype=np.int8)[None]
