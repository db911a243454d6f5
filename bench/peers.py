"""This project beside others, in one run on one machine: speed, first round, memory, and the difference of theta.

    python bench/peers.py --data omniglot28.npz     about half an hour; the first time it also installs 2 GB

Two jobs: J1, sine, 1-32-32-1 tanh, 32 samples; J2, Omniglot, two convolutions of 3 x 3 at a stride of 2 with 8 and 16 channels,
relu, and a dense layer of 5, 25 samples; both at batch 1 and rate 0.02, with TinyReptile's outer step over the cohort's mean.
Without --data J2 learns from random images of the same size. Every peer starts from the same theta and the same samples, made
beforehand by tinyfl's core. Each is a process of its own (bench/peers/), in an environment of its own under --environments.

CPU-seconds are user and system time of the process with all its children, from /proc: this script needs Linux.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from common import provenance

from tinyfl.core import Engine
from tinyfl.system import cache

JOBS, COHORTS = ("J1", "J2"), (10, 100, 1_000, 10_000)
TURNS, SECONDS = 5, 0.7
"""Turns of each peer, in alternation, and their length."""

LIMIT, BUDGET = 20.0, 30.0
"""Seconds of a round above which a peer is left out, and of all turns of a peer after which it has had enough of them."""

ENVIRONMENTS = {
    "flower": ("torch==2.13.0", "flwr[simulation]==1.41.0"),
    "pfl": ("torch==2.13.0", "pfl[pytorch]==0.6.0"),
    "jax": ("jax==0.10.2",),
}
"""What the environments hold. Of torch, later versions bring gigabytes of CUDA."""


@dataclass(frozen=True)
class Peer:
    """A peer as the table names it; of peers of one name, the table has the fastest."""

    name: str
    program: str
    variant: str
    environment: str = ""


US = Peer("tinyfl, simulate", "with_tinyfl", "simulate")
CALL = Peer("tinyfl, cohort call", "with_tinyfl", "call")
PROCESSORS = Engine().resolved()[1]
PEERS = (
    CALL,
    US,
    Peer("Flower on Ray, PyTorch", "with_flower", "ray", "flower"),
    Peer("pfl, PyTorch", "with_pfl", "simulated", "pfl"),
    *(Peer("JAX, one thread", "with_jax", each, "jax") for each in ("1-0-1", "1-100-4", "1-20-4")),
    *(Peer("JAX, all processors", "with_jax", f"{PROCESSORS}-{each}", "jax") for each in ("100-4", "20-4")),
    Peer("C loop, scalar", "with_c", "scalar"),
    Peer("C loop, compiler's vectors", "with_c", "vectors"),
)


@dataclass(frozen=True)
class Figures:
    """What was measured of a peer in a job with a cohort: device-rounds per CPU-second and per second, seconds from the start
    of the process to the end of its first round, peak memory in bytes, and the maximum difference of theta to tinyfl's."""

    peer: Peer
    job: str
    cohort: int
    per_cpu: float
    per_second: float
    first: float
    memory: int
    theta: float


def tree(root: int) -> list[int]:
    """The process ``root`` and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for each in found:
        found += children.get(each, [])
    return found


def _stat(process: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty once the process is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def cpu_seconds(root: int) -> float:
    """User and system time of the tree, with that of its members that have ended."""
    ticks = sum(int(ticks) for process in tree(root) for ticks in _stat(process)[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_memory(root: int) -> int:
    """The sum of the peak resident sets of the tree's processes, in bytes; shared pages count in each."""
    total = 0
    for process in tree(root):
        try:
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return total


class Failed(Exception):
    """A peer ended; the last thing it said."""


