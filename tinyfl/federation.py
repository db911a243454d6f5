"""The rounds of a run over Flower, with its metrics, its checkpoints and what stops it."""

import hashlib
import json
import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyfl.algorithms import Algorithm, State, Updates
from tinyfl.config import Config
from tinyfl.core import Code
from tinyfl.errors import Interrupted, RunError, TrainingError
from tinyfl.failures import failed, last_words
from tinyfl.fleet import Event, draw_cohort, spans
from tinyfl.networks import is_file
from tinyfl.roster import named
from tinyfl.runs import METRICS, ROUNDS, Checkpoint, RunDirectory

if TYPE_CHECKING:
    from tinyfl.flower.grid import FleetAddresses

CHECKPOINT_SECONDS = float(os.environ.get("TINYFL_CHECKPOINT_SECONDS", "2"))
SHORT_ROUND_PAUSES = (1.0, 3.0, 10.0)
"""Seconds before a round that brought too few updates is tried again; after as many tries the run stops."""

MOST_SAID = 3
"""Parts of a fleet whose last words are in the message that ends a run."""

MOST_REASONS = 32
"""Reasons that are counted apart, since nodes name them; more are counted as ``other``."""

METRICS_RECORDS = 500
"""About how many records a run writes to metrics.jsonl, whatever its length."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands, for whoever shows it. ``loss`` is the cohorts' mean since the last one shown."""

    stage: str
    done: int
    total: int
    loss: float = float("nan")
    device_rounds_per_s: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What the rounds ended with: the last state, the seconds they took, how many devices were left out, by reason, what
    privacy was spent, where noise was made, and the parts of the fleet that sent nothing at all."""

    state: State
    seconds: float
    left_out: Mapping[str, int]
    privacy: Mapping[str, Any] | None
    failed: Mapping[str, str]


def data_sha256(config: Config) -> str:
    """Hash of the user's data file; empty for tasks that bring their own."""
    return _sha256(config.data)


def network_sha256(config: Config) -> str:
    """Hash of the file that the network is; empty for one by its name."""
    return _sha256(config.network if is_file(config.network) else "")


def _sha256(path: str) -> str:
    if not path:
        return ""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _diverged(left_out: Mapping[str, int]) -> str:
    """What helps where devices are left out because they diverge, and for no other reason; empty where it is something else."""
    if left_out and set(left_out) <= {Code.numeric.name, Code.oversized.name}:
        return "the inner loop diverges. Start a new run with a smaller --inner-lr, or with a --clip."
    return ""


@contextmanager
def _flower_quiet() -> Iterator[None]:
    """Flower logs every round, and warns of what we mean."""
    log = logging.getLogger("flwr")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


