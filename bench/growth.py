"""How the time of a round and the peak of memory grow with the devices, the cohort, the parameters and the threads.

Run as `python bench/growth.py`, on an idle machine: about 10 minutes. `--quick` measures fewer points, once.
Each point is a run of `tinyfl.simulate` on digits, 32 samples a device, in a process of its own. The seconds are those of its
rounds; the memory is the peak until the last of them, above that of a run with the smallest of everything. Prints tables for
README.md, and draws growth.png.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from common import peak_mib, provenance
from matplotlib.figure import Figure

from tinyfl import simulate
from tinyfl.flower.rounds import Progress

BASE = {"devices": 100_000, "cohort": 1_000, "parameters": 1_000}
"""What stays as it is while another number grows."""

GROWING = {
    "devices": (1_000, 10_000, 100_000, 1_000_000),
    "cohort": (10, 100, 1_000, 10_000, 100_000),
    "parameters": (1_000, 3_000, 10_000, 30_000, 100_000),
}
THREADS = (1, 2)
REPEATS = 3


def point(devices: int, cohort: int, parameters: int, threads: int) -> dict[str, float]:
    """Seconds a round, MiB at the peak, and the number of parameters, of one run in this process."""
    hidden = max(1, round((parameters - 5) / 70))  # of 64-hidden-5
    memory = 0.0

    def progress(now: Progress) -> None:
        nonlocal memory
        memory = memory if now.stage == "evaluating" else peak_mib()

    with tempfile.TemporaryDirectory() as folder:
        run = simulate(
            task="digits", network=f"mlp-{hidden}", devices=devices, cohort=cohort, samples=32, batch=1,
            rounds=max(2, min(300, 100_000_000 // (cohort * parameters))), shots=(1,), tasks=2, adapt_lr=0.01, threads=threads,
            out=Path(folder) / "run", progress=progress,
        )  # fmt: skip
    seconds = run.result["seconds"] / run.result["rounds"]
    return {"seconds": seconds, "MiB": memory, "parameters": run.result["parameters"]}


def measured(repeats: int, **settings: int) -> dict[str, float]:
    """The medians of some runs of ``point``, each in a process of its own."""
    command = [sys.executable, __file__, "--point", json.dumps(settings)]
    runs = [json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(repeats)]
    return {key: median(run[key] for run in runs) for key in runs[0]}


def exponent(x: list[float], y: list[float]) -> str:
    """The slope of a line through log y over log x; in brackets that between the last two points."""
    a, b = np.log(x), np.log(y)
    return f"{np.polyfit(a, b, 1)[0]:.2f} ({(b[-1] - b[-2]) / (a[-1] - a[-2]):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point:
        print(json.dumps(point(**arguments.point)))
        return
    figure = Figure(figsize=(8, 4.2), dpi=80, layout="constrained")
    axes = figure.subplots(2, 3, sharey="row")
    print("| grows | to | ms a round, 1 and 2 threads | MiB, 1 and 2 threads |\n| --- | ---: | ---: | ---: |")
    fits = []
    least = measured(1, devices=100, cohort=1, parameters=75, threads=1)["MiB"]
    for column, (name, values) in enumerate(GROWING.items()):
        values = values[:: len(values) - 1] if arguments.quick else values
        settings = [{**BASE, name: value} for value in values]
        curves = [
            [measured(1 if arguments.quick else REPEATS, **each, threads=threads) for each in settings] for threads in THREADS
        ]
        for row in (row for curve in curves for row in curve):
            row["MiB"] = max(row["MiB"] - least, 0.1)
        at = [row["parameters"] if name == "parameters" else value for row, value in zip(curves[0], values, strict=True)]
        for i, value in enumerate(at):
            times, sizes = ([f"{curve[i][key] * unit:.1f}" for curve in curves] for key, unit in (("seconds", 1e3), ("MiB", 1)))
            print(f"| {name} | {value:,.0f} | {', '.join(times)} | {', '.join(sizes)} |", flush=True)
        for threads, curve in zip(THREADS, curves, strict=True):
            for row, key in enumerate(("seconds", "MiB")):
                y = [each[key] for each in curve]
                axes[row, column].loglog(at, y, "o-", label=f"{threads} thread{'s' * (threads > 1)}")
            fits.append((name, threads, *(exponent(at, [each[key] for each in curve]) for key in ("seconds", "MiB"))))
        axes[1, column].set_xlabel(name)
    axes[0, 0].set_ylabel("seconds a round")
    axes[1, 0].set_ylabel("MiB")
    axes[0, 0].legend()
    print("\n| grows | threads | exponent of time (last two points) | of memory |\n| --- | ---: | ---: | ---: |")
    for name, threads, time, memory in fits:
        print(f"| {name} | {threads} | {time} | {memory} |")
    print(f"\n{provenance()}")
    figure.savefig(Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main()
