"""The rounds of a run over Flower: metrics, checkpoints, and the conditions that end it."""

import json
import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyfl.algorithms import Algorithm, State, Updates
from tinyfl.config import Config
from tinyfl.config.roster import named
from tinyfl.core import U32
from tinyfl.errors import ConfigError, DoesNotFit, NoLink, RunError, TooSmall, TrainingError
from tinyfl.fleet import Event, Stretch, draw_cohort, draw_cohorts, spans, spans_of_rows
from tinyfl.runs.directory import CHECKPOINT, METRICS, ROUNDS, Checkpoint, RunDirectory, data_sha256, network_sha256
from tinyfl.runs.failures import diverged, failed, last_words
from tinyfl.system.interrupts import interrupt_message

if TYPE_CHECKING:
    from tinyfl.flower.grid import FleetAddresses

CHECKPOINT_SECONDS = float(os.environ.get("TINYFL_CHECKPOINT_SECONDS", "2"))
SHORT_ROUND_PAUSES = (1.0, 3.0, 10.0)
"""Pauses in seconds before a round with too few updates is repeated; after the last one the run stops."""

MAX_REPORTED = 3
"""Maximum number of a fleet's parts quoted in the message that ends a run."""

MAX_REASONS = 32
"""Maximum number of reasons with counts of their own, since nodes choose them; the rest count as ``other``."""

METRICS_RECORDS = 500
"""Approximate number of records in metrics.jsonl, for a run of any length."""


@dataclass(frozen=True)
class Progress:
    """The progress of a run, for display. ``loss`` is the cohorts' mean since the last report."""

    stage: str
    done: int
    total: int
    loss: float = float("nan")
    device_rounds_per_s: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """The result of the rounds: the last state, their seconds, the number of devices left out by reason, the privacy spent if
    noise was added, and the parts of the fleet that never sent an update."""

    state: State
    seconds: float
    left_out: Mapping[str, int]
    privacy: Mapping[str, Any] | None
    failed: Mapping[str, str]


@dataclass(frozen=True)
class _Snapshot:
    """A run between two rounds: the state, the number of devices left out by reason, and the losses of the rounds since the
    last record in metrics.jsonl."""

    state: State
    left_out: Counter[str] = field(default_factory=Counter)
    losses: tuple[float, ...] = ()


@dataclass(frozen=True)
class KeptRounds:
    """The last counted round, counted from 1, of what each device keeps, uint32 (devices,); 0: nothing."""

    rounds: U32

    def after(self, updates: Updates, rounds: int) -> list[tuple[int, int, int]]:
        """Counts the round ``rounds``, and returns each device that started from an earlier state than that of its last round,
        with this round and that of the state. A later one is that of a round in which its update got lost."""
        devices = np.fromiter(updates.kept_from, np.int64)
        found = np.fromiter(updates.kept_from.values(), np.int64)
        expected = self.rounds[devices].astype(np.int64)
        lost = found < expected
        self.rounds[devices] = rounds
        return list(zip(devices[lost].tolist(), expected[lost].tolist(), found[lost].tolist(), strict=True))


@contextmanager
def _flower_quiet() -> Iterator[None]:
    """Silences Flower, which logs every round and warns about intended settings."""
    log = logging.getLogger("flwr")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


