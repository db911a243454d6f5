"""Runs survive: whatever kills one, the resumed run ends with the theta of a run that was never interrupted."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

import tinyfl
from tinyfl.config import Config, resolve
from tinyfl.errors import ConfigError, InstallError, Interrupted, RunError, TrainingError
from tinyfl.runs.directory import RunDirectory
from tinyfl.system.files import write_whole

SMALL = {"task": "sine", "network": "mlp-16-16", "rounds": 400, "cohort": 20, "devices": 100, "tasks": 20}
pytestmark = pytest.mark.usefixtures("figureless")
OPTIONS = [word for key, value in SMALL.items() for word in (f"--{key}", str(value))]


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "tinyfl.cli", "simulate", "--json", *map(str, words)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return tinyfl.simulate(out=tmp_path_factory.mktemp("run") / "whole", **SMALL).result


@pytest.mark.slow
def test_one_seed_one_theta_whatever_the_machine_does(uninterrupted: dict[str, object], tmp_path: Path) -> None:
    for number, (threads, lanes, nodes) in enumerate([(1, 1, "1"), (2, 4, "4"), (1, 0, "devices")]):
        run = tinyfl.simulate(out=tmp_path / str(number), threads=threads, lanes=lanes, **{**SMALL, "nodes": nodes})
        assert run.result["theta_sha256"] == uninterrupted["theta_sha256"]


def written(run: Path) -> int:
    """When the run's checkpoint was last written; 0: never."""
    path = run / "checkpoint" / "state.npz"
    return path.stat().st_mtime_ns if path.exists() else 0


@pytest.mark.slow
def test_kill_9_at_any_moment_and_resume_gives_the_same_theta(uninterrupted: dict[str, object], tmp_path: Path) -> None:
    out = tmp_path / "killed"
    # One lane and one thread are slow enough to be caught in the middle; checkpoints come every 20 ms.
    environment = {**os.environ, "TINYFL_CHECKPOINT_SECONDS": "0.02"}
    words: list[str | Path] = [*OPTIONS, "--threads", "1", "--lanes", "1", "--out", out]
    chance = random.Random(4)
    kills, caught = 0, set()
    for attempt in range(6):
        before = written(out)
        process = subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
        while attempt % 2 == 0 and process.poll() is None and written(out) == before:
            time.sleep(0.001)  # every other time until the rounds are under way, however slow this machine is
        time.sleep(chance.random() * (0.05 if attempt % 2 == 0 else 1.2))
        if process.poll() is None:
            kills += 1
            process.kill()
        process.communicate()
        checkpoint = RunDirectory(out).checkpoint()
        caught.add(checkpoint.state.round if checkpoint else 0)
        if (out / "config.toml").exists():
            words = ["--resume", out, "--threads", "1", "--lanes", "1"]
    assert kills >= 3
    assert any(0 < round < SMALL["rounds"] for round in caught)  # type: ignore[operator]
    done = subprocess.run(command(*words), capture_output=True, check=True, env=environment)
    assert json.loads(done.stdout)["theta_sha256"] == uninterrupted["theta_sha256"]
    assert RunDirectory(out).metrics() == RunDirectory(Path(str(uninterrupted["run"]))).metrics()


def test_ctrl_c_stops_after_a_round_and_says_how_to_go_on(uninterrupted: dict[str, object], tmp_path: Path) -> None:
    def interrupt(progress: object) -> None:
        if progress.stage == "learning" and progress.done > 100:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGINT)

    out = tmp_path / "stopped"
    with pytest.raises(Interrupted, match=f"tinyfl run --resume {out}"):
        tinyfl.simulate(out=out, progress=interrupt, **SMALL)
    assert tinyfl.simulate(resume=out).result["theta_sha256"] == uninterrupted["theta_sha256"]


