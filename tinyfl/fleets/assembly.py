"""A fleet, brought up: simulated devices, emulated boards and boards on ports as one.

Boards come up once, and whatever learns on them comes and goes: a gateway keeps them through many runs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyfl.config.roster import Part
from tinyfl.core import FASTEST, Engine
from tinyfl.errors import ConfigError, InstallError
from tinyfl.fleet import Event, Fleet, MixedFleet
from tinyfl.networks import Network
from tinyfl.tasks import Task

if TYPE_CHECKING:
    from tinyfl.simulators.native import NativeFleet

Boards = list[dict[str, Any]]
"""A record of each board for the run's JSON: device, id (null where only the port is known), board or port, engine, and the
seconds it took to start."""


@dataclass(frozen=True)
class Station:
    """A part of a fleet that is up: its first device's number, and what opens its boards; none for simulated devices."""

    part: Part
    first: int
    openers: tuple[Any, ...]


@dataclass(frozen=True)
class Site:
    """All parts of a fleet that is up, in their order, and its boards. Its devices are ``devices``."""

    stations: tuple[Station, ...]
    boards: Boards

    @property
    def devices(self) -> range:
        last = self.stations[-1]
        return range(self.stations[0].first, last.first + last.part.size)


@dataclass(frozen=True)
class Training:
    """What a fleet's devices learn: ``task`` by ``network``; a board may take ``seconds`` for its part of a round."""

    task: Task
    network: Network
    engine: Engine
    seconds: float


@contextmanager
def opened(parts: Sequence[Part], first: int = 0) -> Iterator[Site]:
    """The parts' boards, up as long as the context lasts; the first device has the number ``first``.

    Raises ConfigError, InstallError or BuildError where a part cannot be brought up.
    """
    with ExitStack() as up:
        stations, boards = [], []
        for part in parts:
            openers, records = _boards(up, part, first)
            stations.append(Station(part, first, tuple(openers)))
            boards += [{"device": first + i, **record} for i, record in enumerate(records)]
            first += part.size
        yield Site(tuple(stations), boards)


@contextmanager
def training(site: Site, work: Training, on_event: Callable[[Event], None]) -> Iterator[Fleet]:
    """The site's devices as a fleet that does ``work``, as long as the context lasts; boards stay up after it.

    Raises InstallError where a part cannot.
    """
    with ExitStack() as up:
        fleets = [
            _linked(up, station, work, on_event) if station.openers else _native(up, station.part, work)
            for station in site.stations
        ]
        ids = {board["id"]: board["device"] for board in site.boards if board["id"]}
        yield fleets[0] if len(fleets) == 1 else MixedFleet(fleets, site.devices.start, ids=ids, on_event=on_event)


@contextmanager
def assembled(parts: Sequence[Part], work: Training, on_event: Callable[[Event], None]) -> Iterator[tuple[Fleet, Boards]]:
    """The fleet of ``parts``, and its boards: both of the above, for one run."""
    with opened(parts) as site, training(site, work, on_event) as fleet:
        yield fleet, site.boards


def simulated(task: Task, network: Network, devices: int, engine: Engine = FASTEST) -> "NativeFleet":
    """A simulated fleet of its own.

    Raises InstallError where the simulator is not installed.
    """
    try:
        from tinyfl.simulators.native import NativeFleet
    except ModuleNotFoundError as error:
        raise InstallError(
            "tinyfl.simulators is not there: Python took the clone's tinyfl/ for the installed package. "
            "Start it outside the clone, or run `pip install -e .` in it."
        ) from error
    return NativeFleet(task, network, devices, engine)


def _native(up: ExitStack, part: Part, work: Training) -> Fleet:
    native = simulated(work.task, work.network, part.native, work.engine)
    up.callback(native.close)
    return native


def _linked(up: ExitStack, station: Station, work: Training, on_event: Callable[[Event], None]) -> Fleet:
    from tinyfl.fleets.linked import LinkFleet

    fleet = LinkFleet(station.openers, work.task, work.network, first=station.first, seconds=work.seconds, on_event=on_event)
    up.enter_context(fleet)
    return fleet


def _boards(up: ExitStack, part: Part, first: int) -> tuple[list[Any], Boards]:
    if part.native:
        return [], []
    return _emulated(up, part, first) if part.board else _on_ports(part)


def _emulated(up: ExitStack, part: Part, first: int) -> tuple[list[Any], Boards]:
    """Boards with the ids from ``first`` + 1 on, so that no two of a fleet are alike."""
    from tinyfl.fleets import emulation

    running = up.enter_context(
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
    from tinyfl.devices.rack import Rack, opener_at

    if part.ids:
        rack = Rack(part.ports, part.baud)
        return [rack.opener(board) for board in part.ids], [{"id": board, "port": None} for board in part.ids]
    return [opener_at(port, part.baud) for port in part.ports], [{"id": None, "port": port} for port in part.ports]
