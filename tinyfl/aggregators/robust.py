"""Flower's robust strategies, each with the settings of a run that it needs. What they withstand: docs/robust.md."""

from flwr.serverapp.strategy import FedMedian, FedTrimmedAvg, Krum

from tinyfl.aggregators import ALL
from tinyfl.registry.aggregators import poisoned


class Median(FedMedian):
    """The median of each weight (Yin et al. 2018; arXiv:1803.01498)."""

    def __init__(self) -> None:
        super().__init__(**ALL)


class TrimmedMean(FedTrimmedAvg):
    """Each weight's mean without the share ``tolerate`` of its largest and of its smallest values (the same paper)."""

    def __init__(self, tolerate: float) -> None:
        super().__init__(beta=tolerate, **ALL)


class NearestUpdate(Krum):
    """The update that is closest to its neighbours (Blanchard et al. 2017; arXiv:1703.02757)."""

    def __init__(self, cohort: int, tolerate: float) -> None:
        super().__init__(num_malicious_nodes=poisoned(cohort, tolerate), **ALL)
