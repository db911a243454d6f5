"""A study of 48 runs, undisturbed and killed with -9 three times: its tables, and the share of time in rounds and evaluation.

    python bench/killed.py        about 5 minutes on 2 cores

Four algorithms on handwritten digits, twelve seeds, 128,000 sample gradients each. The kills come after a sixth, a third and a
half of the undisturbed study's time.
"""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from common import provenance

FOLDER = Path("build/killed")
STUDY = """
gradients = 128_000
curve = 2
[run]
task = "digits"
shots = [1]
tasks = 1000
[grid]
algorithm = ["tinyreptile", "reptile", "fedavg", "joint"]
seed = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
"""
TABLES = ("study.json", "table.csv", "differences.csv")
KILLS = (1 / 6, 1 / 3, 1 / 2)


def study(out: str, seconds: float | None = None) -> float:
    """Runs the study, or kills it after ``seconds``; returns its time."""
    command = [sys.executable, "-m", "tinyfl.cli", "study", str(FOLDER / "study.toml"), "--out", str(FOLDER / out)]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            said, _ = process.communicate(timeout=seconds)
            print(said.strip().splitlines()[-2], f"({time.monotonic() - began:.0f} s in all)", flush=True)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
    return time.monotonic() - began


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    (FOLDER / "study.toml").write_text(STUDY)
    whole = study("whole")
    for share in KILLS:
        study("killed", share * whole)
        done = len(list(FOLDER.glob("killed/runs/*/result.json")))
        print(f"killed after {share * whole:.0f} s: {done} of 48 runs are done", flush=True)
    study("killed")
    same = all((FOLDER / "whole" / name).read_bytes() == (FOLDER / "killed" / name).read_bytes() for name in TABLES)
    print(f"tables: {'the same, byte for byte' if same else 'DIFFERENT'}; {provenance()}")


if __name__ == "__main__":
    main()
