"""Sums of columns without rounding, and what is made of them, in any order and over any parts."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tinyfl.runs.evaluation import mean_and_interval
from tinyfl.runs.moments import Moments
from tinyfl.tasks.sites import First, Second, fraction_text, read_fraction
from tinyfl.tasks.standard import spread, spread_of
from tinyfl.tasks.sums import Squares, Sums, column_sums, root

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
MODERATE = st.floats(-1e100, 1e100)
KINDS = [np.float64, np.float32, np.float16, np.int64, np.uint64, np.int8, np.bool_]


@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=FLOATS))
def test_a_sum_of_any_floats_is_exact(x: np.ndarray) -> None:
    assert column_sums(x) == tuple(sum(map(Fraction, column.tolist())) for column in x.T)


@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=MODERATE))
def test_a_sum_of_squares_is_that_of_squares_rounded_one_by_one(x: np.ndarray) -> None:
    usual = np.where(np.abs(x) < 1e-100, 0, x)  # below, a float has no square of 53 bits
    assert column_sums(usual, squares=True) == tuple(sum(map(Fraction, (column * column).tolist())) for column in usual.T)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_numbers_of_any_type_are_summed_exactly(kind: Any, data: Any) -> None:
    finite = {} if np.dtype(kind).kind != "f" else {"allow_nan": False, "allow_infinity": False}
    x = data.draw(arrays.arrays(kind, (20, 2), elements=arrays.from_dtype(np.dtype(kind), **finite)))
    assert column_sums(x) == tuple(sum(Fraction(value) for value in column.tolist()) for column in x.T)


@given(
    arrays.arrays(np.float64, (40, 2), elements=FLOATS) | arrays.arrays(np.int64, (40, 2)),
    st.permutations(range(40)),
    st.lists(st.integers(0, 40), max_size=4),
)
def test_mean_and_scale_are_the_same_however_the_rows_are_cut_and_ordered(
    x: np.ndarray, order: list[int], cuts: list[int]
) -> None:
    parts = np.split(x[order], sorted(cuts))
    first = [First.from_json(First(len(part), Sums.of(part)).to_json()).x for part in parts]
    mean = sum(first[1:], start=first[0]).mean
    second = [Second.from_json(Second(Squares.of(part, mean)).to_json()).x for part in parts]
    for ours, whole in zip(spread_of(mean, sum(second[1:], start=second[0]), x.dtype), spread(x), strict=True):
        assert ours.tobytes() == whole.tobytes()


@given(st.fractions())
def test_a_fraction_comes_back_from_its_text(value: Fraction) -> None:
    assert read_fraction(fraction_text(value)) == value


@pytest.mark.parametrize("text", ["", "1", "1/0", "x/1", "1/2/3", "f" * 5000 + "/1"])
def test_text_that_is_no_fraction_is_refused(text: str) -> None:
    with pytest.raises((ValueError, ZeroDivisionError)):
        read_fraction(text)


@given(st.fractions(min_value=0, max_value=Fraction(10) ** 600))
def test_a_root_is_that_of_the_fraction(square: Fraction) -> None:
    found = Fraction(root(square))
    assert abs(found * found - square) <= square * Fraction(1, 10**15)


@given(arrays.arrays(np.float32, st.integers(2, 30), elements=st.floats(0, 100, width=32)), st.integers(1, 29))
def test_intervals_of_sums_are_those_of_all_devices(values: np.ndarray, cut: int) -> None:
    device = np.arange(len(values))
    both = Moments.of(values[:cut].astype(float)) + Moments.from_json(Moments.of(values[cut:].astype(float)).to_json())
    mean, half, devices = mean_and_interval(values, device)
    assert both.mean_and_interval() == (pytest.approx(mean), pytest.approx(half, rel=1e-6, abs=1e-6), devices)


def test_a_device_that_diverged_makes_the_mean_infinite() -> None:
    both = Moments.of(np.array([1.0, np.inf])) + Moments.of(np.array([2.0]))
    assert (both.devices, both.lost, both.mean_and_interval()[0]) == (3, 1, np.inf)
