import json
import re
import shutil
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import tinyfl
from tinyfl.errors import ConfigError, RunError
from tinyfl.report import figures, html, page
from tinyfl.report.devices import Comparison, device_figures
from tinyfl.report.verdict import interval
from tinyfl.runs.adaptation import Initialisation
from tinyfl.runs.directory import RunDirectory
from tinyfl.tasks import load_task

QUICK = {"network": "mlp-8", "rounds": 12, "cohort": 2, "samples": 8, "tasks": 20, "adapt_lr": 0.05}


def write_npz(path: Path, *, classifies: bool) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12 * 20, 3)).astype(np.float32)
    y = x.sum(axis=1) + rng.normal(size=len(x))
    np.savez(path, x=x, y=(y > 0).astype(np.int64) if classifies else y, device=np.repeat(np.arange(12), 20))
    return path


@pytest.fixture(scope="module", autouse=True)
def coarse_pictures(rendered: None) -> Iterator[None]:
    """Quicker to draw, and the same otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "DPI", 40)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small run of each kind of task."""
    root = tmp_path_factory.mktemp("runs")
    hostile = write_npz(root / '<img src=x onerror="alert(1)"> & $x$.npz', classifies=True)
    regression = write_npz(root / "rooms.npz", classifies=False)
    options = {
        "digits": {"task": "digits", "devices": 20, "shots": (1,)},
        "sine": {"task": "sine", "devices": 20},
        "classes": {"task": "npz", "data": str(hostile), "shots": (1, 5)},
        "values": {"task": "npz", "data": str(regression)},
    }
    return {name: tinyfl.simulate(out=root / name, **QUICK, **given).path for name, given in options.items()}


