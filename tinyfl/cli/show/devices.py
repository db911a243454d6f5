"""Terminal output for connected boards."""

import time
from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tinyfl.cli.show.terminal import Terminal

if TYPE_CHECKING:
    from tinyfl.devices.connected import Device, Probe
    from tinyfl.devices.inventory import Saved
    from tinyfl.devices.monitor import Line
    from tinyfl.devices.push import Pushed, PushResult
    from tinyfl.doctor import Check
    from tinyfl.link.online import Watched
    from tinyfl.link.status import Description, Status

STYLES = {
    "free": "green", "pushed": "green", "up to date": "green", "ok": "green",
    "unknown": "dim", "busy": "yellow", "offline": "yellow",
}  # fmt: skip
HASH_DIGITS = 8


def devices(found: "Sequence[Device]", probes: "Sequence[Probe]", tags: "dict[str, Saved]") -> None:
    """Tables of ports with their boards and of probes; below, the reasons for ports that are not free."""
    console = Terminal()
    if found:
        table = Table(box=SIMPLE)
        for name in ("port", "board\nfirmware", "id\ntags", "model\nint8", "state"):
            table.add_column(name, overflow="fold")
        for each in found:
            known = tags.get(each.id)
            cells = [
                each.port.url,
                _kinds(each) + _firmware(each),
                each.id + (f"\n{' '.join(known.tags)}" if known else ""),
                "\n".join(map(_hash, (each.description.model, each.description.inference))) if each.description else "",
            ]
            table.add_row(*map(Text, cells), Text(each.state, STYLES.get(each.state, "red")))
        console.print(table)
        for each in found:
            if each.detail and each.state != "unknown":
                console.print(f"{each.port.url}: {each.detail}", highlight=False, soft_wrap=True)
    else:
        console.print("No serial port found. For a board on a pty, a socket or another machine's port, give --port URL.")
    if probes:
        table = Table(box=SIMPLE)
        for name in ("probe", "id", "USB", "socket", "boards"):
            table.add_column(name, overflow="fold")
        for probe in probes:
            table.add_row(*map(Text, (probe.name, probe.id, probe.usb, probe.location, " or ".join(probe.boards))))
        console.print(table)
    if any(each.state == "unknown" for each in found):
        console.print("unknown: matches no board's USB ids and was not contacted; --port NAME contacts it.")


def _firmware(device: "Device") -> str:
    """The firmware's version, and its sensors, on lines of their own."""
    described = device.description
    lines = [described.firmware, *(f"{each.name}: {each.words}" for each in described.sensors)] if described else []
    return "".join(f"\n{line}" for line in lines)


def _kinds(device: "Device") -> str:
    """The board's name, its possible names, or the port's product name."""
    if device.description:
        return device.description.board
    return " or\n".join(device.boards) + "?" if device.boards else device.port.product


def _hash(digest: bytes) -> str:
    return digest.hex()[:HASH_DIGITS] or "none"


def outcome(one: "PushResult") -> None:
    """Prints one board's result as soon as it is known."""
    who = " ".join(part for part in (one.id, one.board) if part)
    detail = f": {one.detail}" if one.detail else ""
    Terminal(stderr=True).print(f"{who} at {one.port or 'no port'} {one.what}{detail}", highlight=False, soft_wrap=True)


def pushed(result: "Pushed") -> None:
    """A table of all boards' results."""
    console = Terminal()
    table = Table(title=f"{result.model} · {result.kind} {result.sha256[:HASH_DIGITS]}", box=SIMPLE)
    for name in ("id", "board", "port", "", "seconds"):
        table.add_column(name, overflow="fold", justify="right" if name == "seconds" else "left")
    for each in result.boards:
        seconds = f"{each.seconds:.1f}" if each.what == "pushed" else ""
        table.add_row(each.id or "?", each.board, each.port, Text(each.what, STYLES.get(each.what, "red")), seconds)
    console.print(table)


