"""Heads of many devices averaged by class name, and a head whose start is meta-learnt."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import tinyfl
from tinyfl.cli import app
from tinyfl.errors import ConfigError
from tinyfl.link.board import LinkedBoard
from tinyfl.link.online import OnlineBoard, OnlineRecord
from tinyfl.online import Head, OnlineSet, online
from tinyfl.online.averages import NamedHead, averaged
from tinyfl.online.device import Device
from tinyfl.online.starts import of_nothing
from tinyfl.runs.adaptation import Initialisation
from tinyfl.system.loop import every, in_loop


def head(names: str, columns: list[list[float]], places: int = 5) -> NamedHead:
    return NamedHead(np.array(columns, np.float32).T.reshape(-1, len(names)), tuple(names), places)


def test_a_class_is_averaged_over_the_devices_that_have_it_and_others_get_it_where_there_is_room() -> None:
    first, second = head("ab", [[1, 2], [3, 5]]), head("cb", [[10, 20], [7, 8]], places=2)
    now = averaged([first, second])
    assert now[0].names == ("a", "b", "c")
    assert now[1].names == ("c", "b")
    np.testing.assert_array_equal(now[0].weights, [[1, 5, 10], [2, 6.5, 20]])
    np.testing.assert_array_equal(now[1].weights, [[10, 5], [20, 6.5]])
    alone = averaged([first, NamedHead(np.zeros((2, 0), np.float32), (), 5)])
    np.testing.assert_array_equal(alone[1].weights, first.weights)
    with pytest.raises(ConfigError, match="embeddings of 1, 2 numbers"):
        averaged([first, head("a", [[1, 2, 3]])])


def test_statistics_counts_and_monitor_stay_at_the_device() -> None:
    rng, set = np.random.default_rng(0), OnlineSet(Head.classes, 3, 3, 4, embedded=False, rate=0.1)
    devices = [Device(set, of_nothing(3, Head.classes)) for _ in range(2)]
    for shift, device, classes in zip((0, 5), devices, ("ab", "bc"), strict=True):
        y = rng.choice(list(classes), 60)
        device.run(rng.normal(shift, 1, (60, 3)).astype(np.float32), np.arange(1, 61, dtype=np.uint32), y)
    before = [device.core.learnt() for device in devices]
    for device, new in zip(devices, averaged([device.share() for device in devices]), strict=True):
        device.take(new)
    for device, old in zip(devices, before, strict=True):
        assert sorted(device.names) == ["a", "b", "c"]
        assert device.core.learnt()[4 : 44 + 6 * 4 + 4 * 4] == old[4 : 44 + 6 * 4 + 4 * 4]
    a, b = ({name: device.core.head[:, place] for place, name in enumerate(device.names)} for device in devices)
    assert all((a[name] == b[name]).all() for name in "abc")


def test_work_beside_a_failure_has_ended_when_the_failure_is_known() -> None:
    ended = list[str]()

    async def quick() -> None:
        raise ConfigError("this board learns nothing")

    async def slow() -> None:
        await asyncio.sleep(0.05)
        ended.append("slow")

    with pytest.raises(ConfigError, match="learns nothing"):
        in_loop(every([quick(), slow()]))
    assert ended == ["slow"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Devices with two of four classes each, the same ones in all."""
    rng = np.random.default_rng(4)
    device, x, y = np.repeat(np.arange(12), 80), list[Any](), list[Any]()
    centres = rng.normal(0, 2, (4, 6))
    for _ in range(12):
        labels = rng.integers(0, 4, 80)
        x.append(centres[labels] + rng.normal(0, 1.2, (80, 6)))
        y.append(np.array(list("abcd"))[labels])
    path = tmp_path_factory.mktemp("averages") / "data.npz"
    np.savez(path, x=np.concatenate(x).astype(np.float32), y=np.concatenate(y), device=device)
    return path


def test_devices_with_few_labels_gain_by_the_average(data: Path) -> None:
    asked: dict[str, Any] = {"task": "npz", "data": data, "devices": 6, "labels": 0.1, "shuffle": True}
    alone, together = online(**asked), online(**asked, average=20)
    assert together["online"] > alone["online"] + 0.02
    assert together["average"] == 20
    with pytest.raises(ConfigError, match="--devices 2 or more"):
        online(task="npz", data=data, average=20)


def test_a_board_that_takes_the_averages_too_learns_the_same_bits(data: Path, firmware_cache: None) -> None:
    pytest.importorskip("unicorn")
    words = ["--task", "npz", "--data", str(data), "--devices", "3", "--samples", "30", "--average", "25", "--labels", "0.5"]
    said = CliRunner().invoke(app, ["online", *words, "--on", "emulated:mps2-an386", "--json"])
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["on_board"]["same_bits"]


def test_the_heads_of_boards_are_averaged_on_request(firmware_cache: None) -> None:
    from tinyfl.fleets import emulation

    set = OnlineSet(Head.classes, 3, 3, 3, embedded=False, rate=0.5)

    async def teach(url: str, classes: str) -> bytes:
        from functools import partial

        from tinyfl.link.wire import SerialWire

        board = await LinkedBoard.connect(partial(SerialWire.open, url))
        try:
            learner = OnlineBoard(board)
            await learner.start(OnlineRecord("inputs", bytes(32), set.record, 1))
            rng = np.random.default_rng(len(classes))
            for turn in range(8 * bool(classes)):
                said = await learner.sample(rng.normal(0, 1, 3).astype(np.float32))
                await learner.label(said.number, turn % len(classes), classes[turn % len(classes)])
            names, weights = await learner.head()
            return repr(names).encode() + weights.tobytes()
        finally:
            await board.close()

    with emulation.emulate("posix", 3, link="tcp") as served:
        urls = [each.url for each in served]
        assert isinstance(CliRunner().invoke(app, ["average", urls[0]]).exception, ConfigError)
        unset = CliRunner().invoke(app, ["average", *urls])
        assert isinstance(unset.exception, ConfigError)
        assert "learns nothing online" in str(unset.exception)
        before = [asyncio.run(teach(url, classes)) for url, classes in zip(urls, ("ab", "xya", ""), strict=True)]
        said = CliRunner().invoke(app, ["average", *urls, "--keep", "--json"])
        assert said.exit_code == 0, said.output
        rows = json.loads(said.stdout)["boards"]
        assert [row["classes"] for row in rows] == [["a", "b", "x"], ["x", "y", "a"], ["a", "b", "x"]]
        assert [row["new"] for row in rows] == [1, 0, 3]
        assert len({*before}) == 3


def test_a_heads_start_is_meta_learnt_over_a_frozen_body(tmp_path: Path) -> None:
    """TinyReptile on the last layer alone, of a run whose other layers stay, and then devices learn from there."""
    body, start = tmp_path / "body", tmp_path / "start"
    tinyfl.simulate(task="sine", network="mlp-16", devices=20, rounds=300, tasks=4, algorithm="joint", out=body)
    tinyfl.simulate(task="sine", network=str(body), freeze=1, devices=20, rounds=300, tasks=4, seed=1, out=start)
    one, two = Initialisation.load(body).theta, Initialisation.load(start).theta
    assert (one[:-17] == two[:-17]).all()
    assert (one[-17:] != two[-17:]).any()
    found = online(start, rate=0.02, standardise="nothing", samples=300, segments=4)
    assert found["online"] < found["static"]
