"""What people mistype is refused with a cure, and the cure works."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyfl
from tinyfl.cli import app
from tinyfl.data.arrays import by_names
from tinyfl.errors import ConfigError, DataError
from tinyfl.fleet import draw_cohort
from tinyfl.flower.settings import from_run_config
from tinyfl.tasks import load_task

SINE = ["simulate", "--task", "sine", "--network", "mlp-4", "--devices", "4", "--cohort", "1"]
OWN = ["simulate", "--task", "npz", "--network", "mlp-4", "--cohort", "1"]
SHORT = ["--rounds", "2", "--tasks", "2", "--shots", "1", "--out", "made"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run and samples of ten people."""
    folder = tmp_path_factory.mktemp("place")
    tinyfl.simulate(
        task="sine", network="mlp-4", devices=4, cohort=1, rounds=2, tasks=2, shots=1, out=folder / "sine", page=False
    )
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 60)
    np.savez(folder / "own.npz", x=rng.normal(y[:, None], 0.3, (120, 2)), y=y, device=np.repeat(np.arange(10), 12))
    np.savez(folder / "one.npz", x=rng.normal(size=(20, 1)), y=rng.normal(size=20))
    return folder


@pytest.fixture(autouse=True)
def there(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in ("sine", "own.npz", "one.npz"):
        (tmp_path / each).symlink_to(place / each)
    monkeypatch.chdir(tmp_path)


META = [*SINE, "--algorithm", "tinymetafed", *SHORT]


@pytest.mark.parametrize(
    ("refused", "why", "cured"),
    [
        ([*META, "--local", "top"], "no layer is called 'top'. Give --local one or more of dense-0, dense-1",
         [*META, "--local", "dense-1"]),
        ([*META, "--local", "dense-0,dense-1"], "all layers are local (dense-0,dense-1), and none is left",
         [*META, "--local", "dense-0"]),
        ([*META, "--samples", "8", "--local-samples", "8"], "Give more --samples, or other --local-samples",
         [*META, "--samples", "9", "--local-samples", "8"]),
        ([*SINE, *SHORT, "--outer-optimiser", "adam", "--outer-step", "1"], "Give a smaller one, such as --outer-step 0.001",
         [*SINE, *SHORT, "--outer-optimiser", "adam", "--outer-step", "0.001"]),
        ([*OWN, *SHORT, "--data", "own.npz", "--devices", "99"], "Leave --devices out to use them all",
         [*OWN, *SHORT, "--data", "own.npz"]),
        (["simulate", "--algorithm", "protonet", "--network", "mlp-5", "--cohort", "1", *SHORT, "--training-ways", "7"],
         "a device of task digits has 5 classes: leave --training-ways out",
         ["simulate", "--algorithm", "protonet", "--network", "mlp-5", "--cohort", "1", *SHORT]),
        (["report", "sine", "--out", "page.html"], "leave --out out, or name several runs", ["report", "sine"]),
        (["adapt", "sine", "--data", "one.npz", "--on", "emulated:mps2-an386"], "Leave --on out, or take a run of protonet",
         ["adapt", "sine", "--data", "one.npz"]),
        (["plan", "sine", "--shape", "4", "--outputs", "2"], "leave --shape and --outputs out", None),
        (["superlink", "--insecure", "--keys", "keys"], "--insecure has no keys. Leave it out, or --keys", None),
        (["gateway", "--superlink", "lab:x", "--insecure"], "is no address. Give HOST:PORT", None),
        (["gateway", "--superlink", "127.0.0.1:9", "--insecure", "--key", "a.key"], "Leave it out, or them", None),
        (["push", "sine", "--port", "x", "--baud", "fast"], "--baud fast is no speed: give a number up to", None),
        (["record", "x", "--sensor", "imu", "--out", "readings.csv"], "is not an .npz file. Give it that ending", None),
        (["flash", "--board", "microbit-v2", "--method", "wish"], "no flash method is called 'wish'. There are:", None),
        (["flash", "--port", "x", "--board", "pico", "--board", "microbit-v2"], "give --board only once", None),
        (["online", "sine", "--task", "digits"], "takes 1 inputs, and task digits has 64", None),
    ],
    ids=lambda each: " ".join(each[-3:]) if isinstance(each, list) else "",
)  # fmt: skip
def test_a_command_is_refused_and_with_its_cure_it_works(refused: list[str], why: str, cured: list[str] | None) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)):
        app(refused, standalone_mode=False)
    assert not Path("made").exists()
    if cured:
        assert not app(cured, standalone_mode=False)


