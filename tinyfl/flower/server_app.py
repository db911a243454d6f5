"""The package's ServerApp: a run of tinyfl with its devices on Flower's nodes, configured by the run config.

The run directory is on the coordinator's machine, next to the SuperLink. An interrupted run resumes from its last finished
round with ``resume = "DIRECTORY"`` in the run config. The submitter chooses a run's paths, within the folders of that
machine's allow list.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

import tinyfl
from tinyfl.config import Config, resolve
from tinyfl.errors import ConfigError, RunError, TinyflError
from tinyfl.fleet import Event, words_for
from tinyfl.fleets.assembly import Boards, Training
from tinyfl.flower.allowed import Allowed, allowed_here, refuse_extensions, refuse_paths
from tinyfl.flower.extensions import demand_task
from tinyfl.flower.remote import RemoteGrid, call_roll
from tinyfl.flower.rounds import Progress
from tinyfl.flower.settings import NO_BUFFER, from_run_config
from tinyfl.flower.sites import load_over, nodes_of
from tinyfl.flower.sites_task import SitesTask
from tinyfl.networks import WEIGHTS
from tinyfl.runs.directory import CONFIG, RunDirectory, free_directory
from tinyfl.system.encoding import write_what_can_be
from tinyfl.tasks.sensor import NAME as SENSOR
from tinyfl.tasks.sensor import class_names

app = ServerApp()

ORPHAN_SECONDS = 3.0
"""Time for Flower to end a coordinator whose SuperLink is gone, in seconds."""

FREE_SECONDS = 60.0
"""Time for an interrupted coordinator to end, in seconds."""

MAX_NAMED = 8
"""Maximum number of nodes listed at the start of a run."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs the run config over all nodes of the federation.

    Raises RuntimeError with the message and exit code of any failure, which Flower shows as the run's status.
    """
    Thread(target=_end_with, args=(os.getppid(),), name="tinyfl-orphan", daemon=True).start()
    write_what_can_be(sys.stdout, sys.stderr)
    options: dict[str, Any] = {}
    try:
        options = _confined(from_run_config(context.run_config), allowed_here())
        least = 1
        if "resume" in options:
            _wait_until_free(Path(options["resume"]))
            least = RunDirectory(Path(options["resume"])).config().minimum
        options["minimum"] = max(1, options.get("minimum", least))
        run = tinyfl.simulate(
            over=partial(over_nodes, grid),
            load=partial(load_over, grid, on_note=_on_note),
            progress=_on_progress,
            on_event=_on_event,
            on_note=_on_note,
            **options,
        )
    except TinyflError as error:
        begun = "" if options and _holds_a_run(options) else "not begun, "
        logging.getLogger("flwr").addFilter(partial(_in_plain_words, str(error)))
        raise RuntimeError(f"{error} ({begun}exit {error.exit_code}: {type(error).__name__})") from error
    for part, why in run.result["failed"].items():
        print(f"FAILED: {part}: {why}", flush=True)
    print(f"finished: {run.path}, theta {run.result['theta_sha256']}", flush=True)


def _holds_a_run(options: Mapping[str, Any]) -> bool:
    folder: str = options.get("resume") or options.get("out") or ""
    return folder != "" and (Path(folder) / CONFIG).is_file()


def _confined(options: dict[str, Any], allowed: Allowed) -> dict[str, Any]:
    """``options``, with a run directory if they have none.

    Raises ConfigError for a path outside the allowed folders, and an algorithm, a task or an aggregator that is not allowed,
    including those of a resumed run's config.
    """
    refuse_extensions(options, allowed)
    if not {"out", "resume"} & set(options) and allowed.folders:
        options = {**options, "out": str(free_directory(resolve(options), allowed.folders[0]))}
    refuse_paths(options, allowed)
    if "resume" in options:
        saved = RunDirectory(Path(options["resume"])).config().as_options()
        refuse_extensions(saved, allowed)
        refuse_paths(saved, allowed)
    return options


def _end_with(parent: int) -> None:
    """Ends this process a few seconds after its parent, the SuperLink's process. A main thread that waits for a reply misses
    Flower's own signal, and would keep the run directory locked. Checkpoints are written atomically."""
    while os.getppid() == parent:
        time.sleep(1)
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)


def _wait_until_free(path: Path) -> None:
    """Waits for the lock of a run directory: a coordinator holds it for some seconds after its SuperLink has ended."""
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
    """The grid of the connected nodes, which together serve all devices of the run."""
    if config.buffer:
        raise ConfigError(NO_BUFFER)
    if config.own_data and config.network.endswith(WEIGHTS) and not config.standardise:
        raise ConfigError(
            "the nodes of a federation cannot standardise their data as an earlier run did. Give --standardise, or run it here."
        )
    if isinstance(work.task, SitesTask):
        nodes = nodes_of(work.task)
    else:
        demand_task(grid, grid.get_node_ids(), config)
        nodes = call_roll(grid, config.devices, on_note=_on_note)
    demand_task(grid, [node.node for node in nodes], config)
    for node in nodes[:MAX_NAMED]:
        print(f"{node.name}: devices {words_for(node.devices)}, {len(node.boards)} boards, node {node.node}", flush=True)
    if len(nodes) > MAX_NAMED:
        print(f"and {len(nodes) - MAX_NAMED} more nodes", flush=True)
    boards = [dict(board) for node in nodes for board in node.boards]
    yield RemoteGrid(
        grid, nodes, work.network, trains=config.chosen("algorithm").trains,
        classes=class_names(work.task) if config.task == SENSOR else (), each_device=config.gateways is None,
        seconds=config.seconds, on_event=on_event, on_note=_on_note,
    ), boards  # fmt: skip


def _in_plain_words(why: str, line: logging.LogRecord) -> bool:
    """Has Flower log ``why`` the run ends instead of a traceback, and drops the advice that follows, which is about defects."""
    if line.exc_info:
        line.msg, line.args, line.exc_info = why, (), None
        return True
    return line.levelno < logging.ERROR


def _on_progress(progress: Progress) -> None:
    if progress.stage != "learning" and progress.done:
        return
    loss = f", loss {progress.loss:.4g}" if progress.loss == progress.loss else ""
    print(f"{progress.stage}: {progress.done:,} of {progress.total:,}{loss}", flush=True)


def _on_note(note: str) -> None:
    print(note, flush=True)


def _on_event(event: Event) -> None:
    print(f"round {event.round + 1}, device {event.device}: {event.what}: {event.detail}", flush=True)
