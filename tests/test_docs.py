"""The documentation holds: its code runs, its commands parse, its links resolve, its tables are the code's own."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from own import installed
from test_rooms import arrows, modules, room

import tinyfl
from tinyfl.algorithms import State
from tinyfl.building import boards
from tinyfl.building.wear import row, years
from tinyfl.cli import app
from tinyfl.config import ALGORITHMS, TASKS, Config, resolve
from tinyfl.config.roster import Part, read_parts
from tinyfl.data import Table
from tinyfl.errors import DataError, LinkError, TinyflError
from tinyfl.flash.methods import unlock
from tinyfl.fleet import Event
from tinyfl.registry.own import own_code
from tinyfl.sensors.recording import recording_of
from tinyfl.sensors.source import HostSource
from tinyfl.tasks import load_task

ROOT = Path(__file__).resolve().parents[1]
FOR_CODE = ("CONTRIBUTING.md", "docs/CODE.md")
PAGES = [
    *(ROOT / page for page in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "firmware/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^ *```(\w+)(?: title=\"(\S+)\")?\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
TESTED_APART = ("tasks.md", "your-own.md", "fleets.md", "firmware.md", "models.md")
ABOUT_BOARDS = ("build", "devices", "doctor", "emulate", "flash", "gateway", "plan", "run", "superlink")
"""Verbs that the pages use for boards, and with --federation for federations, which test_deployment.py runs."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its title (a script, not part of the page's session) and its first line's number."""

    language: str
    title: str | None
    text: str
    line: int


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [Block(m[1], m[2], m[3], text.count("\n", 0, m.start(3)) + 1) for m in FENCE.finditer(text)]


def session(page: Path) -> dict[str, Any]:
    """Runs the page's Python in order, as a reader would, and returns its names."""
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if block.language == "python" and block.title is None:
            source = "\n" * (block.line - 1) + block.text  # errors then name the page's own lines
            exec(compile(source, str(page), "exec"), names)
    return names


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in blocks(page):
            for line in map(str.strip, block.text.splitlines()):
                if block.language in ("sh", "bash", "console") and line.removeprefix("$ ").startswith("tinyfl "):
                    yield name(page), line.removeprefix("$ ").partition("  #")[0]


def words_of(page: str, *verbs: str) -> list[list[str]]:
    """The page's commands with one of these verbs, in words, without the program's name."""
    lines = [shlex.split(line)[1:] for where, line in commands() if where == page]
    return [words for words in lines if words[0] in verbs]


def run_quickly(words: list[str]) -> None:
    """A run as its command says, but evaluated on fewer devices."""
    app([*words, "--tasks", "20"], standalone_mode=False)


def write_files(page: Path) -> None:
    """Writes the blocks that have a title under it."""
    for block in blocks(page):
        if block.title:
            Path(block.title).write_text(block.text)


def evaluate_quickly(study: str) -> None:
    """Has a study as its page writes it evaluate its runs on fewer devices."""
    path = Path(study)
    path.write_text(path.read_text().replace("[run]\n", "[run]\ntasks = 60\n"))


def theta_sha256(run: str) -> str:
    return str(json.loads(Path(run, "result.json").read_text())["theta_sha256"])


