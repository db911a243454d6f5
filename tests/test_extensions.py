"""A user's own algorithm, task and aggregator: by name, as a class and as an object; resumed, reported and adapted."""

import ast
import json
import linecache
import os
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from own import installed, write_own
from test_rooms import modules, tree
from typer.testing import CliRunner

import tinyfl
from tinyfl import cli
from tinyfl.algorithms import Inner, State, Updates
from tinyfl.algorithms.reptile import Reptile
from tinyfl.config import Config, resolve
from tinyfl.errors import ConfigError, Interrupted, RunError
from tinyfl.flower.rounds import Progress
from tinyfl.registry import ALGORITHMS, ENTRIES
from tinyfl.registry.entries import AggregatorEntry, Entry, TaskEntry
from tinyfl.registry.own import own_code
from tinyfl.report import page as report
from tinyfl.runs.adaptation import adapt
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.finished import origin

OWN: dict[str, Any] = {"algorithm": "cosine:CosineReptile", "task": "sensors:Sensors"}
SMALL: dict[str, Any] = {"network": "mlp-8", "devices": 20, "cohort": 5, "rounds": 40, "tasks": 20, "shots": 5}
JOINT = ALGORITHMS["joint"]
WORDS = ["--algorithm", "cosine:CosineReptile", "--task", "sensors:Sensors"]

