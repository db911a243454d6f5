"""The figure of a study: what its lines reach against sample gradients, bytes over the link, and a device's RAM."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyfl.report import html
from tinyfl.report.figures import (
    BACKGROUND,
    MAX_LABEL_CHARS,
    STYLES,
    canvas,
    legend,
    logarithmic,
    numbers,
    png,
    styled,
)
from tinyfl.runs.tables import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]

MARKS = "osD^vP*X"
"""Of lines, in the order of STYLES."""


def panels(rows: Sequence[Row], labels: Sequence[str], reached: Sequence[Row], ram: Sequence[float], key: str) -> bytes:
    """Three panels side by side. ``reached`` is what each of ``rows`` reaches in the end, with its interval, and ``ram`` a
    device's RAM in bytes. Lines beyond those that can be told apart are grey: the best are not."""
    looks = _looks(reached, key)
    with styled():
        figure = canvas(2.9 + 0.09 * min(len(rows), len(STYLES)))
        of_gradients, of_bytes, of_ram = figure.subplots(1, 3, sharey=True)
        for row, label, end, bytes_of_ram, look in zip(rows, labels, reached, ram, looks, strict=True):
            _course(of_gradients, row, "gradients", label, look)
            _course(of_bytes, row, "bytes", "", look)
            _end(of_gradients, row["gradients"], end, look)
            _end(of_bytes, row["down"] + row["up"], end, look)
            _end(of_ram, bytes_of_ram, end, look)
        for ax, what in ((of_gradients, "sample gradients"), (of_bytes, "over the links"), (of_ram, "RAM of a device")):
            ax.set_xlabel(what)
            ax.margins(x=0.08, y=0.12)
            ax.xaxis.set_major_formatter(_millions if ax is of_gradients else lambda value, _: html.size(max(value, 0)))
            ax.xaxis.set_major_locator(_few())
        of_gradients.set_ylabel(METRICS[key])
        if key != "loss":
            of_gradients.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        else:
            seen = [point["mean"] for row in rows for point in row["curve"]] + [end["mean"] for end in reached]
            logarithmic(of_gradients, "y", numbers(seen))
        _frame(of_gradients, rows, reached, key)
        legend(figure, of_gradients)
        return png(figure)


def _frame(ax: "Axes", rows: Sequence[Row], reached: Sequence[Row], key: str) -> None:
    """Sets the height by the means, which wide intervals of few seeds would else make flat."""
    seen = numbers([point["mean"] for row in rows for point in row["curve"]] + [end["mean"] for end in reached])
    seen = seen[np.isfinite(seen)]
    if seen.size and key == "loss" and seen.min() > 0:
        ax.set_ylim(seen.min() / 1.6, seen.max() * 1.6)
    elif seen.size and key != "loss":
        room = max(0.25 * (seen.max() - seen.min()), 0.02)
        ax.set_ylim(max(seen.min() - room, 0), min(seen.max() + room, 1.005))


Look = tuple[str, str, str]
"""Colour, line style and mark; the mark of a line in the background is empty."""


def _looks(reached: Sequence[Row], key: str) -> list[Look]:
    values = numbers([end["mean"] for end in reached])
    worst = np.where(np.isfinite(values), -values if key != "loss" else values, np.inf)
    named = range(len(reached)) if len(reached) <= len(STYLES) else np.argsort(worst, kind="stable")[: len(STYLES)].tolist()
    looks = dict.fromkeys(range(len(reached)), (BACKGROUND, "-", ""))
    looks |= {i: (*style, mark) for i, style, mark in zip(named, STYLES, MARKS, strict=False)}
    return [looks[i] for i in range(len(reached))]


def _course(ax: "Axes", row: Row, over: str, label: str, look: Look) -> None:
    """The evaluations on validation devices in the course of the runs."""
    colour, dashes, mark = look
    x, mean = (numbers([point[name] for point in row["curve"]]) for name in (over, "mean"))
    half = numbers([point["ci95"] for point in row["curve"]])
    text = (f" {label}" if label.startswith("_") else label)[:MAX_LABEL_CHARS] if mark else ""  # no label begins with _
    ax.plot(x, mean, color=colour, ls=dashes, lw=1.6 if mark else 0.7, marker=mark if not len(x) else "", label=text or None)
    if mark and np.isfinite(half).any():
        ax.fill_between(x, mean - half, mean + half, color=colour, alpha=0.12, lw=0)


def _end(ax: "Axes", x: float, end: Row, look: Look) -> None:
    """What unseen devices reach in the end, with its interval."""
    if end["mean"] is not None:
        colour, _, mark = look
        ax.errorbar(x, end["mean"], yerr=end["ci95"] or 0, color=colour, marker=mark or ".", ms=5, capsize=2, lw=1)


def _millions(value: float, _: object) -> str:
    return f"{value / 1e6:g} M" if abs(value) >= 1e6 else f"{value / 1e3:g} k" if value else "0"


def _few() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)
