"""A request for boards to flash, and its results: targets and absent boards."""

from dataclasses import dataclass, field

from tinyfl.building import boards
from tinyfl.building.boards import Board
from tinyfl.devices.connected import Device
from tinyfl.devices.ports import Port, Spot
from tinyfl.link.status import Description


@dataclass(frozen=True)
class FlashSelection:
    """The request of a command line: kinds of boards, ids (or their beginnings) and tags of devices.toml, ``everything``
    connected (of those kinds, if any), names of ``probes``, bootloaders or drives (USB serial numbers or sockets, or a drive's
    path), and urls of ports."""

    boards: tuple[Board, ...] = ()
    ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    everything: bool = False
    probes: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    baud: int = 0
    words: tuple[str, ...] = ()
    """The words for ``boards`` on the command line: names, or paths of manifests."""

    def word(self, board: Board) -> str:
        """The word for ``board`` on the command line."""
        return next((word for each, word in zip(self.boards, self.words, strict=False) if each == board), board.name)

    def options(self, board: Board | None = None) -> tuple[str, ...]:
        """The command-line options of this request, with ``board``, if given, as the only kind."""
        kinds = [self.word(each) for each in ([board] if board else self.boards)]
        lists = (("--board", kinds), ("--id", self.ids), ("--tag", self.tags), ("--probe", self.probes), ("--port", self.ports))
        options = [part for option, words in lists for word in words for part in (option, word)]
        return (*options, *(("--all",) if self.everything else ()))

    @property
    def kinds(self) -> list[Board]:
        """The requested kinds; without any, all built-in boards that can be flashed."""
        return list(self.boards) or [board for board in map(boards.load, boards.names()) if board.flash]


@dataclass(frozen=True)
class Target:
    """A board to flash: the ``port`` of its firmware, the ``spots`` of its probe, drive and bootloader (none: any that match),
    and ``probe``, the first spot's name for --probe. ``device`` is the result of querying its port, ``trouble`` the reason why
    it cannot be flashed, ``unclear`` its possible kinds if there are several, and ``options`` the command-line options for this
    board if they are not its kind and place. Empty: unknown."""

    board: Board
    port: Port | None = None
    spots: tuple[Spot, ...] = ()
    device: Device | None = field(default=None, compare=False)
    trouble: str = ""
    unclear: tuple[str, ...] = ()
    probe: str = ""
    options: tuple[str, ...] = ()

    @property
    def described(self) -> Description | None:
        return self.device.description if self.device else None

    @property
    def kind(self) -> str:
        """The board's kind, or its possible kinds."""
        return " or ".join(self.unclear) or self.board.name

    @property
    def name(self) -> str:
        """Its name for people: its id, its USB serial number or socket, or its port."""
        return (self.device.id if self.device else "") or self.probe or (self.port.url if self.port else "")

    @property
    def key(self) -> str:
        """Its key from one search to the next: unlike its name, the same before and after flashing."""
        spots = [self.port.spot, *self.spots] if self.port else self.spots
        candidates = [*(spot.socket for spot in spots), *(spot.serial for spot in spots), self.port.url if self.port else ""]
        return next(filter(None, [*candidates, *(spot.path for spot in spots)]), self.board.name)

    @property
    def where(self) -> tuple[str, ...]:
        """The command-line options for this board only."""
        probe = ("--probe", self.probe) if self.probe else ()
        by_probe = self.port is None or any(self.port.spot.same(spot) for spot in self.spots)
        return probe if by_probe or not self.port else (*probe, "--port", self.port.url)


@dataclass(frozen=True)
class Absent:
    """A requested board that is not connected: its name for people, and the command-line options for it."""

    name: str
    where: tuple[str, ...]


Found = tuple[list[Target], list[Absent]]
