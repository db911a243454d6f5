"""What a gateway's simulated devices keep is on the gateway's disk, and in no message."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fleet_of_24 import COHORT, FLEET, RUN_CONFIG, SIZE, THETA
from flwr.app import MessageType, RecordDict

from tinyfl.algorithms import Inner, Phase
from tinyfl.config.roster import Part
from tinyfl.deployment.gateway import Gateway
from tinyfl.fleet import Context, draw_cohort
from tinyfl.fleets.assembly import opened
from tinyfl.flower.allowed import read_allowed
from tinyfl.flower.messages import instructions, theta_record
from tinyfl.simulators.native import NativeFleet

HEAD = FLEET.network.weighted_layers[-1]
INNER = Inner(Phase(3, 0.05, layers=HEAD.bit), Phase(5, 0.05), local=HEAD.bit, kept=True)
DEVICES, SEED, RUN = range(8, 16), 1, 77


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as each:
        yield each


def gateway_of(stack: ExitStack) -> Gateway:
    site = stack.enter_context(opened([Part(native=3), Part(native=5)], DEVICES.start))
    return stack.enter_context(closing(Gateway("lab", site, read_allowed(), tell=lambda _: None)))


def asked(gateway: Gateway, round: int) -> Any:
    told = instructions(INNER, cohort=COHORT, fleet_size=SIZE, seed=SEED, round=round, exact=True)
    told["run"], told["saved"] = RUN, round
    content = RecordDict({"arrays": theta_record(THETA), "config": told})
    return gateway(MessageType.TRAIN, content, RUN_CONFIG)


def expected(rounds: int) -> tuple[np.ndarray, dict[int, int]]:
    """The sum of the last of some rounds on one fleet that was never interrupted, and what its devices started from."""
    fleet = NativeFleet(FLEET.task, FLEET.network, SIZE)
    for round in range(rounds):
        cohort = draw_cohort(SEED, round, COHORT, SIZE)
        here = cohort[(cohort >= DEVICES.start) & (cohort < DEVICES.stop)]
        updates = fleet.run(here, round, THETA, INNER, Context(RUN, round))
    return updates.sum, dict(updates.kept_from)


def said(reply: Any) -> tuple[np.ndarray, dict[int, int]]:
    kept = reply["kept"]
    return np.frombuffer(reply["arrays"]["sum"].data, "<i8"), dict(zip(kept["devices"], kept["rounds"], strict=True))


def test_a_gateway_that_starts_again_goes_on_with_what_its_devices_have_kept(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = gateway_of(stack)
    for round in range(5):
        reply = asked(first, round)
    (ours, ours_from), (theirs, theirs_from) = said(reply), expected(5)
    np.testing.assert_array_equal(ours, theirs)
    assert ours_from == theirs_from
    assert any(ours_from.values())

    (ours, ours_from), (theirs, theirs_from) = said(asked(gateway_of(stack), 5)), expected(6)
    np.testing.assert_array_equal(ours, theirs)
    assert ours_from == theirs_from

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new disk"))
    assert not any(said(asked(gateway_of(stack), 6))[1].values())
    assert any(expected(7)[1].values())


def test_no_message_has_anything_of_the_head(stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    gateway = gateway_of(stack)
    for round in range(3):
        total, _ = said(asked(gateway, round))
        assert not total[HEAD.weights].any()
        assert total[: HEAD.weights.start].all()
    for file in (tmp_path / "tinyfl" / "gateways").rglob("kept-*"):
        assert file.stat().st_mode & 0o077 == 0
