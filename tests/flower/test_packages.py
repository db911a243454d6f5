"""An installed package on a federation: a SuperLink and gateways that allow its algorithm and task, and some that do not."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flaky import FlakyGrid
from own import installed, write_own
from test_deployment import started, text_of, until

import tinyfl
from tinyfl import cli
from tinyfl.config.roster import Part
from tinyfl.deployment.gateway import Gateway
from tinyfl.errors import ConfigError
from tinyfl.fleets.assembly import opened
from tinyfl.flower import remote
from tinyfl.flower.allowed import Allowed
from tinyfl.flower.server_app import over_nodes
from tinyfl.flower.settings import to_run_config
from tinyfl.system.addresses import free_port
from tinyfl.system.child import Child

pytestmark = pytest.mark.usefixtures("modules_here")

RUN = {"network": "mlp-8", "devices": 4, "cohort": 4, "rounds": 3, "tasks": 4, "shots": 5, "adapt_lr": 0.01, "minimum": 4}
WORDS = [word for key, value in RUN.items() for word in (f"--{key.replace('_', '-')}", str(value))]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package of docs/your-own.md, built and installed into a folder on the path of every process."""
    (tmp_path / "project").mkdir()
    write_own(tmp_path / "project")
    folder = tmp_path / "site"
    options = ["-q", "--no-deps", "--no-build-isolation", "--target", folder]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, tmp_path / "project"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def federation(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Starts a SuperLink with an allow list, and gateways of two devices each with theirs."""
    port, local = free_port(), free_port()
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FLWR_HOME", str(Path("home").resolve()))
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "0")
    monkeypatch.setenv("FLWR_DISABLE_UPDATE_CHECK", "1")
    monkeypatch.setenv("FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "0.5")  # polls take more of the processor than the work
    Path("home").mkdir()
    Path("home/config.toml").write_text(f'[superlink.lab]\naddress = "127.0.0.1:{local}"\ninsecure = true\n')
    children: list[Child] = []

    def start(of_superlink: str, *of_gateways: tuple[str, str]) -> list[Child]:
        Path("superlink.toml").write_text(of_superlink)
        command = f"tinyfl superlink --insecure --port {port} --local-port {local} --allow superlink.toml"
        children.append(started(command, "superlink"))
        until(lambda: "Application startup complete" in text_of(Path("superlink.log")))
        for number, (fleet, allowed) in enumerate(of_gateways):
            Path(f"fleet-{number}.toml").write_text(fleet)
            Path(f"allowed-{number}.toml").write_text(allowed)
            line = f"tinyfl gateway --insecure --superlink 127.0.0.1:{port} --fleet fleet-{number}.toml --name lab-{number}"
            children.append(started(f"{line} --first-device {2 * number} --allow allowed-{number}.toml", f"gateway-{number}"))
        return children

    try:
        yield start
    finally:
        for child in children:
            child.kill()


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [shutil.which("tinyfl") or "tinyfl", "run", *words, "--federation", "lab", "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


NATIVE = "[[fleet]]\nnative = 2\n"
BOARDS = '[[fleet]]\nboard = "posix"\ncount = 2\n'
BOTH, TASK = 'extensions = ["cosine", "sensors"]\n', 'extensions = ["sensors"]\n'


@pytest.mark.slow
@pytest.mark.usefixtures("built_before")
def test_an_installed_algorithm_and_task_learn_on_a_federation_and_go_on(federation: Callable[..., None]) -> None:
    here = tinyfl.simulate(algorithm={"name": "cosine", "floor": 0.25}, task="sensors", **RUN, out="here").result
    federation(BOTH, (NATIVE, TASK), (BOARDS, TASK))
    Path("own.toml").write_text('[algorithm]\nname = "cosine"\nfloor = 0.25\n')
    words = ["own.toml", "--task", "sensors", *WORDS, "--out", "runs/own"]
    with started(shlex.join(["tinyfl", "run", *words, "--federation", "lab"]), "first"):
        until(lambda: "learning: 1 of 3" in text_of(Path("first.log")))
        address = tomllib.loads(Path("home/config.toml").read_text())["superlink"]["lab"]["address"]
        found = subprocess.run(["pgrep", "-f", f"flwr-serverapp.*{address}"], capture_output=True, text=True, check=True)
        os.kill(int(found.stdout), signal.SIGKILL)
    done = run("--resume", "runs/own")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["theta_sha256"] == here["theta_sha256"]
    assert len(result["boards"]) == 2
    assert [json.loads(row)["round"] for row in Path("runs/own/rounds.jsonl").read_text().splitlines()] == [1, 2, 3]
    np.savez("new.npz", x=np.linspace(-1, 1, 8)[:, None], y=np.linspace(-1, 1, 8))
    for verb in (["report", "runs/own"], ["adapt", "runs/own", "--data", "new.npz"]):
        cli.app(verb, standalone_mode=False)


@pytest.mark.slow
def test_a_node_that_does_not_allow_a_task_ends_the_run_by_name_and_imports_nothing(
    federation: Callable[..., list[Child]], site: Path
) -> None:
    marker = "from pathlib import Path\nPath(__file__).with_name(f'imported-{__import__(\"os\").getpid()}').touch()\n"
    module = site / "sensors.py"
    module.write_text(marker + module.read_text())
    processes = federation(TASK, (NATIVE, TASK), (NATIVE, ""))
    done = run("--task", "sensors", *WORDS, "--out", "runs/own")
    assert done.returncode == 2, done.stderr
    assert (
        "lab-1: task 'sensors' is not allowed on this machine. Its operator can add extensions = [\"sensors\"]" in done.stderr
    )
    assert "refuses a run: task 'sensors' is not allowed" in text_of(Path("gateway-1.log"))
    imported = {int(path.name.partition("-")[2]) for path in site.glob("imported-*")}
    assert len(imported) == 1, "the coordinator, which is allowed it"
    assert not imported & {each.process.pid for each in processes}

    # The SuperLink's own list is asked before anything else: no process of it has the algorithm.
    before = set(site.glob("imported-*"))
    done = run("--task", "sensors", "--algorithm", "cosine", *WORDS, "--out", "runs/other")
    assert done.returncode == 2, done.stderr
    assert "algorithm 'cosine' is not allowed on this machine" in done.stderr
    assert set(site.glob("imported-*")) == before


@pytest.mark.parametrize("nodes", ["1", "devices"])
@pytest.mark.parametrize("open_to", [("listed",), ("other",), ()])
def test_every_node_is_asked_for_the_task_before_the_first_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: str, open_to: tuple[str, ...]
) -> None:
    for name in ("POLL", "LOOK", "RETRY"):
        monkeypatch.setattr(remote, f"{name}_SECONDS", 0.01)
    write_own(tmp_path)
    installed(
        tmp_path / "site", "ours", {"algorithm": {"cosine": "cosine:CosineReptile"}, "task": {"listed": "sensors:Sensors"}}
    )
    for folder in (tmp_path, tmp_path / "site"):
        monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {**RUN, "shots": (5,), "task": "listed", "algorithm": "cosine", "nodes": nodes}
    run_config = to_run_config(options)
    with opened([Part(native=2)]) as first, opened([Part(native=2)], 2) as second:
        lists = (Allowed(frozenset(), (), frozenset(["listed"])), Allowed(frozenset(), (), frozenset(open_to)))
        gateways = [
            Gateway(name, site, allowed, tell=lambda _: None)
            for name, site, allowed in zip("ab", (first, second), lists, strict=True)
        ]
        answering = {
            node: lambda message, gateway=gateway: gateway(message.metadata.message_type, message.content, run_config)
            for node, gateway in zip((9, 4), gateways, strict=True)
        }
        over = partial(over_nodes, FlakyGrid(answering))
        if open_to == ("listed",):
            there = tinyfl.simulate(over=over, out="there", **options)
            assert there.theta.tobytes() == tinyfl.simulate(out="here", **options).theta.tobytes()
            return
        with pytest.raises(ConfigError, match="node 4 refuses the run: b: task 'listed' is not allowed on this machine"):
            tinyfl.simulate(over=over, out="there", **options)
    assert not Path("there/checkpoint").exists()
