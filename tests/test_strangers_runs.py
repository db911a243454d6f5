"""A stranger's run directory: what is wrong with it is refused by name, and what it says is shown as words."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyfl
from tinyfl.costs.models import load_model
from tinyfl.devices import push
from tinyfl.errors import RunError
from tinyfl.report import figures
from tinyfl.report import page as report
from tinyfl.runs.adaptation import Initialisation, adapt
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.finished import origin

TINY = {"task": "sine", "network": "mlp-4", "devices": 5, "rounds": 4, "tasks": 2, "adapt_lr": 0.01}
HOSTILE = (
    "\x1b]0;t\x07\x1b[2J\u202e</pre><script>alert(1)</script><b onload='x'>[/x][bold]$(touch PWNED)`\n../../" + "x" * 100_000
)
Run = Callable[[], Path]


@pytest.fixture(scope="module", autouse=True)
def coarse_pictures(rendered: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "DPI", 30)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    return {name: tinyfl.simulate(out=root / name, seed=i, **TINY).path for i, name in enumerate(("own", "other"))}


@pytest.fixture
def run(finished: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished["own"], tmp_path / "run"))


MAY_BE_NULL = ("loss", "loss_ci95", "accuracy", "accuracy_ci95", "mae", "mae_ci95", "r2")


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in JSON, the tables and lists among them."""
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from leaves(item, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


@pytest.mark.slow
def test_every_wrong_value_in_the_result_is_refused_by_its_name(run: Path) -> None:
    file = run / "result.json"
    whole = json.loads(file.read_text())
    whole["left_out"] = {"late": 1}
    tried = 0
    for path in leaves(whole):
        if path and path[0] in ("privacy", "boards", "run"):  # nothing is read from these but words
            continue
        held = whole
        for key in path:
            held = held[key]
        for new in ("x", -1, float("nan"), float("inf"), 10**200, 10**5000, True, [], {}, None):
            right = type(new) is type(held) and not isinstance(new, float | int)
            right |= path[-1:] == ("r2",) and new == -1
            if right or (new is None and path[-1:] and path[-1] in MAY_BE_NULL):
                continue
            file.write_text(json.dumps(changed(whole, path, new)) if new != 10**5000 else "{" + f'"rounds": {"1" * 5001}' + "}")
            with pytest.raises(RunError) as refused:
                RunDirectory(run).result()
            said = str(refused.value)
            assert str(file) in said and "--resume" in said and len(said) < 2000
            assert new == 10**5000 or not path or path[0] in said or "same rows" in said or "different runs" in said, (
                path,
                said,
            )
            tried += 1
    assert tried > 500
    for text in ("[" * 100_000, "\0", "", "[1]", '{"a": NaN}', "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")):
        file.write_text(text)
        with pytest.raises(RunError, match=r"result\.json is damaged"):
            RunDirectory(run).result()


