"""What a run is made of, by name: algorithms, tasks and aggregators; tinyfl's own, those of installed packages, the user's.

Nothing is imported before it is used: neither NumPy, since the help is made of these entries, nor code that only a file or a
message names.
"""

from collections.abc import Mapping

from tinyfl.errors import ConfigError
from tinyfl.errors.words import guess, plain
from tinyfl.registry.aggregators import AGGREGATORS
from tinyfl.registry.algorithms import ALGORITHMS
from tinyfl.registry.entries import KINDS, Entry
from tinyfl.registry.tasks import TASKS

__all__ = ["AGGREGATORS", "ALGORITHMS", "ENTRIES", "KINDS", "TASKS", "listed", "refusal"]

ENTRIES: Mapping[str, Mapping[str, Entry]] = {"algorithm": ALGORITHMS, "task": TASKS, "aggregator": AGGREGATORS}
"""tinyfl's own entries, by kind and name."""


def listed(kind: str) -> str:
    """The names of this kind: tinyfl's own, then those of installed packages."""
    from tinyfl.registry.installed import installed

    own, others = ENTRIES[kind], installed(kind)
    texts = [*own, *(f"{name} (of {each.package})" for name, each in others.items() if name not in own)]
    taken = [f"{each.package}'s {name} is not there: the name is tinyfl's own" for name, each in others.items() if name in own]
    return ", ".join(texts) + "".join(f" ({why})" for why in taken)


def refusal(kind: str, name: object) -> ConfigError:
    """The error for a name that is none of this kind."""
    none = ", or none for the mean" if kind == "aggregator" else ""
    alike = guess(name, ENTRIES[kind])
    names = f"{listed(kind)}{none}"
    return ConfigError(
        f"no {kind} is called {plain(name, 80)!r}. {alike}There are {names}; or your own, as package.module:Class."
    )
