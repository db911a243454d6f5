"""What verbs write, on whatever takes it: ASCII, Latin-1, a file instead of a terminal; and warnings at once."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.text import Text
from typer.main import get_command

from tinyfl import cli
from tinyfl.cli.show import bar as bars
from tinyfl.cli.show import runs as show
from tinyfl.cli.show.devices import Monitor
from tinyfl.devices.monitor import Line
from tinyfl.errors import ConfigError
from tinyfl.flower.rounds import Progress
from tinyfl.system.encoding import ALIKE, write_what_can_be

SMALL = ["--network", "mlp-2", "--rounds", "2", "--cohort", "2", "--tasks", "2", "--adapt-lr", "0.1"]
ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
LATIN = {"LC_ALL": "C", "PYTHONIOENCODING": "latin-1"}
POSIX = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def tinyfl(*words: str | bytes, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "tinyfl.cli", *words]
    return subprocess.run(command, capture_output=True, check=False, env={**os.environ, **(env or {})}, timeout=300)


@pytest.fixture
def here(tmp_path: Path, figureless: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


VERBS: list[tuple[list[str], tuple[int, ...]]] = [
    (["doctor"], (0, 6)), (["devices"], (0,)), (["boards", "list"], (0,)), (["push", "--help"], (0,)),
    (["run", "--help-all"], (0,)), (["plan", "mlp-16", "--shape", "4", "--outputs", "1", "--board", "pico"], (0, 6)),
    (["run", "--task", "sine", "--devices", "2", "--out", "run", *SMALL], (0,)), (["report", "größe"], (4,)),
    (["größe"], (2,)),
]  # fmt: skip
EACH = """
import sys
from tinyfl import cli
given = sys.argv[1:]
while given:
    end = given.index(";")
    sys.argv[1:], given = given[:end], given[end + 1 :]
    try:
        cli.main()
    except SystemExit as left:
        print("\\n;", left.code, flush=True)
        print("\\n;", file=sys.stderr, flush=True)
"""
"""Runs command lines that each end with ";", one after another in one process."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "encoding"), [(ASCII, "ascii"), (LATIN, "latin-1"), (POSIX, "ascii")], ids=["C", "latin", "POSIX"]
)
def test_verbs_write_what_can_be_written(here: Path, env: dict[str, str], encoding: str) -> None:
    command = [sys.executable, "-c", EACH, *(word for words, _ in VERBS for word in (*words, ";"))]
    done = subprocess.run(command, capture_output=True, env={**os.environ, **env}, timeout=300)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    shown, said = (stream.decode(encoding).split("\n;") for stream in (done.stdout, done.stderr))
    for number, (words, codes) in enumerate(VERBS):
        before = shown[number].partition("\n")[2] if number else shown[0]
        assert int(shown[number + 1].partition("\n")[0]) in codes, words
        assert (before + said[number]).strip(), words


def test_what_cannot_be_written_has_something_alike() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii", errors="strict")
    write_what_can_be(stream, io.StringIO())  # a program's own stream stays as it is
    stream.write("".join(ALIKE) + "ü漢")
    stream.flush()
    assert raw.getvalue().decode() == "".join(ALIKE.values()) + "??"


def test_everything_of_ours_that_is_not_ascii_has_something_alike() -> None:
    """In the code whose text goes to a terminal; a report is a page, whose encoding is its own."""
    package = Path(cli.__file__).parents[1]
    used = {
        each
        for file in (
            *package.rglob("cli/**/*.py"),
            *package.glob("*.py"),
            package / "export/card.py",
            package / "report/verdict.py",
        )
        for each in file.read_text(encoding="utf-8")
        if not each.isascii()
    }
    assert used and used <= set(ALIKE)


@pytest.mark.slow
@pytest.mark.parametrize("env", [POSIX, {}], ids=["POSIX", "as it is"])
def test_toml_files_are_utf8_wherever_they_are_read(here: Path, env: dict[str, str]) -> None:
    (here / "run.toml").write_bytes('# Größe\ntask = "sine"  # …'.encode())
    assert tinyfl("run", "run.toml", "--devices", "2", "--out", "run", *SMALL, "--json", env=env).returncode == 0


