"""A run's settings in Flower's run config, which is flat, has no lists, and must list every key that may be overridden.

An empty string means unset. ``shots`` is one string, such as "1,5"; an algorithm, task or aggregator with options is one string
too, their table as TOML writes it on one line: '{name = "prox", mu = 0.1}'. The other settings are as in tinyfl.config.Config.
"""

import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from tinyfl.config.settings import SETTINGS, renamed
from tinyfl.errors import ConfigError
from tinyfl.errors.words import plain
from tinyfl.registry import KINDS
from tinyfl.registry.chosen import Chosen

OF_THE_NODES = ("fleet",)
"""What a federation's nodes know, each for itself."""

NO_BUFFER = (
    "--buffer is for a fleet on one machine: a federation's nodes answer a whole round at a time. Leave it out, or run it "
    "without --federation."
)

OF_THE_RUN = ("out", "resume")
"""The run directory, and the run to resume."""


def keys() -> tuple[str, ...]:
    """The settings that a run config may have."""
    return (*(name for name, each in SETTINGS.items() if each.panel), *OF_THE_RUN)


def from_run_config(run_config: Mapping[str, Any]) -> dict[str, Any]:
    """Reads a run config's settings, as options of tinyfl.simulate.

    Raises ConfigError for an unknown key.
    """
    options = renamed({key.replace("-", "_"): value for key, value in run_config.items() if value != ""})
    for key in options:
        if key not in keys():
            raise ConfigError(f"the run config has {key!r}, which tinyfl does not know. It knows {', '.join(sorted(keys()))}.")
    if isinstance(shots := options.get("shots"), str):
        if not all(number.strip().isdecimal() for number in shots.split(",")):
            raise ConfigError(f'shots is {shots!r}. Give whole numbers, such as shots = "1,5".')
        options["shots"] = tuple(int(number) for number in shots.split(","))
    return {**options, **{kind: _read_table(kind, options[kind]) for kind in KINDS if kind in options}}


def _read_table(kind: str, value: Any) -> Any:
    """The table that a text of the form {name = "…"} is; other values as they are."""
    if not isinstance(value, str) or not value.startswith("{"):
        return value
    try:
        return tomllib.loads(f"{kind} = {value}")[kind]
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f'{kind} is {plain(value, 80)!r}, no table such as {{name = "prox", mu = 0.1}} ({plain(error)}).'
        ) from error


def _table_text(value: Any) -> Any:
    """The text of a table; other values as they are."""
    if not isinstance(value, Chosen | Mapping):
        return value
    import tomlkit

    inline = tomlkit.inline_table()
    inline.update(value.to_toml() if isinstance(value, Chosen) else value)
    return inline.as_string()


def of_a_node(run_config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a node uses. It needs neither the algorithm nor the aggregator, which are the coordinator's."""
    return {key: value for key, value in from_run_config(run_config).items() if key in SETTINGS and SETTINGS[key].of_a_node}


def to_run_config(options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes ``options`` as a run config with every key; the inverse of from_run_config."""
    shots = options.get("shots") or ()
    values = {**options, "shots": ",".join(map(str, shots if isinstance(shots, Iterable) else (shots,)))}
    values |= {kind: _table_text(options[kind]) for kind in KINDS if kind in options}
    return {key.replace("_", "-"): "" if values.get(key) is None else values[key] for key in keys()}