pytestmark = pytest.mark.usefixtures("modules_here", "figureless")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the files of docs/your-own.md."""
    monkeypatch.chdir(tmp_path)
    write_own(tmp_path)
    return tmp_path


def tinyfl_says(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "tinyfl.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | more)


def resolved(options: dict[str, Any]) -> Config:
    """The config of options that this user gives."""
    return resolve(own_code(options), installed=True)


@dataclass(frozen=True)
class Prox:
    """An algorithm with every kind of option."""

    rounds: int
    mu: float
    rate: float = 0.03
    layers: tuple[int, ...] = (1, 2)
    warm: bool = False
    name_of_it: str = "prox"
    share: float = field(default=0.5, metadata={"bounds": (0, 1)})
    defaults: ClassVar[dict[str, Any]] = {"cohort": 7, "clip": 2.0}

    def inner(self, round: int) -> Inner:
        return Inner(samples=8, batch=1, passes=1, rate=self.rate)

    def outer(self, state: State, updates: Updates) -> State:
        return state.step(self.mu * (updates.mean() - state.theta))


def table(**options: Any) -> dict[str, Any]:
    """Prox with these options, as a TOML file has them, beside the class itself."""
    chosen = own_code({"algorithm": Prox})["algorithm"]
    return {"algorithm": chosen.over(type(chosen)("algorithm", chosen.name, "", options)), "task": "sine"}


@pytest.mark.slow
def test_a_name_a_class_an_object_and_a_table_make_the_same_run(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    by_name = tinyfl.simulate(**OWN, **SMALL, seed=3, out="by-name").result
    monkeypatch.syspath_prepend(here)
    from cosine import CosineReptile  # type: ignore[import-not-found]
    from sensors import Sensors  # type: ignore[import-not-found]

    ways: dict[str, dict[str, Any]] = {
        "classes": {"algorithm": CosineReptile, "task": Sensors, "seed": 3},
        "objects": {"algorithm": CosineReptile(rounds=40), "task": Sensors(seed=3)},
        "tables": {"algorithm": {"name": OWN["algorithm"], "floor": 0.0}, "task": {"name": OWN["task"]}, "seed": 3},
    }
    for way, given in ways.items():
        result = tinyfl.simulate(**{**SMALL, **given}, out=way).result
        assert (result["theta_sha256"], result["config_sha256"]) == (by_name["theta_sha256"], by_name["config_sha256"]), way
    other = tinyfl.simulate(**{**OWN, **SMALL, "algorithm": CosineReptile(rounds=40, floor=0.5)}, seed=3, out="other").result
    assert other["theta_sha256"] != by_name["theta_sha256"]
    assert other["config_sha256"] != by_name["config_sha256"]


def test_an_object_of_tinyfls_own_class_is_the_run_of_its_name() -> None:
    made = Reptile(rounds=40, samples=12, batch=4, rate=0.04)
    config = resolved({"task": "sine", "algorithm": made})
    same = resolve({"task": "sine", "algorithm": "reptile", "rounds": 40, "samples": 12, "batch": 4, "rate": 0.04})
    assert (config, config.sha256(), config.build()) == (same, same.sha256(), made)


def test_fields_called_like_settings_are_filled_from_them_and_give_their_defaults(here: Path) -> None:
    usual = resolved({"algorithm": Prox, **table(mu=0.5)})
    assert (usual.rate, usual.cohort, usual.clip) == (0.03, 7, 2.0)
    assert usual.rounds == resolve({"task": "sine"}).rounds
    assert usual.build() == Prox(usual.rounds, 0.5)
    given = resolve({**table(mu=0.5), "rounds": 9, "rate": 0.5, "cohort": 2})
    assert given.build() == Prox(9, 0.5, 0.5)
    own = resolved(OWN)
    assert (own.network, own.cohort, own.rounds, own.samples, own.shots) == ("mlp-32-32", 20, 200, 32, (10,))
    del own
    (here / "bare.py").write_text(Path("sensors.py").read_text().replace("    defaults =", "    nothing ="))
    bare = resolved({"task": "bare:Sensors"})
    assert (bare.network, bare.devices, bare.cohort, bare.rounds, bare.shots) == ("mlp-64-64", 0, 1, 10_000, (10,))


def test_a_config_with_options_survives_its_file_and_its_hash_covers_them(tmp_path: Path) -> None:
    config = resolve(table(mu=0.5, layers=[4], warm=True))
    assert config.build() == Prox(config.rounds, 0.5, layers=(4,), warm=True)
    (tmp_path / "config.toml").write_text(config.to_toml())
    held = tomllib.loads(config.to_toml())["algorithm"]
    assert held == {
        "name": "test_extensions:Prox", "version": held["version"], "layers": [4], "mu": 0.5, "name_of_it": "prox",
        "share": 0.5, "warm": True,
    }  # fmt: skip
    assert held["version"].startswith("sha256:")
    back = resolve({}, tmp_path / "config.toml")
    assert (back, back.sha256()) == (config, config.sha256())
    hashes = {resolve(table(mu=mu, share=share)).sha256() for mu in (0.5, 0.6) for share in (0.1, 0.2)}
    assert len(hashes) == 4


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "needs the option mu"),
        ({"mu": "0.1"}, "mu of algorithm .*Prox is '0.1'. Input should be a valid number"),
        ({"mu": float("nan")}, "mu of algorithm .*Prox is nan, which no config file can hold"),
        ({"mu": 0.1, "layers": [1.5]}, "layers of algorithm .* Input should be a valid integer"),
        ({"mu": 0.1, "warm": 1}, "warm of algorithm .* Input should be a valid boolean"),
        ({"mu": 0.1, "share": 1.5}, "share of algorithm .*Prox is 1.5, out of its range 0 to 1"),
        ({"mu": 0.1, "nu": 1}, "nu of algorithm .*Prox is no option. Its options are mu, layers, warm, name_of_it, share"),
        ({"mu": 0.1, "rounds": 3}, "rounds of algorithm .*Prox is a setting"),
        ({"mu": 0.1, "rate": 0.3}, "rate of algorithm .*Prox is a setting"),
    ],
)
def test_an_option_of_another_type_or_name_is_refused_by_its_name(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        resolve(table(**options))


@dataclass(frozen=True)
class Wrong(Prox):
    mu: float = 0.1
    defaults: ClassVar[dict[str, Any]] = {"mu": 0.5}


@dataclass(frozen=True)
class Placed(Prox):
    mu: float = 0.1
    defaults: ClassVar[dict[str, Any]] = {"devices": 5}


@dataclass(frozen=True)
class Named(Prox):
    version: str = "1"


class Forgetful:
    """Keeps not what it was made with."""

    def __init__(self, mu: float = 0.1) -> None:
        self.other = mu

    def inner(self, round: int) -> Inner:
        return Inner(samples=8, batch=1, passes=1, rate=0.1)

    def outer(self, state: State, updates: Updates) -> State:
        return state


class Taken(Forgetful):
    """Has a field that is called like a setting of another kind."""

    def __init__(self, local: bool = True) -> None:
        self.local = local


class Raising(Forgetful):
    def __init__(self) -> None:
        raise KeyError("nothing")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"algorithm": Wrong}, "defaults of algorithm .*Wrong has 'mu'"),
        ({"algorithm": Placed}, "defaults of algorithm .*Placed has 'devices'"),
        ({"algorithm": Named}, "has the field version"),
        ({"algorithm": Forgetful()}, "keeps no mu"),
        ({"algorithm": Taken}, "local is True, not str. It fills local of algorithm .*Taken: call that otherwise"),
        ({"algorithm": Taken(True)}, "local is True, not str. It fills local of algorithm .*Taken: call that otherwise"),
        ({"algorithm": Prox(3, 0.1, layers=(object(),))}, "which no config file can hold"),  # type: ignore[arg-type]
        ({"algorithm": Prox(3, None)}, "mu of algorithm .*Prox is None, which no config file can hold"),  # type: ignore[arg-type]
        ({"algorithm": Prox(3, 0.1), "rounds": 4}, "rounds is 4, and 3 in the algorithm that is given as an object"),
        ({"algorithm": Prox(3, 7.0, share=2)}, "share .* out of its range"),
        ({"algorithm": object()}, "builtins:object is no algorithm: it has no inner and no outer"),
        ({"algorithm": 7}, "builtins:int is no algorithm"),
        ({"task": Prox}, "no task: it has no stream and no episodes"),
        ({"task": print}, "not a class or an object"),
        ({"algorithm": "cosine:Nothing"}, "cosine has no Nothing"),
        ({"algorithm": "absent:X"}, "absent cannot be imported"),
        ({"algorithm": "broken:X"}, "broken cannot be imported .SyntaxError"),
        ({"algorithm": "os:system"}, "not a class or an object"),
        ({"algorithm": "cosine:CosineReptile", "batch": 4}, "has no batch: leave --batch out"),
        ({"algorithm": "cosine:CosineReptile", "outer_step": 0.5}, "has no outer_step: leave --outer-step out"),
        ({"task": "sensors:Sensors", "targets": "classes"}, "brings its own inputs and targets"),
        ({"algorithm": {"name": "reptile", "mu": 0.1}}, "algorithm reptile has no options of its own"),
        ({"algorithm": {"mu": 0.1}}, "not a name, or a table with name"),
    ],
    ids=lambda each: each if isinstance(each, str) else next(iter(each)),
)
def test_what_is_no_algorithm_or_task_is_refused_with_the_reason(given: dict[str, Any], why: str) -> None:
    Path("broken.py").write_text("def\n")
    with pytest.raises(ConfigError, match=why):
        resolved(given)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"algorithm": Raising}, "cannot be made: KeyError: 'nothing'"),
        ({"task": "sensors:Sensors", "data": "x.npz"}, "brings its own data"),
        ({"task": "needy:Sensors"}, "task needy:Sensors needs --data FILE"),
        ({"task": "partial:Sensors"}, "has no standardisation"),
    ],
    ids=str,
)
def test_what_cannot_be_made_says_why_before_anything_is_written(given: dict[str, Any], why: str) -> None:
    text = Path("sensors.py").read_text()
    Path("needy.py").write_text(text.replace("    seed: int\n", "    seed: int\n    data: object\n"))
    Path("partial.py").write_text(text.replace("    standardisation = None", "    nothing = None"))
    with pytest.raises(ConfigError, match=why):
        tinyfl.simulate(**{**SMALL, **given}, out="run")
    assert not Path("run").exists()


def test_arrays_of_an_object_are_held_by_their_hash() -> None:
    @dataclass(frozen=True)
    class Masked(Prox):
        mask: Any = None

    masks = [np.zeros(3, np.float32), np.zeros(3, np.float32), np.ones(3, np.float32)]
    first, again, other = (resolved({"algorithm": Masked(3, 0.1, mask=mask)}) for mask in masks)
    assert first == again != other
    assert "sha256:" in first.to_toml()
    assert first.build().mask is masks[0]  # type: ignore[attr-defined]


def plain_average(values: Any) -> Any:
    return sum(values)


@dataclass(frozen=True)
class Averaging(Prox):
    mu: float = 0.1
    average: Any = plain_average
    file: Path = Path("here")


def test_a_default_that_no_file_can_hold_is_the_classs_own() -> None:
    for given in (Averaging, Averaging(3)):
        config = resolved({"algorithm": given})
        assert "average" not in config.to_toml()
        assert 'file = "here"' in config.to_toml()
        assert config.build() == Averaging(config.rounds)
    with pytest.raises(ConfigError, match=r"average of .*which no config file can hold"):
        resolved({"algorithm": Averaging(3, average=lambda values: 0)})
    assert 'average = "test_extensions:table"' in resolved({"algorithm": Averaging(3, average=table)}).to_toml()


@pytest.mark.slow
def test_a_flower_strategy_that_is_given_as_an_object_is_the_aggregator() -> None:
    from flwr.serverapp.strategy import FedMedian

    from tinyfl.aggregators import ALL

    usual = {**SMALL, "task": "sine", "nodes": "devices"}
    own, ours = (
        tinyfl.simulate(**usual, aggregator=each, out=f"run-{number}").result["theta_sha256"]
        for number, each in enumerate((FedMedian(**ALL), "median"))
    )
    assert own == ours


def test_a_flower_strategy_with_one_method_is_an_aggregator(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "from flwr.serverapp.strategy import FedAvg\n\nclass Mine(FedAvg):\n    def summary(self): ...\n"
    Path("bare.py").write_text(text)
    config = resolved({"aggregator": "bare:Mine", "nodes": "devices"})
    assert type(config.replace_mean()).__name__ == "Mine"
    assert resolve(config.as_options()) == config


def test_a_run_whose_aggregator_remembers_earlier_rounds_is_not_resumed() -> None:
    from flwr.serverapp.strategy import FedAvgM, FedTrimmedAvg

    from tinyfl.aggregators import ALL

    usual = {**SMALL, "task": "sine", "algorithm": "fedavg", "nodes": "devices", "update_clip": 10.0}
    momentum, trimmed = FedAvgM(**ALL, server_momentum=0.9), FedTrimmedAvg(**ALL)
    tinyfl.simulate(**usual, aggregator=momentum, out="momentum", page=False)
    before = Path("momentum/config.toml").read_text(), Path("momentum/result.json").read_text()
    with pytest.raises(RunError, match=r"FedAvgM remembers .* \(current_arrays, momentum_vector\).*--outer-optimiser"):
        tinyfl.simulate(resume="momentum", aggregator=FedAvgM(**ALL, server_momentum=0.9), rounds=80)
    assert (Path("momentum/config.toml").read_text(), Path("momentum/result.json").read_text()) == before
    assert tinyfl.simulate(resume="momentum", aggregator=momentum, page=False).result["rounds"] == 40  # none is left to run
    tinyfl.simulate(**usual, aggregator=trimmed, out="trimmed", page=False)
    assert tinyfl.simulate(resume="trimmed", aggregator=trimmed, rounds=80, page=False).result["rounds"] == 80


@pytest.mark.slow
def test_own_code_is_resumed_with_what_it_was_and_nothing_else() -> None:
    result = tinyfl.simulate(**OWN, **SMALL, out="run").result
    again = tinyfl.simulate(resume="run", **OWN).result
    assert again["theta_sha256"] == result["theta_sha256"]
    assert again["config_sha256"] == result["config_sha256"] == RunDirectory(Path("run")).config().sha256()
    for given, why in (
        ({}, "algorithm cosine:CosineReptile and task sensors:Sensors: that is code.*--algorithm cosine:CosineReptile --task"),
        ({"task": OWN["task"]}, "algorithm cosine:CosineReptile: that is code"),
    ):
        with pytest.raises(ConfigError, match=why):
            tinyfl.simulate(resume="run", **given)
    for other, why in (
        ({"algorithm": "reptile"}, "started with algorithm cosine:CosineReptile .* and this is reptile"),
        ({"algorithm": {"name": OWN["algorithm"], "floor": 0.5}}, "cannot be resumed with"),
        ({"seed": 4}, "started with seed 0"),
    ):
        with pytest.raises(RunError, match=why):
            tinyfl.simulate(resume="run", **{**OWN, **other})
    Path("cosine.py").write_text(Path("cosine.py").read_text() + "# changed\n")
    done = tinyfl_says("run", "--resume", "run", *WORDS)
    assert (done.returncode, "started with algorithm cosine:CosineReptile (sha256:" in done.stderr) == (4, True), done.stderr


@pytest.mark.slow
def test_an_interrupted_run_of_own_code_says_how_to_go_on_with_it() -> None:
    def interrupt(progress: Progress) -> None:
        if progress.stage == "learning":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted) as stopped:
        tinyfl.simulate(**OWN, **SMALL, out="run", progress=interrupt)
    command = str(stopped.value).partition("Go on with: ")[2]
    assert command == " ".join(["tinyfl run --resume run", *WORDS])
    assert tinyfl_says(*shlex.split(command)[1:]).returncode == 0


def test_a_config_of_another_version_is_not_quietly_run_with_this_one(tmp_path: Path) -> None:
    Path("own.toml").write_text(resolved(OWN).to_toml())
    Path("cosine.py").write_text(Path("cosine.py").read_text() + "# changed\n")
    done = tinyfl_says("run", "own.toml", *WORDS, "--out", "run")
    assert (done.returncode, "remove version from [algorithm] in the file" in done.stderr) == (2, True), done.stderr


def test_a_class_without_a_source_runs_and_is_not_resumed() -> None:
    names: dict[str, Any] = {"__name__": "typed"}
    exec(Path("cosine.py").read_text(), names)
    given = {**OWN, "algorithm": names["CosineReptile"]}
    tinyfl.simulate(**given, **SMALL, out="run")
    with pytest.raises(RunError, match="Python found no source of it"):
        tinyfl.simulate(resume="run", **given)


def in_a_cell(text: str) -> dict[str, Any]:
    """What a notebook's cell defines, as IPython runs it."""
    names: dict[str, Any] = {"__name__": "a_notebook"}
    linecache.cache["<cell>"] = (len(text), None, text.splitlines(keepends=True), "<cell>")
    exec(compile(text, "<cell>", "exec"), names)
    return names


