"""The options of `tinyfl run`: one for each setting (tinyfl.config.settings), and a help that shows a part of them."""

import inspect
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from typing import Annotated, Any

import click
import typer
from typer.core import TyperCommand

from tinyfl.config.defaults import defaults, unsaid
from tinyfl.config.settings import SETTINGS, Setting
from tinyfl.registry import ENTRIES, KINDS
from tinyfl.registry.chosen import Chosen
from tinyfl.registry.installed import installed
from tinyfl.registry.own import own_code

METAVARS = {int: "N", float: "X", str: "NAME"}
GIVEN = f"{__name__}.given"
"""The key under which a context keeps the parsed command line."""


class OneOfMany(click.types.IntParamType):
    """A whole number of an option that may be repeated."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        try:
            return int(value)
        except ValueError:
            option = param.opts[0] if param else ""
            several = " ".join(f"{option} {word}" for word in str(value).replace(",", " ").split())
            self.fail(f"{value!r} is not a whole number. For several numbers repeat the option: {several}.", param, ctx)


def option(help: str, panel: str, metavar: str | None = None, *, common: bool = True) -> Any:
    """An option in a panel of the help, which the short help lists where it is ``common``."""
    return typer.Option(help=help, rich_help_panel=panel, metavar=metavar, hidden=not common)


def _show_all(ctx: typer.Context, on: bool) -> None:
    if on:
        typer.echo(ctx.get_help())
        raise typer.Exit


HelpAll = Annotated[
    bool,
    typer.Option(
        "--help-all", is_eager=True, callback=_show_all, help="Show all options. For a task's own: --help --task npz."
    ),
]


def with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a verb into what typer is to see: with an option for each setting, or for those of ``names``, instead of
    ``**settings``, which come last. The help lists the common ones, or those of ``names``."""
    settings = [replace(SETTINGS[name], common=True) for name in names] or [each for each in SETTINGS.values() if each.panel]

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        first, *own, _ = (each.replace(kind=each.KEYWORD_ONLY) for each in inspect.signature(verb).parameters.values())
        parameters = [first, *map(_parameter, settings), *own]
        verb.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        verb.__annotations__ = {each.name: each.annotation for each in parameters}
        return verb

    return decorate


def given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were given, of all that typer passes on."""
    return {key: value for key, value in settings.items() if value is not None and value != []}


def _parameter(setting: Setting) -> inspect.Parameter:
    many = setting.kind == tuple[int, ...]
    kind: Any = list[int] if many else setting.kind
    shown = option(setting.help, setting.panel, setting.metavar or METAVARS.get(kind), common=setting.common)
    shown.click_type = OneOfMany() if many else None
    return inspect.Parameter(
        setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, shown]
    )


class Command(TyperCommand):
    """A command whose help lists the common options, beside --task or --algorithm their own too, and at --help-all all."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[GIVEN], _, _ = self.make_parser(ctx).parse_args(list(args))
        return super().parse_args(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        line = own_code(dict(ctx.meta[GIVEN]) | {kind: ctx.meta[GIVEN].get(kind) for kind in KINDS})
        line = {key: value for key, value in line.items() if value is not None}
        named = {key: SETTINGS[key].default for key in ("task", "algorithm")}
        usual = {**defaults(line.get("task"), line.get("algorithm")), **named}
        if "task" in line:  # the default one is not of any data, and loading its class takes longer than all of the help
            task, algorithm = (Chosen.read(kind, line.get(kind, named[kind])) for kind in ("task", "algorithm"))
            usual |= dict.fromkeys(unsaid({}, task, algorithm), "by the size of the data")
        shown = copy(self)
        shown.params = [_shown(param, line, usual) for param in self.params]
        super(Command, shown).format_help(ctx, formatter)


def _shown(param: click.Parameter, line: Mapping[str, Any], usual: Mapping[str, Any]) -> Any:
    """``param`` for the help: with its default for this task and algorithm, and hidden if it is not of interest."""
    shown: Any = copy(param)
    setting = SETTINGS.get(shown.name)
    if setting:
        value = usual.get(setting.name)
        shown.hidden = not _of_interest(setting, line)
        shown.help = _help(setting, line)
        shown.default = f"{value:g}" if isinstance(value, float) else None if value == "" else value
    if "help_all" in line:
        shown.hidden = False
    return shown


def _help(setting: Setting, line: Mapping[str, Any]) -> str:
    """The setting's help; for an algorithm, a task or an aggregator with what installed packages have, and about the one on the
    command line."""
    if setting.name not in KINDS:
        return setting.help
    others = [name for name in installed(setting.name) if name not in ENTRIES[setting.name]]
    known = ENTRIES[setting.name].get(str(line.get(setting.name)))
    return " ".join(
        [
            setting.help,
            *(["Installed:", ", ".join(others) + "."] if others else []),
            *([f"{known.name}: {known.about}."] if known else []),
        ]
    )


def _of_interest(setting: Setting, line: Mapping[str, Any]) -> bool:
    """Whether it is common, or of the task or algorithm on the command line; False if it belongs to another."""
    return setting.concerns(line.get("task"), line.get("algorithm")) and (setting.common or setting.of in line)
