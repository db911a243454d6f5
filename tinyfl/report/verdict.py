"""The verdict on a finished run in words: above all whether it beats the methods without a network.

``result`` is a run's JSON throughout; the rows of its evaluation and floor come from tinyfl.runs.evaluation.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

from tinyfl.config import Config
from tinyfl.config.defaults import defaults
from tinyfl.report import html
from tinyfl.runs.evaluation import after_words, leads
from tinyfl.runs.failures import diverged
from tinyfl.runs.floors import MAJORITY, NEAREST_MEAN, SUPPORT_MEAN

Row = Mapping[str, Any]

_WORDS = {
    MAJORITY: "the class that most of them have",
    NEAREST_MEAN: "the nearest class mean of the same samples",
    SUPPORT_MEAN: "the mean of the same samples' values",
}


def method(floor: Row) -> str:
    """The method of a row of the floor; rows of an older tinyfl do not name it."""
    return str(floor.get("method", NEAREST_MEAN))


def reached(row: Row) -> str:
    """A row's result as text: accuracy for classification, macro average precision for labels, else loss."""
    if row.get("macro_ap") is not None:
        return html.percent(row["macro_ap"], row.get("macro_ap_ci95"))
    if row.get("accuracy") is not None:
        return html.percent(row["accuracy"], row["accuracy_ci95"])
    return html.loss(row["loss"], row["loss_ci95"])


def interval(rows: Sequence[Row]) -> str:
    """What ± is in these rows, or why there is none."""
    if {row.get("tasks") for row in rows} == {1}:
        return "no ±: a single device was held out, so how others would do is unknown"
    return "± half of a 95 % interval over devices"


def of_values(row: Row) -> list[str]:
    """The mean absolute error and R² of a row as text; empty where a device diverged."""
    if row.get("mae") is None:
        return ["", ""]
    return [html.loss(row["mae"], row["mae_ci95"]), "" if row.get("r2") is None else f"{row['r2']:.3f}"]


LABELS = {
    "macro_ap": "macro AP", "micro_ap": "micro AP", "macro_f1_flair": "macro F1 (FLAIR)", "macro_f1_sklearn": "macro F1",
    "micro_f1": "micro F1",
}  # fmt: skip
"""The scores of labels that tables have, with their names."""


def of_labels(row: Row) -> list[str]:
    """The LABELS of a row as text; empty where a device diverged."""
    return ["" if row.get(key) is None else html.percent(row[key], row.get(f"{key}_ci95")) for key in LABELS]


def leading(rows: list[Row], shots: int | None = None) -> Row:
    """The row that reports lead with, for ``shots`` or, with None, for the fewest."""
    return next(row for row in rows if leads(row) and shots in (None, row["shots"]))


def verdict(result: Row, config: Config) -> str:
    """A warning if a run is worse than its floor: the difference, and a cure. Else empty."""
    worse = result["worse_than_floor"]
    if not worse:
        return ""
    floor = worse[-1]
    row = leading(result["evaluation"], floor["shots"])
    what = "err by (squared)" if floor["accuracy"] is None else "are right in"
    if floor.get("macro_ap") is not None:
        what = "reach a macro average precision of"
    return (
        f"Worse than without a network: {after_words(result['evaluation'])} on {html.counted(floor['shots'], 'shot')} unseen "
        f"devices {what} {reached(row)}; {_WORDS[method(floor)]} alone gives {reached(floor)}. {_advice(result, config, floor)}"
    )


def _advice(result: Row, config: Config, floor: Row) -> str:
    """A cure that has helped such runs (bench/floors.py)."""
    if config.unscaled or diverged(result["left_out"], config):
        return config.calmer
    outliers = config.own_data and method(floor) == SUPPORT_MEAN
    usual = defaults(config.chosen("task"), config.chosen("algorithm"))["rate"]
    # On data of one's own a smaller rate may be the one that tinyfl.config.fitting has chosen.
    given = config.rate > usual if config.own_data else config.rate != usual
    return (
        f"Give more --rounds than {config.rounds:,}"
        + (", or leave --rate to its default" if given else "")
        + (", or remove rows with a wrong y: a single outlier determines the scale of all." if outliers else ".")
    )


def without_a_network(result: Row) -> list[str]:
    """Results without a network that the table lacks, for values and labels beside other scores of the leading row."""
    rows = {(row["shots"], method(row)): row for row in result["floor"]}
    lines = [f"majority, {html.counted(s, 'shot')}: {reached(row)}" for (s, name), row in rows.items() if name == MAJORITY]
    for (shots, name), floor in rows.items():
        if name != SUPPORT_MEAN or not floor["loss"]:
            continue
        row = leading(result["evaluation"], shots)
        if floor.get("macro_ap") is not None:
            lines.append(_of_labels_words(html.counted(shots, "shot"), row))
            lines.append(_of_labels_words(f"{html.counted(shots, 'shot')}, {name}", floor))
            continue
        found = []
        if row.get("mae") is not None:
            mae, r2 = of_values(row)
            found = [f"mean absolute error {mae}", *([f"R² {r2}"] if r2 else [])]
        if html.known(row["loss"]):
            found.append(f"root mean square error {sqrt(row['loss']):.3g}, where the {name} has {sqrt(floor['loss']):.3g}")
        if found:
            lines.append(f"{html.counted(shots, 'shot')}: {', '.join(found)}")
    return lines


def _of_labels_words(what: str, row: Row) -> str:
    scores = [f"{name} {text}" for name, text in zip(LABELS.values(), of_labels(row), strict=True) if text]
    scores.append(f"cross-entropy {html.loss(row['loss'], row['loss_ci95'])}")
    return f"{what}: {', '.join(scores)}"
