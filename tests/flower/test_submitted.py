"""How a run that was submitted to a SuperLink ended, and whether it can be gone on with."""

import io
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tinyfl import errors
from tinyfl.deployment import submit
from tinyfl.errors import ConfigError, LinkError, RunError, TinyflError, TrainingError
from tinyfl.flower import server_app
from tinyfl.runs.directory import RunDirectory

AGAIN = "tinyfl run --resume runs/lab --federation lab"


def failure(details: str) -> TinyflError:
    return submit._failure({"status": "finished:failed", "status-details": details}, AGAIN)


@pytest.mark.parametrize("kind", ["LinkError", "TrainingError", "RunError"])
def test_a_run_that_began_can_be_gone_on_with(kind: str) -> None:
    error = failure(f"ServerApp failed with exception: no gateway answers. (exit 8: {kind})")
    assert type(error) is getattr(errors, kind) and str(error) == f"no gateway answers.\nTo go on with it: {AGAIN}"


@pytest.mark.parametrize("kind", ["LinkError", "InstallError", "RunError"])
def test_a_run_that_never_began_gives_no_advice_about_a_folder_that_never_was(kind: str) -> None:
    error = failure(f"ServerApp failed with exception: the core is missing. (not begun, exit 6: {kind})")
    assert type(error) is getattr(errors, kind) and str(error) == "the core is missing."


def test_a_failure_of_flowers_own_leaves_open_whether_the_run_began() -> None:
    error = failure("out of ports")
    assert type(error) is LinkError and str(error).endswith(f"To go on with it, if it had begun: {AGAIN}")


def test_what_another_config_would_need_is_not_gone_on_with() -> None:
    assert AGAIN not in str(failure("ServerApp failed with exception: bad. (exit 2: ConfigError)"))


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("error", [ConfigError("no"), RunError("no"), TrainingError("no")])
def test_the_coordinator_says_whether_the_run_began(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: TinyflError, begun: bool
) -> None:
    def simulate(**_: Any) -> None:
        if begun:
            (tmp_path / "run").mkdir()
            (tmp_path / "run" / "config.toml").touch()
        raise error

    monkeypatch.setattr("tinyfl.simulate", simulate, raising=False)
    monkeypatch.setattr(server_app, "_confined", lambda *_: {"out": str(tmp_path / "run")})
    monkeypatch.setattr(server_app, "from_run_config", lambda _: {})
    context: Any = SimpleNamespace(run_config={})
    with pytest.raises(RuntimeError) as failed:
        server_app.main(None, context)
    found = submit.EXIT.search(str(failed.value))
    assert found and found[2] == type(error).__name__ and bool(found[1]) is not begun


def test_a_failure_before_the_paths_are_known_is_one_of_a_run_that_never_began(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ConfigError("not here")

    monkeypatch.setattr(server_app, "_confined", refuse)
    monkeypatch.setattr(server_app, "from_run_config", lambda _: {})
    context: Any = SimpleNamespace(run_config={})
    with pytest.raises(RuntimeError, match=r"not here \(not begun, exit 2: ConfigError\)"):
        server_app.main(None, context)


def test_a_run_that_is_refused_ends_with_one_line_in_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Flower's own process of a coordinator ends: with its log of the exception, and then its advice."""
    log = logging.getLogger("flwr")
    written = logging.StreamHandler(io.StringIO())
    monkeypatch.setattr(log, "handlers", [written])
    monkeypatch.setattr(log, "filters", [])
    monkeypatch.setattr(log, "level", logging.INFO)
    monkeypatch.setattr(server_app, "from_run_config", lambda _: {"rounds": "many"})
    with pytest.raises(RuntimeError) as failed:
        server_app.main(None, SimpleNamespace(run_config={}))  # type: ignore[arg-type]
    log.error("%s raised an exception", "ServerApp", exc_info=failed.value)
    log.error("Exit Code: 200\nAn unhandled exception occurred in the ServerApp.")
    (line,) = written.stream.getvalue().splitlines()
    assert "rounds" in line


def test_a_run_that_a_federation_cannot_do_is_refused_before_it_is_submitted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(submit, "_submitted", lambda *_: pytest.fail("submitted"))
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    for options, why in (({"buffer": 2}, "--buffer is for a fleet on one"), ({"rounds": 0}, "rounds")):
        with pytest.raises(ConfigError, match=why):
            submit.run_on("lab", config=None, resume=None, out=tmp_path / "run", options={"task": "sine", **options})


def test_words_that_cannot_be_written_end_no_coordinator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written = io.BytesIO()
    result = SimpleNamespace(path=tmp_path, result={"failed": {"a gateway": "took 3 µs…"}, "theta_sha256": "0"})
    monkeypatch.setattr("tinyfl.simulate", lambda on_note, **_: on_note("y: 1 ± 2") or result, raising=False)
    monkeypatch.setattr(server_app, "_confined", lambda *_: {})
    monkeypatch.setattr(server_app, "from_run_config", lambda _: {})
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, "ascii"))
    server_app.main(None, SimpleNamespace(run_config={}))  # type: ignore[arg-type]
    assert written.getvalue().startswith(b"y: 1 +- 2\nFAILED: a gateway: took 3 us...\n")


def test_a_gateways_lines_are_utf8_in_every_locale() -> None:
    program = 'from tinyfl.deployment.supernode_main import _line_writer; _line_writer()("3 \\u00b5s\\u2026")'
    locale = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env={**os.environ, **locale})
    assert done.stdout.decode() == "3 µs…\n"


def test_a_folder_that_holds_a_run_or_is_in_use_is_refused_with_a_cure_that_holds_the_federation(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "config.toml").touch()
    assert submit._fresh("lab", None, folder, {})[1] == folder
    (folder / "rounds.jsonl").touch()
    with pytest.raises(RunError, match=rf"Go on with it: tinyfl run --resume {folder} --federation lab;"):
        submit._fresh("lab", None, folder, {})
    with RunDirectory(folder).locked(), pytest.raises(RunError, match=rf"in use by a running tinyfl \(process {os.getpid()}\)"):
        submit._fresh("lab", None, folder, {})