class Federation:
    """The rounds of one run over ``grid``, from ``start`` or from the directory's checkpoint. Reported losses are multiplied by
    ``unit``."""

    def __init__(
        self,
        directory: RunDirectory,
        config: Config,
        algorithm: Algorithm,
        grid: "FleetAddresses",
        start: State,
        progress: Callable[[Progress], None] | None,
        on_event: Callable[[Event], None] | None = None,
        unit: float = 1.0,
    ) -> None:
        self.directory, self.config, self.algorithm, self.progress = directory, config, algorithm, progress
        self.on_event, self.parts = on_event, grid.parts() or named(config.fleet)
        self.grid, self.unit, self._snapshot = grid, unit, _Snapshot(start)
        self.hashes = config.sha256(), grid.data_sha256() or data_sha256(config), network_sha256(config)
        self.seconds_before = 0.0
        self._saved_round = self._short = 0
        self._run_number = secrets.randbits(62) + 1
        self._kept: KeptRounds | None = None

    def run(self) -> Outcome:
        """Runs from the checkpoint to the last round. An interrupt leaves a checkpoint of the last complete round."""
        import tinyfl.flower.strategy  # noqa: F401 (Flower takes half a second to load: before the clock starts)
        from tinyfl.aggregators import aggregator, privacy_spent

        self._restore()
        self.directory.trim(self._snapshot.state.round)
        self._began = self._saved_at = self._round_began = time.monotonic()
        with self.directory.log(METRICS) as self._metrics, self.directory.log(ROUNDS) as self._log, _flower_quiet():
            self._aggregator = aggregator(self.config, self._snapshot.state.round)
            with interrupt_message(self._status):
                try:
                    self._rounds()
                except KeyboardInterrupt:
                    self._save()
                    raise
        left_out = self._snapshot.left_out
        if sum(left_out.values()) >= self.config.rounds * self.config.cohort:
            raise TrainingError(
                f"not one of {self.config.rounds * self.config.cohort:,} updates was usable ({dict(left_out)}): "
                f"{diverged(left_out, self.config) or self._cure(range(self.config.devices)) + '.'}"
            )
        without = failed(self.directory.path, self.parts)
        return Outcome(self._snapshot.state, self._seconds(), left_out, privacy_spent(self._aggregator), without)

    def _status(self) -> str:
        return (
            f"stopped after round {self._saved_round:,} of {self.config.rounds:,}. Go on with: {self.directory.resume_command}"
        )

    def _rounds(self) -> None:
        from tinyfl.flower.messages import theta_record
        from tinyfl.flower.strategy import FleetStrategy

        strategy = FleetStrategy(
            self.algorithm,
            self._snapshot.state,
            cohort=self.config.cohort,
            fleet_size=self.config.devices,
            seed=self.config.seed,
            each_device=self.config.gateways is None,
            aggregator=self._aggregator,
            minimum=self.config.minimum,
            run=self._run_number,
            until=self.config.rounds,
            saved=lambda: self._saved_round,
            on_round=self._on_round,
            on_short=self._on_short,
            on_stretch=self._on_stretch,
            on_event=self.on_event,
        )
        while left := strategy.messages(self.grid):
            strategy.start(self.grid, theta_record(self._snapshot.state.theta), num_rounds=left)

    def _restore(self) -> None:
        checkpoint = self.directory.checkpoint()
        if checkpoint is None:
            return
        if checkpoint.config_sha256 != self.hashes[0]:
            raise RunError(
                f"{self.directory.path}/config.toml was changed since the run started, so it cannot be resumed. "
                "Restore it, or start a new run with it: tinyfl simulate CONFIG --out ANOTHER."
            )
        held = {self.config.data: checkpoint.data_sha256, self.config.network: checkpoint.network_sha256}
        for (path, before), now in zip(held.items(), self.hashes[1:], strict=True):
            if before != now:
                raise RunError(
                    f"{path or 'the data of the sites'} was changed since the run started, so it cannot be resumed. "
                    "Restore it, or start a new run with another --out."
                )
        shape = self._snapshot.state.theta.shape
        if checkpoint.state.theta.shape != shape or checkpoint.state.round > self.config.rounds:
            raise RunError(
                f"{self.directory.path / CHECKPOINT} is from another run: theta is {checkpoint.state.theta.shape} after "
                f"{checkpoint.state.round:,} rounds, but this run's is {shape}, with {self.config.rounds:,} "
                "rounds in all. Restore this run's own checkpoint, or start a new run with another --out."
            )
        if checkpoint.kept_rounds is not None:
            if len(checkpoint.kept_rounds) != self.config.devices:
                raise RunError(
                    f"{self.directory.path / CHECKPOINT} is from another run, of {len(checkpoint.kept_rounds):,} devices. "
                    "Restore this run's own checkpoint, or start a new run with another --out."
                )
            self._kept = KeptRounds(checkpoint.kept_rounds)
        self._run_number = checkpoint.run or self._run_number
        self._snapshot = _Snapshot(checkpoint.state, Counter(checkpoint.left_out), checkpoint.losses)
        self._saved_round = checkpoint.state.round
        self.seconds_before = checkpoint.seconds

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self._began

    def _on_round(self, state: State, updates: Updates) -> None:
        self._log_round(updates, counts=True)
        self._check_kept(updates, state.round)
        self._count(state, [updates.loss], {0: updates.left_out})

    def _on_stretch(self, state: State, stretch: Stretch) -> None:
        self._log_stretch(stretch)
        left_out = {number: Counter(absent.values()) for number, absent in stretch.absent.items()}
        self._count(state, stretch.loss.tolist(), left_out)

    def _count(self, state: State, losses: Sequence[float], left_out: Mapping[int, Mapping[str, int]]) -> None:
        """Counts the rounds up to ``state``: the loss of each, and the devices left out of some of them, by their number from
        0 and by reason. Writes metrics, and a checkpoint if one is due."""
        total, pending = self._snapshot.left_out.copy(), list(self._snapshot.losses)
        every, last = max(1, self.config.rounds // METRICS_RECORDS), self.config.rounds
        for number, loss in enumerate(losses):
            for reason, count in left_out.get(number, {}).items():
                known = reason in total or len(total) < MAX_REASONS
                total[reason if known else "other"] += count
            if isfinite(loss):
                pending.append(loss * self.unit)
            done = state.round - len(losses) + number + 1
            if done % every == 0 or done == last:
                self._record(done, pending, total)
                pending = []
        # In one step: an interrupt finds the run before these rounds or after them.
        self._snapshot = _Snapshot(state, total, tuple(pending))
        self._short = 0
        # With noise, every round is saved before its result is visible, so that no round is repeated with other noise.
        due = bool(self.config.noise) or time.monotonic() - self._saved_at >= CHECKPOINT_SECONDS
        if due or state.round == self.config.rounds:
            self._save()

    def _check_kept(self, updates: Updates, rounds: int) -> None:
        """Logs devices that have lost what they had kept, once ``rounds`` rounds are done."""
        if not updates.kept_from:
            return
        self._kept = self._kept or KeptRounds(np.zeros(self.config.devices, np.uint32))
        for device, expected, found in self._kept.after(updates, rounds):
            how = f"started from that of round {found:,}" if found else "started from theta"
            why = f"what it had kept since round {expected:,} is lost: it {how}, so theta is not repeatable"
            if self.on_event:
                self.on_event(Event(rounds - 1, device, "", "reset", why))

    def _on_short(self, updates: Updates) -> None:
        """Pauses before a round with too few updates is repeated; after the last pause, ends the run."""
        self._log_round(updates, counts=False)
        self._save()
        if not updates.devices and set(updates.left_out) == {NoLink.reason}:
            raise ConfigError(last_words(self.directory.path, updates.absent))
        if not updates.devices and set(updates.left_out) == {TooSmall.reason}:
            raise DoesNotFit(
                f"none of the {len(updates.absent)} boards in round {self._snapshot.state.round + 1:,} has room to learn "
                f"{self.config.network} in batches of {self.config.batch}: {self.directory.path}/events.jsonl has the bytes. "
                "Choose a smaller --network, or --batch 1."
            )
        if self._short == len(SHORT_ROUND_PAUSES):
            alone = "" if updates.devices else diverged(updates.left_out, self.config)
            smaller = ", or give a smaller --minimum" if updates.devices else ""
            cure = alone or f"{self._cure(updates.absent)}{smaller}; then go on with: {self.directory.resume_command}"
            raise TrainingError(
                f"round {self._snapshot.state.round + 1:,} had {updates.devices} of the {self.config.minimum} required "
                f"updates, {self._short + 1} times in a row (left out: {dict(updates.left_out)}): {cure}"
            )
        time.sleep(SHORT_ROUND_PAUSES[self._short])
        self._short += 1

    def _cure(self, absent: Collection[int]) -> str:
        """The last events of a few parts of the fleet with ``absent`` devices, and a cure."""
        folder = self.directory.path
        parts = self.parts.values() or [range(self.config.devices)]
        last = {last_words(folder, {device for device in absent if device in part}) for part in parts} - {""}
        words = "".join(f"{each.rstrip('.')}. " for each in sorted(last)[:MAX_REPORTED])
        return f"{words}Check the devices listed in {folder}/events.jsonl"

    def _save(self) -> None:
        self._metrics.save()
        self._log.save()
        snapshot = self._snapshot
        self.directory.save_checkpoint(
            Checkpoint(
                snapshot.state,
                *self.hashes,
                snapshot.left_out,
                self._seconds(),
                snapshot.losses,
                self._run_number,
                self._kept.rounds if self._kept else None,
            )
        )
        self._saved_round, self._saved_at = snapshot.state.round, time.monotonic()

    def _log_round(self, updates: Updates, counts: bool) -> None:
        """Logs the round that has just ended: its cohort, the absent devices by reason, and its seconds by node."""
        now, config = time.monotonic(), self.config
        record = {
            "round": self._snapshot.state.round + 1,
            "counts": counts,
            "cohort": spans(draw_cohort(config.seed, self._snapshot.state.round, config.cohort, config.devices)),
            "updates": updates.devices,
            "absent": _spans_by_reason(updates.absent),
            "seconds": round(now - self._round_began, 4),
            "nodes": {name: {what: round(s, 3) for what, s in spent.items()} for name, spent in self.grid.spent().items()},
        }
        self._log.add(record)
        self._round_began = now

    def _log_stretch(self, stretch: Stretch) -> None:
        """Logs rounds one after another, as _log_round does. Their seconds are equal shares."""
        now, first, config, rounds = time.monotonic(), self._snapshot.state.round, self.config, len(stretch.loss)
        cohorts = draw_cohorts(config.seed, range(first, first + rounds), config.cohort, config.devices)
        seconds, absent = round((now - self._round_began) / rounds, 4), stretch.absent
        left_out = {number: json.dumps(_spans_by_reason(each)) for number, each in absent.items()}
        self._log.add_lines(
            f'{{"round": {first + number + 1}, "counts": true, "cohort": "{cohort}", '
            f'"updates": {config.cohort - len(absent.get(number, ()))}, "absent": {left_out.get(number, "{}")}, '
            f'"seconds": {seconds}, "nodes": {{}}}}'
            for number, cohort in enumerate(spans_of_rows(cohorts.astype(np.int64)))
        )
        self._round_began = now

    def _record(self, done: int, losses: Sequence[float], left_out: Mapping[str, int]) -> None:
        loss = float(np.mean(losses)) if losses else float("nan")
        record = {
            "round": done,
            "loss": loss if np.isfinite(loss) else None,
            "left_out": dict(left_out),
        }
        self._metrics.add(record)
        if self.progress:
            speed = done * self.config.cohort / max(self._seconds(), 1e-9)
            self.progress(Progress("learning", done, self.config.rounds, loss, speed))


def _spans_by_reason(absent: Mapping[int, str]) -> Mapping[str, str]:
    """The absent devices by reason."""
    devices: dict[str, list[int]] = {}
    for device in sorted(absent):
        devices.setdefault(absent[device], []).append(device)
    return {reason: spans(each) for reason, each in devices.items()}
