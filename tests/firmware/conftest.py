import shutil
from pathlib import Path
from typing import Any

import harness
import pytest


@pytest.fixture(scope="session")
def cc() -> str:
    found = shutil.which("cc") or shutil.which("gcc")
    if not found:
        pytest.skip("no C compiler (cc or gcc) on the path")
    return found


@pytest.fixture(scope="session")
def core(cc: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The core for ctypes; undefined behaviour ends the process."""
    library: Path = tmp_path_factory.mktemp("core") / "core.so"
    sources = [*harness.LEARNER, harness.HERE / "harness.c"]
    harness.compile_c(cc, library, sources, "-O2", "-fPIC", "-shared", *harness.UNDEFINED)
    return harness.load(library)
