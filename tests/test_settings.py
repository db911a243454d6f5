"""The settings of a run: one table, from which the options, the help, the checks and Flower's run config come; and the former
names of some."""

import inspect
import re
import sys
import tomllib
from collections.abc import Callable
from dataclasses import fields, replace
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from typer.testing import CliRunner

import tinyfl
from tinyfl import cli
from tinyfl.cli import renamed
from tinyfl.cli.options import with_settings
from tinyfl.config import Config, resolve
from tinyfl.config.defaults import BY_SIZE, defaults
from tinyfl.config.settings import SETTINGS, Setting
from tinyfl.errors import ConfigError, RunError
from tinyfl.flower.settings import from_run_config, keys, to_run_config
from tinyfl.networks.layers import Loss
from tinyfl.registry import AGGREGATORS, ALGORITHMS, ENTRIES, TASKS
from tinyfl.registry.chosen import Chosen
from tinyfl.runs.directory import RunDirectory
from tinyfl.tasks import FIRST_VALIDATION_DEVICE, targets_for

OPTIONS = {name: each for name, each in SETTINGS.items() if each.panel}
PAIRS = list(product(TASKS, ALGORITHMS))
KRUM: dict[str, Any] = {"nodes": "devices", "aggregator": "krum", "cohort": 11}
BEFORE: list[tuple[dict[str, Any], str]] = [
    ({}, "4c6bcec2d2c8cc743dafff93374b19b90b3a331db819f6f56cba178a7476ebe1"),
    (KRUM, "cd34e3d589c1ac3b83bb47a801b5bf549d95e8d89ecd8cc136b4cdd47022aae1"),
    ({"task": "sine", "algorithm": "reptile"}, "0c9f726b6dd031f1a684478d594dcdb5149dfda0066e643220410d6728e9e6b4"),
    ({"task": "npz", "algorithm": "fedavg"}, "eb8e3c0c5479be5b5cbc8c8ac26fc8d51063e6145e2814b62b07cd510cf8b5e0"),
    ({"task": "omniglot", "algorithm": "joint"}, "10cb0859fd967e09f7103ea0d0e7e1f0f38f44bc2ce657774cb30a9c93ec779d"),
    (
        {"task": "sine", "algorithm": "fedavg", "nodes": "devices", "noise": 1.0, "update_clip": 0.5},
        "a667a385991be6e81d7e60c7676e7283d4c9b86658d9bd7cf2b2eb454daf1284",
    ),
]
"""Configs and their hashes of before the aggregator had its name."""


