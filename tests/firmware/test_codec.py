"""Codecs: the core gives the bits of tinyfl.codecs, loses what a codec must lose, and refuses any bytes that are none."""

import ctypes
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import ENUMERIC, HERE, OK, SANITIZED, SOURCES, address, compile_once, plan_of, run
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import IDENTITY, MEAN_SQUARED_ERROR
from reference_inner import EVERY
from reference_layers import F32, Layer, dense, plan_bytes
from small_nets import networks

from tinyfl.codecs import Codec, Kind, decode, encode
from tinyfl.errors import ConfigError, Corrupt

ELENGTH, EINDEX, ESCALE, EVALUE = range(-7, -11, -1)

CODECS = st.one_of(
    st.sampled_from([Codec(Kind.fp32), Codec(Kind.fp16), Codec(Kind.int8), Codec(Kind.int4)]),
    st.builds(Codec, st.just(Kind.top), st.integers(1, 10_000) | st.integers(1, 300)),
)

FOUR = [dense(3, 1, IDENTITY)]
"""A network of 4 weights: a kernel of 3, and a bias."""


class CCodec(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_uint8), ("share", ctypes.c_uint16))


class Coder:
    """The core's codec for the weights of some layers; calls return the code, then what the call gives."""

    def __init__(self, lib: Any, codec: Codec, layers: Sequence[Layer], mask: int) -> None:
        self.lib, self.codec, self.mask = lib, CCodec(codec.kind, codec.share), ctypes.c_uint64(mask)
        self.plan = plan_of(layers, MEAN_SQUARED_ERROR)
        lib.tinyfl_codec_bytes.restype = ctypes.c_size_t
        self.most: int = lib.tinyfl_codec_bytes(ctypes.byref(self.codec), ctypes.byref(self.plan), self.mask)

    def encode(self, values: F32) -> tuple[int, bytes]:
        """In place, as on a board."""
        memory, count = np.append(values, np.full(3, np.nan, np.float32)), ctypes.c_size_t()
        code = self._call("encode", address(memory), address(memory), ctypes.byref(count))
        assert np.isnan(memory[-3:]).all()
        return code, memory.tobytes()[: count.value]

    def decode(self, data: bytes, values: F32, factor: float = 1.0) -> tuple[int, F32]:
        values = values.copy()
        block = ctypes.create_string_buffer(data, len(data))
        code = self._call("decode", block, ctypes.c_size_t(len(data)), ctypes.c_float(factor), address(values))
        return code, values

    def _call(self, name: str, *arguments: Any) -> int:
        call = getattr(self.lib, f"tinyfl_{name}")
        return int(call(ctypes.byref(self.codec), ctypes.byref(self.plan), self.mask, *arguments))


def arrays_of(layers: Sequence[Layer], mask: int) -> list[int]:
    """The sizes of the kernels and biases of the layers in ``mask``."""
    with_weights = [layer for i, layer in enumerate(layers) if mask >> i & 1 and layer.weights]
    return [size for layer in with_weights for size in (layer.weights - layer.outputs, layer.outputs)]


def some(rng: np.random.Generator, size: int) -> F32:
    """Values with ties, zeros of both signs, subnormals, and of very different magnitudes."""
    kind = rng.integers(4)
    values = rng.normal(0, 1, size) * 10.0 ** rng.integers(-12, 12)
    if kind == 1:
        values = rng.choice([-1.0, -0.0, 0.0, 0.5, 1.0, 1e-40, 3.0], size)
    elif kind == 2:
        values = values * 10.0 ** rng.uniform(-30, 3, size)
    return np.clip(values, -1e15, 1e15).astype(np.float32)


@st.composite
def vectors(draw: Any) -> tuple[Codec, list[Layer], int, F32]:
    layers, _ = draw(networks())
    mask = draw(st.sampled_from([EVERY, EVERY, 1, 2, 0b101]))
    assume(sizes := arrays_of(layers, mask))
    return draw(CODECS), layers, mask, some(np.random.default_rng(draw(st.integers(0, 1 << 32))), sum(sizes))