@pytest.mark.parametrize("option", ["--data", "--out"])
def test_a_name_that_is_not_utf8_is_refused_before_it_ends_a_run(here: Path, own_data: Path, option: str) -> None:
    name = os.fsencode(own_data.parent) + b"/b\xe4d.npz"
    own_data.rename(os.fsdecode(name))
    given = [b"--data", name] if option == "--data" else [b"--task", b"sine", b"--out", name + b"x"]
    done = tinyfl("run", *(["--task", "npz"] if option == "--data" else []), *given, *SMALL)
    assert done.returncode == 2 and b"is not UTF-8" in done.stderr
    assert not Path(os.fsdecode(name + b"x")).exists() and not (here / "runs").exists()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_of_progress_every_ten_seconds_and_the_last(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    def work(report: Callable[[Progress], None], _: Any) -> None:
        for second in range(1, 36):
            clock[0] = float(second)
            report(Progress("learning", second, 35, 0.5, 1000.0))

    show.with_progress(work)
    assert capsys.readouterr().err.splitlines() == [
        f"learning: {done} of 35 · loss 0.5 · 1,000 device-rounds/s" for done in (10, 20, 30, 35)
    ]


def test_a_log_of_another_verb_has_lines_too(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    def work(report: Callable[[int, int], None]) -> None:
        for clock[0] in (1.0, 11.0, 12.0):
            report(int(clock[0]), 12)

    show.with_bar("measuring", work)
    assert capsys.readouterr().err.splitlines() == ["measuring: 11 of 12", "measuring: 12 of 12"]


@pytest.mark.parametrize("env", [{"TERM": "dumb", "FORCE_COLOR": "1"}, {"NO_COLOR": "1"}])
def test_a_dumb_terminal_is_like_a_file(monkeypatch: pytest.MonkeyPatch, env: dict[str, str], capsys: Any) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    show.with_progress(lambda report, _: report(Progress("evaluating", 1, 2)))
    assert capsys.readouterr().err == "evaluating: 1 of 2\n"


def test_a_monitored_board_has_lines_on_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Monitor() as shown:
        for number in range(2):
            shown.tell(Line(0.0, "gone", f"/dev/ttyACM{number}"))
    assert [line.split()[1:] for line in capsys.readouterr().out.splitlines()] == [
        ["/dev/ttyACM0", "gone"],
        ["/dev/ttyACM1", "gone"],
    ]


MARKUP = ["[red]x", "[/]", "[bold]b[/bold]", "[/nope]", ":smile:", "\\[x]"]


@pytest.mark.parametrize("name", MARKUP)
@pytest.mark.parametrize(
    "words", [["run", "--out", "o", "--rounds"], ["run"], ["--"], ["report"], ["plan"], ["build", "--board"]]
)
def test_markup_in_what_was_given_stays_text(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], name: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["tinyfl", *words, name])
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code in (2, 4) and name in capsys.readouterr().err


def test_markup_in_the_names_of_a_run_stays_text(
    here: Path, monkeypatch: pytest.MonkeyPatch, own_data: Path, capsys: Any
) -> None:
    (here / "[").mkdir()
    own_data.rename("[red]x.npz")
    for words in (
        ["run", "--task", "npz", "--data", "[red]x.npz", "--out", "[/]a", *SMALL],
        ["adapt", "[/]a", "--data", "[red]x.npz", "--out", "[bold].npz"],
        ["report", "[/]a"],
    ):
        monkeypatch.setattr(sys, "argv", ["tinyfl", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == 0
    said = capsys.readouterr().out
    assert "[/]a/report.html" in said and "[bold].npz" in said


def test_no_help_loses_words_as_markup() -> None:
    """A bracket that is not escaped would be a style, and vanish."""

    def texts(command: Any) -> list[str]:
        own = [command.help or "", *(getattr(param, "help", None) or "" for param in command.params)]
        return own + [each for sub in getattr(command, "commands", {}).values() for each in texts(sub)]

    found = texts(get_command(cli.app))
    assert len(found) > 100
    assert [each for each in found if Text.from_markup(each).plain != each.replace("\\[", "[")] == []


@pytest.mark.parametrize("fleet", [{"devices": 4}, {"fleet": [{"native": 2}, {"board": "posix", "count": 2}]}])
def test_a_minimum_that_no_round_can_reach_is_refused_before_the_run_has_a_folder(here: Path, fleet: dict[str, Any]) -> None:
    import tinyfl

    tiny = {"task": "sine", "network": "mlp-2", "rounds": 2, "tasks": 2, "adapt_lr": 0.1, **fleet}
    with pytest.raises(ConfigError, match=r"minimum of 3 updates from a cohort of 2.*smaller --minimum, or a larger --cohort"):
        tinyfl.simulate(**tiny, cohort=2, minimum=3)
    assert list(here.iterdir()) == []
    if "devices" in fleet:
        assert tinyfl.simulate(**tiny, cohort=2, minimum=2).result["left_out"] == {}


def adapted(folder: Path, y: Any, **options: Any) -> list[str]:
    from tinyfl.runs.adaptation import adapt

    np.savez(folder / "device.npz", x=np.ones((len(y), 4)), y=np.array(y))
    return list(json.loads(json.dumps(adapt(folder / "run", folder / "device.npz", **options)))["notes"])


def test_adapting_warns_of_classes_that_the_device_never_sees(tmp_path: Path, own_data: Path) -> None:
    import tinyfl

    tiny = {"network": "mlp-2", "rounds": 2, "cohort": 2, "tasks": 2, "adapt_lr": 0.1}
    tinyfl.simulate(task="npz", data=own_data, out=tmp_path / "run", **tiny)
    sorted_by_class, mixed, one = [0, 0, 0, 1, 1, 2], [0, 1, 2, 0, 1, 2], [1, 1, 1, 1]
    assert "no row of classes 1, 2, and the rest has" in adapted(tmp_path, sorted_by_class, shots=3)[0]
    assert "no row of class 2, and the rest has" in adapted(tmp_path, sorted_by_class, shots=5)[0]
    assert "all rows are of class 1" in adapted(tmp_path, one)[0] and adapted(tmp_path, one, shots=2)
    assert adapted(tmp_path, mixed, shots=3) == adapted(tmp_path, mixed) == adapted(tmp_path, sorted_by_class) == []
