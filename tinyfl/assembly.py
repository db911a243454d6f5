"""A run's fleet, brought up: simulated devices, emulated boards and boards on ports as one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyfl.config import Config
from tinyfl.core import Engine
from tinyfl.errors import ConfigError, InstallError
from tinyfl.fleet import Event, Fleet, MixedFleet
from tinyfl.networks import Network
from tinyfl.roster import Part
from tinyfl.tasks import Task

Boards = list[dict[str, Any]]
"""A record of each board for the run's JSON: device, id (null where only the port is known), board or port, engine, and the
seconds it took to start."""


@dataclass(frozen=True)
class _Site:
    """Where a fleet is brought up: what its devices learn, and what they end with."""

    config: Config
    task: Task
    network: Network
    engine: Engine
    on_event: Callable[[Event], None]
    up: ExitStack


@contextmanager
def assembled(
    config: Config, task: Task, network: Network, engine: Engine, on_event: Callable[[Event], None]
) -> Iterator[tuple[Fleet, Boards]]:
    """The fleet that ``config`` names, as long as the context lasts, and its boards.

    Raises ConfigError, InstallError, BuildError or DoesNotFit where a part cannot be brought up.
    """
    with ExitStack() as up:
        site = _Site(config, task, network, engine, on_event, up)
        fleets: list[Fleet] = []
        boards: Boards = []
        first = 0
        for part in config.fleet or (Part(native=config.devices),):
            fleets.append(_native(site, part) if part.native else _linked(site, part, first, boards))
            first += part.size
        yield (fleets[0] if len(fleets) == 1 else MixedFleet(fleets)), boards


def _native(site: _Site, part: Part) -> Fleet:
    try:
        from tinyfl.simulators.native import NativeFleet
    except ModuleNotFoundError as error:
        raise InstallError(
            "tinyfl.simulators is not there: Python took the clone's tinyfl/ for the installed package. "
            "Start it outside the clone, or run `pip install -e .` in it."
        ) from error
    fleet: Fleet = NativeFleet(site.task, site.network, part.native, site.engine)
    return fleet


def _linked(site: _Site, part: Part, first: int, boards: Boards) -> Fleet:
    from tinyfl.link.fleet import LinkFleet

    openers, records = _emulated(site, part, first) if part.board else _on_ports(part)
    boards += [{"device": first + i, **record} for i, record in enumerate(records)]
    fleet = LinkFleet(openers, site.task, site.network, first=first, seconds=site.config.seconds, on_event=site.on_event)
    site.up.enter_context(fleet)
    return fleet


def _emulated(site: _Site, part: Part, first: int) -> tuple[list[Any], Boards]:
    """Boards with the ids from ``first`` + 1 on, so that no two of a fleet are alike."""
    from tinyfl import emulation

    running = site.up.enter_context(
        emulation.started(part.board, part.count, engine=part.engine, toolchain=part.toolchain, first=first + 1)
    )
    openers = [board.opener for board in running]
    if part.faults:
        from tinyfl.simulators.faults import faulty
        from tinyfl.simulators.faults.scenario import load_scenario

        scenario = load_scenario(Path(part.faults), part.count)
        try:
            openers = [faulty(board.opener, scenario.of(i), board.reset) for i, board in enumerate(running)]
        except ValueError as error:
            raise ConfigError(f"{part.faults}: {error}. Leave the reset out, or take another engine.") from error
    records = [
        {"id": board.id, "board": part.board, "engine": board.engine, "boot_seconds": round(board.boot_seconds, 4)}
        for board in running
    ]
    return openers, records


def _on_ports(part: Part) -> tuple[list[Any], Boards]:
    from tinyfl.link.rack import Rack, opener_at

    if part.ids:
        rack = Rack(part.ports, part.baud)
        return [rack.opener(board) for board in part.ids], [{"id": board, "port": None} for board in part.ids]
    return [opener_at(port, part.baud) for port in part.ports], [{"id": None, "port": port} for port in part.ports]
