"""Evaluation in the course of a run, on validation devices: it keeps the best theta, and may stop the run early."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinyfl.core import F32, FASTEST, Engine
from tinyfl.networks import Network
from tinyfl.runs import elsewhere
from tinyfl.runs.elsewhere import Elsewhere
from tinyfl.runs.evaluation import Adaptation, Tried, best_rate, plain_adaptation
from tinyfl.runs.records import MAX_LOSS, ValidationRow
from tinyfl.tasks import Task

Validate = Callable[[int, F32], ValidationRow]
"""Measures a theta after a number of rounds."""


@dataclass(frozen=True)
class Validation:
    """The evaluations so far, in order, and the theta of the best one, float32 (parameters,); None before there is one."""

    rows: tuple[ValidationRow, ...] = ()
    theta: F32 | None = None

    @property
    def best(self) -> ValidationRow | None:
        """The first of the best evaluations: by accuracy for classification, else by loss. None if every one diverged."""
        usable = [row for row in self.rows if row.adapt_lr is not None]
        return max(usable, key=lambda row: -(row.loss or 0.0) if row.accuracy is None else row.accuracy, default=None)

    def after(self, row: ValidationRow, theta: F32) -> "Validation":
        """With one more evaluation, of ``theta``."""
        more = Validation((*self.rows, row), theta)
        return more if more.best is row else Validation(more.rows, self.theta)

    def stops(self, patience: int) -> bool:
        """Whether as many evaluations as ``patience`` have passed since the best one; never if it is 0."""
        since = len(self.rows) - (self.rows.index(self.best) + 1 if self.best else 0)
        return 0 < patience <= since

    def as_json(self) -> dict[str, Any]:
        """For a run's JSON; empty if there are none."""
        if not self.rows:
            return {}
        return {"validation": [row.model_dump() for row in self.rows], "best_round": self.best.round if self.best else None}

    def words(self, rounds: int, done: int) -> list[str]:
        """Notes on a run that ended after ``done`` of its ``rounds``."""
        if not self.rows:
            return []
        if self.best is None:
            return ["validation: adaptation diverged at every evaluation; theta is that of the last round"]
        row = self.best
        figure = f"loss {row.loss:.4g}" if row.accuracy is None else f"accuracy {100 * row.accuracy:.1f} %"
        early = f"; stopped early after round {done:,} of {rounds:,}" if done < rounds else ""
        return [f"validation: best after round {row.round:,} ({figure}), whose theta is the result{early}"]


def validator(
    task: Task,
    network: Network,
    *,
    shots: int,
    adapt_lr: float | None,
    clip: float,
    gradients: int,
    adaptation: Adaptation = plain_adaptation,
    engine: Engine = FASTEST,
) -> Validate:
    """What measures a theta on validation devices, after LEADING_STEPS full-batch steps on ``shots`` samples; with ``adapt_lr``
    None at the best rate. A round takes ``gradients`` sample gradients. A loss of values is in the squared unit of the user's
    targets."""
    unit = task.standardisation.squared_unit if task.standardisation else 1.0

    rates = (adapt_lr,) if adapt_lr else None

    def tried(theta: F32) -> Tried | None:
        if isinstance(task, Elsewhere):
            return elsewhere.best_rate(task, network, theta, "batch", shots, clip, adaptation, rates)
        return best_rate(task, network, theta, "batch", shots, clip, engine, adaptation, rates)

    def validate(rounds: int, theta: F32) -> ValidationRow:
        found = tried(theta)
        loss = found.loss * unit if found and found.loss * unit <= MAX_LOSS else None
        if found is None or (loss is None and not network.classifies):
            return ValidationRow(round=rounds, adapt_lr=None, loss=None, accuracy=None, sample_gradients=rounds * gradients)
        over = elsewhere.spread(task, network, theta, shots, found.rate, clip, adaptation)
        return ValidationRow(
            round=rounds,
            adapt_lr=found.rate,
            loss=loss,
            accuracy=found.accuracy if network.classifies else None,
            deviation=over.deviation if over.deviation <= MAX_LOSS else None,
            devices=over.devices,
            sample_gradients=rounds * gradients,
        )

    return validate
