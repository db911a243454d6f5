"""The page of a study: its tables, whose differences are beyond doubt, its figure, and what each line costs on a device.

``tables`` is what tinyfl.studies.table makes of a study; everything here is a view of it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyfl.errors.words import plain
from tinyfl.report import html
from tinyfl.report.figures import Note, drawn, tell_missing
from tinyfl.report.html import counted
from tinyfl.report.study_figures import panels
from tinyfl.runs.evaluation import LEADING_STEPS
from tinyfl.system.files import write_whole

Row = Mapping[str, Any]

PAGE = "study.html"
FIGURE = "study{}.png"


def write_study(folder: Path, tables: Row, *, title: str, command: str, took: str, file: str, note: Note = str) -> Path:
    """Writes study.html, and its figures as PNGs beside it, into ``folder``. ``command`` makes the tables again, ``took`` says
    what they took, and ``file`` is the text of the study's file. Returns the page's path."""
    body = [html.header(f"{title} · {counted(tables['runs'], 'run')}", _below(tables))]
    pictures = []
    for number, table in enumerate(tables["tables"]):
        if not table["rows"]:
            continue
        picture = drawn(lambda table=table: _figure(table, tables["axes"]))  # type: ignore[misc]
        pictures.append(picture)
        if isinstance(picture, bytes):
            write_whole(folder / FIGURE.format(f"-{number + 1}" if len(tables["tables"]) > 1 else ""), picture)
        body += _sections(tables, table, picture)
    tell_missing(pictures, command, note)
    body += [
        *([html.section("Runs that failed", _failed(tables["failed"]))] if tables["failed"] else []),
        html.section("To make it again", _again(tables, command, took, file)),
    ]
    write_whole(folder / PAGE, html.whole(title, body, "broad"))
    return folder / PAGE


def label(row: Row, axes: Sequence[str]) -> str:
    """A line of a table in a few words: its values on the axes."""
    return plain(", ".join(shown(axis, row["values"][axis]) for axis in axes) or "all runs", 60)


def shown(axis: str, value: Any) -> str:
    """A value on an axis; numbers and truth values with the axis's name."""
    return str(value) if isinstance(value, str) else f"{axis} {value:g}" if not isinstance(value, bool) else f"{axis} {value}"


def figure(row: Row, key: str) -> str:
    """A mean with half of its interval as text."""
    if row["mean"] is None:
        return "diverged"
    return html.percent(row["mean"], row["ci95"]) if key != "loss" else html.loss(row["mean"], row["ci95"])


def difference(row: Row, key: str) -> str:
    """A difference of means with half of its interval: of accuracies in points."""
    if row["mean"] is None:
        return "diverged"
    if key == "loss":
        return html.loss(row["mean"], row["ci95"])
    points = f"{100 * row['mean']:+.1f}"
    return f"{points if float(points) else '0.0'} points" + (f" ± {100 * row['ci95']:.1f}" if row["ci95"] is not None else "")


def leading(rows: Sequence[Row], steps: int = LEADING_STEPS) -> dict[int, Row]:
    """The rows after ``steps`` full-batch steps, or by class means, by their shots."""
    return {row["shots"]: row for row in rows if row["mode"] == "means" or (row["mode"], row["steps"]) == ("batch", steps)}


def ram_of(row: Row) -> tuple[int, str]:
    """A device's RAM for a line, in bytes: of the board if there is one, else of the learner with the samples that it holds."""
    device = row["device"]
    if "on" in device:
        return device["on"]["ram"], f"of {device['on']['board']} as a whole"
    return device["learner_bytes"] + device["held_bytes"], "of the learner and its samples"


def _below(tables: Row) -> str:
    seeds = len(tables["seeds"])
    means = f"Means over {counted(seeds, 'seed')}" if seeds > 1 else "One seed"
    interval = "over seeds" if seeds > 1 else "over unseen devices"
    equal = f"; {tables['gradients']:,} sample gradients for each run" if tables["gradients"] else ""
    return f"{means}; ± is half of a 95 % interval {interval}{equal}."


def _sections(tables: Row, table: Row, picture: Any) -> list[str]:
    of = ", ".join(shown(axis, value) for axis, value in table["of"].items())
    where = f" · {of}" if of else ""
    return [
        html.section(f"What unseen devices reach{where}", reached_table(tables, table)),
        *([html.section(f"Is it better?{where}", _differences(table))] if table["differences"] else []),
        html.section(f"What it takes{where}", html.image(picture, "Results against their costs.", _caption(table))),
        html.section(f"What a device needs{where}", _devices(tables, table)),
    ]