@pytest.mark.slow
def test_a_class_of_a_notebooks_cell_is_resumed_while_the_cell_is_the_same() -> None:
    text = Path("cosine.py").read_text()
    tinyfl.simulate(**{**OWN, "algorithm": in_a_cell(text)["CosineReptile"]}, **SMALL, out="run")
    tinyfl.simulate(resume="run", **{**OWN, "algorithm": in_a_cell(text)["CosineReptile"]})
    with pytest.raises(RunError, match="started with algorithm a_notebook:CosineReptile"):
        tinyfl.simulate(resume="run", **{**OWN, "algorithm": in_a_cell(text + "\n")["CosineReptile"]})


def killed_in_the_middle(words: list[str], out: Path) -> None:
    """Starts a run, and kills it after some rounds."""
    environment = {**os.environ, "TINYFL_CHECKPOINT_SECONDS": "0"}
    command = [sys.executable, "-P", "-m", "tinyfl.cli", "run", *words, "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        while process.poll() is None and not (out / "checkpoint" / "state.npz").exists():
            time.sleep(0.002)
        process.kill()
    checkpoint = RunDirectory(out).checkpoint()
    assert checkpoint is not None
    assert 0 < checkpoint.state.round < json.loads(words[words.index("--rounds") + 1])


def killed_resumed_reported_and_adapted(fleet: str, rounds: int, tmp_path: Path) -> None:
    Path("own.toml").write_text(
        f'network = "mlp-8"\nshots = [5]\n[algorithm]\nname = "cosine:CosineReptile"\nfloor = 0.1\n{fleet}'
    )
    words = ["own.toml", *WORDS, "--cohort", "2", "--rounds", str(rounds), "--tasks", "20", "--lanes", "1", "--threads", "1"]
    whole = tinyfl.simulate(
        **{**OWN, "algorithm": {"name": OWN["algorithm"], "floor": 0.1}}, network="mlp-8", shots=5, cohort=2, devices=2,
        rounds=rounds, tasks=20, out="whole", page=False,
    )  # fmt: skip
    killed_in_the_middle([*words, "--devices", "2"], Path("killed"))
    refused = tinyfl_says("run", "--resume", "killed")
    assert (refused.returncode, "give it yourself: " + " ".join(WORDS[2:]) in refused.stderr) == (2, False)
    assert " ".join(WORDS) in refused.stderr
    done = tinyfl_says("run", "--resume", "killed", *WORDS, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["theta_sha256"] == whole.result["theta_sha256"]

    # Elsewhere, without the files: a report and an adaptation need no code.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.chdir(elsewhere)
    reading = np.linspace(-1, 1, 8)[:, None]
    np.savez("new.npz", x=reading, y=np.sin(5 * reading[:, 0]))
    assert tinyfl_says("report", "../killed").returncode == 0
    page = Path("../killed/report.html").read_text()
    assert "sensors:Sensors · cosine:CosineReptile" in page
    assert "a report loads no code of anybody&#x27;s own" in page
    adapted = tinyfl_says("adapt", "../killed", "--data", "new.npz", "--json")
    curve = json.loads(adapted.stdout)["curve"]
    assert curve[-1]["loss"] < curve[0]["loss"]


@pytest.mark.slow
def test_a_run_of_own_code_is_killed_resumed_reported_and_adapted_on_simulated_devices(tmp_path: Path) -> None:
    killed_resumed_reported_and_adapted("", 3000, tmp_path)


@pytest.mark.usefixtures("built_before")
@pytest.mark.parametrize(("board", "rounds"), [("posix", 30), ("mps2-an386", 12)])
def test_a_run_of_own_code_is_killed_resumed_reported_and_adapted_on_two_boards(
    tmp_path: Path, board: str, rounds: int
) -> None:
    killed_resumed_reported_and_adapted(f'[[fleet]]\nboard = "{board}"\ncount = 2\n', rounds, tmp_path)
    boards = json.loads(Path("../killed/result.json").read_text())["boards"]
    assert [each["board"] for each in boards] == [board, board]


@pytest.mark.slow
def test_an_aggregator_of_ones_own_replaces_the_mean() -> None:
    from tinyfl.aggregators import aggregator

    usual = {"task": "sine", "nodes": "devices", "cohort": 5, **{k: v for k, v in SMALL.items() if k != "cohort"}}
    mean = tinyfl.simulate(**usual, out="mean").result
    one = {"aggregator": {"name": "geometric:GeometricMedian", "steps": 3}}
    own = tinyfl.simulate(**usual, **one, out="own").result
    assert own["theta_sha256"] != mean["theta_sha256"]
    assert type(aggregator(resolved({**usual, **one}))).__name__ == "GeometricMedian"
    assert resolved({**usual, **one, "cohort": 2}).cohort == 2  # only tinyfl's own need a majority
    with pytest.raises(ConfigError, match="would see only sums"):
        resolved({**usual, **one, "nodes": "1"})


@pytest.mark.slow
def test_an_export_takes_the_runs_task_again() -> None:
    tinyfl.simulate(**OWN, **SMALL, out="run")
    with pytest.raises(ConfigError, match="task sensors:Sensors: that is code"):
        origin(Path("run"), None)
    with pytest.raises(RunError, match="this is sine"):
        origin(Path("run"), None, "sine")
    assert origin(Path("run"), None, OWN["task"]).task.name == "sensors"
    tinyfl.simulate(**{**SMALL, "task": "sine"}, out="sine")
    with pytest.raises(RunError, match="started with task sine and this is sensors:Sensors"):
        origin(Path("sine"), None, OWN["task"])


def test_the_help_of_own_code_has_its_settings_with_its_defaults() -> None:
    shown = tinyfl_says("run", "--help", *WORDS, COLUMNS="200").stdout
    for text in ("--samples", "[default: 0.02]", "[default: mlp-32-32]", "[default: 200]"):
        assert text in shown
    assert "--batch" not in shown and "--data" not in shown


@pytest.mark.slow
def test_a_page_says_of_what_shots_are_counted_as_the_task_does() -> None:
    text = Path("sensors.py").read_text()
    Path("classes.py").write_text(text.replace("    defaults =", "    shots_per_class = True\n    defaults ="))
    for task, words in (("sensors:Sensors", "5 of its own samples"), ("classes:Sensors", "5 samples of each of its 1 classes")):
        tinyfl.simulate(**{**SMALL, "task": task}, out=task.partition(":")[0])
        report.rebuild(Path(task.partition(":")[0]))
        assert words in Path(task.partition(":")[0], "report.html").read_text()


@pytest.fixture
def package(here: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs a package with entry points by kind and name."""

    def install(name: str, points: dict[str, dict[str, str]], version: str = "1.0") -> None:
        installed(here / "site", name, points, version)
        monkeypatch.syspath_prepend(here / "site")
        monkeypatch.syspath_prepend(here)

    return install


@pytest.mark.slow
def test_an_installed_packages_names_work_like_tinyfls_own(package: Callable[..., None], here: Path) -> None:
    package("ours", {"algorithm": {"cosine": "canary:X"}, "task": {"sensors": "canary:Y"}, "aggregator": {"rfa": "canary:Z"}})
    for kind, name in (("algorithm", "cosine"), ("task", "sensors"), ("aggregator", "rfa")):
        with pytest.raises(ConfigError, match=rf"{name} \(of ours\)"):
            resolve({kind: "nope"})
    assert resolve({"task": "sensors"}).task == "sensors"
    assert not (here / "imported").exists(), "only its name was read"
    Path("ours.toml").write_text('task = "sensors"\n[algorithm]\nname = "cosine"\nfloor = 0.1\n')
    run = tinyfl.simulate(config="ours.toml", **SMALL, nodes="devices", aggregator="rfa", out="run")
    config = RunDirectory(Path("run")).config()
    assert [(each.name, each.version) for each in config.extensions] == [
        ("algorithm" and name, "ours 1.0") for name in ("cosine", "sensors", "rfa")
    ]
    assert tinyfl.simulate(resume="run").result["theta_sha256"] == run.result["theta_sha256"]


def test_a_run_of_a_package_that_is_not_here_is_shown_and_adapted(package: Callable[..., None], here: Path) -> None:
    package("ours", {"algorithm": {"cosine": "cosine:CosineReptile"}, "task": {"sensors": "sensors:Sensors"}})
    tinyfl.simulate(algorithm="cosine", task="sensors", **SMALL, out="run")
    (here / "site" / "ours-1.0.dist-info").rename(here / "site" / "gone")
    np.savez("new.npz", x=np.ones((4, 1)), y=np.arange(4.0))
    report.rebuild(Path("run"))
    assert "no task is called &#x27;sensors&#x27;" in Path("run/report.html").read_text()
    adapt("run", "new.npz", adapt_lr=0.001)
    with pytest.raises(ConfigError, match="no algorithm is called 'cosine'"):
        tinyfl.simulate(resume="run")


@pytest.mark.slow
def test_another_version_of_a_package_does_not_go_on_with_a_run(package: Callable[..., None], here: Path) -> None:
    package("ours", {"task": {"sensors": "sensors:Sensors"}})
    tinyfl.simulate(task="sensors", **SMALL, out="run")
    (here / "site" / "ours-1.0.dist-info").rename(here / "site" / "ours-1.1.dist-info")
    info = here / "site" / "ours-1.1.dist-info" / "METADATA"
    info.write_text(info.read_text().replace("1.0", "1.1"))
    with pytest.raises(ConfigError, match=r"task sensors is of ours 1\.1 here, and the run is of ours 1\.0"):
        tinyfl.simulate(resume="run")


def test_a_name_of_tinyfls_own_stays_its_own_and_a_name_of_two_packages_is_neithers(package: Callable[..., None]) -> None:
    package("ours", {"algorithm": {"reptile": "canary:X", "cosine": "canary:X", "../x": "canary:X"}})
    package("theirs", {"algorithm": {"cosine": "canary:X"}})
    assert isinstance(resolve({"algorithm": "reptile"}, installed=True).build(), Reptile)
    with pytest.raises(ConfigError, match="ours's reptile is not there: the name is tinyfl's own"):
        resolve({"algorithm": "nope"})
    with pytest.raises(ConfigError, match=r"more than one installed package: (ours 1\.0, theirs 1\.0|theirs 1\.0, ours 1\.0)"):
        resolve({"algorithm": "cosine"}, installed=True)
    assert not Path("imported").exists()


def test_the_help_lists_installed_names_and_imports_none(package: Callable[..., None], here: Path) -> None:
    package("ours", {"algorithm": {"cosine": "canary:X"}})
    shown = tinyfl_says("run", "--help", COLUMNS="200", PYTHONPATH=f"{here / 'site'}:{here}").stdout
    assert "Installed: cosine." in shown
    assert not Path("imported").exists()


@pytest.mark.slow
def test_a_new_task_algorithm_or_aggregator_is_one_file_and_one_entry(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    from tinyfl.registry.shown import about

    monkeypatch.syspath_prepend(here)
    entries: dict[str, Entry] = {
        "algorithm": Entry("toy-algorithm", "cosine:CosineReptile", "a toy", {**JOINT.defaults, "rate": 0.04}),
        "task": TaskEntry(
            "toy-task", "sensors:Sensors", "toy sensors", {"network": "mlp-8", "cohort": 3, "rounds": 9, "shots": (2,)},
            tuned={"toy-algorithm": {"samples": 9}}, shots_per_class=True,
        ),
        "aggregator": AggregatorEntry("toy-rule", "geometric:GeometricMedian", "a toy", refusal=lambda n, _: "few" * (n < 5)),
    }  # fmt: skip
    names = {kind: entry.name for kind, entry in entries.items()}
    for kind, entry in entries.items():
        monkeypatch.setitem(ENTRIES[kind], entry.name, entry)  # type: ignore[index]
    config = resolve({"task": "toy-task", "algorithm": "toy-algorithm"})
    assert (config.network, config.rounds, config.rate, config.samples, config.extensions) == ("mlp-8", 9, 0.04, 9, ())
    with pytest.raises(ConfigError, match="few"):
        resolve({**names, "nodes": "devices", "cohort": 4})
    given: dict[str, Any] = {**names, "nodes": "devices", "devices": 9, "cohort": 6, "tasks": 4, "out": "run"}
    result = tinyfl.simulate(**given).result
    assert tinyfl.simulate(resume="run").result["theta_sha256"] == result["theta_sha256"]
    report.rebuild(Path("run"))
    assert "2 samples of each of its 1 classes" in Path("run/report.html").read_text()
    assert "this figure needs the data" not in Path("run/report.html").read_text()
    assert origin(Path("run"), None).task.name == "sensors"
    assert about("toy-task", None) == "toy sensors"
    words = [word for kind, name in names.items() for word in (f"--{kind}", name)]
    shown = " ".join(CliRunner().invoke(cli.app, ["run", "--help", *words], env={"COLUMNS": "300"}).output.split())
    for text in ("toy-algorithm: a toy.", "toy-task: toy sensors.", "toy-rule: a toy.", "[default: 0.04]", "[default: 9]"):
        assert text in shown
    for kind, name in names.items():
        with pytest.raises(ConfigError, match=f"There are .*{name}"):
            resolve({kind: "nope"})


@pytest.mark.slow
def test_a_name_stands_in_its_entry_and_in_its_own_file_alone() -> None:
    """But for the two that a run takes where nothing is said, the boards' source of that name, the sets to download, and the
    published results."""
    names = {name for entries in ENTRIES.values() for name in entries} - {"sensor"}  # a setting and a key have that name too
    own = {entry.where.partition(":")[0] for entries in ENTRIES.values() for entry in entries.values()}
    own |= {"tinyfl.data.published", "tinyfl.report.guidance", *(f"tinyfl.registry.{kind}s" for kind in ENTRIES)}
    found = {
        (module, node.value)
        for module in modules()
        if module not in own
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert found == {
        ("tinyfl.config.settings", "digits"), ("tinyfl.config.settings", "tinyreptile"), ("tinyfl.link", "sine"),
        ("tinyfl.core", "sine"),  # a function
        ("tinyfl.costs.models", "protonet"),  # the one that trains a network without a head on boards
        ("tinyfl.tasks.npz", "npz"),  # tinyfl.tasks.classes:npz makes it, or episodes of its classes
        ("tinyfl.data.columns", "activity"),  # a usual name of a column
        ("tinyfl.online.worlds", "presence"),  # its devices share no stream
    }  # fmt: skip


def test_listing_names_loads_neither_numpy_nor_any_code() -> None:
    code = "import sys; from tinyfl.config.defaults import defaults; defaults(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = {*done.stdout.split()}
    assert "tinyfl.registry.tasks" in loaded
    assert not {"numpy", "flwr", "tinyfl.algorithms", "tinyfl.tasks"} & loaded
