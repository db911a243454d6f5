"""Firmware: it builds for every board with both toolchains, fits or is refused, boots in QEMU, and starts as it should."""

import errno
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinyfl import cli
from tinyfl.building import boards, build, toolchains
from tinyfl.building.build import Firmware
from tinyfl.building.toolchains import TOOLCHAINS, Toolchain
from tinyfl.errors import BuildError, ConfigError, DoesNotFit, InstallError

CHIPS = [name for name in boards.names() if boards.load(name).memory]
IN_QEMU = [name for name in CHIPS if boards.load(name).qemu]
Build = Callable[..., Firmware]


def needs(toolchain: str) -> None:
    if toolchain == "gcc" and not shutil.which("arm-none-eabi-gcc"):
        pytest.skip("no arm-none-eabi-gcc on the path")
    if toolchain == "zig":
        pytest.importorskip("ziglang", reason="ziglang is not installed: pip install 'tinyfl[firmware]'")


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds a board once for all tests of this module."""
    folder = tmp_path_factory.mktemp("firmware")

    def made(name: str, toolchain: Toolchain = "zig") -> Firmware:
        needs(toolchain)
        return build.build(boards.load(name), folder / toolchain / name, toolchain=toolchain)

    return made


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Builds firmware whose agent is the C text ``main`` alone, over the real core and ports; ``change`` edits startup.c."""
    real, tree = boards.data("firmware"), tmp_path / "firmware"

    def made(name: str, main: str, toolchain: Toolchain = "zig", change: tuple[str, str] = ("", "")) -> Firmware:
        needs(toolchain)
        for folder in ("core", "ports"):
            shutil.copytree(real / folder, tree / folder, dirs_exist_ok=True)
        (tree / "agent").mkdir(exist_ok=True)
        shutil.copy(real / "agent" / "port.h", tree / "agent")
        (tree / "agent" / "main.c").write_text(PRELUDE + main)
        startup = tree / "ports" / "cortex_m" / "startup.c"
        assert change[0] in startup.read_text()
        startup.write_text(startup.read_text().replace(*change))
        monkeypatch.setattr(boards, "data", lambda folder: tree if folder == "firmware" else real.parent / folder)
        return build.build(boards.load(name), tmp_path / "out", toolchain=toolchain)

    return made


PRELUDE = """
#include "port.h"
#include "string.h"
int main(void);
static const tinyfl_port *port;
static void say(const char *text)
{
    const char *end = text;
    while (*end)
        end++;
    port->write((const uint8_t *)text, (size_t)(end - text));
}
"""


