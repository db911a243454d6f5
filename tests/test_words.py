"""Words from outside, before a person sees them."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyfl.words import MOST, plain

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(st.text(st.characters(), max_size=2 * MOST))
def test_nothing_that_steers_or_hides_is_shown_and_the_length_is_bounded(words: str) -> None:
    shown = plain(words)
    assert len(shown) <= MOST
    assert not {unicodedata.category(character) for character in shown} & HIDDEN


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=MOST))
def test_ordinary_words_stay_as_they_are(words: str) -> None:
    assert plain(words) == words


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("two\r\nlines\tand a tab", "two  lines and a tab"),
        ("\x1b[31mred\x1b[0m", "\ufffd[31mred\ufffd[0m"),
        ("exe.\u202efdp", "exe.\ufffdfdp"),
        ("[bold]x[/bold] <b>x</b>", "[bold]x[/bold] <b>x</b>"),
        (ValueError("why"), "why"),
    ],
)
def test_plain(words: object, shown: str) -> None:
    assert plain(words) == shown


def test_a_number_that_python_does_not_print_is_named() -> None:
    assert plain(1 << 20_000) == "int that cannot be shown (ValueError)"


def test_long_words_are_cut_and_say_so() -> None:
    assert plain("a" * 100_000) == "a" * (MOST - 1) + "…"