@settings(max_examples=80, deadline=None)
@given(vectors())
def test_the_core_and_numpy_give_the_same_bytes_and_values(core: Any, drawn: tuple[Codec, list[Layer], int, F32]) -> None:
    codec, layers, mask, values = drawn
    sizes, coder = arrays_of(layers, mask), Coder(core, codec, layers, mask)
    code, data = coder.encode(values)
    assert (code, data) == (OK, encode(codec, values, sizes))
    assert coder.most == codec.bytes(sizes) <= 4 * len(values)
    assert len(data) == coder.most or (codec.kind is Kind.top and len(data) < coder.most)
    decoded, base = decode(codec, data, sizes), values + np.float32(0)
    for factor in (1.0, -1.0):
        code, added = coder.decode(data, base, factor)
        assert (code, added.tobytes()) == (OK, (base + np.float32(factor) * decoded).tobytes())


@settings(max_examples=50, deadline=None)
@given(vectors())
def test_a_codec_loses_no_more_than_it_must(drawn: tuple[Codec, list[Layer], int, F32]) -> None:
    codec, layers, mask, values = drawn
    sizes = arrays_of(layers, mask)
    decoded = decode(codec, encode(codec, values, sizes), sizes).astype(float)
    error = np.abs(decoded - values)
    if codec.kind is Kind.fp32:
        assert not error.any()
    elif codec.kind is Kind.fp16:
        inside = np.clip(values, -65504, 65504)
        assert (np.abs(decoded - inside) <= np.maximum(np.abs(inside) * 2.0**-11, 2.0**-25)).all()
    elif codec.kind is Kind.top:
        k = codec.chosen(len(values))
        assert np.count_nonzero(decoded) <= k
        sent = sorted(range(len(values)), key=lambda i: (-abs(values[i]), i))[:k]
        assert not np.delete(decoded, sent).any()
        assert (error[sent] <= np.abs(values).max() / 127 * 0.5001 + 2.0**-100).all()
    else:
        top = 127 if codec.kind is Kind.int8 else 7
        for of_array, array in zip(*(np.split(a, np.cumsum(sizes)[:-1]) for a in (error, values)), strict=True):
            assert (of_array <= np.abs(array).max() / top * 0.5001 + 2.0**-100).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2.0**50])
def test_a_value_that_is_not_good_is_not_encoded(core: Any, bad: float) -> None:
    values = np.array([1, bad, 2, 3], np.float32)
    for codec in map(Codec.named, ("fp32", "fp16", "int8", "int4", "top:50")):
        assert Coder(core, codec, FOUR, EVERY).encode(values)[0] == ENUMERIC
        with pytest.raises(ValueError, match="not finite"):
            encode(codec, values, [3, 1])


HALF, ONE = np.float32(0.5).tobytes(), np.float32(1).tobytes()

LIES = {
    "fp32": [(ONE * 3, ELENGTH), (ONE * 5, ELENGTH), (ONE * 3 + np.float32(np.nan).tobytes(), EVALUE)],
    "fp16": [(b"\0" * 7, ELENGTH), (b"\0\x7c" * 4, EVALUE), (b"\0\0" * 3 + b"\1\xfe", EVALUE)],
    "int8": [
        (b"\1\2\3" + HALF, ELENGTH),
        (b"\1\2\3" + np.float32(-1).tobytes() + ONE, ESCALE),
        (b"\1\2\3" + np.float32(-0.0).tobytes() + ONE, ESCALE),
        (b"\1\2\3" + np.float32(np.inf).tobytes() + ONE, ESCALE),
        (b"\1\x80\3" + HALF + ONE, EVALUE),
        (b"\1\2\3" + HALF + np.float32(2.0**50).tobytes(), EVALUE),
    ],
    "int4": [
        (b"\1\2\3" + HALF + ONE, ELENGTH),
        (b"\x21\x03" + np.float32(np.nan).tobytes() + ONE, ESCALE),
        (b"\x81\x03" + HALF + ONE, EVALUE),
        (b"\x21\x13" + HALF + ONE, EVALUE),
    ],
    "top:50": [
        (b"", ELENGTH),
        (b"\0\1" + HALF, ELENGTH),
        (b"\0\1\0\1\0\1" + HALF, ELENGTH),
        (b"\0\1\0" + HALF, ELENGTH),
        (b"\0\1\xff\0" + HALF, EINDEX),
        (b"\1\1\2\1" + HALF, EINDEX),
        (b"\1\1\1\x80" + HALF, EVALUE),
        (b"\1\1\1\1" + np.float32(2.0**50).tobytes(), ESCALE),
    ],
}
"""For 4 weights: bytes that no encoder makes, with what is wrong with them."""


