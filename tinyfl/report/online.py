"""The page of devices that learnt online: the figure over time, and each change."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyfl.online.prequential import PAGE
from tinyfl.report import html
from tinyfl.report.figures import BLUE, GREY, ORANGE, VERMILION, canvas, drawn, legend, numbers, png, styled
from tinyfl.system.files import write_whole

LINES = (("figure", "online", BLUE, "-"), ("static", "the model as it was trained", VERMILION, "--"),
         ("last_label", "always the last label", ORANGE, ":"))  # fmt: skip


def write_page(out: Path, result: Mapping[str, Any]) -> Path:
    """Writes the page of ``result`` (tinyfl.online) into the directory ``out``, and returns its path."""
    what = result["figure"]
    stream = result["task"] or Path(result["data"]).name
    beside = "" if result["static"] is None else f", the model as it was trained {figure(result['static'], what)}"
    last = (
        "" if result["last_label"] is None
        else f" Always guessing the last label that came gives {figure(result['last_label'], what)}, for the order alone."
    )  # fmt: skip
    beside += ", in squared units of y" if what == "loss" else ""
    title = f"Online learning: {stream}"
    below = ", ".join(
        f"{name} {result[name]}"
        for name in ("run", "network", "head", "standardise", "cap", "rate", "labels", "delay", "seed")
        if result[name] is not None
    )
    body = [
        html.header(title, below),
        f'<p class="headline">{html.text(what)} online <strong>{figure(result["online"], what)}</strong>{beside}.{last}</p>',
        html.image(
            drawn(lambda: over_time(result)),
            f"{what} over time",
            "Means over parts of the stream; each sample is first a test."
            + " Vertical lines: the changes of device 0." * bool(result["devices"][0]["changes"]),
        ),
        html.section("Changes", _changes(result, what)),
        html.section("Devices", _devices(result)),
    ]
    write_whole(out / PAGE, html.whole(title, body))
    return out / PAGE


def over_time(result: Mapping[str, Any]) -> bytes:
    """The figure over the samples, and the changes of the first device's world."""
    with styled():
        sheet = canvas(3.4)
        ax = sheet.subplots()
        samples = [window["samples"] for window in result["windows"]]
        for key, label, colour, dashes in LINES:
            if result["windows"][0][key] is not None:
                ax.plot(samples, numbers([window[key] for window in result["windows"]]), color=colour, ls=dashes, label=label)
        for change in result["devices"][0]["changes"]:
            ax.axvline(change["at"], color=GREY, lw=0.6, ls=":")
        ax.set_xlabel("samples")
        ax.set_ylabel(result["figure"])
        legend(sheet, ax)
        return png(sheet)


def figure(value: float | None, what: str) -> str:
    return "–" if value is None else html.percent(value) if what == "accuracy" else f"{value:.3g}"


def _row(cells: list[str]) -> str:
    return f"<tr><td>{html.text(cells[0])}</td>{html.cells(cells[1:])}</tr>"


def _changes(result: Mapping[str, Any], what: str) -> str:
    rows = [(number, row) for number, device in enumerate(result["devices"]) for row in device["changes"]]
    if not rows:
        return "<p>The stream is of one piece.</p>"
    head = "".join(f"<th>{name}</th>" for name in ("to", "device", "at", "before", "after", "static after", "recovered in"))
    body = "".join(
        _row([
            row["name"], str(number), f"{row['at']:,}",
            *(figure(row[key], what) for key in ("before", "after", "static_after")),
            "not" if row["recovered"] is None else html.counted(row["recovered"], "sample"),
        ])
        for number, row in rows
    )  # fmt: skip
    return html.table(f"<tr>{head}</tr>", body)


def _devices(result: Mapping[str, Any]) -> str:
    unsure = [] if result["head"] == "values" else ["running confidence"]  # of values there is none
    names = ("device", "samples", "labels", "running error", *unsure, "alarms", "classes", "state", "RAM")
    body = "".join(
        _row([
            str(number), f"{each['samples']:,}", f"{each['labelled']:,}", f"{each['error']:.3g}",
            *[f"{each['confidence']:.3g}" for _ in unsure], f"{each['drifts']:,}", ", ".join(each["classes"]),
            html.size(each["state_bytes"]), html.size(each["ram_bytes"]),
        ])
        for number, each in enumerate(result["devices"])
    )  # fmt: skip
    return html.table("<tr>" + "".join(f"<th>{name}</th>" for name in names) + "</tr>", body)
