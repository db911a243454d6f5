"""This commit's speed beside another's, both built on this machine, in one run.

    python bench/beside.py 58d1526 --data omniglot28.npz    about 20 minutes

Each job runs through ``tinyfl.simulate`` in a child process, in turn with each commit; medians of the rounds' seconds, without
start and evaluation, and the median of the pairs' ratios. Both must end with the same theta and the same logs, but for seconds.
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
PAIRS = 5

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

CHILD = """
import json, sys, tinyfl
run = tinyfl.simulate(**json.loads(sys.argv[1]))
print(json.dumps({name: run.result[name] for name in ("seconds", "sample_gradients", "device_rounds", "theta_sha256")}))
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


def logs(folder: Path) -> str:
    """A run's metrics.jsonl and rounds.jsonl without seconds."""
    lines = [line for name in ("metrics.jsonl", "rounds.jsonl") for line in (folder / name).read_text().splitlines()]
    return "\n".join(json.dumps({key: value for key, value in json.loads(line).items() if key != "seconds"}) for line in lines)


def once(python: str | Path, options: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The result of a run in a child process, and its logs."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        done = subprocess.run(
            [str(python), "-c", CHILD, json.dumps({**options, "out": str(out)})],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return json.loads(done.stdout), logs(out)


def compare(job: str, options: dict[str, Any], other: Path) -> None:
    """A row of the table."""
    pairs = [(once(sys.executable, options), once(other, options)) for _ in range(PAIRS)]
    (mine, my_logs), (theirs, their_logs) = pairs[0]
    same = "same" if (mine["theta_sha256"], my_logs) == (theirs["theta_sha256"], their_logs) else "DIFFERENT"
    seconds = [(a["seconds"], b["seconds"]) for (a, _), (b, _) in pairs]
    now, before = (statistics.median(side) for side in zip(*seconds, strict=True))
    ratio = statistics.median(b / a for a, b in seconds)
    rounds, gradients = mine["device_rounds"], mine["sample_gradients"]
    print(
        f"| {job} | {rounds / before:,.0f} | {rounds / now:,.0f} | {gradients / now:,.0f} | {ratio:.2f} | {same} |", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--data", type=Path, required=True, help="omniglot28.npz")
    given = parser.parse_args()
    other = installed(given.commit)
    print(f"| job | device-rounds/s of {given.commit} | here | sample gradients/s here | ratio | theta and logs |")
    print("| --- | ---: | ---: | ---: | ---: | --- |", flush=True)
    for job, options in JOBS.items():
        needs = {"data": str(given.data.resolve())} if options["task"] == "omniglot" else {}
        compare(job, {**options, **needs}, other)
    print(f"\nMedians and median ratio of {PAIRS} pairs; {provenance()}")


if __name__ == "__main__":
    main()
