"""Codecs in a run: devices send and get what tinyfl.codecs says, on any number of lanes, threads and gateways, also after an
interrupt; and bytes are counted as they are sent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyfl
from tinyfl.algorithms import Inner, Phase, State, with_layers
from tinyfl.cli.show import runs as show
from tinyfl.codecs import FP32, Codec, decode, encode
from tinyfl.codecs.down import Down
from tinyfl.config import resolve
from tinyfl.core import F32, Engine
from tinyfl.errors import ConfigError
from tinyfl.fleet import PARTS, draw_cohort
from tinyfl.flower.rounds import Progress
from tinyfl.networks import network
from tinyfl.networks.layers import Activation, Loss
from tinyfl.report.line import bytes_after
from tinyfl.runs.directory import RunDirectory
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks.sine import Sine

NET = network("mlp-9-8", (1,), 1, Loss.mean_squared_error, Activation.tanh)
HEAD = NET.weighted_layers[-1].bit
NAMES = ("fp16", "int8", "int4", "top:10")
RUN: dict[str, Any] = {
    "task": "sine",
    "network": "mlp-9-8-tanh",
    "rounds": 12,
    "devices": 5,
    "cohort": 3,
    "tasks": 2,
    "shots": 5,
}


@pytest.fixture(autouse=True)
def quick(no_page: None, figureless: None) -> None:
    """No run here is about its page."""


def fleet(**options: Any) -> NativeFleet:
    return NativeFleet(Sine(3), NET, 20, Engine(**options))


def sent_by(inner: Inner, theta: F32, phi: F32) -> F32:
    """What arrives of a device that learnt ``phi``: its change of the sent layers, encoded and decoded."""
    sent = np.concatenate(
        [np.arange(NET.parameters)[each.weights] for each in NET.weighted_layers if not inner.local & each.bit]
    )
    sizes = NET.arrays(((1 << 64) - 1) & ~inner.local)
    after = theta.copy()
    after[sent] += decode(inner.up, encode(inner.up, (phi - theta)[sent], sizes), sizes)
    return after


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("local", [0, HEAD])
def test_a_simulated_device_sends_what_its_codec_makes_of_its_change(name: str, local: int) -> None:
    cohort, theta = np.arange(19, dtype=np.uint32), NET.initial_weights(4)
    phases = Phase(6, 0.05, layers=HEAD), Phase(7, 0.05, batch=3)
    plain = Inner(*phases, local=local)
    exact = fleet().run_each(cohort, 2, theta, plain).phi
    inner = plain.sent_as(Codec.named(name))
    expected = np.array([sent_by(inner, theta, phi) for phi in exact])
    for lanes, threads in ((1, 1), (4, 2), (0, 1)):
        found = fleet(lanes=lanes, threads=threads)
        assert np.array_equal(found.run_each(cohort, 2, theta, inner).phi, expected)
        total = sum(np.rint((phi.astype(float) - theta) * 2.0**32).astype(np.int64) for phi in expected)
        assert np.array_equal(found.run(cohort, 2, theta, inner).sum, total)


def test_a_returned_gradient_is_encoded_as_it_is() -> None:
    cohort, theta = np.arange(3, dtype=np.uint32), NET.initial_weights(4)
    inner = Inner(Phase(5, 0.05), Phase(5, 0.0), returns="gradient")
    exact = fleet().run_each(cohort, 0, np.zeros_like(theta) + theta, inner).phi
    found = fleet().run_each(cohort, 0, theta, inner.sent_as(Codec.named("int8"))).phi
    # phi is rounded to floats near theta, so that the gradient is known to as much.
    expected = np.array([sent_by(inner.sent_as(Codec.named("int8")), theta, phi) for phi in exact])
    assert np.allclose(found, expected, rtol=0, atol=1e-6)
    assert not np.array_equal(found, exact)


def test_a_device_whose_change_cannot_be_encoded_is_left_out_and_keeps_what_it_had() -> None:
    theta = np.full(NET.parameters, 1e14, np.float32)
    inner = Inner(Phase(4, 100.0), local=HEAD, kept=True).sent_as(Codec.named("int8"))
    updates = fleet().run(np.arange(4, dtype=np.uint32), 0, theta, inner)
    assert updates.left_out == {"numeric": 4}
    assert not updates.sum.any()


def replayed(up: str, down: Down, rounds: int, cohort: int, seed: int = 0, feedback: bool = False) -> F32:
    """Theta after TinyReptile's rounds by the formulas of Down, from single updates."""
    lost = dict.fromkeys(range(RUN["devices"]), np.zeros(NET.parameters, np.float32))
    algorithm = with_layers(resolve({**RUN, "seed": seed, "rounds": rounds}).build(), NET.weighted_layers)
    state, before = State(0, NET.initial_weights(seed)), None
    devices = NativeFleet(Sine(seed), NET, RUN["devices"])
    for round in range(rounds):
        inner = algorithm.inner(round)
        start = state.theta + np.float32(0)
        if down.codec != FP32 and not (down.delta and before is None):
            base = before if down.delta and before is not None else np.zeros_like(start)
            start = base + decode(down.codec, encode(down.codec, state.theta - base, down.arrays), down.arrays)
        drawn = draw_cohort(seed, round, cohort, RUN["devices"])
        phis = devices.run_each(drawn, round, start, inner).phi
        codec, moved = Codec.named(up), []
        for device, phi in zip(drawn.tolist(), phis, strict=True):
            change = phi - start + (lost[device] if feedback else np.float32(0))
            arrived = decode(codec, encode(codec, change, NET.arrays()), NET.arrays())
            lost[device] = change - arrived
            moved.append((start + arrived if up != "fp32" else phi).astype(float) - start)
        mean = sum(np.rint(each * 2.0**32).astype(np.int64) for each in moved) * (2.0**-32 / len(moved))
        alpha = algorithm.algorithm.alpha(round)
        state, before = State(round + 1, (state.theta + alpha * mean).astype(np.float32)), start
    return state.theta


