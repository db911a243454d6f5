"""SIGINT and SIGTERM at random moments of six commands: time to the end, leftovers, and the result after a resume.

    python bench/endings.py                     34 moments of each
    python bench/endings.py run push --each 10  of some

A moment is drawn between a command's start and its usual end. All processes of a command have a mark in their environment and
their own temporary folder, so that no leftover is overlooked. A stopped run is resumed, or started again if it had not begun,
and must end with the theta of an undisturbed run. It needs no network.
"""

import argparse
import fcntl
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from common import provenance

from tinyfl.flower.allowed import VARIABLE
from tinyfl.system.addresses import free_port
from tinyfl.system.child import Child

BIN = Path(sys.executable).parent
INSTALLS_NOTHING = "--disable-runtime-dependency-installation"

TIMEOUT = 60.0
"""Timeout for a command's end, in seconds."""

SETTLED = 10.0
"""Seconds after a command's end after which remaining processes count as leftovers."""

NEAR = ["--task", "sine", "--network", "mlp-8", "--tasks", "50", "--seed", "5"]
BOARDS = [*NEAR, "--devices", "3", "--cohort", "3", "--rounds", "40"]
MANY = [*NEAR, "--devices", "1000", "--cohort", "200", "--rounds", "1500"]


@dataclass
class Seen:
    """The results of a command's trials: seconds from each signal to the end, exit codes, number of signals before the
    command's first line, number of tracebacks, leftovers, and final thetas."""

    seconds: list[float] = field(default_factory=list)
    codes: Counter[int] = field(default_factory=Counter)
    early: int = 0
    tracebacks: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    same: int = 0
    other: list[str] = field(default_factory=list)


