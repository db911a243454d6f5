"""A federation on this machine: one SuperLink, three gateways with 8 emulated boards each, TLS and node authentication.

    python bench/federation.py            the rounds, and where their seconds go
    python bench/federation.py kills      kill -9 of each part in turn, and the run's end after it; or of the named parts:
                                          "suspended" stops a gateway and its children for a minute once the coordinator is dead

theta must equal that of the same run in one process. It needs no network: unshare -rn sh -c 'ip link set lo up; python ...'.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from common import provenance

from tinyfl.building.boards import load
from tinyfl.fleets.emulation import firmware
from tinyfl.system.addresses import free_port
from tinyfl.system.child import Child

RUN = [
    "--task",
    "sine",
    "--network",
    "mlp-32-32-relu",
    "--devices",
    "24",
    "--cohort",
    "24",
    "--rounds",
    "10",
    "--minimum",
    "24",
]
RUN += ["--tasks", "20", "--adapt-lr", "0.01"]
GATEWAYS = ("lab-a", "lab-b", "lab-c")
BIN = Path(sys.executable).parent
PARTS = ("SuperNode", "gateway's board", "gateway", "server app", "SuperLink", "suspended")
SUSPENDED_SECONDS = 65
EMULATED = '[[fleet]]\nboard = "mps2-an386"\ncount = {}\n'


class Site:
    """The federation's processes, by name, in ``folder``."""

    def __init__(self, folder: Path, up: ExitStack) -> None:
        self.folder, self._up, self.running = folder, up, dict[str, Child]()
        self.port, self.local_port, self.board_port = free_port(), free_port(), free_port()
        self.elf = firmware(load("posix"), "zig").elf
        os.environ |= {"FLWR_HOME": str(folder / "home"), "PATH": f"{BIN}:{os.environ['PATH']}", "FLWR_TELEMETRY_ENABLED": "0"}
        os.environ |= {"FLWR_DISABLE_UPDATE_CHECK": "1"}
        (folder / "home").mkdir()
        entry = f'[superlink.lab]\naddress = "127.0.0.1:{self.local_port}"\nroot-certificates = "{folder}/keys/ca.crt"\n'
        (folder / "home" / "config.toml").write_text(entry)
        (folder / "whole.toml").write_text(EMULATED.format(8))
        at = f'[[fleet]]\nports = ["socket://127.0.0.1:{self.board_port}"]\n'
        (folder / "mixed.toml").write_text(EMULATED.format(7) + at)
        say("tinyfl", "keys", "keys", *(word for name in GATEWAYS for word in ("--node", name)), folder=folder)

    def start(self, name: str, *words: str) -> None:
        """Starts a process that ends with this one."""
        log = (self.folder / f"{name}.log").open("ab")
        if (program := BIN / words[0]).exists():
            words = (str(program), *words[1:])
        os.chdir(self.folder)
        self.running[name] = self._up.enter_context(Child(words, stdout=log, stderr=log))

    def superlink(self) -> None:
        ports = ["--port", str(self.port), "--local-port", str(self.local_port)]
        up, before = "Application startup complete", self.log("superlink").count("Application startup complete")
        self.start("superlink", "tinyfl", "superlink", "--keys", "keys", "--host", "127.0.0.1", *ports)
        wait_for(lambda: self.log("superlink").count(up) > before)

    def board(self) -> None:
        self.start("board", str(self.elf), "--tcp", str(self.board_port), "--serial", "24")

    def gateway(self, number: int, fleet: str = "whole.toml") -> None:
        name = GATEWAYS[number]
        self.start(
            name, "tinyfl", "gateway", "--superlink", f"127.0.0.1:{self.port}", "--fleet", fleet,
            "--first-device", str(8 * number), "--root-certificates", "keys/ca.crt", "--key", f"keys/{name}.key",
        )  # fmt: skip

    def all(self) -> None:
        """Starts and registers everything."""
        self.superlink()
        for name in GATEWAYS:
            say("flwr", "supernode", "register", f"keys/{name}.pub", "lab", folder=self.folder)
        self.board()
        for number in range(3):
            self.gateway(number, "mixed.toml" if number == 2 else "whole.toml")

    def run(self, name: str) -> None:
        self.start(name, "tinyfl", "run", *RUN, "--out", f"runs/{name}", "--federation", "lab")

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def rounds(self, name: str) -> list[dict[str, object]]:
        path = self.folder / "runs" / name / "rounds.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def theta(self, name: str) -> str:
        return str(json.loads((self.folder / "runs" / name / "result.json").read_text())["theta_sha256"])


