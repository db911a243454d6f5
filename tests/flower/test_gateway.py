"""What a gateway answers for its devices, and the settings that a run brings to it."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fleet_of_24 import COHORT, FLEET, RUN_CONFIG, SIZE, TASK, THETA
from flwr.app import ConfigRecord, Context, Error, Message, MessageType, RecordDict
from flwr.common.config import parse_config_args
from own import installed

from tinyfl.algorithms import Inner
from tinyfl.config.roster import Part
from tinyfl.deployment.gateway import Gateway, Holding, read_holding
from tinyfl.errors import ConfigError, LinkError
from tinyfl.errors.words import plain
from tinyfl.fleets.assembly import opened
from tinyfl.flower import client_app
from tinyfl.flower.allowed import Allowed, read_allowed
from tinyfl.flower.grid import FleetGrid, shard
from tinyfl.flower.ipc import ask, serve
from tinyfl.flower.messages import Trouble, instructions, network_record, theta_record
from tinyfl.flower.node import answer, read_request
from tinyfl.flower.settings import from_run_config, to_run_config
from tinyfl.flower.settings import keys as setting_names
from tinyfl.networks import network
from tinyfl.tasks import load_task


@contextmanager
def listening(site_first: int, told: list[str], path: Path) -> Iterator[tuple[str, Gateway]]:
    with (
        opened([Part(native=3), Part(native=5)], site_first) as site,
        closing(Gateway("lab", site, read_allowed(), tell=told.append)) as gateway,
        closing(Listener(str(path / "s"), family="AF_UNIX")) as listener,
    ):
        closed = threading.Event()
        threading.Thread(target=serve, args=(listener, gateway, closed), daemon=True).start()
        yield str(path / "s"), gateway
        closed.set()


def test_a_gateway_answers_for_its_devices_as_the_whole_fleet_would(tmp_path: Path) -> None:
    told: list[str] = []
    content = RecordDict({"arrays": theta_record(THETA)})
    content["config"] = instructions(Inner(samples=8, rate=0.02), cohort=COHORT, fleet_size=SIZE, seed=1, round=2, exact=True)
    with listening(8, told, tmp_path) as (socket, _):
        roll = ask(socket, MessageType.QUERY, RecordDict({"config": ConfigRecord()}), RUN_CONFIG)
        said = [ask(socket, MessageType.TRAIN, content, RUN_CONFIG) for _ in range(2)]
        context = Context(1, 1, {"gateway": socket}, RecordDict(), dict(RUN_CONFIG))
        FleetGrid(FLEET)
        reply = client_app.app(Message(content, 1, MessageType.TRAIN), context)
    assert (roll["shard"]["first"], roll["shard"]["size"], roll["shard"]["name"]) == (8, 8, "lab")  # type: ignore[index]
    straight: Any = answer(FLEET, range(8, 16), read_request(content, MessageType.TRAIN, {}))
    for each in (*said, reply.content):
        assert each["arrays"]["sum"].data == straight["arrays"]["sum"].data  # type: ignore[index]
    assert [line.split(" updates")[0] for line in told[:1]] == [f"round 3: {straight['metrics']['devices']}"]
    assert all("answered from memory" in line for line in told[1:]), told


def test_a_gateway_says_what_it_cannot_do_and_goes_on(tmp_path: Path) -> None:
    told: list[str] = []
    content = RecordDict({"arrays": theta_record(THETA)})
    content["config"] = instructions(Inner(samples=8, rate=0.02), cohort=COHORT, fleet_size=SIZE, seed=1, round=0, exact=True)
    wide, none = RecordDict({**content}), RecordDict({**content})
    wide["network"] = network_record(network("mlp-8", (3,), TASK.outputs, TASK.loss, TASK.activation))
    none["network"] = ConfigRecord({"name": "odd", "shape": [1], "plan": b"TFLP"})
    flat = RecordDict({**content, "network": ConfigRecord({**wide["network"], "shape": [3, 1]})})
    with listening(8, told, tmp_path) as (socket, _):
        bad = ask(socket, MessageType.TRAIN, content, {**RUN_CONFIG, "task": "cooking"})
        misfit, no_plan, no_shape = (ask(socket, MessageType.TRAIN, each, RUN_CONFIG) for each in (wide, none, flat))
        well = ask(socket, MessageType.TRAIN, content, RUN_CONFIG)
    assert isinstance(bad, Error)
    assert "no task is called 'cooking'" in str(bad.reason)
    assert "mlp-8-tanh has 3 inputs and 1 outputs, but task sine has 1 and 1" in str(misfit.reason)  # type: ignore[union-attr]
    assert "network odd: not a plan" in str(no_plan.reason)  # type: ignore[union-attr]
    assert "Install the same version of tinyfl on all machines" in str(no_shape.reason)  # type: ignore[union-attr]
    assert isinstance(well, RecordDict)
    with pytest.raises(LinkError, match="does not answer"):
        ask(str(tmp_path / "nobody"), MessageType.TRAIN, content, RUN_CONFIG)


def test_a_defect_in_a_gateway_is_logged_there_and_whoever_asked_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    content = RecordDict({"arrays": theta_record(THETA)})
    content["config"] = instructions(Inner(samples=8, rate=0.02), cohort=COHORT, fleet_size=SIZE, seed=1, round=0, exact=True)

    def broken(*_: object) -> None:
        raise IndexError("index 4 is out of bounds \x1b[2J" + "x" * 10_000)

    with listening(8, told, tmp_path) as (socket, _):
        with monkeypatch.context() as patched:
            patched.setattr("tinyfl.deployment.gateway.answer", broken)
            said = [ask(socket, MessageType.TRAIN, content, RUN_CONFIG) for _ in range(2)]
        assert isinstance(ask(socket, MessageType.TRAIN, content, RUN_CONFIG), RecordDict), "it goes on"
    for error in said:
        assert isinstance(error, Error)
        assert error.code == Trouble.failed
        assert "a defect in the gateway, whose log has more: IndexError('index 4 is out of bounds" in str(error.reason)
        assert len(str(error.reason)) < 400
    assert told[0].startswith("a defect in this gateway:\n  Traceback")
    assert ", in broken" in told[0]
    assert all(plain(line) == line.strip() for line in told[0].splitlines())
    assert told[1] == "the same defect again"


def test_a_run_reads_no_file_of_a_gateways_machine_that_its_operator_has_not_allowed(tmp_path: Path, own_data: Path) -> None:
    inside, outside = tmp_path / "allowed", own_data
    inside.mkdir()
    (inside / "own.npz").write_bytes(own_data.read_bytes())
    task = load_task("npz", own_data, 0)
    net = network("mlp-4", task.shape, task.outputs, task.loss, task.activation)
    content = RecordDict({"arrays": theta_record(net.initial_weights(0)), "network": network_record(net)})
    content["config"] = instructions(Inner(samples=8, rate=0.02), cohort=2, fleet_size=2, seed=0, round=0, exact=True)
    run = {"task": "npz", "network": "/nowhere/own.keras", "devices": 2, "cohort": 2, "rounds": 2}
    allowed = Allowed(frozenset(), (inside,))
    with opened([Part(native=2)]) as site:
        gateways = [Gateway("lab", site, allowed, data, lambda _: None) for data in ("", str(outside))]
        paths = (outside, inside / ".." / outside.name, inside / "own.npz")
        said = [gateways[0](MessageType.TRAIN, content, {**run, "data": str(path)}) for path in paths]
        own = gateways[1](MessageType.TRAIN, content, {**run, "data": "/nowhere"})
    for refused in said[:2]:
        assert isinstance(refused, Error)
        assert "outside the folders that a run may use" in str(refused.reason)
    assert [type(each) for each in (said[2], own)] == [RecordDict, RecordDict]


def test_a_gateway_that_closes_does_not_wait_for_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    going, on = threading.Event(), threading.Event()

    def slow(*_: object) -> Error:
        going.set()
        on.wait(60)
        return Error(Trouble.failed, "late")

    monkeypatch.setattr("tinyfl.deployment.gateway.answer", slow)
    content = RecordDict({"arrays": theta_record(THETA)})
    content["config"] = instructions(Inner(samples=8, rate=0.02), cohort=COHORT, fleet_size=SIZE, seed=1, round=0, exact=True)
    with opened([Part(native=8)]) as site:
        gateway = Gateway("lab", site, read_allowed(), tell=lambda _: None)
        asker = threading.Thread(target=gateway, args=(MessageType.TRAIN, content, RUN_CONFIG))
        asker.start()
        assert going.wait(60)
        gateway.close()
        assert asker.is_alive()
        on.set()
        asker.join()


@pytest.mark.parametrize("parts", [1, 5, SIZE])
def test_nodes_without_a_gateway_simulate_their_share(parts: int) -> None:
    content = RecordDict({"arrays": theta_record(THETA)})
    content["config"] = instructions(Inner(samples=8, rate=0.02), cohort=COHORT, fleet_size=SIZE, seed=1, round=2, exact=True)
    FleetGrid(FLEET)
    total = np.zeros(len(THETA), np.int64)
    for part in range(parts):
        context = Context(1, 1, {"partition-id": part, "num-partitions": parts}, RecordDict(), dict(RUN_CONFIG))
        reply = client_app.app(Message(content, 1, MessageType.TRAIN), context)
        total += np.frombuffer(reply.content["arrays"]["sum"].data, "<i8")  # type: ignore[index]
        roll = client_app.app(Message(RecordDict({"config": ConfigRecord()}), 1, MessageType.QUERY), context)
        assert roll.content["shard"]["first"] == shard(SIZE, parts, part).start  # type: ignore[index]
    whole: Any = answer(FLEET, range(SIZE), read_request(content, MessageType.TRAIN, {}))
    assert total.tobytes() == whole["arrays"]["sum"].data


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('task = "sine"\n[[fleet]]\nnative = 1\n', "each run gives the rest"),
        ("first = 1\n", "no .*part"),
        ("first = -1\n[[fleet]]\nnative = 1\n", "whole number"),
        ("[[fleet]]\nnative = 0\n", "no device"),
    ],
)
def test_a_gateways_file_that_is_none_says_why(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=why):
        read_holding(file)


def test_a_gateway_with_data_of_its_own_needs_no_file_of_a_fleet(tmp_path: Path, own_data: Path) -> None:
    assert read_holding(None, data=own_data) == Holding((), 0, str(own_data))
    file = tmp_path / "fleet.toml"
    file.write_text(f'data = "{own_data}"\n')
    assert read_holding(file) == Holding((), 0, str(own_data))
    with pytest.raises(ConfigError, match="neither --fleet nor --data is given"):
        read_holding(None)
    with pytest.raises(ConfigError, match="no such file"):
        read_holding(file, data=tmp_path / "absent.npz")
    (tmp_path / "make.py").write_text("import numpy\n")
    (tmp_path / "text.npz").write_text("x y device\n")
    for name in ("make.py", "text.npz"):
        with pytest.raises(ConfigError, match=f"{name} holds no data"):
            read_holding(None, data=tmp_path / name)
    (tmp_path / "own.csv").write_text("x,y,device\n")
    (tmp_path / "flair.h5").write_bytes(b"\x89HDF\r\n")
    for path in (tmp_path / "own.csv", tmp_path / "flair.h5", tmp_path):
        assert read_holding(None, data=path).data == str(path), "the run says how it is read"


def test_a_run_config_keeps_every_setting() -> None:
    options = {"task": "sine", "shots": (1, 5), "rate": 0.5, "devices": 8, "out": "runs/x"}
    flat = to_run_config(options)
    assert set(flat) == {key.replace("_", "-") for key in setting_names()}
    assert from_run_config(flat) == options
    with pytest.raises(ConfigError, match="'fruit'"):
        from_run_config({"fruit": 1})
    with pytest.raises(ConfigError, match="whole numbers"):
        from_run_config({"shots": "one"})


def test_the_example_app_names_every_setting() -> None:
    import tomllib
    from importlib.resources import files

    app = tomllib.loads((files("tinyfl.flower") / "app" / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert set(app["config"]) == set(to_run_config({}))
    from_run_config(app["config"])


def test_a_resumed_run_on_a_federation_keeps_its_settings_and_has_no_fleet_here(tmp_path: Path) -> None:
    from tinyfl.config import resolve
    from tinyfl.deployment.submit import _resumed
    from tinyfl.runs.directory import RunDirectory

    held = resolve({"task": "sine", "devices": 4, "cohort": 4, "minimum": 3, "shots": (1, 5)})
    RunDirectory(tmp_path).start(held)
    given, folder = _resumed(tmp_path, None, {"seconds": 9.0, "task": None})
    back = from_run_config(to_run_config(given))
    assert (back["minimum"], back["shots"], back["seconds"], back["resume"]) == (3, (1, 5), 9.0, str(folder))
    with pytest.raises(ConfigError, match="is at the gateways"):
        _resumed(tmp_path, None, {"fleet": [{"native": 4}]})


def test_an_extensions_options_and_version_go_along_to_a_federation_and_code_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinyfl.deployment.submit import _fresh

    installed(tmp_path / "site", "ours", {"algorithm": {"prox": "nowhere:Prox"}})
    monkeypatch.syspath_prepend(tmp_path / "site")
    file = tmp_path / "own.toml"
    file.write_text('shots = 5\n[algorithm]\nname = "prox"\nmu = 0.5\nwords = ["a\'b", "c\\"d"]\n')
    for options in ({}, {"algorithm": "prox"}):
        flat = to_run_config(_fresh("lab", file, tmp_path / "run", options)[0])
        assert all(isinstance(value, str | int | float) for value in flat.values())
        back = from_run_config(flat)
        assert back["algorithm"] == {"name": "prox", "version": "", "mu": 0.5, "words": ["a'b", 'c"d']}
        assert back["shots"] == (5,)
    typed = parse_config_args(["""devices=4 algorithm='{name = "prox", mu = 0.5}' nodes="devices" """])  # as flwr reads it
    assert from_run_config(typed)["algorithm"] == {"name": "prox", "mu": 0.5}
    assert to_run_config(_fresh("lab", file, tmp_path / "run", {"algorithm": "reptile"})[0])["algorithm"] == "reptile"
    with pytest.raises(ConfigError, match="algorithm mine:Prox is code on this machine"):
        _fresh("lab", file, tmp_path / "run", {"algorithm": "mine:Prox"})


def test_files_of_a_run_on_a_federation_have_whole_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinyfl.deployment.submit import _fresh

    monkeypatch.chdir(tmp_path)
    given, folder = _fresh("lab", None, Path("runs/lab"), {"task": "npz", "data": "own.npz", "network": "models/own.keras"})
    assert (given["data"], given["network"]) == (str(tmp_path / "own.npz"), str(tmp_path / "models/own.keras"))
    assert folder == tmp_path / "runs" / "lab"
    others = {"network": "mlp-8", "data": "", "seed": 3}
    assert _fresh("lab", None, folder, others)[0] == {**others, "out": str(folder)}
    with pytest.raises(ConfigError, match="network is 3"):
        _fresh("lab", None, folder, {"network": 3})


def test_a_run_whose_directory_is_elsewhere_is_said_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tinyfl.cli import app

    said = {"run": "/there/runs/lab", "status": "finished:completed"}
    monkeypatch.setattr("tinyfl.deployment.submit.run_on", lambda *_, **__: said)
    app(["run", "--federation", "lab"], standalone_mode=False)
    assert capsys.readouterr().out == "finished:completed; its directory is where the SuperLink runs: /there/runs/lab\n"
