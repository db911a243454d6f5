"""Sites with data of their own over a real SuperLink, by the commands of a terminal."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from site_gateways import parts, whole
from test_deployment import text_of, until

import tinyfl
from tinyfl.system.addresses import free_port
from tinyfl.system.child import Child

RUN = {"task": "npz", "network": "mlp-8", "rounds": 3, "cohort": 4, "tasks": 40, "shots": (5,), "seed": 3}

pytestmark = pytest.mark.slow


@contextmanager
def recorded(port: int) -> Iterator[tuple[int, list[bytes]]]:
    """A port that leads to ``port`` of this machine, and what goes through it, in both directions."""
    wire: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def pump(source: socket.socket, sink: socket.socket) -> None:
            with suppress(OSError):
                while data := source.recv(1 << 16):
                    wire.append(data)
                    sink.sendall(data)
            for end in (source, sink):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    near = server.accept()[0]
                    far = socket.create_connection(("127.0.0.1", port))
                    for ends in ((near, far), (far, near)):
                        threading.Thread(target=pump, args=ends, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1], wire


def started(stack: ExitStack, name: str, *words: str) -> None:
    with Path(f"{name}.log").open("wb") as log:
        stack.enter_context(Child([shutil.which("tinyfl") or "tinyfl", *words], stdout=log, stderr=log))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "0")
    monkeypatch.setenv("FLWR_DISABLE_UPDATE_CHECK", "1")
    monkeypatch.setenv("FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "0.5")  # polls take more of the processor than the work
    (tmp_path / "home").mkdir()
    return tmp_path


@contextmanager
def federation(files: dict[str, Path]) -> Iterator[list[bytes]]:
    """A SuperLink, and a gateway with its own file for each site; gives what goes between them."""
    port, local = free_port(), free_port()
    Path("home/config.toml").write_text(f'[superlink.lab]\naddress = "127.0.0.1:{local}"\ninsecure = true\n')
    with ExitStack() as stack:
        started(stack, "superlink", "superlink", "--insecure", "--port", str(port), "--local-port", str(local))
        until(lambda: "Application startup complete" in text_of(Path("superlink.log")))
        public, wire = stack.enter_context(recorded(port))
        for name, file in files.items():
            at = f"127.0.0.1:{public}"
            started(stack, name, "gateway", "--insecure", "--superlink", at, "--data", str(file), "--name", name)
        yield wire


def submitted(sites: int) -> subprocess.CompletedProcess[str]:
    words = "run --task npz --network mlp-8 --rounds 3 --cohort 4 --tasks 40 --shots 5 --seed 3"
    command = ["tinyfl", *words.split(), "--out", "runs/lab", "--federation", "lab", "--json", "--nodes", str(sites)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_sites_over_a_real_superlink_end_with_the_theta_of_one_file(place: Path) -> None:
    sites = 3  # other numbers of them, in one process: test_sites.py
    arrays = whole(devices=16)
    np.savez("all.npz", **arrays)  # type: ignore[arg-type]
    files = parts(arrays, place, sites, turned=True)
    with federation(files) as wire:
        done = submitted(sites)
    assert done.returncode == 0, done.stderr
    here = tinyfl.simulate(data="all.npz", out="here", **RUN)
    there = json.loads(done.stdout)
    assert there["theta_sha256"] == here.result["theta_sha256"]
    assert [row["adapt_lr"] for row in there["evaluation"]] == [row["adapt_lr"] for row in here.evaluation]
    assert [row["loss"] for row in there["evaluation"]] == pytest.approx([row["loss"] for row in here.evaluation], rel=1e-12)
    assert "The samples are at their sites" in Path("runs/lab/report.html").read_text()
    sent = b"".join(wire)
    assert b"d00" in sent, "the names of devices are read here, and so would samples be"
    held = np.load("here/initialisation.npz")
    scaled = ((arrays["x"] - held["mean"]) / held["scale"]).astype(np.float32)
    for row in (*arrays["x"], *scaled):
        assert row[:2].astype("<f8").tobytes() not in sent
        assert row[:2].astype("<f4").tobytes() not in sent


def test_a_site_of_another_unit_ends_the_run_with_its_name(place: Path) -> None:
    files = parts(whole(), place, 2)
    arrays = dict(np.load(files["lab-1"]))
    np.savez(files["lab-1"], **{**arrays, "x": arrays["x"] * [1, 1, 1000, 1]})
    with federation(files):
        done = submitted(2)
    assert (done.returncode, "lab-1 seems to have x, input north, in another unit" in done.stderr) == (3, True), done.stderr
    assert not Path("runs/lab/rounds.jsonl").exists()
