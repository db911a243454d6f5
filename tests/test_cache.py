"""tinyfl works for users without a home, or with one that may not be written; only they may enter what it then keeps."""

import os
import pwd
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinyfl import doctor
from tinyfl.building import boards
from tinyfl.errors import ConfigError
from tinyfl.flash import methods
from tinyfl.fleets import emulation
from tinyfl.system import cache

UNKNOWN = """
import os, pwd, sys
def nobody(uid): raise KeyError(uid)
pwd.getpwuid = nobody
os.environ.pop("HOME", None)
"""
"""Python, in which the user has no entry in the list of users."""


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The temporary directory of a user of whom nothing else is known."""

    def nobody(uid: int) -> Any:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for variable in ("HOME", "XDG_CACHE_HOME", *cache.LENT):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def own(temporary: Path) -> Path:
    return temporary / f"tinyfl-{os.getuid()}"


def test_without_a_home_the_cache_is_a_folder_that_only_this_user_may_enter(unknown: Path) -> None:
    assert cache.home() is None
    assert cache.place() == own(unknown)
    assert not own(unknown).exists()
    assert cache.folder("a", "b") == own(unknown) / "a" / "b"
    assert stat.S_IMODE(own(unknown).stat().st_mode) == 0o700
    assert cache.folder("a", "b").is_dir()


@pytest.mark.parametrize("given", ["", "a/relative/one"])
def test_a_home_has_the_cache_and_xdg_cache_home_goes_before_it(
    unknown: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    (unknown / "home").mkdir()
    monkeypatch.setenv("HOME", str(unknown / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    assert cache.folder() == unknown / "home" / ".cache" / "tinyfl"
    monkeypatch.setenv("XDG_CACHE_HOME", str(unknown / "new" / "caches"))
    assert cache.folder() == unknown / "new" / "caches" / "tinyfl"


def test_where_nothing_can_be_written_doctor_says_what_to_set(unknown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert cache.place() is None
    assert doctor._cache() == doctor.Check("tinyfl", "cache", "broken", cache.NOTHING, cache.CURE, needed=True)


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME"])
def test_where_the_cache_cannot_be_written_it_is_elsewhere_and_doctor_says_so(
    unknown: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    (unknown / ".cache").write_text("a file in the way")
    monkeypatch.setenv(variable, str(unknown / ".cache" if variable == "XDG_CACHE_HOME" else unknown))
    assert cache.folder() == own(unknown)
    found = doctor._cache()
    assert (found.state, found.needed) == ("ok", True)
    assert found.found == f"{own(unknown)}, since {unknown / '.cache' / 'tinyfl'} cannot be written"


def linked(path: Path) -> None:
    path.with_name("elsewhere").mkdir()
    path.symlink_to(path.with_name("elsewhere"))


def opened(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


@pytest.mark.parametrize("taken", [linked, opened, Path.touch], ids=["a link", "open to others", "a file"])
def test_a_folder_that_others_may_enter_is_not_used_and_the_cure_cures(
    unknown: Path, monkeypatch: pytest.MonkeyPatch, taken: Callable[[Path], None]
) -> None:
    taken(own(unknown))
    with pytest.raises(ConfigError, match=r"no place for what tinyfl builds: .* cannot be written\. Set XDG_CACHE_HOME"):
        cache.folder("zig")
    found = doctor._cache()
    assert (found.state, found.cure) == ("broken", cache.CURE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(unknown / "mine"))
    assert cache.folder("zig").is_dir()


def test_a_folder_that_another_user_makes_in_the_meantime_is_not_used(unknown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = Path.mkdir

    def beaten(path: Path, *args: Any, **options: Any) -> None:
        if path == own(unknown):
            really(path)
            path.chmod(0o777)
        really(path, *args, **options)

    monkeypatch.setattr(Path, "mkdir", beaten)
    with pytest.raises(ConfigError, match="it is not yours"):
        cache.folder("zig")


@pytest.mark.slow
def test_firmware_without_a_home_is_built_with_what_zig_keeps_in_the_cache(tmp_path: Path) -> None:
    pytest.importorskip("ziglang", reason="ziglang is not installed: pip install 'tinyfl[firmware]'")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "ZIG_"))}
    build = UNKNOWN + "from tinyfl.cli import main; sys.argv = ['tinyfl', *sys.argv[1:]]; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", build, "build", "--board", "mps2-an385", "--out", "built"],
        env=environment | {"TMPDIR": str(tmp_path)}, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "built" / "mps2-an385" / "mps2-an385.elf").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["built", own(tmp_path).name]
    assert (own(tmp_path) / "zig").is_dir()


def test_a_user_who_says_where_zig_keeps_its_files_is_heeded(unknown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinyfl.building import build

    seen: dict[str, str] = {}

    def run(command: list[str], cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        seen.update(env)
        Path(command[-1]).touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(build, "run", run)
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", "/mine")
    build._replace(unknown / "a.o", ["python", "-m", "ziglang", "cc"], "a.c")
    assert seen["ZIG_GLOBAL_CACHE_DIR"] == "/mine"
    assert seen["ZIG_LOCAL_CACHE_DIR"] == str(own(unknown) / "zig")


@pytest.mark.slow
def test_figures_are_drawn_without_a_home_and_without_a_word(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("XDG_") and key not in cache.LENT}
    draw = UNKNOWN + "from tinyfl.report.figures import styled, canvas, png\nwith styled(): print(len(png(canvas(1.0))))"
    done = subprocess.run(
        [sys.executable, "-c", draw], env=environment | {"TMPDIR": str(tmp_path)}, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "cache directory" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [own(tmp_path).name]


def test_tools_are_looked_up_without_a_home(unknown: Path) -> None:
    for name in methods.NAMES:
        methods.tool(name)


def test_a_run_on_a_superlink_without_a_home_says_what_to_set(unknown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinyfl.deployment.submit import run_on

    monkeypatch.delenv("FLWR_HOME", raising=False)
    with pytest.raises(ConfigError, match=r"looks up the SuperLink in the home, .* Set FLWR_HOME"):
        run_on("lab", config=None, resume=None, out=None, options={})


def test_only_what_is_built_alike_shares_a_folder_of_the_cache(unknown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = boards.load("mps2-an385")
    built: list[Path] = []
    monkeypatch.setattr(emulation, "build", lambda board, out, **_: built.append(out))
    paths = [unknown / "a" / "mine.c", unknown / "b" / "mine.c"]
    for sources in ((), (), paths[:1], paths[1:], paths):
        emulation.firmware(board, "zig", sources=sources)
    emulation.firmware(board.model_copy(update={"clock": board.clock + 1}), "zig")
    emulation.firmware(board, "gcc")
    assert built[0] == built[1]
    assert len(set(built)) == len(built) - 1
