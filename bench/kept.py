"""Layers that devices keep from round to round: a million simulated devices with 100 bytes each.

    python bench/kept.py             about five minutes, and 250 MB of disk

Sine, 1-24-24-1 tanh, whose head has 25 weights: 100 bytes. 200 rounds with cohorts of 10,000, so a device takes part twice on
average. Reported: seconds with and without keeping in pairs, the share of checkpoints, peak memory, the file's size on disk;
and whether a run that was killed in the middle resumes to the same theta.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common import peak_mib, provenance

import tinyfl
from tinyfl.algorithms import ALL, Inner, Layer, Phase, State, Updates
from tinyfl.runs import directory

DEVICES, COHORT, ROUNDS, PAIRS = 1_000_000, 10_000, 200, 3


@dataclass(frozen=True)
class Head:
    """A local head; ``kept``: each device's own."""

    kept: bool

    def inner(self, round: int, layers: Sequence[Layer]) -> Inner:
        head = layers[-1].bit
        body = Phase(24, 0.01, layers=ALL & ~head)
        return Inner(Phase(8, 0.01, layers=head), body, local=head, kept=self.kept)

    def outer(self, state: State, updates: Updates) -> State:
        return state.step(updates.mean() - state.theta)


def run(out: Path, kept: bool, rounds: int = ROUNDS) -> dict[str, float | str]:
    """Seconds of the rounds, seconds of their checkpoints, peak memory in MB, and theta's hash."""
    spent, save = [0.0], directory.RunDirectory.save_checkpoint

    def timed(self: directory.RunDirectory, checkpoint: directory.Checkpoint) -> None:
        began = time.perf_counter()
        save(self, checkpoint)
        spent[0] += time.perf_counter() - began

    directory.RunDirectory.save_checkpoint = timed  # type: ignore[method-assign]
    new = {"task": "sine", "network": "mlp-24-24-tanh", "devices": DEVICES, "cohort": COHORT, "rounds": rounds, "tasks": 20}
    how = {"resume": out} if out.exists() else {"out": out, **new}
    result = tinyfl.simulate(algorithm=Head(kept), **how).result  # type: ignore[arg-type]
    peak = peak_mib()
    return {"seconds": result["seconds"], "checkpoints": spent[0], "peak_mb": peak, "theta": result["theta_sha256"]}


def in_a_process(out: Path, kept: bool) -> dict[str, float | str]:
    command = [sys.executable, __file__, "--one", str(out), *(["--kept"] if kept else [])]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(made.stdout.splitlines()[-1]))


def killed(out: Path) -> float:
    """Kills a run half way, at an arbitrary moment; its share of the rounds that the checkpoint had."""
    process = subprocess.Popen([sys.executable, __file__, "--one", str(out), "--kept"], stdout=subprocess.DEVNULL)
    checkpoint = None
    while checkpoint is None or checkpoint.state.round < ROUNDS // 2:
        time.sleep(0.2)
        checkpoint = directory.RunDirectory(out).checkpoint() if (out / "config.toml").is_file() else None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return checkpoint.state.round / ROUNDS


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="kept-") as name:
        folder = Path(name)
        rows = []
        for pair in range(PAIRS):
            rows.append([in_a_process(folder / f"{kept}-{pair}", kept) for kept in (False, True)])
        file = folder / "True-0" / "checkpoint" / "kept-0"
        on_disk = 512 * file.stat().st_blocks / 1e6
        share = killed(folder / "killed")
        again = in_a_process(folder / "killed", True)
    print(provenance())
    plain, kept = zip(*rows, strict=True)
    for what, made in (("nothing kept", plain), ("100 bytes kept", kept)):
        seconds, saved, peak = (
            statistics.median(float(row[key]) for row in made) for key in ("seconds", "checkpoints", "peak_mb")
        )
        print(f"| {what} | {seconds:.1f} s | {saved / seconds:.1%} | {peak:,.0f} MB |")
    ratio = statistics.median(float(b["seconds"]) / float(a["seconds"]) for a, b in rows)
    print(f"ratio of seconds, median of {PAIRS} pairs: {ratio:.2f}; file: {on_disk:,.0f} MB on disk")
    print(f"killed at {share:.0%} and resumed: {'the same theta' if again['theta'] == kept[0]['theta'] else 'ANOTHER THETA'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one")
    parser.add_argument("--kept", action="store_true")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(run(Path(arguments.one), arguments.kept)), flush=True)
        os._exit(0)
    main()
