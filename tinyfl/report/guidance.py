"""Where another algorithm does better, by this project's published tables. docs/algorithms.md is the same for people."""

from collections.abc import Mapping
from dataclasses import dataclass

from tinyfl.config import Config


@dataclass(frozen=True)
class Published:
    """The column of a table in ``page``, under ``section``, of one ``task``: for each algorithm the mean and half of its 95 %
    interval, in per cent or, if ``lower`` is better, as a mean squared error."""

    task: str
    page: str
    section: str
    column: str
    figures: Mapping[str, tuple[float, float]]
    lower: bool = False

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


STUDIES = "bench/studies/README.md"

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
)  # fmt: skip


def guidance(config: Config) -> str:
    """One line on the algorithm that does better on the config's task than its own; empty if no table shows one."""
    for table in TABLES:
        if table.task != config.task or config.algorithm not in table.figures:
            continue
        if best := table.better(config.algorithm):
            return (
                f"On task {table.task}, {best} does better: {table.shown(best)} against {table.shown(config.algorithm)} of "
                f"{config.algorithm} ({table.page}, {table.section}; {table.column}). Try --algorithm {best}."
            )
    return ""
