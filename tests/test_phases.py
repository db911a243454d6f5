"""Algorithms of phases, tinyfl's and those of docs/your-own.md: theta as plain NumPy computes it, on simulated devices and on
boards alike."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tinyfl import core
from tinyfl.algorithms import ALL, Inner, Phase, State, Updates, with_layers
from tinyfl.algorithms.fedprox import FedProx
from tinyfl.algorithms.fomaml import FOMAML
from tinyfl.algorithms.tinymetafed import TinyMetaFed
from tinyfl.algorithms.tinyreptile import TinyReptile
from tinyfl.config.roster import Part
from tinyfl.core import FASTEST, U32, SineSource
from tinyfl.errors import ConfigError
from tinyfl.fleet import Fleet, draw_cohort
from tinyfl.fleets.assembly import Training, assembled
from tinyfl.networks import network
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks.sine import Sine

F64 = NDArray[np.float64]

TASK = Sine(5)
NET = network("mlp-12-9-tanh", (1,), 1, TASK.loss, TASK.activation)
START = NET.initial_weights(1)
DEVICES, COHORT, ROUNDS, SEED = 4, 3, 4, 3
META_FED = [TinyMetaFed(ROUNDS, 20, 6, rate=0.05, local_start=start) for start in ("reconstructed", "kept")]
HEAD = NET.weighted_layers[-1]


def on_the_page() -> dict[str, Any]:
    """The classes of docs/your-own.md that need nothing but the page's imports."""
    page = (Path(__file__).parents[1] / "docs" / "your-own.md").read_text()
    blocks = re.findall(r"```python[^\n]*\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks:
        if re.search(r"^class (LocalHead|MomentumReptile)\b", block, re.MULTILINE):
            assert len(block.strip().splitlines()) <= 40
            exec(block, names)
    return names


PAGE = on_the_page()
FED_PROX = FedProx(pull=0.1)
FO_MAML = FOMAML(20, steps=5, rate=0.02, outer_step=0.05, outer_optimiser="sgd")


def rounds(algorithm: Any, fleet: Fleet) -> State:
    """The state after some rounds."""
    made, state = with_layers(algorithm, NET.weighted_layers), State(0, START)
    for round in range(ROUNDS):
        cohort = draw_cohort(SEED, round, COHORT, DEVICES)
        updates = fleet.run(cohort, round, state.theta, made.inner(round))
        assert updates.devices == COHORT
        state = made.outer(state, updates)
    return state


class Net:
    """A network 1-12-9-1 with tanh in float64, with the gradient of the mean squared error written out."""

    def __init__(self, theta: F64) -> None:
        self.theta = theta.copy()
        cuts = [layer.weights for layer in NET.weighted_layers]
        sizes = [(1, 12), (12, 9), (9, 1)]
        self.layers = [
            (theta_of[: a * b].reshape(a, b), theta_of[a * b :])
            for theta_of, (a, b) in zip((self.theta[cut] for cut in cuts), sizes, strict=True)
        ]

    def gradient(self, x: F64, y: F64) -> F64:
        """The mean gradient over the rows of x (samples, 1) and y."""
        (w0, b0), (w1, b1), (w2, b2) = self.layers
        h0 = np.tanh(x @ w0 + b0)
        h1 = np.tanh(h0 @ w1 + b1)
        d2 = 2 * (h1 @ w2 + b2 - y) / len(x)
        d1 = (d2 @ w2.T) * (1 - h1**2)
        d0 = (d1 @ w1.T) * (1 - h0**2)
        parts = [(x.T @ d0, d0), (h0.T @ d1, d1), (h1.T @ d2, d2)]
        return np.concatenate([part for g, d in parts for part in (g.ravel(), d.sum(axis=0))])


def samples_of(device: int, round: int, count: int) -> tuple[F64, F64]:
    x, y = core.samples(SineSource(TASK.seed), NET.plan, np.array([device], np.uint32), round, count)
    return x[0].astype(np.float64), y[0].astype(np.float64)


Local = Callable[[F64, int, int], F64]
"""A device's weights at the end of a round, from theta, its number and the round."""


def plain(local: Local, outer: Callable[[F64, F64], F64] = lambda theta, mean: mean) -> F64:
    theta = START.astype(np.float64)
    for round in range(ROUNDS):
        cohort: U32 = draw_cohort(SEED, round, COHORT, DEVICES)
        theta = outer(theta, np.mean([local(theta, device, round) for device in cohort.tolist()], axis=0))
    return theta


def fedprox(theta: F64, device: int, round: int) -> F64:
    a = FED_PROX
    x, y = samples_of(device, round, a.samples)
    net = Net(theta)
    for at in range(0, a.samples, a.batch):
        batch = slice(at, at + a.batch)
        net.theta -= a.rate * (net.gradient(x[batch], y[batch]) + a.pull * (net.theta - theta))
    return net.theta


def fomaml(theta: F64, device: int, round: int) -> F64:
    a, support = FO_MAML, 10
    x, y = samples_of(device, round, a.samples)
    net = Net(theta)
    for _ in range(a.steps):
        net.theta -= a.rate * net.gradient(x[:support], y[:support])
    return theta - net.gradient(x[support:], y[support:])


def heads(kept: bool) -> Local:
    own: dict[int, F64] = {}

    def local_head(theta: F64, device: int, round: int) -> F64:
        a, head = PAGE["LocalHead"](), HEAD.weights
        x, y = samples_of(device, round, a.head_samples + a.samples)
        net = Net(theta)
        if kept and device in own:
            net.theta[head] = own[device]
        for i in range(len(x)):
            step = a.rate * net.gradient(x[i : i + 1], y[i : i + 1])
            moves = np.zeros(len(theta), bool)
            moves[head] = True
            net.theta -= np.where(moves == (i < a.head_samples), step, 0)
        own[device] = net.theta[head].copy()
        phi = net.theta.copy()
        phi[head] = theta[head]
        return phi

    return local_head


def annealed(round: int) -> float:
    return float((1 + np.cos(np.pi * round / ROUNDS)) / 2)


def metafed(kept: bool) -> Local:
    own: dict[int, F64] = {}

    def local(theta: F64, device: int, round: int) -> F64:
        a, head = META_FED[kept], HEAD.weights
        x, y = samples_of(device, round, a.samples)
        net = Net(theta)
        if kept and device in own:
            net.theta[head] = own[device]
        moves = np.zeros(len(theta), bool)
        moves[head] = True
        for i in range(len(x)):
            step = a.rate * annealed(round) * net.gradient(x[i : i + 1], y[i : i + 1])
            net.theta -= np.where(moves == (i < a.local_samples), step, 0)
        own[device] = net.theta[head].copy()
        return np.where(moves, theta, net.theta)

    return local


def towards_annealed() -> Callable[[F64, F64], F64]:
    left = map(annealed, range(ROUNDS))
    return lambda theta, mean: theta + next(left) * (mean - theta)


def one_by_one(theta: F64, device: int, round: int) -> F64:
    a = PAGE["MomentumReptile"]()
    x, y = samples_of(device, round, a.samples)
    net = Net(theta)
    for i in range(a.samples):
        net.theta -= a.rate * net.gradient(x[i : i + 1], y[i : i + 1])
    return net.theta


def towards(step: float) -> Callable[[F64, F64], F64]:
    return lambda theta, mean: theta + step * (mean - theta)


def with_momentum() -> Callable[[F64, F64], F64]:
    a, velocity = PAGE["MomentumReptile"](), np.zeros(len(START))

    def outer(theta: F64, mean: F64) -> F64:
        nonlocal velocity
        velocity = a.momentum * velocity + mean - theta
        return theta + a.outer_step * velocity

    return outer


EXAMPLES: dict[str, tuple[Any, Callable[[], F64]]] = {
    "FedProx": (FED_PROX, lambda: plain(fedprox)),
    "FOMAML": (FO_MAML, lambda: plain(fomaml, towards(FO_MAML.outer_step))),
    "local head": (PAGE["LocalHead"](), lambda: plain(heads(kept=False))),
    "kept head": (PAGE["LocalHead"](kept=True), lambda: plain(heads(kept=True))),
    "TinyMetaFed": (META_FED[0], lambda: plain(metafed(kept=False), towards_annealed())),
    "TinyMetaFed, kept": (META_FED[1], lambda: plain(metafed(kept=True), towards_annealed())),
    "momentum": (PAGE["MomentumReptile"](), lambda: plain(one_by_one, with_momentum())),
}


@pytest.fixture(scope="module", params=["posix", pytest.param("mps2-an386", marks=pytest.mark.slow)])
def two_boards_and_two_simulated(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    parts = [Part(board=request.param, count=2), Part(native=2)]
    with assembled(parts, Training(TASK, NET, FASTEST, 60.0), lambda event: None) as (fleet, _):
        yield fleet


@pytest.mark.parametrize("name", EXAMPLES)
def test_theta_is_that_of_plain_numpy(name: str) -> None:
    algorithm, expected = EXAMPLES[name]
    theta = rounds(algorithm, NativeFleet(TASK, NET, DEVICES)).theta
    assert np.abs(theta - START).max() > 0.01
    np.testing.assert_allclose(theta, expected(), atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_boards_end_with_the_same_theta(name: str, two_boards_and_two_simulated: Fleet) -> None:
    algorithm, _ = EXAMPLES[name]
    here = rounds(algorithm, NativeFleet(TASK, NET, DEVICES)).theta
    assert rounds(algorithm, two_boards_and_two_simulated).theta.tobytes() == here.tobytes()


def test_the_local_head_is_not_in_the_update_and_the_body_is() -> None:
    theta = rounds(PAGE["LocalHead"](), NativeFleet(TASK, NET, DEVICES)).theta
    assert (theta[HEAD.weights] == START[HEAD.weights]).all()
    assert (np.delete(theta, np.r_[HEAD.weights]) != np.delete(START, np.r_[HEAD.weights])).all()


def test_a_new_device_adapts_by_the_algorithms_own_phases() -> None:
    made = with_layers(PAGE["LocalHead"](), NET.weighted_layers)
    plain_phase = Phase(10, 0.05, batch=10, passes=5)
    assert made.adaptation(plain_phase) == (replace(plain_phase, layers=HEAD.bit),)
    assert with_layers(FED_PROX, NET.weighted_layers).adaptation(plain_phase) == (plain_phase,)
    episodes = TASK.episodes("test", 3, 10)
    inner = Inner(*made.adaptation(plain_phase)).to_bytes()
    adapted = core.adapt(NET.plan, START, episodes.support, episodes.query, (5,), inner, weights=True)
    assert adapted.weights is not None
    moved = (adapted.weights != START).any(axis=0)
    assert moved[HEAD.weights].all()
    assert not np.delete(moved, np.r_[HEAD.weights]).any()


def test_phases_of_an_adaptation_are_counted_together() -> None:
    """Two passes on the head, then three on all layers, are what five passes of the list are."""
    episodes = TASK.episodes("test", 3, 10)
    head, rest = Phase(10, 0.05, passes=2, layers=HEAD.bit), Phase(10, 0.02, passes=3)
    whole = core.adapt(NET.plan, START, episodes.support, episodes.query, (2, 5), Inner(head, rest).to_bytes(), weights=True)
    first = core.adapt(NET.plan, START, episodes.support, episodes.query, (2,), Inner(head).to_bytes(), weights=True)
    np.testing.assert_array_equal(whole.loss[0], first.loss[0])
    assert whole.weights is not None
    assert first.weights is not None
    for device in range(3):
        rows = slice(device, device + 1)
        episode = episodes.chosen(np.arange(3)[rows])
        then = core.adapt(
            NET.plan, first.weights[device], episode.support, episode.query, (3,), Inner(rest).to_bytes(), weights=True
        )
        assert then.weights is not None
        np.testing.assert_array_equal(then.weights[0], whole.weights[device])


def test_tinyreptile_of_the_design_runs_as_printed() -> None:
    printed = """
@dataclass(frozen=True)
class TinyReptile:
    rounds: int
    samples: int = 32          # S: stream length; fewer than 2 cannot meta-learn (Nichol et al. 2018, section 5)
    inner_lr: float = 0.01     # beta
    outer_step: float = 1.0    # alpha_0

    def inner(self, round: int) -> Inner:
        return Inner(samples=self.samples, batch=1, passes=1, lr=self.inner_lr)

    def outer(self, state: State, updates: Updates) -> State:
        alpha = self.outer_step * (1 - state.round / self.rounds)
        return state.step(alpha * (updates.mean() - state.theta))
"""
    from dataclasses import dataclass

    names: dict[str, Any] = {"dataclass": dataclass, "Inner": Inner, "State": State, "Updates": Updates, "__name__": "page"}
    exec(printed, names)
    fleet = NativeFleet(TASK, NET, DEVICES)
    ours, theirs = (rounds(made, fleet).theta for made in (TinyReptile(ROUNDS), names["TinyReptile"](ROUNDS)))
    assert ours.tobytes() == theirs.tobytes()
    assert ours.tobytes() != START.tobytes()


@pytest.mark.parametrize(
    "wrong",
    [
        {"samples": 0}, {"batch": 0}, {"passes": 0}, {"samples": 1 << 32}, {"rate": -1.0}, {"rate": float("nan")},
        {"clip": float("inf")}, {"pull": -0.1}, {"pull": 2.0, "rate": 0.6}, {"layers": 0}, {"layers": ALL + 1},
        {"support": 4, "ways": 2}, {"support": 2, "ways": 3}, {"support": 2}, {"ways": 1}, {"support": 2, "ways": -1},
        {"samples": (1 << 32) - 1, "support": 1, "ways": 1},
    ],
)  # fmt: skip
def test_a_phase_that_no_device_can_run_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Phase(**{"samples": 4, "rate": 0.1, **wrong})


@pytest.mark.parametrize(
    ("phases", "more"),
    [
        ((), {}), ((Phase(1, 0.1),) * 5, {}), ((Phase(1, 0.1),), {"returns": "weights"}), ((Phase(1, 0.1),), {"local": ALL}),
        ((Phase(1, 0.1, passes=2),), {"returns": "gradient"}), ((Phase(1, 0.1),), {"samples": 1, "rate": 0.1}),
        ((), {"samples": 1}), ((), {"samples": 1, "rate": 0.1, "lr": 0.1}), ((Phase((1 << 32) - 1, 0.1),) * 2, {}),
    ],
)  # fmt: skip
def test_an_inner_loop_that_is_none_is_refused(phases: tuple[Phase, ...], more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Inner(*phases, **more)


def test_a_record_is_read_back_as_it_was() -> None:
    inner = Inner(
        Phase(3, 0.5, 2, 4, 0.25, 0.125, 5), Phase(7, 0.0, layers=2, support=3, ways=2), returns="gradient", local=4, kept=True
    )
    assert Inner.from_bytes(inner.to_bytes()) == inner
    for broken in (inner.to_bytes()[:-1], b"", inner.to_bytes() + bytes(40)):
        with pytest.raises(ValueError, match="no inner loop"):
            Inner.from_bytes(broken)
