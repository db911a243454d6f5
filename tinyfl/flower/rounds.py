"""The rounds of a run over Flower: metrics, checkpoints, and the conditions that end it."""

import json
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyfl.algorithms import Algorithm, State, Updates
from tinyfl.codecs.down import PLAIN, Down
from tinyfl.config import Config
from tinyfl.config.roster import named
from tinyfl.core import U32
from tinyfl.errors import ConfigError, DoesNotFit, NoLink, RunError, TooSmall, TrainingError
from tinyfl.fleet import Event, Stretch, spans, spans_of_rows
from tinyfl.flower.kept import KeptRounds
from tinyfl.flower.lines import as_json
from tinyfl.flower.quiet import QUIET
from tinyfl.runs.directory import CHECKPOINT, METRICS, ROUNDS, Checkpoint, RunDirectory
from tinyfl.runs.failures import diverged, failed, last_words
from tinyfl.runs.hashes import data_sha256, network_sha256
from tinyfl.runs.metrics import Tally
from tinyfl.runs.validation import Validate, Validation
from tinyfl.sampling import Sampler, Uniform
from tinyfl.system.interrupts import interrupt_message

if TYPE_CHECKING:
    from tinyfl.flower.grid import FleetAddresses

CHECKPOINT_SECONDS = float(os.environ.get("TINYFL_CHECKPOINT_SECONDS", "2"))
SHORT_ROUND_PAUSES = (1.0, 3.0, 10.0)
"""Pauses in seconds before a round with too few updates is repeated; after the last one the run stops."""

MAX_REPORTED = 3
"""Maximum number of a fleet's parts quoted in the message that ends a run."""


@dataclass(frozen=True)
class Progress:
    """The progress of a run, for display. ``loss`` is the cohorts' mean since the last report."""

    stage: str
    done: int
    total: int
    loss: float = float("nan")
    device_rounds_per_s: float = 0.0

    @property
    def figures(self) -> str:
        """Loss and speed, while learning."""
        return f"loss {self.loss:.4g} · {self.device_rounds_per_s:,.0f} device-rounds/s" if self.stage == "learning" else ""

    def __str__(self) -> str:
        counted = f"{self.stage}: {self.done:,} of {self.total:,}"
        return f"{counted} · {self.figures}" if self.figures else counted


@dataclass(frozen=True)
class Outcome:
    """The result of the rounds: the last state, or with evaluations the best theta in it; their seconds, the number of devices
    left out by reason, the privacy spent if noise was added, the parts of the fleet that never sent an update, and the
    evaluations."""

    state: State
    seconds: float
    left_out: Mapping[str, int]
    privacy: Mapping[str, Any] | None
    failed: Mapping[str, str]
    validation: Validation


@dataclass(frozen=True)
class _Snapshot:
    """A run between two rounds."""

    state: State
    tally: Tally = field(default_factory=Tally)
    validation: Validation = field(default_factory=Validation)


