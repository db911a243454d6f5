"""Words from outside, before a person sees them."""

import shutil
import subprocess
import unicodedata
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyfl.config.settings import SETTINGS
from tinyfl.errors.words import (
    MAX_LINE_CHARS,
    MAX_NAME_CHARS,
    file_name,
    guess,
    markdown,
    message,
    plain,
    serial_number,
    shell,
    tcl,
    visible,
)
from tinyfl.report import html

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(st.text(st.characters(), max_size=2 * MAX_LINE_CHARS))
def test_nothing_that_steers_or_hides_is_shown_and_the_length_is_bounded(words: str) -> None:
    shown = plain(words)
    assert len(shown) <= MAX_LINE_CHARS
    assert not {unicodedata.category(character) for character in shown} & HIDDEN


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=MAX_LINE_CHARS))
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
    assert plain("a" * 100_000) == "a" * (MAX_LINE_CHARS - 1) + "…"


@given(st.text(st.characters(), max_size=50))
def test_a_message_keeps_its_lines_and_hides_nothing(words: str) -> None:
    shown = visible(words)
    assert [len(line) for line in shown.split("\n")] == [len(line) for line in words.split("\n")]
    assert not {unicodedata.category(character) for character in shown if character not in "\n\t"} & HIDDEN


def test_of_a_message_that_is_too_long_the_cure_at_its_end_is_left() -> None:
    shown = message(f"this is wrong ({'x' * 100_000}). Do that.")
    assert len(shown) < 10_000 and shown.startswith("this is wrong") and shown.endswith("Do that.")


@given(st.text(st.characters(), max_size=3 * MAX_NAME_CHARS))
def test_a_part_of_a_file_name_leads_nowhere_else(words: str) -> None:
    name = file_name(words)
    assert len(name) <= MAX_NAME_CHARS and name.isascii() and not set(name) - set(".-") - {c for c in name if c.isalnum()}
    assert not name.startswith((".", "-"))


words_for_tools = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


@settings(max_examples=20)
@given(st.lists(words_for_tools, min_size=8, max_size=8))
def test_a_shell_reads_just_the_words(words: list[str]) -> None:
    said = subprocess.run(["/bin/sh", "-c", shell("printf", "%s\\0", *words)], capture_output=True, check=True).stdout
    assert said.decode().split("\0")[:-1] == words


@settings(max_examples=5)
@given(st.lists(words_for_tools, min_size=40, max_size=40))
def test_tcl_reads_just_the_words(words: list[str]) -> None:
    """By OpenOCD, whose own Tcl it is."""
    openocd = shutil.which("openocd")
    if not openocd:
        pytest.skip("needs openocd: apt install openocd")
    hostile = ["a; exec touch PWNED; #", "[exec touch PWNED]", "} exec touch PWNED {", "$env(HOME)", "", "\\", "{", '"']
    lines = [f"puts [binary_of {tcl(word)}]" for word in (*words, *hostile)]
    of = "proc binary_of {word} {set all {}; foreach c [split $word {}] {lappend all [scan $c %c]}; return <$all>}"
    done = subprocess.run([openocd, "-c", "\n".join([of, *lines, "shutdown"])], capture_output=True, text=True, timeout=300)
    told = [line[1:-1] for line in done.stdout.splitlines() if line.startswith("<")]
    assert told == [" ".join(map(str, word.encode())) for word in (*words, *hostile)]


class Seen(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(st.characters(), max_size=60) | st.sampled_from(["<script>alert(1)</script>", '" onload="x', "&lt;b>", "<!--"]))
def test_a_browser_reads_just_the_words(words: str) -> None:
    seen = Seen(f'<p title="{html.text(words)}">{html.text(words)}</p>')
    assert (seen.tags, seen.text) == (["p"], plain(words))


@given(st.text(st.characters(), max_size=60))
def test_markdown_reads_just_the_words(words: str) -> None:
    markdown_it = pytest.importorskip("markdown_it", reason="needs markdown-it-py, which rich brings")
    page = Seen(markdown_it.MarkdownIt().enable("table").render(f"| a |\n| --- |\n| ({markdown(words)}) |\n"))
    assert set(page.tags) == {"table", "thead", "tr", "th", "tbody", "td"}
    assert page.text.split() == ["a", *f"({plain(words)})".split()]


@pytest.mark.parametrize(
    ("said", "serial"),
    [(" 066DFF ", "066DFF"), ("LAB (1); #", "LAB (1); #"), ("a\x1b[2J", ""), ("a" * 127, ""), (None, ""), (7, "")],
)
def test_a_serial_number_is_one_that_a_person_could_give(said: object, serial: str) -> None:
    assert serial_number(said) == serial


def test_a_misspelt_name_is_guessed_and_a_strange_one_is_not() -> None:
    assert guess("sin", ["digits", "sine"]) == "Did you mean sine? "
    assert guess("sampels", SETTINGS) == "Did you mean samples? "
    assert guess("quux", SETTINGS) == ""
