"""Cohorts and their ranges in logs, against plain loops."""

from itertools import pairwise

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinyfl import core
from tinyfl.core import Stream
from tinyfl.fleet import draw_cohort, spans
from tinyfl.flower.messages import read_theta, theta_record


def drawn(seed: int, round: int, size: int, fleet_size: int) -> list[int]:
    """Draws one device after another, as the docstring of draw_cohort says."""
    found, words = dict[int, None](), 4 * size
    while len(found) < size:
        for word in core.random(seed, Stream.cohort, np.zeros(1, np.uint32), round, words=words)[0].tolist():
            if len(found) < size:
                found[word * fleet_size >> 32] = None
        words *= 4
    return sorted(found)


@given(
    seed=st.integers(0, (1 << 64) - 1),
    round=st.integers(0, (1 << 32) - 1),
    size=st.integers(1, 60),
    more=st.one_of(st.integers(1, 60), st.integers(1, (1 << 32) - 60)),
)
def test_a_cohort_is_the_first_distinct_devices_drawn(seed: int, round: int, size: int, more: int) -> None:
    cohort = draw_cohort(seed, round, size, size + more)
    assert cohort.tolist() == drawn(seed, round, size, size + more)
    assert draw_cohort(seed, round, size, size).tolist() == list(range(size))


def test_a_cohort_is_not_written_to_since_others_read_it_too() -> None:
    for size in (3, 9):
        with pytest.raises(ValueError):
            draw_cohort(0, 0, size, 9)[0] = 1


@given(st.sets(st.one_of(st.integers(0, 40), st.integers(0, (1 << 32) - 1))))
def test_spans_say_each_number_once(devices: set[int]) -> None:
    numbers = sorted(devices)
    said = spans(numbers)
    assert said == spans(iter(numbers)) == spans(np.array(numbers, np.uint32))
    ranges = [[int(end) for end in word.split("-")] for word in said.split(",")] if said else []
    assert [number for each in ranges for number in range(each[0], each[-1] + 1)] == numbers
    assert all(each[0] < each[-1] for each in ranges if len(each) > 1)
    assert all(one[-1] + 1 < other[0] for one, other in pairwise(ranges))  # as few as possible


@given(hnp.arrays(np.float32, st.integers(1, 200)))
def test_theta_travels_as_flower_would_send_it(theta: np.ndarray) -> None:
    ours, flowers = theta_record(theta)["theta"], Array(theta)
    assert (ours.dtype, ours.shape, ours.stype, ours.data) == (flowers.dtype, flowers.shape, flowers.stype, flowers.data)
    assert read_theta(ArrayRecord({"any": ours})).tobytes() == theta.tobytes()
    with np.errstate(over="ignore"):
        others = [theta.astype(">f4"), theta.astype(np.float64), np.asfortranarray(theta)]
    for other in others:
        assert read_theta(ArrayRecord({"any": Array(other)})).tobytes() == theta.tobytes()


def test_a_theta_that_is_shorter_than_its_record_says_is_not_read() -> None:
    array = theta_record(np.zeros(5, np.float32))["theta"]
    for shape in ((1 << 60,), (6,), (4,), (-1,), ()):
        wrong = Array("float32", shape, array.stype, array.data[:-1])
        with pytest.raises(ValueError):
            read_theta(ArrayRecord({"theta": wrong}))
