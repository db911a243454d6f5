"""tinyfl in other people's programs: in a notebook's loop, in threads, in sweeps, with NumPy's numbers."""

import asyncio
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

import tinyfl
from tinyfl import building
from tinyfl.algorithms import State
from tinyfl.config import resolve
from tinyfl.devices.connected import connected_devices
from tinyfl.devices.inventory import Selection
from tinyfl.devices.push import push
from tinyfl.errors import ConfigError, DataError, InstallError, RunError
from tinyfl.export.infer import infer
from tinyfl.export.model import export
from tinyfl.fleet import Phis
from tinyfl.fleets.emulation import emulate
from tinyfl.runs.adaptation import Initialisation
from tinyfl.runs.directory import new_directory
from tinyfl.simulation.result import Run
from tinyfl.system.installed import quiet
from tinyfl.system.loop import Loop, in_loop

TINY = {"task": "sine", "network": "mlp-2", "devices": 4, "cohort": 2, "rounds": 4, "tasks": 4, "adapt_lr": 0.01}


def in_cell(work: Callable[[], Any]) -> Any:
    """The result of ``work`` in a running event loop, as in a notebook's cell."""

    async def cell() -> Any:
        return work()

    return asyncio.run(cell())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_boards_learn_in_a_notebook_as_in_a_script(here: Path, emulators: None) -> None:
    def work() -> Run:
        return tinyfl.simulate(**{**TINY, "devices": None}, fleet=[{"board": "posix", "count": 2}])

    assert in_cell(work).result["theta_sha256"] == work().result["theta_sha256"]


def test_boards_are_listed_and_get_a_model_in_a_notebook(here: Path, emulators: None) -> None:
    run = tinyfl.simulate(**TINY)

    def work() -> None:
        with emulate("posix", 1, link="tcp") as (board,):
            assert [each.description.id.hex() for each in connected_devices([board.url]) if each.description] == [board.id]
            pushed = push(str(run.path), Selection(ids=(board.id,)), urls=[board.url])
            assert [each.what for each in pushed.boards] == ["pushed"]

    in_cell(work)


@pytest.mark.usefixtures("emulators", "tensorflow")
def test_an_int8_model_runs_on_a_board_in_a_notebook(here: Path) -> None:
    run = tinyfl.simulate(**TINY)
    (model,) = [file["path"] for file in in_cell(lambda: export(run.path))["files"] if file["path"].endswith("int8.tflite")]
    np.save("x.npy", np.zeros((2, 1), np.float32))
    said = in_cell(lambda: infer(model, input="x.npy", output="board.npy", on="emulated:mps2-an386"))
    infer(model, input="x.npy", output="host.npy")
    assert said["inputs"] == 2 and np.array_equal(np.load("board.npy"), np.load("host.npy"))


def test_an_interrupt_of_a_cell_cancels_its_work_and_waits_for_its_end() -> None:
    ended = []

    async def work() -> None:
        try:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0.1)
            ended.append(threading.current_thread())

    async def cell() -> None:
        with pytest.raises(KeyboardInterrupt):
            in_loop(work())

    loop = asyncio.new_event_loop()  # asyncio.run has a way of its own with Ctrl-C, which notebooks do not take
    loop.run_until_complete(cell())
    loop.close()
    assert ended and ended[0] is not threading.main_thread()


def test_work_after_work_shares_a_loop() -> None:
    async def which() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def work() -> None:
        with Loop() as loop:
            assert loop.run(which()) is loop.run(which())

    work()
    in_cell(work)


OPTIONS = {
    "rounds": np.int64(4), "cohort": np.uint8(2), "seed": np.int32(3), "rate": np.float32(0.5), "outer_step": np.float64(1),
    "shots": np.array([1, 5]), "seconds": np.int16(3), "clip": np.array(0.5), "fleet": [{"native": np.int64(4)}],
}  # fmt: skip
SAME = {
    "rounds": 4, "cohort": 2, "seed": 3, "rate": 0.5, "outer_step": 1.0, "shots": [1, 5], "seconds": 3.0, "clip": 0.5,
    "fleet": [{"native": 4}],
}  # fmt: skip


def test_numpys_numbers_are_options() -> None:
    assert resolve({"task": "sine", **OPTIONS}) == resolve({"task": "sine", **SAME})
    row = pytest.importorskip("pandas").DataFrame([{"rounds": 4, "rate": 0.5}]).loc[0]  # all of whose numbers are floats
    assert resolve({"task": "sine", **row}) == resolve({"task": "sine", "rounds": 4, "rate": 0.5})
    with pytest.raises(ConfigError, match=r"rounds is 4.5, not int"):
        resolve({"task": "sine", "rounds": np.float32(4.5)})
    with pytest.raises(ConfigError, match=r"rounds is \[4, 5\], not int"):
        resolve({"task": "sine", "rounds": np.array([4, 5])})


