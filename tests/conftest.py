import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import once
import pytest
from hypothesis import settings

from tinyfl.building import boards, build
from tinyfl.report import devices, figures
from tinyfl.system import cache

settings.register_profile("tinyfl", deadline=None)  # a busy machine is no error
settings.load_profile("tinyfl")

# A shell starts its background jobs with Ctrl-C ignored, and the commands under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Each of the many processes that tests start would otherwise compile all of tinyfl for itself.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

BLANK, RENDER = b"\x89PNG\r\n\x1a\n", figures.png

HERE = Path(__file__).parent
SLOW_PATHS = (
    "simulators/", "export/test_int8_emulated.py", "firmware/test_builds.py", "link/test_faults.py",
    "link/test_lies.py", "sensors/test_sensor_runs.py", "sensors/test_clock.py", "upgrades/test_old_boards.py",
    "upgrades/test_old_runs.py", "test_build.py",
    "test_costs.py", "test_disk_full.py", "test_types.py",
)  # fmt: skip
SLOW_FIXTURES = {"tensorflow", "keras_files", "emulators", "machine", "serve", "pico", "served"}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collects without the garbage collector, which takes a quarter of the time to look through syntax trees. It passes over
    what is there by then, all modules and tests, for good."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Marks the slow tests, by path and by fixture: they emulate boards, build firmware or the package, load TensorFlow, start
    a SuperLink, or try every fault in turn.

    One that is slow for a reason of its own says so itself: @pytest.mark.slow. The others are the quick lane.
    """
    for item in items:
        path = item.path.relative_to(HERE).as_posix()
        if path.startswith(SLOW_PATHS) or not SLOW_FIXTURES.isdisjoint(item.fixturenames):
            item.add_marker("slow")


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Firmware of the same input is compiled once for all workers, in whichever folders it is built; it is linked in each."""
    base = tmp_path_factory.getbasetemp()
    once.FOLDER = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_replace", once.compile_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def blank_figures() -> Iterator[None]:
    """Figures are drawn but not rendered, which takes longer than most runs of the tests; see ``rendered``."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (figures, devices):
            patch.setattr(module, "png", lambda _: BLANK)
        yield


@pytest.fixture(scope="module")
def rendered() -> Iterator[None]:
    """Figures are rendered, for a module's tests of them."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (figures, devices):
            patch.setattr(module, "png", RENDER)
        yield


@pytest.fixture
def figureless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that the test starts find no matplotlib, whose figures take longer than their runs."""
    monkeypatch.setenv("PYTHONPATH", str(HERE / "figureless"))


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's page takes longer than these runs."""
    monkeypatch.setattr("tinyfl.report.page.write_report", lambda *_: None)


@pytest.fixture
def stretches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rounds of each stretch from now on."""
    from tinyfl.simulators.native import NativeFleet

    lengths: list[int] = []
    really = NativeFleet.run_stretch

    def counted(self: NativeFleet, devices: Any, *rest: Any) -> Any:
        lengths.append(len(devices))
        return really(self, devices, *rest)

    monkeypatch.setattr(NativeFleet, "run_stretch", counted)
    return lengths


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """The path of one of the real data sets that only developers' and CI machines have."""

    def path(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"needs ../shared/data/{name}, which is not on this machine")
        return SHARED / name

    return path


@pytest.fixture(scope="session")
def tensorflow() -> Any:
    """TensorFlow, which takes seconds to load: modules that need it ask for it here, and so load it only for their tests."""
    return pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install 'tinyfl[tf]'")


@pytest.fixture
def modules_here(tmp_path: Path) -> Iterator[None]:
    """Forgets the modules of the test's own folder, whose names other tests use too."""
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def own_data(tmp_path: Path) -> Path:
    """A small data set as a user would bring it: 12 devices, 3 classes, each device with its own offset."""
    rng = np.random.default_rng(1)
    device = np.repeat(np.arange(12), 30)
    y = rng.integers(0, 3, device.size)
    x = np.eye(3, 4)[y] * 2 + rng.normal(0, 0.5, (device.size, 4)) + rng.normal(0, 1, (12, 4))[device]
    path = tmp_path / "own.npz"
    np.savez(path, x=x, y=y, device=device, split=np.array([2, 5, 7]))
    return path


@pytest.fixture
def firmware_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One place for the firmware of all tests, and not the user's; zig's own files take long to make, and are the user's."""
    for variable in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"):
        if variable not in os.environ:
            monkeypatch.setenv(variable, str(cache.folder("zig")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "firmware"))


@pytest.fixture
def built_before(emulators: None) -> None:
    """Firmware for commands that the test starts, which would compile it for themselves."""
    from tinyfl.fleets import emulation

    for name in ("posix", "mps2-an386") if shutil.which("cc") else ("mps2-an386",):
        emulation.firmware(boards.load(name), "zig")


@pytest.fixture
def emulators(firmware_cache: None) -> None:
    """Skips without what builds firmware and emulates boards."""
    for module, package in {"unicorn": "unicorn", "elftools": "pyelftools", "ziglang": "ziglang"}.items():
        if find_spec(module) is None:
            pytest.skip(f"needs {package}: pip install 'tinyfl[firmware]'")
