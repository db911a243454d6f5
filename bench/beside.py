"""This commit's speed beside another's, both built on this machine, in one run.

    python bench/beside.py 58d1526 --data omniglot28.npz    about 30 minutes

Each job runs through ``tinyfl.simulate`` in a child process, in turn with each commit; medians of the rounds' seconds, without
start and evaluation, and the median of the pairs' ratios. Both must end with the same theta and the same logs, but for seconds.
Then calls for one cohort on one core, with every width of vectors and in small cohorts; and whole runs on Omniglot, once each.
The other commit is checked out and installed under build/.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import provenance

ROOT = Path(__file__).resolve().parents[1]
PAIRS, CALL_PAIRS = 5, 3

SINE: dict[str, Any] = {"task": "sine", "devices": 100_000, "samples": 32, "tasks": 10, "adapt_lr": 0.02}
OMNIGLOT: dict[str, Any] = {**SINE, "task": "omniglot"}
JOBS: dict[str, dict[str, Any]] = {
    "J1: sine, 1-32-32-1 tanh, cohorts of 1,000": {**SINE, "network": "mlp-32-32-tanh", "cohort": 1000, "rounds": 1000},
    "J2: omniglot, conv 8, 16, dense 5, cohorts of 1,000": {
        **OMNIGLOT, "network": "conv-8-16-relu", "samples": 25, "cohort": 1000, "rounds": 30
    },
    "serial sine, 1-64-64-1 tanh": {**SINE, "network": "mlp-64-64-tanh", "cohort": 1, "rounds": 5000},
    "serial omniglot, conv-omniglot": {**OMNIGLOT, "network": "conv-omniglot", "cohort": 1, "rounds": 400},
    "omniglot, conv-omniglot, cohorts of 8": {**OMNIGLOT, "network": "conv-omniglot", "cohort": 8, "rounds": 50},
}  # fmt: skip

CALLS: dict[str, tuple[dict[str, Any], int, int]] = {
    **{f"{job[:2]}, {lanes} lanes": (JOBS[job], 1000, lanes) for lanes in (16, 8, 4, 1) for job in list(JOBS)[:2]},
    **{f"conv-omniglot, a cohort of {n}": ({**OMNIGLOT, "network": "conv-omniglot"}, n, 0) for n in range(1, 9)},
    **{f"sine, 1-64-64-1 tanh, a cohort of {n}": ({**SINE, "network": "mlp-64-64-tanh"}, n, 0) for n in range(1, 9)},
}
"""Name: options, devices and lanes (0: the processor's) of a call."""

WHOLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the README's Omniglot run: cohorts of 8": ({"cohort": 8, "rounds": 5000}, {"cohort": 8, "rounds": 5000}),
    "one device after another, beside cohorts of 8": (
        {"cohort": 1, "rounds": 40_000, "rate": 0.02, "outer_step": 0.5, "clip": 20.0},
        {"cohort": 8, "rounds": 5000},
    ),
}
"""Runs of two million sample gradients: options here, and of the other commit."""

CHILD = """
import json, sys, time, tinyfl
ended = {}
run = tinyfl.simulate(**json.loads(sys.argv[1]), progress=lambda now: ended.update({now.stage: time.monotonic()}))
result = {name: run.result[name] for name in ("seconds", "sample_gradients", "device_rounds", "theta_sha256")}
print(json.dumps({**result, "evaluation": ended["evaluating"] - ended["learning"], "table": run.result["evaluation"]}))
"""

CALL_CHILD = """
import hashlib, json, sys, time
from pathlib import Path
import numpy as np
from tinyfl.config import resolve
from tinyfl.core import Engine
from tinyfl.networks import network
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks import load_task
options, count, lanes = json.loads(sys.argv[1])
config = resolve({**options, "cohort": 1, "rounds": 1})
task = load_task(config.task, Path(config.data) if config.data else None, 0)
net = network(config.network, task.shape, task.outputs, task.loss, task.activation)
fleet, theta, inner = NativeFleet(task, net, 100_000, Engine(1, lanes)), net.initial_weights(0), config.build().inner(0)
devices, seconds, end = np.arange(count, dtype=np.uint32), [], time.monotonic() + 1.5
while len(seconds) < 3 or time.monotonic() < end:
    start = time.perf_counter()
    updates = fleet.run(devices, 0, theta, inner)
    seconds.append(time.perf_counter() - start)
print(json.dumps([count / sorted(seconds)[len(seconds) // 2], hashlib.sha256(updates.sum.tobytes()).hexdigest()]))
"""


