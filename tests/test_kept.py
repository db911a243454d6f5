"""What devices keep from round to round survives as the run does: killed and resumed, it ends with the same theta; and what is
lost is logged."""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from own import write_own

import tinyfl
from tinyfl.errors import ConfigError, RunError
from tinyfl.fleet import Context
from tinyfl.fleets import emulation
from tinyfl.report.page import rebuild
from tinyfl.runs.adaptation import Initialisation
from tinyfl.runs.directory import RunDirectory
from tinyfl.simulators.native.kept import Kept, checksum

SAID: dict[str, Any] = {"task": "sine", "algorithm": "head:LocalHead", "cohort": 2, "tasks": 20, "adapt_lr": 0.01}
WORDS = ["own.toml", *(f"--{key.replace('_', '-')}={value}" for key, value in SAID.items()), "--lanes=1", "--threads=1"]
RESUME = ["--algorithm=head:LocalHead", "--lanes=1", "--threads=1"]
CHECKPOINT_SECONDS = 0.02


@pytest.fixture(autouse=True)
def own_files(tmp_path: Path, figureless: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_own(tmp_path)
    sys.modules.pop("head", None)


def configure(*fleet: str, rounds: int) -> None:
    parts = "".join(f"\n[[fleet]]\n{part}\n" for part in fleet)
    Path("own.toml").write_text(
        f'network = "mlp-8"\nrounds = {rounds}\nshots = [5]\n[algorithm]\nname = "head:LocalHead"\nkept = true\n{parts}'
    )


def started(*words: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "TINYFL_CHECKPOINT_SECONDS": str(CHECKPOINT_SECONDS)}
    command = [sys.executable, "-P", "-m", "tinyfl.cli", "run", "--json", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def theta_here(out: str) -> str:
    run = tinyfl.simulate(config="own.toml", out=out, page=False, **SAID)
    return str(run.result["theta_sha256"])


def theta_of(*words: str) -> str:
    """The same in a process of its own."""
    process = started(*words)
    said, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return str(json.loads(said)["theta_sha256"])


def resets(out: str) -> list[dict[str, Any]]:
    path = Path(out) / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [event for event in map(json.loads, lines) if event["what"] == "reset"]


def killed(out: str, rounds: int, *words: str, after: float = 0.0) -> None:
    """Starts the run, or goes on with it by ``words``, and kills it so many seconds after its checkpoint has so many rounds."""
    process = started(*(words or (*WORDS, "--out", out)))
    while process.poll() is None:
        checkpoint = RunDirectory(Path(out)).checkpoint() if (Path(out) / "config.toml").exists() else None
        if checkpoint and checkpoint.state.round >= rounds:
            break
        time.sleep(0.01)
    time.sleep(after)
    process.kill()
    process.communicate()
    checkpoint = RunDirectory(Path(out)).checkpoint()
    assert checkpoint is not None
    assert checkpoint.kept_rounds is not None
    assert checkpoint.state.round < RunDirectory(Path(out)).config().rounds


@pytest.mark.slow
def test_simulated_devices_killed_again_and_again_end_with_the_same_theta() -> None:
    configure("native = 30", rounds=500)
    whole = theta_of(*WORDS, "--out", "whole")
    chance = random.Random(3)
    killed("killed", 5, after=CHECKPOINT_SECONDS * chance.random())
    for rounds in (100, 200):
        killed("killed", rounds, "--resume", "killed", *RESUME, after=CHECKPOINT_SECONDS * chance.random())
    assert theta_of("--resume", "killed", *RESUME) == whole
    assert not resets("killed")


@pytest.mark.slow
def test_what_is_kept_decides_theta_and_is_not_that_of_another_run() -> None:
    configure("native = 4", rounds=40)
    fresh, again = theta_here("fresh"), theta_here("again")
    assert fresh == again
    Path("own.toml").write_text(Path("own.toml").read_text().replace("kept = true", "kept = false"))
    assert theta_here("forgetful") != fresh


@pytest.fixture
def boards_of_their_own() -> Iterator[list[str]]:
    """Two emulated boards that outlive the coordinator, and their addresses."""
    with ExitStack() as stack:
        yield [served.url for served in stack.enter_context(emulation.emulate("posix", 2, link="tcp"))]


@pytest.mark.slow
def test_boards_that_outlive_the_coordinator_go_back_to_its_checkpoint(boards_of_their_own: list[str]) -> None:
    configure("native = 2", f"ports = {json.dumps(boards_of_their_own)}", rounds=100)
    whole = theta_of(*WORDS, "--out", "whole")
    killed("killed", 20)
    assert theta_of("--resume", "killed", *RESUME) == whole
    assert not resets("killed")


@pytest.mark.usefixtures("built_before")
def test_emulated_boards_that_end_with_the_coordinator_start_from_theta_and_it_is_logged() -> None:
    configure("native = 2", 'board = "posix"\ncount = 2', rounds=100)
    killed("killed", 20)
    theta_of("--resume", "killed", *RESUME)
    assert {event["device"] for event in resets("killed")} == {2, 3}
    assert "it started without it, so theta is not repeatable" in resets("killed")[0]["detail"]


@pytest.mark.usefixtures("built_before")
def test_one_board_that_restarts_starts_from_theta_and_it_is_logged() -> None:
    Path("faults.toml").write_text('[[fault]]\nboard = 1\ndirection = "to-board"\nframe = 40\nkind = "reset"\n')
    configure('board = "mps2-an386"\ncount = 3\nfaults = "faults.toml"', rounds=12)
    theta_of(*WORDS, "--cohort", "3", "--out", "run")
    assert [event["device"] for event in resets("run")] == [1]


def test_a_file_for_all_devices_must_fit_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(RunError, match="its disk has 1,000"):
        Kept.opened(Context(1, 0), 1, 0, 100, 25, Path("kept"))


FLOATS, SIZE = 3, 4


class Rounds(RuleBasedStateMachine):
    """Rounds of a run that is killed at any moment and resumed, against a list of all blocks. A resumed run repeats its rounds
    with the same cohorts."""

    @initialize()
    def begin(self) -> None:
        self.file = Path(tempfile.mkdtemp(dir=".")) / "kept"
        self.round = self.checkpoint = 0
        self.cohorts: list[list[int]] = []
        self.open()

    def open(self) -> None:
        self.kept = Kept.opened(Context(7, 0), 1, 10, SIZE, FLOATS, self.file)

    def learn(self, stored: int) -> None:
        """A round, in which the first ``stored`` devices come to store their block."""
        devices = np.array(self.cohorts[self.round], np.uint32) + np.uint32(10)
        own, rounds = self.kept.load(devices, self.round, Context(7, self.checkpoint))
        expected = [
            max((number for number in range(1, self.round + 1) if device in self.cohorts[number - 1]), default=0)
            for device in self.cohorts[self.round]
        ]
        assert rounds.tolist() == expected
        for device, block, number in zip(devices.tolist(), own, expected, strict=True):
            assert np.array_equal(block, block_of(device, number), equal_nan=True)
        blocks = np.array([block_of(device, self.round + 1) for device in devices.tolist()])
        self.kept.store(devices[:stored], self.round, blocks[:stored])

    def meet(self, cohort: set[int]) -> None:
        if self.round == len(self.cohorts):
            self.cohorts.append(sorted(cohort))

    @rule(cohort=st.sets(st.integers(0, SIZE - 1), min_size=1))
    def a_round(self, cohort: set[int]) -> None:
        self.meet(cohort)
        self.learn(SIZE)
        self.round += 1

    @rule()
    def a_checkpoint(self) -> None:
        self.checkpoint = self.round

    @rule(cohort=st.sets(st.integers(0, SIZE - 1), min_size=1), stored=st.integers(0, SIZE))
    def a_kill_in_the_middle_of_a_round(self, cohort: set[int], stored: int) -> None:
        self.meet(cohort)
        self.learn(stored)
        self.round = self.checkpoint
        self.open()


def block_of(device: int, number: int) -> np.ndarray:
    """What a device keeps after a round, counted from 1."""
    return np.full(FLOATS, np.nan, np.float32) if number == 0 else np.arange(FLOATS, dtype=np.float32) + 100 * number + device


Rounds.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestRounds = pytest.mark.slow(Rounds.TestCase)


@pytest.mark.parametrize("torn", ["rounds", "sums", "blocks"])
def test_a_block_that_is_half_written_counts_as_none(torn: str) -> None:
    kept = Kept.opened(Context(7, 0), 1, 0, 1, FLOATS, Path("kept"))
    one = np.zeros(1, np.uint32)
    first, second = np.ones((1, FLOATS), np.float32), np.full((1, FLOATS), 2, np.float32)
    kept.store(one, 0, first)
    kept.load(one, 1, Context(7, 1))  # the block becomes the copy
    kept.store(one, 1, second)
    array = getattr(kept, torn)
    array[0, 0] = array[0, 0] + 1
    own, rounds = kept.load(one, 5, Context(7, 1))
    assert (own.tolist(), rounds.tolist()) == (first.tolist(), [1])


def test_the_checksum_sees_every_bit_and_every_place() -> None:
    rng = np.random.default_rng(0)
    block = rng.normal(size=(1, 25)).astype(np.float32)
    one, plain = np.ones(1, np.uint32), checksum(np.ones(1, np.uint32), block)
    for place in range(25):
        for bit in range(32):
            other = block.copy()
            other.view(np.uint32)[0, place] ^= np.uint32(1) << np.uint32(bit)
            assert checksum(one, other) != plain
    assert checksum(one, block[:, ::-1]) != plain
    assert checksum(one + np.uint32(1), block) != plain


@pytest.mark.slow
def test_a_run_that_was_killed_before_its_first_checkpoint_starts_anew() -> None:
    configure("native = 4", rounds=40)
    whole = theta_here("whole")
    Path("broken/checkpoint").mkdir(parents=True)
    Path("broken/config.toml").write_bytes(Path("whole/config.toml").read_bytes())
    Path("broken/checkpoint/kept-0").write_bytes(Path("whole/checkpoint/kept-0").read_bytes())
    assert theta_of("--resume", "broken", *RESUME) == whole


@pytest.mark.slow
def test_a_new_device_adapts_as_the_runs_own_algorithm_says_once_it_is_given_again() -> None:
    configure("native = 4", rounds=40)
    theta_here("run")
    x = np.linspace(-5, 5, 20, dtype=np.float32)[:, None]
    np.savez("new.npz", x=x, y=np.sin(x))
    with pytest.raises(ConfigError, match="give it yourself: --algorithm head:LocalHead"):
        tinyfl.adapt("run", "new.npz", out="adapted.npz")
    assert not Path("adapted.npz").exists()
    tinyfl.adapt("run", "new.npz", out="adapted.npz", algorithm="head:LocalHead")
    before, after = (Initialisation.load(Path(path)) for path in ("run", "adapted.npz"))
    moved, head = before.theta != after.theta, before.network.weighted_layers[-1].weights
    assert moved[head].all()
    assert not moved[: head.start].any()
    with pytest.raises(ConfigError, match="head:LocalHead"):  # what was adapted goes on the same way
        tinyfl.adapt("adapted.npz", "new.npz")
    tinyfl.adapt("adapted.npz", "new.npz", algorithm="head:LocalHead")
    assert "give it yourself" in rebuild(Path("run")).read_text()
