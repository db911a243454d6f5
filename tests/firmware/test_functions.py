"""exp, log, tanh, sin, 1/sqrt and the random generator: the bits of SPEC.md, and the errors that functions.h states."""

from typing import Any

import mpmath
import numpy as np
import pytest
import reference
from harness import over
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import F32

NAMES = ("exp", "log", "tanh", "sigmoid", "sin", "rsqrt")


def every(first: float, last: float, count: int = 300_000) -> F32:
    """About ``count`` floats from ``first`` to ``last``, both positive, evenly over their bit patterns, ends too."""
    low, high = (int(np.float32(v).view(np.uint32)) for v in (first, last))
    patterns = np.arange(low, high, max(1, (high - low) // count), dtype=np.uint32)
    return np.append(patterns.view(np.float32), np.float32(last))


def signed(x: F32) -> F32:
    return np.concatenate([-x[::-1], x])


def ulps(y: F32, exact: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """The largest error of y in units of the last place of the exact value."""
    _, exponent = np.frexp(np.abs(exact))
    unit = np.ldexp(1.0, np.maximum(exponent - 24, -149))
    return float(np.max(np.abs(y.astype(np.float64) - exact) / unit))


def test_exp_is_within_1_ulp(core: Any) -> None:
    x = np.concatenate([-every(1e-30, 87), every(1e-30, 88), np.linspace(-87, 88, 300_001).astype(np.float32)])
    assert ulps(over(core, "exp", x), np.exp(x.astype(np.float64))) <= 1


def test_log_is_within_1_ulp(core: Any) -> None:
    x = np.concatenate([every(1.17549435e-38, 3.4028234e38), every(0.5, 2)])
    assert ulps(over(core, "log", x), np.log(x.astype(np.float64))) <= 1


def test_tanh_is_within_7_ulp_and_never_beyond_1(core: Any) -> None:
    x = signed(np.concatenate([every(1e-45, 20), every(0.1, 8)]))
    y = over(core, "tanh", x)
    assert ulps(y, np.tanh(x.astype(np.float64))) <= 7
    assert np.abs(y).max() <= 1


def test_sin_is_within_2_to_the_minus_22(core: Any) -> None:
    x = signed(np.concatenate([every(1e-45, 8191.9995), every(1, 8191.9995)]))
    assert np.abs(over(core, "sin", x) - np.sin(x.astype(np.float64))).max() <= 2.0**-22


def test_rsqrt_is_within_3_ulp(core: Any) -> None:
    x = np.concatenate([every(1.17549435e-38, 3.4028234e38), every(1, 4)])
    assert ulps(over(core, "rsqrt", x), 1 / np.sqrt(x.astype(np.float64))) <= 3


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sin"])
def test_the_yardstick_itself_agrees_with_mpmath(name: str) -> None:
    x = np.random.default_rng(1).uniform(0.01, 80, 300).astype(np.float32).astype(np.float64)
    with mpmath.workprec(120):
        exact = np.array([float(getattr(mpmath, name)(mpmath.mpf(v))) for v in x])
    np.testing.assert_allclose(getattr(np, name)(x), exact, rtol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_functions_have_the_bits_of_the_spec(core: Any, name: str) -> None:
    x = every(1.17549435e-38, 3.4028234e38, 50_000)
    x = np.concatenate([x, every(0.01, 100, 50_000)])
    if name not in ("log", "rsqrt"):
        x = np.concatenate([signed(x), np.array([0.0, -0.0, 1e-45, np.inf, -np.inf, np.nan], np.float32)])
    with np.errstate(all="ignore"):
        theirs = np.float32(1) / (np.float32(1) + reference.exp(-x)) if name == "sigmoid" else getattr(reference, name)(x)
    np.testing.assert_array_equal(over(core, name, x), theirs)
    ours = over(core, name, x)
    number = ~np.isnan(ours)
    assert (ours[number].view(np.uint32) == theirs[number].view(np.uint32)).all()


@pytest.mark.parametrize("name", NAMES)
def test_nan_comes_out_as_nan(core: Any, name: str) -> None:
    assert np.isnan(over(core, name, np.array([np.nan, -np.nan], np.float32))).all()


def test_functions_are_tame_at_their_ends(core: Any) -> None:
    far = signed(every(20, 3.4028234e38, 10_000))
    np.testing.assert_array_equal(over(core, "tanh", far), np.where(far > 0, 1, -1) * over(core, "tanh", far[-1:]))
    np.testing.assert_array_equal(np.diff(over(core, "exp", np.sort(signed(every(80, 3e38, 10_000))))) >= 0, True)
    sigmoid = over(core, "sigmoid", far)
    assert ((sigmoid >= 0) & (sigmoid <= 1)).all()
    assert over(core, "exp", np.zeros(1, np.float32)) == over(core, "tanh", np.full(1, 50, np.float32)).round() == 1
    assert np.isnan(over(core, "sin", np.array([8192, -8192, 3e38, np.inf], np.float32))).all()


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ("00000000 " * 4, "00000000 " * 4, "9c6ca96a e17eae66 fc10ecd4 5256a7d8"),
        ("ffffffff " * 4, "ffffffff " * 4, "2a881696 57012287 f6c7446e a16a6732"),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0 082efa98 ec4e6c89",
            "59cd1dbb b8879579 86b5d00c ac8b6d84",
        ),
    ],
)
def test_threefry_gives_the_published_vectors(counter: str, key: str, words: str) -> None:
    """The known answers that come with Random123."""

    def four(text: str) -> list[int]:
        return [int(word, 16) for word in text.split()]

    assert reference.threefry(four(counter), four(key)) == four(words)


def c_random(core: Any, *arguments: int) -> list[int]:
    out = np.zeros(4, np.uint32)
    core.tinyfl_random(*arguments, out.ctypes.data)
    return [int(word) for word in out]


def test_the_generator_gives_the_published_vector_for_zeros(core: Any) -> None:
    assert c_random(core, 0, 0, 0, 0, 0) == [0x9C6CA96A, 0xE17EAE66, 0xFC10ECD4, 0x5256A7D8]


words = st.integers(0, 2**32 - 1)


@settings(max_examples=300)
@given(st.integers(0, 2**64 - 1), words, words, words, words)
def test_the_generator_is_threefry_of_the_documented_counter_and_key(
    core: Any, seed: int, stream: int, device: int, round: int, index: int
) -> None:
    assert c_random(core, seed, stream, device, round, index) == reference.random(seed, stream, device, round, index)


def test_uniform_lies_from_0_to_below_1_and_takes_the_upper_24_bits(core: Any) -> None:
    bits = np.array([0, 255, 256, 1 << 31, 0xFFFFFFFF, 0x12345678], np.uint32)
    given = over(core, "uniform", bits.view(np.float32))
    np.testing.assert_array_equal(given, [reference.uniform(int(word)) for word in bits])
    assert given[0] == given[1] == 0 < given[2]
    assert given[4] == 1 - 2.0**-24


@settings(max_examples=200)
@given(st.integers(0, 2**64 - 1), words, words, words)
def test_sine_samples_have_the_bits_of_the_spec(core: Any, seed: int, device: int, round: int, index: int) -> None:
    out = np.zeros(4, np.float32)
    core.sine(seed, device, round, index, out.ctypes.data)
    assert (out[0], out[1]) == reference.sine_of(seed, device)
    assert (out[2], out[3]) == reference.sine_sample(seed, device, round, index)
    assert 0.1 <= out[0] < 5 and 0 <= out[1] < 2 * np.pi and -5 <= out[2] < 5


def test_the_largest_uniform_keeps_sine_samples_in_their_ranges() -> None:
    """[0.1, 5), [0, 2 pi) and [-5, 5) hold after rounding too."""
    top = reference.uniform(0xFFFFFFFF)
    assert np.float32(0.1) + np.float32(4.9) * top < 5
    assert np.float32(6.28318530718) * top < 2 * np.pi
    assert np.float32(10) * top - np.float32(5) < 5


@settings(max_examples=2000)
@given(st.integers(0, 63), st.integers(-2, 2), st.integers(0, (1 << 64) - 1), st.floats(0, 1e6, width=32))
def test_a_mean_loss_divides_by_the_nearest_float_of_any_count(
    core: Any, bit: int, near: int, count: int, total: float
) -> None:
    for measured in (count >> bit, max((1 << bit) + near, 0), ((1 << 24) + 1 << bit) % (1 << 64)):
        expected = np.float32(total) / np.float32(np.uint64(measured)) if measured else np.float32(0)
        assert np.float32(core.mean_loss(total, measured)).tobytes() == expected.tobytes()
