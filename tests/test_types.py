"""What an installed tinyfl promises: it runs outside the clone, has the types that the pages rely on, and is there once."""

import json
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections import defaultdict
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from once import QUICKLY
from test_docs import PAGES, ROOT, blocks, name

from tinyfl import __version__

Checker = Callable[[Path, Path], str]

FLEET = ROOT.parent / "shared" / "cases" / "places" / "typed_fleet" / "reproduce.py"
WRONG = {
    "fleet.py": 'from tinyfl.simulators.native import NativeFleet\n\nNativeFleet(1, 2, "three", 4, 5, 6, 7)\n',
    "name.py": "import tinyfl\n\ntinyfl.simulat()\n",
}
"""Mistakes, in line 3, that a checker is there to find."""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this clone."""
    for module in ("scikit_build_core", "mypy", "basedpyright"):
        if find_spec(module) is None:
            pytest.skip(f"needs {module}: pip install 'tinyfl[test]'")
    folder = tmp_path_factory.mktemp("packed")
    options = ["--no-deps", "--no-build-isolation", *QUICKLY, "-w", folder]
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", *options, ROOT], check=True)
    build_sdist = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build_sdist, folder], cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def python(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel in it and, behind that, all that this one has."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    options = ["--no-deps", "--no-index", "--find-links", packed, "--only-binary", ":all:"]
    subprocess.run([sys.executable, "-m", "pip", "-q", "--python", python, "install", *options, "tinyfl"], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "behind.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    return python


def mypy(python: Path, folder: Path) -> str:
    """What mypy finds in the files of ``folder``."""
    (folder / "mypy.ini").write_text("[mypy]\nstrict = true\n[mypy-keras]\nignore_missing_imports = true\n")
    options = ["--python-executable", python, "--cache-dir", python.parent / "mypy"]
    done = subprocess.run([sys.executable, "-m", "mypy", *options, "."], cwd=folder, capture_output=True, text=True)
    return done.stdout + done.stderr


def basedpyright(python: Path, folder: Path) -> str:
    """What basedpyright finds in the files of ``folder``."""
    of_keras = {"reportMissingTypeStubs": False, "reportUnknownMemberType": False}
    of_pages = {"reportDuplicateImport": False}  # each of their blocks can be copied alone
    (folder / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict", **of_keras, **of_pages}))
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", python, "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.stdout + done.stderr


def write_code(folder: Path) -> None:
    """The Python of each page in a file, and scripts with a title in files of their own, with the page's numbers of lines."""
    files: dict[str, str] = defaultdict(str)
    for page in PAGES:
        for block in blocks(page):
            if block.language == "python":
                file = block.title or re.sub(r"\W", "_", name(page).removesuffix(".md")) + ".py"
                files[file] += "\n" * (block.line - 1 - files[file].count("\n")) + block.text
    for file, text in files.items():
        (folder / file).write_text(text)


@pytest.fixture(scope="module", params=[mypy, basedpyright])
def complaints(request: pytest.FixtureRequest, python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What a checker says, by file, of the pages' code, of FLEET, and of mistakes: all at once, since it takes its time."""
    folder = tmp_path_factory.mktemp("code")
    write_code(folder)
    assert (folder / "docs_your_own.py").is_file()
    if FLEET.exists():
        (folder / FLEET.name).write_text(FLEET.read_text())
    for file, text in WRONG.items():
        assert not (folder / file).exists()
        (folder / file).write_text(text)
    checker: Checker = request.param
    said, by_file = checker(python, folder), defaultdict(list)
    for found in re.finditer(r"^ *(\S+\.py):\d+(?::\d+)?(?::| -) (?:error|warning)\b.*", said, re.MULTILINE):
        by_file[Path(found[1]).name].append(found[0].strip())
    counted = sum(map(int, re.findall(r"\b(\d+) (?:error|warning)s?\b", said.splitlines()[-1])))
    assert sum(map(len, by_file.values())) == counted, said
    return by_file


def test_code_on_the_pages_fits_the_packages_types(complaints: dict[str, list[str]]) -> None:
    assert [line for file, lines in complaints.items() if file not in (*WRONG, FLEET.name) for line in lines] == []


def test_the_native_fleet_is_a_fleet(complaints: dict[str, list[str]]) -> None:
    if not FLEET.exists():
        pytest.skip("needs ../shared/cases, which is not on this machine")
    assert FLEET.name not in complaints


def test_mistakes_are_found(complaints: dict[str, list[str]]) -> None:
    assert [file for file in WRONG if not any(f"{file}:3" in line for line in complaints[file])] == []


def test_an_installed_wheel_learns_and_builds_outside_the_clone(
    python: Path, tmp_path: Path, emulators: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    for words in (
        ["simulate", "--rounds", "20", "--tasks", "20"],
        ["run", "--task", "sine", "--board", "mps2-an386", "--devices", "2", "--cohort", "2", "--rounds", "1", "--tasks", "20"],
    ):
        subprocess.run([python.parent / "tinyfl", *words], check=True, capture_output=True)
    assert (tmp_path / "runs" / "digits-tinyreptile-0" / "report.html").is_file()
    where = subprocess.run([python, "-c", "import tinyfl; print(tinyfl.__file__)"], capture_output=True, text=True, check=True)
    assert Path(where.stdout).is_relative_to(python.parents[1])


def test_wheel_and_sdist_have_each_file_once(packed: Path) -> None:
    (wheel,), (sdist,) = packed.glob("*.whl"), packed.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as opened:
        installed = opened.namelist()
    with tarfile.open(sdist) as archive:
        source = [file.partition("/")[2] for file in archive.getnames()]
    assert (len(installed), len(source)) == (len(set(installed)), len(set(source)))
    for folder in ("simulators", "firmware", "boards"):
        ours = sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*.*") if path.parent.name != "__pycache__")
        assert sorted(file for file in source if re.match(rf"(tinyfl/)?{folder}/.*\.", file)) == ours
        assert sorted(file for file in installed if file.startswith(f"tinyfl/{folder}/")) == [f"tinyfl/{file}" for file in ours]


def test_the_clone_has_no_compiled_file() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    assert not [file for file in files if file.is_file() and file.read_bytes()[:4] in (b"\x7fELF", b"!<ar")]


def test_the_version_stands_in_one_place(packed: Path) -> None:
    assert {file.name.split("-")[1].removesuffix(".tar.gz") for file in packed.iterdir()} == {__version__}
    assert not re.search(r"^version = ", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    released = re.findall(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == __version__
