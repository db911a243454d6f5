"""Runs that diverge or end below their floor, and cures: the trials behind the advice of tinyfl.report.verdict.

    python bench/floors.py

Twenty devices with 60 samples each; accuracy, or R2 against the support mean, of 5 held-out devices after 10 steps.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import provenance

import tinyfl
from tinyfl.errors import TrainingError

RNG = np.random.default_rng(0)
DEVICE = np.repeat(np.arange(20), 60)
Y = RNG.integers(0, 3, DEVICE.size)
X = RNG.normal(size=(DEVICE.size, 3))
VALUES = np.sin(X[:, 0]) + 0.5 * X[:, 1] + 0.3 * RNG.normal(size=20)[DEVICE]
PLACE = np.c_[X, 48.1351 + 1e-5 * (Y - 1) + 2e-6 * RNG.normal(size=Y.size)]
OUTLIER = np.where(np.arange(DEVICE.size) == 7, 1e6, VALUES)

TRIALS: list[tuple[str, dict[str, Any], dict[str, dict[str, Any]]]] = [
    ("degrees as they are", {"x": PLACE, "y": Y}, {"--no-standardise": {"standardise": False}, "--standardise": {}}),
    ("pascal as they are", {"x": X, "y": 101_325 + 300 * VALUES}, {
        "--no-standardise": {"standardise": False},
        "--no-standardise --clip 1": {"standardise": False, "clip": 1.0},
        "--no-standardise --rate 1e-6": {"standardise": False, "rate": 1e-6},
        "--standardise": {},
    }),
    ("a rate too large", {"x": X, "y": VALUES}, {
        "--rate 1": {"rate": 1.0},
        "--rate 1 --clip 1": {"rate": 1.0, "clip": 1.0},
        "--rate 0.1": {"rate": 0.1},
    }),
    ("too few rounds", {"task": "digits"}, {"--rounds 50": {"rounds": 50}, "--rounds 500": {"rounds": 500}}),
    ("a rate too small", {"task": "digits"}, {"--rate 1e-4": {"rate": 1e-4}, "the default": {}}),
    ("one error in y", {"x": X, "y": OUTLIER}, {"with it": {}, "without": {"leave_out": 7}}),
]  # fmt: skip


def trial(arrays: dict[str, Any], options: dict[str, Any]) -> str:
    """A run's result and its floor."""
    folder, given = Path(tempfile.mkdtemp()), {"rounds": 500, "tasks": 100, **options}
    if "x" in arrays:
        selected = np.arange(DEVICE.size) != given.pop("leave_out", -1)
        np.savez(folder / "own.npz", device=DEVICE[selected], **{name: array[selected] for name, array in arrays.items()})
        arrays = {"task": "npz", "data": str(folder / "own.npz")}
    try:
        result = tinyfl.simulate(out=folder / "run", **arrays, **given).result
    except TrainingError:
        return "diverged"
    row = next(row for row in reversed(result["evaluation"]) if (row["mode"], row["steps"]) == ("batch", 10))
    floor = result["floor"][-1]
    below = " **below**" if result["worse_than_floor"] else ""
    if row["accuracy"] is None:
        return f"R2 {1 - row['loss'] / floor['loss']:.3f}{below}"
    return f"{100 * row['accuracy']:.1f} %, floor {100 * floor['accuracy']:.1f} %{below}"


def main() -> None:
    print("| what is wrong | with | reached |\n| --- | --- | --- |")
    for name, arrays, ways in TRIALS:
        for way, options in ways.items():
            print(f"| {name} | {way} | {trial(arrays, options)} |", flush=True)
    print(f"\n{provenance()}")


if __name__ == "__main__":
    main()