def said_in_qemu(firmware: Firmware, tmp_path: Path, *, until: str = ";", fault: bool = False) -> tuple[str, str]:
    """What the firmware writes to its UART, up to ``until`` (or until it takes an exception), and QEMU's log."""
    if not shutil.which("qemu-system-arm"):
        pytest.skip("no qemu-system-arm on the path")
    board = firmware.board
    assert board.qemu
    assert board.memory
    said, log, identity = tmp_path / "said", tmp_path / "log", tmp_path / "identity"
    for left in (said, log):
        left.unlink(missing_ok=True)
    identity.write_bytes(b"TFLI" + bytes(12))
    command = [
        "qemu-system-arm", "-M", board.qemu.machine, "-kernel", str(firmware.elf), "-display", "none", "-monitor", "none",
        *["-serial", "null"] * board.qemu.serial, "-serial", f"file:{said}", "-d", "int,guest_errors", "-D", str(log),
        "-device", f"loader,file={identity},addr={board.memory.identity:#x},force-raw=on",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(6000):
            words = said.read_text() if said.exists() else ""
            notes = log.read_text() if log.exists() else ""
            if (fault and "Taking exception" in notes) or until in words or process.poll() is not None:
                break
            time.sleep(0.05)
        time.sleep(0.1)  # what else it has to say
        return said.read_text() if said.exists() else "", log.read_text() if log.exists() else ""
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
@pytest.mark.parametrize("name", CHIPS)
def test_every_board_builds_with_both_toolchains_and_fits(firmware: Build, name: str, toolchain: Toolchain) -> None:
    made = firmware(name, toolchain)
    size, memory = made.size, made.board.memory
    assert size
    assert memory
    assert size.ram[".stack"] == memory.stack
    # Nothing is counted twice and nothing is left out: the parts are the sections, and RAM is stack, variables and arena.
    most = 82_000 if made.board.core == "cortex-m0plus" else 75_000
    assert sum(flash for flash, _ in size.parts.values()) == sum(size.flash.values()) < most
    assert sum(ram for _, ram in size.parts.values()) == sum(size.ram.values()) - memory.stack
    assert memory.ram.size - 8 <= sum(size.ram.values()) + size.arena + 8 <= memory.ram.size + 8
    assert list(size.parts) == ["core", "agent", "port", "compiler"]
    assert all(flash > 500 for flash, _ in size.parts.values())
    assert size.parts["agent"][1] > 2 * made.board.buffer


@pytest.mark.parametrize("name", CHIPS)
def test_the_elf_lies_where_the_manifest_says(firmware: Build, name: str) -> None:
    elffile = pytest.importorskip("elftools.elf.elffile")
    made = firmware(name)
    memory = made.board.memory
    assert memory
    with made.elf.open("rb") as file:
        elf = elffile.ELFFile(file)
        for segment in elf.iter_segments("PT_LOAD"):
            start, size = segment["p_paddr"], segment["p_filesz"]
            boot = memory.flash.origin <= start and start + size <= memory.application
            assert size == 0 or boot or (memory.application <= start and start + size <= memory.identity)
        symbols = {s.name: s.entry.st_value for s in elf.get_section_by_name(".symtab").iter_symbols()}
        vectors = elf.get_section_by_name(".vectors")
        assert vectors["sh_addr"] == memory.application
        words = [int.from_bytes(vectors.data()[i : i + 4], "little") for i in range(0, 64, 4)]
    assert words[:2] == [memory.ram.origin + memory.stack, symbols["Reset_Handler"] | 1]
    assert symbols["tinyfl_stack_low"] == memory.ram.origin
    assert symbols["tinyfl_arena_end"] == memory.ram.end
    assert symbols["tinyfl_arena"] % 8 == 0


def test_what_is_unchanged_is_not_built_again_and_what_is_changed_is(tmp_path: Path, stub: Build) -> None:
    body = "int main(void) { port = tinyfl_port_start(); say(%s); for (;;) port->idle(); }\n"
    first = stub("mps2-an386", body % '"a;"')
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    sources = len(list((tmp_path / "firmware" / "core").glob("*.c"))) + 1 + 1 + 4
    assert len([path for path in times if path.suffix == ".o"]) == sources
    again = stub("mps2-an386", body % '"a;"')
    assert again == first
    unwritten = {path: path.stat().st_mtime_ns for path in times if path.name != "memory.ld"}
    assert unwritten == {path: times[path] for path in unwritten}

    stub("mps2-an386", body % '"b;"')
    objects = set((tmp_path / "out").rglob("*.o"))
    assert len(objects - set(times)) == 1
    assert len(objects) == sources
    assert first.elf.stat().st_mtime_ns != times[first.elf]

    (tmp_path / "firmware" / "agent" / "port.h").open("a").write("/* another comment */\n")
    build.build(first.board, tmp_path / "out")
    kept = {path.name.partition("-")[0] for path in set((tmp_path / "out").rglob("*.o")) & objects}
    assert kept == {"core"}  # which does not see the agent's headers


SOURCE = """
#include "source.h"
static const float table[%d] = {1.0f};
static float kept[%d];
static int sample(const tinyfl_stream *stream, uint32_t index, float *x, float *y)
{
    (void)stream;
    kept[index %% %d] = table[index %% %d];
    x[0] = y[0] = kept[0];
    return %s;
}
const tinyfl_source tinyfl_sources[] = {{"mine", sample}, {"sine", tinyfl_sine_source}, {NULL, NULL}};
"""


def source(path: Path, flash: int = 1, ram: int = 1, result: str = "TINYFL_OK") -> Path:
    path.write_text(SOURCE % (flash, ram, ram, flash, result))
    return path


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_a_source_of_ones_own_is_built_in_and_counted_apart(tmp_path: Path, toolchain: Toolchain) -> None:
    needs(toolchain)
    mine = source(tmp_path / "mine.c", flash=100, ram=20)
    made = build.build(boards.load("mps2-an386"), tmp_path / "out", toolchain=toolchain, sources=[mine])
    assert made.size
    flash, ram = made.size.parts["source"]
    assert 400 < flash < 800
    assert ram == 80


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_what_does_not_fit_is_refused_with_the_numbers(tmp_path: Path, toolchain: Toolchain) -> None:
    needs(toolchain)
    board = boards.load("mps2-an386")
    made = build.build(board, tmp_path, toolchain=toolchain, sources=[source(tmp_path / "mine.c")])
    assert made.size
    least = sum(made.size.flash.values())
    large = source(tmp_path / "mine.c", flash=70_000)
    with pytest.raises(DoesNotFit, match=r"bytes of flash; the board has 262,128 for it, [\d,]+ too few") as refused:
        build.build(board, tmp_path, toolchain=toolchain, sources=[large])
    over = int(str(refused.value).split("for it, ")[1].split(" ")[0].replace(",", ""))
    assert abs(over - (least + 280_000 - 262_128)) < 64
    assert made.elf.exists()

    with pytest.raises(DoesNotFit, match=r"takes 2\d\d,\d{3} bytes of RAM without a network, 4,096 of them stack.*has 262,144"):
        build.build(board, tmp_path, toolchain=toolchain, sources=[source(tmp_path / "mine.c", ram=64_500)])


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_an_error_in_a_source_is_the_compilers_own_words(tmp_path: Path, toolchain: Toolchain) -> None:
    needs(toolchain)
    with pytest.raises(BuildError, match=r"building mine\.c failed:\n.*mine\.c:\d+:\d+: error: .*nothing") as refused:
        build.build(
            boards.load("posix" if toolchain == "gcc" else "mps2-an386"),
            tmp_path,
            toolchain=toolchain,
            sources=[source(tmp_path / "mine.c", result="nothing")],
        )
    assert len(str(refused.value).splitlines()) <= 1 + build.FIRST_ERRORS


def test_a_missing_toolchain_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchains.util, "find_spec", lambda _: None)
    monkeypatch.setattr(toolchains.shutil, "which", lambda _: None)
    for name, toolchain, cure in (
        ("mps2-an386", "zig", r"pip install 'tinyfl\[firmware\]'"),
        ("mps2-an386", "gcc", "apt-get install gcc-arm-none-eabi"),
        ("posix", "zig", "apt-get install gcc libc6-dev"),
    ):
        with pytest.raises(InstallError, match=cure):
            build.build(boards.load(name), tmp_path, toolchain=toolchain)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"no toolchain is called 'tcc'\. There are: zig, gcc"):
        build.build(boards.load("posix"), tmp_path, toolchain="tcc")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"--source .*none.c is not a C file"):
        build.build(boards.load("posix"), tmp_path, sources=[tmp_path / "none.c"])


