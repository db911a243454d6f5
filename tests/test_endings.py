"""Everything can be ended: the command line by SIGINT and SIGTERM from every state, a library call by Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import tinyfl
from tinyfl import core
from tinyfl.algorithms import Inner, State
from tinyfl.cli import ending
from tinyfl.config import resolve
from tinyfl.errors import Interrupted
from tinyfl.fleets.assembly import Training
from tinyfl.flower import rounds as federation
from tinyfl.networks import network
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.evaluation import inner_loop
from tinyfl.runs.learner import learner_of
from tinyfl.simulation.rounds import here
from tinyfl.simulators import native
from tinyfl.system.interrupts import signals_deferred
from tinyfl.tasks.sine import Sine

TINY = {"task": "sine", "network": "mlp-2", "devices": 4, "cohort": 2, "rounds": 4, "tasks": 2, "adapt_lr": 0.01}

TRACED = ("_rounds", "_on_round", "_on_stretch", "_count", "_log_round", "_log_stretch", "_record", "_save")
"""What a round does in federation.py."""

# Minutes of another library's C, which lets other threads run and hears no signal.
DEAF = 'hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)'


@pytest.fixture(params=[(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def ended(request: pytest.FixtureRequest) -> Callable[..., tuple[int, int, str]]:
    """The exit code of a command line whose verbs do what ``script`` says, where ``end()`` is the signal; the code that is
    expected, and what it says."""

    def run(script: str, *words: str) -> tuple[int, int, str]:
        end, code = request.param
        program = f"""
import hashlib, os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from tinyfl import cli
from tinyfl.cli import ending
from tinyfl.system.interrupts import interrupt_message, signals_deferred
def end(): os.kill(os.getpid(), {int(end)})
{script}
cli.command()
"""
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=120)
        assert done.stdout == ""
        return done.returncode, code, done.stderr

    return run


def test_a_signal_while_the_verbs_are_loaded(ended: Any) -> None:
    found, code, said = ended(
        """
class Loading:
    def find_spec(name, *_):
        if name == "tinyfl.cli.learning":
            end()
sys.meta_path.insert(0, Loading)
""",
        *("push", "a run", "--all"),
    )
    assert (found, said) == (code, "tinyfl: stopped. Start it again with: tinyfl push 'a run' --all\n")


def test_a_signal_that_a_library_turns_into_an_error_of_its_own(ended: Any) -> None:
    found, code, said = ended("""
def main():
    with interrupt_message(lambda: "go on so"):
        try:
            end()
            time.sleep(60)
        except KeyboardInterrupt:
            raise ImportError("numpy's C extensions failed") from None
cli.main = main
""")
    assert (found, said) == (code, "tinyfl: go on so\n")


def test_an_error_that_is_its_own_cause_is_no_interrupt() -> None:
    error = ValueError()
    error.__cause__ = error
    assert not ending.interrupted(error)


@pytest.mark.parametrize(("grace", "signals"), [(0.1, 1), (600, 2)], ids=["after a while", "at a second signal"])
def test_work_that_does_not_hear_signals_is_cut_off(ended: Any, grace: float, signals: int) -> None:
    found, code, said = ended(f"""
ending.GRACE_SECONDS = {grace}
def main():
    with interrupt_message(lambda: "go on so"):
        for number in range({signals}):
            threading.Timer(0.2 + 0.5 * number, end).start()
        {DEAF}
cli.main = main
""")
    assert (found, said) == (code, "tinyfl: go on so\n")


def test_a_signal_that_was_held_back_is_one_signal(ended: Any) -> None:
    found, code, said = ended("""
ending.GRACE_SECONDS = 600
def main():
    try:
        with signals_deferred():
            end()
            time.sleep(0.1)
    finally:
        time.sleep(0.3)
        print("all put away", file=sys.stderr)
cli.main = main
""")
    assert (found, said) == (code, "all put away\ntinyfl: stopped. Start it again with: tinyfl\n")


def test_a_verb_that_ends_by_a_signal_has_done_its_work(ended: Any) -> None:
    found, _, said = ended("""
def main():
    try:
        end()
        time.sleep(60)
    except KeyboardInterrupt:
        pass
