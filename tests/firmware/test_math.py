"""The functions that sources find in <math.h>: as on a board, and the errors that firmware/agent/source.h states."""

import ctypes
from typing import Any

import harness
import numpy as np
import peer
import pytest
from harness import address
from reference import F32
from test_functions import every, signed, ulps

NAMES = ("sinf", "cosf", "expf", "logf", "tanhf", "sqrtf")
CALLS = """
#include <stddef.h>
#include <math.h>
#define OVER(name) \\
    void over_##name(const float *x, float *y, size_t n); \\
    void over_##name(const float *x, float *y, size_t n) { for (size_t i = 0; i < n; i++) y[i] = name(x[i]); }
""" + "".join(f"OVER({name})\n" for name in NAMES)


@pytest.fixture(scope="module")
def math(cc: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("math")
    calls = folder / "calls.c"
    calls.write_text(CALLS)
    flags = ["-O2", "-fPIC", "-shared", f"-I{peer.AGENT}", f"-I{harness.CORE.parent / 'math'}", *harness.UNDEFINED]
    made = harness.compile_c(cc, folder / "math.so", [calls, peer.AGENT / "functions.c"], *flags)
    return ctypes.CDLL(str(made))


def over(lib: Any, name: str, x: F32) -> F32:
    x, y = np.ascontiguousarray(x, np.float32), np.empty(len(x), np.float32)
    getattr(lib, f"over_{name}")(address(x), address(y), ctypes.c_size_t(len(x)))
    return y


def test_sine_and_cosine_are_within_2_to_the_minus_22(math: Any) -> None:
    x = signed(np.concatenate([every(1e-45, 8191.9995, 100_000), every(1, 8191.9995, 100_000)]))
    for name, exact in (("sinf", np.sin), ("cosf", np.cos)):
        assert np.abs(over(math, name, x) - exact(x.astype(np.float64))).max() <= 2.0**-22


def test_roots_are_exactly_rounded(math: Any) -> None:
    x = np.concatenate([every(1e-45, 3.4028234e38), every(1, 4)])
    np.testing.assert_array_equal(over(math, "sqrtf", x), np.sqrt(x))


def test_logarithms_are_within_1_ulp_and_2_of_the_smallest(math: Any) -> None:
    x = np.concatenate([every(1.17549435e-38, 3.4028234e38), every(0.5, 2)])
    assert ulps(over(math, "logf", x), np.log(x.astype(np.float64))) <= 1
    small = every(1e-45, 1.1754942e-38, 100_000)
    assert ulps(over(math, "logf", small), np.log(small.astype(np.float64))) <= 2


def test_the_ends_are_those_of_the_c_library(math: Any) -> None:
    ends = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -1.0], np.float32)
    with np.errstate(all="ignore"):
        for name, theirs in (("sqrtf", np.sqrt), ("logf", np.log)):
            np.testing.assert_array_equal(over(math, name, ends), theirs(ends))
    assert np.isnan(over(math, "cosf", np.array([8192, -8192, np.inf, np.nan], np.float32))).all()
    assert over(math, "cosf", np.zeros(1, np.float32)) == over(math, "expf", np.zeros(1, np.float32)) == 1
    assert np.isnan(over(math, "tanhf", np.array([np.nan], np.float32)))
