"""The command line, end to end: one JSON object on stdout, all else on stderr, a documented exit code for each failure."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyfl as package
from tinyfl import cli, errors
from tinyfl.config import resolve
from tinyfl.flower import rounds

HEAVY = ("numpy", "scipy", "sklearn", "matplotlib", "flwr", "tensorflow")
SMALL = ["--task", "sine", "--network", "mlp-8", "--devices", "50", "--cohort", "5", "--rounds", "20", "--tasks", "20"]
RESULT_KEYS = {
    "task", "algorithm", "network", "parameters", "devices", "cohort", "rounds", "device_rounds", "device_rounds_per_s", "seed",
    "bytes_down", "bytes_up", "device_ram_bytes", "theta_sha256", "evaluation", "baseline",
}  # fmt: skip

ON_BOARDS = ["--task", "sine", "--network", "mlp-8", "--rounds", "3", "--tasks", "20"]
NOBODY = "socket://127.0.0.1:1"
"""A port behind which there is no board."""
ROW_KEYS = {
    "mode",
    "shots",
    "steps",
    "adapt_lr",
    "loss",
    "loss_ci95",
    "accuracy",
    "accuracy_ci95",
    "tasks",
    "mae",
    "mae_ci95",
    "r2",
}


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """stdout as exactly one strict JSON object."""
        return strict(self.out)


def strict(text: str) -> dict[str, Any]:
    """``text`` as one JSON object, by the standard: no NaN and no Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    value = json.loads(text, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


Command = Callable[..., Said]


def runner(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    def run(*words: str | Path) -> Said:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["tinyfl", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        code = left.value.code
        assert isinstance(code, int)
        said = capfd.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.fixture
def whole_tinyfl(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Runs a command as the console script does, in this process and an empty directory."""
    monkeypatch.chdir(tmp_path)
    return runner(monkeypatch, capfd)


@pytest.fixture
def tinyfl(whole_tinyfl: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The same without a run's page, whose figures take longer than these runs."""
    monkeypatch.setattr("tinyfl.report.page.write_report", lambda *_: None)
    return whole_tinyfl


@pytest.fixture
def host_compiler(firmware_cache: None) -> None:
    """Skips without what builds the board posix."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler (cc): apt-get install gcc libc6-dev")


@pytest.fixture
def built(firmware_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for firmware, shared so that little is compiled twice. Skips without what builds firmware, and measures it."""
    for module, name in {"ziglang": "ziglang", "elftools": "pyelftools"}.items():
        if find_spec(module) is None:
            pytest.skip(f"needs {name}: pip install 'tinyfl[firmware]'")
    return tmp_path_factory.getbasetemp() / "firmware" / "test_cli"


@pytest.fixture
def on_port(host_compiler: None) -> Iterator[str]:
    """The url of a board."""
    from tinyfl.fleets.emulation import emulate

    with emulate("posix", link="tcp") as (board,):
        yield board.url


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a user's data."""
    folder = tmp_path_factory.mktemp("learnt")
    rng = np.random.default_rng(1)
    device, y = np.repeat(np.arange(12), 30), np.tile(np.arange(3), 120)
    x = np.eye(3, 4)[y] * 2 + rng.normal(0, 0.5, (360, 4)) + rng.normal(0, 1, (12, 4))[device]
    np.savez(folder / "own.npz", x=x, y=y, device=device)
    package.simulate(task="npz", data=str(folder / "own.npz"), rounds=150, tasks=60, shots=5, out=folder / "run")
    return folder / "run"


def new_device(path: Path, **change: Any) -> Path:
    """The samples of a device that the fleet has not seen, in the units of ``own_data``."""
    rng = np.random.default_rng(9)
    y = np.arange(60) % 3
    x = np.eye(3, 4)[y] * 2 + rng.normal(0, 0.5, (60, 4)) + np.array([1.5, -1.0, 0.5, 0.0])
    np.savez(path, **{"x": x, "y": y, **change})
    return path


def fresh(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "tinyfl.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=300)


@pytest.mark.slow
def test_a_whole_run_prints_one_json_object_shows_progress_on_stderr_and_needs_no_tensorflow(tmp_path: Path) -> None:
    done = fresh("simulate", *SMALL, "--json", "--out", tmp_path / "run", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    result = strict(done.stdout)
    assert done.stdout.count("\n") == 1
    assert set(result) >= RESULT_KEYS
    assert "evaluating" in done.stderr
    assert result == strict((tmp_path / "run" / "result.json").read_text())
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "flwr" in imported
    assert not imported & {"tensorflow", "torch", "jax", "ray"}


def test_the_result_says_what_was_asked_for_and_what_it_cost(tinyfl: Command) -> None:
    result = tinyfl("simulate", *SMALL, "--seed", "3", "--shots", "4", "--shots", "8", "--json").json
    told = ("task", "network", "devices", "cohort", "rounds", "seed", "parameters", "device_rounds")
    assert [result[key] for key in told] == ["sine", "mlp-8-tanh", 50, 5, 20, 3, 25, 100]
    assert result["bytes_down"] == result["bytes_up"] == 100 * 4 * 25
    assert result["device_ram_bytes"] > 4 * 25
    assert result["device_rounds_per_s"] > 0
    assert re.fullmatch("[0-9a-f]{64}", result["theta_sha256"])
    for rows in (result["evaluation"], result["baseline"]):
        assert {(row["mode"], row["shots"]) for row in rows} == {(m, s) for m in ("batch", "stream") for s in (4, 8)}
        for row in rows:
            assert set(row) == ROW_KEYS
            assert row["tasks"] == 20
            assert row["accuracy"] is row["accuracy_ci95"] is None  # regression has none
            assert row["adapt_lr"] > 0


def test_classification_has_accuracies_and_a_floor(tinyfl: Command) -> None:
    words = ["--network", "mlp-4", "--devices", "20", "--rounds", "5", "--tasks", "20", "--shots", "1"]
    result = tinyfl("simulate", *words, "--json").json
    assert result["task"] == "digits"
    assert all(0 <= row["accuracy"] <= 1 and row["accuracy_ci95"] > 0 for row in result["evaluation"] + result["floor"])


@pytest.mark.parametrize("words", [["simulate", "--shots", "1,5"], ["evaluate", "runs/any", "--shots", "1,5"]])
def test_several_numbers_in_one_option_are_told_apart(tinyfl: Command, words: list[str]) -> None:
    said = tinyfl(*words)
    found = " ".join(said.err.replace("│", " ").split())
    assert said.code == 2 and "For several numbers repeat the option: --shots 1 --shots 5." in found


def test_json_stays_json_where_devices_diverge(tinyfl: Command) -> None:
    words = [word if word != "mlp-8" else "mlp-8-relu" for word in SMALL]
    result = tinyfl("simulate", *words, "--adapt-lr", "0.6", "--json").json
    assert None in {row["loss"] for row in result["evaluation"]}


def test_json_stays_json_with_a_single_held_out_device(tinyfl: Command, own_data: Path) -> None:
    arrays = dict(np.load(own_data))
    np.savez("one.npz", **{**arrays, "split": [3]})
    words = ["--task", "npz", "--data", "one.npz", "--rounds", "5", "--tasks", "20", "--shots", "5"]
    result = tinyfl("simulate", *words, "--json", "--out", "one").json
    assert {row["accuracy_ci95"] for row in result["evaluation"]} == {None}
    strict(Path("one/result.json").read_text())
    assert tinyfl("simulate", *words).code == 0  # and as a table


def test_a_config_file_and_the_same_options_are_one_run(tinyfl: Command) -> None:
    by_options = tinyfl("simulate", *SMALL, "--json", "--out", "a").json
    assert Path("a/config.toml").is_file()
    by_file = tinyfl("simulate", "a/config.toml", "--json", "--out", "b").json
    Path("short.toml").write_text(
        'task = "sine"\nnetwork = "mlp-8"\ndevices = 50\ncohort = 5\nrounds = 20\ntasks = 20\nshots = 10\n'
    )
    by_hand = tinyfl("simulate", "short.toml", "--json", "--out", "c").json
    for key in ("theta_sha256", "config_sha256", "evaluation", "baseline"):
        assert by_options[key] == by_file[key] == by_hand[key]


def test_options_go_before_the_config_file(tinyfl: Command) -> None:
    Path("short.toml").write_text('task = "sine"\nnetwork = "mlp-8"\nrounds = 9\ntasks = 20\nseed = 4\n')
    result = tinyfl("simulate", "short.toml", "--rounds", "7", "--json").json
    assert (result["rounds"], result["seed"], result["network"]) == (7, 4, "mlp-8-tanh")


def test_a_bare_simulate_is_a_thousand_devices_on_real_digits() -> None:
    config = resolve({})
    assert (config.task, config.algorithm, config.devices, config.data) == ("digits", "tinyreptile", 1000, "")


@pytest.mark.parametrize("algorithm", ["tinyreptile", "reptile", "fedavg", "joint"])
def test_the_defaults_of_every_algorithm_fit_a_small_fleet(tinyfl: Command, own_data: Path, algorithm: str) -> None:
    words = ["--task", "npz", "--data", own_data, "--algorithm", algorithm, "--rounds", "5", "--tasks", "20", "--shots", "5"]
    assert tinyfl("simulate", *words).code == 0


def test_a_run_refused_before_its_first_round_leaves_its_directory_free(tinyfl: Command) -> None:
    assert tinyfl("simulate", *SMALL, "--nodes", "51", "--out", "run").code == errors.ConfigError.exit_code
    assert tinyfl("simulate", *SMALL, "--out", "run").code == 0


def test_runs_without_a_name_each_get_a_free_directory(tinyfl: Command) -> None:
    runs = [tinyfl("simulate", *SMALL, "--json").json["run"] for _ in range(2)]
    assert runs == ["runs/sine-tinyreptile-0", "runs/sine-tinyreptile-0-2"]


def test_threads_lanes_and_nodes_change_no_result(tinyfl: Command) -> None:
    hashes = {
        tinyfl("simulate", *SMALL, *words, "--json").json["theta_sha256"]
        for words in ([], ["--threads", "1", "--lanes", "1"], ["--nodes", "3"], ["--nodes", "devices"])
    }
    assert len(hashes) == 1


def test_a_person_sees_a_table_and_where_the_report_is(whole_tinyfl: Command) -> None:
    said = whole_tinyfl("simulate", *SMALL, "--out", "run")
    assert said.code == 0
    assert "unseen devices" in said.out
    assert "run/report.html" in said.out
    assert Path("run/report.html").is_file()


def test_a_new_device_adapts_and_its_weights_are_written(tinyfl: Command, learnt: Path) -> None:
    data = new_device(Path("new.npz"))
    told = tinyfl("adapt", learnt, "--data", data, "--shots", "12", "--steps", "20", "--out", "phi.npz", "--json").json
    assert [point["steps"] for point in told["curve"]] == [0, 1, 5, 10, 20]
    assert told["samples_measured"] == 48
    before, after = told["curve"][0], told["curve"][-1]
    assert after["accuracy"] > before["accuracy"] + 0.1
    assert after["loss"] < before["loss"]
    start, adapted = np.load(learnt / "initialisation.npz"), np.load("phi.npz")
    assert adapted["theta"].shape == start["theta"].shape
    assert not np.array_equal(adapted["theta"], start["theta"])
    assert np.array_equal(adapted["mean"], start["mean"])
    # the same from the file itself, and for a person
    file = learnt / "initialisation.npz"
    assert tinyfl("adapt", file, "--data", data, "--shots", "12", "--steps", "20", "--json").json["curve"] == told["curve"]
    assert "measured on the rest (48 samples)" in tinyfl("adapt", learnt, "--data", data, "--shots", "12").out


def test_adaptation_by_streaming_takes_the_streaming_rate(tinyfl: Command, learnt: Path) -> None:
    data = new_device(Path("new.npz"))
    told = tinyfl("adapt", learnt, "--data", data, "--mode", "stream", "--shots", "12", "--json").json
    assert told["adapt_lr"] == float(np.load(learnt / "initialisation.npz")["adapt_lr_stream"])
    assert told["curve"][-1]["accuracy"] > told["curve"][0]["accuracy"]


def test_an_adaptation_takes_the_rate_of_the_run_for_as_many_samples(tinyfl: Command, learnt: Path) -> None:
    arrays = dict(np.load(learnt / "initialisation.npz"))
    arrays |= {"rates": np.array([[2.0, 0.1, 0.2], [20.0, 0.3, 0.4]]), "config_sha256": np.array("")}
    np.savez("rates.npz", **arrays)
    data = new_device(Path("new.npz"))
    for shots, mode, rate in (("2", "batch", 0.1), ("6", "stream", 0.2), ("7", "batch", 0.3), ("50", "stream", 0.4)):
        told = tinyfl("adapt", "rates.npz", "--data", data, "--shots", shots, "--mode", mode, "--json").json
        assert told["adapt_lr"] == rate


@pytest.mark.parametrize(
    ("change", "words", "says"),
    [
        ({"x": np.ones((60, 3))}, [], r"3 inputs per row, but the initialisation takes 4"),
        ({"x": np.full((60, 4), np.nan)}, [], r"array x has nan in row 0, column 0"),
        ({"y": np.arange(60)}, [], r"array y has 3 in row 3, but the initialisation knows the classes 0, 1, 2"),
        ({"y": np.zeros(5)}, [], r"array y is \(5,\), but x has 60 rows"),
        ({}, ["--shots", "61"], r"60 rows, too few for 61 shots. Give --shots 1 to 60"),
        ({}, ["--shots", "0"], r"too few for 0 shots"),
    ],
)
def test_a_new_device_that_does_not_fit_is_named(
    tinyfl: Command, learnt: Path, change: dict[str, Any], words: list[str], says: str
) -> None:
    said = tinyfl("adapt", learnt, "--data", new_device(Path("new.npz"), **change), *words)
    assert (said.code, said.out) == (errors.DataError.exit_code, "")
    assert re.search(says, said.err)


@pytest.mark.parametrize("rate", ["-1", "nan", "1e30"])
def test_an_adaptation_rate_that_makes_no_sense_is_refused(tinyfl: Command, learnt: Path, rate: str) -> None:
    said = tinyfl("adapt", learnt, "--data", new_device(Path("new.npz")), "--adapt-lr", rate)
    assert said.code == errors.ConfigError.exit_code
    assert "adapt-lr" in said.err


@pytest.mark.slow
def test_report_of_one_run_writes_its_page_anew_and_of_several_a_comparison(whole_tinyfl: Command) -> None:
    for name, algorithm in (("a", "tinyreptile"), ("b", "reptile")):
        assert whole_tinyfl("simulate", *SMALL, "--algorithm", algorithm, "--out", name).code == 0
    Path("a/report.html").unlink()
    assert whole_tinyfl("report", "a", "--json").json == {"report": "a/report.html"}
    assert Path("a/report.html").is_file()
    assert whole_tinyfl("report", "a", "b", "--out", "both.html").out == "both.html\n"
    page = Path("both.html").read_text()
    assert "tinyreptile" in page
    assert "reptile" in page
    assert whole_tinyfl("report", "a", "b", "--json").json == {"report": "comparison.html"}


@pytest.mark.slow
def test_build_prints_what_the_firmware_takes(tinyfl: Command, built: Path) -> None:
    (made,) = tinyfl("build", "--board", "mps2-an386", "--out", built, "--json").json["firmware"]
    assert (made["board"], made["toolchain"]) == ("mps2-an386", "zig")
    assert Path(made["elf"]).read_bytes()[:4] == b"\x7fELF"
    assert Path(made["elf"]) == built / "mps2-an386" / "mps2-an386.elf"
    assert made["flash_bytes"] == sum(made["flash"].values()) == sum(part["flash"] for part in made["parts"].values())
    assert made["ram_bytes"] == sum(made["ram"].values())
    assert made["ram"][".stack"] + sum(part["ram"] for part in made["parts"].values()) == made["ram_bytes"]
    assert made["flash_bytes"] < made["flash_available"]
    assert made["ram_available"] - 16 < made["ram_bytes"] + made["arena_bytes"] <= made["ram_available"]
    said = tinyfl("build", "--board", "mps2-an386", "--out", built)
    assert (said.code, said.err) == (0, "")
    assert f"{made['arena_bytes']:,} bytes of RAM are left" in said.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ('#include "source.h"\nint x = adc;\n', errors.BuildError, "building light.c failed:\n.*'adc'"),
        ("int tinyfl_sources[80000];\n", errors.DoesNotFit, "bytes of RAM without a network, 4,096 of them stack"),
    ],
)
def test_a_source_that_cannot_be_built_in_is_refused(
    tinyfl: Command, built: Path, text: str, kind: type[errors.TinyflError], says: str
) -> None:
    Path("light.c").write_text(text)
    said = tinyfl("build", "--board", "mps2-an386", "--source", "light.c", "--out", built, "--json")
    assert (said.code, said.out) == (kind.exit_code, "")
    assert re.search(says, said.err, re.DOTALL)


@pytest.mark.slow
@pytest.mark.usefixtures("host_compiler")
def test_a_run_on_boards_prints_one_json_object_that_lists_them(tinyfl: Command) -> None:
    said = tinyfl("run", *ON_BOARDS, "--board", "posix", "--devices", "2", "--cohort", "2", "--out", "run", "--json")
    result = said.json
    assert said.out.count("\n") == 1
    assert set(result) >= RESULT_KEYS
    assert [(board["device"], board["id"], board["board"]) for board in result["boards"]] == [
        (0, f"{1:016x}", "posix"),
        (1, f"{2:016x}", "posix"),
    ]
    assert all(set(board) == {"device", "id", "board", "engine", "boot_seconds"} for board in result["boards"])
    assert (result["devices"], result["left_out"]) == (2, {})
    simulated = tinyfl("run", *ON_BOARDS, "--devices", "2", "--cohort", "2", "--json").json
    assert simulated["boards"] == []
    assert simulated["theta_sha256"] == result["theta_sha256"]
    held = [json.loads(line) for line in Path("run/events.jsonl").read_text().splitlines()]
    assert sorted((event["device"], event["what"]) for event in held) == [(0, "connected"), (1, "connected")]


def test_a_board_that_is_missing_is_named_on_stderr_and_counted(tinyfl: Command, on_port: str) -> None:
    ports = ["--port", on_port, "--port", NOBODY]
    said = tinyfl("run", *ON_BOARDS, *ports, "--cohort", "2", "--json", "--out", "run")
    assert said.json["left_out"] == {"dead": 3}
    assert [(board["device"], board["port"]) for board in said.json["boards"]] == [(0, on_port), (1, NOBODY)]
    assert re.search(r"round 1: device 1 left out: dead: ", said.err)
    assert said.err.count("device 1 left out") == 1
    assert Path("run/events.jsonl").read_text().count('"left out"') == 3


def test_ports_with_no_board_end_the_run_which_can_be_resumed(tinyfl: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "SHORT_ROUND_PAUSES", (0.0,))
    said = tinyfl("run", *ON_BOARDS, "--port", NOBODY, "--out", "run")
    assert (said.code, said.out) == (errors.TrainingError.exit_code, "")
    assert re.search(r"round 1 had 0 of the 1 required updates.*'dead': 1.*tinyfl run --resume run$", said.err.strip())
    Path("simulated.toml").write_text("[[fleet]]\nnative = 1\n")
    assert tinyfl("run", "simulated.toml", "--resume", "run", "--json").json["rounds"] == 3


@pytest.mark.slow
@pytest.mark.usefixtures("host_compiler")
def test_emulate_prints_one_json_object_and_ends_with_a_signal() -> None:
    command = [sys.executable, "-m", "tinyfl.cli", "emulate", "--board", "posix", "--count", "2", "--first-id", "9", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            running = strict(process.stdout.readline())["boards"]
            process.send_signal(signal.SIGINT)
            rest = process.communicate(timeout=300)
        finally:
            process.kill()
    assert (process.returncode, *rest) == (0, "", "")
    assert [(set(board), board["id"]) for board in running] == [({"id", "board", "url"}, f"{n:016x}") for n in (9, 10)]


FLEET_OF_FIVE = """task = "sine"\n[[fleet]]\nnative = 3\n[[fleet]]\nboard = "posix"\ncount = 2\n"""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["build", "--board", "nosuch"], "no board is called 'nosuch'. There are: cy8ckit-062s2, microbit-v2, "),
        (["build", "--board", "mps2-an386", "--source", "absent.c"], "--source absent.c is not a C file"),
        (["run", "--task", "sine", "--devices", "1", "--board", "nosuch"], "no board is called 'nosuch'"),
        (["run", "--engine", "qemu"], "--engine and --toolchain are for emulated boards"),
        (["run", "--toolchain", "gcc"], "--engine and --toolchain are for emulated boards"),
        (["run", "--board", "posix", "--port", NOBODY], "is for a file"),
        (["run", "--task", "sine", "--board", "posix", "--engine", "renode"], "no engine is called 'renode'"),
        (["run", "--task", "sine", "--board", "posix", "--engine", "qemu"], "engine qemu does not run posix"),
        (["run", "--task", "sine", "--port", NOBODY, "--devices", "2"], "2 devices, but the fleet's parts have 1"),
        (["run", "fleet.toml", "--devices", "6"], "6 devices, but the fleet's parts have 5"),
        (["run", "--task", "sine", "--port", "nonsense://1"], "nonsense://1 is not a link"),
        (["run", "--seconds", "0"], "--seconds"),
        (["emulate", "--board", "nosuch"], "no board is called 'nosuch'"),
        (["emulate", "--board", "posix", "--engine", "unicorn"], "engine unicorn does not run posix"),
        (["emulate", "--board", "posix", "--link", "usb"], "no link is called 'usb'"),
        (["emulate", "--board", "posix", "--count", "0"], "0 boards, not 1 to 1,000"),
    ],
)
def test_a_fleet_that_cannot_be_is_refused(tinyfl: Command, words: list[str], says: str) -> None:
    Path("fleet.toml").write_text(FLEET_OF_FIVE)
    said = tinyfl(*words)
    assert (said.code, said.out) == (errors.ConfigError.exit_code, "")
    assert re.search(r"^tinyfl: ", said.err, re.MULTILINE)
    assert says in said.err


@pytest.mark.parametrize(
    ("words", "kind", "says"),
    [
        (["simulate", "--task", "nonsense"], errors.ConfigError, "no task is called 'nonsense'"),
        (["simulate", "absent.toml"], errors.ConfigError, "absent.toml: No such file or directory. Check the path."),
        (
            ["simulate", "--task", "sine", "--sampling", "dpp"],
            errors.ConfigError,
            "or parameters and --cohort 8",
        ),
        (["plan", "conv-omniglott"], errors.ConfigError, "Did you mean conv-omniglot?"),
        (["simulate", "--network", "mpl-32"], errors.ConfigError, "Did you mean mlp-32?"),
        (["simulate", "--task", "npz"], errors.ConfigError, "--data FILE"),
        (["simulate", "--lanes", "3"], errors.ConfigError, "--lanes"),
        pytest.param(["simulate", *SMALL, "--threads", "-2"], errors.ConfigError, "threads"),
        (["simulate", "--samples", "1"], errors.ConfigError, "cannot meta-learn"),
        (["simulate", "--task", "npz", "--data", "absent.npz"], errors.DataError, "no such file"),
        (["simulate", "--resume", "absent"], errors.RunError, "holds no run"),
        (["simulate", *SMALL, "--rate", "100000"], errors.TrainingError, "--rate"),
        (["adapt", "absent", "--data", "absent.npz"], errors.RunError, "finished run"),
        (["report", "absent"], errors.RunError, "holds no run"),
    ],
)
def test_an_error_is_a_message_on_stderr_with_its_exit_code(
    tinyfl: Command, words: list[str], kind: type[errors.TinyflError], says: str
) -> None:
    said = tinyfl(*words)
    assert (said.code, said.out) == (kind.exit_code, "")
    assert re.search(r"^tinyfl: ", said.err, re.MULTILINE)
    assert says in said.err


def test_an_error_shows_no_traceback(tmp_path: Path) -> None:
    done = fresh("simulate", "--task", "npz", "--data", tmp_path / "absent.npz")
    assert done.returncode == errors.DataError.exit_code
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["simulate", "adapt"])
def test_an_out_that_cannot_be_written_is_an_error_with_a_code(tinyfl: Command, learnt: Path, verb: str) -> None:
    new_device(Path("new.npz"))
    Path("file").write_text("in the way")
    words = SMALL if verb == "simulate" else [learnt, "--data", "new.npz"]
    said = tinyfl(verb, *words, "--out", "file/run")
    assert said.code == errors.RunError.exit_code
    assert "file/run" in said.err


def test_shots_that_the_data_cannot_give_are_refused_before_the_rounds(tinyfl: Command, own_data: Path) -> None:
    said = tinyfl("simulate", "--task", "npz", "--data", own_data, "--shots", "30", "--rounds", "50", "--out", "run")
    assert said.code == errors.DataError.exit_code
    assert "--shots 29 or fewer" in said.err
    assert not Path("run/config.toml").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--no-such-option"],
        ["nonsense"],
        ["simulate", "--rounds", "many"],
        ["adapt", "run"],
        ["report"],
        ["adapt", "run", "--data", "d.npz", "--steps", "-1"],
        ["build"],
        ["build", "--board", "mps2-an386", "--toolchain", "iar"],
        ["emulate"],
        ["emulate", "--board", "posix", "--count", "many"],
    ],
)
def test_bad_usage_leaves_with_2_and_an_empty_stdout(tinyfl: Command, words: list[str]) -> None:
    said = tinyfl(*words)
    assert (said.code, said.out) == (2, "")
    assert said.err