def write(name: str, text: str) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(text)


ROWS = "a,b,user\n" + "".join(f"{i},{i % 2},u{i // 6}\n" for i in range(60))


@pytest.mark.parametrize(
    ("files", "why", "cure"),
    [
        ({"data/notes.txt": "x"}, "has no CSV, Parquet or JSON lines file",
         lambda: [write(f"data/{name}.csv", ROWS) for name in ("rest", "walk")]),
        ({"data/rest.csv": ROWS, "data/walk.csv": ROWS, "data/more/run.csv": ROWS}, "Give one or the other",
         lambda: Path("data/more/run.csv").unlink()),
        ({"data/rest.csv": ROWS, "data/walk.csv": ROWS.replace("0,0,", "none at all,0,")},
         "is text in walk.csv and numbers in rest.csv",
         lambda: write("data/walk.csv", ROWS)),
    ],
    ids=["no file", "two levels", "text"],
)  # fmt: skip
def test_a_folder_that_cannot_be_read_is_refused_and_with_its_cure_it_is_read(
    files: dict[str, str], why: str, cure: Callable[[], object]
) -> None:
    Path("data").mkdir()
    for name, text in files.items():
        write(name, text)
    with pytest.raises(DataError, match=why):
        load_task("npz", Path("data"), 0)
    cure()
    assert load_task("npz", Path("data"), 0).shape == (2,)


@pytest.mark.parametrize("names", [np.array([0, 1]), np.array(["a", "a"]), np.array([["a"], ["b"]])])
def test_class_names_that_are_none_are_refused(names: Any) -> None:
    with pytest.raises(DataError, match="class_names are not texts, each another"):
        by_names("own.npz", np.array([0, 1]), names)
    assert by_names("own.npz", np.array([0, 1]), np.array(["a", "b"])).tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("array", "given", "why"),
    [
        ("bits", np.zeros((2, 97), np.uint8), r"not uint8 \(images, 98\)"),
        ("cls", np.zeros(2), "array cls is float64"),
        ("alphabet", np.zeros(3, int), "array alphabet is int64"),
    ],
)
def test_an_omniglot_file_of_other_arrays_is_refused(array: str, given: Any, why: str) -> None:
    right = {
        "bits": np.zeros((2, 98), np.uint8),
        "cls": np.zeros(2, int),
        "alphabet": np.zeros(2, int),
        "alphabet_split": np.ones(1, int),
    }
    np.savez("omniglot.npz", **{**right, array: given})
    with pytest.raises(DataError, match=why):
        load_task("omniglot", Path("omniglot.npz"), 0)


def test_what_python_is_given_wrongly_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"mode is 'both'\. Give batch or stream"):
        tinyfl.adapt("sine", "one.npz", mode="both")
    with pytest.raises(DataError, match="x has 2 inputs per row, and sine takes 1"):
        tinyfl.predict("sine", np.zeros((3, 2)))
    with pytest.raises(ConfigError, match=r"a cohort of 5 out of 4 devices\. Give a --cohort of 1 to 4"):
        draw_cohort(0, 0, 5, 4)
    with pytest.raises(ConfigError, match='Give whole numbers, such as shots = "1,5"'):
        from_run_config({"shots": "1,x"})


def test_a_board_on_a_manifest_that_contradicts_itself_is_refused_by_key() -> None:
    whole = (Path(tinyfl.__file__).parents[1] / "boards" / "pico.toml").read_text()
    Path("pico.toml").write_text(whole)
    assert not app(["boards", "check", "pico.toml"], standalone_mode=False)
    for right, wrong, why in (
        ('format = "uf2"\nfamily = 0xe48b_ff56', 'format = "uf2"', "uf2 needs a family"),
        ("rates = [", "rates = [1, ", "rates must be above baud, and ascending"),
    ):
        assert right in whole
        Path("pico.toml").write_text(whole.replace(right, wrong, 1))
        with pytest.raises(ConfigError, match=why):
            app(["boards", "check", "pico.toml"], standalone_mode=False)