def test_the_version_tells_one_build_from_another_and_is_the_same_everywhere(tmp_path: Path) -> None:
    needs("zig")
    board = boards.load("mps2-an386")
    one, again = build.build(board, tmp_path / "a"), build.build(board, tmp_path / "b")
    assert one.version == again.version
    assert one.version.encode() in one.elf.read_bytes()
    mine = source(tmp_path / "mine.c")
    other = build.build(board, tmp_path / "a", sources=[mine])
    assert other.version != one.version
    faster = board.model_copy(update={"clock": 24_000_000})
    assert build.build(faster, tmp_path / "a").version not in (one.version, other.version)


def test_several_boards_are_one_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("zig")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.argv", ["tinyfl", "build", "--board", "mps2-an385,mps2-an386", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("mps2")]
    assert [row[0] for row in rows] == ["mps2-an385", "mps2-an386"]
    for row in rows:
        flash, room, ram, has, arena = (int(number.replace(",", "")) for number in row[1:])
        assert (room, has) == (262_128, 262_144) and flash < 75_000 and has - 8 <= ram + arena <= has


def test_the_verb_prints_every_part_or_one_json_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    needs("zig")
    for extra in ([], ["--json"]):
        monkeypatch.setattr("sys.argv", ["tinyfl", "build", "--board", "mps2-an386", "--out", str(tmp_path), *extra])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == 0
    shown, _, text = capsys.readouterr().out.partition('{"firmware"')
    summary: dict[str, Any] = json.loads('{"firmware"' + text)["firmware"][0]
    assert summary["flash_bytes"] == sum(part["flash"] for part in summary["parts"].values())
    for word in ("core", "agent", "port", "compiler", "stack", f"{summary['flash_bytes']:,}", f"{summary['arena_bytes']:,}"):
        assert word in shown
    assert Path(summary["elf"]).is_file()


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
@pytest.mark.parametrize("name", IN_QEMU)
def test_every_board_boots_in_qemu_and_answers(firmware: Build, name: str, toolchain: Toolchain) -> None:
    from serial import serial_for_url
    from smp.os_management import EchoWriteRequest, EchoWriteResponse
    from smpclient.transport.serial import Cobs

    from tinyfl.simulators.qemu import QemuBoard

    if not shutil.which("qemu-system-arm"):
        pytest.skip("no qemu-system-arm on the path")
    framing = Cobs()
    with QemuBoard(firmware(name, toolchain).elf, boards.load(name), 7) as board, serial_for_url(board.url, timeout=1) as port:
        for _ in range(100):  # the first byte may come before the UART is on
            port.write(b"".join(framing.encode(EchoWriteRequest(d="hello").BYTES)))
            framing.feed(port.read_until(b"\0"))
            if reply := framing.take():
                break
        assert reply
        assert EchoWriteResponse.loads(reply).r == "hello"


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
@pytest.mark.parametrize("name", IN_QEMU)
def test_memory_is_set_up_before_main(stub: Build, tmp_path: Path, name: str, toolchain: Toolchain) -> None:
    main = """
    static uint32_t kept = 42, zero[3];
    int main(void)
    {
        port = tinyfl_port_start();
        say(kept == 42 && !zero[0] && !zero[2] ? "data " : "no data ");
        uint32_t painted = 0;
        while (port->stack_low + painted < port->stack_high && port->stack_low[painted] == TINYFL_PAINT)
            painted++;
        say(painted * 4 > 3500 && painted * 4 < 4096 ? "paint " : "no paint ");
        say(((uintptr_t)&painted & 0xffff) < 4096 ? "stack;" : "no stack;");
        kept = zero[0] = 1;
        port->reset();
        return 0;
    }
    """
    said, log = said_in_qemu(stub(name, main, toolchain), tmp_path, until=";data paint stack;")
    assert said.startswith("data paint stack;data paint stack;")
    assert "Taking exception" not in log


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
@pytest.mark.parametrize("name", [name for name in IN_QEMU if boards.load(name).core != "cortex-m3"])
def test_the_fpu_is_on_before_any_code_that_uses_it(stub: Build, tmp_path: Path, name: str, toolchain: Toolchain) -> None:
    main = """
    static volatile float one = 1.0f;
    int main(void)
    {
        port = tinyfl_port_start();
        say("up ");
        say(one / 4.0f == 0.25f ? "quarter;" : "wrong;");
        for (;;)
            port->idle();
    }
    """
    said, _ = said_in_qemu(stub(name, main, toolchain), tmp_path)
    assert said == "up quarter;"
    # Without it this very program faults at the division, so the test can tell.
    said, log = said_in_qemu(stub(name, main, toolchain, change=("#0xF00000", "#0")), tmp_path, fault=True)
    assert said in ("", "up ")
    assert "NOCP" in log


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
@pytest.mark.parametrize("name", IN_QEMU)
def test_a_stack_that_overflows_faults_and_the_board_stops(
    stub: Build, tmp_path: Path, name: str, toolchain: Toolchain
) -> None:
    main = """
    int main(void);
    static int deeper(int left)
    {
        volatile int here[16];
        for (int i = 0; i < 16; i++)
            here[i] = left;
        return left > 0 ? deeper(left - 1) + here[15] : 0;
    }
    int main(void)
    {
        port = tinyfl_port_start();
        say("start ");
        deeper(1000);
        say("not here;");
        return 0;
    }
    """
    said, log = said_in_qemu(stub(name, main, toolchain), tmp_path, fault=True)
    assert said == "start "
    # Below RAM some of QEMU's machines have nothing, and the write faults; others read 0, and the return to 0 does.
    assert "exception 3" in log
    assert "Lockup" not in log