def test_numpys_numbers_leave_json_that_can_be_written(here: Path) -> None:
    run = tinyfl.simulate(**TINY, threads=np.int64(1), lanes=np.int32(1), memory=np.int64(200_000_000))
    np.savez("device.npz", x=np.ones((5, 1)), y=np.ones((5, 1)))
    result = tinyfl.adapt(run.path, "device.npz", steps=np.int64(3), shots=np.int32(2), adapt_lr=np.float32(0.5))
    json.dumps([run.result, result])
    assert [point["steps"] for point in result["curve"]] == [0, 1, 3]


def test_a_run_and_arrays_in_memory_are_as_good_as_its_directory_and_a_file(here: Path) -> None:
    run = tinyfl.simulate(**TINY, page=False)
    x = np.linspace(-5, 5, 10)[:, None]
    np.savez("device.npz", x=x, y=np.sin(x))
    from_disk = tinyfl.adapt(str(run.path), "device.npz", shots=5)
    assert tinyfl.adapt(run, {"x": x, "y": np.sin(x)}, shots=5) == from_disk
    assert tinyfl.evaluate(run) == tinyfl.evaluate(run.path)
    with pytest.raises(DataError, match="data is a int"):
        tinyfl.adapt(run, 3)


def test_other_data_in_memory_are_evaluated_as_those_of_a_file(here: Path, own_data: Path) -> None:
    run = tinyfl.simulate(task="npz", data=own_data, network="mlp-4", rounds=4, tasks=4, adapt_lr=0.1, page=False)
    with np.load(own_data) as file:
        arrays = dict(file)
    again = tinyfl.evaluate(run, data=arrays)
    assert again == {**tinyfl.evaluate(run, data=own_data), "data": None}


@pytest.mark.slow
def test_runs_compare_and_hash(here: Path) -> None:
    first, second = (tinyfl.simulate(**TINY) for _ in range(2))
    assert first == first and first != second
    assert len({first, first, second}) == 2


def test_what_holds_arrays_compares_and_hashes_by_identity(here: Path) -> None:
    run = tinyfl.simulate(**TINY)
    pairs = [
        [Initialisation.load(run.path) for _ in range(2)],
        [State(0, run.theta) for _ in range(2)],
        [Phis(run.theta[None], run.theta[:1], ("",)) for _ in range(2)],
    ]
    for one, other in pairs:
        assert one == one and one != other and len({one, one, other}) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("rendered")
def test_concurrent_runs_end_as_one_after_another(here: Path) -> None:
    """All of one name, in one folder; with other networks, so that none could use another's message unseen."""

    def work(size: int) -> tuple[str, Path]:
        run = tinyfl.simulate(**{**TINY, "network": f"mlp-{size}", "rounds": 30}, nodes=["devices", "2"][size % 2])
        return run.result["theta_sha256"], run.path

    sizes = range(2, 5)
    with ThreadPoolExecutor(len(sizes)) as threads:
        together = list(threads.map(work, sizes))
    assert [theta for theta, _ in together] == [work(size)[0] for size in sizes]
    assert len({path for _, path in together}) == len(sizes)


def test_runs_that_begin_at_once_each_make_a_folder(here: Path) -> None:
    config, ready = resolve({"task": "sine"}), threading.Barrier(8)

    def make(_: int) -> Path:
        ready.wait(60)
        return new_directory(config)

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(make, range(8)))) == len(list((here / "runs").iterdir())) == 8


