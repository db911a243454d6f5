"""One source, the same bits from every build; nothing needed from a libc but memory functions."""

import platform
import shutil
import subprocess
from pathlib import Path

import harness
import pytest

STEPS = [harness.HERE / "steps.c"]


@pytest.fixture(scope="module")
def expected(cc: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    program = harness.compile_c(cc, tmp_path_factory.mktemp("steps") / "steps", STEPS, "-O2")
    lines = harness.run(program)
    assert lines.count("\n") == 2 * 8 * 16
    assert lines.count("out") == 1  # the device that drew a NaN
    return lines


@pytest.mark.parametrize("flags", ["-O0", "-O1", "-O3", "-Os", "-O3 -march=native", "-O2 -DTINYFL_BLOCK=1"])
def test_a_thousand_steps_give_the_same_bits_at_every_optimisation(cc: str, tmp_path: Path, expected: str, flags: str) -> None:
    assert harness.run(harness.compile_c(cc, tmp_path / "steps", STEPS, *flags.split())) == expected


@pytest.mark.parametrize(
    ("lanes", "flags", "feature"),
    [
        (4, "-O2", ""),
        (8, "-O2 -mavx2 -mfma", "avx2"),
        (16, "-O3 -mavx512f -mavx512dq -mavx512vl -mprefer-vector-width=512", "avx512vl"),
    ],
)
def test_devices_in_lockstep_end_with_the_bits_of_devices_alone(
    cc: str, tmp_path: Path, expected: str, lanes: int, flags: str, feature: str
) -> None:
    if feature and (platform.machine() not in ("x86_64", "AMD64") or not harness.supports(feature)):
        pytest.skip(f"this processor has no {feature}")
    program = harness.compile_c(cc, tmp_path / "steps", STEPS, f"-DTINYFL_LANES={lanes}", *flags.split())
    assert harness.run(program) == expected


@pytest.mark.parametrize("lanes", [1, 4])
def test_a_thousand_steps_are_clean_under_sanitizers(cc: str, tmp_path: Path, expected: str, lanes: int) -> None:
    program = harness.compile_c(cc, tmp_path / "steps", STEPS, f"-DTINYFL_LANES={lanes}", *harness.SANITIZED)
    assert harness.run(program) == expected


@pytest.mark.parametrize("optimisation", ["-O2", "-O3", "-Os"])
def test_the_core_needs_nothing_but_memory_functions(cc: str, tmp_path: Path, optimisation: str) -> None:
    if not shutil.which("nm"):
        pytest.skip("no nm on the path")
    output = tmp_path / "core.o"
    harness.compile_c(cc, output, harness.SOURCES, "-ffreestanding", optimisation, "-r", "-nostdlib")
    listed = subprocess.run(["nm", "-u", output], capture_output=True, text=True, check=True).stdout
    assert {line.split()[-1].lstrip("_") for line in listed.splitlines()} <= {"memcpy", "memmove", "memset", "memcmp"}


def test_the_core_takes_a_bounded_stack(cc: str, tmp_path: Path) -> None:
    """Of 512 bytes a function at most, whatever the plan; there is no recursion and no array of variable length."""
    for source in harness.SOURCES:
        harness.compile_c(cc, tmp_path / "core.o", [source], "-Os", "-c", "-Wframe-larger-than=512", "-Wvla")


def test_every_header_stands_alone(cc: str, tmp_path: Path) -> None:
    for header in sorted(harness.CORE.glob("*.h")):
        source = tmp_path / f"{header.stem}.c"
        source.write_text(f'#include "{header.name}"\ntypedef int not_empty;\n')
        harness.compile_c(cc, tmp_path / "header.o", [source], "-c", "-Wno-unused-function")