def test_a_run_works_in_a_thread_of_its_callers(uninterrupted: dict[str, object], tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        run = pool.submit(tinyfl.simulate, out=tmp_path / "run", **SMALL).result()
    assert run.result["theta_sha256"] == uninterrupted["theta_sha256"]


@pytest.mark.slow
def test_a_resume_that_repeats_what_the_run_was_started_with_goes_on(tmp_path: Path, own_data: Path) -> None:
    settings = {"task": "npz", "data": str(own_data), "network": "mlp-4", "rounds": 5, "tasks": 20, "shots": (8, 5)}
    first = tinyfl.simulate(out=tmp_path / "run", **settings).result
    relative = os.path.relpath(own_data)
    again = tinyfl.simulate(resume=tmp_path / "run", **{**settings, "data": relative, "shots": (5, 8)}).result
    assert again["theta_sha256"] == first["theta_sha256"]
    with pytest.raises(ConfigError, match="leave --out out"):
        tinyfl.simulate(resume=tmp_path / "run", out=tmp_path / "other")


@pytest.mark.parametrize("content", ["[1]", '{"evaluation": []}', "{", "\x00"])
def test_a_damaged_result_or_metrics_file_says_so(tmp_path: Path, content: str) -> None:
    directory = RunDirectory(tmp_path)
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(RunError, match="damaged"):
        directory.result()
    (tmp_path / "metrics.jsonl").write_text("7\n")
    with pytest.raises(RunError, match="damaged"):
        directory.metrics()


def test_a_config_file_of_another_algorithm_lends_only_what_both_have(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(resolve({"algorithm": "reptile", "seed": 7, "batch": 5}).to_toml())
    config = resolve({"algorithm": "tinyreptile"}, path)
    assert (config.seed, config.batch) == (7, 1)
    assert config.rate == resolve({}).rate


@pytest.mark.slow
def test_a_finished_run_resumed_is_evaluated_again_to_the_same_figures(tmp_path: Path) -> None:
    settings = {**SMALL, "rounds": 20}
    first = tinyfl.simulate(out=tmp_path / "a", **settings).result
    again = tinyfl.simulate(resume=tmp_path / "a").result
    assert again["evaluation"] == first["evaluation"]


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    held = RunDirectory(tmp_path / "held")
    with held.locked():
        refused = subprocess.run(command(*OPTIONS, "--out", held.path), capture_output=True, text=True)
    assert refused.returncode == RunError.exit_code
    assert f"process {os.getpid()}" in refused.stderr


def test_a_directory_that_holds_a_run_is_refused_and_untouched(tmp_path: Path) -> None:
    tinyfl.simulate(out=tmp_path, **{**SMALL, "rounds": 5})
    before = (tmp_path / "initialisation.npz").read_bytes()
    with pytest.raises(RunError, match="--resume"):
        tinyfl.simulate(out=tmp_path, **{**SMALL, "rounds": 5})
    assert (tmp_path / "initialisation.npz").read_bytes() == before


def test_a_directory_whose_run_was_refused_before_its_first_round_is_taken_again(tmp_path: Path) -> None:
    def refuses(*_: object) -> AbstractContextManager[object]:
        raise InstallError("no emulator")

    data = {
        "x": np.arange(60.0)[:, None],
        "y": np.sqrt(np.arange(60.0)),
        "device": np.arange(60) // 6,
        "split": np.array([8, 9]),
        "validation": np.array([7]),
    }
    options = {"task": "npz", "data": data, "network": "mlp-2", "rounds": 2, "shots": 1, "tasks": 2}
    with pytest.raises(InstallError):
        tinyfl.simulate(out=tmp_path / "run", over=refuses, **options)  # type: ignore[arg-type]
    tinyfl.simulate(out=tmp_path / "run", **options)
    with pytest.raises(RunError, match="already holds a run"):
        tinyfl.simulate(out=tmp_path / "run", **options)


def test_a_resume_with_another_config_is_refused(tmp_path: Path) -> None:
    tinyfl.simulate(out=tmp_path, **{**SMALL, "rounds": 5})
    with pytest.raises(RunError, match="cannot be resumed with 7"):
        tinyfl.simulate(resume=tmp_path, seed=7)
    config = tmp_path / "config.toml"
    config.write_text(config.read_text().replace("rounds = 5", "rounds = 7"))
    with pytest.raises(RunError, match=r"config\.toml was changed"):
        tinyfl.simulate(resume=tmp_path)


@pytest.mark.slow
def test_a_resume_on_changed_data_is_refused(tmp_path: Path, own_data: Path) -> None:
    import numpy as np

    tinyfl.simulate(out=tmp_path / "run", task="npz", data=str(own_data), rounds=5, tasks=20, shots=(5,))
    arrays = dict(np.load(own_data))
    arrays["x"][0, 0] += 1
    np.savez(own_data, **arrays)
    with pytest.raises(RunError, match="was changed since"):
        tinyfl.simulate(resume=tmp_path / "run")


def test_a_resume_where_there_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        tinyfl.simulate(resume=tmp_path)


def test_a_damaged_checkpoint_is_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    tinyfl.simulate(out=tmp_path, **{**SMALL, "rounds": 5})
    checkpoint = tmp_path / "checkpoint" / "state.npz"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(RunError, match="damaged"):
        tinyfl.simulate(resume=tmp_path)


def test_a_run_whose_every_update_fails_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"smaller --rate than 100000 and another --out\."):
        tinyfl.simulate(out=tmp_path, **{**SMALL, "rounds": 5, "rate": 1e5})


def test_writing_whole_never_leaves_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def cut(*_: object) -> None:
        raise OSError("power is gone")

    monkeypatch.setattr(os, "fsync", cut)
    with pytest.raises(RunError, match="power"):
        write_whole(path, b"new and longer")
    assert path.read_bytes() == b"old"


def test_a_config_file_gives_back_the_config(tmp_path: Path) -> None:
    config = resolve({"task": "sine", "shots": (5, 10), "clip": 2})
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml())
    assert resolve({}, path) == config
    assert resolve({"seed": 9}, path) == Config(**{**config.__dict__, "seed": 9})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"task": "nonsense"}, "There are digits"),
        ({"algorithm": "nonsense"}, "There are tinyreptile"),
        ({"rounds": 0}, "rounds is 0"),
        ({"rate": -1.0}, "rate is -1"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"cohort": "many"}, "cohort is 'many'"),
        ({"shots": (0,)}, "shots is"),
        ({"nodes": "none"}, "--nodes devices"),
        ({"nonsense": 1}, "no setting is called"),
        ({"batch": 4}, "tinyreptile has no --batch"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve(options)


def test_a_malformed_config_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("rounds = = 3")
    with pytest.raises(ConfigError, match="TOML"):
        resolve({}, path)
    with pytest.raises(ConfigError, match="No such file"):
        resolve({}, tmp_path / "absent.toml")


def test_a_file_that_two_processes_write_at_once_is_always_one_of_theirs(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write = "import sys; from pathlib import Path; from tinyfl.system.files import write_whole\n"
    write += "for _ in range(40): write_whole(Path(sys.argv[1]), sys.argv[2].encode() * 100_000)"
    writers = [subprocess.Popen([sys.executable, "-c", write, str(path), letter], stderr=subprocess.PIPE) for letter in "ab"]
    while any(writer.poll() is None for writer in writers):
        time.sleep(0.002)
        if path.exists():
            found = path.read_bytes()
            assert found in (b"a" * 100_000, b"b" * 100_000)
    assert [writer.returncode for writer in writers] == [0, 0], [writer.stderr.read()[-500:] for writer in writers]
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