class Bench:
    """The bench's ``folder``, with a SuperLink, a gateway and three boards on ports that keep running."""

    def __init__(self, folder: Path, up: ExitStack, draw: random.Random) -> None:
        self.folder, self.up, self.draw, self.trial = folder, up, draw, 0
        os.environ |= {"FLWR_HOME": str(folder / "home"), "PATH": f"{BIN}:{os.environ['PATH']}", "FLWR_TELEMETRY_ENABLED": "0"}
        os.environ |= {"FLWR_DISABLE_UPDATE_CHECK": "1", VARIABLE: str(folder / "allowed.toml")}
        (folder / "allowed.toml").write_text('folders = ["."]\n')
        (folder / "home").mkdir()
        self.superlink = f"127.0.0.1:{free_port()}"
        (folder / "home" / "config.toml").write_text(f'[superlink.lab]\naddress = "{self.superlink}"\ninsecure = true\n')
        (folder / "fleet.toml").write_text('[[fleet]]\nboard = "mps2-an386"\ncount = 3\n')

    def federation(self) -> None:
        port = self.superlink.rpartition(":")[2]
        self.stays("superlink", "flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", port, INSTALLS_NOTHING)
        self.stays("gateway", *self.gateway())

    def gateway(self) -> list[str]:
        return ["tinyfl", "gateway", "--superlink", self.superlink, "--insecure", "--fleet", "fleet.toml"]

    def ports(self) -> list[str]:
        """Starts three boards that keep running."""
        self.stays("boards", "tinyfl", "emulate", "--board", "mps2-an386", "--count", "3", "--link", "tcp", "--json")
        while not (text := self.output("boards")).startswith("{"):
            time.sleep(0.2)
        return [word for board in json.loads(text)["boards"] for word in ("--port", board["url"])]

    def stays(self, name: str, *words: str) -> None:
        """Starts a command that is stopped at the end of the bench."""
        log = (self.folder / f"{name}.log").open("wb")
        os.chdir(self.folder)
        self.up.enter_context(Child([str(BIN / words[0]), *words[1:]], stdout=log, stderr=log))

    def output(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def undisturbed(self, *words: str) -> str:
        """Output of a command without a signal."""
        done = subprocess.run([str(BIN / words[0]), *words[1:]], cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{words}: {done.returncode}\n{done.stderr[-2000:]}")
        return done.stdout

    def stopped(self, seen: Seen, number: signal.Signals, after: float, words: list[str]) -> bool:
        """Sends the signal ``number`` to a command after ``after`` seconds; returns whether it was still running."""
        self.trial += 1
        scratch = self.folder / f"scratch-{self.trial}"
        scratch.mkdir()
        mark = f"TINYFL_ENDING={os.getpid()}-{self.trial}"
        environment = os.environ | {"TMPDIR": str(scratch), **dict([mark.split("=")])}
        with (self.folder / "said").open("w+") as output:
            process = subprocess.Popen(
                [str(BIN / words[0]), *words[1:]], cwd=self.folder, env=environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
            try:
                process.wait(after)
                return False
            except subprocess.TimeoutExpired:
                process.send_signal(number)
            began = time.monotonic()
            with suppress(subprocess.TimeoutExpired):
                process.wait(TIMEOUT)
            seen.seconds.append(time.monotonic() - began)
            process.kill()
            output.seek(0)
            text = output.read()
        code = process.wait()
        seen.codes[code] += 1
        if code < 0 and not text.startswith("tinyfl:"):
            seen.early += 1  # Python was still starting, and has its own way to end
        elif "Traceback" in text:
            seen.tracebacks.append(text[-1500:])
        deadline = time.monotonic() + SETTLED
        while marked(mark) and time.monotonic() < deadline:
            time.sleep(0.2)
        seen.left += [f"process: {line}" for line in marked(mark)] + [f"file: {path.name}" for path in scratch.iterdir()]
        return True


def marked(mark: str) -> list[str]:
    """Command lines of the processes with this word in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdecimal() and mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120])
    return found


def locked(folder: Path) -> bool:
    with suppress(FileNotFoundError), (folder / "lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


Trial = Callable[[Bench, Seen, signal.Signals], None]


def of_a_run(bench: Bench, options: list[str], *, local: list[str] | None = None) -> Trial:
    """Trials of ``tinyfl run`` with these options, resumed with the options ``local``, if given: another fleet, the same
    theta."""
    again = ["tinyfl", "run", *(local or options), "--json", "--out"]
    theta = json.loads(bench.undisturbed(*again, "whole-" + str(len(options))))["theta_sha256"]
    usual = timed(bench, ["tinyfl", "run", *options, "--out", "usual-" + str(len(options))])

    def trial(bench: Bench, seen: Seen, number: signal.Signals) -> None:
        out = bench.folder / f"run-{bench.trial}"
        words = ["tinyfl", "run", *options, "--out", out.name]
        if not bench.stopped(seen, number, bench.draw.uniform(0, usual), words):
            return
        deadline = time.monotonic() + TIMEOUT
        while local and locked(out) and time.monotonic() < deadline:
            time.sleep(0.5)  # the coordinator is the SuperLink's child process
        seen.left += ["lock"] * locked(out)
        begun = (out / "config.toml").is_file()
        result = bench.undisturbed(*(["tinyfl", "run", "--resume", out.name, "--json"] if begun else [*again, out.name]))
        same = json.loads(result)["theta_sha256"] == theta
        seen.same += same
        seen.other += [] if same else [out.name]

    return trial


def timed(bench: Bench, words: list[str]) -> float:
    began = time.monotonic()
    bench.undisturbed(*words)
    return time.monotonic() - began


def of_a_push(bench: Bench) -> Trial:
    """Alternates between two models, so that there is always something to write; the same command then completes the work."""
    ports = bench.ports()
    for seed in "12":
        far = ["--seed", seed, "--network", "mlp-16-16", "--devices", "9", "--cohort", "9", "--rounds", "2", "--tasks", "2"]
        bench.undisturbed("tinyfl", "simulate", "--task", "sine", *far, "--out", f"model-{seed}")
    usual = min(timed(bench, ["tinyfl", "push", f"model-{seed}", *ports]) for seed in "12")

    def trial(bench: Bench, seen: Seen, number: signal.Signals) -> None:
        words = ["tinyfl", "push", f"model-{1 + bench.trial % 2}", *ports]
        if bench.stopped(seen, number, bench.draw.uniform(0, usual), words):
            bench.undisturbed(*words)
            seen.same += 1

    return trial


def of_a_service(bench: Bench, words: list[str], up: str, after: float) -> Trial:
    """Trials of a command that does not end by itself, with the signal up to ``after`` seconds after its line ``up``."""
    began = time.monotonic()
    with (bench.folder / "one.log").open("wb") as log:
        one = subprocess.Popen([str(BIN / words[0]), *words[1:]], cwd=bench.folder, stdout=log, stderr=log)
    while up not in bench.output("one"):
        time.sleep(0.1)
    longest = time.monotonic() - began + after
    one.terminate()
    one.wait(TIMEOUT)

    def trial(bench: Bench, seen: Seen, number: signal.Signals) -> None:
        bench.stopped(seen, number, bench.draw.uniform(0, longest), words)

    return trial


def trials(bench: Bench, verb: str) -> Trial:
    if verb == "run":
        return of_a_run(bench, [*BOARDS, "--board", "mps2-an386"])
    if verb == "simulate":
        return of_a_run(bench, MANY)
    if verb == "push":
        return of_a_push(bench)
    if verb == "emulate":
        return of_a_service(
            bench, ["tinyfl", "emulate", "--board", "mps2-an386", "--count", "8", "--link", "tcp"], "socket://", 2
        )
    bench.federation()
    if verb == "gateway":
        return of_a_service(bench, bench.gateway(), "boards up", 10)
    far = [*NEAR, "--devices", "3", "--cohort", "3", "--rounds", "3", "--nodes", "1"]
    return of_a_run(bench, [*far, "--federation", "lab"], local=far)


VERBS = ("run", "simulate", "push", "emulate", "gateway", "superlink")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("verbs", nargs="*", choices=[*VERBS, []], default=[])
    parser.add_argument("--each", type=int, default=34)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell, and their children, would ignore it
    print("| command | signals | largest, median s | exit codes | before its first line | left behind | then went on |")
    print("| --- | ---: | --- | --- | ---: | --- | ---: |")
    seen: dict[str, Seen] = {}
    for verb in arguments.verbs or VERBS:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as up:
            bench, seen[verb] = Bench(Path(folder), up, random.Random(f"{arguments.seed} {verb}")), Seen()
            trial = trials(bench, verb)
            while len(seen[verb].seconds) < arguments.each:
                trial(bench, seen[verb], (signal.SIGINT, signal.SIGTERM)[len(seen[verb].seconds) % 2])
        show(verb, seen[verb])
    for each in seen.values():
        for text in [*each.tracebacks, *each.left, *each.other]:
            print(text)
    print(f"seed {arguments.seed}; {provenance()}")


def show(verb: str, seen: Seen) -> None:
    codes = ", ".join(f"{count} x {code}" for code, count in sorted(seen.codes.items()))
    times = f"{max(seen.seconds):.2f}, {statistics.median(seen.seconds):.2f}"
    left = f"{len(seen.left)}, {len(seen.tracebacks)} tracebacks" if seen.left or seen.tracebacks else "nothing"
    went_on = f"{seen.same} of {seen.same + len(seen.other)}" if seen.same or seen.other else ""
    print(f"| {verb} | {len(seen.seconds)} | {times} | {codes} | {seen.early} | {left} | {went_on} |", flush=True)


if __name__ == "__main__":
    main()
