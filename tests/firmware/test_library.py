"""The core in somebody else's program: firmware/README.md's example in C and C++, and names that collide with nothing."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import harness
import pytest
import reference
from reference_layers import dense

from tinyfl.building.toolchains import LITERAL, target

FIRMWARE = harness.CORE.parent
README = (FIRMWARE / "README.md").read_text()
BARE, ARDUINO = harness.HERE / "bare", harness.HERE / "arduino.h"
CORE_FILES, AGENT_FILES = sorted(harness.CORE.glob("*.c")), sorted((FIRMWARE / "agent").glob("*.c"))
PUBLIC = [
    *(harness.CORE / name for name in ("tinyfl.h", "codec.h", "means.h", "online.h", "program.h")),
    *(path for path in sorted((FIRMWARE / "agent").glob("*.h")) if path.name != "commands.h"),
]
STRICT = ["-Wall", "-Wextra", "-Wconversion", "-Werror", "-O2", "-ffp-contract=off"]
INCLUDES = [f"-I{harness.CORE}", f"-I{FIRMWARE / 'agent'}"]


def block(language: str) -> str:
    """The page's blocks in this language, one after another."""
    return "".join(re.findall(rf"^```{language}\b[^\n]*\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))


def run(*command: object) -> str:
    """What the command prints; on both streams, since QEMU's semihosting is on stderr."""
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout


def compilers(name: str) -> tuple[list[str], list[str]]:
    """The C and the C++ compiler. Without clang, zig's counts."""
    if name == "clang" and not shutil.which("clang") and find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"], [sys.executable, "-m", "ziglang", "c++"]
    pair = {"gcc": ("gcc", "g++"), "clang": ("clang", "clang++")}.get(name, (name, name.replace("gcc", "g++")))
    for program in pair:
        if not shutil.which(program):
            pytest.skip(f"no {program} on the path")
    return [pair[0]], [pair[1]]


@pytest.fixture(scope="module")
def cxx() -> str:
    found = shutil.which("c++") or shutil.which("g++")
    if not found:
        pytest.skip("no C++ compiler (c++ or g++) on the path")
    return found


def on_this_machine(name: str, example: Path, standard: str) -> str:
    c, cxx = compilers(name)
    language, linker = ("c", c) if standard == "c99" else ("c++", cxx)
    objects = [example.with_name(f"{source.stem}.o") for source in CORE_FILES]
    for source, output in zip(CORE_FILES, objects, strict=True):
        run(*c, "-std=c99", *STRICT, "-c", source, "-o", output)
    program = example.with_name("desk")
    flags = [f"-std={standard}", *STRICT, f"-I{harness.CORE}", "-x", language, example, "-x", "none"]
    run(*linker, *flags, *objects, "-o", program)
    return run(program)


def on_an_emulated_board(name: str, example: Path, standard: str) -> str:
    """On a Cortex-M4F without a C library: its part is done by tests/firmware/bare and the port's memory.c."""
    (c,), (cxx,) = compilers(name)
    if not shutil.which("qemu-system-arm"):
        pytest.skip("no qemu-system-arm on the path")
    flags = target("cortex-m4f", "gcc")
    string = FIRMWARE / "ports" / "cortex_m"
    units = [(source, [c, "-std=c99", *STRICT, f"-I{string}"]) for source in [*CORE_FILES, BARE / "semihosting.c"]]
    units.append((string / "memory.c", [c, "-std=c99", *LITERAL["gcc"]]))
    as_cxx = [cxx, "-std=c++17", "-fno-exceptions", "-x", "c++"]
    units.append((example, [*(as_cxx if standard == "c++17" else [c, "-std=c99"]), *STRICT, f"-I{harness.CORE}", f"-I{BARE}"]))
    objects = [example.with_name(f"{source.stem}.o") for source, _ in units]
    for (source, command), output in zip(units, objects, strict=True):
        run(*command, *flags, "-c", source, "-o", output)
    program = example.with_name("desk.elf")
    places = ["-Wl,--section-start=.vectors=0", "-Wl,-Ttext=0x1000", "-Wl,-Tdata=0x20000000", "-Wl,-e,start"]
    run(c, *flags, *objects, "-nostdlib", "-lgcc", *places, "-o", program)
    machine = ["qemu-system-arm", "-M", "mps2-an386", "-display", "none", "-monitor", "none", "-serial", "none"]
    return run(*machine, "-semihosting-config", "enable=on,target=native", "-kernel", program)


@pytest.mark.slow
@pytest.mark.usefixtures("firmware_cache")
@pytest.mark.parametrize("standard", ["c99", "c++17"])
@pytest.mark.parametrize("name", ["gcc", "clang", "arm-none-eabi-gcc"])
def test_the_example_is_c_and_cpp_for_every_compiler_and_learns_the_same(tmp_path: Path, name: str, standard: str) -> None:
    example = tmp_path / "desk.c"
    example.write_text(block("c"))
    build_and_run = on_an_emulated_board if name.startswith("arm") else on_this_machine
    assert build_and_run(name, example, standard) == block("text")


@pytest.mark.slow
def test_the_pages_commands_build_the_example_and_print_what_it_says(cc: str, cxx: str, tmp_path: Path) -> None:
    (tmp_path / "desk.c").write_text(block("c"))
    (tmp_path / "core").symlink_to(harness.CORE)
    assert run("bash", "-euc", f'cd {tmp_path}; cc() {{ {cc} "$@"; }}; c++() {{ {cxx} "$@"; }}\n{block("sh")}') == 2 * block(
        "text"
    )


@pytest.mark.slow
def test_the_example_learns_as_the_specification_says() -> None:
    """The same program over the independent arithmetic of reference.py."""
    layers = [dense(1, 32, reference.TANH), dense(32, 1, reference.IDENTITY)]
    words = [reference.random(0, 0, 0, 0, index)[0] for index in range(97)]
    theta = reference.f32([reference.f32(2) * reference.uniform(word) - reference.f32(1) for word in words])
    learner = reference.Learner(layers, reference.MEAN_SQUARED_ERROR, theta)
    losses = []
    for index in range(4000):
        x, y = reference.sine_sample(0, 0, 0, index)
        losses.append(float(learner.learn(reference.f32([x]), reference.f32([y]), 0.005)))
    before, after = (sum(part) / 100 for part in (losses[:100], losses[-100:]))
    assert block("text") == f"loss {before:.3f} before, {after:.3f} after\n"


@pytest.mark.slow
def test_every_symbol_that_the_core_and_the_agent_export_has_the_prefix(cc: str, tmp_path: Path) -> None:
    if not shutil.which("nm"):
        pytest.skip("no nm on the path")
    exported = set()
    for source in [*CORE_FILES, *AGENT_FILES]:
        harness.compile_c(cc, tmp_path / "unit.o", [source], *INCLUDES, "-c")
        listed = run("nm", "--defined-only", "--extern-only", tmp_path / "unit.o")
        exported |= {line.split()[-1].lstrip("_") for line in listed.splitlines()}
    assert "tinyfl_learn" in exported
    assert {name for name in exported if not name.startswith("tinyfl_")} == {"main"}


@pytest.mark.slow
def test_each_row_of_files_on_the_page_needs_no_other_and_together_they_are_the_core(cc: str, tmp_path: Path) -> None:
    if not shutil.which("nm"):
        pytest.skip("no nm on the path")
    rows = [re.findall(r"`(\w+\.c)`", line) for line in README.splitlines() if line.startswith("| `")]
    assert sorted(name for row in rows for name in row) == [source.name for source in CORE_FILES]
    for row in rows:
        output = tmp_path / "row.o"
        harness.compile_c(cc, output, [harness.CORE / name for name in row], "-ffreestanding", "-O2", "-r", "-nostdlib")
        needed = {line.split()[-1].lstrip("_") for line in run("nm", "-u", output).splitlines()}
        assert needed <= {"memcpy", "memmove", "memset", "memcmp"}, row


def test_the_core_has_no_variables_so_that_learners_do_not_disturb_each_other(cc: str, tmp_path: Path) -> None:
    if not shutil.which("nm"):
        pytest.skip("no nm on the path")
    for source in CORE_FILES:
        harness.compile_c(cc, tmp_path / "unit.o", [source], "-c")
        symbols = [line.split() for line in run("nm", tmp_path / "unit.o").splitlines()]
        assert not [words[-1] for words in symbols if words[-2] in "dDbBC"], source.name


def test_the_public_headers_declare_prefixed_names_and_include_each_other_only() -> None:
    known = {
        *("typedef", "struct", "enum", "const", "extern", "static", "void", "char", "int", "float", "unsigned"),
        *("size_t", "int8_t", "uint8_t", "uint16_t", "int32_t", "uint32_t", "uint64_t", "C", "__attribute__"),
    }
    for header in PUBLIC:
        text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)
        assert set(re.findall(r'#include ["<](.*)[">]', text)) <= {"stddef.h", "stdint.h", *(other.name for other in PUBLIC)}
        macros = set(re.findall(r"#define (\w+)", text))
        text = re.sub(r"^ *#.*$", "", text, flags=re.MULTILINE)
        while (inner := re.sub(r"\([^()]*\)|struct \{[^{}]*\}", "", text)) != text:  # parameters and fields
            text = inner
        named = macros | set(re.findall(r"\b[A-Za-z_]\w*", text)) - known
        assert not {name for name in named if not name.lower().startswith("tinyfl_")}, header.name


@pytest.mark.parametrize("source", [*CORE_FILES, *AGENT_FILES], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_file_compiles_after_arduinos_macros_and_types(cc: str, tmp_path: Path, source: Path) -> None:
    harness.compile_c(cc, tmp_path / "unit.o", [source], "-std=gnu11", *INCLUDES, "-include", str(ARDUINO), "-c")


@pytest.mark.slow
@pytest.mark.parametrize("standard", ["c++11", "c++17", "c++20"])
def test_a_cpp_program_links_all_that_the_public_headers_declare(cc: str, cxx: str, tmp_path: Path, standard: str) -> None:
    """After Arduino's macros, and with warnings that the headers of a library must not raise."""
    declared = sorted(
        {name for path in PUBLIC for name in re.findall(r"(?<!#define )\b(tinyfl_\w+)\((?!\*)", path.read_text())}
    )
    assert len(declared) > 40
    lines = [f'#include "{ARDUINO.name}"', "extern int real, mask, any, where;"]  # the program's own names
    lines += [f'#include "{path.name}"' for path in PUBLIC]
    lines += ['extern "C" const tinyfl_port *tinyfl_port_start(void) { return nullptr; }']
    lines += ["template <typename F> int use(F *function) { F *volatile linked = function; return linked == nullptr; }"]
    lines += [
        "int main()",
        "{",
        "    int missing = 0;",
        *(f"    missing += use({name});" for name in declared),
        "    return missing;",
        "}",
    ]
    (tmp_path / "program.cpp").write_text("\n".join(lines))
    objects = []
    for source in [*CORE_FILES, *AGENT_FILES]:
        if source.name != "main.c":
            objects.append(harness.compile_c(cc, tmp_path / f"{source.stem}.o", [source], *INCLUDES, "-c"))
    warnings = [*STRICT, "-Wno-address", "-Wpedantic", "-Wshadow", "-Wold-style-cast", "-Wundef"]
    run(
        cxx,
        f"-std={standard}",
        *warnings,
        *INCLUDES,
        f"-I{harness.HERE}",
        tmp_path / "program.cpp",
        *objects,
        "-o",
        tmp_path / "program",
    )
    run(tmp_path / "program")
