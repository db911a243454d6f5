"""The native fleet: simulated devices that learn with the same C source as boards, a whole cohort in one call."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tinyfl import core
from tinyfl.algorithms import Inner, Updates
from tinyfl.codecs import FP32, Codec
from tinyfl.core import F32, F64, FASTEST, I32, U32, Code, Engine, Stop, Trained
from tinyfl.errors import diverged
from tinyfl.fleet import ALONE, Context, Phis, Stretch, absent, mean_loss, mean_losses
from tinyfl.networks import Network
from tinyfl.simulators.native.kept import Kept
from tinyfl.tasks import StretchTask, Task
from tinyfl.tasks.memory import devices_at_once

MAX_AT_ONCE = 1 << 16
"""Maximum devices per call: bounds the memory of samples from a table. Sums are exact, so splitting changes nothing."""

MAX_STRETCH = 256
"""Maximum number of rounds in a stretch."""

BRIEF_WORK = 1 << 28
"""Number of multiplications that takes a fraction of a second on a slow machine."""

STRETCH_WORK = 1 << 31
"""Number of multiplications in a stretch, which may be lost if the run is killed: a fraction of a second."""


@dataclass
class NativeFleet:
    """A fleet of ``size`` devices of ``task``, each with ``network``, numbered from ``first``. What they keep from round to
    round is in the file ``memory``, or in RAM without one."""

    task: Task
    network: Network
    size: int
    engine: Engine = FASTEST
    first: int = 0
    memory: Path | None = None
    _fits: dict[tuple[int, int], int] = field(default_factory=dict, init=False, repr=False, compare=False)
    _stop: Stop = field(default_factory=Stop, init=False, repr=False, compare=False)
    _kept: Kept | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def boards(self) -> bool:
        return False

    def close(self) -> None:
        """Stops a round in another thread."""
        self._stop.set()

    def _train(
        self, cohort: U32, round: int, theta: F32, inner: Inner, context: Context, each: bool
    ) -> tuple[Trained, tuple[int, ...]]:
        """The round's result, and what the devices started from (see Phis); empty if they keep nothing."""
        kept = self._blocks(inner, context) if inner.keeps else None
        own, since = kept.load(cohort, round, context) if kept else (None, np.empty(0, np.uint32))
        trained = core.train(
            self.network.plan,
            theta,
            self.task.stream(cohort, round, inner.samples),
            cohort,
            round,
            inner.to_bytes(),
            kept=own,
            each=each,
            engine=self.engine,
            stop=self._stop,
            brief=len(cohort) * self._work(inner) <= BRIEF_WORK,
        )
        if kept and own is not None:
            learnt = np.isin(trained.code, (Code.ok, Code.oversized))
            kept.store(cohort[learnt], round, own[learnt])
        return trained, tuple(since.tolist())

    def _work(self, inner: Inner) -> int:
        """Number of multiplications of one device in a round: forward, backward, and of weights."""
        return 3 * max(self.network.multiplies, 1) * inner.total

    def _blocks(self, inner: Inner, context: Context) -> Kept:
        """The blocks of this run, for what ``inner`` keeps."""
        floats = self.network.plan.kept_floats(inner.to_bytes())
        if self._kept is None or (self._kept.run, self._kept.layers, self._kept.floats) != (context.run, inner.local, floats):
            self._kept = Kept.opened(context, inner.local, self.first, self.size, floats, self.memory)
        return self._kept

    def _at_once(self, inner: Inner) -> int:
        """Maximum devices per call, by the engine's limit of memory if it has one."""
        if not self.engine.memory:
            return MAX_AT_ONCE
        kept = self.network.plan.kept_floats(inner.to_bytes())
        if (inner.samples, kept) not in self._fits:
            fit = devices_at_once(self.task, self.size, inner.samples, self.network.plan, kept, self.engine)
            self._fits[inner.samples, kept] = min(fit, MAX_AT_ONCE)
        return self._fits[inner.samples, kept]

    def run(self, cohort: U32, round: int, theta: F32, inner: Inner, context: Context = ALONE) -> Updates:
        """One round on the devices ``cohort``, summed exactly."""
        result: Updates | None = None
        at_once = self._at_once(inner)
        for start in range(0, len(cohort), at_once):
            share = cohort[start : start + at_once]
            trained, since = self._train(share, round, theta, inner, context, each=False)
            failed = np.flatnonzero(trained.code)
            losses = np.delete(trained.loss, failed) if len(failed) else trained.loss
            left_out = absent(share[failed], _reasons(trained.code[failed])) if len(failed) else {}
            kept_from = dict(zip(share.tolist(), since, strict=True)) if since else {}
            part = Updates(theta, trained.sum, len(losses), mean_loss(losses), left_out, kept_from)
            result = part if result is None else result + part
        return result or Updates(theta, np.zeros(len(theta), np.int64), 0)

    def run_each(self, cohort: U32, round: int, theta: F32, inner: Inner, context: Context = ALONE) -> Phis:
        """Like ``run``, with each device's update kept separately."""
        trained, since = self._train(cohort, round, theta, inner, context, each=True)
        assert trained.updates is not None
        return Phis(trained.updates, trained.loss, _reasons(trained.code), kept_from=since)

    def stretch(self, inner: Inner, cohort: int) -> int:
        """The number of rounds to ask of ``run_stretch`` at once (see StretchFleet)."""
        if inner.keeps or not isinstance(self.task, StretchTask):
            return 1
        rounds = min(MAX_STRETCH, STRETCH_WORK // (self._work(inner) * cohort), self._at_once(inner) // cohort)
        return max(1, rounds)

    def run_stretch(self, devices: U32, round: int, theta: F32, inner: Inner, alphas: F64, down: Codec = FP32) -> Stretch:
        """Rounds one after another (see StretchFleet)."""
        assert isinstance(self.task, StretchTask)
        rounds = np.repeat(np.arange(round, round + len(devices), dtype=np.uint32), devices.shape[1])
        source = self.task.streams(devices.reshape(-1), rounds, inner.samples)
        try:
            theta, loss, code = core.train_rounds(
                self.network.plan, theta, source, devices, round, inner.to_bytes(), alphas, down.kind, engine=self.engine,
                stop=self._stop,
            )  # fmt: skip
        except FloatingPointError as error:
            raise diverged(error) from error
        failed = code != Code.ok
        left_out = {
            int(i): absent(devices[i][failed[i]], _reasons(code[i][failed[i]])) for i in np.flatnonzero(failed.any(axis=1))
        }
        return Stretch(theta, mean_losses(np.where(failed, np.float32(np.nan), loss)), left_out)


def _reasons(codes: I32) -> tuple[str, ...]:
    """The name of each code; empty for ok."""
    return tuple("" if code == Code.ok else Code(code).name for code in codes.tolist())