@pytest.mark.slow
@pytest.mark.parametrize(("end", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_its_code_and_a_run_to_resume(tmp_path: Path, end: signal.Signals, code: int) -> None:
    out = tmp_path / "run"
    words = ["simulate", "--task", "sine", "--network", "mlp-8", "--rounds", "1000000", "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-m", "tinyfl.cli", *words], stdout=-1, stderr=-1, text=True)
    try:
        deadline = time.monotonic() + 300
        while not (out / "checkpoint" / "state.npz").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(end)
        stdout, stderr = process.communicate(timeout=300)
    finally:
        process.kill()
    assert (process.returncode, stdout) == (code, "")
    assert f"tinyfl run --resume {out}" in stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "code",
    ["import tinyfl", "import tinyfl.cli", "from tinyfl.cli import app; app(['simulate', '--help'], standalone_mode=False)"],
)
def test_help_and_import_load_nothing_heavy(code: str) -> None:
    check = f"{code}\nimport sys\nprint('loaded:', *[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


def test_help_explains_arguments(tinyfl: Command) -> None:
    assert "A finished run's directory" in tinyfl("adapt", "--help").out


@pytest.mark.parametrize("module", ["simulation", "runs.adaptation", "cli", "report.page"])
def test_simulate_and_adapt_stay_functions_whatever_is_imported(module: str) -> None:
    code = f"import tinyfl, tinyfl.{module}, tinyfl.cli.show.runs\ntinyfl.simulate.__call__, tinyfl.adapt.__call__"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    "verb",
    [
        [],
        ["simulate"],
        ["run"],
        ["evaluate"],
        ["adapt"],
        ["online"],
        ["metrics"],
        ["report"],
        ["build"],
        ["plan"],
        ["export"],
        ["infer"],
        ["emulate"],
    ],
)
def test_help_is_there_for_every_verb(tinyfl: Command, verb: list[str]) -> None:
    said = tinyfl(*verb, "--help")
    assert (said.code, said.err) == (0, "")
    assert re.search(rf"Usage: .*{' '.join(verb)} .*OPTIONS", said.out)


def test_version_is_the_packages(tinyfl: Command) -> None:
    from tinyfl import __version__

    assert tinyfl("--version").out == f"{__version__}\n"


def test_an_adaptation_that_diverges_writes_nothing_and_fails(tinyfl: Command, learnt: Path) -> None:
    said = tinyfl("adapt", learnt, "--data", new_device(Path("new.npz")), "--adapt-lr", "1e6", "--out", "bad.npz")
    assert said.code == errors.TrainingError.exit_code
    assert not Path("bad.npz").exists()


def test_adapted_weights_can_be_adapted_again(tinyfl: Command, learnt: Path) -> None:
    new_device(Path("new.npz"))
    assert tinyfl("adapt", learnt, "--data", "new.npz", "--out", "one.npz").code == 0
    assert tinyfl("adapt", "one.npz", "--data", "new.npz", "--out", "two.npz").code == 0
