"""What a run's lines carried: a table by part of a round, and what the run reached with how many bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.codecs import FP32
from tinyfl.config import Config
from tinyfl.errors.words import plain
from tinyfl.report import html
from tinyfl.report.figures import MAX_LABEL_CHARS, STYLES, NotDrawn, Spending, smoothed
from tinyfl.report.tables import on_the_line
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.tables import joined, metric

Row = Mapping[str, Any]
Result = Mapping[str, Any]

BAUDS = (115_200, 1_000_000)
BITS_PER_BYTE = 10
"""On a serial line with 8N1: a start bit, the byte, a stop bit."""

ALL = "all"
PARTS = {"find": "Finding the board", "down": "Weights down", "learn": "Learning", "up": "Update up", ALL: "In all"}
"""The parts of a round (tinyfl.fleet.PARTS), and their sum."""


def section(config: Config, result: Result, png: bytes | NotDrawn) -> str:
    """The part of a run's page, with its figure."""
    return _carried(config, result) + picture(png, validated=bool(result.get("validation")))


def picture(png: bytes | NotDrawn, *, validated: bool) -> str:
    """A figure over bytes, of evaluations on validation devices or else of the loss of devices that learn."""
    who = "Validation devices after adaptation" if validated else "Devices on their own samples as they learn"
    caption = f"{who}, over the bytes that all lines together had carried by then, as counted."
    return html.image(png, "What was reached over the bytes on all lines.", caption)


def _carried(config: Config, result: Result) -> str:
    """The bytes of a round by part, as measured on boards or else as counted for them, and of the whole run."""
    measured = result.get("line", {})
    parts = _measured(measured) if measured else _counted(result)
    known = all(part["at_rate"] is not None for part in parts.values())
    what = {
        "down": f"theta as {config.down}{', its change where a device has the last one' * config.delta}",
        "learn": f"the order to learn{', and samples that a host feeds' * bool(measured)}",
        "up": f"{'weights' if config.up == str(FP32) else 'their change'} as {config.up}{_local(result)}",
    }
    body = "".join(_row(name, what.get(name, ""), part, known) for name, part in parts.items())
    head = '<th class="l">in a round</th><th>to the device</th><th>from the device</th>'
    head += "<th>time</th>" * bool(measured) + "<th>line in use</th>" * known + "<th></th>"
    table = html.table(f"<tr>{head}</tr>", body, "parts")
    return f'<p>{_in_all(result)}</p>{table}<p class="note">{_note(result, known)}</p>'


def _in_all(result: Result) -> str:
    """The bytes of the whole run, and their share of what float32 takes."""
    total, share = sum(on_the_line(result)), share_of_fp32(result)
    less = f", {share}" if share else ""
    each = html.size(total / result["device_rounds"])
    return f"A round takes {each} on a device's line, and the whole run {html.size(total)} on all lines{less}."


def share_of_fp32(result: Result) -> str:
    """The bytes of the whole run against those of all weights as float32, in words; empty if they are not fewer."""
    plain = result.get("line_bytes_fp32", 0)
    if not plain or (total := sum(on_the_line(result))) >= plain:
        return ""
    return f"{100 * total / plain:.1f} % of what all weights take as float32"


def _measured(parts: Mapping[str, Row]) -> dict[str, Row]:
    """The means of a round of one board, by part and in all."""
    times, keys = max(part["times"] for part in parts.values()), ("sent", "received", "seconds", "at_rate")

    def mean(some: Sequence[Row]) -> Row:
        known = [[part[key] for part in some] for key in keys]
        return {key: None if None in values else sum(values) / times for key, values in zip(keys, known, strict=True)}

    return {**{name: mean([part]) for name, part in parts.items()}, ALL: mean(list(parts.values()))}


