"""Makes the archive of one step with the tinyfl that is installed, an old one as a rule (README.md):

    python make.py STEP

or "files", from the repository's history alone, with any. The data of the runs lie in FOLDER, whose name stands in their files.
"""

import asyncio
import contextlib
import importlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

os.environ["TINYFL_CHECKPOINT_SECONDS"] = "0"

import tinyfl

FOLDER = Path("/tmp/tinyfl-upgrades")
HERE = Path(__file__).resolve().parent

SINE = {"task": "sine", "network": "mlp-4", "devices": 20, "cohort": 2, "tasks": 4, "shots": [5], "seed": 3, "rounds": 40}
DIGITS = {"task": "digits", "network": "mlp-4", "devices": 20, "cohort": 3, "tasks": 2, "shots": [1], "seed": 3, "rounds": 12}
OWN = {"task": "npz", "network": "mlp-4", "cohort": 2, "tasks": 4, "shots": [3], "seed": 3, "rounds": 40}
CLASSES, VALUES = {**OWN, "data": "classes.npz"}, {**OWN, "data": "values.npz"}
FLEET = [{"native": 15}, {"native": 5}]
SENSORS = [{"native": 4, "readings": str(FOLDER / "readings.npz")}]
STUDY = 'gradients = 1280\n[run]\ntask = "sine"\nnetwork = "mlp-4"\ntasks = 4\nshots = [5]\n[grid]\nseed = [0, 1]\n'

STEPS: dict[str, dict[str, dict[str, Any]]] = {
    "58d1526": {
        "sine": SINE,
        "fleet": {**SINE, "devices": None, "fleet": FLEET},
        "robust": {**DIGITS, "nodes": "devices", "robust": "median"},
        "classes": CLASSES,
        "values": VALUES,
    },
    "19871a7": {
        "sine": SINE,
        "robust": {**DIGITS, "nodes": "devices", "robust": "trimmed-mean", "tolerate": 0.4},
        "classes": CLASSES,
        "values": {**VALUES, "algorithm": "reptile"},
    },
    "0fcfd20": {
        "sine": {**SINE, "inner_lr": 0.02},
        "robust": {**DIGITS, "nodes": "devices", "aggregator": "median"},
        "values": VALUES,
    },
    "58b540f": {
        "sine": {**SINE, "rate": 0.02, "evaluate_every": 10, "patience": 9},
        "continued": {**SINE, "rounds": 20},
        "columns": {**OWN, "data": "rows.csv", "label_column": "what", "window": 2, "stride": 1, "missing": "mean"},
    },
    "274e266": {
        "sine": {**SINE, "outer_schedule": "cosine", "rate_schedule": "linear"},
        "sampling": {**DIGITS, "sampling": "dpp", "embedding": "means"},
        "episodes": {**OWN, "shots": [1], "data": "many.npz", "episodes": "classes", "ways": 2, "rounds": 20},
    },
    "13ec743": {
        "sine": {**SINE, "algorithm": "reptile", "outer_optimiser": "adam", "outer_step": 0.01},
        "protonet": {**DIGITS, "algorithm": "protonet", "network": "mlp-5"},
        "easy": {**DIGITS, "algorithm": "easy", "network": "mlp-5"},
        "maml": {**SINE, "algorithm": "maml", "network": "mlp-4-tanh"},
    },
    "b37e5b6": {
        "sine": {**SINE, "up": "int4", "feedback": True},
        "down": {**SINE, "up": "top:50", "down": "int8", "delta": True},
        "late": {**SINE, "buffer": 2, "slow": "0.33:10"},
        "kept": {**DIGITS, "algorithm": "tinymetafed", "local_start": "kept"},
    },
    "c3a8a87": {"sine": SINE},
    "be7d19e": {
        "noisy": {**DIGITS, "nodes": "devices", "update_clip": 1.0, "noise": 0.5},
        "sensor": {**OWN, "task": "sensor", "sensor": "imu", "data": "readings.npz", "source": "imu.c", "fleet": SENSORS},
    },
}  # fmt: skip
"""Of each commit the runs by name."""

STUDIES, FLASHES = ("274e266", "c3a8a87"), ("58d1526", "0fcfd20", "13ec743", "c3a8a87", "be7d19e")
ONLINE = ("be7d19e",)
"""The flashes with what the board learnt online, in the place of classes."""
BOARD = "microbit-v2"
DESCRIBE = "020801020103410204a0affd00"
"""The request, as in firmware/vectors.toml."""


