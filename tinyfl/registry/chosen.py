"""What a run has chosen: an algorithm, a task or an aggregator, by name, with its code once it is loaded.

tinyfl's own and those of installed packages load by name. Any other name is code of somebody's own, which only this user's word
loads (tinyfl.registry.own): chosen by a file, a run directory or a message, it stays a name.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from tinyfl.errors import ConfigError, TinyflError
from tinyfl.errors.words import plain
from tinyfl.registry import ENTRIES, refusal
from tinyfl.registry.installed import installed, is_name, package_of
from tinyfl.registry.parameters import OF_A_TABLE, checked, option_names, parameters, settings_of
from tinyfl.registry.tasks import TASKS

MAX_NAME_CHARS = 200

DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")
"""package.module:Class, as in an entry point."""

NEEDED = {
    "algorithm": ("inner", "outer"),
    "task": ("name", "shape", "outputs", "loss", "activation", "fleet_size", "standardisation", "stream", "episodes"),
    "aggregator": ("configure_train", "aggregate_train"),
}
"""What each kind has."""


@dataclass(frozen=True)
class Chosen:
    """An algorithm, a task or an aggregator (the ``kind``) by name. ``version`` and ``options`` are those of what is not
    tinyfl's own: a package's version, or the SHA-256 of a source; empty if unknown. ``code`` is a class or an object; None if
    not loaded."""

    kind: str
    name: str
    version: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    code: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def read(cls, kind: str, value: Any) -> "Chosen":
        """From a setting's value: a name, or a table with ``name``, ``version`` and options. Imports nothing.

        Raises ConfigError for a name that is none.
        """
        if isinstance(value, Chosen):
            return value
        table = dict(value) if isinstance(value, Mapping) else {"name": value}
        name, version = table.pop("name", None), table.pop("version", "")
        if not isinstance(name, str) or not isinstance(version, str):
            raise ConfigError(f"{kind} is {plain(repr(value), 80)}, not a name, or a table with name = and its options.")
        chosen = cls(kind, name, version, table)
        if not (chosen.built_in or is_dotted(name) or (version and is_name(name)) or name in installed(kind)):
            raise refusal(kind, name)  # with a version it is from a config, and maybe installed where that was made
        if chosen.built_in and (table or version):
            raise ConfigError(
                f"{kind} {name or 'of none'} has no options of its own. Write its settings at the top of the file."
            )
        return chosen

    @property
    def built_in(self) -> bool:
        """Whether it is one of tinyfl's own; no aggregator at all is, too."""
        return self.name in ENTRIES[self.kind] or (self.kind == "aggregator" and not self.name)

    @property
    def loads_by_name(self) -> bool:
        """Whether its name alone loads it: tinyfl's own, or of an installed package."""
        return self.built_in or not is_dotted(self.name)

    @property
    def of_package(self) -> bool:
        """Whether it is an installed package's."""
        return self.loads_by_name and not self.built_in

    @property
    def words(self) -> tuple[str, ...]:
        """The words of a command line that load it; empty if its name alone does."""
        return () if self.loads_by_name else (f"--{self.kind}", self.name)

    @property
    def called(self) -> str:
        """Its name for people."""
        return f"{self.kind} {self.name}"

    def over(self, lower: "Chosen | None") -> "Chosen":
        """This choice, with the options of a ``lower`` one of the same name that it does not give itself.

        Raises ConfigError if the lower one is of another version.
        """
        if lower is None or lower.name != self.name or self.built_in:
            return self
        if self.version and lower.version and self.version != lower.version:
            raise ConfigError(
                f"{self.called} is {self.version} now, and the file was written with {lower.version}. Take that one, or "
                f"remove version from [{self.kind}] in the file."
            )
        version = self.version or lower.version
        return replace(self, version=version, options={**lower.options, **self.options}) if self.makes else self

    @property
    def makes(self) -> bool:
        """Whether its code makes the algorithm, task or aggregator; False where it is one, an object that the user made."""
        return self.code is None or inspect.isclass(self.code) or inspect.isfunction(self.code)

    def loaded(self) -> "Chosen":
        """With its code.

        Raises ConfigError for what no name loads.
        """
        if self.code is not None:
            return self
        if self.built_in:
            module, _, name = ENTRIES[self.kind][self.name].where.partition(":")
            return replace(self, code=getattr(import_module(module), name))
        if not self.loads_by_name:
            raise not_loaded(self)
        return self._of_package()

    def _of_package(self) -> "Chosen":
        found = installed(self.kind).get(self.name)
        if found is None:
            raise refusal(self.kind, self.name)
        if len(found.points) > 1:
            raise ConfigError(
                f"{self.called} is in more than one installed package: {', '.join(map(package_of, found.points))}. "
                "Uninstall all but one of them."
            )
        version = f"{found.package} {found.version}"
        if self.version not in ("", version):
            raise ConfigError(f"{self.called} is of {version} here, and the run is of {self.version}. Install that.")
        try:
            code = found.points[0].load()
        except Exception as error:  # whatever the package does
            raise ConfigError(f"{self.called} of {version} cannot be imported: {_why(error)}.") from error
        demand_kind(self.kind, self.called, code)
        return replace(self, version=version, code=code)

    def complete(self) -> "Chosen":
        """With all its options, if its code is loaded.

        Raises ConfigError for an option that is none, is missing, or has another type.
        """
        if self.built_in or self.code is None or not self.makes:
            return self
        return replace(self, options=checked(self.called, self.kind, self.code, self.options)[1])

    @property
    def trains(self) -> str:
        """What an algorithm trains: its class's ``trains``, "task" without one (tinyfl.algorithms.Algorithm). Empty if its code
        is not loaded."""
        if self.code is None and not self.built_in:
            return ""
        return str(getattr(self.loaded().code, "trains", "task"))

    def takes(self, setting: str) -> bool | None:
        """Whether a setting fills one of its fields; None if it is not tinyfl's own, and its code is not loaded."""
        if self.kind == "aggregator" and not self.name:
            return False
        if self.code is None and not self.built_in:
            return None
        if setting in OF_A_TABLE:
            held = parameters(self.loaded().code) if self.kind == "task" and self.built_in else {}
            return "reading" in held or setting in held
        return setting in settings_of(self.kind, self.loaded().code)

    def made(self, settings: Mapping[str, Any]) -> Any:
        """The algorithm, task or aggregator, its fields filled from ``settings``.

        Raises ConfigError where it cannot be made.
        """
        chosen = self.loaded()
        if not chosen.makes:
            return chosen.code
        by_setting, held = settings_of(self.kind, chosen.code), parameters(chosen.code)
        values = {name: settings[setting] for setting, name in by_setting.items()}
        values |= {name: settings[name] for name in held if name in settings and name not in values}
        if self.kind == "task":
            values = self._with_data(values, held, settings)
        if self.built_in:
            return chosen.code(**values)
        values |= checked(self.called, self.kind, chosen.code, self.options)[0]
        try:
            made = chosen.code(**{name: value for name, value in values.items() if name in held})
        except (TinyflError, MemoryError):
            raise
        except Exception as error:  # whatever the user's code does
            raise ConfigError(f"{self.called} cannot be made: {_why(error)}.") from error
        demand_kind(self.kind, self.called, made)
        return made

    def _with_data(
        self, values: dict[str, Any], held: Mapping[str, inspect.Parameter], settings: Mapping[str, Any]
    ) -> dict[str, Any]:
        """``values`` without a file that is not given.

        Raises ConfigError where the task needs one, or has no use for one.
        """
        if settings["data"] is not None:
            if "data" in values:
                return values
            raise ConfigError(f"{self.called} brings its own data: leave --data out, or say --task npz.")
        if "data" in values and held["data"].default is inspect.Parameter.empty:
            file = TASKS[self.name].file if self.name in TASKS else "its own file"
            raise ConfigError(f"{self.called} needs --data FILE: {file} (docs/tasks.md).")
        return {name: value for name, value in values.items() if name != "data"}

    def to_toml(self) -> dict[str, Any]:
        """As its table in a file."""
        return {"name": self.name, "version": self.version, **dict(sorted(self.options.items()))}