def say(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(BIN / words[0]), *words[1:]], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done


def wait_for(condition: object, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.2)


def pids(text: str) -> list[int]:
    """Processes with ``text`` in their command lines."""
    found = subprocess.run(["pgrep", "-f", text], capture_output=True, text=True, check=False).stdout.split()
    return [int(pid) for pid in found]


@contextmanager
def site() -> Iterator[tuple[Site, str]]:
    """A running federation, and the theta expected at the end of its runs."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as up:
        deployed = Site(Path(folder), up)
        done = say("tinyfl", "run", *RUN, "--out", "here", "--json", folder=deployed.folder)
        deployed.all()
        yield deployed, str(json.loads(done.stdout)["theta_sha256"])


def seconds() -> None:
    with site() as (deployed, theta):
        deployed.run("there")
        deployed.running["there"].process.wait(900)
        rounds = deployed.rounds("there")
        nodes = [node for each in rounds for node in each["nodes"].values()]  # type: ignore[attr-defined]
        full = [float(each["seconds"]) for each in rounds[1:]]  # type: ignore[arg-type]
        result = deployed.theta("there")
        print(f"{len(rounds)} rounds, theta {result[:16]} {'as' if result == theta else 'NOT AS'} here")
        print(f"seconds a round: median {statistics.median(full):.1f}, {min(full):.1f} to {max(full):.1f}")
        print(f"of them until a gateway's answer: median {statistics.median(node['seconds'] for node in nodes):.1f}")
        print(f"of them its boards' work: median {statistics.median(node['work'] for node in nodes):.2f}")


def kills(parts: list[str]) -> None:
    """Kills each part in turn, after round 3 of 10; a stopped run continues with --resume."""
    with site() as (deployed, theta):
        for part in parts or PARTS:
            name = part.replace(" ", "-").replace("'", "")
            deployed.run(name)
            wait_for(lambda name=name: len(deployed.rounds(name)) >= 3)
            began = time.monotonic()
            kill(deployed, part)
            code = deployed.running[name].process.wait(900)
            resumed = ""
            if code:
                again = ["run", "--resume", f"runs/{name}", "--federation", "lab"]
                say("tinyfl", *again, folder=deployed.folder)
                resumed = f", stopped with exit code {code}, then: tinyfl {' '.join(again)}"
            short = sum(not each["counts"] for each in deployed.rounds(name))
            verdict = "as" if deployed.theta(name) == theta else "NOT AS"
            seconds = time.monotonic() - began
            print(
                f"kill -9 of {part}: {len(deployed.rounds(name)) - short} rounds, {short} short, theta {verdict} here, "
                f"{seconds:.0f} s{resumed}",
                flush=True,
            )


def family(pid: int) -> list[int]:
    """A process and its descendants, parents first; for a gateway, the second is its SuperNode."""
    started = subprocess.run(
        ["pgrep", "-P", str(pid), "-f", "flwr|flower|supernode"], capture_output=True, text=True, check=False
    )
    return [pid, *(each for child in started.stdout.split() for each in family(int(child)))]


def suspend(processes: list[int]) -> None:
    """Suspends them for a while, like a closed laptop."""
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if number == signal.SIGSTOP:
            time.sleep(SUSPENDED_SECONDS)


def end(child: Child) -> None:
    """kill -9, then reaps the process at once, like a shell, since Flower considers a zombie alive."""
    child.process.kill()
    child.process.wait()


def kill(deployed: Site, part: str) -> None:
    """kill -9, and the owner's reaction."""
    if part == "SuperNode":
        os.kill(family(deployed.running["lab-b"].process.pid)[1], signal.SIGKILL)
    elif part == "gateway's board":
        end(deployed.running["board"])
        deployed.board()
    elif part == "gateway":
        end(deployed.running["lab-a"])
        deployed.gateway(0)
    elif part in ("server app", "suspended"):
        for pid in pids(f"flwr-serverapp.*127.0.0.1:{deployed.local_port}"):
            os.kill(pid, signal.SIGKILL)
        if part == "suspended":
            suspend(family(deployed.running["lab-b"].process.pid))
    else:
        end(deployed.running["superlink"])
        deployed.superlink()


if __name__ == "__main__":
    kills(sys.argv[2:]) if sys.argv[1:2] == ["kills"] else seconds()
    print(provenance())
