"""The rounds of a run, on the grid of a place."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tinyfl.algorithms import State
from tinyfl.config import Config
from tinyfl.core import F32
from tinyfl.errors import ConfigError
from tinyfl.errors.words import plain
from tinyfl.fleet import Event
from tinyfl.fleets.assembly import Boards, Training, assembled
from tinyfl.flower.asynchronous import Asynchronous
from tinyfl.flower.rounds import Federation, Outcome
from tinyfl.runs.directory import KEPT, RunDirectory
from tinyfl.runs.elsewhere import Elsewhere
from tinyfl.runs.records import ValidationRow
from tinyfl.runs.validation import validator
from tinyfl.simulation.job import Job
from tinyfl.tasks.sensor import NAME as SENSOR

if TYPE_CHECKING:
    from tinyfl.flower.grid import FleetAddresses

Place = Callable[[Config, Training, Callable[[Event], None]], AbstractContextManager[tuple["FleetAddresses", Boards]]]
"""Opens the grid of a run's rounds, and lists its boards."""


def train(directory: RunDirectory, job: Job, place: Place, on_event: Callable[[Event], None] | None) -> tuple[Outcome, Boards]:
    """Runs the rounds on the grid of ``place``, and logs the boards' events. Returns the outcome and the boards."""

    def report_event(event: Event) -> None:
        event = replace(event, board=plain(event.board), detail=plain(event.detail))
        directory.log_event(event)
        if on_event:
            on_event(event)

    config, standard = job.config, job.task.standardisation
    unit = standard.squared_unit if standard else 1.0
    start = State(0, job.start)
    work = Training(job.task, job.network, job.engine, config.seconds, directory.path / KEPT, config.seed)

    def validate(rounds: int, theta: F32) -> ValidationRow:
        net, own = job.without_head(theta)
        validated = validator(
            job.task, net, shots=min(config.shots), adapt_lr=config.adapt_lr or None, clip=config.clip,
            gradients=config.per_round * job.algorithm.inner(0).total, adaptation=job.algorithm.adaptation, engine=job.engine,
        )  # fmt: skip
        return validated(rounds, own)

    sites = job.task.digest if isinstance(job.task, Elsewhere) else ""
    with place(config, work, report_event) as (grid, boards):
        kind = Asynchronous if config.buffer else Federation
        run = kind(
            directory, config, job.algorithm, grid, start, job.progress, report_event, unit, validate, sites, job.sampler,
            job.down,
        )  # fmt: skip
        outcome = run.run()
    return outcome, boards


@contextmanager
def here(
    config: Config, work: Training, on_event: Callable[[Event], None], sources: Sequence[Path] = ()
) -> Iterator[tuple["FleetAddresses", Boards]]:
    """The grid of the config's fleet on this machine, and its boards, whose sensors have the C files ``sources``.

    Raises ConfigError for a sensor that no device of the fleet can have.
    """
    from tinyfl.flower.grid import FleetGrid

    if config.sensor and config.task != SENSOR and not any(part.senses for part in config.parts):
        raise ConfigError(
            f"--sensor {config.sensor}: simulated devices have no sensor without readings. Take boards, with --board or "
            "--port, give the part of the fleet its readings (docs/fleets.md), or leave --sensor out."
        )
    with assembled(config.parts, work, on_event, sources) as (fleet, boards):
        yield FleetGrid(fleet, config.gateways), boards