def reached_table(tables: Row, table: Row) -> str:
    """What each line reaches, over the start and what needs no network."""
    key, rows, axes = table["metric"], table["rows"], tables["axes"]
    shots = list(leading(rows[0]["reached"]))
    tools = list(rows[0]["beside"])
    head = "".join(f'<th class="l">{html.text(axis)}</th>' for axis in axes or ["runs"])
    for number in shots:
        head += f"<th>{counted(number, 'shot')},<br>{LEADING_STEPS} steps</th><th>{counted(number, 'shot')},<br>unadapted</th>"
        head += "".join(f"<th>{html.text(tool)},<br>{counted(number, 'shot')}</th>" for tool in tools)
    listed = all(row["devices"] for row in rows)
    head += "<th>mean over<br>devices</th>" * listed
    head += "<th>sample<br>gradients</th><th>rounds</th><th>over the<br>links</th><th>runs</th>"
    best = {number: _best([leading(row["reached"])[number] for row in rows], key) for number in shots}
    body = ""
    for row in rows:
        body += _names(row, axes)
        for number in shots:
            end, before = leading(row["reached"])[number], leading(row["reached"], 0)[number]
            kind = "r best" if end["mean"] is not None and end["mean"] == best[number] else "r"
            body += f'<td class="{kind}">{html.text(figure(end, key))}</td>{html.cells([figure(before, key)])}'
            for tool in tools:
                theirs = next((each for each in row["beside"][tool] if each["shots"] == number), None)
                body += html.cells([figure(theirs, key) if theirs else ""])
        body += html.cells([figure(row["devices"], key)] if listed else [])
        body += html.cells([f"{row['gradients']:,}", f"{row['rounds']:,}", html.size(row["down"] + row["up"]), f"{row['n']:,}"])
        body += "</tr>"
    width = len(tools) + 2
    body += _without(table, shots, len(axes or [1]), width, 4 + listed)
    note = "The best of each column is bold. Below: the weights at the start, and methods without a network, on these devices."
    if listed:
        devices = counted(rows[0]["devices"]["n"], "device")
        which = f"{devices} with their names, held out by any of the seeds"
        note += f" Mean over devices: {which}, on {counted(shots[0], 'shot')}; ± over devices."
    return f'{html.table(f"<tr>{head}</tr>", body)}<p class="note">{note}{_found(rows, axes)}</p>'


def _found(rows: Sequence[Row], axes: Sequence[str]) -> str:
    """The settings that a search has found."""
    words = ""
    for row in (each for each in rows if each["found"]):
        settings = ((name, f"{value:.3g}" if isinstance(value, float) else value) for name, value in row["found"].items())
        text = ", ".join(f"{name} {value}" for name, value in settings)
        words += f" Found for {html.text(label(row, axes))}: {html.text(text)}."
    return words


def _names(row: Row, axes: Sequence[str]) -> str:
    values = [str(row["values"][axis]) for axis in axes] or ["all"]
    first, *others = [html.text(value, 80) for value in values]
    return f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{value}</td>" for value in others)


def _without(table: Row, shots: Sequence[int], axes: int, width: int, costs: int) -> str:
    """The rows of what has not learnt: the start of each network, and methods without one."""
    key, body, seen = table["metric"], "", set()
    for row in table["rows"]:
        if row["network"] not in seen:
            seen.add(row["network"])
            body += f'<tr class="dim"><th scope="row" colspan="{axes}">start of {html.text(row["network"])}</th>'
            start, before = leading(row["start"]), leading(row["start"], 0)
            for number in shots:
                body += html.cells([figure(start[number], key), figure(before[number], key), *[""] * (width - 2)])
            body += f'<td colspan="{costs}"></td></tr>'
    for method in dict.fromkeys(row["method"] for row in table["without"]):
        by_shots = {row["shots"]: row for row in table["without"] if row["method"] == method}
        body += f'<tr class="dim"><th scope="row" colspan="{axes}">{html.text(method)}</th>'
        for number in shots:
            body += html.cells([figure(by_shots[number], key) if number in by_shots else "", *[""] * (width - 1)])
        body += f'<td colspan="{costs}"></td></tr>'
    return body


def _best(rows: Sequence[Row], key: str) -> float | None:
    known = [row["mean"] for row in rows if row["mean"] is not None]
    return (min if key == "loss" else max)(known, default=None)


def _differences(table: Row) -> str:
    head = "".join(f'<th class="l">{name}</th>' for name in ("this", "against", "with"))
    head += "<th>shots</th><th>difference</th><th>pairs</th><th></th>"
    body = ""
    for row in (each for each in table["differences"] if each["mode"] in ("batch", "means")):
        at = ", ".join(shown(axis, value) for axis, value in row["at"].items())
        names = [shown(row["axis"], row[name]) for name in ("choice", "first")]
        body += f'<tr><th scope="row">{html.text(names[0])}</th><td>{html.text(names[1])}</td><td>{html.text(at)}</td>'
        of = "device" if row["over"] == "devices" and row["n"] > 1 else "seed"
        body += html.cells([f"{row['shots']:,}", difference(row, table["metric"]), counted(row["n"], of)])
        body += f"<td{' class=best' if row['is'] != 'undecided' else ''}>{html.text(row['is'])}</td></tr>"
    note = (
        f"After {LEADING_STEPS} full-batch steps: the mean of the differences between runs of the same seed, on the same "
        "unseen devices with the same samples, ± half of its 95 % interval over seeds or, where results list them all, over "
        "those devices. Undecided: the interval holds 0, or there is one pair only."
    )
    return f'{html.table(f"<tr>{head}</tr>", body)}<p class="note">{note}</p>'