@contextmanager
def emulating(*words: str) -> Iterator[list[str]]:
    """The urls of the boards that `tinyfl emulate` with these options serves."""
    command = [sys.executable, "-m", "tinyfl.cli", *words, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield [board["url"] for board in json.loads(process.stdout.readline())["boards"]]
        finally:
            process.terminate()


@pytest.fixture
def boards_kit(built_before: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips without what builds and emulates boards, posix too. Runs have no report, whose figures take longer than they."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler (cc): apt-get install gcc libc6-dev")
    monkeypatch.setattr("tinyfl.report.page.write_report", lambda *_: None)


@pytest.fixture
def estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs are estimated: what counts instructions in emulation, for half a minute, is tested by test_costs.py."""
    monkeypatch.setattr("tinyfl.costs.counted.instructions", lambda *_: None)


def accuracy(rows: list[dict[str, Any]]) -> float:
    """After ten full-batch steps."""
    return float(next(row["accuracy"] for row in rows if (row["mode"], row["steps"]) == ("batch", 10)))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("modules_here")
def test_the_page_on_your_own_algorithm_and_task_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "your-own.md"
    write_files(page)
    for file in tmp_path.glob("*.py"):
        assert len(file.read_text().splitlines()) <= 40
    reading = np.random.default_rng(0).uniform(-1, 1, (10, 1))
    np.savez("new-sensor.npz", x=reading, y=np.sin(5 * reading[:, 0]))
    for words in words_of("docs/your-own.md", "simulate", "run", "report", "adapt"):
        if "runs/installed" not in words:  # test_packages.py installs it
            app([*words, *(["--tasks", "20"] if words[0] == "simulate" else [])], standalone_mode=False)
    assert tomllib.loads(Path("runs/floor/config.toml").read_text())["algorithm"]["floor"] == 0.1
    monkeypatch.syspath_prepend(tmp_path)
    names = session(page)
    assert Path("runs/first/report.html").is_file()
    assert theta_sha256("runs/floor") == theta_sha256("runs/object")
    assert len(names["run"].theta) == names["run"].result["parameters"]
    assert names["cosine"] < 0.25 * names["random"]
    assert names["adam"] < 0.25 * names["random"]
    assert names["calibrated"] < 0.25 * names["uncalibrated"]

    # "Theta is the same, bit for bit" however the fleet is cut, and samples do not depend on the cohort.
    task, net, algorithm = names["sensors"], names["net"], names["CosineReptile"](3)
    thetas = set()
    for gateways in (1, 4, None):
        start = State(0, net.initial_weights(seed=0))
        strategy = names["FleetStrategy"](
            algorithm, start, cohort=9, fleet_size=50, seed=0, each_device=gateways is None
        )  # fmt: skip
        grid = names["FleetGrid"](names["NativeFleet"](task, net, 50), gateways=gateways)
        strategy.start(grid, names["theta_record"](start.theta), num_rounds=3)
        thetas.add(strategy.state.theta.tobytes())
    assert len(thetas) == 1

    # "or the strategy min_available_nodes=1 and min_train_nodes=1"
    strategy = names["FedAdam"](fraction_evaluate=0.0, min_available_nodes=1, min_train_nodes=1)
    grid = names["FleetGrid"](names["NativeFleet"](names["sine"], net, 1000))
    strategy.start(grid, names["theta_record"](start.theta), num_rounds=1, train_config=names["told"])


@pytest.mark.slow
def test_the_page_on_tasks_makes_a_data_set_that_a_fleet_learns() -> None:
    run = session(ROOT / "docs" / "tasks.md")["run"]
    assert run.result["devices"] == 14  # 20 less 4 held out, and 15 % of the rest for validation
    assert {row["tasks"] for row in run.evaluation} == {4}
    assert accuracy(run.evaluation) > accuracy(run.baseline)


@pytest.mark.usefixtures("boards_kit")
def test_the_page_on_fleets_does_what_it_says() -> None:
    from tinyfl.fleets.emulation import emulate

    page = ROOT / "docs" / "fleets.md"
    write_files(page)
    with emulate("posix", 2, link="tcp") as cabled:
        text = Path("fleet.toml").read_text()
        for number, board in enumerate(cabled):
            text = text.replace(f"/dev/ttyACM{number}", board.url)
        Path("fleet.toml").write_text(text)
        for words in words_of("docs/fleets.md", "run"):
            run_quickly(words)
    assert theta_sha256("runs/boards") == theta_sha256("runs/simulated")
    mixed = json.loads(Path("runs/mixed/result.json").read_text())
    assert (mixed["devices"], mixed["left_out"]) == (106, {})

    events = [json.loads(line) for line in Path("runs/faulty/events.jsonl").read_text().splitlines()]
    told = next(block for block in blocks(page) if block.language == "json")
    for line in told.text.splitlines():
        assert set(json.loads(line)) == set(events[0]) == {"time", *(field.name for field in fields(Event))}
    assert {json.loads(line)["what"] for line in told.text.splitlines()} == {event["what"] for event in events}
    gone = [(e["round"], e["device"], e["detail"].split(":")[0]) for e in events if e["what"] == "left out"]
    assert sorted(gone) == sorted([(0, 3, "refused"), *((round, 2, "dead") for round in range(5))])
    assert [(event["round"], event["device"]) for event in events if event["what"] == "back"] == [(1, 3)]

    names = session(page)
    assert (names["echo"].r, names["described"].board) == ("hello", "mps2-an386")
    assert names["after"].loss < 0.1 * names["before"].loss
    assert abs(names["half"] - 0.25) < 0.15


def test_the_page_on_fleets_has_every_key_reason_and_kind_of_fault() -> None:
    from tinyfl import errors
    from tinyfl.simulators.faults import KINDS

    page = ROOT / "docs" / "fleets.md"
    assert {cell for row in table(page, "part") for cell in row[:2] if cell} == {field.name for field in fields(Part)}
    assert [row[0] for row in table(page, "kind")] == list(KINDS)
    kinds = (*LinkError.__subclasses__(), errors.NoLink)
    reasons = {kind.reason for kind in kinds if kind.__module__ == errors.__name__}
    assert {row[0] for row in table(page, "reason")} == reasons
    assert {row[0] for row in table(ROOT / "docs" / "exit-codes.md", "reason")} == reasons
    for block in blocks(page):
        if block.language == "toml":
            assert read_parts(tomllib.loads(block.text).get("fleet", [])) or "fault" in tomllib.loads(block.text)


@pytest.mark.usefixtures("boards_kit")
def test_the_page_on_firmware_builds_a_source_from_which_a_board_learns() -> None:
    page = ROOT / "docs" / "firmware.md"
    write_files(page)
    for words in words_of("docs/firmware.md", "build"):
        app(words, standalone_mode=False)
    assert Path("build/firmware/stm32f405/stm32f405.elf").is_file()
    assert Path("worn/microbit-v2/microbit-v2.elf").is_file()
    host = HostSource([Path("forecast.c")], "forecast")
    table = Table("degrees", np.arange(20.0, 40.0)[:, None], np.full(20, -1), np.zeros(20, np.int64))
    values = host.samples_of(recording_of(table, host.sensor))
    host.close()
    np.testing.assert_allclose(values.y[:, 0], values.x[:, -1] + 0.1, rtol=1e-5)
    losses = session(page)["losses"]
    assert losses[-1] < 0.1 * losses[0]
    (run,) = (words for words in words_of("docs/firmware.md", "run") if "imu.toml" in words)
    run_quickly(run)
    fleet = Path("imu.toml").read_text().replace('board = "mps2-an386"\ncount = 4', "native = 4")
    Path("native.toml").write_text(fleet)
    native = tinyfl.simulate(config="native.toml", source="imu.c", tasks=20, page=False)
    emulated = json.loads(Path("runs/imu/result.json").read_text())
    assert native.result["theta_sha256"] == emulated["theta_sha256"]
    assert native.evaluation[0]["accuracy"] > 0.9 > native.baseline[0]["accuracy"]


def test_the_page_on_boards_has_every_key_of_a_manifest() -> None:
    schema = boards.schema()
    rows = {key: row[1] for row in table(ROOT / "docs" / "boards.md", "key") for key in row[0].split(", ")}
    assert rows.keys() == schema["properties"].keys()
    tables = {
        "memory": "Memory",
        "link": "Link",
        "usb": "Usb",
        "power": "Power",
        "emulators": "Emulators",
        "checked": "Checked",
    }
    for key, part in tables.items():
        assert [inner for inner in schema["$defs"][part]["properties"] if not re.search(rf"\b{inner}\b", rows[key])] == []
    assert [inner for inner in schema["$defs"]["Store"]["properties"] if not re.search(rf"\b{inner}\b", rows["memory"])] == []
    for part in ("Pyocd", "Openocd", "Copy", "Bossac", "DfuUtil"):
        method = schema["$defs"][part]["properties"]
        assert [inner for inner in method if not re.search(rf"\b{inner}\b", rows["flash"])] == []
        assert method["method"]["const"] in rows["flash"]


def test_the_page_on_firmware_says_how_long_each_store_lasts() -> None:
    sold = {board.name: board.memory.store for board in boards.select("all") if board.flash and board.memory}
    assert {name: cells for name, *cells in table(ROOT / "docs" / "firmware.md", "board | an area, bytes")} == {
        name: row(store) for name, store in sold.items()
    }


def test_the_page_on_online_learning_says_how_long_each_store_lasts() -> None:
    stores = {each.name: each.memory.store for each in boards.select("all") if each.flash and each.memory}
    rows = {
        name: [years(store, [size, 92, 128], [size], 86_400 / seconds) for size in (400, 2000) for seconds in (60, 600, 3600)]
        for name, store in stores.items()
        if store and store.areas
    }
    said = {name: cells for name, *cells in table(ROOT / "docs" / "online.md", "board | 400 bytes: each minute")}
    assert {name: [float(cell.replace(",", "")) for cell in cells] for name, cells in said.items()} == {
        name: [pytest.approx(cell, rel=0.05, abs=0.05) for cell in cells] for name, cells in rows.items()
    }


def test_the_page_on_boards_says_of_each_that_is_sold_what_was_never_tried() -> None:
    page = ROOT / "docs" / "boards.md"
    untried = {row[0] for row in table(page, "board | addresses and bits")}
    assert untried == {board.name for board in boards.select("all") if board.sold}
    assert not any(board.checked.silicon for board in boards.select("all") if board.checked), (
        "the page says that none was tried"
    )


def test_the_page_on_boards_unlocks_them_by_the_commands_that_flash_names() -> None:
    page = (ROOT / "docs" / "boards.md").read_text().split("## A board that is silent\n")[1]
    said = page.split("```text\n")[1].split("```")[0].splitlines()
    sold = (boards.load(name) for name in ("microbit-v2", "nano-33-ble", "stm32f405"))
    assert said == [line for board in sold for method in board.flash if (line := unlock(method, ""))]


def test_a_board_of_ones_own_is_made_as_the_page_says() -> None:
    section = (ROOT / "docs" / "boards.md").read_text().split("## A board of your own\n")[1]
    script = section.split("```sh\n")[1].split("```")[0]
    tinyfl_itself = f'tinyfl() {{ "{sys.executable}" -m tinyfl.cli "$@"; }}'
    lines = script.replace("cp boards/", f"cp {ROOT}/boards/").replace("tinyfl build", "echo tinyfl build")
    subprocess.run(["bash", "-euc", f"{tinyfl_itself}\n{lines}"], check=True)
    assert boards.load("my-board.toml").name == "my-board"


@pytest.mark.usefixtures("boards_kit", "tensorflow", "estimated")
def test_the_page_on_models_does_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    names = session(ROOT / "docs" / "models.md")
    assert names["theta"].tobytes() == names["same"].tobytes()
    for words in words_of("docs/models.md", "simulate"):
        run_quickly(words)
    for words in words_of("docs/models.md", "plan", "export"):
        app(words, standalone_mode=False)
    capsys.readouterr()
    said = []
    for words in words_of("docs/models.md", "infer"):
        app([*words, "--json"], standalone_mode=False)
        said.append(json.loads(capsys.readouterr().out)["accuracy"])
    assert len(set(said)) == 1
    start, held = np.load("runs/conv/initialisation.npz"), np.load("runs/frozen/initialisation.npz")
    assert bytes(start["plan"]) != bytes(held["plan"])


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in TESTED_APART], ids=name)
def test_python_on_other_pages_runs(page: Path) -> None:
    session(page)


@pytest.mark.slow
def test_the_wisdm_recipe_holds_ten_users_out_and_nothing_of_them_leaks(shared_data: Callable[[str], Path]) -> None:
    source = shared_data("wisdm_users.npz")
    script = next(block for block in blocks(ROOT / "docs" / "tasks.md") if block.title == "wisdm.py")
    Path("wisdm.py").write_text(script.text)
    subprocess.run([sys.executable, "wisdm.py", str(source), "wisdm-0.npz", "0"], check=True)
    theirs, made = np.load(source), np.load("wisdm-0.npz")
    assert len(set(made["split"])) == 10
    missing, held_out = np.isnan(theirs["X"]), np.isin(theirs["user"], made["split"])
    assert missing[held_out].any()
    assert (made["x"][~missing] == theirs["X"][~missing]).all()
    means = np.nanmean(theirs["X"][~held_out], axis=0)
    assert (made["x"][missing] == means[np.nonzero(missing)[1]]).all()

    run = tinyfl.simulate(task="npz", data="wisdm-0.npz", rounds=200, tasks=200, out="run")
    assert run.evaluation[0]["tasks"] == 10
    assert accuracy(run.evaluation) > accuracy(run.baseline)


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_between_pages_resolve(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text)
    for target in (a or b for a, b in targets):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name(page)} links to {target}"
        if anchor and there.suffix == ".md":
            assert anchor in map(slug, re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)), f"{name(page)}: {target}"


@pytest.mark.parametrize("page", FOR_CODE)
def test_paths_that_the_pages_on_code_name_exist(page: str) -> None:
    folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != ".")
    named = re.findall(rf"`((?:{folders})/[^`*]*?)(?:::(\w+))?`", FENCE.sub("", (ROOT / page).read_text()))
    assert len(named) > 30
    for path, test in named:
        there = ROOT / path
        assert there.exists() or "NAME" in path, f"{page} names {path}"
        assert not test or f"def {test}(" in there.read_text(), f"{page} names {path}::{test}"


def test_rooms_import_what_the_map_lets_them_import() -> None:
    rows = {row[0]: set(row[2].split(", ")) for row in table(ROOT / "docs" / "CODE.md", "room | what it is for | may import")}
    of_all = set(list(rows)[:3])
    assert rows.keys() == {room(name) for name in modules()} - {"tinyfl"}
    for number, (name, may) in enumerate(rows.items()):
        used = arrows()[name].keys() - {"tinyfl"}
        assert name == "cli" or used <= may | (of_all if number > 4 else set()), name


@pytest.fixture
def own_package(tmp_path: Path, modules_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of docs/your-own.md, and its package as if it were installed."""
    page = ROOT / "docs" / "your-own.md"
    write_files(page)
    points = tomllib.loads(Path("pyproject.toml").read_text())["project"]["entry-points"]
    installed(tmp_path / "site", "ours", {group.split(".")[1].removesuffix("s"): of for group, of in points.items()})
    for folder in (tmp_path, tmp_path / "site"):
        monkeypatch.syspath_prepend(folder)


@pytest.mark.usefixtures("own_package")
@pytest.mark.parametrize(("page", "line"), list(commands()))
def test_commands_on_the_pages_are_ones_that_the_command_line_takes(page: str, line: str) -> None:
    group: Any = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    if words[0] not in group.commands:
        assert words[0].startswith("-")
        return
    with group.commands[words[0]].make_context(words[0], words[1:]) as context:
        given = {key: value for key, value in context.params.items() if key in Config.__dataclass_fields__}
    if words[0] == "simulate" or (words[0] == "run" and not {"config", "resume"} & {k for k, v in context.params.items() if v}):
        given = {key: (tuple(v) if isinstance(v, list) else str(v) if isinstance(v, Path) else v) for key, v in given.items()}
        resolve(own_code({key: value for key, value in given.items() if value != ()}), installed=True).build()


@pytest.mark.slow
def test_the_readmes_commands_do_their_work(own_data: Path) -> None:
    arrays = np.load(own_data)
    mine = arrays["device"] == 7
    np.savez("new-device.npz", x=arrays["x"][mine], y=arrays["y"][mine])
    own_data.rename("mine.npz")
    for page, line in commands():
        words = shlex.split(line)[1:]
        if page == "README.md" and words[0] == "simulate":
            run_quickly(words)
        elif page == "README.md" and words[0] not in ABOUT_BOARDS:
            app(words, standalone_mode=False)
    assert Path("comparison.html").is_file()
    assert Path("adapted.npz").is_file()
    assert {path.name for path in Path("runs").iterdir()} == {"sine", "joint", "large", "mine", "conv", "conv-0"}


@pytest.mark.usefixtures("boards_kit", "estimated")
def test_the_readmes_boards_are_built_and_learn() -> None:
    for words in words_of("README.md", "build", "plan", "doctor", "devices"):
        app(words, standalone_mode=False)
    (served,) = words_of("README.md", "emulate")
    with emulating(*served) as urls:
        ports = {f"/dev/ttyACM{number}": url for number, url in enumerate(urls)}
        for words in words_of("README.md", "run"):
            if "--federation" in words:
                continue
            run_quickly([ports.get(word, word) for word in words])
    for run, devices in (("runs/boards", 4), ("runs/ports", 2)):
        result = json.loads(Path(run, "result.json").read_text())
        assert (result["left_out"], len(result["boards"])) == ({}, devices)


@pytest.mark.usefixtures("tensorflow", "boards_kit")
def test_five_commands_go_from_an_accelerometers_csv_to_a_model_on_a_board(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("duckdb", reason="needs duckdb: pip install 'tinyfl[data]'")
    write_files(ROOT / "docs" / "accelerometer.md")
    subprocess.run([sys.executable, "motion.py"], check=True)
    check, simulate, export, emulate, push, infer = (
        shlex.split(line)[1:] for page, line in commands() if page == "docs/accelerometer.md"
    )

    def json_of(words: list[str]) -> Any:
        capsys.readouterr()
        app([*words, "--json"], standalone_mode=False)
        return json.loads(capsys.readouterr().out)

    assert json_of(check)["findings"] == []
    result = json_of(simulate)
    assert accuracy(result["evaluation"]) > 0.9 > 0.7 > result["floor"][-1]["accuracy"]
    assert json_of(export)["classes"] == ["rest", "run", "walk"]
    model = Path(push[1])
    assert '"rest"' in model.with_suffix(".c").read_text()
    with emulating(*emulate) as (url,):
        here = {"socket://127.0.0.1:40001": url, "port:socket://127.0.0.1:40001": f"port:{url}"}
        for _ in range(2):  # the second finds it there
            pushed = json_of([here.get(word, word) for word in push])
            assert (pushed["kind"], len(pushed["boards"]), pushed["left"]) == ("int8", 1, 0)
        on_board = json_of([here.get(word, word) for word in infer])
    native = json_of([*infer[:-1], "native"])
    assert (on_board["accuracy"], on_board["samples"]) == (native["accuracy"], native["samples"])
    assert on_board["accuracy"] > 0.9


@pytest.mark.slow
@pytest.mark.usefixtures("boards_kit")
def test_the_page_on_classes_enrols_and_classifies_on_a_board_also_by_a_stock_client(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def json_of(words: list[str]) -> Any:
        capsys.readouterr()
        app([*[word.replace("/dev/ttyACM0", url) for word in words], "--json"], standalone_mode=False)
        return json.loads(capsys.readouterr().out)

    page = "docs/classes.md"
    write_files(ROOT / page)
    for words in words_of(page, "simulate"):
        run_quickly(words)
    y = np.array(session(ROOT / page)["y"])
    (emulate,), (adapt,), (infer,), (push,) = (words_of(page, verb) for verb in ("emulate", "adapt", "infer", "push"))
    with emulating(*emulate) as (url,):
        adapted = json_of(adapt)
        assert adapted["kept"] and adapted["accuracy_on_board"] > 0.6
        assert adapted["accuracy_on_board"] == pytest.approx(adapted["curve"][0]["accuracy"])
        json_of(infer)
        assert (np.load("classes.npy") == np.unique(y, return_inverse=True)[1][20:]).mean() == pytest.approx(
            adapted["accuracy_on_board"]
        )
        assert json_of(push)["left"] == 0
        said = subprocess.run([sys.executable, "stock.py", url, "runs/protonet", "samples.npy"], capture_output=True, text=True)
        assert said.stdout == "class 1, commit 2 of the store\n", said.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("boards_kit")
def test_the_page_on_online_learning_learns_from_a_sensor_also_by_a_stock_client(capsys: pytest.CaptureFixture[str]) -> None:
    page, sensor = ROOT / "docs" / "online.md", ROOT / "docs" / "firmware.md"
    write_files(sensor)
    write_files(page)
    (recorded,) = (block.text for block in blocks(sensor) if 'np.savez("readings.npz"' in block.text)
    exec(recorded, {})
    (emulate,) = words_of("docs/online.md", "emulate")
    labelled, told, stop = (
        words for words in words_of("docs/online.md", "online") if not {"--sensor", "--stop"}.isdisjoint(words)
    )
    with emulating(*emulate) as (url,):

        def json_of(words: list[str]) -> Any:
            capsys.readouterr()
            app([*[word.replace("/dev/ttyACM0", url) for word in words], "--json"], standalone_mode=False)
            return json.loads(capsys.readouterr().out)

        own = json_of(labelled)
        assert (own["labels"], sorted(own["classes"])) == (60, ["rest", "shake", "walk"])
        assert own["error"] < 0.3
        now = json_of(told)
        assert now["classes"] == [*own["classes"], "climbing"]
        assert now["goes_on"]
        said = subprocess.run([sys.executable, "label.py", url, "jumping"], capture_output=True, text=True)
        assert "jumping, loss" in said.stdout, said.stderr
        assert said.stdout.endswith("5 classes\n")
        stopped = json_of(stop)
        assert (stopped["goes_on"], len(stopped["classes"])) == (False, 5)
        for label in ("jumping", "walk"):  # the last sample may have its label by now, or get it, but only once
            said = subprocess.run([sys.executable, "label.py", url, label], capture_output=True, text=True)
        assert said.stdout.endswith("does not wait for a label: the board must be going\n"), said.stderr
        assert not said.stderr


@pytest.mark.slow
def test_the_readmes_first_run_beats_a_random_start_and_the_nearest_mean_by_ten_points() -> None:
    run = tinyfl.simulate(tasks=300)
    assert run.result["devices"] >= 1000
    assert (run.path / "report.html").is_file()
    floor = next(row["accuracy"] for row in run.result["floor"] if row["shots"] == 1)
    assert accuracy(run.evaluation) >= max(accuracy(run.baseline), floor) + 0.1


def kinds(base: type[TinyflError] = TinyflError) -> list[type[TinyflError]]:
    """The kinds of tinyfl.errors. Those of a LinkError are the reasons in its section's table; those that other modules derive
    share their codes."""
    own = [sub for sub in base.__subclasses__() if sub.__module__ == base.__module__ and base is not LinkError]
    return [base, *(kind for sub in own for kind in kinds(sub))]


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_of_error_has_a_section_with_its_exit_code(kind: type[TinyflError]) -> None:
    text = (ROOT / "docs" / "exit-codes.md").read_text()
    section = re.search(rf"^## {kind.exit_code} (.*{kind.__name__}.*)\n\n(.+)", text, re.MULTILINE)
    assert section, f"{kind.__name__} has no section with {kind.exit_code}"
    assert f"| [{kind.exit_code}](#{slug(f'{kind.exit_code} {section[1]}')}) |" in text


def table(page: Path, first: str) -> list[list[str]]:
    """The rows of the page's table whose head starts with ``first``, with code marks left out."""
    lines = page.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
    return rows


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_algorithms_page_has_the_defaults_that_a_run_takes(algorithm: str) -> None:
    for setting, default, _ in table(ROOT / "docs" / "algorithms" / f"{algorithm}.md", "setting"):
        usual, _, others = default.partition("; ")
        told = dict(part.split() for part in filter(None, others.split(", ")))
        assert set(told) <= set(TASKS)
        for task, entry in TASKS.items():
            found = getattr(resolve({"task": task, "algorithm": algorithm}), setting)
            value = entry.defaults[setting] if usual == "[the task's](../tasks.md)" else usual
            assert found == type(found)(told.get(task, value)), f"{setting} of {task}"


def test_the_page_on_tasks_has_the_defaults_that_a_run_takes() -> None:
    rows = table(ROOT / "docs" / "tasks.md", "task | network")
    assert {row[0] for row in rows} == set(TASKS)
    for task, network, devices, cohort, rounds, shots in rows:
        config = resolve({"task": task})
        assert config.network == network
        assert config.devices == (0 if devices == "all training devices" else int(devices))
        assert (config.cohort, config.rounds) == (int(cohort), int(rounds))
        assert config.shots == tuple(map(int, shots.split(", ")))


X, Y, DEVICE = np.ones((12, 2)), np.arange(12) % 2, np.repeat(np.arange(6), 2)
HOLE = np.where(np.arange(24).reshape(12, 2) == 11, np.nan, X)
NEVER = np.c_[X[:, 0], np.full(12, np.nan)]
BAD_DATA: list[dict[str, Any] | None] = [
    None,
    {"x": X},
    {"x": X.astype(str), "y": Y, "device": DEVICE},
    {"x": NEVER, "y": Y, "device": DEVICE},
    {"x": np.where(np.isnan(HOLE), np.inf, HOLE), "y": Y, "device": DEVICE},
    {"x": X, "y": Y[:5], "device": DEVICE},
    {"x": X, "y": Y, "device": DEVICE[:5]},
    {"x": X, "y": Y, "device": np.stack([DEVICE, DEVICE], axis=1)},
    {"x": X, "y": np.c_[Y, Y], "device": DEVICE},
    {"x": X, "y": Y.astype(object), "device": DEVICE},
    {"x": X, "y": HOLE[:, 1], "device": DEVICE},
    {"x": X, "y": Y, "device": DEVICE, "split": [6]},
    {"x": X, "y": Y, "device": DEVICE, "validation": [6]},
    {"x": X, "y": Y, "device": DEVICE, "split": [1], "validation": [1]},
    {"x": X, "y": Y, "device": DEVICE, "split": [1], "validation": [0, 2, 3, 4, 5]},
    {"x": X, "y": Y, "device": DEVICE, "split": [0, 1, 2, 3, 4]},
    {"x": X, "y": np.where(DEVICE == 5, 9, Y), "device": DEVICE, "split": [5]},
    {"x": X, "y": 0 * Y, "device": DEVICE},
    {"x": X, "y": X[:, 0] / 4, "device": DEVICE},
    {"x": X, "y": Y, "device": DEVICE},
]


def test_what_a_data_set_is_refused_for_is_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def pattern(message: str) -> re.Pattern[str]:
        return re.compile(re.sub(r"\bN\b", "[0-9.,]+", re.escape(message).replace(r"\.\.\.", ".*")))

    listed = {pattern(part): part for row in table(ROOT / "docs" / "tasks.md", "message") for part in row[0].split("; ")}
    seen = set()
    Path("text.npz").write_text("no arrays")
    for number, arrays in enumerate([*BAD_DATA, {}, BAD_DATA[-1]]):
        if number > len(BAD_DATA):  # the last is read by a machine whose memory is full
            monkeypatch.setattr("tinyfl.system.files.memory", lambda: 0)
        path = Path(f"{number}.npz" if arrays != {} else "text.npz")
        if arrays:
            np.savez(path, **arrays)
        with pytest.raises(DataError) as refused:
            load_task("npz", path, 0).episodes("test", 10, 2)
        said = {part for sought, part in listed.items() if sought.search(str(refused.value))}
        assert said, f"docs/tasks.md has no cure for: {refused.value}"
        seen |= said
    assert seen == set(listed.values())
