"""Verbs of several runs: study, compare."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from tinyfl.cli.common import Json, app, say, tell

Own = typer.Option(metavar="MODULE:CLASS", help="Code of your own that the file names; may repeat.")


@app.command()
def study(
    file: Annotated[Path, typer.Argument(help="A TOML file that describes the study (docs/studies.md).")],
    out: Annotated[
        Path | None, typer.Option(help="The study's folder, new or to be continued. Default: one in studies/, named like FILE.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, max=256, help="Runs at once; 0: one for each processor.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and start nothing.")] = False,
    algorithm: Annotated[list[str] | None, Own] = None,
    task: Annotated[list[str] | None, Own] = None,
    aggregator: Annotated[list[str] | None, Own] = None,
    json: Json = False,
) -> None:
    """Make the runs that a file describes, side by side, and one table and page of them; or continue them."""
    from tinyfl.cli.show import studies as show
    from tinyfl.report.study import write_study
    from tinyfl.studies.beside import read_columns
    from tinyfl.studies.running import demand_all, prepared, run_study
    from tinyfl.studies.table import save, tabulated

    own = {"algorithm": algorithm, "task": task, "aggregator": aggregator}
    code = {kind: tuple(names) for kind, names in own.items() if names}
    directory, plan = prepared(file, out, code)
    columns = read_columns(plan.study)
    expected = show.expected(plan, directory, workers)
    tell("\n".join(expected["words"]))
    if dry_run:
        if json:
            typer.echo(jsonlib.dumps(expected))
        return
    done = show.with_progress(lambda progress: run_study(directory, plan, code, workers=workers, progress=progress))
    if plan.study.board:
        tell(f"what a round costs on {plan.study.board} is counted in emulation")
    tables = tabulated(done, columns)
    save(directory.path, tables)
    took = show.took(directory.took())
    page = write_study(
        directory.path,
        tables,
        title=directory.path.name,
        command=directory.command,
        took=took,
        file=file.read_text(),
        note=tell,
    )
    if json:
        typer.echo(jsonlib.dumps({**tables, "study": str(directory.path), "report": str(page), "again": directory.command}))
    else:
        show.tables(tables, [str(page), took, f"again: {directory.command}"])
    demand_all(done)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs' directories.")],
    out: Annotated[Path, typer.Option(help="The page to write; its figures go beside it as .csv and .json.")] = Path(
        "comparison.html"
    ),
    json: Json = False,
) -> None:
    """Compare several runs in one table and plot."""
    from tinyfl.report.compared import write_comparison

    written = write_comparison(runs, out, tell)
    say(jsonlib.dumps(written) if json else "\n".join(written.values()))