def is_dotted(name: str) -> bool:
    """Whether ``name`` has the form package.module:Class."""
    return len(name) <= MAX_NAME_CHARS and DOTTED.fullmatch(name) is not None


def not_loaded(*named: Chosen) -> ConfigError:
    """The error for code that only this user's word loads."""
    words = " ".join(word for each in named for word in each.words)
    return ConfigError(
        f"{' and '.join(each.called for each in named)}: that is code, and neither a file nor a run directory nor a message "
        f"can have code loaded. If you know and trust it, give it yourself: {words}; or in Python."
    )


def demand_kind(kind: str, called: str, code: Any) -> None:
    """Raises ConfigError where a class or an object lacks what its kind has. A class may make some of it later."""
    if inspect.isroutine(code) or inspect.ismodule(code):
        raise ConfigError(f"{called} is a {type(code).__name__}, not a class or an object (docs/your-own.md).")
    needed = NEEDED[kind][-2:] if inspect.isclass(code) else NEEDED[kind]
    if missing := [name for name in needed if not hasattr(code, name)]:
        raise ConfigError(f"{called} is no {kind}: it has no {' and no '.join(missing)} (docs/your-own.md).")
    if inspect.isclass(code) and (bad := [name for name in option_names(kind, code) if name in ("name", "version")]):
        raise ConfigError(f"{called} has the field {bad[0]}, which means something else in a config. Give it another name.")


def _why(error: Exception) -> str:
    return plain(f"{type(error).__name__}: {error}")
