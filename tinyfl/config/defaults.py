"""The settings of a run that says nothing but its task and algorithm."""

from collections.abc import Mapping
from typing import Any

from tinyfl.config.settings import SETTINGS
from tinyfl.errors import ConfigError
from tinyfl.errors.words import plain
from tinyfl.registry import ALGORITHMS, KINDS, TASKS
from tinyfl.registry.chosen import Chosen
from tinyfl.registry.parameters import own_defaults

OWN_WAYS = {
    "support": 0, "steps": 1, "pull": 0.0, "outer_optimiser": "sgd", "outer_schedule": "", "rate_schedule": "",
    "local": "", "local_start": "reconstructed", "local_samples": 0,
}  # fmt: skip
"""Where an algorithm has no other default; without a schedule given, it has its own."""

OTHER_ALGORITHM: dict[str, Any] = {"samples": 32, "batch": 1, "rate": 0.01, "outer_step": 1.0, **OWN_WAYS}
"""With an algorithm that is not tinyfl's own, where its class has no defaults. A setting that fills none of its fields has this
value."""

OTHER_TASK: dict[str, Any] = {"network": "mlp-64-64", "cohort": 1, "rounds": 10000, "shots": (10,)}
"""With a task that is not tinyfl's own, where its class has no ``defaults``."""

BY_SIZE = ("network", "rounds", "rate")
"""What tinyfl.config.fitting chooses by the size of the user's data."""

OF_AN_ALGORITHM = {
    key
    for table in (
        *(each.defaults for each in ALGORITHMS.values()),
        *(t for each in TASKS.values() for t in each.tuned.values()),
        OWN_WAYS,
    )
    for key in table
}
"""The settings of which another algorithm needs others."""


def defaults(task: str | Chosen | None = None, algorithm: str | Chosen | None = None) -> dict[str, Any]:
    """The settings of a run that says nothing but its task and algorithm; without those that resolve works out. Of code that
    is loaded, its class's count.

    Raises ConfigError where there is no such task or algorithm.
    """
    of_task = Chosen.read("task", SETTINGS["task"].default if task is None else task)
    of_algorithm = Chosen.read("algorithm", SETTINGS["algorithm"].default if algorithm is None else algorithm)
    plain = {name: each.default for name, each in SETTINGS.items() if each.default is not None}
    known = TASKS.get(of_task.name)
    return {
        **plain,
        **(ALGORITHMS[of_algorithm.name].defaults if of_algorithm.built_in else OTHER_ALGORITHM),
        **(known.defaults if known else OTHER_TASK | _of_class(of_task)),
        **(known.tuned.get(of_algorithm.name, {}) if known else {}),
        **({} if of_algorithm.built_in else _of_class(of_algorithm)),
        "task": of_task.name,
        "algorithm": of_algorithm.name,
    }


def unsaid(given: Mapping[str, Any], task: Chosen, algorithm: Chosen) -> tuple[str, ...]:
    """The settings of BY_SIZE that are not ``given``, for a task of tinyfl's that takes any data; all others have defaults of
    their own. An algorithm that is not tinyfl's own has a rate of its own."""
    if not (task.built_in and task.takes("targets")):
        return ()
    own = () if algorithm.built_in else ("rate", *_of_class(algorithm))
    return tuple(name for name in BY_SIZE if name not in given and name not in own)


def _of_class(chosen: Chosen) -> dict[str, Any]:
    """The defaults of a class that is not tinyfl's: its fields', then its ``defaults``. An algorithm has none for settings that
    nodes use, since they do not load it.

    Raises ConfigError for ``defaults`` of anything else.
    """
    if chosen.code is None or not chosen.makes:
        return {}
    mine = {name for name, each in SETTINGS.items() if each.panel and not (chosen.kind == "algorithm" and each.of_a_node)} - {
        *KINDS
    }
    fields, named = own_defaults(chosen.kind, chosen.code), getattr(chosen.code, "defaults", {})
    if not isinstance(named, Mapping) or (others := [name for name in named if name not in mine]):
        what = f"has {plain(others[0], 80)!r}" if isinstance(named, Mapping) else "is no mapping"
        raise ConfigError(f"defaults of {chosen.called} {what}. It maps settings to values, of {', '.join(sorted(mine))}.")
    return {name: value for name, value in {**fields, **named}.items() if name in mine and value is not None}