def checks(found: "Sequence[Check]") -> None:
    """A table of checks, the failed ones with their cure."""
    console, group = Terminal(), ""
    before = 8 + max(len(check.name) for check in found)
    for check in found:
        if check.group != group:
            group = check.group
            console.print(Text(f"    {group}", "bold"))
        absent = not check.ok and not check.needed
        row = Text("ok", "green") if check.ok else Text("–", "yellow") if absent else Text("✗", "red")
        row.append(f"{'':{4 - len(row)}}  {check.name}", "default")
        what = check.found if check.ok else " ".join(part for part in (check.state, check.found) if part)
        parts = [(what, "default")]
        if not check.ok:
            parts += [(check.cure, "bold"), (f"for {check.purpose}" if check.purpose else "", "dim")]
        for line, style in ((line, style) for text, style in parts for line in _wrapped(text, console.width - before)):
            row.append(" " * max(before - len(row.plain.rpartition("\n")[2]), 0) + line, style)
            console.print(row, soft_wrap=True)
            row = Text()
    left = [check for check in found if not check.ok]
    needed = [check for check in left if check.needed]
    if not left:
        console.print("All is well.")
    elif not needed:
        console.print("tinyfl has what it needs. Parts marked – are needed only for the purpose given.")


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of whole words, so that a path or a command can be copied from a narrow terminal."""
    lines = (wrap(line, max(width, 20), break_long_words=False, break_on_hyphens=False) for line in text.splitlines())
    return [line for wrapped in lines for line in wrapped]


class Monitor:
    """Shows a board's messages: live in a terminal, else one per line."""

    def __init__(self) -> None:
        self._console = Terminal()
        self._live = Live(console=self._console, refresh_per_second=4) if self._console.redraws else None
        self._description: Description | None = None
        self._status: Status | None = None
        self._state, self._style = "", "dim"
        self._clock = time.localtime()
        self._sensed = ""

    def __enter__(self) -> "Monitor":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def tell(self, message: "Line") -> None:
        """Shows the next message."""
        self._description, self._status = message.description or self._description, message.status
        self._clock, self._sensed = time.localtime(message.time), _sensed(message)
        if message.what != "status":
            self._style = "bold red" if message.what == "another board" else "dim"
            at = f"{message.port} {message.what}"
            self._state = (
                at + (f": {message.detail}" if message.detail else "") + (": waiting for it" if message.what == "gone" else "")
            )
        if self._live:
            self._live.update(self._screen())
        else:
            self._console.print(self._line(message), highlight=False, soft_wrap=True)

    def _line(self, message: "Line") -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(message.time))
        if message.status:
            return f"{clock} {_status_line(message.status)}{_sensed(message)}"
        who = f" {message.description.board} {message.description.id.hex()}" if message.description else ""
        firmware = f", firmware {message.description.firmware}" if message.description else ""
        return f"{clock} {message.port} {message.what}{who}{firmware}{': ' + message.detail if message.detail else ''}"

    def _screen(self) -> Group:
        table = Table(box=SIMPLE, show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        if self._description:
            described = self._description
            table.add_row("board", f"{described.board} {described.id.hex()}")
            table.add_row("firmware", described.firmware + (f", {described.clock / 1e6:g} MHz" if described.clock else ""))
            for sensor in described.sensors:
                table.add_row("sensor", f"{sensor.name}: {sensor.words}")
            table.add_row("arena", f"{described.arena:,} bytes")
            table.add_row("committed", f"model {_hash(described.model)}, int8 {_hash(described.inference)}")
        if self._status:
            table.add_row(time.strftime("%H:%M:%S", self._clock), _status_line(self._status) + self._sensed)
        return Group(table, Text(self._state, self._style), Text("Ctrl-C ends.", "dim"))


def _online(watched: "Watched") -> str:
    """The drift monitor."""
    parts = [f"online {watched.samples:,} samples, {watched.labels:,} labels"]
    parts += [f"error {watched.error:.3g}"] if watched.labels else []
    parts += [f"sure {watched.confidence:.3g}"]
    parts += [f"{watched.drifts:,} drifts, the last at sample {watched.drifted:,}"] if watched.drifts else []
    parts += [f"wants the label of sample {watched.wanted:,}"] if watched.wanted else []
    fails = f" fails, code {watched.code}" if watched.code < 0 else ""
    parts += [f"sensor {watched.source}{fails}"] if watched.source else []
    return " · ".join(parts)


def _sensed(line: "Line") -> str:
    """What is learnt online, a line's reading, what the network says, or why there is none; empty without all of these."""
    values = " ".join(f"{value:g}" for value in line.reading)
    parts = [_online(line.online)] if line.online else []
    parts += [f"reading {values}"] if values else []
    parts += [f"says {line.says}"] if line.says else []
    parts += [line.detail] if line.status and line.detail else []
    return "".join(f" · {part}" for part in parts)


def _status_line(status: "Status") -> str:
    """A board's status on one line."""
    from tinyfl.devices.monitor import state_name

    parts = [state_name(status)]
    if status.base:
        parts += [f"round {status.round + 1:,}", f"{status.done:,} samples", f"loss {status.loss:.4g}"]
    if status.weights:
        parts.append(f"weights {_hash(status.weights)}")
    if status.code:
        parts.append(f"code {status.code}")
    if status.stack:
        parts.append(f"stack {status.stack:,} bytes at most")
    return " · ".join(parts)
