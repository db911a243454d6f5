"""The page on federations, for real: a SuperLink with TLS, two gateways with emulated boards, a coordinator that is killed."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tinyfl
from tinyfl.system.addresses import free_port
from tinyfl.system.child import Child

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "federation.md").read_text()
RUN = {"task": "sine", "network": "mlp-8", "devices": 4, "cohort": 4, "rounds": 3, "minimum": 4}

pytestmark = pytest.mark.usefixtures("built_before")


def commands(beginning: str) -> list[str]:
    """The page's commands that begin so, each on one line."""
    lines = PAGE.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith(beginning)]


def block(title: str) -> str:
    found = re.search(rf'^```\w+ title="{re.escape(title)}"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def until(there: Callable[[], object], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def text_of(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def in_foreground(line: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(shlex.split(line), capture_output=True, text=True, check=False, env=os.environ | more)


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Keys, SuperLink and gateways as on the page, at ports of their own; gives what puts those into a command."""
    port, local = free_port(), free_port()

    def here(text: str) -> str:
        for stands, is_ in (("127.0.0.1:8000", f"127.0.0.1:{port}"), ("127.0.0.1:8001", f"127.0.0.1:{local}")):
            text = text.replace(stands, is_)
        return text.replace("/home/you", str(tmp_path))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    for setting in commands("export ")[0].split()[1:]:
        monkeypatch.setenv(*setting.split("="))
    monkeypatch.setenv("FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "0.5")  # polls take more of the processor than the work
    Path("home").mkdir()
    Path("home/config.toml").write_text(here(block("config.toml")))
    Path("fleet.toml").write_text(block("fleet.toml"))
    assert in_foreground(commands("tinyfl keys")[0]).returncode == 0
    superlink = f"{commands('tinyfl superlink')[0]} --port {port} --local-port {local}"
    children = []
    try:
        children.append(started(superlink, "superlink"))
        until(lambda: "Application startup complete" in text_of(Path("superlink.log")))
        gateways = [here(line) for line in block("each gateway").splitlines()]
        children.append(started(gateways[0], "refused"))
        until(lambda: "refuses this key: it is not registered there" in text_of(Path("refused.log")))
        children.pop().kill()
        for line in commands("flwr supernode register"):
            assert in_foreground(line).returncode == 0
        children += [started(line, f"gateway-{number}") for number, line in enumerate(gateways)]
        yield here
    finally:
        for child in children:
            child.kill()


def started(line: str, name: str) -> Child:
    with Path(f"{name}.log").open("wb") as log:
        words = shlex.split(line)
        return Child([shutil.which(words[0]) or words[0], *words[1:]], stdout=log, stderr=log)


def result(folder: str) -> dict[str, object]:
    held: dict[str, object] = json.loads(Path(folder, "result.json").read_text())
    return held


def test_the_page_on_federations_does_what_it_says(federation: Callable[[str], str]) -> None:
    expected = tinyfl.simulate(**RUN, tasks=2, adapt_lr=0.01, out="native").result["theta_sha256"]

    # The coordinator is killed after its first round. Flower takes a minute to notice; the run goes on at once.
    line = f"{commands('tinyfl run --task sine --network')[0]} --tasks 2 --adapt-lr 0.01"
    with started(line, "first"):
        until(lambda: "learning: 1 of 3" in text_of(Path("first.log")))
        pattern = f"flwr-serverapp.*{federation('127.0.0.1:8001')}"
        (coordinator,) = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=True).stdout.split()
        os.kill(int(coordinator), signal.SIGKILL)
    resumed = in_foreground("tinyfl run --resume runs/lab --federation lab --json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["theta_sha256"] == expected
    rounds = [json.loads(row) for row in Path("runs/lab/rounds.jsonl").read_text().splitlines()]
    assert [(row["round"], row["cohort"], row["updates"]) for row in rounds] == [(1, "0-3", 4), (2, "0-3", 4), (3, "0-3", 4)]
    assert set(rounds[-1]["nodes"]) == {"lab-a", "lab-b"}
    assert [set(row["line"]) for row in rounds] == [{"find", "down", "learn", "up"}] * 3
    assert {board["device"] for board in result("runs/lab")["boards"]} == {0, 1, 2, 3}  # type: ignore[attr-defined]

    # The example app, by Flower's own command, each device's update apart.
    shutil.copytree(ROOT / "tinyfl" / "flower" / "app", "my-fleet")
    line = federation(commands("flwr run my-fleet lab")[0]).replace("runs/lab", "runs/app")
    done = in_foreground(line[:-1] + ' nodes="devices" tasks=2 adapt-lr=0.01\'')
    assert result("runs/app")["theta_sha256"] == expected, done.stdout + done.stderr

    # What cannot be done ends with the kind of error that it is.
    failed = in_foreground("tinyfl run --task sine --devices 4 --cohort 5 --federation lab --out runs/bad")
    assert (failed.returncode, "cohort of 5" in failed.stderr) == (2, True), failed.stderr
    failed = in_foreground("tinyfl run --task sine --devices 4 --cohort 4 --federation lab --out elsewhere")
    assert (failed.returncode, "outside the folders that a run may use" in failed.stderr) == (2, True), failed.stderr

    # At the gateways' port there is no way in, and the page says where there is one.
    config = Path("home/config.toml")
    config.write_text(config.read_text().replace(federation("127.0.0.1:8001"), federation("127.0.0.1:8000")))
    failed = in_foreground("tinyfl run --task sine --devices 4 --cohort 4 --federation lab --out runs/never")
    assert (failed.returncode, "ssh -N -L 8001:127.0.0.1:8001" in failed.stderr) == (8, True), failed.stderr