def _figure(table: Row, axes: Sequence[str]) -> bytes:
    rows = table["rows"]
    shots = next(iter(leading(rows[0]["reached"])))
    reached = [leading(row["reached"])[shots] for row in rows]
    labels = [label(row, axes) for row in rows]
    return panels(rows, labels, reached, [float(ram_of(row)[0]) for row in rows], table["metric"])


def _caption(table: Row) -> str:
    row = table["rows"][0]
    shots = next(iter(leading(row["reached"])))
    course = "Lines: validation devices in the course of the runs, bands are 95 % intervals. " if row["curve"] else ""
    return (
        f"{course}Marks: unseen devices in the end, after {LEADING_STEPS} full-batch steps on {counted(shots, 'shot')}, with "
        "95 % intervals, cut where they leave the plot. Bytes are of all devices, both ways, on the line with frames; RAM "
        f"{ram_of(row)[1]}."
    )


def _devices(tables: Row, table: Row) -> str:
    """What a round costs on a device, each figure with its multiple of the first line's."""
    rows, axes = table["rows"], tables["axes"]
    columns = device_columns(rows)
    head = "".join(f'<th class="l">{html.text(axis)}</th>' for axis in axes or ["runs"])
    head += "".join(f"<th>{name}</th>" for name in columns)
    body = ""
    for i, row in enumerate(rows):
        body += _names(row, axes) + html.cells([_multiple(each, i) for each in columns.values()]) + "</tr>"
    note = (
        "Of one round; × is a multiple of the first line's figure. A device that learns from its stream in single steps drops "
        "each sample; mini-batches and passes are of a support set, which it holds. Bytes are on the line, with frames."
    )
    on = rows[0]["device"].get("on")
    if on:
        counted_there = "counted in emulation" if on["counted"] else "estimated"
        note += (
            f" RAM and flash of {html.text(on['board'])}: linked firmware, stack and samples included. Instructions are "
            f"{counted_there}; seconds assume 1.5 cycles each, and energy the manifest's power."
        )
    notes = "".join(f" {html.text(each, 400)}" for each in tables["notes"])
    return f'{html.table(f"<tr>{head}</tr>", body)}<p class="note">{note}{notes}</p>'


def device_columns(rows: Sequence[Row]) -> dict[str, list[tuple[str, float | None]]]:
    """The columns of the table of devices: for each line the figure as text, and as a number."""

    def size(count: float) -> str:
        return html.size(count).replace(" bytes", " B")

    def column(of: str, form: Any, on: bool = False) -> list[tuple[str, float | None]]:
        values = [row["device"]["on"].get(of) if on else row["device"][of] for row in rows]
        return [("" if value is None else form(value), value) for value in values]

    found = {
        "RAM of the<br>learner": column("learner_bytes", size),
        "samples<br>held": column("held", lambda value: f"{value:,}"),
        "RAM for<br>those": column("held_bytes", size),
    }
    if all("on" in row["device"] for row in rows):
        found |= {
            "RAM of<br>the board": column("ram", size, True),
            "flash": column("flash", size, True),
            "instructions": column("instructions", lambda value: f"{html.three_digits(value / 1e6)} M", True),
            "time to<br>learn": column("seconds", html.seconds, True),
            "energy": column("millijoules", lambda value: f"{html.three_digits(value)} mJ", True),
            "time on<br>the link": column("link_seconds", html.seconds, True),
        }
    return {**found, "down": column("down", size), "up": column("up", size)}


def _multiple(column: Sequence[tuple[str, float | None]], i: int) -> str:
    text, value = column[i]
    first = column[0][1]
    multiple = html.three_digits(value / first) if value and first else "1"
    return f"{text} · ×{multiple}" if multiple != "1" else text


def _failed(failed: Sequence[Row]) -> str:
    return "<ul>" + "".join(f"<li>{html.text(each['run'])}: {html.text(each['why'], 1000)}</li>" for each in failed) + "</ul>"


def _again(tables: Row, command: str, took: str, file: str) -> str:
    kept = "Runs that are done stay as they are; with a folder that is new, all are made again, to the same figures."
    return (
        f"{html.pre(command)}<p>{kept}</p><p class='note'>tinyfl {html.text(tables['version'])}. {html.text(took, 400)}</p>"
        f"<details><summary>the study's file</summary>{html.pre(file)}</details>"
    )