SLOTS = """
int main(void)
{
    static const uint8_t bytes[9] = {9, 1, 2, 3, 4, 5, 6, 7, 8};
    port = tinyfl_port_start();
    const tinyfl_slot *slot = &port->slots[SLOT];
    say(port->erase(SLOT) == 0 ? "erased " : "not erased ");
    say(slot->bytes[0] == 0xff && slot->bytes[slot->count - 1] == 0xff ? "wholly " : "not wholly ");
    say(port->program(SLOT, 16, bytes + 1, 8) == 0 ? "programmed " : "not programmed ");
    say(memcmp(slot->bytes + 16, bytes + 1, 8) == 0 && slot->bytes[15] == 0xff ? "there " : "not there ");
    say(port->program(SLOT, 20, bytes, 4) == 0 ? "twice " : "not twice ");
    say(port->slots[0].bytes[16] == 0 && slot[-1].bytes[slot[-1].count - 1] == 0 ? "apart;" : "not apart;");
    for (;;)
        port->idle();
}
"""


@pytest.mark.parametrize("slot", [1, 2])
@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_slots_in_sram_keep_to_the_rules_of_flash(stub: Build, tmp_path: Path, toolchain: Toolchain, slot: int) -> None:
    said, _ = said_in_qemu(stub("mps2-an386", SLOTS.replace("SLOT", str(slot)), toolchain), tmp_path)
    assert said == "erased wholly programmed there not twice apart;"


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_without_a_flash_controller_slots_fail_and_do_not_hang(stub: Build, tmp_path: Path, toolchain: Toolchain) -> None:
    """QEMU's netduinoplus2 has none."""
    said, _ = said_in_qemu(stub("stm32f405", SLOTS.replace("SLOT", "1"), toolchain), tmp_path)
    assert said == "not erased not wholly not programmed not there not twice apart;"


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_memory_functions_do_not_call_themselves(firmware: Build, toolchain: Toolchain) -> None:
    elffile = pytest.importorskip("elftools.elf.elffile")
    made = firmware("mps2-an386", toolchain)
    (path,) = (made.elf.parent / "objects").glob("port-memory-*.o")
    with path.open("rb") as file:
        elf = elffile.ELFFile(file)
        symbols = elf.get_section_by_name(".symtab")
        called = {
            (section.name.rpartition(".")[2], symbols.get_symbol(entry["r_info_sym"]).name)
            for section in elf.iter_sections()
            if section.name.startswith(".rel.text.")
            for entry in section.iter_relocations()
        }
    assert {pair for pair in called if pair[1].startswith("mem")} <= {("memmove", "memcpy")}