def help_of(*words: str) -> str:
    """What a verb's help says on a terminal of 80 columns."""
    shown = CliRunner().invoke(cli.app, list(words), env={"COLUMNS": "80", "TERM": "dumb"}, catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    return shown.output


def listed(text: str) -> dict[str, str]:
    """The options that a help lists, each with its words."""
    plain = " ".join(line.strip("│ ") for line in text.splitlines())
    parts = re.split(r"(?:^| )(?=--[a-z-]+ +(?:--no|-h|N |X |NAME|FILE|FOLDER|PORT|[A-Z]))", plain)
    return {part.split()[0]: " ".join(part.split()) for part in parts if part.startswith("--")}


def run_command() -> Any:
    group: Any = typer.main.get_command(cli.app)
    return group.commands["run"]


def test_every_field_of_a_config_is_a_setting_with_help_and_every_setting_but_structures_an_option() -> None:
    assert [*SETTINGS, "extensions", "unsaid"] == [each.name for each in fields(Config)]
    assert {each.name: each.kind for each in SETTINGS.values()} == {each.name: each.type for each in fields(Config)[:-2]}
    assert all(each.help.endswith(".") for each in SETTINGS.values())
    assert set(SETTINGS) - set(OPTIONS) == {"fleet", "continued"}
    params = {param.name: param for param in run_command().params}
    for name, each in OPTIONS.items():
        assert (params[name].opts[0], params[name].help, params[name].multiple) == (each.option, each.help, name == "shots")
    assert "settings" not in params


def test_a_new_setting_is_an_option_without_being_spelt_again(monkeypatch: pytest.MonkeyPatch) -> None:
    momentum = Setting("Of the inner steps.", "Learning", default=0.0, bounds=(0, 1), name="momentum", kind=float)
    monkeypatch.setitem(SETTINGS, "momentum", momentum)

    def verb(config: str = "", **settings: Any) -> None:
        seen.update(settings)

    seen: dict[str, Any] = {}
    app = typer.Typer()
    app.command()(with_settings()(verb))
    assert "momentum" in inspect.signature(verb).parameters
    app(["--momentum", "0.5"], standalone_mode=False)
    assert seen["momentum"] == 0.5
    assert "momentum" in keys()
    assert defaults("sine", "joint")["momentum"] == 0


def test_the_short_help_fits_a_screen_and_says_where_the_rest_is() -> None:
    for verb in ("run", "simulate"):
        text = help_of(verb, "--help")
        assert len(text.splitlines()) <= 60
        assert "--help-all" in text
        assert set(listed(text)) >= {each.option for each in OPTIONS.values() if each.common}
        assert "--lanes" not in text


def test_the_whole_help_lists_every_option() -> None:
    options = {param.opts[0] for param in run_command().params if isinstance(param, click.Option)}
    assert set(listed(help_of("run", "--help-all"))) == {*options, "--help"}


@pytest.mark.parametrize(("task", "algorithm"), PAIRS)
def test_the_help_of_a_task_and_an_algorithm_lists_theirs_with_their_defaults(task: str, algorithm: str) -> None:
    theirs = {name for name, each in OPTIONS.items() if each.of and each.concerns(task, algorithm)}
    others = {name for name, each in OPTIONS.items() if not each.concerns(task, algorithm)}
    shown = listed(help_of("run", "--help", "--task", task, f"--algorithm={algorithm}"))
    usual = resolve({"task": task, "algorithm": algorithm})
    assert set(shown) >= {SETTINGS[name].option for name in theirs}
    assert not set(shown) & {SETTINGS[name].option for name in others}
    for name in ("rate", "samples", "rounds", "cohort", "network"):
        value = "by the size of the data" if task == "npz" and name in BY_SIZE else getattr(usual, name)
        assert f"[default: {value:{'g' if isinstance(value, float) else ''}}]" in shown[SETTINGS[name].option]


@pytest.mark.parametrize(
    ("words", "has", "lacks"),
    [
        (["--algorithm", "reptile"], ["--batch", "--data"], ["--standardise"]),
        (["--algorithm", "joint"], ["--rate"], ["--batch", "--outer-step"]),
        (["--task", "npz"], ["--data", "--standardise", "--targets"], ["--batch"]),
        (["--task", "omniglot"], ["--data"], ["--standardise"]),
        (["--task", "sine"], ["--shots"], ["--data"]),
    ],
    ids=str,
)
def test_the_help_of_a_task_or_an_algorithm_alone_lists_theirs(words: list[str], has: list[str], lacks: list[str]) -> None:
    shown = listed(help_of("run", *words, "--help"))
    assert set(has) <= set(shown)
    assert not set(lacks) & set(shown)


def test_the_help_gives_defaults_whatever_stands_beside_it() -> None:
    shown = listed(help_of("run", "--task", "npz", "--rounds", "7", "--help"))
    assert "[default: digits]" in shown["--task"]
    assert "[default: by the size of the data]" in shown["--rounds"]


def test_the_help_of_no_task_and_the_one_of_a_wrong_option_say_so(tinyfl_says: Callable[..., str]) -> None:
    assert "no task is called 'nope'. There are digits" in tinyfl_says("run", "--help", "--task", "nope")
    assert "No such option" in tinyfl_says("run", "--help", "--nope")


def test_the_tables_of_defaults_are_of_settings_and_whole() -> None:
    assert all(name == entry.name for entries in ENTRIES.values() for name, entry in entries.items())
    assert {algorithm for task in TASKS.values() for algorithm in task.tuned} <= set(ALGORITHMS)
    tables = [each.defaults for each in (*TASKS.values(), *ALGORITHMS.values())]
    rows = [*tables, *(row for task in TASKS.values() for row in task.tuned.values())]
    assert {key for row in rows for key in row} <= set(SETTINGS)
    for pair in PAIRS:
        assert set(SETTINGS) - set(defaults(*pair)) == {"standardise"}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, entries in ENTRIES.items() for name in entries])
def test_every_entry_has_code_a_line_about_it_and_is_named_in_its_options_help(kind: str, name: str) -> None:
    assert Chosen(kind, name).loaded().code is not None
    assert ENTRIES[kind][name].about
    assert re.search(rf"\b{name}\b", SETTINGS[kind].help)
    assert f"{name}: " in " ".join(listed(help_of("run", f"--{kind}", name, "--help"))[f"--{kind}"].split())


