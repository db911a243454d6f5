"""A Raspberry Pi as a device: the agent as a program for aarch64, here under QEMU's user mode."""

import asyncio
import os
import platform
import select
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tools import needs, needs_tools

from tinyfl.algorithms import State
from tinyfl.building import boards
from tinyfl.building.toolchains import TOOLCHAINS, Toolchain
from tinyfl.config import resolve
from tinyfl.config.roster import Part
from tinyfl.core import FASTEST
from tinyfl.errors import ConfigError, InstallError
from tinyfl.flash.ways import demand_method
from tinyfl.fleets import emulation
from tinyfl.fleets.assembly import Training, assembled
from tinyfl.link.board import LinkedBoard
from tinyfl.link.status import Description
from tinyfl.link.wire import Opener, SerialWire
from tinyfl.networks import network
from tinyfl.simulators import qemu
from tinyfl.simulators.bridge import SPEEDS
from tinyfl.tasks import load_task

NAME = "raspberry-pi"
FIRST, HIGHEST = 115_200, 921_600
ROUNDS = 20


@pytest.fixture
def interpreter(emulators: None) -> str:
    """Skips without QEMU's user mode."""
    needs_tools(NAME, "qemu", "zig")
    return qemu.user_mode("aarch64")


def program(toolchain: Toolchain = "zig") -> Path:
    needs_tools(NAME, "qemu", toolchain)
    return emulation.firmware(boards.load(NAME), toolchain).elf


@contextmanager
def running(*command: str) -> Iterator[str]:
    """The url that an agent prints once it is up."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as agent:
        try:
            assert agent.stdout
            yield agent.stdout.readline().strip()
        finally:
            agent.kill()


def described(opener: Opener) -> Description:
    async def ask() -> Description:
        board = await LinkedBoard.connect(opener)
        await board.close()
        return board.description

    return asyncio.run(ask())


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_the_program_needs_nothing_else_on_the_device(interpreter: str, toolchain: Toolchain) -> None:
    from elftools.elf.elffile import ELFFile

    path = program(toolchain)
    with path.open("rb") as file:
        elf = ELFFile(file)
        assert (elf["e_machine"], elf["e_type"]) == ("EM_AARCH64", "ET_EXEC")
        assert not {segment["p_type"] for segment in elf.iter_segments()} & {"PT_INTERP", "PT_DYNAMIC"}


def test_a_pi_an_m4f_and_a_simulated_device_send_the_native_fleets_updates_for_20_rounds(interpreter: str) -> None:
    config = resolve({"task": "sine", "network": "mlp-16-16-tanh", "samples": 16, "devices": 3, "cohort": 3, "seed": 4})
    task = load_task("sine", None, config.seed)
    net = network(config.network, task.shape, task.outputs, task.loss, task.activation)
    algorithm, cohort = config.build(), np.arange(3, dtype=np.uint32)
    start = state = State(0, net.initial_weights(config.seed))
    work = Training(task, net, FASTEST, config.seconds)
    mixed, native = (Part(board=NAME), Part(board="mps2-an386"), Part(native=1)), (Part(native=3),)
    with assembled(mixed, work, lambda event: None) as (ours, _), assembled(native, work, lambda event: None) as (theirs, _):
        for round in range(ROUNDS):
            inner = algorithm.inner(round)
            each, same = (fleet.run_each(cohort, round, state.theta, inner) for fleet in (ours, theirs))
            assert (each.reasons, each.phi.tobytes()) == (("",) * 3, same.phi.tobytes())
            after, expected = (algorithm.outer(state, fleet.run(cohort, round, state.theta, inner)) for fleet in (ours, theirs))
            assert after.theta.tobytes() == expected.theta.tobytes()
            state = after
    assert not np.array_equal(state.theta, start.theta)


@pytest.mark.parametrize("link", emulation.LINKS)
def test_emulated_ones_answer_on_ptys_and_sockets(interpreter: str, link: str) -> None:
    with emulation.emulate(NAME, 2, link=link, first=7) as served:
        answers = [described(partial(SerialWire.open, each.url)) for each in served]
    assert [(each.board, each.id.hex()) for each in answers] == [(NAME, f"{number:016x}") for number in (7, 8)]


def test_its_id_is_the_machines_serial_number_unless_one_is_given(interpreter: str, tmp_path: Path) -> None:
    known = tmp_path / "proc" / "device-tree" / "serial-number"
    known.parent.mkdir(parents=True)
    known.write_bytes(b"10000000c0ffee42\0")  # as Raspberry Pi's bootloader has it
    command = [interpreter, "-L", str(tmp_path), str(program()), "--tcp", "127.0.0.1:0"]
    for words, id in (([], "10000000c0ffee42"), (["--serial", "5"], f"{5:016x}")):
        with running(*command, *words) as url:
            assert described(partial(SerialWire.open, url)).id.hex() == id


class Cable:
    """The far end of a device's terminal, with a baud rate."""

    first = FIRST
    patience = 30.0

    def __init__(self, line: int) -> None:
        self.line, self.baud = line, FIRST

    @property
    def of_device(self) -> int:
        return SPEEDS[termios.tcgetattr(self.line)[5]]

    async def open(self) -> "Cable":
        return self

    async def send(self, data: bytes) -> None:
        os.write(self.line, data)

    async def receive(self) -> bytes:
        await asyncio.to_thread(select.select, [self.line], [], [], 30)
        return os.read(self.line, 4096)

    async def tune(self, baud: int) -> None:
        self.baud = baud

    async def close(self) -> None:
        """The test closes it."""


def test_on_a_terminal_it_takes_the_highest_rate_that_works_and_returns(emulators: None) -> None:
    """The same program, for this machine: QEMU's user mode has no rate above 460,800."""
    needs("cc", "gcc libc6-dev")
    agent = emulation.firmware(boards.load("posix"), "zig").elf
    line, device = os.openpty()
    try:
        with running(str(agent), "--tty", os.ttyname(device)) as url:
            assert url == os.ttyname(device)
            cable = Cable(line)
            rates = [cable.of_device]

            async def script() -> None:
                board = await LinkedBoard.connect(cable.open)
                rates.append(cable.of_device)
                assert await board.echo("at speed") == "at speed"
                await board.close()
                rates.append(cable.of_device)

            asyncio.run(script())
    finally:
        os.close(line)
        os.close(device)
    assert rates == [FIRST, HIGHEST, FIRST]


def test_without_qemu_the_cure_comes_before_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(qemu.shutil, "which", lambda _: None)
    monkeypatch.setattr(emulation, "build", None)
    with pytest.raises(InstallError, match="qemu-aarch64, QEMU's user mode, is not installed: apt-get install qemu-user"):
        emulation.started(NAME).__enter__()


def test_on_a_raspberry_pi_it_needs_no_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu.shutil, "which", lambda _: None)
    for system, machine, engine in (("linux", "aarch64", "process"), ("linux", "x86_64", "qemu"), ("darwin", "arm64", "qemu")):
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        assert emulation.engines("aarch64")[0] == engine


def test_a_pi_is_not_flashed_and_the_cure_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"raspberry-pi is not flashed: .* tinyfl build --board raspberry-pi"):
        demand_method(boards.load(NAME))
