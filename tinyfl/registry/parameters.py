"""The fields of a class, which a run fills: those called like settings from its settings, the others from its options."""

import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from tinyfl.errors import ConfigError
from tinyfl.errors.words import plain

SETTINGS_OF = {
    "algorithm": (
        "rounds", "cohort", "samples", "batch", "support", "steps", "pull", "rate", "outer_step", "outer_optimiser",
        "outer_schedule", "rate_schedule", "local", "local_start", "local_samples", "clip", "ways", "training_ways", "seed",
    ),
    "task": ("seed", "data", "standardise", "targets", "label_set", "image_side", "one_alphabet"),
    "aggregator": ("cohort", "tolerate"),
}  # fmt: skip
"""The settings that fill fields of their name."""

OF_A_TABLE = (
    "label_column", "device_column", "input_columns", "window", "stride", "missing", "drop_small", "balance", "episodes",
    "ways", "training_ways",
)  # fmt: skip
"""The settings of tinyfl.data.Reading, which fill the field ``reading`` of a task of tinyfl, or fields of their names."""

ALSO = {"inner_lr": "rate"}
"""Fields of another name than the setting that fills them."""

GIVEN = ("standard",)
"""Fields that a run fills with what is no setting: an earlier run's standardisation."""


def parameters(code: Any) -> Mapping[str, inspect.Parameter]:
    """The fields of a class or of an object's class, or the parameters of a function."""
    made_by = code if inspect.isclass(code) or inspect.isfunction(code) else type(code)
    try:
        found = inspect.signature(made_by).parameters
    except (TypeError, ValueError):  # a class written in C
        return {}
    return {name: each for name, each in found.items() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}


def setting_of(kind: str, name: str) -> str | None:
    """The setting that fills the field ``name``; None for an option."""
    called = ALSO.get(name, name) if kind == "algorithm" else name
    return called if called in SETTINGS_OF[kind] else None


def settings_of(kind: str, code: Any) -> dict[str, str]:
    """The settings that fill fields of ``code``, with the fields' names."""
    found = {setting_of(kind, name): name for name in parameters(code)}
    return {setting: name for setting, name in found.items() if setting}


def own_defaults(kind: str, code: Any) -> dict[str, Any]:
    """The defaults of the fields that settings fill."""
    held = parameters(code)
    defaults = {setting: held[name].default for setting, name in settings_of(kind, code).items()}
    return {setting: plainly(value) for setting, value in defaults.items() if value is not inspect.Parameter.empty}


def option_names(kind: str, code: Any) -> list[str]:
    """The fields that options fill."""
    return [name for name in parameters(code) if name not in GIVEN and setting_of(kind, name) is None]


def checked(called: str, kind: str, code: Any, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of ``code``, with its defaults: as values of the fields' types, and as a file holds them.

    Raises ConfigError for an option that is none, is missing, or has another type; ``called`` is its name for people.
    """
    names, held, hints = option_names(kind, code), parameters(code), _hints(code)
    for name in options:
        if name not in names:
            where = "a setting: write it at the top of the file, or as an option" if setting_of(kind, name) else "no option"
            raise ConfigError(f"{name} of {called} is {where}. Its options are {', '.join(names) or 'none'}.")
    typed, shown = dict[str, Any](), dict[str, Any]()
    for name in names:
        if name in options:
            value = options[name]
        elif held[name].default is not inspect.Parameter.empty:
            value = _default(code, name, held[name].default)
        else:
            raise ConfigError(f"{called} needs the option {name}: write it under [{kind}] in a TOML file.")
        if value is held[name].default and (inspect.isfunction(value) or not _holdable(value)):
            continue  # it is the class's own, and part of its source
        if value is None and held[name].default is not None:
            raise ConfigError(
                f"{name} of {called} is None, which no config file can hold. Give None as its default, or a value."
            )
        typed[name], plain_value = _typed(f"{name} of {called}", hints.get(name, Any), value)
        if plain_value is not None:
            shown[name] = plain_value
        _demand_in_bounds(f"{name} of {called}", code, name, typed[name])
    return typed, shown


def _default(code: Any, name: str, default: Any) -> Any:
    """A field's default, made where it is a factory's."""
    for each in fields(code) if is_dataclass(code) else ():
        if each.name == name and callable(each.default_factory):
            return each.default_factory()
    return default


def _hints(code: Any) -> dict[str, Any]:
    try:
        return get_type_hints(code.__init__ if inspect.isclass(code) else code)
    except Exception:  # annotations are any expression of the user's
        return {}


def _holdable(value: Any) -> bool:
    """Whether a config file can hold ``value``."""
    try:
        json.dumps(plainly(value), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def plainly(value: Any) -> Any:
    """``value`` as a config file holds it: arrays by their SHA-256, functions by their name, NumPy's numbers as Python's."""
    if inspect.isfunction(value) and "<" not in value.__qualname__:
        return f"{value.__module__}:{value.__qualname__}"
    if hasattr(value, "dtype") and hasattr(value, "tobytes"):
        if not getattr(value, "shape", ()):
            return value.item()
        from hashlib import sha256

        return f"{value.dtype} {value.shape} sha256:{sha256(value.tobytes()).hexdigest()}"
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value


def _typed(called: str, hint: Any, value: Any) -> tuple[Any, Any]:
    """``value`` as the type ``hint``, and as a config file holds it."""
    from pydantic import TypeAdapter, ValidationError
    from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

    shown = plainly(value)
    if value is None or (shown is not value and (inspect.isfunction(value) or hasattr(value, "tobytes"))):
        return value, shown
    try:
        adapter = TypeAdapter(hint)
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
        adapter = TypeAdapter(Any)
    try:
        typed = adapter.validate_json(json.dumps(shown, allow_nan=False), strict=True)
    except ValidationError as error:
        raise ConfigError(f"{called} is {plain(repr(value), 80)}. {plain(error.errors()[0]['msg'])}.") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{called} is {plain(repr(value), 80)}, which no config file can hold. Give numbers, texts, or lists of them."
        ) from error
    return typed, adapter.dump_python(typed, mode="json", warnings=False)


def _demand_in_bounds(called: str, code: Any, name: str, value: Any) -> None:
    """Raises ConfigError for a value outside the bounds in its field's metadata."""
    for each in fields(code) if is_dataclass(code) else ():
        low, high = each.metadata.get("bounds", (-math.inf, math.inf)) if each.name == name else (-math.inf, math.inf)
        if isinstance(value, int | float) and not low <= value <= high:
            raise ConfigError(f"{called} is {value:,}, out of its range {low:,} to {high:,}.")
