"""What a report says of a run's lines, and of how late its updates were."""

import re
from html import unescape
from typing import Any

import pytest

from tinyfl.config import resolve
from tinyfl.report import figures, late, line

CONFIG = resolve({"task": "sine", "up": "int4"})
RESULT: dict[str, Any] = {
    "device_rounds": 40,
    "bytes_down": 390_000,
    "bytes_up": 38_000,
    "line_bytes_down": 404_000,
    "line_bytes_up": 44_000,
    "line_bytes_by_part": {
        "down": {"down": 400_000, "up": 2000},
        "learn": {"down": 2000, "up": 2000},
        "up": {"down": 2000, "up": 40_000},
    },
    "line_bytes_fp32": 896_000,
}
FIND = {"times": 40, "sent": 400, "received": 4000, "seconds": 2.0, "at_rate": 0.5}
DOWN = {"times": 40, "sent": 400_000, "received": 4000, "seconds": 40.0, "at_rate": 38.0}


def words(source: str) -> str:
    """What a reader sees."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", source)))


def said(**more: Any) -> str:
    return words(line.section(CONFIG, {**RESULT, **more}, b""))


def test_bytes_of_simulated_devices_are_counted_and_have_no_seconds() -> None:
    seen = said()
    assert "A round takes 11.2 KB on a device's line, and the whole run 448.0 KB on all lines, 50.0 % of what" in seen
    assert "in a round to the device from the device Weights down 10.0 KB 50 bytes theta as fp32" in seen
    assert "Update up 50 bytes 1.0 KB their change as int4 In all 10.1 KB 1.1 KB Means over device-rounds" in seen
    assert "take 0.97 s at 115,200 baud and 0.11 s at 1,000,000 baud" in seen


def test_boards_have_measured_seconds_and_the_share_of_their_line() -> None:
    seen = said(line={"find": FIND, "down": DOWN})
    assert "in a round to the device from the device time line in use" in seen
    assert "Finding the board 10 bytes 100 bytes 50 ms 25 %" in seen
    assert "Weights down 10.0 KB 100 bytes 1.0 s 95 % theta as fp32" in seen
    assert "In all 10.0 KB 200 bytes 1.1 s 92 % Means over 40 rounds of single boards, measured" in seen


@pytest.mark.parametrize(("board", "why"), [({"engine": "unicorn"}, "the emulators' on this machine"), ({}, "have no rate")])
def test_boards_whose_line_has_no_rate_have_seconds_only(board: dict[str, str], why: str) -> None:
    seen = said(line={"find": FIND, "down": {**DOWN, "at_rate": None}}, boards=[board])
    assert "Weights down 10.0 KB 100 bytes 1.0 s theta as fp32" in seen
    assert "line in use" not in seen
    assert why in seen


def test_layers_that_never_leave_the_device_are_named() -> None:
    assert "their change as int4; those of dense-2 and <b> never leave the device" in said(local=["dense-2", "<b>"])


def test_a_run_of_before_has_its_bytes() -> None:
    old = {key: value for key, value in RESULT.items() if key not in ("line_bytes_by_part", "line_bytes_fp32")}
    seen = words(line.section(CONFIG, old, b""))
    assert "from the device In all 10.1 KB 1.1 KB Means over device-rounds" in seen
    assert "of what all weights" not in seen


def test_staleness_is_shown_by_kind_of_device(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = {"kind": "usual", "devices": 8, "arrivals": 190, "left_out": 0, "weight": 90.0}
    slow = {"kind": "<b>", "devices": 4, "arrivals": 10, "left_out": 8, "weight": 10.0, "staleness": {"7": 1, "200": 1}}
    rows = [
        {**usual, "staleness": {"0": 100, "3": 85, "4": 5}},
        slow,
        {**slow, "arrivals": 0, "weight": 0.0, "staleness": {}},
    ]
    seen = words(late.section({"staleness": rows, "virtual_time": 1234.0}, b""))
    assert "The rounds took 1,234 units of virtual time." in seen
    assert "usual 8 190 95.0 % 90.0 % 0 3 4 0 <b> 4 10 5.0 % 10.0 % 7 200 200 8 <b> 4 0 0.0 % 0.0 % – – – 8" in seen

    heights: list[float] = []
    monkeypatch.setattr(figures, "png", lambda it: heights.extend(bar.get_height() for bar in it.axes[0].patches) or b"")
    figures.staleness(rows)
    assert [height for height in heights if height] == [185, 5, 1, 1]  # bars of four rounds each
    assert sum(heights) == 192
