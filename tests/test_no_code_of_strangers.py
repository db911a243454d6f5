"""A name is never code from a stranger: what a run directory, a file or a message names is not imported."""

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Error, Message, MessageType, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own import GROUPS, installed, write_own

import tinyfl
from tinyfl.algorithms import Inner
from tinyfl.config import resolve
from tinyfl.config.roster import Part
from tinyfl.costs.models import load_model
from tinyfl.deployment.gateway import Gateway
from tinyfl.deployment.submit import _given
from tinyfl.devices import push
from tinyfl.errors import ConfigError, RunError, TinyflError
from tinyfl.fleets.assembly import opened
from tinyfl.flower import client_app
from tinyfl.flower.allowed import VARIABLE, Allowed, refuse_extensions
from tinyfl.flower.grid import FleetGrid
from tinyfl.flower.messages import instructions, theta_record
from tinyfl.flower.server_app import _confined
from tinyfl.flower.settings import from_run_config
from tinyfl.networks import network
from tinyfl.report import page as report
from tinyfl.runs.adaptation import adapt
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.finished import origin
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks import load_task

KINDS = tuple(GROUPS)
SMALL: dict[str, Any] = {"network": "mlp-4", "devices": 6, "cohort": 3, "rounds": 4, "tasks": 4, "shots": 2}
HOSTILE = [
    "canary:X", "canary:Y", "canary:X.mro", "os:system", "../canary:X", "./canary:X", "/tmp/canary:X", "canary.py", "canary",
    "canary:X\0", "\0", " canary:X", "canary:X\n", "absent:X", "absent", "listed", "a" * 100_000, f"{'a' * 100_000}:X",
    f"canary:{'X' * 100_000}", "canary:X()", "__import__('canary')", "https://host/canary:X", '{name = "canary:X"}',
    '{name = "listed"}', "{", f"{{x = {'[' * 5000}",
]  # fmt: skip
"""Names that nobody here has given; `listed` is an installed package's entry point."""

pytestmark = pytest.mark.usefixtures("modules_here")


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """A folder whose `canary.py` any import would find, with an installed package that leads to it. Whether it was imported."""
    monkeypatch.chdir(tmp_path)
    write_own(tmp_path)
    installed(tmp_path / "site", "ours", {kind: {"listed": f"canary:{name}"} for kind, name in GROUPS.items()})
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path)
    return lambda: "canary" in sys.modules or (tmp_path / "imported").exists()


@pytest.fixture(scope="module")
def of_tinyfls_own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of nothing but tinyfl's own."""
    return tinyfl.simulate(**SMALL, task="sine", nodes="devices", out=tmp_path_factory.mktemp("runs") / "run").path


def forgotten(tmp_path: Path) -> None:
    sys.modules.pop("canary", None)
    (tmp_path / "imported").unlink(missing_ok=True)


