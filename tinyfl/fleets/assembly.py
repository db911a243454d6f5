"""Assembly of a fleet from simulated devices, emulated boards and boards on ports.

Boards are started once and used for many trainings: a gateway keeps them across runs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyfl.config.roster import AUTO_BAUD, Part
from tinyfl.core import FASTEST, Engine
from tinyfl.errors import ConfigError, InstallError
from tinyfl.fleet import Event, Fleet, MixedFleet
from tinyfl.link import BUILT_IN
from tinyfl.networks import Network
from tinyfl.sensors.recording import image, read_recording, shares
from tinyfl.sensors.source import HostSource
from tinyfl.sensors.stream import Readings, SensedTask
from tinyfl.tasks import Task

if TYPE_CHECKING:
    from tinyfl.simulators.native import NativeFleet

Boards = list[dict[str, Any]]
"""A record of each board for the run's JSON: device, id (null if only the port is known), board or port, engine, and the
seconds of its start."""


@dataclass(frozen=True)
class Station:
    """A started part of a fleet: its first device's number, and the openers of its boards; none for simulated devices. Those
    may have a sensor: its source here, and their readings."""

    part: Part
    first: int
    openers: tuple[Any, ...]
    source: HostSource | None = None
    readings: Readings | None = None


@dataclass(frozen=True)
class Site:
    """A started fleet: all parts in their order, the records of its boards, and the numbers of its ``devices``."""

    stations: tuple[Station, ...]
    boards: Boards

    @property
    def devices(self) -> range:
        if not self.stations:
            return range(0)
        last = self.stations[-1]
        return range(self.stations[0].first, last.first + last.part.size)


@dataclass(frozen=True)
class Training:
    """A fleet's training: the task, the network, the ``seconds`` that a board has for its part of a round, the folder for what
    simulated devices keep from round to round (None: in RAM), and the run's ``seed``, for sensors."""

    task: Task
    network: Network
    engine: Engine
    seconds: float
    kept: Path | None = None
    seed: int = 0


@contextmanager
def opened(parts: Sequence[Part], first: int = 0, sources: Sequence[Path] = ()) -> Iterator[Site]:
    """Starts the parts' boards while the context lasts; the first device has the number ``first``. The C files ``sources`` are
    built into emulated boards, and are what simulated devices with a sensor run.

    Raises ConfigError, InstallError or BuildError if a part cannot be started.
    """
    with ExitStack() as stack:
        stations, boards = [], []
        for part in parts:
            source, readings = _sensor(stack, part, sources)
            openers, records = _boards(stack, part, first, sources, readings)
            stations.append(Station(part, first, tuple(openers), source, readings))
            boards += [{"device": first + i, **record} for i, record in enumerate(records)]
            first += part.size
        yield Site(tuple(stations), boards)


@contextmanager
def training(site: Site, work: Training, on_event: Callable[[Event], None]) -> Iterator[Fleet]:
    """The site's devices as a fleet for ``work``, while the context lasts; boards keep running after it.

    Raises InstallError if a part's simulator is not installed.
    """
    with ExitStack() as stack:
        fleets = [
            _linked(stack, station, work, on_event) if station.openers else _native(stack, station, work)
            for station in site.stations
        ]
        ids = {board["id"]: board["device"] for board in site.boards if board["id"]}
        yield fleets[0] if len(fleets) == 1 else MixedFleet(fleets, site.devices.start, ids=ids, on_event=on_event)


@contextmanager
def assembled(
    parts: Sequence[Part], work: Training, on_event: Callable[[Event], None], sources: Sequence[Path] = ()
) -> Iterator[tuple[Fleet, Boards]]:
    """Starts ``parts`` and trains on them, for one run: ``opened`` and ``training`` combined."""
    with opened(parts, sources=sources) as site, training(site, work, on_event) as fleet:
        yield fleet, site.boards


def simulated(
    task: Task, network: Network, devices: int, engine: Engine = FASTEST, first: int = 0, memory: Path | None = None
) -> "NativeFleet":
    """A fleet of simulated devices only, numbered from ``first``; what they keep is in the file ``memory``.

    Raises InstallError if the simulator is not installed.
    """
    try:
        from tinyfl.simulators.native import NativeFleet
    except ModuleNotFoundError as error:
        raise InstallError(
            "tinyfl.simulators is missing: Python imported the clone's tinyfl/ instead of the installed package. "
            "Start Python outside the clone, or run `pip install -e .` in it."
        ) from error
    return NativeFleet(task, network, devices, engine, first, memory)


def _native(stack: ExitStack, station: Station, work: Training) -> Fleet:
    memory = work.kept and work.kept / f"kept-{station.first}"
    task = work.task
    if station.source:
        task = SensedTask(task, station.source, work.seed, station.readings, station.first)
    native = simulated(task, work.network, station.part.native, work.engine, station.first, memory)
    stack.callback(native.close)
    return native


def _linked(stack: ExitStack, station: Station, work: Training, on_event: Callable[[Event], None]) -> Fleet:
    from tinyfl.fleets.linked import LinkFleet

    fleet = LinkFleet(
        station.openers,
        work.task,
        work.network,
        first=station.first,
        seconds=work.seconds,
        shared=station.part.shared,
        on_event=on_event,
        sensor=station.part.sensor,
        seed=work.seed,
    )
    stack.enter_context(fleet)
    return fleet


def _sensor(stack: ExitStack, part: Part, sources: Sequence[Path]) -> tuple[HostSource | None, Readings | None]:
    """The part's source on this machine, and its devices' readings, if it needs them here.

    Raises ConfigError without the source's C file.
    """
    if part.readings and not part.sensor:
        raise ConfigError(f"{part.readings} has readings of a sensor: say which, in sensor = NAME or --sensor NAME.")
    if part.board and part.sensor not in ("", *BUILT_IN) and not sources:
        raise ConfigError(f"emulated boards have no sensor called {part.sensor} without its C file: give --source FILE.c.")
    if not part.sensor or not (part.native or part.readings):
        return None, None
    source = HostSource(sources, part.sensor)
    stack.callback(source.close)
    if not part.readings:
        return source, None
    return source, shares(read_recording(Path(part.readings), source.sensor), source.sensor, part.size)


def _boards(
    stack: ExitStack, part: Part, first: int, sources: Sequence[Path], readings: Readings | None
) -> tuple[list[Any], Boards]:
    if part.native:
        return [], []
    return _emulated(stack, part, first, sources, readings) if part.board else _on_ports(part)


def _emulated(
    stack: ExitStack, part: Part, first: int, sources: Sequence[Path], readings: Readings | None
) -> tuple[list[Any], Boards]:
    """Boards with ids from ``first`` + 1 on, unique within the fleet."""
    from tinyfl.fleets import emulation

    running = stack.enter_context(
        emulation.started(
            part.board,
            part.count,
            engine=part.engine,
            toolchain=part.toolchain,
            first=first + 1,
            sources=sources,
            readings=[image(each) for each in readings or ()],
        )
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

    auto = part.baud == AUTO_BAUD
    baud = 0 if auto else part.baud
    if part.ids:
        rack = Rack(part.ports, baud, auto)
        return [rack.opener(board) for board in part.ids], [{"id": board, "port": None} for board in part.ids]
    return [opener_at(port, baud, auto) for port in part.ports], [{"id": None, "port": port} for port in part.ports]