class Page(HTMLParser):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def words(value: Any, path: tuple[Any, ...] = ()) -> Any:
    """``value`` with all its free words hostile, the keys of tables among them."""
    if isinstance(value, dict):
        return {HOSTILE if path == ("left_out",) else key: words(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [words(item, path) for item in value]
    return (
        HOSTILE
        if isinstance(value, str) and path[-1] not in ("mode", "shots_of") and not path[-1].endswith("sha256")
        else value
    )


@pytest.mark.slow
def test_hostile_words_and_extreme_numbers_in_a_result_stay_words_and_numbers_on_its_pages(run: Path, tmp_path: Path) -> None:
    honest = Page(run / "report.html")
    result = words({**json.loads((run / "result.json").read_text()), "left_out": {"late": 1}, "boards": [{"board": "x"}]})
    for row in result["evaluation"]:
        row |= {"loss": 1e150, "loss_ci95": 1e150, "adapt_lr": 1e15, "tasks": 1 << 95}
    result |= {"device_rounds": 1 << 95, "bytes_down": 1 << 95, "seconds": 1e150, "device_rounds_per_s": 1e150}
    (run / "result.json").write_text(json.dumps(result))
    pages = [report.rebuild(run), report.compare([run, run], tmp_path / "both.html")]
    for page in pages:
        seen, text = Page(page), page.read_text()
        assert seen.tags <= honest.tags | {"br"} and seen.attributes <= honest.attributes
        assert "&lt;script&gt;" in text and not re.search("[\x00-\x08\x0b-\x1f\u202e]", text) and "x" * 1000 not in text


@pytest.mark.parametrize(
    ("take", "named"),
    [
        (lambda run: adapt(run, run / "absent.npz"), "adapt"),
        (lambda run: push.load(str(run)), "push"),
        (lambda run: push.load(str(run / "initialisation.npz")), "push"),
        (lambda run: load_model(str(run)), "plan"),
        (lambda run: origin(run, None), "export"),
        (report.rebuild, "report"),
    ],
)
@pytest.mark.parametrize("swapped", ["initialisation.npz", "result.json", "config.toml"])
def test_what_is_of_another_run_is_refused(
    run: Path, finished: dict[str, Path], take: Callable[[Path], object], named: str, swapped: str
) -> None:
    shutil.copy(finished["other"] / swapped, run / swapped)
    with pytest.raises(RunError, match=r"are from different runs.*Restore the files that belong together.*tinyfl run --resume"):
        take(run)
    (run / "result.json").unlink()
    with pytest.raises(RunError, match="has not finished"):
        take(run)


def test_runs_whose_result_is_not_theirs_are_not_compared(run: Path, finished: dict[str, Path], tmp_path: Path) -> None:
    shutil.copy(finished["other"] / "result.json", run / "result.json")
    with pytest.raises(RunError, match="different runs"):
        report.compare([run, finished["other"]], tmp_path / "both.html")


def test_an_initialisation_apart_from_its_run_is_taken(run: Path, tmp_path: Path) -> None:
    apart = tmp_path / "apart"
    apart.mkdir()
    shutil.copy(run / "initialisation.npz", apart)
    assert (Initialisation.load(apart).theta == Initialisation.load(run).theta).all()


WRONG_ARRAYS: list[tuple[str, Any, str]] = [
    ("theta", np.zeros(3, np.float32), "theta is not"),
    ("theta", np.zeros(13, np.float64), "theta is not"),
    ("theta", np.full(13, np.nan, np.float32), "theta is not"),
    ("theta", np.array("a" * 13), "theta is not"),
    ("network", 7, "network: "),
    ("task", np.array(["a", "b"]), "task: "),
    ("clip", "none", "clip: "),
    ("clip", -1.0, "clip: "),
    ("adapt_lr_batch", np.nan, "adapt_lr_batch: "),
    ("adapt_lr_stream", 0.0, "adapt_lr_stream: "),
    ("rates", np.array([[1.0, 0.1, np.inf]]), "rates is float64"),
    ("rates", np.zeros(()), "rates is float64"),
    ("rates", np.zeros((0, 3)), "rates is float64"),
    ("mean", np.zeros(1, "c8"), "no initialisation written by tinyfl"),
    ("mean", np.zeros((1, 1), np.float32), "mean is not"),
    ("scale", np.zeros(1, np.float32), "scale is not 1 finite numbers above 0"),
    ("classes", np.arange(4), "classes is int64"),
    ("shape", np.array([1.0]), "its shape"),
    ("plan", np.zeros(8, np.uint8), "is damaged"),
    ("plan", np.array("plan"), "its plan is"),
    ("config_sha256", "x", "config_sha256: "),
]


@pytest.mark.parametrize(("name", "value", "says"), WRONG_ARRAYS)
def test_a_wrong_array_of_an_initialisation_is_refused_by_its_name(run: Path, name: str, value: Any, says: str) -> None:
    file = run / "initialisation.npz"
    with np.load(file) as held:
        arrays = dict(held)
    np.savez(file, **{**arrays, name: value})
    with pytest.raises(RunError, match=says) as refused:
        Initialisation.load(run)
    assert str(file) in str(refused.value)


def test_a_networks_hostile_name_is_cut_and_made_plain(run: Path, tmp_path: Path) -> None:
    with np.load(run / "initialisation.npz") as held:
        np.savez(tmp_path / "w.npz", **{**held, "network": HOSTILE})
    name = Initialisation.load(tmp_path / "w.npz").network.name
    assert len(name) <= 80 and name.isprintable()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("round", -1, "round: "),
        ("round", 1.5, "round: "),
        ("round", 9, "is from another run"),
        ("theta", np.zeros(13, ">f8"), "theta is not one row"),
        ("theta", np.full(13, np.inf, np.float32), "theta is not one row"),
        ("left_out", "[]", "left_out: "),
        ("left_out", '{"late": "many"}', "left_out.late: "),
        ("seconds", np.nan, "seconds: "),
        ("losses", np.array(["a"]), "losses is not one row"),
        ("data_sha256", "\x1b[2J", "data_sha256: "),
    ],
)
def test_a_wrong_checkpoint_is_refused_by_its_name(run: Path, name: str, value: Any, says: str) -> None:
    file = run / "checkpoint" / "state.npz"
    with np.load(file) as held:
        np.savez(file, **{**held, name: value})
    with pytest.raises(RunError, match=says) as refused:
        tinyfl.simulate(resume=run)
    assert str(file) in str(refused.value) and str(refused.value).isprintable()