def test_a_task_that_takes_a_file_says_what_is_in_it_and_no_other_does() -> None:
    assert {name for name, each in TASKS.items() if each.file} == {n for n in TASKS if Chosen("task", n).takes("data")}


def test_an_aggregators_refusal_is_the_configs() -> None:
    usual = {"nodes": "devices", "cohort": 5, "tolerate": 0.49}
    for name, entry in AGGREGATORS.items():
        why = entry.refusal(5, 0.49)
        if not why:
            assert resolve({**usual, "aggregator": name}).aggregator == name
            continue
        with pytest.raises(ConfigError, match=re.escape(why)):
            resolve({**usual, "aggregator": name})


def test_what_the_table_says_of_tasks_is_what_tasks_say() -> None:
    assert SETTINGS["devices"].bounds == (0, FIRST_VALIDATION_DEVICE)
    assert ("", *SETTINGS["targets"].choices) == ("", "classes", "values")
    assert set(SETTINGS["targets"].choices) == {targets_for(loss) for loss in Loss}


@pytest.mark.parametrize("name", [name for name, each in SETTINGS.items() if each.bounds])
def test_a_number_is_taken_at_its_bounds_and_refused_beyond(name: str) -> None:
    low, high = SETTINGS[name].bounds or (0, 0)
    algorithm = next(each for each in ("reptile", *ALGORITHMS) if SETTINGS[name].concerns(None, each))
    base: dict[str, Any] = {"algorithm": algorithm, "update_clip": 1.0, "nodes": "devices", "evaluate_every": 5}
    takers = [task for task in TASKS if SETTINGS[name].concerns(task, None)]
    base |= {"task": "npz" if "npz" in takers else takers[0]} if SETTINGS[name].of == "task" else {}
    base |= {"episodes": "classes"} if base.get("task") == "npz" else {}
    base |= {"update_clip": 0.0, "cohort": high} if name == "buffer" else {}
    for value in (low, high):
        assert getattr(resolve({**base, name: SETTINGS[name].kind(value)}), name) == value
    for value in (low - 1, 2 * high):
        with pytest.raises(ConfigError, match=rf"{name} is .*, out of its range .* Give {SETTINGS[name].option}\."):
            resolve({**base, name: value})


@pytest.mark.parametrize(("task", "algorithm"), PAIRS)
def test_a_config_survives_its_file(tmp_path: Path, task: str, algorithm: str) -> None:
    changed = {"seed": 7, "shots": (2, 3), "clip": 1.5, "minimum": 2, "nodes": "devices", "aggregator": "median", "cohort": 9}
    for options in ({}, changed):
        config = resolve({"task": task, "algorithm": algorithm, **options})
        path = tmp_path / "config.toml"
        path.write_text(config.to_toml())
        assert resolve({}, path) == config
        assert list(tomllib.loads(path.read_text())) == list(SETTINGS)