@pytest.mark.slow
@pytest.mark.usefixtures("rendered")
def test_concurrent_runs_leave_the_process_as_it_was(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One begins first and ends first: its end must not be the other's."""
    log, entered, ended, said = logging.getLogger("flwr"), threading.Event(), threading.Event(), []
    handler = logging.Handler()
    handler.emit = said.append  # type: ignore[method-assign]
    log.addHandler(handler)
    before = log.level, dict(mpl.rcParams), logging.getLogger().level, signal.getsignal(signal.SIGINT)
    log.setLevel(logging.INFO)

    def first(progress: Any) -> None:
        entered.wait(60)

    def second(progress: Any) -> None:
        entered.set()
        ended.wait(60)

    try:
        with ThreadPoolExecutor(2) as threads:
            runs = [threads.submit(tinyfl.simulate, **TINY, nodes="2", progress=each) for each in (first, second)]
            runs[0].result()
            ended.set()
            runs[1].result()
        assert log.level == logging.INFO
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
    assert said == []
    assert (log.level, dict(mpl.rcParams), logging.getLogger().level, signal.getsignal(signal.SIGINT)) == before


def test_a_program_of_flowers_keeps_its_identity(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.supercore.task_identity import TaskIdentity

    for name, value in (("_task_id", 7), ("_run_id", 8), ("_node_id", 9)):
        monkeypatch.setattr(TaskIdentity, name, value)
    tinyfl.simulate(**TINY)
    assert (TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id) == (7, 8, 9)


def test_a_handler_of_the_users_own_gets_ctrl_c_and_the_run_goes_on(here: Path) -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: got.append(number))
    try:
        run = tinyfl.simulate(**TINY, progress=lambda _: os.kill(os.getpid(), signal.SIGINT))
        assert got and signal.getsignal(signal.SIGINT) is not before
    finally:
        signal.signal(signal.SIGINT, before)
    assert run.result["rounds"] == TINY["rounds"]


@pytest.mark.slow
@pytest.mark.parametrize("resume", [False, True])
def test_a_run_keeps_to_its_folder_when_the_program_goes_to_another(here: Path, resume: bool) -> None:
    (here / "other").mkdir()
    if resume:
        with pytest.raises(ZeroDivisionError):
            tinyfl.simulate(**TINY, out="run", progress=lambda _: 1 / 0)
    where = {"resume": "run"} if resume else {**TINY, "out": "run"}
    run = tinyfl.simulate(**where, progress=lambda _: os.chdir(here / "other"))
    assert not list((here / "other").iterdir())
    assert run.path == here / "run" and Path(run.result["run"]) == here / "run"
    assert (run.path / "report.html").exists()


def test_a_run_outlives_the_working_directory(here: Path) -> None:
    def leave(_: object) -> None:
        gone = here / "gone"
        if not gone.exists():
            gone.mkdir()
            os.chdir(gone)
            gone.rmdir()

    assert tinyfl.simulate(**TINY, out="run", progress=leave).path == here / "run"


def test_a_resumed_run_finds_its_own_boards_manifest_from_another_folder(here: Path, emulators: None) -> None:
    manifest = (Path(building.__file__).parents[2] / "boards" / "posix.toml").read_text()
    Path("mine.toml").write_text(manifest.replace('name = "posix"', 'name = "mine"', 1))
    given = {**TINY, "devices": None, "fleet": [{"board": "mine.toml", "count": 2}], "out": "run"}
    with pytest.raises(ZeroDivisionError):
        tinyfl.simulate(**given, progress=lambda _: 1 / 0)
    os.chdir("/")
    assert tinyfl.simulate(resume=here / "run").result["rounds"] == TINY["rounds"]


def test_the_command_that_goes_on_leads_to_the_run_from_wherever_the_program_is(here: Path) -> None:
    def stop(_: object) -> None:
        os.chdir("/")
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=f"--resume {here}/run"):
        tinyfl.simulate(**TINY, out="run", progress=stop)


def test_a_run_in_use_says_so_within_one_process_too(here: Path) -> None:
    def again(_: object) -> None:
        with pytest.raises(RunError, match="in use"):
            tinyfl.simulate(resume="run")

    tinyfl.simulate(**TINY, out="run", progress=again)


def test_a_frame_has_every_row_of_the_evaluation_and_of_the_start(here: Path) -> None:
    pytest.importorskip("pandas", reason="needs pandas: pip install 'tinyfl[test]'")
    run = tinyfl.simulate(**TINY)
    rows = run.frame().to_dict("records")
    for weights, expected in (("learnt", run.evaluation), ("start", run.baseline)):
        found = [{**row, "weights": None} for row in rows if row["weights"] == weights]
        assert [row["loss"] for row in found] == [row["loss"] for row in expected]
        assert [row["steps"] for row in found] == [row["steps"] for row in expected]
    assert len(rows) == len(run.evaluation) + len(run.baseline)


def test_without_pandas_a_frame_says_what_there_is(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tinyfl.simulate(**TINY)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InstallError, match="pip install pandas"):
        run.frame()


@pytest.mark.slow
def test_a_script_and_a_terminal_show_no_progress_unasked(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tinyfl.simulate(**TINY)
    terminal = SimpleNamespace(get_ipython=SimpleNamespace)  # without a kernel
    monkeypatch.setitem(sys.modules, "IPython", terminal)
    tinyfl.simulate(**TINY)
    assert capfd.readouterr() == ("", "")


def test_stderr_comes_back_after_two_threads_wrote_to_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """The first to begin is the first to end."""
    begun, ended = threading.Event(), threading.Event()

    def first() -> None:
        with quiet():
            begun.set()
            ended.wait(0.2)

    def second() -> None:
        begun.wait(60)
        with quiet():
            ended.wait(60)

    level = logging.getLogger("tensorflow").level
    with ThreadPoolExecutor(2) as threads:
        works = [threads.submit(first), threads.submit(second)]
        works[0].result()
        ended.set()
    os.write(2, b"seen")
    assert capfd.readouterr().err == "seen"
    assert logging.getLogger("tensorflow").level == level
