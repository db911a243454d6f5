"""The years of a store: by the formula, as by a log that is written commit by commit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyfl.building import wear
from tinyfl.building.boards import Region, Store


def store(size: int, page: int, endurance: int) -> Store:
    areas = (Region(origin=0, size=size), Region(origin=size, size=size))
    return Store(areas=areas, page=page, endurance=endurance)


@given(page=st.sampled_from([4, 256]), held=st.lists(st.integers(0, 40).map(lambda n: 4 * n), min_size=1, max_size=6))
def test_years_are_those_of_a_log_written_until_an_area_is_worn_out(page: int, held: list[int]) -> None:
    size, endurance = 4096, 3

    def pages(blocks: list[int]) -> int:
        return -(-(20 * len(blocks) + sum(blocks) + 56) // page) * page

    commits, erased, end = 0, [0, 0], size
    while True:
        if end + pages(held[:1]) > size:  # moves to the other area
            area = erased.index(min(erased))
            if erased[area] == endurance:
                break
            erased[area] += 1
            end = pages(held)
        else:
            end += pages(held[:1])
        commits += 1
    assert wear.years(store(size, page, endurance), held, held[:1], 1.0) * wear.DAYS == pytest.approx(commits)


def test_what_does_not_wear_lasts_and_what_does_not_fit_is_refused() -> None:
    assert wear.years(store(4096, 4, 0), [256], [256], 1.0) == float("inf")
    with pytest.raises(ValueError, match=r"5,120 bytes do not fit an area of 4,096"):
        wear.years(store(4096, 4, 1), [256] * 20, [256], 1.0)
