"""How late the updates of an asynchronous run were: a table by kind of device, and a histogram."""

from collections.abc import Mapping, Sequence
from typing import Any

from tinyfl.report import html
from tinyfl.report.figures import NotDrawn

Row = Mapping[str, Any]


def section(result: Row, png: bytes | NotDrawn) -> str:
    """The part of a run's page, from its result.json, with its figure."""
    virtual = result.get("virtual_time")
    time = f"<p>The rounds took {virtual:,g} units of virtual time. In one, a usual device does a round.</p>" if virtual else ""
    caption = (
        "Staleness of the updates that count: the number of rounds between the theta that a device started from and the one "
        "that its update moved. An update of staleness τ has the weight 1 / √(1 + τ)."
    )
    return time + _table(result["staleness"]) + html.image(png, "How many updates had which staleness.", caption)


def _table(rows: Sequence[Row]) -> str:
    arrivals, weight = (max(sum(row[key] for row in rows), 1e-9) for key in ("arrivals", "weight"))
    columns = ("number", "arrivals", "share", "share of weight", "median staleness", "95 % up to", "largest", "left out")
    head = '<th class="l">devices</th>' + "".join(f"<th>{name}</th>" for name in columns)
    body = ""
    for row in rows:
        shares = [html.percent(row["arrivals"] / arrivals), html.percent(row["weight"] / weight)]
        ages = [_at(row["staleness"], share) for share in (0.5, 0.95, 1.0)]
        texts = [f"{row['devices']:,}", f"{row['arrivals']:,}", *shares, *ages, f"{row['left_out']:,}"]
        body += f'<tr><th scope="row">{html.text(row["kind"])}</th>{html.cells(texts)}</tr>'
    return html.table(f"<tr>{head}</tr>", body)


def _at(counts: Mapping[str, int], share: float) -> str:
    """The least staleness that a ``share`` of the updates does not exceed."""
    wanted, seen = share * sum(counts.values()), 0
    for age, count in sorted((int(age), count) for age, count in counts.items()):
        seen += count
        if seen >= wanted:
            return f"{age:,}"
    return "–"