@pytest.mark.parametrize(("name", "data", "wrong"), [(name, *lie) for name, lies in LIES.items() for lie in lies])
def test_what_is_wrong_with_bytes_is_said(core: Any, name: str, data: bytes, wrong: int) -> None:
    codec, values = Codec.named(name), np.arange(4, dtype=np.float32)
    code, unchanged = Coder(core, codec, FOUR, EVERY).decode(data, values)
    assert (code, unchanged.tolist()) == (wrong, values.tolist())
    words = {ELENGTH: "are n", EINDEX: "index|are not the", ESCALE: "scale", EVALUE: "value|whole number|half a byte"}
    with pytest.raises(Corrupt, match=words[wrong]):
        decode(codec, data, [3, 1])


def test_bytes_of_strangers_are_refused_alike_and_touch_nothing(cc: str, tmp_path: Path) -> None:
    """10,000 vectors of any bytes, and encoded ones with a few changed, cut or longer."""
    rng, layers = np.random.default_rng(7), [dense(17, 20, IDENTITY), dense(20, 1, IDENTITY)]
    sizes = arrays_of(layers, EVERY)
    codecs = [Codec(kind, 100 * share if kind is Kind.top else 0) for kind in Kind for share in (1, 10, 99)]
    encoded = [(codec, encode(codec, rng.normal(size=sum(sizes)).astype(np.float32), sizes)) for codec in codecs]
    cases: list[tuple[Codec, bytes]] = []
    for number in range(10_000):
        codec, whole = encoded[number % len(encoded)]
        data = bytearray(whole)
        for _ in range(rng.integers(4)):
            at = int(rng.integers(max(len(data) - 16, 0) if rng.integers(2) else 0, len(data)))
            data[at] = int(rng.integers(256)) if rng.integers(2) else data[at] ^ 1 << int(rng.integers(8))
        change = rng.integers(8)
        more = int(rng.integers(1, 9))
        data = data[:-more] if change == 0 else data + rng.bytes(more if change == 1 else 0)
        cases.append((codec, rng.bytes(len(data)) if change == 2 else bytes(data)))
    plan = plan_bytes(layers, MEAN_SQUARED_ERROR)
    file = tmp_path / "cases"
    file.write_bytes(
        struct.pack("<I", len(plan)) + plan
        + b"".join(struct.pack("<BxHI", codec.kind, codec.share, len(data)) + data for codec, data in cases)
    )  # fmt: skip
    program = compile_once(cc, [*SOURCES, HERE / "coding.c"], *SANITIZED)
    lines = run(program, file).splitlines()
    expected = []
    for codec, data in cases:
        try:
            expected.append(f"0 {zlib.crc32(decode(codec, data, sizes).tobytes()):08x}")
        except Corrupt:
            expected.append("refused")
    assert lines == expected
    assert 3000 < expected.count("refused") < 7000


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8", "int4", "top:10", "top:0.01", "top:100", "top:12.5"])
def test_a_codecs_name_is_its_text(name: str) -> None:
    assert str(Codec.named(name)) == name


@pytest.mark.parametrize(
    "name", ["", "fp8", "int8:2", "top", "top:", "top:0", "top:100.5", "top:0.001", "top:nan", "top:inf", "top:-1"]
)
def test_another_name_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(ConfigError, match="fp32, fp16, int8, int4, and top:P"):
        Codec.named(name)