class Federation:
    """The rounds of one run over ``grid``, from ``start`` or from the directory's checkpoint. Reported losses are multiplied by
    ``unit``. ``validate`` measures a theta for a config with ``evaluate_every``. ``sites`` is a hash of the data that
    sites bring along, and ``down`` how theta goes down."""

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
        validate: Validate | None = None,
        sites: str = "",
        sampler: Sampler | None = None,
        down: Down = PLAIN,
    ) -> None:
        self.directory, self.config, self.algorithm, self.progress = directory, config, algorithm, progress
        self.on_event, self.parts = on_event, grid.parts() or named(config.fleet)
        self.grid, self.unit, self._snapshot = grid, unit, _Snapshot(start)
        self._down = down
        self._sampler: Sampler = sampler or Uniform(config.seed, config.cohort, config.devices)
        self._validate = validate if config.evaluate_every else None
        self.hashes, self.sites = (config.sha256(), data_sha256(config), network_sha256(config)), sites
        self.seconds_before = 0.0
        self._saved_round = self._short = 0
        self._changed = False
        self._run_number = secrets.randbits(62) + 1
        self._kept: KeptRounds | None = None

    def run(self) -> Outcome:
        """Runs from the checkpoint to the last round. An interrupt leaves a checkpoint of the last complete round,
        unless devices keep something: they only know the way back to a checkpoint that they were told of."""
        import tinyfl.flower.strategy  # noqa: F401 (Flower takes half a second to load: before the clock starts)
        from tinyfl.aggregators import aggregator, privacy_spent
        from tinyfl.aggregators.memory import attributes

        self._restore()
        self.directory.trim(self._snapshot.state.round)
        self._restate()
        self._began = self._saved_at = self._round_began = time.monotonic()
        with self.directory.log(METRICS) as self._metrics, self.directory.log(ROUNDS) as self._log, QUIET:
            self._aggregator = aggregator(self.config, self._snapshot.state.round)
            self._aggregator_before = attributes(self._aggregator)
            with interrupt_message(self._status):
                try:
                    self._rounds()
                except KeyboardInterrupt:
                    if not self.algorithm.inner(self._snapshot.state.round).keeps:
                        self._save()
                    raise
        state, left_out, validation = self._snapshot.state, self._snapshot.tally.left_out, self._snapshot.validation
        if sum(left_out.values()) >= state.round * self.config.per_round:
            raise TrainingError(
                f"not one of {state.round * self.config.per_round:,} updates was usable ({dict(left_out)}): "
                f"{diverged(left_out, self.config) or self._cure(range(self.config.devices)) + '.'}"
            )
        without = failed(self.directory.path, self.parts)
        best = state if validation.theta is None else replace(state, theta=validation.theta)
        return Outcome(best, self._seconds(), left_out, privacy_spent(self._aggregator), without, validation)

    def _status(self) -> str:
        return (
            f"stopped after round {self._saved_round:,} of {self.config.rounds:,}. Go on with: {self.directory.resume_command}"
        )

    def _rounds(self) -> None:
        self._learn()
        if (held := self._validated(self._snapshot.state)) is not self._snapshot.validation:  # the run got fewer rounds
            self._snapshot = replace(self._snapshot, validation=held)
        if self._saved_round < self._snapshot.state.round:
            self._save()

    def _learn(self) -> None:
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
            sampler=self._sampler,
            minimum=self.config.minimum,
            run=self._run_number,
            down=self._down,
            saved=lambda: self._saved_round,
            on_round=self._on_round,
            on_short=self._on_short,
            on_stretch=self._on_stretch,
            on_event=self.on_event,
        )
        while (done := self._snapshot.state.round) < self.config.rounds and not self._stops():
            every = self.config.evaluate_every or self.config.rounds
            strategy.until = min(done - done % every + every, self.config.rounds)
            while left := strategy.messages(self.grid):
                strategy.start(self.grid, theta_record(self._snapshot.state.theta), num_rounds=left)

    def _stops(self) -> bool:
        """Whether the run stops early."""
        return self._snapshot.validation.stops(self.config.patience)

    def _validated(self, state: State) -> Validation:
        """The evaluations with the one of ``state``, if one is due there."""
        held, every = self._snapshot.validation, self.config.evaluate_every
        if self._validate is None or (held.rows and held.rows[-1].round == state.round):
            return held
        due = state.round % every == 0 or state.round == self.config.rounds
        return held.after(self._validate(state.round, state.theta), state.theta) if due else held

    def _restore(self) -> None:
        checkpoint = self.directory.checkpoint()
        if checkpoint is None:
            return
        self.directory.demand_config(checkpoint, self.hashes[0])
        held = checkpoint.data_sha256, checkpoint.network_sha256, checkpoint.sites_sha256
        for key, before, now in zip(("data", "network", ""), held, (*self.hashes[1:], self.sites), strict=True):
            if before != now:
                what = getattr(self.config, key) if key else "the data of the sites"
                copy = f"give --{key} another copy of what it was, " if key else ""
                raise RunError(
                    f"{what} was changed since the run started, so it cannot be resumed. "
                    f"Restore it, {copy}or start a new run with another --out."
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
        self._snapshot = _Snapshot(
            checkpoint.state, Tally(Counter(checkpoint.left_out), checkpoint.losses), checkpoint.validation
        )
        self._changed = bool(checkpoint.next_sha256)
        self._saved_round = checkpoint.state.round
        self.seconds_before = checkpoint.seconds

    def _restate(self) -> None:
        """Writes the metrics again if the run's config has changed, since the number of rounds determines their records."""
        done = self._snapshot.state.round
        if self._changed and (tally := self.directory.restate_metrics(done, self.config.rounds)):
            self._snapshot = replace(self._snapshot, tally=tally)

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
        before = state.round - len(losses)
        by_round = {before + number + 1: counts for number, counts in left_out.items()}
        rounds = range(before + 1, state.round + 1)
        tally, records = self._snapshot.tally.after(rounds, [loss * self.unit for loss in losses], by_round, self.config.rounds)
        for record in records:
            self._record(record)
        validation = self._validated(state)
        # In one step: an interrupt finds the run before these rounds or after them.
        self._snapshot = _Snapshot(state, tally, validation)
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
            how = f"started from that of round {found:,}" if found else "started without it"
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
                f"{self.config.smaller}"
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
        from tinyfl.aggregators.memory import remembered

        self._metrics.save()
        self._log.save()
        snapshot = self._snapshot
        self.directory.save_checkpoint(
            Checkpoint(
                snapshot.state,
                *self.hashes,
                snapshot.tally.left_out,
                self._seconds(),
                snapshot.tally.losses,
                self._run_number,
                self._kept.rounds if self._kept else None,
                validation=snapshot.validation,
                sites_sha256=self.sites,
                remembered=remembered(self._aggregator, self._aggregator_before),
            )
        )
        self._saved_round, self._saved_at = snapshot.state.round, time.monotonic()

    def _cohorts(self, rounds: int) -> U32:
        """The devices of each of the next ``rounds``, uint32 (rounds, cohort)."""
        state = self._snapshot.state
        return self._sampler.cohorts(range(state.round, state.round + rounds), state)

    def _log_round(self, updates: Updates, counts: bool) -> None:
        """Logs the round that has just ended: its cohort, the absent devices by reason, and its seconds by node."""
        now = time.monotonic()
        self._log.add(self._record_of(updates, counts, now - self._round_began))
        self._round_began = now

    def _record_of(self, updates: Updates, counts: bool, seconds: float) -> dict[str, Any]:
        """The record of a round in rounds.jsonl."""
        line = as_json(self.grid.carried())
        return {
            "round": self._snapshot.state.round + 1,
            "counts": counts,
            "cohort": spans(self._cohorts(1)[0]),
            "updates": updates.devices,
            "loss": _number(updates.loss * self.unit),
            "absent": _spans_by_reason(updates.absent),
            "seconds": round(seconds, 4),
            "nodes": {name: {what: round(s, 3) for what, s in spent.items()} for name, spent in self.grid.spent().items()},
            **({"line": line} if line else {}),
        }

    def _log_stretch(self, stretch: Stretch) -> None:
        """Logs rounds one after another, as _log_round does. Their seconds are equal shares."""
        now, first, config, rounds = time.monotonic(), self._snapshot.state.round, self.config, len(stretch.loss)
        cohorts = self._cohorts(rounds)
        seconds, absent = round((now - self._round_began) / rounds, 4), stretch.absent
        losses = json.dumps([_number(loss * self.unit) for loss in stretch.loss.tolist()])[1:-1].split(", ")
        left_out = {number: json.dumps(_spans_by_reason(each)) for number, each in absent.items()}
        self._log.add_lines(
            f'{{"round": {first + number + 1}, "counts": true, "cohort": "{cohort}", '
            f'"updates": {config.cohort - len(absent.get(number, ()))}, "loss": {losses[number]}, '
            f'"absent": {left_out.get(number, "{}")}, '
            f'"seconds": {seconds}, "nodes": {{}}}}'
            for number, cohort in enumerate(spans_of_rows(cohorts.astype(np.int64)))
        )
        self._round_began = now

    def _record(self, record: Mapping[str, Any]) -> None:
        self._metrics.add(record)
        if self.progress:
            done, loss = record["round"], float("nan") if record["loss"] is None else record["loss"]
            speed = done * self.config.per_round / max(self._seconds(), 1e-9)
            self.progress(Progress("learning", done, self.config.rounds, loss, speed))


def _number(value: float) -> float | None:
    """For JSON, which has no other numbers than finite ones."""
    return value if isfinite(value) else None


def _spans_by_reason(absent: Mapping[int, str]) -> Mapping[str, str]:
    """The absent devices by reason."""
    devices: dict[str, list[int]] = {}
    for device in sorted(absent):
        devices.setdefault(absent[device], []).append(device)
    return {reason: spans(each) for reason, each in devices.items()}