class Federation:
    """The rounds of one run over ``grid``, from ``start`` or from the directory's checkpoint."""

    def __init__(
        self,
        directory: RunDirectory,
        config: Config,
        algorithm: Algorithm,
        grid: "FleetAddresses",
        start: State,
        progress: Callable[[Progress], None] | None,
        interruptible: bool = True,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self.directory, self.config, self.algorithm, self.progress = directory, config, algorithm, progress
        self.on_event, self.parts = on_event, grid.parts() or named(config.fleet)
        self.grid, self.state, self.interruptible = grid, start, interruptible
        self.hashes = config.sha256(), data_sha256(config), network_sha256(config)
        self.left_out: Counter[str] = Counter()
        self.seconds_before = 0.0
        self.stop = False
        self._losses: list[float] = []
        self._short = 0

    def run(self) -> Outcome:
        """Goes on from the checkpoint to the last round."""
        from tinyfl.flower.judges import judge, privacy_spent

        self._restore()
        self.directory.trim(self.state.round)
        self._began = self._saved = self._turned = time.monotonic()
        folder = self.directory.path
        with (folder / METRICS).open("a") as self._metrics, (folder / ROUNDS).open("a") as self._log, _flower_quiet():
            self._judge = judge(self.config, self.state.round)
            if self.state.round < self.config.rounds:
                with self._interruptible():
                    self._rounds()
        if sum(self.left_out.values()) >= self.config.rounds * self.config.cohort:
            raise TrainingError(
                f"not one of {self.config.rounds * self.config.cohort:,} updates was usable ({dict(self.left_out)}): "
                f"{_diverged(self.left_out) or self._see_to(range(self.config.devices)) + '.'}"
            )
        without = failed(self.directory.path, self.parts)
        return Outcome(self.state, self._seconds(), self.left_out, privacy_spent(self._judge), without)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first Ctrl-C waits for the end of the round, so that nothing is half done; a second one does not wait."""
        if not self.interruptible or threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set handlers, and Flower's own runner does: whoever owns it decides
            return
        previous = signal.getsignal(signal.SIGINT) or signal.SIG_DFL

        def stop(*_: object) -> None:
            self.stop = True
            signal.signal(signal.SIGINT, previous)

        signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    def _rounds(self) -> None:
        from tinyfl.flower.messages import theta_record
        from tinyfl.flower.strategy import FleetStrategy

        strategy = FleetStrategy(
            self.algorithm,
            self.state,
            cohort=self.config.cohort,
            fleet_size=self.config.devices,
            seed=self.config.seed,
            each_device=self.config.gateways is None,
            judge=self._judge,
            minimum=self.config.minimum,
            on_round=self._on_round,
            on_short=self._on_short,
            on_event=self.on_event,
        )
        while left := self.config.rounds - self.state.round:
            strategy.start(self.grid, theta_record(self.state.theta), num_rounds=left)

    def _restore(self) -> None:
        checkpoint = self.directory.checkpoint()
        if checkpoint is None:
            return
        if checkpoint.config_sha256 != self.hashes[0]:
            raise RunError(
                f"{self.directory.path}/config.toml was changed since the run started, so it cannot be resumed. "
                "Put it back, or start a new run with it: tinyfl simulate CONFIG --out ANOTHER."
            )
        held = {self.config.data: checkpoint.data_sha256, self.config.network: checkpoint.network_sha256}
        for (path, before), now in zip(held.items(), self.hashes[1:], strict=True):
            if before != now:
                raise RunError(
                    f"{path} was changed since the run started, so it cannot be resumed. "
                    "Put it back, or start a new run with another --out."
                )
        if checkpoint.state.theta.shape != self.state.theta.shape:
            raise RunError(f"{self.directory.path}/checkpoint is damaged: theta is {checkpoint.state.theta.shape}.")
        self.state = checkpoint.state
        self.left_out = Counter(checkpoint.left_out)
        self.seconds_before = checkpoint.seconds
        self._losses = list(checkpoint.losses)

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self._began

    def _on_round(self, state: State, updates: Updates) -> None:
        self._log_round(updates, counts=True)
        self.state = state
        for reason, count in updates.left_out.items():
            known = reason in self.left_out or len(self.left_out) < MOST_REASONS
            self.left_out[reason if known else "other"] += count
        if updates.devices:
            self._losses.append(updates.loss)
        every = max(1, self.config.rounds // METRICS_RECORDS)
        if state.round % every == 0 or state.round == self.config.rounds:
            self._record()
        self._short = 0
        # What noise has been added to is kept before anyone sees it, so that no round is done again with other noise.
        due = bool(self.config.noise) or time.monotonic() - self._saved >= CHECKPOINT_SECONDS
        if due or state.round == self.config.rounds or self.stop:
            self._save()
        self._heed_interrupt()

    def _on_short(self, updates: Updates) -> None:
        """A round with too few updates: once more after a pause, as often as there are pauses."""
        self._log_round(updates, counts=False)
        self._save()
        self._heed_interrupt()
        if self._short == len(SHORT_ROUND_PAUSES):
            diverged = "" if updates.devices else _diverged(updates.left_out)
            smaller = ", or give a smaller --minimum" if updates.devices else ""
            cure = diverged or (
                f"{self._see_to(updates.absent)}{smaller}; then go on with: tinyfl run --resume {self.directory.path}"
            )
            raise TrainingError(
                f"round {self.state.round + 1:,} had {updates.devices} of the {self.config.minimum} updates that it needs, "
                f"{self._short + 1} times in a row (left out: {dict(updates.left_out)}): {cure}"
            )
        time.sleep(SHORT_ROUND_PAUSES[self._short])
        self._short += 1

    def _see_to(self, absent: Collection[int]) -> str:
        """What was last said of a few parts of the fleet with ``absent`` devices, and what helps."""
        folder = self.directory.path
        parts = self.parts.values() or [range(self.config.devices)]
        said = {last_words(folder, {device for device in absent if device in part}) for part in parts} - {""}
        words = "".join(f"{each.rstrip('.')}. " for each in sorted(said)[:MOST_SAID])
        return f"{words}See to what {folder}/events.jsonl names"

    def _save(self) -> None:
        for file in (self._metrics, self._log):
            file.flush()
            os.fsync(file.fileno())
        done = Checkpoint(self.state, *self.hashes, self.left_out, self._seconds(), tuple(self._losses))
        self.directory.save_checkpoint(done)
        self._saved = time.monotonic()

    def _heed_interrupt(self) -> None:
        if self.stop:
            raise Interrupted(
                f"stopped after round {self.state.round:,} of {self.config.rounds:,}. "
                f"Go on with: tinyfl run --resume {self.directory.path}"
            )

    def _log_round(self, updates: Updates, counts: bool) -> None:
        """Who took part in the round that has just ended, who did not and why, and where its seconds went."""
        now, config = time.monotonic(), self.config
        absent: dict[str, list[int]] = {}
        for device in sorted(updates.absent):
            absent.setdefault(updates.absent[device], []).append(device)
        record = {
            "round": self.state.round + 1,
            "counts": counts,
            "cohort": spans(draw_cohort(config.seed, self.state.round, config.cohort, config.devices).tolist()),
            "updates": updates.devices,
            "absent": {reason: spans(devices) for reason, devices in absent.items()},
            "seconds": round(now - self._turned, 4),
            "nodes": {name: {what: round(s, 3) for what, s in spent.items()} for name, spent in self.grid.spent().items()},
        }
        self._log.write(json.dumps(record) + "\n")
        self._turned = now

    def _record(self) -> None:
        loss = float(np.mean(self._losses)) if self._losses else float("nan")
        self._losses.clear()
        record = {
            "round": self.state.round,
            "loss": loss if np.isfinite(loss) else None,
            "left_out": dict(self.left_out),
        }
        self._metrics.write(json.dumps(record) + "\n")
        if self.progress:
            rounds_here = self.state.round * self.config.cohort
            speed = rounds_here / max(self._seconds(), 1e-9)
            self.progress(Progress("learning", self.state.round, self.config.rounds, loss, speed))