def installed(commit: str) -> Path:
    """The Python of ``commit``'s environment, made if it is not there yet."""
    tree, home = ROOT / "build" / f"beside-{commit}", ROOT / "build" / f"beside-{commit}-venv"
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run(["git", "worktree", "add", "--detach", str(tree), commit], cwd=ROOT, check=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", str(tree)], check=True)
    return python


def logs(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's metrics.jsonl and rounds.jsonl."""
    lines = [line for name in ("metrics.jsonl", "rounds.jsonl") for line in (folder / name).read_text().splitlines()]
    return [json.loads(line) for line in lines]


def alike(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> bool:
    """Whether the records agree in what both have, but for seconds: rounds.jsonl has had losses only since."""
    pairs = zip(mine, theirs, strict=False)
    same = all(a[key] == b[key] for a, b in pairs for key in a.keys() & b.keys() - {"seconds"})
    return same and len(mine) == len(theirs)


def once(python: str | Path, options: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The result of a run in a child process, and its logs."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        return child(python, CHILD, {**options, "out": str(out)}), logs(out)


def child(python: str | Path, program: str, given: Any) -> Any:
    """What ``program`` prints in a child process."""
    with tempfile.TemporaryDirectory() as folder:  # not the clone, which Python would import
        command = [str(python), "-c", program, json.dumps(given)]
        return json.loads(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout)


def compare(job: str, options: dict[str, Any], other: Path) -> None:
    """A row of the table."""
    pairs = [(once(sys.executable, options), once(other, options)) for _ in range(PAIRS)]
    (mine, my_logs), (theirs, their_logs) = pairs[0]
    same = "same" if mine["theta_sha256"] == theirs["theta_sha256"] and alike(my_logs, their_logs) else "DIFFERENT"
    seconds = [(a["seconds"], b["seconds"]) for (a, _), (b, _) in pairs]
    now, before = (statistics.median(side) for side in zip(*seconds, strict=True))
    ratio = statistics.median(b / a for a, b in seconds)
    rounds, gradients = mine["device_rounds"], mine["sample_gradients"]
    print(
        f"| {job} | {rounds / before:,.0f} | {rounds / now:,.0f} | {gradients / now:,.0f} | {ratio:.2f} | {same} |", flush=True
    )


def compare_call(name: str, call: tuple[dict[str, Any], int, int], other: Path) -> None:
    """A row of the table of calls."""
    pairs = [(child(sys.executable, CALL_CHILD, call), child(other, CALL_CHILD, call)) for _ in range(CALL_PAIRS)]
    now, before = (statistics.median(rate for rate, _ in side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for (a, _), (b, _) in pairs)
    same = "same" if len({sums for pair in pairs for _, sums in pair}) == 1 else "DIFFERENT"
    print(f"| {name} | {before:,.0f} | {now:,.0f} | {ratio:.2f} | {same} |", flush=True)


def accuracy(table: list[dict[str, Any]]) -> float:
    """After 10 steps on the whole support set."""
    return next(row["accuracy"] for row in table if (row["mode"], row["steps"]) == ("batch", 10))


def compare_whole(name: str, ours: dict[str, Any], theirs: dict[str, Any], other: Path) -> None:
    """A row of the table of whole runs."""
    common = {**OMNIGLOT, "devices": 10_000, "samples": 50, "shots": [5], "tasks": 300, "network": "conv-omniglot"}
    del common["adapt_lr"]  # the rate search is a part of the evaluation
    (mine, _), (before, _) = once(sys.executable, {**common, **ours}), once(other, {**common, **theirs})
    cells = (f"{run['seconds']:.0f} | {run['evaluation']:.1f} | {accuracy(run['table']):.1%}" for run in (before, mine))
    print(f"| {name} | {' | '.join(cells)} | {mine['seconds'] / before['seconds']:.2f} of the time |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--data", type=Path, required=True, help="omniglot28.npz")
    given = parser.parse_args()
    other = installed(given.commit)
    every = [
        *JOBS.values(),
        *(options for options, _, _ in CALLS.values()),
        *(each for pair in WHOLE.values() for each in pair),
    ]
    for options in every:
        if options.get("task", "omniglot") == "omniglot":
            options["data"] = str(given.data.resolve())
    print(f"| job | device-rounds/s of {given.commit} | here | sample gradients/s here | ratio | theta and logs |")
    print("| --- | ---: | ---: | ---: | ---: | --- |", flush=True)
    for job, options in JOBS.items():
        compare(job, options, other)
    print(f"\nMedians and median ratio of {PAIRS} pairs; {provenance()}")
    print(f"\n| call on one core | device-rounds/s of {given.commit} | here | ratio | sums |")
    print("| --- | ---: | ---: | ---: | --- |", flush=True)
    for name, call in CALLS.items():
        compare_call(name, call, other)
    print(f"\nMedians and median ratio of {CALL_PAIRS} pairs.")
    print(f"\nSeconds of rounds and of evaluation, and accuracy, of {given.commit} and here:\n")
    print("| run | rounds | evaluation | accuracy | rounds | evaluation | accuracy | rounds |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for name, (ours, theirs) in WHOLE.items():
        compare_whole(name, ours, theirs, other)


if __name__ == "__main__":
    main()
