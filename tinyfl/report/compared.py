"""A comparison of runs as files: the page, and its figures beside it as CSV and JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyfl.errors import ConfigError, RunError
from tinyfl.report.figures import Note
from tinyfl.report.page import compare
from tinyfl.report.tables import on_the_line
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.tables import as_csv, table
from tinyfl.system.files import write_whole

OF_A_RUN = ("task", "algorithm", "network", "seed", "sample_gradients", "device_ram_bytes")


def write_comparison(runs: Sequence[Path], out: Path, note: Note = str) -> dict[str, str]:
    """Writes the page that compares ``runs`` at ``out``, and the rows of their evaluations beside it. An earlier comparison
    there is replaced, of which ``note`` hears. Returns the paths.

    Raises ConfigError for a page whose name is that of a table, RunError for files there that are none of a comparison, and as
    ``compare`` does.
    """
    csv, data = out.with_suffix(".csv"), out.with_suffix(".json")
    if out in (csv, data):
        raise ConfigError(f"--out {out} is the page, beside which figures are written. Name it comparison.html, say.")
    begins = {out: b"<!doctype html>", csv: b"run,", data: b'{"rows": '}
    before = [path for path in begins if path.exists()]
    for path in before:
        if not path.is_file() or not path.read_bytes().startswith(begins[path]):
            raise RunError(f"{path} is something else than a comparison of runs. Give another --out.")
    page = compare(runs, out, note)
    rows = list[dict[str, Any]]()
    for run in runs:
        result = RunDirectory(run).result()
        down, up = on_the_line(result)
        head = {"run": str(run), **{key: result[key] for key in OF_A_RUN}, "down": down, "up": up}
        rows += [{**head, **row} for row in table(run, "evaluation")]
    write_whole(csv, as_csv(rows).encode())
    write_whole(data, f"{json.dumps({'rows': rows})}\n".encode())
    if before:
        note(f"replaced the earlier comparison: {', '.join(map(str, before))}")
    return {"report": str(page), "csv": str(csv), "json": str(data)}
