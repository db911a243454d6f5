"""docs/boards.md, "A chip of your own", followed to the letter in a copy of the clone."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
from once import QUICKLY
from probe import need
from test_docs import ROOT, Block, blocks

PAGE = ROOT / "docs" / "boards.md"
HERE = Path(__file__).parents[1]
COPIED = ("CMakeLists.txt", "LICENSE", "README.md", "boards", "firmware", "pyproject.toml", "simulators", "tinyfl")

TALK = """
import asyncio, json, sys
from hashlib import sha256
from pathlib import Path
from tinyfl.building import boards
from tinyfl.link.board import LinkedBoard, floats
from tinyfl.link.wire import MachineWire
from tinyfl.networks import Activation, Loss, network
from tinyfl.simulators.unicorn import Machine

net = network("mlp-5", (1,), 1, Loss.mean_squared_error, Activation.relu)
machine = Machine(Path(sys.argv[1]), boards.load("toy"), 0x1122334455667788)

async def talk():
    board = await LinkedBoard.connect(MachineWire(machine).open)
    said = board.description
    await board.put_plan(net.plan.bytes)
    for theta in map(net.initial_weights, range(3)):  # the third takes the first's slot, which must be erased
        await board.put_weights(theta)
        await board.commit(sha256(floats(theta)).digest())
    machine.power_cycle()
    board = await LinkedBoard.connect(MachineWire(machine).open)
    kept = await board.weights(await board.status())
    return {"board": said.board, "clock": said.clock, "id": said.id.hex(), "kept": kept.tobytes() == theta.tobytes()}

print(json.dumps(asyncio.run(talk())))
"""


def section() -> list[Block]:
    """The blocks of the page's section."""
    text = PAGE.read_text()
    first = text[: text.index("## A chip of your own\n")].count("\n")
    return [block for block in blocks(PAGE) if block.line > first]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the clone, with the page's files in it."""
    for module in ("ziglang", "unicorn", "elftools", "scikit_build_core"):
        need(module)
    tree = tmp_path_factory.mktemp("clone")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tree / name)
    for block in section():
        if block.title:
            assert not (tree / block.title).exists()
            (tree / block.title).parent.mkdir(exist_ok=True)
            (tree / block.title).write_text(block.text)
    return tree


@pytest.fixture(scope="module")
def tool(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of an environment in which the copy is installed, and behind it all that this one has."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "behind.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "-q"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", *QUICKLY, "-e", tree], check=True)
    return folder / "bin"


MISTAKES = {
    "TINYFL_CLOCK / TINYFL_BAUD": ("TINYFL_CLOCK / TINYFL_BAUD / 2", "its input"),
    "FLASH(MODE) = FLASH_MODE__WRITE": ("FLASH(MODE) = FLASH_MODE__ERASE", "erased or written"),
    "FLASH(PAGE) = (uint32_t)": ("FLASH(PAGE) = 4 + (uint32_t)", "erased or written"),
}
"""In the port: lines, what stands there instead, and a word of the error."""


def run(words: list[Any], tree: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(HERE / "figureless")}
    return subprocess.run(words, cwd=tree, env=environment, check=True, capture_output=True, text=True).stdout


def talk(tree: Path, tool: Path) -> str:
    """What TALK prints with the tree's firmware."""
    run([tool / "tinyfl", "build", "--board", "toy", "--out", "firmware-of-toy"], tree)
    (elf,) = (tree / "firmware-of-toy").rglob("toy.elf")
    return run([tool / "python", "-c", TALK, elf], tree)


def test_the_page_lists_every_file() -> None:
    listed = re.findall(r"^\| `(.*?toy.*?)` \|", PAGE.read_text(), re.MULTILINE)
    assert listed == [block.title for block in section() if block.title]


def test_a_toy_chip_learns_to_the_same_bits_as_the_simulator(tree: Path, tool: Path) -> None:
    (script,) = (block.text for block in section() if block.language == "sh")
    install, *commands = script.splitlines()
    assert install.startswith("pip install -e ")
    for command in commands:
        program, *words = shlex.split(command)
        run([tool / program, *words, *(["--tasks", "20"] if words[0] == "run" else [])], tree)  # evaluated on fewer
    on_toy, without = (json.loads((tree / "runs" / name / "result.json").read_text()) for name in ("toy", "no-toy"))
    assert on_toy["theta_sha256"] == without["theta_sha256"]
    assert on_toy["boards"] and on_toy["left_out"] == {}


def test_a_toy_chip_describes_itself_and_keeps_its_model_without_power(tree: Path, tool: Path) -> None:
    said = json.loads(talk(tree, tool))
    assert said == {"board": "toy", "clock": 16_000_000, "id": "1122334455667788", "kept": True}


@pytest.mark.parametrize("line", MISTAKES)
def test_the_toys_model_does_not_forgive_its_port(tree: Path, tool: Path, line: str) -> None:
    port = tree / "firmware" / "ports" / "toy" / "toy.c"
    right, (wrong, word) = port.read_text(), MISTAKES[line]
    assert right.count(line) == 1
    port.write_text(right.replace(line, wrong))
    try:
        with pytest.raises(subprocess.CalledProcessError) as failed:
            talk(tree, tool)
    finally:
        port.write_text(right)
    assert word in failed.value.stderr.splitlines()[-1], failed.value.stderr


def test_the_toys_c_has_no_warning(tree: Path, tmp_path: Path) -> None:
    cc = shutil.which("cc")
    if cc is None:
        pytest.skip("needs a C compiler (cc): apt-get install gcc libc6-dev")
    flags = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-fsyntax-only"]
    run([cc, *flags, tree / "simulators" / "unicorn" / "toy.c"], tree)
