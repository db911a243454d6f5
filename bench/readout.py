"""Class means beside logistic regression on the same embeddings (Tian et al. 2020; arXiv:2003.11539, section 3).

    python bench/readout.py RUN RUN...

Each RUN is a finished run of embedding, easy or protonet. The accuracy of unseen devices in per cent, +- half of a
95 % interval over devices (one run) or runs (several), and the mean of the paired differences. Logistic regression is
scikit-learn's, C = 1, on the support set's embeddings, prepared as the run's are.
"""

import sys
import time
from pathlib import Path

import numpy as np
from common import provenance
from sklearn.linear_model import LogisticRegression

from tinyfl import core
from tinyfl.networks import Network
from tinyfl.runs.adapted import adapted
from tinyfl.runs.evaluation import student
from tinyfl.runs.finished import origin
from tinyfl.tasks import Episodes
from tinyfl.tasks.augmented import shots_of_means

DEVICES = 300


def prepared(net: Network, values: np.ndarray) -> np.ndarray:
    """Embeddings float32 (devices, samples, size) as class means take them."""
    how = net.prepared
    values = values if how.centre is None else values - how.centre
    return values / np.linalg.norm(values, axis=-1, keepdims=True) if how.normalised else values


def by_regression(net: Network, theta: np.ndarray, episodes: Episodes) -> np.ndarray:
    """The accuracy of each device, float64 (devices,)."""
    support = shots_of_means(episodes.support, net.prepared, net.shape)
    shots, asked = (prepared(net, core.embeddings(net.plan, theta, each)) for each in (support, episodes.query))
    return np.array([
        LogisticRegression(max_iter=1000).fit(x, y).score(queries, truth)
        for x, y, queries, truth in zip(shots, support.labels, asked, episodes.query.labels, strict=True)
    ])  # fmt: skip


def shown(values: np.ndarray) -> str:
    half = student(len(values)) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{100 * values.mean():.1f} ± {100 * half:.1f}"


def main() -> None:
    began, found = time.perf_counter(), {}
    for run in map(Path, sys.argv[1:]):
        source = origin(run, None)
        assert source.run is not None
        for shots in source.run.config.shots:
            episodes = source.task.episodes("test", DEVICES, shots)
            net, theta = source.start.network, source.start.theta
            means = adapted(net, theta, episodes.support, episodes.query, (0,), b"").accuracy[0]
            found.setdefault(shots, []).append((means.astype(np.float64), by_regression(net, theta, episodes)))
    print("| shots | class means | logistic regression | difference |\n| ---: | ---: | ---: | ---: |")
    for shots, runs in found.items():
        means, regression = (np.array([each[k].mean() for each in runs]) if len(runs) > 1 else runs[0][k] for k in (0, 1))
        print(f"| {shots} | {shown(means)} | {shown(regression)} | {shown(regression - means)} |")
    print(f"\n{len(sys.argv) - 1} runs, {DEVICES} devices each, {time.perf_counter() - began:.0f} s; {provenance()}")


if __name__ == "__main__":
    main()
