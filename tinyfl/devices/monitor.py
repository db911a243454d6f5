"""Monitors one board live: its description, then its status at intervals, across restarts and unplugged cables.

A port has one user at a time: no other process can use the board meanwhile, so a round of another process cannot be monitored.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from tinyfl.devices import inventory
from tinyfl.devices.connected import ASK_SECONDS, Device, connect, explained, look, reach
from tinyfl.devices.ports import Port, open_ports, port, serial_ports, where
from tinyfl.errors import ConfigError, Dead, LinkError, Refused, SensorFault
from tinyfl.link.board import WORK_SECONDS, LinkedBoard
from tinyfl.link.online import OnlineBoard, Watched
from tinyfl.link.sensing import measure, readings, sensor_of
from tinyfl.link.status import BoardState, Description, Status
from tinyfl.system.addresses import real_port
from tinyfl.system.loop import in_loop

INTERVAL = 1.0
"""Default interval between statuses, in seconds."""

RECONNECT_SECONDS = 0.5
"""Interval between attempts to reconnect to a lost board."""


@dataclass(frozen=True)
class Line:
    """A line of the monitor, at ``time`` (seconds since 1970): "connected", with the board's description; "status"; "gone",
    with the reason; or "another board", with the description of a board that answered in place of the monitored one. A status
    may come with what it learns ``online``, a ``reading`` of its sensor, and what its network ``says`` of the next sample."""

    time: float
    what: str
    port: str
    description: Description | None = None
    status: Status | None = None
    detail: str = ""
    online: Watched | None = None
    reading: tuple[float, ...] = ()
    says: str = ""

    def as_json(self) -> dict[str, Any]:
        """As plain data: bytes in hexadecimal, the state as its name."""
        line: dict[str, Any] = {"time": round(self.time, 3), "what": self.what, "port": self.port}
        if self.description:
            line |= {"description": _plain(asdict(self.description))}
        if self.status:
            line |= {"status": {**_plain(asdict(self.status)), "state": state_name(self.status)}}
        line |= {"online": _plain(asdict(self.online))} if self.online else {}
        line |= {"reading": list(self.reading)} if self.reading else {}
        line |= {"says": self.says} if self.says else {}
        return line | ({"detail": self.detail} if self.detail else {})


def monitor(
    url: str,
    tell: Callable[[Line], None],
    *,
    id: str = "",
    baud: int = 0,
    interval: float = INTERVAL,
    devices: Path | None = None,
    sensor: str = "",
) -> None:
    """Monitors the board at the port ``url``, or the board ``id`` at any port, and its ``sensor``, if given, until Ctrl-C,
    passing each line to ``tell``.

    Raises ConfigError unless exactly one of ``url`` and ``id`` is given, LinkError if the board does not answer at the start,
    Refused if it has no such sensor then.
    """
    if bool(url) == bool(id):
        raise ConfigError("no board is selected. Give either its port, such as /dev/ttyACM0, or --id ID.")
    if not 0.01 <= interval <= 3600:
        raise ConfigError(f"--interval {interval:g} is out of range. Give 0.01 to 3,600 seconds.")
    with suppress(KeyboardInterrupt):
        in_loop(_watch(url, id, baud, interval, devices, sensor, tell))


async def _watch(
    url: str, id: str, baud: int, interval: float, devices: Path | None, sensor: str, tell: Callable[[Line], None]
) -> None:
    at = port(url, baud) if url else (await _search(id, baud, devices)).port
    board, answered_at = await reach(at)
    first = at = replace(at, bauds=(answered_at,))
    tell(Line(time.time(), "connected", at.url, description=board.description))
    if sensor:
        try:
            sensor_of(board, sensor)
        except Refused:
            await board.close()
            raise
    while True:
        watched = board.description.id
        try:
            await _listen(board, at, interval, sensor, tell)
        except LinkError as error:
            tell(Line(time.time(), "gone", at.url, detail=explained(at, error)))
        finally:
            await board.close()
        board, at = await _reconnect(first, watched if id else None)
        same = board.description.id == watched
        why = "" if same else f"it replaces {watched.hex()}. To monitor a certain board only, give --id."
        tell(Line(time.time(), "connected" if same else "another board", at.url, description=board.description, detail=why))


async def _listen(board: LinkedBoard, at: Port, interval: float, sensor: str, tell: Callable[[Line], None]) -> None:
    """Reports the board's status, and its sensor's values, until it is lost; then raises LinkError."""
    while True:
        line = Line(time.time(), "status", at.url, status=await board.status(), online=await _online(board))
        tell(await _sensed(board, sensor, line) if sensor else line)
        await asyncio.sleep(interval)


async def _online(board: LinkedBoard) -> Watched | None:
    """The monitor of what the board learns online, if it does."""
    watched = await OnlineBoard(board).watched() if board.description.online else None
    return watched if watched and watched.outputs else None


async def _sensed(board: LinkedBoard, name: str, line: Line) -> Line:
    """``line`` with a reading of the sensor and, if the board has weights for it, what its network says; or why not."""
    try:
        sensor = sensor_of(board, name)
        values = (await readings(board, sensor, 1, WORK_SECONDS))["values"][0]
        line = replace(line, reading=tuple(values.tolist()))
        if line.status and line.status.state in (BoardState.ready, BoardState.learnt):
            best = (await measure(board, name, WORK_SECONDS, busy=sensor.seconds)).best
            line = replace(line, says=sensor.labels[best] if best < len(sensor.labels) else str(best))
    except (Refused, SensorFault) as error:
        line = replace(line, detail=str(error))
    return line


async def _reconnect(first: Port, id: bytes | None) -> tuple[LinkedBoard, Port]:
    """Waits for the board last seen at ``first``, wherever it reappears. With ``id``, accepts only that board, and searches all
    ports with the same USB ids, even if they share a serial number."""
    while True:
        await asyncio.sleep(RECONNECT_SECONDS)
        for at in await asyncio.to_thread(_places, first, id is not None):
            with suppress(LinkError):
                board, _ = await connect(at)
                if id in (None, board.description.id):
                    return board, at
                await board.close()


def _places(first: Port, everywhere: bool) -> list[Port]:
    """Ports where the board last seen at ``first`` may be; ``everywhere`` adds unopened ports with the same USB ids."""
    here = where(first) or first
    if not everywhere or not first.usb:
        return [here]
    opened = open_ports()
    others = [
        each for each in serial_ports() if each.usb == first.usb and each.url != here.url and real_port(each.url) not in opened
    ]
    return [here, *(replace(each, bauds=first.bauds) for each in others)]


async def _search(id: str, baud: int, devices: Path | None) -> Device:
    """Finds the device with this id, or beginning of an id. Raises Dead if it is not found."""
    saved = inventory.read_inventory(devices)
    places = inventory.ports_of(saved)
    found = await look([replace(each, bauds=(baud,)) if baud else each for each in places], ASK_SECONDS)
    chosen = inventory.select(inventory.selection(ids=[id]), found, saved)
    if chosen.present:
        return chosen.present[0]
    _, possible = chosen.missing[0]
    if possible:
        raise Dead(f"board {id} does not answer. At its possible port: {possible.detail}")
    raise Dead(f"no board has the id {id} at any port. See: tinyfl devices")


def state_name(status: Status) -> str:
    """The state's name, or its number if this version does not know it."""
    return BoardState(status.state).name if status.state in list(BoardState) else str(status.state)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _plain_value(value) for key, value in values.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return None if isinstance(value, float) and not isfinite(value) else value
