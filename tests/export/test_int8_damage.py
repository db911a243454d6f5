"""Whatever a .tflite file or a program holds, it is refused, or runs within its bounds."""

import platform
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert's schema: pip install 'tinyfl[tf]'")

import damage

from tinyfl.errors import DataError
from tinyfl.int8.compile import compile_tflite


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cc = shutil.which("cc") or shutil.which("gcc")
    if not cc:
        pytest.skip("no C compiler (cc or gcc) on the path")
    return damage.build(tmp_path_factory.mktemp("damage"), [cc])


@pytest.mark.slow
def test_damaged_programs(sanitized: Path, tmp_path: Path) -> None:
    answers = damage.damaged_programs(sanitized, tmp_path, 20_000, seed=1)
    assert sum(answers.values()) == 20_000 + len(damage.good_files())
    assert min(answers["refused"], answers["ran"]) > 5_000


@pytest.mark.slow
def test_damaged_programs_where_pointers_have_32_bits(tmp_path: Path) -> None:
    if find_spec("ziglang") is None:
        pytest.skip("needs ziglang: pip install 'tinyfl[firmware]'")
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("runs programs of 32-bit x86, which takes Linux on x86-64")
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", "x86-linux-musl"]
    program = damage.build(tmp_path, zig, ["-fsanitize=undefined", "-O1"])
    answers = damage.damaged_programs(program, tmp_path, 5_000, seed=2)
    assert min(answers["refused"], answers["ran"]) > 1_000


def test_damaged_files(sanitized: Path) -> None:
    answers, _ = damage.damaged_files(sanitized, 1_500, seed=1)
    assert sum(answers.values()) == 1_500
    assert min(answers["refused"], answers["ran"]) > 100


def test_a_file_cut_off_anywhere_is_refused() -> None:
    content = damage.good_files()[2]
    for length in range(len(content)):
        with pytest.raises(DataError):
            compile_tflite(content[:length])


@pytest.mark.parametrize(
    "content", [b"", b"TFL3", b"\0\0\0\0TFL3", b"\xff" * 4 + b"TFL3" + b"\xff" * 64, b"\x08\0\0\0TFL3" + b"\0" * 64]
)
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(DataError):
        compile_tflite(content)
