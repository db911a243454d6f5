"""What a person's terminal gets to read, on a real pty: words, whatever they are, and the codes of our own tables and bars."""

import os
import pty
import re
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from tinyfl import cli
from tinyfl.building import boards
from tinyfl.cli.common import say
from tinyfl.cli.show import boards as show_boards
from tinyfl.cli.show import devices as show_fleet
from tinyfl.cli.show import flash as show_flash
from tinyfl.cli.show import runs as show
from tinyfl.devices.connected import Device, Probe
from tinyfl.devices.inventory import Saved
from tinyfl.devices.monitor import Line
from tinyfl.devices.ports import Port
from tinyfl.devices.push import Pushed, PushResult
from tinyfl.doctor import Check
from tinyfl.errors import RunError
from tinyfl.flash.run import FlashResult as Flashed
from tinyfl.fleet import Event
from tinyfl.link.status import Description, Status
from tinyfl.runs.adaptation import Initialisation

EVIL = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b2J\u202eexe.\r[bold]b[/bold][/x]:smile: end"
OURS = re.compile(r"\x1b\[(\d+(;\d+)*)?m|\x1b\[\?25[lh]|\x1b\[\d*[AK]|\r|\n")
"""Colours, the cursor that hides while a table is live and moves up to its first line, and ends of lines."""


class Pty:
    """A terminal that is stdout and stderr in a ``with``, and ``words``: what it got, without our own codes."""

    def __enter__(self) -> "Pty":
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (50, 200))
        self._got = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._before = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = os.fdopen(theirs, "w", encoding="utf-8", errors="surrogateescape")
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.close()
        sys.stdout, sys.stderr = self._before
        self._reader.join(120)
        os.close(self._ours)
        self.words = OURS.sub("", self._got.decode())

    def _read(self) -> None:
        try:
            while data := os.read(self._ours, 1 << 16):
                self._got.extend(data)
        except OSError:  # the other end is closed
            return


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "200", "LINES": "50"}.items():
        monkeypatch.setenv(name, value)


ROW = {"mode": EVIL, "shots": 1, "steps": 10, "loss": 1.0, "loss_ci95": None, "accuracy": None, "accuracy_ci95": None}
DESCRIBED = Description(3, EVIL, 1, EVIL, b"\xab", 0, 0, 0, 0, 0, (), (), (), (), b"", b"", 0, b"")
DEVICE = Device(Port(EVIL, "0000:0000", EVIL, EVIL, EVIL), EVIL, EVIL, DESCRIBED)
RESULT = {
    "task": EVIL, "algorithm": EVIL, "network": EVIL, "evaluation": [ROW], "baseline": [ROW], "floor": [ROW],
    "device_rounds": 1, "devices": 1, "seconds": 1.0, "device_rounds_per_s": 1.0, "device_ram_bytes": 1, "boards": [],
    "left_out": {EVIL: 1}, "theta_sha256": EVIL, "run": EVIL,
}  # fmt: skip
ADAPTED = {
    "network": EVIL, "mode": EVIL, "shots": 1, "adapt_lr": 1.0, "curve": [{"steps": 1, "loss": 1.0, "accuracy": None}],
    "measured_on": EVIL, "samples_measured": 1, "out": EVIL,
}  # fmt: skip
EXPORTED = {
    "metric": EVIL, "not_run": {EVIL: EVIL}, "files": [{"path": EVIL, "bytes": 1}], "card": EVIL,
    "measured": [
        {"on": EVIL, "rows": [{"numbers": EVIL, "by": EVIL, "value": 1.0, "ci95": None, "drop": 0.0, "drop_ci95": None}]}
    ],
}  # fmt: skip
INFERRED = {"model": EVIL, "on": EVIL, "bytes": 1, "arena_bytes": 1, "output": EVIL, "shape": [1], "inputs": 1, "dtype": EVIL}


def monitored() -> None:
    with show_fleet.Monitor() as shown:
        shown.tell(Line(0.0, "connected", EVIL, description=DESCRIBED))
        shown.tell(Line(0.0, "status", EVIL, status=Status(9, 1, b"", 1, 1.0, 0, b"", 0, 0)))
        shown.tell(Line(0.0, "gone", EVIL, detail=EVIL))


def one_board() -> None:
    board = boards.load("nucleo-f401re")
    show_boards.board(board.model_copy(update={"title": EVIL, "chip": EVIL}))


SHOWN: dict[str, Callable[[], object]] = {
    "devices": lambda: show_fleet.devices([DEVICE], [Probe(EVIL, EVIL, EVIL, (EVIL,))], {"ab": Saved("ab", tags=(EVIL,))}),
    "push: each": lambda: show_fleet.outcome(PushResult(EVIL, EVIL, EVIL, EVIL, EVIL)),
    "push": lambda: show_fleet.pushed(Pushed(EVIL, EVIL, EVIL, (PushResult(EVIL, EVIL, EVIL, "pushed", EVIL),))),
    "monitor": monitored,
    "doctor": lambda: show_fleet.checks([Check(EVIL, EVIL, EVIL, EVIL, EVIL, EVIL)]),
    "flash: each": lambda: show_flash.outcome(Flashed(EVIL, EVIL, EVIL)),
    "flash": lambda: show_flash.outcomes([Flashed(EVIL, EVIL, EVIL, EVIL, EVIL, EVIL, EVIL, EVIL)]),
    "boards": one_board,
    "run": lambda: show.run(RESULT),
    "run: events": lambda: show.with_progress(lambda report, tell: tell(Event(0, 1, EVIL, "left out", EVIL))),
    "adapt": lambda: show.adaptation(ADAPTED),
    "export": lambda: show.exported(EXPORTED),
    "infer": lambda: show.inference(INFERRED),
    "emulate": lambda: show.emulated([SimpleNamespace(id=EVIL, board=EVIL, url=EVIL)]),  # type: ignore[list-item]
    "lines": lambda: say(EVIL),
}


@pytest.mark.parametrize("verb", SHOWN)
def test_hostile_words_reach_the_terminal_as_words(verb: str) -> None:
    with Pty() as terminal:
        SHOWN[verb]()
    assert terminal.words.isprintable(), repr(terminal.words)
    assert "[/bold]" in terminal.words, terminal.words


def ended(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[object, str]:
    """The exit code of a command, and what a terminal got."""
    monkeypatch.setattr(sys, "argv", ["tinyfl", *words])
    with Pty() as terminal, pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code, terminal.words


def test_an_error_reaches_the_terminal_as_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hostile = tmp_path / EVIL.replace("/", "|")
    hostile.mkdir()
    code, words = ended(monkeypatch, "report", str(hostile))
    assert code == RunError.exit_code and words.isprintable() and "holds no run" in words


def test_a_long_word_from_another_library_is_cut_and_the_cure_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def load(path: Path) -> Initialisation:
        raise RunError(f"{path} is damaged ({'x' * 100_000}). Take another.")

    monkeypatch.setattr(Initialisation, "load", load)
    _, words = ended(monkeypatch, "adapt", str(tmp_path), "--data", "own.npz")
    assert len(words) < 10_000 and words.endswith("Take another.")


def test_json_has_the_words_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyfl.devices.connected.probes", lambda: [Probe("a", EVIL, "", ())])
    said = CliRunner().invoke(cli.app, ["devices", "--json"]).stdout
    assert said.isascii() and said.removesuffix("\n").isprintable()