def _counted(result: Result) -> dict[str, Row]:
    """The same as counted for boards."""
    down, up = on_the_line(result)
    ways = {**result.get("line_bytes_by_part", {}), ALL: {"down": down, "up": up}}
    return {
        name: {"sent": way["down"] / result["device_rounds"], "received": way["up"] / result["device_rounds"], "at_rate": None}
        for name, way in ways.items()
    }


def _local(result: Result) -> str:
    layers = result.get("local", [])
    return f"; those of {' and '.join(layers)} never leave the device" if layers else ""


def _row(name: str, what: str, part: Row, known: bool) -> str:
    texts = [html.size(part["sent"]), html.size(part["received"])]
    texts += [html.seconds(part["seconds"])] if "seconds" in part else []
    texts += [f"{100 * part['at_rate'] / max(part['seconds'], 1e-9):.0f} %"] if known else []
    kind = ' class="lead"' * (name == ALL)
    return f'<tr{kind}><th scope="row">{PARTS[name]}</th>{html.cells(texts)}<td class="dim">{html.text(what)}</td></tr>'


def _note(result: Result, known: bool) -> str:
    """What the table's numbers are."""
    bits = BITS_PER_BYTE * sum(on_the_line(result)) / result["device_rounds"]
    times = [f"{html.seconds(bits / baud)} at {baud:,} baud" for baud in BAUDS]
    counted = f"A round's bytes, as counted, take {' and '.join(times)} (8N1)."
    measured = result.get("line", {})
    if not measured:
        return f"Means over device-rounds, with messages and frames, counted for a board's line and not measured. {counted}"
    rounds = html.counted(max(part["times"] for part in measured.values()), "round")
    means = f"Means over {rounds} of single boards, measured: with messages, frames, and what was sent again."
    if known:
        return f"{means} A line is in use for the time that its busier direction takes at its rate."
    if any("engine" in board for board in result.get("boards", [])):
        return f"{means} Times are the emulators' on this machine, not a board's. {counted}"
    return f"{means} Some of these lines have no rate, as a socket or a pty. {counted}"


def bytes_after(directory: RunDirectory, result: Result, rounds: NDArray[np.float64]) -> NDArray[np.float64]:
    """The bytes over all lines in the first ``rounds`` of a run, down and up, with messages and frames as counted."""
    total, new = sum(on_the_line(result)), result.get("line_bytes_new", 0)
    share = rounds / result["rounds"]
    since = share
    if new and len(whole := np.cumsum([0, *joined(directory)], dtype=np.float64)) > result["rounds"]:
        since = whole[rounds.astype(int)] / whole[-1]
    after: NDArray[np.float64] = (total - new) * share + new * since
    return after


def spending(
    directory: RunDirectory,
    result: Result,
    metrics: Sequence[Row],
    label: str = "",
    style: tuple[str, str] = STYLES[0],
) -> Spending:
    """What validation devices reached over bytes or, in a run without evaluations, the loss of the devices that learn."""
    rows, key = result.get("validation", []), "loss"
    if rows:
        key = metric(rows)
        values = np.array([np.nan if row[key] is None else row[key] for row in rows], np.float64)
    else:
        rows = metrics
        loss = np.array([np.nan if row["loss"] is None else row["loss"] for row in rows], np.float64)
        values = smoothed(loss, len(loss) // 32)
    after = bytes_after(directory, result, np.array([row["round"] for row in rows], np.float64))
    return Spending(label, after, values, *style, key)


def together(names: Sequence[str], paths: Sequence[Path], results: Sequence[Result]) -> list[Spending]:
    """What validation devices reached in each of several runs, over bytes; nothing if a run has no evaluations, or if they are
    more than can be told apart."""
    if len(results) > len(STYLES) or not all(result.get("validation") for result in results):
        return []
    labels = [plain(name, MAX_LABEL_CHARS) for name in names]
    runs = zip(paths, results, labels, STYLES, strict=False)
    return [spending(RunDirectory(path), result, (), label, style) for path, result, label, style in runs]