def test_flowers_run_config_has_the_settings_and_where_the_run_is_kept() -> None:
    app = tomllib.loads((files("tinyfl.flower") / "app" / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert {key.replace("-", "_") for key in app["config"]} == {*OPTIONS, "out", "resume"}
    config = resolve({"task": "sine", **KRUM})
    assert resolve(from_run_config(to_run_config({name: getattr(config, name) for name in OPTIONS}))) == config


@pytest.mark.parametrize(("options", "sha256"), BEFORE, ids=[str(options) for options, _ in BEFORE])
def test_a_configs_hash_is_what_it_was(options: dict[str, Any], sha256: str) -> None:
    assert resolve(options).sha256() == sha256


def test_a_newer_setting_changes_a_hash_only_where_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, other = resolve({}), resolve({"tolerate": 0.3})
    before = usual.sha256(), other.sha256()
    monkeypatch.setitem(SETTINGS, "tolerate", replace(SETTINGS["tolerate"], newer=True))
    assert usual.sha256() != before[0]  # as if it were not there
    assert other.sha256() == before[1]


@pytest.fixture
def tinyfl_says(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """stderr of a command, run as the console script does in this process and an empty directory."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["tinyfl", *words])
        with pytest.raises(SystemExit):
            cli.main()
        return capfd.readouterr().err

    return run


@pytest.mark.parametrize(
    ("words", "now", "hints"),
    [
        ("run --robust krum", "run --aggregator krum", ["--robust is now --aggregator"]),
        ("run --superlink=lab", "run --federation=lab", ["--superlink is now --federation"]),
        ("run --devices 3", "run --devices 3", []),
        ("flash --devices a --devices=b=c", "flash --inventory a --inventory=b=c", ["--devices is now --inventory"]),
        ("push run -- --devices", "push run -- --devices", []),
        ("gateway --superlink h:1 --first 2", "gateway --superlink h:1 --first-device 2", ["--first is now --first-device"]),
        ("emulate --first=2", "emulate --first-id=2", ["--first is now --first-id"]),
        ("boards list", "boards list", []),
        ("", "", []),
    ],
)
def test_former_options_are_read_by_their_new_names(words: str, now: str, hints: list[str]) -> None:
    assert renamed.current(words.split()) == (now.split(), [f"tinyfl: {hint}" for hint in hints])
    assert renamed.current(now.split()) == (now.split(), [])


def test_no_verb_has_a_former_option_and_each_has_the_new_one() -> None:
    group: Any = typer.main.get_command(cli.app)
    for verb, names in renamed.OPTIONS.items():
        there = {word for param in group.commands[verb].params if isinstance(param, click.Option) for word in param.opts}
        assert set(names.values()) <= there
        assert not set(names) & there


@pytest.mark.parametrize(
    ("words", "hint", "then"),
    [
        ("run --robust median", "--robust is now --aggregator", "--aggregator median would see only sums"),
        ("simulate --robust=mode", "--robust is now --aggregator", "no aggregator is called 'mode'"),
        ("push a.npz --devices no.toml --all", "--devices is now --inventory", "tinyfl: "),
        ("flash --devices no.toml --all --dry-run", "--devices is now --inventory", "--inventory no.toml"),
        ("monitor --devices=no.toml --id 77", "--devices is now --inventory", "--inventory no.toml"),
        ("devices --devices=no.toml", "--devices is now --inventory", "--inventory no.toml"),
        ("emulate --board posix --first -1", "--first is now --first-id", "--first-id -1 leaves no ids"),
        ("gateway --superlink h:1 --fleet no.toml --insecure --first=1", "--first is now --first-device", "tinyfl: "),
    ],
)
def test_a_former_option_works_and_says_its_new_name_in_a_line(
    tinyfl_says: Callable[..., str], words: str, hint: str, then: str
) -> None:
    first, _, rest = tinyfl_says(*words.split()).partition("\n")
    assert first == f"tinyfl: {hint}"
    assert then in rest


def test_a_file_and_python_may_use_a_settings_former_name(tinyfl_says: Callable[..., str]) -> None:
    Path("old.toml").write_text('task = "sine"\nnodes = "devices"\ncohort = 11\nrobust = "krum"\n')
    assert resolve({}, Path("old.toml")).aggregator == "krum"
    assert resolve({"robust": "median"}, Path("old.toml")).aggregator == "median"
    said = tinyfl_says("run", "old.toml", "--cohort", "2")
    assert said.startswith("tinyfl: old.toml: robust is now aggregator\n")
    assert "tinyfl: --aggregator krum goes by the majority" in said
    with pytest.warns(FutureWarning, match="robust is now aggregator"), pytest.raises(ConfigError, match="see only sums"):
        tinyfl.simulate(robust="median")
    with pytest.raises(ConfigError, match="and both are given"):
        resolve({"robust": "median", "aggregator": "krum"})
    assert from_run_config({"robust": "krum", "task": ""}) == {"aggregator": "krum"}


def test_an_older_runs_directory_is_read_and_resumed_by_either_name(tmp_path: Path) -> None:
    from tinyfl.deployment.submit import _resumed as handed_in
    from tinyfl.runs.learner import fitted
    from tinyfl.runs.resuming import resumed

    held = fitted(resolve({"task": "sine", **KRUM}))[0]
    directory = RunDirectory(tmp_path)
    directory.start(held)
    file = tmp_path / "config.toml"
    file.write_text(file.read_text().replace("aggregator = ", "robust = "))
    assert RunDirectory(tmp_path).config() == held
    assert resumed(directory, {"robust": "krum"}, None).wanted.aggregator == "krum"
    with pytest.raises(RunError, match="started with aggregator 'krum' and cannot be resumed with 'median'"):
        resumed(directory, {"robust": "median"}, file)
    assert handed_in(tmp_path, file, {"robust": "median"})[0]["aggregator"] == "median"
