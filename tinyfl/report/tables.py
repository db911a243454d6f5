"""Tables of a report: the worst devices, the confusion matrix, and several runs side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from tinyfl.report import html
from tinyfl.report.html import counted
from tinyfl.report.verdict import reached
from tinyfl.runs.evaluation import LEADING_STEPS, compares
from tinyfl.runs.tables import METRICS, metric

Row = Mapping[str, Any]
Result = Mapping[str, Any]

MAX_WORST = 10
"""Maximum number of devices in the table of the worst."""


def on_the_line(result: Result) -> tuple[float, float]:
    """Bytes of a run down to all devices and up from them, with messages and frames; without, if an older tinyfl made it."""
    down, up = (result.get(f"line_bytes_{way}", result[f"bytes_{way}"]) for way in ("down", "up"))
    return down, up


def worst_devices(result: Result) -> str:
    """The worst test devices, and the confusion matrix if there is one."""
    found = result["per_device"]
    rows = found["devices"][:MAX_WORST]
    figure = "right" if metric(result["evaluation"]) == "accuracy" else "error"
    head = f'<tr><th class="l">device</th><th>{figure} before</th><th>{figure} after</th><th>loss after</th><th>draws</th></tr>'
    body = ""
    for row in rows:
        both = [reached({**row[when], "accuracy_ci95": None, "loss_ci95": None}) for when in ("before", "after")]
        texts = [*both, html.loss(row["after"]["loss"]), f"{row['draws']:,}"]
        body += f'<tr><th scope="row">{html.text(row["device"])}</th>{html.cells(texts)}</tr>'
    few = len(rows) < found["number"]
    note = f"The {len(rows)} worst of {found['number']:,} unseen devices" if few else "All unseen devices, the worst on top"
    note += f": {_between(found)} on {counted(found['shots'], 'shot')}, mean over the draws."
    table = f'{html.table(head, body)}<p class="note">{note}</p>'
    return table + (_confusion(result["confusion"]) if result.get("confusion") else "")


def _between(found: Result) -> str:
    return (
        f"before and after {found['steps']} full-batch steps" if found["steps"] else "by class means, before and after alike,"
    )


def _confusion(found: Result) -> str:
    """The confusion matrix, as shares of each class's samples."""
    names = found["classes"]
    head = "<tr><th></th>" + "".join(f"<th>{html.text(name)}</th>" for name in names) + "<th>samples</th></tr>"
    body = ""
    for number, (name, row) in enumerate(zip(names, found["counts"], strict=True)):
        total = sum(row)
        shares = [f"{100 * count / total:.1f} %" if total else "" for count in row]
        cells = "".join(f'<td class="r{" best" if i == number else ""}">{text}</td>' for i, text in enumerate(shares))
        body += f'<tr><th scope="row">{html.text(name)}</th>{cells}{html.cells([f"{total:,}"])}</tr>'
    note = "Each row: what the samples of that class were taken for, after adaptation, over all these devices and draws."
    return f'{html.table(head, body)}<p class="note">{note}</p>'


def comparison(names: Sequence[str], results: Sequence[Result]) -> str:
    """What several runs reach and what it took, a row each."""
    rows_of = [{(row["shots"], row["mode"]): row for row in result["evaluation"] if compares(row)} for result in results]
    settings = sorted({setting for rows in rows_of for setting in rows})
    best = {setting: _best([rows[setting] for rows in rows_of if setting in rows]) for setting in settings}
    head = "".join(f'<th class="l">{name}</th>' for name in ("run", "task", "algorithm", "network"))
    head += "".join(f"<th>{html.text(mode)},<br>{counted(shots, 'shot')}</th>" for shots, mode in settings)
    head += "<th>device-<br>rounds</th><th>sample<br>gradients</th><th>RAM per<br>device</th><th>over the<br>links</th>"
    late = any(result.get("virtual_time") for result in results)
    head += "<th>virtual<br>time</th>" * late
    body = ""
    for name, result, rows in zip(names, results, rows_of, strict=True):
        body += f'<tr><th scope="row">{html.text(name)}</th>'
        body += "".join(f"<td>{html.text(result[key])}</td>" for key in ("task", "algorithm", "network"))
        for setting in settings:
            row = rows.get(setting)
            kind = "r best" if row is not None and row in best[setting] else "r"
            body += f'<td class="{kind}">{reached(row) if row else "–"}</td>'
        counts = [f"{result[key]:,}" for key in ("device_rounds", "sample_gradients")]
        sizes = [html.size(result["device_ram_bytes"]), html.size(sum(on_the_line(result)))]
        times = [f"{virtual:,g}" if (virtual := result.get("virtual_time")) else "–"] * late
        body += f"{html.cells([*counts, *sizes, *times])}</tr>"
    what = METRICS[metric(results[0]["evaluation"])].capitalize()
    note = (
        f"{what} after {LEADING_STEPS} steps or by class means, ± half of a 95 % interval over devices; the best of each "
        "column is bold."
    )
    return f'{html.table(f"<tr>{head}</tr>", body)}<p class="note">{note}</p>'


def _best(rows: Sequence[Row]) -> list[Row]:
    """The rows with the lowest loss, or else the highest metric; none if all diverged."""
    key = metric(rows)
    usable = [row[key] for row in rows if html.known(row.get(key))]
    best = (min if key == "loss" else max)(usable, default=None)
    return [row for row in rows if usable and row.get(key) == best]
