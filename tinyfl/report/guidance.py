"""Where another algorithm does better, by this project's published tables. docs/algorithms.md is the same for people."""

from collections.abc import Mapping
from dataclasses import dataclass

from tinyfl.config import Config


@dataclass(frozen=True)
class Published:
    """The column of the first table in ``page``, under ``section``, that has it, of one ``task`` and its ``episodes``: for each
    algorithm the mean and half of its 95 % interval, in per cent or, if ``lower`` is better, as a mean squared error."""

    task: str
    page: str
    section: str
    column: str
    figures: Mapping[str, tuple[float, float]]
    lower: bool = False
    episodes: str = ""

    def better(self, algorithm: str) -> str:
        """The best algorithm, if its interval lies beyond that of ``algorithm``; else empty."""
        sign = -1 if self.lower else 1
        best = max(self.figures, key=lambda name: sign * self.figures[name][0])
        (high, high_half), (low, low_half) = self.figures[best], self.figures[algorithm]
        return best if sign * (high - low) > high_half + low_half else ""

    def shown(self, algorithm: str) -> str:
        """An algorithm's mean as text."""
        mean = self.figures[algorithm][0]
        return f"{mean:g}" if self.lower else f"{mean:g} %"


STUDIES, BENCH = "bench/studies/README.md", "bench/README.md"

TABLES = (
    Published(
        "digits", STUDIES, "Handwritten digits", "5-way 5-shot",
        {"tinyreptile": (94.8, 0.2), "reptile": (93.9, 0.0), "fedavg": (93.5, 0.2), "joint": (62.3, 1.8)},
    ),
    Published(
        "sine", STUDIES, "Sine waves", "mean squared error",
        {"tinyreptile": (0.0097, 0.0007), "reptile": (0.0325, 0.0022), "fedavg": (0.0479, 0.0086), "joint": (4.01, 0.25)},
        lower=True,
    ),
    Published(
        "omniglot", STUDIES, "Omniglot", "5-way 5-shot", {"tinyreptile": (97.3, 0.2), "protonet": (98.3, 0.2)},
    ),
    Published(
        "keywords", BENCH, "Keywords", "20 samples",
        {"tinyreptile": (87.8, 2.1), "reptile": (87.4, 2.1), "fedavg": (87.0, 2.1), "joint": (87.3, 2.0),
         "protonet": (75.7, 2.4), "embedding": (72.2, 2.9)},
    ),
    Published(
        "keywords", BENCH, "Keywords", "5 of each word",
        {"tinyreptile": (68.6, 4.3), "reptile": (65.4, 5.2), "fedavg": (66.4, 5.3), "joint": (47.5, 3.7),
         "protonet": (62.2, 4.3), "embedding": (71.3, 4.9)},
        episodes="classes",
    ),
)  # fmt: skip


def guidance(config: Config) -> str:
    """One line on the algorithm that does better on the config's task than its own; empty if no table shows one."""
    for table in TABLES:
        if (table.task, table.episodes) != (config.task, config.episodes) or config.algorithm not in table.figures:
            continue
        if best := table.better(config.algorithm):
            return (
                f"On task {table.task}, {best} does better: {table.shown(best)} against {table.shown(config.algorithm)} of "
                f"{config.algorithm} ({table.page}, {table.section}; {table.column}). Try --algorithm {best}."
            )
    return ""