def data(step: str) -> None:
    """The files of the runs with data of their own."""
    rng = np.random.default_rng(0)
    device = np.repeat(np.arange(10), 12)
    y = np.tile([3, 7], 60)
    x = np.round(5 + 20 * (rng.normal(size=(120, 2)) + 2 * (y == 7)[:, None]), 1)
    many = np.tile(np.arange(6), 20)
    arrays = {
        "classes.npz": {"x": x, "y": y},
        "values.npz": {"x": x, "y": np.round(x.sum(1) / 7, 2)},
        "many.npz": {"x": np.round(x + 9 * many[:, None], 1), "y": many},
    }
    for name in {options["data"] for options in STEPS[step].values() if "data" in options}:
        if name == "readings.npz":
            sys.path.insert(0, str(HERE.parents[1] / "tests" / "sensors"))
            imu = importlib.import_module("imu")
            imu.write_readings(FOLDER / name)
            imu.write_source(FOLDER / "imu.c")
        elif name in arrays:
            np.savez(FOLDER / name, device=device, **arrays[name])
        else:
            names = np.where(y == 7, "up", "down")
            order = np.lexsort((y, device))  # windows are of rows that follow each other
            rows = [f"{a},{b},{c},user{d}\n" for (a, b), c, d in zip(x[order], names[order], device[order], strict=True)]
            rows[5] = f",{rows[5].split(',', 1)[1]}"
            (FOLDER / name).write_text("".join(["a,b,what,user\n", *rows]))


def runs(step: str) -> None:
    """The runs of the step, each beside a copy of its directory as a kill after a checkpoint would leave it."""
    directory = first("tinyfl.runs.directory", "tinyfl.runs").RunDirectory
    save = directory.save_checkpoint

    def saved(self: Any, checkpoint: Any) -> None:
        save(self, checkpoint)
        path, rounds, changes = Path(self.path), options["rounds"], getattr(checkpoint, "next_sha256", "")
        stopped = path.with_name(f"{path.name}-stopped")
        if rounds // 2 <= checkpoint.state.round < rounds and not changes and not stopped.exists():
            shutil.copytree(path, stopped)
            print(name, "stopped after", checkpoint.state.round)

    directory.save_checkpoint = saved
    first("tinyfl.simulators.native").MAX_STRETCH = 5  # rounds from checkpoint to checkpoint, where it counts
    for name, options in STEPS[step].items():
        given = {key: FOLDER / value if key in ("data", "source") else value for key, value in options.items()}
        done = tinyfl.simulate(out=FOLDER / "runs" / name, threads=1, **given)
        if name == "continued":
            shutil.rmtree(FOLDER / "runs" / f"{name}-stopped", ignore_errors=True)
            options["rounds"] = 2 * options["rounds"]
            done = tinyfl.simulate(resume=FOLDER / "runs" / name, threads=1, rounds=options["rounds"])
        print(name, done.result["theta_sha256"][:8])
        assert (FOLDER / "runs" / f"{name}-stopped").exists()


def first(*names: str) -> Any:
    """The first of these modules that there is."""
    for name in names:
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise ImportError(names[0])


def program() -> bytes:
    """An int8 program: 4 values through a table (tests/firmware/programs.py)."""
    sys.path.insert(0, str(HERE.parents[1] / "tests" / "firmware"))
    table = bytes(range(255, -1, -1))
    return bytes(importlib.import_module("programs").program(table, 4))


def flash(step: str) -> None:
    """The flash of an emulated board with a committed model, a program and, where its firmware has any, classes and what it
    learnt online, without the firmware itself; and its description of itself as it goes over the line."""
    from tinyfl.link.board import LinkedBoard, floats
    from tinyfl.link.wire import MachineWire
    from tinyfl.networks import network
    from tinyfl.simulators.unicorn import Machine

    boards = first("tinyfl.building.boards", "tinyfl.boards")
    layers = first("tinyfl.networks.layers", "tinyfl.layers")
    net = network("mlp-5", (4,), 3, layers.Loss.softmax_cross_entropy, layers.Activation.relu)
    theta = net.initial_weights(7)
    board = boards.load(BOARD)
    elf = first("tinyfl.building.build", "tinyfl.build").build(board, FOLDER / "firmware").elf
    machine = Machine(elf, board, 1)

    async def work() -> None:
        link = await LinkedBoard.connect(MachineWire(machine).open)
        await link.put_plan(net.plan.bytes)
        await link.put_weights(2 * theta)
        await link.commit(sha256(floats(2 * theta)).digest())
        await link.put_weights(theta)
        await link.commit(sha256(floats(theta)).digest())
        await link.put_program(program())

    async def learn() -> None:
        link = await LinkedBoard.connect(MachineWire(machine).open)
        if step in ONLINE:
            await online(link, sha256(floats(theta)).digest())
        elif "classes" in vars(link.description):
            await classes(link, sha256(floats(theta)).digest())

    asyncio.run(work())
    machine.power_cycle()
    described = machine.exchange(bytes.fromhex(DESCRIBE))
    asyncio.run(learn())
    memory = board.memory
    held = bytearray(machine.snapshot().flash if hasattr(machine, "snapshot") else machine._flash.raw)
    start, end = (at - memory.flash.origin for at in (memory.application, memory.identity))
    held[start:end] = b"\xff" * (end - start)
    (FOLDER / "flash").mkdir()
    (FOLDER / "flash" / f"{BOARD}.bin").write_bytes(held)
    (FOLDER / "flash" / "described.hex").write_text(f"{described.hex()}\n")


