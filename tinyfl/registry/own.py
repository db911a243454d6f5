"""The user's own code, by the user's own word: package.module:Class on the command line, or a class or an object in Python."""

import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from importlib import import_module, invalidate_caches
from linecache import getlines
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from tinyfl.errors import ConfigError
from tinyfl.errors.words import plain
from tinyfl.registry import ENTRIES, KINDS
from tinyfl.registry.chosen import NEEDED, Chosen, demand_kind, is_dotted
from tinyfl.registry.parameters import checked, option_names, plainly, settings_of


def own_code(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a run that this user gives: with the code that they name, or bring as a class or an object, loaded; and with
    the settings of an object that has them.

    Raises ConfigError for code that cannot be imported or is of another kind, and for an object's setting that is also given
    with another value.
    """
    given = dict(options)
    for kind in KINDS:
        value = given.get(kind)
        if value is None or isinstance(value, Chosen):
            continue
        given[kind], of_object = _read(kind, value)
        for setting, there in of_object.items():
            if given.get(setting, there) is not None and given.get(setting, there) != there:
                raise ConfigError(
                    f"{setting} is {given[setting]!r}, and {there!r} in the {kind} that is given as an object. "
                    "Give one of them."
                )
            given[setting] = there
    return given


def _read(kind: str, value: Any) -> tuple[Any, dict[str, Any]]:
    """A kind's option, with its code loaded; and the settings that an object brings."""
    name = value.get("name") if isinstance(value, Mapping) else value
    if not isinstance(name, str):
        return (value, {}) if isinstance(value, Mapping) else of_code(kind, value)
    if not is_dotted(name):
        return value, {}
    chosen, settings = of_code(kind, _imported(kind, name), name)
    if isinstance(chosen, Chosen) and isinstance(value, Mapping):
        chosen = chosen.over(Chosen.read(kind, value))
    return chosen, settings


def _imported(kind: str, name: str) -> Any:
    """The class or object at ``name``, package.module:Class."""
    module, _, path = name.partition(":")
    try:
        with _here():
            code: Any = import_module(module)
    except Exception as error:  # whatever the module does
        raise ConfigError(
            f"{kind} {name}: {module} cannot be imported ({plain(f'{type(error).__name__}: {error}')}). Give the name of a "
            "file in this folder without .py, or of an installed module."
        ) from error
    for part in path.split("."):
        if not hasattr(code, part):
            raise ConfigError(f"{kind} {name}: {module} has no {path}. Give the class's own name after the colon.")
        code = getattr(code, part)
    return code


@contextmanager
def _here() -> Iterator[None]:
    """The working directory among the places of modules, as for python -m."""
    folder = str(Path.cwd())
    invalidate_caches()  # a file may be new
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def of_code(kind: str, code: Any, name: str = "") -> tuple[Chosen | str, dict[str, Any]]:
    """The choice of a class or an object, by ``name`` or its class's own; and the settings that an object brings."""
    made_by = code if inspect.isclass(code) else type(code)
    own_name = f"{made_by.__module__}:{made_by.__qualname__}".replace("<locals>.", "")
    name = name or own_name
    called = f"{kind} {name}"
    demand_kind(kind, called, code)
    settings = {} if inspect.isclass(code) else _settings_of(called, kind, code)
    for entry in ENTRIES[kind].values():
        if entry.where == own_name:
            return entry.name, settings
    options = {} if inspect.isclass(code) else _options_of(called, kind, code)
    return Chosen(kind, name, source_version(made_by), options, code), settings


def _settings_of(called: str, kind: str, made: Any) -> dict[str, Any]:
    """The values of an object's fields that settings fill."""
    values = {setting: _held(called, made, name) for setting, name in settings_of(kind, made).items()}
    return {name: plainly(value) for name, value in values.items() if value is not None}


def _options_of(called: str, kind: str, made: Any) -> dict[str, Any]:
    """The values of an object's other fields, as a config file holds them."""
    values = {name: _held(called, made, name) for name in option_names(kind, made)}
    return checked(called, kind, type(made), values)[1]


def _held(called: str, made: Any, name: str) -> Any:
    try:
        return getattr(made, name)
    except AttributeError as error:
        raise ConfigError(
            f"{called} keeps no {name}, with which it was made, so a config could not say what it is. Make it a dataclass, or "
            f"give its class."
        ) from error


_VERSIONS: MutableMapping[type, str] = WeakKeyDictionary()
"""The versions of classes as first seen: a file that is edited later is not what Python runs."""


def source_version(made_by: type) -> str:
    """The SHA-256 of the source of a class: of its module's file, or of its cell in a notebook. Empty if Python cannot find
    it."""
    if made_by not in _VERSIONS:
        _VERSIONS[made_by] = _source_version(made_by)
    return _VERSIONS[made_by]


def _source_version(made_by: type) -> str:
    file = getattr(sys.modules.get(made_by.__module__), "__file__", None)
    try:
        source = Path(file).read_bytes() if file else _cell(made_by)
    except OSError:
        return ""
    return f"sha256:{hashlib.sha256(source).hexdigest()}" if source else ""


def _cell(made_by: type) -> bytes:
    """The notebook's cell that defines a class, which is kept with its methods' lines; empty if there is none."""
    methods = (vars(made_by).get(name) for names in NEEDED.values() for name in names)
    cells = (getlines(each.__code__.co_filename) for each in methods if inspect.isfunction(each))
    return "".join(next(filter(None, cells), [])).encode()