WAYS = [
    ("int8", "fp32", False),
    ("fp32", "int4", False),
    ("int4", "int8", False),
    ("top:10", "fp16", True),
    ("int8", "int4", True),
    ("fp32", "int8", True),
]


@pytest.mark.parametrize(("up", "down", "delta"), WAYS)
def test_a_run_follows_the_formulas_on_any_number_of_gateways(up: str, down: str, delta: bool, tmp_path: Path) -> None:
    settings = {**RUN, "up": up, "down": down, "delta": delta}
    expected = replayed(up, Down(Codec.named(down), delta, NET.arrays()), 12, 3)
    for nodes in ("1", "3", "devices"):
        run = tinyfl.simulate(out=tmp_path / nodes, nodes=nodes, lanes=4, threads=2, **settings)
        assert np.array_equal(run.theta, expected)


@pytest.mark.parametrize("up", ["int4", "top:10"])
def test_with_feedback_a_device_sends_later_what_its_codec_has_lost(up: str, tmp_path: Path) -> None:
    settings = {**RUN, "up": up, "feedback": True}
    expected = replayed(up, Down(), 12, 3, feedback=True)
    assert not np.array_equal(expected, replayed(up, Down(), 12, 3))
    for nodes in ("1", "devices"):
        assert np.array_equal(
            tinyfl.simulate(out=tmp_path / nodes, nodes=nodes, lanes=4, threads=2, **settings).theta, expected
        )


@pytest.mark.parametrize("feedback", [False, True])
def test_an_interrupted_run_with_deltas_ends_as_one_that_was_not(feedback: bool, tmp_path: Path) -> None:
    settings = {**RUN, "up": "int4", "down": "int8", "delta": True, "feedback": feedback}
    whole = tinyfl.simulate(out=tmp_path / "whole", **settings)

    def stop(progress: Progress) -> None:
        if progress.stage == "learning" and progress.done >= 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tinyfl.simulate(progress=stop, out=tmp_path / "cut", **settings)
    cut = tinyfl.simulate(resume=tmp_path / "cut")
    assert cut.result["theta_sha256"] == whole.result["theta_sha256"]
    assert cut.result["bytes_down"] == whole.result["bytes_down"]


def test_with_deltas_devices_come_as_near_to_theta_as_small_changes_can_be_told() -> None:
    down, rng = Down(Codec.named("int8"), True, NET.arrays()), np.random.default_rng(2)
    theta = NET.initial_weights(1)
    before, errors = None, list[float]()
    for _ in range(6):
        before, _ = down.sent(theta, before)
        errors.append(float(np.abs(before - theta).max()))
        theta = theta + rng.normal(0, 1e-3, len(theta)).astype(np.float32)
    once, _ = Down(Codec.named("int8"), False, NET.arrays()).sent(theta, None)
    assert max(errors) < 1e-4 < np.abs(once - theta).max()


def joined(seed: int, rounds: int, cohort: int, devices: int) -> int:
    cohorts = [set(draw_cohort(seed, round, cohort, devices).tolist()) for round in range(rounds)]
    return sum(len(now - before) for before, now in zip([set(), *cohorts], cohorts, strict=False))