async def classes(link: Any, sha: bytes) -> None:
    from tinyfl.link.classes import Classes, ClassSet

    told = Classes(link)
    await told.start(ClassSet("learner", sha, 4))
    await told.enrol(0, np.float32([1, 2, 3, 4]), "a cat")
    await told.enrol(1, np.float32([4, 3, 2, 1]), "a dog")
    await told.enrol(1, np.float32([4, 2, 2, 1]), "a dog")
    await told.commit()


async def online(link: Any, sha: bytes) -> None:
    from tinyfl.link.online import OnlineBoard, OnlineRecord
    from tinyfl.online import Head, OnlineSet

    board = OnlineBoard(link)
    await board.start(OnlineRecord("learner", sha, OnlineSet(Head.classes, 4, 3, 4).record, 1))
    for label, name in enumerate(("idle", "moving")):
        said = await board.sample(np.float32([1, 2, 3, 4 - 2 * label]))
        await board.label(said.number, label, name)
    await board.listen("sine")
    await board.commit()
    await board.listen("")
    await board.roll_back()
    (FOLDER / "learnt.hex").write_text(f"{(await board.learnt()).hex()}\n")


def study() -> None:
    """A study of two runs, of which the second is yet to be made."""
    (FOLDER / "small.toml").write_text(STUDY)
    command = [sys.executable, "-m", "tinyfl.cli", "study", "small.toml", "--out", "runs/study"]
    with contextlib.suppress(subprocess.TimeoutExpired):  # 274e266 does not always end after its table
        subprocess.run(command, cwd=FOLDER, check=True, stdout=subprocess.DEVNULL, timeout=120)
    made = sorted((FOLDER / "runs" / "study" / "runs").iterdir())
    print("study:", [each.name for each in made])
    shutil.copytree(FOLDER / "runs" / "study", FOLDER / "runs" / "study-stopped")
    shutil.rmtree(FOLDER / "runs" / "study-stopped" / "runs" / made[-1].name)
    for each in (FOLDER / "runs" / "study-stopped").iterdir():
        if each.is_file() and each.suffix in (".csv", ".json"):
            each.unlink()


LEFT_OUT = ("report.html", "lock", "study.html", "workers.log", "firmware", "runs.html")


def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """An entry of the archive, without what differs from one making to the next; None for what no test reads."""
    path = Path(entry.name)
    if path.name in LEFT_OUT or path.suffix == ".png":
        return None
    entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
    return entry


def pack(step: str) -> None:
    with tarfile.open(HERE / f"{step}.tar.xz", "w:xz", preset=9) as archive:
        archive.add(FOLDER, "", filter=kept)
    print((HERE / f"{step}.tar.xz").stat().st_size, "bytes")


def files() -> None:
    """The TOML files in the docs of each step, and its boards' manifests."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=HERE.parents[1], check=True, capture_output=True, text=True).stdout

    for step in STEPS:
        for name in git("ls-tree", "-r", "--name-only", step, "docs", "boards").splitlines():
            text = git("show", f"{step}:{name}") if name.endswith((".md", ".toml")) else ""
            found = re.findall(r'^```toml title="(\S+)"\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
            for title, block in [(name, text)] if name.endswith(".toml") else found:
                file = FOLDER / step / title
                file = file.with_stem(f"{file.stem}-2") if file.exists() else file
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block)


def main(step: str) -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    if step == "files":
        files()
    else:
        data(step)
        runs(step)
    if step in STUDIES:
        study()
    if step in FLASHES:
        flash(step)
    pack(step)


if __name__ == "__main__":
    main(sys.argv[1])
