"""A run's figures as tables of plain values, for spreadsheets, notebooks and plots of one's own."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyfl.errors import ConfigError
from tinyfl.errors.words import visible
from tinyfl.fleet import Carried, ends_of, summed_parts
from tinyfl.runs.directory import ROUNDS, RunDirectory
from tinyfl.runs.metrics import devices_in
from tinyfl.runs.records import RoundRecord

Row = dict[str, Any]


def table(run: Path | str, name: str = "metrics") -> list[Row]:
    """The rows of one of TABLES of the run in the directory ``run``, all with the same keys. Losses that are not finite are
    None. ``metrics`` and ``rounds`` are also those of a run that has not finished.

    Raises RunError for a directory without a run, or without this table yet; ConfigError for an unknown name.
    """
    if name not in TABLES:
        raise ConfigError(f"no table is called {name!r}. There are {', '.join(TABLES)}.")
    directory = RunDirectory(Path(run))
    directory.config()
    return TABLES[name](directory)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Comma-separated values under a line of names; None is empty. Control characters but line breaks and tabs are replaced."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    # csv quotes no carriage return, which would end the line.
    writer.writerows({key: visible(each) if isinstance(each, str) else each for key, each in row.items()} for row in rows)
    return text.getvalue() if rows else ""


def _metrics(directory: RunDirectory) -> list[Row]:
    return [
        {"round": record["round"], "loss": record["loss"], "left_out": sum(record.get("left_out", {}).values())}
        for record in directory.metrics()
    ]


def _rounds(directory: RunDirectory) -> list[Row]:
    def row(record: RoundRecord) -> Row:
        more = record.model_extra or {}
        absent = sum(map(devices_in, record.absent.values()))
        of_log = {key: more.get(key) for key in ("cohort", "updates", "seconds")}
        return {"round": record.round, "counts": record.counts, "loss": record.loss, "absent": absent, **of_log}

    return [row(record) for _, record in directory.records(ROUNDS, RoundRecord)]


def joined(directory: RunDirectory) -> list[int]:
    """For each round that counts, the number of its devices that did not take part in the round before."""
    found, before = list[int](), set[int]()
    for _, record in directory.records(ROUNDS, RoundRecord):
        cohort = {n for first, last in ends_of((record.model_extra or {}).get("cohort", "")) for n in range(first, last + 1)}
        if record.counts:
            found.append(len(cohort - before))
        before = cohort
    return found


def line_of(directory: RunDirectory) -> dict[str, Carried]:
    """What the lines of boards carried in all rounds, by part."""
    rounds = (record.line.items() for _, record in directory.records(ROUNDS, RoundRecord))
    return summed_parts({part: each.carried() for part, each in parts} for parts in rounds)


METRICS = {"accuracy": "accuracy", "macro_ap": "macro average precision", "loss": "mean squared error"}
"""The keys of metrics, with their names."""


def metric(rows: Sequence[Mapping[str, Any]]) -> str:
    """The key of the rows' metric: accuracy for classification, macro average precision for labels, else loss."""
    if any(row.get("macro_ap") is not None for row in rows):
        return "macro_ap"
    return "loss" if all(row["accuracy"] is None for row in rows) else "accuracy"


def evaluation_rows(result: Mapping[str, Any]) -> list[Row]:
    """The evaluation and the baseline of a run's ``result``, as rows of one table."""
    return [{"weights": name, **row} for name, key in (("learnt", "evaluation"), ("start", "baseline")) for row in result[key]]


def _evaluation(directory: RunDirectory) -> list[Row]:
    return evaluation_rows(directory.result())


def _validation(directory: RunDirectory) -> list[Row]:
    return list(directory.result().get("validation", []))


def _devices(directory: RunDirectory) -> list[Row]:
    found = directory.result().get("per_device") or {"devices": []}
    figures = [(figure, when) for when in ("before", "after") for figure in ("loss", "accuracy")]
    return [
        {
            "device": row["device"],
            "draws": row["draws"],
            **{f"{figure}_{when}": row[when][figure] for figure, when in figures},
        }
        for row in found["devices"]
    ]


TABLES: dict[str, Callable[[RunDirectory], list[Row]]] = {
    "metrics": _metrics,
    "rounds": _rounds,
    "evaluation": _evaluation,
    "validation": _validation,
    "devices": _devices,
}