cli.main = main
""")
    assert (found, said) == (0, "")


def test_an_interrupt_comes_through_those_who_pass_over_errors(tmp_path: Path) -> None:
    """The sweep of a notebook."""
    done = []
    with pytest.raises(KeyboardInterrupt, match=f"Go on with: tinyfl run --resume {tmp_path / '0'}"):
        for seed in range(3):
            try:
                tinyfl.simulate(out=tmp_path / str(seed), seed=seed, progress=_interrupt, **TINY)
            except Exception:
                done.append(seed)
    assert done == []


def _interrupt(_: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
def test_a_handler_of_the_users_own_is_called_and_stays(tmp_path: Path) -> None:
    heard = []

    def mine(number: int, _: FrameType | None) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGINT, mine)
    try:
        run = tinyfl.simulate(out=tmp_path / "run", progress=_interrupt, **TINY)
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard and run.result["rounds"] == 4


def rounds(path: Path, cohort: int) -> tuple[bytes, RunDirectory]:
    """The theta of all rounds of a tiny run in the directory ``path``, new or resumed."""
    config, directory = resolve({**TINY, "cohort": cohort}), RunDirectory(path)
    learner = learner_of(config)
    path.mkdir(exist_ok=True)
    with here(config, Training(learner.task, learner.network, core.Engine(1, 1), 1.0), pytest.fail) as (grid, _):
        made = federation.Federation(directory, config, config.build(), grid, State(0, learner.start), None)
        return made.run().state.theta.tobytes(), directory


@pytest.mark.parametrize("cohort", [2, 1], ids=["round by round", "in stretches"])
def test_an_interrupt_at_any_line_of_a_round_leaves_a_run_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cohort: int
) -> None:
    monkeypatch.setattr(native, "MAX_STRETCH", 2)
    monkeypatch.setattr(federation, "CHECKPOINT_SECONDS", 0.0)
    lines = 0

    def interrupted(path: Path, at: int) -> tuple[bytes, RunDirectory]:
        """The rounds, with an interrupt before line number ``at`` of what a round does in federation.py."""
        nonlocal lines
        lines = 0

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal lines
            if frame.f_code.co_name not in TRACED:
                return None
            if event == "line" and frame.f_code.co_filename == federation.__file__:
                lines += 1
                if lines == at:
                    raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            return rounds(path, cohort)
        finally:
            sys.settrace(None)

    theta, whole = interrupted(tmp_path / "whole", 0)
    assert lines > 50
    for at in range(1, lines + 1, 5):
        with pytest.raises(Interrupted, match=r"stopped after round \d of 4"):
            interrupted(tmp_path / str(at), at)
        again, ours = rounds(tmp_path / str(at), cohort)
        assert again == theta
        assert ours.metrics() == whole.metrics()
        assert [json.loads(line)["round"] for line in (ours.path / "rounds.jsonl").open()] == [1, 2, 3, 4]


TASK = Sine(1)
NET = network("mlp-4", (1,), 1, TASK.loss, TASK.activation)


def endless(stop: core.Stop | None = None) -> core.Trained:
    """A round of hours."""
    return core.train(
        NET.plan,
        NET.initial_weights(0),
        core.SineSource(1),
        np.arange(64, dtype=np.uint32),
        0,
        Inner(samples=(1 << 31) - 1, rate=0.001).to_bytes(),
        stop=stop,
    )


def hard(_: core.Stop | None = None) -> core.Adapted:
    """As much of adaptation."""
    table = np.zeros((1, 1), np.float32)
    source = core.TableSource(table, np.zeros((64, 1000), np.int32), targets=table)
    return core.adapt(NET.plan, NET.initial_weights(0), source, source, [1 << 31], inner_loop("stream", 1000, 1 << 31, 0.0))


@pytest.mark.parametrize("work", [endless, hard])
def test_a_call_of_the_core_is_ended_by_an_interrupt(work: Callable[[], object]) -> None:
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        work()
    timer.join()


def test_a_round_in_a_thread_is_ended_by_whoever_closes_the_fleet(tmp_path: Path) -> None:
    stop, ends = core.Stop(), []

    def work() -> None:
        try:
            endless(stop)
        except Interrupted as error:
            ends.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    stop.set()
    thread.join(60)
    assert len(ends) == 1


def test_an_interrupt_waits_for_steps_that_belong_together() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), signals_deferred():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("both")
    assert done == ["both"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
