"""Failure is not success: what a run says at its end of a part of its fleet that sent nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyfl.cli.show import runs as show
from tinyfl.config.roster import Part, named
from tinyfl.errors import TrainingError
from tinyfl.fleet import spans
from tinyfl.runs.directory import EVENTS, ROUNDS
from tinyfl.runs.failures import _common, failed
from tinyfl.simulation import simulate

RUN: dict[str, Any] = {
    "task": "sine",
    "network": "mlp-8",
    "samples": 8,
    "rounds": 2,
    "tasks": 4,
    "adapt_lr": 0.01,
    "seconds": 1,
}
NOWHERE = {"ports": ["/dev/nowhere-1", "/dev/nowhere-2"]}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyfl.flower.rounds.SHORT_ROUND_PAUSES", (0.0, 0.0, 0.0))


def test_a_part_whose_devices_all_fail_is_named_at_the_end_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = simulate(fleet=[{"native": 2}, NOWHERE], cohort=4, out=tmp_path / "run", **RUN)
    said = run.result["failed"]
    assert list(said) == ["part 2, 2 at ports"]
    assert said["part 2, 2 at ports"].startswith("devices 2 to 3, no update in any of the 2 rounds that asked for one (dead: ")
    assert "/dev/nowhere-" in said["part 2, 2 at ports"]
    show.run(run.result)
    assert "FAILED: part 2, 2 at ports: devices 2 to 3" in " ".join(capsys.readouterr().out.split())
    assert "Failed: part 2, 2 at ports" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_with_no_update_fails_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"/dev/nowhere-1 cannot be opened.* Check the devices listed in .*events.jsonl; then go on"
    ):
        simulate(fleet=[{"ports": NOWHERE["ports"][:1]}], cohort=1, out=tmp_path / "run", **RUN)


def test_a_run_whose_part_fails_ends_as_its_minimum_asks(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"had 2 of the 3 required updates.*cannot be opened.* or give a smaller --minimum"):
        simulate(fleet=[{"native": 2}, NOWHERE], cohort=4, minimum=3, out=tmp_path / "run", **RUN)


def rounds(folder: Path, *lines: tuple[str, dict[str, str]]) -> Path:
    records = [{"round": i, "cohort": cohort, "absent": absent} for i, (cohort, absent) in enumerate(lines, 1)]
    (folder / ROUNDS).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_a_part_has_failed_where_each_round_that_asked_it_was_without_it(tmp_path: Path) -> None:
    parts = named([Part(native=4), Part(board="posix", count=4), Part(ports=("/dev/x",))])
    assert list(parts.values()) == [range(4), range(4, 8), range(8, 9)]
    folder = rounds(tmp_path, ("0-5", {"node-error": "4-5"}), ("0,3,7", {"dead": "3", "late": "7"}), ("1", {}))
    assert list(failed(folder, parts)) == ["part 2, 4 posix"], "part 3 was never asked"
    (folder / EVENTS).write_text(
        "".join(
            json.dumps({"device": device, "what": what, "detail": detail}) + "\n"
            for device, what, detail in [(7, "left out", "late: slow"), (3, "left out", "dead"), (7, "back", "posix")]
        )
        + '{"device": 7, "what": "le'  # cut
    )
    assert failed(folder, parts) == {
        "part 2, 4 posix": "devices 4 to 7, no update in any of the 2 rounds that asked for one (late: slow)"
    }
    assert failed(rounds(tmp_path, ("0-5", {"late": "5"}), ("7", {"late": "7"})), parts) == {}
    assert failed(folder, {}) == {}


@given(st.sets(st.integers(0, 40)), st.integers(0, 20), st.integers(0, 20))
def test_devices_in_common_are_counted(devices: set[int], first: int, size: int) -> None:
    part = range(first, first + size)
    assert _common(spans(sorted(devices)), part) == len(devices & set(part))
