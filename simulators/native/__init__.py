"""The native fleet: simulated devices that learn with the same C source as boards, a whole cohort in one call."""

from dataclasses import dataclass, field

import numpy as np

from tinyfl import core
from tinyfl.algorithms import Inner, Updates
from tinyfl.core import F32, FASTEST, I32, U32, Code, Engine, Stop, Trained
from tinyfl.fleet import Phis, absent, mean_loss
from tinyfl.networks import Network
from tinyfl.tasks import Task

MAX_AT_ONCE = 1 << 16
"""Maximum devices per call: bounds the memory of samples from a table. Sums are exact, so splitting changes nothing."""


@dataclass(frozen=True)
class NativeFleet:
    """A fleet of ``size`` devices of ``task``, each with ``network``."""

    task: Task
    network: Network
    size: int
    engine: Engine = FASTEST
    _stop: Stop = field(default_factory=Stop, init=False, repr=False, compare=False)

    @property
    def boards(self) -> bool:
        return False

    def close(self) -> None:
        """Stops a round in another thread."""
        self._stop.set()

    def _train(self, cohort: U32, round: int, theta: F32, inner: Inner, each: bool) -> Trained:
        return core.train(
            self.network.plan,
            theta,
            self.task.stream(cohort, round, inner.samples),
            cohort,
            round,
            samples=inner.samples,
            batch=inner.batch,
            passes=inner.passes,
            rate=inner.lr,
            clip=inner.clip,
            each=each,
            engine=self.engine,
            stop=self._stop,
        )

    def run(self, cohort: U32, round: int, theta: F32, inner: Inner) -> Updates:
        """One round on the devices ``cohort``, summed exactly."""
        result: Updates | None = None
        for start in range(0, len(cohort), MAX_AT_ONCE):
            share = cohort[start : start + MAX_AT_ONCE]
            trained = self._train(share, round, theta, inner, each=False)
            failed = trained.code != Code.ok
            losses = trained.loss[~failed]
            left_out = absent(share[failed], _reasons(trained.code[failed]))
            part = Updates(theta, trained.sum, len(losses), mean_loss(losses), left_out)
            result = part if result is None else result + part
        return result or Updates(theta, np.zeros(len(theta), np.int64), 0)

    def run_each(self, cohort: U32, round: int, theta: F32, inner: Inner) -> Phis:
        """Like ``run``, with each device's update kept separately."""
        trained = self._train(cohort, round, theta, inner, each=True)
        assert trained.updates is not None
        return Phis(trained.updates, trained.loss, _reasons(trained.code))


def _reasons(codes: I32) -> tuple[str, ...]:
    """The name of each code; empty for ok."""
    return tuple("" if code == Code.ok else Code(code).name for code in codes.tolist())