def test_a_checkpoint_in_another_byte_order_goes_on_to_the_same_theta(run: Path) -> None:
    file = run / "checkpoint" / "state.npz"
    with np.load(file) as held:
        np.savez(file, **{**held, "theta": held["theta"].astype(">f4")})
    before = RunDirectory(run).result()["theta_sha256"]
    assert tinyfl.simulate(resume=run).result["theta_sha256"] == before


@pytest.mark.parametrize("file", ["metrics.jsonl", "rounds.jsonl"])
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"round": "1", "loss": 1.0}', "round: "),
        ('{"round": -1, "loss": 1.0}', "round: "),
        ('{"loss": 1.0}', "round: is missing"),
        ("[" * 50_000, "is damaged"),
        ("7", "is damaged"),
    ],
)
def test_a_wrong_line_of_a_log_is_refused_by_its_name(run: Path, file: str, line: str, says: str) -> None:
    (run / file).write_text(f"{line}\n")
    with pytest.raises(RunError, match=says) as refused:
        RunDirectory(run).trim(4)
    assert file in str(refused.value)
    (run / file).write_text('{"round": 1, "loss": 1.0}\n{"round": 2, "left_out": {}')  # cut off
    RunDirectory(run).trim(4)
    assert (run / file).read_text() == '{"round": 1, "loss": 1.0}\n'


WRONG_LINES = [
    'seed = "x"', "rounds = 1e400", "rate = nan", f"seed = 1{'0' * 5000}", 'devices = "many"', "shots = [[1]]", "task = []",
    "fleet = 7", "[[fleet]]\nnative = []", f"a = {'[' * 5000}", 'data = "\\u0000"', 'network = "\\u0000.keras"',
    f'nodes = "{"9" * 5000}"',
]  # fmt: skip


@pytest.mark.parametrize("line", WRONG_LINES, ids=lambda line: line[:20])
def test_a_wrong_config_is_refused_and_named(run: Path, line: str) -> None:
    key = line.partition(" ")[0]
    file = run / "config.toml"
    kept = [each for each in file.read_text().splitlines() if not each.startswith(f"{key} =")]
    file.write_text("\n".join([line, *kept] if not line.startswith("[[") else [*kept, line]))
    for take in (report.rebuild, lambda run: tinyfl.simulate(resume=run), lambda run: push.load(str(run))):
        with pytest.raises(RunError) as refused:
            take(run)
        assert "config.toml" in str(refused.value)