@pytest.fixture
def run(finished: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a finished run that a test may spoil."""
    return lambda name, to=None: Path(shutil.copytree(finished[name], tmp_path / (to or name)))


def text(path: Path) -> str:
    return (path if path.suffix == ".html" else path / page.REPORT).read_text()


def words(path: Path) -> str:
    """What a reader sees of the page, without its pictures and style."""
    body = text(path).partition("<body>")[2]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", body)))


class Tags(HTMLParser):
    """Every tag of a page with its attributes; fails on tags that do not nest."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(source)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def assert_png(data: bytes) -> None:
    """Walks the chunks and checks each one's CRC."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, kinds = 8, []
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 4 : at + 8 + length]
        assert zlib.crc32(body) == struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0]
        kinds.append(kind)
        at += 12 + length
    assert kinds[0] == b"IHDR"
    assert kinds[-1] == b"IEND"


def change(path: Path, **values: object) -> None:
    result = json.loads((path / "result.json").read_text())
    (path / "result.json").write_text(json.dumps({**result, **values}))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "sine", "classes", "values"])
def test_the_page_needs_nothing_from_elsewhere(finished: dict[str, Path], name: str) -> None:
    source = text(finished[name])
    tags = Tags(source).found
    assert not [tag for tag, _ in tags if tag in ("script", "link", "iframe", "object")]
    assert not [key for _, attributes in tags for key in attributes if key.startswith("on")]
    assert all(attributes["src"].startswith("data:image/png;base64,") for tag, attributes in tags if tag == "img")
    assert not [attributes for _, attributes in tags if "href" in attributes]
    assert "url(" not in source
    assert "@import" not in source
    assert [tag for tag, _ in tags].count("img") == 4


def test_r2_and_the_mean_absolute_error_are_on_the_page_and_on_the_card_of_values(finished: dict[str, Path]) -> None:
    from tinyfl.export.card import _learnt

    result = json.loads((finished["values"] / "result.json").read_text())
    row = next(row for row in result["evaluation"] if (row["mode"], row["steps"]) == ("batch", 10))
    shown = words(finished["values"])
    assert "loss mean absolute error R² rate loss mean absolute error R² devices" in shown
    assert f"{row['r2']:.3f}" in shown
    assert "R²" not in words(finished["classes"])
    learnt = {**result, "data": "", "evaluation": row}
    facts = {"task": "npz", "about": "", "learnt": learnt, "seed": 0, "config_sha256": "", "tinyfl": "", "tensorflow": ""}
    card = " ".join(_learnt(facts))
    assert f"mean absolute error {row['mae']:.4g} ± {row['mae_ci95']:.2g} and R² {row['r2']:.3f}, after 10" in card


@pytest.mark.parametrize("name", ["digits", "sine", "classes", "values"])
def test_the_figures_stand_beside_the_page(finished: dict[str, Path], name: str) -> None:
    for png in ("learning.png", "adaptation.png", "bytes.png", "devices.png"):
        assert_png((finished[name] / png).read_bytes())
    assert not list(finished[name].glob("*.new"))


@pytest.mark.parametrize("name", ["digits", "sine", "classes", "values"])
def test_the_headline_leads_with_the_adapted_result(finished: dict[str, Path], name: str) -> None:
    result = json.loads((finished[name] / "result.json").read_text())
    row = next(row for row in result["evaluation"] if (row["mode"], row["steps"]) == ("batch", 10))
    headline = re.search(r'<p class="headline">(.*?)</p>', text(finished[name]))[1]
    if row["accuracy"] is None:
        reached = html.loss(row["loss"], row["loss_ci95"])
    else:
        reached = f"{100 * row['accuracy']:.1f} % ± {100 * row['accuracy_ci95']:.1f}"
    assert f'<strong class="n">{reached}</strong>' in headline
    assert headline.startswith("After 10 steps on")


def test_the_page_says_what_each_device_needed_and_how_to_repeat_the_run(finished: dict[str, Path]) -> None:
    result = json.loads((finished["digits"] / "result.json").read_text())
    seen = words(finished["digits"])
    assert "Rounds each device took part in 1.2 on average" in seen
    assert result["theta_sha256"] in seen
    assert result["tinyfl"].startswith(tinyfl.__version__)
    assert f"tinyfl {result['tinyfl']}" in seen
    assert f"tinyfl run {finished['digits']}/config.toml" in seen
    assert "no measure of meta-learning" in seen


def test_the_page_says_what_went_over_the_line(finished: dict[str, Path]) -> None:
    result = json.loads((finished["digits"] / "result.json").read_text())
    seen = words(finished["digits"])
    down, up = (result[f"line_bytes_{way}"] / result["device_rounds"] for way in ("down", "up"))
    assert 4 * result["parameters"] < down < 1.1 * 4 * result["parameters"] + 300
    assert f"A round takes {html.size(down + up)} on a device's line, and the whole run" in seen
    part = result["line_bytes_by_part"]["down"]
    sizes = " ".join(html.size(part[way] / result["device_rounds"]) for way in ("down", "up"))
    assert f"Weights down {sizes} theta as fp32 Learning" in seen
    assert f"In all {html.size(down)} {html.size(up)} Means over device-rounds" in seen
    assert f"take {html.seconds((down + up) * 10 / 115_200)} at 115,200 baud" in seen
    assert "line in use" not in seen


def test_every_row_of_the_evaluation_is_in_the_table(finished: dict[str, Path]) -> None:
    result = json.loads((finished["digits"] / "result.json").read_text())
    seen = words(finished["digits"])
    for row in [*result["evaluation"], *result["baseline"]]:
        assert html.loss(row["loss"], row["loss_ci95"]) in seen
        assert html.percent(row["accuracy"], row["accuracy_ci95"]) in seen


def test_hostile_names_stay_text(run: Callable[..., Path]) -> None:
    path = run("classes", "<script>alert(1)<:script>")
    floor = [{**row, "method": "<u>mean</u>"} for row in json.loads((path / "result.json").read_text())["floor"]]
    change(path, network="<u>net</u>", left_out={"<b>late</b>": 3}, verdict="<u>worse</u>", notes=["<u>x</u>"], floor=floor)
    slow = {"kind": "<u>slow</u>", "devices": 4, "arrivals": 9, "left_out": 1, "weight": 8.0, "staleness": {"0": 8}}
    change(path, local=["<u>head</u>"], staleness=[slow])
    page.rebuild(path)
    assert not [tag for tag, _ in Tags(text(path)).found if tag in ("script", "u")]
    assert "<b>late</b>" not in text(path)
    assert "3 <b>late</b>" in words(path)
    assert '<img src=x onerror="alert(1)"> & $x$.npz' in words(path)


def test_hostile_run_names_stay_text_in_a_comparison_and_its_legend(run: Callable[..., Path], tmp_path: Path) -> None:
    one, other = run("digits", "_$\\frac{$<script>"), run("digits", "plain")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = page.compare([one, other], tmp_path / "both.html")
    assert not [tag for tag, _ in Tags(text(out)).found if tag == "script"]
    assert "_$\\frac{$<script>" in words(out)


@pytest.mark.slow
def test_the_page_begins_with_what_is_worse_than_the_floor_and_says_what_was_made_of_the_data(run: Callable[..., Path]) -> None:
    path = run("values")
    assert 'class="verdict"' not in text(path)
    assert "R² " in words(path)
    assert "x: (x - mean) / deviation of the training devices" in words(path)
    change(path, verdict="Worse than without a network: 7")
    page.rebuild(path)
    body = text(path).partition("</header>")[2].strip()
    assert body.startswith('<p class="verdict">Worse than without a network: 7</p>')
    old = {row["shots"]: row for row in json.loads((path / "result.json").read_text())["floor"]}
    change(path, floor=[{k: v for k, v in row.items() if k != "method"} for row in old.values()])
    page.rebuild(path)  # as an older tinyfl left it


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "values"])
def test_what_diverged_is_said_and_crashes_nothing(run: Callable[..., Path], name: str, tmp_path: Path) -> None:
    path = run(name)
    result = json.loads((path / "result.json").read_text())
    for row in [*result["evaluation"], *result["baseline"]]:
        row["loss"] = row["loss_ci95"] = None
    change(path, evaluation=result["evaluation"], baseline=result["baseline"])
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    (path / "metrics.jsonl").write_text("".join(json.dumps({**line, "loss": None}) + "\n" for line in lines))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page.rebuild(path)
        page.compare([path, run(name, "other")], tmp_path / "both.html")
    assert "diverged" in words(path)
    assert "nan" not in words(path).lower().split()
    assert "None" not in words(path)


@pytest.mark.parametrize("name", ["digits", "sine", "classes", "values"])
def test_devices_that_diverge_crash_no_figure(finished: dict[str, Path], name: str) -> None:
    held, config = Initialisation.load(finished[name]), RunDirectory(finished[name]).config()
    task = load_task(config.task, Path(config.data) if config.data else None, config.seed)
    wild = Comparison(held.network, held.theta, held.theta, 1e6, 1e6, config.shots[0], config.tasks, config.clip)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = device_figures(task, wild)
    assert_png(picture.png)


@pytest.mark.parametrize("name", ["digits", "sine", "values"])
def test_a_page_rebuilt_from_the_directory_alone_is_the_same(finished: dict[str, Path], name: str) -> None:
    before = text(finished[name])
    assert page.rebuild(finished[name]) == finished[name] / page.REPORT
    assert text(finished[name]) == before


@pytest.mark.parametrize("fate", ["gone", "changed"])
def test_without_its_data_a_rebuilt_page_lacks_only_the_devices(run: Callable[..., Path], tmp_path: Path, fate: str) -> None:
    path = run("values")
    data = tmp_path / "moved.npz"
    if fate == "changed":
        write_npz(data, classifies=False)
        data.write_bytes(data.read_bytes() + b"more")
    config = (path / "config.toml").read_text()
    (path / "config.toml").write_text(re.sub(r'data = ".*"', f'data = "{data}"', config))
    before = [attributes["src"] for tag, attributes in Tags(text(path)).found if tag == "img"]
    page.rebuild(path)
    after = [attributes["src"] for tag, attributes in Tags(text(path)).found if tag == "img"]
    assert after == [*before[:2], before[3]]
    assert f"needs the data of the run. {data}" in words(path)


def test_a_comparison_shows_every_run_and_bolds_the_best(run: Callable[..., Path], tmp_path: Path) -> None:
    good, bad = run("digits", "good"), run("digits", "bad")
    result = json.loads((bad / "result.json").read_text())
    for row in result["evaluation"]:
        row["accuracy"] /= 2
    change(bad, algorithm="fedavg", evaluation=result["evaluation"])
    out = page.compare([bad, good], tmp_path / "pages" / "both.html")
    source = text(out)
    assert len([tag for tag, _ in Tags(source).found if tag == "img"]) == 1
    assert "bad digits fedavg mlp-8-leaky-relu" in words(out)
    rows = re.findall(r'<tr><th scope="row">(.*?)</tr>', source)
    assert [row.count("best") for row in rows] == [0, 2]


def test_runs_of_different_tasks_or_data_are_not_compared(
    finished: dict[str, Path], run: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"task digits.*task sine.*\btinyfl report"):
        page.compare([finished["digits"], finished["sine"]], tmp_path / "out.html")
    with pytest.raises(ConfigError, match="other data"):
        page.compare([finished["classes"], finished["values"]], tmp_path / "out.html")
    with pytest.raises(ConfigError, match="no runs"):
        page.compare([], tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()


def test_an_unfinished_run_is_refused_with_its_cure(run: Callable[..., Path], tmp_path: Path) -> None:
    path = run("digits")
    (path / "result.json").unlink()
    for make in (lambda: page.rebuild(path), lambda: page.compare([path], tmp_path / "out.html")):
        with pytest.raises(RunError, match="tinyfl run --resume"):
            make()


def test_numbers_read_as_a_person_writes_them() -> None:
    assert html.size(999) == "999 bytes"
    assert html.size(4612) == "4.6 KB"
    assert html.size(2_766_400_000) == "2.8 GB"
    assert html.percent(0.912, 0.0041) == "91.2 % ± 0.4"
    assert html.percent(0.912, None) == "91.2 %"
    assert html.loss(0.0102738, 0.00128) == "0.0103 ± 0.0013"
    assert html.loss(12345.6, 345.6) == "12,346 ± 346"
    assert html.loss(4.2249) == "4.22"
    assert html.loss(None, None) == "diverged"
    assert html.seconds(6.003) == "6.0 s"
    assert html.seconds(0.0263) == "26 ms"
    assert html.counted(1, "shot") == "1 shot"
    assert html.counted(1000, "device") == "1,000 devices"


@pytest.mark.slow
def test_page_says_which_devices_were_boards(tmp_path: Path) -> None:
    run = tinyfl.simulate(task="sine", network="mlp-4", devices=5, rounds=4, tasks=2, out=tmp_path / "run")
    down = {"times": 8, "sent": 1000, "received": 100, "seconds": 1.0, "at_rate": None}
    boards = [*({"device": i, "board": "mps2-an386"} for i in range(2)), {"device": 2, "port": "/dev/x"}]
    (run.path / "result.json").write_text(json.dumps({**run.result, "boards": boards, "line": {"down": down}}))
    text = page.rebuild(run.path).read_text()
    assert "Means over 8 rounds of single boards" in text
    assert "2 simulated, 2 boards mps2-an386, 1 board at a port" in text


def test_of_a_single_held_out_device_there_is_no_interval_and_the_table_says_why() -> None:
    assert interval([{"tasks": 1}, {"tasks": 1}]).startswith("no ±: a single device was held out")
    assert interval([{"tasks": 2}, {"tasks": 2}]) == "± half of a 95 % interval over devices"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.674, "1.67"), (16.74, "16.7"), (999.6, "1,000"), (7321, "7,320"), (0.01674, "0.0167"), (7321e6, "7,320,000,000")],
)
def test_three_digits_have_no_exponent(value: float, shown: str) -> None:
    assert html.three_digits(value) == shown