def test_a_run_says_that_delta_takes_more_bytes_than_it_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = tinyfl.simulate(out=tmp_path / "few", **RUN, down="int4", delta=True, page=False).result
    assert "--delta: with 3 of 5 devices in a round" in few["notes"][-1]
    show.run(few)
    total = few["line_bytes_down"] + few["line_bytes_up"]
    assert f"{100 * total / few['line_bytes_fp32']:.1f} % of what all weights take as float32" in capsys.readouterr().out
    all = tinyfl.simulate(out=tmp_path / "all", **{**RUN, "cohort": 5}, down="int4", delta=True, page=False).result
    assert not [words for words in all["notes"] if "--delta" in words]


def test_bytes_are_counted_as_they_are_sent(tmp_path: Path) -> None:
    n, sizes = NET.parameters, NET.arrays()
    plain, eight, four = (Codec.named(name).bytes(sizes) for name in ("fp32", "int8", "int4"))
    assert (plain, eight, four) == (4 * n, n + 4 * (len(sizes) - 1) + 3, sum(-(-size // 2) + 4 for size in sizes[:-1]) + 4)

    def counted(**options: Any) -> Sequence[int]:
        run = tinyfl.simulate(out=tmp_path / str(sorted(options.items())), **RUN, **options)
        result, after = run.result, bytes_after(RunDirectory(run.path), run.result, np.arange(13.0))
        for way in ("down", "up"):
            on_the_line = sum(part[way] for part in result["line_bytes_by_part"].values())
            assert result[f"line_bytes_{way}"] == on_the_line > result[f"bytes_{way}"]
        total = result["line_bytes_down"] + result["line_bytes_up"]
        assert total < result["line_bytes_fp32"] if options else total == result["line_bytes_fp32"]
        assert after[[0, 12]].tolist() == pytest.approx([0, total])
        for round in range(12):  # those who are new get as many more in each round
            new = joined(0, round + 1, 3, 5) - joined(0, round, 3, 5)
            more = result["line_bytes_new"] / joined(0, 12, 3, 5)
            assert after[round + 1] - after[round] == pytest.approx((total - result["line_bytes_new"]) / 12 + new * more)
        assert (result["line_bytes_new"] > 0) == ("delta" in options)
        return result["bytes_down"], result["bytes_up"]

    assert counted() == (36 * plain, 36 * plain)
    assert counted(down="int8", up="int4") == (36 * eight, 36 * four)
    new = joined(0, 12, 3, 5)
    assert counted(down="int8", delta=True) == (new * plain + (36 - new) * eight, 36 * plain)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delta": True}, "give --down int8 too"),
        ({"feedback": True}, "give --up int4 too"),
        ({"down": "top:10"}, "fp32, fp16, int8 or int4"),
        ({"up": "int3"}, "fp32, fp16, int8, int4, and top:P"),
        ({"up": "top:101"}, "from 0.01 to 100"),
    ],
)
def test_what_is_no_codec_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        resolve({**RUN, **options})


def test_settings_of_codecs_leave_the_hash_of_a_run_without_them_and_name_a_codec_once() -> None:
    assert resolve({**RUN, "up": "fp32", "down": "fp32"}).sha256() == resolve(RUN).sha256()
    assert resolve({**RUN, "up": "top:10.0"}).sha256() == resolve({**RUN, "up": "top:10"}).sha256()
    assert resolve({**RUN, "up": "int8"}).sha256() != resolve(RUN).sha256()


@pytest.mark.slow
@pytest.mark.usefixtures("emulators")
def test_emulated_boards_simulated_devices_and_gateways_end_with_the_same_theta(tmp_path: Path) -> None:
    mixed = [{"board": "mps2-an386", "count": 2}, {"native": 1}]
    for up, down, delta in (("fp16", "int4", False), ("int8", "fp16", False), ("int4", "int8", True), ("top:10", "int4", True)):
        settings = {**RUN, "devices": 3, "cohort": 2, "rounds": 4, "samples": 4, "up": up, "down": down, "delta": delta}
        settings["feedback"] = up != "fp16"
        alone = tinyfl.simulate(out=tmp_path / f"{up}-native", **settings)
        boards = tinyfl.simulate(out=tmp_path / f"{up}-boards", fleet=mixed, nodes="2", **settings)
        assert boards.result["left_out"] == {}
        assert tuple(boards.result["line"]) == PARTS
        assert boards.result["theta_sha256"] == alone.result["theta_sha256"]


def test_ram_of_a_device_that_encodes_its_change_has_theta_twice() -> None:
    inner = Inner(samples=8, rate=0.1)
    more = {name: NET.arena_bytes(inner.sent_as(Codec.named(name))) - NET.arena_bytes(inner) for name in ("fp32", *NAMES)}
    assert more == {"fp32": 0, **dict.fromkeys(NAMES, 4 * NET.parameters)}