@dataclass
class Running:
    """A peer's process, which waits between its turns."""

    peer: Peer
    folder: Path
    python: Path
    first: float = 0.0
    spent: float = 0.0
    wanted: int = 1
    memory: int = 0
    turns: list[tuple[int, float, float]] = field(default_factory=list)
    """Rounds, seconds and CPU-seconds of each turn that counts."""

    @property
    def log(self) -> Path:
        return self.folder / f"{self.peer.program}-{self.peer.variant}.log"

    def start(self) -> None:
        """Starts the process, and takes the time of its first round. The second turn does not count: what is left of starting
        falls there. The third tells how many rounds are a turn."""
        program = Path(__file__).with_name("peers") / f"{self.peer.program}.py"
        start = time.perf_counter()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [self.python, program, self.folder, self.peer.variant],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self._answer()
        self.first = time.perf_counter() - start
        self.turn(1)
        rounds, seconds, cpu = self.turn(1)
        self.wanted = max(1, int(rounds * SECONDS / seconds))
        if seconds > SECONDS:
            self.turns.append((rounds, seconds, cpu))

    def turn(self, rounds: int) -> tuple[int, float, float]:
        """Rounds done, at least ``rounds``, seconds, and CPU-seconds.

        Raises Failed if the process has ended.
        """
        before, start = cpu_seconds(self.process.pid), time.perf_counter()
        self._pipe(self.process.stdin).write(f"{rounds}\n")
        self._pipe(self.process.stdin).flush()
        done = self._answer()
        seconds = time.perf_counter() - start
        self.spent += seconds
        self.memory = max(self.memory, peak_memory(self.process.pid))
        return done, seconds, cpu_seconds(self.process.pid) - before

    def _answer(self) -> int:
        line = self._pipe(self.process.stdout).readline()
        if not line:
            said = self.log.read_text(errors="replace").strip().splitlines()
            raise Failed(said[-1] if said else "it ended without a word")
        return int(line)

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe

    def stop(self) -> None:
        processes = tree(self.process.pid)
        try:
            self.process.communicate("\n", timeout=60)
        except subprocess.TimeoutExpired:
            for each in processes:
                subprocess.run(["kill", "-9", str(each)], check=False, capture_output=True)
            self.process.wait()

    def figures(self, job: str, cohort: int) -> Figures:
        ours, theirs = (np.load(self.folder / f"{each.program}-{each.variant}.npy") for each in (CALL, self.peer))
        return Figures(
            self.peer, job, cohort,
            per_cpu=statistics.median(cohort * rounds / cpu for rounds, _, cpu in self.turns),
            per_second=statistics.median(cohort * rounds / seconds for rounds, seconds, _ in self.turns),
            first=self.first, memory=self.memory, theta=float(np.abs(ours - theirs).max()),
        )  # fmt: skip


def python_of(name: str, folder: Path) -> Path:
    """The Python of the environment ``name``, which is made if it is not there.

    Raises Failed if it cannot be.
    """
    if not name:
        return Path(sys.executable)
    place, wanted = folder / name, "\n".join(ENVIRONMENTS[name])
    python, made = place / "bin" / "python", place / "holds"
    if not made.exists() or made.read_text() != wanted:
        print(f"installing {name}: {' '.join(ENVIRONMENTS[name])}", file=sys.stderr)
        commands: list[list[str | Path]] = [
            [sys.executable, "-m", "venv", "--clear", place],
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *ENVIRONMENTS[name]],
        ]
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise Failed(f"cannot be installed: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}")
        made.write_text(wanted)
    return python


def measured(job: str, cohort: int, folder: Path, peers: dict[Peer, Path], note: Callable[[Peer, str], None]) -> list[Figures]:
    """The figures of the peers, with the Python of each: all start, one after the other, and then take turns."""
    running: list[Running] = []

    def attempt(each: Running, work: Callable[[], object]) -> None:
        try:
            work()
        except (Failed, BrokenPipeError) as error:
            note(each.peer, f"failed at {job}, {cohort:,}: {error}")
            running.remove(each)
            each.stop()

    for peer, python in peers.items():
        running.append(Running(peer, folder, python))
        attempt(running[-1], running[-1].start)
    for _ in range(TURNS):
        for each in list(running):
            if each.spent < BUDGET or not each.turns:
                attempt(each, lambda each=each: each.turns.append(each.turn(each.wanted)))  # type: ignore[misc]
    for each in running:
        each.stop()
    return [each.figures(job, cohort) for each in running]


