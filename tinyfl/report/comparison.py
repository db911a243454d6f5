"""Which of many runs a comparison's figure names, and how each is drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tinyfl.errors.words import plain
from tinyfl.report import html
from tinyfl.report.figures import BACKGROUND, MAX_LABEL_CHARS, STYLES, Curve
from tinyfl.report.verdict import leading
from tinyfl.runs.tables import metric

Result = Mapping[str, Any]


def curves_of(names: Sequence[str], results: Sequence[Result]) -> list[Curve]:
    """The runs' curves in their order; of more than can be told apart the best, then the others for the background."""
    order = range(len(results)) if len(results) <= len(STYLES) else _ranked(results)
    curves = [
        Curve(plain(names[i], MAX_LABEL_CHARS), results[i]["evaluation"], *style)
        for i, style in zip(order, STYLES, strict=False)
    ]
    others = [Curve("", results[i]["evaluation"], BACKGROUND, faint=True) for i in order[len(STYLES) :]]
    if others:
        others[0] = replace(others[0], label=f"the other {html.counted(len(others), 'run')}")
    return [*curves, *others]


def named_in(results: Sequence[Result]) -> str:
    """What a figure's caption says of the runs that it names; empty if it names all."""
    if len(results) <= len(STYLES):
        return ""
    row = leading(results[0]["evaluation"])
    shots = html.counted(row["shots"], "shot")
    return f"In colour: the {len(STYLES)} best after {row['steps']} full-batch steps on {shots}, best first. "


def _ranked(results: Sequence[Result]) -> list[int]:
    """The indices of the results, best first, by their leading rows."""
    rows = [leading(result["evaluation"]) for result in results]
    key = metric(rows)

    def loss(i: int) -> float:
        value = rows[i][key]
        return float("inf") if not html.known(value) else value if key == "loss" else -value

    return sorted(range(len(rows)), key=loss)
