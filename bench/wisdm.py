"""Activity of held-out people: does adapting help, and does meta-learning help more than joint training?

    python bench/wisdm.py your-wisdm_users.npz

Five splits of 10 held-out users, 20 own samples each, by the recipe of docs/tasks.md. Accuracy in per cent, mean over splits,
+- half of a 95 % interval over splits (Student's t); users recur across splits, so the interval is too narrow.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from common import provenance
from scipy.stats import t

import tinyfl

SPLITS = range(5)
SETTINGS = {
    "tinyreptile": {},
    "reptile": {"samples": 30, "batch": 10},
    "fedavg": {"cohort": 5, "rounds": 3000},
    "joint": {"cohort": 20, "rounds": 5000},
}


def write_split(source: Path, path: Path, seed: int) -> None:
    """The recipe of docs/tasks.md: missing values filled by the training users' means."""
    arrays = np.load(source)
    x, user = arrays["X"].astype(np.float64), arrays["user"]
    held_out = np.random.default_rng(seed).choice(np.unique(user), 10, replace=False)
    means = np.nanmean(x[~np.isin(user, held_out)], axis=0)
    np.savez(path, x=np.where(np.isnan(x), means, x), y=arrays["y"], device=user, split=held_out)


def main() -> None:
    print("| start | unadapted | 10 batch steps on 20 samples | gain |\n| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for algorithm, settings in SETTINGS.items():
            before, after = [], []
            for seed in SPLITS:
                data = Path(folder) / f"{seed}.npz"
                write_split(Path(sys.argv[1]), data, seed)
                out = Path(folder) / f"{algorithm}-{seed}"
                run = tinyfl.simulate(
                    task="npz", data=str(data), algorithm=algorithm, shots=(20,), seed=seed, out=out, **settings
                )
                accuracy = {row["steps"]: 100 * row["accuracy"] for row in run.evaluation if row["mode"] == "batch"}
                before.append(accuracy[0])
                after.append(accuracy[10])
            gain = np.subtract(after, before)
            cells = [
                f"{np.mean(v):.1f} ± {t.ppf(0.975, len(v) - 1) * np.std(v, ddof=1) / np.sqrt(len(v)):.1f}"
                for v in (before, after, gain)
            ]
            print(f"| {algorithm} | {' | '.join(cells)} |", flush=True)
    print(f"\nsplits {list(SPLITS)}; {provenance()}")


if __name__ == "__main__":
    main()
