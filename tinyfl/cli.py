"""The command line: one thin function a verb. Results go to stdout, progress and errors to stderr."""

import json as jsonlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyfl import __version__
from tinyfl.errors import ConfigError, TinyflError

if TYPE_CHECKING:
    from tinyfl.federation import Progress

app = typer.Typer(
    name="tinyfl",
    help="Train a fleet of microcontrollers together.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def tinyfl(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Train a fleet of microcontrollers together."""


@app.command()
def simulate(
    config: Annotated[Path | None, typer.Argument(help="A TOML file with these options, such as a run's config.toml.")] = None,
    task: Annotated[str | None, typer.Option(help="digits, sine, npz or omniglot. Bare: digits.")] = None,
    data: Annotated[Path | None, typer.Option(help="Your .npz file, for npz and omniglot.")] = None,
    algorithm: Annotated[str | None, typer.Option(help="tinyreptile, reptile, fedavg or joint.")] = None,
    network: Annotated[str | None, typer.Option(help="Such as mlp-64-64 or mlp-32-tanh.")] = None,
    devices: Annotated[int | None, typer.Option(help="Size of the fleet.")] = None,
    cohort: Annotated[int | None, typer.Option(help="Devices a round; 1 is the algorithm's serial form.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds.")] = None,
    samples: Annotated[int | None, typer.Option(help="Samples a device takes in a round.")] = None,
    batch: Annotated[int | None, typer.Option(help="Samples an inner step, for reptile and fedavg.")] = None,
    inner_lr: Annotated[float | None, typer.Option(help="Learning rate on the devices.")] = None,
    outer_step: Annotated[float | None, typer.Option(help="How far the server follows, at first.")] = None,
    clip: Annotated[float | None, typer.Option(help="Bound on the norm of the loss's gradient; 0: none.")] = None,
    adapt_lr: Annotated[
        float | None, typer.Option(help="Adaptation rate in the evaluation; 0: chosen on validation devices.")
    ] = None,
    shots: Annotated[list[int] | None, typer.Option(help="Samples to adapt on (per class in N-way tasks); may repeat.")] = None,
    tasks: Annotated[int | None, typer.Option(help="Unseen devices to evaluate on.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same theta.")] = None,
    nodes: Annotated[str | None, typer.Option(help="Flower nodes: a number of gateways, or devices.")] = None,
    threads: Annotated[int, typer.Option(help="Threads; 0: all processors. Changes no result.")] = 0,
    lanes: Annotated[int, typer.Option(help="Devices in lockstep, 16, 8, 4 or 1; 0: the most. Changes no result.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Run directory. Default: a free one in runs/.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this directory.")] = None,
    json: Json = False,
) -> None:
    """Simulate a fleet that learns together, then adapt the result to unseen devices. Bare: 1,000 devices on real digits."""
    options: dict[str, Any] = {
        "task": task, "data": str(data) if data else None, "algorithm": algorithm, "network": network,
        "devices": devices, "cohort": cohort, "rounds": rounds, "samples": samples, "batch": batch,
        "inner_lr": inner_lr, "outer_step": outer_step, "clip": clip, "adapt_lr": adapt_lr,
        "shots": tuple(shots) if shots else None, "tasks": tasks, "seed": seed, "nodes": nodes,
    }  # fmt: skip
    from tinyfl import show
    from tinyfl.simulation import simulate as run_simulation

    def work(progress: "Callable[[Progress], None]") -> Any:
        return run_simulation(config=config, resume=resume, out=out, threads=threads, lanes=lanes, progress=progress, **options)

    run = show.with_progress(work)
    if json:
        typer.echo(jsonlib.dumps(run.result))
    else:
        show.run(run.result)


@app.command()
def adapt(
    run: Annotated[Path, typer.Argument(help="A finished run's directory, or its initialisation.npz.")],
    data: Annotated[Path, typer.Option(help="The new device's samples: an .npz file with x and y.")],
    mode: Annotated[str, typer.Option(help="batch (full-batch steps) or stream (passes, a sample at a time).")] = "batch",
    steps: Annotated[int, typer.Option(min=0, max=1_000_000, help="Adaptation steps.")] = 10,
    shots: Annotated[int | None, typer.Option(help="Learn from the first SHOTS rows, measure on the rest.")] = None,
    adapt_lr: Annotated[float | None, typer.Option(help="Rate. Default: the run's own choice.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the adapted weights here (.npz).")] = None,
    json: Json = False,
) -> None:
    """Adapt a saved initialisation to one new device's data."""
    from tinyfl import show
    from tinyfl.adaptation import adapt as run_adaptation

    result = run_adaptation(run, data, mode=mode, steps=steps, shots=shots, adapt_lr=adapt_lr, out=out)
    if json:
        typer.echo(jsonlib.dumps(result))
    else:
        show.adaptation(result)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs' directories.")],
    out: Annotated[Path | None, typer.Option(help="Where to write a comparison. Default: comparison.html.")] = None,
    json: Json = False,
) -> None:
    """Write one run's page anew, or several runs side by side in one table and plot."""
    from tinyfl import report as pages

    if len(runs) == 1 and out is not None:
        raise ConfigError("one run's page is written into its own directory: leave --out out, or name several runs.")
    path = pages.rebuild(runs[0]) if len(runs) == 1 else pages.compare(runs, out or Path("comparison.html"))
    typer.echo(jsonlib.dumps({"report": str(path)}) if json else str(path))


def main() -> None:
    """Runs the command line; a TinyflError becomes its message on stderr and its exit code."""
    try:
        app(prog_name="tinyfl")
    except TinyflError as error:
        typer.echo(f"tinyfl: {error}", err=True)
        sys.exit(error.exit_code)
    except MemoryError as error:
        typer.echo(f"tinyfl: out of memory ({error}). Give a smaller --cohort, --samples, --tasks or --network.", err=True)
        sys.exit(TinyflError.exit_code)


if __name__ == "__main__":
    main()