def images(path: Path) -> Path:
    """Random images in the format of omniglot28.npz and of its size: 50 alphabets, 1,623 characters, 20 images of each."""
    random = np.random.default_rng(0)
    characters = np.repeat(np.arange(1623), 20)
    alphabet = np.minimum(characters // 32, 49)
    bits = np.packbits(random.random((len(characters), 784)) < 0.1, axis=1)
    np.savez(path, bits=bits, cls=characters, alphabet=alphabet, alphabet_split=(np.arange(50) >= 30).astype(np.int64))
    return path


def best(figures: list[Figures]) -> list[Figures]:
    """Of each name, job and cohort the fastest, by CPU-second."""
    found: dict[tuple[str, str, int], Figures] = {}
    for each in sorted(figures, key=lambda each: each.per_cpu):
        found[each.peer.name, each.job, each.cohort] = each
    return [found[key] for key in dict.fromkeys((each.peer.name, each.job, each.cohort) for each in figures)]


def show(figures: list[Figures]) -> None:
    """The tables: a row for each name, and the variants of those that have some."""
    ours = {(each.job, each.cohort): each.per_cpu for each in figures if each.peer == US}
    heads = ("job", "cohort", "", "device-rounds per CPU-second", "per second", "first round, s", "memory, MB")
    print(f"| {' | '.join(heads)} | theta differs by | simulate per CPU-second: times as fast |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for each in best(figures):
        times = ours.get((each.job, each.cohort), float("nan")) / each.per_cpu
        cells = (f"{each.per_cpu:,.0f}", f"{each.per_second:,.0f}", f"{each.first:.1f}", f"{each.memory / 1e6:,.0f}")
        ratio = f"{times:,.0f}" if times >= 100 else f"{times:.1f}"
        print(f"| {each.job} | {each.cohort:,} | {each.peer.name} | {' | '.join(cells)} | {each.theta:.1e} | {ratio} |")
    variants = sorted({each.peer.variant for each in figures if each.peer.environment == "jax"})
    if not variants:
        return
    print(f"\n| JAX, per CPU-second | {' | '.join(variants)} |\n| --- |{' ---: |' * len(variants)}")
    for job, cohort in dict.fromkeys((each.job, each.cohort) for each in figures):
        row = {each.peer.variant: each.per_cpu for each in figures if (each.job, each.cohort) == (job, cohort)}
        print(f"| {job}, {cohort:,} | {' | '.join(f'{row[each]:,.0f}' if each in row else '' for each in variants)} |")


def plot(figures: list[Figures], path: Path) -> None:
    """Device-rounds per CPU-second over the cohort, a panel for each job."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    figure, panels = pyplot.subplots(1, len(JOBS), figsize=(9, 4), layout="constrained")
    names = list(dict.fromkeys(peer.name for peer in PEERS))
    for job, panel in zip(JOBS, panels, strict=True):
        for number, name in enumerate(names):
            line = [each for each in best(figures) if (each.job, each.peer.name) == (job, name)]
            panel.plot(
                [each.cohort for each in line], [each.per_cpu for each in line],
                color=f"C{number}", marker="osD^v<>P"[number], markersize=5, label=name,
                linewidth=2.5 if name.startswith("tinyfl") else 1.2, linestyle="-" if name.startswith("tinyfl") else "--",
            )  # fmt: skip
        panel.set(xscale="log", yscale="log", xlabel="devices in a round", title={"J1": "J1: sine", "J2": "J2: Omniglot"}[job])
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("device-rounds per CPU-second")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
    Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="omniglot28.npz; without it, random images")
    parser.add_argument("--environments", type=Path, help="folder of the peers' environments (default: in tinyfl's cache)")
    parser.add_argument("--cohorts", type=int, nargs="+", default=COHORTS)
    chosen = parser.parse_args()
    environments = (chosen.environments or cache.folder("peers")).resolve()
    notes: dict[str, None] = {}

    def note(peer: Peer, text: str) -> None:
        notes[f"- {peer.name} ({peer.variant}): {text}"] = None

    pythons: dict[Peer, Path] = {}
    for peer in PEERS:
        try:
            pythons[peer] = python_of(peer.environment, environments)
        except Failed as error:
            note(peer, str(error))
    figures: list[Figures] = []
    with tempfile.TemporaryDirectory() as place:
        data = chosen.data.resolve() if chosen.data else images(Path(place) / "omniglot28.npz")
        for job in JOBS:
            peers = dict(pythons)
            for cohort in chosen.cohorts:
                print(f"{job}, {cohort:,}: {', '.join(peer.variant for peer in peers)}", file=sys.stderr, flush=True)
                folder = Path(place) / f"{job}-{cohort}"
                writer = Path(__file__).with_name("peers") / "with_tinyfl.py"
                subprocess.run([sys.executable, writer, folder, "samples", job, str(cohort), data], check=True)
                found = measured(job, cohort, folder, peers, note)
                figures += found
                shutil.rmtree(folder)
                larger = [each for each in chosen.cohorts if each > cohort]
                for each in found:
                    expected = larger[0] / each.per_second if larger else 0.0
                    if expected > LIMIT:
                        del peers[each.peer]
                        note(each.peer, f"left out of {job} from {larger[0]:,} on: a round would take about {expected:.0f} s")
    source = "Omniglot" if chosen.data else "random images instead of Omniglot"
    print(f"{PROCESSORS} processors, {source}, medians of up to {TURNS} turns; {provenance()}\n")
    show(figures)
    print("".join(["\n", *(f"{each}\n" for each in notes)]))
    plot(figures, Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main()