def test_the_canary_is_a_canary(canary: Callable[[], bool]) -> None:
    assert not canary()
    importlib.import_module("canary")
    assert canary()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of code that only its user could have loaded, which this Python has forgotten."""
    code = {kind: f"canary:{name}" for kind, name in GROUPS.items()}
    tinyfl.simulate(**SMALL, **code, nodes="devices", out="run")
    forgotten(tmp_path)
    return tmp_path / "run"


@pytest.mark.slow
def test_a_strangers_run_directory_is_shown_and_adapted_without_its_code(run: Path, canary: Callable[[], bool]) -> None:
    np.savez("new.npz", x=np.ones((4, 1)), y=np.arange(4.0))
    report.rebuild(run)
    report.compare([run, run], Path("both.html"))
    adapt(run, "new.npz", adapt_lr=0.001)
    push.load(str(run))
    load_model(str(run))
    RunDirectory(run).config()
    assert not canary()


@pytest.mark.parametrize("kind", KINDS)
def test_a_strangers_run_directory_is_neither_resumed_nor_exported(run: Path, kind: str, canary: Callable[[], bool]) -> None:
    others = {other: f"canary:{name}" for other, name in GROUPS.items() if other != kind}
    with pytest.raises(ConfigError, match=f"{kind} canary:{GROUPS[kind]}.*give it yourself"):
        tinyfl.simulate(resume=run)
    with pytest.raises(ConfigError, match="give it yourself: --task canary:Y"):
        origin(run, None)
    with pytest.raises(ConfigError, match="load installed packages only"):
        from tinyfl.deployment.submit import _resumed

        _given(run / "config.toml", {})
        _resumed(run, None, {})
    assert not canary()
    with pytest.raises(ConfigError, match=f"^{kind} canary:{GROUPS[kind]}: that is code"):  # the others are given, and load
        tinyfl.simulate(resume=run, **others)


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: repr(name)[:20])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_names_code_is_refused(kind: str, name: str, canary: Callable[[], bool]) -> None:
    if name == "listed":
        return  # an installed package's, which this user trusts
    given = {"nodes": "devices", **{key: value for key, value in SMALL.items() if key != "nodes"}}
    for text in (f"{kind} = {json.dumps(name)}\n", f"[{kind}]\nname = {json.dumps(name)}\n"):
        Path("own.toml").write_text(text)
        with pytest.raises(ConfigError) as refused:
            tinyfl.simulate(config="own.toml", **given, out="run")
        assert kind in str(refused.value) and len(str(refused.value)) < 2000
        assert not Path("run").exists()
    assert not canary()


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: repr(name)[:20])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_directory_that_names_code_loads_none(
    kind: str, name: str, canary: Callable[[], bool], tmp_path: Path, of_tinyfls_own: Path
) -> None:
    plain = Path(shutil.copytree(of_tinyfls_own, tmp_path / "run"))
    file = plain / "config.toml"
    kept = [line for line in file.read_text().splitlines() if not line.startswith(f"{kind} =")]
    file.write_text("\n".join([f"{kind} = {json.dumps(name)}", *kept]))
    np.savez("new.npz", x=np.ones((4, 1)), y=np.arange(4.0))
    takes: list[Callable[[Path], object]] = [
        report.rebuild, lambda run: adapt(run, "new.npz"), lambda run: push.load(str(run)), lambda run: load_model(str(run)),
        lambda run: origin(run, None),
    ]  # fmt: skip
    if name != "listed":
        takes.append(lambda run: tinyfl.simulate(resume=run))
    for take in takes:
        with pytest.raises(TinyflError):
            take(plain)
    assert not canary()


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: repr(name)[:20])
def test_a_message_that_names_code_is_refused_by_a_gateway_and_a_client_app(name: str, canary: Callable[[], bool]) -> None:
    sine = load_task("sine", None, 0)
    net = network("mlp-4", (1,), 1, sine.loss, sine.activation)
    content = RecordDict({"arrays": theta_record(net.initial_weights(0))})
    content["config"] = instructions(Inner(samples=4, rate=0.02), cohort=2, fleet_size=2, seed=0, round=0, exact=True)
    asked = RecordDict({"config": ConfigRecord({"task": name, "version": "ours 1.0"})})
    run_config: dict[str, Any] = {"task": name, "network": "mlp-4", "devices": 2}
    FleetGrid(NativeFleet(sine, net, 2))  # gives this process the identity that Message() asks for
    with opened([Part(native=2)]) as site:
        gateway = Gateway("lab", site, Allowed(frozenset(), ()), tell=lambda _: None)
        answers = [gateway(MessageType.TRAIN, content, run_config), gateway(MessageType.QUERY, asked, run_config)]
    for kind, sent in ((MessageType.TRAIN, content), (MessageType.QUERY, asked)):
        context = Context(1, 1, {"partition-id": 0, "num-partitions": 1}, RecordDict(), run_config)
        reply = client_app.app(Message(sent, 1, kind), context)
        assert reply.has_error()
        answers.append(reply.error)
    for answer in answers:
        assert isinstance(answer, Error)
        assert "task" in str(answer.reason) and len(str(answer.reason)) < 700
    assert not canary()


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: repr(name)[:20])
@pytest.mark.parametrize("kind", KINDS)
def test_a_message_that_names_code_is_refused_by_the_superlinks_app(
    kind: str, name: str, canary: Callable[[], bool], tmp_path: Path
) -> None:
    for allowed in (Allowed(frozenset(), (tmp_path,)), Allowed(frozenset(), (tmp_path,), frozenset(["canary:X", "absent"]))):
        with pytest.raises(ConfigError, match=kind):
            _confined(from_run_config({"task": "sine", **({"task": ""} if kind == "task" else {}), kind: name}), allowed)
    assert not canary()


def test_a_resumed_run_of_an_extension_that_is_not_allowed_is_refused_by_the_superlinks_app(
    run: Path, canary: Callable[[], bool], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="load no other code"):
        _confined({"resume": str(run)}, Allowed(frozenset(), (tmp_path,), frozenset(["listed"])))
    assert not canary()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(max_size=30) | st.binary(max_size=9) | st.integers() | st.from_regex(r"\A[\w.]{0,9}:[\w.]{0,9}\Z"))
def test_no_name_at_all_passes_but_tinyfls_own(name: Any, canary: Callable[[], bool]) -> None:
    for kind in KINDS:
        if not name or name in ("joint", "sine"):
            continue
        with pytest.raises(ConfigError, match=kind):
            refuse_extensions({kind: name}, Allowed(frozenset(), ()))
    assert not canary()


def test_an_entry_point_is_loaded_by_a_gateway_that_allows_it_and_by_no_other(
    canary: Callable[[], bool], tmp_path: Path
) -> None:
    asked = RecordDict({"config": ConfigRecord({"task": "listed", "version": "ours 1.0"})})
    other = RecordDict({"config": ConfigRecord({"task": "listed", "version": "ours 0.9"})})
    with opened([Part(native=2)]) as site:
        closed = Gateway("closed", site, Allowed(frozenset(), (), frozenset(["absent"])), tell=lambda _: None)
        refused = closed(MessageType.QUERY, asked, {})
        assert isinstance(refused, Error)
        assert str(refused.reason).startswith("closed: task 'listed' is not allowed on this machine")
        assert 'add extensions = ["listed"]' in str(refused.reason)
        missing = closed(MessageType.QUERY, RecordDict({"config": ConfigRecord({"task": "absent"})}), {})
        assert "no task is called 'absent' on this machine. Its operator can install the package" in str(missing.reason)  # type: ignore[union-attr]
        open_ = Gateway("open", site, Allowed(frozenset(), (), frozenset(["listed"])), tell=lambda _: None)
        assert isinstance(open_(MessageType.QUERY, asked, {}), RecordDict)
        older = open_(MessageType.QUERY, other, {})
        assert "of ours 1.0 here, and of ours 0.9 at the coordinator" in str(older.reason)  # type: ignore[union-attr]
        assert not canary(), "so far only the name was read"

        task = resolve({"task": "listed"}).load_task()
        net = network("mlp-4", (1,), 1, task.loss, task.activation)
        forgotten(tmp_path)
        content = RecordDict({"arrays": theta_record(net.initial_weights(0))})
        content["config"] = instructions(Inner(samples=4, rate=0.02), cohort=2, fleet_size=2, seed=0, round=0, exact=True)
        run_config = {
            "task": "listed",
            "network": "mlp-4",
            "devices": 2,
            "algorithm": "os:system",
        }  # not the gateway's business
        assert isinstance(closed(MessageType.TRAIN, content, run_config), Error)
        assert not canary()
        assert isinstance(open_(MessageType.TRAIN, content, run_config), RecordDict)
    assert canary()


def test_a_node_of_flowers_simulation_engine_loads_what_its_machine_allows(
    canary: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    sine = load_task("sine", None, 0)
    net = network("mlp-4", (1,), 1, sine.loss, sine.activation)
    content = RecordDict({"arrays": theta_record(net.initial_weights(0))})
    content["config"] = instructions(Inner(samples=4, rate=0.02), cohort=2, fleet_size=2, seed=0, round=0, exact=True)
    FleetGrid(NativeFleet(sine, net, 2))
    run_config: dict[str, Any] = {"task": "listed", "network": "mlp-4", "devices": 2, "algorithm": "canary:X"}
    context = Context(1, 1, {"partition-id": 0, "num-partitions": 1}, RecordDict(), run_config)
    Path("allowed.toml").write_text('extensions = ["listed"]\n')
    for allowed in (False, True):
        if allowed:
            monkeypatch.setenv(VARIABLE, "allowed.toml")
        reply = client_app.app(Message(content, 1, MessageType.TRAIN), context)
        assert (reply.has_error(), canary()) == (not allowed, allowed)


def test_load_task_takes_names_and_no_code(canary: Callable[[], bool]) -> None:
    with pytest.raises(ConfigError, match="that is code"):
        load_task("canary:Y", None, 0)
    assert not canary()


def test_a_weights_file_does_not_have_its_task_loaded(run: Path, canary: Callable[[], bool]) -> None:
    alone = Path("alone.npz")
    alone.write_bytes((run / "initialisation.npz").read_bytes())
    with pytest.raises((ConfigError, RunError), match="task canary:Y: that is code"):
        origin(alone, None)
    assert not canary()
