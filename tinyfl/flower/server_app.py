"""The ServerApp of the package: a run of tinyfl whose devices are on Flower's nodes, configured by the run config.

The run directory is the coordinator's, on the machine of the SuperLink: a run that was cut off goes on with
``resume = "DIRECTORY"`` in the run config, from its last finished round. Whoever hands a run in chooses its paths, but only
inside the folders of that machine's allow list.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

import tinyfl
from tinyfl.config import Config, resolve
from tinyfl.errors import RunError, TinyflError
from tinyfl.fleet import Event
from tinyfl.fleets.assembly import Boards, Training
from tinyfl.flower.allowed import Allowed, allowed_here, refuse_paths
from tinyfl.flower.remote import RemoteGrid, call_roll
from tinyfl.flower.rounds import Progress
from tinyfl.flower.settings import from_run_config
from tinyfl.runs.directory import RunDirectory, free_directory

app = ServerApp()

ORPHAN_SECONDS = 3.0
"""What Flower may take to end a coordinator whose SuperLink is gone, in its own way."""

FREE_SECONDS = 60.0
"""What a coordinator that was cut off may take to end."""

MAX_NAMED = 8
"""Nodes that are listed when a run starts."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs what the run config says, over all nodes of the federation.

    Raises RuntimeError with the message and exit code of whatever went wrong, which Flower shows as the run's status.
    """
    Thread(target=_end_with, args=(os.getppid(),), name="tinyfl-orphan", daemon=True).start()
    try:
        options = _inside(from_run_config(context.run_config), allowed_here())
        least = 1
        if "resume" in options:
            _wait_until_free(Path(options["resume"]))
            least = RunDirectory(Path(options["resume"])).config().minimum
        options["minimum"] = max(1, options.get("minimum", least))
        run = tinyfl.simulate(over=partial(over_nodes, grid), progress=_say, on_event=_say_event, on_note=_say_note, **options)
    except TinyflError as error:
        raise RuntimeError(f"{error} (exit {error.exit_code}: {type(error).__name__})") from error
    for part, why in run.result["failed"].items():
        print(f"FAILED: {part}: {why}", flush=True)
    print(f"finished: {run.path}, theta {run.result['theta_sha256']}", flush=True)


def _inside(options: dict[str, Any], allowed: Allowed) -> dict[str, Any]:
    """``options``, with a directory for a run that has none.

    Raises ConfigError for a path outside the allowed folders, also one that the resumed run was started with.
    """
    if not {"out", "resume"} & set(options) and allowed.folders:
        options = {**options, "out": str(free_directory(resolve(options), allowed.folders[0]))}
    refuse_paths(options, allowed)
    if "resume" in options:
        refuse_paths(vars(RunDirectory(Path(options["resume"])).config()), allowed)
    return options


def _end_with(parent: int) -> None:
    """Ends this process some seconds after the one that started it, its SuperLink's. Flower raises a signal then, which a main
    thread that waits for an answer never sees, and the run's directory would stay locked. Checkpoints are written whole."""
    while os.getppid() == parent:
        time.sleep(1)
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)


def _wait_until_free(path: Path) -> None:
    """A coordinator dies with its SuperLink, but some seconds after it, and holds its run's directory until then."""
    deadline = time.monotonic() + FREE_SECONDS
    while path.is_dir():
        try:
            with RunDirectory(path).locked():
                return
        except RunError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


@contextmanager
def over_nodes(
    grid: Grid, config: Config, work: Training, on_event: Callable[[Event], None]
) -> Iterator[tuple[RemoteGrid, Boards]]:
    """The grid of the nodes that are there, all of the run's devices among them."""
    seats = call_roll(grid, config.devices)
    for seat in seats[:MAX_NAMED]:
        print(f"{seat.name}: devices {seat.devices.start} to {seat.devices.stop - 1}, {len(seat.boards)} boards", flush=True)
    if len(seats) > MAX_NAMED:
        print(f"and {len(seats) - MAX_NAMED} more nodes", flush=True)
    boards = [dict(board) for seat in seats for board in seat.boards]
    each_device = config.gateways is None
    yield RemoteGrid(grid, seats, work.network, each_device=each_device, seconds=config.seconds, on_event=on_event), boards


def _say(progress: Progress) -> None:
    if progress.stage != "learning" and progress.done:
        return
    loss = f", loss {progress.loss:.4g}" if progress.loss == progress.loss else ""
    print(f"{progress.stage}: {progress.done:,} of {progress.total:,}{loss}", flush=True)


def _say_note(note: str) -> None:
    print(note, flush=True)


def _say_event(event: Event) -> None:
    print(f"round {event.round + 1}, device {event.device}: {event.what}: {event.detail}", flush=True)