def command(board: str, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "tinyfl.cli", "build", "--board", board, "--out", str(out), *options]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent as a program of this machine."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler (cc) on the path")
    return build.build(boards.load("posix"), tmp_path_factory.mktemp("posix")).elf


@pytest.fixture
def begun(process: Path, tmp_path: Path) -> Path:
    """A folder named for the board posix, in which all is compiled and nothing linked."""
    shutil.copytree(process.parent / "objects", tmp_path / "posix" / "objects")
    return tmp_path / "posix"


def test_a_build_waits_for_another_in_its_folder_and_goes_on_when_that_one_is_killed(begun: Path) -> None:
    hold = "import sys, time; from pathlib import Path; from tinyfl.system import locks\n"
    hold += "with locks.exclusive(Path(sys.argv[1]), ''): print('held', flush=True); time.sleep(600)"
    (begun / build.LOCK).touch()
    with subprocess.Popen([sys.executable, "-c", hold, str(begun / build.LOCK)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with subprocess.Popen(command("posix", begun.parent), stderr=subprocess.PIPE, text=True) as waiting:
            assert waiting.stderr is not None
            assert waiting.stderr.readline() == f"tinyfl: another build is under way in {begun}; waiting for it\n"
            assert waiting.poll() is None
            assert not (begun / "posix.elf").exists()
            holder.kill()
            assert waiting.wait(120) == 0
    assert (begun / "posix.elf").exists()


def test_builds_of_different_things_in_one_folder_at_once_are_all_well(begun: Path, tmp_path: Path) -> None:
    count = len(list(begun.glob("objects/*.o")))
    options = [[], [], ["--source", str(source(tmp_path / "mine.c"))]]
    at_once = [
        subprocess.Popen(command("posix", tmp_path, *each), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for each in options
    ]
    said = [each.communicate(timeout=300)[1] for each in at_once]
    assert [each.returncode for each in at_once] == [0] * len(options), said
    assert len(list(begun.glob("objects/*.o"))) in (count, count + 1)  # of the last build alone


def test_an_elf_of_another_build_is_never_taken_for_ones_own(begun: Path) -> None:
    elf = build.build(boards.load("posix"), begun).elf
    own = elf.read_bytes()
    elf.write_bytes(own + b"another")
    assert build.build(boards.load("posix"), begun).elf.read_bytes() == own


def test_without_locks_a_build_is_as_good_and_leaves_alone_what_may_be_anothers(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    anothers = begun / "objects" / "core-of-another-build.o"
    anothers.touch()
    monkeypatch.setattr("fcntl.flock", none)
    assert build.build(boards.load("posix"), begun).elf.exists()
    assert anothers.exists()
    monkeypatch.undo()
    build.build(boards.load("posix"), begun)
    assert not anothers.exists()


def test_a_folder_that_cannot_be_written_is_told_with_a_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(build, "compiler", lambda *_: (["cc"], "1"))
    with pytest.raises(ConfigError, match=r"cannot write to the build folder .*file/posix .* Give --out a writable folder"):
        build.build(boards.load("posix"), tmp_path / "file" / "posix")


def hello(word: str) -> bytes:
    from smp.os_management import EchoWriteRequest
    from smpclient.transport.serial import Cobs

    return b"".join(Cobs().encode(EchoWriteRequest(d=word).BYTES))


def test_the_process_answers_on_its_standard_streams_and_ends_with_its_input(process: Path) -> None:
    done = subprocess.run([process, "--stdio"], input=hello("one") + hello("two"), capture_output=True, timeout=30)
    assert done.returncode == 0
    assert done.stdout.count(b"\0") == 2
    assert b"two" in done.stdout


@pytest.mark.parametrize("link", [["--pty"], ["--tcp", "0"]])
def test_a_client_of_the_process_may_leave_and_come_again(process: Path, tmp_path: Path, link: list[str]) -> None:
    from serial import serial_for_url
    from smp.os_management import ResetWriteRequest
    from smpclient.transport.serial import Cobs

    command = [process, *link, "--serial", "0x1122", "--slots", tmp_path / "slots"]
    agent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert agent.stdout
        url = agent.stdout.readline().strip()
        for word in ("first", "second", "third"):
            with serial_for_url(url, timeout=30) as port:
                port.write(hello(word))
                assert word.encode() in port.read_until(b"\0")
                port.write(b"".join(Cobs().encode(ResetWriteRequest().BYTES)) + hello("after the reset"))
                assert len(port.read_until(b"\0")) < 20
                assert b"after the reset" in port.read_until(b"\0")
        assert (tmp_path / "slots").read_bytes() == b"\xff" * ((1 << 21) + (1 << 17))
    finally:
        agent.kill()
        agent.wait()
        assert agent.stdout
        agent.stdout.close()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "usage: agent"),
        (["--pty", "--loud"], 2, "usage: agent"),
        (["--stdio", "--serial", "seven"], 1, "--serial"),
        (["--tcp", "70000"], 1, "--tcp"),
        (["--stdio", "--slots", "/nowhere/at/all"], 1, "/nowhere/at/all: No such file"),
    ],
)
def test_the_process_says_what_it_does_not_understand(process: Path, words: list[str], code: int, said: str) -> None:
    done = subprocess.run([process, *words], capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
