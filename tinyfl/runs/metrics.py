"""metrics.jsonl: the devices' mean loss in about as many records for a run of any length. It follows from rounds.jsonl."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np

from tinyfl.fleet import ends_of
from tinyfl.runs.records import RoundRecord

METRICS_RECORDS = 500
"""Approximate number of records in metrics.jsonl, for a run of any length."""

MAX_REASONS = 32
"""Maximum number of reasons with counts of their own, since nodes choose them; the rest count as ``other``."""


@dataclass(frozen=True)
class Tally:
    """The rounds so far: the number of devices left out by reason, and the losses since the last record."""

    left_out: Counter[str] = field(default_factory=Counter)
    losses: tuple[float, ...] = ()

    def after(
        self, rounds: range, losses: Sequence[float], left_out: Mapping[int, Mapping[str, int]], total: int
    ) -> tuple["Tally", list[dict[str, Any]]]:
        """Counts the next ``rounds``, numbered from 1, of a run of ``total``: the loss of each, and the devices left out of
        some of them by round and reason. Returns the records of metrics.jsonl that they complete too."""
        every, counts, pending = max(1, total // METRICS_RECORDS), self.left_out.copy(), list(self.losses)
        records = []
        for done, loss in zip(rounds, losses, strict=True):
            for reason, count in left_out.get(done, {}).items():
                known = reason in counts or len(counts) < MAX_REASONS
                counts[reason if known else "other"] += count
            if isfinite(loss):
                pending.append(loss)
            if done % every == 0 or done == total:
                mean = float(np.mean(pending)) if pending else float("nan")
                records.append({"round": done, "loss": mean if isfinite(mean) else None, "left_out": dict(counts)})
                pending = []
        return Tally(counts, tuple(pending)), records


def tallied(rounds: Sequence[RoundRecord], done: int, total: int) -> tuple[Tally, list[dict[str, Any]]] | None:
    """The tally and the records of the first ``done`` rounds of a run of ``total``, from rounds.jsonl. None if some are missing
    there, or an older tinyfl logged them without losses."""
    counted = [each for each in rounds if each.counts]
    known = [each.round for each in counted if "loss" in each.model_fields_set]
    if known != list(range(1, done + 1)):
        return None
    tally, records = Tally(), list[dict[str, Any]]()
    for each in counted:
        loss = float("nan") if each.loss is None else each.loss
        left_out = {reason: devices_in(spans) for reason, spans in each.absent.items()}
        tally, more = tally.after(range(each.round, each.round + 1), [loss], {each.round: left_out}, total)
        records += more
    return tally, records


def devices_in(spans: str) -> int:
    """The number of devices in ``spans``, such as 0-7,9."""
    return sum(last + 1 - first for first, last in ends_of(spans))
