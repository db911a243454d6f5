"""The roster of a fleet: which devices are simulated, which are emulated boards, which hang on this machine's ports.

A fleet's parts stand in its TOML file, one ``[[fleet]]`` table each, and number its devices in their order:

    [[fleet]]                       [[fleet]]                      [[fleet]]
    native = 100                    board = "mps2-an386"           ports = ["/dev/ttyACM0", "/dev/ttyACM1"]
                                    count = 4                      ids = ["0123456789abcdef"]
                                    engine = "unicorn"
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from tinyfl.building.toolchains import TOOLCHAINS, Toolchain
from tinyfl.errors import ConfigError

AUTO_BAUD = -1
"""In place of a baud rate, "auto" in a file: raised as far as the link allows (tinyfl.link.rates)."""

ENGINES = ("unicorn", "qemu", "process")


@dataclass(frozen=True)
class Part:
    """One kind of device in a fleet: ``native`` simulated ones; ``count`` boards of kind ``board``, emulated by ``engine``
    with firmware from ``toolchain``; or the boards at ``ports``, as pyserial names them, in the order of ``ports`` or, where
    given, of the boards' unique ``ids``, at ``baud`` (0: as the manifest has it that fits the port's USB ids, else 115,200;
    AUTO_BAUD: so at first), behind one line if ``shared``.
    ``faults`` is a scenario file, for emulated boards.

    With ``sensor`` its devices learn from their own source of that name; ``readings`` is a file of recorded readings for it
    (docs/firmware.md), in which the part's devices have those of its devices one by one, in the order of their names."""

    native: int = 0
    board: str = ""
    count: int = 1
    engine: str = ""
    toolchain: Toolchain = "zig"
    faults: str = ""
    ports: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    baud: int = 0
    shared: bool = False
    sensor: str = ""
    readings: str = ""

    @property
    def size(self) -> int:
        """Devices."""
        return self.native or (self.count if self.board else len(self.ids) or len(self.ports))

    @property
    def senses(self) -> bool:
        """Whether its devices may have a sensor: boards, and simulated devices that were given one, or its readings."""
        return bool(not self.native or self.sensor or self.readings)

    def to_toml(self) -> dict[str, Any]:
        """As its table in a file: what is not as usual."""
        held = asdict(self) | ({"baud": "auto"} if self.baud == AUTO_BAUD else {})
        return {f.name: held[f.name] for f in fields(self) if held[f.name] != f.default}


def named(parts: Iterable[Part]) -> dict[str, range]:
    """The devices of each part, by a name for people."""
    found, first = dict[str, range](), 0
    for number, part in enumerate(parts, 1):
        kind = "simulated" if part.native else part.board or "at ports"
        found[f"part {number}, {part.size:,} {kind}"] = range(first, first + part.size)
        first += part.size
    return found


def read_parts(tables: Any) -> tuple[Part, ...]:
    """The parts in ``[[fleet]]`` tables, or parts already read.

    Raises ConfigError for what is no part of a fleet.
    """
    if not isinstance(tables, list | tuple):
        raise ConfigError("fleet is not a list of tables. Write each part of the fleet under its own [[fleet]].")
    parts = tuple(table if isinstance(table, Part) else _part(table) for table in tables)
    _refuse_repeats("ports", [port for part in parts for port in part.ports])
    _refuse_repeats("ids", [id.lower() for part in parts for id in part.ids])
    return parts


def _part(table: Any) -> Part:
    if not isinstance(table, Mapping):
        raise ConfigError(f"a part of the fleet is {table!r}, not a table under [[fleet]].")
    if table.get("baud") == "auto":
        return replace(_part({**table, "baud": 115_200}), baud=AUTO_BAUD)
    kinds = {f.name: type(f.default) for f in fields(Part)}
    for key, value in table.items():
        if key not in kinds:
            raise ConfigError(f"[[fleet]] has {key!r}, which tinyfl does not know. There are {', '.join(kinds)}.")
        wanted = list | tuple if kinds[key] is tuple else kinds[key]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise ConfigError(f"{key} in [[fleet]] is {value!r}, not {kinds[key].__name__}.")
    values: dict[str, Any] = {key: tuple(value) if kinds[key] is tuple else value for key, value in table.items()}
    part = Part(**values)
    _check(part, set(table))
    return replace(part, ids=tuple(id.lower() for id in part.ids))


def _check(part: Part, given: set[str]) -> None:
    kinds = [name for name in ("native", "board", "ports") if name in given]
    if len(kinds) != 1:
        raise ConfigError(f"[[fleet]] has {', '.join(kinds) or 'none'} of native, board and ports. Give exactly one.")
    of_kind = {
        "native": {"sensor", "readings"},
        "board": {"count", "engine", "toolchain", "faults", "sensor", "readings"},
        "ports": {"ids", "baud", "shared", "sensor"},
    }[kinds[0]]
    for key in sorted(given - of_kind - set(kinds)):
        raise ConfigError(f"[[fleet]] with {kinds[0]} has no {key}. It takes {', '.join(sorted(of_kind)) or 'nothing else'}.")
    if ("native" in given and part.native < 1) or part.count < 1:
        raise ConfigError("[[fleet]] has no device: native and count are 1 or more.")
    if part.engine and part.engine not in ENGINES:
        raise ConfigError(f"no engine is called {part.engine!r}. There are {', '.join(ENGINES)}.")
    if part.toolchain not in TOOLCHAINS:
        raise ConfigError(f"no toolchain is called {part.toolchain!r}. There are {', '.join(TOOLCHAINS)}.")
    if "baud" in given and not 300 <= part.baud <= 4_000_000:
        raise ConfigError(f'baud in [[fleet]] is {part.baud:,}, not 300 to 4,000,000, or "auto".')
    if "ports" in given and not part.ports:
        raise ConfigError("ports in [[fleet]] is empty. Name serial ports, ptys or socket://host:port.")
    if not all(isinstance(text, str) for text in (*part.ports, *part.ids)):
        raise ConfigError("ports and ids in [[fleet]] are lists of texts.")
    for id in part.ids:
        if not re.fullmatch(r"(?:[0-9a-fA-F]{2}){1,16}", id):
            raise ConfigError(f"ids in [[fleet]] has {id!r}, which is no board's id: give pairs of hexadecimal digits.")
    if not all(text.isprintable() for text in part.ports):
        raise ConfigError("ports in [[fleet]] has a name with characters that cannot be printed.")


def _refuse_repeats(name: str, texts: Iterable[str]) -> None:
    """Whoever is in a fleet twice, be it a port under two names, would keep itself out."""
    from tinyfl.system.addresses import real_port

    seen: dict[str, str] = {}
    for text in texts:
        one = real_port(text) if name == "ports" else text
        if one in seen:
            same = f", which is {seen[one]!r} too" if seen[one] != text else ""
            raise ConfigError(f"{name} in [[fleet]] has {text!r} more than once{same}. Leave one of them.")
        seen[one] = text
